"""A small domain to try docs/own_domain.md on: printed pages, a typeface to a scene.

    uv run python -m benchmarks.domain my/pages [--checkpoint runs/pages/best.pt]

Words of the licence in the typefaces that come with Matplotlib, slightly turned, each page on paper of its own
colour. FOLDER/train has eleven typefaces, FOLDER/test four others, which no training has seen. With the checkpoint of
a network that was fine-tuned on them it draws nothing: it measures that network on the test pages, beside those that
come along, and writes figures/reference/domain.jpg.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import figures, models
from srkit.data import load_dataset
from srkit.data.images import crop_to_multiple, degrade
from srkit.inference import upscale
from srkit.settings import choose_device

LICENCE = Path(__file__).parents[1] / "LICENSE"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SCENES = {
    "train": ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "cmb10",
              "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "cmss10", "DejaVuSansMono-Oblique"],
    "test": ["DejaVuSansMono", "STIXGeneralItalic", "cmr10", "cmtt10"],
}  # fmt: skip
SIDE, SHOWN = 288, "DejaVuSansMono-3"  # side of a page in pixels, and which one is shown


@dataclass(kw_only=True)
class Options(timing.Options):
    """Draw printed pages, sorted by typeface."""

    folder: Positional[Path]  # the folder to make
    pages: int = 8  # of each typeface
    checkpoint: Path | None = None  # of a network x4 that was fine-tuned on FOLDER/train


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


def compare(options: Options, checkpoint: Path) -> tuple[Facts, str]:
    """Measure networks on the test pages, and show one of these."""
    test = load_dataset(str(options.folder / "test"), "all", device=choose_device())
    names = {"srresnet-small-x4": "srresnet-small-x4", "efficient-x4": "efficient-x4", "fine-tuned": checkpoint}
    methods = {"bicubic": models.create("bicubic", 4)} | {name: models.load(one) for name, one in names.items()}
    found = {name: published.on_tests(method, {"test": test})["test"] for name, method in methods.items()}
    high = crop_to_multiple(dict(test)[SHOWN].cpu(), 4)
    outputs = {name: upscale(method.cpu(), degrade(high, 4), 4) for name, method in methods.items()}
    facts = {"command": "python -m benchmarks.domain", "picture": SHOWN, "pictures": str(test), "measured": found}
    page = figures.comparison(outputs, high, (40, 60, 120), "a typeface that no training has seen, x4", border=4)
    published.publish(page, "domain", facts)
    return facts, published.table(found)


def run(options: Options) -> tuple[Facts, str]:
    """Draw them all, or measure on them."""
    if options.checkpoint:
        return compare(options, options.checkpoint)
    words, chance = re.findall(r"[A-Za-z]{2,}", LICENCE.read_text("utf-8")), random.Random(0)
    for split, fonts in SCENES.items():
        (options.folder / split).mkdir(parents=True, exist_ok=True)
        for font in fonts:
            for number in range(options.pages):
                page(font, words, chance).save(options.folder / split / f"{font}-{number}.png")
    facts: Facts = {split: options.pages * len(fonts) for split, fonts in SCENES.items()}
    return facts, f"{options.folder}: {facts['train']} pages to train on, {facts['test']} in typefaces of their own"


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.domain")
