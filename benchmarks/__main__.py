"""Every comparison of speed in one run: the textbook's way against srkit's, on this machine.

    uv run python -m benchmarks [--quick] [--only mse perceptual …] [--device cpu] [--json]

Prints each part's table, then one of all ratios. The whole run writes figures/reference/benchmark.json and .png; a run
with --quick or --only writes to runs/benchmark. The share of the matrix peak is given where arithmetic is what counts,
that of the memory bandwidth where the bytes that must be moved can be counted: in the pipeline. Elsewhere what is read
and written depends on what the caches hold, and a share would be a guess.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from benchmarks import gan, growth, mse, perceptual, pipeline, processes, upscaling
from benchmarks.measure import machine
from srkit.errors import unknown
from srkit.profiles import choose_device

REFERENCE, ELSEWHERE = Path("figures/reference"), Path("runs/benchmark")
COMPARISONS = {"mse": mse, "perceptual": perceptual, "gan": gan, "pipeline": pipeline}
PARTS = (*COMPARISONS, "upscaling", "processes", "growth")


@dataclass
class Options:
    """Measure the textbook's way against srkit's in everything that takes time."""

    only: tuple[str, ...] = PARTS
    """Some of the parts."""
    quick: bool = False
    """A look at whether it runs, within a minute or so: the numbers mean little."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    json: bool = False
    """Print JSON and nothing else."""
    out: Path | None = None
    """Where benchmark.json and benchmark.png go."""


def measure(part: str, options: Options, about: dict) -> tuple[dict, str]:
    """One part's facts, and its table."""
    device = about["device"]
    if part in COMPARISONS:
        comparison = COMPARISONS[part].COMPARISON
        settings = replace(comparison.defaults, device=device)
        if options.quick:
            settings = replace(settings, batch_sizes=(2,), steps=2, rounds=1, files=4)
        facts = comparison.compare(settings, about)
        return facts, comparison.table(facts)
    if part == "growth":
        few = {"batch_sizes": (1, 2), "sides": (60, 120), "pictures": (10, 100), "steps": 1} if options.quick else {}
        facts = growth.compare(growth.Options(device=device, **few), about)
        return facts, growth.table(facts)
    if part == "upscaling":
        few = {"megapixels": (0.25,), "rounds": 1} if options.quick else {}
        facts = upscaling.compare(upscaling.Options(device=device, **few))
        return facts, upscaling.table(facts)
    few = {"batch_size": 1, "steps": 2, "rounds": 1} if options.quick else {}
    facts = processes.compare(processes.Options(**few))
    return facts, processes.table(facts)


def ratios(parts: dict[str, dict]) -> list[dict]:
    """One row for each comparison with the textbook, from the facts of the parts.

    Returns:
        what: in words; unit; textbook and srkit: in that unit; ratio; share: srkit's, of the machine's best, which
        `of` names; the last two None where nothing can be said.
    """
    titles = {"mse": "MSE step", "perceptual": "perceptual step", "gan": "GAN step", "pipeline": "data pipeline"}
    rows = []
    for part in (part for part in COMPARISONS if part in parts):
        for row in parts[part]["rows"]:
            first, *others = COMPARISONS[part].COMPARISON.sides
            for side in others:
                one, words = row[side], side.removeprefix("srkit").strip()
                share = next((name for name in ("share_of_bandwidth", "share_of_bf16_peak") if name in one), None)
                rows.append(
                    {
                        "what": f"{titles[part]}{', ' + words if words else ''}, batch {row['batch_size']}",
                        "unit": "pictures/s",
                        "textbook": row[first]["pictures_per_second"],
                        "srkit": one["pictures_per_second"],
                        "ratio": one["ratio"],
                        "share": one[share] if share else None,
                        "of": {"share_of_bandwidth": "memory bandwidth", "share_of_bf16_peak": "bf16 matrix peak"}.get(
                            share
                        ),
                    }
                )
    for row in parts.get("upscaling", {}).get("rows", ()):
        if row["ratio"]:
            rates = {"textbook": row["textbook"], "srkit": row["tiles"]}
            rows.append(
                {
                    "what": f"upscaling, {row['megapixels']:g} MP",
                    "unit": "megapixels/s",
                    **{side: found["megapixels_per_second"] for side, found in rates.items()},
                    **{"ratio": row["ratio"], "share": None, "of": None},
                }
            )
    return rows


def summary(parts: dict[str, dict]) -> str:
    """The table of all ratios."""
    lines = [f"{'':44}{'textbook':>10}{'srkit':>10}  {'unit':14}{'ratio':>6}   srkit's share"]
    for row in ratios(parts):
        share = f"{row['share']:6.0%} of the {row['of']}" if row["share"] is not None else ""
        rates = f"{row['textbook']:10.2f}{row['srkit']:10.2f}  {row['unit']:14}"
        lines.append(f"{row['what']:44}{rates}{row['ratio']:6.2f}   {share}")
    if "processes" in parts:
        found = parts["processes"]
        lines.append(
            f"two processes together: {found['of_ceiling']:.2f} of two that exchange nothing, "
            f"{found['per_process']:.2f} of one alone in each"
        )
    return "\n".join(lines)


def draw(facts: dict, path: Path) -> None:
    """The ratios as bars, and how a step's time grows; 1200 pixels wide."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    rows, curves = ratios(facts["parts"]), facts["parts"].get("growth", {}).get("curves", {})
    height = 1.2 + 0.42 * max(len(rows), 1)
    fig = Figure(figsize=(12, height + (4.2 if curves else 0)), dpi=100, facecolor="white", layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=[height, 4.2]) if curves else (fig, None)
    ax = top.subplots()
    bars = ax.barh([row["what"] for row in rows], [row["ratio"] for row in rows], color="#3b75af")
    labels = [
        f"{row['ratio']:.2f}   ({_rate(row['textbook'])} → {_rate(row['srkit'])} {row['unit']})"
        + (f", {row['share']:.0%} of the {row['of']}" if row["share"] is not None else "")
        for row in rows
    ]
    ax.bar_label(bars, labels, padding=4, fontsize=11)
    ax.axvline(1, color="black", linewidth=0.8, linestyle="--")
    ax.set_xlim(0, 2.2 * max((row["ratio"] for row in rows), default=1))
    ax.set_xlabel("times as fast as the textbook's way (dashed: as fast)", fontsize=11)
    ax.tick_params(labelsize=11)
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    about = facts["machine"]
    ax.set_title(
        f"{about.get('gpu', about['cpu'])}, {about['threads']} threads, torch {about['torch']}", loc="left", fontsize=12
    )
    for ax, (axis, points) in zip(bottom.subplots(1, 3, sharey=True) if curves else (), curves.items(), strict=True):
        x, y = ([point[name] for point in points] for name in (axis, "seconds"))
        ax.loglog(x, y, "o-", color="#3b75af")
        ax.set_xticks(x, [str(value) for value in x], minor=False)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.set_xlabel(growth.AXES[axis], fontsize=11)
        slope = facts["parts"]["growth"]["exponents"][axis]
        ax.set_title(f"grows with the power {slope:.2f}", fontsize=11)
        ax.grid(alpha=0.3)
        if axis == "batch_size":
            ax.set_ylabel("seconds of an MSE step", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path)


def _rate(value: float) -> str:
    """With three digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> None:
    """The command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks")
    for part in options.only:
        if part not in PARTS:
            raise SystemExit(str(unknown("part", part, PARTS)))
    about = machine(choose_device(options.device).type)
    parts = {}
    for part in options.only:
        print(f"{part} …", file=sys.stderr, flush=True)
        parts[part], text = measure(part, options, about)
        if not options.json:
            say(text + "\n")
    facts = {
        "command": shlex.join(["python", "-m", "benchmarks", *arguments]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": about,
        "ratios": ratios(parts),
        "parts": {name: {key: value for key, value in one.items() if key not in about} for name, one in parts.items()},
    }
    whole = set(options.only) == set(PARTS) and not options.quick
    folder = options.out or (REFERENCE if whole else ELSEWHERE)
    draw(facts, folder / "benchmark.png")
    (folder / "benchmark.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    say(json.dumps(facts, indent=2) if options.json else summary(parts))


if __name__ == "__main__":
    main()
