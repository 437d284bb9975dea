"""Attack srkit and print what it withstood: `python -m tests.attack`, small, or `--full`; exits with 1 on a failure."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import torch

from . import files, network, training
from .campaign import Campaign, table

# Each with how often it tries something: small, and in full.
CAMPAIGNS: dict[str, tuple[Callable[[int, Random, Path], Campaign], int, int]] = {
    "pictures": (files.pictures, 40, 500),
    "checkpoints": (files.checkpoints, 6, 300),
    "cards": (files.cards, 9, 60),
    "presets": (files.presets, 20, 60),
    "servers": (network.servers, 12, 100),
    "archives": (network.archives, 8, 40),
    "parallel": (network.parallel, 1, 15),
    "mse": (training.kills, 2, 100),
    "gan": (partial(training.kills, kind="gan"), 1, 40),
    "two": (training.two, 1, 12),
    "faults": (training.faults, 15, 60),
    "steered": (training.steered, 1, 12),
    "deaths": (training.deaths, 4, 16),
}


def attack(name: str, full: bool, seed: int = 0) -> Campaign:
    """One campaign, in a folder of its own; the seed decides all but the moments of kills and of threads."""
    run, small, whole = CAMPAIGNS[name]
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a kill cares for no disk, and a disk is slow
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        return run(whole if full else small, Random(f"{name} {seed}"), Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--full", action="store_true", help="hundreds of attempts in place of a handful")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=CAMPAIGNS, default=list(CAMPAIGNS), metavar="CAMPAIGN")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["SRKIT_ROOT"] = tempfile.gettempdir()
    done = []
    for name in options.only:
        start = time.monotonic()
        done.append(attack(name, options.full, options.seed))
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    print(table(done))
    return int(any(campaign.failures for campaign in done))


if __name__ == "__main__":
    sys.exit(main())
