"""convert: the generators of other projects, against networks written as theirs are; and every file that is none."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from srkit import models
from srkit.models.convert import convert, origin
from srkit.models.pretrained import read, weights_sha256
from srkit.settings import SRKitError


class Sum(nn.Sequential):
    """x + layers(x)."""

    def forward(self, x):
        return x + super().forward(x)


class Names(nn.Module):
    """Modules by name, the outer ones in dotted form: what a state_dict shows of a network."""

    def __init__(self, named):
        super().__init__()
        for name, module in named.items():
            self.put(name.split("."), module)

    def put(self, path, module):
        if len(path) == 1:
            self.add_module(path[0], module)
        else:
            if path[0] not in self._modules:
                self.add_module(path[0], Names({}))
            self._modules[path[0]].put(path[1:], module)

    def __getitem__(self, name):
        return self.get_submodule(name)


def conv(inputs, outputs, kernel, bias=True):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def half(channels, bias=True):
    """Of a block: convolution and normalisation."""
    return conv(channels, channels, 3, bias), nn.BatchNorm2d(channels)


PARTS = ("conv1", "bn1", "prelu", "conv2", "bn2")


class LeftThomas(Names):
    """[0, 1] in; (tanh + 1) / 2 out; the trunk ends in a normalisation, or as published in a PReLU."""

    def __init__(self, channels=6, blocks=3, doublings=2, end=nn.BatchNorm2d):
        end = nn.PReLU() if end is nn.PReLU else end(channels)
        c, last = channels, blocks + 3
        named = {"block1.0": conv(3, c, 9), "block1.1": nn.PReLU()}
        for b in range(2, blocks + 2):
            named |= {
                f"block{b}.{name}": part for name, part in zip(PARTS, [*half(c), nn.PReLU(), *half(c)], strict=True)
            }
        named |= {f"block{last - 1}.0": conv(c, c, 3), f"block{last - 1}.1": end}
        for j in range(doublings):
            named |= {f"block{last}.{j}.conv": conv(c, 4 * c, 3), f"block{last}.{j}.prelu": nn.PReLU()}
        super().__init__({**named, f"block{last}.{doublings}": conv(c, 3, 9)})
        self.blocks, self.doublings = blocks, doublings

    def forward(self, low):
        first = x = self["block1.1"](self["block1.0"](low))
        for b in range(2, self.blocks + 2):
            y = self[f"block{b}.prelu"](self[f"block{b}.bn1"](self[f"block{b}.conv1"](x)))
            x = x + self[f"block{b}.bn2"](self[f"block{b}.conv2"](y))
        last = self.blocks + 3
        x = first + self[f"block{last - 1}.1"](self[f"block{last - 1}.0"](x))
        for j in range(self.doublings):
            x = self[f"block{last}.{j}.prelu"](nn.functional.pixel_shuffle(self[f"block{last}.{j}.conv"](x), 2))
        return (torch.tanh(self[f"block{last}.{self.doublings}"](x)) + 1) / 2


class DongHeeHand(Names):
    """[-1, 1] in, tanh out, and one PReLU under the name of each."""

    def __init__(self, channels=6, blocks=3, steps=(2, 2)):
        c, act = channels, nn.PReLU()
        named = {"conv01.body.0": conv(3, c, 9), "conv01.body.1": act}
        for i in range(blocks):
            named |= {f"body.{i}.body.0.body.{k}": part for k, part in enumerate([*half(c), act])}
            named |= {f"body.{i}.body.1.body.{k}": part for k, part in enumerate(half(c))}
        named |= {"conv02.body.0": conv(c, c, 3), "conv02.body.1": nn.BatchNorm2d(c)}
        for j, step in enumerate(steps):
            named |= {f"tail.{j}.body.0.body.0": conv(c, step**2 * c, 3), f"tail.{j}.body.2": act}
        super().__init__({**named, "last_conv.body.0": conv(c, 3, 3)})
        self.act, self.blocks, self.steps = [act], blocks, steps

    def forward(self, low):
        act = self.act[0]
        first = x = act(self["conv01.body.0"](2 * low - 1))
        for i in range(self.blocks):
            first_half, second_half = self[f"body.{i}.body.0.body"], self[f"body.{i}.body.1.body"]
            x = x + second_half["1"](second_half["0"](act(first_half["1"](first_half["0"](x)))))
        x = first + self["conv02.body.1"](self["conv02.body.0"](x))
        for j, step in enumerate(self.steps):
            x = act(nn.functional.pixel_shuffle(self[f"tail.{j}.body.0.body.0"](x), step))
        return (torch.tanh(self["last_conv.body.0"](x)) + 1) / 2


class Lornatang(nn.Module):
    """[0, 1] in and, but for clipping, out; no bias before a normalisation."""

    def __init__(self, channels=6, blocks=3, doublings=2):
        super().__init__()
        c = channels
        self.conv1 = nn.Sequential(conv(3, c, 9), nn.PReLU())
        self.trunk = nn.Sequential()
        for _ in range(blocks):
            self.trunk.append(Names({"rcb": Sum(*half(c, False), nn.PReLU(), *half(c, False))}))
        self.conv2 = nn.Sequential(*half(c, False))
        self.upsampling = nn.Sequential()
        for _ in range(doublings):
            self.upsampling.append(
                Names({"upsample_block": nn.Sequential(conv(c, 4 * c, 3), nn.PixelShuffle(2), nn.PReLU())})
            )
        self.conv3 = conv(c, 3, 9)

    def forward(self, low):
        first = x = self.conv1(low)
        for block in self.trunk:
            x = block.rcb(x)
        x = first + self.conv2(x)
        for block in self.upsampling:
            x = block.upsample_block(x)
        return self.conv3(x)


def randomised(network, seed=0):
    """The network with random weights and far from trivial statistics, ready to evaluate."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.3, 3, generator=generator)
        elif value.dim() == 4:
            value.normal_(0, 1.2 / value[0].numel() ** 0.5, generator=generator)
        elif value.is_floating_point():
            value.uniform_(-0.4, 0.6, generator=generator)
        else:
            value.fill_(17)
    return network.eval()


NETWORKS = {
    "leftthomas": (LeftThomas, "leftthomas/SRGAN (MIT)"),
    "leftthomas, published": (lambda **sizes: LeftThomas(**sizes, end=nn.PReLU), "leftthomas/SRGAN (MIT)"),
    "dongheehand": (DongHeeHand, "dongheehand/SRGAN-PyTorch (no licence stated)"),
    "Lornatang": (Lornatang, "Lornatang/SRGAN-PyTorch (Apache-2.0)"),
}


def small(name, **sizes):
    """A small network of a project, and the weights that its file would hold."""
    network = randomised(NETWORKS[name][0](**sizes))
    return network, {key: value.clone() for key, value in network.state_dict().items()}


@pytest.fixture
def low():
    return torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("blocks, channels, doublings", [(3, 6, 2), (11, 4, 2), (1, 5, 1)])
@torch.no_grad()
def test_output_is_the_originals(name, blocks, channels, doublings, low):
    steps = {"steps": (2,) * doublings} if name == "dongheehand" else {"doublings": doublings}
    network, weights = small(name, blocks=blocks, channels=channels, **steps)
    model, expected = convert(weights), network(low)
    assert expected.std() > 0.05  # a constant would prove nothing
    assert (model(low) - expected).abs().max() < 1e-5  # border included
    assert model.pretrained is True and not model.training and model.scale == 2**doublings
    assert model.config["blocks"] == blocks and model.config["channels"] == channels
    assert model.config["name"] == NETWORKS[name][1] and origin(model)["project"] in NETWORKS[name][1]
    again = models.build(json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(low), model(low))
    old = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}  # before 0.4.1
    assert (convert(old)(low) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_what_training_puts_around_weights(prefix):
    weights = small("Lornatang")[1]
    plain = weights_sha256(convert(weights).state_dict())
    wrapped = {"n_averaged": torch.tensor(7), **{prefix + key: value for key, value in weights.items()}}
    for content in (wrapped, {"epoch": 3, "state_dict": wrapped, "optimizer": {"state": {}}}):
        assert weights_sha256(convert(content).state_dict()) == plain


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, save_old, save_file])
@torch.no_grad()
def test_kinds_of_file(save, low, tmp_path):
    for name in NETWORKS:
        network, weights = small(name)
        save(weights, tmp_path / "weights.pth")
        assert (models.load(tmp_path / "weights.pth")(low) - network(low)).abs().max() < 1e-5
    assert origin(models.create("srresnet", channels=4)) == {}


@torch.no_grad()
def test_safetensors_with_the_shared_prelu_written_once(low, tmp_path):
    network, weights = small("dongheehand")
    save_model(network, str(tmp_path / "x.safetensors"))
    assert len(read(tmp_path / "x.safetensors")) == len(weights)
    assert (models.load(tmp_path / "x.safetensors")(low) - network(low)).abs().max() < 1e-5


# ---------------------------------------------------------------------------------- files that are none


def refused(content, *words):
    """Converting it raises one short line that holds the words."""
    with pytest.raises(SRKitError) as caught:
        convert(content)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_misshapen_and_surplus_tensors(name):
    project = NETWORKS[name][1].split(" ")[0]
    keys = [key for key in small(name)[1] if "num_batches" not in key]
    for key in keys[:: len(keys) // 5]:  # from the first to the last modules
        weights = small(name)[1]
        weights[key] = torch.zeros(*weights[key].shape, 2)
        refused(weights, project)
        del weights[key]
        refused(weights, project)
    refused({**small(name)[1], "extra.weight": torch.zeros(3)}, project, "extra.weight")


@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda value: value.to("meta")])
def test_tensors_of_another_kind(change):
    weights = small("leftthomas")[1]
    weights["block1.0.weight"] = change(weights["block1.0.weight"])
    refused(weights, "leftthomas", "head.0.weight")


def test_no_memory_is_taken_before_the_shapes_fit():
    weights = small("Lornatang")[1]
    refused({**weights, "trunk.0.rcb.1.weight": torch.zeros(1).expand(10**7)}, "over 2048")  # it would take petabytes
    refused({**weights, "trunk.999999999.rcb.0.weight": torch.zeros(1)})


def test_scales_that_an_srresnet_cannot_do():
    refused(small("leftthomas", doublings=3)[1], "leftthomas/SRGAN", "scale 8", "choose 2 or 4")
    refused(small("dongheehand", steps=(3,))[1], "dongheehand/SRGAN-PyTorch", "upsample.0.0")


def test_what_srkit_does_not_know():
    everyone = ("its own checkpoints", "leftthomas/SRGAN", "dongheehand/SRGAN-PyTorch", "Lornatang/SRGAN-PyTorch")
    discriminator = {f"{name}.weight": torch.zeros(4) for name in ("conv01.body.0", "body.0.body.0", "tail.0")}
    vgg = {f"features.{k}.{part}": torch.zeros(4) for k in (0, 2, 5) for part in ("weight", "bias")}
    for content in (discriminator, vgg, [1], {}, torch.zeros(3), {"state_dict": {}}, {1: torch.zeros(3)}, "text"):
        refused(content, *everyone)
