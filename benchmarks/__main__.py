"""Everything that takes time in one run: the textbook's way, an experienced student's and srkit's, on this machine.

    uv run python -m benchmarks [--brief] [--only mse perceptual …] [--device cpu] [--json]

The sides take turns, each in a process of its own, and a ratio is the median of pairs. --brief compares steps of
training alone (MSE, perceptual, GAN), in about three minutes on two processor cores. The whole run writes
figures/reference/benchmark.json and .png, any other to runs/benchmark.

srkit's share is given of the machine's best convolution where arithmetic is what counts, and of its memory bandwidth
where the bytes that must be moved can be counted: in the data pipeline. Elsewhere what is read and written depends on
what the caches hold, and a share would be a guess.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks import dashboard, growth, processes, steps, timing
from benchmarks.timing import STUDENT, TEXTBOOK, Facts
from srkit.course.lessons import KEEP_MEMORY
from srkit.settings import atomic_write, choose_device, unknown

REFERENCE, ELSEWHERE = Path("figures/reference"), Path("runs/benchmark")
BRIEF = ("mse", "perceptual", "gan")
PARTS = (*steps.COMPARISONS, "processes", "dashboard", "growth")
COLOURS = {TEXTBOOK: "#3b75af", STUDENT: "#e08214"}


@dataclass(kw_only=True)
class Options(timing.Options):
    """Measure the textbook's way and an experienced student's against srkit's in everything that takes time."""

    only: tuple[str, ...] = PARTS  # some of the parts
    brief: bool = False  # steps of training alone, each at one batch size: about three minutes on two processor cores
    sizes: tuple[float, ...] = ()  # of batches, or pictures in megapixels, instead of each part's own
    rounds: int = 5  # how often every side runs, in turn
    seconds: float = 2.0  # that a turn takes at least
    keep_memory: bool = False  # let srkit's processes keep freed memory, as `srkit run` lets those of the lessons
    files: int = 48  # JPEG files to read
    device: str = "auto"  # cpu, cuda, or auto
    out: Path | None = None  # where benchmark.json and benchmark.png go


def compare(part: str, options: Options, about: Facts) -> Facts:
    """One part's facts: rows, remarks, and more."""
    rounds, seconds = options.rounds, options.seconds
    if part in steps.COMPARISONS:
        sizes = steps.COMPARISONS[part].sizes[:1] if options.brief else options.sizes
        files, environment = 8 if options.brief else options.files, KEEP_MEMORY if options.keep_memory else None
        return steps.compare(part, about, rounds, seconds, files, sizes, environment)
    if part == "processes":
        return processes.compare(rounds, seconds)
    if part == "dashboard":
        return dashboard.compare(about["device"], rounds, 5 * seconds)
    return growth.compare(about["device"], few=rounds == 1)


def draw(facts: Facts, path: Path) -> None:
    """The ratios as bars, and how a step's time grows; 1200 pixels wide."""
    rows, curves = facts["rows"], facts["parts"].get("growth", {}).get("curves", {})
    height = 1.4 + 0.6 * max(len(rows), 1)
    fig = Figure(figsize=(12, height + (4.2 if curves else 0)), dpi=100, facecolor="white", layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=[height, 4.2], squeeze=False)[:, 0] if curves else (fig, None)
    ax = top.subplots()
    for offset, (side, colour) in zip((-0.2, 0.2), COLOURS.items(), strict=True):
        told = [(number, row) for number, row in enumerate(rows) if side in row["ratio"]]
        places, ratios = [number + offset for number, _ in told], [row["ratio"][side] for _, row in told]
        bars = ax.barh(places, ratios, height=0.38, color=colour, label=f"times as fast as the {side}")
        ax.bar_label(bars, [label(row, side) for _, row in told], padding=4, fontsize=10)
    ax.set_yticks(range(len(rows)), [row["what"] for row in rows], fontsize=11)
    ax.axvline(1, color="black", linewidth=0.8, linestyle="--")
    ax.set_xlim(0, 2.2 * max((ratio for row in rows for ratio in row["ratio"].values()), default=1))
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
    ax.set_title(timing.described(facts["machine"]), loc="left", fontsize=11)
    if bottom:
        draw_growth(bottom.subplots(1, 3, sharey=True), facts["parts"]["growth"])
    with atomic_write(path) as draft:
        fig.savefig(draft)


def draw_growth(axes, found: Facts) -> None:
    """A step's time along each axis, in three log-log plots."""
    for ax, (axis, points) in zip(axes, found["curves"].items(), strict=True):
        x, y = ([point[name] for point in points] for name in (axis, "seconds"))
        ax.loglog(x, y, "o-", color=COLOURS[TEXTBOOK])
        ax.set_xticks(x, [str(value) for value in x], minor=False)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.set_xlabel(growth.AXES[axis], fontsize=11)
        ax.set_title(f"grows with the power {found['exponents'][axis]:.2f}", fontsize=11)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("seconds of an MSE step", fontsize=11)


def label(row: Facts, side: str) -> str:
    """What stands at the end of a bar."""
    before, after = (
        f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in (row["rate"][side], row["rate"]["srkit"])
    )
    share = f", {row['share']:.0%} of the {row['of']}" if side == TEXTBOOK and "share" in row else ""
    return f"{row['ratio'][side]:.2f}   ({before} → {after} {row['unit']}){share}"


def run(options: Options) -> tuple[Facts, str]:
    """All the parts that are asked for.

    Raises:
        SRKitError: an unknown part.
    """
    names = tuple(part for part in options.only if part in BRIEF) if options.brief else options.only
    for part in names:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    about = timing.machine(choose_device(options.device).type)
    parts = {}
    for part in names:
        timing.log(f"{part} …")
        parts[part] = compare(part, options, about)
    facts = {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": about,
        "rows": [row for one in parts.values() for row in one.pop("rows")],
        "remarks": [remark for one in parts.values() for remark in one.pop("remarks", ())],
        "parts": {name: one for name, one in parts.items() if one},
    }
    whole = set(names) == set(PARTS) and options.rounds > 1 and not options.sizes
    folder = options.out or (REFERENCE if whole else ELSEWHERE)
    draw(facts, folder / "benchmark.png")
    with atomic_write(folder / "benchmark.json") as draft:
        draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts, f"{timing.described(about)}\n{timing.table(facts)}"


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks")
