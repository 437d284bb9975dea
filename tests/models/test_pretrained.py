"""pretrained: what ships, checkpoints and other files by one way; read without ever running anything."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from srkit import metrics, models
from srkit.data import load_dataset
from srkit.models import pretrained
from srkit.models.pretrained import STAMP, load, read, weights_sha256
from srkit.settings import SRKitError


def one_line(call, *words) -> None:
    """It raises one line that holds the words."""
    with pytest.raises(SRKitError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert str(word) in str(caught.value)


@pytest.mark.parametrize("name", pretrained.names())
def test_what_ships_does_what_its_card_says(name):
    card = pretrained.card(name)
    model = load(name)
    assert not model.training and model.pretrained and next(model.parameters()).dtype == torch.float32
    photo = 1.0 if "degradation" in card else None  # LR as it learnt it
    photographs = load_dataset("bundled", "test", size=96, photo=photo)
    bicubic = models.create("bicubic", model.scale)
    here, there = (metrics.evaluate(one, photographs, model.scale, with_ssim=False) for one in (model, bicubic))
    assert here.psnr > there.psnr
    assert all(card["measured"][test]["psnr"] > card["bicubic"][test]["psnr"] for test in card["measured"])


def test_names_that_nobody_knows(tmp_path):
    one_line(lambda: load("srresnet-smal-x4"), "did you mean 'srresnet-small-x4'")
    one_line(lambda: pretrained.card("srcnn-x5"), "srcnn")
    one_line(lambda: load(tmp_path / "none.pt"), tmp_path / "none.pt", "no such file")


def test_published_weights_are_found_and_checked(tmp_path):
    model = models.create("srresnet", 2, channels=4, blocks=1)
    path = pretrained.publish(model, "mine-x2", {"steps": 3}, tmp_path)
    assert pretrained.names(tmp_path) == ["mine-x2"] and pretrained.card("mine-x2", tmp_path)["steps"] == 3
    again = load(path)
    assert again.pretrained and again.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value.half().float() if value.is_floating_point() else value)
    other = pretrained.publish(models.create("srresnet", 2, channels=4, blocks=1), "other-x2", {}, tmp_path)
    shutil.copyfile(other, path)
    one_line(lambda: load(path), path, "other weights than the card")


# ---------------------------------------------------------------------------------- checkpoints


def state(**changes: Any) -> dict[str, Any]:
    """What a checkpoint holds of a model."""
    model = models.create("srcnn", 2, channels=(8, 4))
    fields = {"format": STAMP, "model_config": model.config, "model": model.state_dict(), "ema": None, "step": 3}
    return {**fields, **changes}


def test_a_checkpoint_rebuilds_its_model_with_the_average_if_it_has_one(tmp_path):
    whole = state()
    average = {key: value + 1 for key, value in whole["model"].items()}
    for step, ema, weights in ((3, None, whole["model"]), (0, average, average)):
        torch.save({**whole, "ema": ema, "step": step}, tmp_path / "last.pt")
        model = load(tmp_path / "last.pt")
        assert model.pretrained == (step > 0) and not model.training and model.config["name"] == "srcnn"
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("changes, word", [
    ({"format": "srkit checkpoint 1"}, "this srkit reads"),
    ({"format": None}, "another program"),
    ({"model_config": {}}, "a model of your own"),
    ({"model_config": {"architecture": "SRCN"}}, "did you mean 'SRCNN'"),
    ({"model_config": {"architecture": "SRCNN", "scale": 2, "depth": 3}}, "cannot be built"),
    ({"model_config": {"architecture": "SRCNN", "channels": [2000, 2000], "kernels": [99, 99, 9]}}, "parameters"),
    ({"model": {"extract.weight": torch.zeros(1)}}, "do not fit"),
    ({"model": [1, 2]}, "do not fit"),
    ({"model": {1: torch.zeros(1)}}, "do not fit"),
    ({"ema": {"extract.weight": "text"}}, "do not fit"),
])  # fmt: skip
def test_checkpoints_that_make_no_model(changes, word, tmp_path):
    torch.save(state(**changes), tmp_path / "last.pt")
    one_line(lambda: load(tmp_path / "last.pt"), tmp_path / "last.pt", word)


# ---------------------------------------------------------------------------------- the reader


def test_files_that_are_none(tmp_path):
    torch.save(state(), tmp_path / "whole.pt")
    torch.save(state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    pretrained.publish(models.create("srcnn", 2), "x", {}, tmp_path)
    whole, old, tensors = ((tmp_path / name).read_bytes() for name in ("whole.pt", "old.pt", "x.safetensors"))
    assert read(tmp_path / "old.pt")["step"] == 3
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 255
    with zipfile.ZipFile(tmp_path / "whole.pt") as plain, zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)  # could grow without end
    compressed = (tmp_path / "packed.pt").read_bytes()
    for content in (whole[: len(whole) // 2], old[:-99], b"not a checkpoint", b"", bytes(changed), compressed):
        (tmp_path / "file.pt").write_bytes(content)
        one_line(lambda: read(tmp_path / "file.pt"), tmp_path / "file.pt", "truncated")
    for content in (tensors[:99], tensors[:-1], b"", whole):
        (tmp_path / "x.safetensors").write_bytes(content)
        one_line(lambda: read(tmp_path / "x.safetensors"), "truncated")


def test_weights_sha256_tells_every_bit_name_and_shape():
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    sha = weights_sha256(weights)
    assert sha == weights_sha256(dict(reversed(weights.items())))
    for changed in (
        {**weights, "a": torch.zeros(3, 2)},
        {"c": weights["a"], "b": weights["b"]},
        {**weights, "b": -weights["b"]},
    ):
        assert weights_sha256(changed) != sha


def test_a_strangers_file_reads_no_other_file_and_downloads_none(tmp_path):
    for weights in ("random", "imagenet", "/etc/hostname"):  # the path would be looked for, and told of
        config = {**models.create("superresnet-vgg", feature_weights="random").config, "feature_weights": weights}
        save_file({"x": torch.zeros(1)}, tmp_path / "mine.safetensors")
        digest = hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
        (tmp_path / "mine.json").write_text(json.dumps({"config": config, "sha256": digest}))
        with pytest.raises(SRKitError, match="on your own machine"):
            load(tmp_path / "mine.safetensors", closed=True)
    assert load("srcnn-x2", closed=True).pretrained
