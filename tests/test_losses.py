"""losses: known values, gradients, the weighted sum, and feature maps that are kept."""

from __future__ import annotations

import math

import pytest
import torch

from srkit import losses
from srkit.data.images import degrade
from srkit.losses import Adversarial, PerceptualLoss, TargetFeatures, WeightedLoss
from srkit.models.features import VGG16
from srkit.settings import SRKitError

HIGH = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
OUTPUT = torch.tensor([0.1, 0.9]).view(1, 1, 1, 2)


@pytest.fixture(scope="module")
def vgg():
    return VGG16(["relu1_2", "relu2_2", "relu3_3", "relu4_3"], weights="random")


# ---------------------------------------------------------------------------------- terms


def test_known_values():
    assert losses.mse(OUTPUT, HIGH).item() == pytest.approx((0.01 + 0.16) / 2)
    assert losses.l1(OUTPUT, HIGH).item() == pytest.approx(0.25)
    expected = (math.sqrt(0.01 + 1e-6) + math.sqrt(0.16 + 1e-6)) / 2
    assert losses.charbonnier(OUTPUT, HIGH).item() == pytest.approx(expected)
    ramp = torch.tensor([[0.0, 0.1, 0.3], [0.5, 0.1, 0.3]]).view(1, 1, 2, 3)
    assert losses.tv(ramp, ramp).item() == pytest.approx((0.1 + 0.2 + 0.4 + 0.2) / 4 + 0.5 / 3)
    high = torch.zeros(2, 3, 4, 4)
    output = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert losses.psnr(output, high).item() == pytest.approx((1 / 20 + 1 / 40) / 2)  # the mean over pictures
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


def test_discriminator_loss_is_the_cross_entropy_and_finite_where_d_is_sure():
    logits = torch.tensor([0.0, 2.0, -1.0])
    chances = logits.sigmoid()
    assert losses.discriminator_loss(logits, 1.0).item() == pytest.approx(-chances.log().mean().item())
    mixed = -(0.9 * chances.log() + 0.1 * (1 - chances).log()).mean().item()
    assert losses.discriminator_loss(logits, 0.9).item() == pytest.approx(mixed)
    sure = torch.tensor([-200.0], requires_grad=True)
    losses.discriminator_loss(sure, 1.0).backward()
    assert sure.grad.item() == pytest.approx(-1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1), torch.nn.Flatten(0))
    loss = losses.create({"adversarial": 1.0}, discriminator=network)
    output = torch.rand(2, 3, 2, 2)
    expected = losses.discriminator_loss(network(output), 1.0).item()
    assert isinstance(loss.terms["adversarial"], Adversarial) and loss.device == torch.device("cpu")
    assert loss(output, torch.zeros_like(output))[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_feature_distance_and_its_gradient(kind):
    a, b = torch.rand(2, 2, 8, 5, 5).to(kind)
    a.requires_grad_()
    value = losses.feature_distance(a, b)
    value.backward()
    difference = (a - b).detach().double()
    assert value.dtype != torch.bfloat16
    assert value.item() == pytest.approx(difference.square().mean().item(), rel=1e-5)
    assert torch.allclose(a.grad.double(), 2 * difference / a.numel(), rtol=1e-2)
    same = b.clone().requires_grad_()
    losses.feature_distance(same, b).backward()
    assert not same.grad.any()


def test_perceptual_terms_by_hand(vgg):
    two = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])[None]  # 2 channels of 1 x 2
    assert torch.allclose(losses.gram(two)[0], torch.tensor([[5.0, 11.0], [11.0, 25.0]]) / 4)
    output, high = torch.rand(2, 2, 3, 24, 24)
    loss = PerceptualLoss(vgg, ["relu2_2"], content=["relu1_2", "relu3_3"], texture=["relu1_2"])
    terms = loss(output, high, ["relu2_2", "content", "texture"])
    a, b = vgg(output), vgg(high)
    assert terms["relu2_2"].item() == pytest.approx((a["relu2_2"] - b["relu2_2"]).square().mean().item(), rel=1e-5)
    both = sum((a[layer] - b[layer]).square().mean().item() for layer in ("relu1_2", "relu3_3"))
    assert terms["content"].item() == pytest.approx(both / 12.75**2, rel=1e-5)
    f, g = (x["relu1_2"].flatten(2) for x in (a, b))
    difference = (f @ f.mT - g @ g.mT) / (64 * 24 * 24)
    assert terms["texture"].item() == pytest.approx(difference.square().sum((1, 2)).mean().item(), rel=1e-4)
    with pytest.raises(SRKitError):
        PerceptualLoss(vgg, ["relu5_3"])


@pytest.mark.parametrize("name", ["relu4_3", "content", "texture"])
def test_gradients_reach_the_output_and_nothing_else(name, vgg):
    output, high = torch.rand(2, 1, 3, 24, 24).requires_grad_().unbind()
    output.retain_grad()
    high.retain_grad()
    loss = PerceptualLoss(vgg, ["relu1_2", "relu4_3"], content=["relu3_3"], texture=["relu1_2", "relu2_2"])
    loss(output, high, [name])[name].backward()
    assert output.grad.abs().max() > 0 and output.grad.isfinite().all()
    assert high.grad is None and all(parameter.grad is None for parameter in vgg.parameters())


def test_nothing_is_computed_past_the_deepest_layer_that_weighs(vgg):
    ran = []
    hooks = [
        module.register_forward_hook(lambda *_: ran.append(1))
        for module in vgg.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    loss = WeightedLoss({"mse": 1, "relu1_2": 1, "relu3_3": 1, "relu4_3": 1}, PerceptualLoss(vgg))
    for weights, convolutions in (({}, 10), ({"relu4_3": 0}, 7), ({"relu3_3": 0}, 2), ({"relu1_2": 0}, 0)):
        loss.weights |= weights
        ran.clear()
        loss(torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 24))
        assert len(ran) == 2 * convolutions  # once for the output, once for the ground truth
    for hook in hooks:
        hook.remove()


# ---------------------------------------------------------------------------------- the weighted sum


def test_weighted_loss_adds_up_and_reports_raw_and_weighted():
    loss = WeightedLoss({"mse": 1, "l1": 0.5, "charbonnier": 0})
    total, values = loss(OUTPUT, HIGH)
    assert total.item() == pytest.approx(0.085 + 0.5 * 0.25)
    assert values.keys() == {"mse", "l1", "weighted/mse", "weighted/l1"}
    assert values["l1"].item() == pytest.approx(0.25) and values["weighted/l1"].item() == pytest.approx(0.125)
    assert loss.measure(OUTPUT, HIGH).keys() == {"mse", "l1", "charbonnier"}
    assert loss(OUTPUT, HIGH, exclude=("l1",))[0].item() == pytest.approx(0.085)
    assert loss(OUTPUT, HIGH, exclude=("l1", "mse"))[0].item() == 0
    assert loss.device is None and loss.describe() == ""


def test_weight_zero_costs_nothing_and_weights_can_change():
    def never(output, high):
        raise AssertionError("a term that weighs 0 was computed")

    loss = WeightedLoss({"mse": 1, "never": 0}, terms={"mse": losses.mse, "never": never})
    loss(OUTPUT, HIGH)
    loss.weights["mse"] = 3
    assert loss(OUTPUT, HIGH)[0].item() == pytest.approx(3 * 0.085)


def test_each_output_against_the_ground_truth_of_its_size():
    high = torch.rand(2, 3, 16, 16)
    mid, large = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    total, values = WeightedLoss({"mse": 1})((mid, large), high)
    expected = losses.mse(mid, degrade(high, 2)), losses.mse(large, high)
    assert values.keys() == {"x2/mse", "x4/mse", "weighted/x2/mse", "weighted/x4/mse"}
    assert total.item() == pytest.approx(sum(expected).item())
    total, values = WeightedLoss({"mse": 1, "x2/mse": 0.25})((mid, large), high)
    assert total.item() == pytest.approx((0.25 * expected[0] + expected[1]).item())
    _, values = WeightedLoss({"x2/mse": 0, "x4/l1": 2})((mid, large), high)
    assert list(values) == ["x4/l1", "weighted/x4/l1"]
    with pytest.raises(SRKitError):
        WeightedLoss({"x8/mse": 1})((mid, large), high)


def test_bad_losses():
    for weights in ({"mse": -1}, {"mse": math.nan}, {"mse": math.inf}, {"mse": 0}):
        with pytest.raises(SRKitError):
            WeightedLoss(weights)
    for name in ("msse", "x2/msse"):
        with pytest.raises(SRKitError, match="did you mean 'mse'"):
            WeightedLoss({name: 1})
    with pytest.raises(SRKitError):
        WeightedLoss({"mse": 1})(torch.rand(2, 3, 4, 4), torch.rand(1, 3, 4, 4))


def test_create_by_plain_words():
    loss = losses.create({"mse": 1, "relu2_2": 0.1, "x2/texture": 0.01, "tv": 1e-4}, "vgg16", "random")
    assert loss.known[-2:] == ["relu2_2", "texture"] and "random" in loss.describe()
    assert loss.device == torch.device("cpu")
    assert losses.create({"mse": 1}).perceptual == ()  # nothing is loaded that no term needs
    content = losses.create({"content": 1}, "vgg16", "random", content=("relu1_2",))
    assert content.perceptual[0].layers_of == {"content": ("relu1_2",)}
    with pytest.raises(SRKitError, match="did you mean 'relu2_2'"):
        losses.create({"mse": 1, "relu22": 0.1}, "vgg16", "random")
    for weights, features in (({"content": 1}, "vgg16"), ({"mse": 1}, "vgg61"), ({"adversarial": 1}, "vgg16")):
        with pytest.raises(SRKitError):
            losses.create(weights, features, "random")


def test_balance_gives_each_term_its_share(vgg):
    loss = WeightedLoss({"mse": 1, "relu1_2": 0, "relu2_2": 0}, PerceptualLoss(vgg))
    output, high = torch.rand(2, 2, 3, 24, 24)
    shares = {"mse": 0.5, "relu1_2": 0.2, "relu2_2": 0.3, "relu4_3": 0.0}
    loss.weights = losses.balance(loss, output, high, shares)
    assert loss.weights["mse"] == 1 and loss.weights["relu4_3"] == 0
    assert losses.balance(loss, output * (1 + 1e-6), high, shares) == loss.weights  # as another device computes it
    total, values = loss(output, high)
    for name in ("mse", "relu1_2", "relu2_2"):
        assert values[f"weighted/{name}"].item() / total.item() == pytest.approx(shares[name], rel=0.1)


# ---------------------------------------------------------------------------------- kept feature maps

BATCHES = ([0, 1], [2, 3], [4, 0], [3, 1], [2, 4])  # two epochs of five pictures


@pytest.fixture
def kept(vgg):
    """A loss, its kept feature maps, the pictures, and how many pictures each pass through the network had."""
    loss = WeightedLoss({"relu1_2": 1.0, "relu3_3": 0.0}, PerceptualLoss(vgg))
    sizes: list[int] = []
    hook = vgg.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    yield loss, TargetFeatures(loss.perceptual, 5), torch.rand(5, 3, 24, 24), sizes
    hook.remove()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_kept_feature_maps_change_no_bit(kept, precision):
    loss, targets, pictures, _ = kept
    output = torch.rand(2, 3, 24, 24)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        for step, indices in enumerate((*BATCHES, *BATCHES[:3])):
            loss.weights["relu3_3"] = 0.5 * (step > 5)  # a deeper layer than was kept
            high = pictures[indices]
            total, values = loss(output, high, targets=targets.for_batch(indices))
            expected, plain = loss(output, high)
            assert torch.equal(total, expected) and values.keys() == plain.keys()
            assert all(torch.equal(value, plain[name]) for name, value in values.items())


def test_the_ground_truth_goes_through_the_network_once(kept):
    loss, targets, pictures, sizes = kept
    for indices in BATCHES:
        loss(torch.rand(2, 3, 24, 24), pictures[indices], targets=targets.for_batch(indices))
    assert sizes == [2, 2] * 3 + [2] * 2
    small, large = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 24, 24)
    sizes.clear()
    loss((small, large), pictures[:2], targets=targets.for_batch([0, 1]))
    assert sizes == [2, 2, 2]  # the ground truth of a smaller output is another picture


def test_room_is_asked_for_all_pictures_and_layers(kept, monkeypatch):
    loss, targets, pictures, sizes = kept
    loss.weights["relu3_3"] = 1.0
    needed = 4 * 5 * (64 * 24 * 24 + 256 * 6 * 6)
    for free, passes in ((2 * needed - 2, [2, 2]), (2 * needed, [2])):
        monkeypatch.setattr(losses, "free_memory", lambda device, free=free: free)
        for _ in range(2):
            sizes.clear()
            loss(torch.rand(2, 3, 24, 24), pictures[:2], targets=targets.for_batch([0, 1]))
        assert sizes == passes
