"""What the trainings behind published numbers share: losses by shares, cards, and pictures for the README."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from benchmarks.timing import Facts
from srkit import figures, losses, metrics, models
from srkit.data import Batch, ImageDataset, load_dataset
from srkit.data.images import crop_to_multiple, degrade, from_uint8, resize, to_uint8
from srkit.figures import Box
from srkit.figures.pages import Page
from srkit.inference import upscale
from srkit.losses import PerceptualLoss
from srkit.models import SuperResNet, pretrained
from srkit.models.features import VGG16, SqueezeNet
from srkit.models.pretrained import weights_sha256
from srkit.settings import atomic_write, choose_device
from srkit.training import GANConfig, TrainConfig, Trainer
from srkit.training.gan import new_discriminator

REFERENCE, WIDTH = Path("figures/reference"), 1200
SIDE = 240  # of the middle of each held-out photograph


def photographs(
    source: str, split: str, held_out: int, size: int | None = None, photo: float | None = None
) -> ImageDataset:
    """The photographs to train on ("train"), or those held out, to measure on ("val")."""
    return load_dataset(source, split, size=size, device=choose_device(), val=held_out, test=0, photo=photo)


def all_pictures(
    source: str,
    more: Iterable[str],
    held_out: int,
    patch_size: int,
    photo: float | None = None,
    smaller: float | None = None,
) -> ImageDataset:
    """All pictures to train on, those of the folders `more` too, if a patch fits into them.

    With `smaller` each comes at that part of its size, too: without what JPEG left in it, and sharper (as in FSRCNN,
    arXiv 1608.00367, Section 4.1).
    """
    first = photographs(source, "train", held_out, photo=photo)
    every = [
        picture.cpu() for one in (first, *(load_dataset(name, "all") for name in more)) for picture in one.pictures
    ]
    if smaller:
        every += [to_uint8(resize(from_uint8(picture), scale=smaller)) for picture in every]
    fitting = [one for one in every if min(one.shape[1:]) >= patch_size]
    return ImageDataset(fitting, device=choose_device(), degradation=first.degradation)


def loss_by_shares(
    config: TrainConfig, shares: Mapping[str, float], first: nn.Module, batch: Batch
) -> losses.WeightedLoss:
    """The config's loss, in which each term has its share of the sum at the start.

    Args:
        shares: of each term.
        first: what makes the output at the start.
        batch: pictures to weigh the terms on.
    """
    config = replace(config, loss=dict.fromkeys(shares, 1.0))
    discriminator = new_discriminator(config) if isinstance(config, GANConfig) else None
    loss = losses.create(**config.loss_settings(), discriminator=discriminator)
    device = batch.low.device
    for part in loss.perceptual:
        part.extractor.to(device)
    if discriminator:
        discriminator.to(device)
    with torch.no_grad():
        output = first.to(device)(batch.low)
    loss.weights = losses.balance(loss, output, batch.high, shares)
    return loss


def train(trainer: Trainer, progress: bool = True) -> Trainer:
    """Train to the end, or on from where it was stopped; returns the Trainer.

    Raises:
        KeyboardInterrupt: it was stopped again.
    """
    trainer.fit(resume=True, progress=progress)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return trainer


def mixed(start: nn.Module, end: nn.Module, alpha: float) -> nn.Module:
    """`start`, changed: every weight lies between its own, at alpha 0, and the other's, at 1 (arXiv 1811.10515)."""
    other = end.cpu().state_dict()
    start.load_state_dict({name: value.lerp(other[name], alpha) for name, value in start.cpu().state_dict().items()})
    return start


def measured(table: metrics.Table) -> Facts:
    """A table's means."""
    return {"psnr": table.psnr, "ssim": table.ssim, **table.terms}


def on_tests(model: nn.Module, tests: Mapping[str, ImageDataset]) -> dict[str, Facts]:
    """A model's PSNR and SSIM on several sets; on the training's device."""
    model = model.to(choose_device())
    return {name: measured(metrics.evaluate(model, pictures)) for name, pictures in tests.items()}


def features_in(model: nn.Module) -> str:
    """What frozen feature network a model has inside, if any, in words."""
    return model.describe() if isinstance(model, SuperResNet) else ""


def training(trainer: Trainer) -> Facts:
    """How a network was trained, for its card and for a figure's provenance."""
    settings = {**asdict(trainer.config), "feature_weights": Path(trainer.config.feature_weights).name}
    return {
        "loss": dict(trainer.loss.weights),
        "features": trainer.loss.describe() or features_in(trainer.model),
        "training": settings,
        "steps": trainer.step_number,
        "device": f"{trainer.processes}, {trainer.precision}",
    }


def ship(model: nn.Module, name: str, trainer: Trainer, facts: Facts, folder: Path | None) -> Facts:
    """Write a trained network's weights, in half precision, and its card, which is returned.

    Args:
        facts: what else the card says.
        folder: where to, if not to the networks that come along.
    """
    card = {
        "trained on": f"{len(trainer.dataset)} pictures; fingerprint {trainer.dataset.fingerprint[:12]}",
        **training(trainer),
        **facts,
        "weights": "half precision; trained by and for srkit, under its licence",
    }
    pretrained.publish(model, name, card, folder or pretrained.FOLDER)
    return card


def judges(vgg16: Sequence[str], squeezenet: Sequence[str], first: str, second: str) -> losses.WeightedLoss:
    """Distances in layers of VGG-16 and of SqueezeNet, to measure by; their weights are `first` and `second`."""
    parts = (PerceptualLoss(VGG16(vgg16, first)), PerceptualLoss(SqueezeNet(squeezenet, second)))
    return losses.WeightedLoss(dict.fromkeys((*vgg16, *squeezenet), 1.0), *parts)


def about(trainer: Trainer) -> Facts:
    """A trained network, for a figure's provenance."""
    return {
        "config": getattr(trainer.model, "config", {}),
        "weights_sha256": weights_sha256(trainer.result.state_dict()),
        "seconds": trainer.seconds,
        "fingerprint": trainer.dataset.fingerprint,
        **training(trainer),
    }


def comparison(methods: Mapping[str, nn.Module], picture: str, box: Box, scale: int, footer: str = "") -> Page:
    """A page that shows a part of one of the bundled test pictures by several networks.

    Args:
        methods: networks by their titles.
        picture: its name.
        box: left, top and side of the part, in pixels.
    """
    high = crop_to_multiple(dict(load_dataset("bundled", "test"))[picture], scale)
    outputs = {name: upscale(model, degrade(high, scale), scale) for name, model in methods.items()}
    return figures.comparison(outputs, high, box, footer, border=scale)


def interpolations(scale: int, names: Iterable[str] = ("nearest", "bicubic")) -> dict[str, nn.Module]:
    """Ways of enlarging that are not trained."""
    return {name: models.create(name, scale) for name in names}


def publish(page: Figure, name: str, facts: Facts, folder: Path = REFERENCE) -> None:
    """Write FOLDER/NAME.jpg, a smaller copy of the page, and NAME.json, where it comes from."""
    whole = io.BytesIO()
    page.savefig(whole, dpi=figures.DPI)
    with Image.open(whole) as picture, atomic_write(folder / f"{name}.jpg") as draft:
        size = (WIDTH, round(WIDTH * picture.height / picture.width))
        picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(draft, quality=88)
    write_json(facts, folder / f"{name}.json")


def write_json(facts: Any, path: Path) -> None:
    """Facts as a file."""
    with atomic_write(path) as draft:
        draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str] = ()) -> str:
    """Named rows of numbers as text; a column that a row lacks stays empty."""
    columns = columns or list(next(iter(rows.values())))
    wide = max(map(len, rows))
    lines = [" " * wide + "".join(f"{column:>12}" for column in columns)]
    for name, row in rows.items():
        cells = (f"{row[column]:12.5g}" if column in row else " " * 12 for column in columns)
        lines.append(f"{name:{wide}}" + "".join(cells))
    return "\n".join(lines)
