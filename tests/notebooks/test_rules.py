"""The rules themselves: a good lesson has no complaint, and each fault has its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rules
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

BADGE = "[![Open in Colab](x.svg)](https://colab.research.google.com/github/a/b/blob/main/notebooks/01_good.ipynb)"


@pytest.fixture
def good() -> dict:
    """A lesson that keeps every rule, as JSON."""
    cells = [
        new_markdown_cell(f"# A lesson\n{BADGE}", id="title"),
        new_markdown_cell("**Objectives**: make a batch.\n\n**Time**: 3 minutes in quick.", id="objectives"),
        new_code_cell("%matplotlib inline\n!echo hello\nx = 1", id="set-up-915"),
        new_markdown_cell("**Think!** Why?\n## Exercises\n<details><summary>FAQ</summary></details>", id="end"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    colab = {"accelerator": "GPU", "colab": {"provenance": [], "gpuType": "T4"}}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel, **colab})
    notebook.nbformat_minor = 5
    return json.loads(json.dumps(notebook))


def check(notebook: dict, folder: Path) -> list[str]:
    path = folder / "01_good.ipynb"
    path.write_text(json.dumps(notebook), "utf-8")
    return rules.check(path)


@pytest.mark.parametrize(
    ("cell", "old", "new", "complaint"),
    [
        (0, "# A lesson", "A lesson", "no title"),
        (0, "01_good", "02_other", "no Colab badge for this notebook"),
        (1, "3 minutes", "not long", "minutes"),
        (3, "Think!", "Hm!", "Think!"),
        (2, "x = 1", "x = = 1", "set-up-915: it is not Python"),
        (2, "x = 1", "x = 1\n" * 24, "set-up-915: it is longer than 25 lines"),
        (2, "x = 1", "def helper():\n" + "    x = 1\n" * 15, "set-up-915: a definition of over 15 lines"),
    ],
)
def test_reads_the_cells(good, tmp_path, cell, old, new, complaint):
    assert check(good, tmp_path) == []
    good["cells"][cell]["source"] = good["cells"][cell]["source"].replace(old, new)
    (found,) = check(good, tmp_path)
    assert complaint in found


@pytest.mark.parametrize("name", ["1a2b3c4d", "a1b2c3d4-0000-4000-8000-000000000000", "kZ3fQ", "two_words"])
def test_wants_words_for_ids_each_of_its_own(good, tmp_path, name):
    good["cells"][1]["id"] = name
    assert check(good, tmp_path) == [f"cell {name}: the id is not in words, like what-the-network-computes"]
    good["cells"][1]["id"] = "title"
    assert check(good, tmp_path) == ["two cells have the id title"]


def test_wants_no_marks_of_a_run_and_the_metadata_of_colab(good, tmp_path):
    good["cells"][2]["execution_count"] = 1
    assert check(good, tmp_path) == ["cell set-up-915: it keeps outputs or marks of a run"]
    good["cells"][2]["execution_count"] = None
    for key, value in {
        "kernelspec": {"name": "conda", "display_name": ""},
        "accelerator": "TPU",
        "widgets": {},
    }.items():
        (found,) = check({**good, "metadata": {**good["metadata"], key: value}}, tmp_path)
        assert found.startswith("metadata: ")


def test_tells_what_is_no_notebook_of_today(good, tmp_path):
    assert check({**good, "nbformat_minor": 4}, tmp_path) == ["not nbformat 4.5"]
    del good["cells"][0]["source"]
    assert check(good, tmp_path)[0].startswith("no valid notebook: ")
    (tmp_path / "01_good.ipynb").write_text("no JSON")
    assert rules.check(tmp_path / "01_good.ipynb")[0].startswith("no valid notebook: ")
