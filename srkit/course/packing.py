"""Handing in: from a checkpoint and what lies beside it to a zip that marking accepts, or to what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file

from srkit import metrics, models
from srkit.course import claims, copies, measuring, rules, submission
from srkit.course.rules import Rules
from srkit.data import images, sources
from srkit.inference import SelfEnsemble
from srkit.metrics import Table
from srkit.models.files import weights_sha256
from srkit.settings import SRKitError, atomic_write
from srkit.training import checkpoint


@dataclass
class Packed:
    """What was packed: the zip, or None and why not; and what its own validation measured."""

    path: Path | None
    problems: list[str]
    table: Table
    parameters: int
    files: list[str] = field(default_factory=list)


def pack(
    weights: Path, folder: Path, contest: Rules, notebooks: Sequence[Path] = (), out: Path | None = None
) -> Packed:
    """Check what is handed in, as marking will, and pack it if nothing is wrong.

    Args:
        weights: a checkpoint of srkit.
        folder: with info.py, model.py, train.py, and figures/.
        contest: the rules.
        notebooks: executed ones; those in the folder if none is named.
        out: the folder for the zip; `folder` if not given.

    Raises:
        SRKitError: there is no network or nobody to name as its author; nothing was packed.
    """
    state = checkpoint.load(weights)
    with TemporaryDirectory() as scratch:
        stage = Path(scratch)
        for path in [*folder.glob("*.py"), *(notebooks or folder.glob("*.ipynb"))]:
            shutil.copyfile(path, stage / path.name)
        for path in folder.glob("figures/*"):
            if path.suffix in (".png", ".json"):
                (stage / "figures").mkdir(exist_ok=True)
                shutil.copyfile(path, stage / "figures" / path.name)
        info = submission.read_info(stage)
        tensors = {name: value.contiguous() for name, value in (state["ema"] or state["model"]).items()}
        save_file(tensors, stage / submission.MODEL)
        (stage / "model.json").write_text(json.dumps({"config": state["model_config"]}), "utf-8")
        model = measuring.load(stage, contest.own_network)
        if contest.scale not in models.scales_of(model):
            raise SRKitError(f"{weights} enlarges by {models.scales_of(model)[-1]}, and the rules want {contest.scale}")
        measured = SelfEnsemble(model, contest.scale) if contest.ensemble and info["ENSEMBLE"] else model
        table = metrics.evaluate(measured, rules.pictures(contest.validation, "val"), contest.scale)
        parameters = sum(models.count(model))
        manifest = {
            "format": submission.FORMAT,
            "packed": submission.now(),
            "weights_sha256": weights_sha256(tensors),
            "claims": {"validation": contest.validation, "psnr": table.psnr, "parameters": parameters},
            "training": {"data": state["dataset"], "start": state["start"], "steps": state["step"]},
            "files": submission.files_in(stage),
        }
        manifest["training"]["pictures"] = training = _training_pictures(state["dataset"])
        (stage / submission.MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
        found = submission.inspect(stage, contest)
        seen = claims.Measured(manifest["weights_sha256"], parameters, table, table)
        problems = [problem for problem in found.problems.values() if problem]
        problems += claims.differences(found, seen, contest)
        problems += claims.broken(manifest["training"], training, parameters, contest, set())
        packed = Packed(None, problems, table, parameters, [*manifest["files"], submission.MANIFEST])
        if not problems:
            packed.path = (out or folder) / submission.zip_name(info)
            with atomic_write(packed.path) as draft:
                submission.write_zip(stage, draft)
    return packed


def _training_pictures(config: dict[str, Any]) -> list[copies.Prints]:
    """The prints of the files that a training read, from the config of its data set."""
    if not config:
        return []
    counts = {name: config.get(name) for name in ("train", "val", "test")}
    source, split = config["source"], config["split"]
    if split == "all":
        paths = sources.pictures(source)
    else:
        paths = getattr(sources.split(source, **counts, seed=config["seed"]), split)
    return [copies.prints(images.to_uint8(images.read(path))) for path in paths]
