"""Where pictures come from: a registry of data sets, folders of your own, and who is in which split.

Everything is handed on as file paths; `dataset` reads them. A data set is here as a whole, or not at all: an archive
is unpacked into another folder, renamed when all pictures are there. Whoever asks for a set that another process is
fetching waits for it.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from random import Random
from textwrap import shorten
from typing import Any, NamedTuple

from srkit.data import images
from srkit.data.downloads import File, Unavailable, fetch_file
from srkit.settings import SRKitError, data_folder, lock, unknown

# ---------------------------------------------------------------------------------- the registry


@dataclass(frozen=True)
class Source:
    """A data set: what it is, how large, under which licence, and how to get and split it.

    `split` holds how many pictures are for train, val and test; where `fixed` is given, its patterns say
    which these are (hand-chosen or the publisher's own split), else they are drawn by seed.
    Each of `ways` gets the whole set: "files", archives by their names in FILES, and "unpack", patterns such as
    "*Train/*.bmp" of what to take out of them.
    """

    name: str
    title: str
    count: int
    megabytes: int
    licence: str
    page: str
    split: Sequence[int]
    ways: Sequence[dict[str, Sequence[str]]] = ()
    fixed: Sequence[Sequence[str]] = ()


GROWS = 20  # times as large as an archive what it holds may be: pictures are packed already
_KNOWN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
FILES = {name: File(name, **entry) for name, entry in _KNOWN["files"].items()}
SOURCES = {name: Source(name, **entry) for name, entry in _KNOWN["sets"].items()}


def listing() -> list[dict[str, Any]]:
    """Name, title, pictures, megabytes, licence of every known data set, and whether it is here: `on_disk`."""
    return [
        {
            **{"name": s.name, "title": s.title, "pictures": s.count, "megabytes": s.megabytes, "licence": s.licence},
            "on_disk": s.name == "bundled" or (data_folder() / s.name).is_dir(),
        }
        for s in SOURCES.values()
    ]


# ---------------------------------------------------------------------------------- pictures


def pictures(source: str | Path) -> list[Path]:
    """The picture files of a data set, in natural order (t2 before t10).

    Args:
        source: a name in SOURCES, downloaded when it is not here yet (into `settings.data_folder()`), or a folder
            of your own, searched with its subfolders; hidden files are left out. A folder that has the
            name of a data set is given as a Path or as "./name".

    The environment's SRKIT_MIRROR may name a folder or an http(s) address that holds the data sets' files under their
    own names; it is tried first.

    Raises:
        SRKitError: unknown name, no folder or one without pictures, no network, wrong hash.
        OSError: the disk is full.
    """
    if isinstance(source, str) and source in SOURCES:
        return _known(SOURCES[source])
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise SRKitError(f"{unknown('data set', source, SOURCES)}; and there is no such folder")
    found = _in_folder(folder)
    if not found:
        raise SRKitError(f"{folder}: no pictures in this folder ({' '.join(sorted(images.SUFFIXES))})")
    return found


def _known(source: Source) -> list[Path]:
    """The pictures of a data set, fetched if need be."""
    if source.name == "bundled":  # scikit-image's own: found, not imported, which would take a second
        skimage = find_spec("skimage")
        folder = Path(skimage.origin if skimage and skimage.origin else "skimage").parent / "data"
        found = [path for path in _in_folder(folder) if _matches(path, chain(*source.fixed))]
        advice = "pip install scikit-image"
    else:
        folder = data_folder() / source.name
        if not folder.exists():
            _fetch(source, folder)
        found, advice = _listed(folder), "move it away, and it is fetched again"
    if len(found) != source.count:
        raise SRKitError(f"{folder}: {len(found)} pictures, not the {source.count} of {source.name}: {advice}")
    return found


def _fetch(source: Source, folder: Path) -> None:
    """Make `folder` hold the whole data set, trying its ways in turn; a second process waits and finds it done."""
    partial, failed = folder.with_name(f".{source.name}.partial"), []
    otherwise = f'see {source.page}; or use "bundled" or a folder of your own'
    with lock(folder.parent / ".locks" / source.name):
        for way in [] if folder.exists() else source.ways:
            shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
            partial.mkdir(parents=True)
            try:
                for name in way["files"]:
                    archive = fetch_file(FILES[name], folder.parent / "downloads", otherwise)
                    _unpack(archive, way["unpack"], partial)
                if (found := len(_listed(partial))) != source.count:
                    raise Unavailable(f"{archive}: holds {found} pictures, not {source.count}; {otherwise}")
                partial.rename(folder)
                return
            except Unavailable as error:
                failed.append(error)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    if failed:
        raise failed[0]


def _unpack(archive: Path, patterns: Sequence[str], folder: Path) -> None:
    """Take the members that match out of a zip or tar. Python lets neither write outside of the folder.

    Raises:
        Unavailable: it is damaged, or a bomb.
        OSError: the disk is full.
    """
    most = GROWS * archive.stat().st_size + 10**8
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                names = [member.filename for member in _bounded(packed.infolist(), "file_size", most)]
                packed.extractall(folder, [name for name in names if _matches(Path(name), patterns)])
        else:
            with tarfile.open(archive) as packed:
                files = [member for member in _bounded(packed, "size", most) if member.isfile()]
                packed.extractall(folder, [one for one in files if _matches(Path(one.name), patterns)], filter="data")
    except Exception as error:  # a damaged archive can raise nearly everything
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unavailable(f"{archive}: not unpacked ({shorten(str(error), 200) or type(error).__name__})") from None


def _bounded(members: Iterable[Any], size: str, most: int) -> Iterator[Any]:
    """What an archive holds, as long as it takes no more bytes than `most`: each is asked before the next is read."""
    for member in members:
        most -= getattr(member, size)
        if most < 0:
            raise Unavailable("it would grow without end")
        yield member


# ---------------------------------------------------------------------------------- what lies in a folder


def _in_folder(folder: Path) -> list[Path]:
    """All pictures below a folder, in an order that no file system decides."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES and path.is_file()]
    below = {path: path.relative_to(folder) for path in found}
    visible = [path for path in found if not any(part.startswith(".") for part in below[path].parts)]
    return sorted(visible, key=lambda path: _natural(below[path].as_posix()))


def _natural(text: str) -> tuple:
    pieces = re.split(r"(\d+)", text)
    return [int(piece) if piece.isdecimal() else piece.lower() for piece in pieces], text


def _matches(path: Path, patterns: Iterable[str]) -> bool:
    """Whether a path fits one of the patterns, e.g. "*Train/*.bmp"."""
    return any(fnmatch(path.as_posix(), pattern) for pattern in patterns)


def _listed(folder: Path) -> list[Path]:
    """A data set's pictures; where it names them in trainval.txt (VOC), only these."""
    found = _in_folder(folder)
    names = {name for path in folder.rglob("trainval.txt") for name in path.read_text(errors="replace").split()}
    return [path for path in found if path.stem in names] if names else found


# ---------------------------------------------------------------------------------- splits


class Split(NamedTuple):
    """Three lists of picture files, no picture in two of them, each in natural order."""

    train: list[Path]
    val: list[Path]
    test: list[Path]


def split(
    source: str | Path, train: int | None = None, val: int | None = None, test: int | None = None, seed: int = 0
) -> Split:
    """Divide a data set into pictures to train on, to choose by (val) and to report (test).

    The same seed gives the same split on every machine; files that are the same byte for byte stay on one side. A
    larger `train` leaves val and test as they were.

    Args:
        source: as in `pictures`.
        train, val, test: how many pictures. With none of them given: the data set's own split
            (voc2011 1000/200/0, set5 0/0/5, …), or about 80/10/10 of a folder of your own. With some
            given: val and test default to 0 and train to all that remains. Where the splits are fixed
            (bundled, div2k) a number takes that many of its split and a split not named stays whole.
        seed: which pictures.

    Raises:
        SRKitError: more pictures asked for than there are, a negative number, or all that `pictures` raises.
    """
    asked = (train, val, test)
    paths = pictures(source)
    known = SOURCES.get(source) if isinstance(source, str) else None
    if known and known.fixed:
        pools = ([path for path in paths if _matches(path, patterns)] for patterns in known.fixed)
        return Split(*(_draw(source, pool, wanted, seed) for pool, wanted in zip(pools, asked, strict=True)))
    if asked != (None, None, None):
        counts = [len(paths) - (val or 0) - (test or 0) if train is None else train, val or 0, test or 0]
    elif known:
        counts = known.split
    else:
        tenth = max(1, round(len(paths) / 10)) if len(paths) >= 3 else 0
        counts = [len(paths) - 2 * tenth, tenth, tenth]
    if min(counts) < 0 or sum(counts) > len(paths):
        wish = "/".join(map(str, counts))
        raise SRKitError(f"{source}: a split of {wish} pictures asked for, but it has {len(paths)}")
    return _deal(source, paths, counts, seed)


def _draw(source: str | Path, pool: list[Path], wanted: int | None, seed: int) -> list[Path]:
    wanted = len(pool) if wanted is None else wanted
    if not 0 <= wanted <= len(pool):
        raise SRKitError(f"{source}: {wanted} pictures asked for, but this split of it has {len(pool)}")
    chosen = set(Random(seed).sample(range(len(pool)), wanted))
    return [path for i, path in enumerate(pool) if i in chosen]


def _deal(source: str | Path, paths: list[Path], counts: Sequence[int], seed: int) -> Split:
    """Deal pictures, copies together, into train, val and test until each has its number of them."""
    groups = _copies(paths)
    Random(seed).shuffle(groups)
    room, splits = list(counts), Split([], [], [])
    for group in sorted(groups, key=len, reverse=True):
        # Single pictures fill test and val first, so that these stay when train grows.
        for which in (0, 1, 2) if len(group) > 1 else (2, 1, 0):
            if room[which] >= len(group):
                room[which] -= len(group)
                splits[which].extend(group)
                break
    if any(room):
        wish = "/".join(map(str, counts))
        raise SRKitError(f"{source}: {wish} would separate copies of one picture: ask for other numbers")
    order = {path: i for i, path in enumerate(paths)}
    return Split(*(sorted(dealt, key=order.__getitem__) for dealt in splits))


def _copies(paths: list[Path]) -> list[list[Path]]:
    """Group files that are the same byte for byte; most groups are a single one."""
    size = {path: path.stat().st_size for path in paths}
    shared, groups = Counter(size.values()), {}
    for path in paths:  # only files of one size can be the same
        key = hashlib.sha256(path.read_bytes()).digest() if shared[size[path]] > 1 else path
        groups.setdefault(key, []).append(path)
    return list(groups.values())
