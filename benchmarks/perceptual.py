"""What a perceptual loss changes: the pretrained SRCNN goes on, on the MSE alone and by features in several mixtures.

    uv run python -m benchmarks.perceptual my/photos [--scale 2] [--feature-weights FILE] [--second-weights FILE]
        [--recipes NAME …] [--publish] [--json]

Every recipe starts from the same weights, gets the same batches and as many steps; `RECIPES` says what each term's
share of the loss is at the start. Measured on the bundled photographs, by which the recipe was chosen that is
published, and on photographs that none has seen: PSNR, SSIM, the distance in each layer, and in two of SqueezeNet,
which only measures. Stopped, it goes on where it stood. Writes perceptual_xSCALE.jpg and .json into figures/reference;
--publish puts the chosen network's weights and card into srkit/weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import metrics, models
from srkit.data import load_dataset
from srkit.settings import SRKitError, choose_device, unknown
from srkit.training import TrainConfig, Trainer

LAYERS, SECOND = ("relu1_2", "relu2_2", "relu3_3", "relu4_3"), ("fire5", "fire9")
FEATURES = {"mse": 0.1, "relu1_2": 0.35, "relu2_2": 0.25, "relu3_3": 0.2, "relu4_3": 0.1}
RECIPES = {
    "MSE": {"mse": 1.0},
    "shallow features": {"mse": 0.1, "relu1_2": 0.45, "relu2_2": 0.45},
    "features": FEATURES,
    "deep features": {"mse": 0.1, "relu2_2": 0.3, "relu3_3": 0.4, "relu4_3": 0.2},
    "features, half MSE": {**FEATURES, "mse": 0.9},
    "features, tv": {**FEATURES, "tv": 0.1},
}
CHOSEN = "features, half MSE"  # by the bundled photographs: the nearest in relu3_3, fire5 and fire9
PICTURE, BOX = "chelsea", (98, 88, 96)
PATCH = 64  # side, in pixels


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train SRCNN on by features in several mixtures, and compare."""

    data: Positional[str]  # photographs: a folder, or a name that `srkit data` lists
    held_out: int = 50  # photographs of DATA to measure on, which are not trained on
    set5: str = "set5"  # what else to measure on: its name, which downloads it, or a folder
    feature_weights: str = "imagenet"  # weights of VGG-16: imagenet, a file, or random
    second_weights: str = "imagenet"  # weights of SqueezeNet, which only measures
    scale: int = 2
    recipes: tuple[str, ...] = tuple(RECIPES)
    steps: int = 300  # of each
    publish: bool = False  # put weights and card into srkit/weights
    out: Path = Path("runs/perceptual")


def train(options: Options, recipe: str) -> Trainer:
    """The network that goes on by a recipe; the loss's weights follow from the shares."""
    scale, start = options.scale, models.load(f"srcnn-x{options.scale}")
    config = TrainConfig(
        steps=options.steps, batch_size=8, patch_size=PATCH // scale * scale, lr=5e-4, warmup=30, schedule="cosine",
        ema=0.99, loss=RECIPES[recipe], feature_weights=options.feature_weights, precision="fp32", save_freq=50,
    )  # fmt: skip
    pictures = published.photographs(options.data, "train", options.held_out)
    batch = pictures.batch(0, 16, config.patch_size, scale, seed=1)
    loss = published.loss_by_shares(config, RECIPES[recipe], start, batch)
    out = options.out / f"x{scale}" / recipe.replace(" ", "-")
    return published.train(Trainer(start, pictures, config, loss, out=out), not options.json)


def run(options: Options) -> tuple[Facts, str]:
    """All recipes, measured and shown.

    Raises:
        SRKitError: an unknown recipe, or the chosen one is not among them.
    """
    for recipe in options.recipes:
        if recipe not in RECIPES:
            raise unknown("recipe", recipe, RECIPES)
    if CHOSEN not in options.recipes:
        raise SRKitError(f"--recipes must name {CHOSEN!r}: it is the one that is published")
    scale = options.scale
    trainers = {recipe: train(options, recipe) for recipe in options.recipes}
    loss = published.judges(LAYERS, SECOND, options.feature_weights, options.second_weights)
    held_out = published.photographs(options.data, "val", options.held_out, published.SIDE)
    title = f"{len(held_out)} held-out pictures of {published.SIDE} x {published.SIDE}"
    tests = {
        "bundled photographs": load_dataset("bundled", "test", size=published.SIDE, device=choose_device()),
        title: held_out,
        "Set5": load_dataset(options.set5, "all", device=choose_device()),
    }
    methods = {"bicubic": models.create("bicubic", scale)} | {name: one.result for name, one in trainers.items()}
    measured: dict[str, dict[str, Facts]] = {}
    for name, method in methods.items():
        tables = {test: metrics.evaluate(method, pictures, scale, loss) for test, pictures in tests.items()}
        measured[name] = {test: published.measured(table) for test, table in tables.items()}
    facts = {
        "command": f"python -m benchmarks.perceptual --scale {scale}",
        "features": loss.describe(),
        "shares": {name: RECIPES[name] for name in options.recipes},
        "chosen": CHOSEN,
        "measured": measured,
        "models": {name: published.about(trainer) for name, trainer in trainers.items()},
    }
    card = {"start": f"srcnn-x{scale}", "recipe": CHOSEN, "measured": measured[CHOSEN], "bicubic": measured["bicubic"]}
    card["made by"] = facts["command"]
    folder = None if options.publish else options.out / "weights"
    published.ship(trainers[CHOSEN].result.cpu(), f"srcnn-perceptual-x{scale}", trainers[CHOSEN], card, folder)
    shown = {name: methods[name] for name in ("bicubic", "MSE", "shallow features", CHOSEN) if name in methods}
    footer = f"SRCNN 9-5-5, x{scale}, {options.steps} steps more each; {loss.perceptual[0].extractor.describe()}"
    published.publish(published.comparison(shown, PICTURE, BOX, scale, footer), f"perceptual_x{scale}", facts)
    texts = [
        f"{test}, x{scale}\n" + published.table({name: one[test] for name, one in measured.items()}) for test in tests
    ]
    return facts, "\n\n".join([*texts, loss.describe()])


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.perceptual")
