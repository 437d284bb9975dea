"""A person answers the blind test: by its buttons and by keys; in JupyterLab, and with the versions that Colab has."""

from __future__ import annotations

import nbformat
import pytest

pytestmark = pytest.mark.slow

CELL = """
import torch
from srkit import live, settings

here = settings.setup("01b", settings.Student("Ada", "1815"))
outputs = {name: {"face": torch.rand(3, 40, 40), "letters": torch.rand(3, 40, 30)} for name in ("bicubic", "srgan")}
outputs["efficient"] = outputs["srgan"]
test = live.blind_test(outputs, here)
"""


def test_buttons_keys_and_undo_answer_and_no_name_is_in_the_page(stage, tmp_path):
    path = tmp_path / "blind.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    page = stage(path)
    page.run_all(timeout=600)
    assert page.ask("__import__('ipywidgets').__version__").startswith(page.widgets)

    pair = page.find(".srkit-pair")
    page.wait("two pictures with their names", lambda: pair.get_by_role("img", name="picture").count() == 2)
    sizes = "[...document.querySelectorAll('.srkit-pair img')].map(image => image.getBoundingClientRect().width)"
    page.wait("both seen at one size", lambda: len({*page.page.evaluate(sizes)}) == 1 != page.page.evaluate(sizes)[0])
    outer = page.find(".srkit").first
    assert not any(name in outer.inner_html() for name in ("bicubic", "srgan", "efficient", "letters"))
    page.screenshot("blind", ".srkit")

    page.button("left (1)")
    page.wait_for("len(test.answers) == 1")
    field = page.find(".widget-text input").first
    page.wait("the field for keys", lambda: field.click() is None)
    for count, key in ((2, "1"), (3, "2")):
        page.page.wait_for_timeout(500)  # a person looks before the next answer
        page.page.keyboard.press(key)
        page.wait_for(f"len(test.answers) == {count}")
    page.wait("an empty field", lambda: field.input_value() == "")
    sides = "[[one.left, one.right].index(one.better) for one in test.answers]"
    assert page.ask(sides) == [0, 0, 1]
    page.button("undo")
    page.wait_for("len(test.answers) == 2")
    for count in (3, 4, 5, 6):
        page.page.wait_for_timeout(500)
        page.button("right (2)")
        page.wait_for(f"len(test.answers) == {count}")
    page.wait("the end", lambda: "all 6 pairs are answered" in outer.inner_text())
    assert page.ask("__import__('srkit.metrics.opinions', fromlist=['x']).read(test.path).people") == 1
    assert page.errors() == []
