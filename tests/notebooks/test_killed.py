"""Kill a lesson's kernel in the middle of a training, and run its cells again: the training goes on where it was saved.

Which of the lesson's trainings is killed, and at which step, is drawn anew at each run of the tests. Trainings are cut
to a few steps, as on the stand-in for CUDA.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from srkit.course import lessons

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TRAININGS = {"02": 3, "03": 2, "04": 3, "05": 10, "06": 6, "07": 2, "10": 11}  # with a folder, in each lesson
FIRST_CELL = """
import dataclasses
import json
import os
import random
import signal
from pathlib import Path

from srkit import settings
from srkit.training import TrainConfig, Trainer

settings.PROFILES["quick"] = dataclasses.replace(settings.QUICK, steps=16, classic_steps=16)
LOG = Path(os.environ["SRKIT_ROOT"], "killed.json")  # which training is killed, at which step, and where it went on


def few_steps(config, check=TrainConfig.__post_init__):
    object.__setattr__(config, "steps", min(40, config.steps))
    object.__setattr__(config, "val_freq", max(8, config.val_freq))
    check(config)


def deadly(trainer, step=Trainer.__next__):
    log = json.loads(LOG.read_text())
    name = trainer.out and str(trainer.out.relative_to(os.environ["SRKIT_ROOT"]))
    if name and name not in log["seen"]:
        log["seen"].append(name)
    if name and len(log["seen"]) == log["number"] and not log["killed"]:
        log.setdefault("at", random.randrange(trainer.save_freq, trainer.steps))
        if trainer.step_number == log["at"]:
            log["killed"], log["every"] = name, trainer.save_freq
    elif name and name == log["killed"]:
        log["went on"] = trainer.step_number
    LOG.write_text(json.dumps(log))
    if log["killed"] and name == log["killed"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer)


TrainConfig.__post_init__, Trainer.__next__ = few_steps, deadly
"""


@pytest.mark.slow
@pytest.mark.parametrize(("lesson", "trainings"), TRAININGS.items())
def test_a_training_that_is_killed_goes_on_where_it_was_saved(lesson, trainings, tmp_path, monkeypatch):
    (path,) = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, new_code_cell(FIRST_CELL, id="deadly"))
    nbformat.write(notebook, tmp_path / path.name)
    monkeypatch.delenv("SRKIT_WEIGHTS", raising=False)
    log = tmp_path / "killed.json"
    log.write_text(json.dumps({"number": random.randint(1, trainings), "seen": [], "killed": ""}))
    for _ in range(2):  # the second time it is enough to see where the training goes on
        (result,) = lessons.run([tmp_path / path.name], "quick", out=tmp_path / "out", offline=True)
        assert "Kernel died" in (result.error or ""), result.error
    found = json.loads(log.read_text())
    print(found)
    assert found["went on"] == found["at"] // found["every"] * found["every"] > 0
