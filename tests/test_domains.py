"""domains: regions of one picture that share no pixel, also of two views of one scene."""

from __future__ import annotations

import pytest
import torch

from srkit import domains, images, sources
from srkit.banks import open_bank
from srkit.errors import SRKitError


@pytest.mark.parametrize("name", list(domains.DOMAINS))
def test_regions_share_no_pixel_and_are_the_pictures(name):
    folder = domains.cut(name)
    banks = {part: open_bank(folder / part, "all") for part in ("train", "val", "test")}
    paths = {path.stem: path for path in sources.pictures("bundled")}
    for stem in domains.DOMAINS[name].pictures:
        picture = images.to_uint8(images.read(paths[stem]))
        train = banks["train"].pictures[banks["train"].names.index(stem)]
        left = train.shape[2]
        assert torch.equal(train, picture[:, :, :left]) and left > 0.35 * picture.shape[2]
        for part in ("val", "test"):  # each square lies to the right of what came before, and as far as the gap says
            squares = [one for own, one in zip(banks[part].names, banks[part].pictures, strict=True) if stem in own]
            places = [_find(picture, one) for one in squares]
            assert len(set(places)) == len(places) >= 5
            assert min(x for _, x in places) == left + domains.DOMAINS[name].gap
            left = max(x for _, x in places) + 96
        assert left == picture.shape[2]


def _find(picture: torch.Tensor, square: torch.Tensor) -> tuple[int, int]:
    """Where a square stands in a picture."""
    height, width = square.shape[1:]
    for x in range(picture.shape[2] - width + 1):
        for y in range(0, picture.shape[1] - height + 1, height):
            if torch.equal(picture[:, y : y + height, x : x + width], square):
                return y, x
    raise AssertionError("this square is not of the picture")


def test_a_folder_of_ones_own_and_again(tmp_path):
    first = domains.cut("histology", tmp_path / "here", side=128)
    names = sorted(path.relative_to(first) for path in first.rglob("*.png"))
    assert first == domains.cut("histology", tmp_path / "here", side=128) == tmp_path / "here"
    assert names == sorted(path.relative_to(first) for path in first.rglob("*.png")) and len(names) == 1 + 4 + 4


def test_bad_domains():
    with pytest.raises(SRKitError, match="did you mean 'histology'"):
        domains.cut("histologie")
    with pytest.raises(SRKitError, match="histology: squares of 200 leave nothing to train on: choose at most 170"):
        domains.cut("histology", side=200)
