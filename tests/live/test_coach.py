"""What the coach says of a run, on films that show it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from srkit.live.coach import advise
from srkit.live.film import Frame


def frames(psnr, mse, features=None, grid=None, weights=None):
    """A frame every 10 steps; the first can be gone back to."""
    weights = weights or {"mse": 1.0, "relu3_3": 0.1, "lr": 1e-3}
    count, nothing = len(psnr), {}
    features, grid = features or [0.1] * count, grid or [0.2] * count
    shares = {name: float(value > 0) for name, value in weights.items() if name != "lr"}
    rows = zip(psnr, mse, features, grid, strict=True)
    return [
        Frame(10 * number, db, {"mse": pixels, "relu3_3": deep}, pattern, torch.zeros(1), shares, nothing, weights,
              {"step": 10 * number} if number == 0 else None)
        for number, (db, pixels, deep, pattern) in enumerate(rows)
    ]  # fmt: skip


def run(film, rate=1e-3, moves=(), state="running"):
    return SimpleNamespace(
        film=SimpleNamespace(frames=film), history=SimpleNamespace(moves=list(moves)), state=state,
        weights=SimpleNamespace(snapshot=lambda: {"mse": 1.0, "relu3_3": 0.1, "lr": rate}),
        trainer=SimpleNamespace(config=SimpleNamespace(lr=1e-3), model=nn.Linear(1, 1)),
    )  # fmt: skip


def test_says_nothing_while_all_is_well():
    assert advise(run(frames([25, 26, 27], [0.3, 0.2, 0.1]))) is None
    assert advise(run([])) is None


@pytest.mark.parametrize("last", [20.0, float("nan")])
def test_a_picture_that_breaks_needs_a_lower_rate_from_before(last):
    advice = advise(run(frames([25, 26, last], [0.3, 0.2, 0.9])))
    assert advice.weights == {"lr": pytest.approx(1e-4)} and advice.back.step == 0
    assert "learning rate" in advice.text and advice.button.startswith("back to step 0, learning rate ")


def test_steps_that_are_too_long():
    advice = advise(run(frames([25, 26, 25.5, 25.4], [0.3, 0.1, 0.2, 0.2], [0, 0, 0, 0])))
    assert "the steps are too long" in advice.text and advice.weights["lr"] < 1e-3


def test_a_grid_and_which_term_to_turn_down():
    advice = advise(run(frames([25, 25.1, 25.2], [0.3, 0.29, 0.28], grid=[0.3, 1, 2])))
    assert "grid" in advice.text and advice.weights == {"relu3_3": pytest.approx(0.1 / 3)}


def test_pixels_and_features_that_pull_apart():
    advice = advise(run(frames([25, 24.95, 24.85], [0.3, 0.3, 0.31], [0.5, 0.4, 0.3])))
    assert "pull apart" in advice.text and "40% nearer" in advice.text and not advice.button


def test_a_run_that_stands_still():
    flat = frames([25.0] * 9, [0.3] * 9)
    assert "Move one" in advise(run(flat)).text
    assert advise(run(flat, rate=1e-4)).weights == {"lr": pytest.approx(1e-3)}
    assert advise(run(flat, state="paused")) is None


def test_a_run_that_stands_still_below_what_it_was_is_sent_back():
    lost = frames([25.2] + [24.3] * 9, [0.3] + [0.37] * 9)
    advice = advise(run(lost, moves=[SimpleNamespace(name="lr", step=10)]))
    assert advice.back is lost[0] and advice.button == "back to step 0" and not advice.weights
    assert "25.20 dB" in advice.text
