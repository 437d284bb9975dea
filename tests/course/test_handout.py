"""Handing out: students get the lessons without what is not for them, and rules that can be read."""

from __future__ import annotations

from datetime import datetime, timedelta

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from srkit.course import handout, lessons, rules
from srkit.course.rules import Rules
from srkit.settings import SRKitError

EXAMPLES = sorted((handout.ASSIGNMENT / "examples").glob("*.toml"))
DEADLINE = datetime.fromisoformat("2026-12-01T23:59:00+01:00")


def test_solutions_and_teachers_notes_are_taken_out_and_ids_kept():
    code = "def merge(a, b):\n    # BEGIN SOLUTION\n    c = a + b\n    return c\n    # END SOLUTION\n\nprint(1)"
    text = "Before\n<!-- BEGIN SOLUTION -->\n42\n<!-- END SOLUTION -->\nafter"
    printed = {"output_type": "stream", "name": "stdout", "text": "1"}
    cells = [new_code_cell(code, id="stub", outputs=[printed]), new_code_cell("merge(1, 2)", id="check")]
    cells += [new_markdown_cell(text, id="text")]
    cells += [new_markdown_cell("secret", id=tag, metadata={"tags": [tag]}) for tag in ("solution", "teacher")]
    notebook = new_notebook(cells=cells)
    edition = handout.student_edition(notebook)
    assert [cell.id for cell in edition.cells] == ["stub", "check", "text"] and not edition.cells[0].outputs
    assert edition.cells[0].source == "def merge(a, b):\n    ...  # your lines\n\nprint(1)"
    assert edition.cells[2].source == "Before\nafter"
    assert len(notebook.cells) == 5 and "BEGIN SOLUTION" in notebook.cells[0].source  # the source stays whole
    with pytest.raises(SRKitError, match="cell open: BEGIN SOLUTION and END SOLUTION must come in pairs"):
        handout.student_edition(new_notebook(cells=[new_code_cell("# BEGIN SOLUTION\n1", id="open")]))


def test_a_stub_that_is_handed_out_is_not_written_yet_for_its_check():
    from srkit.course.checks import merge

    source = new_notebook(cells=[new_code_cell("def merge(square, point, identity):\n    # BEGIN SOLUTION\n"
                                               "    return square\n    # END SOLUTION", id="a")])  # fmt: skip
    space: dict = {}
    exec(handout.student_edition(source).cells[0].source, space)
    assert merge.complaint(space["merge"]) == "not written yet"


def test_handout_writes_lessons_skeleton_and_rules_into_a_new_folder(tmp_path):
    paths = handout.handout(tmp_path / "out", ["10"])
    assert [path.name for path in paths] == [
        "10_state_of_the_art.ipynb",
        "contest.toml",
        "info.py",
        "model.py",
        "train.py",
    ]
    edition, (source,) = nbformat.read(paths[0], as_version=4), lessons.find(["10"])
    assert [cell.id for cell in edition.cells] == [cell.id for cell in nbformat.read(source, as_version=4).cells]
    text = paths[0].read_text("utf-8")
    assert "kernel[:, :, 1, 1] += point" not in text and "merge = checks.merge(merge)" in text
    with pytest.raises(SRKitError, match="holds something already"):
        handout.handout(tmp_path / "out")
    with pytest.raises(SRKitError, match="did you mean"):
        (tmp_path / "bad.toml").write_text("paramters = 3")
        handout.handout(tmp_path / "other", contest=tmp_path / "bad.toml")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("scale = 5", "2, 3, 4"), ("scale = true", "scale = True"), ('parameters = "many"', "parameters = 'many'"),
     ("deadline = 2026-12-01T23:59:00", "its zone"), ("curve = [[1.0, 0.0], [0.0, 1.0]]", "rising dB"),
     ("curve = 3", "curve = 3"), ("x = ", "Invalid value"), ("sclae = 4", "did you mean 'scale'")],
)  # fmt: skip
def test_wrong_rules_are_one_line(text, message, tmp_path):
    path = tmp_path / "contest.toml"
    path.write_text(text)
    with pytest.raises(SRKitError, match=message) as error:
        rules.read(path)
    assert "\n" not in str(error.value)


def test_late_policy_is_ten_a_day_at_most_thirty_and_nothing_after_the_hard_deadline():
    found = Rules(deadline=DEADLINE, hard_deadline=DEADLINE + timedelta(days=7))
    lost = [found.lost(DEADLINE + timedelta(days=days)) for days in (-1, 0, 1e-6, 1, 1.01, 2.5, 6.9, 7.01)]
    assert lost == [0, 0, 10, 10, 20, 30, 30, 100]
    assert found.lost(DEADLINE.astimezone(None)) == 0 and found.lost(None) == 0 and Rules().lost(DEADLINE) == 0


def test_curve_is_straight_between_its_points_and_a_step_rounds_down():
    found = Rules(curve=((0.0, 0.5), (1.0, 0.7), (2.0, 1.0)))
    assert [found.share(gain) for gain in (-0.1, 0, 0.5, 1, 9, float("nan"))] == pytest.approx([0, 0.5, 0.6, 0.7, 1, 0])
    steps = Rules(curve=((0.0, 0.0), (1.0, 1.0)), step=0.2)
    assert [steps.share(gain) for gain in (0.19, 0.6, 33.4 - 32.8, 0.79)] == pytest.approx([0, 0.6, 0.6, 0.6])


def test_the_three_known_assignments_are_rules():
    found = {path.stem: rules.read(path) for path in EXAMPLES}
    first, second, third = found["500-pictures"], found["291-pictures-x3"], found["half-a-million"]
    assert first.ranked and not first.ensemble and first.parameters < 1_821_085 and first.most_pictures == 500
    assert second.scale == 3 and second.most_pictures == 291 and not second.pretrained
    assert third.parameters == 500_000 and third.share(0.41) == pytest.approx(third.share(0.59)) == pytest.approx(0.2)
    rules.read(handout.ASSIGNMENT / "contest.toml")
