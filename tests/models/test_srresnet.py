"""srresnet: counts by hand, starts, ranges, frozen normalisation, and the discriminator."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from srkit import models
from srkit.data.images import resize
from srkit.models.srresnet import Discriminator, SRResNet, UpsampleBlock
from srkit.settings import SRKitError


def conv(side: int, inputs: int, outputs: int) -> int:
    """Weights and biases."""
    return side * side * inputs * outputs + outputs


BLOCK = 2 * (conv(3, 64, 64) + 2 * 64) + 1  # each convolution with a batch normalisation, and one PReLU
PAPER = (conv(9, 3, 64) + 1) + 16 * BLOCK + (conv(3, 64, 64) + 2 * 64) + 2 * (conv(3, 64, 256) + 1) + conv(9, 64, 3)
SMALL = (
    (conv(9, 3, 48) + 1) + 8 * (2 * conv(3, 48, 48) + 1) + conv(3, 48, 48) + 2 * (conv(3, 48, 48) + 1) + conv(3, 48, 3)
)
WIDTHS = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
FEATURES = conv(3, 3, 64) + sum(conv(3, inputs, outputs) + 2 * outputs for inputs, outputs in WIDTHS)


def test_weights_and_work_that_a_pencil_gives():
    assert models.count(models.create("srresnet")) == (PAPER, 0) == (1_549_462, 0)
    assert models.count(models.create("srresnet-small")) == (SMALL, 0)
    with torch.device("meta"):
        discriminators = Discriminator(), Discriminator(size=96)
    assert models.count_parameters(discriminators[0]) == FEATURES + conv(1, 512, 1024) + conv(1, 1024, 1)
    assert models.count_parameters(discriminators[1]) == FEATURES + (6 * 6 * 512 * 1024 + 1024) + (1024 + 1)
    plain = 81 * 3 * 8 + (2 * 2 + 1) * 9 * 8 * 8 + 9 * 8 * 32  # at the size of low
    enlarged = 4 * 9 * 8 * 32 + 16 * 81 * 8 * 3  # the second doubling, and the last layer, at four times and sixteen
    for upsample in ("shuffle", "nearest"):  # "nearest" has a quarter of the filters on four times the pixels
        assert models.multiply_adds(SRResNet(4, 8, 2, upsample=upsample), 5, 7) == 35 * (plain + enlarged)


def test_icnr_starts_as_nearest():
    torch.manual_seed(0)
    x, double = torch.randn(1, 6, 5, 4), UpsampleBlock(6, "shuffle")
    output = double(x)
    assert torch.equal(output, resize(output[..., ::2, ::2], scale=2, kernel="nearest"))
    assert output.std() > 0.01  # equal in fours, and not all alike


@pytest.mark.parametrize("name, changes", [("srresnet-small", {}), ("srresnet", {"skip": True, "output": "tanh"})])
def test_skip_starts_at_bicubic_exactly_and_learns_at_once(name, changes):
    model, low = models.create(name, channels=4, blocks=1, **changes), torch.rand(2, 3, 9, 11)
    output = model(low)
    assert torch.equal(output, resize(low, scale=4))
    (output - 0.3).square().mean().backward()
    assert model.tail.weight.grad.abs().max() > 0 and model.tail.bias.grad.abs().max() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(low).dtype == torch.float32


def test_minus_one_to_one_stays_inside_and_tanh_keeps_the_range():
    low, inputs = torch.rand(1, 3, 6, 6), []
    for signed, output in ((False, "linear"), (True, "tanh")):
        model = SRResNet(2, channels=4, blocks=1, signed=signed, output=output).eval()
        nn.init.zeros_(model.tail.weight)
        model.head.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        for value in (-1.0, 0.0, 3.0):
            nn.init.constant_(model.tail.bias, value)
            inside = torch.tanh(torch.tensor(value)) if output == "tanh" else value
            assert torch.allclose(model(low), torch.full((1, 3, 12, 12), (float(inside) + 1) / 2))
    assert torch.equal(inputs[0], low) and torch.equal(inputs[-1], 2 * low - 1)


def test_frozen_norm_keeps_what_it_learnt_and_still_trains_its_weights():
    torch.manual_seed(0)
    free, low = SRResNet(2, channels=4, blocks=1), torch.rand(4, 3, 8, 8) ** 3
    frozen, fresh = copy.deepcopy(free), SRResNet(2, channels=4, blocks=1).state_dict()
    frozen.frozen_norm = True
    for model in (free, frozen):
        model.train()(low).mean().backward()
    running = [name for name in fresh if "running" in name or "num_batches" in name]
    assert running and all(torch.equal(frozen.state_dict()[name], fresh[name]) for name in running)
    assert not any(torch.equal(free.state_dict()[name], fresh[name]) for name in running)
    norms = [layer for layer in frozen.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(not norm.training and norm.weight.grad is not None for norm in norms) and frozen.head.training


def test_a_discriminator_gives_one_logit_a_picture_of_its_sizes():
    discriminator, pictures, inputs = Discriminator(channels=4).eval(), torch.rand(3, 3, 24, 33), []
    discriminator.features.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    nn.init.constant_(discriminator.head[-1].bias, 50.0)
    logits = discriminator(pictures)
    assert logits.shape == (3,) and (logits > 40).all()  # no sigmoid
    assert torch.equal(inputs[0], 2 * pictures - 1)
    papers = Discriminator(channels=4, size=32)
    assert papers(torch.rand(2, 3, 32, 32)).shape == (2,)
    with pytest.raises(SRKitError, match="patches of 32 pixels only"):
        papers(torch.rand(2, 3, 32, 48))
    for arguments in ({"size": 8}, {"size": 100}, {"channels": 0}):
        with pytest.raises(SRKitError):
            Discriminator(**arguments)
