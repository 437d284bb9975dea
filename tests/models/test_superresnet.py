"""superresnet: the networks by hand-worked numbers, shapes, order of outputs, skip, and frozen weights that stay so."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import shared
from torch.optim.swa_utils import AveragedModel

from srkit import models
from srkit.data.images import resize
from srkit.models.superresnet import Dilated, Residual, SuperResNet, double
from srkit.settings import SRKitError

HEAD = 3 * 3 * 3 * 64 + 64 + 3 * 3 * 64 * 64 + 64  # conv3 64, conv3 64
RESIDUAL = 2 * (3 * 3 * 32 * 32 + 32)
DILATED = 3 * (3 * 3 * 32 * 32 + 32) + (3 * 32 * 32 + 32)
VGG = 3 * 3 * 3 * 64 + 64 + 3 * 3 * 64 * 64 + 64 + 3 * 3 * 64 * 128 + 128 + 3 * 3 * 128 * 128 + 128
PARAMETERS = {  # trainable, frozen
    "superresnet": (HEAD + (64 * 3 + 3), 0),
    "superresnet-multi": (HEAD + 2 * (64 * 3 + 3), 0),
    "superresnet-residual": (3 * 3 * 3 * 32 + 32 + 3 * RESIDUAL + 2 * (32 * 3 + 3), 0),
    "superresnet-dilated": (3 * 3 * 3 * 32 + 32 + 3 * DILATED + 2 * (32 * 3 + 3), 0),
    "superresnet-vgg": (HEAD + ((64 + 64 + 128) * 64 + 64) + 2 * (64 * 3 + 3), VGG),
}


def make(name: str, **changes) -> SuperResNet:
    """One of them, its frozen features random."""
    return models.create(name, **({"feature_weights": "random"} if name.endswith("vgg") else {}), **changes)


@pytest.mark.parametrize("name", PARAMETERS)
@torch.inference_mode()
def test_numbers_by_hand_and_any_size_comes_out_doubled_coarsest_first(name):
    model = make(name)
    assert models.count(model) == PARAMETERS[name]
    assert model.scales == ((2,) if name == "superresnet" else (2, 4)) and model.scale == model.scales[-1]
    for height, width in ((15, 22), (1, 1)):
        outputs = model(torch.rand(2, 3, height, width))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert [tuple(output.shape) for output in outputs] == [(2, 3, s * height, s * width) for s in model.scales]


@pytest.mark.parametrize("name", ["superresnet-multi", "superresnet-residual"])
def test_skip_starts_at_bilinear_and_learns_at_once(name):
    model, low = make(name, skip=True), torch.rand(1, 3, 9, 9)
    outputs = model(low)
    for output, scale in zip(outputs, (2, 4), strict=True):
        assert torch.allclose(output, resize(low, scale=scale, kernel="bilinear"), atol=1e-6)
    sum((output - 0.3).square().mean() for output in outputs).backward()
    assert model.mid.weight.grad.abs().max() > 0 and model.large.weight.grad.abs().max() > 0


def test_a_residual_block_can_take_away_and_a_dilated_one_has_no_skip():
    residual, dilated, x = Residual(2), Dilated(2), torch.randn(1, 2, 5, 5)
    for parameter in (*residual.second.parameters(), *dilated.merge.parameters()):
        torch.nn.init.zeros_(parameter)
    assert torch.equal(residual(x), x)  # what it leaves alone goes through, below zero too
    torch.nn.init.constant_(residual.second.bias, -3.0)
    assert torch.allclose(residual(x), x - 3) and not dilated(x).any()


# ------------------------------------------------------------------------------ a frozen network inside


@pytest.fixture
def vgg() -> SuperResNet:
    torch.manual_seed(0)
    return make("superresnet-vgg")


def test_frozen_weights_do_not_move_and_are_not_saved(vgg):
    before, start = copy.deepcopy(vgg.frozen.extractor.state_dict()), vgg.merge.weight.clone()
    average, optimizer = AveragedModel(vgg), torch.optim.AdamW(vgg.parameters(), lr=0.1, weight_decay=0.1)
    low = torch.rand(1, 3, 12, 12)
    sum((output - 0.3).square().mean() for output in vgg.train()(low)).backward()
    optimizer.step()
    average.update_parameters(vgg)
    assert not torch.equal(vgg.merge.weight, start)  # it did train
    for network in (vgg, average.module):
        after = network.frozen.extractor.state_dict()
        assert all(torch.equal(after[key], before[key]) for key in before)
    assert vgg.frozen(low).grad_fn is None  # no activation is kept for a way back
    # Neither trained nor saved: the weights, and the sizes of two layers.
    assert sum(p.numel() for p in vgg.parameters()) == PARAMETERS["superresnet-vgg"][0]
    assert sum(value.numel() for value in vgg.state_dict().values()) == PARAMETERS["superresnet-vgg"][0] + 2


def test_the_frozen_network_goes_where_the_model_goes(vgg):
    moved, low = copy.deepcopy(vgg).double(), torch.rand(1, 3, 8, 8)
    assert {p.dtype for p in moved.frozen.extractor.parameters()} == {torch.float64}
    assert {p.dtype for p in vgg.frozen.extractor.parameters()} == {torch.float32}
    assert torch.allclose(moved(low.double())[1].float(), vgg(low)[1], atol=1e-5)
    assert vgg.describe() == "VGG-16, random weights" and make("superresnet").describe() == ""


def test_frozen_layers_lie_on_the_input_and_have_ones_size(vgg):
    even, frozen = torch.rand(1, 3, 16, 16), vgg.frozen
    assert frozen(torch.rand(1, 3, 17, 15)).shape == (1, 64 + 128, 17, 15)
    found = frozen.extractor(even)
    assert torch.allclose(frozen(even)[:, :64] * frozen.size[0], found["relu1_2"], atol=1e-5)
    assert torch.allclose(frozen(even)[:, 64:] * frozen.size[1], double(found["relu2_2"]), atol=1e-5)
    assert 0.2 < frozen(even).square().mean().sqrt() < 5


def test_a_checkpoint_of_other_frozen_features_is_refused(vgg):
    real = models.create("superresnet-vgg", feature_weights=str(shared("", "weights")))
    assert "Caffe" in real.describe()
    models.build(real.config).load_state_dict(real.state_dict())
    with pytest.raises(SRKitError, match="other frozen features"):
        vgg.load_state_dict(real.state_dict())


@pytest.mark.slow
def test_compiles_in_one_piece(vgg):
    low = torch.rand(1, 3, 8, 8)
    assert torch.allclose(torch.compile(vgg, backend="eager", fullgraph=True)(low)[1], vgg(low)[1], atol=1e-6)
