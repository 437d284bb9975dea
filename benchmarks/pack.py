"""A folder of pictures, small enough to carry to any machine, from which `benchmarks.pretrain` trains every network.

    uv run python -m benchmarks.pack runs/pack [--photos voc2011] [--megabytes 60]

T91 and Set5 whole, weights of feature networks if you name files, and of the photographs as many as then fit. Files are
copied as they are; which photographs, a seed decides. PACK/pack.json says what is inside.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit.data import pictures
from srkit.data.images import dimensions
from srkit.settings import SRKitError

FEWEST = 60  # photographs, of which 50 are held out
SMALLEST = 288  # shorter side in pixels: what the workshop's networks are trained on


@dataclass(kw_only=True)
class Options(timing.Options):
    """Copy T91, Set5 and as many photographs as fit into one folder."""

    pack: Positional[Path]  # the folder to make
    photos: str = "voc2011"  # the photographs: a data set or a folder
    t91: str = "t91"  # T91: its name, which downloads it, or a folder
    set5: str = "set5"  # Set5: its name, which downloads it, or a folder
    title: str = ""  # what the photographs are, for the cards of the networks
    weights: tuple[Path, ...] = ()  # files with weights of feature networks to take along
    megabytes: float = 60  # how large the folder may become


def pack(options: Options) -> Facts:
    """Make the folder; returns how many files each part holds, and their megabytes.

    Raises:
        SRKitError: the folder holds something already, or too few photographs are there or would fit.
    """
    if options.pack.exists() and any(options.pack.iterdir()):
        raise SRKitError(f"{options.pack} is not empty: name a new folder")
    parts = {"t91": pictures(options.t91), "set5": pictures(options.set5), "weights": list(options.weights)}
    room = options.megabytes * 1e6 - sum(map(_size, parts.values()))
    parts["photos"] = _as_many_as_fit(pictures(options.photos), room)
    if len(parts["photos"]) < FEWEST:
        few = len(parts["photos"])
        raise SRKitError(f"{few} photographs, and {FEWEST} are needed: raise --megabytes, or name a larger --photos")
    titles, facts = {"t91": "T91", "set5": "Set5", "photos": options.title or Path(options.photos).name}, {}
    for name, paths in parts.items():
        (options.pack / name).mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copyfile(path, options.pack / name / path.name)
        size = round(_size(paths) / 1e6, 1)
        facts[name] = {"title": titles.get(name, ""), "files": len(paths), "megabytes": size}
    published.write_json(facts, options.pack / "pack.json")
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


def run(options: Options) -> tuple[Facts, str]:
    """The command."""
    facts = pack(options)
    lines = [f"{part:8} {one['files']:5} files  {one['megabytes']:5} MB  {one['title']}" for part, one in facts.items()]
    return facts, "\n".join(lines)


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.pack")
