"""The rules of a contest or an assignment, as a teacher writes them into `contest.toml`."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from srkit.data import ImageDataset, load_dataset, sources
from srkit.data.images import check_scale
from srkit.settings import SRKitError, unknown

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Rules:
    """What is allowed, until when, and how it is marked.

    Raises:
        SRKitError: a scale other than 2, 3 or 4, a time without a time zone, or a curve that is none.
    """

    title: str = "Super-resolution"
    # By how much to enlarge: 2, 3 or 4.
    scale: int = 4
    # Most parameters, frozen ones included; 0: any number.
    parameters: int = 0
    # The only pictures to train on, a data set or a folder, and how many of them; "" and 0: any.
    pictures: str = ""
    most_pictures: int = 0
    # Whether training may start from a pretrained network, and whether a self-ensemble may be measured.
    pretrained: bool = True
    ensemble: bool = False
    # Whether students define the network in model.py: measuring then needs --run-code.
    own_network: bool = False
    # The pictures, a data set or a folder that everybody has, on which handing in measures and marking repeats it.
    validation: str = "bundled"
    # Marks lost for each day begun after the deadline, and at most; after the hard deadline nothing counts.
    deadline: datetime | None = None
    hard_deadline: datetime | None = None
    penalty: float = 10
    most_penalty: float = 30
    # Marks to reach for the code and for the results.
    code: float = 40
    results: float = 60
    # Points (dB above bicubic, share of the results' marks), with straight lines between; gains are first rounded down
    # to multiples of `step` dB, if given. ranked: the share follows from the rank instead, 1 for the first.
    curve: Sequence[Sequence[float]] = ((0.0, 0.5), (1.0, 1.0))
    step: float = 0.0
    ranked: bool = False
    # What the code marks are for, besides: signed figures, an executed notebook, these of the lessons' checks.
    figures: int = 1
    notebook: bool = True
    checks: Sequence[str] = ()
    # What measuring one submission may take: seconds, and memory and its largest file in gigabytes.
    seconds: float = 600
    memory: float = 4.0
    file_size: float = 0.2

    def __post_init__(self) -> None:
        check_scale(self.scale)
        for name in ("deadline", "hard_deadline"):
            time = getattr(self, name)
            if time is not None and not (isinstance(time, datetime) and time.tzinfo):
                raise SRKitError(f"{name} needs a time and its zone: 2026-12-01T23:59:00+01:00")
        gains = [point[0] for point in self.curve if len(point) == 2]
        if not gains or len(gains) != len(self.curve) or gains != sorted(set(gains)):
            raise SRKitError("curve is a list of [dB above bicubic, share] with rising dB: [[0.0, 0.5], [1.0, 1.0]]")

    def lost(self, time: datetime | None) -> float:
        """Marks lost by handing in at this time: all of them after the hard deadline, none if no time is known."""
        if self.too_late(time):
            return self.code + self.results
        if time is None or self.deadline is None:
            return 0.0
        return min(self.most_penalty, self.penalty * max(0, math.ceil((time - self.deadline) / DAY)))

    def too_late(self, time: datetime | None) -> bool:
        """Whether it came after the hard deadline."""
        return bool(time and self.hard_deadline and time > self.hard_deadline)

    def share(self, gain: float) -> float:
        """Of the results' marks, for so many dB above bicubic: 0 below the curve's first point."""
        if self.step:  # the small number undoes what the subtraction of two means rounded
            gain = self.step * math.floor(gain / self.step + 1e-6)
        points = [tuple(point) for point in self.curve]
        if gain < points[0][0] - 1e-9 or math.isnan(gain):
            return 0.0
        for (left, low), (right, high) in pairwise(points):
            if gain <= right:
                return low + (high - low) * (max(gain, left) - left) / (right - left)
        return points[-1][1]


def read(path: str | Path) -> Rules:
    """The rules in a contest.toml.

    Raises:
        SRKitError: no such file, no TOML, a rule nobody knows, or a value of another kind than its default's.
    """
    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError:
        raise SRKitError(f"{path}: no such file: `srkit handout` writes a contest.toml to start from") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SRKitError(f"{path}: {error}") from None
    known = {field.name: field.default for field in fields(Rules)}
    for name, value in found.items():
        if name not in known:
            raise unknown("rule", name, known)
        kind = type(known[name])
        like = {float: (int, float), int: int, tuple: list, type(None): datetime}.get(kind, kind)
        if not isinstance(value, like) or (isinstance(value, bool) and kind is not bool):
            raise SRKitError(f"{path}: {name} = {value!r}: write it as in the example, {known[name]!r}")
    try:
        return Rules(**found)
    except (SRKitError, TypeError) as error:
        raise SRKitError(f"{path}: {error}") from None


def pictures(source: str, split: str) -> ImageDataset:
    """A data set's "val" or "test" pictures if it has some; all pictures of a folder or of another data set."""
    has = source in sources.SOURCES and getattr(sources.split(source), split)
    return load_dataset(source, split if has else "all")
