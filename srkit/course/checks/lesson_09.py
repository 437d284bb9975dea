"""Lesson 09: what Gram matrices keep, the two terms of style transfer, and instance normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from srkit.course.checks.check import Check
from srkit.course.checks.lesson_04 import gram


def _shuffle(picture: Tensor, side: int, order: Sequence[int]) -> Tensor:
    colours, height, width = picture.shape
    down, across = height // side, width // side
    squares = picture.reshape(colours, down, side, across, side).permute(1, 3, 0, 2, 4).flatten(0, 1)[list(order)]
    return squares.reshape(down, across, colours, side, side).permute(2, 0, 3, 1, 4).reshape(colours, height, width)


def _pictures(generator: torch.Generator) -> list[tuple]:
    def case(down: int, across: int, side: int) -> tuple[Tensor, int, list[int]]:
        picture = torch.rand(3, down * side, across * side, generator=generator)
        order = torch.randperm(down * across, generator=generator).tolist()
        return picture, side, [*order[1:], order[0]] if order == sorted(order) else order

    return [(torch.rand(3, 2, 6, generator=generator), 2, [1, 2, 0]), case(2, 3, 2), case(3, 4, 5)]


def _backwards(picture: Tensor, side: int, order: Sequence[int]) -> Tensor:
    return _shuffle(picture, side, torch.tensor(order).argsort().tolist())


def _columns(picture: Tensor, side: int, order: Sequence[int]) -> Tensor:
    return _shuffle(picture.transpose(1, 2), side, order).transpose(1, 2)


shuffle = Check(
    "shuffle",
    _shuffle,
    _pictures,
    {
        "it moves each square the other way: place k shows the square order[k]": _backwards,
        "it counts down the columns: squares are counted row by row, as one reads": _columns,
        "it leaves every square where it was": lambda picture, side, order: picture.clone(),
    },
)


def _style_loss(grams: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    terms = [(one - two).square().sum() / two.square().sum() for one, two in zip(grams, wanted, strict=True)]
    return torch.stack(terms).mean()


def _layers(generator: torch.Generator) -> list[tuple]:
    def matrices(*sides: int) -> list[Tensor]:
        return [side * torch.rand(1, side, side, generator=generator) + 0.1 for side in sides]

    return [(matrices(*sides), matrices(*sides)) for sides in ((2,), (3, 5), (2, 4, 8))]


def _by(term: Callable[[Tensor, Tensor], Tensor], total: bool = False) -> Callable:
    def wrong(grams: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        terms = torch.stack([term(one, two) for one, two in zip(grams, wanted, strict=True)])
        return terms.sum() if total else terms.mean()

    return wrong


style_loss = Check(
    "style_loss",
    _style_loss,
    _layers,
    {
        "it is not relative: divide each layer's by the sum of the squares of the style's own matrix": _by(
            lambda one, two: (one - two).square().sum()
        ),
        "it is the mean squared difference, not relative: divide by the mean square of the style's matrix": _by(
            lambda one, two: (one - two).square().mean()
        ),
        "it divides by the output's own matrix: the style's is the measure": _by(
            lambda one, two: (one - two).square().sum() / one.square().sum()
        ),
        "it takes roots: sums of squares, without the square root": _by(
            lambda one, two: (one - two).norm() / two.norm()
        ),
        "it sums over the layers: the mean, or more layers weigh more": _by(
            lambda one, two: (one - two).square().sum() / two.square().sum(), total=True
        ),
    },
)


def _content_loss(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).square().mean() / wanted.square().mean()


def _pairs(generator: torch.Generator) -> list[tuple]:
    shapes = [(1, 1, 2, 2), (1, 3, 4, 5), (2, 6, 3, 7)]
    return [tuple(torch.rand(*shape, generator=generator) * factor for factor in (1, 3)) for shape in shapes]


content_loss = Check(
    "content_loss",
    _content_loss,
    _pairs,
    {
        "it is not relative: divide by the mean square of the content's own maps": lambda found, wanted: (
            (found - wanted).square().mean()
        ),
        "it divides by the output's maps: the content's are the measure": lambda found, wanted: (
            (found - wanted).square().mean() / found.square().mean()
        ),
        "it takes the root: a mean of squares, without the square root": lambda found, wanted: _content_loss(
            found, wanted
        ).sqrt(),
        "it compares Gram matrices: the content is what stands where": lambda found, wanted: _style_loss(
            [gram.own(found)], [gram.own(wanted)]
        ),
    },
)


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, over: tuple[int, ...] = (2, 3), unbiased: int = 0) -> Tensor:
    mean, variance = x.mean(over, keepdim=True), x.var(over, correction=unbiased, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight[:, None, None] + bias[:, None, None]


def _normed(generator: torch.Generator) -> list[tuple]:
    def case(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
        weight, bias = torch.randn(2, shape[1], generator=generator)
        return 3 * torch.randn(*shape, generator=generator) + 2, weight, bias

    return [case(2, 2, 3, 3), case(2, 3, 4, 5), case(3, 4, 6, 4)]


instance_norm = Check(
    "instance_norm",
    _normalise,
    _normed,
    {
        "it is batch normalisation: each picture has its own mean, so not over dimension 0": lambda x, weight, bias: (
            _normalise(x, weight, bias, (0, 2, 3))
        ),
        "it is layer normalisation: each channel has its own mean, so not over dimension 1": lambda x, weight, bias: (
            _normalise(x, weight, bias, (1, 2, 3))
        ),
        "its variance divides by H W - 1: take var(…, correction=0)": lambda x, weight, bias: _normalise(
            x, weight, bias, unbiased=1
        ),
        "weight and bias are missing: they say how strong each channel becomes": lambda x, weight, bias: _normalise(
            x, torch.ones_like(weight), torch.zeros_like(bias)
        ),
        "it divides by the variance: by its square root": lambda x, weight, bias: (
            (x - x.mean((2, 3), keepdim=True))
            / (x.var((2, 3), correction=0, keepdim=True) + 1e-5)
            * weight[:, None, None]
            + bias[:, None, None]
        ),
        "the bias comes before the weight: normalise, times weight, plus bias": lambda x, weight, bias: (
            _normalise(x, torch.ones_like(weight), bias) * weight[:, None, None]
        ),
    },
)
