"""Lesson 03: the training loop, its losses, the average of the weights and the schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from srkit.course.checks.check import Check

Weights = dict[str, Tensor]

# ---------------------------------------------------------------------------------- the loop


def train_model(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable, loss: Callable, skip: str = ""
) -> Tensor:
    """The loop; `skip` leaves out a line of it, which is how most wrong loops come about."""
    losses = []
    for low, high in batches:
        if skip != "zero_grad":
            optimizer.zero_grad()
        pair = (high, model(low)) if skip == "order" else (model(low), high)
        value = (model(low) - high).square().mean() if skip == "loss" else loss(*pair)
        value.backward()
        if skip != "step":
            optimizer.step()
        losses.append(value if skip == "detach" else value.detach())
    return losses if skip == "stack" else torch.stack(losses)  # pyright: ignore[reportReturnType]


def small_network(weight: Tensor) -> nn.Linear:
    model = nn.Linear(*weight.shape, bias=False)
    model.weight.data = weight.clone()
    return model


def _lopsided(output: Tensor, high: Tensor) -> Tensor:
    """A loss that tells its arguments apart, and is no mean square."""
    return (output - 0.5 * high).square().mean() / 3


def _on_a_small_network(answer: Callable) -> Callable:
    """The losses of a training, whether they still hold its graph, and the weights after it."""

    def run(weight: Tensor, low: Tensor, high: Tensor) -> Any:
        model = small_network(weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        losses = answer(model, optimizer, list(zip(low, high, strict=True)), _lopsided)
        if losses is None or losses is ...:
            return None if torch.equal(model.weight, weight) else "a training, but no losses"
        return losses, getattr(losses, "requires_grad", False), model.weight.detach()

    return run


def _batches(generator: torch.Generator) -> list[tuple]:
    def case(side: int, steps: int) -> tuple:
        pictures = [torch.randn(steps, 4, side, generator=generator) for _ in range(2)]
        return torch.randn(side, side, generator=generator), *pictures

    return [case(2, 2), case(3, 4)]


def _nothing(*arguments: Any) -> None:
    train_model(*arguments)


train = Check(
    "train",
    train_model,
    _batches,
    {
        "the gradients of all steps add up: optimizer.zero_grad() before backward()": partial(
            train_model, skip="zero_grad"
        ),
        "the weights do not move: backward(), then optimizer.step(), and no zero_grad() between": partial(
            train_model, skip="step"
        ),
        "each loss still holds its step's feature maps: keep loss.detach()": partial(train_model, skip="detach"),
        "it computes a loss of its own: call loss(output, high)": partial(train_model, skip="loss"),
        "the loss is given the pair the wrong way round: loss(output, high)": partial(train_model, skip="order"),
        "it returns a list: keep tensors (a GPU has to wait for numbers), and torch.stack them": partial(
            train_model, skip="stack"
        ),
        "it returns the last loss alone: one of each step, torch.stack(losses)": lambda *arguments: train_model(
            *arguments
        )[-1],
        "it trains, but returns nothing: return torch.stack(losses)": _nothing,
    },
    _on_a_small_network,
)


# ---------------------------------------------------------------------------------- losses


def _paper_loss(output: Tensor, high: Tensor) -> Tensor:
    return (output - high).square().sum() / 2 / len(output)


def _charbonnier(output: Tensor, high: Tensor, epsilon: float = 1e-3) -> Tensor:
    return ((output - high).square() + epsilon**2).sqrt().mean()


def _pairs(generator: torch.Generator, *more: Any) -> list[tuple]:
    shapes = (1, 1, 2, 2), (3, 3, 4, 5), (2, 1, 6, 3)
    return [
        (torch.rand(shape, generator=generator), torch.rand(shape, generator=generator), *more[:1]) for shape in shapes
    ]


paper_loss = Check(
    "paper_loss",
    _paper_loss,
    _pairs,
    {
        "this is the mean over all values: the paper sums over a patch": lambda output, high: (
            (output - high).square().mean()
        ),
        "this is half the mean over all values: the paper sums over a patch": lambda output, high: (
            (output - high).square().mean() / 2
        ),
        "this is the plain sum: / 2, and / len(output), the number of patches": lambda output, high: (
            (output - high).square().sum()
        ),
        "the half is missing: / 2": lambda output, high: 2 * _paper_loss(output, high),
        "it grows with the batch: divide by len(output), the number of patches": lambda output, high: (
            _paper_loss(output, high) * len(output)
        ),
        "the errors are not squared": lambda output, high: (output - high).abs().sum() / 2 / len(output),
    },
)

charbonnier = Check(
    "charbonnier",
    _charbonnier,
    lambda generator: _pairs(generator, 0.1),
    {
        "epsilon is not squared": lambda output, high, epsilon: _charbonnier(output, high, epsilon**0.5),
        "`epsilon`, the argument, has no effect: its square stands under the root": lambda output, high, epsilon: (
            (output - high).abs().mean()
        ),
        "the root of each pixel comes first, then the mean": lambda output, high, epsilon: (
            ((output - high).square() + epsilon**2).mean().sqrt()
        ),
        "the root is missing": lambda output, high, epsilon: ((output - high).square() + epsilon**2).mean(),
        "this is the sum: mean()": lambda output, high, epsilon: _charbonnier(output, high, epsilon) * output.numel(),
    },
)


# ---------------------------------------------------------------------------------- the last steps


def _moving_average(average: Weights, weights: Weights, decay: float) -> Weights:
    return {name: decay * average[name] + (1 - decay) * weights[name] for name in average}


def _of_dicts(answer: Callable) -> Callable:
    def run(average: Tensor, weights: Tensor, decay: float) -> Any:
        mine, new = {"weight": average, "bias": average[0]}, {"weight": weights, "bias": weights[0]}
        found = answer(mine, new, decay)
        if not isinstance(found, dict):
            return found
        return found["weight"], found["bias"], mine["weight"] is average and mine["bias"].equal(average[0])

    return run


def _two_weights(generator: torch.Generator) -> list[tuple]:
    return [
        (*(torch.randn(side, side, generator=generator) for _ in range(2)), decay)
        for side, decay in ((1, 0.9), (2, 0.75), (3, 0.6))
    ]


moving_average = Check(
    "moving_average",
    _moving_average,
    _two_weights,
    {
        "the two are swapped: `decay` is what is kept of the average": lambda average, weights, decay: _moving_average(
            average, weights, 1 - decay
        ),
        "the new weights count in full: times (1 - decay)": lambda average, weights, decay: {
            name: decay * average[name] + weights[name] for name in average
        },
        "this is the plain mean of the two: use `decay`": lambda average, weights, decay: _moving_average(
            average, weights, 0.5
        ),
        "it returns the model's weights as they are": lambda average, weights, decay: weights,
        "it returns the old average": lambda average, weights, decay: average,
        "it writes into the dict that it is given: make a new one": lambda average, weights, decay: (
            average.update(_moving_average(average, weights, decay)) or average
        ),
    },
    _of_dicts,
)


def _cosine(step: int, steps: int, warmup: int) -> float:
    return min(1, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2


def _steps(generator: torch.Generator) -> list[tuple]:
    steps, warmup = (int(torch.randint(*span, (1,), generator=generator)) for span in ((40, 80), (4, 8)))
    return [(0, 10, 5), (warmup - 2, steps, warmup), (steps // 3, steps, warmup), (steps - 5, steps, warmup)]


def _rising(step: int, warmup: int) -> float:
    return min(1, (step + 1) / warmup)


cosine = Check(
    "cosine",
    _cosine,
    _steps,
    {
        "the warm-up is missing: times min(1, (step + 1) / warmup)": lambda step, steps, warmup: _cosine(
            step, steps, 1
        ),
        "step 0 gets a factor of 0 and changes nothing: (step + 1) / warmup": lambda step, steps, warmup: (
            min(1, step / warmup) * _cosine(step, steps, 1)
        ),
        "the warm-up never ends: min(1, …)": lambda step, steps, warmup: (step + 1) / warmup * _cosine(step, steps, 1),
        "the cosine is missing": lambda step, steps, warmup: _rising(step, warmup),
        "it falls below 0: (1 + cos) / 2 lies between 1 and 0": lambda step, steps, warmup: (
            _rising(step, warmup) * math.cos(math.pi * step / steps)
        ),
        "it begins at 2: half of (1 + cos)": lambda step, steps, warmup: 2 * _cosine(step, steps, warmup),
        "it comes up again at the end: half a cosine, to pi": lambda step, steps, warmup: (
            _rising(step, warmup) * (1 + math.cos(2 * math.pi * step / steps)) / 2
        ),
        "it falls along a straight line: 1 - step / steps is not a cosine": lambda step, steps, warmup: (
            _rising(step, warmup) * (1 - step / steps)
        ),
        "the cosine falls from step 0 on: the product of both": lambda step, steps, warmup: (
            _rising(step, warmup) * (1 + math.cos(math.pi * max(0, step - warmup) / (steps - warmup))) / 2
        ),
        "in the warm-up, too, it is the product with the cosine": lambda step, steps, warmup: (
            (step + 1) / warmup if step < warmup else _cosine(step, steps, 1)
        ),
        "brackets: half of (1 + cos), not 1 + half of cos": lambda step, steps, warmup: (
            _rising(step, warmup) * (1 + math.cos(math.pi * step / steps) / 2)
        ),
        "math.cos takes radians: math.pi, not 180": lambda step, steps, warmup: (
            _rising(step, warmup) * (1 + math.cos(180 * step / steps)) / 2
        ),
    },
)
