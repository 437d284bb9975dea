"""Verified downloads: a file appears under its name when its hash is right, or not at all.

Whoever asks for a file that another process is fetching waits for it.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from srkit.data import images
from srkit.settings import SRKitError, atomic_write, lock

AT_LEAST, PER_MEGABYTE = 600, 20  # seconds that a download may take


class File(NamedTuple):
    """One file to download: its name in a mirror, its hash, and the addresses tried in turn.

    `hash` is "sha256:…" or "md5:…" of the file, or "pixels:…": the sha256 of the decoded picture, which any lossless
    copy has, whatever its file type (see `pixel_hash`). `megabytes` is about how large it is: a download stops at twice
    that, or when it has taken ten minutes and 20 s for each of them.
    """

    name: str
    hash: str
    urls: Sequence[str]
    megabytes: float = 1000


class Unavailable(SRKitError):
    """A file or a data set that could not be had; `tried` says of each place why not.

    Args:
        what: its name.
        tried: "address (reason)", in turn.
        advice: what else one could do.
    """

    def __init__(self, what: str, tried: Sequence[str], advice: str) -> None:
        self.tried = tried
        more = f" and {len(tried) - 3} more" if len(tried) > 3 else ""
        super().__init__(f"{what}: could not be had. {advice}. Tried: {', '.join(tried[:3])}{more}")


class _Refused(Exception):
    """This place has not the file as it should be; the next one is tried."""


def fetch_file(
    file: File, folder: Path, mirror: str | Path | None = None, otherwise: str = "", *, subfolder: str = ""
) -> Path:
    """One file, e.g. a network's weights, in `folder` with the right hash; downloaded if it is not yet.

    Args:
        file: what it is.
        folder: where to; made if need be.
        mirror: as in `sources.pictures`.
        otherwise: what else one could do, to end the error's advice with.
        subfolder: of the mirror, where the file may lie too; the name of `folder` if not given.

    Raises:
        Unavailable: it cannot be had, or has the wrong hash everywhere.
        SRKitError: it cannot be written, or the mirror is none.
    """
    target, tried = folder / file.name, []
    if target.is_file() and has_hash(target, file.hash):
        return target
    places = _places(file, mirror, subfolder or folder.name)
    with lock(folder):
        if target.is_file() and has_hash(target, file.hash):  # another process has fetched it meanwhile
            return target
        for place in places:
            try:
                with atomic_write(target) as draft:
                    _copy(place, draft, file.megabytes)
                    if not has_hash(draft, file.hash):
                        raise _Refused("wrong hash")
                return target
            except _Refused as refused:
                tried.append(f"{place} ({refused})")
    advice = f"Get it on another machine and put it into {folder}, or give its folder with mirror=… or SRKIT_MIRROR=…"
    raise Unavailable(file.name, tried, f"{advice}; or {otherwise}" if otherwise else advice)


def _places(file: File, mirror: str | Path | None, subfolder: str) -> list[str]:
    """Where a file may be had: the mirror's two places first, then its addresses."""
    base = str(mirror or os.environ.get("SRKIT_MIRROR") or "").rstrip("/")
    if not base:
        return list(file.urls)
    places = [f"{base}/{file.name}", f"{base}/{subfolder}/{file.name}"]
    if not _is_address(base):
        if not Path(base).expanduser().is_dir():
            raise SRKitError(f"{base}: the mirror is no folder and no http:// or https:// address")
        places = [place for place in places if Path(place).expanduser().is_file()]  # it need not have everything
    return [*places, *file.urls]


def _is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _copy(place: str, draft: Path, megabytes: float) -> None:
    if not _is_address(place):
        shutil.copyfile(Path(place).expanduser(), draft)
        return
    from pooch import HTTPDownloader

    # "identity": a server that packs a .tgz once more in transit would change its hash
    headers = {"Accept-Encoding": "identity"}
    load = HTTPDownloader(progressbar=megabytes > 1, chunk_size=2**14, timeout=(10, 60), headers=headers)
    try:
        with _Bounded(draft, megabytes) as file:
            load(place, file, None)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None):  # the disk's; what the network says has no number
            raise
        response = getattr(error, "response", None)
        raise _Refused("no connection" if response is None else f"HTTP {response.status_code}") from None


class _Bounded(io.FileIO):
    """A file that takes twice so many megabytes, and for so long, and no more."""

    def __init__(self, path: Path, megabytes: float) -> None:
        super().__init__(path, "wb")
        self.most, self.end = 2e6 * megabytes, time.monotonic() + AT_LEAST + PER_MEGABYTE * megabytes

    def write(self, chunk: bytes) -> int:
        if self.tell() + len(chunk) > self.most:
            raise _Refused("far larger than it should be")
        if time.monotonic() > self.end:
            raise _Refused("too slow")
        return super().write(chunk)


def has_hash(path: Path, expected: str) -> bool:
    """Whether a file has the hash "sha256:…", "md5:…" or "pixels:…"."""
    kind, value = expected.split(":")
    try:
        if kind == "pixels":
            return pixel_hash(path) == value
        with path.open("rb") as file:
            return hashlib.file_digest(file, kind).hexdigest() == value
    except SRKitError:  # truncated, or no picture at all
        return False


def pixel_hash(path: Path) -> str:
    """sha256 of the shape and the 8-bit RGB values (3, H, W) of a picture: the same for PNG and BMP."""
    pixels = images.to_uint8(images.read(path))
    return hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()
