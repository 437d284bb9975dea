"""metrics.opinions: scores by hand, their intervals by simulation, files that are damaged or handed in twice."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest
import torch

from srkit.cli import main
from srkit.metrics import opinions
from srkit.metrics.opinions import Answer
from srkit.settings import SRKitError

TRUE = {"A": -0.8, "B": 0.0, "C": 0.8}


def simulated(count, seed=0):
    """Answers of people for whom the three have TRUE's scores."""
    chance, answers = random.Random(seed), []
    for number in range(count):
        left, right = chance.sample([*TRUE], 2)
        likes_left = chance.random() < 1 / (1 + math.exp(TRUE[right] - TRUE[left]))
        answers.append(Answer("Ada", f"picture {number}", left, right, left if likes_left else right))
    return answers


def test_two_methods_scores_are_the_logarithm_of_their_wins():
    scores = opinions.bradley_terry(torch.tensor([[0.0, 8.0], [2.0, 0.0]]))
    assert (scores[0] - scores[1]).item() == pytest.approx(math.log(4)) and scores.sum().item() == pytest.approx(0)


def test_known_scores_come_back_and_the_intervals_hold_them():
    inside = total = 0
    for seed in range(25):
        for name, one in opinions.scores(simulated(150, seed)).items():
            inside, total = inside + (abs(one.score - TRUE[name]) < one.half), total + 1
    assert 0.87 < inside / total < 0.995
    many = opinions.scores(simulated(3000))
    assert [*many] == ["C", "B", "A"] and all(abs(one.score - TRUE[name]) < 0.15 for name, one in many.items())
    assert sum(one.pairs for one in many.values()) == 6000 and sum(one.wins for one in many.values()) == 3000


def test_who_won_always_has_a_finite_score_and_methods_that_never_met_too():
    always = [Answer("Ada", str(i), "A", "B", "A") for i in range(12)] + [Answer("Ada", "x", "C", "D", "C")]
    found = opinions.scores(always)
    assert all(math.isfinite(one.score) and 0 < one.half < 9 for one in found.values())
    assert found["A"].score - found["B"].score > found["C"].score - found["D"].score > 0
    with pytest.raises(SRKitError, match="two methods"):
        opinions.scores([])


def test_rank_correlation_with_ties():
    assert opinions.spearman([1, 2, 3, 9], [10, 20, 30, 31]) == pytest.approx(1)
    assert opinions.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert opinions.spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2)
    assert math.isnan(opinions.spearman([1, 1], [1, 2]))


def test_files_are_pooled_once_each_and_damaged_ones_named(tmp_path):
    answers = simulated(9)
    opinions.write(tmp_path / "ada.json", answers, {"A": {"psnr": 30.5}})
    opinions.write(tmp_path / "again" / "ada (1).json", answers, {})
    opinions.write(tmp_path / "bob.json", [Answer("Bob", "cat", "A", "B", "B")], {})
    good = json.loads((tmp_path / "bob.json").read_text())
    broken = ["{", "[]", "null", "[" * 100_000, json.dumps({**good, "format": 2}), json.dumps({"format": 1})]
    for wrong in ({"better": "C"}, {"left": "B"}, {"person": 3}, {"picture": ""}, {"more": "x"}):
        broken.append(json.dumps({**good, "answers": [good["answers"][0] | wrong]}))
    broken.append(json.dumps({**good, "measures": {"A": 3}}))
    for number, text in enumerate(broken):
        (tmp_path / f"broken{number:02}.json").write_text(text)
    (tmp_path / "broken99.json").write_bytes(b"\xff\xfe\x00")
    poll = opinions.read(tmp_path)
    assert len(poll.answers) == 10 and poll.people == 2 and poll.measures == {"A": {"psnr": 30.5}}
    assert len(poll.skipped) == len(broken) + 1
    for number, line in enumerate(poll.skipped[:-1]):
        assert line.startswith(f"broken{number:02}.json is skipped") and "\n" not in line
    assert opinions.read(tmp_path / "bob.json").answers == [Answer("Bob", "cat", "A", "B", "B")]
    for empty in (tmp_path / "broken00.json", tmp_path / "nowhere"):
        with pytest.raises(SRKitError, match="no answers"):
            opinions.read(empty)


def test_the_command_prints_scores_names_what_it_skips_and_draws(tmp_path, capsys):
    measures = {name: {"psnr": 25 + score, "ssim": 0.7 - score / 10} for name, score in TRUE.items()}
    opinions.write(tmp_path / "class" / "ada.json", simulated(60), measures)
    (tmp_path / "class" / "bad.json").write_text("{")
    assert main(["poll", str(tmp_path / "class"), "--out", str(tmp_path / "poll.png")]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()[1:4]] == ["C", "B", "A"]
    assert "60 answers, 1 person" in said.out and "bad.json is skipped" in said.err
    assert (tmp_path / "poll.png").stat().st_size > 10_000
    assert main(["poll", str(tmp_path / "nowhere")]) == 2


def test_the_page_tells_the_rank_correlation_and_leaves_out_what_is_not_measured_of_all():
    from srkit import figures

    found = opinions.scores(simulated(60))
    measures = {name: {"psnr": 25 + score, "ssim": 0.7 - score / 10, "relu3_3": 1.0} for name, score in TRUE.items()}
    del measures["A"]["relu3_3"]
    page = figures.preferences(found, measures)
    titles = [ax.get_title() for ax in page.axes]
    assert titles == ["people", "PSNR\nrank correlation +1.00", "SSIM\nrank correlation -1.00"]
    assert len(figures.preferences(found).axes) == 1
    assert len([*itertools.chain(*[ax.containers for ax in page.axes])]) == 9
