"""Networks that come already trained: weights in srkit/weights/, each with a card that says how they came about.

`models.load("srresnet-small-x4")` gives one, without a download and without training. The weights are stored in half
precision, as safetensors, which hold numbers and nothing that could run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from srkit.errors import unknown

FOLDER = Path(__file__).parents[1] / "weights"


def names() -> list[str]:
    """What can be loaded: network and scale, e.g. "srresnet-small-x4"."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def card(name: str) -> dict[str, Any]:
    """How a network was trained and what it reaches: recipe, pictures, settings, device, PSNR and SSIM.

    Raises:
        SRKitError: no such network.
    """
    if name not in names():
        raise unknown("trained network", name, names())
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def load(name: str) -> nn.Module:
    """A trained network by its name, in eval mode on the CPU, in float32.

    Raises:
        SRKitError: no such network (the message says the nearest).
    """
    from srkit.models import build

    model = build(card(name)["recipe"])
    model.load_state_dict({key: value.float() for key, value in load_file(FOLDER / f"{name}.safetensors").items()})
    model.trained = True
    return model.eval()


def publish(model: nn.Module, name: str, facts: dict[str, Any]) -> Path:
    """Write a model's weights and its card, so that `load(name)` finds them; returns the path of the weights."""
    FOLDER.mkdir(exist_ok=True)
    half = {key: value.detach().cpu().to(torch.float16).contiguous() for key, value in model.state_dict().items()}
    (FOLDER / f"{name}.safetensors").write_bytes(save(half))
    text = json.dumps({"recipe": model.recipe, **facts}, indent=2)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return FOLDER / f"{name}.safetensors"
