"""A training in a thread of its own, whose weights can be moved by hand while it goes on.

A slider never reaches a cell that is still running. So the cell returns at once, the training goes on in a thread, and
whoever moves a weight only writes a number that the thread reads before its next step. There is no widget in here:
`live.dashboard` is the view, and a script can do all that a dashboard does.

    run = live.Run(trainer, high)
    run.start()
    run.weights.set(relu2_2=0.1)   # from the next step on
    run.undo()                     # back to just before that move, and on from there
    run.wait()
    twin = live.replay(run)        # the same moves at the same steps: the same weights
"""

from __future__ import annotations

import atexit
import copy
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from srkit.live.film import Film, Frame, kept_state
from srkit.live.weights import Weights, beginning, held
from srkit.models import scales_of
from srkit.settings import SRKitError
from srkit.training import History, Trainer
from srkit.training.devices import check_alone

FILMING = 0.1  # part of the time that goes into the film
SAVING = 20.0  # seconds between two times that it is saved
RETAKING = 4.0  # seconds at most, where a detail is moved
_current: Run | None = None


class Run:
    """A Trainer that trains in a thread: `start`, `pause`, `stop`, `wait`; and that can `go_back`.

    There is one at a time: making a Run stops the one made before, so that a cell can be run again. It goes on from
    last.pt in the Trainer's folder, if that is of this very training: also in a new kernel, when the old one was
    killed. Only after a run that has finished in this kernel it begins anew.
    `film` is what one watches, if anything, see `live.film`: `filming`, a tenth, of the time goes into its frames; one
    is just before each move and one right after it. It is kept in the Trainer's folder, too.
    `messages` are the Trainer's. `state` is "ready", "running", "paused", "stopped", "finished" or "failed"; then
    `error` says why.

    Args:
        trainer: what to train, up to its last step; any subclass of Trainer.
        high: a picture to watch, (3, H, W) in [0, 1], or several by name.
        places: left and top of each picture's detail, by name, in pixels; the busiest part if not given.
        resume: False begins anew; what is in the folder is moved to replaced/N then.

    Raises:
        SRKitError: this is one of several processes, the run before is in a step that does not end, or last.pt is
            damaged.
    """

    def __init__(
        self,
        trainer: Trainer,
        high: Tensor | Mapping[str, Tensor] | None = None,
        places: Mapping[str, tuple[int, int]] | None = None,
        resume: bool = True,
    ) -> None:
        global _current
        check_alone("a Run")
        if _current is not None:
            resume = resume and not (_current.state == "finished" and _current.trainer.out == trainer.out)
            _current.stop()
            if not _current.wait(60):
                raise SRKitError("the run before is still in its last step: wait a little, then run this cell again")
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
        self._beginning: dict[str, Any] | None = kept_state(trainer.state()) if trainer.step_number else None
        if trainer.step_number >= trainer.steps:
            next(trainer, None)  # what a Trainer does at its end
            self.state = "finished"
        self.plan: dict[int, dict[str, float]] = {}  # weights to take at a step, where nobody moves them
        self.filming = FILMING
        self._next_frame = self._next_save = 0.0
        self.film: Film | None = None
        _current = self
        if high is not None:
            pictures = {"picture": high} if isinstance(high, Tensor) else high
            self.film = Film(pictures, self.scale, places)
            if trainer.out and trainer.history.rows:
                self.film.restore(trainer.out / "film.pt", trainer.history.rows)
            self.film.bicubic = self.film.compare(trainer.model, trainer.loss)
            self._take_frame(self.film)

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

    def mark(self) -> Frame:
        """A frame of now that the film keeps.

        Raises:
            SRKitError: the run has no picture.
        """
        if self.film is None:
            raise SRKitError("this run has no picture: give it one, live.Run(trainer, high)")
        with self.between_steps():
            return self._take_frame(self.film, marked=True)

    # ------------------------------------------------------------------------------ controlling

    def start(self) -> None:
        """Begin, or go on after a pause or a stop. A run that is finished or failed stays so."""
        with self._changed:
            if self.state not in ("ready", "paused", "stopped"):
                return
            if self._beginning is None:
                self._beginning = kept_state(self.trainer.state())
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

    def go_back(self, frame: Frame) -> None:
        """Go on from a frame of the film, as if what came after it had not been; the film keeps that as its ghost.

        A run that has ended can be started again afterwards.

        Raises:
            SRKitError: the frame is not of this film, its state was let go because the film had grown too long, or
                last.pt cannot be written.
        """
        with self.between_steps() as trainer:
            if self.film is None or all(one is not frame for one in self.film.frames):
                raise SRKitError("this frame is not of this run's film")
            if frame.state is None:
                raise SRKitError(
                    f"step {frame.step} can be seen, but not gone back to: its checkpoint is not in memory any more"
                )
            locked = trainer._lock is not None
            if not frame.step:
                trainer.release()  # so that claim sets the other future aside
            trainer.load_state(kept_state(frame.state))
            self.film.cut(frame)
            self.weights.take()
            self._reopen()
            try:
                trainer.claim()
                if trainer.out and frame.step:  # who is killed now goes on from here, not in the other future
                    trainer.save()
                    self._save_film()
            finally:
                if not locked:
                    trainer.release()

    def place(self, picture: str, left: int, top: int) -> None:
        """Move a picture's detail, and film it anew from the checkpoints that the frames have, for some seconds.

        Frames that have none, as those of before a restart, would show the old detail: they go.

        Args:
            picture: its name.
            left, top: in pixels; what would lie outside is moved inside.
        """
        film, again = self.film, list[Frame]()
        assert film is not None  # else nobody asks
        with self.between_steps() as trainer:
            model, end = copy.deepcopy(trainer.result), time.perf_counter() + RETAKING
            film.place(picture, left, top)
            film.bicubic = film.compare(trainer.model, trainer.loss)
            for frame in sorted(film.frames, key=lambda one: (not one.marked, -one.step)):
                if frame.state and (not again or time.perf_counter() < end):
                    model.load_state_dict(frame.state["ema"] or frame.state["model"])
                    film.retake(frame, model, trainer.loss)
                    again.append(frame)
            film.frames, film.ghost = sorted(again, key=lambda one: one.step), []
            self._take_frame(film)

    def undo(self) -> None:
        """Go back to just before the last move; one that no step has seen yet is only taken back.

        Moves of one slider that follow each other closely, as by keys, are one.

        Raises:
            SRKitError: nothing was moved, or that moment is no longer kept.
        """
        with self.between_steps() as trainer:
            if self.weights.snapshot() != held(trainer):
                self.weights.take()
                return
            moves = [move for move in trainer.history.moves if not move.name.startswith("accumulate")]  # those by hand
            step = beginning(moves)
            frames = [one for one in self.film.frames if one.step <= step] if moves and self.film else []
            if not frames:
                raise SRKitError("there is no move to undo")
            self.go_back(next((one for one in frames if one.marked and one.step == step), frames[-1]))

    def extend(self, steps: int) -> None:
        """Train so many steps more than was planned; a run that is finished can go on then."""
        with self.between_steps() as trainer:
            schedule = trainer.config.schedule_steps or trainer.steps  # a cosine keeps the length that it had
            trainer.steps += steps
            trainer.config = replace(trainer.config, steps=trainer.steps, num_epoch=None, schedule_steps=schedule)
            self._reopen()

    def _reopen(self) -> None:
        with self._changed:
            if self.state in ("finished", "failed"):
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
                    self._save_film()
                    self.trainer.release()
                with self._changed:
                    if self.state not in ("running", "paused"):  # nobody has called start meanwhile
                        self._thread = None
                        return
        except BaseException as error:  # SystemExit and KeyboardInterrupt, too: the thread ends, and the state says so
            words = str(error) if isinstance(error, SRKitError) else last_lines()
            with self._step_lock:
                with suppress(SRKitError):  # perhaps the disk is full, and that was the failure
                    self._save_film()
                self.trainer.release()
            with self._changed:
                self._become("failed", words)
                self._thread = None

    def _may_step(self) -> bool:
        """Wait while paused, and for guests: a lock is not fair, and who asks would wait for ever."""
        with self._changed:
            self._changed.wait_for(lambda: self.state != "paused" and not self._guests)
            return self.state == "running"

    def _step(self) -> None:
        if self.step in self.plan:
            self.weights.set(**self.plan.pop(self.step))
        wanted, film = self.weights.snapshot(), self.film
        moved = wanted != held(self.trainer)
        before = film.shoot(self.trainer, marked=True) if moved and film else None  # to come back to
        self.trainer.change(**wanted)
        try:
            ended = next(self.trainer, None) is None
        except BaseException:  # there above all
            if film and before:
                film.keep(self.trainer.loss, before)
            raise
        start = time.perf_counter()
        if film and (moved or ended or start >= self._next_frame or self.state != "running"):
            film.keep(self.trainer.loss, *([before] if before else []), film.shoot(self.trainer))
            end = time.perf_counter()
            rest = (end - start) / self.filming
            self._next_frame = end + (rest if self._next_frame else min(rest, 1))  # the first is slow
            if end > self._next_save and self.trainer.out:
                self._save_film()
        if ended:
            self._become("finished")

    def _take_frame(self, film: Film, marked: bool = False) -> Frame:
        """A frame of now; the newest one, if that is of this very step."""
        frame = film.shoot(self.trainer, marked)
        film.keep(self.trainer.loss, frame)
        return frame

    def _save_film(self) -> None:
        if self.film and self.trainer.out and self.trainer.history.rows:
            self.film.save(self.trainer.out / "film.pt", self.trainer.history.rows)
            self._next_save = time.perf_counter() + SAVING


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
