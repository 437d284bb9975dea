"""What features and a discriminator change: efficient-x4 goes on by VGG-16's features alone, and as a GAN.

    uv run python -m benchmarks.srgan my/photos --more t91 my/bsds200 [--feature-weights FILE]
        [--second-weights FILE] [--publish] [--json]

Each run starts from the same network and on the same batches; they differ in the adversarial term's share of the loss
at the start. Measured on photographs that none has seen and on Set5; nothing is chosen on them: PSNR, SSIM, the
distance in layers of VGG-16, of which relu5_3 is in no loss, and in two of SqueezeNet, which only measures. Stopped,
it goes on where it stood. Writes srgan.jpg and srgan_tradeoff.jpg into figures/reference, each with its provenance;
--publish puts the GAN's weights into srkit/weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import figures, metrics, models
from srkit.data import load_dataset
from srkit.losses import PerceptualLoss, WeightedLoss
from srkit.models import pretrained
from srkit.models.features import VGG16, SqueezeNet
from srkit.settings import choose_device
from srkit.training import GANConfig, GANTrainer

START, NAME = "efficient-x4", "efficient-gan-x4"
# Shares of what the adversarial term leaves. Without relu1_2, which sees single pixels, a grid lies over everything.
CONTENT = {"mse": 0.1, "relu1_2": 0.35, "relu2_2": 0.25, "relu3_3": 0.2, "relu4_3": 0.1}
JUDGES = {"vgg16": ("relu3_3", "relu5_3"), "squeezenet": ("fire5", "fire9")}
PICTURE, BOX = "chelsea", (92, 112, 96)


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train efficient-x4 on by features, and against a discriminator, and compare."""

    data: Positional[str]  # photographs: a folder, or a name that `srkit data` lists
    more: tuple[str, ...] = ()  # folders or names whose pictures are all trained on, too
    held_out: int = 50  # photographs of DATA to measure on, which are not trained on
    set5: str = "set5"  # what else to measure on: its name, which downloads it, or a folder
    feature_weights: str = "imagenet"  # weights of VGG-16: imagenet, a file, or random
    second_weights: str = "imagenet"  # weights of SqueezeNet, which only measures
    shares: tuple[float, ...] = (0.0, 0.1)  # the adversarial term's, a run each; the last one is shown and published
    steps: int = 1800  # of each run
    publish: bool = False  # put weights and card into srkit/weights
    out: Path = Path("runs/srgan")


def train(options: Options, share: float) -> GANTrainer:
    """The network that goes on from START; the loss's weights follow from the shares."""
    settings: dict[str, Any] = {**models.PRESETS["efficient-gan"].training, "steps": options.steps, "content": ()}
    settings["loss"] = {name: part * (1 - share) for name, part in CONTENT.items()} | {"adversarial": share}
    files = {"feature_weights": options.feature_weights, "log_freq": 20, "save_freq": 100}
    config = GANConfig(**settings, **files, precision="fp32")
    pictures = published.all_pictures(options.data, options.more, options.held_out, 96)
    torch.manual_seed(0)
    start: Any = models.load(START)
    batch = pictures.batch(0, 16, config.patch_size, start.scale, seed=1)
    loss = published.loss_by_shares(config, config.loss, start, batch)
    trainer = GANTrainer(start, pictures, config, loss, out=options.out / f"share-{share:g}")
    published.train(trainer, progress=not options.json)
    return trainer


def judges(options: Options) -> WeightedLoss:
    """What measures: MSE, VGG-16 and SqueezeNet."""
    vgg = VGG16(JUDGES["vgg16"], options.feature_weights)
    squeezenet = SqueezeNet(JUDGES["squeezenet"], options.second_weights)
    names = ("mse", *JUDGES["vgg16"], *JUDGES["squeezenet"])
    return WeightedLoss(dict.fromkeys(names, 1.0), PerceptualLoss(vgg), PerceptualLoss(squeezenet))


def publish(options: Options, trainer: GANTrainer, found: Facts, bicubic: Facts) -> None:
    """Write the weights, in half precision, and their card."""
    model = models.rebuild(trainer.result.cpu(), name=NAME.removesuffix("-x4"))
    card = {
        "trained on": f"{len(trainer.dataset)} pictures; fingerprint {trainer.dataset.fingerprint[:12]}",
        **published.training(trainer),
        "start": START,
        "seconds": round(trainer.seconds),
        "measured": found,
        "bicubic": bicubic,
        "made by": "python -m benchmarks.srgan",
        "weights": "half precision; trained by and for srkit, under its licence",
    }
    pretrained.publish(model, NAME, card, pretrained.FOLDER if options.publish else options.out / "weights")


def run(options: Options) -> tuple[Facts, str]:
    """All runs, measured and shown."""
    trainers = {share: train(options, share) for share in options.shares}
    names = {share: f"GAN, {share:.0%}" if share else "features alone" for share in trainers}
    methods = {"bicubic": models.create("bicubic", 4), START: models.load(START)}
    methods |= {names[share]: trainer.result for share, trainer in trainers.items()}
    held_out = published.photographs(options.data, "val", options.held_out, published.SIDE)
    tests = {"Set5": load_dataset(options.set5, "all", device=choose_device())}
    title, loss = f"{len(held_out)} held-out photographs, {published.SIDE} x {published.SIDE}", judges(options)
    found = {
        name: {
            title: published.measured(metrics.evaluate(method, held_out, 4, loss)),
            **published.on_tests(method, tests),
        }
        for name, method in methods.items()
    }
    facts = {
        "command": "python -m benchmarks.srgan",
        "picture": PICTURE,
        "features": loss.describe(),
        "adversarial shares": {names[share]: share for share in trainers},
        "measured": found,
        "diagnoses": {names[share]: trainer.diagnose() for share, trainer in trainers.items()},
        "models": {names[share]: published.about(trainer) for share, trainer in trainers.items()},
    }
    last = options.shares[-1]
    publish(options, trainers[last], found[names[last]], found["bicubic"])
    footer = f"{START}, then {options.steps} steps by VGG-16's features, without and with a discriminator"
    shown = published.interpolations(4, ["bicubic"]) | {name: methods[name] for name in list(methods)[1:]}
    published.publish(published.comparison(shown, PICTURE, BOX, 4, footer), "srgan", facts)
    judge = JUDGES["squeezenet"][0]
    points = {name: (one[title]["psnr"], one[title][judge]) for name, one in found.items()}
    page = figures.tradeoff(points, f"{judge} of SqueezeNet", [START, *names.values()])
    published.publish(page, "srgan_tradeoff", facts)
    rows = {name: {**one[title], "Set5 psnr": one["Set5"]["psnr"]} for name, one in found.items()}
    diagnoses = [f"{name}: {words}" for name, words in facts["diagnoses"].items()]
    return facts, "\n".join([f"{title}, x4; {loss.describe()}", published.table(rows), *diagnoses])


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.srgan")
