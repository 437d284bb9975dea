"""style: what is published says what it was measured by, and can be used."""

from __future__ import annotations

import torch
from conftest import photograph

from benchmarks import style
from srkit import models
from srkit.data import images, load_dataset
from srkit.models import pretrained
from srkit.training import TrainConfig, Trainer


def test_a_trained_style_is_published_with_its_card_and_picture(tmp_path, capsys):
    for number in range(12):
        images.write(photograph(40, 40, number), tmp_path / "photos" / f"{number}.png")
    painting = images.write(photograph(64, 64, 99), tmp_path / "painting.jpg")
    config = TrainConfig(
        steps=1, batch_size=1, patch_size=32, loss={"content": 0.1, "style": 1.0}, content=("relu2_2",),
        feature_weights="random", style=str(painting), style_size=64, ema=0.0, device="cpu",
    )  # fmt: skip
    torch.manual_seed(0)
    model = models.create("style", channels=4, blocks=1)
    Trainer(model, load_dataset(tmp_path / "photos"), config, out=tmp_path / "mine").fit(progress=False)
    facts = {"by": "Ada", "licence": "CC0", "page": "https://example.org", "out": tmp_path / "styles"}
    style.main(style.Options(tmp_path / "mine" / "last.pt", **facts))
    card = pretrained.card("mine", tmp_path / "styles")
    assert card["by"] == "Ada" and card["loss network"] == "VGG-16, random weights" and card["steps"] == 1
    measured = card["measured"]
    assert measured["photograph"]["content"] == 0 < measured["painted"]["content"] and measured["painted"]["style"] > 0
    assert models.load(tmp_path / "styles" / "mine.safetensors").pretrained
    assert (tmp_path / "styles" / "mine.jpg").read_bytes() == painting.read_bytes()
    assert "0.0" in capsys.readouterr().out
