"""Lesson 06: two ways to enlarge inside a network, the two losses of a GAN and its two steps, a mixture of networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.course.checks.check import Check

# ---------------------------------------------------------------------------------- enlarging


def _shuffled(
    x: Tensor, factor: int, order: tuple[int, ...] = (0, 1, 4, 2, 5, 3), channels_last: bool = False
) -> Tensor:
    count, channels, height, width = x.shape
    outputs = channels // factor**2
    split = (factor, factor, outputs) if channels_last else (outputs, factor, factor)
    return x.reshape(count, *split, height, width).permute(order).reshape(count, outputs, factor * height, -1)


def _pixels(generator: torch.Generator) -> list[tuple]:
    shapes = ((1, 4, 1, 2), 2), ((2, 12, 3, 2), 2), ((1, 18, 2, 3), 3)
    return [(torch.rand(shape, generator=generator), factor) for shape, factor in shapes]


pixel_shuffle = Check(
    "pixel_shuffle",
    _shuffled,
    _pixels,
    {
        "reshape alone mixes up the pixels: split, permute, then reshape": lambda x, factor: x.reshape(
            len(x), -1, factor * x.shape[2], factor * x.shape[3]
        ),
        "across and down are exchanged: the first of a group's channels are its upper row": partial(
            _shuffled, order=(0, 1, 4, 3, 5, 2)
        ),
        "this lays whole pictures side by side: a group's channels are neighbouring pixels, H before factor": partial(
            _shuffled, order=(0, 1, 2, 4, 3, 5)
        ),
        "a group is of neighbouring channels: split into (C, factor, factor), C first": partial(
            _shuffled, order=(0, 3, 4, 1, 5, 2), channels_last=True
        ),
    },
)


def _transposed(x: Tensor, kernel: Tensor, stride: int, add: bool = True) -> Tensor:
    side = len(kernel)
    output = x.new_zeros([(length - 1) * stride + side for length in x.shape])
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            place = output[i * stride : i * stride + side, j * stride : j * stride + side]
            place.copy_(x[i, j] * kernel + (place if add else 0))
    return output


def _maps_and_kernels(generator: torch.Generator) -> list[tuple]:
    sizes = ((2, 2), 3, 2), ((3, 4), 4, 2), ((4, 3), 4, 3)
    return [
        (torch.rand(size, generator=generator) + 0.1, torch.rand(side, side, generator=generator) + 0.1, stride)
        for size, side, stride in sizes
    ]


transposed_convolution = Check(
    "transposed_convolution",
    _transposed,
    _maps_and_kernels,
    {
        "where kernels overlap the last one stays: add, output[…] += …": partial(_transposed, add=False),
        "the stride is missing: pixel (i, j) puts its kernel at (i stride, j stride)": lambda x, kernel, stride: (
            _transposed(x, kernel, 1)
        ),
        "it is as large as stride times the input: the last kernel reaches further, (H - 1) s + k": lambda x, k, s: (
            _transposed(x, k, s)[: s * x.shape[0], : s * x.shape[1]]
        ),
        "the kernel is turned by 180°: it is put down as it is": lambda x, kernel, stride: _transposed(
            x, kernel.flip(0, 1), stride
        ),
        "the pixels do not weigh: x[i, j] times the kernel": lambda x, kernel, stride: _transposed(
            torch.ones_like(x), kernel, stride
        ),
    },
)


# ---------------------------------------------------------------------------------- losses


def _discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def _log(x: Tensor) -> Tensor:
    """The logarithm of a sigmoid as one first writes it: infinite where the sigmoid is 0 in 32 bits."""
    return x.sigmoid().log()


def _logits(generator: torch.Generator) -> list[tuple]:
    pairs = [(torch.randn(n, generator=generator), torch.randn(n, generator=generator)) for n in (1, 4)]
    return [*pairs, (torch.tensor([-200.0, 3.0]), torch.tensor([200.0, -1.0]))]


discriminator_loss = Check(
    "discriminator_loss",
    _discriminator_loss,
    _logits,
    {
        "where D is sure its sigmoid is exactly 0 or 1, and the logarithm infinite: softplus(-z) is -log D": (
            lambda real, fake: -(_log(real).mean() + (1 - fake.sigmoid()).log().mean()) / 2
        ),
        "real and fake are exchanged": lambda real, fake: _discriminator_loss(fake, real),
        "the half is missing: / 2": lambda real, fake: 2 * _discriminator_loss(real, fake),
        "both are taken for real: of fake it is -log(1 - D), softplus(fake)": lambda real, fake: (
            (F.softplus(-real).mean() + F.softplus(-fake).mean()) / 2
        ),
        "the sign is wrong: a loss is small where D is right": lambda real, fake: -_discriminator_loss(real, fake),
        "real pictures do not count": lambda real, fake: F.softplus(fake).mean() / 2,
    },
)


def _adversarial_loss(fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


adversarial_loss = Check(
    "adversarial_loss",
    _adversarial_loss,
    lambda generator: [(fake,) for fake, _ in _logits(generator)],
    {
        "where D is sure its sigmoid is exactly 0, and the logarithm infinite: softplus(-z) is -log D": lambda fake: (
            -_log(fake).mean()
        ),
        "this is log(1 - D), which hardly pushes a G that loses: -log D": lambda fake: -F.softplus(fake).mean(),
        "this is D's own loss of a fake, which G would make larger: -log D": lambda fake: F.softplus(fake).mean(),
        "the sign is wrong: -log D": lambda fake: -_adversarial_loss(fake),
        "it returns a number for each picture: mean()": lambda fake: F.softplus(-fake),
    },
)


# ---------------------------------------------------------------------------------- steps


class _Small(nn.Module):
    """A linear map; of one output a discriminator, whose logits are (N,)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).squeeze(-1)


def _on_two_networks(moves_discriminator: bool) -> Callable[[Callable], Callable]:
    """Two steps: their losses, both networks after them, and whether the one that rests got gradients."""

    def wrap(answer: Callable) -> Callable:
        def run(g: Tensor, d: Tensor, low: Tensor, high: Tensor, *more: Any) -> Any:
            generator, discriminator = _Small(g), _Small(d)
            moves = discriminator if moves_discriminator else generator
            optimizer = torch.optim.SGD(moves.parameters(), lr=0.5)
            found = [answer(generator, discriminator, optimizer, low, high, *more) for _ in range(2)]
            if not all(isinstance(loss, Tensor) for loss in found):
                moved = not torch.equal(moves.weight, g if moves is generator else d)
                return "a step that returns no loss" if moved else None
            graph = any(loss.requires_grad for loss in found)
            reached = moves_discriminator and generator.weight.grad is not None
            return (
                torch.stack([loss.detach() for loss in found]),
                generator.weight,
                discriminator.weight,
                graph,
                reached,
            )

        return run

    return wrap


def _networks(generator: torch.Generator, *more: Any) -> list[tuple]:
    def case(side: int, count: int) -> tuple:
        sizes = (side, side), (side, 1), (count, side), (count, side)
        return *(torch.randn(size, generator=generator) for size in sizes), *more

    return [case(2, 3), case(3, 4)]


def _discriminator_step(
    generator: nn.Module, discriminator: nn.Module, optimizer: Any, low: Tensor, high: Tensor, skip: str = ""
) -> Any:
    """D's step; `skip` leaves out a part of it."""
    output = generator(low)
    fake = discriminator(output if skip == "detach" else output.detach())
    if skip != "zero_grad":
        optimizer.zero_grad()
    real = discriminator(high)
    loss = F.softplus(fake).mean() / 2 if skip == "real" else _discriminator_loss(real, fake)
    loss.backward()
    if skip != "step":
        optimizer.step()
    return None if skip == "loss" else loss if skip == "graph" else loss.detach()


discriminator_step = Check(
    "discriminator_step",
    _discriminator_step,
    _networks,
    {
        "its gradient runs on into G: generator(low).detach()": partial(_discriminator_step, skip="detach"),
        "the gradients of all steps add up: optimizer.zero_grad() before backward()": partial(
            _discriminator_step, skip="zero_grad"
        ),
        "D does not move: backward(), then optimizer.step()": partial(_discriminator_step, skip="step"),
        "D never meets a real picture: discriminator(high)": partial(_discriminator_step, skip="real"),
        "the loss still holds the step's feature maps: return loss.detach()": partial(
            _discriminator_step, skip="graph"
        ),
        "it returns nothing: return loss.detach()": partial(_discriminator_step, skip="loss"),
    },
    _on_two_networks(True),
)


def _generator_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: Any,
    low: Tensor,
    high: Tensor,
    weight: float,
    skip: str = "",
) -> Any:
    """G's step; `skip` leaves out a part of it."""
    output = generator(low)
    logits = discriminator(output.detach() if skip == "adversarial" else output)
    term = F.softplus(logits).mean() if skip == "sign" else _adversarial_loss(logits)
    mse = (output - high).square().mean()
    loss = weight * term if skip == "mse" else mse + (1 if skip == "weight" else weight) * term
    if skip != "zero_grad":
        optimizer.zero_grad()
    loss.backward()
    if skip != "step":
        optimizer.step()
    return None if skip == "loss" else loss if skip == "graph" else loss.detach()


generator_step = Check(
    "generator_step",
    _generator_step,
    lambda generator: _networks(generator, 0.3),
    {
        "D's opinion does not reach G: no detach(), no no_grad() on the way through D": partial(
            _generator_step, skip="adversarial"
        ),
        "G learns to be found out: -log D(output), the real side of D's loss": partial(_generator_step, skip="sign"),
        "nothing holds the output to the ground truth: the MSE is missing": partial(_generator_step, skip="mse"),
        "the adversarial term has no weight: mse + weight * …": partial(_generator_step, skip="weight"),
        "the gradients of all steps add up: optimizer.zero_grad() before backward()": partial(
            _generator_step, skip="zero_grad"
        ),
        "G does not move: backward(), then optimizer.step()": partial(_generator_step, skip="step"),
        "the loss still holds the step's feature maps: return loss.detach()": partial(_generator_step, skip="graph"),
        "it returns nothing: return loss.detach()": partial(_generator_step, skip="loss"),
    },
    _on_two_networks(False),
)


# ---------------------------------------------------------------------------------- between two networks


def _mixed(start: dict[str, Tensor], end: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    return {name: (1 - alpha) * start[name] + alpha * end[name] for name in start}


def _of_weights(answer: Callable) -> Callable:
    def run(start: Tensor, end: Tensor, alpha: float) -> Any:
        found = answer({"weight": start, "bias": start[0]}, {"weight": end, "bias": end[0]}, alpha)
        return (found.get("weight"), found.get("bias")) if isinstance(found, dict) else found

    return run


mixed_weights = Check(
    "mixed_weights",
    _mixed,
    lambda generator: [
        (*(torch.rand(side, side, generator=generator) for _ in range(2)), alpha)
        for side, alpha in ((2, 0.3), (3, 1.5))
    ],
    {
        "the two are exchanged: alpha = 0 is the start": lambda start, end, alpha: _mixed(end, start, alpha),
        "the start is not made smaller: (1 - alpha) * start + …": lambda start, end, alpha: {
            name: start[name] + alpha * end[name] for name in start
        },
        "this is the mean, whatever alpha is": lambda start, end, alpha: _mixed(start, end, 0.5),
        "alpha may lie beyond 1: no clamp": lambda start, end, alpha: _mixed(start, end, min(1, alpha)),
    },
    _of_weights,
)
