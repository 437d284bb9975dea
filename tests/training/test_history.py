"""history: rows in memory and on disk say the same."""

from __future__ import annotations

import json

import pytest

from srkit.errors import SRKitError
from srkit.training import History


def test_series_and_names():
    history = History()
    history.add({"step": 10, "mse": 0.5})
    history.add({"step": 20, "val/dB": 30.0})
    history.add({"step": 20, "mse": 0.25})
    assert history.series("mse") == ([10, 20], [0.5, 0.25])
    assert history.series("nothing") == ([], [])
    assert history.names() == ["mse", "val/dB"]


def test_file_follows_and_restoring_drops_what_came_after(tmp_path):
    path = tmp_path / "new" / "history.jsonl"
    history = History(path)
    for step in (1, 2, 3):
        history.add({"step": step, "mse": 1 / step})
    assert [json.loads(line) for line in path.read_text().splitlines()] == history.rows
    history.restore(history.rows[:2])
    history.add({"step": 3, "mse": 0.0})
    assert [json.loads(line)["mse"] for line in path.read_text().splitlines()] == [1, 0.5, 0]


def test_tensorboard_needs_a_folder():
    with pytest.raises(SRKitError, match="give the Trainer out="):
        History(None, tensorboard=True)
