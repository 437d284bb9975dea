"""What is kept of the truth's features: the same training, with a third less to compute."""

from __future__ import annotations

import pytest
import torch

from srkit import losses, models
from srkit.banks import Bank, open_bank
from srkit.features import VGG16
from srkit.training import TrainConfig, Trainer, checkpoint
from srkit.training import targets as targets_module

LAYERS = ["relu1_2", "relu2_2", "relu3_3"]


@pytest.fixture(scope="module")
def bank() -> Bank:
    dice = torch.Generator().manual_seed(0)
    return Bank(torch.randint(0, 256, (5, 3, 24, 24), dtype=torch.uint8, generator=dice))


def trainer_of(bank: Bank, out=None, **changes) -> Trainer:
    torch.manual_seed(0)
    loss = losses.WeightedLoss(
        {"mse": 1.0, "relu1_2": 0.01, "relu3_3": 0.0}, losses.PerceptualLoss(VGG16(LAYERS, weights="random"))
    )
    config = TrainConfig(**{"steps": 9, "batch_size": 2, "crop": 24, "augment": False, "device": "cpu", **changes})
    return Trainer(models.create("srcnn", 2, channels=(8, 8)), bank, config, loss, out=out)


def pictures_looked_at(trainer: Trainer) -> list[int]:
    """For each call of the frozen network, how many pictures it saw."""
    seen = []
    trainer.loss.perceptual[0].extractor.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    return seen


def weights(trainer: Trainer) -> str:
    return checkpoint.weights_sha256(trainer.model.state_dict())


def plain(trainer: Trainer) -> Trainer:
    trainer.targets = None
    return trainer


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bit_for_bit_the_same_training(bank, precision):
    kept, anew = trainer_of(bank, precision=precision), plain(trainer_of(bank, precision=precision))
    for trainer in (kept, anew):
        for step in trainer:
            if step == 4:
                trainer.change(relu3_3=0.01)  # a deeper layer than was kept
            if step == 7:
                trainer.change(relu1_2=0.0)
    assert weights(kept) == weights(anew)
    without_seconds = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in t.history.rows] for t in (kept, anew)
    ]
    assert without_seconds[0] == without_seconds[1]


def test_each_picture_is_looked_at_once_more_than_its_outputs(bank):
    trainer = trainer_of(bank)
    seen = pictures_looked_at(trainer)
    for _ in range(3):
        next(trainer)
    assert seen == [2, 2] * 3  # the first epoch: five pictures in batches of two
    seen.clear()
    next(trainer)
    next(trainer)
    assert seen == [2, 2]  # the outputs alone


def test_resumed_without_what_was_kept(bank, tmp_path):
    straight = trainer_of(bank)
    straight.fit(progress=False)
    trainer_of(bank, out=tmp_path, steps=4).fit(progress=False)
    resumed = trainer_of(bank).load_state(checkpoint.load(tmp_path / "last.pt"))
    resumed.fit(progress=False)
    assert weights(resumed) == weights(straight)
    assert not any("target" in key for key in checkpoint.load(tmp_path / "last.pt"))


def test_nothing_is_kept_where_pictures_change(bank):
    assert trainer_of(bank).targets
    assert trainer_of(bank, augment=True).targets is None
    assert trainer_of(bank, crop=22).targets is None


def test_nothing_is_kept_of_warped_pictures():
    assert open_bank("bundled", "test", size=24).shows_alike(24)
    assert not open_bank("bundled", "test", size=24, warp=0.5).shows_alike(24)


def test_nothing_is_kept_without_room(bank, monkeypatch):
    monkeypatch.setattr(targets_module, "choose_place", lambda size, device: "disk")
    trainer = trainer_of(bank)
    seen = pictures_looked_at(trainer)
    trainer.fit(progress=False)
    assert seen == [2, 2] * 9 and not trainer.targets.kept


def test_room_is_asked_for_all_pictures_and_layers(bank, monkeypatch):
    asked = []
    monkeypatch.setattr(targets_module, "choose_place", lambda size, device: asked.append(size) or "device")
    trainer = trainer_of(bank, precision="fp32")
    trainer.change(relu3_3=0.01)
    next(trainer)
    layers = 64 * 24 * 24 + 256 * 6 * 6
    assert set(asked) == {4 * 5 * layers}


def test_a_batch_in_parts_looks_anew(bank):
    trainer = trainer_of(bank)
    trainer.change(parts=2)
    seen = pictures_looked_at(trainer)
    trainer.fit(progress=False)
    assert seen == [1] * 4 * 9


def test_the_loss_is_left_as_it_was(bank):
    trainer = trainer_of(bank)
    next(trainer)
    assert trainer.loss.perceptual[0].look is losses.PerceptualLoss.look
