"""superresnet: the six by hand-worked numbers, shapes, order of outputs, skip, and frozen weights that stay frozen."""

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

SIX = [name for name in models.PRESETS if name.startswith("superresnet")]

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
    # The stem's 32, 32 and 64 filters have no bias, but a batch normalisation (weight, bias) each; three bottlenecks
    # 64, 64, 256 follow in layer1, the first with a shortcut 64 → 256.
    "superresnet-clip": (
        HEAD + ((64 + 64 + 256) * 64 + 64) + 2 * (64 * 3 + 3),
        (9 * 3 * 32 + 2 * 32 + 9 * 32 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64)
        + (64 * 64 + 9 * 64 * 64 + 64 * 256 + 64 * 256)
        + 2 * (256 * 64 + 9 * 64 * 64 + 64 * 256)
        + 3 * (2 * 64 + 2 * 64 + 2 * 256)
        + 2 * 256,
    ),
}

LOW, MID = 72 * 72, 144 * 144
MULTIPLY_ADDS = {  # of 72 x 72 pixels; a frozen layer at half resolution works on a quarter of them
    "superresnet": LOW * (27 * 64 + 9 * 64 * 64 + 64 * 3),
    "superresnet-multi": LOW * (27 * 64 + 9 * 64 * 64 + 2 * 64 * 3),
    "superresnet-residual": LOW * (27 * 32 + 4 * 9 * 32 * 32 + 32 * 3) + MID * (2 * 9 * 32 * 32 + 32 * 3),
    "superresnet-dilated": LOW * (27 * 32 + 2 * (3 * 9 * 32 * 32 + 96 * 32) + 32 * 3)
    + MID * (3 * 9 * 32 * 32 + 96 * 32 + 32 * 3),
    "superresnet-vgg": LOW * (27 * 64 + 9 * 64 * 64 + (64 + 64 + 128) * 64 + 2 * 64 * 3)
    + LOW * (27 * 64 + 9 * 64 * 64)
    + LOW // 4 * (9 * 64 * 128 + 9 * 128 * 128),
    "superresnet-clip": LOW * (27 * 64 + 9 * 64 * 64 + (64 + 64 + 256) * 64 + 2 * 64 * 3)
    + LOW * (27 * 32 + 9 * 32 * 32 + 9 * 32 * 64)
    + LOW // 4 * (64 * 64 + 9 * 64 * 64 + 64 * 256 + 64 * 256 + 2 * (256 * 64 + 9 * 64 * 64 + 64 * 256)),
}


def make(name: str, **changes) -> SuperResNet:
    """One of the six with random frozen features; timm may be missing."""
    if name == "superresnet-clip":
        pytest.importorskip("timm", reason="timm is not installed: no CLIP")
    if name in ("superresnet-vgg", "superresnet-clip"):
        changes.setdefault("feature_weights", "random")
    return models.create(name, **changes)


@pytest.mark.parametrize("name", SIX)
@torch.inference_mode()
def test_numbers_by_hand_and_any_size_comes_out_doubled_coarsest_first(name):
    model = make(name)
    assert models.count(model) == PARAMETERS[name]
    assert models.multiply_adds(model, 72, 72) == MULTIPLY_ADDS[name]
    assert model.scales == ((2,) if name == "superresnet" else (2, 4)) and model.scale == model.scales[-1]
    for height, width in ((24, 24), (15, 22), (1, 1)):
        outputs = model(torch.rand(2, 3, height, width))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert [tuple(output.shape) for output in outputs] == [(2, 3, s * height, s * width) for s in model.scales]


@pytest.mark.parametrize("name", SIX)
def test_skip_starts_at_bilinear_and_learns_at_once(name):
    model, low = make(name, scale=4, skip=True), torch.rand(1, 3, 9, 9)
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
    assert torch.allclose(residual(x), x - 3)
    assert not dilated(x).any()


# ------------------------------------------------------------------------------ a frozen network inside


@pytest.fixture
def vgg() -> SuperResNet:
    torch.manual_seed(0)
    return make("superresnet-vgg")


def test_frozen_weights_do_not_move_and_get_no_gradient_memory(vgg):
    before = copy.deepcopy(vgg.frozen.extractor.state_dict())
    average = AveragedModel(vgg)
    optimizer = torch.optim.AdamW(vgg.parameters(), lr=0.1, weight_decay=0.1)
    low = torch.rand(1, 3, 12, 12)
    start = vgg.merge.weight.clone()
    sum((output - 0.3).square().mean() for output in vgg(low)).backward()
    optimizer.step()
    average.update_parameters(vgg)
    assert not torch.equal(vgg.merge.weight, start)  # it did train
    frozen = list(vgg.frozen.extractor.parameters())
    assert len(frozen) == 8 and all(p.grad is None and not p.requires_grad for p in frozen)
    assert vgg.frozen(low).grad_fn is None  # no activation is kept for a way back
    for network in (vgg, average.module):
        after = network.frozen.extractor.state_dict()
        assert all(torch.equal(after[key], before[key]) for key in before)
    # Neither trained nor saved: the weights, and the sizes of two layers.
    assert sum(p.numel() for p in vgg.parameters()) == PARAMETERS["superresnet-vgg"][0]
    assert sum(value.numel() for value in vgg.state_dict().values()) == PARAMETERS["superresnet-vgg"][0] + 2


def test_the_frozen_network_goes_where_the_model_goes(vgg):
    moved = copy.deepcopy(vgg).double()
    assert {p.dtype for p in moved.frozen.extractor.parameters()} == {torch.float64}
    assert {p.dtype for p in vgg.frozen.extractor.parameters()} == {torch.float32}
    low = torch.rand(1, 3, 8, 8)
    assert torch.allclose(moved(low.double())[1].float(), vgg(low)[1], atol=1e-5)
    assert not vgg.train().frozen.extractor.training
    assert vgg.describe() == "VGG-16, random weights" and make("superresnet").describe() == ""


def test_frozen_layers_lie_on_the_input_and_have_ones_size(vgg):
    even, odd = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 17, 15)
    assert vgg.frozen(even).shape == (1, 64 + 128, 16, 16) and vgg.frozen(odd).shape == (1, 192, 17, 15)
    found = vgg.frozen.extractor(even)
    assert torch.allclose(vgg.frozen(even)[:, :64] * vgg.frozen.size[0], found["relu1_2"], atol=1e-5)
    assert torch.allclose(vgg.frozen(even)[:, 64:] * vgg.frozen.size[1], double(found["relu2_2"]), atol=1e-5)
    assert 0.2 < vgg.frozen(even).square().mean().sqrt() < 5


def test_a_checkpoint_of_other_frozen_features_is_refused(vgg):
    weights = f"caffe:{shared('vgg16_caffe_conv1_1-conv2_2.safetensors', 'weights')}"
    real = make("superresnet-vgg", feature_weights=weights)
    assert real.config["feature_weights"] == weights and "Caffe" in real.describe()
    models.build(real.config).load_state_dict(real.state_dict())
    with pytest.raises(SRKitError, match="other frozen features"):
        vgg.load_state_dict(real.state_dict())


def test_compiles_in_one_piece(vgg):
    low = torch.rand(1, 3, 8, 8)
    compiled = torch.compile(vgg, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(low)[1], vgg(low)[1], atol=1e-6)
