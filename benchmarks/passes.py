"""What a network makes of its own output: srcnn915-x3 applied again and again, by BRISQUE, SSIM and PSNR.

    uv run --extra quality python -m benchmarks.passes --data my/photos

The network's three convolutions run on the enlarged picture, so they can run on their own output, too. PSNR and SSIM
ask how near a picture is to its ground truth. BRISQUE, without one, asks whether its statistics look natural, and what
is sharpened until it breaks may look so for a while. Writes the table's figures and the first picture's page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from torch import Tensor

from benchmarks import timing
from benchmarks.timing import Facts
from srkit import figures, metrics, models
from srkit.data import load_dataset
from srkit.data.images import crop_to_multiple, degrade
from srkit.models import SRCNN
from srkit.settings import atomic_write

NETWORK, SCALE = "srcnn915-x3", 3


@dataclass(kw_only=True)
class Options(timing.Options):
    """Apply srcnn915-x3 to its own output, and measure every pass."""

    data: str = "bundled"  # a data set or a folder
    count: int = 10  # pictures
    passes: int = 4
    out: Path = Path("runs/passes")


def run(options: Options) -> tuple[Facts, str]:
    """The means over the pictures, and the page."""
    model = models.load(NETWORK)
    assert isinstance(model, SRCNN)
    names = ["reference", "interpolated", *(f"pass {number}" for number in range(1, options.passes + 1))]
    measures, remark = metrics.available(["brisque"])
    rows: dict[str, list[metrics.Row]] = {name: [] for name in names}
    shown: dict[str, Tensor] = {}
    for picture, high in islice(load_dataset(options.data, "all"), options.count):
        high = crop_to_multiple(high, SCALE)[None]
        found = dict(zip(names, [high, *model.passes(degrade(high, SCALE), options.passes)], strict=True))
        shown = shown or {name: output[0] for name, output in found.items()}
        for name, output in found.items():
            rows[name] += metrics.measure(output, high, [picture], SCALE, measures)
    tables = {name: metrics.Table(SCALE, measured) for name, measured in rows.items()}
    facts: Facts = {
        "command": f"python -m benchmarks.passes --data {options.data} --count {options.count}",
        "network": NETWORK,
        "tables": {name: table.to_dict() for name, table in tables.items()},
    }
    page = options.out / "passes.png"
    with atomic_write(page) as draft:
        figures.scored(shown, {name: measured[0] for name, measured in rows.items()}, remark).savefig(draft)
    with atomic_write(page.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"{name:14}" + "  ".join(f"{measure} {value:.4g}" for measure, value in table.figures.items())
        for name, table in tables.items()
    ]
    return facts, "\n".join([*lines, *([remark] if remark else []), str(page)])


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.passes")
