"""Hyper-parameters that a training can tune: each a name, a range, and what its strength does.

    gray = Hyper("gray", 0, 1, act=lambda low, strength, generator: …)

Strengths come as one number for each picture of a batch, so that one step sees many of them at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from srkit.data.degradation import add_noise, soften
from srkit.settings import SRKitError

Act = Callable[[Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Hyper:
    """One hyper-parameter.

    Training never differentiates what it does: it may round, draw at random, or not be smooth at all.

    Args:
        name: a word.
        least, most: its range, which it never leaves; more than 0 where it is `log`.
        start: where it begins; by default at a third of the range, for at its end it may not act at all: a blur of 0.3
            pixels changes nothing, and has no gradient.
        act: for "low": (low (N, 3, h, w) in [0, 1], strength (N,) on the CPU, generator on the CPU) to pictures of that
            shape.
        at: what it acts on. "low": LR pictures; "view": how strongly the data set warps each patch (`data.Warp`);
            "features": the rate of `response.Dropout`; "weights": the factor of the sum of all squared weights in the
            loss.
        log: its logarithm moves, for what ranges over powers of ten.

    Raises:
        SRKitError: a range or start that is none, or an `act` that is missing.
    """

    name: str
    least: float
    most: float
    start: float | None = None
    act: Act | None = None
    at: Literal["low", "view", "features", "weights"] = "low"
    log: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.least < self.most < math.inf or (self.log and self.least <= 0):
            above = ", above 0 for its logarithm" if self.log else ""
            raise SRKitError(
                f"{self.name}: the range {self.least:g} to {self.most:g} is none: give least < most{above}"
            )
        if self.start is None:
            object.__setattr__(self, "start", self._value(1 / 3))
        elif not self.least < self.start < self.most:
            raise SRKitError(
                f"{self.name} starts at {self.start:g}, outside of its range: choose one inside of {self.least:g} to "
                f"{self.most:g}, not at its end, where nothing moves"
            )
        if (self.at == "low") != (self.act is not None):
            raise SRKitError(f"{self.name}: what acts at 'low', on LR pictures, needs act=…, and nothing else does")

    def value(self, raw: Tensor) -> Tensor:
        """From anywhere on the line, where the optimiser moves it, to the range: a stretched sigmoid."""
        return self._value(torch.sigmoid(raw))

    def raw(self, value: float) -> float:
        """The inverse of `value`."""
        if self.log:
            share = math.log(value / self.least) / math.log(self.most / self.least)
        else:
            share = (value - self.least) / (self.most - self.least)
        share = min(max(share, 1e-6), 1 - 1e-6)
        return math.log(share / (1 - share))

    def _value(self, share):  # a number or a tensor
        if self.log:
            return self.least * (self.most / self.least) ** share
        return self.least + (self.most - self.least) * share

    @property
    def config(self) -> list:
        """What a checkpoint remembers of it."""
        return [self.name, self.least, self.most, self.at, self.log]


BLUR = Hyper("blur", 0.1, 3.0, act=soften)  # standard deviation in pixels of LR
NOISE = Hyper("noise", 0.0, 0.1, act=add_noise)  # standard deviation, of values in [0, 1]
WARP = Hyper("warp", 0.0, 1.0, at="view")
DROPOUT = Hyper("dropout", 0.0, 0.3, at="features")
WEIGHT_DECAY = Hyper("weight_decay", 1e-7, 1e-2, at="weights", log=True)
HYPERS = (BLUR, NOISE, WARP, DROPOUT, WEIGHT_DECAY)


def check(hypers: Sequence[Hyper]) -> None:
    """Refuse a set of hyper-parameters of which two cannot be told apart, or none.

    Raises:
        SRKitError: it is.
    """
    names = [hyper.name for hyper in hypers]
    if not names:
        raise SRKitError("no hyper-parameter to tune: give at least one, e.g. hyper.NOISE")
    if len({*names}) < len(names):
        raise SRKitError(f"two hyper-parameters of one name among {', '.join(names)}: rename one")
    for place in ("view", "features", "weights"):
        if len(rivals := [hyper.name for hyper in hypers if hyper.at == place]) > 1:
            raise SRKitError(f"{' and '.join(rivals)} both act at {place!r}: keep one of them")
