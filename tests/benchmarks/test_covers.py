"""covers: a lesson's first picture is small, without the foot, and takes the place of the one before."""

from __future__ import annotations

import json

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook
from PIL import Image

from benchmarks import covers
from srkit.settings import SRKitError


@pytest.mark.parametrize(("name", "height"), [("", 760 * (1200 - 45) // 1200), ("Ada", 760)])
def test_a_cover_is_small_and_its_foot_is_cut_where_nobody_signed(name, height, tmp_path):
    Image.new("RGB", (1200, 1200)).save(tmp_path / "a.png", dpi=(100, 100))
    (tmp_path / "a.json").write_text(json.dumps({"student": {"name": name}}))
    made = covers.cover(tmp_path / "a.png")
    assert max(made.size) == 760 and abs(made.height / made.width - height / 760) < 0.01


def test_a_cover_takes_the_place_of_the_one_before(tmp_path):
    path, picture = tmp_path / "lesson.ipynb", tmp_path / "cover.jpg"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# T\n\n[![b](c)](d)\n\nText.", id="title")]), path)
    Image.new("RGB", (9, 9)).save(picture)
    for words in ("first", "second"):
        covers.attach(path, picture, words)
    (cell,) = nbformat.read(path, as_version=4).cells
    assert cell.source == "# T\n\n[![b](c)](d)\n\n![second](attachment:cover.jpg)\n\nText."
    assert list(cell.attachments) == ["cover.jpg"]


def test_figures_that_are_not_there_are_named(tmp_path):
    with pytest.raises(SRKitError, match=r"03_grid\.png"):
        covers.main(covers.Options(figures=tmp_path))
