"""Several networks under the same training, and one table of what each costs and what it gives (lesson 05).

The same for all of them: pictures, order, patches, number of steps, and above all the input. `low` is `high` degraded
by 4 in one go, the ground truth of the large output (x4) is `high`, that of the mid output (x2) is `high` degraded by
2. At
288 pixels: 72 in, 144 and 288 out. A network whose only output is the mid one is trained and measured on this very low,
too (`HalvedDataset`), and so is bicubic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from srkit import metrics, models
from srkit.data import Batch, ImageDataset
from srkit.data.images import degrade
from srkit.models import scales_of
from srkit.settings import SRKitError, Student, unknown
from srkit.training.config import TrainConfig
from srkit.training.devices import check_alone
from srkit.training.trainer import Trainer

SIX = tuple(name for name in models.PRESETS if name.startswith("superresnet"))  # the workshop's
SKIP = "+skip"  # "superresnet-multi+skip": the same with skip=True
SIDE = 72  # of low, in pixels, for which multiply-adds are counted
OUTPUTS = (2, 4)  # mid and large


class HalvedDataset(ImageDataset):
    """The same dataset for an output of x2: high is half as large, low is that of the x4 networks."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.__dict__.update(dataset.__dict__)  # the same bytes, not a copy of them
        self.fingerprint = f"{dataset.fingerprint} halved"

    def batch(self, step: int, batch_size: int, patch_size: int, scale: int, **options: Any) -> Batch:
        """As ImageDataset's, with `patch_size` and `scale` of the half: the same patches of the same pictures."""
        low, high = super().batch(step, batch_size, 2 * patch_size, 2 * scale, **options)
        return Batch(low, degrade(high, 2))

    def pairs(self, scale: int, batch_size: int = 1) -> Iterator[Batch]:
        """As ImageDataset's."""
        for low, high in super().pairs(2 * scale, batch_size):
            yield Batch(low, degrade(high, 2))


@dataclass(frozen=True)
class Result:
    """A network after its training, and what it costs and gives.

    Attributes:
        trainable, frozen: parameters that are trained, and those of a frozen network in it.
        multiply_adds: for one picture of 72 x 72 pixels.
        receptive_field: side in pixels of low, measured; one number per output.
        epoch_seconds: time of the steps in which each training picture is shown once, without validation.
        memory: of one step, in bytes; see `step_memory`.
        tables: PSNR and SSIM by output: 2 (mid), 4 (large).
    """

    trainer: Trainer
    trainable: int
    frozen: int
    multiply_adds: int
    receptive_field: tuple[int, ...]
    epoch_seconds: float
    memory: int
    tables: dict[int, metrics.Table]

    def losses(self, scale: int) -> list[float]:
        """The validation loss 1 / PSNR of the output at 2 (mid) or 4 (large), of each validation; [] without one."""
        level = f"x{scale}/" if len(self.tables) > 1 else ""
        return self.trainer.history.series(f"val/{level}psnr")[1] if scale in self.tables else []


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: a Result for each network, and bicubic's tables, on the same low."""

    results: dict[str, Result]
    bicubic: dict[int, metrics.Table]
    notes: list[str]

    def __str__(self) -> str:
        """A table in Markdown whose columns are aligned, for a terminal too; "-" where there is nothing."""
        rows = [["network", "trainable", "frozen", "mult-adds / M", "receptive field", "s / epoch", "MB / step"]]
        rows[0] += ["1/PSNR mid", "1/PSNR large", "dB mid", "SSIM mid", "dB large", "SSIM large"]
        rows += [["---", *["---:"] * 12], ["bicubic", *["-"] * 8, *_words(self.bicubic)]]
        for name, result in self.results.items():
            costs = [f"{result.trainable:,}", f"{result.frozen:,}", f"{result.multiply_adds / 1e6:.0f}"]
            costs += ["/".join(map(str, result.receptive_field)), f"{result.epoch_seconds:.2f}"]
            losses = [f"{result.losses(scale)[-1]:.4f}" if result.losses(scale) else "-" for scale in OUTPUTS]
            memory = f"{result.memory / 1e6:.1f}"
            rows.append([name.removeprefix("superresnet-"), *costs, memory, *losses, *_words(result.tables)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([*lines, "", *(f"*{note}*  " for note in self.notes)])

    _repr_markdown_ = __str__


def available(config: TrainConfig | None = None) -> list[str]:
    """Those of the workshop's six that can be made here; of each other a line says that it is left out, and why.

    Random convolutions still find edges, and superresnet-vgg can use them; a random embedding of a picture is noise.

    Args:
        config: whose features and feature_weights the networks with frozen features are made with.
    """
    config, found = config or TrainConfig(), []
    no_clip = config.feature_weights == "random" or config.features == "small-vgg"
    for name in SIX:
        if no_clip and models.PRESETS[name].arguments.get("features") == "clip-vit":
            print(f"{name} is left out: an untrained CLIP knows nothing of pictures, and none comes along")
            continue
        try:
            make(name, config)
        except SRKitError as error:  # without timm, or weights that nobody has put here where there is no network
            print(f"{name} is left out: {error}")
        else:
            found.append(name)
    return found


def compare(
    names: Sequence[str],
    dataset: ImageDataset,
    validation: ImageDataset,
    config: TrainConfig,
    out: str | Path,
    student: Student | None = None,
) -> Comparison:
    """Train networks one after another under the same training, and measure them.

    Each trains in out/NAME and goes on from what it finds there: run again, it continues or, if all is done, only
    measures.

    Args:
        names: presets of SuperResNet; with "+skip" behind, the same with skip=True.
        dataset, validation: the pictures, (3, H, W) with H and W multiples of 4.
        config: the training. `patch_size` is of the large output, half of it is cut for a network without one;
            `features` is also the frozen network that stands for VGG-16, and `feature_weights` are those of all;
            validation is every `val_freq` steps.
        out: the folder.
        student: who trains.

    Raises:
        SRKitError: before anything is trained: no name, an unknown one, weights or packages that are missing, a patch
            that does not fit or not divide by 4.
    """
    check_alone("compare")
    if not names:
        raise SRKitError("nothing to compare: name at least one network")
    trainers = {}  # all of them first: what is missing is said at once
    for name in names:
        model, own, pictures = make(name, config), config, (dataset, validation)
        if model.scale == 2:
            own = replace(config, patch_size=config.patch_size // 2)
            pictures = HalvedDataset(dataset), HalvedDataset(validation)
        trainers[name] = Trainer(model, pictures[0], own, None, pictures[1], Path(out) / name, student)
    results = {name: _train(name, trainer, validation) for name, trainer in trainers.items()}
    bicubic = measure(models.create("bicubic", 2), validation) | measure(models.create("bicubic", 4), validation)
    return Comparison(results, bicubic, _notes(list(trainers.values()), validation))


def make(name: str, config: TrainConfig) -> nn.Module:
    """A network of the comparison, its weights at their start: the same for the same seed.

    Raises:
        SRKitError: no preset of SuperResNet; weights or packages that are missing.
    """
    preset = name.removesuffix(SKIP)
    if preset not in SIX:
        raise unknown("network", name, SIX)
    inside = models.PRESETS[preset].arguments.get("features")
    changes = {"feature_weights": config.feature_weights} if inside else {}
    if inside == "vgg16":
        changes["features"] = config.features
    torch.manual_seed(config.seed)
    return models.create(preset, **changes, **({"skip": True} if name.endswith(SKIP) else {}))


def measure(model: nn.Module, pictures: ImageDataset) -> dict[int, metrics.Table]:
    """PSNR and SSIM of each output on one and the same low: high degraded by 4, see the top of this file.

    Args:
        model: enlarges by 2, by 4, or by both.
        pictures: high, (3, H, W) each, is cut to a multiple of 4.

    Returns:
        By output, 2 and 4, those that the model has.
    """
    halved = HalvedDataset(pictures)
    return {scale: metrics.evaluate(model, halved if scale == 2 else pictures, scale) for scale in scales_of(model)}


def _train(name: str, trainer: Trainer, validation: ImageDataset) -> Result:
    model, config = trainer.model, trainer.config
    print(f"{name}: {trainer.steps} steps on {trainer.device.type} in {trainer.precision}", flush=True)
    trainer.fit(resume=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    seconds = trainer.seconds / trainer.step_number * math.ceil(len(trainer.dataset) / config.batch_size)
    costs = models.multiply_adds(model, SIDE, SIDE), models.receptive_field(model), seconds, step_memory(trainer)
    return Result(trainer, *models.count(model), *costs, measure(trainer.result, validation))


def step_memory(trainer: Trainer) -> int:
    """What autograd keeps of one step's forward pass until the backward pass has used it, in bytes.

    Each tensor counts once, the weights, which stay as they are, not at all.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.model.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.backward(trainer.batch())
    trainer.optimizer.zero_grad()
    return sum(kept.values())


def _notes(trainers: list[Trainer], validation: ImageDataset) -> list[str]:
    """What one must know to read the table."""
    first, side = trainers[0], validation[0][1].shape[-1] // 4 * 4
    features = dict.fromkeys(trainer.model.describe() for trainer in trainers if trainer.model.describe())
    return [
        f"{first.steps} steps of {first.config.batch_size} on {len(first.dataset)} pictures, measured on "
        f"{len(validation)} others: {side // 4} in, {side // 2} (mid, x2) and {side} (large, x4) out, the same low "
        f"for all; multiply-adds at {SIDE} x {SIDE}; receptive field: side in pixels of low, for mid/large; "
        f"s / epoch on {first.device.type} in {first.precision}; MB / step: what autograd keeps for the backward pass.",
        *(f"Features: {words}." for words in features),
    ]


def _words(tables: dict[int, metrics.Table]) -> list[str]:
    words = []
    for scale in OUTPUTS:
        table = tables.get(scale)
        words += [f"{table.psnr:.2f}", f"{table.ssim:.4f}"] if table else ["-", "-"]
    return words
