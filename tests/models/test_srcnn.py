"""srcnn: parameters by hand, starts, carried channels and convolution by rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from srkit import models
from srkit.data.images import resize
from srkit.models.srcnn import INITS, SRCNN, convolve_by_rows


def test_parameters_by_hand():
    # weights k·k·in·out and a bias for each filter
    assert models.count_parameters(models.create("srcnn")) == (9 * 9 * 3 * 64 + 64) + (5 * 5 * 64 * 32 + 32) + (
        5 * 5 * 32 * 3 + 3
    )
    assert models.count_parameters(models.create("srcnn915")) == 20_099


@pytest.mark.parametrize("carry", [False, True])
def test_identity_starts_at_the_enlarged_picture_and_learns_at_once(carry):
    low, model = torch.rand(2, 3, 8, 9), SRCNN(3, (9, 1, 5), (16, 8), init="identity", carry=carry)
    output = model(low)
    assert torch.allclose(output, resize(low, scale=3, kernel="bilinear").clamp(min=0), atol=1e-6)
    (output - torch.rand_like(output)).square().mean().backward()
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
    carrying = SRCNN(3, (9, 1, 5), upsample="bicubic", init=init, carry=True)
    plain = SRCNN(3, (9, 1, 5), upsample="bicubic")
    low = (torch.rand(2, 3, 11, 13) > 0.5).float()  # bicubic undershoots 0 here
    assert resize(low, scale=3).min() < -0.05
    optimizer = torch.optim.Adam(carrying.parameters(), lr=1e-2)
    for _ in range(3):  # after some training as at the start
        plain.load_state_dict(carrying.state_dict())
        assert torch.allclose(plain(low), carrying(low), atol=1e-5)
        optimizer.zero_grad()
        (carrying(low) - 0.3).square().mean().backward()
        optimizer.step()
    assert carrying.extract.weight.grad[3:].abs().max() > 0
    assert carrying.extract.weight[0, 0, 4, 4] == 1 and carrying.map.weight[:3, 3:].abs().max() == 0


@pytest.mark.parametrize("k", [1, 5])
def test_convolving_by_rows_is_convolving(k):
    x, weight, bias = torch.randn(2, 7, 12, 15), torch.randn(3, 7, k, k), torch.randn(3)
    given = [each.double().requires_grad_() for each in (x, weight, bias)]
    by_rows, plain = convolve_by_rows(*given), F.conv2d(*given, padding=k // 2)
    assert torch.allclose(by_rows, plain, atol=1e-12)
    change = torch.randn_like(plain)
    pairs = zip(torch.autograd.grad(by_rows, given, change), torch.autograd.grad(plain, given, change), strict=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in pairs)
