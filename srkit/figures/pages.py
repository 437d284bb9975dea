"""Pages of images, pixel by pixel: grids, and comparisons of methods with a part magnified."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from srkit import metrics
from srkit.data.images import luma, to_uint8
from srkit.losses import WeightedLoss
from srkit.settings import SRKitError

DPI, INCHES = 300, 12
PAGE = DPI * INCHES
MARGIN, GAP, HEAD, FOOT, CAPTION = 48, 24, 130, 90, 74  # in pixels of the page
ACCENT = "#d1495b"

Box = tuple[int, int, int]  # left, top and side of a square, in pixels of high


class Page(Figure):
    """A white page of 12 x 12 inches, divided into cells for an image and its caption each.

    `scores` holds what its captions say of each image, for the provenance.
    """

    def __init__(self, rows: int = 1, columns: int = 1, head: int = MARGIN) -> None:
        super().__init__(figsize=(INCHES, INCHES), dpi=DPI, facecolor="white")
        self.columns, self.head = columns, head
        self.cell_width = (PAGE - 2 * MARGIN - (columns - 1) * GAP) // columns
        self.cell_height = (PAGE - head - FOOT) // rows - CAPTION
        self.scores: list[dict[str, Any]] = []

    def corner(self, cell: int) -> tuple[int, int]:
        """Left and top of a cell in pixels; cells are counted row by row."""
        row, column = divmod(cell, self.columns)
        return MARGIN + column * (self.cell_width + GAP), self.head + row * (self.cell_height + CAPTION)

    def image(
        self, cell: int, image: Tensor, caption: str = "", inset: Box | None = None, mark: tuple[int, ...] = ()
    ) -> None:
        """Show an image, every pixel a square of whole pixels; what does not fit is cut off around the middle.

        Args:
            cell: which place.
            image: (3, H, W) in [0, 1].
            caption: below it, in letters small enough for the cell.
            inset: a square that is also shown magnified, in the lower right corner.
            mark: left, top, width and height of a frame; then the whole image is shown, in whatever size it takes.
        """
        height, width = image.shape[-2:]
        times = min(self.cell_width / width, self.cell_height / height)
        times = times if mark else max(1, int(times + 0.75))  # rather cut a rim off than leave a white one
        cut_h, cut_w = min(height, int(self.cell_height / times)), min(width, int(self.cell_width / times))
        top, left = (height - cut_h) // 2, (width - cut_w) // 2
        wide, tall = round(cut_w * times), round(cut_h * times)
        x, y = self.corner(cell)
        x, y = x + (self.cell_width - wide) // 2, y + (self.cell_height - tall) // 2
        ax = self.add_axes((x / PAGE, 1 - (y + tall) / PAGE, wide / PAGE, tall / PAGE))
        show(ax, image[:, top : top + cut_h, left : left + cut_w], aspect="auto")
        ax.set_axis_off()
        if inset:
            _magnify(ax, image, inset)
            mark = (*inset, inset[2])
        for color, line in (("white", 5), (ACCENT, 2.5)) if mark else ():  # seen on a red dress as on a white wall
            corner = mark[0] - left - 0.5, mark[1] - top - 0.5
            ax.add_patch(Rectangle(corner, *mark[2:], fill=False, color=color, linewidth=line))
        if caption:
            x, y = self.corner(cell)
            size = 1.75 * (self.cell_width + GAP) * 72 / DPI / len(caption)  # a letter is some 0.55 of its size wide
            self.words(x + self.cell_width / 2, y + self.cell_height + CAPTION / 2 - 5, caption, min(14, size))

    def footer(self, text: str) -> None:
        """A line at the foot of the page, or two."""
        self.words(PAGE / 2, PAGE - FOOT / 2, textwrap.fill(text, 165, max_lines=2), 9, color="#555555")

    def words(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """Centred text; a dollar sign in it is a dollar sign, no formula."""
        self.text(x / PAGE, 1 - y / PAGE, text, ha="center", va="center", fontsize=size, parse_math=False, **style)

    def scored(self, name: str, image: Tensor, high: Tensor, border: int, loss: WeightedLoss | None) -> str:
        """`score` and a loss's terms, also noted: the provenance holds the very numbers that the page shows."""
        text, terms = score(image, high, border), dict[str, float]()
        if loss:
            pair = [picture[None].to(loss.device or high.device) for picture in (image.clamp(0, 1), high)]
            terms = {term: value.item() for term, value in loss.measure(*pair).items()}
        self.scores.append({"picture": name, "border": border, "psnr / ssim": text, **terms})
        return " / ".join([text, *(f"{term} {value:.4g}" for term, value in terms.items())])


def grid(
    rows: Sequence[Sequence[Tensor]],
    titles: Sequence[str] = ("input", "output", "ground truth"),
    zoom: Sequence[Box] | None = None,
    footer: str = "",
    border: int = 0,
    loss: WeightedLoss | None = None,
) -> Page:
    """A page of images: one row each, input | output | ground truth.

    Under each image but the last of its row stand PSNR and SSIM against that last one, and the terms of a loss.
    Images larger than their place show their middle.

    Args:
        rows: for each row the images, (3, H, W) in [0, 1], all of one size; the last is the ground truth.
        titles: one per column.
        zoom: for each row a square (left, top, side) that a corner inset shows magnified.
        footer: a line at the foot of the page.
        border: pixels cut on each side before PSNR and SSIM.
        loss: whose terms stand under the images too, raw: one or two, e.g. of {"relu2_2": 1}.

    Raises:
        SRKitError: no rows, or a row whose images differ in number or size.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise SRKitError(f"a grid needs at least one row, and in each row {len(titles)} pictures: {', '.join(titles)}")
    fig = Page(len(rows), len(titles), HEAD)
    for column, title in enumerate(titles):
        fig.words(fig.corner(column)[0] + fig.cell_width / 2, HEAD / 2 + 8, title, 20, weight="bold")
    for i, row in enumerate(rows):
        for column, (title, image) in enumerate(zip(titles, row, strict=True)):
            is_last = column == len(row) - 1
            caption = "" if is_last else fig.scored(title, image, row[-1], border, loss)
            fig.image(i * len(row) + column, image, caption, zoom[i] if zoom else None)
    fig.footer(footer)
    return fig


def comparison(
    pictures: dict[str, Tensor],
    high: Tensor,
    box: Box,
    footer: str = "",
    border: int = 0,
    insets: bool = False,
    loss: WeightedLoss | None = None,
) -> Page:
    """A page that compares methods: the whole ground truth with a part marked, then that part by each method.

    Args:
        pictures: name to image, (3, H, W) in [0, 1], e.g. nearest, bilinear, bicubic, the model.
        high: the ground truth, shown first as a whole and last as a zoom.
        box: left, top and width of the part to magnify; its height follows from the page.
        footer: a line at the foot of the page.
        border: pixels cut on each side before PSNR and SSIM, which are of the whole image.
        insets: show of every method the whole image, with the part (then a square) magnified in its corner.
        loss: whose terms, of the whole image, stand under each too; see `grid`.

    Raises:
        SRKitError: the part does not lie inside the image, or the sizes differ.
    """
    shown = {**pictures, "ground truth": high}
    first = 0 if insets else 1  # before it the whole picture
    cells = first + len(shown)
    columns = 2 if cells <= (4 if insets else 6) else 3 if cells <= 9 or not insets else 4
    fig = Page(-(-cells // columns), columns)
    left, top, width = box
    height = width
    if not insets:
        times = max(1, round(fig.cell_width / width))
        width, height = fig.cell_width // times, fig.cell_height // times
    if left < 0 or top < 0 or left + width > high.shape[-1] or top + height > high.shape[-2]:
        size = f"{high.shape[-1]} x {high.shape[-2]}"
        raise SRKitError(f"the part {width} x {height} at {left}, {top} does not lie inside {size} pixels")
    if not insets:
        fig.image(0, high, "the whole picture", mark=(left, top, width, height))
    for cell, (name, image) in enumerate(shown.items(), start=first):
        is_last = cell == cells - 1
        caption = name if is_last else f"{name}   {fig.scored(name, image, high, border, loss)}"
        if insets:
            fig.image(cell, image, caption, box)
        else:
            fig.image(cell, image[:, top : top + height, left : left + width], caption)
    fig.footer(footer)
    return fig


def scored(
    pictures: Mapping[str, Tensor], rows: Mapping[str, metrics.Row], footer: str = "", side: int = 160
) -> Figure:
    """Pictures in two rows, 12 inches wide, the middle of each, and below it what was measured of the whole.

    Args:
        pictures: name to image, (3, H, W) in [0, 1], of one size.
        rows: by the same names, from `metrics.measure`; of the ground truth itself, whose PSNR is infinite, the further
            measures alone are told.
        footer: a line below.
        side: of the middle, in pixels.
    """
    columns = (len(pictures) + 1) // 2
    fig = Figure(figsize=(INCHES, 2 * INCHES / columns + 2), dpi=100, layout="constrained")
    for ax, (name, image) in zip(fig.subplots(2, columns, squeeze=False).flat, pictures.items(), strict=False):
        height, width = image.shape[-2:]
        part = min(height, width, side)
        top, left = (height - part) // 2, (width - part) // 2
        show(ax, image[:, top : top + part, left : left + part])
        ax.set_title(name, fontsize=14, parse_math=False)
        ax.set_xlabel("\n".join(_told(rows[name])), fontsize=13)
    for ax in fig.axes[len(pictures) :]:
        ax.set_axis_off()
    fig.supxlabel(textwrap.fill(footer, 140), fontsize=10, parse_math=False)
    return fig


def _told(row: metrics.Row) -> list[str]:
    """A row's figures in a line each; BRISQUE's decimals mean nothing."""
    terms = {name.split(" (")[0]: value for name, value in row.terms.items()}
    lines = [f"{name} {value:.0f}" if name == "BRISQUE" else f"{name} {value:.3g}" for name, value in terms.items()]
    return lines if math.isinf(row.psnr) else [*lines, f"SSIM {row.ssim:.3f}", f"PSNR {row.psnr:.1f} dB"]


def busiest(high: Tensor, side: int) -> Box:
    """The square with the most detail, where methods differ most: left, top, side.

    Args:
        high: (3, H, W).
        side: in pixels; no larger than the image.
    """
    edges = (luma(high)[..., 1:, 1:] - luma(high)[..., :-1, :-1]).abs()
    columns = F.avg_pool2d(edges, (side - 1, 1), stride=1)  # first down, then across: side² would take seconds
    sums = F.avg_pool2d(columns, (1, side - 1), stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return left, top, side


def score(picture: Tensor, high: Tensor, border: int = 0) -> str:
    """PSNR and SSIM on luma as a caption says them: "27.31 dB / 0.8712"."""
    return f"{metrics.psnr(picture, high, border):.2f} dB / {metrics.ssim(picture, high, border):.4f}"


def show(ax: Axes, picture: Tensor, title: str = "", aspect: Literal["equal", "auto"] = "equal") -> None:
    """Put an image, (3 or 4, H, W) in [0, 1], into a plot: its pixels as squares, a title, no ticks."""
    ax.imshow(to_uint8(picture[:3]).permute(1, 2, 0).cpu().numpy(), interpolation="nearest", aspect=aspect)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, parse_math=False)


def _magnify(ax: Axes, image: Tensor, box: Box) -> None:
    """A square of the image, larger, in the lower right corner."""
    left, top, side = box
    wide, tall = ax.bbox.width, ax.bbox.height
    pixels = side * max(1, int(0.4 * wide / side))  # about two fifths of the image, in whole squares
    inset = ax.inset_axes((1 - (pixels + 24) / wide, 24 / tall, pixels / wide, pixels / tall))
    show(inset, image[:, top : top + side, left : left + side], aspect="auto")
    inset.spines[:].set(color=ACCENT, linewidth=2)
