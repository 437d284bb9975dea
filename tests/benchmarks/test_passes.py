"""benchmarks.passes: each pass starts from the one before, and BRISQUE is left out by a line where it cannot be had."""

from __future__ import annotations

import json

import torch
from conftest import photograph

from benchmarks import passes
from srkit import figures, metrics, models
from srkit.data import images
from srkit.metrics import quality
from srkit.settings import SRKitError


def test_a_pass_starts_from_the_one_before_and_the_first_is_the_networks_own():
    model, low = models.load(passes.NETWORK), images.degrade(photograph(36, 42), 3)[None]
    interpolated, first, second = model.passes(low, 2)
    with torch.no_grad():
        assert torch.allclose(interpolated, images.resize(low, scale=3).clamp(0, 1))
        assert torch.allclose(first, model(low).clamp(0, 1), atol=0.02)
        assert torch.allclose(second, model.refine(first).clamp(0, 1))


def test_the_table_names_what_is_left_out_and_the_page_tells_what_is_measured(tmp_path, monkeypatch):
    def missing():
        raise SRKitError("no support vectors")

    kept = dict(quality.MEASURES)
    brisque = {"prepare": missing, "function": lambda output, high: torch.full((len(output),), 40.4)}
    monkeypatch.setitem(quality.MEASURES, "brisque", ("torch", kept["brisque"][1], *brisque.values()))
    images.write(photograph(36, 42), tmp_path / "photos" / "a.png")
    options = passes.Options(data=str(tmp_path / "photos"), passes=2, out=tmp_path / "out")
    facts, text = passes.run(options)
    assert "brisque is left out: no support vectors" in text and list(facts["tables"]["pass 1"])[1:3] == [
        "psnr",
        "ssim",
    ]
    assert json.loads((tmp_path / "out" / "passes.json").read_text())["tables"]["pass 2"] == facts["tables"]["pass 2"]
    monkeypatch.setitem(quality.MEASURES, "brisque", ("torch", "BRISQUE (piq {})", lambda: None, brisque["function"]))
    facts, text = passes.run(options)
    assert "left out" not in text and "BRISQUE" in text and len(facts["tables"]["reference"]["pictures"]) == 1


def test_a_scored_page_tells_of_the_ground_truth_no_psnr_and_of_brisque_no_decimals():
    high = photograph(36, 42)
    rows = {"reference": metrics.Row("a", 42, 36, float("inf"), 1.0, {"BRISQUE (piq 1)": 12.6})}
    rows["output"] = metrics.Row("a", 42, 36, 27.52, 0.8121, {"BRISQUE (piq 1)": 40.4, "relu2_2": 0.1234})
    fig = figures.scored(dict.fromkeys(rows, high), rows, "of $1")
    told = [ax.get_xlabel() for ax in fig.axes]
    assert told == ["BRISQUE 13", "BRISQUE 40\nrelu2_2 0.123\nSSIM 0.812\nPSNR 27.5 dB"]
