"""Every network of the course by name.

`create("srcnn915", scale=3)` makes a named preset; `build(config)` makes a model again from the plain words and
numbers that a checkpoint holds, so that a checkpoint needs nothing but itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from srkit.data.images import KERNELS, check_scale, resize
from srkit.models.efficient import EfficientSR
from srkit.models.srcnn import SRCNN
from srkit.models.srresnet import Discriminator, SRResNet
from srkit.models.superresnet import SuperResNet
from srkit.settings import SRKitError, unknown

MOST_PARAMETERS = 200_000_000  # that a config from a file may ask for
LARGEST_NUMBER = 2048  # in such a config


class Interpolation(nn.Module):
    """Enlarging without learning, as a model without parameters: what every network has to beat.

    Args:
        scale: 2, 3 or 4.
        kernel: "nearest", "bilinear" or "bicubic".

    Raises:
        SRKitError: another scale or kernel.
    """

    def __init__(self, scale: int = 2, kernel: str = "bicubic") -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise unknown("kernel", kernel, KERNELS)
        self.scale, self.kernel = check_scale(scale), kernel

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale * H, scale * W)."""
        return resize(low, scale=self.scale, kernel=self.kernel)


NETWORKS = (SRCNN, SuperResNet, SRResNet, EfficientSR, Discriminator, Interpolation)
ARCHITECTURES: dict[str, type[nn.Module]] = {network.__name__: network for network in NETWORKS}


@dataclass(frozen=True)
class Preset:
    """A network with a name: architecture, its arguments, and the training settings that suit it."""

    summary: str
    architecture: str
    arguments: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)  # fields of training.TrainConfig
    gan: bool = False  # trained against a discriminator: the fields are GANConfig's


# The workshop's (lesson 05): pictures of 288 pixels, the sum of 1/PSNR of all outputs, ten times VOC 2007's 4011.
WORKSHOP = {"steps": 2510, "batch_size": 16, "patch_size": 288, "lr": 1e-3, "loss": {"psnr": 1.0}}

# A GAN of few steps finds PixelShuffle's grid before it finds textures; "nearest" costs as much and showed none.
SMALL = {"scale": 4, "channels": 48, "blocks": 8, "norm": False, "upsample": "nearest", "last_kernel": 3, "skip": True}

PRESETS: dict[str, Preset] = {
    "srcnn": Preset(
        "SRCNN 9-5-5 with 64-32-3 filters on a bilinear enlargement: the course's own (lessons 02, 03)",
        "SRCNN",
        {"kernels": (9, 5, 5), "channels": (64, 32), "upsample": "bilinear", "carry": True},
        {"steps": 4000, "batch_size": 16, "patch_size": 72, "lr": 1e-3, "warmup": 200},
    ),
    "srcnn915": Preset(
        "SRCNN 9-1-5 with 64-32-3 filters on a bicubic enlargement: the paper's first (lesson 03)",
        "SRCNN",
        {"kernels": (9, 1, 5), "channels": (64, 32), "upsample": "bicubic", "carry": True},
        {"steps": 12_000, "batch_size": 16, "patch_size": 72, "lr": 1.5e-3, "warmup": 200},
    ),
    "superresnet": Preset(
        "two conv3 with 64 filters, one output: the workshop's first (lesson 05)",
        "SuperResNet",
        {"scale": 2, "block": "plain", "channels": 64, "blocks": 1},
        {**WORKSHOP, "patch_size": 144},
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
        # relu1_2 has the input's resolution; relu2_2, the fourth convolution's output, has half of it and more context.
        {"scale": 4, "block": "plain", "channels": 64, "blocks": 1,
         "features": "vgg16", "feature_layers": ("relu1_2", "relu2_2"), "feature_weights": "imagenet"},
        WORKSHOP,
    ),
    "superresnet-clip": Preset(
        "superresnet-multi that also reads early layers of CLIP's ResNet-50, frozen (lesson 05; needs timm)",
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
        {"steps": 100_000, "batch_size": 16, "patch_size": 96, "lr": 1e-4},
    ),
    "srresnet-small": Preset(
        "8 blocks of 48 filters without normalisation on a bicubic enlargement: for processors (lessons 06, 07)",
        "SRResNet",
        SMALL,
        # Without normalisation a higher rate, or longer gradients, can blow the weights up right after the warm-up.
        {"steps": 3000, "batch_size": 16, "patch_size": 96, "lr": 7e-4, "warmup": 250, "schedule": "cosine",
         "clip": 0.02},
    ),
    "efficient": Preset(
        "8 blocks of 32 filters at the input's size, added to bicubic: small and fast, what upscale takes by default",
        "EfficientSR",
        {"scale": 4, "channels": 32, "blocks": 8, "expand": False},
        {"steps": 6000, "batch_size": 16, "patch_size": 96, "lr": 1e-3, "schedule": "cosine"},
    ),
    "srgan": Preset(
        "srresnet, already trained, against a discriminator (lesson 06)",
        "SRResNet",
        {"scale": 4},
        {"steps": 100_000, "batch_size": 16, "patch_size": 96, "lr": 1e-4},
        gan=True,
    ),
    "srgan-small": Preset(
        "srresnet-small, already trained, against a discriminator with half the filters (lesson 06)",
        "SRResNet",
        SMALL,
        {"steps": 1500, "batch_size": 16, "patch_size": 64, "lr": 1e-4, "discriminator": 32, "discriminator_lr": 4.0,
         "discriminator_warmup": 150, "content": ("relu1_2", "relu2_2"), "ema": 0.99},
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
        preset = Preset("", "Interpolation", {"kernel": name})
    elif name in PRESETS:
        preset = PRESETS[name]
    else:
        raise unknown("model", name, [*PRESETS, *KERNELS])
    arguments = {"scale": 2, **preset.arguments, **({} if scale is None else {"scale": scale}), **changes}
    return build({"name": name, "architecture": preset.architecture, **arguments})


def build(config: dict[str, Any]) -> nn.Module:
    """Make a model from its config, the flat dict that `model.config` holds.

    Args:
        config: "name", "architecture" and the architecture's arguments.

    Raises:
        SRKitError: an unknown architecture, or arguments that it does not take.
    """
    arguments = {key: value for key, value in config.items() if key not in ("name", "architecture")}
    architecture = config.get("architecture")
    if architecture not in ARCHITECTURES:
        raise unknown("architecture", architecture, ARCHITECTURES)
    try:
        model = ARCHITECTURES[architecture](**arguments)
    except TypeError as error:
        raise SRKitError(f"{architecture} cannot be built: {error}") from None
    return label(model, config={key: str(x) if isinstance(x, Path) else x for key, x in config.items()})


def label(model: nn.Module, **facts: Any) -> nn.Module:
    """Give a model attributes that its class does not have: `config`, and `pretrained` once its weights are trained."""
    for name, value in facts.items():
        setattr(model, name, value)
    return model


def skeleton(config: dict[str, Any]) -> nn.Module:
    """The model of a config that nobody has checked yet, without memory for weights and without a frozen network.

    Raises:
        SRKitError: the config makes no model, or one with more than 200 million parameters.
    """
    try:
        numbers = [x for value in config.values() for x in (value if isinstance(value, (list, tuple)) else [value])]
        if any(isinstance(x, (int, float)) and not abs(x) <= LARGEST_NUMBER for x in numbers):
            raise SRKitError(f"the config asks for a number over {LARGEST_NUMBER}: no network of this course needs one")
        with torch.device("meta"):
            model = build({**config, "features": ""} if "features" in config else config)
    except SRKitError:
        raise
    except Exception as error:  # without memory and files, only the config can be wrong
        raise SRKitError(f"the config makes no model ({type(error).__name__})") from None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MOST_PARAMETERS:
        raise SRKitError(f"the config asks for {parameters:,} parameters: more than {MOST_PARAMETERS:,} are not loaded")
    return model


def fill(config: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The model of a config that may come from a file, with these weights.

    Raises:
        SRKitError: the config makes no model or too large a one; the weights do not fit it.
    """
    skeleton(config)
    model = build(config)
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = shorten(str(error).splitlines()[-1], 200)
        raise SRKitError(f"the weights do not fit the {config['architecture']} of the config: {reason}") from None
    return model


def rebuild(model: nn.Module, **changes: Any) -> nn.Module:
    """The same weights under a changed config, e.g. rebuild(generator, frozen_norm=True) to fine-tune; a new model.

    Raises:
        SRKitError: the weights don't fit the changed config.
    """
    changed = fill({**getattr(model, "config", {}), **changes}, model.state_dict())
    return label(changed, pretrained=getattr(model, "pretrained", False))


def scales_of(model: nn.Module) -> tuple[int, ...]:
    """By how much each output of a model enlarges, smallest first.

    Raises:
        SRKitError: the model does not say it.
    """
    scale = getattr(model, "scale", None)
    if scale is None:
        raise SRKitError(
            f"{type(model).__name__} does not say by how much it enlarges: give it an attribute, scale = 2"
        )
    return getattr(model, "scales", (int(scale),))


def output_at(model: nn.Module, low: Tensor, scale: int | None = None) -> Tensor:
    """The model's output at one scale, its largest by default; of a model with several outputs, that one."""
    output = model(low)
    if isinstance(output, Tensor):
        return output
    return output[-1 if scale is None else scales_of(model).index(scale)]


def device_of(model: nn.Module, default: torch.device | str = "cpu") -> torch.device:
    """Where the model's parameters are; `default` if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device(default))
