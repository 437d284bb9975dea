"""Checkpoints: plain tensors, numbers and strings in one file that rebuilds its model by itself.

Written to a temporary file and renamed, so that a full disk or a kill in the middle of saving leaves the checkpoint
before it whole. Read with `weights_only`, so that a file from a stranger cannot run anything.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn

from srkit import models
from srkit.models import pretrained
from srkit.models.files import damage_of
from srkit.settings import SRKitError, atomic_write, writing


def save(state: dict[str, Any], path: str | Path, keep: str | Path | None = None) -> Path:
    """Write a checkpoint atomically.

    Args:
        state: plain tensors, numbers, strings, lists and dicts; see `Trainer.state`.
        path: the file; its folder is made.
        keep: where the file that stood at `path` is kept.

    Raises:
        SRKitError: it could not be written; what stood at `path` still stands there.
    """
    with atomic_write(path, keep) as draft:
        try:
            torch.save({"format": pretrained.STAMP, **state}, draft)
        except RuntimeError as error:  # what PyTorch makes of a full disk
            raise OSError(str(error).splitlines()[0]) from None
    return Path(path)


def set_aside(folder: Path) -> Path | None:
    """Move another training's files into replaced/1, replaced/2, …, so that beginning anew loses nothing."""
    if not (folder / "last.pt").exists():
        return None
    numbers = [int(path.name) for path in (folder / "replaced").glob("*") if path.name.isdecimal()]
    aside = folder / "replaced" / str(max(numbers, default=0) + 1)
    with writing(aside):
        aside.mkdir(parents=True)
        for name in ("last.pt", "previous.pt", "best.pt", "history.jsonl", "film.pt"):
            if (folder / name).exists():
                os.replace(folder / name, aside / name)
    return aside


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's state onto the CPU.

    Raises:
        SRKitError: the file is missing, damaged, of another program or an older format, or holds anything but plain
            data, which is never executed.
    """
    state = pretrained.read(path)
    if not pretrained.is_checkpoint(state, path):
        raise SRKitError(f"{path}: a file of another program: srkit wrote no such checkpoint")
    if missing := [name for name in pretrained.FIELDS if name not in state]:
        raise SRKitError(f"{path}: {missing[0]!r} is missing: get it again, or use previous.pt beside it")
    return state


def code_of(model: nn.Module, trainer: object) -> str:
    """A fingerprint of what a notebook or script itself has written of a training's classes; "" if it wrote none.

    By it a training knows that its student has rewritten the network since.
    """
    kinds = {
        kind: 0 for one in (trainer, *model.modules()) for kind in type(one).__mro__ if kind.__module__ == "__main__"
    }
    codes = [method.__code__ for kind in kinds for method in vars(kind).values() if isinstance(method, FunctionType)]
    words = [(code.co_name, code.co_code, code.co_names, code.co_varnames, _constants(code)) for code in codes]
    return sha256(repr([words, model]).encode()).hexdigest() if words else ""


def _constants(code: CodeType) -> list[Any]:
    """What a function's code holds, with the functions inside it by their own code: their addresses say nothing."""
    return [(one.co_code, _constants(one)) if isinstance(one, CodeType) else one for one in code.co_consts]


def same_shapes(own: dict[str, Any], other: Any) -> bool:
    """Whether weights from a file would fit into a network with these."""
    theirs = other if isinstance(other, dict) else {}
    return {name: value.shape for name, value in own.items()} == {
        name: getattr(value, "shape", None) for name, value in theirs.items()
    }


def load_discriminator(path: str | Path) -> nn.Module:
    """Rebuild the discriminator from a GAN's checkpoint, on the CPU, to go on training it.

    Raises:
        SRKitError: as `load`; or the checkpoint holds a generator alone.
    """
    state = load(path)
    if "discriminator" not in state:
        raise SRKitError(f"{path} holds no discriminator: give a GAN's checkpoint, or begin with a new one")
    with damage_of(path):
        return models.fill(state["discriminator"]["config"], state["discriminator"]["weights"])
