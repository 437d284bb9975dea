"""What a network makes of its own output: srcnn915-x3 applied again and again, by BRISQUE, SSIM and PSNR.

    uv run --extra quality python -m benchmarks.passes --data my/photos

The network's three convolutions run on the enlarged picture, so they can run on their own output, too. PSNR and SSIM
ask how near a picture is to its ground truth. BRISQUE, without one, asks whether its statistics look natural, and what
is sharpened until it breaks may look so for a while. Writes the table's figures and the first picture's page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import timing
from benchmarks.timing import Facts
from srkit import figures, metrics, models
from srkit.data import load_dataset
from srkit.data.images import crop_to_multiple, degrade, resize
from srkit.models import SRCNN
from srkit.settings import SRKitError, atomic_write

NETWORK, SCALE = "srcnn915-x3", 3


@dataclass(kw_only=True)
class Options(timing.Options):
    """Apply srcnn915-x3 to its own output, and measure every pass."""

    data: str = "bundled"  # a data set or a folder
    count: int = 10  # pictures
    passes: int = 4
    out: Path = Path("runs/passes")


@torch.inference_mode()
def pictures(model: SRCNN, high: Tensor, passes: int) -> dict[str, Tensor]:
    """The reference, bicubic, and what each pass makes of the one before; each (3, H, W), clipped to [0, 1]."""
    found = {"reference": high, "interpolated": resize(degrade(high, SCALE), scale=SCALE).clamp(0, 1)}
    output = found["interpolated"]
    for number in range(1, passes + 1):
        output = model.carried(output[None])[0].clamp(0, 1)
        found[f"pass {number}"] = output
    return found


def measured(output: Tensor, high: Tensor, with_brisque: bool) -> dict[str, float]:
    """BRISQUE if asked for, SSIM, PSNR in dB."""
    own = {"BRISQUE": metrics.brisque(output).item()} if with_brisque else {}
    protocol = {
        name: measure(output, high, SCALE).item() for name, measure in (("SSIM", metrics.ssim), ("PSNR", metrics.psnr))
    }
    return {**own, **protocol}


def run(options: Options) -> tuple[Facts, str]:
    """The means over the pictures, and the page."""
    model = models.load(NETWORK)
    assert isinstance(model, SRCNN)
    remark = ""
    try:
        metrics.brisque(torch.rand(3, 64, 64))
    except SRKitError as error:
        remark = f"BRISQUE is left out: {error}"
    rows: list[dict[str, dict[str, float]]] = []
    shown: dict[str, Tensor] = {}
    for _, picture in islice(load_dataset(options.data, "all"), options.count):
        high = crop_to_multiple(picture, SCALE)
        found = pictures(model, high, options.passes)
        shown = shown or found
        rows.append({name: measured(output, high, not remark) for name, output in found.items()})
    means = {
        name: {figure: sum(row[name][figure] for row in rows) / len(rows) for figure in rows[0][name]}
        for name in rows[0]
    }
    facts: Facts = {
        "command": f"python -m benchmarks.passes --data {options.data} --count {options.count}",
        "network": NETWORK,
        "pictures": len(rows),
        "means": means,
        "each": rows,
    }
    draw(shown, rows[0], options.out / "passes.png")
    with atomic_write(options.out / "passes.json") as draft:
        draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    lines = [f"{name:14}" + "  ".join(words(values)) for name, values in means.items()]
    return facts, "\n".join([*lines, *([remark] if remark else []), str(options.out / "passes.png")])


def words(values: dict[str, float]) -> list[str]:
    """A picture's figures as they are printed; BRISQUE's decimals mean nothing."""
    forms = {"BRISQUE": "BRISQUE {:.0f}", "SSIM": "SSIM {:.3f}", "PSNR": "PSNR {:.1f} dB"}
    return [forms[name].format(value) for name, value in values.items()]


def draw(shown: dict[str, Tensor], values: dict[str, dict[str, float]], path: Path) -> None:
    """The pictures of one photograph, their middle, with their figures below; 12 inches wide."""
    fig = Figure(figsize=(12, 9), dpi=100, layout="constrained")
    axes = fig.subplots(2, (len(shown) + 1) // 2).flat
    for ax, (name, output) in zip(axes, shown.items(), strict=False):
        height, width = output.shape[-2:]
        side = min(height, width, 160)
        top, left = (height - side) // 2, (width - side) // 2
        figures.show(ax, output[:, top : top + side, left : left + side])
        ax.set_title(name, fontsize=14)
        ax.set_xlabel("\n".join(words(values[name])), fontsize=13)
    with atomic_write(path) as draft:
        fig.savefig(draft)


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.passes")
