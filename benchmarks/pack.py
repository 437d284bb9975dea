"""A folder of pictures, small enough to carry to any machine, from which `benchmarks.course` trains every network.

    uv run python -m benchmarks.pack runs/pack [--photos voc2011] [--megabytes 60]

T91 and Set5 whole, weights of feature networks if you name files, and of the photographs as many as then fit. Files are
copied as they are; which photographs, a seed decides. PACK/pack.json says what is inside.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from tyro.conf import Positional

from srkit import sources
from srkit.errors import SRKitError
from srkit.images import dimensions

FEWEST = 60  # photographs, of which the course holds 50 out
SMALLEST = 288  # shorter side in pixels: what the workshop's networks are trained on


@dataclass
class Options:
    """Copy T91, Set5 and as many photographs as fit into one folder."""

    pack: Positional[Path]
    """The folder to make."""
    photos: str = "voc2011"
    """The photographs: a data set or a folder."""
    t91: str = "t91"
    """T91: its name, which downloads it, or a folder."""
    set5: str = "set5"
    """Set5: its name, which downloads it, or a folder."""
    title: str = ""
    """What the photographs are, for the cards of the networks."""
    weights: tuple[Path, ...] = ()
    """Files with weights of feature networks to take along."""
    megabytes: float = 60
    """How large the folder may become."""


def pack(options: Options) -> dict[str, dict[str, Any]]:
    """Make the folder; returns how many files each part holds, and their megabytes.

    Raises:
        SRKitError: the folder holds something already, or too few photographs are there or would fit.
    """
    if options.pack.exists() and any(options.pack.iterdir()):
        raise SRKitError(f"{options.pack} is not empty: name a new folder")
    parts = {
        "t91": sources.pictures(options.t91),
        "set5": sources.pictures(options.set5),
        "weights": list(options.weights),
    }
    room = options.megabytes * 1e6 - sum(map(_size, parts.values()))
    parts["photos"] = _as_many_as_fit(sources.pictures(options.photos), room)
    if len(parts["photos"]) < FEWEST:
        few = len(parts["photos"])
        raise SRKitError(f"{few} photographs, and {FEWEST} are needed: raise --megabytes, or name a larger --photos")
    facts = {}
    for name, paths in parts.items():
        (options.pack / name).mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copyfile(path, options.pack / name / path.name)
        title = {"t91": "T91", "set5": "Set5", "photos": options.title or Path(options.photos).name}.get(name, "")
        facts[name] = {"title": title, "files": len(paths), "megabytes": round(_size(paths) / 1e6, 1)}
    (options.pack / "pack.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def _as_many_as_fit(paths: Sequence[Path], room: float) -> list[Path]:
    """Pictures in a random order that is always the same, until the next would be too much; none too small."""
    chosen: list[Path] = []
    for index in torch.randperm(len(paths), generator=torch.Generator().manual_seed(0)).tolist():
        if min(dimensions(paths[index])) < SMALLEST:
            continue
        room -= paths[index].stat().st_size
        if room < 0:
            break
        chosen.append(paths[index])
    return chosen


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


if __name__ == "__main__":
    try:
        made = pack(tyro.cli(Options, prog="python -m benchmarks.pack"))
    except SRKitError as error:
        sys.exit(str(error))
    for part, about in made.items():
        print(f"{part:8} {about['files']:5} files  {about['megabytes']:5} MB  {about['title']}")
