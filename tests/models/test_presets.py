"""presets: shapes, configs that build the model again, what is refused, and what a config from a file may ask for."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from srkit import models
from srkit.models.presets import fill
from srkit.settings import SRKitError
from srkit.training.config import GANConfig, TrainConfig

PLAIN = [name for name in models.PRESETS if not name.endswith(("vgg", "clip", "style"))]


@pytest.mark.parametrize("name", ["srcnn", "efficient", "nearest", "bilinear", "bicubic"])
def test_odd_sizes_come_out_three_times_as_large(name):
    assert models.create(name, 3)(torch.rand(2, 3, 7, 5)).shape == (2, 3, 21, 15)


@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_config_builds_the_model_again(name):
    changes = {"channels": (8, 4)} if name.startswith("srcnn") else {"channels": 4, "blocks": 1}
    model, low = models.create(name, 4, **changes).eval(), torch.rand(1, 3, 5, 6)
    again = models.build(json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    assert torch.equal(models.output_at(again.eval(), low), models.output_at(model, low))
    assert models.output_at(model, low).shape == (1, 3, 20, 24)


def test_presets_train_with_settings_that_exist():
    for preset in models.PRESETS.values():
        config = (GANConfig if preset.gan else TrainConfig)(**preset.training)
        assert config.patch_size % 12 == 0 or preset.architecture != "SRCNN"


def test_outputs_of_several_scales():
    model, low = models.create("superresnet-multi", channels=4), torch.rand(1, 3, 6, 5)
    assert models.scales_of(model) == (2, 4)
    assert models.output_at(model, low, 2).shape[-1] == 10 and models.output_at(model, low).shape[-1] == 20
    with pytest.raises(SRKitError, match="attribute scale"):
        models.scales_of(nn.ReLU())


def test_a_rebuilt_model_has_the_same_weights_under_another_config():
    model = models.create("srresnet", 2, channels=8, blocks=1)
    model.pretrained = True
    frozen = models.rebuild(model, frozen_norm=True)
    assert frozen is not model and frozen.config["frozen_norm"] and frozen.pretrained and not model.frozen_norm
    assert all(torch.equal(value, frozen.state_dict()[key]) for key, value in model.state_dict().items())
    with pytest.raises(SRKitError, match="do not fit the SRResNet"):
        models.rebuild(model, channels=16)


@pytest.mark.parametrize("name, changes, message", [
    ("srcn", {}, "did you mean 'srcnn'"),
    ("srcnn", {"scale": 5}, "2, 3, 4"),
    ("srcnn", {"kernels": (9, 4, 5)}, "three odd sizes"),
    ("srcnn", {"init": "zero"}, "'zero'"),
    ("srcnn", {"depth": 3}, "cannot be built"),
    ("superresnet", {"scale": 3}, "doubles once or twice"),
    ("superresnet", {"block": "residul"}, "did you mean 'residual'"),
    ("superresnet", {"channels": 0}, "channels 0"),
    ("superresnet-vgg", {"features": "vgg"}, "unknown features 'vgg'"),
    ("srresnet", {"scale": 3}, "choose 2 or 4"),
    ("srresnet", {"upsample": "shufle"}, "did you mean 'shuffle'"),
    ("srresnet", {"last_kernel": 4}, "odd"),
    ("efficient", {"blocks": 0}, "at least 1"),
])  # fmt: skip
def test_bad_names_and_arguments(name, changes, message):
    with pytest.raises(SRKitError, match=message):
        models.create(name, **changes)


@pytest.mark.parametrize("config", [
    None,
    {},
    {"architecture": ["SRCNN"]},
    {"architecture": "SRCN"},
    {"architecture": "SRResNet", "channels": "many"},
    {"architecture": "SRResNet", "blocks": 10**9},
    {"architecture": "SRResNet", "blocks": float("nan")},
    {"architecture": "SRResNet", "channels": 2048},
    {"architecture": "SRCNN", "kernels": [9, [5], 5]},
])  # fmt: skip
def test_a_config_from_a_file_is_bounded(config):
    with pytest.raises(SRKitError) as error:
        fill(config, {})
    assert "\n" not in str(error.value) and "do not fit" not in str(error.value)
