"""A run by hand, trained again."""

from __future__ import annotations

import copy

from srkit.live.run import Run
from srkit.settings import SRKitError
from srkit.training import Trainer


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
