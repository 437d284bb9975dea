"""EfficientSR, 32 x 8, by Muon; the learning rate falls in a straight line over the second half, on the MSE.

What makes it fast, in the order of what it gave: all work at LR size; Muon for the kernels; a learning rate that falls
to zero before the time is up; the absolute error first, the squared one last; the average of the last weights.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.efficient import Muon
from srkit.data.images import degrade, read, to_uint8
from srkit.models import EfficientSR

STEPS, BATCH, PATCH = 900, 16, 96  # patches of HR, in pixels
RATE, KERNELS = 1.5e-3, 6.0  # Adam's learning rate, and Muon's as a multiple of it
WARM_UP, COOLING, AVERAGE = 50, 0.5, 0.99


def patches(pictures: list[Tensor], generator: torch.Generator) -> Tensor:
    """A batch of HR patches, each flipped and turned at random."""
    found = []
    for index in torch.randint(len(pictures), (BATCH,), generator=generator).tolist():
        picture = pictures[index]
        top, left, way = (int(torch.randint(most, (), generator=generator)) for most in (
            picture.shape[1] - PATCH + 1, picture.shape[2] - PATCH + 1, 8))  # fmt: skip
        patch = picture[:, top : top + PATCH, left : left + PATCH].rot90(way % 4, (1, 2))
        found.append(patch.flip(2) if way > 3 else patch)
    return torch.stack(found).float() / 255


def train(files: list[Path], seed: int) -> nn.Module:
    """From the files' names to the trained network."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(lambda path: to_uint8(read(path)), files))
    pictures = [picture for picture in pictures if min(picture.shape[1:]) >= PATCH]
    model = EfficientSR(4, channels=32, blocks=8, expand=True)
    weights = list(model.parameters())
    average = [weight.detach().clone() for weight in weights]
    optimizer = Muon(weights, RATE, KERNELS)
    for step in range(STEPS):
        left = 1 - step / STEPS
        high = patches(pictures, generator)
        output = model(degrade(high, 4))
        loss = F.mse_loss(output, high) if left <= COOLING else F.l1_loss(output, high)
        optimizer.zero_grad()
        loss.backward()
        rate = RATE * min(1, (step + 1) / WARM_UP, left / COOLING)
        for group, factor in zip(optimizer.param_groups, (1, KERNELS), strict=True):
            group["lr"] = rate * factor
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(average, weights, strict=True):
                mean.lerp_(weight, 1 - min(AVERAGE, (1 + step) / (10 + step)))
    for mean, weight in zip(average, weights, strict=True):
        weight.data = mean
    return model.merged().eval()
