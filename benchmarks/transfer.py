"""What fine-tuning buys: a trained x4 network goes on, on a small domain, with and without warped pictures.

    uv run python -m benchmarks.transfer --start CHECKPOINT [--data FOLDER or domains] [--feature-weights FILE] [--json]

Measured before and after on pictures that nobody trained on or chose by, and compared picture by picture. Fine-tuned on
the MSE with batch normalisation frozen; of all validations the one with the smallest distance in VGG-19's deepest layer
is kept, the start among them. `srkit.domains` says why the figures of the three bundled domains are optimistic: their
train, val and test are regions of one picture. Stopped, it goes on where it stood. Writes transfer.jpg and its
provenance into figures/reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from torch import nn

from benchmarks.reference import publish
from srkit import cli, domains, figures, finetuning, losses, metrics, models
from srkit.banks import Bank, open_bank
from srkit.finetuning import FineTuner
from srkit.images import crop_to_multiple, degrade
from srkit.profiles import choose_device
from srkit.training import TrainConfig, checkpoint, load_model
from srkit.upscaling import upscale


@dataclass
class Options:
    """Fine-tune a trained network on small domains, with and without warps, and compare picture by picture."""

    start: str = "srresnet-small-x4"
    """The trained network: a name that comes with srkit, or a checkpoint."""
    data: tuple[str, ...] = tuple(domains.DOMAINS)
    """Bundled domains, or folders of pictures, or names that `srkit data` lists."""
    size: int = 256
    """Side that pictures of a folder are made; a bundled domain keeps its own pixels."""
    feature_weights: str = "imagenet"
    """Weights of VGG-19: imagenet, a file, or random."""
    second_weights: str | None = None
    """Weights of SqueezeNet, on which nothing is chosen: imagenet, or a file."""
    warp: float = 0.5
    """Strength of the warps, in the training that has them."""
    steps: int = 240
    batch_size: int = 8
    crop: int = 96
    learning_rate: float = 1e-4
    loss: str = "mse"
    out: Path = Path("runs/transfer")
    json: bool = False


def banks_of(options: Options, data: str, warp: float | None) -> dict[str, Bank]:
    """Pictures to train on, to choose by and to report."""
    device = choose_device()
    if data in domains.DOMAINS:
        folder = domains.cut(data)
        return {
            part: open_bank(folder / part, "all", device=device, warp=warp if part == "train" else None)
            for part in ("train", "val", "test")
        }
    return {
        part: open_bank(data, part, size=options.size, device=device, warp=warp if part == "train" else None)
        for part in ("train", "val", "test")
    }


def tune(options: Options, start: nn.Module, data: str, judge: losses.WeightedLoss, name: str) -> FineTuner:
    """Fine-tune on one domain: "plain" crops, "flips" of them, or "warp": flipped and warped."""
    banks = banks_of(options, data, options.warp if name == "warp" else None)
    config = TrainConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        crop=options.crop,
        loss={options.loss: 1.0},
        learning_rate=options.learning_rate,
        warmup=20,
        schedule="cosine",
        ema=0.98,
        augment=name != "plain",
        val_freq=max(1, options.steps // 8),
        save_freq=max(1, options.steps // 8),
    )
    out = options.out / Path(data).name / name
    trainer = FineTuner(start, banks["train"], config, validation=banks["val"], judge=judge, out=out).pick_up()
    trainer.fit()
    return trainer


def domain(options: Options, start: nn.Module, data: str, judge: losses.WeightedLoss) -> dict[str, Any]:
    """Everything that is measured on one domain."""
    test = banks_of(options, data, None)["test"]
    before = metrics.evaluate(start.to(choose_device()), test, start.scale, judge)
    bicubic = metrics.evaluate(models.create("bicubic", start.scale).to(choose_device()), test, start.scale, judge)
    tuned, pairs, last = {}, {}, {}
    for name in ("plain", "flips", "warp"):
        tuned[name] = trainer = tune(options, start, data, judge, name)
        end = load_model(trainer.out / "last.pt").to(trainer.device)
        pairs[name] = metrics.paired(before, metrics.evaluate(trainer.result, test, start.scale, judge))
        last[name] = metrics.paired(before, metrics.evaluate(end, test, start.scale, judge))
    return {"test": test, "bicubic": bicubic, "before": before, "tuned": tuned, "pairs": pairs, "last": last}


def row_of(found: dict[str, Any], start: nn.Module) -> list:
    """Before, after and truth of the test picture with the most detail: a choice that knows nothing of the result."""
    high = max((picture for _, picture in found["test"]), key=lambda picture: losses.tv(picture[None], picture[None]))
    high = crop_to_multiple(high, start.scale)
    low = degrade(high, start.scale)
    return [*(upscale(model, low).cpu() for model in (start, found["tuned"]["warp"].result)), high.cpu()]


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.transfer")
    start = cli.load(options.start)
    judge = finetuning.judge(options.feature_weights, second=options.second_weights)
    results = {Path(data).name: domain(options, start, data, judge) for data in options.data}
    shown = losses.create({"relu2_2": 1.0}, "vgg19", options.feature_weights)
    rows = [row_of(found, start) for found in results.values()]
    steps = ", ".join(f"{name} {found['tuned']['warp'].best_step}" for name, found in results.items())
    footer = f"the test picture with the most detail of each; steps with warps that the judge kept: {steps}"
    page = figures.grid(rows, ("before", "after", "ground truth"), footer=footer, border=start.scale, loss=shown)
    facts = {
        "command": "python -m benchmarks.transfer",
        "start": start.recipe | {"weights_sha256": checkpoint.weights_sha256(start.state_dict())},
        "features": judge.note,
        "settings": _settings(options),
        "domains": {
            name: {
                "train": str(found["tuned"]["plain"].bank),
                "test": str(found["test"]),
                "bicubic": _means(found["bicubic"]),
                "before": _means(found["before"]),
                **{
                    arm: {
                        "best step": trainer.best_step,
                        "steps": trainer.step_number,
                        "seconds": trainer.seconds,
                        "paired": _changes(found["pairs"][arm]),
                        "without a judge": _changes(found["last"][arm]),
                        "table": str(found["pairs"][arm]).splitlines(),
                        "validation": [row for row in trainer.history.rows if "val/dB" in row],
                        "weights_sha256": checkpoint.weights_sha256(trainer.result.state_dict()),
                    }
                    for arm, trainer in found["tuned"].items()
                },
            }
            for name, found in results.items()
        },
        "shown": page.scores,
    }
    publish(page, "transfer", facts)
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    print(judge.note)
    for name, found in results.items():
        print(f"\n{name}: {found['test']}\nbicubic {_means(found['bicubic'])}")
        for arm, pair in found["pairs"].items():
            trainer = found["tuned"][arm]
            print(f"\n{name}, {arm}: best after {trainer.best_step} of {trainer.step_number} steps\n{pair}")
            print(f"without a judge, after the last step\n{str(found['last'][arm]).split(chr(10) * 2)[0]}")


def _settings(options: Options) -> dict[str, Any]:
    """The options, without the folders of one machine."""
    names = ("start", "feature_weights", "second_weights", "data")
    words = {name: value for name, value in vars(options).items() if name not in (*names, "out", "json")}
    return words | {"start": Path(options.start).name, "data": [Path(data).name for data in options.data]}


def _changes(pair: metrics.Paired) -> dict[str, Any]:
    return {name: value for name, value in pair.to_dict().items() if name != "pictures"}


def _means(table: metrics.Table) -> dict[str, float]:
    return {"psnr": table.psnr, "psnr_of_mean": table.psnr_of_mean, "ssim": table.ssim, **table.terms}


if __name__ == "__main__":
    main()
