"""finetuning: nothing that was learnt is lost, the judge decides, and the start takes part."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import photograph

from srkit import finetuning, models
from srkit.banks import Bank
from srkit.errors import SRKitError
from srkit.finetuning import FineTuner
from srkit.losses import WeightedLoss
from srkit.training import TrainConfig, load_model

JUDGE = WeightedLoss({"mse": 1.0, "l1": 1.0})


def make(count: int, seed: int) -> Bank:
    return Bank([photograph(40, 40, seed + i).mul(255).byte() for i in range(count)])


def start() -> torch.nn.Module:
    """A tiny SRResNet with normalisation that has seen something."""
    torch.manual_seed(0)
    model = models.create("srresnet", 2, channels=8, blocks=1, last_kernel=3)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    model.trained = True
    return model.eval()


def tuner(model=None, out=None, **changes) -> FineTuner:
    patience = changes.pop("patience", 99)
    settings = {"steps": 6, "batch_size": 2, "crop": 24, "learning_rate": 1e-3, "warmup": 0, "ema": 0.0,
                "val_freq": 2, "device": "cpu", "precision": "fp32"}  # fmt: skip
    config = TrainConfig(**{**settings, **changes})
    return FineTuner(
        model or start(), make(3, 0), config, validation=make(2, 9), judge=JUDGE, patience=patience, out=out
    )


def test_running_statistics_stay_and_the_start_is_not_changed():
    model = start()
    kept = copy.deepcopy(model.state_dict())
    trainer = tuner(model)
    trainer.fit(progress=False)
    assert trainer.best_step > 0
    changed = trainer.model.state_dict()
    moved = {name for name in kept if not torch.equal(kept[name], changed[name])}
    assert moved and not [name for name in moved if "running" in name or "batches" in name]
    assert any("trunk" in name for name in moved)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())
    assert trainer.model.recipe["frozen_norm"] and not model.training


def test_what_gets_worse_ends_with_the_start(tmp_path):
    model = start()
    trainer = tuner(model, tmp_path, learning_rate=3.0, steps=40, patience=3)
    trainer.fit(progress=False)
    assert trainer.best_step == 0 and trainer.step_number == 6  # three validations without a better one
    for best in (trainer.result, load_model(tmp_path / "best.pt")):
        assert all(torch.equal(a, b) for a, b in zip(best.parameters(), model.parameters(), strict=True))
    assert [row["step"] for row in trainer.history.rows if "val/l1" in row] == [0, 2, 4, 6]


def test_the_judge_chooses_and_the_loss_trains(tmp_path):
    trainer = tuner(out=tmp_path, steps=8)
    trainer.fit(progress=False)
    rows = [row for row in trainer.history.rows if "val/dB" in row]
    best = min(rows, key=lambda row: row["val/l1"])
    assert trainer.best_step == best["step"] and trainer.best == -best["val/l1"]
    assert trainer.loss.weights == {"mse": 1.0} and "l1" not in trainer.history.names()
    output = torch.cat([trainer.result(pair.low) for pair in trainer.validation.pairs(2)])
    high = torch.cat([pair.high for pair in trainer.validation.pairs(2)])
    assert (output - high).abs().mean().item() == pytest.approx(best["val/l1"], rel=1e-5)


def test_picked_up_it_ends_where_it_would_have(tmp_path, capsys):
    whole = tuner(out=tmp_path / "whole", ema=0.9)
    whole.fit(progress=False)
    first = tuner(out=tmp_path / "parts", ema=0.9, save_freq=1)
    for step in first:
        if step == 3:
            break
    for _ in range(2):  # goes on, and then only loads
        again = tuner(out=tmp_path / "parts", ema=0.9, save_freq=1).pick_up()
        again.fit(progress=False)
        pairs = zip(again.result.parameters(), whole.result.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) and again.best_step == whole.best_step
    other = start()
    other.leave.bias.data += 1
    assert tuner(other, tmp_path / "parts", ema=0.9, save_freq=1).pick_up().step_number == 0
    assert "is of another training (start): starting anew" in capsys.readouterr().out


def test_a_network_without_normalisation_is_copied():
    model = models.create("srcnn", 2, channels=(4, 4))
    trainer = tuner(model)
    assert trainer.model is not model and trainer.model.recipe == model.recipe
    with pytest.raises(SRKitError, match="needs validation pictures"):
        FineTuner(model, make(1, 0), validation=None, judge=JUDGE)


def test_the_judge_names_the_deepest_layer_that_the_weights_hold(tmp_path):
    from safetensors.torch import save_file

    from srkit import features

    assert list(finetuning.judge("random").weights) == ["mse", "relu2_2", "relu5_4"]
    assert list(finetuning.judge("random", "relu3_4").weights) == ["mse", "relu2_2", "relu3_4"]
    for layer in ("relu2_2", "relu6_1"):
        with pytest.raises(SRKitError, match="unknown layer deeper than relu2_2"):
            finetuning.judge("random", layer)
    whole = features.VGG19(["relu3_1"], "random").state_dict()
    save_file(
        {name: value for name, value in whole.items() if name.startswith("features")}, tmp_path / "vgg19.safetensors"
    )
    judge = finetuning.judge(str(tmp_path / "vgg19.safetensors"), second="random")
    assert list(judge.weights) == ["mse", "fire9", "relu2_2", "relu3_1"]
    assert judge.measure(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)).keys() == judge.weights.keys()
    with pytest.raises(SRKitError, match="no such weights file"):
        finetuning.judge(str(tmp_path / "none.safetensors"))
