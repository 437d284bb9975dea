"""What several test files share: the shared pictures and weights, a small data set, and folders of their own."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the processes share the cores; torch reads this when it is imported
    cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))

os.environ["HF_HUB_OFFLINE"] = "1"  # timm and open_clip would ask for half a minute, again and again

import torch
from torch import Tensor

from srkit.data import ImageDataset

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items):
    """Slow tests drive browsers, processes and clocks: one that fails is tried once more, and listed as a rerun."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Nothing a test does reaches the clone's data/, runs/ or figures/."""
    monkeypatch.setenv("SRKIT_ROOT", str(tmp_path))
    for name in ("SRKIT_DATA", "SRKIT_MIRROR", "SRKIT_PROFILE", "SRKIT_WEIGHTS"):
        monkeypatch.setenv(name, "")  # so that what a test sets itself is gone after it
        monkeypatch.delenv(name)


def shared(name: str, kind: str = "data") -> Path:
    """A folder of the shared pictures, or (kind="weights") a file of the shared weights; a skip if it is missing."""
    if not (SHARED / kind / name).exists():
        pytest.skip(f"needs {name} in {SHARED.name}/{kind} beside the repository")
    return SHARED / kind / name


@pytest.fixture
def set5() -> Path:
    return shared("set5/hr")


def photograph(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth random picture (3, H, W) in [0, 1] with edges, whose detail a model can learn."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, max(2, height // 6), max(2, width // 6), generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0].clamp(0, 1)


@pytest.fixture
def dataset() -> ImageDataset:
    """Five pictures of different sizes."""
    sizes = [(48, 60), (50, 50), (64, 48), (48, 48), (72, 90)]
    return ImageDataset([photograph(*size, seed).mul(255).byte() for seed, size in enumerate(sizes)])


@pytest.fixture
def about() -> dict:
    """What `benchmarks.timing.machine` may say of a machine that no test needs to measure."""
    return {
        **{"device": "cpu", "cpu": "Abacus 9", "threads": 2, "torch": "2.9", "precision": "bf16"},
        **{"peak_gflops": {"bf16": 100.0, "fp32": 50.0}, "bandwidth_gigabytes": 10.0},
    }


@pytest.fixture
def tiny_clip(monkeypatch) -> None:
    """CLIP's image tower is made with two thin blocks instead of twelve: 333 thousand weights, and 512 numbers out."""
    timm = pytest.importorskip("timm", reason="CLIP's image tower is timm's")
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, embed_dim=64, depth=2, num_heads=2))
