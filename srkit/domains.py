"""Small domains to fine-tune on, cut from pictures that scikit-image carries: lesson 07 without a set of one's own.

One picture cannot be split by picture. It is cut into three regions that share no pixel: its left to train on, a strip
to choose by, its right to report. THEY STILL SHARE A PICTURE: one microscope, one stain, one light, one camera. What is
measured on the right after training on the left is more than a new picture would give. Of a set of your own, some
hundred pictures, no picture is cut: `open_bank(folder, "train" | "val" | "test", size=256)` splits by picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from srkit import images, sources
from srkit.errors import SRKitError, unknown


class Domain(NamedTuple):
    """Pictures that are cut at the same places, and how many pixels are left out between two regions."""

    title: str
    pictures: tuple[str, ...]
    gap: int = 0


DOMAINS = {
    "histology": Domain("stained tissue under a microscope, 512 x 512", ("ihc",)),
    "astronomy": Domain("the Hubble deep field, 1000 x 872 (a JPEG)", ("hubble_deep_field",)),
    # Two views of ONE scene: what the left one shows lies up to 60 pixels further left in the right one, by the
    # disparities that come with the pictures. A gap of 64 keeps each thing in one region, whoever looks at it.
    "motorcycle": Domain("a motorcycle, 741 x 500, from left and right", ("motorcycle_left", "motorcycle_right"), 64),
}


def cut(name: str, folder: str | Path | None = None, side: int = 96) -> Path:
    """Write a domain's regions as PNG files into folder/train, folder/val and folder/test.

    The test region is about three tenths of the width and the validation region half of that, each cut into squares;
    all to their left is one picture, for training. Open each with `open_bank(folder / "test", "all")`.

    Args:
        name: "histology", "astronomy" or "motorcycle".
        folder: where to; data/domains/NAME-SIDE if not given.
        side: of the squares of val and test, in pixels. The parts' figures have a value for each of them.

    Returns:
        The folder.

    Raises:
        SRKitError: no such domain, or squares so large that nothing would be left to train on.
    """
    if name not in DOMAINS:
        raise unknown("domain", name, DOMAINS)
    folder = Path(folder) if folder else sources.data_folder() / "domains" / f"{name}-{side}"
    paths = {path.stem: path for path in sources.pictures("bundled")}
    for stem in DOMAINS[name].pictures:
        picture = images.read(paths[stem])
        height, width = picture.shape[1:]
        test, val, train = _columns(width, DOMAINS[name].gap, side, name)
        images.write(picture[:, :, :train], folder / "train" / f"{stem}.png")
        for part, (left, columns) in {"val": val, "test": test}.items():
            for row in range(height // side):
                for column in range(columns):
                    x, y = left + column * side, row * side
                    tile = picture[:, y : y + side, x : x + side]
                    images.write(tile, folder / part / f"{stem}_{row}_{column}.png")
    return folder


def _columns(width: int, gap: int, side: int, name: str) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Left edge and number of squares of test and of val, and the width that remains to train on."""
    columns = (width - 2 * gap) // side
    test, val = max(1, round(0.3 * columns)), max(1, round(0.15 * columns))
    test_left = width - test * side
    val_left = test_left - gap - val * side
    if columns < 3:
        raise SRKitError(
            f"{name}: squares of {side} leave nothing to train on: choose at most {(width - 2 * gap) // 3}"
        )
    return (test_left, test), (val_left, val), val_left - gap
