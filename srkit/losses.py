"""Every loss of the course, term by term, and `WeightedLoss`, which adds them up.

A term compares `output` with `high`, both (N, 3, H, W) in [0, 1], and returns one number to minimise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

from srkit.errors import SRKitError, unknown

Term = Callable[[Tensor, Tensor], Tensor]


def mse(output: Tensor, high: Tensor) -> Tensor:
    """Mean squared error over all pixels and colours (SRCNN, arXiv 1501.00092, eq. 4)."""
    return (output - high).square().mean()


def l1(output: Tensor, high: Tensor) -> Tensor:
    """Mean absolute error: cares less for single large errors than `mse`."""
    return (output - high).abs().mean()


def charbonnier(output: Tensor, high: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(error² + epsilon²): `l1` with a round tip, so that its gradient is smooth at zero.

    Lai et al., LapSRN, arXiv 1704.03915, eq. 2; epsilon = 0.001 as there.
    """
    return ((output - high).square() + epsilon**2).sqrt().mean()


def psnr(output: Tensor, high: Tensor) -> Tensor:
    """1 / PSNR, with the PSNR of each picture in dB over RGB, averaged over the batch.

    Smaller is better: 0.0361 is 27.7 dB. An error under one hundredth of a grey level counts as that.
    """
    error = (output - high).square().flatten(1).mean(1).clamp(min=(0.01 / 255) ** 2)
    return (-math.log(10) / 10 / error.log()).mean()


TERMS: dict[str, Term] = {"mse": mse, "l1": l1, "charbonnier": charbonnier, "psnr": psnr}


class WeightedLoss:
    """The weighted sum of terms: loss = Σ weight · term. A term that weighs 0 is not computed.

    Args:
        weights: weight of each term by name, e.g. {"mse": 1, "l1": 0.1}; each finite and >= 0.
        terms: where the names are looked up; TERMS unless your own are given.

    `weights` may be changed between steps: the next call reads them.

    Raises:
        SRKitError: an unknown term (the message says the nearest), a negative or infinite weight, or
            no term at all that weighs more than 0.
    """

    def __init__(self, weights: Mapping[str, float], terms: Mapping[str, Term] = TERMS) -> None:
        self.terms, self.weights = dict(terms), dict(weights)
        for name, weight in self.weights.items():
            if name not in self.terms:
                raise unknown("loss", name, self.terms)
            if not (math.isfinite(weight) and weight >= 0):
                raise SRKitError(f"the weight of {name} is {weight}: give a number that is 0 or more")
        if not any(self.weights.values()):
            raise SRKitError("every loss weighs 0: give at least one a weight, e.g. mse 1")

    def __call__(self, output: Tensor, high: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the sum, to call backward() on, and each term raw ("mse") and weighted ("weighted/mse"), detached.

        Raises:
            SRKitError: output and high differ in shape (broadcasting would hide it).
        """
        if output.shape != high.shape:
            raise SRKitError(f"output {tuple(output.shape)} and high {tuple(high.shape)} differ in shape")
        raw = {name: self.terms[name](output, high) for name, weight in self.weights.items() if weight}
        weighted = {f"weighted/{name}": self.weights[name] * value for name, value in raw.items()}
        return sum(weighted.values()), {name: value.detach() for name, value in {**raw, **weighted}.items()}
