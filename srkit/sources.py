"""Where pictures come from: a registry of data sets, folders of your own, and who is in which split.

Everything is handed on as file paths; `banks` reads them.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import NamedTuple

from srkit import images
from srkit.downloads import DISK_FULL, File, Source, Way, fetch, in_folder, is_whole, listed, matches
from srkit.errors import SRKitError, unknown
from srkit.profiles import root

# ---------------------------------------------------------------------------------- the registry


def _registry() -> dict[str, Source]:
    """The data sets of sources.toml, beside this file."""
    known = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

    def way(entry: dict) -> Way:
        if "pictures" in entry:  # many single pictures in one folder of the web
            hashes = known["pictures"][entry["pictures"]]
            return Way(tuple(File(name, hash, (f"{entry['folder']}/{name}",)) for name, hash in hashes.items()))
        files = (File(name, **known["files"][name]) for name in entry["files"])
        return Way(tuple(files), entry.get("unpack", ()))

    return {
        name: Source(name, **entry | {"ways": [way(each) for each in entry.get("ways", ())]})
        for name, entry in known["sets"].items()
    }


SOURCES = _registry()


class Row(NamedTuple):
    """One line of `listing`: a data set, its size and whether it is already here."""

    name: str
    title: str
    pictures: int
    megabytes: int
    licence: str
    on_disk: bool


def listing() -> list[Row]:
    """Every registered data set, for the command `srkit data`; downloads nothing."""
    rows = []
    for s in SOURCES.values():
        here = s.name == "bundled" or is_whole(data_folder() / s.name)
        rows.append(Row(s.name, s.title, s.count, s.megabytes, s.licence, here))
    return rows


# ---------------------------------------------------------------------------------- pictures


def pictures(source: str | Path, mirror: str | Path | None = None) -> list[Path]:
    """The picture files of a data set, in natural order (t2 before t10).

    Args:
        source: a name in SOURCES, downloaded when it is not here yet (into `data_folder()`), or a folder
            of your own, searched with its subfolders; hidden files are left out. A folder that has the
            name of a data set is given as a Path or as "./name".
        mirror: a folder or an http(s) address that holds the data set's files under their own names, or
            in a subfolder with the data set's name; tried first. Default: the environment's SRKIT_MIRROR.

    Raises:
        SRKitError: unknown name, no folder or one without pictures, no network, wrong hash, full disk.
    """
    if isinstance(source, str) and source in SOURCES:
        return _registered(SOURCES[source], mirror)
    folder = Path(source).expanduser()
    if folder.is_dir():
        found = in_folder(folder)
        if not found:
            raise SRKitError(f"{folder}: no pictures in this folder ({' '.join(sorted(images.SUFFIXES))})")
        return found
    if folder.exists():
        raise SRKitError(f"{folder}: this is a file: give the folder that holds the pictures")
    if isinstance(source, Path) or len(folder.parts) > 1:
        raise SRKitError(f"{folder}: no such folder")
    raise SRKitError(f"{unknown('data set', source, SOURCES)}; or give a folder of your own")


def data_folder() -> Path:
    """Where downloads go: SRKIT_DATA, else data/ of the clone one works in, else ./data."""
    return Path(os.environ.get("SRKIT_DATA") or root() / "data").expanduser()


def _registered(source: Source, mirror: str | Path | None) -> list[Path]:
    if source.name == "bundled":
        return _bundled(source)
    folder = data_folder() / source.name
    try:
        if not is_whole(folder):
            fetch(source, folder, mirror)
    except OSError as error:
        if error.errno in DISK_FULL:
            advice = f"disk full: {source.name} takes {source.megabytes} MB packed and as much unpacked"
        else:
            advice = f"cannot write there ({error.strerror or error})"
        raise SRKitError(f"{folder.parent}: {advice}; SRKIT_DATA=… names another folder") from None
    return listed(folder)


def _bundled(source: Source) -> list[Path]:
    """scikit-image's own pictures: found, not imported, which would take a second."""
    skimage = find_spec("skimage")
    if skimage is None:
        raise SRKitError("bundled: scikit-image is not installed: pip install scikit-image")
    patterns = [pattern for part in source.parts for pattern in part]
    folder = Path(skimage.submodule_search_locations[0]) / "data"
    found = [path for path in in_folder(folder) if matches(path, patterns)]
    if len(found) != source.count:
        raise SRKitError(f"{folder}: {len(found)} of {source.count} bundled pictures: install scikit-image again")
    return found


# ---------------------------------------------------------------------------------- splits


@dataclass(frozen=True)
class Split:
    """Three lists of picture files, no picture in two of them, each in natural order."""

    train: list[Path]
    val: list[Path]
    test: list[Path]


def split(
    source: str | Path,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    seed: int = 0,
    mirror: str | Path | None = None,
) -> Split:
    """Divide a data set into pictures to train on, to choose by (val) and to report (test).

    The same seed gives the same split on every machine; views of one scene and copies of one file stay
    on one side. A larger `train` leaves val and test as they were.

    Args:
        source, mirror: as in `pictures`.
        train, val, test: how many pictures. With none of them given: the data set's own split
            (voc2011 1000/200/0, set5 0/0/5, …), or about 80/10/10 of a folder of your own. With some
            given: val and test default to 0 and train to all that remains. Where the parts are fixed
            (bundled, div2k) a number takes that many of its part and a part not named stays whole.
        seed: which pictures.

    Raises:
        SRKitError: more pictures asked for than there are, a negative number, or all that `pictures` raises.
    """
    asked = (train, val, test)
    if any(n is not None and n < 0 for n in asked):
        raise SRKitError(f"a split of {train}/{val}/{test} pictures: a number cannot be negative")
    paths = pictures(source, mirror)
    known = SOURCES.get(source) if isinstance(source, str) else None
    if known and known.parts:
        pools = [[path for path in paths if matches(path, patterns)] for patterns in known.parts]
        wanted = [len(pool) if n is None else n for pool, n in zip(pools, asked, strict=True)]
        return Split(*(_draw(source, *pair, seed) for pair in zip(pools, wanted, strict=True)))
    counts = _counts(len(paths), asked, known)
    if sum(counts) > len(paths):
        wish = " + ".join(str(n) for n in counts)
        raise SRKitError(f"{source}: {wish} = {sum(counts)} pictures asked for, but it has {len(paths)}")
    return _deal(source, paths, counts, known.scenes if known else (), seed)


def _counts(total: int, asked: tuple, known: Source | None) -> Sequence[int]:
    if asked == (None, None, None):
        if known:
            return known.split
        tenth = max(1, round(total / 10)) if total >= 3 else 0
        return total - 2 * tenth, tenth, tenth
    train, val, test = asked[0], asked[1] or 0, asked[2] or 0
    return max(total - val - test, 0) if train is None else train, val, test


def _draw(source: str | Path, pool: list[Path], wanted: int, seed: int) -> list[Path]:
    if wanted > len(pool):
        raise SRKitError(f"{source}: {wanted} pictures asked for, but this part of it has {len(pool)}")
    chosen = set(Random(seed).sample(range(len(pool)), wanted))
    return [path for i, path in enumerate(pool) if i in chosen]


def _deal(source: str | Path, paths: list[Path], counts: Sequence[int], scenes: Sequence, seed: int) -> Split:
    """Deal scenes into train, val and test until each has its number of pictures."""
    groups = _scenes(paths, scenes)
    Random(seed).shuffle(groups)
    room, parts = list(counts), ([], [], [])
    for group in sorted(groups, key=len, reverse=True):
        # Single pictures fill test and val first, so that these stay when train grows.
        for part in (0, 1, 2) if len(group) > 1 else (2, 1, 0):
            if room[part] >= len(group):
                room[part] -= len(group)
                parts[part].extend(group)
                break
    if any(room):
        wish = "/".join(str(n) for n in counts)
        raise SRKitError(f"{source}: {wish} would part copies of one picture: ask for other numbers")
    order = {path: i for i, path in enumerate(paths)}
    return Split(*(sorted(part, key=order.__getitem__) for part in parts))


def _scenes(paths: list[Path], declared: Sequence[Sequence[str]]) -> list[list[Path]]:
    """Group pictures of one scene: those declared, and files that are the same byte for byte."""
    scene_of = {stem: tuple(scene) for scene in declared for stem in scene}
    size = {path: path.stat().st_size for path in paths}
    shared = Counter(size.values())
    groups: dict[object, list[Path]] = {}
    for path in paths:
        key: object = scene_of.get(path.stem, path)
        if key is path and shared[size[path]] > 1:  # only files of one size can be the same
            key = hashlib.sha256(path.read_bytes()).digest()
        groups.setdefault(key, []).append(path)
    return list(groups.values())
