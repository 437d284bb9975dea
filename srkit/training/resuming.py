"""Going on with a training from its checkpoint alone, as `srkit resume` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from srkit import models
from srkit.data import load_dataset
from srkit.models.files import damage_of
from srkit.settings import SRKitError, Student
from srkit.training import checkpoint
from srkit.training.devices import main_first, open_device
from srkit.training.gan import GANTrainer
from srkit.training.trainer import FREE, Trainer

KINDS: dict[str, type[Trainer]] = {"Trainer": Trainer, "GANTrainer": GANTrainer}


def resume(path: str | Path, out: str | Path | None = None, **changes: Any) -> Trainer:
    """The Trainer that goes on from a checkpoint, with its own model, pictures and settings.

    Args:
        path: the checkpoint.
        out: where to write; the checkpoint's own folder if not given.
        changes: settings to change, e.g. steps=20_000, lr=1e-4. With another batch_size, say, the training goes on from
            the same weights, but no longer as if it had never stopped: a line says so.

    Raises:
        SRKitError: the checkpoint cannot be read, or its pictures are no longer there.
    """
    state = checkpoint.load(path)
    with damage_of(path):
        return _resumed(state, Path(path), out, changes)


def _resumed(state: dict[str, Any], path: Path, out: str | Path | None, changes: dict[str, Any]) -> Trainer:
    if not state["model_config"] or not state["dataset"]:
        raise SRKitError("trained on a model or pictures of your own: make the Trainer, then load_state()")
    if (kind := KINDS.get(state["trainer"])) is None:
        raise SRKitError(f"trained by a {state['trainer']}: make one like it and fit(resume=True)")
    try:
        config = kind.config_class(**{**state["config"], **changes})
    except TypeError as error:
        raise SRKitError(f"no such setting: {error}") from None
    device = open_device(config.device)
    with main_first():  # it downloads, if need be
        dataset = load_dataset(**state["dataset"], device=device)
        validation = load_dataset(**state["validation"], device=device) if state["validation"] else None
        model: Any = models.fill(state["model_config"], state["model"])
    model.pretrained = True
    options: dict[str, Any] = {"out": out or path.parent, "student": Student(**state["student"])}
    trainer = kind(model, dataset, config, validation=validation, **options).load_state(state)
    moved = FREE | {"steps", "lr", "loss"}  # these change from a step on, as a move does
    if inexact := [name for name in changes if name not in moved and changes[name] != state["config"].get(name)]:
        trainer.log(f"{', '.join(inexact)} changed: no longer the exact continuation of the training")
    rate = {"lr": config.lr} if "lr" in changes else {}
    trainer.change(**changes.get("loss", {}), **rate)
    return trainer
