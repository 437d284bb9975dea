"""What a perceptual loss changes: the same network trained on MSE, and on MSE + VGG-16 features, for as many steps.

    uv run python -m benchmarks.perception --data FOLDER [--feature-weights FILE] [--scale 3] [--steps 2500] [--json]

Both start from the same weights and see the same batches. Measured on the pictures that the folder's split keeps for
testing (240 x 240 each): PSNR, SSIM, MSE and the distance in each layer. Stopped, it goes on where it stood. Writes
figures/reference/perceptual.jpg, a photograph that everybody has (scikit-image's), and its provenance beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.reference import about, publish
from srkit import figures, losses, metrics, models
from srkit.banks import open_bank
from srkit.images import crop_to_multiple, degrade
from srkit.profiles import choose_device
from srkit.training import TrainConfig, Trainer
from srkit.upscaling import upscale

SIDE = 240  # of the middle of each picture that is measured


@dataclass
class Options:
    """Train on MSE and on MSE + features, and compare."""

    data: str
    """A folder of pictures, or a name that `srkit data` lists."""
    feature_weights: str = "imagenet"
    """Weights of VGG-16: imagenet, a file, or random."""
    layers: tuple[str, ...] = ("relu1_2", "relu2_2")
    """Layers that become terms."""
    share: float = 0.1
    """The part of the loss that MSE makes up at the start; the layers share the rest evenly."""
    scale: int = 3
    steps: int = 2500
    picture: str = "chelsea"
    """Which bundled test picture the figure shows."""
    part: tuple[int, int, int] = (98, 88, 96)
    """Left, top and width of the part that it magnifies."""
    out: Path = Path("runs/perception")
    json: bool = False


def train(options: Options, name: str, loss: losses.WeightedLoss) -> Trainer:
    """The course's SRCNN with its preset's settings, from the same start and on the same batches whatever the loss."""
    torch.manual_seed(0)
    model = models.create("srcnn", options.scale)
    config = TrainConfig(**{**models.PRESETS["srcnn"].training, "steps": options.steps, "save_freq": 250})
    bank = open_bank(options.data, "train", device=choose_device())
    trainer = Trainer(model, bank, config, loss, out=options.out / name).pick_up()
    trainer.fit()
    return trainer


def perceptual_loss(options: Options) -> losses.WeightedLoss:
    """Weights with which, on bicubic enlargements, MSE has its share and each layer as much as the others."""
    zero = dict.fromkeys(options.layers, 0.0)
    loss = losses.create({"mse": 1.0, **zero}, "vgg16", options.feature_weights)
    low, high = open_bank(options.data, "train").batch(0, 16, 72, options.scale)
    shares = {"mse": options.share, **dict.fromkeys(options.layers, (1 - options.share) / len(options.layers))}
    loss.weights = losses.balance(loss, models.create("bicubic", options.scale)(low), high, shares)
    return loss


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.perception")
    loss = perceptual_loss(options)
    trainers = {
        "MSE": train(options, "mse", losses.WeightedLoss({"mse": 1.0})),
        "MSE + VGG": train(options, "perceptual", loss),
    }
    methods = {"bicubic": models.create("bicubic", options.scale)}
    methods |= {name: trainer.result for name, trainer in trainers.items()}
    test = open_bank(options.data, "test", size=SIDE, device=choose_device())
    tables = {name: metrics.evaluate(method, test, options.scale, loss) for name, method in methods.items()}

    high = crop_to_multiple(dict(open_bank("bundled", "test"))[options.picture], options.scale)
    low = degrade(high, options.scale)
    shown = {"nearest": models.create("nearest", options.scale), **methods}
    page = figures.comparison({name: upscale(m, low) for name, m in shown.items()}, high, options.part,
                              f"SRCNN 9-5-5, x{options.scale}, {options.steps} steps each; {loss.note}",
                              border=options.scale)  # fmt: skip
    facts = {
        "command": "python -m benchmarks.perception",
        "picture": options.picture,
        "features": loss.note,
        "weights": loss.weights,
        "tested on": f"{len(test)} pictures of {SIDE} x {SIDE}",
        "measured": {name: {"psnr": t.psnr, "ssim": t.ssim, **t.terms} for name, t in tables.items()},
        "seconds": {name: trainer.seconds for name, trainer in trainers.items()},
        "models": {name: about(trainer.out / "last.pt") for name, trainer in trainers.items()},
    }  # fmt: skip
    publish(page, "perceptual", facts)
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    columns = ["psnr", "ssim", *loss.weights]
    print(
        f"{len(test)} held-out pictures, x{options.scale}, {options.steps} steps; {loss.note}; weights {loss.weights}"
    )
    print(f"{'':12}" + "".join(f"{name:>12}" for name in columns))
    for name, row in facts["measured"].items():
        print(f"{name:12}" + "".join(f"{row[column]:12.5g}" for column in columns))


if __name__ == "__main__":
    main()
