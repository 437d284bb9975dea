"""features: frozen networks at named layers, their weights from every place, and what is refused."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from srkit import downloads, features, images
from srkit.downloads import File
from srkit.errors import SRKitError
from srkit.features import CLIP, NETWORKS, VGG16, VGG19, SqueezeNet, open_features
from srkit.sources import pictures

DEAD = "http://127.0.0.1:9"  # nobody listens on the discard port
SHARED = Path(__file__).parents[2] / "shared" / "weights"
IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No published address answers, and nothing is kept outside the test's folder."""
    for network in (VGG16, VGG19, SqueezeNet):
        address = f"{DEAD}/{network.name}-0123abcd.pth"
        monkeypatch.setattr(network, "_address", classmethod(lambda cls, address=address: address))
    monkeypatch.setenv("SRKIT_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("SRKIT_MIRROR", raising=False)


def shared(name: str) -> Path:
    if not (SHARED / name).is_file():
        pytest.skip(f"needs the pretrained weights {name} in {SHARED.name}/ beside the repository")
    return SHARED / name


def batch(size: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def state_of(extractor: features.Extractor, prefix: str = "features.") -> dict[str, torch.Tensor]:
    """Its weights as torchvision's files name them."""
    return {prefix + key: value for key, value in extractor.features.state_dict().items()}


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [each for each in module.modules() if isinstance(each, nn.Conv2d)]


# ---------------------------------------------------------------------------------- layers


def test_names_are_those_of_the_papers():
    assert VGG16.names()[:3] == ("relu1_1", "relu1_2", "relu2_1") and VGG16.names()[-1] == "relu5_3"
    assert len(VGG16.names()) == 13 and len(VGG19.names()) == 16 and VGG19.names()[-1] == "relu5_4"
    assert SqueezeNet.names() == ("relu1", *(f"fire{i}" for i in range(2, 10)))
    assert CLIP.names() == ("stem", "layer1", "layer2", "layer3", "layer4")


@pytest.mark.parametrize("name, layers", [("vgg16", VGG16.names()), ("vgg19", VGG19.names())])
def test_vgg_shapes(name, layers):
    found = open_features(name, layers, weights="random")(batch(16))
    widths = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
    for layer, answer in found.items():
        block = int(layer[4])
        assert answer.shape == (2, widths[block], 16 // 2 ** (block - 1), 16 // 2 ** (block - 1)), layer


def test_layers_come_in_network_order_and_as_a_subset():
    extractor = VGG16(["relu2_2", "relu1_2", "relu2_2"], weights="random")
    assert extractor.layers == ("relu1_2", "relu2_2") == tuple(extractor(batch()))
    assert list(extractor(batch(), ["relu2_2", "relu1_2"])) == ["relu1_2", "relu2_2"]
    assert list(extractor(batch(), ["relu1_2"])) == ["relu1_2"]
    assert extractor(batch(), []) == {}


def test_before_and_after_the_relu():
    found = VGG16(["conv2_1", "relu2_1"], weights="random")(batch())
    assert (found["conv2_1"] < 0).any()
    assert torch.equal(found["conv2_1"].relu(), found["relu2_1"])


def test_unknown_names_get_the_nearest():
    with pytest.raises(SRKitError, match=r"unknown layer of VGG-16 'relu2-2': did you mean 'relu2_2'"):
        VGG16(["relu1_2", "relu2-2"], weights="random")
    with pytest.raises(SRKitError, match=r"'relu5_4': did you mean 'relu\d_\d'"):
        VGG16(["relu5_4"], weights="random")
    with pytest.raises(SRKitError, match="at least one layer"):
        VGG16([], weights="random")
    with pytest.raises(SRKitError, match="unknown features 'vgg-16': did you mean 'vgg16'"):
        open_features("vgg-16", ["relu1_2"])
    with pytest.raises(SRKitError, match=r"unknown weights 'randm': did you mean 'random'.*or give a file"):
        VGG16(["relu1_2"], weights="randm")
    with pytest.raises(SRKitError, match="unknown preprocessing 'cafe': did you mean 'caffe'"):
        VGG16(["relu1_2"], weights="random", preprocessing="cafe")
    with pytest.raises(SRKitError, match=r"layer of this VGG-16.*'relu2_2'.*Known: relu1_2$"):
        VGG16(["relu1_2"], weights="random")(batch(), ["relu2_2"])


def test_nothing_past_the_deepest_layer_is_built_or_computed():
    extractor = VGG16(["relu1_2", "relu3_1"], weights="random")
    assert [each.out_channels for each in convolutions(extractor)] == [64, 64, 128, 128, 256]
    assert sum(p.numel() for p in extractor.parameters()) == 1792 + 36928 + 73856 + 147584 + 295168
    ran = []
    for each in extractor.features:
        each.register_forward_hook(lambda module, *_: ran.append(type(module).__name__))
    extractor(batch(), ["relu1_2"])
    assert ran == ["Conv2d", "ReLU"] * 2
    ran.clear()
    extractor(batch())
    assert ran.count("Conv2d") == 5 and ran[-1] == "ReLU"
    ran.clear()
    extractor(batch(), [])
    assert ran == []


@pytest.mark.parametrize("network", [VGG16, SqueezeNet])
def test_smallest_picture(network):
    for layer in network.names():
        extractor = network([layer], weights="random")
        side = extractor.smallest
        assert extractor(batch(side))[layer].numel() > 0
        extractor.check_size(side, 500)
        if side > 1:
            with pytest.raises(RuntimeError):
                extractor(batch(side - 1))
            with pytest.raises(
                SRKitError, match=rf"500 x {side - 1} pixels are too small for {layer}.* {side} x {side}"
            ):
                extractor.check_size(500, side - 1)


# ---------------------------------------------------------------------------------- frozen


def test_frozen_but_the_gradient_reaches_the_picture():
    extractor = VGG16(["relu2_2"], weights="random")
    model = nn.ModuleDict({"own": nn.Conv2d(3, 3, 1), "features": extractor})
    model.train()
    assert model["own"].training and not any(each.training for each in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    x = batch().requires_grad_()
    extractor(x)["relu2_2"].sum().backward()
    assert x.grad.abs().min() > 0
    assert all(p.grad is None for p in extractor.parameters())


def test_random_is_always_the_same_and_rolls_no_dice_of_the_caller():
    before = torch.get_rng_state()
    shallow = VGG16(["relu1_2"], weights="random")
    deep = VGG16(["relu3_3"], weights="random")
    SqueezeNet(["fire9"], weights="random")
    assert torch.equal(before, torch.get_rng_state())
    for mine, its in zip(convolutions(shallow), convolutions(deep), strict=False):
        assert torch.equal(mine.weight, its.weight)
    assert not convolutions(deep)[0].bias.any()
    spread = deep(batch())["relu3_3"].std() / deep(batch())["relu3_3"].mean()
    assert 0.5 < spread < 3  # signal neither dies nor explodes
    assert deep.note == "VGG-16, random weights"


def test_recipe_builds_the_same():
    first = VGG16(["relu2_1", "relu1_1"], weights="random", preprocessing="caffe")
    recipe = dict(first.recipe)
    assert recipe["features"] == "vgg16" and recipe["layers"] == ["relu1_1", "relu2_1"]
    second = open_features(recipe.pop("features"), **recipe)
    assert torch.equal(first(batch())["relu2_1"], second(batch())["relu2_1"])
    assert VGG16(["relu1_1"], weights="random").recipe.keys() == {"features", "weights", "layers"}
    assert NETWORKS["vgg16"] is VGG16


def test_autocast_normalises_in_full_precision():
    extractor = VGG16(["relu2_2"], weights="random", preprocessing="caffe")
    extractor.to(memory_format=torch.channels_last)
    exact = extractor(batch())["relu2_2"]
    seen = extractor.normalise(batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor.normalise(batch()), seen)
        found = extractor(batch().contiguous(memory_format=torch.channels_last))["relu2_2"]
    assert found.dtype == torch.bfloat16
    assert (found - exact).abs().max() < 0.03 * exact.abs().max()


# ---------------------------------------------------------------------------------- preprocessing


def constant(red: float, green: float, blue: float) -> torch.Tensor:
    return torch.tensor([red, green, blue]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)


def test_imagenet_normalisation_by_hand():
    found = VGG16(["relu1_1"], weights="random").normalise(constant(1.0, 0.5, 0.0))
    expected = [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert torch.allclose(found[0, :, 2, 3], torch.tensor(expected), atol=1e-6)


def test_caffe_normalisation_by_hand():
    extractor = VGG16(["relu1_1"], weights="random", preprocessing="caffe")
    found = extractor.normalise(constant(1.0, 0.5, 0.0))
    assert torch.allclose(found[0, :, 2, 3], torch.tensor([0 - 103.939, 127.5 - 116.779, 255 - 123.68]), atol=1e-4)
    assert extractor.note == "VGG-16, random weights (Caffe)"


def test_caffe_by_name_by_remark_and_overruled(tmp_path):
    state = state_of(VGG16(["relu1_1"], weights="random"))
    save_file(state, tmp_path / "vgg16_Caffe.safetensors")
    save_file(state, tmp_path / "told.safetensors", {"input": "BGR, 0-255"})
    save_file(state, tmp_path / "plain.safetensors")
    caffe = VGG16(["relu1_1"], tmp_path / "vgg16_Caffe.safetensors")
    assert caffe.note == "VGG-16, weights of vgg16_Caffe.safetensors (Caffe)"
    assert torch.equal(caffe.matrix, VGG16(["relu1_1"], tmp_path / "told.safetensors").matrix)
    plain = VGG16(["relu1_1"], tmp_path / "plain.safetensors")
    assert plain.note == "VGG-16, weights of plain.safetensors"
    overruled = VGG16(["relu1_1"], tmp_path / "vgg16_Caffe.safetensors", preprocessing="imagenet")
    assert torch.equal(overruled.matrix, plain.matrix) and "Caffe)" not in overruled.note


def test_a_file_brings_its_own_preprocessing(tmp_path):
    weight, bias = torch.arange(9.0).reshape(3, 3, 1, 1), torch.tensor([1.0, -2.0, 3.0])
    state = state_of(VGG16(["relu1_1"], weights="random")) | {"preproc.weight": weight, "preproc.bias": bias}
    save_file(state, tmp_path / "vgg16.safetensors")
    extractor = VGG16(["relu1_1"], tmp_path / "vgg16.safetensors")
    assert torch.allclose(extractor.normalise(batch()), nn.functional.conv2d(batch(), weight, bias), atol=1e-5)
    assert extractor.note.endswith("(its own preprocessing)")
    save_file(state | {"preproc.bias": torch.zeros(4)}, tmp_path / "bad.safetensors")
    with pytest.raises(SRKitError, match="preproc is no 1 x 1 convolution"):
        VGG16(["relu1_1"], tmp_path / "bad.safetensors")


# ---------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["whole", "features only", "safetensors"])
def test_the_same_activations_as_torchvision(kind, tmp_path):
    from torchvision.models.vgg import cfgs, make_layers

    theirs = make_layers(cfgs["D"])[:16].eval()
    state = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "whole":
        torch.save(state | {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}, path)
    elif kind == "features only":
        torch.save(theirs.state_dict(), path)
    else:
        save_file(state, path)
    mine = VGG16(["relu1_2", "relu2_2", "relu3_3"], path)
    mean, std = (each.reshape(1, 3, 1, 1) for each in IMAGENET)
    assert torch.allclose(mine.normalise(batch()), (batch() - mean) / std, atol=1e-6)
    with torch.no_grad():
        found, x = mine(batch()), mine.normalise(batch())
        for layer, stop in (("relu1_2", 4), ("relu2_2", 9), ("relu3_3", 16)):
            assert torch.equal(found[layer], theirs[:stop](x)), layer


def test_squeezenet_and_vgg19_as_torchvision(tmp_path):
    from torchvision.models import squeezenet1_1
    from torchvision.models.vgg import cfgs, make_layers

    theirs = squeezenet1_1(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "squeezenet.pth")
    mine = SqueezeNet(SqueezeNet.names(), tmp_path / "squeezenet.pth")
    x = mine.normalise(batch(65))
    with torch.no_grad():
        for (layer, found), stop in zip(mine(batch(65)).items(), (1, 3, 4, 6, 7, 9, 10, 11, 12), strict=True):
            assert torch.equal(found, theirs.features[: stop + 1](x)), layer
    their_vgg = make_layers(cfgs["E"])
    assert {key: value.shape for key, value in their_vgg.state_dict().items()} == {
        key: value.shape for key, value in VGG19._network().state_dict().items()
    }
    assert isinstance(their_vgg[VGG19._places()["conv5_4"]], nn.Conv2d) and VGG19._places()["relu5_4"] == 35


def test_half_precision_files_are_read_as_float32(tmp_path):
    state = state_of(VGG16(["relu1_1"], weights="random"))
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "half.safetensors")
    extractor = VGG16(["relu1_1"], tmp_path / "half.safetensors")
    assert {p.dtype for p in extractor.parameters()} == {torch.float32}


def test_partial_file_serves_what_it_holds_and_refuses_the_rest(tmp_path):
    path = tmp_path / "part.safetensors"
    save_file(state_of(VGG16(["relu2_1"], weights="random")), path)
    assert VGG16(["relu2_1"], path)(batch())["relu2_1"].shape[1] == 128
    with pytest.raises(SRKitError, match=r"part.*no weights for relu2_2, relu4_3; .*: relu1_1, relu1_2, relu2_1$"):
        VGG16(["relu1_2", "relu2_2", "relu4_3"], path)


def test_folder_of_weights(tmp_path):
    with pytest.raises(SRKitError, match="holds no weights file"):
        VGG16(["relu1_1"], tmp_path)
    state = state_of(VGG16(["relu1_1"], weights="random"))
    save_file(state, tmp_path / "mine.safetensors")
    (tmp_path / "README.md").write_text("hello")
    assert VGG16(["relu1_1"], tmp_path).note == "VGG-16, weights of mine.safetensors"
    save_file(state, tmp_path / "vgg16 first layer.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "squeezenet.safetensors")
    assert VGG16(["relu1_1"], str(tmp_path)).note == "VGG-16, weights of vgg16 first layer.safetensors"
    save_file(state, tmp_path / "vgg16_b.safetensors")
    with pytest.raises(SRKitError, match="holds 2 weights files for VGG-16"):
        VGG16(["relu1_1"], tmp_path)
    with pytest.raises(SRKitError, match="no such weights file"):
        VGG16(["relu1_1"], tmp_path / "nowhere")
    with pytest.raises(SRKitError, match="no such weights file"):
        VGG16(["relu1_1"], "nowhere.pth")


def test_another_network_is_refused(tmp_path):
    def saved(name: str, state: dict) -> Path:
        save_file(state, tmp_path / name)
        return tmp_path / name

    squeezenet = saved("a.safetensors", state_of(SqueezeNet(["fire2"], weights="random")))
    with pytest.raises(SRKitError, match=r"^a.safetensors: weights of another network: VGG-16 has no "):
        VGG16(["relu1_1"], squeezenet)
    deep = saved("b.safetensors", state_of(VGG19(["relu3_4"], weights="random")))
    with pytest.raises(SRKitError, match="another network"):
        VGG16(["relu1_1"], deep)
    early = state_of(VGG19(["relu1_2"], weights="random"))  # no shape says whose this is, only the name
    with pytest.raises(SRKitError, match="another network: vgg19, not vgg16"):
        VGG16(["relu1_1"], saved("vgg19.safetensors", early))
    wider = {"features.0.weight": torch.zeros(32, 3, 3, 3), "features.0.bias": torch.zeros(32)}
    with pytest.raises(SRKitError, match="another network"):
        VGG16(["relu1_1"], saved("c.safetensors", wider))


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy", "empty", "text"])
def test_truncated_or_damaged_file(form, tmp_path):
    state = state_of(VGG16(["relu1_2"], weights="random"))
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"<html>not found</html>"}.get(form, whole[: len(whole) // 2]))
    with pytest.raises(SRKitError, match="truncated or damaged") as error:
        VGG16(["relu1_1"], path)
    assert "\n" not in str(error.value)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_executed(zipped, tmp_path):
    state = state_of(VGG16(["relu1_1"], weights="random")) | {"features.2.weight": Evil(tmp_path / "run")}
    torch.save(state, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(SRKitError, match="nothing was run") as error:
        VGG16(["relu1_1"], tmp_path / "evil.pth")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [{}, [torch.zeros(1)], {"epoch": 3}])
def test_no_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(SRKitError, match="holds no weights"):
        VGG16(["relu1_1"], tmp_path / "w.pth")


# ---------------------------------------------------------------------------------- the published weights


def publish(folder: Path, monkeypatch, layers=("relu1_2",)) -> str:
    """Put a VGG-16 file into `folder` under a name with its hash, and make this the published one."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state_of(VGG16(layers, weights="random")), folder / "new.pth")
    digits = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    (folder / "new.pth").rename(folder / f"vgg16-{digits}.pth")
    address = f"{DEAD}/vgg16-{digits}.pth"
    monkeypatch.setattr(VGG16, "_address", classmethod(lambda cls: address))
    return f"vgg16-{digits}.pth"


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_published_weights_from_a_mirror_are_kept(by, tmp_path, monkeypatch):
    name = publish(tmp_path / "mirror", monkeypatch)
    if by == "environment":
        monkeypatch.setenv("SRKIT_MIRROR", str(tmp_path / "mirror"))
    extractor = VGG16(["relu1_2"], mirror=tmp_path / "mirror" if by == "argument" else None)
    assert extractor.note == "VGG-16, ImageNet weights"
    assert [path.name for path in (tmp_path / "data" / "weights").iterdir()] == [name]
    monkeypatch.delenv("SRKIT_MIRROR", raising=False)
    again = VGG16(["relu1_1"])  # from what was kept: no address answers
    assert torch.equal(again.features[0].weight, extractor.features[0].weight)


def test_a_broken_copy_never_counts(tmp_path, monkeypatch):
    name = publish(tmp_path / "mirror", monkeypatch)
    whole = (tmp_path / "mirror" / name).read_bytes()
    (tmp_path / "data" / "weights").mkdir(parents=True)
    (tmp_path / "data" / "weights" / name).write_bytes(whole[:999])
    assert VGG16(["relu1_1"], mirror=tmp_path / "mirror")
    assert (tmp_path / "data" / "weights" / name).read_bytes() == whole

    (tmp_path / "mirror" / name).write_bytes(whole[:-1] + b"x")
    (tmp_path / "data" / "weights" / name).unlink()
    with pytest.raises(SRKitError, match="wrong hash"):
        VGG16(["relu1_1"], mirror=tmp_path / "mirror")
    assert not list((tmp_path / "data" / "weights").iterdir())


def test_without_network_the_error_says_all(tmp_path):
    (tmp_path / "mirror").mkdir()
    with pytest.raises(SRKitError) as error:
        VGG16(["relu1_1"], mirror=tmp_path / "mirror")
    text = str(error.value)
    folder = str(tmp_path / "data" / "weights")
    for part in ("vgg16-0123abcd.pth", folder, "SRKIT_MIRROR", 'weights="random"', "no connection", DEAD):
        assert part in text
    assert "\n" not in text
    with pytest.raises(SRKitError, match="the mirror is no folder"):
        VGG16(["relu1_1"], mirror=tmp_path / "nowhere")


def test_torchvisions_addresses_carry_a_hash(monkeypatch):
    monkeypatch.undo()
    for network in (VGG16, VGG19, SqueezeNet):
        name = network._address().rsplit("/", 1)[1]
        assert name.startswith(network.name)
        digits = Path(name).stem.rsplit("-", 1)[1]
        assert len(digits) == 8 and int(digits, 16)


def test_fetch_file_and_hash_prefixes(tmp_path):
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "a.bin"
    path.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert downloads.has_hash(path, f"sha256:{digest[:8]}") and downloads.has_hash(path, f"sha256:{digest}")
    for wrong in ("", digest[:7], digest[1:9], digest + "0"):
        assert not downloads.has_hash(path, f"sha256:{wrong}")
    file = File("a.bin", f"sha256:{digest[:8]}", (f"{DEAD}/a.bin",))
    assert downloads.fetch_file(file, tmp_path / "new" / "weights", mirror=tmp_path).read_bytes() == b"abc"
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(SRKitError, match=r"cannot write there.*SRKIT_DATA=.*; or stay at home"):
        downloads.fetch_file(file, tmp_path / "blocked", mirror=tmp_path, otherwise="stay at home")


# ---------------------------------------------------------------------------------- CLIP


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SRKitError, match=r"^timm is not installed: pip install timm$"):
        CLIP(["layer1"], weights="random")


def test_clip(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm", reason="needs timm: pip install timm")
    for layer in CLIP.names():
        extractor = CLIP([layer], weights="random")
        assert extractor(batch(extractor.smallest))[layer].numel() > 0
        assert not any(each.is_meta for each in (*extractor.parameters(), *extractor.buffers()))
    extractor = CLIP(["stem", "layer1", "layer3"], weights="random")
    assert [tuple(each.shape[1:]) for each in extractor(batch(64)).values()] == [
        (64, 32, 32),
        (256, 16, 16),
        (1024, 4, 4),
    ]

    whole = timm.create_model(features.CLIP_MODEL).eval()
    save_file(whole.state_dict(), tmp_path / "clip.safetensors")
    mine = CLIP(["layer4"], tmp_path / "clip.safetensors")
    theirs = whole.forward_features(mine.normalise(batch(64)))
    assert torch.allclose(mine(batch(64))["layer4"], theirs, atol=1e-5)
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
    ("vgg16", "relu2_2", "vgg16_caffe_conv1_1-conv2_2.safetensors", "(Caffe)"),
    ("vgg19", "relu3_1", "vgg19_normalised_conv1_1-conv3_1.safetensors", "(its own preprocessing)"),
    ("squeezenet", "fire5", "squeezenet1_1_caffe_features.safetensors", "(Caffe)"),
]


@pytest.mark.parametrize("name, layer, file, remark", REAL)
def test_real_features_mind_blur_more_than_brightness(name, layer, file, remark):
    """At the same mean squared error a blurred photograph is further from the sharp one than a brighter one."""
    extractor = open_features(name, [layer], shared(file))
    assert extractor.note.endswith(f"{file} {remark}")
    photo = next(path for path in pictures("bundled") if path.stem == "astronaut")
    sharp = images.read(photo)[None, :, :160, 140:300]
    blurred = nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2, count_include_pad=False)
    brighter = sharp + (blurred - sharp).square().mean().sqrt()
    of_sharp, of_blurred, of_brighter = (extractor(each)[layer] for each in (sharp, blurred, brighter))
    assert (of_blurred - of_sharp).square().mean() > 3 * (of_brighter - of_sharp).square().mean()


def test_real_vgg16_has_no_deeper_layers():
    with pytest.raises(SRKitError, match=r"no weights for relu3_3, relu4_3; .*relu2_1, relu2_2$"):
        VGG16(["relu1_2", "relu3_3", "relu4_3"], shared("vgg16_caffe_conv1_1-conv2_2.safetensors"))
