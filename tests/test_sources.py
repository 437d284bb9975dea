"""sources: the registry, downloads that survive everything, and splits."""

from __future__ import annotations

import errno
import hashlib
import io
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from srkit import downloads, sources
from srkit.downloads import File, Way
from srkit.errors import SRKitError
from srkit.sources import SOURCES, Source, pictures, split

SHARED = Path(__file__).parents[2] / "shared" / "data"
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


FIVE = {f"toy/p{i}.png": png(i) for i in range(5)} | {"toy/readme.txt": b"no picture"}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """A data folder of its own for every test."""
    folder = tmp_path / "data"
    monkeypatch.setenv("SRKIT_DATA", str(folder))
    monkeypatch.delenv("SRKIT_MIRROR", raising=False)
    return folder


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
        way = Way((File(name, hash, urls),), unpack)
        toy = Source("toy", "a toy", count, 1, "none", "http://page", (3, 1, 1), (way,))
        monkeypatch.setitem(SOURCES, "toy", toy)

    return add


@pytest.fixture
def toy(site, register):
    """The toy set on the local server, registered."""
    archive = make_zip(site.folder / "toy.zip", FIVE)
    register(sha256(archive.read_bytes()), [f"{site.url}/toy.zip"])
    return archive


# ---------------------------------------------------------------------------------- downloads


def test_download_unpack_and_nothing_twice(toy, site, data):
    found = pictures("toy")
    assert [path.name for path in found] == [f"p{i}.png" for i in range(5)]
    assert all(path.is_relative_to(data / "toy") for path in found)
    assert pictures("toy") == found
    assert site.asked == ["/toy.zip"]


def test_mirrors_in_turn_dead_missing_damaged_truncated(site, register, data):
    whole = make_zip(site.folder / "toy.zip", FIVE).read_bytes()
    (site.folder / "bad").mkdir()
    (site.folder / "bad" / "toy.zip").write_bytes(whole[:-100] + bytes(100))
    urls = [f"{base}/toy.zip" for base in (DEAD, f"{site.url}/none", f"{site.url}/bad", f"{site.url}/short")]
    register(sha256(whole), [*urls, f"{site.url}/toy.zip"])
    assert len(pictures("toy")) == 5
    assert list(dict.fromkeys(site.asked)) == ["/none/toy.zip", "/bad/toy.zip", "/short/toy.zip", "/toy.zip"]
    assert [path.name for path in (data / "downloads").iterdir()] == ["toy.zip"]


@pytest.mark.parametrize("how", ["short", "bad"])
def test_truncated_or_damaged_never_counts(how, site, register, data):
    whole = make_zip(site.folder / "toy.zip", FIVE).read_bytes()
    (site.folder / "bad").mkdir()
    (site.folder / "bad" / "toy.zip").write_bytes(whole[:-9])
    register(sha256(whole), [f"{site.url}/{how}/toy.zip"])
    for _ in range(2):
        with pytest.raises(SRKitError):
            pictures("toy")
    assert not (data / "toy").exists()
    assert not list((data / "downloads").iterdir())


def test_a_broken_file_already_there_is_fetched_again(toy, data):
    (data / "downloads").mkdir(parents=True)
    (data / "downloads" / "toy.zip").write_bytes(toy.read_bytes()[:50])
    assert len(pictures("toy")) == 5


def test_file_placed_by_hand_needs_no_network(toy, site, data):
    (data / "downloads").mkdir(parents=True)
    shutil.copy(toy, data / "downloads" / "toy.zip")
    assert len(pictures("toy")) == 5
    assert site.asked == []


def test_wrong_hash_everywhere_says_so(toy, site, register):
    register("sha256:" + "0" * 64, [f"{site.url}/toy.zip"])
    with pytest.raises(SRKitError, match=r"^toy: every copy of it has the wrong hash.*toy\.zip") as error:
        pictures("toy")
    assert "\n" not in str(error.value)


def test_offline_says_what_to_do(register):
    register("sha256:" + "0" * 64, [f"{DEAD}/toy.zip", f"{DEAD}/other/toy.zip"])
    with pytest.raises(SRKitError) as error:
        pictures("toy")
    text = str(error.value)
    assert text.startswith("toy: could not be had") and "\n" not in text
    for part in (
        f"{DEAD}/toy.zip",
        f"{DEAD}/other/toy.zip",
        "no connection",
        "mirror=",
        "SRKIT_MIRROR",
        "bundled",
    ):
        assert part in text


def test_killed_while_unpacking_starts_again(toy, site, data, monkeypatch):
    code = f"""
import os, signal, shutil, zipfile
from srkit import sources
from srkit.downloads import File, Way
from srkit.sources import Source
def killed(self, folder, names):
    zipfile.ZipFile.extract(self, names[0], folder)
    os.kill(os.getpid(), signal.SIGKILL)
zipfile.ZipFile.extractall = killed
way = Way((File("toy.zip", {SOURCES["toy"].ways[0].files[0].hash!r}, ["{site.url}/toy.zip"]),), ["*.png"])
sources.SOURCES["toy"] = Source("toy", "", 5, 1, "", "", (3, 1, 1), (way,))
sources.pictures("toy")
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    assert list((data / ".toy.partial").rglob("*.png")) and not (data / "toy").exists()
    assert len(pictures("toy")) == 5
    assert not (data / ".toy.partial").exists()
    assert site.asked == ["/toy.zip"]  # the archive was whole: not fetched again


def test_a_picture_lost_later_is_noticed(toy):
    pictures("toy")[2].unlink()
    assert len(pictures("toy")) == 5


def test_archive_with_too_few_pictures(site, register, data):
    archive = make_zip(site.folder / "toy.zip", FIVE)
    register(sha256(archive.read_bytes()), [f"{site.url}/toy.zip"], count=6)
    with pytest.raises(SRKitError, match="holds 5 pictures, not 6"):
        pictures("toy")
    assert not (data / "toy").exists()


def test_own_pictures_under_a_set_name_are_never_deleted(toy, data):
    (data / "toy").mkdir(parents=True)
    (data / "toy" / "mine.png").write_bytes(png(9))
    with pytest.raises(SRKitError, match="move it away"):
        pictures("toy")
    assert (data / "toy" / "mine.png").exists()


@pytest.mark.parametrize("below", ["", "toy"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_mirror_folder(below, by, toy, site, register, tmp_path, monkeypatch):
    register(sha256(toy.read_bytes()), [f"{DEAD}/toy.zip"])
    folder = tmp_path / "mirror" / below
    folder.mkdir(parents=True)
    shutil.move(toy, folder / "toy.zip")
    if by == "environment":
        monkeypatch.setenv("SRKIT_MIRROR", str(tmp_path / "mirror"))
    assert len(pictures("toy", mirror=tmp_path / "mirror" if by == "argument" else None)) == 5


def test_mirror_address(toy, site, register):
    register(sha256(toy.read_bytes()), [f"{DEAD}/toy.zip"])
    assert len(pictures("toy", mirror=site.url + "/")) == 5


def test_mirror_is_checked_too(toy, register, tmp_path):
    register(sha256(toy.read_bytes()), [f"{DEAD}/toy.zip"])
    (tmp_path / "toy.zip").write_bytes(b"something else")
    with pytest.raises(SRKitError, match="wrong hash"):
        pictures("toy", mirror=tmp_path)
    with pytest.raises(SRKitError, match="no folder"):
        pictures("toy", mirror=tmp_path / "nowhere")


@pytest.mark.parametrize("evil", ["../evil.png", "/tmp/evil.png", "a/../../evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archive_that_writes_outside_is_refused(evil, kind, site, register, data):
    path = site.folder / f"toy.{kind}"
    if kind == "zip":
        make_zip(path, FIVE | {evil: png(1)})
    else:
        with tarfile.open(path, "w") as packed:
            for name, content in (FIVE | {evil: png(1)}).items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    register(sha256(path.read_bytes()), [f"{site.url}/{path.name}"], name=path.name)
    with pytest.raises(SRKitError, match="outside its folder"):
        pictures("toy")
    assert not list(data.parent.rglob("evil.png"))
    assert not (data / "toy").exists()


def test_tar_links_are_left_out(site, register, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(1))
    with tarfile.open(site.folder / "toy.tar", "w") as packed:
        for name, content in FIVE.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("toy/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        packed.addfile(link)
    tar = site.folder / "toy.tar"
    register(sha256(tar.read_bytes()), [f"{site.url}/toy.tar"], name="toy.tar")
    assert [path.name for path in pictures("toy")] == [f"p{i}.png" for i in range(5)]


def test_second_way_of_single_pictures_by_pixel_hash(site, monkeypatch, tmp_path, data):
    """The hash is of the pixels: a BMP copy is as good as the PNG it was taken from."""
    (tmp_path / "one.png").write_bytes(png(77))
    Image.open(tmp_path / "one.png").save(site.folder / "one.bmp")
    (site.folder / "cut").mkdir()
    (site.folder / "cut" / "one.png").write_bytes(png(77)[:40])
    value = f"pixels:{downloads.pixel_hash(tmp_path / 'one.png')}"
    archive = Way((File("gone.zip", "md5:0", (f"{DEAD}/gone.zip",)),), ("*.png",))
    single = Way((File("one.png", value, (f"{site.url}/cut/one.png", f"{site.url}/one.bmp")),))
    monkeypatch.setitem(SOURCES, "toy", Source("toy", "", 1, 1, "", "", (1, 0, 0), (archive, single)))
    (path,) = pictures("toy")
    assert downloads.has_hash(path, value)


def test_full_disk_is_one_line(toy, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_copy", full)
    with pytest.raises(SRKitError, match=r"disk full.*SRKIT_DATA"):
        pictures("toy")


def test_listing_says_what_is_here(toy):
    assert not {row.name: row for row in sources.listing()}["toy"].on_disk
    pictures("toy")
    rows = {row.name: row for row in sources.listing()}
    assert rows["toy"].on_disk and rows["bundled"].on_disk and not rows["voc2012"].on_disk


# ---------------------------------------------------------------------------------- the registry


def test_registry_is_sound():
    assert set(SOURCES) >= {
        "bundled",
        "voc2007",
        "voc2011",
        "voc2012",
        "t91",
        "set5",
        "set14",
        "bsd100",
        "div2k",
    }
    lengths = {"md5": 32, "sha256": 64, "pixels": 64}
    for source in SOURCES.values():
        assert sum(source.split) <= source.count and source.licence and source.title
        assert source.ways or source.name == "bundled"
        for file in (file for way in source.ways for file in way.files):
            kind, value = file.hash.split(":")
            assert len(value) == lengths[kind] and file.urls
            assert all(downloads._is_address(url) for url in file.urls)
        for way in source.ways:
            assert way.unpack or len(way.files) == source.count
    assert SOURCES["voc2007"].split == [4011, 1000, 0] and SOURCES["voc2011"].split == [1000, 200, 0]


def test_readme_tells_of_every_set():
    lines = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8").splitlines()
    for source in SOURCES.values():
        (line,) = [line for line in lines if line.startswith(f"| `{source.name}` |")]
        size = f"{source.megabytes:,} MB" if source.megabytes else "none"
        for fact in (f"{source.count:,}", size, source.licence, "/".join(f"{n:,}" for n in source.split)):
            assert fact in line


@pytest.mark.parametrize(("name", "folder"), [("t91", "t91"), ("set5", "set5/hr")])
def test_hashes_fit_the_real_pictures(name, folder):
    if not (SHARED / folder).is_dir():
        pytest.skip("the real pictures are not here")
    (way,) = [way for way in SOURCES[name].ways if not way.unpack]
    stems = {path.stem.removesuffix("_GT"): path for path in pictures(SHARED / folder)}
    assert len(stems) == SOURCES[name].count
    for file in way.files:
        assert downloads.has_hash(stems[Path(file.name).stem], file.hash), file.name


def test_set5_from_a_mirror_folder_offline(tmp_path, no_network):
    if not (SHARED / "set5").is_dir():
        pytest.skip("the real pictures are not here")
    for path in (SHARED / "set5" / "hr").iterdir():
        shutil.copy(path, tmp_path / f"{path.stem.removesuffix('_GT')}.png")
    parts = split("set5", mirror=tmp_path)
    assert [path.stem for path in parts.test] == ["baby", "bird", "butterfly", "head", "woman"]
    assert parts.train == parts.val == []


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_bundled_needs_no_network_and_writes_nothing(no_network, data):
    parts = split("bundled")
    assert [path.stem for path in parts.test] == ["astronaut", "chelsea", "coffee"]
    assert [path.stem for path in parts.val] == ["ihc"]
    assert {"motorcycle_left", "motorcycle_right"} <= {path.stem for path in parts.train}
    assert sum(map(len, (parts.train, parts.val, parts.test))) == len(pictures("bundled")) == 9
    assert not data.exists()


def test_bundled_does_not_import_skimage():
    code = "import sys; from srkit.sources import pictures; pictures('bundled'); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("skimage", "pooch", "requests", "torchvision", "matplotlib"):
        assert f"'{name}'" not in modules


# ---------------------------------------------------------------------------------- a folder of one's own


def folder_of(path: Path, count: int, first: int = 0) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (path / f"p{i}.png").write_bytes(png(first + i))
    return path


def test_own_folder(tmp_path):
    folder = folder_of(tmp_path / "mine", 3)
    (folder / "deep").mkdir()
    for name in ("deep/UPPER.PNG", "p10.JPG", "._p1.png", ".hidden.png", "notes.txt"):
        (folder / name).write_bytes(png(50))
    expected = ["deep/UPPER.PNG", "p0.png", "p1.png", "p2.png", "p10.JPG"]
    assert [path.relative_to(folder).as_posix() for path in pictures(folder)] == expected
    assert pictures(str(folder)) == pictures(folder)


def test_bad_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SRKitError, match="no pictures in this folder"):
        pictures(tmp_path)
    with pytest.raises(SRKitError, match="no pictures in this folder"):
        pictures(tmp_path / "empty")
    with pytest.raises(SRKitError, match="this is a file"):
        pictures(tmp_path / "notes.txt")
    with pytest.raises(SRKitError, match="no such folder"):
        pictures(tmp_path / "nowhere")
    with pytest.raises(SRKitError, match=r"unknown data set 'voc2017': did you mean 'voc201\d'.*folder of your own"):
        pictures("voc2017")


def test_data_folder(tmp_path, monkeypatch):
    assert sources.data_folder() == tmp_path / "data"
    monkeypatch.delenv("SRKIT_DATA")
    monkeypatch.delenv("SRKIT_ROOT")
    monkeypatch.chdir(tmp_path)
    assert sources.data_folder() == tmp_path / "data"
    for name in ("notebooks", "srkit"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert sources.data_folder() == tmp_path / "data"


# ---------------------------------------------------------------------------------- splits


def names(parts: sources.Split) -> list[list[str]]:
    return [[path.name for path in part] for part in (parts.train, parts.val, parts.test)]


def test_split_is_deterministic_disjoint_and_of_the_right_size(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "a", 40)
    parts = split(folder, train=20, val=8, test=4, seed=3)
    assert [len(part) for part in names(parts)] == [20, 8, 4]
    assert len({*parts.train, *parts.val, *parts.test}) == 32
    assert split(folder, train=20, val=8, test=4, seed=3) == parts
    assert split(folder, train=20, val=8, test=4, seed=4) != parts
    assert [len(part) for part in names(split(folder))] == [32, 4, 4]
    assert [len(part) for part in names(split(folder, val=5))] == [35, 5, 0]
    larger = split(folder, train=28, val=8, test=4, seed=3)
    assert (larger.val, larger.test) == (parts.val, parts.test)

    # neither where the folder lies nor the order in which the file system lists it matters
    elsewhere = shutil.copytree(folder, tmp_path / "zz" / "b")
    assert names(split(elsewhere, train=20, val=8, test=4, seed=3)) == names(parts)
    rglob = Path.rglob

    def shuffled(self, pattern):
        return random.sample(list(rglob(self, pattern)), k=len(list(rglob(self, pattern))))

    monkeypatch.setattr(Path, "rglob", shuffled)
    assert split(folder, train=20, val=8, test=4, seed=3) == parts


@pytest.mark.parametrize("seed", range(8))
def test_copies_stay_on_one_side(seed, tmp_path):
    folder = folder_of(tmp_path, 12)
    shutil.copy(folder / "p3.png", folder / "copy.png")
    for part in names(split(folder, train=5, val=4, test=3, seed=seed)):
        assert ("copy.png" in part) == ("p3.png" in part)


def test_declared_scenes_stay_on_one_side(tmp_path):
    paths = pictures(folder_of(tmp_path, 10))
    for seed in range(8):
        parts = sources._deal("toy", paths, (4, 3, 3), [["p1", "p7", "p8"]], seed)
        assert [len(part) for part in names(parts)] == [4, 3, 3]
        assert sum({"p1.png", "p7.png", "p8.png"} <= set(part) for part in names(parts)) == 1
    with pytest.raises(SRKitError, match="part copies of one picture"):
        sources._deal("toy", paths, (4, 3, 3), [[f"p{i}" for i in range(5)]], 0)


def test_too_many_or_negative(tmp_path, toy):
    folder = folder_of(tmp_path / "mine", 10)
    with pytest.raises(SRKitError, match=r"8 \+ 2 \+ 1 = 11 pictures asked for, but it has 10"):
        split(folder, train=8, val=2, test=1)
    with pytest.raises(SRKitError, match=r"11 = 11 pictures asked for, but it has 10"):
        split(folder, test=11)
    with pytest.raises(SRKitError, match="negative"):
        split(folder, train=-1)
    with pytest.raises(SRKitError, match="4 pictures asked for, but this part of it has 3"):
        split("bundled", test=4)


def test_registered_default_and_fixed_parts(toy):
    assert [len(part) for part in names(split("toy"))] == [3, 1, 1]
    assert [len(part) for part in names(split("bundled", train=2, test=1, seed=5))] == [2, 1, 1]


def test_voc_pictures_are_those_of_the_list(site, register):
    members = {f"kit/VOC/JPEGImages/{n}.png": png(i) for i, n in enumerate(("a", "b", "c"))}
    archive = make_zip(site.folder / "toy.zip", members | {"kit/VOC/ImageSets/Main/trainval.txt": b"a\nc\n"})
    urls, unpack = [f"{site.url}/toy.zip"], ("*.png", "*/trainval.txt")
    register(sha256(archive.read_bytes()), urls, count=2, unpack=unpack)
    assert [path.stem for path in pictures("toy")] == ["a", "c"]
    assert pictures("toy")[0].parent.name == "JPEGImages"
