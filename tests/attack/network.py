"""Hostile servers and archives, and several processes that fetch the same set at once."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import socketserver
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from unittest import mock

from PIL import Image

from srkit.data import downloads, pictures
from srkit.data.downloads import File, fetch_file
from srkit.data.sources import FILES, SOURCES, Source

from .campaign import Campaign, processes, spoilt

LIMIT = 3  # seconds that a small download may take here; a student's may take ten minutes
COUNT = 60  # pictures of the set

# ---------------------------------------------------------------------------------- a server that misbehaves

Write = Callable[[bytes], None]


def _answer(body: bytes, length: object = None, status: str = "200 OK", headers: str = "") -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n".encode() + body


def _endless(write: Write, piece: bytes, first: bytes = b"", pause: float = 0.0) -> None:
    write(first)
    while True:
        write(piece)
        time.sleep(pause)


def behaviours(body: bytes) -> dict[str, Callable[[Write], None]]:
    """What a server may do when it is asked for this body."""
    half, ok = body[: len(body) // 2], b"HTTP/1.1 200 OK\r\n"
    chunked = ok + b"Transfer-Encoding: chunked\r\n\r\n"
    fixed = {
        "as it should": _answer(body),
        "nothing": b"",
        "no HTTP": b"hello\r\n\r\n",
        "binary": bytes(range(256)) * 9,
        "half of the body": _answer(half, len(body)),
        "more than it says": _answer(body + b"more", len(body)),
        "another body": _answer(b"x" * len(body)),
        "a body with a changed byte": _answer(body[:-1] + b"x"),
        "an empty body": _answer(b""),
        "no length": ok + b"\r\n" + body,
        "a length that is no number": _answer(body, "many"),
        "a negative length": _answer(body, -5),
        "a length without end": _answer(body, "9" * 400),
        "two lengths": _answer(body, headers="Content-Length: 3\r\n"),
        "an empty length": _answer(body, ""),
        "a status that is no number": b"HTTP/1.1 abc OK\r\n\r\n",
        "status 999": _answer(body, status="999 Odd"),
        "status 204": _answer(b"", status="204 No Content"),
        "status 206": _answer(half, status="206 Partial Content"),
        "status 304": _answer(b"", status="304 Not Modified"),
        "status 404": _answer(body, status="404 Not Found"),
        "status 500": _answer(body, status="500 Broken"),
        "status 401": _answer(body, status="401 Unauthorized", headers="WWW-Authenticate: Digest realm=x\r\n"),
        "gzip that is none": _answer(body, headers="Content-Encoding: gzip\r\n"),
        "gzip that nobody asked for": _answer(gzip.compress(body), headers="Content-Encoding: gzip\r\n"),
        "an unknown encoding": _answer(body, headers="Content-Encoding: x-odd\r\n"),
        "chunks": chunked + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n",
        "chunks without an end": chunked + f"{len(body):x}\r\n".encode() + half,
        "chunks of a size that is none": chunked + b"zz\r\n" + body,
        "a chunk of negative size": chunked + b"-5\r\n" + body,
        "a cookie without end": _answer(body, headers="Set-Cookie: " + "x" * 60_000 + "\r\n"),
        "a header line without end": ok + b"X: " + b"x" * 200_000,
        "a thousand headers": ok + b"X: y\r\n" * 1000 + b"\r\n" + body,
        "headers that are none": ok + b"no colon\r\n\xff\xfe: \x00\r\n\r\n" + body,
    }
    targets = [
        "http://",
        "http://[::1",
        "http://:0/x",
        "http://127.0.0.1:99999/x",
        "http://127.0.0.1:9/x",
        "//",
        "\x00",
    ]
    targets += ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://\ud800.example/".encode("utf-8", "replace").decode()]
    targets += [
        "http://" + "a" * 300 + ".invalid/",
        "/again",
        "http://user:pass@/",
        "gopher://x",
        "%zz",
        "http://.../x",
    ]
    for target in targets:
        headers = f"Location: {target}\r\n"
        fixed[f"a redirect to {target[:30]!r}"] = _answer(b"", status="302 Found", headers=headers)
    fixed["a redirect without an address"] = _answer(b"", status="302 Found")
    found: dict[str, Callable[[Write], None]] = {
        name: (lambda write, content=content: write(content)) for name, content in fixed.items()
    }
    found["a body without end"] = lambda write: _endless(write, bytes(2**16), ok + b"\r\n")
    found["chunks without number"] = lambda write: _endless(write, b"1\r\nx\r\n", chunked)
    found["a body that drips"] = lambda write: _endless(write, b"x", _answer(b"", 10**6), 0.2)
    found["a status line that drips"] = lambda write: _endless(write, b"x", b"HTTP/1.1 200 ", 0.2)
    found["headers that drip"] = lambda write: _endless(write, b"x", ok + b"X: ", 0.2)
    found["headers one by one"] = lambda write: _endless(write, b"X: y\r\n", ok, 0.2)
    found["silence"] = lambda write: time.sleep(8)
    found["silence after the headers"] = lambda write: (write(_answer(b"", 10**6)), time.sleep(8))[0]
    return found


@contextmanager
def server(answers: dict[str, Callable[[Write], None]]) -> Iterator[str]:
    """The address of a server; what it does stands, as a number, at the end of what one asks for."""
    choices = list(answers.values())

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                asked = self.request.recv(65536).split(b" ")[1].decode()
                number = asked.strip("/").split("/")[0]
                choices[int(number) if number.isdecimal() else 0](self.request.sendall)
                self.request.shutdown(socket.SHUT_RDWR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, request_queue_size = True, 64

    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def servers(count: int, random: Random, folder: Path) -> Campaign:
    """Fetch a file from a server that does everything wrong; whatever comes back as fetched must be the file."""
    body = random.randbytes(5000)
    answers = behaviours(body)
    chosen = list(enumerate(answers))
    chosen = chosen if count >= len(chosen) else random.sample(chosen, count)
    campaign = Campaign("answers of a server")
    with server(answers) as url, mock.patch.object(downloads, "AT_LEAST", LIMIT):
        for number, name in chosen:
            value = f"sha256:{hashlib.sha256(body).hexdigest()}"
            file = File("file.bin", value, [f"{url}/{number}/file.bin"], 0.01)
            own = folder / str(number)

            def fetch(file: File = file, own: Path = own, name: str = name) -> None:
                start = time.monotonic()
                try:
                    assert fetch_file(file, own).read_bytes() == body, "another file came back as fetched"
                finally:
                    took = time.monotonic() - start
                    assert took < LIMIT + 10, f"took {took:.0f} s"
                    left = {path.name for path in own.iterdir()} - {"file.bin", ".lock"}
                    assert not left, f"{left} was left behind"

            campaign.attempt(name, fetch)
            if name == "as it should":
                campaign.check("the right answer is fetched", (own / "file.bin").exists())
    return campaign


# ---------------------------------------------------------------------------------- archives


def _png(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (colour, 0, 7)).save(out, "PNG")
    return out.getvalue()


MEMBERS = {f"toy/p{number}.png": _png(number) for number in range(COUNT)}
EVIL = [
    "../evil.png",
    "/tmp/srkit-evil.png",
    "a/../../evil.png",
    "..\\evil.png",
    "C:\\evil.png",
    "a/\x01.png",
    "./.png",
]
EVIL += [
    "a" * 300 + ".png",
    "a/" * 200 + "x.png",
    "toy",
    "toy/p1.png/x.png",
    " .png",
    "~/x.png",
    "\u202e.png",
    "a//b.png",
]


def _zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return out.getvalue()


def _tarred(members: dict[str, bytes], kind: str = "w", links: tuple[tuple[bytes, str, str], ...] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=kind) as packed:
        for what, name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = what, target
            packed.addfile(link)
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _archives(count: int, random: Random) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of archives and how they are made, of which the first are made on purpose and the rest are spoilt."""
    yield "zip", partial(_zipped, MEMBERS)
    yield "tgz", partial(_tarred, MEMBERS, "w:gz")
    for name in EVIL:
        yield f"zip with {name[:20]!r}", partial(_zipped, {name: _png(9), **MEMBERS})
        yield f"tar with {name[:20]!r}", partial(_tarred, {name: _png(9), **MEMBERS})
    for what in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        links = (what, "toy/p1.png", "/etc/passwd"), (what, "out", "/tmp")
        yield f"tar with {what}", partial(_tarred, MEMBERS, "w", links)
    links = ((tarfile.SYMTYPE, "out", ".."),)
    yield "tar through a link", partial(_tarred, {"out/evil.png": _png(9), **MEMBERS}, "w", links)
    yield "zip bomb", partial(_zipped, {"toy/bomb.png": bytes(3 * 10**8), **MEMBERS})
    yield "tar bomb", partial(_tarred, {"toy/bomb.png": bytes(3 * 10**8)}, "w:gz")
    yield "bomb that is skipped", partial(_tarred, {"bomb.txt": bytes(3 * 10**8)}, "w:gz")
    yield "lists", partial(_zipped, {**MEMBERS, "trainval.txt": b"\xff\xfep0"})
    yield "too few", partial(_zipped, dict(list(MEMBERS.items())[:15]))
    yield "bzip2", partial(_zipped, MEMBERS, zipfile.ZIP_BZIP2)
    whole = [_zipped(MEMBERS), _tarred(MEMBERS), _tarred(MEMBERS, "w:gz"), _zipped(MEMBERS, zipfile.ZIP_LZMA)]
    for number in range(count):
        yield f"spoilt {number}", partial(spoilt, whole[number % 4], random)


def register(content: bytes, url: str) -> None:
    """Make "toy" a known data set whose archive has this content and lies at this address."""
    value = f"sha256:{hashlib.sha256(content).hexdigest()}"
    FILES["toy.zip"] = File("toy.zip", value, [url], 1)
    ways = [{"files": ["toy.zip"], "unpack": ("*.png", "*trainval.txt")}]
    SOURCES["toy"] = Source("toy", "a toy", COUNT, 1, "none", "http://page", (3, 1, 1), ways)


def archives(count: int, random: Random, folder: Path) -> Campaign:
    """Unpack archives that a publisher would not have made, as if their hash were right."""
    campaign = Campaign("archives")
    for number, (name, make) in enumerate(_archives(count, random)):
        if count < 20 and number % 8:  # the small campaign takes some of each kind
            continue
        content = make()
        data = folder / f"data {number}"
        (data / "downloads").mkdir(parents=True)
        (data / "downloads" / "toy.zip").write_bytes(content)
        register(content, "http://127.0.0.1:9/toy.zip")

        def unpack(data: Path = data) -> None:
            with mock.patch.dict(os.environ, {"SRKIT_DATA": str(data)}):
                try:
                    found = pictures("toy")
                    assert len(found) == COUNT and all(path.is_file() for path in found), "not the whole set"
                    assert all(not path.is_symlink() for path in found), "a link among the pictures"
                except BaseException:
                    assert not (data / "toy").exists(), "a part of the set is there"
                    raise
                finally:
                    assert not list(data.glob(".*partial")), "a partial folder was left behind"

        campaign.attempt(name, unpack)
    SOURCES.pop("toy"), FILES.pop("toy.zip")
    outside = [path for path in folder.rglob("*evil*") if "toy" not in path.relative_to(folder).parts[1:2]]
    campaign.check("nothing is written outside of the folder", not outside and not Path("/tmp/srkit-evil.png").exists())
    return campaign


# ---------------------------------------------------------------------------------- three processes


def _fetch(content: bytes, url: str, data: str, pause: float) -> None:
    """In a process of its own: fetch the set; the exit status says whether it is whole."""
    os.environ["SRKIT_DATA"] = data
    register(content, url)
    time.sleep(pause)
    found = pictures("toy")
    sys.exit(len(found) != COUNT or any(path.read_bytes() != MEMBERS[f"toy/{path.name}"] for path in found))


def parallel(count: int, random: Random, folder: Path) -> Campaign:
    """Three processes fetch the same set at the same time; each must have all of it."""
    campaign, content = Campaign("parallel downloads (3 processes each)"), _zipped(MEMBERS)
    process = processes()

    def slowly(write: Write) -> None:
        answer = _answer(content)
        for start in range(0, len(answer), 2000):
            write(answer[start : start + 2000])
            time.sleep(0.005)

    with server({"slowly": slowly}) as url:
        for trial in range(count):
            arguments = (content, f"{url}/0/toy.zip", str(folder / str(trial)))
            three = [process(target=_fetch, args=(*arguments, random.random() / 20)) for _ in range(3)]
            for one in three:
                one.start()
            for number, one in enumerate(three):
                one.join(60)
                campaign.check(f"process {number} of trial {trial}", one.exitcode == 0)
                one.kill()
    return campaign
