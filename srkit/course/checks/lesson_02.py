"""Lesson 02: a convolution, a sharpening kernel, SRCNN's layers, its sizes, and the start at the identity."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.course.checks.check import Check, module

# ---------------------------------------------------------------------------------- convolve


def _convolve(picture: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(picture[None, None], kernel[None, None], padding=len(kernel) // 2)[0, 0]


def _mirrored(picture: Tensor, kernel: Tensor) -> Tensor:
    reach = len(kernel) // 2
    return _valid(F.pad(picture[None], (reach,) * 4, "reflect")[0], kernel)


def _valid(picture: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(picture[None, None], kernel[None, None])[0, 0]


convolve = Check(
    "convolve",
    _convolve,
    lambda generator: [
        (torch.rand(height, width, generator=generator), torch.randn(k, k, generator=generator))
        for height, width, k in ((3, 3, 3), (6, 5, 3), (7, 9, 5))
    ],
    {
        "it is smaller than the picture: pad by half the kernel, k // 2, with zeros": _valid,
        "the kernel is turned around, as in signal processing: networks lay it on as it is": lambda picture, kernel: (
            _convolve(picture, kernel.flip(0, 1))
        ),
        "rows and columns of the kernel are exchanged": lambda picture, kernel: _convolve(picture, kernel.T),
        "you mirror the picture at its rim: here black lies beyond it": _mirrored,
        "it divides by the number of weights: add the products up": lambda picture, kernel: (
            _convolve(picture, kernel) / kernel.numel()
        ),
    },
)

# ---------------------------------------------------------------------------------- sharpen


def _sharpen(blur: Tensor, share: float) -> Tensor:
    return (1 + share) * _dot(blur) - share * blur


def _dot(blur: Tensor) -> Tensor:
    dot = torch.zeros_like(blur)
    dot[len(blur) // 2, len(blur) // 2] = 1
    return dot


def _corner(blur: Tensor, share: float) -> Tensor:
    corner = torch.zeros_like(blur)
    corner[0, 0] = 1 + share
    return corner - share * blur


def _blurs(generator: torch.Generator) -> list[tuple]:
    cases = []
    for side, share in ((3, 0.5), (5, 1.5), (9, 0.75)):
        blur = torch.rand(side, side, generator=generator)
        cases.append((blur / blur.sum(), share))
    return cases


sharpen = Check(
    "sharpen",
    _sharpen,
    _blurs,
    {
        "this is the detail alone, its numbers sum to 0: add the picture, 1 in the middle": lambda blur, share: (
            share * (_dot(blur) - blur)
        ),
        "it blurs: the blur is taken away, not added": lambda blur, share: (1 - share) * _dot(blur) + share * blur,
        "the whole is multiplied by the share: only the detail is": lambda blur, share: share * (2 * _dot(blur) - blur),
        "the share is ignored": lambda blur, share: _sharpen(blur, 1),
        "its numbers do not sum to 1, so flat places change: the middle is 1 + share": lambda blur, share: (
            _dot(blur) - share * blur
        ),
        "the 1 stands in a corner: the pixel itself lies under the middle": _corner,
        "every number has 1 added: the picture is a 1 in the middle alone": lambda blur, share: (
            1 + share - share * blur
        ),
    },
)

# ---------------------------------------------------------------------------------- SRCNN


class _SRCNN(nn.Module):
    def __init__(self, kernels: Sequence[int], channels: Sequence[int]):
        super().__init__()
        sizes = zip(itertools.pairwise([3, *channels, 3]), kernels, strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, k, padding=self.padding(k)) for (a, b), k in sizes)

    def padding(self, k: int) -> int:
        return k // 2

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class _Unpadded(_SRCNN):
    def padding(self, k: int) -> int:
        return 0


class _WidePadding(_SRCNN):
    def padding(self, k: int) -> int:
        return k - 1


class _LastReLU(_SRCNN):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class _NoReLU(_SRCNN):
    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(second(first(x)))


class _OneReLU(_SRCNN):
    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(second(F.relu(first(x))))


class _Residual(_SRCNN):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class _Sigmoid(_SRCNN):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(super().forward(x))


def _made(kind: Callable) -> Callable:
    return lambda x, kernels, channels: module(lambda: kind(kernels, channels))(x)


SRCNN = Check(
    "SRCNN",
    _SRCNN,
    lambda generator: [
        (torch.rand(1, 3, 24, 28, generator=generator), kernels, channels)
        for kernels, channels in (((5, 1, 3), (6, 4)), ((9, 5, 5), (8, 5)), ((3, 3, 5), (4, 7)))
    ],
    {
        "the padding is missing, it makes the picture smaller (a 9-5-5 by 16): padding=k // 2": _Unpadded,
        "too much padding, it makes the picture larger: k // 2 on each side": _WidePadding,
        "the output is never below 0: no ReLU or clamp behind the last layer, it would stop the gradient": _LastReLU,
        "the two ReLUs are missing: three layers without them are one filter": _NoReLU,
        "the second ReLU is missing": _OneReLU,
        "kernels and channels are always 9-5-5 and 64, 32: take the arguments": lambda kernels, channels: _SRCNN(
            (9, 5, 5), (64, 32)
        ),
        "it adds its input to its output: that is VDSR, two years later": _Residual,
        "there is a sigmoid at the end: SRCNN ends with the convolution": _Sigmoid,
    },
    _made,
)

# ---------------------------------------------------------------------------------- parameters and receptive field


def _parameters(kernels: Sequence[int], channels: Sequence[int], bias: int = 1, first: int = 3) -> int:
    pairs = itertools.pairwise([first, *channels, 3])
    return sum(k * k * a * b + bias * b for k, (a, b) in zip(kernels, pairs, strict=True))


def _sizes(generator: torch.Generator) -> list[tuple]:
    def odd(least: int) -> int:
        return 2 * int(torch.randint(least, least + 4, (), generator=generator)) + 1

    widths = [torch.randint(4, 90, (2,), generator=generator).tolist() for _ in range(3)]
    return [((3, 1, 5), (2, 4))] + [((odd(3), odd(1), odd(2)), tuple(width)) for width in widths]


parameters = Check(
    "parameters",
    _parameters,
    _sizes,
    {
        "the biases are missing: one for each output channel": lambda kernels, channels: _parameters(
            kernels, channels, 0
        ),
        "the first layer reads three colours, not one": lambda kernels, channels: _parameters(
            kernels, channels, first=1
        ),
        "a kernel has k · k numbers, not k": lambda kernels, channels: sum(
            k * a * b + b for k, (a, b) in zip(kernels, itertools.pairwise([3, *channels, 3]), strict=True)
        ),
        "each kernel reads every channel that comes in: k · k · in · out": lambda kernels, channels: sum(
            k * k * b + b for k, b in zip(kernels, [*channels, 3], strict=True)
        ),
        "the last layer, which makes three colours, is missing": lambda kernels, channels: sum(
            k * k * a * b + b for k, (a, b) in zip(kernels, itertools.pairwise([3, *channels]), strict=False)
        ),
        "one bias for each weight is too many: one for each output channel": lambda kernels, channels: (
            2 * _parameters(kernels, channels, 0)
        ),
    },
)


receptive_field = Check(
    "receptive_field",
    lambda kernels: 1 + sum(k - 1 for k in kernels),
    lambda generator: [(kernels,) for kernels, _ in _sizes(generator)] + [((3,) * 8,), ((7,),)],
    {
        "the kernels overlap in a pixel: each adds k - 1, not k": sum,
        "the pixel itself is missing: 1 + the sum of k - 1": lambda kernels: sum(k - 1 for k in kernels),
        "this is how far it sees to one side: the square is twice that, plus 1": lambda kernels: sum(
            k // 2 for k in kernels
        ),
        "this is the largest kernel: later layers see further": max,
        "this is the area: its side is asked for": lambda kernels: (1 + sum(k - 1 for k in kernels)) ** 2,
    },
)

# ---------------------------------------------------------------------------------- identity


def _identity(weight: Tensor) -> Tensor:
    weight, middle = weight.clone(), weight.shape[-1] // 2
    weight[:3] = 0
    weight[range(3), range(3), middle, middle] = 1
    return weight


def _all_colours(weight: Tensor) -> Tensor:
    weight, middle = _identity(weight), weight.shape[-1] // 2
    weight[:3, :3, middle, middle] = 1
    return weight


def _in_the_corner(weight: Tensor) -> Tensor:
    weight = _identity(weight)
    weight[:3] = 0
    weight[range(3), range(3), 0, 0] = 1
    return weight


def _old_numbers(weight: Tensor) -> Tensor:
    weight, middle = weight.clone(), weight.shape[-1] // 2
    weight[range(3), range(3), middle, middle] = 1
    return weight


def _everywhere(weight: Tensor) -> Tensor:
    weight = weight.clone()
    weight[:3] = 0
    weight[range(3), range(3)] = 1
    return weight


def _others_zero(weight: Tensor) -> Tensor:
    weight = _identity(weight)
    weight[3:] = 0
    return weight


identity = Check(
    "identity",
    _identity,
    lambda generator: [
        (torch.randn(*shape, generator=generator),) for shape in ((4, 3, 3, 3), (6, 5, 5, 5), (5, 8, 1, 1))
    ],
    {
        "each colour takes from all three: output i from input i alone": _all_colours,
        "the 1 stands in a corner and moves the picture: put it in the middle, k // 2": _in_the_corner,
        "the three kernels keep their random numbers: 0 everywhere else": _old_numbers,
        "1 at all places of the kernel is a blur: in the middle alone": _everywhere,
        "the other kernels are 0, too, and would never learn different things: leave them": _others_zero,
    },
)
