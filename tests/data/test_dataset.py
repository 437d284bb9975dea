"""dataset: the same batch for the same seed and step, honest pairs, every place, and every kind of picture."""

from __future__ import annotations

import pytest
import torch
from conftest import photograph

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
    assert low.shape == (7, 3, 8, 8) and torch.equal(low, images.degrade(high, 3))
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
    pictures[1][0, 0, 0] ^= 1
    assert ImageDataset(pictures).fingerprint != dataset.fingerprint


def test_an_epoch_shows_every_picture_once():
    dataset = ImageDataset([flat(value) for value in range(10)])
    shown = [value for step in range(5) for value in values(dataset.batch(step, 4, 12, 2, seed=1).high)]
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10)) and shown[:10] != shown[10:]
    assert shown == [index for step in range(5) for index in dataset.indices(step, 4, seed=1)]


def test_patches_come_from_everywhere_and_stay_inside():
    dataset = ImageDataset([torch.arange(6 * 8, dtype=torch.uint8).view(1, 6, 8).expand(3, -1, -1)])
    corners = set(values(dataset.batch(0, 200, 4, 2, augment=False).high))
    assert corners == {row * 8 + column for row in range(3) for column in range(5)}


def test_augmentation_uses_all_eight_ways_and_only_these():
    picture = photograph(6, 6).mul(255).byte()
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


# ---------------------------------------------------------------------------------- files


def test_load_square_and_as_they_are(tmp_path, capsys):
    for index in range(4):
        images.write(photograph(30, 40 + index, index), tmp_path / f"{index}.png")
    ragged, fixed = load_dataset(tmp_path, "all"), load_dataset(tmp_path, "all", size=16)
    assert [picture.shape[2] for picture in ragged.pictures] == [40, 41, 42, 43] and capsys.readouterr().out == ""
    assert {tuple(picture.shape) for picture in fixed.pictures} == {(3, 16, 16)} and fixed.names == list("0123")
    assert load_dataset(**fixed.config).fingerprint == fixed.fingerprint
    train, val = (set(load_dataset(tmp_path, split, train=3, val=1).names) for split in ("train", "val"))
    assert len(train) == 3 and not train & val
    images.write(photograph(20, 60), tmp_path / "small.png")
    load_dataset(tmp_path, "all", size=24)
    said = capsys.readouterr().out
    assert said.startswith("1 of 5 pictures") and "small.png" in said and said.count("\n") == 1


def test_bad_input(tmp_path, dataset, monkeypatch):
    images.write(photograph(30, 40), tmp_path / "good.png")
    assert len(load_dataset(tmp_path)) == 1  # one picture is for training
    for wrong, message in {
        lambda: ImageDataset([]): "at least one",
        lambda: ImageDataset([torch.rand(3, 4, 4)]): "uint8",
        lambda: dataset.batch(0, 1, 25, 3): "try 24",
        lambda: ImageDataset([flat(0, 20, 60)], ["small"]).batch(0, 1, 24, 2): r"small \(60 x 20\)",
        lambda: load_dataset(tmp_path, "trian"): "'train'",
        lambda: load_dataset(tmp_path, "val"): "no val pictures",
    }.items():
        with pytest.raises(SRKitError, match=message):
            wrong()
    with monkeypatch.context() as patched, pytest.raises(SRKitError, match="memory"):
        patched.setattr(module, "free_memory", lambda *_: 3 * 30 * 40 - 1)
        load_dataset(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-900])  # its header is whole
    with pytest.raises(SRKitError, match=r"text\.png|cut\.png"):
        load_dataset(tmp_path, "all")


def test_a_folder_s_damaged_pictures_are_left_out_of_a_training_and_listed(tmp_path, capsys):
    for index in range(6):
        images.write(photograph(30, 40, index), tmp_path / f"{index}.png")
    whole = load_dataset(tmp_path, train=6)
    (tmp_path / "1.png").write_text("not a picture")
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:-900])  # its header is whole
    rest = load_dataset(tmp_path, train=6)
    assert rest.names == list("0235") and len(whole) == 6
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("2 of 6 train pictures") and "1.png: empty" in told[1] and "4.png: damaged" in told[2]
    for path in tmp_path.glob("*.png"):
        path.write_text(f"no picture {path}")
    with pytest.raises(SRKitError, match="none of its train pictures"):
        load_dataset(tmp_path, train=6)
