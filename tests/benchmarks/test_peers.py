"""The comparison of self-tuning with search: every arm at equal cost, and the table."""

from __future__ import annotations

import json

import pytest

from benchmarks import published, tuning
from srkit.settings import SRKitError


@pytest.mark.slow
def test_each_arm_is_measured_once_and_kept_and_the_table_pairs_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "REFERENCE", tmp_path / "reference")
    steps = {"seconds": {"plain": 0.1, "tuning": 0.3}, "plain": 20, "tuning": 6, "settling": 2}
    published.write_json(steps, tmp_path / "camera" / "steps.json")
    arms = ("delta-stn", "fixed", "random", "halving", "true")
    options = tuning.Options(seeds=(0, 1), arms=arms, trials=2, batch_size=2, out=tmp_path)
    facts, text = tuning.run(options)
    assert json.loads((tmp_path / "reference" / "tuning.json").read_text())["rows"] == facts["rows"]
    assert all(arm in text for arm in arms) and {*facts["arms"]["fixed"]} == {"0", "1"}
    row, mine = facts["rows"]["fixed"], facts["rows"]["delta-stn"]
    assert row["ahead"] == pytest.approx(mine["mean"] - row["mean"]) and row["deviation"] > 0
    assert {*facts["arms"]["delta-stn"]["0"]["surface"]} == {"blur", "noise"}
    assert facts["arms"]["true"]["0"]["values"]["blur"] == tuning.CAMERA.blur
    monkeypatch.setattr(tuning.Bench, "trainer", None)  # what is kept is not trained again
    assert tuning.run(options)[0]["rows"] == facts["rows"]


def test_an_unknown_task_is_refused():
    with pytest.raises(SRKitError, match="choose camera"):
        tuning.task_of("cats")
