"""features: frozen networks at named layers, their weights from every place, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from conftest import shared
from safetensors.torch import save_file
from torch import nn

from srkit.data import images, pictures
from srkit.models import features
from srkit.models.features import CLIP, VGG16, VGG19, Extractor, SqueezeNet, load_features
from srkit.settings import SRKitError

DEAD = "http://127.0.0.1:9"  # nobody listens on the discard port


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No published address answers, and nothing is kept outside the test's folder."""
    monkeypatch.setattr(features, "PYTORCH", DEAD)
    monkeypatch.setenv("SRKIT_DATA", str(tmp_path / "data"))


def batch(size: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def state_of(extractor: Extractor, prefix: str = "features.") -> dict[str, torch.Tensor]:
    """Its weights as torchvision's files name them."""
    return {prefix + key: value for key, value in extractor.features.state_dict().items()}


def saved(path: Path, state: dict[str, torch.Tensor], **about: str) -> Path:
    save_file(state, path, about or None)
    return path


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [each for each in module.modules() if isinstance(each, nn.Conv2d)]


# ---------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("network", [VGG16, VGG19])
def test_shapes_order_and_subsets(network):
    widths = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
    for layer, found in network(reversed(network.names()), weights="random")(batch(16)).items():
        block = int(layer[4])
        assert found.shape == (2, widths[block], 16 // 2 ** (block - 1), 16 // 2 ** (block - 1)), layer
    extractor = network(["relu2_2", "conv2_1", "relu2_1", "relu2_2"], weights="random")
    assert extractor.layers == ("conv2_1", "relu2_1", "relu2_2") == tuple(extractor(batch()))
    assert list(extractor(batch(), ["relu2_2", "conv2_1"])) == ["conv2_1", "relu2_2"] and extractor(batch(), []) == {}
    found = extractor(batch())
    assert (found["conv2_1"] < 0).any() and torch.equal(found["conv2_1"].relu(), found["relu2_1"])


def test_nothing_past_the_deepest_layer_is_built_or_computed():
    extractor = VGG16(["relu1_2", "relu3_1"], weights="random")
    assert [each.out_channels for each in convolutions(extractor)] == [64, 64, 128, 128, 256]
    ran = []
    for each in extractor.features:
        each.register_forward_hook(lambda module, *_: ran.append(type(module).__name__))
    extractor(batch(), ["relu1_2"])
    assert ran == ["Conv2d", "ReLU"] * 2
    ran.clear()
    extractor(batch())
    assert ran.count("Conv2d") == 5 and ran[-1] == "ReLU"


@pytest.mark.parametrize("network, layer, side", [(VGG16, "relu4_3", 8), (SqueezeNet, "fire9", 17)])
def test_smallest_picture(network, layer, side):
    extractor = network([layer], weights="random")
    assert extractor.smallest == side and extractor(batch(side))[layer].numel() > 0
    extractor.check_size(side, 500)
    with pytest.raises(RuntimeError):
        extractor(batch(side - 1))
    with pytest.raises(SRKitError, match=rf"500 x {side - 1} pixels are too small for {layer}"):
        extractor.check_size(500, side - 1)


@pytest.mark.parametrize("make, message", [
    (lambda: VGG16(["relu1_2", "relu2-2"], "random"), "did you mean 'relu2_2'"),
    (lambda: VGG16(["relu5_4"], "random"), "relu5_4"),
    (lambda: VGG16([], "random"), "relu1_1"),
    (lambda: load_features("vgg-16", ["relu1_2"]), "did you mean 'vgg16'"),
    (lambda: VGG16(["relu1_2"], "randm"), "no such weights file or folder; or say imagenet or random"),
    (lambda: VGG16(["relu1_2"], "random", "cafe"), "did you mean 'caffe'"),
    (lambda: VGG16(["relu1_2"], "caffe:nowhere.pth"), "^nowhere.pth: no such weights file"),
])  # fmt: skip
def test_bad_names(make, message):
    with pytest.raises(SRKitError, match=message):
        make()


# ---------------------------------------------------------------------------------- frozen


def test_random_is_always_the_same_and_leaves_the_callers_generator():
    before = torch.get_rng_state()
    shallow, deep = VGG16(["relu1_2"], weights="random"), VGG16(["relu3_3"], weights="random")
    SqueezeNet(["fire9"], weights="random")
    assert torch.equal(before, torch.get_rng_state())
    for mine, its in zip(convolutions(shallow), convolutions(deep), strict=False):
        assert torch.equal(mine.weight, its.weight)
    found = deep(batch())["relu3_3"]
    assert 0.5 < found.std() / found.mean() < 3  # signal neither dies nor explodes
    assert deep.describe() == "VGG-16, random weights" and not convolutions(deep)[0].bias.any()


def test_config_builds_the_same():
    first = VGG16(["relu2_1", "relu1_1"], weights="random", preprocessing="caffe")
    config = dict(first.config)
    assert config["features"] == "vgg16" and config["layers"] == ["relu1_1", "relu2_1"]
    second = load_features(config.pop("features"), **config)
    assert torch.equal(first(batch())["relu2_1"], second(batch())["relu2_1"]) and second.config == first.config


def test_autocast_normalises_in_full_precision():
    extractor = VGG16(["relu2_2"], weights="random", preprocessing="caffe").to(memory_format=torch.channels_last)
    exact, normalised = extractor(batch())["relu2_2"], extractor.normalise(batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor.normalise(batch()), normalised)
        found = extractor(batch().contiguous(memory_format=torch.channels_last))["relu2_2"]
    assert found.dtype == torch.bfloat16 and (found - exact).abs().max() < 0.03 * exact.abs().max()


# ---------------------------------------------------------------------------------- preprocessing


def test_preprocessing_by_hand():
    orange = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    found = VGG16(["relu1_1"], weights="random").normalise(orange)
    expected = [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert torch.allclose(found[0, :, 2, 3], torch.tensor(expected), atol=1e-6)
    caffe = VGG16(["relu1_1"], weights="random", preprocessing="caffe")
    expected = [0 - 103.939, 127.5 - 116.779, 255 - 123.68]
    assert torch.allclose(caffe.normalise(orange)[0, :, 2, 3], torch.tensor(expected), atol=1e-4)
    assert caffe.describe() == "VGG-16, random weights (Caffe preprocessing)"


def test_preprocessing_is_stated_and_never_guessed(tmp_path):
    state = state_of(VGG16(["relu1_1"], weights="random"))
    plain = VGG16(["relu1_1"], saved(tmp_path / "vgg16_Caffe.safetensors", state))  # a name says nothing
    assert plain.describe() == "VGG-16, weights of vgg16_Caffe.safetensors (ImageNet preprocessing)"
    caffe = VGG16(["relu1_1"], weights="random", preprocessing="caffe")
    same = VGG16(["relu1_1"], f"caffe:{tmp_path / 'vgg16_Caffe.safetensors'}")
    assert torch.equal(same.matrix, caffe.matrix) and "(Caffe preprocessing)" in same.describe()
    assert same.config["preprocessing"] == "caffe"
    for about in ({"preprocessing": "caffe"}, {"input": "BGR, 0-255, minus [103.939,116.779,123.68]"}):
        told = saved(tmp_path / "told.safetensors", state, **about)
        assert torch.equal(VGG16(["relu1_1"], told).matrix, caffe.matrix)
        assert torch.equal(VGG16(["relu1_1"], told, preprocessing="imagenet").matrix, plain.matrix)  # overruled
    with pytest.raises(SRKitError, match="did you mean 'caffe'"):
        VGG16(["relu1_1"], saved(tmp_path / "told.safetensors", state, preprocessing="coffee"))


def test_a_file_brings_its_own_preprocessing(tmp_path):
    weight, bias = torch.arange(9.0).reshape(3, 3, 1, 1), torch.tensor([1.0, -2.0, 3.0])
    state = state_of(VGG16(["relu1_1"], weights="random")) | {"preproc.weight": weight, "preproc.bias": bias}
    extractor = VGG16(["relu1_1"], saved(tmp_path / "vgg16.safetensors", state))
    assert torch.allclose(extractor.normalise(batch()), nn.functional.conv2d(batch(), weight, bias), atol=1e-5)
    assert extractor.describe().endswith("(its own preprocessing)") and extractor.config["preprocessing"] is None


# ---------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["whole", "features only", "half"])
def test_the_same_activations_as_torchvision(kind, tmp_path):
    from torchvision.models.vgg import cfgs, make_layers

    theirs = make_layers(cfgs["D"])[:16].eval()
    state, path = theirs.state_dict(), tmp_path / "weights.pth"
    if kind == "whole":
        whole = {f"features.{key}": value for key, value in state.items()}
        torch.save({**whole, "classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}, path)
    elif kind == "features only":
        torch.save(state, path)
    else:
        saved(path, {f"features.{key}": value.half() for key, value in state.items()})
    mine = VGG16(["relu1_2", "relu2_2", "relu3_3"], path)
    assert {p.dtype for p in mine.parameters()} == {torch.float32}
    with torch.no_grad():
        found, x = mine(batch()), mine.normalise(batch())
        for layer, stop in (("relu1_2", 4), ("relu2_2", 9), ("relu3_3", 16)):
            expected = theirs[:stop](x)
            assert torch.allclose(found[layer], expected, atol=1e-3 if kind == "half" else 0), layer


def test_squeezenet_and_vgg19_as_torchvision(tmp_path):
    from torchvision.models import squeezenet1_1, vgg19

    theirs = squeezenet1_1(weights=None).eval()
    caffe = {key.replace("squeeze.", "squeeze1x1."): value for key, value in theirs.state_dict().items()}
    torch.save(caffe, tmp_path / "squeezenet.pth")
    mine = SqueezeNet(SqueezeNet.names(), tmp_path / "squeezenet.pth")
    x = mine.normalise(batch(65))
    with torch.no_grad():
        for (layer, found), stop in zip(mine(batch(65)).items(), (1, 3, 4, 6, 7, 9, 10, 11, 12), strict=True):
            assert torch.equal(found, theirs.features[: stop + 1](x)), layer
    with torch.device("meta"):
        stack = vgg19(weights=None).features
    extractor = VGG19(["conv5_4", "relu5_4"], "random")
    assert isinstance(stack[extractor.places["conv5_4"]], nn.Conv2d) and extractor.places["relu5_4"] == 35


def test_a_file_or_folder_serves_what_it_holds_and_refuses_the_rest(tmp_path):
    path = saved(tmp_path / "my vgg16.safetensors", state_of(VGG16(["relu2_1"], weights="random")))
    saved(tmp_path / "VGG16 first.safetensors", state_of(VGG16(["relu1_1"], weights="random")))
    for weights in (path, tmp_path, str(tmp_path)):  # of several with the network's name, the largest
        assert "my vgg16" in VGG16(["relu2_1"], weights).describe()
    with pytest.raises(SRKitError, match=r"my.*no weights for relu4_3; .*: relu1_1, relu1_2, relu2_1$"):
        VGG16(["relu1_2", "relu2_2", "relu4_3"], path)
    with pytest.raises(SRKitError, match="with squeezenet in its name"):
        SqueezeNet(["relu1"], tmp_path)


def test_another_network_is_refused(tmp_path):
    early = state_of(VGG19(["relu1_2"], weights="random"))  # no shape says whose this is, only what the file says
    wider = {"features.0.weight": torch.zeros(32, 3, 3, 3), "features.0.bias": torch.zeros(32)}
    for path in (
        saved(tmp_path / "a.safetensors", state_of(SqueezeNet(["fire2"], weights="random"))),
        saved(tmp_path / "b.safetensors", state_of(VGG19(["relu3_4"], weights="random"))),
        saved(tmp_path / "vgg19.safetensors", early),
        saved(tmp_path / "c.safetensors", early, arch="vgg19 features"),
        saved(tmp_path / "d.safetensors", wider),
    ):
        with pytest.raises(SRKitError, match=rf"^{path.name}: weights of another network"):
            VGG16(["relu1_1"], path)
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(SRKitError, match="holds no weights"):
        VGG16(["relu1_1"], tmp_path / "w.pth")


# ---------------------------------------------------------------------------------- the published weights


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """A mirror with a VGG-16 file under its published name, as if that were the published one."""
    path = tmp_path / "mirror" / "vgg16-397923af.pth"
    path.parent.mkdir()
    torch.save(state_of(VGG16(["relu1_2"], weights="random")), path)
    monkeypatch.setattr(VGG16, "sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_published_weights_from_a_mirror_are_kept(published, tmp_path):
    extractor = VGG16(["relu1_2"], mirror=published.parent)
    assert extractor.describe() == "VGG-16, ImageNet weights"
    assert (tmp_path / "data" / "weights" / published.name).is_file()
    again = VGG16(["relu1_1"])  # from what was kept: no address answers
    assert torch.equal(again.features[0].weight, extractor.features[0].weight)


def test_without_network_the_error_says_all(tmp_path):
    (tmp_path / "mirror").mkdir()
    with pytest.raises(SRKitError) as error:
        VGG16(["relu1_1"], mirror=tmp_path / "mirror")
    text = str(error.value)
    for part in ("vgg16-397923af.pth", str(tmp_path / "data" / "weights"), "SRKIT_MIRROR", 'weights="random"'):
        assert part in text
    assert "\n" not in text


# ---------------------------------------------------------------------------------- CLIP


@pytest.mark.slow
def test_clip(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm", reason="needs timm: pip install timm")
    for layer in CLIP.names():
        extractor = CLIP([layer], weights="random")
        assert extractor(batch(extractor.smallest))[layer].numel() > 0
        assert not any(each.is_meta for each in (*extractor.parameters(), *extractor.buffers()))
        assert not any(getattr(each, "inplace", False) for each in extractor.modules())
    extractor = CLIP(["stem", "layer1", "layer3"], weights="random")
    shapes = [tuple(each.shape[1:]) for each in extractor(batch(64)).values()]
    assert shapes == [(64, 32, 32), (256, 16, 16), (1024, 4, 4)]

    whole = timm.create_model(features.CLIP_MODEL).eval()
    mine = CLIP(["layer4"], saved(tmp_path / "clip.safetensors", whole.state_dict()))
    assert torch.allclose(mine(batch(64))["layer4"], whole.forward_features(mine.normalise(batch(64))), atol=1e-5)
    config = whole.pretrained_cfg
    expected = (batch()[0, :, 0, 0] - torch.tensor(config["mean"])) / torch.tensor(config["std"])
    assert torch.allclose(mine.normalise(batch())[0, :, 0, 0], expected, atol=1e-5)

    create = timm.create_model

    def unreachable(*args, pretrained: bool = False, **keywords):
        if pretrained:
            raise OSError("no network")
        return create(*args, **keywords)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(SRKitError, match=r"could not be had.*weights.*weights=\"random\""):
        CLIP(["stem"])


# ---------------------------------------------------------------------------------- real weights

REAL = [
    ("vgg16", "relu2_2", "vgg16_caffe_conv1_1-conv2_2.safetensors", "(Caffe preprocessing)"),
    ("vgg19", "relu3_1", "vgg19_normalised_conv1_1-conv3_1.safetensors", "(its own preprocessing)"),
    ("squeezenet", "fire5", "squeezenet1_1_caffe_features.safetensors", "(Caffe preprocessing)"),
]


@pytest.mark.parametrize("name, layer, file, remark", REAL)
def test_real_features_mind_blur_more_than_brightness(name, layer, file, remark):
    """At the same mean squared error a blurred photograph is further from the sharp one than a brighter one."""
    extractor = load_features(name, [layer], shared(file, "weights"))
    assert extractor.describe().endswith(f"{file} {remark}")
    photo = next(path for path in pictures("bundled") if path.stem == "astronaut")
    sharp = images.read(photo)[None, :, :160, 140:300]
    blurred = nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2, count_include_pad=False)
    brighter = sharp + (blurred - sharp).square().mean().sqrt()
    of_sharp, of_blurred, of_brighter = (extractor(each)[layer] for each in (sharp, blurred, brighter))
    assert (of_blurred - of_sharp).square().mean() > 3 * (of_brighter - of_sharp).square().mean()
