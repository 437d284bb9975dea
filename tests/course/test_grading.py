"""Marking: every figure is measured again, nothing of a student's is run, and each fault is one line of the report."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import classroom
import pytest
import torch
from classroom import DEADLINE, Class, Plan
from conftest import photograph

from srkit import cli, models
from srkit.course import copies, grading, handout, inbox, measuring, packing, reports, rules, submission
from srkit.course.grading import Result
from srkit.course.rules import Rules
from srkit.data import ImageDataset
from srkit.data.images import resize, to_uint8
from srkit.inference import SelfEnsemble
from srkit.metrics import Row, Table, evaluate
from srkit.settings import SRKitError, Student
from srkit.training import TrainConfig, Trainer

HANDFUL = [
    *[Plan("honest")] * 2,
    Plan("honest, hardly trained", steps=6),
    Plan("honest, hardly trained", steps=7),
    Plan("late", "20 marks lost", days=1.5, marks=20),
    Plan("replaced", "a later submission counts", student=0, days=-3),
    Plan("forged", "a figure says", change=classroom.forged_figure(classroom.better)),
    Plan("permuted", "the same answers as Last8", copies=8, change=classroom.weights(classroom.permuted)),
    Plan("copied from", "the same answers as Last7"),
    Plan("formula", "letters, digits", change=classroom.info(ID='=hyperlink("x")')),
    Plan("path", "leads out of the folder", raw=classroom.raw(("../../owned.py", b"x"))),
]


def here(command: list[str], job: Path, seconds: float) -> str:
    """In this process what `measuring._run` does in another; that one is tested by the slow tests."""
    measuring.answer(job)
    return ""


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Class:
    room = Class(tmp_path_factory.mktemp("class"))
    for index, plan in enumerate(HANDFUL):
        room.add(index, plan)
    return room


@pytest.fixture(scope="module")
def marked(room) -> list[Result]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "_run", here)
        return room.mark(room.folder / "marks")


def test_honest_ones_are_marked_and_each_other_is_told_what_it_is(room, marked):
    assert room.missed(marked) == []


def test_what_was_measured_is_not_measured_again(room, marked, monkeypatch):
    monkeypatch.setattr(measuring, "_run", lambda *arguments: pytest.fail("measured again"))
    again = room.mark(room.folder / "marks")
    assert [(one.file, one.mark, reports.remarks(one)) for one in again] == [
        (one.file, one.mark, reports.remarks(one)) for one in marked
    ]


def test_what_could_not_be_measured_is_tried_again(room, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_run", lambda *arguments: "stopped: it takes longer")
    (tmp_path / "in").mkdir()
    shutil.copyfile(room.inbox / "01_s1.zip", tmp_path / "in/a.zip")
    grader = grading.Grader(room.rules, str(room.folder / "test"), tmp_path / "out")
    (failed,) = grader.grade(tmp_path / "in")
    assert failed.error == "stopped: it takes longer" and failed.results == 0
    monkeypatch.setattr(measuring, "_run", here)
    (result,) = grader.grade(tmp_path / "in")
    assert not result.error and result.table


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXCPU"), reason="the system limits no processor time")
def test_a_process_that_computes_for_too_long_is_told_from_one_that_dies(tmp_path):
    limits = "measuring._limit(dict(seconds=1, memory=8, file_size=1))"
    code = f"import torch; torch.set_num_threads(1); from srkit.course import measuring; {limits}\nwhile True: pass"
    assert "takes longer than the 9 s" in measuring._run([sys.executable, "-c", code], tmp_path, 9)
    assert measuring._run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], tmp_path, 9) == ""


def test_table_for_the_office_holds_no_formula(room, marked):
    with (room.folder / "marks/marks.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(HANDFUL) and rows[0].keys() == set(reports.COLUMNS)
    assert any(row["id"] == '\'=hyperlink("x")' for row in rows)
    assert not any(cell[:1] in "=+@" and cell for row in rows for cell in row.values())
    assert [reports.safe(cell) for cell in ("=1", " +a", "-x", "-0.3", "@a", "a=1", "\t=1")] == [
        *("'=1", "' +a", "'-x", "-0.3", "'@a", "a=1"), "' =1"]  # fmt: skip


def test_pages_and_files_for_other_programs(room, marked):
    out = room.folder / "marks"
    page = (out / "index.html").read_text("utf-8")
    assert all(f"First{index}" in page for index in (0, 1, 4, 8)) and "<script" not in page and "http" not in page
    assert len(list((out / "students").glob("*.html"))) == len(HANDFUL)
    suites = ElementTree.parse(out / "junit.xml").getroot()
    assert len(suites) == len(HANDFUL) and sum(int(suite.get("failures", 0)) for suite in suites) == 6
    standings = (out / "standings.html").read_text("utf-8")
    assert "First1" in standings and "hyperlink" in standings and "2 more could not be ranked" not in standings


def test_results_json_has_the_fields_that_gradescope_documents(room, marked):
    files = [json.loads(path.read_text()) for path in (room.folder / "marks/students").glob("*.json")]
    assert len(files) == len(HANDFUL)
    for found in files:
        assert found.keys() <= {"score", "output", "tests", "leaderboard"} and isinstance(found["score"], float)
        for test in found["tests"]:
            assert test.keys() <= {"name", "score", "max_score", "status", "output"}
            assert 0 <= test["score"] <= test["max_score"] and test.get("status", "passed") in ("passed", "failed")
        for value in found.get("leaderboard", []):
            assert value.keys() <= {"name", "value", "order"} and value.get("order", "asc") in ("asc", "desc")
    best = max(files, key=lambda found: found["score"])
    assert sum(test["score"] for test in best["tests"]) == pytest.approx(best["score"], abs=0.01)


# ---------------------------------------------------------------------------------- what is handed in


@pytest.mark.parametrize(
    "plan", [plan for plan in classroom.plans(Path()) if plan.raw and plan.kind != "empty"], ids=lambda plan: plan.kind
)
def test_no_zip_writes_outside_or_without_end(plan, tmp_path):
    (tmp_path / "in").mkdir()
    plan.raw(tmp_path / "a.zip")
    with pytest.raises(SRKitError, match=plan.expected):
        submission.unpack(tmp_path / "a.zip", tmp_path / "in")
    assert sum(path.stat().st_size for path in (tmp_path / "in").rglob("*")) < 1e6


def test_a_folder_is_unpacked_as_a_zip_is_and_links_are_not(tmp_path):
    for name in ("in", "out", "in/.git"):
        (tmp_path / name).mkdir()
    (tmp_path / "in/info.py").write_text("ID = 'a'")
    submission.unpack(tmp_path / "in", tmp_path / "out")
    assert submission.read_info(tmp_path / "out")["ID"] == "a"
    (tmp_path / "in/link").symlink_to("/etc/passwd")
    with pytest.raises(SRKitError, match="is a link"):
        submission.unpack(tmp_path / "in", tmp_path / "out")


def test_times_of_the_platform(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("﻿file,time\na.zip,2026-12-02T00:59:00+02:00\n", "utf-8")
    assert inbox.read_times(path) == {"a.zip": DEADLINE}
    for text in ("file,time\na.zip,yesterday\n", "file,time\na.zip,2026-12-01T12:00:00\n", "name\nx\n"):
        path.write_text(text)
        with pytest.raises(SRKitError, match="time"):
            inbox.read_times(path)
    (tmp_path / "metadata.json").write_text(json.dumps({"id": 1, "created_at": "2026-12-01T14:59:00.000000-08:00"}))
    assert inbox.read_times(tmp_path / "metadata.json") == {"": DEADLINE}
    with pytest.raises(SRKitError, match="no submissions"):
        inbox.find(tmp_path)


def test_grey_pictures_and_ensembles_are_measured_as_evaluate_measures_them(room, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_run", here)
    submission.unpack(room.inbox / "00_s0.zip", tmp_path)
    model = measuring.load(tmp_path, own_code=False)
    gray = photograph(40, 44)[:1].expand(3, -1, -1)
    dataset = ImageDataset([to_uint8(gray), to_uint8(photograph(33, 48, 1))])
    lows = [to_uint8(pair.low[0]) for pair in dataset.pairs(2)]
    for ensemble, network in ((False, model), (True, SelfEnsemble(model, 2))):
        outputs, found = measuring.measure(tmp_path, lows, room.rules, ensemble)
        tables = [evaluate(one, dataset, 2) for one in (grading.Replay(outputs, 2), network)]
        assert [row.psnr for row in tables[0].rows] == pytest.approx([row.psnr for row in tables[1].rows], abs=1e-4)
        assert found["parameters"] == sum(models.count(model))


WEIRD = [{"files": []}, {"claims": 3, "training": "x"}, {"training": {"pictures": [[1, 2], "ab", ["a", ""]]}},
         {"packed": 5}, {"claims": {"psnr": True, "parameters": []}}, {"weights_sha256": {}}]  # fmt: skip


@pytest.mark.parametrize("weird", WEIRD, ids=str)
def test_a_manifest_made_by_hand_is_one_line_and_the_others_are_marked(weird, room, marked, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_run", here)
    shutil.copyfile(room.inbox / "01_s1.zip", tmp_path / "a.zip")
    change = classroom.edit("manifest.json", lambda manifest: manifest.update(weird))
    room.change(tmp_path / "a.zip", Plan("weird", change=change, signed="files" not in weird))
    grader = grading.Grader(room.rules, str(room.folder / "test"), tmp_path)
    (result,) = grader.grade(tmp_path, {"a.zip": DEADLINE})
    assert result.error or result.table
    assert not result.error or "\n" not in result.error
    assert "packed" in weird or reports.remarks(result) or "pictures" in str(weird)
    reports.write([result], grader)


# ---------------------------------------------------------------------------------- copies


def test_prints_know_a_picture_smaller_turned_and_compressed_and_no_other():
    pictures = [to_uint8(photograph(96, 90, seed)) for seed in range(6)]
    tests = {str(seed): [copies.prints(way) for way in copies.turned(one)] for seed, one in enumerate(pictures)}
    assert copies.seen([copies.prints(pictures[1])], tests) == ["1"]
    small = to_uint8(resize(photograph(96, 90, 2)[None], (48, 45))[0]).flip(-1)
    assert copies.seen([copies.prints(small)], tests) == ["2 (nearly)"]
    assert copies.seen([copies.prints(to_uint8(photograph(96, 90, 9)))], tests) == []
    assert copies.as_prints([["a", "zz"], 3, ["a", "0f"], None]) == [("a", "0f")] and copies.as_prints({}) == []


def test_same_answers_are_measured_from_bicubic():
    bicubic = to_uint8(photograph(48, 48))
    generator = torch.Generator().manual_seed(0)

    def noise(size: int) -> torch.Tensor:
        return torch.randint(-size, size + 1, bicubic.shape, generator=generator)

    one = (bicubic + noise(12)).clamp(0, 255).byte()
    answers = {"one": one, "copy": one.clone(), "other": (bicubic + noise(12)).clamp(0, 255).byte()}
    assert copies.same(answers, bicubic) == {("one", "copy"): math.inf}
    hardly = {
        name: torch.where(torch.rand(bicubic.shape, generator=generator) < 0.05, bicubic ^ 1, bicubic) for name in "ab"
    }
    assert copies.closeness(*hardly.values()) > copies.SAME_ANSWER and copies.same(hardly, bicubic) == {}


# ---------------------------------------------------------------------------------- ranks and times


def result(name: str, psnrs: list[float], **facts) -> Result:
    table = Table(2, [Row(str(index), 9, 9, psnr, 0.9) for index, psnr in enumerate(psnrs)])
    return Result(name, {}, table=table, gain=table.psnr, **facts)


def test_who_is_behind_by_less_than_two_standard_errors_shares_the_rank():
    best, tied = result("best", [30.0, 32.0, 34.0]), result("tied", [30.2, 31.5, 34.1])
    behind, copy = result("behind", [29.0, 31.01, 33.0]), result("copy", [29.0, 31.01, 33.0])
    broken = result("broken", [40.0, 40.0, 40.0], broken=["too large"])
    grading._ranks([behind, tied, broken, best, copy])
    assert [one.rank for one in (best, tied, behind, copy, broken)] == [1, 1, 3, 3, 0]


def pictures(count: int) -> classroom.Change:
    """The manifest says so many training pictures."""
    prints = [["0" * 64, f"{index:064x}"] for index in range(count)]
    return classroom.edit("manifest.json", lambda manifest: manifest["training"].update(pictures=prints))


BREACHES = {
    "500-pictures": [Plan("pictures", "501 training pictures, allowed are 500", change=pictures(501)),
                     Plan("parameters", "1,871,088 parameters, allowed are 1,821,084",
                          change=classroom.network(scale=4, channels=96, blocks=11))],
    "291-pictures-x3": [Plan("pictures", "292 training pictures, allowed are 291", change=pictures(292)),
                        Plan("start", "pretrained", change=classroom.edit("manifest.json", classroom.pretrained))],
    "half-a-million": [Plan("parameters", "allowed are 500,000",
                            change=classroom.network(scale=4, channels=64, blocks=7))],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BREACHES)
def test_known_assignments_replayed(name, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_run", here)
    contest = rules.read(handout.ASSIGNMENT / "examples" / f"{name}.toml")
    room = Class(tmp_path, replace(contest, curve=[[-60.0, 0.0], [0.0, 1.0]]))  # of networks that were not trained
    kept = Plan("kept", change=pictures(contest.most_pictures)) if contest.most_pictures else Plan("kept")
    for index, plan in enumerate([kept, kept, *BREACHES[name]]):
        room.add(index, plan)
    found = {one.file[:2]: one for one in room.mark(tmp_path / "marks")}
    for index, plan in enumerate(BREACHES[name], 2):
        one = found[f"{index:02}"]
        assert any(plan.expected in line for line in one.broken) and one.results == one.rank == 0
    first, second = sorted((found["00"], found["01"]), key=lambda one: one.rank)
    assert not first.broken and first.rank == 1 and first.results >= second.results > 0
    if contest.ranked:
        assert [first.results, second.results] == [60, 60 if second.rank == 1 else 30]
    if contest.step:
        steps = (first.results / 60) * 60 / contest.step
        assert steps == pytest.approx(round(steps), abs=0.05)


# ---------------------------------------------------------------------------------- processes of their own


OWN = """
import os, socket
import torch
from torch import nn
class Network(nn.Module):
    scale = 2
    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(3, 12, 3, padding=1)
    def forward(self, low):
        return nn.functional.pixel_shuffle(self.last(low), 2)
def network():
    {}
    return Network()
"""


def own_network(folder: Path, line: str) -> Path:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "model.py").write_text(OWN.format(line))
    save_file(
        {"last.weight": torch.zeros(12, 3, 3, 3), "last.bias": torch.full((12,), 0.5)}, folder / "model.safetensors"
    )
    return folder


def test_own_code_is_refused_unless_asked_for(tmp_path, capsys, monkeypatch):
    (tmp_path / "contest.toml").write_text("own_network = true\nscale = 2")
    words = ["grade", str(tmp_path), "--rules", str(tmp_path / "contest.toml"), "--data", "bundled"]
    assert cli.main(words) == 2 and "--run-code" in capsys.readouterr().err
    monkeypatch.setattr(measuring.shutil, "which", lambda name: None)
    with pytest.raises(SRKitError, match="install bwrap"):
        measuring.measure(
            own_network(tmp_path / "a", ""), [torch.zeros(3, 9, 9).byte()], Rules(scale=2, own_network=True)
        )


def test_own_network_is_handed_in_and_marked(room, tmp_path, monkeypatch):
    import runpy

    monkeypatch.setattr(measuring, "_run", here)
    contest = replace(room.rules, own_network=True, notebook=False, checks=())
    (tmp_path / "model.py").write_text(OWN.format(""))
    (tmp_path / "info.py").write_text('ID = "o1"\nFIRST_NAME = LAST_NAME = "Own"\nDECLARATION = True')
    network = runpy.run_path(str(tmp_path / "model.py"))["network"]()
    config = TrainConfig(steps=2, batch_size=2, patch_size=24, device="cpu", precision="fp32")
    student = Student("Own Own", "o1")
    trainer = Trainer(network, room.dataset, config, out=tmp_path / "run", student=student)
    trainer.fit(progress=False)
    room.figure(tmp_path, student, trainer.result)
    packed = packing.pack(tmp_path / "run/last.pt", tmp_path, contest, out=tmp_path / "inbox")
    assert packed.problems == [] and packed.path and packed.parameters == 336
    grader = grading.Grader(contest, str(room.folder / "test"), tmp_path / "out", sandboxed=False)
    (result,) = grader.grade(tmp_path / "inbox")
    assert result.code == 40 and result.parameters == 336 and reports.remarks(result) == []
    assert "without a sandbox" in reports.overview([result], grader, {result.file: ""})


@pytest.mark.slow
def test_own_code_sees_neither_files_nor_network(tmp_path):
    if not measuring.shutil.which("bwrap"):
        pytest.skip("needs bubblewrap")
    rules, lows = Rules(scale=2, own_network=True, seconds=60), [torch.zeros(3, 9, 9).byte()]
    outputs, found = measuring.measure(own_network(tmp_path / "a", ""), lows, rules)
    assert found["parameters"] == 336 and (outputs[0] == 128).all() and outputs[0].shape == (3, 18, 18)
    (tmp_path / "secret").write_text("the test pictures")
    for line in (f"open({str(tmp_path / 'secret')!r})", "socket.create_connection(('1.1.1.1', 53), 2)"):
        with pytest.raises(SRKitError, match=r"model.py: (FileNotFound|OS)Error"):
            measuring.measure(own_network(tmp_path / str(len(line)), line), lows, rules)


@pytest.mark.slow
@pytest.mark.skipif("SRKIT_SIXTY" not in os.environ, reason="takes a quarter of an hour: SRKIT_SIXTY=1 runs it")
def test_sixty_submissions_are_told_what_they_are(tmp_path):
    room = Class(tmp_path)
    plans = classroom.plans(tmp_path / "test")
    assert len(plans) == 60
    for index, plan in enumerate(plans):
        room.add(index, plan)
    assert room.missed(room.mark(tmp_path / "marks")) == []
    assert not Path("/tmp/owned").exists()
