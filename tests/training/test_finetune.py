"""FineTuner: nothing that was learnt is lost, the criterion decides, and the start takes part."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import photograph

from srkit import models
from srkit.data import ImageDataset
from srkit.losses import WeightedLoss
from srkit.settings import SRKitError
from srkit.training import FineTuner, TrainConfig, checkpoint
from srkit.training.finetune import criterion

CRITERION = WeightedLoss({"mse": 1.0, "l1": 1.0})


def make(count: int, seed: int) -> ImageDataset:
    return ImageDataset([photograph(32, 32, seed + i).mul(255).byte() for i in range(count)])


def start() -> torch.nn.Module:
    """A tiny SRResNet with normalisation that has seen something."""
    torch.manual_seed(0)
    model = models.create("srresnet", 2, channels=8, blocks=1, last_kernel=3)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    model.pretrained = True
    return model.eval()


def tuner(model=None, out=None, patience=99, **changes) -> FineTuner:
    settings = {"steps": 6, "batch_size": 2, "patch_size": 24, "lr": 1e-3, "warmup": 0, "ema": 0.0,
                "val_freq": 2, "device": "cpu", "precision": "fp32"}  # fmt: skip
    config = TrainConfig(**{**settings, **changes})
    arguments = {"validation": make(2, 9), "criterion": CRITERION, "patience": patience, "out": out}
    return FineTuner(model or start(), make(3, 0), config, **arguments)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_criterion_chooses_the_loss_trains_and_statistics_and_start_stay(tmp_path):
    model = start()
    kept = copy.deepcopy(model.state_dict())
    trainer = tuner(model, tmp_path)
    trainer.fit(progress=False)
    best = min((row for row in trainer.history.rows if "val/dB" in row), key=lambda row: row["val/l1"])
    assert trainer.best_step == best["step"] > 0 and trainer.best == -best["val/l1"]
    assert "l1" not in trainer.history.names() and checkpoint.load(tmp_path / "best.pt")["weights"] == {"mse": 1.0}
    changed = trainer.model.state_dict()
    moved = {name for name in kept if not torch.equal(kept[name], changed[name])}
    assert moved and not [name for name in moved if "running" in name or "batches" in name]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())


def test_what_gets_worse_ends_with_the_start(tmp_path):
    model = start()
    trainer = tuner(model, tmp_path, lr=3.0, steps=40, patience=3)
    trainer.fit(progress=False)
    assert trainer.best_step == 0 and trainer.step_number == 6  # three validations without a better one
    assert same(trainer.result, model) and same(models.load(tmp_path / "best.pt"), model)
    assert trainer.history.series("val/l1")[0] == [0, 2, 4, 6]


def test_resumed_it_ends_where_it_would_have(tmp_path):
    whole = tuner(ema=0.9)
    whole.fit(progress=False)
    for step in tuner(out=tmp_path, ema=0.9, save_freq=1):
        if step == 3:
            break
    for _ in range(2):  # goes on, and then only loads
        again = tuner(out=tmp_path, ema=0.9, save_freq=1)
        again.fit(resume=True, progress=False)
        assert same(again.result, whole.result) and again.best_step == whole.best_step
    other = start()
    next(other.parameters()).data += 1
    assert tuner(other, tmp_path, ema=0.9, save_freq=1).restore().step_number == 0


def test_a_network_without_normalisation_is_copied_and_validation_is_a_must():
    model = models.create("srcnn", 2, channels=(4, 4))
    trainer = tuner(model)
    assert trainer.model is not model and trainer.model.config == model.config
    with pytest.raises(SRKitError):
        FineTuner(model, make(1, 0), validation=None, criterion=CRITERION)


def test_the_criterion():
    measured = criterion("random", "relu3_1", second="random")
    assert list(measured.weights) == ["mse", "fire9", "relu2_2", "relu3_1"]
    with pytest.raises(SRKitError):
        criterion("random", "relu6_1")
