"""The folder that a platform gives: which submissions lie there, whose they are, and when they came."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from srkit.course.submission import MANIFEST
from srkit.settings import SRKitError

T = TypeVar("T")


def find(folder: Path) -> dict[str, Path]:
    """The submissions in a folder by their names there: zips, or folders with a manifest.json; or the folder itself.

    Raises:
        SRKitError: there is none.
    """
    if (folder / MANIFEST).is_file():
        return {folder.resolve().name: folder}
    paths = [path.parent for path in folder.rglob(MANIFEST)] + list(folder.rglob("*.zip"))
    if not paths:
        raise SRKitError(f"{folder}: no submissions: zips, or folders with a {MANIFEST}")
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}


def read_times(path: Path) -> dict[str, datetime]:
    """When the platform received what: a CSV with the columns time and file or id; or Gradescope's metadata.

    Times are ISO 8601 with a zone. Gradescope's, of the one submission that it is marking, has the name "".

    Raises:
        SRKitError: no such file or columns, or a time that is none.
    """
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".json":
            rows = [("", json.loads(text)["created_at"])]
        else:
            table = csv.DictReader(text.splitlines())
            rows = [(row["file"] if "file" in row else row["id"], row["time"]) for row in table]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SRKitError(f"{path}: needs the columns file (or id) and time ({type(error).__name__} {error})") from None
    times = {}
    for name, text in rows:
        if (time := time_of(text)) is None:
            raise SRKitError(f"{path}: {text!r:.40} is no time with a zone: 2026-12-01T23:59:00+01:00")
        times[name] = time
    return times


def time_of(text: Any) -> datetime | None:
    """An ISO 8601 time with a zone; None if it is none."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else None


def students(submissions: Sequence[T], info: Callable[[T], dict[str, Any]]) -> list[list[T]]:
    """Submissions grouped by ID and name; each that names nobody by itself."""
    groups: dict[Any, list[T]] = {}
    for one in submissions:
        who = info(one)
        names = tuple(who[name].casefold() for name in ("ID", "LAST_NAME", "FIRST_NAME")) if who.get("ID") else id(one)
        groups.setdefault(names, []).append(one)
    return list(groups.values())
