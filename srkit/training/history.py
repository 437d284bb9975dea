"""What happened during a training, step by step: in memory and in a JSONL file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from srkit.settings import SRKitError, atomic_write, writing
from srkit.training.devices import Processes

Row = dict[str, float]


class Move(NamedTuple):
    """A setting that was changed during the training, after `step` steps: a weight of the loss, "lr", "accumulate"."""

    step: int
    name: str
    old: float
    new: float


class History:
    """Rows of numbers, each with its "step", and the moves made by hand.

    A training row holds "step", "seconds", "lr" (the learning rate), "loss" (the weighted sum) and every term raw
    ("mse") and weighted ("weighted/mse"), averaged over the steps since the row before; a validation row holds "step"
    and "val/…".

    Args:
        path: a JSONL file, each row and each move a line, written once it is `opened`; None: in memory only.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.rows: list[Row] = []
        self.moves: list[Move] = []
        self.path, self.opened = Path(path) if path else None, False
        self._steps: list[dict[str, Tensor]] = []  # what the steps since the last row have measured

    def fits(self, values: dict[str, Tensor]) -> bool:
        """Whether a step measured the same quantities as those before it."""
        return not self._steps or self._steps[-1].keys() == values.keys()

    def collect(self, values: dict[str, Tensor]) -> None:
        """Keep what a step measured, on its device, until `flush`."""
        self._steps.append(values)

    def flush(self, step: int, seconds: float, lr: float, processes: Processes) -> Row:
        """Add the row that the collected steps make, if any, and return it: one wait for the device."""
        if not self._steps:
            return {}
        names = list(self._steps[-1])
        table = torch.stack([torch.stack([values[name] for name in names]) for values in self._steps])
        self._steps.clear()
        means = processes.mean(table.float().mean(0)).tolist()
        row = {"step": step, "seconds": seconds, "lr": lr, **dict(zip(names, means, strict=True))}
        if all(map(math.isfinite, means)):
            self.add(row)
        return row

    def add(self, row: Row) -> None:
        """Append a row."""
        self.rows.append(row)
        self._append(row)

    def add_move(self, move: Move) -> None:
        """Append a move."""
        self.moves.append(move)
        self._append(move._asdict())

    def open(self) -> None:
        """Begin the file with what has happened so far; from now on each row and each move is appended."""
        if self.path:
            lines = [*self.rows, *(move._asdict() for move in self.moves)]
            with atomic_write(self.path) as draft:
                draft.write_text("".join(json.dumps(line) + "\n" for line in lines))
            self.opened = True

    def restore(self, rows: Iterable[Row], moves: Iterable[Sequence]) -> None:
        """Start again from a checkpoint's rows and moves: what came after them is dropped.

        Raises:
            SRKitError: a row that is none.
        """
        rows = list(rows)
        rows_of_numbers = all(
            isinstance(row, dict) and all(isinstance(value, int | float) for value in [row["step"], *row.values()])
            for row in rows
        )
        if not rows_of_numbers:
            raise SRKitError("the history holds something else than numbers: get the file again")
        self.rows, self.moves = rows, [Move(*move) for move in moves]
        self._steps.clear()
        if self.opened:
            self.open()

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one quantity, e.g. "mse" or "val/dB"; both empty if it never occurred."""
        rows = [row for row in list(self.rows) if name in row]  # a thread may be adding more
        return [int(row["step"]) for row in rows], [row[name] for row in rows]

    def names(self) -> list[str]:
        """Every quantity measured, in the order of its first appearance."""
        return [name for name in dict.fromkeys(key for row in list(self.rows) for key in row) if name != "step"]

    def _append(self, line: dict) -> None:
        if self.path and self.opened:
            with writing(self.path), self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
