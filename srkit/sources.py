"""Where pictures come from: a registry of data sets, verified downloads, and who is in which split.

Everything is handed on as file paths; `banks` reads them. A download is done in three steps, so that
nothing broken ever counts as a data set: the file is fetched under another name and renamed only when
its hash is right; it is unpacked into another folder, renamed only when all pictures are there; and a
marker beside the pictures says how many there must be.
"""

from __future__ import annotations

import errno
import hashlib
import os
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
from pathlib import Path, PurePosixPath
from random import Random
from typing import NamedTuple

from srkit import images
from srkit.errors import SRKitError, unknown

# ---------------------------------------------------------------------------------- the registry


@dataclass(frozen=True)
class File:
    """One file to download: its name in a mirror, its hash, and the addresses tried in turn.

    `hash` is "sha256:…" or "md5:…" of the file, or "pixels:…": the sha256 of the decoded picture, which
    any lossless copy has, whatever its file type (see `pixel_hash`).
    """

    name: str
    hash: str
    urls: Sequence[str]


@dataclass(frozen=True)
class Way:
    """One way to get a whole data set: archives and what to take out of them, or the pictures themselves.

    `unpack` holds patterns such as "*Train/*.bmp"; empty means that the files are the pictures.
    """

    files: Sequence[File]
    unpack: Sequence[str] = ()


@dataclass(frozen=True)
class Source:
    """A data set: what it is, how large, under which licence, and how to get and split it.

    `split` holds how many pictures are for train, val and test; where `parts` is given, its patterns say
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
    parts: Sequence[Sequence[str]] = ()
    scenes: Sequence[Sequence[str]] = ()


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
        here = s.name == "bundled" or _whole(data_folder() / s.name)
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
        found = _in_folder(folder)
        if not found:
            raise SRKitError(f"{folder}: no pictures in this folder ({' '.join(sorted(images.SUFFIXES))})")
        return found
    if folder.exists():
        raise SRKitError(f"{folder}: this is a file: give the folder that holds the pictures")
    if isinstance(source, Path) or len(folder.parts) > 1:
        raise SRKitError(f"{folder}: no such folder")
    raise SRKitError(f"{unknown('data set', source, SOURCES)}; or give a folder of your own")


def data_folder() -> Path:
    """Where downloads go: SRKIT_DATA, else data/ of the srkit repository one works in, else ./data."""
    if os.environ.get("SRKIT_DATA"):
        return Path(os.environ["SRKIT_DATA"]).expanduser()
    for folder in (Path.cwd(), *Path.cwd().parents):
        project = folder / "pyproject.toml"
        if project.is_file() and 'name = "srkit"' in project.read_text(encoding="utf-8"):
            return folder / "data"
    return Path("data")


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


def _registered(source: Source, mirror: str | Path | None) -> list[Path]:
    if source.name == "bundled":
        return _bundled(source)
    folder = data_folder() / source.name
    try:
        if not _whole(folder):
            _fetch(source, folder, mirror)
    except OSError as error:
        if error.errno in DISK_FULL:
            advice = f"disk full: {source.name} takes {source.megabytes} MB packed and as much unpacked"
        else:
            advice = f"cannot write there ({error.strerror or error})"
        raise SRKitError(f"{folder.parent}: {advice}; SRKIT_DATA=… names another folder") from None
    return _listed(folder)


def _bundled(source: Source) -> list[Path]:
    """scikit-image's own pictures: found, not imported, which would take a second."""
    skimage = find_spec("skimage")
    if skimage is None:
        raise SRKitError("bundled: scikit-image is not installed: pip install scikit-image")
    patterns = [pattern for part in source.parts for pattern in part]
    folder = Path(skimage.submodule_search_locations[0]) / "data"
    found = [path for path in _in_folder(folder) if _matches(path, patterns)]
    if len(found) != source.count:
        raise SRKitError(f"{folder}: {len(found)} of {source.count} bundled pictures: install scikit-image again")
    return found


def _matches(path: Path | PurePosixPath, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path.as_posix(), pattern) for pattern in patterns)


def _listed(folder: Path) -> list[Path]:
    """A data set's pictures; where it names them in trainval.txt (VOC), only these."""
    found = _in_folder(folder)
    names = {name for path in folder.rglob("trainval.txt") for name in path.read_text().split()}
    return [path for path in found if path.stem in names] if names else found


# ---------------------------------------------------------------------------------- downloads

DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quota error
MARKER = ".complete"  # written last, inside the folder: how many pictures it must hold


class _Failed(Exception):
    """This way of getting a data set did not work: [(address, reason), …]; the next one is tried."""


def _whole(folder: Path) -> bool:
    marker = folder / MARKER
    return marker.is_file() and marker.read_text() == str(len(_in_folder(folder)))


def _fetch(source: Source, folder: Path, mirror: str | Path | None) -> None:
    """Make `folder` hold the whole data set, trying its ways in turn."""
    if folder.exists() and not (folder / MARKER).is_file():
        raise SRKitError(f"{folder}: not put there by srkit: move it away, or use it as a folder of your own")
    partial = folder.with_name(f".{source.name}.partial")
    tried: list[tuple[str, str]] = []
    for way in source.ways:
        shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
        partial.mkdir(parents=True)
        try:
            for file, path in _files(source, way, folder.parent / "downloads", mirror):
                if way.unpack:
                    _unpack(path, way.unpack, partial)
                else:
                    shutil.copyfile(path, partial / file.name)
            found = len(_listed(partial))
            if found == source.count:
                (partial / MARKER).write_text(str(len(_in_folder(partial))))
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
                return
            tried.append((way.files[0].name, f"holds {found} pictures, not {source.count}"))
        except _Failed as failed:
            tried += failed.args[0]
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    raise _sorry(source, tried)


def _files(source: Source, way: Way, downloads: Path, mirror: str | Path | None) -> Iterator[tuple[File, Path]]:
    """Each file of a way, here and with the right hash."""
    from tqdm.auto import tqdm

    if not way.unpack:
        downloads = downloads / source.name  # many small files
    for file in tqdm(way.files, desc=source.name, unit="file", disable=bool(way.unpack)):
        yield file, _get(file, downloads / file.name, _places(source, file, mirror), bar=bool(way.unpack))


def _places(source: Source, file: File, mirror: str | Path | None) -> list[str]:
    """Where a file may be had: the mirror's two places first, then its addresses."""
    mirror = str(mirror or os.environ.get("SRKIT_MIRROR") or "")
    if not mirror:
        return list(file.urls)
    if not _is_address(mirror):
        if not Path(mirror).expanduser().is_dir():
            raise SRKitError(f"{mirror}: the mirror is no folder and no http:// or https:// address")
        mirror = str(Path(mirror).expanduser())
    return [
        f"{mirror.rstrip('/')}/{file.name}",
        f"{mirror.rstrip('/')}/{source.name}/{file.name}",
        *file.urls,
    ]


def _is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _get(file: File, target: Path, places: Sequence[str], bar: bool) -> Path:
    """Bring one file to `target` from the first place that has it with the right hash."""
    if target.is_file() and has_hash(target, file.hash):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    tried = []
    for place in places:
        if not _is_address(place) and not Path(place).is_file():
            continue  # a mirror need not have everything
        try:
            _copy(place, part, bar)
        except OSError as error:  # every failure of requests is one
            if error.errno in DISK_FULL:
                part.unlink(missing_ok=True)
                raise
            tried.append((place, _reason(error)))
            continue
        if has_hash(part, file.hash):
            part.replace(target)
            return target
        tried.append((place, "wrong hash"))
    part.unlink(missing_ok=True)
    raise _Failed(tried)


def _copy(place: str, part: Path, bar: bool) -> None:
    if not _is_address(place):
        shutil.copyfile(place, part)
        return
    from pooch import HTTPDownloader

    # "identity": a server that packs a .tgz once more in transit would change its hash
    load = HTTPDownloader(progressbar=bar, chunk_size=2**18, timeout=(10, 60), headers={"Accept-Encoding": "identity"})
    load(place, str(part), None)


def _reason(error: OSError) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    return error.strerror or "no connection"


def has_hash(path: Path, expected: str) -> bool:
    """Whether a file has the hash "sha256:…", "md5:…" or "pixels:…"."""
    kind, value = expected.split(":")
    if kind != "pixels":
        with path.open("rb") as file:
            return hashlib.file_digest(file, kind).hexdigest() == value
    try:
        return pixel_hash(path) == value
    except SRKitError:  # truncated, or no picture at all
        return False


def pixel_hash(path: Path) -> str:
    """sha256 of the shape and the 8-bit RGB values (3, H, W) of a picture: the same for PNG and BMP."""
    pixels = images.to_uint8(images.read(path))
    return hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()


def _unpack(archive: Path, patterns: Sequence[str], folder: Path) -> None:
    """Take the members that match out of a zip or tar; refuse an archive that writes outside `folder`."""

    def wanted(name: str) -> bool:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise SRKitError(f"{archive}: wants to write outside its folder ({name!r}): not unpacked")
        return _matches(path, patterns)

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder, [name for name in packed.namelist() if wanted(name)])
    else:
        with tarfile.open(archive) as packed:
            members = [member for member in packed if wanted(member.name) and member.isfile()]
            packed.extractall(folder, members, filter="data")


def _sorry(source: Source, tried: list[tuple[str, str]]) -> SRKitError:
    """One line: which set, what was tried, what to do."""
    archives = [way.files for way in source.ways if way.unpack] or [source.ways[0].files]
    names = " or ".join(" and ".join(file.name for file in files) for files in archives)
    places = ", ".join(f"{place} ({reason})" for place, reason in tried)
    if tried and all(reason == "wrong hash" for _, reason in tried):
        cause = f"every copy of it has the wrong hash, so it is damaged or changed: {places}"
    else:
        cause = f"could not be had: {places}"
    return SRKitError(
        f"{source.name}: {cause}. Get {names} on another machine (page: {source.page}), put it into a folder "
        'and give that with mirror=… or SRKIT_MIRROR=…; or use "bundled" or a folder of your own'
    )


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
        pools = [[path for path in paths if _matches(path, patterns)] for patterns in known.parts]
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
