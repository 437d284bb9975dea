"""Lesson 10: merging parallel convolutions into one."""

from __future__ import annotations

import torch
from torch import Tensor

from srkit.course.checks.check import Check


def _merge(square: Tensor, point: Tensor, identity: bool) -> Tensor:
    kernel = square.clone()
    kernel[:, :, 1, 1] += point[:, :, 0, 0]
    if identity:
        kernel[:, :, 1, 1] += torch.eye(len(kernel))
    return kernel


def _cases(generator: torch.Generator) -> list[tuple]:
    def kernels(count: int) -> tuple[Tensor, Tensor]:
        return (
            torch.randn(count, count, 3, 3, generator=generator),
            torch.randn(count, count, 1, 1, generator=generator),
        )

    return [(*kernels(1), False), (*kernels(3), False), (*kernels(4), True)]


def _everywhere(square: Tensor, point: Tensor, identity: bool) -> Tensor:
    return square + point + _merge(torch.zeros_like(square), torch.zeros_like(point), identity)


def _corner(square: Tensor, point: Tensor, identity: bool) -> Tensor:
    kernel = _merge(square, torch.zeros_like(point), identity)
    kernel[:, :, :1, :1] += point
    return kernel


def _ones(square: Tensor, point: Tensor, identity: bool) -> Tensor:
    kernel = _merge(square, point, False)
    kernel[:, :, 1, 1] += float(identity)
    return kernel


merge = Check(
    "merge",
    _merge,
    _cases,
    {
        "the 1 x 1 kernel stands at all nine places: the middle, [:, :, 1, 1], reads the pixel itself": _everywhere,
        "the 1 x 1 kernel stands in a corner: the middle, [:, :, 1, 1], reads the pixel itself": _corner,
        "the 1 x 1 kernel is missing": lambda square, point, identity: _merge(
            square, torch.zeros_like(point), identity
        ),
        "the identity is missing": lambda square, point, identity: _merge(square, point, False),
        "the identity is always added: only if `identity`": lambda square, point, identity: _merge(square, point, True),
        "the identity mixes all channels: output channel i takes from input channel i alone (torch.eye)": _ones,
    },
)
