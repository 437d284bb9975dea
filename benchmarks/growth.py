"""How a training step's cost grows: with the batch, with the pictures' size, and with the number of pictures.

    uv run python -m benchmarks.growth [--batch-sizes 1 2 4 8 16 32] [--sides 60 120 240 480] [--json]

The MSE step of srkit's Trainer, with the course's SRCNN (9-5-5, x2). Cost per pixel should fall while there are too few
pixels to keep the machine busy, and then stay; with the number of pictures in the bank nothing should grow.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from statistics import median

import torch
import tyro

from benchmarks.measure import machine, synchronize
from benchmarks.textbook import SCALE, SIDE
from srkit import models
from srkit.banks import Bank
from srkit.profiles import choose_device
from srkit.training import TrainConfig, Trainer

BATCH = 4  # where something else is varied
AXES = {"batch_size": "pictures in a batch", "side": "side of a picture / pixels", "pictures": "pictures in the bank"}


@dataclass
class Options:
    """Measure how the cost of an MSE step grows."""

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Pictures in a batch, of 240 x 240."""
    sides: tuple[int, ...] = (60, 120, 240, 480)
    """Sides of the pictures, four in a batch."""
    pictures: tuple[int, ...] = (10, 30, 100, 300, 1000)
    """Pictures in the bank, four in a batch."""
    steps: int = 5
    """Steps of which the median is taken, after two that warm up."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    json: bool = False
    """Print JSON and nothing else."""


def seconds(options: Options, batch_size: int = BATCH, side: int = SIDE, pictures: int = 10) -> float:
    """The median time of a step."""
    device = choose_device(options.device).type
    dice = torch.Generator().manual_seed(0)
    bytes_ = torch.randint(0, 256, (pictures, 3, side, side), dtype=torch.uint8, generator=dice)
    config = TrainConfig(steps=options.steps + 2, batch_size=batch_size, crop=side, device=device)
    trainer = Trainer(models.create("srcnn", SCALE), Bank(bytes_, device=device), config)
    times = []
    while trainer.step_number < trainer.steps:
        start = time.perf_counter()
        next(trainer)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times[2:])


def compare(options: Options, about: dict | None = None) -> dict:
    """Seconds of a step along each axis, as facts."""
    values = {"batch_size": options.batch_sizes, "side": options.sides, "pictures": options.pictures}
    curves = {
        axis: [{axis: value, "seconds": seconds(options, **{axis: value})} for value in values[axis]] for axis in AXES
    }
    about = about or machine(choose_device(options.device).type)
    return {"benchmark": "growth", **about, "curves": curves, "exponents": exponents(curves)}


def exponents(curves: dict[str, list[dict]]) -> dict[str, float]:
    """The slope of each curve in the log-log plot: 0 is flat, 1 grows with the number, 2 with its square."""
    slopes = {}
    for axis, points in curves.items():
        x, y = (torch.tensor([point[name] for point in points], dtype=torch.double).log() for name in (axis, "seconds"))
        slopes[axis] = (((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()
    return slopes


def table(facts: dict) -> str:
    """The facts as text."""
    lines = [f"Growth of the MSE step, SRCNN 9-5-5 x{SCALE}, {facts['device']}, {facts['threads']} threads"]
    for axis, points in facts["curves"].items():
        lines.append(f"{AXES[axis]:28}" + "".join(f"{point[axis]:9}" for point in points))
        lines.append(f"{'seconds a step':28}" + "".join(f"{point['seconds']:9.3f}" for point in points))
        lines.append(f"{'':28}grows with the power {facts['exponents'][axis]:.2f} of it")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.growth")
    facts = compare(options)
    print(json.dumps(facts, indent=2) if options.json else table(facts))


if __name__ == "__main__":
    main()
