"""Lessons with trainings cut to a few steps, for tests in which it does not matter what they reach."""

from __future__ import annotations

import nbformat
from nbformat.v4 import new_code_cell

FEW_STEPS = """
import dataclasses

from srkit import settings
from srkit.training import TrainConfig

settings.PROFILES["quick"] = dataclasses.replace(settings.QUICK, steps=16, classic_steps=16)


def few_steps(config, check=TrainConfig.__post_init__):
    object.__setattr__(config, "steps", min(40, config.steps))  # lesson 03 compares a loop of 40
    object.__setattr__(config, "val_freq", max(8, config.val_freq))
    check(config)


TrainConfig.__post_init__ = few_steps
"""


def shorten(notebook: nbformat.NotebookNode, more: str = "") -> None:
    """Put a cell before all others that cuts the trainings, and does `more`."""
    notebook.cells.insert(0, new_code_cell(FEW_STEPS + more, id="few-steps"))
