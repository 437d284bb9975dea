"""What the dashboard costs: the perceptual step in a thread, alone, and watched at two refreshes a second.

    uv run python -m benchmarks.dashboard [--batch-sizes 4] [--steps 10] [--rounds 5] [--json]

The step is that of `benchmarks.perceptual`. Watched means all that a refresh does in the kernel: the curves drawn, the
preview computed and packed; the browser, a process of its own, is not counted. The ratio is watched / alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import perceptual
from benchmarks.steps import Comparison, Options
from srkit import live
from srkit.dashboard import Dashboard
from srkit.errors import SRKitError
from srkit.profiles import Setup, Student, choose_device, current_profile

INTERVAL = 0.5  # seconds between two refreshes, as the dashboard's heartbeat has it


def alone(folder: Path, batch_size: int, steps: int, device: str) -> Iterator[int]:
    run = live.Run(perceptual.srkit(folder, batch_size, steps, device))
    yield from _watch(run, lambda: None)


def watched(folder: Path, batch_size: int, steps: int, device: str) -> Iterator[int]:
    trainer = perceptual.srkit(folder, batch_size, steps, device)
    run = live.Run(trainer, trainer.bank[0][1])
    here = Setup("benchmark", current_profile("quick"), choose_device(device), Student(), folder, folder)
    yield from _watch(run, Dashboard(run, here).refresh)


def _watch(run: live.Run, refresh) -> Iterator[int]:
    """The run's steps, as they are done."""
    run.start()
    done, due = 0, time.perf_counter()
    while done < run.trainer.steps and not run.error:
        if time.perf_counter() >= due:
            refresh()
            due += INTERVAL
        while done < run.step:
            done += 1
            yield done
        time.sleep(0.02)
    if run.error:
        raise SRKitError(run.error)


COMPARISON = Comparison(
    "benchmarks.dashboard",
    "The perceptual step in a thread, alone and watched",
    {"alone": alone, "watched": watched},
    {"alone": perceptual.COMPARISON.flops["srkit"], "watched": perceptual.COMPARISON.flops["srkit"]},
)

if __name__ == "__main__":
    COMPARISON.main(Options(batch_sizes=(4,), steps=10, rounds=5))
