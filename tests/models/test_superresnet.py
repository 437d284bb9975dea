"""superresnet: the networks by hand-worked numbers, shapes, order of outputs, skip, and frozen weights that stay so."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from conftest import shared
from torch.optim.swa_utils import AveragedModel

from srkit import models
from srkit.data.images import resize
from srkit.models.clip import MODEL, ImageTower
from srkit.models.superresnet import Dilated, Residual, SuperResNet, conv3, conv3_constant, double
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


# ------------------------------------------------------------------------------ CLIP's embedding


@pytest.fixture
def clip(tiny_clip) -> SuperResNet:
    torch.manual_seed(0)
    return models.create("superresnet-clip", feature_weights="random")


def test_clip_has_the_workshops_370950_weights(clip):
    merge = 3 * 3 * (64 + 512) * 64 + 64
    assert HEAD + merge + 2 * (64 * 3 + 3) == 370_950
    frozen = sum(p.numel() for p in clip.frozen.extractor.parameters())
    assert models.count(clip) == (370_950, frozen)
    assert [tuple(output.shape) for output in clip(torch.rand(2, 3, 9, 14))] == [(2, 3, 18, 28), (2, 3, 36, 56)]


@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 1), (1, 6)])
def test_512_constant_channels_are_a_bias_of_nine_sums(size):
    conv, x, constant = conv3(8 + 512, 16).double(), torch.randn(2, 8, *size).double(), torch.randn(2, 512).double()
    plane = constant[..., None, None].expand(-1, -1, *size)
    found = conv3_constant(conv, x, constant)
    assert (found - conv(torch.cat([x, plane], 1))).abs().max() < 1e-6
    bias = found - conv3_constant(conv, x, torch.zeros_like(constant))
    assert len(bias[0, 0].mul(1e9).round().unique()) == min(3, size[0]) * min(3, size[1])
    alike = conv3_constant(conv, x, constant[:1])
    assert torch.allclose(alike[0], found[0]) and not torch.allclose(alike[1], found[1])


def test_the_embedding_is_frozen_follows_the_picture_and_can_be_given(clip):
    low, before = torch.rand(2, 3, 12, 12), copy.deepcopy(clip.frozen.extractor.state_dict())
    embedding = clip.embed(low)
    assert embedding.shape == (2, 512) and embedding.grad_fn is None
    assert embedding.square().mean(1).tolist() == pytest.approx([1, 1], rel=1e-4)
    assert not torch.allclose(embedding[0], embedding[1])
    assert torch.equal(clip(low)[1], clip(low, embedding)[1])
    assert not torch.equal(clip(low)[1], clip(low, embedding.flip(0))[1])
    sum((output - 0.3).square().mean() for output in clip.train()(low)).backward()
    torch.optim.SGD(clip.parameters(), lr=0.1).step()
    assert not clip.frozen.extractor.training and clip.merge.weight.grad[:, 64:].abs().max() > 0
    assert all(torch.equal(value, before[key]) for key, value in clip.frozen.extractor.state_dict().items())
    assert sum(value.numel() for value in clip.state_dict().values()) == 370_950 + 1
    models.build(clip.config).load_state_dict(clip.state_dict())
    assert clip.describe() == "CLIP ViT-B/32, random weights"


def test_clips_weights_from_a_file_and_what_is_missing(clip, tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file

    tower = timm.create_model(MODEL)
    save_file(tower.state_dict(), tmp_path / "my_clip.safetensors")
    for given in (tmp_path, tmp_path / "my_clip.safetensors"):
        real = models.create("superresnet-clip", feature_weights=str(given))
        assert torch.equal(real.frozen.extractor.tower.head.weight, tower.head.weight)
    with pytest.raises(SRKitError, match="other frozen features"):
        clip.load_state_dict(real.state_dict())
    save_file({"a": torch.zeros(1)}, tmp_path / "my_clip.safetensors")
    with pytest.raises(SRKitError, match="another network"):
        ImageTower(tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(SRKitError, match=f"{MODEL} could not be had"):
        ImageTower()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SRKitError, match=r"pip install timm$"):
        ImageTower("random")


@pytest.mark.slow
def test_compiles_in_one_piece(vgg):
    low = torch.rand(1, 3, 8, 8)
    assert torch.allclose(torch.compile(vgg, backend="eager", fullgraph=True)(low)[1], vgg(low)[1], atol=1e-6)
