"""The commands that train: train, resume, compare."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn
from tyro.conf import Positional, arg

from srkit import metrics, models
from srkit.cli.use import load
from srkit.data import ImageDataset, load_dataset, sources
from srkit.models import SuperResNet, TransformerNet
from srkit.models.files import damage_of
from srkit.settings import SRKitError, Student, choose_device, lock, root, unknown
from srkit.training import GANConfig, TrainConfig, Trainer, checkpoint, compare, devices, resuming

SAME_NAMES = arg(name="")  # a nested dataclass whose flags carry no prefix


@dataclass
class Pictures:
    """The pictures of a training."""

    # A name that `srkit data` lists, or a folder of pictures.
    data: str
    # Make every picture SIZE x SIZE first: shorter side resized, middle cut out.
    size: int | None = None
    # How many pictures to train on; the data set's usual number if not given.
    train: int | None = None
    # How many other pictures to validate on; 0 for none.
    val: int | None = None

    def load(
        self, seed: int, device: torch.device, warp: float | None = None, photo: float | None = None
    ) -> tuple[ImageDataset, ImageDataset | None]:
        """Those to train on, and those to validate on if any are kept apart for that."""
        counts: dict[str, Any] = {"train": self.train, "val": self.val, "seed": seed}
        options: dict[str, Any] = {"size": self.size, "device": device, "photo": photo, **counts}
        train = load_dataset(self.data, "train", warp=warp, **options)
        kept_apart = sources.split(self.data, **counts).val
        return train, load_dataset(self.data, "val", **options) if kept_apart else None


@dataclass
class Train:
    """Train a model on a data set or on a folder of pictures; the settings shown are those that suit the model.

    Writes OUT/last.pt (every --save-freq steps; the one before stays as previous.pt), OUT/best.pt (the best
    validation) and OUT/history.jsonl. Ctrl-C saves and stops; `srkit resume OUT/last.pt` goes on.
    """

    # Which network: srcnn, srcnn915, superresnet, or superresnet-multi, -residual, -dilated, -vgg, -clip; srresnet,
    # srresnet-small; efficient; srgan, srgan-small, which --start from a trained srresnet, and efficient-gan, from a
    # trained efficient; style, which needs --style.
    model: Positional[str]
    # What to train and to validate on.
    pictures: Annotated[Pictures, SAME_NAMES]
    # Begin with the weights of this checkpoint, or of a pretrained network: to fine-tune, or for a GAN.
    start: str | None = None
    # How much larger the output is: 2, 3 or 4; the network's own if not given, else 2.
    scale: int | None = None
    # Warp the training pictures at random with this strength, 0 to 1: for small data sets.
    warp: float | None = None
    # Spoil LR with this strength, 0 to 1, as photographs are: blurred, noisy, saved as JPEG, and all of that twice.
    photo: float | None = None
    # Folder for what the training writes; runs/MODEL-xSCALE-DATA if not given.
    out: Path | None = None
    # Who trains: written into the checkpoints.
    student: Student = field(default_factory=Student)
    # How to train.
    config: Annotated[TrainConfig, SAME_NAMES] = field(default_factory=TrainConfig)

    def settings(self) -> TrainConfig:
        """The training settings that suit the network named."""
        if self.model not in models.PRESETS:
            return TrainConfig()
        preset = models.PRESETS[self.model]
        return (GANConfig if preset.gan else TrainConfig)(**preset.training)

    def __call__(self) -> int:
        with devices.together(self.config.device) as device:
            with devices.main_first():  # it downloads, if need be
                model = self.network()
                out = self.folder(model)
                dataset, validation = self.pictures.load(self.config.seed, device, self.warp, self.photo)
                if isinstance(model, TransformerNet):
                    validation = None  # no PSNR tells whether a style is good
            kind = resuming.KINDS["GANTrainer" if isinstance(self.config, GANConfig) else "Trainer"]
            trainer = kind(model, dataset, self.config, validation=validation, out=out, student=self.student)
            trainable, frozen = models.count(model)
            kept = f" and {frozen:,} frozen ({model.describe()})" if frozen and isinstance(model, SuperResNet) else ""
            print(f"{self.model} x{model.scale}: {trainable:,} parameters{kept}")
            if trainer.loss.describe():
                print(f"the loss compares {trainer.loss.describe()}")
            print(f"training on {len(dataset)} pictures, on {trainer.processes} in {trainer.precision}")
            if validation:
                bicubic = metrics.evaluate(models.create("bicubic", trainer.model.scale), validation, with_ssim=False)
                print(f"validating on {len(validation)}, on which bicubic reaches {bicubic.psnr:.2f} dB")
            else:
                print("nothing to validate on: best.pt is last.pt")
            return _fit(trainer)

    def network(self) -> nn.Module:
        """The network to train: with the weights of --start, or with new ones that the seed decides."""
        if self.model not in models.PRESETS:
            raise unknown("model", self.model, models.PRESETS)
        preset = models.PRESETS[self.model]
        if self.start is None:
            torch.manual_seed(self.config.seed)
            features = {"feature_weights": self.config.feature_weights} if "features" in preset.arguments else {}
            return models.create(self.model, self.scale, **features)
        model = load(self.start, self.scale)
        own: dict[str, Any] = getattr(model, "config", {})
        theirs = models.PRESETS.get(own["name"])
        fits = own["architecture"] == preset.architecture and (theirs is None or theirs.arguments == preset.arguments)
        if not fits or self.scale not in (None, model.scale):
            scale = self.scale or model.scale
            raise SRKitError(f"{self.start} holds {own['name']} x{model.scale}, not {self.model} x{scale}: name that")
        return models.rebuild(model, name=self.model if theirs else own["name"])  # else it is another project's

    def folder(self, model: nn.Module) -> Path:
        """Where to write, made: nowhere that a training would be lost."""
        out = self.out or root() / "runs" / f"{self.model}-x{model.scale}-{Path(self.pictures.data).name}"
        if (out / "last.pt").exists():
            raise SRKitError(f"{out} holds a training already: srkit resume {out / 'last.pt'}, or choose another --out")
        lock(out, wait=False).release()  # what forbids writing there is said now, not at the first step
        return out


@dataclass
class Resume:
    """Go on with a training from its checkpoint, whose settings are shown, exactly as if it had never stopped.

    Exactly, unless a setting is changed that decides what a step does: then a line says so.
    """

    # The checkpoint, e.g. runs/t91/last.pt.
    checkpoint: Positional[Path]
    # Folder to write to; the checkpoint's own if not given.
    out: Path | None = None
    # How to train.
    config: Annotated[TrainConfig, SAME_NAMES] = field(default_factory=TrainConfig)

    def settings(self) -> TrainConfig:
        """The settings that the checkpoint's training has come to."""
        if self.checkpoint == Path():
            return TrainConfig()
        state = checkpoint.load(self.checkpoint)
        kind = resuming.KINDS.get(state["trainer"], Trainer)
        with damage_of(self.checkpoint):
            return kind.config_class(**{**state["config"], "loss": state["weights"], "lr": state["settings"]["lr"]})

    def __call__(self) -> int:
        before, now = vars(self.settings()), vars(self.config)
        changes = {name: now[name] for name in before if now[name] != before[name]}
        if "steps" in changes:
            changes["num_epoch"] = changes.get("num_epoch")
        with devices.together(self.config.device):
            trainer = resuming.resume(self.checkpoint, self.out, **changes)
            done = trainer.step_number
            if done >= trainer.steps:
                raise SRKitError(f"{self.checkpoint} is at step {done} already: give --steps more than that")
            return _fit(trainer)


@dataclass
class Compare:
    """Train several networks under the same training; one table says what each costs and gives.

    Each trains in OUT/NETWORK and goes on from there: run again, the command only prints. Losses, PSNR and SSIM are
    of the validation pictures, once an epoch and at the end. The input is a quarter of --size, a multiple of 4.
    """

    # superresnet, superresnet-multi, …; if none is named the workshop's six, without those whose weights or packages
    # are not here. NETWORK+skip: with skip=True.
    networks: Positional[tuple[str, ...]] = ()
    # What to train and to measure on.
    pictures: Annotated[Pictures, SAME_NAMES] = field(default_factory=lambda: Pictures(tyro.MISSING, size=288))
    # Train a twin of each as well that adds to the bilinear enlargement of the input: skip=True.
    skip: bool = False
    # Folder for the trainings; runs/compare-DATA if not given.
    out: Path | None = None
    # Who trains: written into the checkpoints.
    student: Student = field(default_factory=Student)
    # How to train.
    config: Annotated[TrainConfig, SAME_NAMES] = field(default_factory=lambda: TrainConfig(**models.WORKSHOP))

    def __call__(self) -> None:
        names = [*self.networks] or compare.available(self.config)
        names += [name + compare.SKIP for name in names if self.skip and not name.endswith(compare.SKIP)]
        patch_size = self.config.patch_size
        config = replace(self.config, patch_size=min(patch_size, self.pictures.size or patch_size))
        for name in self.networks:
            compare.make(name, config)  # what is missing is said before pictures are read
        dataset, validation = self.pictures.load(config.seed, choose_device(config.device))
        if not validation:
            raise SRKitError(f"{self.pictures.data} has no pictures to validate on: ask for some with --val")
        config = replace(config, val_freq=math.ceil(len(dataset) / config.batch_size))  # once an epoch
        out = self.out or root() / "runs" / f"compare-{Path(self.pictures.data).name}"
        print(f"\n{compare.compare(names, dataset, validation, config, out, self.student)}")


def _fit(trainer: Trainer) -> int:
    history = trainer.fit()
    if trainer.interrupted:
        return 130
    _, values = history.series("val/dB")
    measured = f", validation PSNR {values[-1]:.2f} dB" if values else ""
    print(f"{trainer.out}/last.pt: {trainer.step_number} steps, {trainer.seconds:.0f} s{measured}")
    if trainer.diagnose():
        print(trainer.diagnose())
    return 0
