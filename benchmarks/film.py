"""A recorded afternoon at the sliders, for README and docs: what the MSE, feature maps and both make of a picture.

    uv run python -m benchmarks.film --data my/photos [--feature-weights FILE] [--json]

SRCNN x3 trains from its start by a script of moves: the MSE, feature maps of VGG-16 alone, the MSE again, both.
Writes figures/reference/live.gif, live.json, and live.html, the page that the dashboard exports.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import live, models
from srkit.data import load_dataset
from srkit.live import export
from srkit.settings import SRKitError, choose_device
from srkit.training import TrainConfig, Trainer

SCALE = 3
PLACES = {"eye": (110, 96), "face": (190, 90)}  # of the details, in bundled photographs


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train by a script of moves, and film it."""

    data: str  # a folder of pictures, or a name that `srkit data` lists
    features: str = "vgg16"  # the feature network: vgg16 or small-vgg
    feature_weights: str = "imagenet"  # its weights: imagenet, or a file
    layers: tuple[str, ...] = ("relu2_2", "relu3_3")
    steps: int = 480
    lr: float = 1e-3
    out: Path = published.REFERENCE


def run(options: Options) -> tuple[Facts, str]:
    """Film it, and write what is shown."""
    pictures = load_dataset(options.data, device=choose_device())
    torch.manual_seed(0)
    start = models.create("srcnn", SCALE)
    config = TrainConfig(
        steps=options.steps, batch_size=4, patch_size=72, lr=options.lr, ema=0.95, warmup=100, features=options.features,
        feature_weights=options.feature_weights, loss={"mse": 1.0, **dict.fromkeys(options.layers, 0.0)},
    )  # fmt: skip
    batch, layers = pictures.batch(0, 16, config.patch_size, SCALE), options.layers
    part = {"mse": 0.05, **dict.fromkeys(layers, 0.95 / len(layers))}
    weights = published.loss_by_shares(config, part, start, batch).weights
    trainer = Trainer(start, pictures, config)
    bundled = dict(load_dataset("bundled", "test"))
    film = live.Run(trainer, {"eye": bundled["chelsea"], "face": bundled["astronaut"]}, PLACES)
    moves = {
        0.35: {**weights, "mse": 0.0},
        0.65: {"mse": 1.0, **dict.fromkeys(layers, 0.0)},
        0.8: {**weights, "mse": 2.0},
    }
    film.plan = {round(part * options.steps): weights for part, weights in moves.items()}
    film.start()
    film.wait()
    if film.error:
        raise SRKitError(film.error)
    export.write_gif(film, options.out / "live.gif", "eye")
    export.write_page(film, options.out / "live.html")
    assert film.film is not None
    frames = [
        {"step": one.step, "psnr": one.psnr, "grid": one.grid, "terms": one.terms, "weights": one.weights}
        for one in film.film.frames
    ]
    facts = {
        "command": "python -m benchmarks.film",
        "features": trainer.loss.describe(),
        "moves": [move._asdict() for move in film.history.moves],
        "bicubic": {"psnr": film.film.bicubic.psnr, "terms": film.film.bicubic.terms},
        "frames": frames,
        **published.about(trainer),
    }
    published.write_json(facts, options.out / "live.json")
    rows = {f"step {one['step']}": {"psnr": one["psnr"], "grid": one["grid"], **one["terms"]} for one in frames}
    chosen = dict(list(rows.items())[:: max(1, len(rows) // 12)])
    return facts, f"{facts['features']}; {trainer.seconds:.0f} s\n{published.table(chosen)}"


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.film")
