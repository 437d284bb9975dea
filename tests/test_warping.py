"""warping: honest truth (sampled once, nothing made up or blurred), one batch per seed and step, exact resuming."""

from __future__ import annotations

import pytest
import torch
from conftest import photograph

from srkit import images, models, warping
from srkit.banks import Bank, open_bank, square
from srkit.errors import SRKitError
from srkit.training import TrainConfig, Trainer
from srkit.warping import WarpingBank


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return images.to_uint8(photograph(height, width, seed))


def squared(pictures: list[torch.Tensor], side: int) -> Bank:
    return Bank([images.to_uint8(square(images.from_uint8(one), side)) for one in pictures])


@pytest.fixture
def pictures() -> list[torch.Tensor]:
    return [picture(200, 200), picture(150, 230, 1), picture(260, 130, 2)]


def draw(count: int, strength: float, size: int | None, crop: int = 48, seed: int = 0):
    dice = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([[200.0, 150.0]], dtype=torch.float64).repeat(count, 1)
    where, luck = (torch.rand(count, n, generator=dice).double() for n in (2, 8))
    return sizes, warping.views(sizes, crop, size, strength, where, luck)


def test_batches_are_pairs_of_files(pictures):
    bank = WarpingBank(pictures, size=96)
    low, high = bank.batch(0, 5, 48, 4)
    assert low.shape == (5, 3, 12, 12) and high.shape == (5, 3, 48, 48)
    assert torch.equal(low, images.degrade(high, 4))
    assert torch.equal(high, images.from_uint8(images.to_uint8(high)))


def test_batch_is_a_function_of_seed_and_step_and_parts_are_the_whole(pictures):
    bank = WarpingBank(pictures, size=96)
    whole = bank.batch(3, 6, 48, 2, seed=1).high
    assert torch.equal(whole, bank.batch(3, 6, 48, 2, seed=1).high)
    assert not torch.equal(whole, bank.batch(4, 6, 48, 2, seed=1).high)
    assert not torch.equal(whole, bank.batch(3, 6, 48, 2, seed=2).high)
    for rank in (0, 1):
        assert torch.equal(whole[rank::2], bank.batch(3, 6, 48, 2, seed=1, part=slice(rank, None, 2)).high)


def test_strength_0_is_the_square_bank(pictures):
    plain, still = squared(pictures[:1], 50), WarpingBank(pictures[:1], size=50, strength=0)
    for crop in (50, 30):  # 200 to 50 pixels, by two ways of sampling
        a, b = (bank.batch(0, 9, crop, 2, seed=4).high for bank in (plain, still))
        assert (a - b).abs().mean() < 0.5 / 255 and (a - b).abs().max() < 5 / 255
    native, cut = (make(pictures[1:2]) for make in (Bank, lambda p: WarpingBank(p, strength=0)))
    high = cut.batch(0, 1, 40, 2, augment=False).high[0]
    windows = native[0][1].unfold(1, 40, 1).unfold(2, 40, 1)
    assert (windows == high[:, None, None]).all(dim=(0, 3, 4)).sum() == 1  # its own pixels, bit for bit


def test_augment_turns_the_eight_ways_and_no_others():
    bank = WarpingBank([picture(24, 24)], size=24, strength=0)
    seen = {crop.contiguous().numpy().tobytes() for crop in bank.batch(0, 100, 24, 2).high}
    assert len(seen) == 8
    assert len({crop.contiguous().numpy().tobytes() for crop in bank.batch(0, 9, 24, 2, augment=False).high}) == 1


@pytest.mark.parametrize("size", [None, 60, 90, 150])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_views_never_leave_the_picture_nor_enlarge_it(size, strength):
    sizes, maps = draw(200, strength, size)
    points, stretch = warping._corners(maps)
    assert (points > -1e-6).all() and (points <= sizes[:, None] + 1e-6).all()
    if size in (None, 60) or (size == 90 and strength <= 0.5):  # where the picture has pixels to spare
        assert stretch.min() / 24 > 0.99


def test_warping_grows_with_strength_and_moves_the_view():
    def bent(strength):  # how far the fourth corner is from where a parallelogram has it
        a, b, c, d = warping._corners(draw(200, strength, 90, crop=90)[1])[0].unbind(1)
        return (a + d - b - c).norm(dim=1).mean()

    assert bent(0) < 1e-9 and 0 < bent(0.3) < bent(1)
    centres = warping._corners(draw(200, 1, 60, crop=60)[1])[0].mean(1)
    assert centres.std(0).min() > 5


def test_a_known_map_finds_what_it_should():
    dot = torch.zeros(3, 100, 120, dtype=torch.uint8)
    dot[:, 60:64, 30:34] = 255  # its middle at x 32, y 62
    view = torch.tensor([[0, -20, 32.0], [20, 0, 62], [0, 0, 1]], dtype=torch.float64)  # a quarter turn about it
    seen = warping.see(dot, view, 40)
    assert seen[0, 18:22, 18:22].min() == 255 and int(seen.sum()) == int(dot.sum())


def test_shrinking_does_not_alias():
    """Stripes finer than the view's pixels come out grey, not as moiré."""
    stripes = (torch.arange(400) % 2 * 255).to(torch.uint8).expand(3, 400, 400).contiguous()
    high = WarpingBank([stripes], size=96, strength=0.5).batch(0, 8, 96, 2).high
    assert high[..., 4:-4, 4:-4].std() < 0.02


def test_bank_and_validation_see_pictures_unwarped(pictures):
    bank, plain = WarpingBank(pictures, size=64), squared(pictures, 64)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(bank, plain, strict=True))
    assert all(torch.equal(a.low, b.low) for a, b in zip(bank.pairs(4), plain.pairs(4), strict=True))


def test_trainings_resume_with_their_warp_and_refuse_another(tmp_path, pictures):
    for index, one in enumerate(pictures):
        images.write(images.from_uint8(one), tmp_path / "in" / f"{index}.png")
    bank = open_bank(tmp_path / "in", "all", size=64, warp=0.5)
    assert isinstance(bank, WarpingBank) and bank.recipe["warp"] == 0.5
    config = TrainConfig(steps=4, batch_size=2, crop=32, device="cpu", save_freq=2, precision="fp32")

    def trainer(bank, out=None, **changes):
        torch.manual_seed(0)
        model = models.create("srcnn", 2, channels=(4, 4))
        return Trainer(model, bank, TrainConfig(**{**vars(config), **changes}), out=out)

    whole = trainer(bank)
    whole.fit(progress=False)
    trainer(bank, tmp_path / "out", steps=2).fit(progress=False)
    resumed = Trainer.resume(tmp_path / "out" / "last.pt", steps=4)
    assert isinstance(resumed.bank, WarpingBank)
    resumed.fit(progress=False)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    other = trainer(open_bank(tmp_path / "in", "all", size=64, warp=0.2), tmp_path / "out")
    assert other.pick_up().step_number == 0


def test_bad_input(pictures):
    for strength in (-0.1, 1.5, float("nan")):
        with pytest.raises(SRKitError, match="strength lies from 0"):
            WarpingBank(pictures, strength=strength)
    with pytest.raises(SRKitError, match="a crop of 80 does not fit into a view of 64"):
        WarpingBank(pictures, size=64).batch(0, 1, 80, 2)
    with pytest.raises(SRKitError, match=r"a crop of 140 does not fit into c \(130 x 260\)"):
        WarpingBank(pictures, ["a", "b", "c"]).batch(0, 1, 140, 2)
    with pytest.raises(SRKitError, match="does not divide by scale 4: try 48"):
        WarpingBank(pictures, size=96).batch(0, 1, 50, 4)
