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
}


@pytest.mark.parametrize("name", RIGHT)
def test_another_right_answer_is_right(name):
    assert getattr(checks, name).complaint(RIGHT[name]) == ""
