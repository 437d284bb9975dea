"""Checkpoints: plain tensors, numbers and strings in one file that rebuilds its model by itself.

Written to a temporary file and renamed, so that a full disk or a kill in the middle of saving leaves the
checkpoint before it whole. Read with `weights_only`, so that a file from a stranger cannot run anything.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srkit import models
from srkit.errors import SRKitError
from srkit.models import foreign

FORMAT = "srkit checkpoint 1"


def save(state: dict[str, Any], path: str | Path, keep: str | Path | None = None) -> Path:
    """Write a checkpoint atomically.

    Args:
        state: plain tensors, numbers, strings, lists and dicts.
        path: the file; its folder is made.
        keep: where the file that stood at `path` is kept.

    Raises:
        SRKitError: it could not be written; what stood at `path` still stands there.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _keep(path, Path(keep))
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise SRKitError(
            f"could not save {path} ({error}): free some space; the checkpoint before it is whole"
        ) from None
    return path


def _keep(path: Path, keep: Path) -> None:
    """Give the file a second name, so that at every moment one whole file stands under the first."""
    second = keep.with_name(keep.name + ".part")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # Google Drive and some USB sticks know no links
        shutil.copyfile(path, second)
    os.replace(second, keep)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's state onto the CPU.

    Raises:
        SRKitError: the file is missing, truncated, another kind of file, or holds anything but plain
            data, which is never executed.
    """
    state = read(path)
    if not is_own(state):
        raise SRKitError(f"{path}: a file of another program: srkit wrote no such checkpoint")
    return state


def is_own(state: Any) -> bool:
    """Whether srkit wrote what `read` has read."""
    return isinstance(state, dict) and state.get("format") == FORMAT


def read(path: str | Path) -> Any:
    """As `load`, but of whichever program: a file of PyTorch's, old or new, or safetensors."""
    path = Path(path)
    if not path.is_file():
        raise SRKitError(f"{path}: no such checkpoint")
    content = foreign.read(path)
    if content is not None:
        return content
    if not zipfile.is_zipfile(path):
        raise SRKitError(f"{path}: truncated, or no checkpoint: use previous.pt beside it, or train again")
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip():  # torch.load itself does not notice a changed byte
                raise RuntimeError("its checksums do not fit")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise SRKitError(f"{path}: holds a pickled program, not plain tensors: it was not opened") from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise SRKitError(f"{path}: damaged checkpoint ({reason}): use previous.pt beside it") from None


def load_model(path: str | Path) -> nn.Module:
    """Rebuild the trained model from a checkpoint, in eval mode on the CPU, with the averaged weights if it has them.

    Or from one of another project: see `models.foreign`.

    Raises:
        SRKitError: as `load`; or the checkpoint holds a model that srkit cannot rebuild.
    """
    state = read(path)
    return model_of(state) if is_own(state) else foreign.load(state, path)


def model_of(state: dict[str, Any]) -> nn.Module:
    """The model inside a loaded checkpoint; see `load_model`."""
    if not state["recipe"]:
        raise SRKitError("this checkpoint holds a model of your own: make it, then load_state_dict(state['model'])")
    model = models.build(state["recipe"])
    model.load_state_dict(state["ema"] or state["model"])
    model.trained = state["step"] > 0  # a GAN asks for it
    return model.eval()


def load_discriminator(path: str | Path) -> nn.Module:
    """Rebuild the discriminator from a GAN's checkpoint, on the CPU, to go on judging.

    Raises:
        SRKitError: as `load`; or the checkpoint holds a generator alone.
    """
    state = load(path)
    if "discriminator" not in state:
        name = state["recipe"].get("name", "a model of your own")
        raise SRKitError(f"{path} holds {name} and no discriminator: give a GAN's checkpoint, or begin with a new one")
    model = models.build(state["discriminator"]["recipe"])
    model.load_state_dict(state["discriminator"]["weights"])
    return model


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """One fingerprint for all weights: equal exactly when every name, shape and bit is."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
