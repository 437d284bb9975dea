"""losses: known values, gradients, and the weighted sum."""

from __future__ import annotations

import math

import pytest
import torch

from srkit import losses
from srkit.errors import SRKitError
from srkit.losses import WeightedLoss

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
    assert output.grad.abs().min() > 0
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

    loss = WeightedLoss({"mse": 1, "never": 0}, {"mse": losses.mse, "never": never})
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
