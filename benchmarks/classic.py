"""The classic benchmark: train a preset on T91 as it comes, measure it on Set5, over several seeds.

    uv run python -m benchmarks.classic [--model srcnn915] [--scale 3] [--seeds 0 1 2] [--out runs/classic] [--json]

Seeds already trained in OUT are only measured again; a training that was stopped goes on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import torch
import tyro

from srkit import metrics, models
from srkit.banks import open_bank
from srkit.training import TrainConfig, Trainer


@dataclass
class Options:
    """Train a preset on T91 and measure it on Set5, over several seeds."""

    model: str = "srcnn915"
    """A preset; its own training settings are used."""
    scale: int = 3
    """2, 3 or 4."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training each."""
    train_data: str = "t91"
    """A data set or a folder."""
    test_data: str = "set5"
    """A data set or a folder."""
    out: Path = Path("runs/classic")
    """Where the checkpoints go."""
    json: bool = False
    """Print JSON and nothing else."""


def train(options: Options, seed: int) -> Trainer:
    """One training to its end, or on from where it was stopped."""
    config = replace(TrainConfig(**models.PRESETS[options.model].training), seed=seed)
    out = options.out / f"{options.model}-x{options.scale}-seed{seed}"
    if (out / "last.pt").exists():
        trainer = Trainer.resume(out / "last.pt", **asdict(config))
    else:
        torch.manual_seed(seed)
        model = models.create(options.model, options.scale)
        bank = open_bank(options.train_data, "train", val=0, test=0)
        trainer = Trainer(model, bank, config, out=out)
    trainer.fit(progress=not options.json)
    return trainer


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.classic")
    test = open_bank(options.test_data, "all")
    bicubic = metrics.evaluate(models.create("bicubic", options.scale), test, options.scale)
    rows = []
    for seed in options.seeds:
        trainer = train(options, seed)
        table = metrics.evaluate(trainer.result, test, options.scale)
        row = {"seed": seed, "steps": trainer.step_number, "seconds": trainer.seconds, "psnr": table.psnr}
        rows.append({**row, "ssim": table.ssim})
    scores = [row["psnr"] for row in rows]
    facts = {
        "benchmark": "classic",
        **{"model": options.model, "scale": options.scale, "bicubic": bicubic.psnr},
        **{"psnr": mean(scores), "spread": stdev(scores) if len(scores) > 1 else 0.0, "rows": rows},
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    print(
        f"{options.model} x{options.scale}, {options.train_data} → {options.test_data}, bicubic {bicubic.psnr:.2f} dB"
    )
    print("seed  steps  seconds  PSNR / dB    SSIM")
    for row in rows:
        print(f"{row['seed']:4}  {row['steps']:5}  {row['seconds']:7.0f}  {row['psnr']:9.2f}  {row['ssim']:.4f}")
    print(f"mean {facts['psnr']:24.2f}  ± {facts['spread']:.2f}")


if __name__ == "__main__":
    main()
