"""An executed notebook as one HTML file that needs nothing from the web: pictures and formulas stand in it."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

# Code, which may hold dollar signs, is matched first and left alone; a formula on lines of its own; one in a line.
CODE_OR_FORMULA = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`)|\$\$(?P<display>.+?)\$\$|(?<![\\$\w])\$(?=\S)(?P<line>[^$\n`]+?)(?<=\S)\$(?![\d$])",
    re.DOTALL | re.MULTILINE,
)
MATHJAX = re.compile(r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.DOTALL)  # from the web


def page(notebook: Any, path: Path) -> str:
    """The web page of an executed notebook.

    Args:
        notebook: nbformat's node, with its outputs; it is not changed.
        path: where it was read, for the title and for relative pictures.
    """
    from nbconvert import HTMLExporter

    notebook = deepcopy(notebook)
    notebook.metadata.pop("widgets", None)  # drawing live widgets takes scripts from the web
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = mathml(cell.source)
    exporter = HTMLExporter(require_js_url="")
    resources = {"metadata": {"name": path.stem, "path": str(path.parent)}}
    return MATHJAX.sub("", exporter.from_notebook_node(notebook, resources)[0])


def mathml(text: str) -> str:
    """Markdown whose formulas, $…$ and $$…$$, are MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    def replace(found: re.Match) -> str:
        if found["code"]:
            return found["code"]
        kind = "block" if found["display"] else "inline"
        return convert(found["display"] or found["line"], display=kind)

    return CODE_OR_FORMULA.sub(replace, text)
