"""Lesson 10: merging convolutions, a teacher's target, whole-number weights, and the Pareto front."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from srkit.course.checks.check import Check


def _merge(square: Tensor, point: Tensor, identity: bool) -> Tensor:
    kernel = square.clone()
    kernel[:, :, 1, 1] += point[:, :, 0, 0]
    if identity:
        kernel[:, :, 1, 1] += torch.eye(len(kernel))
    return kernel


def _kernels(generator: torch.Generator) -> list[tuple]:
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
    _kernels,
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


# ---------------------------------------------------------------------------- a batch normalisation, merged


def _merge_norm(kernel: Tensor, bias: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return kernel * scale[:, None, None, None], (bias - norm.running_mean) * scale + norm.bias


def _norms(generator: torch.Generator) -> list[tuple]:
    def case(count: int) -> tuple[Tensor, ...]:
        kernel = torch.randn(count, count, 3, 3, generator=generator)
        bias, weight, shift, mean = (torch.randn(count, generator=generator) for _ in range(4))
        return kernel, bias, weight, shift, mean, torch.rand(count, generator=generator) + 0.5

    return [case(1), case(3), case(4)]


def _with_norm(answer: Callable) -> Callable:
    """An answer, given a module with these numbers."""

    def merged(kernel: Tensor, bias: Tensor, weight: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Any:
        norm = nn.BatchNorm2d(len(bias), eps=0.1).eval()  # so large that it is missed where it is forgotten
        values = {"weight": weight, "bias": shift, "running_mean": mean, "running_var": variance}
        norm.load_state_dict(values | {"num_batches_tracked": torch.tensor(1)})
        with torch.no_grad():
            return answer(kernel, bias, norm)

    return merged


def _changed(norm: Any, **values: Any) -> Any:
    norm = copy.deepcopy(norm)
    for name, value in values.items():
        setattr(norm, name, value)
    return norm


def _input_channels(kernel: Tensor, bias: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return kernel * scale[:, None, None], _merge_norm(kernel, bias, norm)[1]


def _unscaled(kernel: Tensor, bias: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return _merge_norm(kernel, bias, norm)[0], bias - norm.running_mean * scale + norm.bias


merge_norm = Check(
    "merge_norm",
    _merge_norm,
    _norms,
    {
        "eps is missing: the root is of running_var + eps": lambda kernel, bias, norm: _merge_norm(
            kernel, bias, _changed(norm, eps=0.0)
        ),
        "it divides by the variance: the root is missing": lambda kernel, bias, norm: _merge_norm(
            kernel, bias, _changed(norm, running_var=(norm.running_var + norm.eps) ** 2 - norm.eps)
        ),
        "the norm's own weight is missing": lambda kernel, bias, norm: _merge_norm(
            kernel, bias, _changed(norm, weight=nn.Parameter(torch.ones_like(norm.weight)))
        ),
        "the norm's own bias is missing": lambda kernel, bias, norm: _merge_norm(
            kernel, bias, _changed(norm, bias=nn.Parameter(torch.zeros_like(norm.weight)))
        ),
        "the running mean is not subtracted": lambda kernel, bias, norm: _merge_norm(
            kernel, bias, _changed(norm, running_mean=torch.zeros_like(norm.running_mean))
        ),
        "the factors are on the input's channels: the output's come first, s[:, None, None, None]": _input_channels,
        "the convolution's bias is normalised, too: (bias - mean) * s": _unscaled,
        "the kernel stays as it was: each filter times its s": lambda kernel, bias, norm: (
            kernel.clone(),
            _merge_norm(kernel, bias, norm)[1],
        ),
    },
    _with_norm,
)


# ------------------------------------------------------------------------------------ a teacher's target


def _teach(high: Tensor, answer: Tensor, share: float) -> Tensor:
    return share * answer + (1 - share) * high


def _answers(generator: torch.Generator) -> list[tuple]:
    return [
        (torch.rand(shape, generator=generator), torch.rand(shape, generator=generator), share)
        for shape, share in (((1, 1, 1, 2), 0.3), ((1, 3, 4, 4), 0.8), ((2, 3, 4, 6), 0.25))
    ]


teach = Check(
    "teach",
    _teach,
    _answers,
    {
        "the shares are exchanged: `share` is the teacher's": lambda high, answer, share: _teach(answer, high, share),
        "share is not used": lambda high, answer, share: (high + answer) / 2,
        "it is too bright: the ground truth has what is left, 1 - share": lambda high, answer, share: (
            high + share * answer
        ),
        "the ground truth is missing": lambda high, answer, share: answer.clone(),
    },
)


# ------------------------------------------------------------------------------------------ fewer bits


def _quantised(weight: Tensor, bits: int) -> Tensor:
    step = weight.abs().amax((1, 2, 3), keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / step).round() * step


def _filters(generator: torch.Generator) -> list[tuple]:
    return [
        (torch.randn(shape, generator=generator) * torch.rand(shape[0], 1, 1, 1, generator=generator), bits)
        for shape, bits in (((1, 1, 1, 3), 3), ((4, 2, 3, 3), 4), ((3, 3, 3, 3), 6))
    ]


def _by_step(change: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """A wrong answer that differs in its step."""

    def wrong(weight: Tensor, bits: int) -> Tensor:
        step = change(weight, bits)
        return (weight / step).round() * step

    return wrong


def _cut(weight: Tensor, bits: int) -> Tensor:
    step = weight.abs().amax((1, 2, 3), keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / step).trunc() * step


quantised = Check(
    "quantised",
    _quantised,
    _filters,
    {
        "all filters share one step: the largest of each, .amax((1, 2, 3), keepdim=True)": _by_step(
            lambda weight, bits: weight.abs().max() / (2 ** (bits - 1) - 1)
        ),
        "so many bits count from 0 up: one bit is the sign, 2 ** (bits - 1) - 1": _by_step(
            lambda weight, bits: weight.abs().amax((1, 2, 3), keepdim=True) / (2**bits - 1)
        ),
        "the largest whole number is 2 ** (bits - 1) - 1: with 8 bits 127, for 0 is one, too": _by_step(
            lambda weight, bits: weight.abs().amax((1, 2, 3), keepdim=True) / 2 ** (bits - 1)
        ),
        "negative weights are larger than the largest: take abs() first": _by_step(
            lambda weight, bits: weight.amax((1, 2, 3), keepdim=True) / (2 ** (bits - 1) - 1)
        ),
        "these are the whole numbers: times the step they are weights again": lambda weight, bits: (
            weight / (weight.abs().amax((1, 2, 3), keepdim=True) / (2 ** (bits - 1) - 1))
        ).round(),
        "it cuts off: round() goes to the nearest": _cut,
    },
)


# ------------------------------------------------------------------------------------- the Pareto front


Points = Sequence[tuple[float, float]]  # (cost, gain)


def _pareto(points: Points) -> Points:
    best, chosen = float("-inf"), []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if gain > best:
            best, chosen = gain, [*chosen, (cost, gain)]
    return chosen


def _points(generator: torch.Generator) -> list[tuple]:
    def some(count: int) -> Points:
        return [(round(a, 2), round(b, 2)) for a, b in (1 + 9 * torch.rand(count, 2, generator=generator)).tolist()]

    many = some(12)
    cost, gain = max(many, key=lambda point: point[1])
    # Two of one cost, cheaper than all, and one as good as the best and dearer.
    return [([(1.0, 2.0), (2.0, 1.0)],), (some(3),), ([(0.5, 0.1), *many, (0.5, 0.3), (cost + 1, gain)],)]


def _each_no_worse(points: Points) -> Points:
    best, chosen = float("-inf"), []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if gain >= best:
            best, chosen = gain, [*chosen, (cost, gain)]
    return chosen


def _ties(points: Points) -> Points:
    best, chosen = float("-inf"), []
    for cost, gain in sorted(points):
        if gain > best:
            best, chosen = gain, [*chosen, (cost, gain)]
    return chosen


pareto = Check(
    "pareto",
    _pareto,
    _points,
    {
        "as good and dearer is not on the front: a point must have more gain than all cheaper ones": _each_no_worse,
        "of two that cost the same only the better one is on the front": _ties,
        "the order is wrong: from cheap to dear": lambda points: _pareto(points)[::-1],
        "all are there: those are left out that another beats in both": lambda points: sorted(points),
        "this is the best one alone: cheaper ones that nothing beats belong to it": lambda points: [
            _pareto(points)[-1]
        ],
        "this is the front where dear is good: the first number is a cost": lambda points: [
            (-cost, gain) for cost, gain in _pareto([(-cost, gain) for cost, gain in points])
        ][::-1],
    },
)
