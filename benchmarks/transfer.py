"""What fine-tuning buys: a pretrained x4 network goes on, on a small domain, with and without warped pictures.

    uv run python -m benchmarks.transfer [--start NAME or FILE] [--data FOLDER or domain …] [--feature-weights FILE]

Measured before and after on pictures that nobody trained on or chose by, and compared picture by picture. Fine-tuned on
the MSE with batch normalisation frozen; of all validations the one with the smallest distance in VGG-19's deeper layer
is kept, the start among them. Stopped, it goes on where it stood. Writes transfer.jpg and its provenance into
figures/reference.

The bundled domains are pictures that scikit-image carries. One picture cannot be split by picture. It is cut into
regions that share no pixel: its left to train on, a strip to choose by, its right to report. THEY STILL SHARE A
PICTURE: one microscope, one stain, one light, one camera. What is measured on the right after training on the left is
more than a new picture would give.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from tyro.conf import Suppress

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import figures, losses, metrics, models
from srkit.data import ImageDataset, images, load_dataset, pictures
from srkit.inference import upscale
from srkit.models.pretrained import weights_sha256
from srkit.settings import choose_device, data_folder
from srkit.training import FineTuner, TrainConfig, finetune

ARMS = ("plain", "flips", "warp")  # patches as they are; flipped and turned; flipped, turned and warped


# Pictures that are cut at the same places, and how many pixels are left out between two regions. Of the motorcycle
# there are two views: what the left one shows lies up to 60 pixels further left in the right one, by the disparities
# that come with them. A gap of 64 keeps each thing in one region, in either view.
DOMAINS: dict[str, tuple[tuple[str, ...], int]] = {
    "histology": (("ihc",), 0),
    "astronomy": (("hubble_deep_field",), 0),
    "motorcycle": (("motorcycle_left", "motorcycle_right"), 64),
}


@dataclass(kw_only=True)
class Options(timing.Options):
    """Fine-tune a pretrained network on small domains, with and without warps, and compare picture by picture."""

    start: str = "srresnet-small-x4"  # a pretrained network, or a checkpoint
    data: tuple[str, ...] = tuple(DOMAINS)  # bundled domains, or folders of pictures, or names that `srkit data` lists
    size: int = 256  # side that pictures of a folder are made; a bundled domain keeps its own pixels
    feature_weights: str = "imagenet"  # weights of VGG-19: imagenet, a file, or random
    deepest: str = "relu5_4"  # its layer that decides; a file of the first layers may hold relu3_1 and no more
    second_weights: str | None = None  # weights of SqueezeNet, by which nothing is chosen: imagenet, or a file
    warp: float = 0.5  # strength of the warps, in the training that has them
    training: Suppress[dict[str, Any]] = field(
        default_factory=lambda: {
            **{"steps": 240, "batch_size": 8, "patch_size": 96, "lr": 1e-4, "warmup": 20, "schedule": "cosine"},
            **{"ema": 0.98, "val_freq": 30, "save_freq": 30},
        }
    )
    out: Path = Path("runs/transfer")


def cut(name: str, side: int = 96) -> Path:
    """Write a domain's regions into data/domains/NAME-SIDE/train, val and test; returns that folder.

    The test region is about three tenths of the width and the validation region half of that, each cut into squares of
    `side` pixels; all to their left is one picture, for training.
    """
    folder = data_folder() / "domains" / f"{name}-{side}"
    paths, (stems, gap) = {path.stem: path for path in pictures("bundled")}, DOMAINS[name]
    for stem in stems:
        picture = images.read(paths[stem])
        height, width = picture.shape[1:]
        columns = (width - 2 * gap) // side
        test, val = max(1, round(0.3 * columns)), max(1, round(0.15 * columns))
        test_left = width - test * side
        val_left = test_left - gap - val * side
        images.write(picture[:, :, : val_left - gap], folder / "train" / f"{stem}.png")
        for split, left, count in (("val", val_left, val), ("test", test_left, test)):
            for row in range(height // side):
                for column in range(count):
                    x, y = left + column * side, row * side
                    square = picture[:, y : y + side, x : x + side]
                    images.write(square, folder / split / f"{stem}_{row}_{column}.png")
    return folder


def dataset(options: Options, data: str, split: str, warp: float | None = None) -> ImageDataset:
    """Pictures to train on, to choose by ("val") or to report ("test")."""
    if data in DOMAINS:
        return load_dataset(cut(data) / split, "all", warp=warp, device=choose_device())
    return load_dataset(data, split, size=options.size, warp=warp, device=choose_device())


def tune(options: Options, start: nn.Module, data: str, criterion: losses.WeightedLoss, arm: str) -> FineTuner:
    """Fine-tune on one domain."""
    train = dataset(options, data, "train", options.warp if arm == "warp" else None)
    config = TrainConfig(**options.training, augment=arm != "plain")
    out, validation = options.out / Path(data).name / arm, dataset(options, data, "val")
    tuner = FineTuner(start, train, config, validation=validation, criterion=criterion, out=out)
    published.train(tuner, not options.json)
    return tuner


def domain(options: Options, start: nn.Module, data: str, criterion: losses.WeightedLoss) -> tuple[Facts, list]:
    """What is measured on one domain; and before, after, and ground truth of its test picture with the most detail."""
    test, device, scale = dataset(options, data, "test"), choose_device(), models.scales_of(start)[-1]

    def table(model: nn.Module) -> metrics.Table:
        return metrics.evaluate(model.to(device), test, scale, criterion)

    before = table(start)
    facts = {"test": str(test), "bicubic": published.measured(table(models.create("bicubic", scale)))}
    facts["before"] = published.measured(before)
    for arm in ARMS:
        tuner = tune(options, start, data, criterion, arm)
        assert tuner.out
        pairs = {"paired": tuner.result, "without a criterion": models.load(tuner.out / "last.pt")}
        changes = {name: metrics.paired(before, table(model)) for name, model in pairs.items()}
        facts[arm] = {
            "train": str(tuner.dataset),
            "best step": tuner.best_step,
            "steps": tuner.step_number,
            "seconds": tuner.seconds,
            **{name: change.to_dict() for name, change in changes.items()},
            "table": str(changes["paired"]).splitlines(),
            "weights_sha256": weights_sha256(tuner.result.state_dict()),
        }
    high = max((picture for _, picture in test), key=lambda picture: losses.tv(picture[None], picture[None]))
    high = images.crop_to_multiple(high, scale)
    low = images.degrade(high, scale)
    return facts, [*(upscale(model, low).cpu() for model in (start, tuner.result)), high.cpu()]


def run(options: Options) -> tuple[Facts, str]:
    """Every domain, measured and shown."""
    start = models.load(options.start)
    criterion = finetune.criterion(options.feature_weights, options.deepest, second=options.second_weights)
    found, rows = {}, []
    for data in options.data:
        found[Path(data).name], row = domain(options, start, data, criterion)
        rows.append(row)
    shown = losses.create({"relu2_2": 1.0}, "vgg19", options.feature_weights)
    kept = ", ".join(f"{name} {facts['warp']['best step']}" for name, facts in found.items())
    footer = f"the test picture with the most detail of each; steps with warps that the criterion kept: {kept}"
    scale = models.scales_of(start)[-1]
    page = figures.grid(rows, ("before", "after", "ground truth"), footer=footer, border=scale, loss=shown)
    facts = {
        "command": "python -m benchmarks.transfer",
        "start": {**getattr(start, "config", {}), "weights_sha256": weights_sha256(start.state_dict())},
        "features": criterion.describe(),
        "training": options.training | {"warp": options.warp},
        "domains": found,
        "shown": page.scores,
    }
    published.publish(page, "transfer", facts)
    lines = [criterion.describe()]
    for name, one in found.items():
        lines.append(f"\n{name}: {one['test']}; bicubic {one['bicubic']['psnr']:.2f} dB")
        for arm in ARMS:
            told = one[arm]
            last = told["without a criterion"]["psnr"]["difference"]
            lines.append(f"\n{name}, {arm}: best after {told['best step']} of {told['steps']} steps")
            lines += [*told["table"], f"without a criterion, after the last step: {last:+.2f} dB"]
    return facts, "\n".join(lines)


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.transfer")
