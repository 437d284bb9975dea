"""The README's picture: the bundled astronaut by nearest, bilinear, bicubic and a trained model, beside the truth.

    uv run python -m benchmarks.reference CHECKPOINT

Writes figures/reference/comparison.jpg, a smaller copy of the 3600 x 3600 page, and its provenance beside it.
"""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from srkit import cli, figures, metrics, models
from srkit.banks import open_bank
from srkit.images import crop_to_multiple, degrade
from srkit.training import Trainer, load_model
from srkit.upscaling import upscale

PICTURE, WIDTH, FOLDER = "astronaut", 1200, Path("figures/reference")
PART = (178, 84, 96)  # the face: left, top, width


def main(checkpoint: str) -> None:
    model = load_model(checkpoint)
    scale = model.scale
    high = crop_to_multiple(dict(open_bank("bundled", "test"))[PICTURE], scale)
    methods = {name: models.create(name, scale) for name in ("nearest", "bilinear", "bicubic")} | {"SRCNN": model}
    pictures = {name: upscale(method, degrade(high, scale)) for name, method in methods.items()}
    facts = {
        "command": f"python -m benchmarks.reference {checkpoint}",
        "picture": PICTURE,
        "measured": {
            name: metrics.evaluate(method, [(PICTURE, high)], scale).to_dict() for name, method in methods.items()
        },
        **about(checkpoint),
    }
    publish(figures.comparison(pictures, high, PART, border=scale), "comparison", facts)


def about(checkpoint: str | Path) -> dict[str, Any]:
    """What `srkit inspect` says of a checkpoint, without the folders of one machine."""
    facts = cli.inspect(checkpoint)
    facts["data"]["source"] = Path(facts["data"]["source"]).name
    facts["hyper-parameters"]["feature_weights"] = Path(facts["hyper-parameters"]["feature_weights"]).name
    return facts


def training(trainer: Trainer) -> dict[str, Any]:
    """How a network was trained, for its card."""
    settings = {**asdict(trainer.config), "feature_weights": Path(trainer.config.feature_weights).name}
    return {
        "loss": trainer.loss.weights,
        "features": trainer.loss.note or getattr(trainer.model, "note", ""),
        "training": settings,
        "steps": trainer.step_number,
        "device": f"{trainer.device.type}, {trainer.precision}",
    }


def publish(page: Figure, name: str, facts: dict[str, Any], folder: Path = FOLDER) -> None:
    """Write FOLDER/NAME.jpg, a smaller copy of the page, and NAME.json, where it comes from."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    page.savefig(whole, dpi=figures.DPI)
    with Image.open(whole) as picture:
        size = (WIDTH, round(WIDTH * picture.height / picture.width))
        picture.convert("RGB").resize(size, Image.LANCZOS).save(folder / f"{name}.jpg", quality=88)
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
