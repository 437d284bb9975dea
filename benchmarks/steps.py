"""Two ways of doing the same training steps, side by side: the frame that `mse` and `perceptual` fill."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import tyro

from benchmarks.measure import in_turn, machine, paired_ratio, peak_megabytes, synchronize
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
    files: int = 48
    """JPEG files to read."""
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
    """What is compared, the first side with each other.

    Args:
        module, title: its name for `python -m`, and in words.
        sides: by name; an iterator may have `facts` about itself, which join the side's.
        flops: each side's arithmetic for one picture, in floating-point operations; a function where it is counted.
        moved: the least number of bytes that each side must read and write for one picture, where that can be said.
        defaults: options of the command line.
    """

    module: str
    title: str
    sides: dict[str, Side]
    flops: dict[str, float | Callable[[], float]] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    defaults: Options = field(default_factory=Options)

    def main(self, defaults: Options | None = None) -> None:
        """The command line."""
        options = tyro.cli(Options, prog=f"python -m {self.module}", default=defaults or self.defaults)
        if options.side:
            print(json.dumps(self._one(options)))
            return
        facts = self.compare(options)
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
        return {
            "pictures_per_second": rate,
            "peak_megabytes": peak_megabytes(device),
            **getattr(steps, "facts", {}),
        }

    def compare(self, options: Options, about: dict | None = None) -> dict:
        """All sides at every batch size, in turn.

        Args:
            about: what `machine` says of this one, where it has been asked already.

        Returns:
            Among others the rows, and `ratio`: the smallest of the rows' ratios of the second side to the first.
        """
        device = choose_device(options.device).type
        about = about or machine(device)
        with tempfile.TemporaryDirectory() as folder:
            make_folder(Path(folder), options.files)
            rows = [self._row(options, batch_size, folder, about) for batch_size in options.batch_sizes]
        second = list(self.sides)[1]
        return {
            "benchmark": self.module.removeprefix("benchmarks."),
            **about,
            "ratio": min(row[second]["ratio"] for row in rows),
            "rows": rows,
        }

    def _row(self, options: Options, batch_size: int, folder: str, about: dict) -> dict:
        arguments = ["--batch-sizes", str(batch_size), "--steps", str(options.steps), "--device", about["device"]]
        results = in_turn(self.module, list(self.sides), [*arguments, "--folder", folder], options.rounds)
        rate = {side: [result["pictures_per_second"] for result in results[side]] for side in self.sides}
        first, *_ = self.sides
        row: dict = {"batch_size": batch_size}
        for side in self.sides:
            row[side] = {name: median(result[name] for result in results[side]) for name in results[side][0]}
            row[side]["peak_megabytes"] = max(result["peak_megabytes"] for result in results[side])
            row[side]["ratio"] = paired_ratio(rate[side], rate[first])
            for name, peak in about["peak_gflops"].items() if side in self.flops else ():
                row[side][f"share_of_{name}_peak"] = median(rate[side]) * self.arithmetic(side) / peak / 1e9
            if side in self.moved:
                moved = median(rate[side]) * self.moved[side]
                row[side]["share_of_bandwidth"] = moved / about["bandwidth_gigabytes"] / 1e9
        return row

    def arithmetic(self, side: str) -> float:
        """A side's floating-point operations for one picture."""
        flops = self.flops[side]
        return flops() if callable(flops) else flops

    def table(self, facts: dict) -> str:
        """The comparison as text."""
        peaks = ", ".join(f"{name} {peak:.0f} GFLOP/s" for name, peak in facts["peak_gflops"].items())
        shares = {
            **({"share_of_bf16_peak": "of bf16 peak", "share_of_fp32_peak": "of fp32 peak"} if self.flops else {}),
            **({"share_of_bandwidth": "of bandwidth"} if self.moved else {}),
        }
        lines = [
            f"{self.title}, {facts['device']}, {facts['threads']} threads; matrix peaks: {peaks}; "
            f"memory: {facts['bandwidth_gigabytes']:.0f} GB/s",
            f"batch  {'side':26}  pictures/s  peak memory" + "".join(f"  {words:>12}" for words in shares.values())
            + "  ratio",
        ]  # fmt: skip
        for row in facts["rows"]:
            for side in self.sides:
                one = row[side]
                cells = "".join(f"  {one[name]:12.0%}" if name in one else " " * 14 for name in shares)
                ratio = "" if side == next(iter(self.sides)) else f"  {one['ratio']:.3f}"
                lines.append(
                    f"{row['batch_size']:5}  {side:26}  {one['pictures_per_second']:10.2f}"
                    f"  {one['peak_megabytes']:8.0f} MB{cells}{ratio}"
                )
                if "first_epoch" in one:
                    lines.append(f"{'':7}{'  its first epoch':26}  {one['first_epoch']:10.2f}")
        return "\n".join(lines)
