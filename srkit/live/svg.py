"""The curves of a run as SVG: cheap enough to be drawn twice a second while a training runs.

A matplotlib figure on every refresh would cost a quarter of the training speed; a string of SVG costs one hundredth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from statistics import fmean

from matplotlib.ticker import MaxNLocator

from srkit.figures.plots import PROBABILITIES
from srkit.live.film import Film, Frame, weight_of
from srkit.training import History, Move
from srkit.training.history import Row

# Told apart by colour-blind eyes, and at least 3.3 : 1 against white and against the grey of a dark page.
COLORS = ("#3d85c6", "#d95f02", "#1b9e77", "#9a6fd0", "#a6761d", "#d64f97", "#808080")
PSNR = "currentColor"
POINTS = 300  # a line
WIDTH = 720  # of the drawing; the browser stretches it
LEFT, RIGHT = 46, WIDTH - 12  # where the axes lie
ROLES = {"raw": (1, 0.35, ""), "line": (2, 1, ""), "coarse": (2, 1, "7 4"), "ghost": (1.5, 0.45, "2 4")}  # of a line
TALL = {"psnr": 84, "terms": 104, "coin": 64, "hyper": 48}  # of a panel
GAP, FOOT = 20, 20  # above each panel for its words, and below the last for the steps

Point = tuple[float, float]  # step, value
Line = list[list[Point]]  # in pieces


def colors_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each weight: that of its slider and of its curves."""
    return {name: COLORS[index % len(COLORS)] for index, name in enumerate(names)}


def term_colors(film: Film) -> dict[str, str]:
    """A colour for each term that a film measures: that of the weight which holds for it."""
    weights, terms = [name for name in film.frames[-1].weights if name != "lr"], film.bicubic.terms
    weight = {name: weight_of(name, weights) for name in terms}
    colours = colors_of(dict.fromkeys([*weights, *weight.values()]))
    return {name: colours[weight[name]] for name in terms}


def draw(film: Film, history: History, at: Frame | None = None) -> str:
    """PSNR, every term, and a GAN's mean probabilities over the same steps, with a dashed mark at each move.

    The bold lines are measured on the film's details, which are always the same: PSNR in dB, and each term as a
    multiple of what bicubic interpolation has there, those of weight 0 too. The thin ones are the training's own
    batches, smoothed over what came before. The future that a run has left is drawn pale.

    Args:
        film: of a run that may be going on in another thread; it has a frame and knows bicubic's.
        history: of that run.
        at: the frame that is looked at, if it is not the newest.
    """
    frames, ghost, bicubic = list(film.frames), list(film.ghost), film.bicubic
    rows, moves = [row for row in list(history.rows) if "lr" in row], list(history.moves)
    ends = [frames[-1].step, *(one.step for one in ghost[-1:]), *(row["step"] for row in rows[-1:])]
    last = max([1, *ends, *(move.step for move in moves)])
    names = [name for name in bicubic.terms if bicubic.terms[name] > 0]
    relative = {name: (bicubic.terms[name], colour) for name, colour in term_colors(film).items()}

    def of(name: str, some: Sequence[Frame]) -> Line:
        return [[(one.step, one.terms[name] / relative[name][0]) for one in some if name in one.terms]]

    batches = {name: _beside(line(rows, name), of(name, frames)[0]) for name in names}
    level = bicubic.psnr if math.isfinite(bicubic.psnr) else frames[0].psnr  # where nothing is enlarged
    compared = f" · dashed: bicubic {bicubic.psnr:.2f}" if level == bicubic.psnr else ""
    psnr: Line = [[(one.step, one.psnr) for one in some if math.isfinite(one.psnr)] for some in (frames, ghost)]
    panels = [
        _Panel("psnr", "<b>PSNR</b> of the details, dB" + compared, level)
        .add("PSNR", [psnr[1]], PSNR, "ghost").add("PSNR", [psnr[0]], PSNR, "line"),
        _Panel("terms", "<b>each term</b> there, as a multiple of bicubic's", 1.0),
    ]  # fmt: skip
    for number, name in enumerate(names):
        colour = relative[name][1]
        role = "coarse" if colour in [relative[one][1] for one in names[number + 1 :]] else "line"  # of one weight
        panels[1].words += f' <tspan fill="{colour}" font-weight="bold">■</tspan> {escape(name)}'
        panels[1].add(name, batches[name], colour, "raw")
        panels[1].add(name, of(name, ghost), colour, "ghost").add(name, of(name, frames), colour, role)
    if any(name in row for name in PROBABILITIES for row in rows[-1:]):
        coin = _Panel("coin", "<b>D(real)</b> and <b>D(fake)</b>, mean probabilities · dashed: a coin", 0.5)
        for name, colour in zip(PROBABILITIES, (PSNR, COLORS[1]), strict=True):
            coin.add(name, [smoothed(piece) for piece in line(rows, name)], colour, "line")
        panels.append(coin)
    for number, name in enumerate(
        name for name in history.names() if name.startswith("hyper/") and name != "hyper/loss"
    ):
        if (values := line(rows, name)) and values[0]:
            words = f"<b>{escape(name.removeprefix('hyper/'))}</b>, a hyper-parameter · dashed: its start"
            panel = _Panel("hyper", words, values[0][0][1])
            panels.append(panel.add(name, values, COLORS[number % len(COLORS)], "line"))
    return _svg(panels, last, moves, at)


class _Panel:
    """One graph of several lines on the axis of steps that all share."""

    def __init__(self, kind: str, words: str, level: float) -> None:
        self.kind, self.words, self.level = kind, words, level
        self.lines: list[tuple[str, Line, str, str]] = []

    def add(self, name: str, pieces: Line, colour: str, role: str) -> _Panel:
        self.lines.append((name, [piece for piece in pieces if piece], colour, role))
        return self

    def range(self) -> tuple[float, float]:
        values = [value for _, pieces, _, role in self.lines if role != "raw" for piece in pieces for _, value in piece]
        if self.kind == "coin":
            return 0.0, 1.0
        if self.kind in ("psnr", "hyper"):
            values = [value for value in (*values, self.level) if math.isfinite(value)] or [0.0]
            margin = max(0.1 if self.kind == "psnr" else 1e-3, 0.08 * (max(values) - min(values)))
            return min(values) - margin, max(values) + margin
        values = [value for value in values if value > 0] + [self.level]
        margin = max(1.05, (max(values) / min(values)) ** 0.06)  # never so narrow that noise fills the graph
        return max(1e-4, min(values) / margin), max(values) * margin

    def svg(self, top: float, x, last: float) -> str:
        low, high = self.range()
        bottom, logarithm = top + TALL[self.kind], self.kind == "terms"

        def y(value: float) -> float:
            value = max(low, min(high, value))
            share = math.log(value / low) / math.log(high / low) if logarithm else (value - low) / (high - low)
            return bottom - (bottom - top) * share

        ticks = log_ticks(low, high) if logarithm else _inside(MaxNLocator(4).tick_values(low, high), low, high)
        parts = []
        for value in ticks:
            parts.append(f'<path d="M{LEFT} {y(value):.1f}H{RIGHT}" stroke="currentColor" opacity=".13"/>')
            parts.append(_text(LEFT - 5, y(value) + 3.5, short(round(value, 6)), "end"))
        parts.append(f'<path d="M{LEFT} {y(self.level):.1f}H{RIGHT}" stroke="currentColor" stroke-dasharray="7 4" '
                     'opacity=".6"/>')  # fmt: skip
        for name, pieces, colour, role in self.lines:
            width, opacity, dash = ROLES[role]
            path = "".join(_path([(x(step), y(value)) for step, value in piece]) for piece in pieces)
            if path and math.isfinite(self.level):
                look = f'stroke="{colour}" stroke-width="{width}" opacity="{opacity}" stroke-dasharray="{dash}"'
                parts.append(f'<path class="{role}" d="{path}" {look}><title>{escape(name)}</title></path>')
        return "".join(parts)


def _svg(panels: Sequence[_Panel], last: float, moves: Sequence[Move], at: Frame | None) -> str:
    """All panels, one below the other, the moves' marks and the cursor through all of them."""

    def x(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * step / last

    parts, top = [], 0.0
    for panel in panels:
        words = panel.words.replace("<b>", '<tspan font-weight="bold">').replace("</b>", "</tspan>")
        top += GAP
        parts.append(f'<text x="{LEFT}" y="{top - 6:.1f}" fill="currentColor">{words}</text>')
        parts.append(panel.svg(top, x, last))
        top += TALL[panel.kind]
    for step in _inside(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]).tick_values(0, last), 0, last):
        parts.append(_text(x(step), top + 14, f"{step:g}", "middle"))
    parts.append(_text(LEFT - 12, top + 14, "step", "end"))
    for step, made in groupby(moves, key=lambda move: move.step):
        words = "\n".join(f"step {step}: {describe(move)}" for move in made)
        path = f'<path d="M{x(step):.1f} {GAP}V{top}"'
        parts.append(f'<g class="move" stroke="currentColor"><title>{escape(words)}</title>'
                     f'{path} stroke-width="7" opacity="0"/>'  # to be hit by a mouse
                     f'{path} stroke-dasharray="3 3" opacity=".5"/></g>')  # fmt: skip
    place = x(at.step) if at else -9
    parts.append(f'<path class="cursor" d="M0 {GAP}V{top}" transform="translate({place:.1f})" stroke="#c0392b" '
                 'stroke-width="1.5"/>')  # fmt: skip
    words = "PSNR and every term of the loss over the steps"
    box = f'viewBox="0 0 {WIDTH} {top + FOOT:.0f}" data-last="{last:g}"'
    return f'<div class="srkit-graphs"><svg {box} role="img" aria-label="{words}">{"".join(parts)}</svg></div>'


def _beside(pieces: Line, piece: Sequence[Point]) -> Line:
    """Smoothed, and scaled so that they have a piece's mean: other pictures have other values, and the same trend."""
    pieces = [smoothed(one) for one in pieces]
    values, wanted = [value for one in pieces for _, value in one], [value for _, value in piece]
    factor = fmean(wanted) / fmean(values) if values and wanted and fmean(values) else 1.0
    return [[(step, factor * value) for step, value in one] for one in pieces]


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


def line(rows: Sequence[Row], name: str) -> Line:
    """A quantity as at most POINTS points, means of neighbours; in pieces: while a term weighs 0 it has no values."""
    size = math.ceil(len(rows) / POINTS) or 1
    groups = [[row for row in rows[i : i + size] if name in row] for i in range(0, len(rows), size)]
    return [
        [(fmean(row["step"] for row in group), fmean(row[name] for row in group)) for group in piece]
        for there, piece in groupby(groups, key=bool)
        if there
    ]


def smoothed(piece: Sequence[Point]) -> list[Point]:
    """Each value averaged with those before it: batches differ, and no effect may show before its cause."""
    reach = max(2, len(piece) // 15)
    near = (piece[max(0, i - reach) : i + 1] for i in range(len(piece)))
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
