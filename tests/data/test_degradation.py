"""Blur, noise and JPEG as photographs have them: what they do, and that only their generator decides."""

from __future__ import annotations

import io
import math

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from srkit.data import ImageDataset, load_dataset
from srkit.data.degradation import Camera, PhotoDegradation, blur, jpeg, soften
from srkit.data.images import degrade
from srkit.data.warping import Warp
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


def test_camera_blurs_and_adds_noise_as_it_says_and_its_data_set_is_another(high):
    batch = high[None, :, :96, :96]
    generator = torch.Generator().manual_seed(0)
    clean = Camera(0, 0)(batch, 4, generator)
    assert torch.equal(clean, degrade(batch, 4))
    noisy = Camera(0, 0.05)(torch.full((1, 3, 192, 192), 0.5), 4, generator)
    assert noisy.std() == pytest.approx(0.05, rel=0.05) and torch.equal(noisy, (noisy * 255).round() / 255)
    point = torch.zeros(1, 3, 25, 25)
    point[..., 12, 12] = 1
    spread = soften(point, torch.tensor([1.5]))[0, 0]
    line = torch.arange(25) - 12.0
    assert (spread.sum(0) * line**2).sum().sqrt() == pytest.approx(1.5, abs=0.05)
    pictures = [(high * 255).to(torch.uint8)]
    one, other = (ImageDataset(pictures, degradation=camera) for camera in (Camera(1, 0.1), Camera(1, 0.2)))
    assert one.fingerprint != other.fingerprint != ImageDataset(pictures).fingerprint
    assert "camera with blur 1" in repr(one)
    with pytest.raises(SRKitError, match="0 or more"):
        Camera(-1, 0)


def test_warps_of_each_patchs_own_strength(high):
    pictures = ImageDataset([(high * 255).to(torch.uint8)])
    warped = pictures.batch(0, 2, 48, 4, warps=torch.tensor([0.0, 1.0])).high
    still, strong = (ImageDataset(pictures.pictures, warp=Warp(one)).batch(0, 2, 48, 4).high for one in (0.0, 1.0))
    assert torch.allclose(warped[0], still[0], atol=1.5 / 255) and torch.equal(warped[1], strong[1])
    assert not torch.allclose(still[1], strong[1], atol=0.05)
