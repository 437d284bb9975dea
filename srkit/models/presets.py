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
from srkit.models.style import TransformerNet
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


ARCHITECTURES: dict[str, type[nn.Module]] = {
    network.__name__: network
    for network in (SRCNN, SuperResNet, SRResNet, EfficientSR, Discriminator, TransformerNet, Interpolation)
}


@dataclass(frozen=True)
class Preset:
    """A network with a name: architecture, its arguments, and the training settings that suit it."""

    architecture: str
    arguments: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)  # fields of training.TrainConfig
    gan: bool = False  # trained against a discriminator: the fields are GANConfig's


# The workshop's (lesson 05): pictures of 288 pixels, the sum of 1/PSNR of all outputs, ten times VOC 2007's 4011.
WORKSHOP = {"steps": 2510, "batch_size": 16, "patch_size": 288, "lr": 1e-3, "loss": {"psnr": 1.0}}

# Two conv3 with 64 filters and two outputs.
MULTI = {"scale": 4, "block": "plain", "channels": 64, "blocks": 1}

# A GAN of few steps finds PixelShuffle's grid before it finds textures; "nearest" costs as much and showed none.
SMALL = {"scale": 4, "channels": 48, "blocks": 8, "norm": False, "upsample": "nearest", "last_kernel": 3, "skip": True}

PRESETS: dict[str, Preset] = {
    # 9-5-5 with 64-32-3 filters on a bilinear enlargement: the course's own (lessons 02, 03)
    "srcnn": Preset("SRCNN",
        {"kernels": (9, 5, 5), "channels": (64, 32), "upsample": "bilinear", "carry": True},
        {"steps": 4000, "batch_size": 16, "patch_size": 72, "lr": 1e-3, "warmup": 200}),
    # 9-1-5 with 64-32-3 filters on a bicubic enlargement: the paper's first (lesson 03)
    "srcnn915": Preset("SRCNN",
        {"kernels": (9, 1, 5), "channels": (64, 32), "upsample": "bicubic", "carry": True},
        {"steps": 12_000, "batch_size": 16, "patch_size": 72, "lr": 1.5e-3, "warmup": 200}),
    # two conv3 with 64 filters, one output: the workshop's first (lesson 05, as all of its kind)
    "superresnet": Preset("SuperResNet", {**MULTI, "scale": 2}, {**WORKSHOP, "patch_size": 144}),
    # the same with a second output, four times as large as the input
    "superresnet-multi": Preset("SuperResNet", MULTI, WORKSHOP),
    # three residual blocks with 32 filters, the third between the outputs
    "superresnet-residual": Preset("SuperResNet",
        {"scale": 4, "block": "residual", "channels": 32, "blocks": 2, "between": 1}, WORKSHOP),
    # three blocks with dilations 1, 2, 4 side by side, the third between the outputs
    "superresnet-dilated": Preset("SuperResNet",
        {"scale": 4, "block": "dilated", "channels": 32, "blocks": 2, "between": 1}, WORKSHOP),
    # superresnet-multi that also reads VGG-16's first four convolutions, frozen. relu1_2 has the input's resolution;
    # relu2_2, the fourth convolution's output, has half of it and more context.
    "superresnet-vgg": Preset("SuperResNet",
        {**MULTI, "features": "vgg16", "feature_layers": ("relu1_2", "relu2_2"), "feature_weights": "imagenet"},
        WORKSHOP),
    # superresnet-multi that also reads what CLIP says of the whole picture, frozen; needs timm
    "superresnet-clip": Preset("SuperResNet",
        {**MULTI, "features": "clip-vit", "feature_weights": "imagenet"}, WORKSHOP),
    # 16 blocks of 64 filters: the paper's, SRGAN's generator after its first stage (lesson 06)
    "srresnet": Preset("SRResNet",
        {"scale": 4}, {"steps": 100_000, "batch_size": 16, "patch_size": 96, "lr": 1e-4}),
    # 8 blocks of 48 filters without normalisation on a bicubic enlargement: for processors (lessons 06, 07). A higher
    # rate, or longer gradients, can then blow the weights up right after the warm-up.
    "srresnet-small": Preset("SRResNet", SMALL,
        {"steps": 3000, "batch_size": 16, "patch_size": 96, "lr": 7e-4, "warmup": 250, "schedule": "cosine",
         "clip": 0.02}),
    # 6 blocks of 48 filters at the input's size, added to bicubic: small and fast, what upscale takes by default
    "efficient": Preset("EfficientSR",
        {"scale": 4, "channels": 48, "blocks": 6, "expand": False},
        {"steps": 6000, "batch_size": 16, "patch_size": 96, "lr": 1e-3, "schedule": "cosine"}),
    # srresnet, already trained, against a discriminator (lesson 06)
    "srgan": Preset("SRResNet",
        {"scale": 4}, {"steps": 100_000, "batch_size": 16, "patch_size": 96, "lr": 1e-4}, gan=True),
    # srresnet-small, already trained, against a discriminator with half the filters (lesson 06)
    "srgan-small": Preset("SRResNet", SMALL,
        {"steps": 1500, "batch_size": 16, "patch_size": 64, "lr": 1e-4, "discriminator": 32, "discriminator_lr": 4.0,
         "discriminator_warmup": 150, "content": ("relu1_2", "relu2_2"), "ema": 0.99}, gan=True),
    # efficient, already trained, against a discriminator: as benchmarks.srgan trains efficient-gan-x4 (lesson 06)
    "efficient-gan": Preset("EfficientSR",
        {"scale": 4, "channels": 48, "blocks": 6, "expand": False},
        {"steps": 1800, "batch_size": 8, "patch_size": 64, "lr": 3e-4, "warmup": 50, "schedule": "cosine",
         "discriminator": 32, "discriminator_lr": 2.0, "discriminator_warmup": 100, "real_label": 0.9,
         "features": "vgg16", "content": ("relu1_2", "relu2_2"), "ema": 0.997}, gan=True),
    # 4 blocks of 64 filters at a quarter of the size: repaints a picture in the style of one (lesson 09); needs --style
    "style": Preset("TransformerNet", {"scale": 1},
        {"steps": 1500, "batch_size": 2, "patch_size": 128, "lr": 2e-3, "warmup": 20, "schedule": "cosine", "ema": 0.99,
         "loss": {"content": 0.15, "style": 1.0}, "content": ("relu2_2",)}),
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
        preset = Preset("Interpolation", {"kernel": name})
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


def fill(config: dict[str, Any], weights: dict[str, Tensor], closed: bool = False) -> nn.Module:
    """The model of a config that may come from a file, with these weights: neither takes memory without end.

    Args:
        config, weights: as a file holds them.
        closed: refuse a model that would read a feature network from a path, or download one.

    Raises:
        SRKitError: as `bounded`; the weights do not fit the model; closed, a feature network.
    """
    if closed and config.get("features"):
        raise SRKitError("this network reads a feature network that is not in its file: use it on your own machine")
    model = build(bounded(config))
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = shorten(str(error).splitlines()[-1], 200)
        raise SRKitError(f"the weights do not fit the {config['architecture']} of the config: {reason}") from None
    return model


def bounded(config: dict[str, Any]) -> dict[str, Any]:
    """The config, if the model that it makes takes no memory without end.

    Raises:
        SRKitError: it makes no model, or one with more than 200 million parameters.
    """
    try:
        numbers = [x for value in config.values() for x in (value if isinstance(value, (list, tuple)) else [value])]
        if any(isinstance(x, (int, float)) and not abs(x) <= LARGEST_NUMBER for x in numbers):
            raise SRKitError(f"the config asks for a number over {LARGEST_NUMBER}: no network of this course needs one")
        with torch.device("meta"):  # neither memory for weights nor a frozen network
            model = build({**config, "features": ""} if "features" in config else config)
    except SRKitError:
        raise
    except Exception as error:  # without memory and files, only the config can be wrong
        raise SRKitError(f"the config makes no model ({type(error).__name__})") from None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MOST_PARAMETERS:
        raise SRKitError(f"the config asks for {parameters:,} parameters: more than {MOST_PARAMETERS:,} are not made")
    return config


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
        raise SRKitError(f"{type(model).__name__} does not say by how much it enlarges: set its attribute scale")
    return getattr(model, "scales", (int(scale),))


def output_at(model: nn.Module, low: Tensor, scale: int | None = None, **given: Tensor) -> Tensor:
    """The model's output at one scale, its largest by default; of a model with several outputs, that one.

    `given` is passed on: the `embedding` of the whole picture to a model that reads one.
    """
    output = model(low, **given)
    if isinstance(output, Tensor):
        return output
    return output[-1 if scale is None else scales_of(model).index(scale)]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
