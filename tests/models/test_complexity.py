"""complexity: work, receptive fields and reaches against what a pencil gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srkit import models
from srkit.models.complexity import Reach, reach
from srkit.models.superresnet import Dilated, Plain, Residual
from srkit.settings import SRKitError


def test_multiply_adds_by_hand():
    assert models.multiply_adds(nn.Conv2d(3, 8, 5, padding=2), 7, 9) == 7 * 9 * 5 * 5 * 3 * 8
    assert models.multiply_adds(nn.Conv2d(3, 8, 5, stride=2), 7, 9) == 2 * 3 * 5 * 5 * 3 * 8
    assert models.multiply_adds(models.create("bicubic", 3), 7, 9) == 0
    plain, carrying = (models.create("srcnn", 3, carry=carry) for carry in (False, True))
    assert models.multiply_adds(plain, 4, 5) == 12 * 15 * (81 * 3 * 64 + 25 * 64 * 32 + 25 * 32 * 3)
    # Three channels of each layer are handed on: nobody multiplies for them.
    assert models.multiply_adds(carrying, 4, 5) == 12 * 15 * (81 * 3 * 61 + 25 * 61 * 29 + 25 * 29 * 3)


class Pooled(nn.Module):
    """Pools by four and enlarges back."""

    scale = 1

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(nn.functional.avg_pool2d(low, 4), low.shape[-2:])


class Everything(Pooled):
    """Adds the mean of the whole picture."""

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        return low + low.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("make, field", [
    (lambda: nn.Conv2d(3, 4, 7, padding=3), 7),
    (lambda: nn.Conv2d(3, 4, 3, padding=6, dilation=6), 13),
    (lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)), 3),
    (lambda: Plain(3), 3),
    (lambda: Residual(3), 5),
    (lambda: Dilated(3), 9),
    (Pooled, 4),
    (lambda: models.create("nearest", 3), 1),
    (lambda: models.create("bilinear", 3), 2),
    (lambda: models.create("bicubic", 2), 4),
    # In low pixels: 8 enlarged ones to each side are 4, with bilinear's neighbour 5 on one side; and the pixel itself.
    (lambda: models.create("srcnn"), 10),
    (lambda: models.create("srcnn", 2, carry=False, upsample="nearest"), 9),
    # conv9, two conv3 a block, conv3, conv3 to the first doubling: 9 + 4 * blocks + 2 + 2 pixels of low. The last
    # conv9 spans 9 pixels, which lie on 5 of twice low's size; with conv3 7, which lie on 4 of low: 3 more than one.
    (lambda: models.SRResNet(4, channels=2, blocks=16), 9 + 4 * 16 + 2 + 2 + 3),
    # With a conv3 at the end: 3 pixels on 2, with conv3 4, which lie on up to 3 of low.
    (lambda: models.create("srresnet-small", channels=2, upsample="shuffle"), 9 + 4 * 8 + 2 + 2 + 2),
    # Doubling by "nearest": two conv3 span 5 pixels of the largest, 3 of half that; one more, 5, which lie on 3 of low.
    (lambda: models.create("srresnet-small", channels=2), 9 + 4 * 8 + 2 + 2),
    # At x2 there is one doubling: 9 pixels on 5.
    (lambda: models.SRResNet(2, channels=2, blocks=0), 9 + 2 + 2 + 4),
])  # fmt: skip
def test_receptive_field_by_hand(make, field):
    assert models.receptive_field(make()) == (field,)


FIELDS = {
    # Two conv3 span 5 pixels; the output is mixed from 2 of them, at x4 from 3: half a pixel, then a quarter.
    "superresnet-multi": (5 + 1, 5 + 2),
    # Five conv3 span 11. The block between adds 4 mid pixels to the 2 that are mixed, 6, which come from 5.
    "superresnet-residual": (11 + 1, 11 + 4),
    # 3 + 8 + 8 = 19. Between: 2 + 8 = 10 mid pixels, which come from 7.
    "superresnet-dilated": (19 + 1, 19 + 6),
    # relu2_2: two conv3 (+ 4) on pairs of pixels, two more conv3 on pairs: 2 mixed pixels need up to 3 pairs, + 4.
    "superresnet-vgg": (2 * (3 + 4) + 4, 2 * (3 + 4) + 4),
}


@pytest.mark.parametrize("name", FIELDS)
def test_field_and_reach_of_several_outputs_and_the_model_is_left_alone(name):
    model = models.create(name, **({"feature_weights": "random"} if name == "superresnet-vgg" else {})).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert models.receptive_field(model) == FIELDS[name]
    for scale, field in zip((2, 4), FIELDS[name], strict=True):
        found = reach(model, scale)
        assert found.grid == (2 if name == "superresnet-vgg" else 1)
        assert field / 2 - 2 <= found.pixels <= field / 2 + 2
    models.multiply_adds(model, 8, 8)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_reach_of_what_ships_of_poolings_and_of_a_field_without_end():
    assert reach(models.load("srresnet-small-x4")) == Reach(22, 1)
    assert reach(Pooled()).grid == 4 and reach(Everything()) is None
    with pytest.raises(SRKitError, match="receptive field is about"):
        models.receptive_field(Everything())
