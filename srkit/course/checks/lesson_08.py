"""Lesson 08: ranges, perturbations, the response of a layer, the step of a hyper-parameter, and one of one's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from srkit.course.checks.check import Check

# ---------------------------------------------------------------------------------- λ on a line


def _to_range(raw: Tensor, least: float, most: float) -> Tensor:
    return least + (most - least) * torch.sigmoid(raw)


def _raws(generator: torch.Generator) -> list[tuple]:
    return [(torch.randn(count, generator=generator), *span) for count, span in ((1, (0.1, 3.0)), (4, (2.0, 7.0)))]


to_range = Check(
    "to_range",
    _to_range,
    _raws,
    {
        "it lies between 0 and 1: stretch the sigmoid to `most - least`": lambda raw, least, most: torch.sigmoid(raw),
        "it begins at 0: add `least`": lambda raw, least, most: (most - least) * torch.sigmoid(raw),
        "it goes beyond `most`: stretch by `most - least`": lambda raw, least, most: least + most * torch.sigmoid(raw),
        "it is cut off at the ends, where no gradient is left: use torch.sigmoid": lambda raw, least, most: raw.clamp(
            least, most
        ),
    },
)


def _perturb(raw: Tensor, spread: Tensor, noise: Tensor) -> Tensor:
    return raw + F.softplus(spread) * noise


def _noises(generator: torch.Generator) -> list[tuple]:
    return [
        (torch.randn(count, generator=generator), torch.randn(count, generator=generator), noise)
        for count, noise in ((1, torch.randn(2, 1, generator=generator)), (3, torch.randn(5, 3, generator=generator)))
    ]


perturb = Check(
    "perturb",
    _perturb,
    _noises,
    {
        "the spread may be negative: softplus keeps it above 0": lambda raw, spread, noise: raw + spread * noise,
        "λ itself is missing: raw + …": lambda raw, spread, noise: F.softplus(spread) * noise,
        "every example gets the same: times `noise`": lambda raw, spread, noise: (raw + F.softplus(spread)).expand(
            noise.shape
        ),
        "this is exp: softplus grows no faster than its argument": lambda raw, spread, noise: (
            raw + spread.exp() * noise
        ),
    },
)


# ---------------------------------------------------------------------------------- the response


def _respond(x: Tensor, weight: Tensor, kernel: Tensor, gate: Tensor, delta: Tensor) -> Tensor:
    return x @ weight + (delta @ gate) * (x @ kernel)


def _layers(generator: torch.Generator) -> list[tuple]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return [
        (draw(count, features), draw(features), draw(features), draw(hypers), draw(count, hypers))
        for count, features, hypers in ((1, 2, 1), (3, 4, 2), (5, 3, 3))
    ]


respond = Check(
    "respond",
    _respond,
    _layers,
    {
        "the layer itself is missing: x @ weight + …": lambda x, weight, kernel, gate, delta: (
            (delta @ gate) * (x @ kernel)
        ),
        "delta is not used: each example's change is (delta @ gate)": lambda x, weight, kernel, gate, delta: (
            x @ weight + x @ kernel
        ),
        "all examples share one change: each has its own, (delta @ gate) of shape (N,)": (
            lambda x, weight, kernel, gate, delta: x @ weight + (delta.mean(0) @ gate) * (x @ kernel)
        ),
        "the change multiplies the output: it belongs to x @ kernel": lambda x, weight, kernel, gate, delta: (
            (1 + delta @ gate) * (x @ weight)
        ),
        "it does not depend on x: the change of the weights acts on x, x @ kernel": (
            lambda x, weight, kernel, gate, delta: x @ weight + (delta @ gate) * kernel.sum()
        ),
    },
)


def _hyper_step(raw: Tensor, weight: Tensor, kernel: Tensor, gate: Tensor, x: Tensor, y: Tensor, lr: float) -> Tensor:
    error = x @ weight - y
    return raw - lr * 2 * (error * (x @ kernel)).mean() * gate


def _validations(generator: torch.Generator) -> list[tuple]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return [
        (draw(hypers), draw(features), draw(features), draw(hypers), draw(count, features), draw(count), lr)
        for count, features, hypers, lr in ((2, 2, 1, 0.5), (4, 3, 2, 0.1), (6, 3, 1, 0.3))
    ]


def _uphill(raw: Tensor, *rest) -> Tensor:
    return 2 * raw - _hyper_step(raw, *rest)


def _without_lr(raw: Tensor, weight: Tensor, kernel: Tensor, gate: Tensor, x: Tensor, y: Tensor, lr: float) -> Tensor:
    return _hyper_step(raw, weight, kernel, gate, x, y, 1.0)


def _of_sum(raw: Tensor, *rest) -> Tensor:
    return raw + (_hyper_step(raw, *rest) - raw) * len(rest[4])


def _weight_moved(raw: Tensor, weight: Tensor, kernel: Tensor, gate: Tensor, x: Tensor, y: Tensor, lr: float) -> Tensor:
    error = x @ weight - y
    return raw - lr * 2 * (error * (x @ weight)).mean() * gate


hyper_step = Check(
    "hyper_step",
    _hyper_step,
    _validations,
    {
        "it climbs: minus the gradient": _uphill,
        "lr is not used": _without_lr,
        "it returns the gradient alone: the new raw is raw - lr * gradient": lambda raw, *rest: (
            (raw - _hyper_step(raw, *rest)) / rest[-1]
        ),
        "this is the gradient of the sum of squares: the loss is their mean": _of_sum,
        "raw stays as it is: its gradient comes through the changed weights, weight + (delta @ gate) * kernel": (
            lambda raw, *rest: raw.clone()
        ),
        "it is the weights themselves that it scales: λ changes them along `kernel`": _weight_moved,
    },
)


# ---------------------------------------------------------------------------------- one of one's own


def _fade(low: Tensor, strength: Tensor, generator: torch.Generator | None = None) -> Tensor:
    strength = strength.view(-1, 1, 1, 1).to(low)
    return (1 - strength) * low + strength * low.mean(1, keepdim=True)


def _pictures(generator: torch.Generator) -> list[tuple]:
    return [
        (torch.rand(count, 3, *size, generator=generator), torch.rand(count, generator=generator), None)
        for count, size in ((1, (1, 2)), (2, (2, 3)), (3, (4, 2)))
    ]


def _shared(low: Tensor, strength: Tensor, generator: None) -> Tensor:
    return _fade(low, strength.mean().expand(len(low)))


fade = Check(
    "fade",
    _fade,
    _pictures,
    {
        "all pictures share one strength: strength.view(-1, 1, 1, 1)": _shared,
        "strength is not used: 0 leaves the colours, 1 takes all": lambda low, strength, generator: _fade(
            low, torch.ones_like(strength)
        ),
        "the wrong way round: 0 leaves the colours, 1 takes all": lambda low, strength, generator: _fade(
            low, 1 - strength
        ),
        "it darkens: the grey, low.mean(1, keepdim=True), is missing": lambda low, strength, generator: (
            (1 - strength.view(-1, 1, 1, 1)) * low
        ),
        "grey is the mean of the three colours of each pixel, not of the picture: low.mean(1, keepdim=True)": (
            lambda low, strength, generator: (
                (1 - strength.view(-1, 1, 1, 1)) * low + strength.view(-1, 1, 1, 1) * low.mean((1, 2, 3), keepdim=True)
            )
        ),
    },
)
