"""sources and downloads: the registry, downloads that survive everything, and splits."""

from __future__ import annotations

import errno
import hashlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tarfile
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import shared
from PIL import Image

from srkit.data import SOURCES, downloads, pictures, sources, split
from srkit.data.downloads import File, fetch_file
from srkit.data.sources import Source, Way
from srkit.settings import SRKitError

DEAD = "http://127.0.0.1:9"  # nobody listens on the discard port


def png(colour: int, size: tuple[int, int] = (8, 6)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (colour % 256, colour // 256, 7)).save(out, "PNG")
    return out.getvalue()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as packed:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("toy/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    return path


FIVE = {f"toy/p{i}.png": png(i) for i in range(5)} | {"toy/readme.txt": b"no picture"}


@pytest.fixture
def data(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def site(tmp_path):
    """A local web server; `site.folder` is what it serves, `site.asked` what was asked of it."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            server.asked.append(self.path)

        def do_GET(self):
            if not self.path.startswith("/short/"):
                return super().do_GET()
            body = (folder / self.path.split("/")[-1]).read_bytes()
            self.send_response(200)  # the line breaks off half-way
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.folder, server.asked = folder, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def register(monkeypatch):
    """register(hash, urls, …) makes "toy" a known data set."""

    def add(hash: str, urls: list[str], name: str = "toy.zip", count: int = 5, unpack=("*.png",)) -> None:
        way = Way([File(name, hash, urls)], unpack)
        monkeypatch.setitem(SOURCES, "toy", Source("toy", "a toy", count, 1, "none", "http://page", (3, 1, 1), [way]))

    return add


@pytest.fixture
def toy(site, register) -> Path:
    """The toy set on the local server, registered."""
    archive = make_zip(site.folder / "toy.zip", FIVE)
    register(sha256(archive.read_bytes()), [f"{site.url}/toy.zip"])
    return archive


def fetch_in_a_process() -> multiprocessing.Process:
    """Another process that asks for the toy set."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs processes that are copies of this one")
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(5 - len(pictures("toy"))))
    process.start()
    return process


# ---------------------------------------------------------------------------------- downloads


def test_download_unpack_and_nothing_twice(toy, site, data):
    def here():
        return {row.name for row in sources.listing() if row.on_disk}

    assert here() == {"bundled"}
    (data / "downloads").mkdir(parents=True)
    (data / "downloads" / "toy.zip").write_bytes(toy.read_bytes()[:50])  # what broke off is fetched again
    found = pictures("toy")
    assert [path.relative_to(data / "toy").as_posix() for path in found] == [f"toy/p{i}.png" for i in range(5)]
    assert pictures("toy") == found and site.asked == ["/toy.zip"] and here() == {"bundled", "toy"}
    found[2].unlink()  # a picture lost later is noticed
    assert here() == {"bundled"} and len(pictures("toy")) == 5 and site.asked == ["/toy.zip"]


def test_mirrors_in_turn_dead_missing_damaged_truncated(site, register, data):
    whole = make_zip(site.folder / "toy.zip", FIVE).read_bytes()
    (site.folder / "bad").mkdir()
    (site.folder / "bad" / "toy.zip").write_bytes(whole[:-100] + bytes(100))
    urls = [f"{base}/toy.zip" for base in (DEAD, f"{site.url}/none", f"{site.url}/bad", f"{site.url}/short")]
    register(sha256(whole), urls)
    with pytest.raises(SRKitError) as error:
        pictures("toy")
    text = str(error.value)
    assert all(part in text for part in (urls[0], "no connection", "HTTP 404", "wrong hash", "SRKIT_MIRROR", "bundled"))
    assert "\n" not in text and not (data / "toy").exists()
    register(sha256(whole), [*urls, f"{site.url}/toy.zip"])
    assert len(pictures("toy")) == 5
    assert site.asked[-4:] == ["/none/toy.zip", "/bad/toy.zip", "/short/toy.zip", "/toy.zip"]
    assert not [path for path in (data / "downloads").iterdir() if path.name not in ("toy.zip", ".lock")]


def test_processes_that_fetch_at_once_all_get_the_whole_set(toy, site, data, monkeypatch):
    extract = zipfile.ZipFile.extractall
    monkeypatch.setattr(zipfile.ZipFile, "extractall", lambda *a: (time.sleep(0.5), extract(*a)))
    others = [fetch_in_a_process() for _ in range(3)]
    assert len(pictures("toy")) == 5
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    assert site.asked == ["/toy.zip"] and len(pictures("toy")) == 5 and not (data / ".toy.partial").exists()


def test_killed_while_unpacking_starts_again(toy, site, data, monkeypatch):
    def killed(self, folder, names):
        self.extract(names[0], folder)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "extractall", killed)
        other = fetch_in_a_process()
        other.join(60)
    assert other.exitcode == -9 and list((data / ".toy.partial").rglob("*.png")) and not (data / "toy").exists()
    assert len(pictures("toy")) == 5 and not (data / ".toy.partial").exists()
    assert site.asked == ["/toy.zip"]  # the archive was whole: not fetched again


def test_own_pictures_under_a_set_name_are_never_deleted(toy, data):
    (data / "toy").mkdir(parents=True)
    (data / "toy" / "mine.png").write_bytes(png(9))
    with pytest.raises(SRKitError, match="move it away"):
        pictures("toy")
    assert (data / "toy" / "mine.png").exists()


@pytest.mark.parametrize("below", ["", "toy"])
def test_mirrors(below, toy, site, register, tmp_path, monkeypatch):
    register(sha256(toy.read_bytes()), [f"{DEAD}/toy.zip"])
    folder = tmp_path / "mirror" / below
    folder.mkdir(parents=True)
    (folder / "toy.zip").write_bytes(b"something else")
    with pytest.raises(SRKitError, match="wrong hash"):
        pictures("toy", mirror=tmp_path / "mirror")
    with pytest.raises(SRKitError, match="no folder"):
        pictures("toy", mirror=tmp_path / "nowhere")
    shutil.copy(toy, folder / "toy.zip")
    monkeypatch.setenv("SRKIT_MIRROR", str(tmp_path / "mirror") if below else site.url + "/")
    assert len(pictures("toy")) == 5


@pytest.mark.parametrize("evil", [None, "../evil.png", "/tmp/evil.png", "a/../../evil.png"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archives_write_nothing_outside_and_links_are_left_out(evil, make, site, register, data):
    path = make(site.folder / "toy.packed", FIVE | ({evil: png(1)} if evil else {}))
    register(sha256(path.read_bytes()), [f"{site.url}/{path.name}"], name=path.name)
    if not evil:
        assert [path.name for path in pictures("toy")] == [f"p{i}.png" for i in range(5)]
        return
    with pytest.raises(SRKitError, match=r"not unpacked|holds 6 pictures, not 5"):
        pictures("toy")
    assert not list(data.parent.rglob("evil.png")) and not Path("/tmp/evil.png").exists()


def test_second_way_of_single_pictures_by_pixel_hash(site, monkeypatch, tmp_path):
    """The hash is of the pixels: a BMP copy is as good as the PNG it was taken from."""
    (tmp_path / "one.png").write_bytes(png(77))
    Image.open(tmp_path / "one.png").save(site.folder / "one.bmp")
    (site.folder / "cut").mkdir()
    (site.folder / "cut" / "one.png").write_bytes(png(77)[:40])
    value = f"pixels:{downloads.pixel_hash(tmp_path / 'one.png')}"
    archive = Way([File("gone.zip", "md5:0", [f"{DEAD}/gone.zip"])], ["*.png"])
    single = Way([File("one.png", value, [f"{site.url}/cut/one.png", f"{site.url}/one.bmp"])])
    monkeypatch.setitem(SOURCES, "toy", Source("toy", "", 1, 1, "", "", (1, 0, 0), [archive, single]))
    (path,) = pictures("toy")
    assert downloads.has_hash(path, value)


def test_voc_pictures_are_those_of_the_list(site, register):
    members = {f"kit/VOC/JPEGImages/{n}.png": png(i) for i, n in enumerate(("a", "b", "c"))}
    archive = make_zip(site.folder / "toy.zip", members | {"kit/VOC/ImageSets/Main/trainval.txt": b"a\nc\n"})
    unpack = ("*.png", "*/trainval.txt")
    register(sha256(archive.read_bytes()), [f"{site.url}/toy.zip"], count=2, unpack=unpack)
    assert [path.stem for path in pictures("toy")] == ["a", "c"]


@pytest.mark.parametrize(("place", "name"), [(zipfile.ZipFile, "extractall"), (downloads._Bounded, "write")])
def test_full_disk_is_one_line(place, name, toy, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, name, full)
    with pytest.raises(SRKitError, match="No space left on device"):
        pictures("toy")


def test_one_file_on_its_own(site, tmp_path, monkeypatch):
    content = bytes(3_000_000)
    (site.folder / "net.bin").write_bytes(content)
    folder = tmp_path / "weights"
    file = File("net.bin", sha256(content), [f"{site.url}/net.bin"], megabytes=3)
    with pytest.raises(SRKitError, match="far larger"):
        fetch_file(file._replace(megabytes=1), folder)
    monkeypatch.setattr(downloads, "AT_LEAST", -100)
    with pytest.raises(SRKitError, match="too slow") as error:
        fetch_file(file, folder, otherwise="ask for random weights")
    assert "or ask for random weights" in str(error.value) and not (folder / "net.bin").exists()
    monkeypatch.undo()
    assert fetch_file(file, folder).read_bytes() == content
    assert fetch_file(file._replace(urls=[]), folder) == folder / "net.bin"


# ---------------------------------------------------------------------------------- the registry


def test_registry_is_sound():
    lengths = {"md5": 32, "sha256": 64, "pixels": 64}
    for source in SOURCES.values():
        assert sum(source.split) <= source.count and (source.ways or source.name == "bundled")
        assert all(way.unpack or len(way.files) == source.count for way in source.ways)
        for file in (file for way in source.ways for file in way.files):
            kind, value = file.hash.split(":")
            assert len(value) == lengths[kind] and file.urls and 0 < file.megabytes <= 4000


def test_readme_tells_of_every_set():
    lines = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8").splitlines()
    for source in SOURCES.values():
        (line,) = [line for line in lines if line.startswith(f"| `{source.name}` |")]
        size = f"{source.megabytes:,} MB" if source.megabytes else "none"
        for fact in (f"{source.count:,}", size, source.licence, "/".join(f"{n:,}" for n in source.split)):
            assert fact in line


def test_hashes_fit_the_real_pictures():
    stems = {path.stem: path for path in pictures(shared("t91"))}
    assert all(downloads.has_hash(stems[Path(file.name).stem], file.hash) for file in SOURCES["t91"].ways[1].files)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_set5_from_a_mirror_folder_offline(tmp_path, set5, no_network):
    for path in set5.iterdir():
        shutil.copy(path, tmp_path / f"{path.stem.removesuffix('_GT')}.png")
    dealt = split("set5", mirror=tmp_path)
    assert [path.stem for path in dealt.test] == ["baby", "bird", "butterfly", "head", "woman"]
    assert dealt.train == dealt.val == []


def test_bundled_needs_no_network_and_writes_nothing(no_network, data):
    dealt = split("bundled")
    assert [path.stem for path in dealt.test] == ["astronaut", "chelsea", "coffee"]
    assert [path.stem for path in dealt.val] == ["ihc"]
    assert {"motorcycle_left", "motorcycle_right"} <= {path.stem for path in dealt.train}
    assert sum(map(len, dealt)) == len(pictures("bundled")) == 9 and not data.exists()


# ---------------------------------------------------------------------------------- a folder of one's own


def folder_of(path: Path, count: int) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (path / f"p{i}.png").write_bytes(png(i))
    return path


def test_own_folder(tmp_path):
    folder = folder_of(tmp_path / "mine", 3)
    (folder / "deep").mkdir()
    for name in ("deep/UPPER.PNG", "p10.JPG", "._p1.png", ".hidden.png", "notes.txt"):
        (folder / name).write_bytes(png(50))
    expected = ["deep/UPPER.PNG", "p0.png", "p1.png", "p2.png", "p10.JPG"]
    assert [path.relative_to(folder).as_posix() for path in pictures(str(folder))] == expected
    for wrong in (folder / "notes.txt", tmp_path / "nowhere", tmp_path.parent / "empty", "voc2017"):
        with pytest.raises(SRKitError):
            pictures(wrong)


# ---------------------------------------------------------------------------------- splits


def names(dealt: sources.Split) -> list[list[str]]:
    return [[path.name for path in paths] for paths in dealt]


def test_split_is_deterministic_disjoint_and_of_the_right_size(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "a", 40)
    dealt = split(folder, train=20, val=8, test=4, seed=3)
    assert list(map(len, dealt)) == [20, 8, 4] and len({*dealt.train, *dealt.val, *dealt.test}) == 32
    assert names(dealt)[2] == ["p3.png", "p5.png", "p14.png", "p18.png"]  # as it always was
    assert list(map(len, split(folder))) == [32, 4, 4] and list(map(len, split(folder, val=5))) == [35, 5, 0]
    assert split(folder, train=28, val=8, test=4, seed=3)[1:] == dealt[1:]
    rglob = Path.rglob  # the order in which the file system lists pictures does not matter
    monkeypatch.setattr(Path, "rglob", lambda *a: random.sample(found := list(rglob(*a)), k=len(found)))
    assert split(folder, train=20, val=8, test=4, seed=3) == dealt


def test_copies_and_declared_scenes_stay_on_one_side(tmp_path):
    folder = folder_of(tmp_path, 12)
    shutil.copy(folder / "p3.png", folder / "copy.png")
    paths = pictures(folder)
    for seed in range(8):
        for side in names(split(folder, train=5, val=4, test=3, seed=seed)):
            assert ("copy.png" in side) == ("p3.png" in side)
        dealt = names(sources._deal("toy", paths, (5, 4, 3), [["p1", "p7", "p8"]], seed))
        assert sum({"p1.png", "p7.png", "p8.png"} <= set(side) for side in dealt) == 1
    with pytest.raises(SRKitError, match="copies of one picture"):
        sources._deal("toy", paths, (4, 4, 4), [[f"p{i}" for i in range(6)]], 0)


def test_registered_default_and_fixed_splits(toy):
    assert list(map(len, split("toy"))) == [3, 1, 1]
    assert list(map(len, split("bundled", train=2, test=1, seed=5))) == [2, 1, 1]


@pytest.mark.parametrize(
    "wrong", [{"train": 8, "val": 2, "test": 1}, {"test": 11}, {"train": -1}, {"source": "bundled", "test": 4}]
)
def test_splits_that_cannot_be(wrong, tmp_path):
    folder_of(tmp_path / "mine", 10)
    with pytest.raises(SRKitError):
        split(**{"source": tmp_path / "mine", **wrong})
