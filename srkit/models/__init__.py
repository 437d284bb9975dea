"""Every network of the course by name.

`create("srcnn915", scale=3)` makes a named preset; `build(recipe)` makes a model again from the plain
words and numbers that a checkpoint holds, so that a checkpoint needs nothing but itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from srkit.errors import SRKitError, unknown
from srkit.images import KERNELS
from srkit.models.interpolation import Interpolation
from srkit.models.srcnn import SRCNN

ARCHITECTURES: dict[str, type[nn.Module]] = {"SRCNN": SRCNN, "Interpolation": Interpolation}


@dataclass(frozen=True)
class Preset:
    """A network with a name: architecture, its arguments, and the training settings that suit it."""

    summary: str
    architecture: str
    arguments: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)  # fields of training.TrainConfig


PRESETS: dict[str, Preset] = {
    "srcnn": Preset(
        "SRCNN 9-5-5 with 64-32-3 filters on a bilinear enlargement: the course's own (lessons 02, 03)",
        "SRCNN",
        {"kernels": (9, 5, 5), "channels": (64, 32), "upsample": "bilinear", "carry": True},
        {"steps": 4000, "batch_size": 16, "crop": 72, "learning_rate": 1e-3, "warmup": 200},
    ),
    "srcnn915": Preset(
        "SRCNN 9-1-5 with 64-32-3 filters on a bicubic enlargement: the paper's first (lesson 03)",
        "SRCNN",
        {"kernels": (9, 1, 5), "channels": (64, 32), "upsample": "bicubic", "carry": True},
        {"steps": 12_000, "batch_size": 16, "crop": 72, "learning_rate": 1.5e-3, "warmup": 200},
    ),
}


def create(name: str, scale: int = 2, **changes: Any) -> nn.Module:
    """Make a preset ("srcnn", "srcnn915") or an interpolation ("nearest", "bilinear", "bicubic").

    Args:
        name: the preset.
        scale: 2, 3 or 4.
        changes: arguments of the architecture that differ from the preset's.

    Raises:
        SRKitError: a name nobody knows (the message says the nearest), or arguments that don't fit.
    """
    if name in KERNELS:
        return build({"name": name, "architecture": "Interpolation", "kernel": name, "scale": scale})
    if name not in PRESETS:
        raise unknown("model", name, [*PRESETS, *KERNELS])
    preset = PRESETS[name]
    return build({"name": name, "architecture": preset.architecture, **preset.arguments, "scale": scale, **changes})


def build(recipe: dict[str, Any]) -> nn.Module:
    """Make a model from its recipe, the flat dict that `model.recipe` holds.

    Args:
        recipe: "name", "architecture" and the architecture's arguments.

    Raises:
        SRKitError: an unknown architecture, or arguments that it does not take.
    """
    arguments = {key: value for key, value in recipe.items() if key not in ("name", "architecture")}
    architecture = recipe.get("architecture")
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    try:
        model = ARCHITECTURES[architecture](**arguments)
    except TypeError as error:
        raise SRKitError(f"{architecture} cannot be built: {error}") from None
    model.recipe = dict(recipe)
    return model


def count_parameters(model: nn.Module) -> int:
    """How many numbers training can change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


__all__ = ["ARCHITECTURES", "PRESETS", "SRCNN", "Interpolation", "Preset", "build", "count_parameters", "create"]
