"""Publish a style that `srkit train style` has trained: weights, card and picture, into srkit/weights/styles/.

    srkit train style --style brushes.jpg --data FOLDER --size 200 --out runs/brushes
    python -m benchmarks.style runs/brushes/last.pt --by "…" --licence "CC BY 4.0" --page https://…

The card's figures are of photographs that the training has not seen: the two terms relative to their own size, for the
painted photograph, and for the photograph as it is.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from tyro.conf import Positional

from srkit import losses, models
from srkit.data import load_dataset
from srkit.models import pretrained
from srkit.training import TrainConfig, checkpoint

HELD_OUT = 12  # photographs


@dataclass
class Options:
    """Publish a trained style."""

    # The checkpoint of srkit train style; the style is called as its folder.
    path: Positional[Path]
    # Who made the style's picture.
    by: str
    # Its licence.
    licence: str
    # Where it is described.
    page: str
    # What the photographs of the training are called; their folder's name if not given.
    pictures: str | None = None
    # Where the style goes.
    out: Path = pretrained.STYLES


@torch.no_grad()
def measure(model: torch.nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """The loss network, and both terms, over photographs of the test split, painted and as they are."""
    config = replace(TrainConfig(**state["config"]), loss={"content": 1.0, "style": 1.0})
    loss = losses.create(**config.loss_settings())
    pictures = load_dataset(**{**state["dataset"], "split": "test"})
    highs = [high[None] for _, high in (pictures[index] for index in range(min(HELD_OUT, len(pictures))))]
    found = {}
    for name, paint in {"painted": model, "photograph": torch.nn.Identity()}.items():
        terms = [loss.measure(paint(high), high) for high in highs]
        found[name] = {term: round(torch.stack([one[term] for one in terms]).mean().item(), 3) for term in terms[0]}
    return {"loss network": loss.describe(), "measured": found}


def main(options: Options) -> None:
    """Publish, and print what the card says."""
    state, model = checkpoint.load(options.path), models.load(options.path)
    name, style = options.path.parent.name, Path(state["config"]["style"])
    facts = {
        **{"by": options.by, "licence": options.licence, "page": options.page},
        "trained on": f"{options.pictures or state['dataset']['source']}; fingerprint {state['fingerprint']}",
        "patch_size": state["config"]["patch_size"],
        **{"steps": state["step"], "seconds": round(state["seconds"]), "loss": state["config"]["loss"]},
        **measure(model, state),
    }
    path = pretrained.publish(model, name, facts, options.out)
    shutil.copyfile(style, path.with_suffix(".jpg"))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB\n{pretrained.card(name, options.out)}")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.style"))
