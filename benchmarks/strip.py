"""Pictures by the networks that ship: a face, the README's first, a photograph as it is, and all that enlarge by four.

uv run python -m benchmarks.strip
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import figures, metrics, models
from srkit.data import load_dataset
from srkit.data.degradation import add_noise, soften
from srkit.data.images import crop_to_multiple, degrade, to_uint8
from srkit.inference import upscale
from srkit.models import pretrained
from srkit.models.pretrained import weights_sha256

SCALE, SIDE = 4, 152
BLUR, NOISE, QUALITY = 1.0, 0.02, 60  # of a photograph: in pixels of LR, in [0, 1], of JPEG
STRIPS = {  # name: picture, left, top, networks beside bicubic, whether LR is a photograph
    "upscale": ("astronaut", 152, 16, ("efficient-x4",), False),
    "photo": ("chelsea", 100, 60, ("efficient-x4", "efficient-photo-x4"), True),
}
PICTURE, BOX = "chelsea", (92, 112, 96)  # what all of them are shown on


@dataclass(kw_only=True)
class Options(timing.Options):
    """Draw a face, a photograph as it is, and a part of a picture by every network that enlarges by four."""


def photographed(low: Tensor) -> Tensor:
    """A picture out of focus, noisy, and saved as JPEG by Pillow's codec; (3, h, w) in [0, 1]."""
    file, generator = io.BytesIO(), torch.Generator().manual_seed(0)
    low = add_noise(soften(low[None], torch.tensor([BLUR]), generator), torch.tensor([NOISE]), generator)[0]
    Image.fromarray(to_uint8(low).permute(1, 2, 0).numpy()).save(file, "JPEG", quality=QUALITY)
    return torch.tensor(np.asarray(Image.open(file))).permute(2, 0, 1) / 255


def strip(picture: str, left: int, top: int, networks: Sequence[str], photo: bool) -> tuple[Figure, Facts]:
    """Pictures in a row, 12 inches wide, and what was measured of them."""
    high = crop_to_multiple(dict(load_dataset("bundled", "all"))[picture], SCALE)
    low = photographed(degrade(high, SCALE)) if photo else degrade(high, SCALE)
    methods = {"bicubic": models.create("bicubic", SCALE)} | {name: models.load(name) for name in networks}
    facts: Facts = {"command": "python -m benchmarks.strip", "picture": picture}
    facts |= {"blur": BLUR, "noise": NOISE, "JPEG quality": QUALITY} if photo else {}
    fig = Figure(figsize=(12, 0.4 + 12 / (len(methods) + 1)), layout="constrained")
    for ax, name in zip(fig.subplots(1, len(methods) + 1), [*methods, "ground truth"], strict=True):
        output = upscale(methods[name], low) if name in methods else high
        figures.show(ax, output[:, top : top + SIDE, left : left + SIDE])
        if name in methods:
            facts[name] = metrics.psnr(output, high, SCALE).item()
        ax.set_xlabel(f"{name}   {facts[name]:.2f} dB" if name in methods else name, fontsize=15)
    facts["weights_sha256"] = {name: weights_sha256(methods[name].state_dict()) for name in networks}
    return fig, facts


def run(options: Options) -> tuple[Facts, str]:
    """All strips."""
    found = {}
    for name, shown in STRIPS.items():
        fig, found[name] = strip(*shown)
        published.publish(fig, name, found[name])
    every = {name: models.load(name) for name in pretrained.names() if name.endswith("x4") and "photo" not in name}
    page = published.comparison({"bicubic": models.create("bicubic", SCALE), **every}, PICTURE, BOX, SCALE)
    weights = {name: weights_sha256(model.state_dict()) for name, model in every.items()}
    found["pretrained"] = {"command": "python -m benchmarks.strip", "picture": PICTURE, "weights_sha256": weights}
    published.publish(page, "pretrained", found["pretrained"])
    return found, "\n".join(f"figures/reference/{name}.jpg" for name in found)


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.strip")
