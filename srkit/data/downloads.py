"""Verified downloads: a file appears under its name when its hash is right, or not at all.

Whoever asks for a file that another process is fetching waits for it.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from srkit.settings import SRKitError, lock

AT_LEAST, PER_MEGABYTE = 600, 20  # seconds that a download may take


class File(NamedTuple):
    """One file to download: its name, its hash ("sha256:…" or "md5:…"), and the addresses tried in turn.

    `megabytes` is about how large it is: a download stops at twice that, or when it has taken ten minutes and 20 s for
    each of them.
    """

    name: str
    hash: str
    urls: Sequence[str]
    megabytes: float = 1000


class Unavailable(SRKitError):
    """A file, or a data set, that no place has as it should be."""


def fetch_file(file: File, folder: Path, otherwise: str = "") -> Path:
    """One file, e.g. a network's weights, in `folder` with the right hash; downloaded if it is not yet.

    Args:
        file: what it is.
        folder: where to; made if need be.
        otherwise: what else one could do, to end the error's advice with.

    Raises:
        Unavailable: it cannot be had, or has the wrong hash everywhere.
        SRKitError: SRKIT_MIRROR is no mirror, or the folder cannot be written.
        OSError: the disk is full.
    """
    import pooch
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    target, tried = folder / file.name, []
    kind, value = file.hash.split(":")
    if target.is_file() and pooch.file_hash(str(target), kind) == value:
        return target  # also from a folder that may only be read
    places, load = _places(file), partial(_download, file=file)
    pooch.get_logger().setLevel("WARNING")
    with lock(folder):
        for place in places:
            try:
                # It looks once more whether the file is there: another process may have fetched it meanwhile.
                pooch.retrieve(place, file.hash, file.name, folder, downloader=load)  # pyright: ignore[reportArgumentType]
                return target
            except (RequestException, HTTPError) as error:
                response = getattr(error, "response", None)
                reason = "no connection" if response is None else f"HTTP {response.status_code}"
            except FileNotFoundError:
                reason = "no such file"
            except Unavailable as error:
                reason = str(error)
            except ValueError:
                reason = "wrong hash"
            tried.append(f"{place} ({reason})")
    advice = f"Get it on another machine and put it into {folder}, or give its folder with SRKIT_MIRROR=…"
    advice += f"; or {otherwise}" if otherwise else ""
    raise Unavailable(f"{file.name}: could not be had. {advice}. Tried: {', '.join(tried)}")


def _places(file: File) -> list[str]:
    """Where a file may be had: from the mirror that the environment names first, then at its addresses."""
    base = os.path.expanduser(os.environ.get("SRKIT_MIRROR", "")).rstrip("/")
    if base and not base.startswith(("http://", "https://")) and not Path(base).is_dir():
        raise SRKitError(f"{base}: the mirror is no folder and no http:// or https:// address")
    return [f"{base}/{file.name}", *file.urls] if base else list(file.urls)


def _download(place: str, draft: str, _pooch: object, file: File) -> None:
    """What `pooch.retrieve` calls: copy from a folder, or load from the web in bounded size and time."""
    import requests
    from tqdm.auto import tqdm

    if not place.startswith(("http://", "https://")):
        shutil.copyfile(place, draft)
        return
    end = time.monotonic() + AT_LEAST + PER_MEGABYTE * file.megabytes
    # "identity": a server that packs a .tgz once more in transit would change its hash
    headers = {"Accept-Encoding": "identity"}
    ask = partial(requests.get, place, stream=True, timeout=(10, 60), headers=headers)
    with (
        _until(end, ask) as response,
        open(draft, "wb") as out,
        tqdm(desc=file.name, total=1e6 * file.megabytes, unit="B", unit_scale=True, disable=file.megabytes < 2) as bar,
    ):
        response.raise_for_status()
        while chunk := response.raw.read1(2**16):  # what has arrived, be it a single byte
            bar.update(out.write(chunk))
            if out.tell() > 2e6 * file.megabytes:
                raise Unavailable("far larger than it should be")
            if time.monotonic() > end:
                raise Unavailable("too slow")


def _until(end: float, call: Callable[[], Any]) -> Any:
    """What a call returns by that time of `time.monotonic`; a server may drip its headers one letter a minute.

    Raises:
        Unavailable: it has not returned by then; what the call raises.
    """
    answers: queue.Queue = queue.Queue()

    def answer() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=answer, daemon=True).start()  # one of an executor would hold Python up at its end
    try:
        found, error = answers.get(timeout=max(0, end - time.monotonic()))
    except queue.Empty:
        raise Unavailable("too slow") from None
    if error:
        raise error
    return found
