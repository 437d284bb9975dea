"""How each network that comes pretrained was trained: what `benchmarks.pretrain` follows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Network:
    """A preset on one of the pack's folders, for so many steps."""

    preset: str
    scale: int
    data: Literal["t91", "photos"]
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)  # those that differ from the preset's
    shares: dict[str, float] = field(default_factory=dict)  # of each term at the start; {}: the preset's loss
    start: str = ""  # the network whose weights it begins with
    arguments: dict[str, Any] = field(default_factory=dict)  # of the architecture, those that differ from the preset's


# Small patches: a step then costs a ninth of the workshop's 288 pixels, and teaches nearly as much.
VARIANT: dict[str, Any] = {"patch_size": 96, "batch_size": 16, "schedule": "cosine"}
SHARE = 0.05  # of the adversarial term; of the rest MSE has a twentieth, and the features have what remains
PERCEPTUAL = {"mse": 0.1, "relu1_2": 0.45, "relu2_2": 0.45}
ADVERSARIAL = {"mse": 0.05 * (1 - SHARE), "content": 0.95 * (1 - SHARE), "adversarial": SHARE}

NETWORKS = {
    "srcnn915-x2": Network("srcnn915", 2, "t91", 12_000),
    "srcnn915-x3": Network("srcnn915", 3, "t91", 12_000),
    "srcnn915-x4": Network("srcnn915", 4, "t91", 12_000),
    "srcnn-x2": Network(  # at 1e-3 more than half of the second layer's filters died
        "srcnn", 2, "t91", 11_000, {"patch_size": 48, "lr": 4e-4, "schedule": "cosine"}
    ),
    "srcnn-x3": Network("srcnn", 3, "photos", 2500),  # the next one's sister, on the MSE alone
    "srcnn-perceptual-x3": Network("srcnn", 3, "photos", 2500, {"features": "vgg16"}, PERCEPTUAL),
    "superresnet-x2": Network("superresnet", 2, "photos", 6000, {**VARIANT, "patch_size": 48}),
    "superresnet-multi-x4": Network("superresnet-multi", 4, "photos", 6000, VARIANT),
    "superresnet-residual-x4": Network("superresnet-residual", 4, "photos", 6000, VARIANT),
    "superresnet-dilated-x4": Network("superresnet-dilated", 4, "photos", 6000, VARIANT),
    "superresnet-vgg-x4": Network(  # on the small VGG, which comes along: VGG-16 itself would have to be downloaded
        "superresnet-vgg", 4, "photos", 6000, VARIANT, arguments={"features": "small-vgg"}
    ),
    "superresnet-clip-x4": Network("superresnet-clip", 4, "photos", 6000, VARIANT),
    "srresnet-small-x4": Network("srresnet-small", 4, "photos", 3000),
    "srgan-small-x4": Network(
        "srgan-small", 4, "photos", 800, {"content": ("relu1_2", "relu2_2")}, ADVERSARIAL, start="srresnet-small-x4"
    ),
}
