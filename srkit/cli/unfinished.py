"""Large pictures take long: their bands stay on the disk until the file is whole, so that one can go on with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srkit.settings import atomic_write


def kept(bands: Callable[[int], Iterator[Tensor]], folder: Path, about: dict[str, Any]) -> Iterator[Tensor]:
    """A picture's bands from the top: those that are in the folder already, then the rest, which are put there.

    Args:
        bands: the bands (C, rows, W) from a row of the output on.
        folder: made; it holds the output as it is, and is for the caller to remove once the file stands.
        about: what decides the bands; a folder that was made of something else is emptied.
    """
    note, rows = folder / "about.json", 0
    if not note.is_file() or json.loads(note.read_text("utf-8")) != about:
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_write(note) as draft:
            draft.write_text(json.dumps(about), "utf-8")
    while (path := folder / f"{rows}.npy").is_file():
        band = torch.from_numpy(np.load(path))
        yield band
        rows += band.shape[1]
    if rows:
        print(f"{folder}: going on from row {rows}", flush=True)
    for band in bands(rows):
        with atomic_write(folder / f"{rows}.npy") as draft:
            np.save(draft, band.numpy())
        yield band
        rows += band.shape[1]
