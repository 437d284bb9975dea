"""Plots: the curves of a history, what changed picture by picture, and the perception-distortion plane."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from srkit import metrics
from srkit.figures.pages import ACCENT, DPI, INCHES, show
from srkit.losses import term_of
from srkit.metrics.opinions import Score, spearman
from srkit.settings import SRKitError
from srkit.training import History

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
    "D/loss": ("Discriminator loss", "cross-entropy; a coin's is 0.69"),
    "D/real": ("D(real)", "mean probability of being real"),
    "D/fake": ("D(output)", "mean probability of being real"),
    "D/gradient": ("Gradient of D", "norm over all weights"),
    "G/gradient": ("Gradient of G", "norm over all weights"),
    "dB": ("PSNR", "PSNR on luma / dB"),
    "lr": ("Learning rate", "learning rate per step"),
}
PROBABILITIES = ("D/real", "D/fake")  # between 0 and 1, so on an axis without logarithm
PAIRS = {  # two quantities of a GAN that share a graph: title, unit, and what the two lines are
    PROBABILITIES: ("D(real) and D(output)", "mean probability of being real", ("real pictures", "outputs")),
    ("D/gradient", "G/gradient"): ("Gradients", "norm over all weights", ("discriminator D", "generator G")),
}


def plain(text: str) -> str:
    """A text in which matplotlib finds no formula: a dollar sign stays one."""
    return text.replace("$", r"\$")


def title_of(name: str) -> tuple[str, str]:
    """Title and unit of a quantity; "x2/mse" names its output; a layer stands for its activations."""
    term = term_of(name)
    title, unit = QUANTITIES.get(term, (term, "mean squared difference of activations"))
    return title if term == name else f"{title}, {name.removesuffix('/' + term)}", unit


def curves(histories: History | Mapping[str, History], names: Sequence[str]) -> Figure:
    """Each quantity of a history in a graph of its own, training and validation of the same one together.

    D(real) and D(output) of a GAN stand in one graph, and so do the two networks' gradients. A dotted line marks each
    step at which a weight was moved by hand; where a term weighed 0 its line is broken.

    Args:
        histories: one, or several by name to compare.
        names: which quantities: "loss", a term, "dB" or "lr".

    Raises:
        SRKitError: nothing has been recorded yet.
    """
    several = {"": histories} if isinstance(histories, History) else dict(histories)
    if not any(history.rows for history in several.values()):
        raise SRKitError("the history is empty: train some steps first")
    pair_of = {name: pair for pair in PAIRS for name in pair if {*pair} <= {*names}}
    graphs = list(dict.fromkeys(pair_of.get(name, (name,)) for name in names))
    columns = len(graphs) if len(graphs) <= 3 else 2
    rows = -(-len(graphs) // columns)
    fig = _figure(4.2 * rows)
    moved = sorted({move.step for history in several.values() for move in history.moves if move.step})
    for number, graph in enumerate(graphs, start=1):
        ax = fig.add_subplot(rows, columns, number)
        _draw_graph(ax, graph, several)
        for step in moved:
            ax.axvline(step, color="grey", linestyle=":", linewidth=1)
        if len(several) == 1 and ax.get_legend_handles_labels()[0]:  # a line alone, too: training or validation?
            ax.legend(frameon=False)
    if len(several) > 1:  # one legend for all graphs, above them: in them it would lie on the lines
        lines = {str(line.get_label()): line for ax in fig.axes for line in ax.get_legend_handles_labels()[0]}
        fig.legend(list(lines.values()), list(lines), frameon=False, ncols=len(several), loc="outside upper center")
    return fig


def _figure(height: float) -> Figure:
    return Figure(figsize=(INCHES, height), dpi=DPI, facecolor="white", layout="constrained")


def _draw_graph(ax: Axes, graph: Sequence[str], histories: Mapping[str, History]) -> None:
    """One quantity, or a pair: then colours tell the two apart, or dashes where colours tell histories apart."""
    title, unit, pair = PAIRS.get(tuple(graph)) or (*title_of(graph[0]), ())
    alone = len(histories) == 1
    for i, (label, history) in enumerate(histories.items()):
        rows = [row for row in list(history.rows) if "lr" in row]
        for j, name in enumerate(graph):
            color, style = (f"C{i + j}", "-") if alone else (f"C{i}", "--" if j else "-")
            words = pair[j] if pair and alone else "_" if j else f"{label} training".strip()
            if any(name in row for row in rows):
                values = [row.get(name, math.nan) for row in rows]
                ax.plot(
                    [row["step"] for row in rows], values, style, color=color, label=plain(words), lw=1.6, alpha=0.55
                )
            steps, values = history.series(f"val/{name}")
            if steps:
                ax.plot(steps, values, "o--", color=color, label=plain(f"{label} validation".strip()), lw=1.6, ms=4)
    ax.set(xlabel="step", ylabel=unit if alone or not pair else f"{unit} (dashed: {pair[1]})", title=plain(title))
    if graph[0] in PROBABILITIES:
        ax.set_ylim(0, 1)
    elif term_of(graph[0]) not in ("dB", "lr"):
        ax.set_yscale("log")
    ax.grid(alpha=0.3, which="both")
    ax.spines[["top", "right"]].set_visible(False)


def differences(pairs: dict[str, metrics.Paired], names: Sequence[str], footer: str = "") -> Figure:
    """What changed, picture by picture: a graph for each measure, in it a column for each comparison, a dot a picture.

    The bar is the mean, with its standard error; what lies in the shaded half became worse.

    Args:
        pairs: by name, from `metrics.paired`.
        names: which measures: "psnr", "ssim" or a term.
        footer: a line below.
    """
    changes = {plain(label): pair.changes for label, pair in pairs.items()}
    fig = _figure(4.6)
    for number, name in enumerate(names, start=1):
        ax = fig.add_subplot(1, len(names), number)
        for place, each in enumerate(changes.values()):
            change, color, count = each[name], f"C{place}", len(each[name].differences)
            spread = [place + 0.5 * ((i + 0.5) / count - 0.5) for i in range(count)]  # in the order of the pictures
            ax.plot(spread, change.differences, "o", color=color, alpha=0.45, ms=5, mew=0)
            ax.errorbar(place, change.difference, change.error, fmt="_", color=color, ms=34, mew=2.5, capsize=5, lw=2)
        reach = 1.1 * max(*map(abs, ax.get_ylim()), 1e-12)
        ax.axhspan(*((-reach, 0) if name in ("psnr", "ssim") else (0, reach)), color="#eeeeee", zorder=0)
        ax.axhline(0, color="grey", lw=1)
        what = {"psnr": "PSNR on luma / dB", "ssim": "SSIM on luma"}.get(name) or title_of(name)[0]
        ax.set(xlim=(-0.6, len(changes) - 0.4), ylim=(-reach, reach), ylabel=f"{what}: after - before")
        better = [f"{each[name].improved} of {len(each[name].differences)}\nbetter" for each in changes.values()]
        ax.set_xticks(range(len(changes)), [f"{label}\n{words}" for label, words in zip(changes, better, strict=True)])
        ax.spines[["top", "right"]].set_visible(False)
        ax.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    fig.supxlabel(plain(footer), fontsize=9)
    return fig


def preferences(
    scores: Mapping[str, Score], measures: Mapping[str, Mapping[str, float]] | None = None, footer: str = ""
) -> Figure:
    """What people preferred: each method's Bradley-Terry score with its 95 % interval, and beside it what was measured.

    Over each graph stands Spearman's rank correlation of score and measure, +1 where both put the methods in one order.

    Args:
        scores: by method, from `metrics.opinions.scores`.
        measures: by method, then by name, e.g. a table's `figures`; a measure that some method lacks is not drawn.
        footer: a line below.
    """
    known = [(measures or {}).get(method, {}) for method in scores]
    names = [name for name in known[0] if all(math.isfinite(row.get(name, math.nan)) for row in known)]
    fig = _figure(5.5)
    first, *others = fig.subplots(1, 1 + len(names), sharey=True, squeeze=False)[0]
    for i, (method, score) in enumerate(scores.items()):
        look = {"fmt": "o", "color": f"C{i % 10}", "ms": 8, "capsize": 4, "lw": 2}
        first.errorbar(i, score.score, score.half, label=plain(method), **look)
        for ax, name in zip(others, names, strict=True):
            ax.errorbar(known[i][name], score.score, score.half, **look)
    first.set(xticks=[], xlabel="in the order of people", ylabel="Bradley-Terry score (up: preferred)", title="people")
    for ax, name in zip(others, names, strict=True):
        agree = spearman([row[name] for row in known], [score.score for score in scores.values()])
        title, unit = {"psnr": ("PSNR", "on luma / dB"), "ssim": ("SSIM", "on luma")}.get(name) or title_of(name)
        unit = "lower is better" if "(" in name else textwrap.fill(unit, 24)  # BRISQUE (piq 0.8.0), a measure's column
        ax.set_title(plain(f"{title}\nrank correlation {agree:+.2f}"), fontsize=11)
        ax.set(xlabel=plain(unit))
        ax.margins(x=0.12)
    for ax in fig.axes:
        ax.axhline(0, color="grey", lw=1)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    fig.legend(frameon=False, fontsize=12, ncols=4, loc="outside upper center")
    fig.supxlabel(plain(footer), fontsize=9)
    return fig


def heat_map(values: Tensor, pictures: Mapping[str, Tensor], sentences: Sequence[str], footer: str = "") -> Figure:
    """Pictures against sentences, 12 x 12 inches: a row and thumbnail each, a column each, a row's best framed.

    Args:
        values: (n, m), e.g. from `TwoTowers.cosines`.
        pictures: n of them by name, (3, H, W) in [0, 1].
        sentences: m of them.
        footer: a line below.

    Raises:
        SRKitError: values of another shape.
    """
    if values.shape != (len(pictures), len(sentences)):
        raise SRKitError(f"values {tuple(values.shape)} for {len(pictures)} pictures and {len(sentences)} sentences")
    rows, columns = values.shape
    fig = Figure(figsize=(INCHES, INCHES), dpi=DPI, facecolor="white")
    ax = fig.add_axes((0.2, 0.08, 0.77, 0.66))
    ax.imshow(values.cpu(), cmap="viridis", aspect="auto")
    middle = (values.min() + values.max()) / 2
    for row, column in itertools.product(range(rows), range(columns)):
        value, best = values[row, column], bool(values[row].argmax() == column)
        look = {"color": "black" if value > middle else "white", "weight": "bold" if best else "normal", "fontsize": 14}
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", **look)
        if best:
            ax.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, color=ACCENT, lw=4))
    labels = [plain(textwrap.fill(sentence, 26)) for sentence in sentences]
    ax.set(yticks=[])
    ax.set_xticks(range(columns), labels, rotation=35, ha="left", fontsize=13)
    ax.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False)
    for row, (name, picture) in enumerate(pictures.items()):
        height = 0.66 / rows
        thumbnail = fig.add_axes((0.02, 0.74 - (row + 1) * height + 0.02 / rows, 0.17, height - 0.04 / rows))
        show(thumbnail, picture)
        thumbnail.set_title(plain(name), fontsize=11)
        thumbnail.spines[:].set_visible(False)
    found = sum(int(values[i].argmax() == i) for i in range(min(rows, columns)))
    words = [f"{found} of {rows} pictures find the sentence of their own place"] if rows == columns else []
    fig.text(0.5, 0.03, plain("; ".join([*words, footer])), ha="center", fontsize=12)
    return fig


def tradeoff(
    points: dict[str, tuple[float, float]], feature: str, sweep: Sequence[str] = (), footer: str = ""
) -> Figure:
    """The perception-distortion plane: PSNR across, a distance of features up, one point a method.

    Right is less error, down is nearer to the ground truth for the network. The corner where both are best stays
    empty: Blau and Michaeli, "The Perception-Distortion Tradeoff", arXiv 1711.06077.

    Args:
        points: name to (PSNR in dB, feature distance), both of the same pictures.
        feature: what is compared, for the axis, e.g. "relu2_2 of VGG-19, random weights".
        sweep: names of points that an arrow joins in this order, e.g. along a growing weight.
        footer: a line below.
    """
    fig = _figure(7)
    ax = fig.add_subplot()
    for start, end in itertools.pairwise(sweep):
        arrow = {"arrowstyle": "-|>", "color": "#999999", "lw": 1.5, "shrinkB": 6}
        ax.annotate("", points[end], points[start], arrowprops=arrow)
    for i, (name, place) in enumerate(points.items()):
        ax.plot(*place, "D" if name in sweep else "o", color=f"C{i % 10}", ms=9, label=plain(name))
    ax.margins(0.1)
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.set(xlabel="PSNR on luma / dB   (right: less error)",
           ylabel=plain(f"distance of {feature}\n(down: nearer to the ground truth)"))  # fmt: skip
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(frameon=False, fontsize=12, ncols=4, loc="outside upper center")  # beside the points names would collide
    fig.supxlabel(plain(footer), fontsize=9)
    return fig
