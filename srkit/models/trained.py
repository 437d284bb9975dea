"""Networks that come already trained: weights in srkit/weights/, each with a card that says how they came about.

`models.load("srresnet-small-x4")` gives one, without a download and without training. The weights are stored in half
precision, as safetensors, which hold numbers and nothing that could run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from srkit.errors import unknown

FOLDER = Path(__file__).parents[1] / "weights"


def names(folder: Path = FOLDER) -> list[str]:
    """What can be loaded: network and scale, e.g. "srresnet-small-x4"."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """How a network was trained and what it reaches: recipe, pictures, settings, device, PSNR and SSIM.

    Raises:
        SRKitError: no such network.
    """
    if name not in names(folder):
        raise unknown("trained network", name, names(folder))
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def load(name: str, folder: Path = FOLDER) -> nn.Module:
    """A trained network by its name, in eval mode on the CPU, in float32.

    Raises:
        SRKitError: no such network (the message says the nearest).
    """
    from srkit.models import build

    model = build(card(name, folder)["recipe"])
    model.load_state_dict({key: value.float() for key, value in load_file(folder / f"{name}.safetensors").items()})
    model.trained = True
    return model.eval()


def publish(
    model: nn.Module, name: str, facts: dict[str, Any], folder: Path = FOLDER, dtype: torch.dtype = torch.float16
) -> None:
    """Write a model's weights, rounded to `dtype`, and its card, so that `load(name, folder)` finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {key: value.detach().cpu().to(dtype).contiguous() for key, value in model.state_dict().items()}
    text = json.dumps({"recipe": model.recipe, **facts}, indent=2)
    for file, content in ((f"{name}.json", text.encode() + b"\n"), (f"{name}.safetensors", save(rounded))):
        draft = folder / f"{file}.part"
        draft.write_bytes(content)
        os.replace(draft, folder / file)  # whoever loads meanwhile finds a whole file
