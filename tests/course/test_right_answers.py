"""Right answers that are written otherwise than srkit's are right, too."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srkit.course import checks


def train(model, optimizer, batches, loss):
    losses = torch.zeros(len(batches))
    for step, (low, high) in enumerate(batches):
        value = loss(model(low), high)
        model.zero_grad()
        value.backward()
        optimizer.step()
        losses[step] = value.detach()
    return losses


def cosine(step, steps, warmup):
    factor = math.cos(math.pi * step / steps / 2) ** 2
    return factor * (step + 1) / warmup if step < warmup else factor


def moving_average(average, weights, decay):
    return {name: torch.lerp(average[name], weights[name], 1 - decay) for name in weights}


def save_training(path, model, optimizer, step):
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = {"random": torch.random.get_rng_state(), "step": step, "optimizer": optimizer.state_dict()}
    torch.save({"model": weights, **state}, str(path))


def load_training(path, model, optimizer):
    state = torch.load(path, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(state["model"][name])
    torch.random.set_rng_state(state["random"])
    return torch.tensor(state["step"])


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        layers = nn.Conv2d(channels, channels, 3, padding="same"), nn.ReLU()
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, channels, 3, padding="same"))

    def forward(self, x):
        return self.layers(x) + x


class Dilated(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.near = nn.Conv2d(channels, channels, 3, padding="same")
        self.middle = nn.Conv2d(channels, channels, 3, padding="same", dilation=2)
        self.far = nn.Conv2d(channels, channels, 3, padding="same", dilation=4)
        self.mix = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x):
        return self.mix(torch.cat([self.near(x), self.middle(x), self.far(x)], 1).relu()).relu()


class TwoOutputs(nn.Module):
    """Mixes first and enlarges afterwards: the two commute."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, channels, 3, 1, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1))
        self.a, self.b = nn.Conv2d(channels, 3, 1), nn.Conv2d(channels, 3, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, low):
        x = self.body(low).relu()
        return self.up(self.a(x)).sigmoid(), self.up(self.up(self.b(x))).sigmoid()


def with_skip(outputs, low):
    return [output + F.interpolate(low, output.shape[-2:], mode="bilinear") for output in outputs]


def hyper_step(raw, weight, kernel, gate, x, y, lr):
    delta = torch.zeros_like(raw).requires_grad_()
    F.mse_loss(x @ (weight + kernel * (gate * delta).sum()), y).backward()
    return raw - lr * delta.grad


def feature_maps(network, places, pictures):
    """Without hooks."""
    maps, x = {}, pictures
    for place in range(max(places.values()) + 1):
        x = network[place](x)
        maps |= {name: x for name, wanted in places.items() if wanted == place}
    return maps


def weights_by_share(values, shares):
    weights = {term: shares[term] / values[term] for term in shares}
    return {term: weight / weights[list(shares)[0]] for term, weight in weights.items()}  # noqa: RUF015


def discriminator_loss(real, fake):
    logits, labels = torch.cat([real, fake]), torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    return F.binary_cross_entropy_with_logits(logits, labels)


def discriminator_step(generator, discriminator, optimizer, low, high):
    with torch.no_grad():
        fake = generator(low)
    discriminator.zero_grad()
    loss = discriminator_loss(discriminator(high), discriminator(fake))
    loss.backward()
    optimizer.step()
    return loss.detach().clone()


def generator_step(generator, discriminator, optimizer, low, high, weight):
    """With a discriminator that takes no gradient meanwhile."""
    discriminator.requires_grad_(False)
    output = generator(low)
    loss = F.mse_loss(output, high) - weight * F.logsigmoid(discriminator(output)).mean()
    generator.zero_grad()
    loss.backward()
    optimizer.step()
    discriminator.requires_grad_(True)
    return loss.detach()


def project(matrix, points):
    x, y, w = matrix @ torch.cat([points.T, torch.ones(1, len(points))])
    return torch.stack([x / w, y / w], 1)


def warp(picture, matrix, side):
    """In double precision."""
    u = torch.arange(side).repeat(side).double()
    v = torch.arange(side).repeat_interleave(side).double()
    x, y, w = matrix.double() @ torch.stack([u, v, torch.ones_like(u)])
    grid = torch.stack([2 * x / w / (picture.shape[2] - 1) - 1, 2 * y / w / (picture.shape[1] - 1) - 1], 1)
    grid = grid.float().view(1, side, side, 2)
    return F.grid_sample(picture[None], grid, align_corners=True).squeeze(0)


def freeze_norms(network):
    return network.apply(lambda module: module.eval() if isinstance(module, nn.BatchNorm2d) else None)


def train_only(network, names):
    network.requires_grad_(False)
    for name in names:
        network.get_submodule(name).requires_grad_(True)
    return torch.tensor(sum(p.numel() for name in names for p in network.get_submodule(name).parameters()))


RIGHT = {
    "train": train,
    "cosine": cosine,
    "moving_average": moving_average,
    "paper_loss": lambda output, high: F.mse_loss(output, high, reduction="sum") / (2 * output.shape[0]),
    "charbonnier": lambda output, high, epsilon=1e-3: torch.hypot(output - high, torch.full_like(high, epsilon)).mean(),
    "save_training": save_training,
    "load_training": load_training,
    "Residual": Residual,
    "Dilated": Dilated,
    "TwoOutputs": TwoOutputs,
    "inverse_psnr": lambda output, high: (
        -sum(1 / (10 * F.mse_loss(*p).log10()) for p in zip(output, high, strict=True)) / len(high)
    ),
    "multiply_adds": lambda kernel, inputs, outputs, h, w: nn.Conv2d(inputs, outputs, kernel).weight.numel() * (h * w),
    "with_skip": with_skip,
    "to_range": lambda raw, least, most: most - (most - least) * (-raw).sigmoid(),
    "perturb": lambda raw, spread, noise: raw[None] + noise * (1 + spread.exp()).log(),
    "respond": lambda x, weight, kernel, gate, delta: (x * (weight + torch.outer((delta * gate).sum(1), kernel))).sum(
        1
    ),
    "hyper_step": hyper_step,
    "fade": lambda low, strength, generator: torch.lerp(
        low, low.mean(1, keepdim=True).expand_as(low), strength[:, None, None, None]
    ),
    "expected_mse": lambda output, truths: sum(F.mse_loss(output, truth) for truth in truths) / len(truths),
    "feature_maps": feature_maps,
    "feature_loss": lambda found, wanted: {name: F.mse_loss(found[name], wanted[name]) for name in wanted},
    "gram": lambda maps: torch.einsum("nchw,ndhw->ncd", maps, maps) / maps[0].numel(),
    "weights_by_share": weights_by_share,
    "total_variation": lambda x: (
        (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., :-1, :] - x[..., 1:, :]).abs().mean()
    ),
    "pixel_shuffle": nn.functional.pixel_shuffle,
    "transposed_convolution": lambda x, kernel, stride: F.conv_transpose2d(x[None], kernel[None, None], stride=stride)[
        0
    ],
    "discriminator_loss": discriminator_loss,
    "adversarial_loss": lambda fake: F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake)),
    "discriminator_step": discriminator_step,
    "generator_step": generator_step,
    "mixed_weights": lambda start, end, alpha: {name: torch.lerp(start[name], end[name], alpha) for name in end},
    "project": project,
    "warp": warp,
    "two_means": lambda errors: [10 * (1 / errors).log10().mean(), 10 * torch.log10(1 / errors.mean())],
    "freeze_norms": freeze_norms,
    "train_only": train_only,
    "paired_change": lambda before, after: (
        after.mean() - before.mean(),
        (after - before).var().div(len(after)).sqrt(),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_another_right_answer_is_right(name):
    assert getattr(checks, name).complaint(RIGHT[name]) == ""
