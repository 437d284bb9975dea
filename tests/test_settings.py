"""settings: profiles and devices by name, folders, files that appear whole, and folders that one process has."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from srkit import settings
from srkit.settings import SRKitError, atomic_write, current_profile, lock


def test_unknown_names_the_nearest():
    assert "did you mean 'srcnn'?" in str(settings.unknown("model", "srcn", ["srcnn", "bicubic"]))
    assert "did you mean" not in str(settings.unknown("model", "xyz", ["srcnn"]))


def test_profiles(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert current_profile().name == "quick" and current_profile("full").steps == 20_000
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert current_profile().name == "class"
    monkeypatch.setenv("SRKIT_PROFILE", "full")
    monkeypatch.setenv("SRKIT_WEIGHTS", "mine.safetensors")
    assert current_profile().name == "full" and current_profile().feature_weights == "mine.safetensors"
    with pytest.raises(SRKitError):
        current_profile("quik")


def test_devices_and_precisions():
    assert settings.choose_device("cpu") == torch.device("cpu")
    assert settings.choose_precision("bf16", torch.device("cpu")) == "bf16"
    for wrong in (
        lambda: settings.choose_device("cude"),
        lambda: settings.choose_device("cuda" if not torch.cuda.is_available() else "mps"),
        lambda: settings.choose_precision("fp16", torch.device("cpu")),
    ):
        with pytest.raises(SRKitError):
            wrong()
    assert settings.free_memory() > 2**20
    assert settings.out_of_memory(MemoryError()) and not settings.out_of_memory(ValueError())


def test_folders_and_setup(tmp_path, monkeypatch, capsys):
    here = settings.setup("03", settings.Student("Ada", "42"), "quick")
    assert (here.lesson, here.runs, here.figures) == ("03", tmp_path / "runs", tmp_path / "figures")
    assert "Ada · 42" in capsys.readouterr().out
    assert settings.data_folder() == tmp_path / "data"
    monkeypatch.delenv("SRKIT_ROOT")
    for name in ("notebooks", "srkit"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert settings.root() == tmp_path
    monkeypatch.setenv("SRKIT_DATA", str(tmp_path / "elsewhere"))
    assert settings.data_folder() == tmp_path / "elsewhere"


# ---------------------------------------------------------------------------------- files that matter


@pytest.mark.parametrize("links", [True, False])
def test_a_file_appears_whole_or_not_at_all(links, tmp_path, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    path, previous = tmp_path / "deep" / "a.txt", tmp_path / "deep" / "b.txt"
    for text in ("zero", "one", "two"):
        with atomic_write(path, keep=previous) as draft:
            assert draft.parent == path.parent and draft.suffix == ".txt"
            draft.write_text(text)
            assert not path.exists() or path.read_text() != text
    with pytest.raises(KeyError), atomic_write(path) as draft:
        draft.write_text("three")
        raise KeyError
    with pytest.raises(SRKitError, match=r"a\.txt .*No space left"), atomic_write(path) as draft:
        draft.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(SRKitError), atomic_write(path / "below.txt"):
        pass
    assert {file.name: file.read_text() for file in path.parent.iterdir()} == {"a.txt": "two", "b.txt": "one"}


def test_a_locked_folder_refuses_another_and_names_who_has_it(tmp_path):
    mine = lock(tmp_path / "run")
    code = f"from srkit.settings import *; lock({str(tmp_path / 'run')!r}, wait=False)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"SRKitError: {tmp_path / 'run'}: process {os.getpid()} on " in other.stderr
    with pytest.raises(SRKitError):
        lock(tmp_path / "run", wait=False)
    releasing = threading.Thread(target=mine.release)  # of another thread than the one that took it
    releasing.start()
    releasing.join()
    mine.release()
    with lock(tmp_path / "run", wait=False):
        pass


def test_waiting_for_a_lock_says_for_whom(tmp_path, capsys):
    taken = threading.Event()

    def hold():
        with lock(tmp_path):
            taken.set()
            time.sleep(0.3)

    threading.Thread(target=hold).start()
    taken.wait(10)
    with lock(tmp_path):
        assert f"waiting for process {os.getpid()}" in capsys.readouterr().err


def test_a_file_system_without_locks_goes_on_without(tmp_path, monkeypatch):
    import filelock

    def refuse(*_, **__):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with lock(tmp_path), lock(tmp_path, wait=False):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(SRKitError):
        lock(tmp_path / "file" / "folder")
