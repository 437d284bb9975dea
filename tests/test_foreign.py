"""foreign: the generators of other projects, against networks written as theirs are; and every file that is none."""

from __future__ import annotations

import json
import os

import pytest
import torch
from conftest import photograph
from torch import nn

from srkit import cli, models
from srkit.errors import SRKitError
from srkit.images import write
from srkit.models import foreign
from srkit.training import checkpoint


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
    dice = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.3, 3, generator=dice)
        elif value.dim() == 4:
            value.normal_(0, 1.2 / value[0].numel() ** 0.5, generator=dice)
        elif value.is_floating_point():
            value.uniform_(-0.4, 0.6, generator=dice)
        else:
            value.fill_(17)
    return network.eval()


NETWORKS = {
    "leftthomas": (LeftThomas, "leftthomas/SRGAN (MIT)", "SRResNet"),
    "leftthomas, published": (
        lambda **sizes: LeftThomas(**sizes, end=nn.PReLU), "leftthomas/SRGAN (MIT)", "ForeignSRResNet",
    ),
    "dongheehand": (DongHeeHand, "dongheehand/SRGAN-PyTorch (no licence stated)", "ForeignSRResNet"),
    "Lornatang": (Lornatang, "Lornatang/SRGAN-PyTorch (Apache-2.0)", "SRResNet"),
}  # fmt: skip


def small(name, **sizes):
    """A small network of a project, and the weights that its file would hold."""
    network = randomised(NETWORKS[name][0](**sizes))
    return network, {key: value.clone() for key, value in network.state_dict().items()}


@pytest.fixture
def low():
    return torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("blocks, channels, doublings", [(3, 6, 2), (1, 5, 1), (5, 8, 2), (0, 4, 2)])
@torch.no_grad()
def test_output_is_the_originals(name, blocks, channels, doublings, low):
    steps = {"steps": (2,) * doublings} if name == "dongheehand" else {"doublings": doublings}
    network, weights = small(name, blocks=blocks, channels=channels, **steps)
    model = foreign.load(weights, "x.pth")
    expected = network(low)
    assert expected.std() > 0.05  # a constant would prove nothing
    assert (model(low) - expected).abs().max() < 1e-5  # border included
    assert model.trained is True and not model.training and model.scale == 2**doublings
    assert model.recipe["blocks"] == blocks and model.recipe["channels"] == channels
    assert (model.recipe["name"], model.recipe["architecture"]) == NETWORKS[name][1:]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_recipe_makes_it_again(name, low, tmp_path):
    model = foreign.load(small(name)[1], "x.pth")
    again = models.build(json.loads(json.dumps(model.recipe)))
    again.load_state_dict(model.state_dict())
    assert type(again) is models.ARCHITECTURES[model.recipe["architecture"]]
    assert torch.equal(again.eval()(low), model(low))
    state = {"recipe": model.recipe, "model": model.state_dict(), "ema": None, "step": 0}
    assert torch.equal(checkpoint.load_model(checkpoint.save(state, tmp_path / "own.pt"))(low), model(low))
    frozen = models.build({**model.recipe, "frozen_norm": True}).train()
    assert not any(each.training for each in frozen.modules() if isinstance(each, nn.BatchNorm2d))


@torch.no_grad()
def test_published_sizes_have_the_published_number_of_keys():
    published = LeftThomas(64, 5, end=nn.PReLU).state_dict()
    assert len([key for key in published if not key.endswith(foreign.COUNTER)]) == 79
    assert len(DongHeeHand(64, 16).state_dict()) == 258 and len(Lornatang(64, 16).state_dict()) == 225


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_files_of_before_the_counter(name, low):
    network, weights = small(name)
    old = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(weights)
    assert (foreign.load(old, "x.pth")(low) - network(low)).abs().max() < 1e-5


def wrapped(weights, kind):
    if kind == "average":
        return {"n_averaged": torch.tensor(7), **{f"module.{key}": value for key, value in weights.items()}}
    prefix = {"compiled": "_orig_mod.", "parallel": "module.", "both": "module._orig_mod.",
              "the other way": "_orig_mod.module."}[kind]  # fmt: skip
    return {prefix + key: value for key, value in weights.items()}


@pytest.mark.parametrize("kind", ["compiled", "parallel", "both", "the other way", "average"])
def test_what_training_puts_around_weights(kind):
    weights = small("Lornatang")[1]
    plain = checkpoint.weights_sha256(foreign.load(weights, "x.pth").state_dict())
    for content in (
        wrapped(weights, kind),
        {"epoch": 3, "best_psnr": 28.1, "state_dict": wrapped(weights, kind), "optimizer": {"state": {}}},
    ):
        assert checkpoint.weights_sha256(foreign.load(content, "x.pth").state_dict()) == plain


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_safetensors(content, path):
    from safetensors.torch import save_file

    save_file(content, path)


@pytest.mark.parametrize("save", [torch.save, save_old, save_safetensors])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_kinds_of_file(name, save, low, tmp_path):
    network, weights = small(name)
    save(weights, tmp_path / "weights.pth")
    assert (checkpoint.load_model(tmp_path / "weights.pth")(low) - network(low)).abs().max() < 1e-5


@torch.no_grad()
def test_safetensors_with_the_shared_prelu_written_once(low, tmp_path):
    from safetensors.torch import save_model

    network, weights = small("dongheehand")
    save_model(network, str(tmp_path / "x.safetensors"))
    assert len(checkpoint.read(tmp_path / "x.safetensors")) == len(weights)
    assert (checkpoint.load_model(tmp_path / "x.safetensors")(low) - network(low)).abs().max() < 1e-5


# ---------------------------------------------------------------------------------- files that are none


KEYS = {  # of the middle, the beginning and the end
    "leftthomas": ("block3.bn1.weight", "block1.0.weight", "block6.2.bias"),
    "leftthomas, published": ("block3.bn1.running_var", "block5.1.weight", "block6.0.prelu.weight"),
    "dongheehand": ("body.1.body.1.body.0.bias", "conv01.body.1.weight", "tail.1.body.0.body.0.weight"),
    "Lornatang": ("trunk.1.rcb.3.weight", "conv1.0.weight", "conv3.bias"),
}
EACH_KEY = [(name, key) for name, keys in KEYS.items() for key in keys]


def refused(content, *words):
    """Loading it raises one line that holds the words."""
    with pytest.raises(SRKitError) as caught:
        foreign.load(content, "some.pth")
    message = str(caught.value)
    assert message.startswith("some.pth: ") and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("name, key", EACH_KEY)
def test_a_missing_key(name, key):
    weights = small(name)[1]
    del weights[key]
    refused(weights, NETWORKS[name][1].split(" ")[0], f"{key} is missing")


@pytest.mark.parametrize("name, key", EACH_KEY)
def test_a_misshapen_tensor(name, key):
    weights = small(name)[1]
    right = tuple(weights[key].shape)
    weights[key] = torch.zeros(*right, 2)
    refused(weights, NETWORKS[name][1].split(" ")[0], f"{key} is {(*right, 2)} where {right} belongs")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_surplus_key(name):
    weights = small(name)[1]
    refused({**weights, "extra.weight": torch.zeros(3)}, NETWORKS[name][1].split(" ")[0], "extra.weight is none of its")


def test_biases_where_lornatang_has_none_and_normalisation_halved():
    weights = small("Lornatang")[1]
    refused({**weights, "trunk.0.rcb.0.bias": torch.zeros(6)}, "trunk.0.rcb.0.bias is none of its tensors")
    weights = small("leftthomas")[1]
    for key in ("running_mean", "running_var", "bias"):
        del weights[f"block5.1.{key}"]
    refused(weights, "leftthomas", "block5.1.bias and 2 more are missing")
    del weights["block5.1.num_batches_tracked"]
    refused(weights, "leftthomas", "block5.1.weight is (6,) where (1,) belongs")


@pytest.mark.parametrize("change", [torch.Tensor.long, torch.Tensor.to_sparse, lambda value: value.to("meta")])
def test_tensors_of_another_kind(change):
    weights = small("leftthomas")[1]
    weights["block1.0.weight"] = change(weights["block1.0.weight"])
    refused(weights, "block1.0.weight holds no plain torch.float32")


def test_no_memory_is_taken_before_the_shapes_fit():
    weights = small("Lornatang")[1]
    huge = {key: torch.zeros(1).expand(10**7) if value.dim() == 1 and len(value) > 1 else value
            for key, value in weights.items()}  # fmt: skip
    refused(huge, "where")  # a network of ten million channels would take petabytes
    refused({**weights, "trunk.999999999.rcb.0.weight": torch.zeros(1)}, "trunk.999999999.rcb.0.weight is none of its")


def test_scales_that_an_srresnet_cannot_do():
    refused(small("leftthomas", doublings=3)[1], "leftthomas/SRGAN", "enlarges by 8, in steps of 2, 2, 2", "2 or 4")
    refused(small("dongheehand", steps=(3,))[1], "dongheehand/SRGAN-PyTorch", "enlarges by 3, in steps of 3", "2 or 4")
    refused(small("dongheehand", steps=(4,))[1], "enlarges by 4, in steps of 4", "doubles once or twice")


def discriminators():
    """Two or three keys of each are enough."""
    names = {
        "leftthomas/SRGAN": ["net.0", "net.2", "net.24", "net.26"],
        "dongheehand/SRGAN-PyTorch": ["conv01.body.0", "conv02.body.0", "tail.0", "tail.2"],
        "Lornatang/SRGAN-PyTorch": ["features.0", "features.2", "classifier.0", "classifier.2"],
    }
    for project, modules in names.items():
        weights = {f"{name}.{part}": torch.zeros(4) for name in modules for part in ("weight", "bias")}
        yield project, {**weights, **({"features.3.running_mean": torch.zeros(4)} if "features.0" in modules else {})}


@pytest.mark.parametrize("project, weights", discriminators())
def test_a_discriminator(project, weights):
    refused({"state_dict": wrapped(weights, "parallel")}, f"the discriminator of {project}", "give its generator's")


def test_what_srkit_does_not_know():
    everyone = ("its own checkpoints", "leftthomas/SRGAN", "dongheehand/SRGAN-PyTorch", "Lornatang/SRGAN-PyTorch")
    vgg = {f"features.{k}.{part}": torch.zeros(4) for k in (0, 2, 5) for part in ("weight", "bias")}
    refused(vgg, "a network that srkit does not know (with 'features.0.bias')", *everyone)
    half = dict(list(small("Lornatang")[1].items())[:4])
    refused({**half, **vgg}, "does not know")
    for content in ([1], {}, torch.zeros(3), {"state_dict": {}}, {"model": 3}, {1: torch.zeros(3)}, "text"):
        refused(content, "a file of another program", *everyone)


def test_bad_arguments_of_the_network():
    with pytest.raises(SRKitError, match="did you mean 'prelu'"):
        foreign.ForeignSRResNet(end="relu")
    with pytest.raises(SRKitError, match="scale 3"):
        foreign.ForeignSRResNet(scale=3)


class Payload:
    """Unpickling it would make a folder."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("save", [torch.save, save_old])
def test_a_pickle_with_code_is_not_run(save, tmp_path):
    path, target = tmp_path / "evil.pth", tmp_path / "executed"
    save({**small("leftthomas")[1], "block9.weight": Payload(target)}, path)
    with pytest.raises(SRKitError, match=r"evil.pth: holds a pickled program, not plain tensors: it was not opened"):
        checkpoint.load_model(path)
    assert not target.exists()


@pytest.mark.parametrize("save", [torch.save, save_old, save_safetensors])
def test_truncated_files(save, tmp_path):
    path = tmp_path / "cut.pth"
    save(small("leftthomas")[1], path)
    whole = path.read_bytes()
    for share in (0.001, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(SRKitError, match=r"cut.pth: (truncated|damaged)") as caught:
            checkpoint.load_model(path)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------- the commands


@pytest.fixture
def call(capsys):
    """Run a command; return its exit status, standard output and standard error."""

    def run(*words):
        return cli.main([str(word) for word in words]), *capsys.readouterr()

    return run


def test_inspect(call, tmp_path):
    weights = small("dongheehand")[1]
    torch.save(weights, tmp_path / "x.pth")
    status, out, _ = call("inspect", tmp_path / "x.pth", "--json")
    facts, model = json.loads(out), checkpoint.load_model(tmp_path / "x.pth")
    assert status == 0 and facts["project"] == "dongheehand/SRGAN-PyTorch" and facts["licence"] == "no licence stated"
    assert facts["scale"] == 4 and facts["architecture"]["blocks"] == 3 and facts["architecture"]["signed"] is True
    assert facts["parameters"] == sum(each.numel() for each in model.parameters())
    assert facts["weights_sha256"] == checkpoint.weights_sha256(model.state_dict())
    lines = call("inspect", tmp_path / "x.pth")[1]
    assert "no licence stated" in lines and facts["weights_sha256"] in lines
    weights["last_conv.body.0.bias"][0] += 1e-3
    torch.save(weights, tmp_path / "y.pth")
    assert json.loads(call("inspect", tmp_path / "y.pth", "--json")[1])["weights_sha256"] != facts["weights_sha256"]


def test_upscale_and_evaluate(call, tmp_path):
    save_old(small("leftthomas, published", doublings=1)[1], tmp_path / "x.pth")
    write(photograph(20, 24), tmp_path / "in" / "one.png")
    status, out, err = call("upscale", tmp_path / "in" / "one.png", "--checkpoint", tmp_path / "x.pth", "-o", tmp_path)
    assert status == 0 and "48 x 40" in out, err
    status, out, err = call("evaluate", tmp_path / "x.pth", "--data", tmp_path / "in", "--json")
    assert status == 0 and json.loads(out)["scale"] == 2 and json.loads(out)["part"] == "all", err
    status, _, err = call("evaluate", tmp_path / "x.pth", "--data", tmp_path / "in", "--scale", 4)
    assert status == 2 and "enlarges by 2, not by 4" in err


def test_one_line_for_what_is_none(call, tmp_path):
    torch.save({"state_dict": {"a.weight": torch.zeros(3)}}, tmp_path / "x.pth")
    for words in (["inspect", tmp_path / "x.pth"], ["evaluate", tmp_path / "x.pth", "--data", "bundled"]):
        status, out, err = call(*words)
        assert status == 2 and out == "" and err.count("\n") == 1 and "srkit reads its own checkpoints" in err
