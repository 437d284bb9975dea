"""What a perceptual loss changes: the same network trained on MSE, and on MSE + VGG-16 features, for as many steps.

    uv run python -m benchmarks.perceptual --data FOLDER [--feature-weights FILE] [--scale 3] [--steps 2500] [--json]

Both start from the same weights and get the same batches. Measured on the pictures that the split keeps for testing
(240 x 240 each): PSNR, SSIM, MSE and the distance in each layer. Stopped, it goes on where it stood. Writes
figures/reference/perceptual.jpg, a photograph that everybody has (scikit-image's), and its provenance beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import metrics, models
from srkit.data import load_dataset
from srkit.losses import WeightedLoss
from srkit.settings import choose_device
from srkit.training import TrainConfig, Trainer

PICTURE, BOX = "chelsea", (98, 88, 96)


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train on MSE and on MSE + features, and compare."""

    data: str  # a folder of pictures, or a name that `srkit data` lists
    feature_weights: str = "imagenet"  # weights of VGG-16: imagenet, a file, or random
    layers: tuple[str, ...] = ("relu1_2", "relu2_2")  # layers that become terms
    share: float = 0.1  # the share of MSE in the loss at the start; the layers have the rest evenly
    scale: int = 3
    steps: int = 2500
    out: Path = Path("runs/perceptual")


def train(options: Options, name: str, config: TrainConfig, loss: WeightedLoss) -> Trainer:
    """The course's SRCNN, from the same start and on the same batches whatever the loss."""
    torch.manual_seed(0)
    model, dataset = models.create("srcnn", options.scale), load_dataset(options.data, device=choose_device())
    return published.train(Trainer(model, dataset, config, loss, out=options.out / name), not options.json)


def run(options: Options) -> tuple[Facts, str]:
    """Both trainings, measured and shown."""
    scale, steps = options.scale, options.steps
    settings = {**models.PRESETS["srcnn"].training, "steps": steps, "save_freq": 250}
    config = TrainConfig(**settings, feature_weights=options.feature_weights)
    shares = {"mse": options.share, **dict.fromkeys(options.layers, (1 - options.share) / len(options.layers))}
    batch = load_dataset(options.data, device=choose_device()).batch(0, 16, config.patch_size, scale)
    loss = published.loss_by_shares(config, shares, models.create("bicubic", scale), batch)
    trainers = {
        "MSE": train(options, "mse", config, WeightedLoss({"mse": 1.0})),
        "MSE + VGG": train(options, "perceptual", config, loss),
    }
    networks = {name: trainer.result for name, trainer in trainers.items()}
    test = load_dataset(options.data, "test", size=published.SIDE, device=choose_device())
    methods = {**published.interpolations(scale, ["bicubic"]), **networks}
    found = {name: published.measured(metrics.evaluate(method, test, scale, loss)) for name, method in methods.items()}
    facts = {
        "command": "python -m benchmarks.perceptual",
        "picture": PICTURE,
        "features": loss.describe(),
        "weights": loss.weights,
        "tested on": f"{len(test)} pictures of {published.SIDE} x {published.SIDE}",
        "measured": found,
        "models": {name: published.about(trainer) for name, trainer in trainers.items()},
    }
    footer = f"SRCNN 9-5-5, x{scale}, {steps} steps each; {loss.describe()}"
    methods = {**published.interpolations(scale), **networks}
    published.publish(published.comparison(methods, PICTURE, BOX, scale, footer), "perceptual", facts)
    title = f"{facts['tested on']}, x{scale}, {steps} steps; {loss.describe()}; weights {loss.weights}"
    return facts, f"{title}\n{published.table(found)}"


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.perceptual")
