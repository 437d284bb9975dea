"""losses: known values, gradients, the weighted sum, and feature maps that are kept."""

from __future__ import annotations

import math

import pytest
import torch

from srkit import losses
from srkit.data.images import degrade
from srkit.losses import PerceptualLoss, WeightedLoss
from srkit.models.features import VGG16
from srkit.settings import SRKitError
from srkit.training import targets as targets_room
from srkit.training.targets import TargetFeatures

HIGH = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
OUTPUT = torch.tensor([0.1, 0.9]).view(1, 1, 1, 2)


@pytest.fixture(scope="module")
def vgg():
    return VGG16(["relu1_2", "relu2_2", "relu3_3"], weights="random")


def two(size: int = 16, count: int = 2) -> torch.Tensor:
    """Batches of output and high."""
    return torch.rand(2, count, 3, size, size, generator=torch.Generator().manual_seed(0))


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


@pytest.mark.parametrize("name", losses.TERMS)
def test_every_term_has_a_gradient_and_none_at_equality_is_nan(name):
    output, high = two(5)
    losses.TERMS[name](output.requires_grad_(), high).backward()
    assert (output.grad != 0).float().mean() > 0.5  # tv's steps up and down may cancel at a pixel
    same = high.clone().requires_grad_()
    value = losses.TERMS[name](same, high)
    value.backward()
    assert value.isfinite() and same.grad.isfinite().all()


def test_discriminator_loss_is_the_cross_entropy_and_finite_where_d_is_sure():
    logits = torch.tensor([0.0, 2.0, -1.0])
    chances = logits.sigmoid()
    mixed = -(0.9 * chances.log() + 0.1 * (1 - chances).log()).mean().item()
    assert losses.discriminator_loss(logits, 0.9).item() == pytest.approx(mixed)
    sure = torch.tensor([-200.0], requires_grad=True)
    losses.discriminator_loss(sure, 1.0).backward()
    assert sure.grad.item() == pytest.approx(-1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1), torch.nn.Flatten(0))
    loss, (output, high) = losses.create({"adversarial": 1.0}, discriminator=network), two(2)
    expected = losses.discriminator_loss(network(output), 1.0).item()
    assert loss(output, high)[0].item() == pytest.approx(expected) and loss.device == torch.device("cpu")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_feature_distance_and_its_gradient(kind):
    a, b = torch.rand(2, 2, 8, 5, 5).to(kind)
    value = losses.feature_distance(a.requires_grad_(), b)
    value.backward()
    difference = (a - b).detach().double()
    assert value.dtype == torch.float32 and value.item() == pytest.approx(difference.square().mean().item(), rel=1e-5)
    assert torch.allclose(a.grad.double(), 2 * difference / a.numel(), rtol=1e-2)
    same = b.clone().requires_grad_()
    losses.feature_distance(same, b).backward()
    assert not same.grad.any()


def test_perceptual_terms_by_hand_and_gradients_to_the_output_alone(vgg):
    pair = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])[None]  # 2 channels of 1 x 2
    assert torch.allclose(losses.gram(pair)[0], torch.tensor([[5.0, 11.0], [11.0, 25.0]]) / 4)
    output, high = two()
    output.requires_grad_()
    high.requires_grad_()
    loss = PerceptualLoss(vgg, ["relu2_2"], content=["relu1_2", "relu3_3"], texture=["relu1_2"])
    terms, a, b = loss(output, high, ["relu2_2", "content", "texture"]), vgg(output), vgg(high)
    assert terms["relu2_2"].item() == pytest.approx((a["relu2_2"] - b["relu2_2"]).square().mean().item(), rel=1e-5)
    both = sum((a[layer] - b[layer]).square().mean().item() for layer in ("relu1_2", "relu3_3"))
    assert terms["content"].item() == pytest.approx(both / 12.75**2, rel=1e-5)
    f, g = (x["relu1_2"].flatten(2) for x in (a, b))
    difference = (f @ f.mT - g @ g.mT) / (64 * 16 * 16)
    assert terms["texture"].item() == pytest.approx(difference.square().sum((1, 2)).mean().item(), rel=1e-4)
    for term in terms.values():
        (gradient,) = torch.autograd.grad(term, output, retain_graph=True)
        assert gradient.abs().max() > 0 and gradient.isfinite().all()
        assert torch.autograd.grad(term, high, retain_graph=True, allow_unused=True) == (None,)
    with pytest.raises(SRKitError):
        PerceptualLoss(vgg, ["relu5_3"])


def test_nothing_is_computed_past_the_deepest_layer_that_weighs(vgg):
    ran = []
    convolutions = [module for module in vgg.modules() if isinstance(module, torch.nn.Conv2d)]
    hooks = [module.register_forward_hook(lambda *_: ran.append(1)) for module in convolutions]
    loss = WeightedLoss({"mse": 1, "relu1_2": 1, "relu2_2": 1, "relu3_3": 1}, PerceptualLoss(vgg))
    for weights, count in (({}, 7), ({"relu3_3": 0}, 4), ({"relu2_2": 0}, 2), ({"relu1_2": 0}, 0)):
        loss.weights |= weights
        ran.clear()
        loss(*two())
        assert len(ran) == 2 * count  # once for the output, once for the ground truth
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
    loss.weights["mse"] = 3
    assert loss(OUTPUT, HIGH)[0].item() == pytest.approx(3 * 0.085 + 0.5 * 0.25)
    assert loss.device is None and loss.describe() == ""


def test_each_output_against_the_ground_truth_of_its_size():
    (large, high), (mid, _) = two(16), two(8)
    total, values = WeightedLoss({"mse": 1})((mid, large), high)
    expected = losses.mse(mid, degrade(high, 2)), losses.mse(large, high)
    assert values.keys() == {"x2/mse", "x4/mse", "weighted/x2/mse", "weighted/x4/mse"}
    assert total.item() == pytest.approx(sum(expected).item())
    total, _ = WeightedLoss({"mse": 1, "x2/mse": 0.25})((mid, large), high)
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
    assert losses.create({"mse": 1}).perceptual == ()  # nothing is loaded that no term needs
    content = losses.create({"content": 1}, "vgg16", "random", content=("relu1_2",))
    assert content.perceptual[0].layers_of == {"content": ("relu1_2",)}
    with pytest.raises(SRKitError, match="did you mean 'relu2_2'"):
        losses.create({"mse": 1, "relu22": 0.1}, "vgg16", "random")
    for weights, features in (({"content": 1}, "vgg16"), ({"mse": 1}, "vgg61"), ({"adversarial": 1}, "vgg16")):
        with pytest.raises(SRKitError):
            losses.create(weights, features, "random")


def test_balance_gives_each_term_its_share(vgg):
    loss, (output, high) = WeightedLoss({"mse": 1, "relu1_2": 0, "relu2_2": 0}, PerceptualLoss(vgg)), two()
    shares = {"mse": 0.5, "relu1_2": 0.2, "relu2_2": 0.3, "relu3_3": 0.0}
    loss.weights = losses.balance(loss, output, high, shares)
    assert loss.weights["mse"] == 1 and loss.weights["relu3_3"] == 0
    assert losses.balance(loss, output * (1 + 1e-6), high, shares) == loss.weights  # as another device computes it
    total, values = loss(output, high)
    for name in ("mse", "relu1_2", "relu2_2"):
        assert values[f"weighted/{name}"].item() / total.item() == pytest.approx(shares[name], rel=0.1)


# ---------------------------------------------------------------------------------- kept feature maps


@pytest.fixture
def kept(vgg):
    """A loss, five pictures, and how many pictures each pass through the network had."""
    loss = WeightedLoss({"relu1_2": 1.0, "relu3_3": 0.0}, PerceptualLoss(vgg))
    sizes: list[int] = []
    hook = vgg.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    yield loss, two(16, 5)[0], sizes
    hook.remove()


def test_kept_feature_maps_change_no_bit_and_the_ground_truth_goes_through_once(kept):
    loss, pictures, sizes = kept
    targets, (output, _), batches = TargetFeatures(5), two(), ([0, 1], [2, 3], [4, 0], [3, 1], [2, 4])  # two epochs
    for indices in batches:
        loss(output, pictures[indices], targets=targets.for_batch(indices))
    assert sizes == [2, 2] * 3 + [2] * 2
    for weight, indices in ((0.0, [1, 4]), (0.5, [1, 4]), (0.5, [4, 0]), (0.5, [4, 1])):  # a deeper layer than was kept
        loss.weights["relu3_3"] = weight
        total, values = loss(output, pictures[indices], targets=targets.for_batch(indices))
        expected, plain = loss(output, pictures[indices])
        assert torch.equal(total, expected) and all(torch.equal(value, plain[name]) for name, value in values.items())
    sizes.clear()
    loss((two(8)[0], output), pictures[:2], targets=targets.for_batch([0, 1]))
    assert sizes == [2, 2, 2]  # the ground truth of a smaller output is another picture


def test_room_is_asked_for_all_pictures_and_layers(kept, monkeypatch):
    loss, pictures, sizes = kept
    first, second = 4 * 5 * 64 * 16 * 16, 4 * 5 * 256 * 4 * 4  # bytes of the layers of all pictures
    for free, passes in ((2 * first - 2, [2, 2]), (2 * first, [1, 2]), (2 * (first + second), [1, 1])):
        monkeypatch.setattr(targets_room, "free_memory", lambda device, free=free: free)
        targets, found = TargetFeatures(5), []
        for weight in (0.0, 0.0, 1.0, 1.0):  # from the third step on another layer weighs, too
            loss.weights["relu3_3"] = weight
            sizes.clear()
            loss(two()[0], pictures[:2], targets=targets.for_batch([0, 1]))
            found.append(len(sizes))
        assert found[1::2] == passes
