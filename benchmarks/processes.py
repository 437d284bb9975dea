"""Two processes that train together against one that has half the machine: `python -m benchmarks --only processes`.

The MSE step on the processor. Each process has the same number of threads, half of the cores, and the same batch, so
that two of them do twice the work and must exchange their gradients. What two processes reach that train apart, and
exchange nothing, is the most that these can: they share caches and memory.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from statistics import median

from benchmarks import timing
from benchmarks.textbook import make_folder
from benchmarks.timing import Facts, Side, paired_ratio

BATCH_SIZE = 4  # of each process
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def compare(rounds: int, seconds: float) -> Facts:
    """One process, two together, two apart.

    Returns:
        Among others `per_process`, the throughput of each of the two processes as a part of what one reaches alone,
        and `of_ceiling`, the throughput of the two as a part of that of two that exchange nothing.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder))
        command = ["-m", "benchmarks.steps", "mse", "srkit", "--folder", folder, "--size", str(BATCH_SIZE)]
        command += ["--seconds", str(seconds)]
        sides = {
            "one": Side(command, environment=threads),
            "together": Side([*LAUNCHER, *command], environment=threads),
            "apart": Side(command, 2, threads),
        }
        answers = timing.in_turn(sides, rounds)
    facts = {
        "precision": answers["one"][0]["precision"],
        "threads of each": int(threads["OMP_NUM_THREADS"]),
        "pictures_per_second": {name: median(turn["rate"] for turn in turns) for name, turns in answers.items()},
        "per_process": paired_ratio(answers["together"], answers["one"]) / 2,
        "of_ceiling": paired_ratio(answers["together"], answers["apart"]),
    }
    remark = (
        f"each of two processes together reaches {facts['per_process']:.2f} of one alone, "
        f"and both {facts['of_ceiling']:.2f} of two that exchange nothing"
    )
    return {**facts, "rows": [], "remarks": [remark]}
