"""Where pictures come from: a registry of data sets, folders of your own, and who is in which split.

Everything is handed on as file paths; `dataset` reads them. A data set is here as a whole, or not at all: an archive
is unpacked into another folder, renamed when all pictures are there, and a marker beside the pictures says how many
there must be. Whoever asks for a set that another process is fetching waits for it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import NamedTuple

from srkit.data import images
from srkit.data.downloads import File, Unavailable, fetch_file
from srkit.settings import SRKitError, data_folder, lock, unknown

MARKER = ".complete"  # written last, inside the folder: how many pictures it must hold


# ---------------------------------------------------------------------------------- the registry


class Way(NamedTuple):
    """One way to get a whole data set: archives and what to take out of them, or the pictures themselves.

    `unpack` holds patterns such as "*Train/*.bmp"; empty means that the files are the pictures.
    """

    files: Sequence[File]
    unpack: Sequence[str] = ()


@dataclass(frozen=True)
class Source:
    """A data set: what it is, how large, under which licence, and how to get and split it.

    `split` holds how many pictures are for train, val and test; where `fixed` is given, its patterns say
    which these are (hand-chosen or the publisher's own split), else they are drawn by seed.
    `scenes` lists pictures (names without suffix) that show one scene and stay on one side.
    """

    name: str
    title: str
    count: int
    megabytes: int
    licence: str
    page: str
    split: Sequence[int]
    ways: Sequence[Way] = ()
    fixed: Sequence[Sequence[str]] = ()
    scenes: Sequence[Sequence[str]] = ()


def _registry() -> dict[str, Source]:
    """The data sets of sources.toml, beside this file."""
    known = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

    def way(entry: dict) -> Way:
        if "pictures" in entry:  # many single pictures in one folder of the web
            hashes = known["pictures"][entry["pictures"]]
            return Way([File(name, hash, [f"{entry['folder']}/{name}"], 1) for name, hash in hashes.items()])
        return Way([File(name, **known["files"][name]) for name in entry["files"]], entry.get("unpack", ()))

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
        source: a name in SOURCES, downloaded when it is not here yet (into `settings.data_folder()`), or a folder
            of your own, searched with its subfolders; hidden files are left out. A folder that has the
            name of a data set is given as a Path or as "./name".
        mirror: a folder or an http(s) address that holds the data set's files under their own names, or
            in a subfolder with the data set's name; tried first. Default: the environment's SRKIT_MIRROR.

    Raises:
        SRKitError: unknown name, no folder or one without pictures, no network, wrong hash, full disk.
    """
    if isinstance(source, str) and source in SOURCES:
        return _bundled(SOURCES[source]) if source == "bundled" else _registered(SOURCES[source], mirror)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if isinstance(source, Path) or len(folder.parts) > 1 or folder.exists():
            raise SRKitError(f"{folder}: no such folder: give the folder that holds the pictures")
        raise SRKitError(f"{unknown('data set', source, SOURCES)}; or give a folder of your own")
    found = _in_folder(folder)
    if not found:
        raise SRKitError(f"{folder}: no pictures in this folder ({' '.join(sorted(images.SUFFIXES))})")
    return found


def _bundled(source: Source) -> list[Path]:
    """scikit-image's own pictures: found, not imported, which would take a second."""
    skimage = find_spec("skimage")
    folder = Path(skimage.origin if skimage and skimage.origin else "skimage").parent / "data"
    found = [path for path in _in_folder(folder) if _matches(path, [p for patterns in source.fixed for p in patterns])]
    if len(found) != source.count:
        raise SRKitError(f"{folder}: {len(found)} of {source.count} bundled pictures: pip install scikit-image")
    return found


def _registered(source: Source, mirror: str | Path | None) -> list[Path]:
    folder = data_folder() / source.name
    if is_whole(folder):
        return _listed(folder)
    if folder.exists() and not (folder / MARKER).is_file():
        raise SRKitError(f"{folder}: not put there by srkit: move it away, or use it as a folder of your own")
    try:
        with lock(folder.parent / ".locks" / source.name):
            if not is_whole(folder):  # another process may have fetched it meanwhile
                _fetch(source, folder, mirror)
    except OSError as error:
        needs = f"{source.name} takes {source.megabytes} MB packed and as much unpacked"
        advice = "free some space, or name another folder by SRKIT_DATA=…"
        raise SRKitError(f"could not write {folder} ({error.strerror or error}): {needs}: {advice}") from error
    return _listed(folder)


def _fetch(source: Source, folder: Path, mirror: str | Path | None) -> None:
    """Make `folder` hold the whole data set, trying its ways in turn."""
    partial, tried = folder.with_name(f".{source.name}.partial"), []
    for way in source.ways:
        shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
        partial.mkdir(parents=True)
        try:
            _fill(partial, source.name, way, folder.parent / "downloads", mirror)
            found = len(_listed(partial))
            if found == source.count:
                (partial / MARKER).write_text(str(len(_in_folder(partial))))
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
                return
            tried.append(f"{way.files[0].name} (holds {found} pictures, not {source.count})")
        except Unavailable as failed:
            tried += failed.tried
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    names = ", ".join(file.name for file in source.ways[0].files)
    by_hand = f"Get {names} on another machine (page: {source.page}), put it into a folder and give that with mirror=…"
    raise Unavailable(source.name, tried, f'{by_hand} or SRKIT_MIRROR=…; or use "bundled" or a folder of your own')


def _fill(folder: Path, name: str, way: Way, downloads: Path, mirror: str | Path | None) -> None:
    """Put the pictures of one way into the folder."""
    for file in way.files:
        if way.unpack:
            _unpack(fetch_file(file, downloads, mirror, subfolder=name), way.unpack, folder)
        else:
            shutil.copyfile(fetch_file(file, downloads / name, mirror), folder / file.name)


def _unpack(archive: Path, patterns: Sequence[str], folder: Path) -> None:
    """Take the members that match out of a zip or tar. Python lets neither write outside of the folder."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder, [name for name in packed.namelist() if _matches(Path(name), patterns)])
        else:
            with tarfile.open(archive) as packed:
                members = [member for member in packed if member.isfile() and _matches(Path(member.name), patterns)]
                packed.extractall(folder, members, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise SRKitError(f"{archive}: not unpacked ({error})") from None


# ---------------------------------------------------------------------------------- what lies in a folder


def is_whole(folder: Path) -> bool:
    """Whether a data set's folder holds as many pictures as its marker says."""
    marker = folder / MARKER
    return marker.is_file() and marker.read_text() == str(len(_in_folder(folder)))


def _in_folder(folder: Path) -> list[Path]:
    """All pictures below a folder, in an order that no file system decides."""
    found = []
    for path in folder.rglob("*"):
        if path.suffix.lower() in images.SUFFIXES and path.is_file():
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            found += [] if hidden else [path]
    return sorted(found, key=lambda path: _natural(path.relative_to(folder).as_posix()))


def _natural(text: str) -> tuple:
    pieces = re.split(r"(\d+)", text)
    return [int(piece) if piece.isdecimal() else piece.lower() for piece in pieces], text


def _matches(path: Path, patterns: Iterable[str]) -> bool:
    """Whether a path fits one of the patterns, e.g. "*Train/*.bmp"."""
    return any(fnmatch(path.as_posix(), pattern) for pattern in patterns)


def _listed(folder: Path) -> list[Path]:
    """A data set's pictures; where it names them in trainval.txt (VOC), only these."""
    found = _in_folder(folder)
    names = {name for path in folder.rglob("trainval.txt") for name in path.read_text().split()}
    return [path for path in found if path.stem in names] if names else found


# ---------------------------------------------------------------------------------- splits


class Split(NamedTuple):
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
            given: val and test default to 0 and train to all that remains. Where the splits are fixed
            (bundled, div2k) a number takes that many of its split and a split not named stays whole.
        seed: which pictures.

    Raises:
        SRKitError: more pictures asked for than there are, a negative number, or all that `pictures` raises.
    """
    asked = (train, val, test)
    paths = pictures(source, mirror)
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
    return _deal(source, paths, counts, known.scenes if known else (), seed)


def _draw(source: str | Path, pool: list[Path], wanted: int | None, seed: int) -> list[Path]:
    wanted = len(pool) if wanted is None else wanted
    if not 0 <= wanted <= len(pool):
        raise SRKitError(f"{source}: {wanted} pictures asked for, but this split of it has {len(pool)}")
    chosen = set(Random(seed).sample(range(len(pool)), wanted))
    return [path for i, path in enumerate(pool) if i in chosen]


def _deal(source: str | Path, paths: list[Path], counts: Sequence[int], scenes: Sequence, seed: int) -> Split:
    """Deal scenes into train, val and test until each has its number of pictures."""
    groups = _scenes(paths, scenes)
    Random(seed).shuffle(groups)
    room, splits = list(counts), ([], [], [])
    for group in sorted(groups, key=len, reverse=True):
        # Single pictures fill test and val first, so that these stay when train grows.
        for which in (0, 1, 2) if len(group) > 1 else (2, 1, 0):
            if room[which] >= len(group):
                room[which] -= len(group)
                splits[which].extend(group)
                break
    if any(room):
        wish = "/".join(str(n) for n in counts)
        raise SRKitError(f"{source}: {wish} would separate copies of one picture: ask for other numbers")
    order = {path: i for i, path in enumerate(paths)}
    return Split(*(sorted(paths, key=order.__getitem__) for paths in splits))


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
