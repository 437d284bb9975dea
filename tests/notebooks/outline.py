"""How long the lessons are, as a table in Markdown: python tests/notebooks/outline.py [REVISION]; of the files if none.

Words are those of the text, `folded` those of the answers and hints that unfold; a drawing is a cell whose id or title
says so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def outline(notebook: dict) -> dict[str, int]:
    """A lesson in numbers; minutes are those that it states."""
    sources = {"markdown": [], "code": []}
    drawings = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        sources[cell["cell_type"]].append(source)
        drawn = cell["id"].startswith("draw-") or source.startswith("# @title Drawing")
        drawings += drawn and cell["cell_type"] == "code"
    text, code = ("\n".join(sources[kind]) for kind in ("markdown", "code"))
    stated = re.search(r"\*\*Time\.?\*\*.*?(\d+) minutes", text)
    folded = sum(len(fold.split()) for fold in re.findall(r"<details>.*?</details>", text, re.S))
    return {
        "words": len(text.split()) - folded,
        "folded": folded,
        "cells": len(notebook["cells"]),
        "drawings": drawings,
        "stubs": sum(cell["id"].endswith("-stub") for cell in notebook["cells"]),
        "checks": len(re.findall(r"^(\w+) = checks\.\1\(", code, re.M)),
        "predictions": len(re.findall(r"here\.predict\(", code)),
        "questions": len(re.findall(r"\*\*(?:Look:?|Think!)\*\*", text)),
        "minutes": int(stated[1]) if stated else 0,
    }


def read(name: str, revision: str) -> dict:
    """A lesson of a revision, or of the working tree."""
    if not revision:
        return json.loads((ROOT / name).read_text("utf-8"))
    return json.loads(
        subprocess.run(["git", "-C", ROOT, "show", f"{revision}:{name}"], capture_output=True, check=True).stdout
    )


def table(revision: str = "") -> str:
    """All lessons of a revision, a row each."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-tree", "-r", "--name-only", revision or "HEAD", "notebooks"],
        capture_output=True,
        text=True,
    )
    rows = {
        name[10:].split("_")[0]: outline(read(name, revision))
        for name in listed.stdout.split()
        if name.endswith(".ipynb")
    }
    head = list(next(iter(rows.values())))
    lines = [f"| lesson | {' | '.join(head)} |", "|---" + "|---:" * len(head) + "|"]
    rows["all"] = {key: sum(row[key] for row in rows.values()) for key in head}
    return "\n".join([*lines, *(f"| {name} | {' | '.join(map(str, row.values()))} |" for name, row in rows.items())])


if __name__ == "__main__":
    print(table(*sys.argv[1:2]))
