"""Trainings that are killed, that meet in one folder, that break at a random step, and that are steered wildly."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import torch

from srkit import live, models
from srkit.losses import WeightedLoss
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError
from srkit.training import GANConfig, GANTrainer, TrainConfig, Trainer, checkpoint, history, optim

from .campaign import Campaign, dataset, processes

SETTINGS: dict[str, Any] = {"steps": 20, "batch_size": 4, "patch_size": 16, "warmup": 3, "log_freq": 3, "val_freq": 7}
SETTINGS |= {"save_freq": 1, "device": "cpu", "precision": "fp32", "ema": 0.9}
ADVERSARIAL = {"loss": {"mse": 1.0, "adversarial": 0.01}, "discriminator": 2, "from_scratch": True}
ADVERSARIAL |= {"discriminator_warmup": 2}


def make(kind: str, out: Path | None, **changes: Any) -> Trainer:
    """A small training, "mse" or "gan", always the same."""
    pictures, config = dataset(Random(0)), {**SETTINGS, **changes}
    torch.manual_seed(0)
    if kind == "mse":
        model = models.create("srcnn", 2, channels=(4, 4))
        trainer = Trainer(model, pictures, TrainConfig(**config), validation=pictures, out=out)
    else:
        generator = models.create("srresnet", 2, channels=4, blocks=1)
        settings = GANConfig(**config, **ADVERSARIAL)
        trainer = GANTrainer(generator, pictures, settings, validation=pictures, out=out)
    trainer.log = lambda line: None
    return trainer


def result(state: dict[str, Any], with_rows: bool = True) -> list[Any]:
    """What two equal trainings have in common: every weight and moment, rows and moves, but not the seconds."""
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in state["history"]] if with_rows else []
    weights = [weights_sha256(state[name]) for name in ("model", "ema")]
    found: list[Any] = [state["step"], rows, state["moves"], *weights]
    for optimizer in (state["optimizer"], state.get("discriminator", {}).get("optimizer", {"state": {}})):
        for number, moments in optimizer["state"].items():
            found.append((number, weights_sha256({k: v for k, v in moments.items() if isinstance(v, torch.Tensor)})))
    if "discriminator" in state:
        found.append(weights_sha256(state["discriminator"]["weights"]))
    return found


# ---------------------------------------------------------------------------------- kills


def train(kind: str, out: str, resume: bool = True) -> None:
    """In a process of its own: train to the end, from where the folder stands."""
    torch.set_num_threads(1)
    try:
        make(kind, Path(out)).fit(resume=resume, progress=False)
    except SRKitError as error:
        (Path(out).parent / "refused").write_text(str(error))
        raise SystemExit(2) from None


def _damaged(folder: Path) -> list[str]:
    """Which of the checkpoints in a folder cannot be read."""
    bad = []
    for path in folder.glob("[!.]*.pt"):  # not the draft that a kill left
        try:
            checkpoint.load(path)
        except SRKitError as error:
            if path.exists():
                bad.append(str(error))
    return bad


def kills(count: int, random: Random, folder: Path, kind: str = "mse") -> Campaign:
    """Kill a training at random moments, go on, kill it again; at its end it equals the one that nobody killed."""
    campaign, process = Campaign(f"kills in {kind.upper()} with resume"), processes()
    seconds = []
    for _ in range(2):  # the first pays for the imports
        start = time.monotonic()
        whole = process(target=train, args=(kind, str(folder / f"whole {len(seconds)}")))
        whole.start(), whole.join()
        seconds.append(time.monotonic() - start)
    expected = result(checkpoint.load(folder / "whole 0" / "last.pt"))
    campaign.check("two trainings are equal", expected == result(checkpoint.load(folder / "whole 1" / "last.pt")))
    chain = 0
    while campaign.tried <= count:
        chain += 1
        out = folder / str(chain)
        for _ in range(random.randint(1, 4)):
            victim = process(target=train, args=(kind, str(out)))
            victim.start()
            victim.join(random.uniform(0.1, 0.8) * seconds[1])
            victim.kill(), victim.join()
            campaign.check(f"{out.name}: no damaged checkpoint after a kill", not _damaged(out))
        last = process(target=train, args=(kind, str(out)))
        last.start(), last.join(120)
        if last.exitcode != 0 or result(checkpoint.load(out / "last.pt")) != expected:
            campaign.fail(f"{out.name}: no damaged checkpoint after a kill", f"not equal, exit {last.exitcode}")
    return campaign


def two(count: int, random: Random, folder: Path) -> Campaign:
    """A second training in the folder of one that goes on is refused; the first is unharmed, and so is every read."""
    campaign, process = Campaign("two trainings in one folder"), processes()
    whole = process(target=train, args=("mse", str(folder / "whole")))
    whole.start(), whole.join()
    expected, reads, damaged = result(checkpoint.load(folder / "whole" / "last.pt")), 0, []
    for trial in range(count):
        out = folder / str(trial) / "run"
        first, second = (
            process(target=train, args=("mse", str(out), resume)) for resume in (True, random.random() < 0.5)
        )
        first.start()
        while not (out / "last.pt").exists() and first.is_alive():
            time.sleep(0.002)
        second.start()
        while first.is_alive() or second.is_alive():
            damaged += _damaged(out)
            reads += len(list(out.glob("[!.]*.pt")))
        first.join(), second.join()
        # On a machine so slow that the first has ended before the second began, that one finds nothing left to do.
        late = second.exitcode == 0 and (out / "last.pt").exists()
        refused = out.with_name("refused").exists() and "is working there" in out.with_name("refused").read_text()
        campaign.check(f"trial {trial}: the second is refused", late or (second.exitcode == 2 and refused))
        kept = [out / "last.pt", *out.glob("replaced/*/last.pt")]
        equal = [result(checkpoint.load(path)) == expected for path in kept]
        campaign.check(f"trial {trial}: the first is unharmed", first.exitcode == 0 and all(equal))
    campaign.check(f"of {reads} reads none is damaged", reads > 0 and not damaged)
    campaign.name += f", {reads} reads"
    return campaign


# ---------------------------------------------------------------------------------- faults


def _at(step: int, trainer: Trainer, call: Callable, error: BaseException) -> Callable:
    """The call, which raises the error once, when the training has come to that step."""
    raised = []

    def faulty(*args: Any, **options: Any) -> Any:
        if trainer.step_number >= step and not raised:
            raised.append(True)
            raise error
        return call(*args, **options)

    return faulty


def faults(count: int, random: Random, folder: Path) -> Campaign:
    """Break a training at a random step; it ends in one line or goes on, and resumed it is equal to an unbroken one."""
    campaign = Campaign("faults at random steps")
    settings = {"save_freq": 4, "steps": 14}
    expected = {}
    for kind in ("mse", "gan"):
        make(kind, folder / kind, **settings).fit(progress=False)
        expected[kind] = result(checkpoint.load(folder / kind / "last.pt"))
    places = [*_MEMORY, *_DISK, "nan gradient", "nan at the end", "nan weight"]
    for number in range(count):
        kind, place, step = random.choice(("mse", "gan")), places[number % len(places)], random.randrange(12)
        out = folder / str(number)
        error: BaseException = MemoryError() if random.random() < 0.5 else torch.OutOfMemoryError("CUDA out of memory")

        def break_and_go_on(kind=kind, place=place, step=step, out=out, error=error) -> None:
            subject = make(kind, out, **settings)
            with ExitStack() as stack:
                _break(subject, place, 13 if place == "nan at the end" else step, error, stack)
                try:
                    subject.fit(progress=False)
                    assert not place.startswith("nan"), "a NaN went unnoticed"
                except SRKitError as told:
                    assert "\n" not in str(told)
            assert not _damaged(out)
            for path in out.glob("*.pt"):
                state = checkpoint.load(path)
                assert all(value.isfinite().all() for value in state["model"].values()), f"NaN in {path.name}"
            again = make(kind, out, **settings)
            again.fit(resume=True, progress=False)
            if not again.history.moves:
                assert result(checkpoint.load(out / "last.pt")) == expected[kind], "not equal"
            else:  # memory ran out, and the batch was accumulated from then on: the same again, with these moves
                twin, last = make(kind, None, **settings), checkpoint.load(out / "last.pt")
                while twin.step_number < last["step"]:
                    moves = [move for move in again.history.moves if move.step == twin.step_number]
                    twin.change(**{move.name: move.new for move in moves})
                    next(twin)
                assert result(twin.state(), False) == result(last, False), "the replay is not equal"

        campaign.attempt(f"{number} {kind} {place} at {step} ({type(error).__name__})", break_and_go_on)
    return campaign


_MEMORY = ("network", "loss", "discriminator", "batch", "average", "validation", "state", "optimiser")
_DISK = ("save", "rename", "history", "sync")


def _break(subject: Trainer, place: str, step: int, error: BaseException, stack: ExitStack) -> None:
    """Have something fail once, at that step."""
    full = OSError(errno.ENOSPC, "No space left on device")
    at = partial(_at, step, subject)

    def patch(owner: Any, name: str, error: BaseException) -> None:
        stack.enter_context(mock.patch.object(owner, name, at(getattr(owner, name), error)))

    if place == "discriminator" and not isinstance(subject, GANTrainer):
        place = "loss"
    owners: dict[str, tuple[Any, str]] = {
        "network": (subject.model, "forward"), "batch": (subject, "batch"), "average": (optim, "moving_average"),
        "validation": (subject, "_measure"), "state": (subject, "state"), "optimiser": (subject.optimizer, "step"),
        "save": (torch, "save"), "rename": (checkpoint.os, "replace"), "sync": (checkpoint.os, "fsync"),
    }  # fmt: skip
    if place == "loss":
        patch(WeightedLoss, "__call__", error)
    elif place == "discriminator":
        subject.discriminator.forward = at(subject.discriminator.forward, error)  # pyright: ignore
    elif place == "history":
        patch(history.json, "dumps", full)
    elif place in owners:
        patch(*owners[place], full if place in _DISK else error)
    else:
        _poison(subject, place, step)


def _poison(subject: Trainer, place: str, step: int) -> None:
    update = subject.update

    def poisoned(optimizer: Any, *rest: Any) -> Any:
        parameter = optimizer.param_groups[0]["params"][0]
        if subject.step_number >= step and place != "nan weight":
            parameter.grad.fill_(float("nan"))
        norm = update(optimizer, *rest)
        if subject.step_number >= step and place == "nan weight":
            with torch.no_grad():
                parameter[(0,) * parameter.ndim] = float("nan")
        return norm

    subject.update = poisoned


# ---------------------------------------------------------------------------------- live


def steered(count: int, random: Random, folder: Path) -> Campaign:
    """Start, pause, stop and move the weights of a live run from several threads; its replay is equal."""
    campaign = Campaign("live runs under hammers, replayed")
    for number in range(count):
        run = _run(folder / str(number))

        def hammer(run=run) -> None:
            def meddle(seed: int) -> None:
                own = Random(seed)
                for _ in range(25):
                    with suppress(SRKitError):
                        weights = {"mse": own.random(), "l1": own.choice((0, own.random(), -1, float("nan")))}
                        own.choice(
                            (run.start, run.stop, run.pause, partial(run.weights.set, **weights), run.snapshot)
                        )()
                    time.sleep(own.random() / 200)

            meddlers = [threading.Thread(target=meddle, args=(random.getrandbits(32),)) for _ in range(4)]
            for thread in meddlers:
                thread.start()
            for thread in meddlers:
                thread.join()
            run.start()
            deadline = time.monotonic() + 10
            while run.step < 3 and time.monotonic() < deadline:
                time.sleep(0.002)
            assert [t.name for t in threading.enumerate()].count("srkit-run") <= 1, "several threads train"
            run.stop()
            assert run.wait(15) and run.state in ("stopped", "finished") and not run.error, f"{run.state}: {run.error}"
            twin = live.replay(run)
            assert result(twin.state(), False) == result(run.trainer.state(), False), "the replay is not equal"

        campaign.attempt(f"run {number}", hammer)
    return campaign


def deaths(count: int, random: Random, folder: Path) -> Campaign:
    """The thread of a live run dies of everything; the run says that it failed, and what was saved goes on."""
    campaign = Campaign("deaths of a live run's thread")
    make_whole = _run(folder / "whole", steps=16)
    make_whole.start(), make_whole.wait(20)
    expected = result(checkpoint.load(folder / "whole" / "last.pt"), False)
    kinds = (
        SystemExit,
        KeyboardInterrupt,
        StopIteration,
        MemoryError,
        RuntimeError,
        GeneratorExit,
        RecursionError,
        OSError,
    )
    for number in range(count):
        kind, step, out = kinds[number % len(kinds)], random.randrange(1, 15), folder / str(number)

        def die(kind=kind, step=step, out=out) -> None:
            run = _run(out, steps=16)
            run.trainer.update = _at(step, run.trainer, run.trainer.update, kind("told"))
            run.start()
            assert run.wait(15) and run.state == "failed" and run.error, run.state
            assert not _damaged(out)
            again = _run(out, steps=16).trainer
            again.log = lambda line: None
            again.fit(resume=True, progress=False)
            assert result(checkpoint.load(out / "last.pt"), False) == expected, "not equal"

        campaign.attempt(f"{kind.__name__} at {step}", die)
    return campaign


def _run(out: Path, **changes: Any) -> live.Run:
    config = TrainConfig(**{**SETTINGS, "steps": 10**6, "save_freq": 5, **changes})
    torch.manual_seed(0)
    model = models.create("srcnn", 2, channels=(4, 4))
    return live.Run(Trainer(model, dataset(Random(0)), config, WeightedLoss({"mse": 1, "l1": 0}), out=out))
