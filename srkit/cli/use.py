"""The commands that train nothing: run, data, inspect, export, evaluate."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from srkit import inference, metrics, models
from srkit.cli.upscale import Output, default, load
from srkit.course import lessons
from srkit.data import ImageDataset, images, load_dataset, sources
from srkit.models import convert, presets, pretrained
from srkit.models.files import damage_of
from srkit.settings import SRKitError, choose_device, printable
from srkit.training import History, checkpoint, gan


@dataclass
class Run:
    """Execute lessons from their first cell to their last and fail on any error, hidden ones too.

    Executed copies (.ipynb, .html) go to runs/notebooks/, figures to figures/.
    """

    # Lessons by number, e.g. 01 03; all of them if none is named.
    lessons: Positional[tuple[str, ...]] = ()
    # quick: bundled photographs, no network, minutes a lesson; class: a Colab T4; full: hours.
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
class Export:
    """Write a trained model as ONNX, which runs without PyTorch; or as a web page that runs it in the browser."""

    # As for srkit upscale.
    checkpoint: Positional[str | None] = None
    # The file to write; CHECKPOINT.onnx here if not given.
    out: Output = None
    # As for srkit upscale; the file has all outputs of a model with several.
    scale: int | None = None
    # Write FOLDER/index.html instead: drop a picture, wipe, download. For GitHub Pages, or to be sent.
    html: Path | None = None
    # For the page: onnxruntime-web's folder dist, copied beside it; its CDN if not given.
    runtime: Path | None = None

    def __call__(self) -> None:
        name = self.checkpoint or default(self.scale)
        if self.html and self.out:
            raise SRKitError("--html writes a folder, -o one file: give one of them")
        model = models.load(name) if name in pretrained.styles() else load(name, self.scale)
        if not self.html:
            path, how = inference.to_onnx(model, self.out or f"{Path(name).stem}.onnx"), ""
        else:
            from srkit.app.static import write_page

            path = write_page(model, Path(name).stem, self.html, self.runtime)
            how = f"; open it, or: python -m http.server -d {self.html}"
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB{how}")


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
    # Further columns, lower is better: brisque (needs no ground truth), lpips (a learnt distance), of the extra quality
    measures: tuple[Literal["brisque", "lpips"], ...] = ()
    # cpu, cuda, mps or auto.
    device: str = "auto"
    # Print JSON and nothing else.
    json: bool = False

    def __call__(self) -> None:
        model = load(self.model, self.scale).to(choose_device(self.device))
        dataset = self.pictures()
        table, split = metrics.evaluate(model, dataset, self.scale, measures=self.measures), dataset.config["split"]
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


def facts(name: str) -> dict[str, Any]:
    """What a checkpoint, or a pretrained network, holds, as plain words and numbers.

    Raises:
        SRKitError: no such file or network, or a file that srkit cannot read.
    """
    if name in pretrained.names():
        return pretrained.card(name)
    if name in pretrained.styles():
        return pretrained.card(name, pretrained.STYLES)
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
    lines.append(f"styles, for srkit style: {', '.join(pretrained.styles())}")
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
