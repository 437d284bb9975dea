"""Blur, noise and JPEG as photographs have them: what they do, and that only their generator decides."""

from __future__ import annotations

import io
import math

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from srkit.data import load_dataset
from srkit.data.degradation import PhotoDegradation, blur, jpeg
from srkit.settings import SRKitError


@pytest.fixture(scope="module")
def high() -> torch.Tensor:
    return load_dataset("bundled", "test")[0][1][:, :150, :203]


@pytest.mark.parametrize("quality", [10, 50, 95])
def test_jpeg_is_that_of_the_library(high, quality):
    file = io.BytesIO()
    to_pil_image(high).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    expected = pil_to_tensor(Image.open(file)) / 255
    found = jpeg(high[None], torch.tensor([float(quality)]))[0]
    assert (found - expected).abs().mean() < 1 / 255
    assert (found - expected).abs().mean() < (high - expected).abs().mean() / 3


def test_each_picture_of_a_batch_has_its_own_strength(high):
    twice = torch.stack([high, high])
    both = blur(twice, torch.tensor([0.1, 2.0]))
    assert torch.allclose(both[0], high, atol=1e-4)
    assert (both[1] - high).abs().mean() > 0.01
    coarse, fine = jpeg(twice, torch.tensor([20.0, 95.0]))
    assert (coarse - high).square().mean() > 4 * (fine - high).square().mean()


def test_blur_keeps_the_mean_and_has_the_variance_that_is_asked_for():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = blur(point, torch.tensor([3.0]), torch.tensor([1.5]), torch.tensor([math.pi / 2]))[0, 0]
    line = torch.arange(41.0) - 20
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(1) * line**2).sum().sqrt() == pytest.approx(3, abs=0.05)  # turned by 90 degrees: along y
    assert (spread.sum(0) * line**2).sum().sqrt() == pytest.approx(1.5, abs=0.05)


def test_photo_degradation_is_a_function_of_its_generator(high):
    batch = torch.stack([high[:, :96, :96], high[:, 20:116, 90:186]])
    one, again, other = (PhotoDegradation()(batch, 4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == (2, 3, 24, 24)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(one, (one * 255).round() / 255)
    assert one.min() >= 0 and one.max() <= 1


@pytest.mark.parametrize("strength", [0, 1.5])
def test_strength_outside_its_range_is_refused(strength):
    with pytest.raises(SRKitError):
        PhotoDegradation(strength)


def test_data_set_of_photographs_makes_the_same_low_each_time_and_is_another_training():
    clean, photo = load_dataset("bundled", "test", size=64), load_dataset("bundled", "test", size=64, photo=0.5)
    again = load_dataset(**photo.config)
    assert again.fingerprint == photo.fingerprint != clean.fingerprint
    for step in (0, 1):
        one, other = photo.batch(step, 2, 48, 4), again.batch(step, 2, 48, 4)
        assert torch.equal(one.low, other.low)
        assert torch.equal(one.high, clean.batch(step, 2, 48, 4).high)
        assert not torch.equal(one.low, clean.batch(step, 2, 48, 4).low)
    lows = [torch.cat([pair.low for pair in photo.pairs(4, batch_size)]) for batch_size in (1, 2)]
    assert torch.equal(*lows)
