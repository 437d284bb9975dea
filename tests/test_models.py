"""models: shapes, parameters worked out by hand, starts, the folded skip, and recipes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from srkit import metrics, models
from srkit.banks import open_bank
from srkit.errors import SRKitError
from srkit.images import resize
from srkit.models import trained
from srkit.models.srcnn import INITS, SRCNN, convolve_by_rows


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["srcnn", "srcnn915", "nearest", "bilinear", "bicubic"])
def test_output_is_scale_times_low_for_odd_sizes(name, scale):
    model = models.create(name, scale)
    assert model(torch.rand(2, 3, 7, 5)).shape == (2, 3, 7 * scale, 5 * scale)


def test_parameters_by_hand():
    # weights k·k·in·out and a bias for each filter
    assert models.count_parameters(models.create("srcnn")) == (9 * 9 * 3 * 64 + 64) + (5 * 5 * 64 * 32 + 32) + (
        5 * 5 * 32 * 3 + 3
    )
    assert models.count_parameters(models.create("srcnn915")) == 20_099


def test_receptive_field_is_what_a_gradient_sees():
    for kernels, field in (((9, 5, 5), 17), ((9, 1, 5), 13)):
        model = SRCNN(2, kernels, channels=(4, 4), upsample="nearest", init="default")
        assert model.receptive_field == field
        enlarged = torch.rand(1, 3, 41, 41, requires_grad=True)
        for layer in (model.extract, model.map, model.reconstruct):  # without ReLUs no path can be dead
            torch.nn.init.constant_(layer.weight, 0.1)
        model.reconstruct(model.map(model.extract(enlarged)))[0, 0, 20, 20].backward()
        seen = enlarged.grad[0].abs().sum(0) > 0
        assert seen.sum() == field**2 and seen[20 - field // 2, 20 + field // 2]


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("carry", [False, True])
def test_identity_starts_at_the_enlarged_picture(kernel, carry):
    low = torch.rand(2, 3, 8, 9)
    model = SRCNN(3, upsample=kernel, init="identity", carry=carry)
    assert torch.allclose(model(low), resize(low, scale=3, kernel=kernel).clamp(min=0), atol=1e-6)


def test_identity_start_can_learn_at_once():
    model = SRCNN(2, (9, 1, 5), (16, 8))
    low = torch.rand(4, 3, 12, 12)
    (model(low) - torch.rand(4, 3, 24, 24)).square().mean().backward()
    assert model.reconstruct.weight.grad[:, 3:].abs().max() > 0
    assert model.extract.weight[3:].sum((2, 3)).abs().max() < 1e-4  # edge filters: brightness doesn't matter


def test_paper_and_default_starts():
    torch.manual_seed(0)
    assert SRCNN(init="paper").extract.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert SRCNN(init="paper")(torch.rand(1, 3, 8, 8)).abs().max() < 0.01  # almost black
    assert SRCNN(init="default").map.bias.abs().max() > 0


@pytest.mark.parametrize("init", INITS)
def test_carrying_is_the_plain_network_with_the_same_weights(init):
    torch.manual_seed(1)
    carrying, plain = (
        SRCNN(3, (9, 1, 5), upsample="bicubic", init=init, carry=True),
        SRCNN(3, (9, 1, 5), upsample="bicubic"),
    )
    low = (torch.rand(2, 3, 11, 13) > 0.5).float()  # bicubic undershoots 0 here
    assert resize(low, scale=3).min() < -0.05
    optimizer = torch.optim.Adam(carrying.parameters(), lr=1e-2)
    for _ in range(3):  # after some training as at the start
        plain.load_state_dict(carrying.state_dict())
        assert torch.allclose(plain(low), carrying(low), atol=1e-5)
        optimizer.zero_grad()
        (carrying(low) - 0.3).square().mean().backward()
        optimizer.step()
    assert plain.extract.weight.grad is None and carrying.extract.weight.grad[3:].abs().max() > 0
    assert carrying.extract.weight[0, 0, 4, 4] == 1 and carrying.map.weight[:3, 3:].abs().max() == 0


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_convolving_by_rows_is_convolving(k):
    x, weight, bias = torch.randn(2, 7, 12, 15), torch.randn(3, 7, k, k), torch.randn(3)
    given = [each.double().requires_grad_() for each in (x, weight, bias)]
    by_rows, plain = convolve_by_rows(*given), F.conv2d(*given, padding=k // 2)
    assert torch.allclose(by_rows, plain, atol=1e-12)
    change = torch.randn_like(plain)
    pairs = zip(torch.autograd.grad(by_rows, given, change), torch.autograd.grad(plain, given, change), strict=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("carry", [False, True])
def test_in_training_the_same_network(carry):
    model, low = SRCNN(2, carry=carry, init="default"), torch.rand(1, 3, 9, 11)
    with torch.no_grad():
        assert torch.allclose(model.train()(low), model.eval()(low), atol=1e-5)


def test_recipe_rebuilds_the_model():
    model = models.create("srcnn915", 4, channels=(8, 4))
    again = models.build(model.recipe)
    again.load_state_dict(model.state_dict())
    assert again.recipe == model.recipe and again.scale == 4
    low = torch.rand(1, 3, 5, 5)
    assert torch.equal(again(low), model(low))


def test_bad_names_and_arguments():
    with pytest.raises(SRKitError, match="did you mean 'srcnn'"):
        models.create("srcn")
    with pytest.raises(SRKitError, match="not one of 2, 3, 4"):
        models.create("srcnn", 5)
    with pytest.raises(SRKitError, match="three odd sizes"):
        models.create("srcnn", kernels=(9, 4, 5))
    with pytest.raises(SRKitError, match="did you mean 'bicubic'"):
        models.create("srcnn", upsample="bicubc")
    with pytest.raises(SRKitError, match="unknown initialisation 'zero'"):
        models.create("srcnn", init="zero")
    with pytest.raises(SRKitError, match="cannot be built"):
        models.create("srcnn", depth=3)


def test_a_rebuilt_model_has_the_same_weights_under_another_recipe():
    model = models.create("srresnet", 2, channels=8, blocks=1)
    model.trained = True
    frozen = models.rebuild(model, frozen_norm=True)
    assert frozen is not model and frozen.recipe["frozen_norm"] and frozen.trained
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), frozen.state_dict().values(), strict=True)
    )
    with pytest.raises(SRKitError, match="don't fit a srresnet with channels=16"):
        models.rebuild(model, channels=16)


@pytest.mark.parametrize("name", trained.names())
def test_what_comes_trained_does_what_its_card_says(name):
    card = trained.card(name)
    if card["recipe"].get("features") == "clip":
        pytest.importorskip("timm", reason="it looks through CLIP, which timm makes")
    model = models.load(name)
    assert not model.training and model.trained and next(model.parameters()).dtype == torch.float32
    assert name == f"{card['recipe']['name']}-x{model.scale}" or card["recipe"]["name"] in name
    pictures = open_bank("bundled", "test", size=144)
    here, bicubic = (metrics.evaluate(m, pictures, model.scale) for m in (model, models.create("bicubic", model.scale)))
    told = [card["measured"][test]["psnr"] > card["bicubic"][test]["psnr"] for test in card["measured"]]
    assert all(told) and here.psnr > bicubic.psnr


def test_an_unknown_trained_network_is_named():
    with pytest.raises(SRKitError, match="srresnet-small-x4"):
        models.load("srresnet-smal-x4")
