"""losses: known values, gradients, and the weighted sum."""

from __future__ import annotations

import math

import pytest
import torch

from srkit import features, losses
from srkit.errors import SRKitError
from srkit.images import degrade
from srkit.losses import PerceptualLoss, WeightedLoss

HIGH = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
OUTPUT = torch.tensor([0.1, 0.9]).view(1, 1, 1, 2)


def test_known_values():
    assert losses.mse(OUTPUT, HIGH).item() == pytest.approx((0.01 + 0.16) / 2)
    assert losses.l1(OUTPUT, HIGH).item() == pytest.approx(0.25)
    expected = (math.sqrt(0.01 + 1e-6) + math.sqrt(0.16 + 1e-6)) / 2
    assert losses.charbonnier(OUTPUT, HIGH).item() == pytest.approx(expected)
    assert losses.psnr(OUTPUT, HIGH).item() == pytest.approx(1 / (-10 * math.log10(0.085)))


def test_psnr_term_is_the_mean_over_pictures_and_bounded():
    high = torch.zeros(2, 3, 4, 4)
    output = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert losses.psnr(output, high).item() == pytest.approx((1 / 20 + 1 / 40) / 2)
    assert math.isfinite(losses.psnr(high, high).item())


@pytest.mark.parametrize("name", losses.TERMS)
def test_every_term_has_a_gradient_and_none_at_equality_is_nan(name):
    high = torch.rand(2, 3, 5, 5)
    output = torch.rand(2, 3, 5, 5, requires_grad=True)
    losses.TERMS[name](output, high).backward()
    assert (output.grad != 0).float().mean() > 0.5  # tv's steps up and down may cancel at a pixel
    same = high.clone().requires_grad_()
    losses.TERMS[name](same, high).backward()
    assert same.grad.isfinite().all()


def test_weighted_loss_adds_up_and_reports_raw_and_weighted():
    total, values = WeightedLoss({"mse": 1, "l1": 0.5, "charbonnier": 0})(OUTPUT, HIGH)
    assert total.item() == pytest.approx(0.085 + 0.5 * 0.25)
    assert values.keys() == {"mse", "l1", "weighted/mse", "weighted/l1"}
    assert values["l1"].item() == pytest.approx(0.25) and values["weighted/l1"].item() == pytest.approx(0.125)


def test_zero_weight_costs_nothing_and_weights_can_change():
    def never(output, high):
        raise AssertionError("a term that weighs 0 was computed")

    loss = WeightedLoss({"mse": 1, "never": 0}, terms={"mse": losses.mse, "never": never})
    loss(OUTPUT, HIGH)
    loss.weights["mse"] = 3
    assert loss(OUTPUT, HIGH)[0].item() == pytest.approx(3 * 0.085)


def test_bad_losses():
    with pytest.raises(SRKitError, match="did you mean 'mse'"):
        WeightedLoss({"msse": 1})
    for weight in (-1, math.nan, math.inf):
        with pytest.raises(SRKitError, match="0 or more"):
            WeightedLoss({"mse": weight})
    with pytest.raises(SRKitError, match="every loss weighs 0"):
        WeightedLoss({"mse": 0})
    with pytest.raises(SRKitError, match="differ in shape"):
        WeightedLoss({"mse": 1})(torch.rand(2, 3, 4, 4), torch.rand(1, 3, 4, 4))


# ---------------------------------------------------------------------------------- what a network sees


@pytest.fixture
def vgg():
    return features.VGG16(["relu1_2", "relu2_2", "relu3_3", "relu4_3"], weights="random")


def test_total_variation_by_hand():
    ramp = torch.tensor([[0.0, 0.1, 0.3], [0.5, 0.1, 0.3]]).view(1, 1, 2, 3)
    across, down = (0.1 + 0.2 + 0.4 + 0.2) / 4, (0.5 + 0 + 0) / 3
    assert losses.tv(ramp, torch.zeros(0)).item() == pytest.approx(across + down)


def test_gram_by_hand():
    activations = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])[None]  # 2 channels of 1 x 2
    expected = torch.tensor([[5.0, 11.0], [11.0, 25.0]]) / 4
    assert torch.allclose(losses.gram(activations)[0], expected)


def test_perceptual_terms_by_hand(vgg):
    output, high = torch.rand(2, 2, 3, 24, 24)
    values = PerceptualLoss(vgg, ["relu2_2"], content=["relu1_2", "relu3_3"], texture=["relu1_2"])
    terms = values(output, high, ["relu2_2", "content", "texture"])
    a, b = vgg(output), vgg(high)
    assert terms["relu2_2"].item() == pytest.approx((a["relu2_2"] - b["relu2_2"]).square().mean().item(), rel=1e-5)
    both = sum((a[layer] - b[layer]).square().mean().item() for layer in ("relu1_2", "relu3_3"))
    assert terms["content"].item() == pytest.approx(both / 12.75**2, rel=1e-5)
    f, g = (x["relu1_2"].flatten(2) for x in (a, b))
    difference = (f @ f.mT - g @ g.mT) / (64 * 24 * 24)
    assert terms["texture"].item() == pytest.approx(difference.square().sum((1, 2)).mean().item(), rel=1e-4)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_distance_of_activations_and_its_gradient(kind):
    a, b = torch.rand(2, 2, 8, 5, 5).to(kind)
    a.requires_grad_()
    value = losses.distance(a, b)
    value.backward()
    difference = (a - b).detach()
    assert value.dtype != torch.bfloat16 and torch.allclose(
        value.double(), difference.double().square().mean(), rtol=1e-5
    )
    assert torch.allclose(a.grad.double(), 2 * difference.double() / a.numel(), rtol=1e-2)
    same = b.clone().requires_grad_()
    losses.distance(same, b).backward()
    assert not same.grad.any()  # and no number that is none


@pytest.mark.parametrize("name", ["relu1_2", "relu4_3", "content", "texture"])
def test_every_perceptual_term_has_a_gradient_to_the_output(name, vgg):
    output = torch.rand(1, 3, 24, 24, requires_grad=True)
    loss = PerceptualLoss(vgg, ["relu1_2", "relu4_3"], content=["relu3_3"], texture=["relu1_2", "relu2_2"])
    loss(output, torch.rand(1, 3, 24, 24), [name])[name].backward()
    assert output.grad.abs().max() > 0 and output.grad.isfinite().all()
    assert all(parameter.grad is None for parameter in vgg.parameters())


def test_nothing_is_computed_past_the_deepest_layer_that_weighs(vgg):
    ran = []
    for name, module in vgg.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    loss = WeightedLoss({"mse": 1, "relu1_2": 1, "relu3_3": 1, "relu4_3": 1}, PerceptualLoss(vgg))
    for weights, convolutions in (({}, 10), ({"relu4_3": 0}, 7), ({"relu3_3": 0}, 2), ({"relu1_2": 0}, 0)):
        loss.weights |= weights
        ran.clear()
        _, values = loss(torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 24))
        assert len(ran) == 2 * convolutions  # once for the output, once for the truth
        assert "relu4_3" not in values or not weights


def test_the_target_needs_no_gradient_memory(vgg):
    high = torch.rand(1, 3, 24, 24, requires_grad=True)
    PerceptualLoss(vgg)(torch.rand(1, 3, 24, 24, requires_grad=True), high, ["relu1_2"])["relu1_2"].backward()
    assert high.grad is None


def test_create_by_plain_words():
    loss = losses.create({"mse": 1, "relu2_2": 0.1, "texture": 0.01, "tv": 1e-4}, "vgg16", "random")
    assert loss.known[-2:] == ["relu2_2", "texture"] and "random" in loss.note
    assert losses.create({"mse": 1}).perceptual == ()  # nothing is opened that no term needs
    with pytest.raises(SRKitError, match="did you mean 'relu2_2'"):
        losses.create({"mse": 1, "relu22": 0.1}, "vgg16", "random")
    with pytest.raises(SRKitError, match="unknown loss 'content'"):
        losses.create({"content": 1}, "vgg16", "random")
    with pytest.raises(SRKitError, match="unknown network 'vgg61'"):
        losses.create({"mse": 1}, "vgg61")
    with pytest.raises(SRKitError, match="layer of this extractor"):
        PerceptualLoss(features.VGG16(["relu1_2"], weights="random"), ["relu2_2"])


def test_balance_gives_each_term_its_share(vgg):
    loss = WeightedLoss({"mse": 1, "relu1_2": 0, "relu2_2": 0}, PerceptualLoss(vgg))
    output, high = torch.rand(2, 2, 3, 24, 24)
    shares = {"mse": 0.5, "relu1_2": 0.2, "relu2_2": 0.3, "relu4_3": 0.0}
    loss.weights = losses.balance(loss, output, high, shares)
    assert loss.weights["mse"] == 1 and loss.weights["relu4_3"] == 0
    nearly = losses.balance(loss, output * (1 + 1e-6), high, shares)  # as another device would compute it
    assert nearly == loss.weights
    total, values = loss(output, high)
    for name in ("mse", "relu1_2", "relu2_2"):
        assert values[f"weighted/{name}"].item() / total.item() == pytest.approx(shares[name], rel=0.1)


# ---------------------------------------------------------------------------------- several outputs


def test_each_output_against_the_truth_of_its_size():
    high = torch.rand(2, 3, 16, 16)
    mid, large = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    total, values = WeightedLoss({"mse": 1})((mid, large), high)
    expected = losses.mse(mid, degrade(high, 2)), losses.mse(large, high)
    assert values.keys() == {"x2/mse", "x4/mse", "weighted/x2/mse", "weighted/x4/mse"}
    assert total.item() == pytest.approx(sum(expected).item())
    total, values = WeightedLoss({"mse": 1, "x2/mse": 0.25})((mid, large), high)
    assert total.item() == pytest.approx((0.25 * expected[0] + expected[1]).item())
    total, values = WeightedLoss({"x2/mse": 0, "x4/l1": 2})((mid, large), high)
    assert list(values) == ["x4/l1", "weighted/x4/l1"]
    with pytest.raises(SRKitError, match="none of the outputs"):
        WeightedLoss({"x8/mse": 1})((mid, large), high)
    with pytest.raises(SRKitError, match="did you mean 'mse'"):
        WeightedLoss({"x2/msse": 1})
