"""Every lesson as students leave it: the solutions in the stubs' place, and a wrong answer in each.

Trainings are cut to a few steps. That lessons run with their stubs untouched is test_every_lesson's.

notebooks/solutions/NN.md has a heading `## name` for each stub, and one Python block that takes its place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pytest
from rules import stubs, told
from shortened import shorten

from srkit.course import checks, lessons

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOLVED = {path: next(NOTEBOOKS.glob(f"{path.stem}_*.ipynb")) for path in sorted((NOTEBOOKS / "solutions").glob("*.md"))}
each_lesson = pytest.mark.parametrize("lesson", [path.stem for path in SOLVED.values()])


def solutions(path: Path) -> dict[str, str]:
    """Name of a stub → the source that takes its place."""
    return dict(re.findall(r"^## (\w+)\n.*?^```python\n(.*?)^```", path.read_text("utf-8"), re.M | re.S))


def fill(notebook: nbformat.NotebookNode, sources: Mapping[str, str]) -> None:
    """Put sources where the functions and classes of these names are defined."""
    left = dict(sources)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code" and not cell.source.startswith("%")):
        for node in ast.parse(re.sub(r"^[%!].*$", "pass", cell.source, flags=re.M)).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in left:
                lines = cell.source.splitlines()
                lines[node.lineno - 1 : node.end_lineno] = left.pop(node.name).rstrip().splitlines()
                cell.source = "\n".join(lines)
                break
    assert not left, f"no stubs of these names: {', '.join(left)}"


def first_mistake(name: str) -> str:
    return f"{name} = next(iter(checks.{name}.mistakes.values()))"


@pytest.fixture(scope="module")
def printed(request, tmp_path_factory) -> dict[tuple[str, str], str]:
    """(lesson, how it was left) → all that its cells printed; of those lessons that some chosen test is about."""
    asked = {item.callspec.params.get("lesson") for item in request.session.items if hasattr(item, "callspec")}
    found = {}
    for kind in ("solved", "wrong"):
        folder = tmp_path_factory.mktemp(kind)
        for answers, path in SOLVED.items():
            if path.stem not in asked:
                continue
            notebook = nbformat.read(path, as_version=4)
            wrong = {name: first_mistake(name) for name in stubs(notebook)}
            fill(notebook, {"solved": solutions(answers), "wrong": wrong}[kind])
            shorten(notebook)
            nbformat.write(notebook, folder / path.name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SRKIT_ROOT", str(folder))
            patch.delenv("SRKIT_WEIGHTS", raising=False)
            results = lessons.run(sorted(folder.glob("*.ipynb")), "quick", out=folder / "out", offline=True)
        for result in results:
            assert result.error is None, f"{result.lesson}, {kind}: {result.error}"
            found[result.lesson, kind] = told(result)
    return found


@pytest.fixture
def names(lesson) -> list[str]:
    """The lesson's stubs."""
    return stubs(nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4))


@each_lesson
def test_each_stub_has_its_solution_and_its_check(lesson, names):
    path = NOTEBOOKS / f"{lesson}.ipynb"
    answers = next(answers for answers, notebook in SOLVED.items() if notebook == path)
    assert list(solutions(answers)) == names and 5 <= len(names) <= 8
    assert all(getattr(checks, name).mistakes for name in names)


@each_lesson
def test_each_solution_is_right(lesson, names):
    notebook = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    scope: dict = {}  # what a solution may use: the lesson's imports and plain functions
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        body = ast.parse(re.sub(r"^[%!].*$", "pass", cell.source, flags=re.M)).body
        kept: list = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        kept += [node for node in body if isinstance(node, ast.FunctionDef) and not node.args.defaults]
        exec(compile(ast.Module(kept, []), cell.id, "exec"), scope)
    for name, source in solutions(NOTEBOOKS / "solutions" / f"{lesson.split('_')[0]}.md").items():
        exec(source, scope)
        assert getattr(checks, name).complaint(scope[name]) == ""


@pytest.mark.slow
@each_lesson
def test_solutions_are_all_right_and_used(lesson, names, printed):
    said = printed[lesson, "solved"]
    assert all(f"{name}: right, yours is used" in said for name in names)
    assert f"{len(names)} of {len(names)} checks" in said


@pytest.mark.slow
@each_lesson
def test_a_wrong_answer_in_each_stub_is_told_what_is_wrong(lesson, names, printed):
    said = printed[lesson, "wrong"]
    for name in names:
        assert f"{name}: {next(iter(getattr(checks, name).mistakes))}. srkit's own is used" in said
    assert f"0 of {len(names)} checks" in said
