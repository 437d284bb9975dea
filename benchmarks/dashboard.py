"""What the dashboard costs, and how soon it shows a move: a live run in its thread, alone, and filmed and watched.

Watched means all that happens in the kernel: the frames of the film measured, and at four refreshes a second the curves
drawn and the pictures packed; the browser, a process of its own, is not counted (`python -m tests.browser.measure`
does that). One run takes turns with itself. Part of the one run: `python -m benchmarks --only dashboard`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.steps import FOREVER, Place, perceptual
from benchmarks.textbook import make_folder
from benchmarks.timing import Facts, paired_ratio
from srkit import live, models
from srkit.data import load_dataset
from srkit.live.dashboard import BEAT
from srkit.live.svg import draw
from srkit.settings import Setup, SRKitError, Student, choose_device, current_profile
from srkit.training import TrainConfig, Trainer

INTERVAL = BEAT / 1000  # seconds between two refreshes


def lesson_04(device: str, batch_size: int) -> Trainer:
    """What lesson 04 trains by hand in the profile quick."""
    loss = {"mse": 1.0, "relu1_2": 0.05, "relu2_2": 0.02, "relu3_3": 0.02, "relu4_3": 0.0}
    config = TrainConfig(
        steps=FOREVER, batch_size=batch_size, patch_size=72, device=device, loss=loss, features="small-vgg"
    )
    torch.manual_seed(0)
    return Trainer(models.create("srcnn", 3), load_dataset("bundled", "train", size=240, device=device), config)


def compare(device: str, rounds: int, seconds: float, batch_size: int = 4) -> Facts:
    """For two trainings the rate of a run that is watched as a part of that of the same run alone, the median of
    pairs; and the seconds from a move to the first picture that was made with it.
    """
    found, remarks = {}, []
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder) / "jpeg", 8)
        trainers = {
            "lesson 04 in quick": lesson_04(device, batch_size),
            "the perceptual step": perceptual(Place(Path(folder) / "jpeg", batch_size, device)),
        }
        for name, trainer in trainers.items():
            found[name] = one = watch(trainer, Path(folder), rounds, seconds)
            words = f"{one['ratio']:.2f} of the rate alone ({1000 / one['rate']:.0f} ms a step)"
            waits = f"{1000 * median(one['response']):.0f} ms, {1000 * max(one['response']):.0f} at most"
            remarks.append(f"{name}, watched by the dashboard: {words}; from a move to its first picture {waits}")
            parts = ", ".join(f"{1000 * value:.0f} ms a {part}" for part, value in one["processor"].items())
            remarks.append(f"{name}, in processor time: {parts}")
    return {"trainings": found, "rows": [], "remarks": remarks}


def watch(trainer: Trainer, folder: Path, rounds: int, seconds: float) -> Facts:
    """One training alone and watched, in turn; then a move in each round."""
    watched = dict(load_dataset("bundled", "test", size=240))
    run = live.Run(trainer, watched)
    device = choose_device(trainer.device.type)
    view = live.Dashboard(run, Setup("benchmark", current_profile("quick"), device, Student(), folder, folder))
    film, turns = run.film, []
    run.start()
    try:
        rate(run, view.refresh, 0.0)  # warms up
        for _ in range(rounds):
            run.film = None
            alone = rate(run, None, seconds)
            run.film = film
            turns.append((alone, rate(run, view.refresh, seconds)))
        response = [respond(run, view, number) for number in range(rounds)]
    finally:
        run.stop()
        run.wait()
    newest = view.film.frames[-1]
    work = {"step": lambda: next(trainer), "frame": lambda: view.film.take(trainer.result, trainer.loss, run.step)}
    work["drawing"] = lambda: draw(view.film, run.history, newest)
    alone, filmed = ([{"rate": turn[side]} for turn in turns] for side in (0, 1))
    return {
        "ratio": paired_ratio(filmed, alone),
        "rate": median(one["rate"] for one in alone),
        "response": response,
        "processor": {name: processor_seconds(one) for name, one in work.items()},
    }


def processor_seconds(work: Callable[[], object], times: int = 5) -> float:
    """Of all threads, the median: what else runs on the machine does not count."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return median(found)


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


def respond(run: live.Run, view: live.Dashboard, number: int) -> float:
    """Seconds from a move, somewhere between two beats of the heart, to the first picture that was made with it."""
    moves, start = len(run.history.moves), time.perf_counter()
    due = start + INTERVAL * (number % 5) / 5
    run.weights.set(mse=1.5 if number % 2 else 1.0 + 1e-3 * (number + 1))
    while True:
        if run.error:
            raise SRKitError(run.error)
        if time.perf_counter() >= due:
            due += INTERVAL
            made = run.history.moves[moves:]
            shows = bool(made) and view.film.frames[-1].step > made[0].step
            view.refresh()
            if shows:
                return time.perf_counter() - start
        time.sleep(0.002)


def next_step(run: live.Run) -> int:
    """Wait until the run has done another step; returns how many it has done."""
    before = run.step
    while run.step == before:
        if run.error:
            raise SRKitError(run.error)
        time.sleep(0.002)
    return run.step
