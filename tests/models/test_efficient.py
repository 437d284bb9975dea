"""efficient: counts by hand, branches that merge exactly, and the start at bicubic."""

from __future__ import annotations

import pytest
import torch

from srkit import models
from srkit.data.images import resize
from srkit.models.complexity import Reach, reach
from srkit.models.efficient import EfficientSR

CONV = 3 * 3 * 48 * 48 + 48  # weights and biases of a convolution in the body


@pytest.mark.parametrize("scale, parameters", [(2, 255_948), (3, 262_443), (4, 271_536)])
def test_parameters_work_and_sizes_by_hand(scale, parameters):
    model, last = models.create("efficient", scale), 3 * scale**2
    by_hand = (3 * 3 * 3 * 48 + 48) + 6 * 2 * CONV + (3 * 3 * 48 * last + last)
    assert models.count(model) == (by_hand, 0) == (parameters, 0)
    wide = models.create("efficient", scale, expand=True)  # a 1 x 1 kernel more for each convolution of the body
    assert models.count_parameters(wide) == parameters + 6 * 2 * 48 * 48
    assert models.multiply_adds(model, 5, 7) == 35 * 9 * (3 * 48 + 12 * 48 * 48 + 48 * last)  # all at low's size


def test_receptive_field_by_hand():
    model = EfficientSR(4, channels=2, blocks=8)
    torch.nn.init.normal_(model.tail.weight)
    assert models.receptive_field(model) == (1 + 2 * (1 + 16 + 1),) and reach(model) == Reach(18, 1)


def test_training_starts_at_bicubic_and_learns_at_once():
    low = torch.rand(2, 3, 9, 11)
    for expand in (False, True):
        model = models.create("efficient", 3, channels=8, blocks=2, expand=expand)
        output = model(low)
        assert torch.equal(output, resize(low, scale=3))
        (output - 0.3).square().mean().backward()
        assert model.tail.weight.grad.abs().max() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the picture stays whole
        assert torch.equal(models.create("efficient", 3)(low), resize(low, scale=3))


def test_branches_merge_into_one_kernel_exactly():
    torch.manual_seed(0)
    model, low, high = models.create("efficient", 2, expand=True), torch.rand(2, 3, 12, 13), torch.rand(2, 3, 24, 26)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(3):  # at the start and after some training
        plain = model.merged()
        with torch.no_grad():
            first, x = model.body[0].first, torch.randn(1, 48, 6, 6)
            branches = torch.nn.functional.conv2d(x, first.square, first.bias, padding=1) + x
            branches += torch.nn.functional.conv2d(x, first.point)
            assert (plain.body[0].first(x) - branches).abs().max() <= 1e-5  # of values up to 4
            assert (plain(low) - model(low)).abs().max() <= 1e-6
        optimizer.zero_grad()
        (model(low) - high).square().mean().backward()
        optimizer.step()
    assert plain.config == models.create("efficient", 2).config and plain.merged() is plain
    assert model.expand and model.config["expand"]  # the wide one is as it was
    models.build(plain.config).load_state_dict(plain.state_dict())
