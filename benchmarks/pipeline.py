"""Pictures ready for training, without a network: the textbook's DataLoader against srkit's Bank.

    uv run python -m benchmarks.pipeline [--batch-sizes 16] [--steps 60] [--rounds 3] [--json]

The textbook opens, cuts and shrinks JPEG files with Pillow in two workers; the Bank has decoded them once and cuts,
flips and degrades a batch at a time (240 x 240, x2). For both the least number of bytes that must be moved is known: a
picture's bytes read, high written as float32, read again, and low written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.steps import Comparison, Options
from benchmarks.textbook import SCALE, SIDE, loader
from srkit.banks import Batch, open_bank


def textbook(folder: Path, batch_size: int, steps: int, device: str) -> Iterator[tuple]:
    for low, high in loader(folder, batch_size, steps, device):
        yield low.to(device), high.to(device)


def srkit(folder: Path, batch_size: int, steps: int, device: str) -> Iterator[Batch]:
    bank = open_bank(folder, "all", size=SIDE, device=device)
    return (bank.batch(step, batch_size, SIDE, SCALE) for step in range(steps))


NUMBERS = 3 * SIDE**2  # of a picture
MOVED = NUMBERS * (1 + 4 + 4) + 4 * NUMBERS / SCALE**2
COMPARISON = Comparison(
    "benchmarks.pipeline",
    f"Pictures ready for training, {SIDE} x {SIDE}, x{SCALE}",
    {"textbook": textbook, "srkit": srkit},
    moved={"textbook": MOVED, "srkit": MOVED},
    defaults=Options(batch_sizes=(16,), steps=60),  # many: what the workers fetched in the warm-up must not count
)

if __name__ == "__main__":
    COMPARISON.main()
