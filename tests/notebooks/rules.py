"""The rules that every committed lesson keeps."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from srkit.course import lessons

LONGEST_CELL, LONGEST_DEFINITION = 25, 15  # lines
COLAB = {"accelerator": "GPU", "colab": {"provenance": [], "gpuType": "T4"}}


def check(path: str | Path) -> list[str]:
    """What a committed lesson does against the rules, a line each; an empty list when all is well."""
    path = Path(path)
    try:
        notebook = json.loads(path.read_text("utf-8"))
        if (notebook.get("nbformat"), notebook.get("nbformat_minor")) != (4, 5):
            return ["not nbformat 4.5"]
        ids = [cell.get("id") for cell in notebook.get("cells", [])]
        if len(set(ids)) < len(ids):  # before validate, which would give one of the two another id
            return [f"two cells have the id {max(ids, key=ids.count)}"]
        nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError) as error:
        return [f"no valid notebook: {str(error).splitlines()[0]}"]
    metadata, cells = notebook["metadata"], notebook["cells"]
    texts = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else "" for cell in cells]
    first, top, whole = texts[0] if texts else "", "\n".join(texts[:3]), "\n".join(texts)
    badge = rf"colab\.research\.google\.com/\S+/{re.escape(path.name)}"
    rules = {
        "metadata: the kernelspec is not python3": metadata.get("kernelspec", {}).get("name") == "python3",
        f"metadata: these fields of Colab are not there: {COLAB}": COLAB.items() <= metadata.items(),
        "metadata: holds widget state": "widgets" not in metadata,
        "the first cell has no title": re.match(r"# \S", first),
        "the first cell has no Colab badge for this notebook": re.search(badge, first),
        "the first three cells don't tell the objectives": re.search(r"(?i)objectives|will learn", top),
        "the first three cells don't tell the minutes it takes": re.search(r"(?i)\d.*\bmin", top),
        'there is no "Think!" question': "Think!" in whole,
        "there are no exercises": re.search(r"(?im)^#+ .*exercise", whole),
        "there is no folded FAQ (<details>)": "<details" in whole,
    }
    if path.name.startswith("00"):  # not a lesson yet: whoever tries srkit is asked nothing
        rules = dict(list(rules.items())[:5])
    broken = [rule for rule, kept in rules.items() if not kept]
    return broken + [complaint for cell in cells for complaint in _check_cell(cell)]


def _check_cell(cell: dict) -> list[str]:
    source, complaints = "".join(cell["source"]), []
    random = re.match(r"(?=.*\d)[0-9a-f]{8}(-|$)", cell["id"])  # as Jupyter and nbformat draw them
    if random or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", cell["id"]):
        complaints.append("the id is not in words, like what-the-network-computes")
    if cell["cell_type"] == "code":
        if cell["outputs"] or cell["execution_count"] is not None or "execution" in cell["metadata"]:
            complaints.append("it keeps outputs or marks of a run")
        if len(source.splitlines()) > LONGEST_CELL:
            complaints.append(f"it is longer than {LONGEST_CELL} lines")
        try:
            nodes = list(ast.walk(ast.parse(TransformerManager().transform_cell(source))))
        except SyntaxError as error:
            nodes = []
            complaints.append(f"it is not Python: {error.msg}")
        definitions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if any(node.end_lineno - node.lineno >= LONGEST_DEFINITION for node in definitions):
            complaints.append(f"a definition of over {LONGEST_DEFINITION} lines belongs in srkit")
    return [f"cell {cell['id']}: {complaint}" for complaint in complaints]


def stubs(notebook: nbformat.NotebookNode) -> list[str]:
    """What the lesson hands in to a check, in its order."""
    cells = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return [name for name, check in re.findall(r"^(\w+) = checks\.(\w+)\(", cells, re.M) if name == check]


def told(result: lessons.Result) -> str:
    """All that a lesson's cells printed."""
    cells = json.loads(result.page.with_suffix(".ipynb").read_text("utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", "")) for output in outputs)
