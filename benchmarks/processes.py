"""Two processes that train together against one that has half the machine, in pictures per second.

    uv run python -m benchmarks.processes [--batch-size 4] [--steps 12] [--rounds 3] [--json]

The course's SRCNN (9-5-5, 64-32-3, x2, 240 x 240) on the processor. Each process has the same number of threads, half
of the cores, and the same batch, so that two of them do twice the work and must exchange their gradients. What two
processes reach that train apart, and exchange nothing, is the most that these can: they share caches and memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import tyro

from benchmarks.measure import paired_ratio
from benchmarks.textbook import SCALE, SIDE, make_folder
from srkit import models
from srkit.banks import open_bank
from srkit.training import TrainConfig, Trainer

WARM_UP = 3
SIDES = ("one", "together", "apart", "wide")


@dataclass
class Options:
    """Compare two processes that train together with one of the same number of threads."""

    batch_size: int = 4
    """Pictures in the batch of each process."""
    steps: int = 12
    """Steps that are timed, after three that warm up."""
    rounds: int = 3
    """How often every side runs, in turn."""
    threads: int = max(1, (os.cpu_count() or 2) // 2)
    """Threads of each process; half of the cores."""
    json: bool = False
    """Print JSON and nothing else."""
    worker: Path | None = None
    """Internal: be one of the processes, on the JPEG files of this folder."""


def work(options: Options) -> None:
    """Train, alone or with others, as the environment says; prints one line of JSON. Begins when a line comes in."""
    bank = open_bank(options.worker, "all", size=SIDE)
    total = options.batch_size * int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(0)
    config = TrainConfig(steps=options.steps + WARM_UP, batch_size=total, crop=SIDE, device="cpu")
    trainer = Trainer(models.create("srcnn", SCALE), bank, config)
    for _ in range(WARM_UP):
        next(trainer)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    for _ in range(options.steps):
        next(trainer)
    seconds = time.perf_counter() - start
    if trainer.is_main:
        print(json.dumps({"pictures_per_second": options.steps * total / seconds, "precision": trainer.precision}))


def run(side: str, options: Options, folder: Path) -> dict:
    """One turn of a side, in fresh processes: the pictures per second of all of them together, and the precision."""
    wide, count = side == "wide", 2 if side == "apart" else 1
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if side == "together" else []
    batch_size = options.batch_size * (2 if wide else 1)
    command = [sys.executable, *launcher, "-m", "benchmarks.processes", "--worker", str(folder)]
    command += ["--batch-size", str(batch_size), "--steps", str(options.steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads * (2 if wide else 1))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(count)]
    for process in processes:
        while "ready" not in (line := process.stdout.readline()):
            if not line:
                raise SystemExit(f"{' '.join(command)} failed")
    for process in processes:  # both begin before the first is waited for
        process.stdin.write("\n\n")
        process.stdin.flush()
    printed = [process.communicate()[0] for process in processes]
    lines = [json.loads(text[text.index("{") : text.index("}") + 1]) for text in printed]
    rate = sum(line["pictures_per_second"] for line in lines)
    return {"pictures_per_second": rate, "precision": lines[0]["precision"]}


def compare(options: Options | None = None) -> dict:
    """Every side in turn, as facts.

    Returns:
        Among others `per_process`, the throughput of each of the two processes as a part of what one reaches alone,
        and `of_ceiling`, the throughput of the two as a part of that of two that exchange nothing.
    """
    options = options or Options()
    found: dict[str, list[dict]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder))
        for turn in range(options.rounds):
            for side in SIDES:
                print(f"  {turn + 1}/{options.rounds} {side} …", file=sys.stderr, flush=True)
                found[side].append(run(side, options, Path(folder)))
    rates = {side: [one["pictures_per_second"] for one in found[side]] for side in SIDES}
    return {
        "benchmark": "processes",
        "device": "cpu",
        "precision": found["one"][0]["precision"],
        "threads_of_each": options.threads,
        "batch_size_of_each": options.batch_size,
        "pictures_per_second": {side: median(rates[side]) for side in SIDES},
        "per_process": paired_ratio(rates["together"], rates["one"]) / 2,
        "of_ceiling": paired_ratio(rates["together"], rates["apart"]),
        "of_wide": paired_ratio(rates["together"], rates["wide"]),
    }


def table(facts: dict) -> str:
    """The facts as text."""
    threads, batch_size, rate = facts["threads_of_each"], facts["batch_size_of_each"], facts["pictures_per_second"]
    rows = {
        "one": f"one process, {threads} threads, batch {batch_size}",
        "together": f"two processes, {threads} threads each, batch {2 * batch_size} between them",
        "apart": f"two processes apart, {threads} threads and batch {batch_size} each",
        "wide": f"one process, {2 * threads} threads, batch {2 * batch_size}",
    }
    lines = [f"SRCNN 9-5-5 x{SCALE} at {SIDE} x {SIDE}, cpu in {facts['precision']}", f"{'':58}pictures/s"]
    lines += [f"{rows[side]:58}{rate[side]:10.2f}" for side in SIDES]
    lines.append(
        f"each of two together reaches {facts['per_process']:.3f} of one alone; both {facts['of_ceiling']:.3f} of two "
        f"apart and {facts['of_wide']:.3f} of one with all threads"
    )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.processes")
    if options.worker:
        work(options)
        return
    facts = compare(options)
    print(json.dumps(facts, indent=2) if options.json else table(facts))


if __name__ == "__main__":
    main()
