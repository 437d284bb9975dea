"""settings: profiles and devices by name, folders, files that appear whole, and folders that one process has."""

from __future__ import annotations

import errno
import os
import threading

import pytest
import torch

from srkit import settings
from srkit.settings import SRKitError, atomic_write, current_profile, lock


def test_profiles(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert current_profile().name == "quick" and current_profile("full").steps == 20_000
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert current_profile().name == "class"
    monkeypatch.setenv("SRKIT_PROFILE", "full")
    monkeypatch.setenv("SRKIT_WEIGHTS", "mine.safetensors")
    assert current_profile().name == "full" and current_profile().feature_weights == "mine.safetensors"
    with pytest.raises(SRKitError, match="did you mean 'quick'"):
        current_profile("quik")
    assert "did you mean" not in str(settings.unknown("model", "xyz", ["srcnn"]))


def test_devices_and_precisions():
    cpu = settings.choose_device("cpu")
    assert cpu == torch.device("cpu") and settings.choose_precision("bf16", cpu) == "bf16"
    for name in ("cude", "mps" if torch.cuda.is_available() else "cuda"):
        with pytest.raises(SRKitError):
            settings.choose_device(name)
    for name in ("fp16", "bf61"):
        with pytest.raises(SRKitError):
            settings.choose_precision(name, cpu)
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


@pytest.mark.parametrize(
    ("value", "measured", "right"),
    [
        ("7,5 dB", 7.5, True),
        (" 1.5", 1.6, True),
        ("relu2_2 ", "relu2_2", True),
        ("None", "none", True),
        ("bilinear", "bicubic", False),
        ("many", 7.5, False),
    ],
)
def test_a_prediction_is_read_as_it_is_meant(value, measured, right, tmp_path, capsys):
    here = settings.setup("03", settings.Student("Ada"))
    settings.PREDICTIONS.clear()
    here.predict("it", value)
    here.measured("it", measured)
    assert settings.PREDICTIONS["it"].right is right


def test_predictions_come_first_and_are_scored_by_their_own_error_bar(tmp_path, capsys):
    settings.CHECKS.clear(), settings.PREDICTIONS.clear()
    settings.CHECKS.update(degrade=True, psnr=False)
    here = settings.setup("01", settings.Student("Ada"), "quick")
    here.predict("not yet", ...)
    here.predict("dB", 28.4, within=0.5)
    here.predict("pixels", 100)
    here.predict("best", "bicubic")
    here.predict("never told", 1)
    capsys.readouterr()
    here.measured("not yet", 3.0)
    here.measured("dB", torch.tensor(28.8))
    here.measured("pixels", 111)
    here.measured("best", "bicubic")
    here.predict("dB", 28.8)  # too late
    here.predict("dB", ...)
    assert settings.PREDICTIONS["dB"].value == 28.4
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["not yet: 3", "dB: 28.8; you predicted 28.4 ± 0.5: right"]
    assert told[2].endswith("you predicted 100 ± 10: not so") and "comes first" in told[4]
    here.figures.mkdir()
    for name in ("01_b.png", "02_a.png", "01_b.json"):
        (here.figures / name).touch()
    here.summary()
    told = capsys.readouterr().out
    assert "1 of 2 checks: degrade; srkit's own in place of psnr" in told and "2 of 3 within" in told
    assert "never told: predicted 1 ± 0.1, not measured yet" in told and "exported  01_b.png\n" in told
    settings.setup("01").summary()
    assert "NOT SIGNED" in capsys.readouterr().out


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


def test_a_locked_folder_refuses_another_names_who_has_it_and_can_be_waited_for(tmp_path, capsys):
    held: list[settings.Lock] = []
    taking = threading.Thread(target=lambda: held.append(lock(tmp_path / "run")))
    taking.start()
    taking.join()
    with pytest.raises(SRKitError, match=f"process {os.getpid()} on "):
        lock(tmp_path / "run", wait=False)
    threading.Timer(0.3, held[0].release).start()  # another thread than the one that took it
    with lock(tmp_path / "run"):
        assert f"waiting for process {os.getpid()}" in capsys.readouterr().err
    held[0].release()
    with lock(tmp_path / "run", wait=False):
        pass


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
