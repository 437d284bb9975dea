"""The numbers that sliders write and a training reads."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from srkit.training import Trainer
from srkit.training.history import Move

CLOSE = 5  # steps between two moves of one slider that are undone together


class Weights:
    """The weights of a loss and the learning rate, as one thread wants them and another reads them."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._lock = trainer, threading.Lock()
        self._values = held(trainer)

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

    def take(self) -> None:
        """Ask for what holds in the training: it has gone back to another moment."""
        with self._lock:
            self._values = held(self._trainer)


def held(trainer: Trainer) -> dict[str, float]:
    """The weights of the loss and the learning rate that hold in a training."""
    return {**trainer.loss.weights, "lr": trainer.settings["lr"]}


def beginning(moves: Sequence[Move]) -> int:
    """The step of the last move, or of the first of those that came closely before it by the same slider; 0 if none.

    Several at one step are a preset's, which is undone by itself.
    """
    step, at = moves[-1].step if moves else 0, [move.step for move in moves]
    for move in reversed(moves):
        if move.name != moves[-1].name or step - move.step > CLOSE or at.count(move.step) > 1:
            break
        step = move.step
    return step
