"""Does `metrics.brisque` put pictures into the same order as other code for BRISQUE's features, scikit-video's?

    uv run --with piq --with scikit-video python -m benchmarks.agreement --data bsds200

The pictures as they are, blurred and noisy in turn. Both sides use the same support vectors, so what differs is how the
36 features are found: the half size is MATLAB's bicubic here and Pillow's there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import scipy
import torch
from PIL import Image
from torch import Tensor

from benchmarks import timing
from benchmarks.timing import Facts
from srkit.data import load_dataset
from srkit.metrics import brisque, quality
from srkit.settings import SRKitError


@dataclass(kw_only=True)
class Options(timing.Options):
    """Compare BRISQUE with scikit-video's features: Spearman's rank correlation, and the mean difference."""

    data: str = "bsds200"  # a data set or a folder
    count: int = 60  # pictures


def run(options: Options) -> tuple[Facts, str]:
    """The correlation over the pictures.

    Raises:
        SRKitError: scikit-video is not installed, or what `brisque` raises.
    """
    other_features, scores = features_of_scikit_video(), []
    for i, (_, picture) in zip(range(options.count), load_dataset(options.data, "all"), strict=False):
        spoilt = spoil(picture, i)
        scores.append((brisque(spoilt).item(), quality.score(other_features(spoilt)).item()))
    own, other = np.array(scores).T
    own_ranks, other_ranks = np.argsort(np.argsort([own, other]))
    facts: Facts = {
        "command": f"python -m benchmarks.agreement --data {options.data} --count {options.count}",
        "pictures": len(scores),
        "spearman": float(np.corrcoef(own_ranks, other_ranks)[0, 1]),
        "mean_difference": float(np.abs(own - other).mean()),
        "brisque": own.tolist(),
        "scikit-video": other.tolist(),
    }
    text = f"Spearman {facts['spearman']:.3f}, mean difference {facts['mean_difference']:.1f} points"
    return facts, f"{text}, on {len(scores)} pictures"


def spoil(picture: Tensor, i: int) -> Tensor:
    """As it is, blurred (3 x 3), or with noise of 13 of 255 grey levels."""
    if i % 3 == 1:
        return torch.nn.functional.avg_pool2d(picture, 3, 1)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(i))
    return (picture + 0.05 * noise).clamp(0, 1) if i % 3 else picture


def features_of_scikit_video():
    """Its function, of a picture (3, H, W); with what SciPy had once and Pillow still has: imresize."""

    def imresize(picture: np.ndarray, factor: float, interp: str, mode: str) -> np.ndarray:
        height, width = (int(factor * side) for side in picture.shape)
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))

    sys.modules["scipy.misc"] = scipy.misc = SimpleNamespace(imresize=imresize)  # pyright: ignore
    try:
        measure = import_module("skvideo.measure")
    except ImportError:
        raise SRKitError("scikit-video is not installed: pip install scikit-video") from None

    def features(picture: Tensor) -> Tensor:
        return torch.from_numpy(measure.brisque_features(quality.gray(picture)[0, 0].numpy())).double()

    return features


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.agreement")
