"""The curves of a history as SVG: cheap enough to be drawn twice a second while a training runs.

A matplotlib figure on every refresh would cost a quarter of the training speed; a string of SVG costs one hundredth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from statistics import fmean

from matplotlib.ticker import MaxNLocator

from srkit.figures.plots import PAIRS, PROBABILITIES
from srkit.losses import term_of
from srkit.training import History, Move
from srkit.training.history import Row

PIXEL_TERMS = ("mse", "l1", "charbonnier", "psnr")
# Told apart by colour-blind eyes, and at least 3.3 : 1 against white and against the grey of a dark page.
COLORS = ("#3d85c6", "#d95f02", "#1b9e77", "#9a6fd0", "#a6761d", "#d64f97", "#808080")
POINTS = 300  # a line
WIDTH, HEIGHT = 480, 212  # of a graph; the browser stretches it
LEFT, RIGHT, TOP, BOTTOM = 46, WIDTH - 14, 10, HEIGHT - 34  # where its axes lie

Point = tuple[float, float]  # step, value


def draw(history: History, features: str = "") -> str:
    """Graphs of terms on pixels, of all others, and of a GAN's mean probabilities; empty before the first row.

    Each quantity is a line, faint as it was measured and bold as smoothed; a move is a dashed mark through all graphs.

    Args:
        history: of a training that may be going on in another thread.
        features: whose features the perceptual terms compare, for the graph's heading.
    """
    known = history.names()  # before the rows: each name is in one of them
    tuned = [name for name in known if name.startswith("hyper/") and name != "hyper/loss"]
    names = [name for name in known if f"weighted/{name}" in known or name in PROBABILITIES] + tuned
    rows, moves = [row for row in list(history.rows) if "lr" in row], list(history.moves)
    lines = {name: line(rows, name) for name in names}
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(lines)}
    last = max([row["step"] for row in rows[-1:]] + [move.step for move in moves], default=0)
    graphs = []
    for title, names in _graphs(list(lines)).items():
        words = [f"<b>{title}</b>", "faint: raw, bold: smoothed"]
        if features and title in ("Perceptual terms", "Other terms"):
            words.append(escape(features))
        for name in names:
            off = "" if name in rows[-1] else " off"
            words.append(f'<b style="color:{colors[name]}">{escape(name)}{off}</b>')
        axes = _axes({name: lines[name] for name in names}, colors, last, moves)
        graphs.append(f"<figure><figcaption>{' · '.join(words)}</figcaption>{axes}</figure>")
    return f'<div class="srkit-graphs">{"".join(graphs)}</div>' if graphs else ""


def _graphs(names: Sequence[str]) -> dict[str, list[str]]:
    """Which lines stand together in a graph, by its title."""
    pixels = [name for name in names if term_of(name) in PIXEL_TERMS]
    tuned = [name for name in names if name.startswith("hyper/")]  # each has a range of its own
    others = [name for name in names if name not in (*pixels, *PROBABILITIES, *tuned)]
    layers = all(term_of(name) not in ("tv", "adversarial") for name in others)
    titles = {
        "Pixel terms": pixels,
        "Perceptual terms" if layers else "Other terms": others,
        PAIRS[PROBABILITIES][0]: [name for name in names if name in PROBABILITIES],
        **{f"Hyper-parameter {name.removeprefix('hyper/')}": [name] for name in tuned},
    }
    return {title: names for title, names in titles.items() if names}


def _axes(lines: dict[str, list[list[Point]]], colors: dict[str, str], last: float, moves: Sequence[Move]) -> str:
    """One graph: its axes, the moves, and the lines."""
    values = [value for pieces in lines.values() for piece in pieces for _, value in piece if value > 0] or [1.0]
    margin = max(1.05, (1.5 * min(values) / max(values)) ** 0.5, (max(values) / min(values)) ** 0.06)
    low, high = min(values) / margin, max(values) * margin  # never so narrow that noise fills the graph
    linear = {*lines} <= {*PROBABILITIES}

    def x(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * step / last

    def y(value: float) -> float:
        share = value if linear else math.log(max(value, low) / low) / math.log(high / low)
        return BOTTOM - (BOTTOM - TOP) * share

    parts = []
    for value in [0, 0.25, 0.5, 0.75, 1] if linear else log_ticks(low, high):
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{RIGHT}" stroke="currentColor" opacity=".15"/>')
        parts.append(_text(LEFT - 5, y(value) + 3.5, short(value), "end"))
    for step in _inside(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(0, last), 0, last):
        parts.append(_text(x(step), BOTTOM + 15, f"{step:g}", "middle"))
    parts.append(_text((LEFT + RIGHT) / 2, HEIGHT - 4, "step", "middle"))
    for step, made in groupby(moves, key=lambda move: move.step):
        words = "\n".join(f"step {step}: {describe(move)}" for move in made)
        path = f'<path d="M{x(step):.1f} {TOP}V{BOTTOM}"'
        parts.append(f'<g class="move" stroke="currentColor"><title>{escape(words)}</title>'
                     f'{path} stroke-width="7" opacity="0"/>'  # to be hit by a mouse
                     f'{path} stroke-dasharray="3 3" opacity=".5"/></g>')  # fmt: skip
    for name, pieces in lines.items():
        smooth = [smoothed(piece) for piece in pieces]
        for kind, line, width, opacity in (("raw", pieces, 1, 0.4), ("line", smooth, 2, 1)):
            path = "".join(_path([(x(step), y(value)) for step, value in piece]) for piece in line)
            parts.append(f'<path class="{kind}" d="{path}" stroke="{colors[name]}" stroke-width="{width}" '
                         f'opacity="{opacity}"><title>{escape(name)}</title></path>')  # fmt: skip
    words = escape(", ".join(lines))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words} over the steps">{"".join(parts)}</svg>'


# ---------------------------------------------------------------------------------- words and numbers


def describe(move: Move) -> str:
    """A move in words: "λ relu2_2 off → 0.05"."""
    name = {"lr": "learning rate"}.get(move.name, move.name if "accumulate" in move.name else f"λ {move.name}")
    old, new = (short(value) if value else "off" for value in (move.old, move.new))
    return f"{name} {old} → {new}"


def short(value: float) -> str:
    """A number as a label: 0.05, 1e-5, 2.2e-5, 320."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{escape(words)}</text>'


# ---------------------------------------------------------------------------------- lines and ticks


def line(rows: Sequence[Row], name: str) -> list[list[Point]]:
    """A quantity as at most POINTS points, means of neighbours; in pieces: while a term weighs 0 it has no values."""
    size = math.ceil(len(rows) / POINTS) or 1
    groups = [[row for row in rows[i : i + size] if name in row] for i in range(0, len(rows), size)]
    return [
        [(fmean(row["step"] for row in group), fmean(row[name] for row in group)) for group in piece]
        for there, piece in groupby(groups, key=bool)
        if there
    ]


def smoothed(piece: Sequence[Point]) -> list[Point]:
    """Each value averaged with its neighbours: batches differ, and what one looks for is the trend."""
    reach = max(1, len(piece) // 25)
    near = (piece[max(0, i - reach) : i + reach + 1] for i in range(len(piece)))
    return [(step, fmean([value for _, value in points])) for (step, _), points in zip(piece, near, strict=True)]


def _path(points: Sequence[Point]) -> str:
    start = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    return start + ("".join(f"L{x:.1f} {y:.1f}" for x, y in points[1:]) or "h0")  # one point alone is a dot


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between them, as few as tell the scale."""
    if high / low < 8:
        return _inside(MaxNLocator(5).tick_values(low, high), low, high)
    digits = (1, 2, 5) if high / low < 300 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return _inside((digit * 10.0**power for power in powers[:: 1 + len(powers) // 8] for digit in digits), low, high)


def _inside(ticks: Iterable[float], low: float, high: float) -> list[float]:
    return [float(tick) for tick in ticks if low <= tick <= high]
