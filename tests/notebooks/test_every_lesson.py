"""Every lesson keeps the rules, and runs in quick from its first cell to its last without a network."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from rules import check, stubs, told

from srkit.course import lessons

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
each_lesson = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> dict[str, lessons.Result]:
    """All lessons, run once for all tests, two at a time, with runs/ and figures/ in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRKIT_ROOT", str(tmp_path_factory.mktemp("course")))
        patch.delenv("SRKIT_WEIGHTS", raising=False)
        ran = lessons.run(NOTEBOOKS, "quick", offline=True)
    return {result.lesson: result for result in ran}


@each_lesson
def test_lesson_is_named_and_kept_by_the_rules(path):
    assert lessons.LESSON.fullmatch(path.stem)
    assert check(path) == []


@each_lesson
def test_set_up_is_the_same_everywhere_and_links_lead_somewhere(path):
    def set_up(lesson):
        return next(cell["source"] for cell in json.loads(lesson.read_text("utf-8"))["cells"] if cell["id"] == "set-up")

    assert set_up(path) == set_up(NOTEBOOKS[0])
    for link in re.findall(r"\]\((\w+\.ipynb)\)", path.read_text("utf-8")):
        assert path.with_name(link).is_file(), f"{path.name} links to {link}, which is not there"


@pytest.mark.slow
@each_lesson
def test_lesson_runs_without_network(path, results):
    assert results[path.stem].error is None, results[path.stem].error


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)  # all but 00_try
def test_lesson_exports_graded_figures_with_sidecars(path, results):
    sizes = []
    for figure in results[path.stem].figures:
        with Image.open(figure) as picture:
            sizes.append(picture.size)
        assert json.loads(figure.with_suffix(".json").read_text("utf-8"))["lesson"] == path.stem.split("_")[0]
    assert (3600, 3600) in sizes  # 12 x 12 inches at 300 dots an inch
    assert {width for width, _ in sizes} == {3600}  # loss graphs may be lower, never narrower


@pytest.mark.slow
@each_lesson
def test_stubs_untouched_count_nothing(path, results):
    names, said = stubs(nbformat.read(path, as_version=4)), told(results[path.stem])
    assert all(f"{name}: not written yet. srkit's own is used" in said for name in names)
    assert not names or f"0 of {len(names)} checks" in said
