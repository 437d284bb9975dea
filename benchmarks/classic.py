"""The classic benchmark: train a preset on T91 as it comes, measure it on Set5, over several seeds.

    uv run python -m benchmarks.classic [--model srcnn915] [--scale 3] [--seeds 0 1 2] [--out runs/classic] [--json]

Seeds already trained in OUT are only measured again; a training that was stopped goes on. --publish writes the
README's first picture, figures/reference/comparison.jpg, by the median seed, and its provenance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import torch

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import metrics, models
from srkit.data import load_dataset
from srkit.settings import choose_device
from srkit.training import TrainConfig, Trainer

PICTURE, FACE = "astronaut", (178, 84, 96)


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train a preset on T91 and measure it on Set5, over several seeds."""

    model: str = "srcnn915"  # a preset; its own training settings are used
    scale: int = 3  # 2, 3 or 4
    seeds: tuple[int, ...] = (0, 1, 2)  # one training each
    steps: int | None = None  # of each training; the preset's if not given
    train_data: str = "t91"  # a data set or a folder
    test_data: str = "set5"  # a data set or a folder
    publish: bool = False  # write the README's first picture
    out: Path = Path("runs/classic")  # where the checkpoints go


def train(options: Options, seed: int) -> Trainer:
    """One training to its end, or on from where it was stopped."""
    config = TrainConfig(**{**models.PRESETS[options.model].training, "seed": seed})
    config = replace(config, steps=options.steps or config.steps)
    torch.manual_seed(seed)
    model = models.create(options.model, options.scale)
    dataset = load_dataset(options.train_data, "train", val=0, test=0, device=choose_device())
    out = options.out / f"{options.model}-x{options.scale}-seed{seed}"
    return published.train(Trainer(model, dataset, config, out=out), not options.json)


def run(options: Options) -> tuple[Facts, str]:
    """Every seed's training, and what it reaches."""
    test, scale = load_dataset(options.test_data, "all"), options.scale
    bicubic = metrics.evaluate(models.create("bicubic", scale), test)
    trainers, rows = {}, {}
    for seed in options.seeds:
        trainers[seed] = trainer = train(options, seed)
        found = published.measured(metrics.evaluate(trainer.result, test))
        rows[str(seed)] = {"steps": trainer.step_number, "seconds": trainer.seconds, **found}
    scores = [row["psnr"] for row in rows.values()]
    facts = {
        **{"model": options.model, "scale": scale, "bicubic": bicubic.psnr},
        **{"psnr": mean(scores), "spread": stdev(scores) if len(scores) > 1 else 0.0, "seeds": rows},
    }
    if options.publish:
        middle = sorted(trainers, key=lambda seed: rows[str(seed)]["psnr"])[len(scores) // 2]
        methods = published.interpolations(scale, ("nearest", "bilinear", "bicubic"))
        methods["SRCNN"] = trainers[middle].result.cpu()
        pages = published.comparison(methods, PICTURE, FACE, scale)
        provenance = {
            "command": "python -m benchmarks.classic",
            "picture": PICTURE,
            **published.about(trainers[middle]),
        }
        published.publish(pages, "comparison", {**provenance, "measured": pages.scores})
    title = (
        f"{options.model} x{scale}, {options.train_data} → {options.test_data}, bicubic {bicubic.psnr:.2f} dB; by seed"
    )
    mean_line = f"mean {facts['psnr']:.2f} ± {facts['spread']:.2f} dB"
    return facts, "\n".join([title, published.table(rows), mean_line])


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.classic")
