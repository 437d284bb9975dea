"""The README's first picture: a face by bicubic, by the network that `srkit upscale` takes, and as it is.

uv run python -m benchmarks.strip
"""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import figures, metrics, models
from srkit.data import load_dataset
from srkit.data.images import crop_to_multiple, degrade
from srkit.inference import upscale
from srkit.models.pretrained import weights_sha256

NETWORK, SCALE = "efficient", 4
PICTURE, LEFT, TOP, SIDE = "astronaut", 152, 16, 152


@dataclass(kw_only=True)
class Options(timing.Options):
    """Draw the README's first picture."""


def run(options: Options) -> tuple[Facts, str]:
    """Three pictures in a row, 12 inches wide."""
    model = models.load(f"{NETWORK}-x{SCALE}")
    high = crop_to_multiple(dict(load_dataset("bundled", "all"))[PICTURE], SCALE)
    low = degrade(high, SCALE)
    facts: Facts = {"command": "python -m benchmarks.strip", "picture": PICTURE}
    fig = Figure(figsize=(12, 4.4), layout="constrained")
    methods = {"bicubic": models.create("bicubic", SCALE), f"{NETWORK}-x{SCALE}": model}
    for ax, name in zip(fig.subplots(1, 3), [*methods, "ground truth"], strict=True):
        output = upscale(methods[name], low) if name in methods else high
        figures.show(ax, output[:, TOP : TOP + SIDE, LEFT : LEFT + SIDE])
        if name in methods:
            facts[name] = metrics.psnr(output, high, SCALE).item()
        ax.set_xlabel(f"{name}   {facts[name]:.2f} dB" if name in methods else name, fontsize=15)
    published.publish(fig, "upscale", {**facts, "weights_sha256": weights_sha256(model.state_dict())})
    return facts, "figures/reference/upscale.jpg"


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.strip")
