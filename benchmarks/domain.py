"""A small domain to try docs/own_domain.md on: printed pages, a typeface to a scene.

    uv run python -m benchmarks.domain my/pages

Words of the README in the typefaces that come with Matplotlib, slightly turned, each page on paper of its own colour.
FOLDER/train has eleven typefaces, FOLDER/test four others, which no training has seen.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from tyro.conf import Positional

from benchmarks import timing
from benchmarks.timing import Facts

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SCENES = {
    "train": ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "cmb10",
              "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "cmss10", "DejaVuSansMono-Oblique"],
    "test": ["DejaVuSansMono", "STIXGeneralItalic", "cmr10", "cmtt10"],
}  # fmt: skip
SIDE = 288  # of a page, in pixels


@dataclass(kw_only=True)
class Options(timing.Options):
    """Draw printed pages, sorted by typeface."""

    folder: Positional[Path]  # the folder to make
    pages: int = 8  # of each typeface


def page(font: str, words: list[str], chance: random.Random) -> Image.Image:
    """Lines of words by chance, dark on light, turned by up to two degrees."""
    paper = tuple(chance.randint(215, 255) for _ in range(3))
    ink = tuple(chance.randint(0, 70) for _ in range(3))
    wide = 2 * SIDE  # drawn larger and cut, so that no corner is empty after turning
    picture, size = Image.new("RGB", (wide, wide), paper), chance.randint(20, 44)
    draw, letters = ImageDraw.Draw(picture), ImageFont.truetype(str(FONTS / f"{font}.ttf"), size)
    for y in range(0, wide, round(1.4 * size)):
        draw.text((chance.randint(-40, 0), y), " ".join(chance.choices(words, k=30)), ink, letters)
    picture = picture.rotate(chance.uniform(-2, 2), Image.Resampling.BICUBIC)
    edge = SIDE // 2
    return picture.crop((edge, edge, edge + SIDE, edge + SIDE))


def run(options: Options) -> tuple[Facts, str]:
    """Draw them all."""
    words, chance = re.findall(r"[A-Za-z]{2,}", Path("README.md").read_text("utf-8")), random.Random(0)
    for split, fonts in SCENES.items():
        (options.folder / split).mkdir(parents=True, exist_ok=True)
        for font in fonts:
            for number in range(options.pages):
                page(font, words, chance).save(options.folder / split / f"{font}-{number}.png")
    facts: Facts = {split: options.pages * len(fonts) for split, fonts in SCENES.items()}
    return facts, f"{options.folder}: {facts['train']} pages to train on, {facts['test']} in typefaces of their own"


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.domain")
