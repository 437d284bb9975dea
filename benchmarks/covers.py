"""Each lesson's first picture: one of its figures, made small, in figures/reference and in the first cell.

uv run srkit run && uv run python -m benchmarks.covers
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import tyro
from PIL import Image

from benchmarks import published
from srkit.course import lessons
from srkit.figures.saving import STRIP
from srkit.settings import SRKitError, atomic_write, root

SIDE, QUALITY = 760, 82  # of a cover: its width in pixels, and JPEG's quality
COVERS = {  # lesson: the figure's name, and what it shows. 01 and 02 have figures of benchmarks/
    "03": ("grid", "Three photographs: the input, the output of SRCNN, and the ground truth"),
    "04": ("comparison", "A detail by each loss of this lesson, and the ground truth"),
    "05": ("comparison_288", "A face by bicubic, by this lesson's networks, and the ground truth"),
    "06": ("comparison", "A face by bicubic, this lesson's networks, a long GAN, and the ground truth"),
    "07": ("before_after", "Pictures of three domains before and after fine-tuning, and the ground truth"),
    "08": ("tuning", "Hyper-parameters that move while the network trains, and self-tuning beside searches"),
    "09": ("style", "A photograph, a painting, and the photograph in its style"),
    "10": ("front", "PSNR against seconds per megapixel: the networks of the course and of the field"),
}


@dataclass(kw_only=True)
class Options:
    """Attach each lesson's exported figure to its first cell."""

    figures: Path = Path("figures")  # where `srkit run` wrote them, below SRKIT_ROOT


def cover(page: Path) -> Image.Image:
    """A figure as wide as a cover, without the foot that says that nobody has signed it."""
    facts, picture = json.loads(page.with_suffix(".json").read_text("utf-8")), Image.open(page, formats=["PNG"])
    width, height = picture.size
    if not facts["student"]["name"]:
        inches = picture.info["dpi"][0]
        picture = picture.crop((0, 0, width, height - round(STRIP * inches)))
    picture.thumbnail((SIDE, SIDE))
    return picture.convert("RGB")


def attach(notebook: Path, picture: Path, words: str) -> None:
    """Put a picture below the first cell's text, in place of one that stands there."""
    lesson = nbformat.read(notebook, as_version=4)
    first = lesson.cells[0]
    text = re.sub(r"\n+!\[[^\]]*\]\(attachment:[^)]*\)", "", first.source)
    badge, rest = re.split(r"(?<=\))\n\n", text, maxsplit=1)
    first.source = f"{badge}\n\n![{words}](attachment:{picture.name})\n\n{rest}"
    first.attachments = {picture.name: {"image/jpeg": base64.b64encode(picture.read_bytes()).decode()}}
    with atomic_write(notebook) as draft:
        nbformat.write(lesson, draft)


def main(options: Options) -> None:
    """All of them, or those whose figures are there."""
    folder = root() / options.figures
    found = {name: folder / f"{name}_{figure}.png" for name, (figure, _) in COVERS.items()}
    if missing := [path.name for path in found.values() if not path.exists()]:
        raise SRKitError(f"{folder} lacks {', '.join(missing)}: srkit run makes them")
    for name, page in found.items():
        path = published.REFERENCE / f"lesson_{name}.jpg"
        cover(page).save(path, quality=QUALITY)
        facts = page.with_suffix(".json").read_text("utf-8").replace(f"{root()}/", "")  # no path of one machine
        path.with_suffix(".json").write_text(facts, "utf-8")
        attach(lessons.find([name])[0], path, COVERS[name][1])
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.covers"))
