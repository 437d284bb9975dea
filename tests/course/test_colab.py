"""Colab's Drive, with a stand-in for google.colab: the set-up cell mounts it, keeps work there, and says so."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest

from srkit import settings
from srkit.course import colab as colab_module
from srkit.course import handout, lessons
from srkit.settings import SRKitError

(LESSON,) = lessons.find(["01"])
SET_UP = next(cell.source for cell in nbformat.read(LESSON, as_version=4).cells if cell.get("id") == "set-up")


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """Colab, whose Drive is mounted when it is asked for, if `says` is yes."""
    found = SimpleNamespace(says="yes", drive=tmp_path / "content" / "drive", mounted=False)

    def mount(place: str) -> None:
        if found.says != "yes":
            raise ValueError("mount failed")
        Path(place, "MyDrive").mkdir(parents=True, exist_ok=True)
        found.mounted = True

    google, module = ModuleType("google"), ModuleType("google.colab")
    module.drive = SimpleNamespace(mount=mount)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setattr(settings, "DRIVE", found.drive)
    monkeypatch.setattr(os.path, "ismount", lambda path: found.mounted and Path(path) == found.drive)
    monkeypatch.setenv("SRKIT_ROOT", "")
    monkeypatch.chdir(tmp_path)
    return found


def run_set_up(drive: bool, mirror: str = "") -> None:
    cell = SET_UP.replace("DRIVE = False", f"DRIVE = {drive}").replace('MIRROR = ""', f"MIRROR = {mirror!r}")
    exec(cell, {})


def test_ticked_it_keeps_work_on_the_drive_and_downloads_off_it(colab, capsys):
    run_set_up(True, "/a/mirror")
    here = settings.setup("03", profile="quick")
    assert here.runs == colab.drive / "MyDrive" / "srkit" / "runs" and here.runs.parent.is_dir()
    assert settings.data_folder() == Path("/content/data") and os.environ["SRKIT_MIRROR"] == "/a/mirror"
    assert f"{here.runs.parent}: kept" in capsys.readouterr().out
    run_set_up(True, "/another")  # again: all is as it was
    assert settings.setup("03").runs == here.runs and os.environ["SRKIT_MIRROR"] == "/a/mirror"


def test_not_ticked_it_says_what_will_be_lost_and_a_drive_that_says_no_is_a_line(colab, capsys):
    run_set_up(False)
    assert "gone when the session ends, unless you tick DRIVE" in capsys.readouterr().out
    colab.says = "no"
    with pytest.raises(SRKitError, match=r"no Drive \(mount failed\): run this cell again and allow it"):
        run_set_up(True)
    assert not os.environ["SRKIT_ROOT"] and not colab.drive.exists()


def test_a_drive_that_is_not_mounted_is_refused_and_no_folder_made(colab, monkeypatch):
    monkeypatch.setenv("SRKIT_ROOT", str(colab.drive / "MyDrive" / "srkit"))
    for use in (lambda: settings.setup("03"), settings.data_folder):
        with pytest.raises(SRKitError, match="no Drive is mounted: tick DRIVE"):
            use()
    assert not colab.drive.exists()
    colab.mounted = True
    assert settings.setup("03").runs.is_relative_to(colab.drive)


def test_a_photo_comes_from_a_name_an_upload_or_along(colab, tmp_path, monkeypatch, capsys):
    assert colab_module.photo().stem == "chelsea"  # google.colab without files: as elsewhere
    (tmp_path / "mine.jpg").write_bytes(b"any")
    assert colab_module.photo(str(tmp_path / "mine.jpg")) == tmp_path / "mine.jpg"
    with pytest.raises(SRKitError, match="no such file"):
        colab_module.photo("yours.jpg")
    given, taken = {"mine.jpg": b"any"}, []
    files = SimpleNamespace(upload=lambda: given, download=taken.append)
    monkeypatch.setattr(sys.modules["google.colab"], "files", files, raising=False)
    assert colab_module.photo() == tmp_path / "mine.jpg"
    given.clear()  # cancelled
    assert colab_module.photo().stem == "chelsea"
    colab_module.keep(tmp_path / "mine.jpg")
    assert taken == [str(tmp_path / "mine.jpg")] and "mine.jpg, 0.0 MB" in capsys.readouterr().out


def test_elsewhere_it_does_nothing(tmp_path, capsys):
    run_set_up(True)
    assert settings.root() == tmp_path and not capsys.readouterr().out


def test_a_teacher_names_revision_and_mirror_in_one_place(tmp_path):
    paths = handout.handout(tmp_path / "out", ["01", "10"], revision="v0.2", mirror="https://files.example/sr")
    for path in (path for path in paths if path.suffix == ".ipynb"):
        found = dict(re.findall(r'^(REVISION|MIRROR) = "(.*?)"', "\n".join(
            cell.source for cell in nbformat.read(path, as_version=4).cells if cell.id == "set-up"), re.M))  # fmt: skip
        assert found == {"REVISION": "v0.2", "MIRROR": "https://files.example/sr"}
    with pytest.raises(SRKitError, match="one word"):
        handout.handout(tmp_path / "other", ["01"], revision='v0"; import os')
