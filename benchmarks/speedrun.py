"""The speed run: from nothing to 30.95 dB on Set5 x4 in as few seconds as one can; its rules: docs/speedrun.md.

    uv run python -m benchmarks.speedrun my/photos --more t91 my/bsds200 [--entry muon] [--seeds 0 1 2 3 4] [--json]

An entry is a file in benchmarks/speedruns/ with a function `train(pictures, seed) -> model`. Each seed has a process of
its own. The clock starts when it is called with the names of the files, and stops when it returns.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import nn
from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import metrics
from srkit.data import load_dataset, sources
from srkit.settings import SRKitError, unknown

TARGET, SCALE = 30.95, 4  # dB on Set5, the mean of the seeds
ENTRIES = Path(__file__).parent / "speedruns"


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train an entry of the speed run over several seeds, and measure it on Set5."""

    data: Positional[str]  # photographs: a folder, or a name that `srkit data` lists
    more: tuple[str, ...] = ()  # folders or names whose pictures may be trained on, too
    set5: str = "set5"  # its name, which downloads it, or a folder
    entry: str = "muon"  # a file of benchmarks/speedruns, without .py
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # five count


def one(options: Options, seed: int) -> Facts:
    """A single run, in this process."""
    train: Callable[[list[Path], int], nn.Module] = importlib.import_module(
        f"benchmarks.speedruns.{options.entry}"
    ).train
    files = [path for name in (options.data, *options.more) for path in sources.pictures(name)]
    torch.ones(1).sum()  # whatever starts with the first operation
    start, busy = time.perf_counter(), time.process_time()
    model = train(files, seed)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    table = metrics.evaluate(model, load_dataset(options.set5, "all"), SCALE)
    return {"seconds": seconds, "processor seconds": busy, "psnr": table.psnr, "ssim": table.ssim}


def run(options: Options) -> tuple[Facts, str]:
    """All seeds of an entry, each in its own process.

    Raises:
        SRKitError: there is no such entry, or one of its runs failed.
    """
    names = sorted(path.stem for path in ENTRIES.glob("[!_]*.py"))
    if options.entry not in names:
        raise unknown("entry", options.entry, names)
    if len(options.seeds) == 1:
        found = {str(options.seeds[0]): one(options, options.seeds[0])}
    else:
        found = {str(seed): _apart(options, seed) for seed in options.seeds}
    rows = found.values()
    spread = stdev(row["psnr"] for row in rows) if len(rows) > 1 else 0.0
    facts = {
        "command": "python -m benchmarks.speedrun",
        "entry": options.entry,
        "seconds": mean(row["seconds"] for row in rows),
        "psnr": mean(row["psnr"] for row in rows),
        "spread": spread,
        "runs": found,
        "cpu": timing.processor(),
        "threads": torch.get_num_threads(),
    }
    reached = "reached" if facts["psnr"] >= TARGET else "missed"
    line = f"{options.entry}: {facts['seconds']:.0f} s, {facts['psnr']:.2f} ± {spread:.2f} dB; {TARGET} {reached}"
    return facts, f"{published.table(found)}\n{line}"


def _apart(options: Options, seed: int) -> Facts:
    timing.log(f"seed {seed} …")
    arguments = [options.data, "--set5", options.set5, "--entry", options.entry, "--seeds", str(seed), "--json"]
    arguments += ["--more", *options.more] if options.more else []
    command = [sys.executable, "-m", "benchmarks.speedrun", *arguments]
    done = subprocess.run(command, cwd=timing.ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SRKitError(f"seed {seed} failed: its own message stands above")
    return json.loads(done.stdout)["runs"][str(seed)]


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.speedrun")
