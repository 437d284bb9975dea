"""sources and downloads: the registry, downloads that survive everything, and splits."""

from __future__ import annotations

import errno
import hashlib
import io
import multiprocessing
import random
import shutil
import socket
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from srkit.data import SOURCES, downloads, pictures, sources, split
from srkit.data.downloads import File, fetch_file
from srkit.data.sources import FILES, Source
from srkit.settings import SRKitError

DEAD = "http://127.0.0.1:9/toy.zip"  # nobody listens on the discard port


def png(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (colour, 0, 7)).save(out, "PNG")
    return out.getvalue()


def make_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)


def make_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as packed:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("toy/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)


# As Pascal VOC's: a list names those pictures that belong to the set.
MEMBERS = {f"toy/p{i}.png": png(i) for i in range(7)} | {"toy/Main/trainval.txt": b"p0\np1\np2\np3\np4\n"}


@pytest.fixture
def site(tmp_path):
    """A local web server; `site.folder` is what it serves, `site.asked` what was asked of it."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            server.asked.append(self.path)

        def do_GET(self):
            if not self.path.startswith(("/short/", "/drip/")):
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(100):  # and there the line breaks off
                self.wfile.write(b"x")
                time.sleep(0.05 if "drip" in self.path else 0)
            return None

        def handle(self):
            with suppress(OSError):  # who drips is left
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.folder, server.asked = folder, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def register(monkeypatch):
    """register(archive, url, …) makes "toy" a known data set of five pictures."""

    def add(archive: Path, *urls: str) -> None:
        value = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
        monkeypatch.setitem(FILES, "toy.zip", File("toy.zip", value, urls))
        ways = [{"files": ["toy.zip"], "unpack": ("*.png", "*/trainval.txt")}]
        monkeypatch.setitem(SOURCES, "toy", Source("toy", "a toy", 5, 1, "none", "http://page", (3, 1, 1), ways))

    return add


@pytest.fixture
def toy(site, register) -> Path:
    """The archive of the toy set on the local server, registered."""
    make_zip(site.folder / "toy.zip", MEMBERS)
    register(site.folder / "toy.zip", f"{site.url}/toy.zip")
    return site.folder / "toy.zip"


# ---------------------------------------------------------------------------------- downloads


def test_download_unpack_and_nothing_twice(toy, site, tmp_path):
    data = tmp_path / "data"
    for name, left in {"downloads/toy.zip": b"half", ".toy.partial/old/p0.png": png(9)}.items():  # by a killed run
        (data / name).parent.mkdir(parents=True)
        (data / name).write_bytes(left)
    found = pictures("toy")
    assert [path.relative_to(data / "toy").as_posix() for path in found] == [f"toy/p{i}.png" for i in range(5)]
    assert not (data / ".toy.partial").exists()
    assert pictures("toy") == found and site.asked == ["/toy.zip"] and list(map(len, split("toy"))) == [3, 1, 1]
    assert {row["name"] for row in sources.listing() if row["on_disk"]} == {"bundled", "toy"}
    found[2].unlink()  # a picture lost later is noticed; what lies there may be one's own, and stays
    with pytest.raises(SRKitError, match="4 pictures, not the 5"):
        pictures("toy")
    assert found[1].exists()
    shutil.rmtree(data / "toy")
    assert pictures("toy") == found and site.asked == ["/toy.zip"]


def test_addresses_in_turn_dead_missing_damaged_truncated(toy, site, register, tmp_path):
    (site.folder / "bad").mkdir()
    (site.folder / "bad" / "toy.zip").write_bytes(toy.read_bytes()[:-100] + bytes(100))
    urls = [DEAD, *(f"{site.url}/{place}/toy.zip" for place in ("none", "bad", "short"))]
    register(toy, *urls)
    with pytest.raises(SRKitError) as error:
        pictures("toy")
    text = str(error.value)
    assert all(part in text for part in (DEAD, "no connection", "HTTP 404", "wrong hash", "SRKIT_MIRROR", "bundled"))
    assert "\n" not in text and not (tmp_path / "data" / "toy").exists()
    register(toy, *urls, f"{site.url}/toy.zip")
    assert len(pictures("toy")) == 5
    assert site.asked[-4:] == ["/none/toy.zip", "/bad/toy.zip", "/short/toy.zip", "/toy.zip"]
    assert {path.name for path in (tmp_path / "data" / "downloads").iterdir()} <= {"toy.zip", ".lock"}


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs copies of this process")
def test_processes_that_fetch_at_once_all_get_the_whole_set(toy, site, tmp_path, monkeypatch):
    load, extract = downloads._download, zipfile.ZipFile.extractall
    monkeypatch.setattr(downloads, "_download", lambda *a, **more: (time.sleep(0.2), load(*a, **more)))
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *a: (time.sleep(0.2), extract(*a)))
    fork = multiprocessing.get_context("fork").Process
    others = [fork(target=lambda: sys.exit(5 - len(pictures("toy")))) for _ in range(2)]
    others += [fork(target=fetch_file, args=(FILES["toy.zip"], tmp_path / "data" / "downloads"))]
    for other in others:
        other.start()
    assert len(pictures("toy")) == 5
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0, 0] and site.asked == ["/toy.zip"]


def test_mirrors_and_second_ways(toy, site, register, tmp_path, monkeypatch):
    register(toy, DEAD)
    SOURCES["toy"].ways.insert(0, {"files": ["gone.zip"], "unpack": ["*"]})
    monkeypatch.setitem(FILES, "gone.zip", File("gone.zip", "md5:0", [DEAD]))
    folder = tmp_path / "mirror"
    monkeypatch.setenv("SRKIT_MIRROR", str(folder))
    with pytest.raises(SRKitError, match="no folder"):
        pictures("toy")
    folder.mkdir()
    with pytest.raises(SRKitError, match="no such file"):
        pictures("toy")
    shutil.copy(toy, folder)
    for mirror in (str(folder), site.url + "/"):
        monkeypatch.setenv("SRKIT_MIRROR", mirror)
        assert len(pictures("toy")) == 5
        shutil.rmtree(tmp_path / "data")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archives_write_nothing_outside_and_links_are_left_out(make, site, register, tmp_path):
    data = tmp_path / "data"
    for evil in ("../evil.png", "/tmp/evil.png", "a/../../evil.png", "toy/good.png"):
        shutil.rmtree(data, ignore_errors=True)
        make(site.folder / "toy.zip", MEMBERS | {evil: png(9)})
        register(site.folder / "toy.zip", f"{site.url}/toy.zip")
        with suppress(SRKitError):  # refused, or unpacked inside of the folder
            pictures("toy")
        outside = [path for path in tmp_path.rglob("evil.png") if not path.is_relative_to(data / "toy")]
        assert not outside and not Path("/tmp/evil.png").exists()
    assert len(pictures("toy")) == 5 and not list(data.rglob("link.png"))


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_bomb_is_not_unpacked(make, site, register, tmp_path, monkeypatch):
    make(site.folder / "toy.zip", MEMBERS | {"toy/notes.txt": bytes(10**6)})
    register(site.folder / "toy.zip", f"{site.url}/toy.zip")
    assert len(pictures("toy")) == 5
    shutil.rmtree(tmp_path / "data" / "toy")
    size = (site.folder / "toy.zip").stat().st_size
    monkeypatch.setattr(sources, "GROWS", (10**6 - 10**8) / size)
    with pytest.raises(SRKitError, match="grow without end"):
        pictures("toy")
    assert not (tmp_path / "data" / "toy").exists()


def test_a_full_disk_leaves_nothing_behind(toy, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(zipfile.ZipFile, "extractall", full)
        pictures("toy")
    assert not (tmp_path / "data" / ".toy.partial").exists() and len(pictures("toy")) == 5


def test_a_download_is_bounded_in_size_and_time(toy, site, tmp_path, monkeypatch):
    file = FILES["toy.zip"]._replace(megabytes=1)
    with pytest.raises(SRKitError, match="far larger"):
        fetch_file(file._replace(megabytes=0.0001), tmp_path)
    monkeypatch.setattr(downloads, "AT_LEAST", 0.1 - downloads.PER_MEGABYTE)
    start = time.monotonic()
    with pytest.raises(SRKitError, match="too slow") as error:
        fetch_file(file._replace(urls=[f"{site.url}/drip/toy.zip"]), tmp_path, otherwise="ask for random weights")
    assert time.monotonic() - start < 4  # not the 5 s that the server takes
    assert "or ask for random weights" in str(error.value) and not (tmp_path / "toy.zip").exists()
    monkeypatch.undo()
    assert fetch_file(file, tmp_path).read_bytes() == toy.read_bytes()
    assert fetch_file(file._replace(urls=[]), tmp_path) == tmp_path / "toy.zip"


# ---------------------------------------------------------------------------------- the registry


def test_registry_is_sound_and_the_readme_tells_of_every_set():
    lines = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8").splitlines()
    for source in SOURCES.values():
        assert sum(source.split) <= source.count and (source.ways or source.name == "bundled")
        assert {name for way in source.ways for name in way["files"]} <= FILES.keys()
        (line,) = [line for line in lines if line.startswith(f"| `{source.name}` |")]
        size = f"{source.megabytes:,} MB" if source.megabytes else "none"
        for fact in (f"{source.count:,}", size, source.licence, "/".join(f"{n:,}" for n in source.split)):
            assert fact in line
    for file in FILES.values():
        kind, value = file.hash.split(":")
        assert len(value) == {"md5": 32, "sha256": 64}[kind] and file.urls and 0 < file.megabytes <= 4000


def test_bundled_needs_no_network_and_writes_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dealt = split("bundled")
    assert [path.stem for path in dealt.val + dealt.test] == ["ihc", "astronaut", "chelsea", "coffee"]
    assert {"motorcycle_left", "motorcycle_right"} <= {path.stem for path in dealt.train}
    assert sum(map(len, dealt)) == len(pictures("bundled")) == 9 and not list(tmp_path.iterdir())
    assert list(map(len, split("bundled", train=2, test=1, seed=5))) == [2, 1, 1]


# ---------------------------------------------------------------------------------- folders of one's own, splits


@pytest.fixture
def mine(tmp_path) -> Path:
    """A folder of 40 pictures."""
    (tmp_path / "mine").mkdir()
    for i in range(40):
        (tmp_path / "mine" / f"p{i}.png").write_bytes(png(i))
    return tmp_path / "mine"


def test_own_folder(tmp_path):
    for name in ("deep/UPPER.PNG", "p10.JPG", "p2.png", "._p1.png", ".hidden/a.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(50))
    found = [path.relative_to(tmp_path).as_posix() for path in pictures(str(tmp_path))]
    assert found == ["deep/UPPER.PNG", "p2.png", "p10.JPG"]
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "notes.txt", tmp_path / "nowhere", tmp_path / "empty", "voc2017"):
        with pytest.raises(SRKitError):
            pictures(wrong)


def test_split_is_deterministic_disjoint_and_of_the_right_size(mine, monkeypatch):
    dealt = split(mine, train=20, val=8, test=4, seed=3)
    assert list(map(len, dealt)) == [20, 8, 4] and len({*dealt.train, *dealt.val, *dealt.test}) == 32
    assert [path.stem for path in dealt.test] == ["p3", "p5", "p14", "p18"]  # as it always was
    assert list(map(len, split(mine))) == [32, 4, 4] and list(map(len, split(mine, val=5))) == [35, 5, 0]
    assert split(mine, train=28, val=8, test=4, seed=3)[1:] == dealt[1:]
    rglob = Path.rglob  # the order in which the file system lists pictures does not matter
    monkeypatch.setattr(Path, "rglob", lambda *a: random.sample(found := list(rglob(*a)), k=len(found)))
    assert split(mine, train=20, val=8, test=4, seed=3) == dealt


def test_copies_stay_on_one_side(mine):
    for name in ("copy", "again"):
        shutil.copy(mine / "p3.png", mine / f"{name}.png")
    for seed in range(8):
        sides = split(mine, train=20, val=12, test=10, seed=seed)
        assert sorted(len({"p3", "copy", "again"} & {path.stem for path in side}) for side in sides) == [0, 0, 3]
    for i in range(4, 40):
        (mine / f"p{i}.png").unlink()
    with pytest.raises(SRKitError, match="copies of one picture"):
        split(mine, train=2, val=2, test=2)


@pytest.mark.parametrize(
    "wrong", [{"train": 38, "val": 2, "test": 1}, {"test": 41}, {"train": -1}, {"source": "bundled", "test": 4}]
)
def test_splits_that_cannot_be(wrong, mine):
    with pytest.raises(SRKitError):
        split(**{"source": mine, **wrong})
