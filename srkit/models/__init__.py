"""Every network of the course by name.

`create("srcnn915", scale=3)` makes a named preset; `build(recipe)` makes a model again from the plain
words and numbers that a checkpoint holds, so that a checkpoint needs nothing but itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from srkit.errors import SRKitError, unknown
from srkit.images import KERNELS
from srkit.models.foreign import ForeignSRResNet
from srkit.models.interpolation import Interpolation
from srkit.models.measures import count, count_parameters, multiply_adds, receptive_field
from srkit.models.srcnn import SRCNN
from srkit.models.srresnet import Discriminator, SRResNet
from srkit.models.superresnet import SuperResNet
from srkit.models.trained import load

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "SRCNN": SRCNN,
    "SuperResNet": SuperResNet,
    "SRResNet": SRResNet,
    "ForeignSRResNet": ForeignSRResNet,
    "Discriminator": Discriminator,
    "Interpolation": Interpolation,
}


@dataclass(frozen=True)
class Preset:
    """A network with a name: architecture, its arguments, and the training settings that suit it."""

    summary: str
    architecture: str
    arguments: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)  # fields of training.TrainConfig
    gan: bool = False  # trained against a discriminator: the fields are GANConfig's


# The workshop's (lesson 05): pictures of 288 pixels, the sum of 1/PSNR of all outputs, ten times VOC 2007's 4011.
WORKSHOP = {"steps": 2510, "batch_size": 16, "crop": 288, "learning_rate": 1e-3, "loss": {"psnr": 1.0}}

# A GAN of few steps finds PixelShuffle's grid before it finds textures; "nearest" costs as much and showed none.
SMALL = {"scale": 4, "channels": 48, "blocks": 8, "norm": False, "upsample": "nearest", "last_kernel": 3, "skip": True}

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
    "superresnet": Preset(
        "two conv3 with 64 filters, one output: the workshop's first (lesson 05)",
        "SuperResNet",
        {"scale": 2, "block": "plain", "channels": 64, "blocks": 1},
        {**WORKSHOP, "crop": 144},
    ),
    "superresnet-multi": Preset(
        "the same with a second output, four times as large as the input (lesson 05)",
        "SuperResNet",
        {"scale": 4, "block": "plain", "channels": 64, "blocks": 1},
        WORKSHOP,
    ),
    "superresnet-residual": Preset(
        "three residual blocks with 32 filters, the third between the outputs (lesson 05)",
        "SuperResNet",
        {"scale": 4, "block": "residual", "channels": 32, "blocks": 2, "between": 1},
        WORKSHOP,
    ),
    "superresnet-dilated": Preset(
        "three blocks with dilations 1, 2, 4 side by side, the third between the outputs (lesson 05)",
        "SuperResNet",
        {"scale": 4, "block": "dilated", "channels": 32, "blocks": 2, "between": 1},
        WORKSHOP,
    ),
    "superresnet-vgg": Preset(
        "superresnet-multi that also reads VGG-16's first four convolutions, frozen (lesson 05)",
        "SuperResNet",
        # relu1_2 has the input's resolution; relu2_2, the fourth convolution's answer, has half of it and sees further.
        {"scale": 4, "block": "plain", "channels": 64, "blocks": 1,
         "features": "vgg16", "feature_layers": ("relu1_2", "relu2_2"), "feature_weights": "imagenet"},
        WORKSHOP,
    ),
    "superresnet-clip": Preset(
        "superresnet-multi that also reads early layers of CLIP's ResNet-50, frozen (lesson 05)",
        "SuperResNet",
        # The stem halves and layer1 halves again. Of a picture enlarged by 2 they have the input's resolution and half
        # of it, just as VGG's two, and 72 pixels come nearer to the 224 that CLIP was trained on.
        {"scale": 4, "block": "plain", "channels": 64, "blocks": 1,
         "features": "clip", "feature_layers": ("stem", "layer1"), "feature_weights": "imagenet", "feature_scale": 2},
        WORKSHOP,
    ),
    "srresnet": Preset(
        "SRResNet with 16 blocks of 64 filters: the paper's, SRGAN's generator after its first stage (lesson 06)",
        "SRResNet",
        {"scale": 4},
        {"steps": 100_000, "batch_size": 16, "crop": 96, "learning_rate": 1e-4},
    ),
    "srresnet-small": Preset(
        "8 blocks of 48 filters without normalisation on a bicubic enlargement: for processors (lessons 06, 07)",
        "SRResNet",
        SMALL,
        # Without normalisation a higher rate, or longer gradients, can blow the weights up right after the warm-up.
        {"steps": 3000, "batch_size": 16, "crop": 96, "learning_rate": 7e-4, "warmup": 250, "schedule": "cosine",
         "clip": 0.02},
    ),
    "srgan": Preset(
        "srresnet, already trained, against a discriminator (lesson 06)",
        "SRResNet",
        {"scale": 4},
        {"steps": 100_000, "batch_size": 16, "crop": 96, "learning_rate": 1e-4},
        gan=True,
    ),
    "srgan-small": Preset(
        "srresnet-small, already trained, against a discriminator with half the filters (lesson 06)",
        "SRResNet",
        SMALL,
        {"steps": 1500, "batch_size": 16, "crop": 64, "learning_rate": 1e-4, "discriminator": 32,
         "discriminator_rate": 4.0, "discriminator_warmup": 150, "content": ("relu1_2", "relu2_2"), "ema": 0.99},
        gan=True,
    ),
}  # fmt: skip


def create(name: str, scale: int | None = None, **changes: Any) -> nn.Module:
    """Make a preset ("srcnn", "superresnet-residual", …) or an interpolation ("nearest", "bilinear", "bicubic").

    Args:
        name: the preset.
        scale: 2, 3 or 4, if the architecture can; the preset's own if not given, else 2.
        changes: arguments of the architecture that differ from the preset's.

    Raises:
        SRKitError: a name nobody knows (the message says the nearest), or arguments that don't fit.
    """
    if name in KERNELS:
        return build(
            {"name": name, "architecture": "Interpolation", "kernel": name, "scale": 2 if scale is None else scale}
        )
    if name not in PRESETS:
        raise unknown("model", name, [*PRESETS, *KERNELS])
    preset = PRESETS[name]
    arguments = {"scale": 2, **preset.arguments, **({} if scale is None else {"scale": scale}), **changes}
    return build({"name": name, "architecture": preset.architecture, **arguments})


def output_at(model: nn.Module, low: Tensor, scale: int | None = None) -> Tensor:
    """The model's output at one scale, its largest by default; of a model with several outputs, that one."""
    output = model(low)
    if isinstance(output, Tensor):
        return output
    return output[-1 if scale is None else model.scales.index(scale)]


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
    model.recipe = {key: str(value) if isinstance(value, Path) else value for key, value in recipe.items()}
    return model


def rebuild(model: nn.Module, **changes: Any) -> nn.Module:
    """The same weights under a changed recipe, e.g. rebuild(generator, frozen_norm=True) to fine-tune; a new model.

    Raises:
        SRKitError: the weights don't fit the changed recipe.
    """
    changed = build({**model.recipe, **changes})
    try:
        changed.load_state_dict(model.state_dict())
    except RuntimeError:
        wish = ", ".join(f"{name}={value}" for name, value in changes.items())
        raise SRKitError(f"these weights don't fit a {model.recipe['name']} with {wish}") from None
    changed.trained = getattr(model, "trained", False)
    return changed


__all__ = [
    "ARCHITECTURES",
    "PRESETS",
    "SRCNN",
    "Discriminator",
    "Interpolation",
    "Preset",
    "SRResNet",
    "SuperResNet",
    "build",
    "count",
    "count_parameters",
    "create",
    "load",
    "multiply_adds",
    "output_at",
    "rebuild",
    "receptive_field",
]
