"""One step of MSE training: the textbook's loop against srkit's Trainer.

    uv run python -m benchmarks.mse [--batch-sizes 4 16] [--steps 12] [--rounds 3] [--json]

Both train the course's SRCNN (9-5-5, 64-32-3, x2, 240 x 240) on the same JPEG files for the same number of
steps. The textbook opens, cuts and shrinks each file with Pillow in two DataLoader workers, computes in fp32
and asks for the loss at every step. srkit decodes into a Bank once and uses the Trainer as it comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.steps import Comparison
from benchmarks.textbook import SCALE, SIDE, TextbookSRCNN, loader, srcnn_flops
from srkit import models
from srkit.banks import open_bank
from srkit.training import TrainConfig, Trainer


def textbook(folder: Path, batch_size: int, steps: int, device: str) -> Iterator[float]:
    model = TextbookSRCNN().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for low, high in loader(folder, batch_size, steps, device):
        optimizer.zero_grad()
        loss = F.mse_loss(model(low.to(device)), high.to(device))
        loss.backward()
        optimizer.step()
        yield loss.item()


def srkit(folder: Path, batch_size: int, steps: int, device: str) -> Trainer:
    bank = open_bank(folder, "all", size=SIDE, device=device)
    config = TrainConfig(steps=steps, batch_size=batch_size, crop=SIDE, device=device)
    return Trainer(models.create("srcnn", SCALE), bank, config)


COMPARISON = Comparison(
    "benchmarks.mse",
    f"MSE step, SRCNN 9-5-5 x{SCALE} at {SIDE} x {SIDE}",
    {"textbook": textbook, "srkit": srkit},
    {"textbook": srcnn_flops(), "srkit": srcnn_flops()},
)

if __name__ == "__main__":
    COMPARISON.main()
