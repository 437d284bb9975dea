"""The commands that train nothing: run, data, inspect, upscale, export, evaluate."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import nn
from tyro.conf import Positional, arg

from srkit import inference, metrics, models
from srkit.course import lessons
from srkit.data import ImageDataset, images, load_dataset, sources
from srkit.models import convert, presets, pretrained
from srkit.models.files import damage_of
from srkit.settings import SRKitError, choose_device, printable
from srkit.training import History, checkpoint, gan

Output = Annotated[Path | None, arg(aliases=["-o"])]


@dataclass
class Run:
    """Execute lessons from their first cell to their last and fail on any error, hidden ones too.

    Executed copies (.ipynb, .html) go to runs/notebooks/, figures to figures/.
    """

    # Lessons by number, e.g. 01 03; all of them if none is named.
    lessons: Positional[tuple[str, ...]] = ()
    # quick: bundled photographs, no network, about a minute a lesson; class: a Colab T4; full: hours.
    profile: Literal["quick", "class", "full"] = "quick"

    def __call__(self) -> int:
        return int(any(result.error for result in lessons.run(self.lessons, self.profile)))


@dataclass
class Data:
    """List the data sets with sizes and licences, or download one (into data/)."""

    # The data set to download; none lists them all.
    name: Positional[str | None] = None

    def __call__(self) -> None:
        if self.name is None:
            print(_tree({row["name"]: row for row in sources.listing()}))
        else:
            paths = sources.pictures(self.name)
            print(f"{self.name}: {len(paths)} pictures in {paths[0].parent}")


@dataclass
class Inspect:
    """Say what a checkpoint holds: model, scale, step, settings, metrics, student, sha256 of the weights.

    Of a pretrained network: its card. Of an SRGAN generator of leftthomas, dongheehand or Lornatang: project,
    licence, model, scale, sha256.
    """

    # The checkpoint, e.g. runs/t91/last.pt; or another project's; or srcnn915-x3, …: none lists the pretrained ones.
    checkpoint: Positional[str | None] = None
    # Print JSON and nothing else.
    json: bool = False

    def __call__(self) -> None:
        with damage_of(self.checkpoint or pretrained.FOLDER):
            if self.checkpoint:
                found, text = facts(self.checkpoint), _tree
            else:
                found, text = {name: pretrained.card(name) for name in pretrained.names()}, _table
            printed = json.dumps(found, indent=2) if self.json else text(found)
        print(printable(printed))


@dataclass
class Upscale:
    """Enlarge pictures of your own with a trained model: srkit upscale photo.jpg.

    Pictures of any size, grey or colour, with or without alpha, go through in tiles; there are no seams. A file that
    exists already is left as it is, so that a folder that was interrupted can be gone on with.
    """

    # Picture files, or folders: of these every picture in them, but no NAME_x4.png beside its own NAME.
    pictures: Positional[tuple[Path, ...]]
    # A pretrained network, e.g. srcnn915-x3 (srkit inspect lists them); a checkpoint, srkit's or another project's
    # (see srkit inspect -h); or nearest, bilinear or bicubic. If none is named: efficient-x2, -x3 or -x4, by --scale.
    checkpoint: str | None = None
    # A folder; or, for one picture, a file. NAME_x4.png beside each picture if not given. The largest pictures need
    # the least memory as .png.
    out: Output = None
    # 2, 3 or 4; 4 if neither this nor a checkpoint is given. A checkpoint's model knows its own; one with several
    # outputs gives the largest unless you say which.
    scale: int | None = None
    # Write anew what exists already.
    overwrite: bool = False
    # Mean of the eight ways of turning and flipping the picture: a little better, eight times the work.
    ensemble: bool = False
    # Side of a tile in pixels of the picture; halved by itself where memory runs out.
    tile: int = inference.TILE
    # bf16 is about twice as fast on processors that compute it, and a few pixels differ by one of the 256 grey levels.
    # auto: bf16 there, fp16 on older GPUs, fp32 else.
    precision: Literal["fp32", "auto", "bf16", "fp16"] = "fp32"
    # cpu, cuda, mps or auto.
    device: str = "auto"

    def __call__(self) -> int:
        name = self.checkpoint or default(self.scale)
        model = load(name, self.scale)
        upscaler = inference.Upscaler(model, self.scale, self.tile, self.precision, self.ensemble, self.device)
        paths = [path for named in self.pictures for path in _pictures(named)]
        file = self.out if self.out and self.out.suffix.lower() in images.SUFFIXES and not self.out.is_dir() else None
        if not paths or (file and len(paths) > 1):
            raise SRKitError(f"{len(paths)} pictures: name one or more, and a folder for --out if there are several")
        status, made = 0, set[Path]()
        for path in paths:
            target = file or (self.out or path.parent) / f"{path.stem}_x{upscaler.scale}.png"
            try:
                if target in made:
                    raise SRKitError(f"{path}: {target} was made of another picture just now: rename one of the two")
                made.add(target)
                print(self.enlarge(upscaler, name, path, target), flush=True)
            except SRKitError as error:  # the others go on
                status = 2
                print(f"srkit: {error}", file=sys.stderr)
        return status

    def enlarge(self, upscaler: inference.Upscaler, name: str, path: Path, target: Path) -> str:
        """Enlarge one file by the model of that name; a line about it."""
        if target.exists() and not self.overwrite:
            return f"{target}: exists already and was left as it is; --overwrite writes it anew"
        low = images.read_stored(path)
        channels = 1 if len(low) == 3 and images.is_gray(low) else len(low)
        height, width = (upscaler.scale * side for side in low.shape[1:])
        images.write_bands((band[:channels] for band in upscaler.bands(low)), target, (channels, height, width))
        return f"{target}: {width} x {height}, by {name}"


@dataclass
class Export:
    """Write a trained model as ONNX, which runs without PyTorch."""

    # As for srkit upscale.
    checkpoint: Positional[str | None] = None
    # The file to write; CHECKPOINT.onnx here if not given.
    out: Output = None
    # As for srkit upscale; the file has all outputs of a model with several.
    scale: int | None = None

    def __call__(self) -> None:
        name = self.checkpoint or default(self.scale)
        path = inference.to_onnx(load(name, self.scale), self.out or f"{Path(name).stem}.onnx")
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@dataclass
class Evaluate:
    """Measure a model: PSNR and SSIM on luma, a border of SCALE pixels cut, per picture and mean."""

    # A pretrained network, e.g. srcnn915-x3 (srkit inspect lists them); a checkpoint, srkit's or another project's
    # (see srkit inspect -h); or nearest, bilinear or bicubic.
    model: Positional[str]
    # A name that `srkit data` lists, or a folder of pictures.
    data: str
    # 2, 3 or 4; a trained model knows its own.
    scale: int | None = None
    # Which pictures of the data set. auto: its test split if it has one, else all; and of the pictures that the
    # checkpoint's training had, only those that it was not trained on.
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    # cpu, cuda, mps or auto.
    device: str = "auto"
    # Print JSON and nothing else.
    json: bool = False

    def __call__(self) -> None:
        model = load(self.model, self.scale).to(choose_device(self.device))
        dataset = self.pictures()
        table, split = metrics.evaluate(model, dataset, self.scale), dataset.config["split"]
        if self.json:
            print(json.dumps({"model": self.model, "data": self.data, "split": split, **table.to_dict()}, indent=2))
        else:
            print(f"{self.model} on {self.data}, split {split!r} ({len(dataset)} of its pictures)\n{table}")

    def pictures(self) -> ImageDataset:
        """The pictures to measure on; never by default those that the checkpoint was trained on."""
        state = {} if self.model in (*images.KERNELS, *pretrained.names()) else pretrained.read(self.model)
        with damage_of(self.model):
            own = state["dataset"] if pretrained.is_checkpoint(state) else {}
            if own and Path(own["source"]).resolve() != Path(self.data).resolve():
                own = {}
            counts = {name: own[name] for name in ("train", "val", "test", "seed") if own}
            split = self.split
            if split == "auto":
                has = sources.split(self.data, **counts)
                named = own or self.data in sources.SOURCES
                split = "test" if named and has.test else "val" if own and has.val else "all"
            return load_dataset(self.data, split, **counts)


def default(scale: int | None) -> str:
    """The pretrained network for who names none, of the scale that is asked for.

    Raises:
        SRKitError: another scale than 2, 3 or 4.
    """
    return f"efficient-x{4 if scale is None else images.check_scale(scale)}"


def load(name: str, scale: int | None = None) -> nn.Module:
    """A trained model by its name or its file, or an interpolation by name, which needs a scale.

    Raises:
        SRKitError: none of these, or the scale is missing.
    """
    if name in images.KERNELS:
        if scale is None:
            raise SRKitError(f"{name} can enlarge by any scale: say which, e.g. --scale 3")
        return models.create(name, scale)
    if name in models.PRESETS:
        known = ", ".join(pretrained.names())
        raise SRKitError(f"{name} is not trained yet: name a checkpoint, e.g. runs/{name}-…/best.pt, or one of {known}")
    return models.load(name)


def _pictures(path: Path) -> list[Path]:
    """A picture itself; of a folder those in it, without what was enlarged from one of them."""
    if not path.is_dir():
        return [path]
    inside = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in images.SUFFIXES)
    names = {p.stem for p in inside}
    return [p for p in inside if re.sub("_x[234]$", "", p.stem) not in names - {p.stem}]


def facts(name: str) -> dict[str, Any]:
    """What a checkpoint, or a pretrained network, holds, as plain words and numbers.

    Raises:
        SRKitError: no such file or network, or a file that srkit cannot read.
    """
    if name in pretrained.names():
        return pretrained.card(name)
    state = pretrained.read(name)
    own = pretrained.is_checkpoint(state, name)
    model = _shown(checkpoint.load(name)) if own else models.load(name)
    trainable, frozen = models.count(model)
    config = dict(getattr(model, "config", {}))
    found = {
        **convert.origin(model),
        "model": config.pop("name"),
        "architecture": config,
        "parameters": trainable,
        "frozen parameters": frozen,
        "scale": model.scale,
        "weights_sha256": pretrained.weights_sha256(model.state_dict()),
    }
    return {**found, **_training(state)} if own else found


def _shown(state: dict[str, Any]) -> Any:
    """A checkpoint's model, to look at: what it reads of a frozen network is made at random, not downloaded."""
    config, weights = state["model_config"], state["ema"] or state["model"]
    if not config.get("features"):
        return models.fill(config, weights)
    model = models.build(models.bounded({**config, "feature_weights": "random"}))
    return presets.label(model, config=config)


def _training(state: dict[str, Any]) -> dict[str, Any]:
    """How the checkpoint's training went."""
    history = History()
    history.restore(state["history"], state["moves"])
    last = {name: history.series(name)[1][-1] for name in history.names()}
    found = {
        "started from": state["start"] or "nothing",
        "step": state["step"],
        "seconds": round(state["seconds"], 1),
        "hyper-parameters": state["config"],
        "moves by hand": [f"step {m.step}: {m.name} {m.old:.3g} → {m.new:.3g}" for m in history.moves],
        "metrics": {key: value for key, value in last.items() if key not in ("seconds", "val/seconds", "lr")},
        "data": {**state["dataset"], "fingerprint": state["fingerprint"]},
        "student": state["student"],
        "weights": "average (EMA)" if state["ema"] else "last step's",
    }
    if "discriminator" in state:
        found["discriminator"] = models.count_parameters(models.build(models.bounded(state["discriminator"]["config"])))
        found["diagnosis"] = gan.diagnose(history)
    return found


def _table(cards: dict[str, dict[str, Any]]) -> str:
    """The pretrained networks, a line each: what they reach on each of their tests, and bicubic there."""
    lines = ["mean PSNR in dB on luma, in brackets bicubic's"]
    for name, card in cards.items():
        bicubic = card["bicubic"]
        reached = [f"{test} {got['psnr']:.2f} ({bicubic[test]['psnr']:.2f})" for test, got in card["measured"].items()]
        needs = f"; needs {card['needs']}: pip install {card['needs']}" if "needs" in card else ""
        lines.append(f"{name:24} {'; '.join(reached)}{needs}")
    return "\n".join(lines)


def _tree(found: dict[str, Any], indent: str = "") -> str:
    """Nested facts as indented lines."""
    lines = []
    for key, value in found.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}", _tree(value, indent + "  ")] if value else []
        else:
            lines.append(f"{indent}{key:{18 - len(indent)}} {value if value not in (None, '') else '-'}")
    return "\n".join(lines)
