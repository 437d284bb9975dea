"""The pictures that students export: grids, comparisons with zooms, and loss curves.

A page is 12 x 12 inches at 300 dots an inch: 3600 x 3600 pixels. Pictures are placed to the pixel and
magnified by whole numbers, so that each pixel of a picture is a clean square.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit import metrics
from srkit.errors import SRKitError, unknown
from srkit.images import luma, to_uint8
from srkit.losses import WeightedLoss, term_of
from srkit.profiles import Setup
from srkit.sketch import CHANCES
from srkit.training.checkpoint import weights_sha256
from srkit.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from srkit.training import Trainer

DPI, INCHES = 300, 12
PAGE = DPI * INCHES
MARGIN, GAP, HEAD, FOOT, CAPTION = 48, 24, 130, 90, 74  # in pixels of the page
ACCENT = "#d1495b"
QUANTITIES = {  # title and unit
    "loss": ("Loss", "weighted sum of the terms"),
    "mse": ("MSE", "mean squared error of values in [0, 1]"),
    "l1": ("L1", "mean absolute error of values in [0, 1]"),
    "charbonnier": ("Charbonnier", "Charbonnier error of values in [0, 1]"),
    "psnr": ("1 / PSNR", "1 / PSNR over RGB, in 1 / dB"),
    "tv": ("Total variation", "mean step between neighbours"),
    "texture": ("Texture", "squared difference of Gram matrices"),
    "content": ("Content", "squared difference of activations / 12.75"),
    "adversarial": ("Adversarial", "cross-entropy -log D(output)"),
    "D/loss": ("Loss of the discriminator D", "cross-entropy; a coin's is 0.69"),
    "D/real": ("How real D finds real pictures", "mean probability"),
    "D/fake": ("How real D finds outputs", "mean probability"),
    "D/gradient": ("Gradient of D", "norm over all weights"),
    "G/gradient": ("Gradient of G", "norm over all weights"),
    "dB": ("PSNR", "PSNR on luma / dB"),
    "learning_rate": ("Learning rate", "learning rate per step"),
}
PAIRS = {  # two quantities of a GAN that share a graph: title, unit, and what the two lines are
    CHANCES: ("How real D finds them", "mean probability", ("real pictures", "outputs")),
    ("D/gradient", "G/gradient"): ("Gradients", "norm over all weights", ("discriminator D", "generator G")),
}
Box = tuple[int, int, int]  # left, top and side of a square, in pixels of high


def page() -> Figure:
    """An empty white page of 12 x 12 inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(INCHES, INCHES), dpi=DPI, facecolor="white")


def grid(
    rows: Sequence[Sequence[Tensor]],
    titles: Sequence[str] = ("input", "output", "ground truth"),
    zoom: Sequence[Box] | None = None,
    footer: str = "",
    border: int = 0,
    loss: WeightedLoss | None = None,
) -> Figure:
    """A page of pictures: one row each, input | output | ground truth.

    Under each picture but the last of its row stand PSNR and SSIM against that last one, and the terms of a loss.
    Pictures larger than their place show their middle.

    Args:
        rows: for each row the pictures, (3, H, W) in [0, 1], all of one size; the last is the truth.
        titles: one per column.
        zoom: for each row a square (left, top, side) that a corner inset shows magnified.
        footer: a line at the foot of the page.
        border: pixels cut on each side before PSNR and SSIM.
        loss: whose terms stand under the pictures too, raw: one or two, e.g. of {"relu2_2": 1}.

    Raises:
        SRKitError: no rows, or a row whose pictures differ in number or size.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise SRKitError(f"a grid needs at least one row, and in each row {len(titles)} pictures: {', '.join(titles)}")
    fig = page()
    place = _Places(len(rows), len(titles))
    for column, title in enumerate(titles):
        x, _ = place.corner(0, column)
        _text(fig, x + place.width / 2, HEAD / 2 + 8, title, size=20, weight="bold")
    for i, row in enumerate(rows):
        for column, picture in enumerate(row):
            ax, shown = _picture(fig, place, i, column, picture)
            if zoom is not None:
                _inset(ax, picture, zoom[i], shown)
            if column < len(row) - 1:
                text = _scored(fig, titles[column], picture, row[-1], border, loss)
                _caption(fig, place, i, column, text, size=14 if loss is None or len(titles) < 4 else 11)
    _text(fig, PAGE / 2, PAGE - FOOT / 2, footer, size=11, color="#555555")
    return fig


def comparison(
    pictures: dict[str, Tensor],
    high: Tensor,
    box: Box,
    footer: str = "",
    border: int = 0,
    insets: bool = False,
    loss: WeightedLoss | None = None,
) -> Figure:
    """A page that compares methods: the whole truth with a part marked, then that part by each method.

    Args:
        pictures: name to picture, (3, H, W) in [0, 1], e.g. nearest, bilinear, bicubic, the model.
        high: the truth, shown first as a whole and last as a zoom.
        box: left, top and width of the part to magnify; its height follows from the page.
        footer: a line at the foot of the page.
        border: pixels cut on each side before PSNR and SSIM, which are of the whole picture.
        insets: show of every method the whole picture, with the part (then a square) magnified in its corner.
        loss: whose terms, of the whole picture, stand under each too; see `grid`.

    Raises:
        SRKitError: the part does not lie inside the picture, or the sizes differ.
    """
    if insets:
        return _with_insets(pictures, high, box, footer, border, loss)
    cells = len(pictures) + 2
    columns = 2 if cells <= 6 else 3
    fig, place = page(), _Places(-(-cells // columns), columns, head=MARGIN)
    left, top, width = box
    times = max(1, round(place.width / width))
    width, height = place.width // times, place.height // times
    _check_inside(left, top, width, height, high)
    whole, shown = _picture(fig, place, 0, 0, high, fit=True)
    _frame(whole, left - shown[0], top - shown[1], width, height)
    _caption(fig, place, 0, 0, "the whole picture")
    for number, (name, picture) in enumerate({**pictures, "ground truth": high}.items(), start=1):
        row, column = divmod(number, columns)
        _picture(fig, place, row, column, picture[:, top : top + height, left : left + width])
        text = name if picture is high else f"{name}   {_scored(fig, name, picture, high, border, loss)}"
        _caption(fig, place, row, column, text)
    _text(fig, PAGE / 2, PAGE - FOOT / 2, footer, size=11, color="#555555")
    return fig


def _check_inside(left: int, top: int, width: int, height: int, high: Tensor) -> None:
    if left < 0 or top < 0 or left + width > high.shape[-1] or top + height > high.shape[-2]:
        size = f"{high.shape[-1]} x {high.shape[-2]}"
        raise SRKitError(f"the part {width} x {height} at {left}, {top} does not lie inside {size} pixels")


def _with_insets(
    pictures: dict[str, Tensor], high: Tensor, box: Box, footer: str, border: int, loss: WeightedLoss | None
) -> Figure:
    _check_inside(*box, box[2], high)
    columns = 2 if len(pictures) < 4 else 3 if len(pictures) < 9 else 4
    fig, place = page(), _Places(-(-(len(pictures) + 1) // columns), columns, head=MARGIN)
    for number, (name, picture) in enumerate({**pictures, "ground truth": high}.items()):
        row, column = divmod(number, columns)
        ax, shown = _picture(fig, place, row, column, picture)
        _inset(ax, picture, box, shown)
        text = name if picture is high else f"{name}   {_scored(fig, name, picture, high, border, loss)}"
        _caption(fig, place, row, column, text, size=14 if columns < 4 else 11)
    _text(fig, PAGE / 2, PAGE - FOOT / 2, footer, size=11, color="#555555")
    return fig


def busiest(high: Tensor, side: int) -> Box:
    """The square with the most detail, where methods differ most: left, top, side.

    Args:
        high: (3, H, W).
        side: in pixels; no larger than the picture.
    """
    edges = (luma(high)[..., 1:, 1:] - luma(high)[..., :-1, :-1]).abs()
    columns = F.avg_pool2d(edges, (side - 1, 1), stride=1)  # first down, then across: side² would take seconds
    sums = F.avg_pool2d(columns, (1, side - 1), stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return left, top, side


def curves(histories: History | dict[str, History], names: Sequence[str] | None = None) -> Figure:
    """Each quantity of a history in a graph of its own, training and validation of the same one together.

    What a GAN's discriminator believes of real pictures and of outputs stands in one graph, and so do the two
    networks' gradients. A dotted line marks each step at which a weight was moved by hand.

    Args:
        histories: one, or several by name to compare.
        names: which quantities; by default every term, the PSNR and the learning rate.

    Raises:
        SRKitError: nothing has been recorded yet.
    """
    from matplotlib.figure import Figure

    histories = {"": histories} if isinstance(histories, History) else histories
    found = [name.removeprefix("val/") for history in histories.values() for name in history.names()]
    names = list(names or (name for name in dict.fromkeys(found) if _tells(name, found, histories)))
    if not names or not found:
        raise SRKitError("the history is empty: train some steps first")
    pair_of = {name: pair for pair in PAIRS for name in pair if {*pair} <= {*names}}
    graphs = list(dict.fromkeys(pair_of.get(name, (name,)) for name in names))
    columns = len(graphs) if len(graphs) <= 3 else 2
    rows = -(-len(graphs) // columns)
    fig = Figure(figsize=(INCHES, 4.2 * rows), dpi=DPI, facecolor="white", layout="constrained")
    for number, graph in enumerate(graphs):
        ax = fig.add_subplot(rows, columns, number + 1)
        _draw_lines(ax, graph, histories)
        for step in sorted({move.step for history in histories.values() for move in history.moves()}):
            ax.axvline(step, color="grey", linestyle=":", linewidth=1)
        title, unit, words = PAIRS.get(graph) or (*_said(graph[0]), ())
        if words and len(histories) > 1:
            unit = f"{unit} (dashed: {words[1]})"
        ax.set(xlabel="step", ylabel=unit, title=title)
        if {*graph} <= {*CHANCES}:
            ax.set_ylim(0, 1)
        elif term_of(graph[0]) not in ("dB", "learning_rate"):
            ax.set_yscale("log")
        ax.grid(alpha=0.3, which="both")
        ax.spines[["top", "right"]].set_visible(False)
        if len(histories) == 1 and len(ax.lines) > 1:
            ax.legend(frameon=False)
    if len(histories) > 1:  # one legend for all graphs, above them: in them it would lie on the lines
        lines = {line.get_label(): line for ax in fig.axes for line in ax.lines if line.get_label()[0] != "_"}
        fig.legend(lines.values(), lines.keys(), frameon=False, ncols=len(histories), loc="outside upper center")
    return fig


def _draw_lines(ax: Axes, graph: tuple[str, ...], histories: dict[str, History]) -> None:
    """The lines of one graph: of a pair, the second dashed where colours tell histories apart."""
    for i, (label, history) in enumerate(histories.items()):
        for j, name in enumerate(graph):
            for prefix, kind, style in (("", "training", "-"), ("val/", "validation", "o--")):
                steps, values = history.series(prefix + name)
                color, words = f"C{i}", f"{label} {kind}".strip()
                if len(graph) > 1 and len(histories) == 1:
                    color, words = f"C{j}", PAIRS[graph][2][j]
                elif j:
                    style, words = "--", "_"
                if steps:
                    ax.plot(steps, values, style, color=color, label=words, lw=1.6, ms=4,
                            alpha=0.55 if kind == "training" else 1)  # fmt: skip


def differences(pairs: dict[str, metrics.Paired], names: Sequence[str] | None = None, footer: str = "") -> Figure:
    """What changed, picture by picture: a graph for each figure, in it a column for each comparison, a dot a picture.

    The bar is the mean, with its standard error; what lies in the shaded half became worse.

    Args:
        pairs: by name, from `metrics.paired`.
        names: which figures, "psnr", "ssim" or a term; all of them by default.
        footer: a line below.

    Raises:
        SRKitError: nothing to compare, or a figure that was not measured.
    """
    from matplotlib.figure import Figure

    if not pairs:
        raise SRKitError("no comparison to draw: metrics.paired makes one")
    changes = {label: pair.changes for label, pair in pairs.items()}
    known = list(next(iter(changes.values())))
    names = list(names or known)
    for name in names:
        if any(name not in each for each in changes.values()):
            raise unknown("figure", name, known)
    fig = Figure(figsize=(INCHES, 4.6), dpi=DPI, facecolor="white", layout="constrained")
    for number, name in enumerate(names):
        ax = fig.add_subplot(1, len(names), number + 1)
        for place, each in enumerate(changes.values()):
            change, color = each[name], f"C{place}"
            count = len(change.differences)
            spread = [place + 0.5 * ((i + 0.5) / count - 0.5) for i in range(count)]  # in the order of the pictures
            ax.plot(spread, change.differences, "o", color=color, alpha=0.45, ms=5, mew=0)
            ax.errorbar(place, change.difference, change.error, fmt="_", color=color, ms=34, mew=2.5, capsize=5, lw=2)
            ax.annotate(f"{change.improved} of {count}\nbetter", (place, 1.02), xycoords=("data", "axes fraction"),
                        ha="center", fontsize=9, color=color)  # fmt: skip
        low, high = ax.get_ylim()
        reach = 1.1 * max(abs(low), abs(high), 1e-12)
        ax.axhspan(*((-reach, 0) if name in ("psnr", "ssim") else (0, reach)), color="#eeeeee", zorder=0)
        ax.axhline(0, color="grey", lw=1)
        said = {"psnr": "PSNR on luma / dB", "ssim": "SSIM on luma"}.get(name, QUANTITIES.get(name, (name,))[0])
        ax.set(xlim=(-0.6, len(changes) - 0.4), ylim=(-reach, reach), ylabel=f"{said}: after - before")
        ax.set_xticks(range(len(changes)), list(changes))
        ax.spines[["top", "right"]].set_visible(False)
        ax.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    fig.supxlabel(footer, fontsize=9)
    return fig


def _said(name: str) -> tuple[str, str]:
    """Title and unit of a quantity; of one output of several, with its scale; a layer stands for its activations."""
    term = term_of(name)
    title, unit = QUANTITIES.get(term, (term, "mean squared difference of activations"))
    return title if term == name else f"{title}, {name.removesuffix('/' + term)}", unit


def _tells(name: str, found: Sequence[str], histories: dict[str, History]) -> bool:
    """Whether a graph of this quantity would say something that the others don't."""
    if name.startswith("weighted/") or name.endswith("seconds"):
        return False
    if name == "loss":  # the sum of one term is that term
        return len({other for other in found if other.startswith("weighted/")}) > 1
    if name == "learning_rate":
        return any(len(set(history.series(name)[1])) > 1 for history in histories.values())
    return True


def tradeoff(
    points: dict[str, tuple[float, float]], feature: str, sweep: Sequence[str] = (), footer: str = ""
) -> Figure:
    """The perception-distortion plane: PSNR across, a distance of features up, one point a method.

    Right is less error, down looks more like the truth. The corner where both are best stays empty: Blau and
    Michaeli, "The Perception-Distortion Tradeoff", arXiv 1711.06077.

    Args:
        points: name to (PSNR in dB, feature distance), both of the same pictures.
        feature: what is compared, for the axis, e.g. "relu2_2 of VGG-19, random weights".
        sweep: names of points that an arrow joins in this order, e.g. along a growing weight.
        footer: a line below.

    Raises:
        SRKitError: fewer than two points, one without a finite place, or a name in sweep that is no point.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(points) < 2 or not all(map(math.isfinite, sum(points.values(), ()))):
        raise SRKitError("a trade-off needs two points or more, each with a PSNR in dB and a distance, both finite")
    for name in sweep:
        if name not in points:
            raise unknown("point of the trade-off", name, points)
    fig = Figure(figsize=(INCHES, 7), dpi=DPI, facecolor="white", layout="constrained")
    canvas, ax = FigureCanvasAgg(fig), fig.add_subplot()
    path = [points[name] for name in sweep]
    for start, end in itertools.pairwise(path):
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#999999", "lw": 1.5, "shrinkB": 6})
    for i, (name, place) in enumerate(points.items()):
        ax.plot(*place, "o", color=ACCENT if name in sweep else f"C{i % 10}", ms=9)
    ax.margins(0.16)
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.set(xlabel="PSNR on luma / dB   (right: less error)",
           ylabel=f"distance of {feature}\n(down: looks more like the truth)")  # fmt: skip
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    fig.supxlabel(footer, fontsize=9)
    fig.draw_without_rendering()  # from here on every point has its place on the page
    _label(ax, points, path, canvas.get_renderer())
    return fig


def _label(
    ax: Axes, points: dict[str, tuple[float, float]], path: Sequence[tuple[float, float]], renderer: Any
) -> None:
    """Write each point's name beside it, as near as it can stand without covering a point, a name or the path."""
    from matplotlib.transforms import Bbox

    dot = 7 * DPI / 72
    taken = [Bbox([(x - dot, y - dot), (x + dot, y + dot)]) for x, y in map(ax.transData.transform, points.values())]
    for (x, y), (to_x, to_y) in itertools.pairwise(map(ax.transData.transform, path)):
        for part in (i / 100 for i in range(101)):
            at = x + part * (to_x - x), y + part * (to_y - y)
            taken.append(Bbox([(at[0] - 9, at[1] - 9), (at[0] + 9, at[1] + 9)]))
    for name, place in points.items():
        note = ax.annotate(name, place, (0, 0), textcoords="offset points", fontsize=12, ha="center", va="center")
        size = note.get_window_extent(renderer)
        x, y = ax.transData.transform(place)
        for distance, angle in itertools.product((12, 26, 44, 64, 90), range(20, 380, 30)):
            across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            at = x + across * (distance * DPI / 72 + size.width / 2), y + down * (distance * DPI / 72 + size.height / 2)
            box = Bbox.from_bounds(at[0] - size.width / 2, at[1] - size.height / 2, size.width, size.height)
            inside = ax.bbox.contains(box.x0, box.y0) and ax.bbox.contains(box.x1, box.y1)
            if inside and not box.count_overlaps(taken):
                break
        note.set_position(((at[0] - x) * 72 / DPI, (at[1] - y) * 72 / DPI))
        if distance > 12:
            ax.annotate("", place, note.get_position(), textcoords="offset points",
                        arrowprops={"arrowstyle": "-", "color": "#999999", "lw": 0.8, "shrinkA": 8})  # fmt: skip
        taken.append(box)


def score(picture: Tensor, high: Tensor, border: int = 0) -> str:
    """PSNR and SSIM on luma as a caption says them: "27.31 dB / 0.8712"."""
    return f"{metrics.psnr(picture, high, border):.2f} dB / {metrics.ssim(picture, high, border):.4f}"


def _scored(
    fig: Figure, name: str, picture: Tensor, high: Tensor, border: int, loss: WeightedLoss | None = None
) -> str:
    """`score` and a loss's terms, also noted on the figure: its provenance holds the very numbers that it shows."""
    text = score(picture, high, border)
    noted = {"picture": name, "border": border, "psnr / ssim": text}
    if loss:
        frozen = (parameter for part in loss.perceptual for parameter in part.extractor.parameters())
        device = next((parameter.device for parameter in frozen), high.device)
        terms = loss.measure(picture[None].to(device).clamp(0, 1), high[None].to(device))
        text = " / ".join([text, *(f"{name} {value:.4g}" for name, value in terms.items())])
        noted |= terms
    fig.scores = [*getattr(fig, "scores", []), noted]
    return text


# ---------------------------------------------------------------------------------- saving


def save(
    fig: Figure,
    name: str,
    here: Setup,
    trainer: Trainer | dict[str, Trainer | nn.Module] | None = None,
    table: metrics.Table | dict[str, metrics.Table] | None = None,
    show: bool = True,
) -> Path:
    """Write figures/NAME.png at 300 dpi with its provenance, and show it at a readable width.

    The PNG's text chunks and NAME.json beside it say who made it, in which lesson, from which weights,
    pictures and loss, with which figures and versions, so that a grader can compute them again.

    Args:
        fig: from `grid`, `comparison` or `curves`; a page becomes exactly 3600 x 3600 pixels.
        name: the file's name without ".png"; the lesson's number is put before it.
        here: from `setup()`.
        trainer: whose model made the picture; several by name where it compares several, also models that came
            trained.
        table: what `metrics.evaluate` measured; by the same names.
        show: display the picture in the notebook.
    """
    path = here.figures / f"{here.lesson}_{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {**provenance(here, trainer, table), "shown": getattr(fig, "scores", [])}
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    fig.savefig(path, dpi=DPI, metadata={"Title": path.stem, "Software": f"srkit {facts['versions']['srkit']}", **text})
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if os.environ.get("SRKIT_FIGURE_LOG"):  # srkit run reads here what a lesson exported
        with open(os.environ["SRKIT_FIGURE_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{path.resolve()}\n")
    if show:
        show_picture(path)
    return path


def provenance(
    here: Setup,
    trainer: Trainer | dict[str, Trainer | nn.Module] | None = None,
    table: metrics.Table | dict[str, metrics.Table] | None = None,
) -> dict[str, Any]:
    """The facts behind a figure, as plain words and numbers."""
    facts: dict[str, Any] = {
        "lesson": here.lesson,
        "profile": here.profile.name,
        "student": asdict(here.student),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "srkit": version("srkit")},
    }
    if isinstance(trainer, dict):
        return {**facts, "models": {name: _about(one, (table or {}).get(name)) for name, one in trainer.items()}}
    return {**facts, **_about(trainer, table)}


def _about(trainer: Trainer | nn.Module | None, table: metrics.Table | None) -> dict[str, Any]:
    """One model: what it is, its weights, what it was trained on and for if that is known, and what was measured."""
    facts: dict[str, Any] = {}
    if isinstance(trainer, nn.Module):
        facts["model"] = getattr(trainer, "recipe", {})
        facts["weights_sha256"] = weights_sha256(trainer.state_dict())
    elif trainer:
        facts["model"] = {**getattr(trainer.model, "recipe", {}), "step": trainer.step_number}
        facts["weights_sha256"] = weights_sha256(trainer.result.state_dict())
        facts["loss"] = trainer.loss.weights
        facts["moves"] = [move._asdict() for move in trainer.history.moves()]
        facts["features"] = trainer.loss.note
        facts["data"] = {**trainer.bank.recipe, "fingerprint": trainer.bank.fingerprint}
    if table:
        facts["metrics"] = table.to_dict()
    return facts


def show(ax: Axes, picture: Tensor, title: str = "") -> None:
    """Put a picture, (3 or 4, H, W) in [0, 1], into a plot: its pixels as squares, a title, no ticks."""
    ax.imshow(to_uint8(picture[:3]).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
    ax.set(title=title, xticks=[], yticks=[])


def show_picture(path: str | Path, width: int = 900) -> None:
    """Show a picture file in a notebook, `width` pixels wide; outside of one, do nothing."""
    from IPython import get_ipython
    from IPython.display import Image, display

    if get_ipython():
        display(Image(filename=str(path), width=width))


# ---------------------------------------------------------------------------------- placing things on a page


class _Places:
    """Where the cells of a page lie, in pixels from its top left corner."""

    def __init__(self, rows: int, columns: int, head: int = HEAD) -> None:
        self.head = head
        self.width = (PAGE - 2 * MARGIN - (columns - 1) * GAP) // columns
        self.height = (PAGE - head - FOOT) // rows - CAPTION

    def corner(self, row: int, column: int) -> tuple[int, int]:
        return MARGIN + column * (self.width + GAP), self.head + row * (self.height + CAPTION)


def _picture(
    fig: Figure, place: _Places, row: int, column: int, picture: Tensor, fit: bool = False
) -> tuple[Axes, tuple[int, int]]:
    """Show a picture in its cell, every pixel a square of whole pixels; returns the left and top that are cut off.

    `fit` shows the whole picture in whatever size it takes.
    """
    height, width = picture.shape[-2:]
    times = min(place.width / width, place.height / height)
    if not fit:
        times = max(1, int(times + 0.75))  # rather cut a rim off than leave a white one
    cut_h, cut_w = min(height, int(place.height / times)), min(width, int(place.width / times))
    top, left = (height - cut_h) // 2, (width - cut_w) // 2
    x, y = place.corner(row, column)
    wide, tall = round(cut_w * times), round(cut_h * times)
    x, y = x + (place.width - wide) // 2, y + (place.height - tall) // 2
    ax = fig.add_axes((x / PAGE, 1 - (y + tall) / PAGE, wide / PAGE, tall / PAGE))
    shown = picture[:, top : top + cut_h, left : left + cut_w]
    ax.imshow(to_uint8(shown).permute(1, 2, 0).cpu().numpy(), interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    return ax, (left, top)


def _inset(ax: Axes, picture: Tensor, box: Box, shown: tuple[int, int]) -> None:
    """A magnified square in the lower right corner, and a frame around where it comes from."""
    left, top, side = box
    wide, tall = ax.bbox.width, ax.bbox.height
    pixels = side * max(1, int(0.4 * wide / side))  # about two fifths of the picture, in whole squares
    inset = ax.inset_axes((1 - (pixels + 24) / wide, 24 / tall, pixels / wide, pixels / tall))
    crop = picture[:, top : top + side, left : left + side]
    inset.imshow(to_uint8(crop).permute(1, 2, 0).cpu().numpy(), interpolation="nearest", aspect="auto")
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set(color=ACCENT, linewidth=2)
    _frame(ax, left - shown[0], top - shown[1], side, side)


def _frame(ax: Axes, left: int, top: int, width: int, height: int) -> None:
    from matplotlib.patches import Rectangle

    for color, line in (("white", 5), (ACCENT, 2.5)):  # to be seen on a red dress as on a white wall
        ax.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color=color, linewidth=line))


def _caption(fig: Figure, place: _Places, row: int, column: int, text: str, size: int = 14) -> None:
    x, y = place.corner(row, column)
    size = min(size, 1.75 * (place.width + GAP) * 72 / DPI / len(text))  # a letter is some 0.55 of its size wide
    _text(fig, x + place.width / 2, y + place.height + CAPTION / 2 - 5, text, size=size)


def _text(fig: Figure, x: float, y: float, text: str, **style: Any) -> None:
    fig.text(x / PAGE, 1 - y / PAGE, text, ha="center", va="center", fontsize=style.pop("size"), **style)
