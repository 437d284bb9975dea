"""A training in a thread of its own, whose weights can be moved by hand while it goes on.

A slider never reaches a cell that is still running. So the cell returns at once, the training goes on
in a thread, and whoever moves a weight only writes a number that the thread reads before its next
step. There is no widget in here: `dashboard` is the view, and a script can do all that a dashboard does.

    run = live.Run(trainer, high)
    run.start()
    run.weights.set(relu2_2=0.1)   # from the next step on
    run.wait()
    twin = live.replay(run)        # the same moves at the same steps: the same weights
"""

from __future__ import annotations

import atexit
import copy
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from srkit import metrics
from srkit.errors import SRKitError
from srkit.images import crop_to_multiple, degrade
from srkit.losses import WeightedLoss
from srkit.models import output_at
from srkit.training import History, Trainer
from srkit.training.engine import check_alone

LOOKS = 0.02  # part of the time that goes into previews
_current: Run | None = None


class Weights:
    """The weights of a loss and the learning rate, as one thread wants them and another reads them."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._lock = trainer, threading.Lock()
        self._values = {**trainer.loss.weights, "learning_rate": trainer.optimizer.param_groups[0]["initial_lr"]}

    def set(self, **new: float) -> None:
        """Ask for new weights, all of them from one and the same step on.

        Args:
            new: by the term's name, e.g. set(mse=1, relu2_2=0.1); also learning_rate.

        Raises:
            SRKitError: an unknown term, a negative weight, no number, or nothing left that weighs anything.
        """
        with self._lock:
            values = {**self._values, **new}
            self._trainer.check(values)
            self._values = values

    def snapshot(self) -> dict[str, float]:
        """What is asked for now."""
        with self._lock:
            return dict(self._values)


class Preview(NamedTuple):
    """How the model enlarges the picture that one watches: (3, H, W) in [0, 1] on the CPU; PSNR on luma in dB."""

    step: int
    output: Tensor
    psnr: float


class Run:
    """A Trainer that trains in a thread: `start`, `pause`, `resume`, `stop`, `wait`.

    There is one at a time: making a Run stops the one made before, so that a cell can be run again.
    `state` is "ready", "running", "paused", "stopped", "finished" or "failed"; then `error` says why.

    Args:
        trainer: what to train, up to its last step.
        high: a picture to watch, (3, H, W) in [0, 1]; its low is what the model enlarges in `preview`.
    """

    def __init__(self, trainer: Trainer, high: Tensor | None = None) -> None:
        global _current
        check_alone("a Run")
        if _current is not None:
            _current.stop()
            _current.wait(60)
        _current = self
        self.trainer, self.weights = trainer, Weights(trainer)
        self.state, self.error, self.messages = "ready", "", []
        self.preview: Preview | None = None
        self.high = self.low = None
        if high is not None:
            self.high = crop_to_multiple(high, trainer.model.scale).cpu()
            self.low = degrade(self.high, trainer.model.scale)
        trainer.say = self.messages.append  # what a thread prints would land in some other cell
        self._beginning: dict | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._lock, self._guests = threading.Lock(), []
        self._next_look = 0.0
        self._times: deque[tuple[int, float]] = deque(maxlen=20)

    # ------------------------------------------------------------------------------ what one sees

    @property
    def history(self) -> History:
        """Rows and moves so far."""
        return self.trainer.history

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.trainer.step_number

    @property
    def seconds(self) -> float:
        """Time spent in steps."""
        return self.trainer.seconds

    @property
    def pictures_per_second(self) -> float:
        """Over the last twenty steps; 0 before there are two."""
        if len(self._times) < 2:
            return 0.0
        (first, start), (last, end) = self._times[0], self._times[-1]
        return (last - first) * self.trainer.config.batch_size / max(end - start, 1e-9)

    def snapshot(self) -> nn.Module:
        """A copy of the model as it is now, for use beside the training: averaged, in eval mode, on the CPU."""
        with self.between_steps():
            return copy.deepcopy(self.trainer.result).cpu().requires_grad_(False)

    @property
    def verdict(self) -> str:
        """What the training says of its own health, if it does."""
        return self.trainer.verdict()

    # ------------------------------------------------------------------------------ what one does

    def start(self) -> None:
        """Begin, or go on after a pause or a stop. A run that is finished or failed stays so."""
        if self.state == "stopped":
            self.wait()  # until the thread before has saved
        with self._changed:
            if self.state == "paused":
                self.state = "running"
                self._changed.notify_all()
            elif self.state in ("ready", "stopped"):
                if self._beginning is None:
                    self._beginning = copy.deepcopy(self.trainer.state())
                self.state = "running"
                self._thread = threading.Thread(target=self._train, name="srkit-run", daemon=True)
                self._thread.start()

    resume = start

    def pause(self) -> None:
        """Wait, after the step that is being done, for `resume`."""
        with self._changed:
            if self.state == "running":
                self.state = "paused"

    def stop(self) -> None:
        """End after the step that is being done, and save a checkpoint if the Trainer has a folder."""
        with self._changed:
            if self.state in ("ready", "running", "paused"):
                self.state = "stopped"
                self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end, at most `timeout` seconds; returns whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    @contextmanager
    def between_steps(self) -> Iterator[Trainer]:
        """The Trainer, held still between two steps: at the most one step to wait for."""
        guest = object()
        self._guests.append(guest)
        try:
            with self._lock:
                yield self.trainer
        finally:
            self._guests.remove(guest)

    # ------------------------------------------------------------------------------ the thread

    def _train(self) -> None:
        try:
            while self._may_go_on():
                while self._guests:  # a lock is not fair: without this, who asks would wait for ever
                    time.sleep(0.001)
                with self._lock:
                    self.trainer.change(**self.weights.snapshot())
                    if next(self.trainer, None) is None:
                        self.state = "finished"
                    self._times.append((self.step, time.perf_counter()))
                    if time.perf_counter() >= self._next_look or self.state != "running":
                        self._look()
            if self.trainer.out and self.state == "stopped":
                self.trainer.save()
        except Exception as error:
            self.error = str(error) if isinstance(error, SRKitError) else last_lines()
            self.state = "failed"

    def _may_go_on(self) -> bool:
        with self._changed:
            while self.state == "paused":
                self._times.clear()
                self._changed.wait()
            return self.state == "running"

    @torch.inference_mode()
    def _look(self) -> None:
        if self.low is None:
            return
        start, trainer = time.perf_counter(), self.trainer
        with trainer.autocast():
            output = output_at(trainer.result, self.low[None].to(trainer.device))
        output = output[0].float().clamp(0, 1).cpu()
        psnr = metrics.psnr(output, self.high, trainer.model.scale).item()
        now, is_first = time.perf_counter(), self.preview is None
        self.preview = Preview(self.step, output, psnr)
        self._next_look = now + min((now - start) / LOOKS, 1.0 if is_first else math.inf)  # the first one is slow


@atexit.register
def _stop_at_exit() -> None:
    """Let a run that still goes on when Python ends finish its step and save."""
    if _current is not None:
        _current.stop()
        _current.wait(60)


def last_lines(count: int = 5) -> str:
    """The last lines of the traceback of the exception that is being handled, without those that only underline."""
    lines = [line for line in traceback.format_exc().splitlines() if line.strip(" ^~")]
    return "\n".join(lines[-count:])


def replay(run: Run) -> Trainer:
    """Train again from where a run began, with its moves at their steps, as far as it has come.

    On the CPU the weights that come out are the run's, bit for bit.

    Raises:
        SRKitError: the run has not begun.
    """
    if run._beginning is None:
        raise SRKitError("this run has not begun: there is nothing to replay")
    with run.between_steps() as first:
        last, moves = first.step_number, run.history.moves()
        terms = copy.deepcopy(first.loss.terms)  # a GAN's discriminator is in there
        loss = WeightedLoss(first.config.loss, *first.loss.perceptual, terms=terms)
        model = copy.deepcopy(first.model)
    again = type(first)(model, first.bank, first.config, loss, student=first.student, optimizer=first.make_optimizer)
    again.load_state(copy.deepcopy(run._beginning))
    while again.step_number < last:
        again.change(**{move.term: move.new for move in moves if move.step == again.step_number})
        next(again)
    return again
