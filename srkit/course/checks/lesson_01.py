"""Lesson 01: degradation, splits, a data set of pairs, and collating labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srkit.course.checks.check import Check

# ---------------------------------------------------------------------------------- degrade


def _degrade(high: Tensor, scale: int, mode: str = "bicubic", antialias: bool = True, rounding: Any = torch.round):
    low = F.interpolate(high[None], scale_factor=1 / scale, mode=mode, antialias=antialias)[0]
    return rounding(low.clamp(0, 1) * 255) / 255


def _highs(generator: torch.Generator) -> list[tuple]:
    """Noise, and black and white blocks, at whose edges bicubic overshoots."""
    blocks = torch.rand(3, 5, 5, generator=generator).round().repeat_interleave(6, 1).repeat_interleave(6, 2)
    noise = [
        (torch.rand(3, scale * side, scale * side, generator=generator), scale) for scale, side in ((2, 2), (4, 6))
    ]
    return [*noise, (blocks, 2), (blocks, 3)]


def _unrounded(high: Tensor, scale: int) -> Tensor:
    return F.interpolate(high[None], scale_factor=1 / scale, mode="bicubic", antialias=True)[0]


def _unclipped(high: Tensor, scale: int) -> Tensor:
    return (_unrounded(high, scale) * 255).round() / 255


degrade = Check(
    "degrade",
    _degrade,
    _highs,
    {
        "it is not antialiased, so that fine stripes become coarse ones: antialias=True": lambda high, scale: _degrade(
            high, scale, antialias=False
        ),
        "it is neither antialiased nor rounded: antialias=True, then round to 256 levels": lambda high, scale: (
            F.interpolate(high[None], scale_factor=1 / scale, mode="bicubic")[0]
        ),
        "LR is neither clamped nor rounded: bicubic overshoots, and a file has 256 levels": _unrounded,
        'this is the mean over squares of pixels: F.interpolate with mode="bicubic"': lambda high, scale: (
            (F.avg_pool2d(high, scale) * 255).round() / 255
        ),
        'this is bilinear: mode="bicubic"': lambda high, scale: _degrade(high, scale, "bilinear"),
        "it takes every scale-th pixel and leaves out the others: average them, by F.interpolate": lambda high, scale: (
            (high[:, ::scale, ::scale] * 255).round() / 255
        ),
        "LR is not rounded to the 256 levels of a file: round 255 times LR": lambda high, scale: _degrade(
            high, scale, rounding=lambda x: x
        ),
        "the levels are cut off, not rounded: every pixel becomes half a level darker": lambda high, scale: _degrade(
            high, scale, rounding=torch.floor
        ),
        "bicubic overshoots, and a file holds 0 to 255 only: clamp": _unclipped,
        "LR has values to 255: divide by 255 after rounding": lambda high, scale: _degrade(high, scale) * 255,
        "the levels of a file are 0 to 255: 255, not 256": lambda high, scale: (
            (_unrounded(high, scale).clamp(0, 1) * 256).round() / 256
        ),
    },
)

# ---------------------------------------------------------------------------------- split


def _split(scenes: Sequence[str], count: int) -> tuple[list[int], list[int]]:
    chosen: list[str] = []
    for scene in scenes:
        if sum(other in chosen for other in scenes) < count and scene not in chosen:
            chosen.append(scene)
    test = [i for i, scene in enumerate(scenes) if scene in chosen]
    return [i for i in range(len(scenes)) if i not in test], test


def _scenes(generator: torch.Generator) -> list[tuple]:
    def cases(pictures: int, scenes: int, count: int) -> tuple[list[str], int]:
        numbers = torch.cat([torch.arange(scenes), torch.randint(scenes, (pictures - scenes,), generator=generator)])
        order = torch.randperm(pictures, generator=generator)
        return [f"scene {number}" for number in numbers[order].tolist()], count

    # Two by hand: the second picture of a scene comes last; a scene goes on after another has begun.
    return [(["cat", "cup", "bike", "cat"], 1), (["cat", "cup", "cat", "bike"], 3), cases(9, 4, 3), cases(12, 8, 5)]


def _by_picture(scenes: Sequence[str], count: int) -> tuple[list[int], list[int]]:
    return list(range(count, len(scenes))), list(range(count))


def _count_of_scenes(scenes: Sequence[str], count: int) -> tuple[list[int], list[int]]:
    chosen = list(dict.fromkeys(scenes))[:count]
    test = [i for i, scene in enumerate(scenes) if scene in chosen]
    return [i for i in range(len(scenes)) if i not in test], test


def _one_more(scenes: Sequence[str], count: int) -> tuple[list[int], list[int]]:
    test = set(_split(scenes, count)[1])
    left = next((scene for i, scene in enumerate(scenes) if i not in test), None)
    test |= {i for i, scene in enumerate(scenes) if scene == left}
    return [i for i in range(len(scenes)) if i not in test], sorted(test)


def _scene_by_scene(scenes: Sequence[str], count: int) -> tuple[list[int], list[int]]:
    train, test = _split(scenes, count)
    return train, sorted(test, key=lambda i: list(scenes).index(scenes[i]))


split = Check(
    "split",
    _split,
    _scenes,
    {
        "one scene is on both sides: take whole scenes, also their pictures that come later": _by_picture,
        "these are the last pictures, and one scene is on both sides": lambda scenes, count: (
            list(range(len(scenes) - count)),
            list(range(len(scenes) - count, len(scenes))),
        ),
        "`count` is of pictures, not of scenes: stop as soon as test has that many": _count_of_scenes,
        "train and test are the wrong way round": lambda scenes, count: _split(scenes, count)[::-1],
        "one scene too many: all pictures of the chosen scenes count, those passed already, too": _one_more,
        "the numbers of test are not in ascending order: sort them": _scene_by_scene,
        "it returns the scenes' names: return the pictures' numbers": lambda scenes, count: tuple(
            [scenes[i] for i in side] for side in _split(scenes, count)
        ),
    },
)

# ---------------------------------------------------------------------------------- Pairs


class _Pairs(torch.utils.data.Dataset):
    def __init__(self, paths: Sequence[Any], read: Callable[[Any], Tensor], scale: int):
        self.paths, self.read, self.scale = paths, read, scale

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        high = self.read(self.paths[index])
        return _degrade(high, self.scale), high


class _Eager(_Pairs):
    def __init__(self, paths: Sequence[Any], read: Callable[[Any], Tensor], scale: int):
        super().__init__([read(path) for path in paths], lambda high: high, scale)


class _Swapped(_Pairs):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        low, high = super().__getitem__(index)
        return high, low


class _HighTwice(_Pairs):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        _, high = super().__getitem__(index)
        return high, high


class _ReadTwice(_Pairs):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return _degrade(self.read(self.paths[index]), self.scale), self.read(self.paths[index])


class _First(_Pairs):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return super().__getitem__(0)


class _Endless(_Pairs):
    def __len__(self) -> int:
        return len(self.paths) - 1


def _items(kind: Callable) -> Callable:
    """A class of data sets as a function: its length, how often it read before and for one item, and all items."""

    def items(pictures: Tensor, scale: int) -> Any:
        asked: list[int] = []

        def read(index: int) -> Tensor:
            asked.append(index)
            return pictures[index]

        dataset = kind(list(range(len(pictures))), read, scale)
        early = len(asked)
        if dataset is ... or dataset[0] is None:
            return None
        once = len(asked) - early
        return [len(dataset), early, once, *(dataset[i] for i in range(len(pictures)))]

    return items


Pairs = Check(
    "Pairs",
    _Pairs,
    lambda generator: [(torch.rand(scale, 3, 12, 12, generator=generator), scale) for scale in (2, 3, 4)],
    {
        "it reads every picture in __init__, and a large set never ends: read in __getitem__": _Eager,
        "the pair is the wrong way round: (low, high)": _Swapped,
        "low is as large as high: degrade it": _HighTwice,
        "it returns the first pair for every index": _First,
        "it reads the picture twice: read it once, and keep it": _ReadTwice,
        "__len__ is one too few: it is the number of paths": _Endless,
    },
    _items,
)

# ---------------------------------------------------------------------------------- collate


def _collate(batch: Sequence[tuple[Tensor, Tensor]], padding: float = -1.0) -> tuple[Tensor, Tensor]:
    pictures, labels = zip(*batch, strict=True)
    padded = torch.full((len(batch), max(map(len, labels)), 5), padding)
    for rows, mine in zip(labels, padded, strict=True):
        mine[: len(rows)] = rows
    return torch.stack(pictures), padded


def _labelled(generator: torch.Generator) -> list[tuple]:
    return [
        ([(torch.rand(3, 4, 4, generator=generator), torch.rand(count, 5, generator=generator)) for count in counts],)
        for counts in ((1, 0, 2), (0, 3, 1), (2, 2, 0, 4, 1))
    ]


def _shortest(batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    pictures, padded = _collate(batch)
    return pictures, padded[:, : min(len(labels) for _, labels in batch)]


def _at_the_front(batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    pictures, padded = _collate(batch)
    for (_, labels), mine in zip(batch, padded, strict=True):
        mine[:] = mine.roll(len(mine) - len(labels), 0)
    return pictures, padded


collate = Check(
    "collate",
    _collate,
    _labelled,
    {
        "you fill up with 0, which is a class and a place: with -1": lambda batch: _collate(batch, 0.0),
        "it cuts all lists to the shortest, so that objects are lost: fill up to the longest": _shortest,
        "the rows of -1 stand before the real ones: put them behind": _at_the_front,
        "the picture's number comes first, (N, longest, 5): batch_first=True": lambda batch: (
            _collate(batch)[0],
            _collate(batch)[1].transpose(0, 1),
        ),
        "these are whole numbers, as -1 is one: fill up with -1.0": lambda batch: (
            _collate(batch)[0],
            _collate(batch)[1].trunc().long(),
        ),
        "the labels are one long list: nobody knows any more whose they are": lambda batch: (
            torch.stack([picture for picture, _ in batch]),
            torch.cat([labels for _, labels in batch]),
        ),
        "the labels are still a list: make one tensor (N, longest, 5)": lambda batch: (
            torch.stack([picture for picture, _ in batch]),
            [labels for _, labels in batch],
        ),
    },
)
