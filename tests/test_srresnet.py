"""srresnet: counts by hand, shapes, starts, ranges, and what generator and discriminator refuse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from srkit import models
from srkit.errors import SRKitError
from srkit.images import resize
from srkit.models.srresnet import Discriminator, Double, ResidualBlock, SRResNet, check_generator, conv, icnr


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
EYES = conv_weights(3, 3, 64) + sum(  # seven convolutions, each with a batch normalisation
    conv_weights(3, inputs, outputs) + 2 * outputs
    for inputs, outputs in [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
)


# ------------------------------------------------------------------------------ counted


def test_generators_have_the_weights_that_a_pencil_gives():
    assert models.count(models.create("srresnet")) == (PAPER, 0) == (1_549_462, 0)
    assert models.count(models.create("srresnet-small")) == (SMALL, 0)
    assert models.count_parameters(models.create("srgan")) == PAPER  # the same network, trained otherwise


def test_discriminators_have_the_weights_that_a_pencil_gives():
    any_size = EYES + conv_weights(1, 512, 1024) + conv_weights(1, 1024, 1)
    of_96 = EYES + (6 * 6 * 512 * 1024 + 1024) + (1024 + 1)
    assert models.count_parameters(Discriminator()) == any_size and round(any_size / 1e6, 1) == 5.2
    assert models.count_parameters(Discriminator(size=96)) == of_96 and round(of_96 / 1e6, 1) == 23.6


def test_multiply_adds_by_hand():
    plain = 81 * 3 * 8 + (2 * 2 + 1) * 9 * 8 * 8 + 9 * 8 * 32  # at the size of low
    enlarged = 4 * 9 * 8 * 32 + 16 * 81 * 8 * 3  # the second doubling, and the last layer, at four times and sixteen
    assert models.multiply_adds(SRResNet(4, channels=8, blocks=2), 5, 7) == 35 * (plain + enlarged)
    # "nearest" has a quarter of the filters on four times the pixels.
    assert models.multiply_adds(SRResNet(4, channels=8, blocks=2, upsample="nearest"), 5, 7) == 35 * (plain + enlarged)


def test_receptive_fields_by_hand():
    # conv9, two conv3 a block, conv3, conv3 to the first doubling: 9 + 4 * blocks + 2 + 2 pixels of low. The last
    # conv9 sees 9 pixels, which lie on 5 of twice low's size; with conv3 7, which lie on 4 of low: 3 more than one.
    assert models.receptive_field(SRResNet(4, channels=2, blocks=16)) == (9 + 4 * 16 + 2 + 2 + 3,)
    # With a conv3 at the end: 3 pixels on 2, with conv3 4, which lie on up to 3 of low.
    shuffled = models.create("srresnet-small", channels=2, upsample="shuffle")
    assert models.receptive_field(shuffled) == (9 + 4 * 8 + 2 + 2 + 2,)
    # Doubling by "nearest": two conv3 see 5 pixels of the largest, 3 of half that; one more, 5, which lie on 3 of low.
    assert models.receptive_field(models.create("srresnet-small", channels=2)) == (9 + 4 * 8 + 2 + 2,)
    # At x2 there is one doubling: 9 pixels on 5.
    assert models.receptive_field(SRResNet(2, channels=2, blocks=0)) == (9 + 2 + 2 + 4,)


# ------------------------------------------------------------------------------ shapes, starts, ranges


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("upsample", ["shuffle", "nearest"])
@pytest.mark.parametrize("height, width", [(24, 24), (7, 10), (1, 1)])
@torch.inference_mode()
def test_any_size_comes_out_enlarged(scale, upsample, height, width):
    model = SRResNet(scale, channels=4, blocks=1, upsample=upsample).eval()
    assert model(torch.rand(2, 3, height, width)).shape == (2, 3, scale * height, scale * width)


def test_icnr_starts_as_nearest():
    torch.manual_seed(0)
    x, double = torch.randn(1, 6, 5, 4), Double(6, "shuffle")
    output = double(x)
    assert torch.equal(output, resize(output[..., ::2, ::2], scale=2, kernel="nearest"))
    assert output.std() > 0.01  # equal in fours, and not all alike
    double[0].reset_parameters()  # PyTorch's own start
    other = double(x)
    assert (other - resize(other[..., ::2, ::2], scale=2, kernel="nearest")).abs().max() > 0.1


def test_icnr_keeps_the_spread_of_the_weights_and_their_sizes():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 9 * 5, 3)
    before = layer.weight.detach().clone()
    icnr(layer, factor=3)
    assert torch.equal(layer.weight[::9], before[::9]) and torch.equal(layer.weight[8::9], before[::9])
    assert torch.equal(layer.bias[3], layer.bias[0]) and layer.weight.shape == before.shape


def test_nearest_doubling_repeats_then_convolves():
    torch.manual_seed(0)
    x, double = torch.rand(1, 4, 3, 5), Double(4, "nearest")
    expected = double[2](double[1](resize(x, scale=2, kernel="nearest")))
    assert torch.allclose(double(x), expected, atol=1e-6)
    flat = double(torch.ones(1, 4, 4, 4))[..., 1:-1, 1:-1]  # a flat picture stays flat, whatever the weights
    assert torch.allclose(flat, flat[..., :1, :1].expand_as(flat), atol=1e-6)


@pytest.mark.parametrize("name, changes", [("srresnet-small", {}), ("srresnet", {"skip": True, "output": "tanh"})])
def test_skip_starts_at_bicubic_exactly_and_learns_at_once(name, changes):
    model, low = models.create(name, channels=4, blocks=1, **changes), torch.rand(2, 3, 9, 11)
    output = model(low)
    assert torch.equal(output, resize(low, scale=4))
    (output - 0.3).square().mean().backward()
    assert model.leave.weight.grad.abs().max() > 0 and model.leave.bias.grad.abs().max() > 0


def test_minus_one_to_one_stays_inside():
    low = torch.rand(1, 3, 6, 6)
    model = SRResNet(2, channels=4, blocks=1).eval()
    nn.init.zeros_(model.leave.weight)
    for value, outside in ((-1.0, 0.0), (0.0, 0.5), (1.0, 1.0), (3.0, 2.0)):  # linear: not clipped
        nn.init.constant_(model.leave.bias, value)
        assert torch.equal(model(low), torch.full((1, 3, 12, 12), outside))
    seen = []
    model.enter.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(low)
    assert torch.equal(seen[0], low)  # low goes in as it is: the paper's, too, is in [0, 1]


def test_tanh_keeps_the_range():
    torch.manual_seed(0)
    low = torch.rand(1, 3, 6, 6)
    for output in ("linear", "tanh"):
        model = SRResNet(2, channels=4, blocks=1, output=output)
        nn.init.normal_(model.leave.weight, std=3)
        picture = model(low)
        assert bool(((picture >= 0) & (picture <= 1)).all()) == (output == "tanh")


def test_a_picture_leaves_in_full_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert models.create("srresnet-small", channels=4, blocks=1)(torch.rand(1, 3, 6, 6)).dtype == torch.float32


def test_a_block_adds_its_change():
    block, x = ResidualBlock(3, norm=True), torch.randn(2, 3, 5, 5)
    nn.init.zeros_(block.change[-1].weight)  # the scale of the last normalisation
    assert torch.equal(block(x), x)
    assert [type(layer).__name__ for layer in conv(3, 5, norm=False)] == ["Conv2d"]


# ------------------------------------------------------------------------------ batch normalisation


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
    assert frozen.training and frozen.enter.training  # all else trains
    assert torch.equal(frozen(low), frozen.eval()(low))


# ------------------------------------------------------------------------------ the discriminator


@pytest.mark.parametrize("side", [24, 33, 96, 130])
def test_a_discriminator_of_any_size_says_one_number_a_picture(side):
    assert Discriminator(channels=4)(torch.rand(3, 3, side, side + 5)).shape == (3,)


def test_the_papers_discriminator_takes_its_size_and_no_other():
    judge = Discriminator(channels=4, size=96)
    assert judge(torch.rand(2, 3, 96, 96)).shape == (2,)
    with pytest.raises(SRKitError, match="judges 96 x 96 pixels, not 80 x 96: crop to that, or take one with size=N"):
        judge(torch.rand(2, 3, 96, 80))


def test_a_discriminator_halves_four_times_and_doubles_its_filters():
    judge = Discriminator(channels=4)
    convolutions = [layer for layer in judge.look if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert [layer.stride[0] for layer in convolutions] == [1, 2] * 4
    norms = [layer for layer in judge.look if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == len(convolutions) - 1  # none after the first
    assert not any(isinstance(layer, nn.Sigmoid | nn.PReLU | nn.MaxPool2d) for layer in judge.modules())


def test_a_discriminator_sees_minus_one_to_one_and_answers_a_logit():
    torch.manual_seed(0)
    judge, pictures, seen = Discriminator(channels=4).eval(), torch.rand(2, 3, 32, 32), []
    judge.look.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    judge(pictures)
    assert torch.equal(seen[0], 2 * pictures - 1)
    nn.init.constant_(judge.judge[-1].bias, 50.0)
    assert (judge(pictures) > 40).all()  # no sigmoid


# ------------------------------------------------------------------------------ recipes and mistakes


@pytest.mark.parametrize("name, changes", [
    ("srresnet", {"blocks": 2, "frozen_norm": True}), ("srresnet-small", {}), ("srgan-small", {"upsample": "shuffle"}),
])  # fmt: skip
def test_recipe_rebuilds_the_generator(name, changes):
    torch.manual_seed(0)
    model = models.create(name, channels=4, **changes)
    nn.init.normal_(model.leave.weight)
    again = models.build(model.recipe)
    again.load_state_dict(model.state_dict())
    low = torch.rand(1, 3, 6, 6)
    assert again.recipe == model.recipe and torch.equal(again.eval()(low), model.eval()(low))


def test_recipe_rebuilds_the_discriminator():
    recipe = {"name": "discriminator", "architecture": "Discriminator", "channels": 4, "size": 32}
    judge, again = models.build(recipe), models.build(recipe)
    again.load_state_dict(judge.state_dict())
    pictures = torch.rand(2, 3, 32, 32)
    assert torch.equal(again.eval()(pictures), judge.eval()(pictures))


def test_rebuild_changes_what_has_no_weights_and_keeps_those():
    model = models.create("srresnet", channels=4, blocks=1)
    model.trained = True
    frozen = models.rebuild(model, frozen_norm=True)
    assert frozen.frozen_norm and frozen.trained and not model.frozen_norm
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in frozen.state_dict().items())
    with pytest.raises(SRKitError, match="don't fit a srresnet with blocks=2"):
        models.rebuild(model, blocks=2)


@pytest.mark.parametrize("arguments, message", [
    ({"scale": 3}, "scale 3: an SRResNet doubles once or twice, so choose 2 or 4; srcnn does 3"),
    ({"upsample": "shufle"}, "upsampling of an SRResNet 'shufle': did you mean 'shuffle'"),
    ({"output": "sigmoid"}, "unknown output of an SRResNet 'sigmoid'"),
    ({"channels": 0}, "channels 0"),
    ({"last_kernel": 4}, "last_kernel 4: at least 1, 0, and odd"),
])  # fmt: skip
def test_bad_generators(arguments, message):
    with pytest.raises(SRKitError, match=message):
        SRResNet(**arguments)


@pytest.mark.parametrize("size", [8, 100])
def test_bad_size_of_a_discriminator(size):
    with pytest.raises(SRKitError, match=f"a discriminator for {size} pixels: choose a multiple of 16"):
        Discriminator(channels=4, size=size)


def test_what_cannot_be_a_generator():
    check_generator(SRResNet(channels=4, blocks=0))
    check_generator(models.create("srcnn"))
    with pytest.raises(SRKitError, match="this is a discriminator"):
        check_generator(Discriminator(channels=4))
    with pytest.raises(SRKitError, match="a generator with one output"):
        check_generator(models.create("superresnet-multi"))
