"""Two ways of doing the same training steps, side by side: the frame that `mse` and `perceptual` fill."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import tyro

from benchmarks.measure import in_turn, matrix_peak, paired_ratio, peak_megabytes, synchronize
from benchmarks.textbook import make_folder
from srkit.profiles import choose_device

WARM_UP = 3

# (folder of JPEG files, batch size, steps, device) → an iterator that does one step at a time
Side = Callable[[Path, int, int, str], Iterable]


@dataclass
class Options:
    """Compare one training step: the textbook's loop against srkit's Trainer."""

    batch_sizes: tuple[int, ...] = (4, 16)
    """Batch sizes to compare at."""
    steps: int = 12
    """Steps that are timed, after three that warm up."""
    rounds: int = 3
    """How often both sides run, in turn."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    json: bool = False
    """Print JSON and nothing else."""
    side: str | None = None
    """Internal: run this side alone."""
    folder: Path | None = None
    """Internal: the JPEG files."""


@dataclass(frozen=True)
class Comparison:
    """What is compared: its module and title, two sides by name, and each side's arithmetic for one picture."""

    module: str
    title: str
    sides: dict[str, Side]
    flops: dict[str, float]

    def main(self, defaults: Options | None = None) -> None:
        """The command line."""
        options = tyro.cli(Options, prog=f"python -m {self.module}", default=defaults or Options())
        if options.side:
            print(json.dumps(self._one(options)))
            return
        with tempfile.TemporaryDirectory() as folder:
            make_folder(Path(folder))
            facts = self.compare(options, Path(folder))
        print(json.dumps(facts, indent=2) if options.json else self.table(facts))

    def _one(self, options: Options) -> dict:
        device = choose_device(options.device).type
        (batch_size,) = options.batch_sizes
        steps = iter(self.sides[options.side](options.folder, batch_size, options.steps + WARM_UP, device))
        for _ in range(WARM_UP):
            next(steps)
        synchronize(device)
        start = time.perf_counter()
        for _ in range(options.steps):
            next(steps)
        synchronize(device)
        rate = options.steps * batch_size / (time.perf_counter() - start)
        return {"pictures_per_second": rate, "peak_megabytes": peak_megabytes(device)}

    def compare(self, options: Options, folder: Path) -> dict:
        """Both sides at every batch size; `ratio` is the smallest of the rows' ratios of the second to the first."""
        device = choose_device(options.device).type
        kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
        peaks = {name: matrix_peak(dtype, device) for name, dtype in kinds.items()}
        first, second = self.sides
        rows = []
        for batch_size in options.batch_sizes:
            arguments = ["--batch-sizes", str(batch_size), "--steps", str(options.steps), "--device", device]
            results = in_turn(self.module, (first, second), [*arguments, "--folder", str(folder)], options.rounds)
            rate = {side: [result["pictures_per_second"] for result in results[side]] for side in self.sides}
            row: dict = {"batch_size": batch_size, "ratio": paired_ratio(rate[second], rate[first])}
            for side in self.sides:
                done = median(rate[side]) * self.flops[side]
                row[side] = {
                    "pictures_per_second": median(rate[side]),
                    "peak_megabytes": max(result["peak_megabytes"] for result in results[side]),
                    **{f"share_of_{name}_peak": done / peak for name, peak in peaks.items()},
                }
            rows.append(row)
        return {
            "benchmark": self.module.removeprefix("benchmarks."),
            "device": device,
            "threads": torch.get_num_threads(),
            "peak_gflops": {name: peak / 1e9 for name, peak in peaks.items()},
            "ratio": min(row["ratio"] for row in rows),
            "rows": rows,
        }

    def table(self, facts: dict) -> str:
        """The comparison as text."""
        peaks = ", ".join(f"{name} {peak:.0f} GFLOP/s" for name, peak in facts["peak_gflops"].items())
        lines = [
            f"{self.title}, {facts['device']}, {facts['threads']} threads; matrix peaks: {peaks}",
            "batch  side                pictures/s  peak memory  of bf16 peak  of fp32 peak  ratio",
        ]
        for row in facts["rows"]:
            for side in self.sides:
                one, last = row[side], side == list(self.sides)[-1]
                lines.append(
                    f"{row['batch_size']:5}  {side:18}  {one['pictures_per_second']:10.2f}"
                    f"  {one['peak_megabytes']:8.0f} MB"
                    f"  {one['share_of_bf16_peak']:12.0%}  {one['share_of_fp32_peak']:12.0%}"
                    + (f"  {row['ratio']:.3f}" if last else "")
                )
        return "\n".join(lines)
