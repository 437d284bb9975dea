"""What several test files share: the shared pictures, small banks, and folders of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from srkit.banks import Bank

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Nothing a test does reaches the clone's data/, runs/ or figures/."""
    monkeypatch.setenv("SRKIT_ROOT", str(tmp_path))
    monkeypatch.delenv("SRKIT_PROFILE", raising=False)


def shared(name: str) -> Path:
    """A folder of the shared pictures, or a skip that says which is missing."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs the pictures of {name} in {SHARED.name}/{name} beside the repository")
    return SHARED / name


@pytest.fixture
def set5() -> Path:
    return shared("set5/hr")


@pytest.fixture
def t91() -> Path:
    return shared("t91")


def photograph(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth random picture (3, H, W) in [0, 1] with edges, whose detail a model can learn."""
    dice = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, max(2, height // 6), max(2, width // 6), generator=dice)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0].clamp(0, 1)


@pytest.fixture
def bank() -> Bank:
    """Five pictures of different sizes."""
    sizes = [(48, 60), (50, 50), (64, 48), (48, 48), (72, 90)]
    return Bank([photograph(*size, seed).mul(255).byte() for seed, size in enumerate(sizes)])
