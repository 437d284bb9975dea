"""Curves and pictures that are cheap enough to be drawn twice a second while a training runs.

A matplotlib figure on every refresh would cost a quarter of the training speed; a string of SVG costs one
hundredth. `Curves` reads a history as it grows and draws it, for `dashboard`; `still` is the same on paper.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from srkit.images import to_uint8
from srkit.losses import term_of
from srkit.training.history import History, Move, moves_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXEL_TERMS = ("mse", "l1", "charbonnier", "psnr")
CHANCES = ("D/real", "D/fake")  # of a GAN: between 0 and 1, so on an axis without logarithm
# Told apart by colour-blind eyes, and at least 3.3 : 1 against white and against the grey of a dark page.
COLORS = ("#3d85c6", "#d95f02", "#1b9e77", "#9a6fd0", "#a6761d", "#d64f97", "#808080")
POINTS = 300  # a line
WIDTH, HEIGHT = 480, 250  # of a graph; the browser stretches it
LEFT, TOP, BOTTOM = 46, 48, 34  # margins of a graph; the right one is as wide as its words

Point = tuple[float, float]  # step, value


class Curves:
    """The terms of a history as lines, and its moves as marks; each call of `read` takes in only what is new.

    A GAN's history also gives what its discriminator believes.

    Args:
        history: of a training that may be going on in another thread.
        features: whose features the perceptual terms compare, for the graph's heading.
    """

    def __init__(self, history: History, features: str = "") -> None:
        self.history, self.features = history, features
        self.lines: dict[str, list[list[Point]]] = {}  # each line in pieces: while a term weighs 0 it has no values
        self.moves: list[Move] = []
        self.presets: dict[str, dict[str, float]] = {}  # to call moves by
        self._read, self._last = 0, frozenset()

    def read(self) -> bool:
        """Take in the rows that came since; returns whether there were any."""
        rows = self.history.rows[self._read :]
        self._read += len(rows)
        for row in rows:
            self.moves += moves_in(row)
            terms = [name for name in row if f"weighted/{name}" in row or name in CHANCES]
            if not terms:
                continue
            for name in terms:
                pieces = self.lines.setdefault(name, [])
                if name not in self._last:
                    pieces.append([])
                pieces[-1].append((row["step"], row[name]))
            self._last = frozenset(terms)
        for name, pieces in self.lines.items():
            if sum(map(len, pieces)) > 4 * POINTS:  # so that a long run is drawn as quickly as a short one
                self.lines[name] = thinned(pieces, 2 * POINTS)
        return bool(rows)

    def graphs(self) -> dict[str, list[str]]:
        """Which lines stand together in a graph, by its title: terms on pixels, all others, and chances."""
        pixels = [name for name in self.lines if term_of(name) in PIXEL_TERMS]
        chances = [name for name in self.lines if name in CHANCES]
        others = [name for name in self.lines if name not in (*pixels, *chances)]
        titles = {"MSE" if set(map(term_of, pixels)) == {"mse"} else "Pixel terms": pixels}
        layers = all(term_of(name) not in ("tv", "adversarial") for name in others)
        titles["Perceptual terms" if layers else "Other terms"] = others
        titles["How real D finds them"] = chances
        return {title: names for title, names in titles.items() if names}

    def svg(self) -> str:
        """The graphs side by side, below each other on a narrow page; empty before the first row."""
        graphs = "".join(self._graph(title, names) for title, names in self.graphs().items())
        return f'<div style="display:flex; flex-wrap:wrap; gap:4px 16px">{graphs}</div>' if graphs else ""

    def color(self, name: str) -> str:
        return COLORS[list(self.lines).index(name) % len(COLORS)]

    def _graph(self, title: str, names: Sequence[str]) -> str:
        pieces = {name: thinned(self.lines[name]) for name in names}
        values = [value for name in names for piece in pieces[name] for _, value in piece if value > 0]
        if not values:
            return ""
        ends = [line[-1][-1][0] for line in self.lines.values()]
        last = max([*ends, *(move.step for move in self.moves)])
        height_of, ticks = _axis(names, values)
        off = {name: name not in self._last for name in names}
        words = {name: f"{name} off" if off[name] else name for name in names}
        right, bottom = WIDTH - 14 - 7 * max(map(len, words.values())), HEIGHT - BOTTOM

        def x(step: float) -> float:
            return LEFT + (right - LEFT) * step / last

        def y(value: float) -> float:
            return bottom - (bottom - TOP) * height_of(value)

        sees = self.features if {*names} - {*PIXEL_TERMS, *CHANCES} else ""
        note = " · ".join(filter(None, ["faint: raw, bold: smoothed", sees]))
        parts = [f'<text x="2" y="13" fill="currentColor"><tspan font-weight="600" font-size="12">{title}</tspan>'
                 f'<tspan dx="8" opacity=".7">{escape(note)}</tspan></text>']  # fmt: skip
        for value in ticks:
            parts.append(f'<path d="M{LEFT} {y(value):.1f}H{right:.1f}" stroke="currentColor" opacity=".15"/>')
            parts.append(_text(LEFT - 5, y(value) + 3.5, short(value), "end"))
        for step in _ticks(last):
            parts.append(f'<path d="M{x(step):.1f} {bottom}v4" stroke="currentColor" opacity=".5"/>')
            parts.append(_text(x(step), bottom + 15, f"{step:g}", "middle"))
        parts.append(f'<path d="M{LEFT} {bottom}H{right:.1f}" stroke="currentColor" opacity=".5"/>')
        parts.append(_text((LEFT + right) / 2, HEIGHT - 4, "step", "middle"))
        parts += self._marks(x, bottom)
        heights = {}
        for name in names:
            smooth = [smoothed(piece) for piece in pieces[name]]
            for kind, line, width, faint in (("raw", pieces[name], 1, 0.4), ("line", smooth, 2, 1)):
                path = "".join(_path([(x(step), y(value)) for step, value in piece]) for piece in line)
                parts.append(f'<path class="{kind}" d="{path}" stroke="{self.color(name)}" stroke-width="{width}" '
                             f'opacity="{faint}"><title>{escape(name)}</title></path>')  # fmt: skip
            heights[name] = y(smooth[-1][-1][1])
        for name, height in _apart(heights, 12, TOP + 4, bottom).items():
            style = f'font-weight="600" fill="{self.color(name)}" opacity="{0.7 if off[name] else 1}"'
            parts.append(_text(right + 6, height + 3.5, words[name], "start", style))
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} over the steps" '
            'style="flex:1 1 340px; min-width:0; max-width:640px" font-size="11" font-family="system-ui, sans-serif" '
            f'fill="none" stroke-linecap="round" stroke-linejoin="round">{"".join(parts)}</svg>'
        )

    def _marks(self, x: Callable[[float], float], bottom: float) -> list[str]:
        """A dashed line for each step with moves; what moved is its tooltip, and stands on top where there is room."""
        at: dict[int, list[Move]] = {}
        for move in self.moves:
            at.setdefault(move.step, []).append(move)
        parts, free = [], WIDTH - 2.0
        for step, moves in reversed(at.items()):  # the latest matter most
            words = "\n".join(f"step {step}: {told(move)}" for move in moves)
            label = self._called(moves)
            place, width, shown = x(step), 5 * len(label), ""
            start = min(place + 3, free - width)
            if start >= place - width / 2:  # beside its line, or a little to the left at the graph's end
                shown, free = _text(start, TOP - 16, label, "start", 'font-size="9.5"'), min(start, place) - 6
            path = f"M{place:.1f} {TOP - 13}V{bottom}"
            parts.append(f'<g class="move" stroke="currentColor"><title>{escape(words)}</title>'
                         f'<path d="{path}" stroke-width="7" opacity="0"/>'  # to be hit by a mouse
                         f'<path d="{path}" stroke-dasharray="3 3" opacity=".5"/></g>{shown}')  # fmt: skip
        return parts[::-1]

    def _called(self, moves: Sequence[Move]) -> str:
        """A few words for the moves of one step: the preset that makes them, if there is one."""
        if len(moves) == 1:
            return f"{moves[0].term} → {_weight(moves[0].new)}"
        names = (name for name, preset in self.presets.items() if all(preset.get(m.term) == m.new for m in moves))
        return next(names, f"{len(moves)} moves")


def told(move: Move) -> str:
    """A move in words: "λ relu2_2 0 → 0.05"."""
    name = {"learning_rate": "learning rate", "parts": "parts of a batch"}.get(move.term, f"λ {move.term}")
    return f"{name} {_weight(move.old)} → {_weight(move.new)}"


def _weight(value: float) -> str:
    return short(value) if value else "off"


def short(value: float) -> str:
    """A number as a label: 0.05, 1e-5, 2.2e-5, 320."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def thinned(pieces: Sequence[Sequence[Point]], points: int = POINTS) -> list[list[Point]]:
    """The same line with about so many points at the most: neighbours are averaged, gaps stay."""
    size = math.ceil(sum(map(len, pieces)) / points) or 1
    if size == 1:
        return [list(piece) for piece in pieces]
    return [[_mean(piece[i : i + size]) for i in range(0, len(piece), size)] for piece in pieces]


def smoothed(piece: Sequence[Point]) -> list[Point]:
    """Each value averaged with its neighbours: batches differ, and what one looks for is the trend."""
    reach, count = max(1, len(piece) // 25), len(piece)
    sums = list(accumulate((value for _, value in piece), initial=0.0))
    spans = [(max(0, i - reach), min(count, i + reach + 1)) for i in range(count)]
    return [(step, (sums[b] - sums[a]) / (b - a)) for (step, _), (a, b) in zip(piece, spans, strict=True)]


def _mean(points: Sequence[Point]) -> Point:
    steps, values = zip(*points, strict=True)
    return sum(steps) / len(steps), sum(values) / len(values)


def _path(points: Sequence[Point]) -> str:
    start = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    return start + ("".join(f"L{x:.1f} {y:.1f}" for x, y in points[1:]) or "h0")  # one point alone is a dot


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    fill = "" if "fill=" in more else ' fill="currentColor"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill} {more}>{escape(words)}</text>'


def _axis(names: Sequence[str], values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """How high a value stands, from 0 to 1, and the round numbers beside the axis."""
    if set(names) <= set(CHANCES):
        return lambda value: value, [0, 0.25, 0.5, 0.75, 1]
    low, high = _spread(min(values), max(values))
    return lambda value: math.log(max(value, low) / low) / math.log(high / low), _log_ticks(low, high)


def _spread(low: float, high: float) -> tuple[float, float]:
    """The range of a logarithmic axis: a little wider than the values, and never so narrow that noise fills it."""
    margin = max(1.05, (1.5 * low / high) ** 0.5, (high / low) ** 0.06)
    return low / margin, high * margin


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between them, as few as tell the scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if len(decades) > 7:
        decades = decades[:: math.ceil(len(decades) / 7)]
    ticks: list[float] = []
    for digits in (
        (1,),
        (1, 3),
        (1, 2, 5),
        (1, 1.5, 2, 3, 5, 7),
        [n / 2 for n in range(2, 20)],
        [n / 5 for n in range(5, 50)],
    ):
        ticks = [digit * 10.0**power for power in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _ticks(last: float) -> list[float]:
    """Round steps from 0 to the last, about five."""
    rough = max(last / 5, 1)
    size = 10 ** math.floor(math.log10(rough))
    size *= next(digit for digit in (1, 2, 5, 10) if digit * size >= rough)
    return [n * size for n in range(int(last / size) + 1)]


def _apart(heights: Mapping[str, float], least: float, top: float, bottom: float) -> dict[str, float]:
    """Labels at these heights, moved so that none covers another."""
    order = sorted(heights, key=heights.__getitem__)
    places = [min(max(heights[name], top), bottom) for name in order]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + least)
    for i in reversed(range(len(places))):  # the lowest must not fall off the graph, nor push the others off
        places[i] = min(places[i], bottom - least * (len(places) - 1 - i))
    return dict(zip(order, places, strict=True))


# ---------------------------------------------------------------------------------- pictures


def jpeg(picture: Tensor, times: int = 1, most: int = 680) -> bytes:
    """A picture (3, H, W) in [0, 1] as JPEG: each pixel a square of times x times; smaller if wider than `most`."""
    image = Image.fromarray(to_uint8(picture).permute(1, 2, 0).cpu().numpy())
    image = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    image = image.reduce(math.ceil(image.width / most))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, subsampling=0)  # subsampling would wash out the colours of single pixels
    return file.getvalue()


def data_url(data: bytes) -> str:
    """A JPEG as an address that a page can show without asking anyone."""
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


# ---------------------------------------------------------------------------------- on paper


def still(curves: Curves, pictures: Mapping[str, Tensor], caption: str) -> Figure:
    """The graphs with their marks, a row of pictures below them and a caption: 9 inches wide.

    Args:
        curves: with at least one row read.
        pictures: title to picture, (3, H, W) in [0, 1].
        caption: below everything.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(9, 6.6 if pictures else 3.4), facecolor="white", layout="constrained")
    upper, lower = fig.subfigures(2, 1, height_ratios=(1, 1.15)) if pictures else (fig, None)
    graphs = curves.graphs()
    axes = upper.subplots(1, len(graphs), squeeze=False, sharex=True)[0]
    for ax, (title, names) in zip(axes, graphs.items(), strict=True):
        for name in names:
            color = curves.color(name)
            for i, piece in enumerate(thinned(curves.lines[name])):
                ax.plot(*zip(*piece, strict=True), ".-", ms=2, color=color, lw=0.8, alpha=0.4)
                ax.plot(*zip(*smoothed(piece), strict=True), color=color, lw=1.8, label="" if i else name)
        _, ticks = _axis(names, ax.dataLim.intervaly)
        if set(names) <= set(CHANCES):
            ax.set(ylabel="probability of real", ylim=(0, 1))
        else:
            ax.set(ylabel="value, bold: smoothed", yscale="log", ylim=_spread(*ax.dataLim.intervaly))
        ax.set(title=title, xlabel="step")
        ax.set_yticks(ticks, list(map(short, ticks)))
        ax.minorticks_off()
        ax.set_xlim(left=0)
        for step in {move.step for move in curves.moves if move.step}:  # what it began with is no move
            told_here = "\n ".join(told(move) for move in curves.moves if move.step == step)
            ax.axvline(step, color="0.4", ls="--", lw=0.9)
            ax.text(step, 0.98, f" {told_here}", transform=ax.get_xaxis_transform(), va="top", fontsize=7, color="0.3")
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="lower left")
    if pictures:
        for ax, (title, picture) in zip(lower.subplots(1, len(pictures)), pictures.items(), strict=True):
            ax.imshow(to_uint8(picture).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
            ax.set_title(title, fontsize=10)
            ax.set_axis_off()
    fig.supxlabel(textwrap.fill(caption, 125), fontsize=9, color="0.35")
    return fig


def png(fig: Figure, dpi: int = 150) -> bytes:
    """A figure as PNG."""
    file = io.BytesIO()
    fig.savefig(file, dpi=dpi)
    return file.getvalue()
