"""What happened during a training, step by step: in memory, in a JSONL file, and in TensorBoard if asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from srkit.errors import SRKitError

Row = dict[str, float]


class Move(NamedTuple):
    """A weight of the loss, or another setting, that was changed during the training, after `step` steps."""

    step: int
    term: str
    old: float
    new: float


def moves_in(row: Row) -> list[Move]:
    """What a row of a history says was moved; as a rule nothing."""
    terms = [name.removeprefix("to/") for name in row if name.startswith("to/")]
    return [Move(int(row["step"]), term, row[f"from/{term}"], row[f"to/{term}"]) for term in terms]


class History:
    """Rows of plain numbers, each with its "step".

    A training row holds "step", "seconds", "learning_rate", "loss" (the weighted sum), every term raw
    ("mse") and weighted ("weighted/mse"), averaged over the steps since the row before; a validation row
    holds "step" and "val/…"; and a row with "from/mse" and "to/mse" says that this weight was moved.

    Args:
        path: a JSONL file to append to, one row a line; None keeps the rows in memory only.
        tensorboard: also write them for TensorBoard, into a folder beside `path`.

    Raises:
        SRKitError: TensorBoard is asked for and not installed, or there is no path to write beside.
    """

    def __init__(self, path: str | Path | None = None, tensorboard: bool = False) -> None:
        self.rows: list[Row] = []
        self.path = Path(path) if path else None
        self._board = self._open_board() if tensorboard else None

    def _open_board(self) -> Any:
        if self.path is None:
            raise SRKitError("TensorBoard needs a folder: give the Trainer out=…")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SRKitError("TensorBoard is not installed: pip install tensorboard") from None
        return SummaryWriter(self.path.parent / "tensorboard")

    def add(self, row: Row) -> None:
        """Append a row, in memory and wherever else rows go."""
        self.rows.append(row)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a" if len(self.rows) > 1 else "w") as file:
                file.write(json.dumps(row) + "\n")
        if self._board:
            for name, value in row.items():
                self._board.add_scalar(name, value, int(row["step"]))

    def restore(self, rows: list[Row]) -> None:
        """Start again from a checkpoint's rows: the file drops what came after it."""
        self.rows = list(rows)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one quantity, e.g. "mse" or "val/dB"; both empty if it never occurred."""
        rows = [row for row in list(self.rows) if name in row]  # a thread may be adding more
        return [int(row["step"]) for row in rows], [row[name] for row in rows]

    def names(self) -> list[str]:
        """Every quantity measured, in the order of its first appearance."""
        found = dict.fromkeys(key for row in self.rows for key in row)
        return [name for name in found if name != "step" and not name.startswith(("from/", "to/"))]

    def moves(self) -> list[Move]:
        """Every change made by hand, in order."""
        return [move for row in list(self.rows) for move in moves_in(row)]
