"""The one run: what the textbook does, the parts' tables, the plot; that all of it runs is one slow test."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as everything
from benchmarks import dashboard, growth, steps, textbook, timing
from benchmarks.textbook import Author, HighPictures, PairedPictures, SavedPairs
from srkit.settings import SRKitError


def batches(side: int = 32):
    return itertools.repeat((torch.rand(1, 3, side // 2, side // 2), torch.rand(1, 3, side, side)))


def work_of(author: Author, loop: str) -> int:
    with FlopCounterMode(display=False) as counter:
        next(getattr(author, loop)(batches()))
    return counter.get_total_flops()


def test_the_three_textbook_ways_make_the_same_pairs(tmp_path):
    textbook.make_folder(tmp_path / "jpeg", 2)
    paths = textbook.files_of(tmp_path / "jpeg", 2)
    textbook.save_pairs(paths, tmp_path / "saved", 48, 2)
    saved, made = SavedPairs(["001", "000"], tmp_path / "saved")[1], PairedPictures(paths, 48, 2)[0]
    assert all(torch.equal(a, b) for a, b in zip(saved, made, strict=True))
    low, high = next(textbook.with_low(iter([HighPictures(paths, 48)[0][None]]), 2))
    assert torch.equal(high[0], made[1]) and (low[0] - made[0]).abs().mean() < 0.01


def test_both_authors_compute_the_same_network_on_the_mse():
    assert work_of(Author(False, "cpu"), "mse") == work_of(Author(True, "cpu"), "mse")


@pytest.mark.slow
def test_an_experienced_student_saves_the_gradients_that_nobody_needs():
    author, student = (work_of(Author(experienced, "cpu"), "perceptual") for experienced in (False, True))
    assert 1.7 < author / student < 2  # six passes through VGG, or three


def test_exponents_of_a_square_and_of_nothing():
    square = [{"side": value, "seconds": 3.0 * value**2} for value in (60, 120, 480)]
    flat = [{"pictures": value, "seconds": 0.5} for value in (10, 100)]
    slopes = growth.exponents({"side": square, "pictures": flat})
    assert slopes["side"] == pytest.approx(2) and slopes["pictures"] == pytest.approx(0)


def row(**more) -> timing.Facts:
    rate = {"textbook": 5.0, "student": 10.0, "srkit": 20.0}
    return {"what": "MSE step", "unit": "pictures/s", "rate": rate, "ratio": {"textbook": 4.0, "student": 2.0}, **more}


def grown() -> timing.Facts:
    curves = {axis: [{axis: 1, "seconds": 0.1}, {axis: 10, "seconds": 1.0}] for axis in growth.AXES}
    return {"curves": curves, "exponents": growth.exponents(curves), "rows": [], "remarks": ["it grows"]}


@pytest.mark.parametrize("rows", [[], [row(share=0.8, of="best"), row()]])
@pytest.mark.parametrize("parts", [{}, {"growth": grown()}])
def test_the_plot_is_1200_pixels_wide(rows, parts, about, tmp_path):
    everything.draw({"machine": about, "rows": rows, "parts": parts}, tmp_path / "new" / "plot.png")
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.width == 1200 and 100 < picture.height < 1200


def test_an_unknown_part_is_refused():
    with pytest.raises(SRKitError, match="did you mean 'mse'"):
        everything.run(everything.Options(only=("msee",)))


def test_only_some_parts_leave_the_reference_alone(about, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "machine", lambda device: about)
    monkeypatch.setattr(everything, "compare", lambda part, *_: {"mse": {"rows": [row()]}, "growth": grown()}[part])
    facts, text = everything.run(everything.Options(only=("mse", "growth"), device="cpu"))
    assert facts == json.loads((tmp_path / "runs/benchmark/benchmark.json").read_text())
    assert "MSE step" in text and text.endswith("it grows") and not (tmp_path / "figures").exists()


@pytest.mark.slow
@pytest.mark.parametrize("part", steps.COMPARISONS)
def test_every_side_does_its_steps(part, tmp_path):
    textbook.make_folder(tmp_path / "jpeg", 2)
    for name, side in steps.COMPARISONS[part].sides.items():
        done = list(itertools.islice(side(steps.Place(tmp_path / "jpeg", 1, "cpu")), 2))
        assert len(done) == 2, name


@pytest.mark.slow
def test_the_dashboard_is_watched():
    facts = dashboard.compare("cpu", rounds=1, seconds=0, batch_size=1)
    for one in facts["trainings"].values():
        assert one["ratio"] > 0 and all(seconds > 0 for seconds in (*one["response"], *one["processor"].values()))
    assert len(facts["remarks"]) == 2 * len(facts["trainings"]) == 4


@pytest.mark.slow
def test_the_run_in_processes_of_their_own(tmp_path):
    few = ["--rounds", "1", "--seconds", "0", "--files", "4", "--sizes", "1", "--device", "cpu"]
    command = [sys.executable, "-m", "benchmarks", "--only", "mse", *few, "--out", str(tmp_path), "--json"]
    printed = subprocess.run(command, cwd=timing.ROOT, capture_output=True, text=True, check=True).stdout
    facts = json.loads(printed)
    assert [row["what"] for row in facts["rows"]] == ["MSE step, batch 1"]
    assert min(facts["rows"][0]["ratio"].values()) > 0 and 0 < facts["rows"][0]["share"] < 1.5
    assert str(timing.ROOT) not in printed and (tmp_path / "benchmark.png").exists()
