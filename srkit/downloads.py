"""Verified downloads: a data set is here as a whole, or not at all.

A file is fetched under another name and renamed only when its hash is right; an archive is unpacked into another
folder, renamed only when all pictures are there; and a marker beside the pictures says how many there must be.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from srkit import images
from srkit.errors import SRKitError

DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quota error
MARKER = ".complete"  # written last, inside the folder: how many pictures it must hold


@dataclass(frozen=True)
class File:
    """One file to download: its name in a mirror, its hash, and the addresses tried in turn.

    `hash` is "sha256:…" or "md5:…" of the file (its first 8 digits are enough), or "pixels:…": the sha256 of the
    decoded picture, which any lossless copy has, whatever its file type (see `pixel_hash`).
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


class _Failed(Exception):
    """This way of getting a data set did not work: [(address, reason), …]; the next one is tried."""


def is_whole(folder: Path) -> bool:
    """Whether a set's folder holds as many pictures as its marker says."""
    marker = folder / MARKER
    return marker.is_file() and marker.read_text() == str(len(in_folder(folder)))


def fetch(source: Source, folder: Path, mirror: str | Path | None) -> None:
    """Make `folder` hold the whole data set, trying its ways in turn.

    Raises:
        SRKitError: none of the ways worked (the message says what was tried and what to do), or the folder
            holds something that srkit did not put there.
        OSError: it cannot be written.
    """
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
            found = len(listed(partial))
            if found == source.count:
                (partial / MARKER).write_text(str(len(in_folder(partial))))
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
    for file in tqdm(way.files, desc=source.name, unit="file", disable=bool(way.unpack), leave=False):
        yield file, _get(file, downloads / file.name, _places(source.name, file, mirror), bar=bool(way.unpack))


def fetch_file(file: File, folder: Path, mirror: str | Path | None = None, otherwise: str = "") -> Path:
    """One file on its own, e.g. a network's weights, in `folder` with the right hash; downloaded if it is not yet.

    Args:
        mirror: as in `sources.pictures`; the file may lie in a subfolder with the name of `folder`.
        otherwise: what else one could do, to end the error's line with.

    Raises:
        SRKitError: it cannot be had, has the wrong hash everywhere, or cannot be written.
    """
    advice = f"; or {otherwise}" if otherwise else ""
    try:
        return _get(file, folder / file.name, _places(folder.name, file, mirror), bar=True)
    except _Failed as failed:
        tried = failed.args[0]
        damaged = tried and all(reason == "wrong hash" for _, reason in tried)
        cause = "every copy of it has the wrong hash, so it is damaged or changed" if damaged else "could not be had"
        places = ", ".join(f"{place} ({reason})" for place, reason in tried)
        raise SRKitError(
            f"{file.name}: {cause}. Get it on another machine and put it into {folder}, or give the folder that "
            f"holds it with mirror=… or SRKIT_MIRROR=…{advice}. Tried: {places}"
        ) from None
    except OSError as error:
        reason = "disk full" if error.errno in DISK_FULL else f"cannot write there ({error.strerror or error})"
        raise SRKitError(f"{folder}: {reason}; SRKIT_DATA=… names another folder{advice}") from None


def _places(subfolder: str, file: File, mirror: str | Path | None) -> list[str]:
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
        f"{mirror.rstrip('/')}/{subfolder}/{file.name}",
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
    """Whether a file has the hash "sha256:…", "md5:…" or "pixels:…"; its first 8 digits or more are enough."""
    kind, value = expected.split(":")
    if kind != "pixels":
        with path.open("rb") as file:
            return len(value) >= 8 and hashlib.file_digest(file, kind).hexdigest().startswith(value)
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
        return matches(path, patterns)

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
    first = ", ".join(f"{place} ({reason})" for place, reason in tried[:2])
    places = first + (f" and {len(tried) - 2} more" if len(tried) > 2 else "")
    if tried and all(reason == "wrong hash" for _, reason in tried):
        cause = "every copy of it has the wrong hash, so it is damaged or changed"
    else:
        cause = "could not be had"
    return SRKitError(
        f"{source.name}: {cause}. Get {names} on another machine (page: {source.page}), put it into a folder "
        'and give that with mirror=… or SRKIT_MIRROR=…; or use "bundled" or a folder of your own. '
        f"Tried: {places}"
    )


# ---------------------------------------------------------------------------------- what lies in a folder


def in_folder(folder: Path) -> list[Path]:
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


def matches(path: Path | PurePosixPath, patterns: Iterable[str]) -> bool:
    """Whether a path fits one of the patterns, e.g. "*Train/*.bmp"."""
    return any(fnmatch(path.as_posix(), pattern) for pattern in patterns)


def listed(folder: Path) -> list[Path]:
    """A data set's pictures; where it names them in trainval.txt (VOC), only these."""
    found = in_folder(folder)
    names = {name for path in folder.rglob("trainval.txt") for name in path.read_text().split()}
    return [path for path in found if path.stem in names] if names else found
