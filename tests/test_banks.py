"""banks: the same batch for the same seed and step, honest pairs, every place, and the textbook ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image
from torch.utils.data import DataLoader

from srkit import banks, images
from srkit.banks import Bank, HighPictures, PairedPictures, SavedPairs, open_bank, save_sizes
from srkit.errors import SRKitError


def flat(value: int, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def test_batch_shapes_ranges_and_that_low_belongs_to_high(bank):
    low, high = bank.batch(0, 7, 24, 3)
    assert low.shape == (7, 3, 8, 8) and high.shape == (7, 3, 24, 24)
    assert torch.equal(low, images.degrade(high, 3))


def test_batch_is_a_function_of_seed_and_step(bank):
    def high(step, seed):
        return bank.batch(step, 4, 24, 2, seed=seed).high

    assert torch.equal(high(5, 1), high(5, 1))
    assert not torch.equal(high(5, 1), high(6, 1)) and not torch.equal(high(5, 1), high(5, 2))


def test_parts_of_a_batch_are_the_batch(bank):
    whole = bank.batch(3, 6, 24, 2, seed=1).high
    parts = [bank.batch(3, 6, 24, 2, seed=1, part=slice(rank, None, 2)).high for rank in (0, 1)]
    assert torch.equal(whole[0::2], parts[0]) and torch.equal(whole[1::2], parts[1])


def test_an_epoch_shows_every_picture_once():
    bank = Bank([flat(value) for value in range(10)])
    for seed in (0, 1):
        shown = [
            value
            for step in range(5)
            for value in bank.batch(step, 4, 12, 2, seed=seed).high[:, 0, 0, 0].mul(255).tolist()
        ]
        shown = [round(value) for value in shown]
        assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10)) and shown[:10] != shown[10:]


def test_crops_come_from_everywhere_and_stay_inside():
    picture = torch.arange(6 * 8, dtype=torch.uint8).view(1, 6, 8).expand(3, -1, -1).contiguous()
    bank = Bank([picture])
    corners = {round(bank.batch(step, 1, 4, 2, augment=False).high[0, 0, 0, 0].item() * 255) for step in range(200)}
    assert corners == {row * 8 + column for row in range(3) for column in range(5)}


def test_centre_crops_take_the_middle():
    picture = torch.zeros(3, 10, 14, dtype=torch.uint8)
    picture[:, 2:8, 4:10] = 9
    high = Bank([picture]).batch(0, 3, 6, 2, augment=False, centre=True).high
    assert high.mul(255).round().unique().tolist() == [9]


def test_augmentation_uses_all_eight_ways_and_only_these():
    picture = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)).mul(255).byte()
    square = images.from_uint8(picture)
    eight = {turned.numpy().tobytes() for k in range(4) for turned in
             (square.rot90(k, (1, 2)).contiguous(), square.rot90(k, (1, 2)).flip(2).contiguous())}  # fmt: skip
    bank = Bank([picture])
    seen = {crop.contiguous().numpy().tobytes() for crop in bank.batch(0, 200, 6, 2).high}
    assert seen == eight and len(eight) == 8
    assert {crop.contiguous().numpy().tobytes() for crop in bank.batch(0, 9, 6, 2, augment=False).high} == {
        square.numpy().tobytes()
    }


def test_every_place_gives_the_same_batches_and_fingerprint():
    pictures = [photograph(20, 24, seed).mul(255).byte() for seed in range(3)]
    on = {place: Bank(pictures, place=place) for place in ("device", "host", "disk")}
    first = on["device"]
    for bank in on.values():
        assert torch.equal(bank.batch(2, 5, 12, 2).high, first.batch(2, 5, 12, 2).high)
        assert bank.fingerprint == first.fingerprint and bank.bytes == 3 * 3 * 20 * 24
    pictures[1][0, 0, 0] ^= 1
    assert Bank(pictures).fingerprint != first.fingerprint


def test_a_bank_larger_than_memory_goes_to_disk(monkeypatch):
    monkeypatch.setattr(banks, "_free_memory", lambda: 1000)
    bank = Bank([flat(3), flat(4)])
    assert bank.place == "disk" and bank.batch(0, 2, 12, 2).high.mul(255).round().unique().tolist() == [3, 4]


def test_pairs_are_whole_pictures_in_order_grouped_by_size(bank):
    shapes = [tuple(high.shape) for _, high in Bank([flat(1), flat(2), flat(3), flat(4, 13, 9)]).pairs(2, size=2)]
    assert shapes == [(2, 3, 12, 12), (1, 3, 12, 12), (1, 3, 12, 8)]
    low, high = next(bank.pairs(3))
    assert torch.equal(low, images.degrade(high, 3))


def test_bad_banks(bank):
    with pytest.raises(SRKitError, match="at least one picture"):
        Bank([])
    with pytest.raises(SRKitError, match=r"holds uint8 \(3, H, W\)"):
        Bank([torch.rand(3, 4, 4)])
    with pytest.raises(SRKitError, match="did you mean 'disk'"):
        Bank([flat(0)], place="disc")
    with pytest.raises(SRKitError, match=r"a crop of 60 does not fit into 0 \(60 x 48\)"):
        bank.batch(0, 1, 60, 2)
    with pytest.raises(SRKitError, match="does not divide by scale 3: try 24"):
        bank.batch(0, 1, 25, 3)


def test_open_bank_square_and_as_they_are(tmp_path):
    for index in range(4):
        images.write(photograph(30, 40 + index, index), tmp_path / f"{index}.png")
    ragged, fixed = open_bank(tmp_path, "all"), open_bank(tmp_path, "all", size=16)
    assert [picture.shape[2] for picture in ragged.pictures] == [40, 41, 42, 43]
    assert {tuple(picture.shape) for picture in fixed.pictures} == {(3, 16, 16)}
    assert fixed.names == ["0", "1", "2", "3"]
    again = open_bank(**fixed.recipe)
    assert again.fingerprint == fixed.fingerprint
    train, val = (set(open_bank(tmp_path, part, train=3, val=1).names) for part in ("train", "val"))
    assert len(train) == 3 and not train & val


def test_open_bank_bad_input(tmp_path):
    images.write(photograph(30, 40), tmp_path / "good.png")
    with pytest.raises(SRKitError, match="has no val pictures"):
        open_bank(tmp_path, "val")
    with pytest.raises(SRKitError, match="did you mean 'train'"):
        open_bank(tmp_path, "trian")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(SRKitError, match=r"text\.png: not a picture"):
        open_bank(tmp_path, "all")


def test_one_picture_is_for_training(tmp_path):
    images.write(photograph(30, 40), tmp_path / "only.png")
    assert len(open_bank(tmp_path)) == 1 and open_bank(tmp_path).batch(0, 3, 24, 2).high.shape == (3, 3, 24, 24)
    for part in ("val", "test"):
        with pytest.raises(SRKitError, match=f"has no {part} pictures .of fewer than 3 pictures all are for training"):
            open_bank(tmp_path, part)


def test_small_pictures_are_named(tmp_path, capsys):
    images.write(photograph(40, 60), tmp_path / "large.png")
    images.write(photograph(20, 60), tmp_path / "small.png")
    with pytest.raises(SRKitError, match=r"a crop of 24 does not fit into small \(60 x 20\)"):
        open_bank(tmp_path, "all").batch(0, 1, 24, 2)
    assert capsys.readouterr().out == ""
    for warp in (None, 0.5):
        assert open_bank(tmp_path, "all", size=32, warp=warp).batch(0, 2, 32, 2).high.shape == (2, 3, 32, 32)
        said = capsys.readouterr().out
        assert said.startswith("1 of 2 pictures") and "small.png (60 x 20)" in said and said.count("\n") == 1
    open_bank(tmp_path, "all", size=20)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("warp", [None, 0.5])
def test_every_kind_of_picture_becomes_rgb(tmp_path, warp):
    grey = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    clear = np.full((50, 40, 4), 7, np.uint8)
    clear[..., 3] = 0  # dark, but wholly transparent
    kinds = {
        "grey16": Image.fromarray(grey),
        "grey": Image.fromarray((grey >> 8).astype(np.uint8)),
        "rgba": Image.fromarray(clear),
        "palette": Image.fromarray((grey >> 8).astype(np.uint8)).convert("P"),
        "cmyk": Image.new("CMYK", (64, 44), (0, 255, 255, 0)),
    }
    for name, picture in kinds.items():
        picture.save(tmp_path / f"{name}.{'tif' if name == 'cmyk' else 'png'}")
    bank = open_bank(tmp_path, "all", size=32, warp=warp)
    assert set(bank.names) == set(kinds)
    shown = dict(zip((bank.names[i] for i in bank.chosen(0, 5, 0)), bank.batch(0, 5, 32, 4).high, strict=True))
    assert shown["rgba"].min() == 1 and shown["cmyk"][0].min() > 0.9 and shown["cmyk"][1:].max() < 0.3
    assert shown["grey16"].std(0).max() == 0


def test_square_takes_the_middle():
    picture = torch.zeros(3, 8, 16)
    picture[:, :, 4:12] = 1
    assert banks.square(picture, 8).min() == 1
    assert banks.square(photograph(31, 77), 24).shape == (3, 24, 24)


def test_the_three_textbook_ways_agree_with_each_other(tmp_path):
    for index in range(3):
        images.write(photograph(40, 30, index), tmp_path / "in" / f"{index}.png")
    paths = sorted((tmp_path / "in").glob("*.png"))
    saved = SavedPairs(save_sizes(paths, tmp_path / "out", size=24, scale=2))
    paired, high_only = PairedPictures(paths, 24, 2), HighPictures(paths, 24)
    assert len(saved) == len(paired) == len(high_only) == 3
    low, high = next(iter(DataLoader(saved, batch_size=3)))
    low2, high2 = next(iter(DataLoader(paired, batch_size=3)))
    high3 = next(iter(DataLoader(high_only, batch_size=3)))
    assert low.shape == (3, 3, 12, 12) and torch.equal(high2, high3)
    assert torch.allclose(high, high2, atol=1 / 255)  # the saved one went through 8 bits
    assert torch.allclose(low, low2, atol=1 / 255) and torch.allclose(low, images.degrade(high3, 2), atol=1 / 255)
