"""warping: honest ground truth (sampled once, nothing made up or blurred) and one batch per seed and step."""

from __future__ import annotations

import pytest
import torch
from conftest import photograph

from srkit.data import ImageDataset, images, load_dataset, warping
from srkit.data.warping import Warp
from srkit.settings import SRKitError

PICTURES = [images.to_uint8(photograph(*size)) for size in ((200, 200, 0), (150, 230, 1), (260, 130, 2))]


def squared(pictures: list[torch.Tensor], side: int) -> ImageDataset:
    return ImageDataset([images.to_uint8(images.square(images.from_uint8(one), side)) for one in pictures])


def test_batches_are_functions_of_seed_and_step_and_shards_are_the_whole():
    dataset = ImageDataset(PICTURES, warp=Warp(size=96))
    low, high = dataset.batch(3, 6, 48, 4, seed=1)
    assert low.shape == (6, 3, 12, 12) and torch.equal(low, images.degrade(high, 4))
    assert torch.equal(high, images.from_uint8(images.to_uint8(high)))  # what a file would hold
    assert not torch.equal(high, dataset.batch(4, 6, 48, 4, seed=1).high)
    assert torch.equal(high[1::2], dataset.batch(3, 6, 48, 4, seed=1, shard=slice(1, None, 2)).high)
    assert high.double().sum().item() == pytest.approx(20792.5, rel=1e-5)  # as it always was


def test_strength_0_is_no_warp():
    plain, still = squared(PICTURES[:1], 50), ImageDataset(PICTURES[:1], warp=Warp(0, 50))
    for patch_size in (50, 30):  # 200 to 50 pixels, by two ways of sampling
        a, b = (dataset.batch(0, 9, patch_size, 2, seed=4).high for dataset in (plain, still))
        assert (a - b).abs().mean() < 0.5 / 255 and (a - b).abs().max() < 5 / 255
    native, cut = (ImageDataset([PICTURES[1][:, :60, :70]], warp=warp) for warp in (None, Warp(0)))
    high = cut.batch(0, 1, 40, 2, augment=False).high[0]
    windows = native[0][1].unfold(1, 40, 1).unfold(2, 40, 1)
    assert (windows == high[:, None, None]).all(dim=(0, 3, 4)).sum() == 1  # its own pixels, bit for bit


@pytest.mark.parametrize("size", [None, 60, 90, 150])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_views_never_leave_the_picture_nor_enlarge_it(size, strength):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[200.0, 150.0]], dtype=torch.float64).repeat(200, 1)
    where, noise = (torch.rand(200, n, generator=generator).double() for n in (2, 8))
    points, stretch = warping._corners(warping.views(sizes, 48, size, strength, where, noise))
    assert (points > -1e-6).all() and (points <= sizes[:, None] + 1e-6).all()
    if size in (None, 60) or (size == 90 and strength <= 0.5):  # where the picture has pixels to spare
        assert stretch.min() / 24 > 0.99


def test_a_known_map_finds_what_it_should():
    dot = torch.zeros(3, 100, 120, dtype=torch.uint8)
    dot[:, 60:64, 30:34] = 255  # its middle at x 32, y 62
    view = torch.tensor([[0, -20, 32.0], [20, 0, 62], [0, 0, 1]], dtype=torch.float64)  # a quarter turn about it
    seen = warping.sample(dot, view, 40)
    assert seen[0, 18:22, 18:22].min() == 255 and int(seen.sum()) == int(dot.sum())


def test_shrinking_does_not_alias():
    """Stripes finer than the view's pixels come out grey, not as moiré."""
    stripes = (torch.arange(200) % 2 * 255).to(torch.uint8).expand(3, 200, 200)
    high = ImageDataset([stripes], warp=Warp(0.5, 48)).batch(0, 8, 48, 2).high
    assert high[..., 4:-4, 4:-4].std() < 0.02


def test_measuring_shows_pictures_unwarped_and_another_warp_is_another_training(tmp_path):
    images.write(photograph(80, 90), tmp_path / "a.png")
    half, weak = (load_dataset(tmp_path, "all", size=64, warp=warp) for warp in (0.5, 0.2))
    plain = load_dataset(tmp_path, "all", size=64)
    assert torch.equal(half[0][1], plain[0][1]) and plain.always_whole(64) and not half.always_whole(64)
    assert half.fingerprint == load_dataset(**half.config).fingerprint != weak.fingerprint


def test_bad_input():
    for wrong in (
        lambda: Warp(-0.1),
        lambda: Warp(float("nan")),
        lambda: ImageDataset(PICTURES, warp=Warp(size=64)).batch(0, 1, 80, 2),
        lambda: ImageDataset(PICTURES, warp=Warp()).batch(0, 1, 140, 2),
    ):
        with pytest.raises(SRKitError):
            wrong()
