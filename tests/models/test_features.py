"""features: frozen networks at named layers, their weights from every place, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import shared
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks import distil
from srkit.data import load_dataset
from srkit.models import features
from srkit.models.features import CLIP, FOLDER, VGG16, VGG19, Extractor, SmallVGG, SqueezeNet, load_features
from srkit.models.files import weights_sha256
from srkit.settings import SRKitError


def batch(size: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def state_of(extractor: Extractor) -> dict[str, torch.Tensor]:
    """Its weights as torchvision's files name them."""
    return {f"features.{key}": value for key, value in extractor.features.state_dict().items()}


def saved(path: Path, state: dict[str, torch.Tensor], **about: str) -> Path:
    save_file(state, path, about or None)
    return path


@pytest.fixture(scope="module")
def vgg() -> Extractor:
    return VGG16(["relu2_2", "conv2_1", "relu2_1", "relu1_2"], weights="random")


# ---------------------------------------------------------------------------------- layers, frozen


def test_shapes_order_subsets_and_nothing_past_the_deepest(vgg):
    found = vgg(batch())
    assert vgg.layers == ("relu1_2", "conv2_1", "relu2_1", "relu2_2") == tuple(found)
    assert [x.shape[1:] for x in found.values()] == [(64, 16, 16), *[(128, 8, 8)] * 3]
    assert (found["conv2_1"] < 0).any() and torch.equal(found["conv2_1"].relu(), found["relu2_1"])
    ran: list[str] = []
    hooks = [each.register_forward_hook(lambda module, *_: ran.append(type(module).__name__)) for each in vgg.features]
    assert list(vgg(batch(), ["relu1_2"])) == ["relu1_2"] and ran == ["Conv2d", "ReLU"] * 2
    assert len(hooks) == 9 and vgg(batch(), []) == {}
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("network", [VGG16, VGG19])
def test_places_are_torchvisions(network):
    stack = network._stack()
    for name, place in network.places.items():
        assert isinstance(stack[place], nn.Conv2d if name.startswith("conv") else nn.ReLU)
    assert max(network.places.values()) == len(stack) - 2  # and a last pooling
    for deep in ("relu4_2", "relu5_1"):
        assert sum(isinstance(each, nn.MaxPool2d) for each in stack[: network.places[deep]]) == int(deep[4]) - 1


@pytest.mark.parametrize("network, layer, side", [(VGG16, "relu4_3", 8), (SqueezeNet, "fire9", 17)])
def test_pictures_that_are_too_small(network, layer, side):
    extractor = network([layer], weights="random")
    extractor.check_size(side)
    assert extractor(batch(side))[layer].numel() > 0
    with pytest.raises(SRKitError, match=f"too small for {layer}"):
        extractor.check_size(side - 1)


@pytest.mark.parametrize("make, message", [
    (lambda: VGG16(["relu1_2", "relu2-2"], "random"), "did you mean 'relu2_2'"),
    (lambda: load_features("vgg-16", ["relu1_2"]), "did you mean 'vgg16'"),
    (lambda: VGG16(["relu1_2"], "randm"), "no such weights file"),
    (lambda: VGG16(["relu1_2"], "random", "cafe"), "did you mean 'caffe'"),
])  # fmt: skip
def test_bad_names(make, message):
    with pytest.raises(SRKitError, match=message):
        make()


def test_random_is_always_the_same_and_config_builds_it(vgg):
    before = torch.get_rng_state()
    deep = VGG16(["relu3_3"], "random", "caffe")
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state_of(deep)[key]) for key, value in state_of(vgg).items())
    found = deep(batch())["relu3_3"]
    assert 0.5 < found.std() / found.mean() < 3  # signal neither dies nor explodes
    again = load_features(deep.config["features"], **{k: v for k, v in deep.config.items() if k != "features"})
    assert torch.equal(again(batch())["relu3_3"], found) and again.config == deep.config
    assert deep.describe() == "VGG-16, random weights (Caffe preprocessing)"
    assert not vgg.train().training and not any(parameter.requires_grad for parameter in vgg.parameters())


# ---------------------------------------------------------------------------------- preprocessing


def test_preprocessing_by_hand_and_in_full_precision(vgg):
    orange = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    caffe = VGG16(["relu1_1"], weights="random", preprocessing="caffe")
    imagenet = [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert vgg(batch())["relu2_2"].dtype == torch.bfloat16
        for extractor, expected in ((vgg, imagenet), (caffe, [-103.939, 127.5 - 116.779, 255 - 123.68])):
            found = extractor.normalise(orange)[0, :, 2, 3]
            assert found.dtype == torch.float32 and torch.allclose(found, torch.tensor(expected), atol=1e-4)


def test_preprocessing_is_stated_and_never_guessed(vgg, tmp_path):
    plain = saved(tmp_path / "vgg16_Caffe.safetensors", state_of(vgg))  # a name says nothing
    told = saved(tmp_path / "told.safetensors", state_of(vgg), input="BGR, 0-255, minus [103.939,116.779,123.68]")
    for weights, preprocessing, expected in (
        (plain, None, "imagenet"),
        (plain, "caffe", "caffe"),
        (f"caffe:{plain}", None, "caffe"),
        (told, None, "caffe"),
        (told, "imagenet", "imagenet"),
    ):
        extractor = VGG16(["relu1_1"], weights, preprocessing)
        assert extractor.config["preprocessing"] == expected
        assert (extractor.matrix.flatten()[0] == 0) == (expected == "caffe")  # red from red, or blue first
    weight, bias = torch.arange(9.0).reshape(3, 3, 1, 1), torch.tensor([1.0, -2.0, 3.0])
    own = saved(tmp_path / "own.safetensors", state_of(vgg) | {"preproc.weight": weight, "preproc.bias": bias})
    extractor = VGG16(["relu1_1"], own)
    assert torch.allclose(extractor.normalise(batch()), nn.functional.conv2d(batch(), weight, bias), atol=1e-5)
    assert extractor.describe() == "VGG-16, weights of own.safetensors (its own preprocessing)"


# ---------------------------------------------------------------------------------- files


def test_the_same_activations_as_torchvision(tmp_path):
    from torchvision.models import squeezenet1_1
    from torchvision.models.vgg import cfgs, make_layers

    vgg, squeeze = make_layers(cfgs["D"])[:16], squeezenet1_1(weights=None).eval()
    whole = {f"module.features.{key}": value for key, value in vgg.state_dict().items()}
    torch.save({"state_dict": {**whole, "classifier.0.bias": torch.zeros(2)}}, tmp_path / "vgg.pth")
    caffe = {key.replace("squeeze.", "squeeze1x1."): value for key, value in squeeze.state_dict().items()}
    torch.save(caffe, tmp_path / "squeeze.pth")
    half = {key: value.half() for key, value in vgg.state_dict().items()}
    for theirs, network, path, layers, error in (
        (vgg, VGG16, tmp_path / "vgg.pth", ["relu1_2", "relu3_3"], 0),
        (vgg, VGG16, saved(tmp_path / "half.safetensors", half), ["relu2_2"], 1e-3),
        (squeeze.features, SqueezeNet, tmp_path / "squeeze.pth", SqueezeNet.names(), 0),
    ):
        mine = network(layers, path)
        assert {parameter.dtype for parameter in mine.parameters()} == {torch.float32}
        x = mine.normalise(batch(33))
        for layer, found in mine(batch(33)).items():
            expected = theirs[: network.places[layer] + 1](x)
            assert torch.allclose(found, expected, rtol=0, atol=error), layer


def test_files_and_folders_serve_what_they_hold_and_refuse_the_rest(vgg, tmp_path):
    path = saved(tmp_path / "my vgg16.safetensors", state_of(vgg))
    saved(tmp_path / "VGG16 first.safetensors", state_of(VGG16(["relu1_1"], weights="random")))
    assert "my vgg16" in VGG16(["relu2_1"], str(tmp_path)).describe()  # of several with its name, the largest
    squeeze = saved(tmp_path / "a.safetensors", state_of(SqueezeNet(["fire2"], weights="random")))
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    for weights, words in (
        (path, "no weights for relu3_3; the layers it holds: relu1_1, relu1_2, relu2_1, relu2_2$"),
        (squeeze, "weights of another network"),
        (tmp_path / "w.pth", "the layers it holds: none"),
    ):
        with pytest.raises(SRKitError, match=words):
            VGG16(["relu3_3"], weights)
    with pytest.raises(SRKitError, match="with squeezenet in its name"):
        SqueezeNet(["relu1"], tmp_path)


def test_published_weights_from_a_mirror_are_kept_and_without_network_the_error_says_all(vgg, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "PYTORCH", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("SRKIT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SRKIT_MIRROR", str(tmp_path))
    with pytest.raises(SRKitError) as error:
        VGG16(["relu1_1"])
    for part in (VGG16.file, str(tmp_path / "data" / "weights"), "SRKIT_MIRROR", 'weights="random"'):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    torch.save(state_of(vgg), tmp_path / VGG16.file)
    monkeypatch.setattr(VGG16, "sha256", hashlib.sha256((tmp_path / VGG16.file).read_bytes()).hexdigest())
    assert VGG16(["relu1_2"]).describe() == "VGG-16, ImageNet weights"
    (tmp_path / VGG16.file).unlink()
    assert torch.equal(VGG16(["relu1_2"]).features[0].weight, vgg.features[0].weight)


@pytest.mark.slow
def test_the_small_vgg_comes_along(monkeypatch):
    monkeypatch.setattr(features, "fetch_file", lambda *_, **__: pytest.fail("it needs no network"))
    small = load_features("small-vgg", ["relu1_2", "relu2_2", "relu3_3", "relu4_3"])
    assert [x.shape[1:] for x in small(batch()).values()] == [(24, 16, 16), (48, 8, 8), (80, 4, 4), (112, 2, 2)]
    assert sum(parameter.numel() for parameter in small.parameters()) <= 500_000
    path = FOLDER / "small-vgg.safetensors"
    card = json.loads(path.with_suffix(".json").read_text())
    assert path.stat().st_size <= 1_000_000 and card["weights_sha256"] == weights_sha256(load_file(path))
    assert small.names() == VGG16.names()[: len(small.names())] and "distilled" in small.describe()


@pytest.mark.slow
def test_the_small_vgg_finds_pictures_as_far_apart_as_vgg16_does():
    large = VGG16(distil.LAYERS, shared("vgg16_caffe_conv1_1-conv5_3.safetensors", "weights"), "caffe")
    networks = {"small": SmallVGG(distil.LAYERS), "random": SmallVGG(distil.LAYERS, "random")}
    table = distil.agreement(networks, large, load_dataset("bundled", "test", size=64), (0.2, 0.8))
    for layer in distil.LAYERS:
        assert table["small"][layer]["all"] > 0.93 > table["random"][layer]["all"] + 0.05


def test_clip(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm", reason="needs timm: pip install timm")
    extractor = CLIP(["stem", "layer1", "layer3"], weights="random")
    shapes = [tuple(each.shape[1:]) for each in extractor(batch(64)).values()]
    assert shapes == [(64, 32, 32), (256, 16, 16), (1024, 4, 4)]
    assert not any(getattr(each, "inplace", False) for each in extractor.modules())
    whole = timm.create_model(features.CLIP_MODEL).eval()
    mine = CLIP(["layer4"], saved(tmp_path / "clip.safetensors", whole.state_dict()))
    assert torch.allclose(mine(batch(64))["layer4"], whole.forward_features(mine.normalise(batch(64))), atol=1e-5)
    first = saved(tmp_path / "first.safetensors", {k: v for k, v in whole.state_dict().items() if "stem" in k})
    with pytest.raises(SRKitError, match=r"holds: stem$"):
        CLIP(["layer4"], first)
    create = timm.create_model

    def unreachable(*args, pretrained: bool = False, **keywords):
        if pretrained:
            raise OSError("no network")
        return create(*args, **keywords)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(SRKitError, match=r"could not be had.*weights=\"random\""):
        CLIP(["stem"])
