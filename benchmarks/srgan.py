"""What a GAN changes: SRResNet x4 trained on the MSE, then against a discriminator of growing weight.

    uv run python -m benchmarks.srgan --data FOLDER [--feature-weights FILE] [--second-weights FILE] [--json]

Stage 1 trains srresnet-small with its preset's settings. Each run of stage 2 starts from there and from the same
discriminator, on the same batches; the runs differ in the adversarial term's share of the loss at the start.
Measured on pictures that neither stage trained on (240 x 240 each) and on Set5; nothing is chosen on them: PSNR, SSIM,
the distance in VGG22, which is in the loss, in a deeper layer and in one of SqueezeNet, which are not.
Stopped, it goes on where it stood. Writes figures/reference/srgan.jpg and srgan_tradeoff.jpg, each with its provenance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import figures, metrics, models
from srkit.data import ImageDataset, load_dataset
from srkit.losses import PerceptualLoss, WeightedLoss
from srkit.models.features import VGG19, SqueezeNet
from srkit.settings import choose_device
from srkit.training import GANConfig, GANTrainer, TrainConfig, Trainer

SCALE, SHOWN = 4, 0.05  # the share whose network is shown and published
PICTURE, BOX = "chelsea", (92, 112, 96)
CONTENT = ("relu1_2", "relu2_2")  # relu2_2 is VGG22; relu1_2 notices the weave that a layer behind a pooling forgives
INDEPENDENT = "fire5"  # SqueezeNet's layer, which only measures


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train SRResNet, and SRGANs from it with the adversarial term at several weights, and compare."""

    data: str  # a folder of pictures, or a name that `srkit data` lists
    train: int = 450  # how many of them to train on
    held_out: int = 50  # how many others to measure on
    set5: str = "set5"  # what else to measure on: its name, which downloads it, or a folder
    feature_weights: str = (
        "imagenet"  # weights of VGG-19, whose layers are the content term: imagenet, a file, or random
    )
    deeper: str = "relu3_1"  # a deeper layer of it, which only measures; relu5_4 (VGG54) where the weights hold it
    second_weights: str = "imagenet"  # weights of SqueezeNet, which only measures
    shares: tuple[float, ...] = (
        0.0,
        0.01,
        SHOWN,
        0.25,
    )  # the adversarial term's, a run each; of the rest MSE has a twentieth
    steps: int = 800  # of stage 2, in each run
    out: Path = Path("runs/srgan")


def stage1(options: Options) -> Trainer:
    """SRResNet on the MSE."""
    config = TrainConfig(**{**models.PRESETS["srresnet-small"].training, "save_freq": 250})
    torch.manual_seed(config.seed)
    model, validation = models.create("srresnet-small"), dataset(options, "val")
    return published.train(
        Trainer(model, dataset(options, "train"), config, validation=validation, out=options.out / "stage1")
    )


def stage2(options: Options, generator: nn.Module, share: float) -> Trainer:
    """The same generator against a new discriminator; the loss's weights follow from the share."""
    settings: dict[str, Any] = {**models.PRESETS["srgan-small"].training, "steps": options.steps, "save_freq": 250}
    settings |= {"feature_weights": options.feature_weights, "content": CONTENT}
    shares = {"mse": 0.05 * (1 - share), "content": 0.95 * (1 - share), "adversarial": share}
    config, pictures = GANConfig(**{**settings, "loss": shares}), dataset(options, "train")
    batch = pictures.batch(0, 16, config.patch_size, SCALE, seed=1)
    loss = published.loss_by_shares(config, shares, generator, batch)
    start = models.rebuild(generator, name="srgan-small")
    return published.train(GANTrainer(start, pictures, config, loss, out=options.out / f"share-{share:g}"))


def dataset(options: Options, split: str, size: int | None = None) -> ImageDataset:
    """The pictures to train on ("train") or to measure on ("val")."""
    held_out = options.held_out
    return load_dataset(options.data, split, size=size, train=options.train, val=held_out, device=choose_device())


def independent_measures(options: Options) -> WeightedLoss:
    """MSE, VGG22, a deeper layer, and SqueezeNet's."""
    vgg = VGG19(["relu2_2", options.deeper], options.feature_weights)
    squeezenet = SqueezeNet([INDEPENDENT], options.second_weights)
    names = ("mse", "relu2_2", options.deeper, INDEPENDENT)
    return WeightedLoss(dict.fromkeys(names, 1.0), PerceptualLoss(vgg), PerceptualLoss(squeezenet))


def run(options: Options) -> tuple[Facts, str]:
    """Both stages, measured and shown."""
    first = stage1(options)
    runs = {share: stage2(options, first.result, share) for share in options.shares}
    names = {share: f"GAN, {share:.0%}" for share in runs} | {0.0: "content alone", SHOWN: "SRGAN"}
    trainers = {"SRResNet": first, **{names[share]: trainer for share, trainer in runs.items()}}
    methods = {"bicubic": models.create("bicubic", SCALE)}
    methods |= {name: trainer.result for name, trainer in trainers.items()}
    loss, held_out = independent_measures(options), dataset(options, "val", published.SIDE)
    tests = {"Set5": load_dataset(options.set5, "all", device=choose_device())}
    held_out_title = f"{len(held_out)} held-out photographs, {published.SIDE} x {published.SIDE}"
    found = {
        name: {
            held_out_title: published.measured(metrics.evaluate(method, held_out, SCALE, loss)),
            **published.on_tests(method, tests),
        }
        for name, method in methods.items()
    }
    facts = {
        "command": "python -m benchmarks.srgan",
        "picture": PICTURE,
        "features": loss.describe(),
        "adversarial shares": {names[share]: share for share in runs},
        "measured": found,
        "diagnoses": {names[share]: trainer.diagnose() for share, trainer in runs.items()},
        "models": {name: published.about(trainer) for name, trainer in trainers.items()},
    }
    if SHOWN in runs:
        footer = f"srresnet-small, x4: {first.steps} steps on the MSE, then {options.steps} as a GAN"
        shown = published.interpolations(SCALE) | {name: methods[name] for name in ("SRResNet", "SRGAN")}
        published.publish(published.comparison(shown, PICTURE, BOX, SCALE, footer), "srgan", facts)
    points = {name: (one[held_out_title]["psnr"], one[held_out_title][INDEPENDENT]) for name, one in found.items()}
    sweep = ["SRResNet", *(names[share] for share in sorted(runs))]
    page = figures.tradeoff(points, f"{INDEPENDENT} of SqueezeNet", sweep)
    published.publish(page, "srgan_tradeoff", facts)
    rows = {name: {**one[held_out_title], "Set5 psnr": one["Set5"]["psnr"]} for name, one in found.items()}
    diagnoses = [f"{name}: {words}" for name, words in facts["diagnoses"].items()]
    return facts, "\n".join([f"{held_out_title}, x4; {loss.describe()}", published.table(rows), *diagnoses])


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.srgan")
