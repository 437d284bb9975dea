"""The student edition of lessons and an assignment, made from the one source that holds the solutions too.

A cell tagged "solution" or "teacher" is taken out. Within a cell, so is everything from a line with `BEGIN SOLUTION`
to the next with `END SOLUTION`; in code, `...` takes its place, which the lessons' checks call "not written yet".
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from srkit.course import lessons, rules
from srkit.settings import SRKitError, atomic_write

TAGS = {"solution", "teacher"}
SOLUTION = re.compile(r"^([ \t]*)[^\n]*\bBEGIN SOLUTION\b.*?\bEND SOLUTION\b[^\n]*\n?", re.MULTILINE | re.DOTALL)
ASSIGNMENT = lessons.HOME / "assignment"


def student_edition(notebook: Any) -> Any:
    """A copy of a notebook without solutions, teacher's notes and outputs; the other cells keep their ids.

    Raises:
        SRKitError: a solution that begins and does not end, or the other way round.
    """
    from nbconvert.preprocessors import ClearOutputPreprocessor, TagRemovePreprocessor

    edition, _ = TagRemovePreprocessor(enabled=True, remove_cell_tags=TAGS).preprocess(deepcopy(notebook), {})
    edition, _ = ClearOutputPreprocessor(enabled=True).preprocess(edition, {})
    for cell in edition.cells:
        stub = r"\1...  # your lines\n" if cell.cell_type == "code" else ""
        cell.source = SOLUTION.sub(stub, cell.source).rstrip("\n")
        if re.search(r"\b(BEGIN|END) SOLUTION\b", cell.source):
            raise SRKitError(f"cell {cell.get('id')}: BEGIN SOLUTION and END SOLUTION must come in pairs")
    return edition


def handout(
    folder: str | Path,
    names: Sequence[str] = (),
    contest: str | Path | None = None,
    revision: str = "",
    mirror: str = "",
) -> list[Path]:
    """Write the student edition of these lessons, the assignment's skeleton and its rules into a new folder.

    Args:
        folder: new, or empty.
        names: lessons, as for `lessons.find`; none is the assignment alone.
        contest: the rules; by default the example's.
        revision, mirror: for the lessons' set-up cells: the release or commit that Colab installs, a folder or web
            address with the data sets' files; as the lessons have them if not given.

    Raises:
        SRKitError: a revision or mirror of several words, a folder with something in it, an unknown lesson, wrong
            rules, a solution that does not end.
    """
    import nbformat

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SRKitError(f"{folder} holds something already: name a new folder")
    if not ASSIGNMENT.is_dir():
        raise SRKitError(f"no {ASSIGNMENT}: clone the repository and run this inside it")
    contest = Path(contest or ASSIGNMENT / "contest.toml")
    rules.read(contest)  # what is wrong with it is said now, not on the day of marking
    editions = {}
    for path in lessons.find(names) if names else []:
        try:
            edition = editions[path.name] = student_edition(nbformat.read(path, as_version=4))
            for cell in (cell for cell in edition.cells if cell.get("id") == "set-up"):
                cell.source = _pinned(cell.source, {"REVISION": revision, "MIRROR": mirror})
        except SRKitError as error:
            raise SRKitError(f"{path.name}: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for name, edition in editions.items():
        with atomic_write(folder / name) as draft:
            nbformat.write(edition, draft)
    for path in [*sorted(ASSIGNMENT.glob("*.py")), contest]:
        shutil.copyfile(path, folder / ("contest.toml" if path == contest else path.name))
    return sorted(folder.iterdir())


def _pinned(source: str, values: Mapping[str, str]) -> str:
    """A set-up cell with a teacher's values, where they are given."""
    for name, value in values.items():
        if re.search(r"[\s\"\\\\]", value):
            raise SRKitError(f"{name.lower()} {value!r}: give one word, without quotation marks")
        if value:
            source, found = re.subn(rf'^{name} = ".*?"', f'{name} = "{value}"', source, flags=re.MULTILINE)
            if not found:
                raise SRKitError(f'the set-up cell has no line {name} = "…": take the lesson as srkit has it')
    return source
