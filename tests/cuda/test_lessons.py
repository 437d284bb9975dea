"""The code cells of every lesson, run on the stand-in for CUDA: none of them mixes devices.

Trainings are cut to a few steps: what they reach is not the question here.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell
from shortened import shorten

from srkit.course import lessons

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parents[1] / "notebooks").glob("*.ipynb"))
STAND_IN = f"""
import sys

sys.path.insert(0, {str(HERE)!r})
import fake_cuda

stand_in = fake_cuda.stand_in()  # kept in a name: left to itself it would end at once
stand_in.__enter__()
"""
LAST_CELL = 'assert here.device.type == "cuda" and sum(fake_cuda.waits.values())'


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, lessons.Result]:
    """All lessons, run once, two at a time, with runs/ and figures/ in a folder of their own."""
    folder = tmp_path_factory.mktemp("lessons")
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        shorten(notebook, STAND_IN)
        notebook.cells.append(new_code_cell(LAST_CELL, id="was-used"))
        nbformat.write(notebook, folder / path.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRKIT_ROOT", str(folder))
        patch.delenv("SRKIT_WEIGHTS", raising=False)
        ran = lessons.run(sorted(folder.glob("*.ipynb")), "quick", out=folder / "out", offline=True)
    return {result.lesson: result for result in ran}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the lessons run on the GPU itself")
@pytest.mark.parametrize("lesson", [path.stem for path in NOTEBOOKS])
def test_lesson_mixes_no_devices(lesson, results):
    assert results[lesson].error is None, results[lesson].error
