"""Every network of the course: `create(name)` makes one, `load(name or path)` brings a trained one."""

from srkit.models.complexity import count, count_parameters, multiply_adds, receptive_field
from srkit.models.efficient import EfficientSR
from srkit.models.presets import (
    PRESETS,
    WORKSHOP,
    bounded,
    build,
    create,
    device_of,
    fill,
    output_at,
    rebuild,
    scales_of,
)
from srkit.models.pretrained import load
from srkit.models.srcnn import SRCNN
from srkit.models.srresnet import Discriminator, SRResNet
from srkit.models.style import TransformerNet
from srkit.models.superresnet import SuperResNet

__all__ = [
    "PRESETS",
    "SRCNN",
    "WORKSHOP",
    "Discriminator",
    "EfficientSR",
    "SRResNet",
    "SuperResNet",
    "TransformerNet",
    "bounded",
    "build",
    "count",
    "count_parameters",
    "create",
    "device_of",
    "fill",
    "load",
    "multiply_adds",
    "output_at",
    "rebuild",
    "receptive_field",
    "scales_of",
]
