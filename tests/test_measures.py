"""measures: counts and receptive fields against what a pencil gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srkit import models
from srkit.errors import SRKitError
from srkit.models.superresnet import Dilated, Plain, Residual


def test_count_tells_trainable_from_frozen():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1))
    model[0].requires_grad_(False)
    assert models.count(model) == (4 * 5 + 5, 3 * 3 * 3 * 4 + 4)
    assert models.count_parameters(model) == 4 * 5 + 5


def test_multiply_adds_by_hand():
    assert models.multiply_adds(nn.Conv2d(3, 8, 5, padding=2), 7, 9) == 7 * 9 * 5 * 5 * 3 * 8
    assert models.multiply_adds(nn.Conv2d(3, 8, 5, stride=2), 7, 9) == 2 * 3 * 5 * 5 * 3 * 8
    assert models.multiply_adds(models.create("bicubic", 3), 7, 9) == 0
    per_pixel = 81 * 3 * 64 + 25 * 64 * 32 + 25 * 32 * 3
    plain, carrying = (models.create("srcnn", 3, carry=carry) for carry in (False, True))
    assert models.multiply_adds(plain, 10, 12) == 30 * 36 * per_pixel
    # Three channels of each layer are handed on: nobody multiplies for them.
    assert models.multiply_adds(carrying, 10, 12) == 30 * 36 * (81 * 3 * 61 + 25 * 61 * 29 + 25 * 29 * 3)


def test_receptive_field_of_layers():
    assert models.receptive_field(nn.Conv2d(3, 4, 7, padding=3)) == (7,)
    assert models.receptive_field(nn.Conv2d(3, 4, 3, padding=6, dilation=6)) == (13,)
    assert models.receptive_field(nn.Sequential(nn.MaxPool2d(2), nn.Upsample(scale_factor=2))) == (2,)
    assert models.receptive_field(Plain(3)) == (3,)
    assert models.receptive_field(Residual(3)) == (5,)
    assert models.receptive_field(Dilated(3)) == (9,)
    assert models.receptive_field(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))) == (3,)


def test_receptive_field_of_interpolation_is_its_kernel():
    for name, field in (("nearest", 1), ("bilinear", 2), ("bicubic", 4)):
        assert models.receptive_field(models.create(name, 2)) == (field,)


def test_receptive_field_of_srcnn_is_the_known_one():
    model = models.create("srcnn")  # 9-5-5: 1 + 8 + 4 + 4 enlarged pixels
    convolutions = nn.Sequential(model.extract, nn.ReLU(), model.map, nn.ReLU(), model.reconstruct)
    assert models.receptive_field(convolutions) == (17,) == (model.receptive_field,)
    # In low pixels: 8 enlarged ones to each side are 4, with bilinear's neighbour 5 on one side; and the pixel itself.
    assert models.receptive_field(model) == (10,)
    assert models.receptive_field(models.create("srcnn", 2, carry=False, upsample="nearest")) == (9,)


FIELDS = {
    # Two conv3 see 5 pixels; the output is mixed from 2 of them, at x4 from 3: half a pixel, then a quarter.
    "superresnet": (5 + 1,),
    "superresnet-multi": (5 + 1, 5 + 2),
    # Five conv3 see 11. The block between sees 4 mid pixels more than the 2 that are mixed, 6, which come from 5.
    "superresnet-residual": (11 + 1, 11 + 4),
    # 3 + 8 + 8 = 19. Between: 2 + 8 = 10 mid pixels, which come from 7.
    "superresnet-dilated": (19 + 1, 19 + 6),
    # relu2_2: two conv3 (+ 4) on pairs of pixels, two more conv3 on pairs: 2 mixed pixels need up to 3 pairs, + 4.
    "superresnet-vgg": (2 * (3 + 4) + 4, 2 * (3 + 4) + 4),
}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("skip", [False, True])
def test_receptive_field_by_hand(name, skip):
    changes = {"feature_weights": "random"} if name == "superresnet-vgg" else {}
    assert models.receptive_field(models.create(name, skip=skip, **changes)) == FIELDS[name]


def test_measuring_leaves_the_model_alone():
    model = models.create("superresnet-vgg", feature_weights="random").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frozen = model.frozen.extractor.features[0].weight.clone()
    models.receptive_field(model)
    models.multiply_adds(model, 8, 8)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model.frozen.extractor.features[0].weight, frozen)


def test_a_field_without_end_is_refused():
    with pytest.raises(SRKitError, match="sees about 256 pixels or more"):
        models.receptive_field(Everything())


class Everything(nn.Module):
    """Adds the mean of the whole picture."""

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        return low + low.mean((2, 3), keepdim=True)
