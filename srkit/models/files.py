"""The one reader of weights files: safetensors, and PyTorch's, of today and of before 1.6. Nothing in them is run."""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from srkit.data.images import SUFFIXES
from srkit.settings import SRKitError


def read(path: str | Path) -> Any:
    """What a weights file holds, on the CPU: of .safetensors its tensors by name; of others whatever PyTorch saved.

    Raises:
        SRKitError: the file is missing, truncated, damaged or of another kind; or it holds anything but plain data,
            which is never executed, or compressed members, which could grow without end.
    """
    path = Path(path)
    if not path.is_file():
        raise SRKitError(f"{path}: no such file")
    if path.suffix.lower() in SUFFIXES:
        raise SRKitError(f"{path}: a picture, where weights are wanted: srkit upscale {path.name} enlarges it")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:  # torch.load itself notices neither changed bytes nor compression
                if any(each.compress_type for each in packed.infolist()) or packed.testzip():
                    raise zipfile.BadZipFile
        with warnings.catch_warnings(action="ignore"):  # of a pickle that is none of PyTorch's: the error says it
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file can raise nearly everything
        raise SRKitError(
            f"{path}: truncated, damaged, or no plain tensors, and srkit runs no code from a file: get it again, or "
            "use previous.pt beside it"
        ) from None


@contextmanager
def damage_of(path: object) -> Iterator[None]:
    """Within it, whatever a file's content makes fail is said of the file.

    Raises:
        SRKitError: in place of nearly everything: what a stranger, or a broken disk, can write into a file is not to be
            listed, so no list of checks would be whole.
    """
    try:
        yield
    except SRKitError as error:
        raise SRKitError(str(error) if str(path) in str(error) else f"{path}: {error}") from error.__cause__
    except (OSError, MemoryError):
        raise
    except Exception as error:
        reason = shorten(f"{type(error).__name__}: {error}", 200)
        raise SRKitError(f"{path}: damaged ({reason}): get it again, or use previous.pt beside it") from error


def tensors_in(content: Any) -> dict[str, Tensor]:
    """The tensors by name in what `read` gives; none if it holds anything else.

    They may lie under "state_dict". What torch.compile, several devices or averaging put before names is dropped.
    """
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    named = content.items() if isinstance(content, dict) else ()
    tensors = {key: value for key, value in named if isinstance(key, str) and isinstance(value, Tensor)}
    tensors.pop("n_averaged", None)  # of torch.optim.swa_utils.AveragedModel
    return {re.sub(r"^((module|_orig_mod)\.)+", "", key): value for key, value in tensors.items()}


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """One fingerprint for all weights: equal exactly when every name, shape and bit is."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
