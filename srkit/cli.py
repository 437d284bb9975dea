"""The command `srkit`: run the lessons, train, resume, compare, inspect, upscale, evaluate, and get data sets."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import nn
from tyro.conf import Positional, arg, subcommand

from srkit import banks, comparing, exporting, images, metrics, models, notebooks, sources
from srkit.banks import Bank
from srkit.errors import SRKitError, unknown
from srkit.images import KERNELS
from srkit.models import foreign, trained
from srkit.profiles import Student, choose_device, root
from srkit.training import GANConfig, GANTrainer, History, TrainConfig, Trainer, checkpoint, engine, gan
from srkit.upscaling import DEFAULT, TILE, Upscaler, is_grey

SAME_NAME = arg(name="")  # a nested dataclass whose flags carry no prefix


@dataclass
class Run:
    """Execute lessons from their first cell to their last and fail on any error, hidden ones too.

    Executed copies (.ipynb, .html) go to runs/notebooks/, figures to figures/.
    """

    lessons: Positional[tuple[str, ...]] = ()
    """Lessons by number, e.g. 01 03; all of them if none is named."""
    profile: Literal["quick", "class", "full"] = "quick"
    """quick: bundled photographs, no network, about a minute a lesson; class: a Colab T4; full: hours."""
    jobs: int | None = None
    """Lessons at a time; two where there are two cores."""

    def __call__(self) -> int:
        results = notebooks.run(self.lessons, self.profile, out=root() / "runs" / "notebooks", jobs=self.jobs)
        print(notebooks.table(results))
        return int(any(result.error for result in results))


@dataclass
class Data:
    """List the data sets with sizes and licences, or download one (into data/)."""

    name: Positional[str | None] = None
    """The set to download; none lists them all."""
    mirror: str | None = None
    """A folder or web address that holds the set's files; tried before the publisher's."""
    json: bool = False
    """Print JSON and nothing else."""

    def __call__(self) -> None:
        if self.name is None:
            rows = [row._asdict() for row in sources.listing()]
            print(json.dumps(rows, indent=2) if self.json else _listing(rows))
            return
        paths = sources.pictures(self.name, mirror=self.mirror)
        facts = {"name": self.name, "pictures": len(paths), "folder": str(paths[0].parent)}
        print(json.dumps(facts) if self.json else f"{self.name}: {len(paths)} pictures in {paths[0].parent}")


@dataclass
class Train:
    """Train a model on a data set or on a folder of pictures.

    Writes OUT/last.pt (every --save-freq steps; the one before stays as previous.pt), OUT/best.pt (the highest
    validation PSNR) and OUT/history.jsonl. Ctrl-C saves and stops; `srkit resume OUT/last.pt` goes on.
    """

    model: Positional[str]
    """Which network: srcnn, srcnn915, superresnet, or superresnet-multi, -residual, -dilated, -vgg, -clip; srresnet,
    srresnet-small; srgan, srgan-small, which --start from a trained srresnet."""
    data: str
    """A name that `srkit data` lists, or a folder of pictures."""
    start: Path | None = None
    """Begin with the weights of this checkpoint: to fine-tune, or for a GAN."""
    frozen_norm: bool = False
    """With --start: keep batch normalisation as it was learnt, for fine-tuning an srresnet on few pictures."""
    scale: int | None = None
    """How much larger the output is: 2, 3 or 4; the network's own if not given, else 2."""
    out: Path | None = None
    """Folder for what the training writes; runs/MODEL-xSCALE-DATA if not given."""
    overwrite: bool = False
    """Start anew although the folder holds a training already; that one is moved to OUT/replaced."""
    size: int | None = None
    """Make every picture SIZE x SIZE first: shorter side resized, middle cut out."""
    warp: float | None = None
    """Warp the training pictures at random with this strength, 0 to 1: for small sets."""
    train: int | None = None
    """How many pictures to train on; the set's usual number if not given."""
    val: int | None = None
    """How many other pictures to validate on; 0 for none."""
    mirror: str | None = None
    """A folder or web address that holds the set's files."""
    cuda: bool = False
    """The same as --device cuda."""
    student: Student = field(default_factory=Student)
    config: Annotated[TrainConfig, SAME_NAME] = field(default_factory=TrainConfig)

    def __call__(self) -> int:
        config = dataclasses.replace(self.config, device="cuda") if self.cuda else self.config
        with engine.together(config.device) as device:
            with engine.main_first():  # it downloads, if need be
                model, out, bank, validation = self.opened(config, device)
            kind = GANTrainer if models.PRESETS[self.model].gan else Trainer
            trainer = kind(model, bank, config, validation=validation, out=out, student=self.student)
            where = f"on {engine.described(trainer.accelerator)} in {trainer.precision}"
            trainable, frozen = models.count(model)
            seen = f" and {frozen:,} frozen ({model.note})" if frozen else ""
            print(f"{self.model} x{model.scale}: {trainable:,} parameters{seen}, {where}")
            if trainer.loss.note:
                print(f"the loss compares {trainer.loss.note}")
            print(f"training on {bank}" + (f", validating on {len(validation)}" if validation else ""))
            return _fit(trainer)

    def opened(self, config: TrainConfig, device: torch.device) -> tuple[nn.Module, Path, Bank, Bank | None]:
        """The model, the folder to write to, and the pictures to train and to validate on."""
        torch.manual_seed(config.seed)  # decides the starting weights
        if self.model not in (*models.PRESETS, *KERNELS):
            raise unknown("model", self.model, models.PRESETS)
        if self.model not in models.PRESETS:
            raise SRKitError(f"{self.model} has nothing to train: choose one of {', '.join(models.PRESETS)}")
        looks = "features" in models.PRESETS[self.model].arguments
        model = models.create(self.model, self.scale, **{"feature_weights": config.feature_weights} if looks else {})
        if self.start:
            model = self.started(model)
        out = self.out or root() / "runs" / f"{self.model}-x{model.scale}-{Path(self.data).name}"
        if (out / "last.pt").exists() and not self.overwrite:
            raise SRKitError(
                f"{out} holds a training already: srkit resume {out / 'last.pt'}, or another --out, or --overwrite"
            )
        counts = {"train": self.train, "val": self.val, "seed": config.seed, "mirror": self.mirror}
        bank = banks.open_bank(self.data, "train", size=self.size, warp=self.warp, **counts, device=device)
        has_validation = bool(sources.split(self.data, **counts).val)
        validation = (
            banks.open_bank(self.data, "val", size=self.size, **counts, device=device) if has_validation else None
        )
        if validation is None and self.val is None:
            print(f"{self.data} has too few pictures to keep any for validation: best.pt will be last.pt")
        return model, out, bank, validation

    def started(self, fresh: nn.Module) -> nn.Module:
        """The trained model of --start: of the network that was named, or another project's of that kind."""
        model = load(str(self.start), self.scale)
        same = {**model.recipe, "name": self.model, "frozen_norm": False} == {**fresh.recipe, "frozen_norm": False}
        from_elsewhere = isinstance(model, type(fresh)) and model.recipe["name"] not in models.PRESETS
        if not (same or from_elsewhere):
            raise SRKitError(f"{self.start} holds {model.recipe['name']} x{model.scale}, not {self.model}: name that")
        changes = {"frozen_norm": True} if self.frozen_norm else {}
        return models.rebuild(model, name=self.model if same else model.recipe["name"], **changes)


@dataclass
class TrainGAN(Train):
    """Train a generator against a discriminator: SRGAN's second stage, from a trained first one (--start).

    Writes OUT/last.pt, OUT/previous.pt, OUT/best.pt (the validation's outputs most like the truth to the features'
    network) and OUT/history.jsonl. Ctrl-C saves and stops; `srkit resume OUT/last.pt` goes on.
    """

    config: Annotated[GANConfig, SAME_NAME] = field(default_factory=GANConfig)


@dataclass
class Resume:
    """Go on with a training from its checkpoint, exactly as if it had never stopped."""

    checkpoint: Positional[Path]
    """The checkpoint, e.g. runs/t91/last.pt."""
    steps: int | None = None
    """New total of steps."""
    num_epoch: int | None = None
    """New total of epochs, instead of steps."""
    lr: float | None = None
    """New learning rate."""
    save_freq: int | None = None
    """Steps between two checkpoints."""
    device: str | None = None
    """cpu, cuda, mps or auto."""
    out: Path | None = None
    """Folder to write to; the checkpoint's own if not given."""

    def __call__(self) -> int:
        changes = {
            "steps": self.steps, "num_epoch": self.num_epoch, "learning_rate": self.lr,
            "save_freq": self.save_freq, "device": self.device,
        }  # fmt: skip
        changes = {name: value for name, value in changes.items() if value is not None}
        if self.steps is not None:
            changes["num_epoch"] = self.num_epoch
        with engine.together(self.device or checkpoint.load(self.checkpoint)["config"]["device"]):
            trainer = Trainer.resume(self.checkpoint, self.out, **changes)
            if trainer.step_number >= trainer.steps:
                raise SRKitError(
                    f"{self.checkpoint} is at step {trainer.step_number} already: give --steps more than that"
                )
            return _fit(trainer)


@dataclass
class Inspect:
    """Say what a checkpoint holds: model, scale, step, settings, metrics, student, sha256 of the weights.

    Of a network that comes trained: its card. Of an SRGAN generator of leftthomas, dongheehand or Lornatang: project,
    licence, model, scale, sha256.
    """

    checkpoint: Positional[Path | None] = None
    """The checkpoint, e.g. runs/t91/last.pt; or another project's; or srcnn915-x3, …: none lists those that come
    trained."""
    json: bool = False
    """Print JSON and nothing else."""

    def __call__(self) -> None:
        if self.checkpoint is None:
            cards = {name: trained.card(name) for name in trained.names()}
            print(json.dumps(cards, indent=2) if self.json else _trained(cards))
            return
        facts = inspect(self.checkpoint)
        print(json.dumps(facts, indent=2) if self.json else _tree(facts))


@dataclass
class Upscale:
    """Enlarge pictures of your own with a trained model: srkit upscale photo.jpg.

    Pictures of any size, grey or colour, with or without alpha, go through in tiles; there are no seams. A file that
    exists already is left as it is, so that a folder that was interrupted can be gone on with.
    """

    pictures: Positional[tuple[Path, ...]]
    """Picture files, or folders: of these every picture in them, but no NAME_x4.png beside its own NAME."""
    checkpoint: str = DEFAULT
    """A network that comes trained, e.g. srcnn915-x3 (srkit inspect lists them); a checkpoint, srkit's or another
    project's (see srkit inspect -h); or nearest, bilinear or bicubic."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """A folder; or, for one picture, a file. NAME_x4.png beside each picture if not given. The largest pictures
    need the least memory as .png."""
    scale: int | None = None
    """For nearest, bilinear and bicubic: 2, 3 or 4. A trained model knows its own; one with several outputs gives
    the largest unless you say which."""
    overwrite: bool = False
    """Write anew what exists already."""
    ensemble: bool = False
    """Mean of the eight ways of turning and flipping the picture: a little better, eight times the work."""
    tile: int = TILE
    """Side of a tile in pixels of the picture; halved by itself where memory runs out."""
    precision: Literal["fp32", "auto", "bf16", "fp16"] = "fp32"
    """bf16 is about twice as fast on processors that compute it, and a few pixels differ by one of the 256 grey levels.
    auto: bf16 there, fp16 on older GPUs, fp32 else."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""

    def __call__(self) -> int:
        if not self.pictures:
            raise SRKitError("name at least one picture to upscale, or a folder")
        model = load(self.checkpoint, self.scale)
        upscaler = Upscaler(model, self.scale, self.tile, self.precision, self.ensemble, self.device)
        paths = self.found()
        targets: dict[Path, Path] = {}
        failed = 0
        for path in paths:
            target = self.target(path, upscaler.scale, len(paths))
            try:
                if target in targets:
                    raise SRKitError(f"{path}: {targets[target]} becomes {target} already: rename one of the two")
                targets[target] = path
                print(self.enlarged(upscaler, path, target), flush=True)
            except SRKitError as error:
                if len(paths) == 1:
                    raise
                failed += 1
                print(f"srkit: {error}", file=sys.stderr)
        if failed:
            print(f"srkit: {failed} of {len(paths)} pictures could not be enlarged", file=sys.stderr)
        return int(failed > 0)

    def found(self) -> list[Path]:
        """The pictures named, with those in the folders named."""
        paths: list[Path] = []
        for path in self.pictures:
            if not path.is_dir():
                paths.append(path)
                continue
            inside = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in images.SUFFIXES)
            names = {p.stem for p in inside}
            own = [p for p in inside if (match := re.fullmatch(r"(.+)_x[234]", p.stem)) and match[1] in names]
            others = [p for p in inside if p not in own]
            if not others:
                raise SRKitError(f"{path}: no pictures in this folder ({' '.join(sorted(images.SUFFIXES))})")
            left = f", and {len(own)} enlarged before, which stay as they are" if own else ""
            print(f"{path}: {len(others)} picture{'s' * (len(others) > 1)}{left}")
            paths += others
        return paths

    def target(self, path: Path, scale: int, count: int) -> Path:
        """Where the enlarged picture goes."""
        if self.out is not None and self.out.suffix.lower() in images.SUFFIXES and not self.out.is_dir():
            if count > 1:
                raise SRKitError(f"{count} pictures do not fit into the one file {self.out}: give a folder")
            return self.out
        return (self.out or path.parent) / f"{path.stem}_x{scale}.png"

    def enlarged(self, upscaler: Upscaler, path: Path, target: Path) -> str:
        """Enlarge one file; a line about it."""
        if target.exists() and not self.overwrite:
            return f"{target}: exists already and was left as it is; --overwrite writes it anew"
        low = images.read(path, alpha="keep", keep_bytes=True)
        grey = len(low) == 3 and is_grey(low)
        height, width = (upscaler.scale * side for side in low.shape[1:])
        bands = (band[:1] if grey else band for band in upscaler.bands(low))
        images.write_bands(bands, target, (height, width))
        return f"{target}: {width} x {height}, by {self.checkpoint}"


@dataclass
class Export:
    """Write a trained model as ONNX, which runs without PyTorch, and check it against onnxruntime."""

    checkpoint: Positional[str] = DEFAULT
    """As for srkit upscale."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """The file to write; CHECKPOINT.onnx here if not given."""
    scale: int | None = None
    """For nearest, bilinear and bicubic: 2, 3 or 4."""

    def __call__(self) -> None:
        model = load(self.checkpoint, self.scale)
        facts = exporting.to_onnx(model, self.out or Path(f"{Path(self.checkpoint).stem}.onnx"))
        outputs = " and ".join(facts["outputs"])
        print(f"{facts['path']}: low to {outputs}, {facts['megabytes']:.1f} MB, opset {facts['opset']}")
        if facts["difference"] is None:
            print("not compared with PyTorch: pip install onnxruntime")
        else:
            print(f"onnxruntime and PyTorch differ by {facts['difference']:.1e} at most")


@dataclass
class Evaluate:
    """Measure a model: PSNR and SSIM on luma, a border of SCALE pixels cut, per picture and mean."""

    model: Positional[str]
    """A network that comes trained, e.g. srcnn915-x3 (srkit inspect lists them); a checkpoint, srkit's or another
    project's (see srkit inspect -h); or nearest, bilinear or bicubic."""
    data: str
    """A name that `srkit data` lists, or a folder of pictures."""
    scale: int | None = None
    """2, 3 or 4; a trained model knows its own."""
    part: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which pictures of the set. auto: its test part if it has one, else all; and of the pictures that the
    checkpoint was trained on, those it has not seen."""
    mirror: str | None = None
    """A folder or web address that holds the set's files."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    json: bool = False
    """Print JSON and nothing else."""

    def __call__(self) -> None:
        model = load(self.model, self.scale).to(choose_device(self.device))
        bank = self.pictures()
        table = metrics.evaluate(model, bank, self.scale or model.scale)
        facts = {"model": self.model, "data": self.data, "part": bank.recipe["part"], **table.to_dict()}
        if self.json:
            print(json.dumps(facts, indent=2))
        else:
            print(f"{self.model} on {self.data}, part {bank.recipe['part']!r} ({len(bank)} of its pictures)\n{table}")

    def pictures(self) -> banks.Bank:
        """The pictures to measure on; never by default those that the checkpoint was trained on."""
        state = {} if self.model in (*KERNELS, *trained.names()) else checkpoint.read(self.model)
        own = state["data"] if checkpoint.is_own(state) else {}
        same = bool(own) and _same_source(own["source"], self.data)
        deal = {name: own[name] for name in ("train", "val", "test", "seed")} if same else {}
        part = self.part
        if part == "auto":
            split = sources.split(self.data, **deal, mirror=self.mirror)
            unseen = "test" if split.test else "val" if deal and split.val else "all"
            part = unseen if deal or self.data in sources.SOURCES else "all"
        return banks.open_bank(self.data, part, **deal, mirror=self.mirror)


@dataclass
class Compare:
    """Train several networks under the same training; one table says what each costs and gives.

    Each trains in OUT/NETWORK and goes on from there: run again, the command only prints. Losses, PSNR and SSIM are
    of the validation pictures, once an epoch and at the end.
    """

    data: str
    """A name that `srkit data` lists, or a folder of pictures."""
    networks: Positional[tuple[str, ...]] = ()
    """superresnet, superresnet-multi, …; the workshop's six if none is named. NETWORK+skip: with skip=True."""
    skip: bool = False
    """Train a twin of each as well that adds to the bilinear enlargement of the input: skip=True."""
    out: Path | None = None
    """Folder for the trainings; runs/compare-DATA if not given."""
    size: int = 288
    """Make every picture SIZE x SIZE first; the input is a quarter of it. A multiple of 4."""
    train: int | None = None
    """How many pictures to train on; the set's usual number if not given."""
    val: int | None = None
    """How many other pictures to measure on."""
    mirror: str | None = None
    """A folder or web address that holds the set's files."""
    json: bool = False
    """Print JSON and nothing else."""
    student: Student = field(default_factory=Student)
    config: Annotated[TrainConfig, SAME_NAME] = field(default_factory=lambda: TrainConfig(**models.WORKSHOP))

    def __call__(self) -> None:
        with redirect_stdout(sys.stderr if self.json else sys.stdout):
            comparison = self.compare()
        print(json.dumps(comparison.to_dict(), indent=2) if self.json else f"\n{comparison}")

    def compare(self) -> comparing.Comparison:
        """Open the pictures, train and measure."""
        names = [*(self.networks or comparing.available())]
        names += [name + comparing.SKIP for name in names if self.skip and not name.endswith(comparing.SKIP)]
        if self.size % 4:
            raise SRKitError(f"--size {self.size} does not divide by 4: try {self.size // 4 * 4}")
        config = dataclasses.replace(self.config, crop=min(self.config.crop, self.size))
        for name in names:
            comparing.make(name, config)  # what is missing is said before pictures are read
        settings = {"size": self.size, "train": self.train, "val": self.val, "seed": config.seed, "mirror": self.mirror}
        device = choose_device(config.device)
        bank, validation = (banks.open_bank(self.data, part, **settings, device=device) for part in ("train", "val"))
        epoch = -(-len(bank) // config.batch_size)
        out = self.out or root() / "runs" / f"compare-{Path(self.data).name}"
        config = dataclasses.replace(config, val_freq=epoch)
        return comparing.compare(names, bank, validation, config, out, self.student)


def load(name: str, scale: int | None = None) -> nn.Module:
    """A model from a checkpoint, one that comes trained, or an interpolation by name, which needs a scale.

    Raises:
        SRKitError: none of these, or the scale is missing or not the checkpoint's.
    """
    if name in KERNELS:
        if scale is None:
            raise SRKitError(f"{name} can enlarge by any scale: say which, e.g. --scale 3")
        return models.create(name, scale)
    if name in models.PRESETS:
        ours = ", ".join(trained.names())
        raise SRKitError(f"{name} is not trained yet: name a checkpoint, e.g. runs/{name}-…/best.pt, or one of {ours}")
    _check_known(name)
    model = models.load(name) if name in trained.names() else checkpoint.load_model(name)
    scales = getattr(model, "scales", (model.scale,))
    if scale not in (None, *scales):
        raise SRKitError(f"{name} enlarges by {' or '.join(map(str, scales))}, not by {scale}: leave --scale out")
    return model


def _check_known(name: str) -> None:
    """Refuse what is neither a network that comes trained nor looks like a file; the message says the nearest."""
    if name not in trained.names() and not Path(name).exists() and Path(name).name == name and not Path(name).suffix:
        raise unknown("trained network", name, trained.names())


def inspect(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, as plain words and numbers; see `Inspect`."""
    if str(path) in trained.names():
        return trained.card(str(path))
    _check_known(str(path))
    state = checkpoint.read(path)
    if not checkpoint.is_own(state):
        return _inspect_foreign(path, state)
    model = checkpoint.model_of(state)
    history = History()
    history.restore(state["history"])
    measured = [row for row in state["history"] if "val/dB" in row]
    logged = [row for row in state["history"] if "loss" in row]
    last = {**(logged[-1] if logged else {}), **(measured[-1] if measured else {})}
    judge = state.get("discriminator")
    return {
        "model": state["recipe"]["name"],
        "architecture": {k: v for k, v in state["recipe"].items() if k != "name"},
        "parameters": models.count_parameters(model),
        **({"frozen parameters": models.count(model)[1], "features": model.note} if models.count(model)[1] else {}),
        **({"discriminator": models.count_parameters(models.build(judge["recipe"]))} if judge else {}),
        "scale": model.scale,
        "started from": state["start"] or "nothing",
        "step": state["step"],
        "seconds": round(state["seconds"], 1),
        "hyper-parameters": state["config"],
        "moves by hand": [f"step {m.step}: {m.term} {m.old:.3g} → {m.new:.3g}" for m in history.moves()],
        "metrics": {k: v for k, v in last.items() if k not in ("step", "seconds", "val/seconds", "learning_rate")},
        **({"verdict": gan.verdict(history)} if judge else {}),
        "data": {**state["data"], "fingerprint": state["fingerprint"]},
        "student": state["student"],
        "weights": "average (EMA)" if state["ema"] else "last step's",
        "weights_sha256": checkpoint.weights_sha256(model.state_dict()),
    }


def _inspect_foreign(path: str | Path, content: Any) -> dict[str, Any]:
    """What there is to say about a checkpoint of another project."""
    model = foreign.load(content, path)
    return {
        **foreign.origin(model),
        "architecture": {k: v for k, v in model.recipe.items() if k != "name"},
        "parameters": models.count_parameters(model),
        "scale": model.scale,
        "weights_sha256": checkpoint.weights_sha256(model.state_dict()),
    }


def _same_source(one: str, other: str) -> bool:
    """Whether two names mean the same pictures, however a folder's path is spelt."""
    return one == other or (Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())


def _fit(trainer: Trainer) -> int:
    history = trainer.fit()
    if trainer.interrupted:
        return 130
    _, values = history.series("val/dB")
    measured = f", validation PSNR {values[-1]:.2f} dB" if values else ""
    print(f"{trainer.out / 'last.pt'}: {trainer.step_number} steps, {trainer.seconds:.0f} s{measured}")
    if trainer.verdict():
        print(trainer.verdict())
    return 0


def _listing(rows: list[dict[str, Any]]) -> str:
    """The data sets, three lines each."""
    lines = []
    for row in rows:
        place = "here" if row["on_disk"] else "to download"
        lines.append(f"{row['name']:8} {row['pictures']:6} pictures  {row['megabytes']:5} MB  {place}")
        lines += [f"         {row['title']}", f"         licence: {row['licence']}"]
    return "\n".join(lines)


def _trained(cards: dict[str, dict[str, Any]]) -> str:
    """The networks that come trained, a line each: what they reach on each of their tests, and bicubic there."""
    lines = ["mean PSNR in dB on luma, in brackets bicubic's"]
    for name, card in cards.items():
        reached = [f"{test} {got['psnr']:.2f} ({card['bicubic'][test]['psnr']:.2f})"
                   for test, got in card["measured"].items()]  # fmt: skip
        lines.append(f"{name:24} {'; '.join(reached)}")
    return "\n".join(lines)


def _tree(facts: dict[str, Any], indent: str = "") -> str:
    """Nested facts as indented lines."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}", _tree(value, indent + "  ")] if value else []
        else:
            lines.append(f"{indent}{key:{18 - len(indent)}} {value if value not in (None, '') else '-'}")
    return "\n".join(lines)


COMMANDS = ("run", "train", "resume", "compare", "inspect", "upscale", "export", "evaluate", "data")


def _command(args: Sequence[str]) -> Any:
    """Read the command line. A preset's own training settings are the defaults of `train PRESET`."""
    preset = next((models.PRESETS[word] for word in args if word in models.PRESETS), None)
    kind, settings = (TrainGAN, GANConfig) if preset and preset.gan else (Train, TrainConfig)
    train = kind(model=tyro.MISSING, data=tyro.MISSING, config=settings(**preset.training if preset else {}))
    return tyro.cli(
        Annotated[Run, subcommand("run")]
        | Annotated[kind, subcommand("train", default=train)]
        | Annotated[Resume, subcommand("resume")]
        | Annotated[Compare, subcommand("compare")]
        | Annotated[Inspect, subcommand("inspect")]
        | Annotated[Upscale, subcommand("upscale")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Data, subcommand("data")],
        args=args,
        prog="srkit",
        description="Learn image super-resolution: lessons, training, measuring, upscaling.",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0; 1 if a lesson failed; 2 after one line on standard error; 130 after Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise unknown("command", args[0], COMMANDS)
        command = _command(args)
        if not isinstance(command, (Train, Resume)):
            engine.check_alone(f"srkit {args[0]}")
        return command() or 0
    except SRKitError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(3)  # the first process says the same: then the launcher ends this one meanwhile
        print(f"srkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `srkit inspect … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
