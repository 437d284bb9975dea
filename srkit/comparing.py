"""Several networks under the same training, and one table of what each costs and what it gives (lesson 05).

The same for all of them: pictures, order, crops, number of steps, and above all the input. `low` is `high` degraded
by 4 in one go, the truth of the large output (x4) is `high`, that of the mid output (x2) is `high` degraded by 2.
At 288 pixels: 72 in, 144 and 288 out. A network whose only output is the mid one is trained and measured on this very
low, too (`Halved`), and so is bicubic. PSNR and SSIM otherwise follow metrics.py: luma, 8 bits, a border of 2 or 4
pixels cut, the mean over pictures. (`metrics.evaluate` at scale 2 would make low from the truth at 144: degraded
twice by 2, which is another picture.)
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from srkit import metrics, models
from srkit.banks import Bank, Batch
from srkit.errors import SRKitError, unknown
from srkit.images import crop_to_multiple, degrade
from srkit.profiles import Student
from srkit.training import TrainConfig, Trainer
from srkit.training.engine import check_alone

SIX = tuple(name for name in models.PRESETS if name.startswith("superresnet"))  # the workshop's
SKIP = "+skip"  # "superresnet-multi+skip": the same with skip=True
SIDE = 72  # of low, in pixels, for which multiply-adds are counted


class Halved(Bank):
    """The same bank for a network whose only output is x2: high is half as large, low is that of the x4 networks."""

    def __init__(self, bank: Bank) -> None:
        self.__dict__.update(bank.__dict__)  # the same bytes, not a copy of them
        self.fingerprint = f"{bank.fingerprint} halved"

    def batch(self, step: int, size: int, crop: int, scale: int, **rest: Any) -> Batch:
        """As `Bank.batch`, with `crop` and `scale` of the half: the same pieces of the same pictures."""
        low, high = super().batch(step, size, 2 * crop, 2 * scale, **rest)
        return Batch(low, degrade(high, 2))

    def pairs(self, scale: int, size: int = 1) -> Iterable[Batch]:
        """As `Bank.pairs`."""
        for low, high in super().pairs(2 * scale, size):
            yield Batch(low, degrade(high, 2))


@dataclass(frozen=True)
class Result:
    """A network after its training, and what it costs and gives.

    Attributes:
        trainable, frozen: parameters that are trained, and those of a frozen network that looks on.
        multiply_adds: for one picture of 72 x 72 pixels.
        receptive_field: side in pixels of low, measured; one number per output.
        epoch_seconds: time of the steps in which each training picture is shown once; validation is not in it.
        memory: of one step, in bytes; see `step_memory`.
        tables: PSNR and SSIM by output: 2 (mid), 4 (large).
    """

    name: str
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
        scales = self.trainer.model.scales
        if scale not in scales:
            return []
        level = f"x{scale}/" if len(scales) > 1 else ""
        return self.trainer.history.series(f"val/{level}psnr")[1]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: a Result for each network, and bicubic's tables, on the same low."""

    results: dict[str, Result]
    bicubic: dict[int, metrics.Table]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain words and numbers: notes, bicubic, networks; the validation losses of each, too."""
        networks = []
        for name, result in self.results.items():
            facts = {key: getattr(result, key) for key in ("trainable", "frozen", "multiply_adds", "epoch_seconds")}
            facts |= {"receptive_field": list(result.receptive_field), "memory": result.memory}
            facts |= {"steps": result.trainer.step_number, "features": result.trainer.model.note}
            losses = {word: result.losses(scale) for word, scale in (("mid", 2), ("large", 4))}
            networks.append({"name": name, **facts, "losses": losses, **_scores(result.tables)})
        return {"notes": self.notes, "bicubic": _scores(self.bicubic), "networks": networks}

    def rows(self) -> list[list[str]]:
        """The table as words, the titles first and bicubic second; a dash where there is nothing."""
        titles = ["network", "trainable", "frozen", "mult-adds / M", "sees", "s / epoch", "MB / step"]
        titles += ["1/PSNR mid", "1/PSNR large", "dB mid", "SSIM mid", "dB large", "SSIM large"]
        rows = [titles, ["bicubic", *["-"] * 8, *_words(self.bicubic)]]
        for name, result in self.results.items():
            losses = [result.losses(scale)[-1:] for scale in (2, 4)]
            rows.append([
                name.removeprefix("superresnet-"), f"{result.trainable:,}", f"{result.frozen:,}",
                f"{result.multiply_adds / 1e6:.0f}", "/".join(map(str, result.receptive_field)),
                f"{result.epoch_seconds:.2f}", f"{result.memory / 1e6:.1f}",
                *(f"{last[0]:.4f}" if last else "-" for last in losses), *_words(result.tables),
            ])  # fmt: skip
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        put = [str.ljust, *[str.rjust] * (len(wide) - 1)]
        lines = ["  ".join(p(word, w) for p, word, w in zip(put, row, wide, strict=True)) for row in rows]
        return "\n".join([*lines, "", *self.notes])

    def _repr_markdown_(self) -> str:
        titles, *rows = ["| " + " | ".join(row) + " |" for row in self.rows()]
        return "\n".join([titles, "|---" + "|---:" * 12 + "|", *rows, "", *(f"*{note}*  " for note in self.notes)])


def available() -> list[str]:
    """The workshop's six; without timm five, and a line says so."""
    if importlib.util.find_spec("timm"):
        return list(SIX)
    print("superresnet-clip is left out: timm is not installed: pip install timm")
    return [name for name in SIX if name != "superresnet-clip"]


def compare(
    names: Sequence[str],
    bank: Bank,
    validation: Bank,
    config: TrainConfig,
    out: str | Path,
    student: Student | None = None,
) -> Comparison:
    """Train networks one after another under the same training, and measure them.

    Each trains in out/NAME and picks up what it finds there: run again, it goes on or, if all is done, only measures.

    Args:
        names: presets of SuperResNet; with "+skip" behind, the same with skip=True.
        bank, validation: the pictures, (3, H, W) with H and W multiples of 4.
        config: the training. `crop` is of the large output, half of it is cut for a network without one;
            `feature_weights` are also those of the frozen networks; validation is every `val_freq` steps.
        out: the folder.
        student: who trains.

    Raises:
        SRKitError: before anything is trained: an unknown name, weights or packages that are missing, a crop that does
            not fit or not divide by 4.
    """
    check_alone("compare")
    made = {name: make(name, config) for name in names}  # all of them first: what is missing is said at once
    trainers = {}
    for name, model in made.items():
        half = model.scale == 2
        trainers[name] = Trainer(
            model,
            Halved(bank) if half else bank,
            replace(config, crop=config.crop // 2) if half else config,
            validation=Halved(validation) if half else validation,
            out=Path(out) / name,
            student=student,
        )
    results = {name: _train(name, trainer, validation) for name, trainer in trainers.items()}
    bicubic = [measure(models.create("bicubic", scale), validation) for scale in (2, 4)]
    return Comparison(results, bicubic[0] | bicubic[1], _notes(results, validation))


def make(name: str, config: TrainConfig) -> nn.Module:
    """A network of the comparison, its weights at their start: the same for the same seed.

    Raises:
        SRKitError: no preset of SuperResNet; weights or packages that are missing.
    """
    preset = name.removesuffix(SKIP)
    if preset not in SIX:
        raise unknown("network", name, SIX)
    changes = {"feature_weights": config.feature_weights} if "features" in models.PRESETS[preset].arguments else {}
    torch.manual_seed(config.seed)
    return models.create(preset, **changes, **({"skip": True} if name.endswith(SKIP) else {}))


def _train(name: str, trainer: Trainer, validation: Bank) -> Result:
    model, config = trainer.model, trainer.config
    print(f"{name}: {trainer.steps} steps on {trainer.device.type} in {trainer.precision}", flush=True)
    trainer.pick_up().fit()
    if trainer.interrupted:
        raise KeyboardInterrupt
    trainable, frozen = models.count(model)
    epoch = math.ceil(len(trainer.bank) / config.batch_size)
    return Result(
        name,
        trainer,
        trainable,
        frozen,
        models.multiply_adds(model, SIDE, SIDE),
        models.receptive_field(model),
        trainer.seconds / max(1, trainer.step_number) * epoch,
        step_memory(trainer),
        measure(trainer.result, validation),
    )


@torch.inference_mode()
def measure(model: nn.Module, pictures: Iterable[tuple[str, Tensor]]) -> dict[int, metrics.Table]:
    """PSNR and SSIM of each output on one and the same low: high degraded by 4, see the top of this file.

    Args:
        model: enlarges by 2, by 4, or by both.
        pictures: (name, high) pairs; high (3, H, W) is cut to a multiple of 4.

    Returns:
        By output, 2 and 4, those that the model has.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    scales = getattr(model, "scales", (model.scale,))
    rows: dict[int, list[metrics.Row]] = {scale: [] for scale in scales}
    for name, picture in pictures:
        high = crop_to_multiple(picture.to(device), 4)
        outputs = model.eval()(degrade(high, 4)[None])
        for scale, output in zip(scales, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
            truth = high if scale == 4 else degrade(high, 4 // scale)
            values = metrics.psnr(output[0], truth, scale).item(), metrics.ssim(output[0], truth, scale).item()
            rows[scale].append(metrics.Row(name, truth.shape[-1], truth.shape[-2], *values))
    return {scale: metrics.Table(scale, found) for scale, found in rows.items()}


def step_memory(trainer: Trainer) -> int:
    """What one step takes in bytes, beside weights and pictures; the weights stay as they are.

    On CUDA the peak of what is allocated, less what was allocated before. Elsewhere what autograd keeps of the
    forward pass until the backward pass has used it, each tensor counted once, the weights left out.
    """
    config, device = trainer.config, trainer.device
    batch = trainer.bank.batch(0, config.batch_size, config.crop, trainer.model.scale)
    batch = Batch(*(part.to(device) for part in batch))
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.model.train()
    trainer.optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        trainer.in_parts(trainer.backward, batch)
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            trainer.in_parts(trainer.backward, batch)
        peak = sum(kept.values())
    trainer.optimizer.zero_grad()
    return peak


def _notes(results: dict[str, Result], validation: Bank) -> list[str]:
    """What one must know to read the table."""
    trainers = [result.trainer for result in results.values()]
    if not trainers:
        raise SRKitError("nothing to compare: name at least one network")
    first = trainers[0]
    steps = sorted({trainer.step_number for trainer in trainers})
    memory = "peak allocated" if first.device.type == "cuda" else "what autograd keeps for the backward pass"
    seen = dict.fromkeys(trainer.model.note for trainer in trainers if trainer.model.note)
    side = validation[0][1].shape[-1] // 4 * 4
    return [
        f"{' to '.join(map(str, steps))} steps of {first.config.batch_size} on {len(first.bank)} pictures, "
        f"measured on {len(validation)} others: {side // 4} in, {side // 2} (mid, x2) and {side} (large, x4) out, "
        "the same low for all.",
        f"Multiply-adds in millions at {SIDE} x {SIDE}; sees: side in pixels of low, for mid/large; "
        f"s / epoch on {first.device.type} in {first.precision}; MB / step: {memory}.",
        *(f"Features: {note}." for note in seen),
    ]


def _words(tables: dict[int, metrics.Table]) -> list[str]:
    return [word for scale in (2, 4) for word in (
        (f"{tables[scale].psnr:.2f}", f"{tables[scale].ssim:.4f}") if scale in tables else ("-", "-")
    )]  # fmt: skip


def _scores(tables: dict[int, metrics.Table]) -> dict[str, Any]:
    return {{2: "mid", 4: "large"}[scale]: {"psnr": table.psnr, "ssim": table.ssim} for scale, table in tables.items()}
