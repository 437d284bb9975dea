"""A training in a thread of its own, whose weights can be moved by hand while it goes on.

A slider never reaches a cell that is still running. So the cell returns at once, the training goes on in a thread, and
whoever moves a weight only writes a number that the thread reads before its next step. There is no widget in here:
`live.dashboard` is the view, and a script can do all that a dashboard does.

    run = live.Run(trainer, high)
    run.start()
    run.weights.set(relu2_2=0.1)   # from the next step on
    run.wait()
    twin = live.replay(run)        # the same moves at the same steps: the same weights
"""

from __future__ import annotations

import atexit
import copy
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from srkit import metrics
from srkit.data.images import crop_to_multiple, degrade
from srkit.models import device_of, output_at, scales_of
from srkit.settings import SRKitError
from srkit.training import History, Trainer
from srkit.training.devices import check_alone

PREVIEWS = 0.02  # part of the time that goes into previews
_current: Run | None = None


class Weights:
    """The weights of a loss and the learning rate, as one thread wants them and another reads them."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._lock = trainer, threading.Lock()
        self._values = {**trainer.loss.weights, "lr": trainer.settings["lr"]}

    def set(self, **new: float) -> None:
        """Ask for new weights, all of them from one and the same step on.

        Args:
            new: by the term's name, e.g. set(mse=1, relu2_2=0.1); also lr, the learning rate.

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
    """How a model enlarges the run's picture: (3, H, W) in [0, 1] on the CPU; PSNR on luma in dB."""

    step: int
    output: Tensor
    psnr: float


class Run:
    """A Trainer that trains in a thread: `start`, `pause`, `stop`, `wait`.

    There is one at a time: making a Run stops the one made before, so that a cell can be run again. It goes on from
    last.pt in the Trainer's folder, if that is of this very training: also in a new kernel, when the old one was
    killed. Only after a run that has finished in this kernel it begins anew.
    `picture` is low and high of what one watches, if anything; `messages` are the Trainer's.
    `state` is "ready", "running", "paused", "stopped", "finished" or "failed"; then `error` says why.

    Args:
        trainer: what to train, up to its last step; any subclass of Trainer.
        high: a picture to watch, (3, H, W) in [0, 1]; its low is what the model enlarges in `preview`.
        resume: False begins anew; what is in the folder is moved to replaced/N then.

    Raises:
        SRKitError: this is one of several processes, the run before is in a step that does not end, or last.pt is
            damaged.
    """

    def __init__(self, trainer: Trainer, high: Tensor | None = None, resume: bool = True) -> None:
        global _current
        check_alone("a Run")
        if _current is not None:
            resume = resume and not (_current.state == "finished" and _current.trainer.out == trainer.out)
            _current.stop()
            if not _current.wait(60):
                raise SRKitError("the run before is still in its last step: wait a little, then run this cell again")
        _current = self
        self.messages: list[str] = []
        trainer.log = self.messages.append  # what a thread prints would land in some other cell
        if resume and trainer.out and not trainer.step_number:
            trainer.restore()
        self.trainer, self.weights, self.scale = trainer, Weights(trainer), scales_of(trainer.model)[-1]
        self.state, self.error = "ready", ""
        self._changed = threading.Condition()  # guards the state, the thread and the number of guests
        self._step_lock = threading.RLock()  # held during a step, and by a guest between two
        self._thread: threading.Thread | None = None
        self._guests = 0
        self._beginning: dict[str, Any] | None = copy.deepcopy(trainer.state()) if trainer.step_number else None
        if trainer.step_number >= trainer.steps:
            next(trainer, None)  # what a Trainer does at its end
            self.state = "finished"
        self._next_preview = 0.0
        self.picture: tuple[Tensor, Tensor] | None = None
        self.preview: Preview | None = None
        if high is not None:
            high = crop_to_multiple(high, self.scale).cpu()
            self.picture = degrade(high, self.scale), high
            self.preview = self.enlarge(trainer.result)

    # ------------------------------------------------------------------------------ reading

    @property
    def history(self) -> History:
        """Rows and moves so far."""
        return self.trainer.history

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.trainer.step_number

    def snapshot(self) -> nn.Module:
        """A copy of the model as it is now, for use beside the training: averaged, in eval mode, on the CPU."""
        with self.between_steps() as trainer:
            return copy.deepcopy(trainer.result).cpu().requires_grad_(False)

    @torch.inference_mode()
    def enlarge(self, model: nn.Module) -> Preview:
        """How a model enlarges the run's picture, in full precision; its step is the run's."""
        assert self.picture is not None  # else nobody asks
        low, high = self.picture
        output = output_at(model, low[None].to(device_of(model)))[0].float().clamp(0, 1).cpu()
        return Preview(self.step, output, metrics.psnr(output, high, self.scale).item())

    # ------------------------------------------------------------------------------ controlling

    def start(self) -> None:
        """Begin, or go on after a pause or a stop. A run that is finished or failed stays so."""
        with self._changed:
            if self.state not in ("ready", "paused", "stopped"):
                return
            if self._beginning is None:
                self._beginning = copy.deepcopy(self.trainer.state())
            if self._thread is None:  # else the thread, perhaps just saving after a stop, goes on
                thread = threading.Thread(target=self._train, name="srkit-run", daemon=True)
                thread.start()
                self._thread = thread
            self._become("running")

    def pause(self) -> None:
        """Wait, after the step that is being done, for `start`."""
        with self._changed:
            if self.state == "running":
                self._become("paused")

    def stop(self) -> None:
        """End after the step that is being done, and save a checkpoint if the Trainer has a folder."""
        with self._changed:
            if self.state in ("ready", "running", "paused"):
                self._become("stopped")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end, at most `timeout` seconds; returns whether it has ended."""
        with self._changed:
            thread = self._thread
        if thread is None:
            return True
        thread.join(timeout)
        return not thread.is_alive()

    @contextmanager
    def between_steps(self) -> Iterator[Trainer]:
        """The Trainer, held still between two steps: at the most one step to wait for."""
        with self._changed:
            self._guests += 1
        try:
            with self._step_lock:
                yield self.trainer
        finally:
            with self._changed:
                self._guests -= 1
                self._changed.notify_all()

    # ------------------------------------------------------------------------------ the thread

    def _become(self, state: str, error: str = "") -> None:
        with self._changed:
            self.state, self.error = state, error
            self._changed.notify_all()

    def _train(self) -> None:
        try:
            while True:
                while self._may_step():
                    with self._step_lock:
                        self._step()
                with self._step_lock:
                    if self.state == "stopped" and self.step and self.trainer.out:
                        self.trainer.save()
                    self.trainer.release()
                with self._changed:
                    if self.state not in ("running", "paused"):  # nobody has called start meanwhile
                        self._thread = None
                        return
        except BaseException as error:  # SystemExit and KeyboardInterrupt, too: the thread ends, and the state says so
            self.trainer.release()
            with self._changed:
                self._become("failed", str(error) if isinstance(error, SRKitError) else last_lines())
                self._thread = None

    def _may_step(self) -> bool:
        """Wait while paused, and for guests: a lock is not fair, and who asks would wait for ever."""
        with self._changed:
            self._changed.wait_for(lambda: self.state != "paused" and not self._guests)
            return self.state == "running"

    def _step(self) -> None:
        self.trainer.change(**self.weights.snapshot())
        ended = next(self.trainer, None) is None
        start = time.perf_counter()
        if self.picture and (ended or start >= self._next_preview or self.state != "running"):
            self.preview = self.enlarge(self.trainer.result)
            end = time.perf_counter()
            rest = (end - start) / PREVIEWS
            self._next_preview = end + (rest if self._next_preview else min(rest, 1))  # the first is slow
        if ended:
            self._become("finished")


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
    """Train again from where a run began, or went on from a checkpoint, with its moves, as far as it has come.

    On the CPU the weights that come out are the run's, bit for bit.

    Raises:
        SRKitError: the run has not begun.
    """
    if run._beginning is None:
        raise SRKitError("this run has not begun: there is nothing to replay")
    with run.between_steps() as trainer:
        again, last, moves = trainer.fresh(), trainer.step_number, list(trainer.history.moves)
    again.load_state(copy.deepcopy(run._beginning))
    while True:
        again.change(**{move.name: move.new for move in moves if move.step == again.step_number})
        if again.step_number >= last:
            break
        next(again)
    if run.state == "finished":
        next(again, None)  # what a Trainer does at its end, it does here
    return again
