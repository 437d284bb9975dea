"""One step of perceptual training: the textbook's loop against srkit's Trainer.

    uv run python -m benchmarks.perceptual [--batch-sizes 4] [--steps 6] [--rounds 3] [--json]

Both train the course's SRCNN (9-5-5, x2, 240 x 240) on MSE and on VGG-16's relu1_2, relu2_2, relu3_3 and relu4_3,
with random VGG weights, which cost what trained ones cost. The textbook leaves VGG trainable, sends the truth
through it with gradients and computes in fp32; srkit freezes VGG and uses the Trainer as it comes. The Trainer flips
and turns its crops, the textbook's loop does not: without flips the Trainer, too, shows each picture always alike and
keeps what VGG sees in it. The steps of that side are those after the first epoch, which is measured apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.measure import synchronize
from benchmarks.steps import Comparison, Options
from benchmarks.textbook import SCALE, SIDE, TextbookSRCNN, loader, srcnn_flops
from srkit import models
from srkit.banks import open_bank
from srkit.training import TrainConfig, Trainer

LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22}  # which of torchvision's vgg16().features
WEIGHTS = {"mse": 1.0, "relu1_2": 0.02, "relu2_2": 0.02, "relu3_3": 0.02, "relu4_3": 0.02}


def textbook(folder: Path, batch_size: int, steps: int, device: str) -> Iterator[float]:
    from torchvision.models import vgg16

    model, vgg = TextbookSRCNN().to(device), vgg16(weights=None).features.eval().to(device)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def look(x: torch.Tensor) -> list[torch.Tensor]:
        x, seen = (x - mean) / std, []
        for number, layer in enumerate(vgg[: max(LAYERS.values()) + 1]):
            x = layer(x)
            if number in LAYERS.values():
                seen.append(x)
        return seen

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for low, high in loader(folder, batch_size, steps, device):
        output, high = model(low.to(device)), high.to(device)
        loss = F.mse_loss(output, high)
        for mine, theirs in zip(look(output), look(high), strict=True):
            loss = loss + 0.02 * F.mse_loss(mine, theirs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def srkit(folder: Path, batch_size: int, steps: int, device: str, augment: bool = True) -> Trainer:
    bank = open_bank(folder, "all", size=SIDE, device=device)
    config = TrainConfig(
        **{"steps": steps, "batch_size": batch_size, "crop": SIDE, "device": device, "augment": augment},
        **{"loss": WEIGHTS, "feature_weights": "random"},
    )
    return Trainer(models.create("srcnn", SCALE), bank, config)


class WithoutFlips:
    """The same Trainer on pictures that are not flipped, as the textbook's are not: it keeps the truths' features.

    `facts` has what the first epoch costs, in which they are computed; the steps are those of the later ones.
    """

    def __init__(self, folder: Path, batch_size: int, steps: int, device: str) -> None:
        first = math.ceil(len(list(folder.glob("*.jpg"))) / batch_size)
        self.trainer = srkit(folder, batch_size, steps + first, device, augment=False)
        next(self.trainer)  # the first step of a process also pays for setting up
        synchronize(device)
        start = time.perf_counter()
        for _ in range(first - 1):
            next(self.trainer)
        synchronize(device)
        seconds = time.perf_counter() - start
        self.facts = {"first_epoch": (first - 1) * batch_size / seconds} if first > 1 else {}

    def __iter__(self) -> WithoutFlips:
        return self

    def __next__(self) -> int:
        return next(self.trainer)


def vgg_flops() -> tuple[float, float]:
    """VGG-16 up to relu4_3 on one picture, forward; and its first layer alone."""
    layers, channels, side = [], 3, SIDE
    for convolutions, width in ((2, 64), (2, 128), (3, 256), (3, 512)):
        for _ in range(convolutions):
            layers.append(2.0 * 9 * channels * width * side**2)
            channels = width
        side //= 2
    return sum(layers), layers[0]


FORWARD, FIRST = vgg_flops()
COMPARISON = Comparison(
    "benchmarks.perceptual",
    f"Perceptual step, SRCNN 9-5-5 x{SCALE} at {SIDE} x {SIDE}, VGG-16 to relu4_3",
    {"textbook": textbook, "srkit": srkit, "srkit without flips": WithoutFlips},
    {
        # Both pictures forward; backward to VGG's weights and inputs for both, but for the truth's own input.
        "textbook": srcnn_flops() + 6 * FORWARD - FIRST,
        # Both pictures forward; backward to the inputs, for the output alone.
        "srkit": srcnn_flops() + 3 * FORWARD,
        # The output alone.
        "srkit without flips": srcnn_flops() + 2 * FORWARD,
    },
    defaults=Options(batch_sizes=(4,), steps=6),
)

if __name__ == "__main__":
    COMPARISON.main()
