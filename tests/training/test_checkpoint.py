"""checkpoint and history: written whole or not at all, read without ever running anything."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch

from srkit.models import pretrained
from srkit.settings import SRKitError
from srkit.training import History, Move, checkpoint

FIELDS = {name: kind() for name, kind in pretrained.FIELDS.items()}
STATE = {**FIELDS, "model_config": {"name": "x"}, "step": 3, "model": {"weight": torch.arange(1000.0)}}


class Payload:
    """What a malicious file would hold: unpickling it would make a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = checkpoint.save(STATE, tmp_path / "last.pt")

    def full(state, file):
        file.write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SRKitError):
        checkpoint.save({**STATE, "step": 4}, path)
    assert checkpoint.load(path)["step"] == 3 and os.listdir(tmp_path) == ["last.pt"]


@pytest.fixture
def no_checkpoint(tmp_path):
    """A file by the name of what is wrong with it."""
    whole = checkpoint.save(STATE, tmp_path / "whole.pt").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    contents = {"cut": whole[: len(whole) // 2], "text": b"not a checkpoint", "empty": b"", "damaged": bytes(damaged)}
    contents["pickle"] = pickle.dumps(Payload(tmp_path / "executed"))
    for name, content in contents.items():
        (tmp_path / f"{name}.pt").write_bytes(content)
    torch.save({"format": pretrained.STAMP, "model": Payload(tmp_path / "executed")}, tmp_path / "evil.pt")
    torch.save({"model": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({"format": "srkit checkpoint 1"}, tmp_path / "old.pt")
    return tmp_path


KINDS = ("none", "cut", "text", "empty", "damaged", "pickle", "evil", "other", "tensor", "old")


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_checkpoint_is_refused_in_one_line_and_never_executed(name, no_checkpoint):
    with pytest.raises(SRKitError, match=f"{name}.pt") as caught:
        checkpoint.load(no_checkpoint / f"{name}.pt")
    assert "\n" not in str(caught.value) and not (no_checkpoint / "executed").exists()


@pytest.mark.parametrize("change", [{"step": None}, {"step": -1}, {"step": "3"}, {"config": []}, {"history": {}},
                                    {"student": {"name": [[["deep"]]]}}, {"dataset": {"seed": 10**30}}])  # fmt: skip
def test_a_field_that_is_missing_or_of_another_kind_is_named(change, tmp_path):
    ((name, value),) = change.items()
    state = {key: field for key, field in {**STATE, **change}.items() if value is not None or key != name}
    path = checkpoint.save(state, tmp_path / "last.pt")
    with pytest.raises(SRKitError, match=name):
        checkpoint.load(path)


def test_a_file_from_before_a_field_existed_is_read(tmp_path):
    path = checkpoint.save(STATE, tmp_path / "last.pt")
    assert {key: checkpoint.load(path)[key] for key in ("student", "moves")} == {"student": {}, "moves": []}


def test_a_history_on_a_full_disk_is_one_line(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.open()
    history.path = tmp_path / "gone" / "history.jsonl"
    with pytest.raises(SRKitError, match="could not write"):
        history.add({"step": 1})


def test_history_in_memory_and_in_its_file_say_the_same(tmp_path):
    history = History(tmp_path / "new" / "history.jsonl")
    history.add({"step": 10, "mse": 0.5})
    assert not history.path.exists()
    history.open()
    for row in ({"step": 20, "val/dB": 30.0}, {"step": 20, "mse": 0.25}):
        history.add(row)
    assert [json.loads(line) for line in history.path.read_text().splitlines()] == history.rows
    history.add_move(Move(20, "mse", 1.0, 0.5))
    assert history.series("mse") == ([10, 20], [0.5, 0.25]) and history.series("nothing") == ([], [])
    assert history.names() == ["mse", "val/dB"]
    history.restore(history.rows[:2], [[20, "lr", 1.0, 0.5]])  # what came after is dropped
    history.add({"step": 30, "mse": 0.0})
    lines = [json.loads(line) for line in history.path.read_text().splitlines()]
    assert [line for line in lines if "name" not in line] == history.rows and len(history.rows) == 3
    assert history.moves == [Move(20, "lr", 1.0, 0.5)] and {"step": 20, "name": "lr", "old": 1.0, "new": 0.5} in lines


@pytest.mark.parametrize("row", [torch.zeros(2), "a row", {"step": 1, "mse": torch.zeros(2)}, {"step": "1"}])
@pytest.mark.filterwarnings("error")
def test_a_history_of_anything_but_numbers_is_refused(row):
    with pytest.raises(SRKitError, match="numbers"):
        History().restore([{"step": 1, "mse": 0.5}, row], [])
