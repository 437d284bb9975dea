"""Checkpoints: plain tensors, numbers and strings in one file that rebuilds its model by itself.

Written to a temporary file and renamed, so that a full disk or a kill in the middle of saving leaves the checkpoint
before it whole. Read with `weights_only`, so that a file from a stranger cannot run anything.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srkit import models
from srkit.models import pretrained
from srkit.settings import SRKitError, atomic_write, lock


def save(state: dict[str, Any], path: str | Path, keep: str | Path | None = None) -> Path:
    """Write a checkpoint atomically.

    Args:
        state: plain tensors, numbers, strings, lists and dicts; see `Trainer.state`.
        path: the file; its folder is made.
        keep: where the file that stood at `path` is kept.

    Raises:
        SRKitError: it could not be written; what stood at `path` still stands there.
    """
    path = Path(path)
    with atomic_write(path, keep) as part:
        try:
            torch.save({"format": pretrained.STAMP, **state}, part)
        except RuntimeError as error:  # what PyTorch makes of a full disk
            raise OSError(str(error).splitlines()[0]) from None
    return path


class Folder:
    """Where a training writes: last.pt, previous.pt, best.pt, history.jsonl. One Trainer at a time holds it.

    Args:
        path: made when it is claimed.
    """

    FILES = ("last.pt", "previous.pt", "best.pt", "history.jsonl")

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, None

    @property
    def claimed(self) -> bool:
        return self._lock is not None

    def claim(self) -> None:
        """Lock the folder until `release`, or until this process ends.

        Raises:
            SRKitError: another process trains there; the message says which.
        """
        self._lock = lock(self.path, wait=False)

    def release(self) -> None:
        """Let others train there."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def set_aside(self) -> Path | None:
        """Move another training's files into replaced/1, replaced/2, …, so that beginning anew loses nothing."""
        if not (self.path / "last.pt").exists():
            return None
        numbers = [int(path.name) for path in (self.path / "replaced").glob("*") if path.name.isdecimal()]
        aside = self.path / "replaced" / str(max(numbers, default=0) + 1)
        aside.mkdir(parents=True)
        for name in self.FILES:
            if (self.path / name).exists():
                os.replace(self.path / name, aside / name)
        return aside

    def save(self, state: dict[str, Any], name: str, keep: str | None = None) -> Path:
        """Write one of the checkpoints; `keep` is the name under which the one before stays."""
        return save(state, self.path / name, keep and self.path / keep)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's state onto the CPU.

    Raises:
        SRKitError: the file is missing, damaged, of another program or an older format, or holds anything but plain
            data, which is never executed.
    """
    state = pretrained.read(path)
    if not pretrained.is_checkpoint(state, path):
        raise SRKitError(f"{path}: a file of another program: srkit wrote no such checkpoint")
    return state


def load_discriminator(path: str | Path) -> nn.Module:
    """Rebuild the discriminator from a GAN's checkpoint, on the CPU, to go on training it.

    Raises:
        SRKitError: as `load`; or the checkpoint holds a generator alone.
    """
    state = load(path)
    if "discriminator" not in state:
        name = state["model_config"].get("name", "a model of your own")
        raise SRKitError(f"{path} holds {name} and no discriminator: give a GAN's checkpoint, or begin with a new one")
    model = models.build(state["discriminator"]["config"])
    model.load_state_dict(state["discriminator"]["weights"])
    return model
