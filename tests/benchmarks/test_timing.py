"""What the benchmarks are timed with: sides that take turns, rows of a table, the machine."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from benchmarks import timing
from benchmarks.timing import SRKIT, STUDENT, TEXTBOOK, Side
from srkit.settings import SRKitError

COUNTER = """
from benchmarks import timing
turns = []
timing.serve(lambda: turns.append(1) or {"rate": len(turns), "peak_megabytes": 0})
"""


def answers(*rates: float, **facts) -> list[timing.Facts]:
    return [{"rate": rate, "peak_megabytes": 100 * rate, **facts} for rate in rates]


def test_a_ratio_is_the_median_of_pairs(about):
    found = {TEXTBOOK: answers(2, 1, 4), STUDENT: answers(3, 5, 8), SRKIT: answers(6, 5, 8, precision="fp32", gflop=5)}
    row = timing.row("a race", "laps/s", found, about)
    assert row["ratio"] == {TEXTBOOK: 3, STUDENT: 1}  # of 3, 5 and 2; of 2, 1 and 1
    assert row["rate"][TEXTBOOK] == 2 and row["peak_megabytes"][TEXTBOOK] == 400
    assert row["share"] == pytest.approx(6 * 5 / 50) and "fp32" in row["of"]


def test_a_share_of_the_bandwidth_where_bytes_count(about):
    row = timing.row("a walk", "laps/s", {SRKIT: answers(10)}, about, moved=1e8)
    assert row["share"] == pytest.approx(0.1) and row["ratio"] == {}
    text = timing.table({"rows": [row], "remarks": ["it rained"]})
    assert "10% of the memory bandwidth" in text and text.endswith("it rained")


@pytest.mark.slow
def test_sides_take_turns_in_processes_that_stay():
    found = timing.in_turn({"one": Side(["-c", COUNTER]), "two": Side(["-c", COUNTER], count=2)}, rounds=3)
    assert [one["rate"] for one in found["one"]] == [1, 2, 3]
    assert [both["rate"] for both in found["two"]] == [2, 4, 6]  # the sum of both


def test_a_side_that_fails_is_named(capfd):
    with pytest.raises(SRKitError, match="1/0"):
        timing.in_turn({"bad": Side(["-c", "1/0"])}, rounds=1)


def test_the_machine_says_no_name_of_its_own(about):
    assert timing.processor() and platform.node() not in timing.processor()
    assert "Abacus 9, 2 threads" in timing.described(about)


@pytest.mark.slow
def test_memory_of_this_process_alone():
    """In a fresh process, for that of the tests may have held more before."""
    code = (
        "import torch; from benchmarks.timing import peak_megabytes; held = peak_megabytes('cpu');"
        "more = torch.ones(50_000_000); print(peak_megabytes('cpu') - held)"
    )
    ballast = torch.ones(100_000_000)  # 400 MB of this process's, which are not that one's
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, cwd=timing.ROOT, capture_output=True, text=True, check=True).stdout
    assert 150 < float(printed) < 300 and ballast.numel()
