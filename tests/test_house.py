"""How the package is built: imports go downwards and in no circle, files stay readable, words are the field's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SRKIT = Path(__file__).parents[1] / "srkit"
BENCHMARKS = SRKIT.with_name("benchmarks")

# A room imports only from rooms in the lines above its own.
FLOORS = (
    ("settings",),
    ("data",),
    ("models",),
    ("losses",),
    ("metrics",),
    ("training", "inference"),
    ("figures",),
    ("live", "course", "app"),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Words for which the field has others (CONTRIBUTING.md): inside an identifier, and as a whole one.
OLD_WORDS = {"bank", "banks", "judge", "judged", "judges", "verdict", "recipe", "recipes", "foreign", "sketch", "dice"}
OLD_NAMES = {"luck", "eye", "truth", "crop", "part", "in_parts", "pick_up", "but", "say", "note", "trained"}

Sources = Mapping[str, str]


def sources(package: Path) -> dict[str, str]:
    """Every module of a package by its dotted name: "srkit.data.images"; "srkit.data" is its __init__."""
    names = {path: ".".join(path.relative_to(package.parent).with_suffix("").parts) for path in package.rglob("*.py")}
    return {name.removesuffix(".__init__"): path.read_text("utf-8") for path, name in names.items()}


# ---------------------------------------------------------------------------------- the checkers


def imports(name: str, modules: Sources) -> set[str]:
    """The modules that one of them imports, anywhere in its source.

    A name that is no module, such as a class, stands for the package that has it.
    """
    is_package = any(other.startswith(f"{name}.") for other in modules)
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules[name])):
        wanted: list[str] = []
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = name.split(".")[: -(node.level - is_package) or None] if node.level else []
            package = ".".join([*up, *filter(None, [node.module])])
            wanted = [f"{package}.{alias.name}" for alias in node.names]
        for dotted in wanted:
            if dotted.split(".")[0] == name.split(".")[0]:
                found.add(dotted if dotted in modules else dotted.rpartition(".")[0])
    return found - {name}


def upward(modules: Sources) -> list[str]:
    """Imports from the same floor or a higher one, or from the top of the package, which stands above all."""
    found = []
    for name in modules:
        room = name.split(".")[1] if "." in name else "__main__"
        if room == "__main__":  # the entrance
            continue
        for other in sorted(imports(name, modules)):
            its_room = other.split(".")[1] if "." in other else ""
            version = other == "srkit" and "import __version__" in modules[name]
            if not version and its_room != room and FLOOR.get(its_room, 99) >= FLOOR[room]:
                found.append(f"{name} imports {other}")
    return found


def circle(modules: Sources) -> list[str]:
    """A chain of modules of which each imports the next and the last one the first; empty if there is none."""
    done: set[str] = set()

    def follow(name: str, chain: list[str]) -> list[str]:
        if name in chain:
            return [*chain[chain.index(name) :], name]
        if name in done:
            return []
        for other in sorted(imports(name, modules) & set(modules)):
            if found := follow(other, [*chain, name]):
                return found
        done.add(name)
        return []

    return next(filter(None, (follow(name, []) for name in modules)), [])


def identifiers(source: str) -> Iterator[str]:
    """Every name that a reader meets from outside: all but the variables inside functions."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name) | ast.keyword(arg=str(name)) | ast.alias(asname=str(name)):
                yield name
            case ast.Module(body=body) | ast.ClassDef(body=body):
                yield from [node.name] if isinstance(node, ast.ClassDef) else []
                assigned = [n for line in body if isinstance(line, ast.Assign | ast.AnnAssign) for n in ast.walk(line)]
                yield from (n.id for n in assigned if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def old_words(source: str) -> list[str]:
    """Identifiers in words of our own where the field has others."""
    found = []
    for name in dict.fromkeys(identifiers(source)):
        words = set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))
        if words & OLD_WORDS or name.strip("_").lower() in OLD_NAMES:
            found.append(name)
    return found


def code_lines(source: str) -> int:
    """Lines that are no docstring, no comment and not blank."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(number not in docstrings and not re.match(r"\s*(#|$)", line) for number, line in lines)


# ---------------------------------------------------------------------------------- the checkers checked


def house(**changed: str) -> dict[str, str]:
    """A small package with a source for each room, of which some are changed: dots are written as two underscores."""
    modules = {"srkit": "", "srkit.data": "from srkit.data.images import read", "srkit.data.images": ""}
    modules |= {f"srkit.{room}": "" for room in FLOOR if room != "data"}
    return modules | {f"srkit.{name.replace('__', '.')}": source for name, source in changed.items()}


@pytest.mark.parametrize("source", ["from srkit import settings, cli", "import srkit.cli", "from ..cli import main",
                                    "def late():\n    from .. import cli", "from srkit import evaluate"])  # fmt: skip
def test_an_import_from_above_is_found_however_it_is_written(source):
    (found,) = upward(house(data__images=source))
    assert found.startswith("srkit.data.images imports srkit")


def test_imports_from_below_are_no_fault_and_circles_are():
    assert (
        upward(house(cli="from srkit import __version__, data, live", data__images="from ..settings import root")) == []
    )
    assert upward(house(inference="from srkit.training import Trainer"))  # neighbours
    assert circle(house()) == []
    two = house(live="", live__run="def f():\n    from . import svg", live__svg="from srkit.live.run import Run")
    assert circle(two) == ["srkit.live.run", "srkit.live.svg", "srkit.live.run"]


def test_old_words_are_found_in_what_a_source_names_not_in_what_it_uses():
    own = "class Bank:\n    crop: int = 1\nRECIPES, x = 1, 2\ndef f(note): self.verdict = judge(but=2)"
    assert set(old_words(own)) == {"Bank", "crop", "RECIPES", "note", "verdict", "but"}
    assert old_words("def f():\n    part = image.crop(box)\ncrop_to_multiple = noted = depart = banking = 1") == []


def test_code_lines_are_counted_without_prose():
    assert code_lines('"""Doc\nstring."""\n\n# comment\nx = 1  # code\n\ndef f():\n    """Doc."""\n    return 1\n') == 3


# ---------------------------------------------------------------------------------- the house


def test_imports_go_downwards_only_and_in_no_circle():
    assert upward(sources(SRKIT)) == []
    assert circle(sources(SRKIT)) == []


def test_few_rooms_and_files_that_are_read_in_one_sitting():
    rooms = {path.name.removesuffix(".py") for path in SRKIT.iterdir()} - {"__init__", "__main__", "__pycache__"}
    assert rooms - {"weights"} <= FLOOR.keys() and len(rooms - {"weights"}) <= 12
    lengths = {name: code_lines(source) for name, source in {**sources(SRKIT), **sources(BENCHMARKS)}.items()}
    assert {name: length for name, length in lengths.items() if length > 250} == {}


def test_words_are_the_fields_own():
    found = {name: old_words(source) for name, source in sources(SRKIT).items()}
    assert {name: words for name, words in found.items() if words} == {}
