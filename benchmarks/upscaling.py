"""Large pictures: the textbook's way (the whole picture at once, in fp32) against `Upscaler` and its tiles.

    python -m benchmarks.upscaling --megapixels 1 10 100

Both sides start from a picture of bytes in memory and end with one. A side that would need more than --limit GiB is
not run: what it needs for a megapixel is known from the smaller pictures.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from statistics import median

import torch
import tyro
from torch import Tensor, nn

from benchmarks.measure import in_turn, paired_ratio, peak_megabytes, synchronize
from srkit import models
from srkit.profiles import choose_device
from srkit.upscaling import Upscaler

SIDES = ("textbook", "tiles")


@dataclass
class Options:
    """Compare enlarging a large picture: in one pass against in tiles."""

    megapixels: tuple[float, ...] = (1, 10)
    """Sizes to compare at, in millions of output pixels; 100 takes minutes on a processor."""
    model: str = "srcnn"
    """A network by name; of one that comes trained its weights, of others random ones, which cost the same."""
    rounds: int = 3
    """How often both sides run, in turn."""
    limit: float = 8
    """GiB that the textbook's side may take."""
    precision: str = "fp32"
    """The tiles' precision: fp32, bf16, fp16 or auto."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    json: bool = False
    """Print JSON and nothing else."""
    side: str | None = None
    """Internal: run this side alone."""


def network(name: str) -> nn.Module:
    """The model in eval mode."""
    return models.load(name) if name in models.trained.names() else models.create(name).eval()


def picture(megapixels: float, scale: int) -> Tensor:
    """A random picture (3, H, W), uint8, with so many output pixels, a fifth wider than high."""
    pixels = megapixels * 1e6 / scale**2
    height = max(1, round((pixels / 1.2) ** 0.5))
    return torch.randint(0, 256, (3, height, round(pixels / height)), dtype=torch.uint8)


@torch.inference_mode()
def textbook(model: nn.Module, low: Tensor, device: str) -> Tensor:
    """What one writes first."""
    output = models.output_at(model, (low.float() / 255)[None].to(device))
    return (output.clamp(0, 1) * 255).round().byte()[0].cpu()


def one(options: Options) -> dict[str, float]:
    """One side, in this process."""
    device = choose_device(options.device).type
    (megapixels,) = options.megapixels
    model = network(options.model).to(device)
    low, small = picture(megapixels, model.scale), picture(0.05, model.scale)
    upscaler = Upscaler(model, precision=options.precision)
    enlarge = upscaler if options.side == "tiles" else lambda x: textbook(model, x, device)
    before = peak_megabytes(device)
    enlarge(small)  # the first pass of a process also pays for setting up
    synchronize(device)
    start = time.perf_counter()
    output = enlarge(low)
    synchronize(device)
    done = output[0].numel() / 1e6
    return {
        "megapixels_per_second": done / (time.perf_counter() - start),
        "peak_megabytes": peak_megabytes(device),
        "megabytes_per_megapixel": (peak_megabytes(device) - before) / done,
    }


def compare(options: Options) -> dict:
    """Both sides at every size, in fresh processes in turn; `ratio` is tiles to textbook in megapixels a second."""
    device = choose_device(options.device).type
    rows: list[dict] = []
    for megapixels in sorted(options.megapixels):
        needed = max((row["textbook"]["megabytes_per_megapixel"] for row in rows if row["textbook"]), default=0)
        fits = needed * megapixels * 1e6 < options.limit * 2**30
        sides = SIDES if fits else SIDES[1:]
        arguments = ["--megapixels", str(megapixels), "--model", options.model, "--device", device]
        arguments += ["--precision", options.precision]
        results = in_turn("benchmarks.upscaling", sides, arguments, options.rounds if megapixels < 50 else 1)
        row: dict = {"megapixels": megapixels, "textbook": None, "ratio": None}
        for side, runs in results.items():
            row[side] = {key: median(run[key] for run in runs) for key in runs[0]}
        if fits:
            rates = [[run["megapixels_per_second"] for run in results[side]] for side in SIDES]
            row["ratio"] = paired_ratio(rates[1], rates[0])
        else:
            row["textbook_would_need_megabytes"] = needed * megapixels
        rows.append(row)
    return {
        "benchmark": "upscaling",
        "device": device,
        "threads": torch.get_num_threads(),
        "model": options.model,
        "precision": options.precision,
        "rows": rows,
    }


def table(facts: dict) -> str:
    """The comparison as text."""
    lines = [
        f"{facts['model']}, {facts['device']}, {facts['threads']} threads, tiles in {facts['precision']}",
        "megapixels  side      megapixels/s  peak memory  ratio",
    ]
    for row in facts["rows"]:
        for side in SIDES:
            start = f"{row['megapixels']:10g}  {side:8}"
            if row[side] is None:
                lines.append(f"{start}  not run: it would need {row['textbook_would_need_megabytes'] / 1000:.0f} GB")
                continue
            ratio = f"  {row['ratio']:.2f}" if side == "tiles" and row["ratio"] else ""
            one_side = row[side]
            rate, peak = one_side["megapixels_per_second"], one_side["peak_megabytes"]
            lines.append(f"{start}  {rate:12.2f}  {peak:8.0f} MB{ratio}")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.upscaling")
    if options.side:
        print(json.dumps(one(options)))
        return
    facts = compare(options)
    print(json.dumps(facts, indent=2) if options.json else table(facts))


if __name__ == "__main__":
    main()
