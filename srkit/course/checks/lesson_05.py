"""Lesson 05: blocks, two outputs, their loss, their cost, and the skip around a whole network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.course.checks.check import Check, module

# ---------------------------------------------------------------------------------- a loss, a cost, a skip


def _inverse_psnr(output: Tensor, high: Tensor) -> Tensor:
    return (1 / _psnr(output, high)).mean()


def _psnr(output: Tensor, high: Tensor) -> Tensor:
    return -10 * (output - high).square().flatten(1).mean(1).log10()


def _noisy(generator: torch.Generator) -> list[tuple]:
    """Pictures, and the same with little noise, more in each that follows."""
    pairs = []
    for shape in ((1, 1, 2, 2), (2, 3, 4, 4), (3, 3, 5, 4)):
        high, noise = torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)
        pairs.append((high + noise * torch.logspace(-2.5, -1, len(high)).view(-1, 1, 1, 1), high))
    return pairs


inverse_psnr = Check(
    "inverse_psnr",
    _inverse_psnr,
    _noisy,
    {
        "this is PSNR itself, which grows as pictures get better: 1 / PSNR": lambda output, high: _psnr(
            output, high
        ).mean(),
        "this is of the mean error: first the PSNR of each picture, then the mean": lambda output, high: _inverse_psnr(
            output.flatten()[None], high.flatten()[None]
        ),
        "this is 1 / mean PSNR: the mean of 1 / PSNR": lambda output, high: 1 / _psnr(output, high).mean(),
        "log is the natural logarithm: log10": lambda output, high: _inverse_psnr(output, high) / math.log(10),
        "the sign is wrong: PSNR = -10 log10(MSE)": lambda output, high: -_inverse_psnr(output, high),
        "the 10 is missing: PSNR = -10 log10(MSE)": lambda output, high: 10 * _inverse_psnr(output, high),
        "it returns a number for each picture: mean()": lambda output, high: 1 / _psnr(output, high),
    },
)


def _multiply_adds(kernel: int, inputs: int, outputs: int, height: int, width: int) -> int:
    return kernel**2 * inputs * outputs * height * width


multiply_adds = Check(
    "multiply_adds",
    _multiply_adds,
    lambda generator: [
        tuple(torch.randint(2, 9, (5,), generator=generator).tolist()),
        tuple(torch.randint(9, 40, (5,), generator=generator).tolist()),
    ],
    {
        "a kernel has kernel² taps": lambda k, inputs, outputs, h, w: k * inputs * outputs * h * w,
        "these are the weights: each is used once for every pixel": lambda k, inputs, outputs, h, w: (
            k**2 * inputs * outputs
        ),
        "each output channel reads all input channels: times `inputs`": lambda k, inputs, outputs, h, w: (
            k**2 * outputs * h * w
        ),
        "every output channel has kernels of its own: times `outputs`": lambda k, inputs, outputs, h, w: (
            k**2 * inputs * h * w
        ),
        "a multiply-add counts once, not as two operations": lambda *arguments: 2 * _multiply_adds(*arguments),
    },
)


def _enlarge(low: Tensor, scale: int, mode: str = "bilinear", **options: Any) -> Tensor:
    return F.interpolate(low, scale_factor=scale, mode=mode, **options)


def _with_skip(outputs: Sequence[Tensor], low: Tensor, enlarge: Callable = _enlarge) -> tuple[Tensor, ...]:
    return tuple(output + enlarge(low, output.shape[-1] // low.shape[-1]) for output in outputs)


def _two_outputs_and_low(generator: torch.Generator) -> list[tuple]:
    def pictures(count: int, side: int) -> tuple:
        low, mid, large = (
            torch.randn(count, 3, times * side, times * side, generator=generator) for times in (1, 2, 4)
        )
        return (mid, large), low

    return [pictures(1, 2), pictures(2, 5)]


with_skip = Check(
    "with_skip",
    _with_skip,
    _two_outputs_and_low,
    {
        "low is enlarged by repeating pixels: mode='bilinear'": partial(
            _with_skip, enlarge=partial(_enlarge, mode="nearest")
        ),
        "low is enlarged with align_corners=True, which moves it: leave that out": partial(
            _with_skip, enlarge=partial(_enlarge, align_corners=True)
        ),
        "low is doubled twice for the large output, which blurs it twice: by 4 in one go": partial(
            _with_skip, enlarge=lambda low, scale: _enlarge(low, 2) if scale == 2 else _enlarge(_enlarge(low, 2), 2)
        ),
        "the outputs are missing in the sum": lambda outputs, low: _with_skip([0 * one for one in outputs], low),
        "the large output goes without: add to each": lambda outputs, low: (_with_skip(outputs, low)[0], outputs[1]),
        "nothing is added": lambda outputs, low: outputs,
    },
)


# ---------------------------------------------------------------------------------- blocks


def _conv(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)


class _Residual(nn.Module):
    def __init__(self, channels: int, output: Callable = lambda x, change: x + change, activation: Callable = F.relu):
        super().__init__()
        self.first, self.second = _conv(channels, channels), _conv(channels, channels)
        self.output, self.activation = output, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.output(x, self.second(self.activation(self.first(x))))


class _Dilated(nn.Module):
    def __init__(
        self, channels: int, dilations: Sequence[int] = (1, 2, 4), inner=F.relu, outer=F.relu, add: bool = False
    ):
        super().__init__()
        self.convs = nn.ModuleList(_conv(channels, channels, dilation) for dilation in dilations)
        self.merge = nn.Conv2d(3 * channels, channels, 1)
        self.inner, self.outer, self.add = inner, outer, add

    def forward(self, x: Tensor) -> Tensor:
        output = self.outer(self.merge(torch.cat([self.inner(conv(x)) for conv in self.convs], 1)))
        return output + x if self.add else output


class _DilatedChain(_Dilated):
    """One convolution after another, and what each of them gives."""

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for conv in self.convs:
            x = F.relu(conv(x))
            maps.append(x)
        return F.relu(self.merge(torch.cat(maps, 1)))


def _of_class(answer: Callable) -> Callable:
    """A class with the argument `channels` as a function of its input."""
    return module(lambda: answer(4))


def _maps(generator: torch.Generator) -> list[tuple]:
    return [(torch.randn(1, 4, 9, 9, generator=generator),), (torch.randn(2, 4, 12, 10, generator=generator),)]


def _identity(x: Tensor) -> Tensor:
    return x


Residual = Check(
    "Residual",
    _Residual,
    _maps,
    {
        "the input is not added: x + …": partial(_Residual, output=lambda x, change: change),
        "there is no ReLU between the convolutions: two of them are one": partial(_Residual, activation=_identity),
        "ReLU stands after the sum: then the block can't take away": partial(
            _Residual, output=lambda x, change: F.relu(x + change)
        ),
        "ReLU stands after the second convolution: then the block can only add": partial(
            _Residual, output=lambda x, change: x + F.relu(change)
        ),
        "the input is added twice": partial(_Residual, output=lambda x, change: 2 * x + change),
        "the sign is wrong: x + …": partial(_Residual, output=lambda x, change: x - change),
    },
    _of_class,
)

Dilated = Check(
    "Dilated",
    _Dilated,
    _maps,
    {
        "all three have dilation 1: nn.Conv2d(…, dilation=d)": partial(_Dilated, dilations=(1, 1, 1)),
        "the dilations are 1, 2, 3: double each time, 1, 2, 4": partial(_Dilated, dilations=(1, 2, 3)),
        "one convolution reads the other: side by side, each reads x": _DilatedChain,
        "ReLU is missing before the merge": partial(_Dilated, inner=_identity),
        "ReLU is missing after the merge": partial(_Dilated, outer=_identity),
        "it adds its input: this block is no residual one": partial(_Dilated, add=True),
    },
    _of_class,
)


# ---------------------------------------------------------------------------------- two outputs


class _TwoOutputs(nn.Module):
    def __init__(self, channels: int, activation: Callable = F.relu, end: Callable = torch.sigmoid):
        super().__init__()
        self.first, self.second = _conv(3, channels), _conv(channels, channels)
        self.mid, self.large = nn.Conv2d(channels, 3, 1), nn.Conv2d(channels, 3, 1)
        self.activation, self.end = activation, end

    def forward(self, low: Tensor) -> tuple[Tensor, Tensor]:
        return self.outputs(self.activation(self.second(self.activation(self.first(low)))))

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        twice = _enlarge(x, 2)
        return self.end(self.mid(twice)), self.end(self.large(_enlarge(twice, 2)))


class _OneMix(_TwoOutputs):
    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        twice = _enlarge(x, 2)
        return self.end(self.mid(twice)), self.end(self.mid(_enlarge(twice, 2)))


class _MidEnlarged(_TwoOutputs):
    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mid, _ = super().outputs(x)
        return mid, _enlarge(mid, 2)


class _AtOnce(_TwoOutputs):
    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.end(self.mid(_enlarge(x, 2))), self.end(self.large(_enlarge(x, 4)))


class _Swapped(_TwoOutputs):
    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mid, large = super().outputs(x)
        return large, mid


class _LargeAlone(_TwoOutputs):
    def outputs(self, x: Tensor) -> Any:
        return super().outputs(x)[1]


def _lows(generator: torch.Generator) -> list[tuple]:
    return [(torch.rand(1, 3, 4, 4, generator=generator),), (torch.rand(2, 3, 6, 5, generator=generator),)]


TwoOutputs = Check(
    "TwoOutputs",
    _TwoOutputs,
    _lows,
    {
        "both outputs come from one 1 x 1 convolution: each has its own, mid and large": _OneMix,
        "large is mid's picture enlarged: enlarge the feature maps again, and mix those": _MidEnlarged,
        "large is enlarged by 4 at once: enlarge mid's feature maps by 2 again": _AtOnce,
        "the order is mid, large": _Swapped,
        "it returns large alone: return mid, large": _LargeAlone,
        "the sigmoid is missing at the end": partial(_TwoOutputs, end=_identity),
        "ReLU is missing after the two 3 x 3 convolutions": partial(_TwoOutputs, activation=_identity),
    },
    _of_class,
)
