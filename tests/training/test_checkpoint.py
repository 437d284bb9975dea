"""checkpoint: written whole or not at all, read without ever running anything."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from srkit.errors import SRKitError
from srkit.training import checkpoint

STATE = {"recipe": {"name": "x"}, "step": 3, "weights": torch.arange(1000.0)}


class Payload:
    """What a malicious file would hold: unpickling it would make a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_round_trip_and_keeping_the_one_before(tmp_path):
    path = tmp_path / "new" / "last.pt"
    checkpoint.save(STATE, path)
    checkpoint.save({**STATE, "step": 4}, path, keep=tmp_path / "new" / "previous.pt")
    assert checkpoint.load(path)["step"] == 4
    assert checkpoint.load(tmp_path / "new" / "previous.pt")["step"] == 3
    assert torch.equal(checkpoint.load(path)["weights"], STATE["weights"])


def test_keeping_works_where_links_do_not(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("links are not supported")

    monkeypatch.setattr(os, "link", no_links)
    test_round_trip_and_keeping_the_one_before(tmp_path)


def test_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = checkpoint.save(STATE, tmp_path / "last.pt")

    def full(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SRKitError, match=r"could not save .*No space left.*the checkpoint before it is whole"):
        checkpoint.save({**STATE, "step": 4}, path)
    assert checkpoint.load(path)["step"] == 3 and os.listdir(tmp_path) == ["last.pt"]


def test_files_that_are_no_checkpoints(tmp_path):
    whole = checkpoint.save(STATE, tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 255
    (tmp_path / "damaged.pt").write_bytes(middle)
    torch.save({"model": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    cases = {
        "none.pt": "no such checkpoint", "cut.pt": "truncated", "text.pt": "truncated, or no checkpoint",
        "empty.pt": "truncated", "damaged.pt": "damaged", "other.pt": "another program", "tensor.pt": "another program",
    }  # fmt: skip
    for name, message in cases.items():
        with pytest.raises(SRKitError, match=message) as caught:
            checkpoint.load(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_payload_is_never_executed(zipped, tmp_path):
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    if zipped:
        torch.save({"format": checkpoint.FORMAT, "model": Payload(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Payload(target)))
    with pytest.raises(SRKitError, match="pickled program" if zipped else "no checkpoint"):
        checkpoint.load(path)
    assert not target.exists()


def test_weights_sha256_sees_every_bit_name_and_shape():
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    sha = checkpoint.weights_sha256(weights)
    assert sha == checkpoint.weights_sha256(dict(reversed(weights.items())))
    for changed in (
        {**weights, "a": torch.zeros(3, 2)},
        {"c": weights["a"], "b": weights["b"]},
        {**weights, "b": -weights["b"]},
    ):
        assert checkpoint.weights_sha256(changed) != sha
