"""Imported by the process that others are forked from: what PyTorch imports late, each of these would import anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from . import network, training

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    for kind in ("mse", "gan"):
        training.make(kind, Path(folder) / kind, steps=2).fit(progress=False)

__all__ = ["network", "training"]
