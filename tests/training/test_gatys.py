"""gatys: a picture that changes towards a style, weights that move meanwhile, and the terms of the loss by hand."""

from __future__ import annotations

import pytest
import torch
from conftest import photograph

from srkit import losses, models
from srkit.data import ImageDataset, images
from srkit.losses import StyleLoss, WeightedLoss, gram
from srkit.models.features import VGG16
from srkit.settings import SRKitError
from srkit.training import TrainConfig, Trainer
from srkit.training.gatys import Gatys, gatys_loss

LAYERS = ("relu1_1", "relu2_1")


@pytest.fixture(scope="module")
def style() -> torch.Tensor:
    return photograph(32, 40, seed=5)


@pytest.fixture
def loss(style) -> WeightedLoss:
    extractor = VGG16([*LAYERS, "relu2_2"], weights="random")
    return WeightedLoss({"content": 0.1, "style": 0.9}, StyleLoss(extractor, style, LAYERS))


def test_terms_are_relative_to_their_own_size(loss, style):
    part, content, output = loss.perceptual[0], photograph(24, 24, 1)[None], photograph(24, 24, 2)[None]
    maps = [part.extractor(one) for one in (output, content, style[None])]
    wanted = (maps[0]["relu2_2"] - maps[1]["relu2_2"]).square().sum() / maps[1]["relu2_2"].square().sum()
    grams = [(gram(maps[0][one]), gram(maps[2][one])) for one in LAYERS]
    ratio = torch.stack([(a - b).square().sum() / b.square().sum() for a, b in grams]).mean()
    found = part(output, content, ("content", "style"))
    assert torch.allclose(found["content"], wanted, rtol=1e-4) and torch.allclose(found["style"], ratio, rtol=1e-4)
    assert part(content, content, ("content",))["content"] == 0
    assert part(style[None], content, ("style",))["style"] < 1e-6  # nothing is said of the content


def test_a_picture_takes_a_style_on(loss):
    content = photograph(24, 30, 1)
    trainer = Gatys(content, loss, steps=6, device="cpu")
    assert torch.equal(trainer.picture, content)
    trainer.fit(progress=False)
    _, style = trainer.history.series("style")
    assert style[-1] < style[0] / 2 and trainer.picture.shape == content.shape
    assert not torch.equal(trainer.picture, content)


def test_weights_move_while_the_picture_changes_and_a_replay_is_the_same(loss):
    from srkit import live

    content = photograph(24, 24, 1)
    run = live.Run(Gatys(content, loss, steps=4, device="cpu"), content)
    run.start()
    run.weights.set(content=5.0, style=0.0)
    assert run.wait(120) and run.state == "finished", run.error
    assert run.film.frames[-1].details.shape == (1, 3, 24, 24) and not run.film.frames[-1].pull["style"]
    assert live.svg.draw(run.film, run.history)
    twin = live.replay(run)
    assert torch.equal(twin.picture, run.trainer.picture)


def test_sizes_that_do_not_fit(loss, style):
    with pytest.raises(SRKitError, match="differ in size"):
        Gatys(photograph(24, 24), loss, start=photograph(24, 32), device="cpu")
    with pytest.raises(SRKitError, match="too small for relu5_1"):
        gatys_loss(style[:, :12], feature_weights="random")


def test_a_style_is_trained_by_the_trainer_and_resumed_from_its_checkpoint(tmp_path):
    from srkit.training import resume

    folder = tmp_path / "photos"
    for number in range(3):
        images.write(photograph(40, 40, number), folder / f"{number}.png")
    painting = images.write(photograph(70, 64, 9), tmp_path / "painting.png")
    config = TrainConfig(
        steps=2, batch_size=2, patch_size=32, loss={"content": 0.1, "style": 1.0}, content=("relu2_2",),
        feature_weights="random", style=str(painting), style_size=64, ema=0.0, device="cpu",
    )  # fmt: skip
    from srkit.data import load_dataset

    torch.manual_seed(0)
    model = models.create("style", channels=4, blocks=1)
    trainer = Trainer(model, load_dataset(folder, "all"), config, out=tmp_path / "run")
    trainer.fit(progress=False)
    again = resume(tmp_path / "run" / "last.pt", steps=4)
    again.fit(progress=False)
    assert again.step_number == 4 and {"content", "style"} <= set(again.history.rows[-1])
    painting.unlink()
    with pytest.raises(SRKitError, match="painting"):
        resume(tmp_path / "run" / "last.pt", steps=6)


@pytest.mark.parametrize(("size", "options", "message"), [
    (None, {}, "--style painting.jpg"),
    (40, {"style_size": 64}, "40 pixels is too small"),
    (80, {"features": "squeezenet"}, "unknown network for a style"),
])  # fmt: skip
def test_a_style_needs_a_picture_that_is_large_enough(tmp_path, size, options, message):
    path = images.write(photograph(size, size), tmp_path / "painting.png") if size else None
    with pytest.raises(SRKitError, match=message):
        losses.create({"style": 1.0}, feature_weights="random", style=path, **options)


def test_pictures_stay_whole(loss):
    wide = photograph(24, 40, 3)
    assert Gatys(wide, loss, steps=1, device="cpu").batch().high.shape == (1, 3, 24, 40)
    assert len(ImageDataset([images.to_uint8(wide)])) == 1
