"""The one reader of weights files: safetensors, and PyTorch's, of today and of before 1.6. Nothing in them is run."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from srkit.settings import SRKitError


def read(path: str | Path) -> Any:
    """What a weights file holds, on the CPU: of safetensors its tensors by name; of PyTorch's whatever was saved.

    Raises:
        SRKitError: the file is missing, truncated, damaged or of another kind; or it holds anything but plain data,
            which is never executed, or compressed members, which could grow without end.
    """
    path = Path(path)
    if not path.is_file():
        raise SRKitError(f"{path}: no such file")
    try:
        if _is_safetensors(path):
            return _read_safetensors(path)
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


def metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file that `read` has read says about itself; nothing for files of another kind."""
    if not _is_safetensors(path):
        return {}
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """One fingerprint for all weights: equal exactly when every name, shape and bit is."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_safetensors(path: str | Path) -> bool:
    with Path(path).open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        # Tensors that modules share are written once; the metadata says under which name.
        shared = {key: tensors[kept] for key, kept in (file.metadata() or {}).items() if kept in tensors}
    return {**shared, **tensors}
