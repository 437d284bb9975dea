"""What the dashboard costs: the perceptual step in a live run's thread, alone, and filmed and watched.

Watched means all that happens in the kernel: the frames of the film measured, and at four refreshes a second the curves
drawn and the pictures packed; the browser, a process of its own, is not counted. One run takes turns with itself. Part
of the one run: `python -m benchmarks --only dashboard`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.steps import Place, perceptual
from benchmarks.textbook import make_folder
from benchmarks.timing import Facts, paired_ratio
from srkit import live
from srkit.settings import Setup, SRKitError, Student, choose_device, current_profile

INTERVAL = 0.25  # seconds between two refreshes, as the dashboard's heartbeat has it


def compare(device: str, rounds: int, seconds: float, batch_size: int = 4) -> Facts:
    """The rate of a run that is watched as a part of that of the same run alone; the median of pairs."""
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder) / "jpeg", 8)
        trainer = perceptual(Place(Path(folder) / "jpeg", batch_size, device))
        run = live.Run(trainer, trainer.dataset[0][1])
        here = Setup(
            "benchmark", current_profile("quick"), choose_device(device), Student(), Path(folder), Path(folder)
        )
        view = live.Dashboard(run, here)
        film, turns = run.film, []
        run.start()
        try:
            rate(run, view.refresh, 0.0)  # warms up
            for _ in range(rounds):
                run.film = None
                alone = rate(run, None, seconds)
                run.film = film
                turns.append((alone, rate(run, view.refresh, seconds)))
        finally:
            run.stop()
            run.wait()
    alone, watched = ([{"rate": turn[side]} for turn in turns] for side in (0, 1))
    ratio = paired_ratio(watched, alone)
    return {"ratio": ratio, "rows": [], "remarks": [f"watched by the dashboard: {ratio:.2f} of the rate alone"]}


def rate(run: live.Run, refresh: Callable[[], None] | None, seconds: float) -> float:
    """Steps a second, from the end of one step to the end of another at least `seconds` later."""
    first, start, due = next_step(run), time.perf_counter(), 0.0
    while True:
        now = time.perf_counter()
        if refresh and now >= due:
            refresh()
            due = now + INTERVAL
        if now - start >= seconds:
            return (next_step(run) - first) / (time.perf_counter() - start)
        time.sleep(0.02)


def next_step(run: live.Run) -> int:
    """Wait until the run has done another step; returns how many it has done."""
    before = run.step
    while run.step == before:
        if run.error:
            raise SRKitError(run.error)
        time.sleep(0.002)
    return run.step
