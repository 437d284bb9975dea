"""srresnet: counts by hand, starts, ranges, and what generator and discriminator refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from srkit import models
from srkit.data.images import resize
from srkit.models.srresnet import Discriminator, SRResNet, UpsampleBlock, icnr
from srkit.settings import SRKitError


def conv_weights(side: int, inputs: int, outputs: int) -> int:
    return side * side * inputs * outputs + outputs


BLOCK = 2 * (conv_weights(3, 64, 64) + 2 * 64) + 1  # each convolution with a batch normalisation, and one PReLU
PAPER = (
    conv_weights(9, 3, 64)
    + 1
    + 16 * BLOCK
    + (conv_weights(3, 64, 64) + 2 * 64)
    + 2 * (conv_weights(3, 64, 256) + 1)
    + conv_weights(9, 64, 3)
)
SMALL = (
    conv_weights(9, 3, 48)
    + 1
    + 8 * (2 * conv_weights(3, 48, 48) + 1)
    + conv_weights(3, 48, 48)
    + 2 * (conv_weights(3, 48, 48) + 1)
    + conv_weights(3, 48, 3)
)
FEATURES = conv_weights(3, 3, 64) + sum(  # seven convolutions, each with a batch normalisation
    conv_weights(3, inputs, outputs) + 2 * outputs
    for inputs, outputs in [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
)


def test_weights_and_work_that_a_pencil_gives():
    assert models.count(models.create("srresnet")) == (PAPER, 0) == (1_549_462, 0)
    assert models.count(models.create("srresnet-small")) == (SMALL, 0)
    any_size = FEATURES + conv_weights(1, 512, 1024) + conv_weights(1, 1024, 1)
    of_96 = FEATURES + (6 * 6 * 512 * 1024 + 1024) + (1024 + 1)
    assert models.count_parameters(Discriminator()) == any_size and round(any_size / 1e6, 1) == 5.2
    assert models.count_parameters(Discriminator(size=96)) == of_96 and round(of_96 / 1e6, 1) == 23.6
    plain = 81 * 3 * 8 + (2 * 2 + 1) * 9 * 8 * 8 + 9 * 8 * 32  # at the size of low
    enlarged = 4 * 9 * 8 * 32 + 16 * 81 * 8 * 3  # the second doubling, and the last layer, at four times and sixteen
    for upsample in ("shuffle", "nearest"):  # "nearest" has a quarter of the filters on four times the pixels
        model = SRResNet(4, channels=8, blocks=2, upsample=upsample)
        assert models.multiply_adds(model, 5, 7) == 35 * (plain + enlarged)


def test_icnr_starts_as_nearest():
    torch.manual_seed(0)
    x, double = torch.randn(1, 6, 5, 4), UpsampleBlock(6, "shuffle")
    output = double(x)
    assert torch.equal(output, resize(output[..., ::2, ::2], scale=2, kernel="nearest"))
    assert output.std() > 0.01  # equal in fours, and not all alike
    double[0].reset_parameters()  # PyTorch's own start
    other = double(x)
    assert (other - resize(other[..., ::2, ::2], scale=2, kernel="nearest")).abs().max() > 0.1
    layer = nn.Conv2d(3, 9 * 5, 3)
    before = layer.weight.detach().clone()
    icnr(layer, factor=3)
    assert torch.equal(layer.weight[::9], before[::9]) and torch.equal(layer.weight[8::9], before[::9])
    assert torch.equal(layer.bias[3], layer.bias[0]) and layer.weight.shape == before.shape


@pytest.mark.parametrize("name, changes", [("srresnet-small", {}), ("srresnet", {"skip": True, "output": "tanh"})])
def test_skip_starts_at_bicubic_exactly_and_learns_at_once(name, changes):
    model, low = models.create(name, channels=4, blocks=1, **changes), torch.rand(2, 3, 9, 11)
    output = model(low)
    assert torch.equal(output, resize(low, scale=4))
    (output - 0.3).square().mean().backward()
    assert model.tail.weight.grad.abs().max() > 0 and model.tail.bias.grad.abs().max() > 0


def test_minus_one_to_one_stays_inside():
    low, inputs = torch.rand(1, 3, 6, 6), []
    model, signed = (SRResNet(2, channels=4, blocks=1, signed=signed).eval() for signed in (False, True))
    nn.init.zeros_(model.tail.weight)
    for value, outside in ((-1.0, 0.0), (0.0, 0.5), (1.0, 1.0), (3.0, 2.0)):  # linear: not clipped
        nn.init.constant_(model.tail.bias, value)
        assert torch.equal(model(low), torch.full((1, 3, 12, 12), outside))
    for each in (model, signed):
        each.head.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        each(low)
    assert torch.equal(inputs[0], low)  # low goes in as it is: the paper's, too, is in [0, 1]
    assert torch.equal(inputs[1], 2 * low - 1)


def test_tanh_keeps_the_range_and_a_picture_leaves_in_full_precision():
    torch.manual_seed(0)
    low = torch.rand(1, 3, 6, 6)
    for output in ("linear", "tanh"):
        model = SRResNet(2, channels=4, blocks=1, output=output)
        nn.init.normal_(model.tail.weight, std=3)
        picture = model(low)
        assert bool(((picture >= 0) & (picture <= 1)).all()) == (output == "tanh")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert models.create("srresnet-small", channels=4, blocks=1)(low).dtype == torch.float32


def test_frozen_norm_keeps_what_it_learnt_and_still_trains_its_weights():
    torch.manual_seed(0)
    free, low = SRResNet(2, channels=4, blocks=1), torch.rand(4, 3, 8, 8) ** 3
    frozen = copy.deepcopy(free)
    frozen.frozen_norm = True
    for model in (free, frozen):
        model.train()(low).mean().backward()
    fresh = SRResNet(2, channels=4, blocks=1).state_dict()
    running = [name for name in fresh if "running" in name or "num_batches" in name]
    assert running and all(torch.equal(frozen.state_dict()[name], fresh[name]) for name in running)
    assert not any(torch.equal(free.state_dict()[name], fresh[name]) for name in running)
    norms = [layer for layer in frozen.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms) and all(norm.weight.grad is not None for norm in norms)
    assert frozen.training and frozen.head.training  # all else trains
    assert torch.equal(frozen(low), frozen.eval()(low))


# ------------------------------------------------------------------------------ the discriminator


def test_a_discriminator_gives_one_logit_a_picture_of_its_sizes():
    for side in (24, 33, 130):
        assert Discriminator(channels=4)(torch.rand(3, 3, side, side + 5)).shape == (3,)
    papers = Discriminator(channels=4, size=96)
    assert papers(torch.rand(2, 3, 96, 96)).shape == (2,)
    with pytest.raises(SRKitError, match="takes 96 x 96 pixels, not 80 x 96"):
        papers(torch.rand(2, 3, 96, 80))
    for arguments in ({"size": 8}, {"size": 100}, {"channels": 0}):
        with pytest.raises(SRKitError):
            Discriminator(**arguments)


def test_a_discriminator_takes_minus_one_to_one_and_gives_a_logit():
    torch.manual_seed(0)
    discriminator, pictures, inputs = Discriminator(channels=4).eval(), torch.rand(2, 3, 32, 32), []
    discriminator.features.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    discriminator(pictures)
    assert torch.equal(inputs[0], 2 * pictures - 1)
    nn.init.constant_(discriminator.head[-1].bias, 50.0)
    assert (discriminator(pictures) > 40).all()  # no sigmoid
    config = {"name": "discriminator", "architecture": "Discriminator", "channels": 4, "size": None}
    again = models.build(config).eval()
    again.load_state_dict(discriminator.state_dict())
    assert torch.equal(again(pictures), discriminator(pictures))
