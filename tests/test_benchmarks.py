"""The benchmarks' arithmetic and tables; that they run at all is one slow test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import __main__ as everything
from benchmarks import gan, growth, measure, perceptual, pipeline
from benchmarks.steps import Comparison, Options

ROOT = Path(__file__).parents[1]
ABOUT = {
    **{"device": "cpu", "cpu": "Abacus 9", "threads": 2, "torch": "2.9"},
    **{"peak_gflops": {"bf16": 100.0, "fp32": 50.0}, "bandwidth_gigabytes": 10.0},
}
RATES = {"slow": [2.0, 1.0, 4.0], "fast": [6.0, 5.0, 8.0]}


def compared(monkeypatch, **what) -> tuple[Comparison, dict]:
    """A comparison whose sides ran as RATES says, and its facts."""
    found = {
        side: [{"pictures_per_second": rate, "peak_megabytes": 100 * rate} for rate in rates]
        for side, rates in RATES.items()
    }
    monkeypatch.setattr("benchmarks.steps.in_turn", lambda *_: found)
    comparison = Comparison("benchmarks.race", "A race", dict.fromkeys(RATES), **what)
    return comparison, comparison.compare(Options(batch_sizes=(4,), rounds=3, files=1), ABOUT)


def test_ratio_is_the_median_of_pairs(monkeypatch):
    _, facts = compared(monkeypatch)
    row = facts["rows"][0]
    assert facts["ratio"] == row["fast"]["ratio"] == 3  # of 3, 5 and 2
    assert row["slow"]["ratio"] == 1
    assert row["slow"]["pictures_per_second"] == 2 and row["slow"]["peak_megabytes"] == 400
    assert facts["benchmark"] == "race" and facts["cpu"] == "Abacus 9"


def test_shares_of_what_the_machine_can_do(monkeypatch):
    work = {"slow": 1e9, "fast": lambda: 2e9}
    comparison, facts = compared(monkeypatch, flops=work, moved={"fast": 1e8})
    fast, slow = facts["rows"][0]["fast"], facts["rows"][0]["slow"]
    assert slow["share_of_bf16_peak"] == pytest.approx(0.02) and fast["share_of_fp32_peak"] == pytest.approx(0.24)
    assert fast["share_of_bandwidth"] == pytest.approx(0.06) and "share_of_bandwidth" not in slow
    text = comparison.table(facts)
    assert "12%" in text and "24%" in text and "6%" in text and text.endswith("3.000")


@pytest.mark.slow
def test_arithmetic_of_the_gan_is_counted():
    assert gan.flops("textbook") > 1.2 * gan.flops("srkit") > 1e9


def test_arithmetic_by_hand_is_what_pytorch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.textbook import SIDE, TextbookSRCNN, srcnn_flops

    with FlopCounterMode(display=False) as counter:
        TextbookSRCNN()(torch.rand(1, 3, SIDE // 2, SIDE // 2)).sum().backward()
    assert counter.get_total_flops() == srcnn_flops()


def test_kept_features_save_one_of_three_passes():
    work = {side: perceptual.COMPARISON.arithmetic(side) for side in perceptual.COMPARISON.sides}
    assert work["textbook"] > work["srkit"] > work["srkit without flips"]
    assert work["srkit"] - work["srkit without flips"] == perceptual.FORWARD


def test_exponents_of_a_square_and_of_nothing():
    square = [{"side": value, "seconds": 3.0 * value**2} for value in (60, 120, 480)]
    flat = [{"pictures": value, "seconds": 0.5} for value in (10, 100)]
    slopes = growth.exponents({"side": square, "pictures": flat})
    assert slopes["side"] == pytest.approx(2) and slopes["pictures"] == pytest.approx(0)


def test_bytes_of_a_picture_that_becomes_a_pair():
    read, high, low = 3 * 240**2, 4 * 3 * 240**2, 4 * 3 * 120**2
    assert read + 2 * high + low == pipeline.MOVED


def test_the_machine_says_no_name_of_its_own():
    import platform

    assert measure.processor()
    assert platform.node() not in measure.processor()


def test_memory_of_this_process_alone():
    """In a fresh process, for that of the tests may have held more before."""
    code = (
        "import torch; from benchmarks.measure import peak_megabytes; held = peak_megabytes('cpu');"
        "more = torch.ones(50_000_000); print(peak_megabytes('cpu') - held)"
    )
    ballast = torch.ones(100_000_000)  # 400 MB of this process's, which are not that one's
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 150 < float(printed) < 300 and ballast.numel()


@pytest.fixture
def parts() -> dict[str, dict]:
    """What four parts may have found."""

    def side(rate: float, ratio: float, **share: float) -> dict:
        return {"pictures_per_second": rate, "peak_megabytes": 1.0, "ratio": ratio, **share}

    def rows(share: str, *others: str) -> list[dict]:
        return [{"batch_size": 4, "textbook": side(5, 1), **{name: side(20, 4, **{share: 0.8}) for name in others}}]

    upscaled = {side: {"megapixels_per_second": rate} for side, rate in (("textbook", 1.0), ("tiles", 2.0))}
    curves = {axis: [{axis: 1, "seconds": 0.1}, {axis: 10, "seconds": 1.0}] for axis in growth.AXES}
    return {
        "mse": {"rows": rows("share_of_bf16_peak", "srkit")},
        "perceptual": {"rows": rows("share_of_bf16_peak", "srkit", "srkit without flips")},
        "pipeline": {"rows": rows("share_of_bandwidth", "srkit")},
        "upscaling": {
            "rows": [{"megapixels": 1.0, "ratio": 2.0, **upscaled}, {"megapixels": 100.0, "ratio": None}],
        },
        "processes": {"of_ceiling": 0.9, "per_process": 0.8},
        "growth": {"curves": curves, "exponents": growth.exponents(curves)},
    }


def test_one_row_for_each_comparison(parts):
    found = {row["what"]: row for row in everything.ratios(parts)}
    assert list(found) == [
        *("MSE step, batch 4", "perceptual step, batch 4", "perceptual step, without flips, batch 4"),
        *("data pipeline, batch 4", "upscaling, 1 MP"),
    ]
    assert (
        found["data pipeline, batch 4"]["of"] == "memory bandwidth"
        and found["MSE step, batch 4"]["of"] == "bf16 matrix peak"
    )
    assert found["upscaling, 1 MP"]["share"] is None
    text = everything.summary(parts)
    assert "80% of the memory bandwidth" in text and "4.00" in text and "0.90 of two that exchange nothing" in text


@pytest.mark.parametrize("some", [["mse"], ["growth", "mse"], ["growth"], ["mse", "perceptual", "upscaling", "growth"]])
def test_the_plot_is_1200_pixels_wide(parts, some, tmp_path):
    found = {name: parts[name] for name in some}
    everything.draw({"machine": ABOUT, "parts": found}, tmp_path / "new" / "plot.png")
    with Image.open(tmp_path / "new" / "plot.png") as picture:
        assert picture.width == 1200 and 150 < picture.height < 1200


def test_an_unknown_part_is_named():
    with pytest.raises(SystemExit, match="mse"):
        everything.main(["--only", "msee"])


def test_only_some_parts_leave_the_reference_alone(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(everything, "machine", lambda device: ABOUT)
    monkeypatch.setattr(everything, "measure", lambda part, *_: ({**parts[part], **ABOUT}, f"table of {part}"))
    said = []
    everything.main(["--only", "mse", "growth"], said.append)
    facts = json.loads((tmp_path / "runs/benchmark/benchmark.json").read_text())
    assert "table of mse" in said[0] and "MSE step" in said[-1]
    assert facts["machine"] == ABOUT and "cpu" not in facts["parts"]["mse"]
    assert facts["command"] == "python -m benchmarks --only mse growth"
    assert not (tmp_path / "figures").exists()


@pytest.mark.slow
def test_all_of_it_runs(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", "--device", "cpu", "--out", str(tmp_path)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    facts = json.loads(printed)
    assert set(facts["parts"]) == set(everything.PARTS)
    assert all(row["ratio"] > 0 for row in facts["ratios"])
    assert str(ROOT) not in printed
    assert (tmp_path / "benchmark.png").exists()
