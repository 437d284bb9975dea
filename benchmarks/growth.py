"""How a training step's cost grows: with the batch, with the pictures' size, and with the number of pictures.

The MSE step of srkit's Trainer, with the course's SRCNN (9-5-5, x2). Cost per pixel should fall while there are too few
pixels to keep the machine busy, and then stay; with the number of pictures in the dataset nothing should grow. Part of
the one run: `python -m benchmarks --only growth`.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from benchmarks.textbook import SCALE, SIDE
from benchmarks.timing import Facts, synchronize
from srkit import models
from srkit.data import ImageDataset
from srkit.training import TrainConfig, Trainer

AXES = {
    "batch_size": "pictures in a batch",
    "side": "side of a picture / pixels",
    "pictures": "pictures in the dataset",
}
VALUES = {"batch_size": (1, 2, 4, 8, 16, 32), "side": (60, 120, 240, 480), "pictures": (10, 30, 100, 300, 1000)}
BATCH = 4  # where something else is varied


def seconds(device: str, steps: int, batch_size: int = BATCH, side: int = SIDE, pictures: int = 10) -> float:
    """The median time of a step, of so many after two that warm up."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (pictures, 3, side, side), dtype=torch.uint8, generator=generator)
    config = TrainConfig(steps=steps + 2, batch_size=batch_size, patch_size=side, device=device)
    trainer, times = Trainer(models.create("srcnn", SCALE), ImageDataset(noise, device=device), config), []
    for _ in range(config.steps):
        start = time.perf_counter()
        next(trainer)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times[2:])


def compare(device: str, few: bool = False) -> Facts:
    """Seconds of a step along each axis; `few`: of its first two values, and of one step."""
    curves = {
        axis: [
            {axis: value, "seconds": seconds(device, 1 if few else 5, **{axis: value})}
            for value in values[: 2 if few else None]
        ]
        for axis, values in VALUES.items()
    }
    found = exponents(curves)
    remarks = [f"a step's time grows with the power {found[axis]:.2f} of: {words}" for axis, words in AXES.items()]
    return {"curves": curves, "exponents": found, "rows": [], "remarks": remarks}


def exponents(curves: dict[str, list[dict]]) -> dict[str, float]:
    """The slope of each curve in the log-log plot: 0 is flat, 1 grows with the number, 2 with its square."""
    slopes = {}
    for axis, points in curves.items():
        x, y = (torch.tensor([point[name] for point in points], dtype=torch.double).log() for name in (axis, "seconds"))
        slopes[axis] = (((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()
    return slopes
