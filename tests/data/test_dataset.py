"""dataset: the same batch for the same seed and step, honest pairs, every place, and every kind of picture."""

from __future__ import annotations

import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit.data import ImageDataset, images, load_dataset
from srkit.data import dataset as module
from srkit.settings import SRKitError


def flat(value: int, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def values(high: torch.Tensor) -> list[int]:
    return high[:, 0, 0, 0].mul(255).round().int().tolist()


# ---------------------------------------------------------------------------------- batches


def test_batch_is_a_function_of_seed_and_step_and_low_belongs_to_high(dataset):
    low, high = dataset.batch(5, 7, 24, 3, seed=1)
    assert low.shape == (7, 3, 8, 8) and high.shape == (7, 3, 24, 24)
    assert torch.equal(low, images.degrade(high, 3))
    assert torch.equal(high, dataset.batch(5, 7, 24, 3, seed=1).high)
    assert not torch.equal(high, dataset.batch(6, 7, 24, 3, seed=1).high)
    assert not torch.equal(high, dataset.batch(5, 7, 24, 3, seed=2).high)
    for rank in (0, 1):
        assert torch.equal(high[rank::2], dataset.batch(5, 7, 24, 3, seed=1, shard=slice(rank, None, 2)).high)


def test_batches_have_not_changed():
    """A checkpoint's training resumes with the batches that it would have had, also years later."""
    pictures = [(torch.arange(3 * 40 * (50 + k)) * (7 + k) % 251).view(3, 40, -1).byte() for k in range(5)]
    dataset = ImageDataset(pictures)
    highs = [dataset.batch(step, 3, 24, 2, seed=7).high.mul(255).round() for step in (0, 100)]
    assert [int(high[:, 0, :5].sum()) for high in highs] == [44720, 45081]
    assert [dataset.indices(step, 4, seed=7) for step in (0, 1)] == [[3, 0, 1, 4], [2, 4, 2, 1]]
    assert dataset.fingerprint.startswith("f6523b36")


def test_an_epoch_shows_every_picture_once():
    dataset = ImageDataset([flat(value) for value in range(10)])
    for seed in (0, 1):
        shown = [value for step in range(5) for value in values(dataset.batch(step, 4, 12, 2, seed=seed).high)]
        assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10)) and shown[:10] != shown[10:]
        assert shown == [index for step in range(5) for index in dataset.indices(step, 4, seed)]


def test_patches_come_from_everywhere_and_stay_inside():
    picture = torch.arange(6 * 8, dtype=torch.uint8).view(1, 6, 8).expand(3, -1, -1).contiguous()
    dataset = ImageDataset([picture])
    corners = {values(dataset.batch(step, 1, 4, 2, augment=False).high)[0] for step in range(200)}
    assert corners == {row * 8 + column for row in range(3) for column in range(5)}
    assert values(dataset.batch(0, 3, 2, 2, augment=False, centre=True).high) == [2 * 8 + 3] * 3


def test_augmentation_uses_all_eight_ways_and_only_these():
    picture = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0)).mul(255).byte()
    square = images.from_uint8(picture)
    turned = [square.rot90(k, (1, 2)) for k in range(4)]
    eight = {way.contiguous().numpy().tobytes() for one in turned for way in (one, one.flip(2))}
    dataset = ImageDataset([picture])
    assert {patch.contiguous().numpy().tobytes() for patch in dataset.batch(0, 200, 6, 2).high} == eight
    assert all(torch.equal(patch, square) for patch in dataset.batch(0, 9, 6, 2, augment=False).high)
    assert dataset.always_whole(6) and not dataset.always_whole(4)


def test_pairs_are_whole_pictures_in_order_grouped_by_size(dataset):
    four = ImageDataset([flat(1), flat(2), flat(3), flat(4, 13, 9)])
    assert [tuple(high.shape) for _, high in four.pairs(2, 2)] == [(2, 3, 12, 12), (1, 3, 12, 12), (1, 3, 12, 8)]
    low, high = next(dataset.pairs(3))
    assert torch.equal(low, images.degrade(high, 3))


# ---------------------------------------------------------------------------------- places


def test_every_place_gives_the_same_batches_and_fingerprint():
    pictures = [photograph(20, 24, seed).mul(255).byte() for seed in range(3)]
    on = [ImageDataset(pictures, place=place) for place in ("device", "host", "disk")]
    for dataset in on:
        assert torch.equal(dataset.batch(2, 5, 12, 2).high, on[0].batch(2, 5, 12, 2).high)
        assert dataset.fingerprint == on[0].fingerprint and dataset.bytes == 3 * 3 * 20 * 24
    pictures[1][0, 0, 0] ^= 1
    assert ImageDataset(pictures).fingerprint != on[0].fingerprint


@pytest.mark.parametrize(("gpu", "machine", "place"), [(2000, 0, "device"), (1000, 2000, "host"), (0, 1000, "disk")])
def test_bytes_lie_where_there_is_room(gpu, machine, place, monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(module, "free_memory", lambda device=None: gpu if device == cuda else machine)
    assert module.choose_place(900, cuda) == place
    assert module.choose_place(900, torch.device("cpu")) == ("device" if machine == 2000 else "disk")


# ---------------------------------------------------------------------------------- files


def test_load_square_and_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 3)  # fewer than there are
    for index in range(4):
        images.write(photograph(30, 40 + index, index), tmp_path / f"{index}.png")
    ragged, fixed = load_dataset(tmp_path, "all"), load_dataset(tmp_path, "all", size=16, place="disk")
    assert [picture.shape[2] for picture in ragged.pictures] == [40, 41, 42, 43]
    assert {tuple(picture.shape) for picture in fixed.pictures} == {(3, 16, 16)} and fixed.names == list("0123")
    assert load_dataset(**fixed.config).fingerprint == fixed.fingerprint
    train, val = (set(load_dataset(tmp_path, split, train=3, val=1).names) for split in ("train", "val"))
    assert len(train) == 3 and not train & val


def test_every_kind_of_picture_becomes_rgb(tmp_path):
    kinds = {"I;16": 13107, "L": 51, "P": 2, "CMYK": (0, 255, 255, 0), "RGBA": (7, 7, 7, 0)}
    for mode, value in kinds.items():
        suffix = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (50, 40), value).save(tmp_path / f"{mode.replace(';', '')}.{suffix}")
    for warp in (None, 0.5):
        high = load_dataset(tmp_path, "all", size=32, warp=warp).batch(0, 5, 32, 4).high
        assert high.shape == (5, 3, 32, 32) and high.std((2, 3)).max() < 1e-3


def test_enlarged_pictures_are_named(tmp_path, capsys):
    images.write(photograph(40, 60), tmp_path / "large.png")
    images.write(photograph(20, 60), tmp_path / "small.png")
    assert load_dataset(tmp_path, "all", size=32).batch(0, 2, 32, 2).high.shape == (2, 3, 32, 32)
    said = capsys.readouterr().out
    assert said.startswith("1 of 2 pictures") and "small.png" in said and said.count("\n") == 1
    load_dataset(tmp_path, "all", size=20)
    assert capsys.readouterr().out == ""


def test_bad_input(tmp_path, dataset):
    images.write(photograph(30, 40), tmp_path / "good.png")
    assert len(load_dataset(tmp_path)) == 1  # one picture is for training
    for wrong in (
        lambda: ImageDataset([flat(0)], place="disc"),
        lambda: ImageDataset([]),
        lambda: ImageDataset([], place="disk"),
        lambda: ImageDataset([torch.rand(3, 4, 4)]),
        lambda: dataset.batch(0, 1, 25, 3),
        lambda: dataset.batch(0, 1, 60, 2),
        lambda: load_dataset(tmp_path, "trian"),
        lambda: load_dataset(tmp_path, "val"),
    ):
        with pytest.raises(SRKitError):
            wrong()
    with pytest.raises(SRKitError, match=r"small \(60 x 20\)"):
        ImageDataset([flat(0, 20, 60)], ["small"]).batch(0, 1, 24, 2)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(SRKitError, match=r"text\.png"):
        load_dataset(tmp_path, "all")
