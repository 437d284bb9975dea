"""convert: other projects' generators, against networks that compute as theirs do; and every file that is none."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from srkit import models
from srkit.models.convert import convert, origin
from srkit.settings import SRKitError

# The names in a generator with n blocks, of block i and of doubling j (d in all): convolutions, normalisations, PReLUs.
LEFTTHOMAS = {
    "project": "leftthomas/SRGAN (MIT)",
    "head": ("block1.0", "block1.1"),
    "block": [f"block{{i2}}.{part}" for part in ("conv1", "bn1", "prelu", "conv2", "bn2")],
    "body": ("block{n2}.0", "block{n2}.1"),
    "double": ("block{n3}.{j}.conv", "block{n3}.{j}.prelu"),
    "tail": "block{n3}.{d}",
}
PROJECTS = {
    "leftthomas": LEFTTHOMAS,
    "leftthomas, published": LEFTTHOMAS,  # the body ends in a PReLU
    "dongheehand": {
        "project": "dongheehand/SRGAN-PyTorch (no licence stated)",
        "head": ("conv01.body.0", "conv01.body.1"),
        "block": [f"body.{{i}}.body.{part}" for part in ("0.body.0", "0.body.1", "0.body.2", "1.body.0", "1.body.1")],
        "body": ("conv02.body.0", "conv02.body.1"),
        "double": ("tail.{j}.body.0.body.0", "tail.{j}.body.2"),
        "tail": "last_conv.body.0",
    },
    "Lornatang": {
        "project": "Lornatang/SRGAN-PyTorch (Apache-2.0)",
        "head": ("conv1.0", "conv1.1"),
        "block": [f"trunk.{{i}}.rcb.{part}" for part in range(5)],
        "body": ("conv2.0", "conv2.1"),
        "double": ("upsampling.{j}.upsample_block.0", "upsampling.{j}.upsample_block.2"),
        "tail": "conv3",
    },
}


def original(name, low, blocks=3, channels=6, doublings=2):
    """What a project's generator with random weights makes of low, and these weights under its names."""
    names, weights, generator = PROJECTS[name], {}, torch.Generator().manual_seed(0)

    def draw(key: str, *shape: int, start: float = -0.4, end: float = 0.6) -> Tensor:
        weights[key] = torch.empty(shape).uniform_(start, end, generator=generator)
        return weights[key]

    def at(pattern: str, i: int = 0, j: int = 0) -> str:
        return pattern.format(i=i, i2=i + 2, j=j, d=doublings, n2=blocks + 2, n3=blocks + 3)

    def conv(x: Tensor, key: str, outputs: int = channels, kernel: int = 3, bias: bool = True) -> Tensor:
        most = 2 / (x.shape[1] * kernel**2) ** 0.5
        weight = draw(f"{key}.weight", outputs, x.shape[1], kernel, kernel, start=-most, end=most)
        return F.conv2d(x, weight, draw(f"{key}.bias", outputs) if bias else None, padding=kernel // 2)

    def norm(x: Tensor, key: str) -> Tensor:
        weights[f"{key}.num_batches_tracked"] = torch.tensor(17)
        mean, variance = draw(f"{key}.running_mean", channels), draw(f"{key}.running_var", channels, start=0.3, end=3)
        return F.batch_norm(x, mean, variance, draw(f"{key}.weight", channels), draw(f"{key}.bias", channels))

    def act(x: Tensor, key: str) -> Tensor:
        if name == "dongheehand":  # has one PReLU, under the name of each
            weights[f"{key}.weight"] = torch.tensor([0.3])
        return F.prelu(x, weights[f"{key}.weight"] if name == "dongheehand" else draw(f"{key}.weight", 1))

    plain = name == "Lornatang"
    first = x = act(conv(2 * low - 1 if name == "dongheehand" else low, names["head"][0], kernel=9), names["head"][1])
    for i in range(blocks):
        conv1, norm1, act1, conv2, norm2 = (at(pattern, i) for pattern in names["block"])
        y = act(norm(conv(x, conv1, bias=not plain), norm1), act1)
        x = x + norm(conv(y, conv2, bias=not plain), norm2)
    last, end = (at(pattern) for pattern in names["body"])
    x = conv(x, last, bias=not plain)
    x = first + (act(x, end) if "published" in name else norm(x, end))
    for j in range(doublings):
        up, after = (at(pattern, j=j) for pattern in names["double"])
        x = act(F.pixel_shuffle(conv(x, up, 4 * channels), 2), after)
    x = conv(x, at(names["tail"]), 3, kernel=3 if name == "dongheehand" else 9)
    return x if plain else (torch.tanh(x) + 1) / 2, weights


LOW = torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", PROJECTS)
@pytest.mark.parametrize("blocks, channels, doublings", [(11, 4, 2), (1, 5, 1)])
@torch.no_grad()
def test_output_is_the_originals(name, blocks, channels, doublings):
    expected, weights = original(name, LOW, blocks, channels, doublings)
    model = convert(weights)
    assert expected.std() > 0.05  # a constant would prove nothing
    assert (model(LOW) - expected).abs().max() < 1e-5  # border included
    assert model.pretrained is True and not model.training
    wanted = {"scale": 2**doublings, "blocks": blocks, "channels": channels, "name": PROJECTS[name]["project"]}
    assert model.config.items() >= wanted.items() and origin(model)["project"] in wanted["name"]
    again = models.build(json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(LOW), model(LOW))


@torch.no_grad()
def test_kinds_of_file_and_what_training_puts_around_weights(tmp_path):
    expected, weights = original("leftthomas", LOW)
    wrapped = {"n_averaged": torch.tensor(7), **{f"module._orig_mod.{key}": value for key, value in weights.items()}}
    untracked = {key: value for key, value in weights.items() if "num_batches" not in key}  # as before 0.4.1
    save_file(weights, tmp_path / "a.safetensors")
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"state": {}}}, tmp_path / "b.pth")
    torch.save(untracked, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        assert (models.load(path)(LOW) - expected).abs().max() < 1e-5
    assert origin(models.create("srresnet", channels=4)) == {}


# ---------------------------------------------------------------------------------- files that are none


def refused(content, *words):
    """Converting it raises one short line that holds the words."""
    with pytest.raises(SRKitError) as caught:
        convert(content)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 and all(word in message for word in words)


@pytest.mark.parametrize("name", PROJECTS)
def test_missing_misshapen_and_surplus_tensors(name):
    weights, project = original(name, LOW[:1], 1, 4)[1], PROJECTS[name]["project"].split(" ")[0]
    keys = [key for key in weights if "num_batches" not in key]
    for key in keys[:: len(keys) // 4]:  # from the first to the last modules
        refused({**weights, key: weights[key][..., None]}, project)
        refused({other: value for other, value in weights.items() if other != key}, project)
    refused({**weights, "extra.weight": torch.zeros(3)}, project, "extra.weight")


def test_tensors_of_another_kind_and_networks_that_srresnet_is_not():
    weights = original("Lornatang", LOW[:1], 1, 4)[1]
    for change in (weights["conv3.weight"].to_sparse(), weights["conv3.weight"].to("meta")):
        refused({**weights, "conv3.weight": change}, "Lornatang", "tail.weight")
    # No memory is taken before the shapes fit: this one would take petabytes.
    refused({**weights, "trunk.0.rcb.1.weight": torch.zeros(1).expand(10**7)}, "over 2048")
    refused({**weights, "trunk.999999999.rcb.0.weight": torch.zeros(1)})
    refused(original("leftthomas", LOW[:1], 1, 4, doublings=3)[1], "leftthomas/SRGAN", "scale 8")
    vgg = {f"features.{k}.{part}": torch.zeros(4) for k in (0, 2, 5) for part in ("weight", "bias")}
    for content in (vgg, [1], {}, torch.zeros(3), {"state_dict": {}}, {1: torch.zeros(3)}, "text"):
        refused(content, "its own checkpoints", "leftthomas/SRGAN", "dongheehand/SRGAN-PyTorch", "Lornatang")
