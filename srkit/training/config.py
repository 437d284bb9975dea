"""TrainConfig: every setting of a training, the same in Python, in checkpoints and as flags of `srkit train`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from srkit.losses import WeightedLoss
from srkit.settings import SRKitError

LARGEST = 10**12  # whole number, so that seeds and steps stay within 64 bits


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training, given its model and its dataset.

    Raises:
        SRKitError: a number that no training can use.
    """

    # How many steps to train: at each, one batch changes the weights once.
    steps: int = 2000
    # Instead of steps: how often each picture is shown (one random patch of it each time).
    num_epoch: int | None = None
    # Patches in a batch.
    batch_size: int = 16
    # Side of the square HR patches, in pixels; it must divide by the scale.
    patch_size: int = 96
    # Terms of the loss and their weights: --loss mse 1, or --loss mse 1 relu2_2 0.01.
    loss: dict[str, float] = field(default_factory=lambda: {"mse": 1.0})
    # The network whose layers the loss may name as terms: small-vgg, vgg16, vgg19, squeezenet or clip.
    features: str = "vgg16"
    # Its weights: imagenet (downloaded once), a file or folder of yours, or random.
    feature_weights: str = "imagenet"
    # How it wants its pictures: imagenet, caffe or clip; as its weights were trained if not given.
    preprocessing: str | None = None
    # Its layers behind the term content; relu5_4 of vgg19 if not given.
    content: tuple[str, ...] = ()
    # The picture that the terms content and style are relative to: a painting, for srkit train style.
    style: str | None = None
    # To how many pixels its shorter side is resized: small gives small strokes.
    style_size: int = 256
    # Learning rate, after the warm-up and before the schedule lowers it.
    lr: float = 1e-3
    # Any optimiser of torch.optim by its name: Adam, AdamW, SGD, …
    optimizer: str = "Adam"
    # Steps over which the learning rate first rises from 0.
    warmup: int = 100
    # Whether the learning rate stays, or falls to zero along half a cosine.
    schedule: Literal["constant", "cosine"] = "constant"
    # Length of the cosine in steps; that of the training if not given. To train N steps and later as many more,
    # exactly as if in one go, give the whole length from the start.
    schedule_steps: int | None = None
    # Largest norm of the gradient; longer ones are shortened to it. 0: no limit.
    clip: float = 0.0
    # Decay of the exponential moving average of the weights, which is what is measured and used. 0: no average.
    ema: float = 0.999
    # Flip and rotate patches at random.
    augment: bool = True
    # Decides the starting weights, the order of the pictures and every patch.
    seed: int = 0
    # cpu, cuda, mps, or auto: the fastest there is.
    device: str = "auto"
    # auto: bf16 where the device computes it, fp16 on older GPUs, fp32 else.
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    # Use torch.compile. It pays nowhere that was measured: 53 s of compiling for 17 ms of 303 a step.
    compile: bool = False
    # Steps between two rows of the history.
    log_freq: int = 10
    # Steps between two validations.
    val_freq: int = 500
    # Steps between two checkpoints; a tenth of the training, 500 at most, if not given.
    save_freq: int | None = None

    def loss_settings(self) -> dict[str, Any]:
        """What `losses.create` makes this training's loss from."""
        names = ("features", "feature_weights", "preprocessing", "content", "style", "style_size")
        return {"weights": self.loss, **{name: getattr(self, name) for name in names}}

    def with_loss(self, loss: WeightedLoss) -> TrainConfig:
        """These settings with a loss that exists already, so that a checkpoint can make it again."""
        found: dict[str, Any] = {"loss": dict(loss.weights)}
        for part in loss.perceptual[:1]:
            extractor = part.extractor.config
            found |= {"features": extractor["features"], "feature_weights": extractor["weights"]}
            found |= {"preprocessing": extractor.get("preprocessing"), "content": part.layers_of.get("content", ())}
        return replace(self, **found)

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, hint):
                raise SRKitError(f"{name} is {value!r:.80}: give {getattr(hint, '__name__', hint)}")
            if isinstance(value, int) and abs(value) > LARGEST:
                raise SRKitError(f"{name} is {value}: {LARGEST:,} is the largest")
        for name in ("steps", "batch_size", "patch_size", "log_freq", "val_freq", "save_freq"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SRKitError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("warmup", "num_epoch", "schedule_steps", "clip"):
            if not (getattr(self, name) or 0) >= 0:
                raise SRKitError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        if not 0 < self.lr < math.inf:
            raise SRKitError(f"the learning rate is {self.lr}: it must be more than 0, e.g. 0.001")
        if not 0 <= self.ema < 1:
            raise SRKitError(f"ema is {self.ema}: a decay lies from 0 (no average) to just under 1, e.g. 0.999")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value, perhaps from a file, is of a field's type: int, float | None, dict[str, float], …"""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is UnionType:
        return any(_fits(value, one) for one in get_args(hint))
    kind = get_origin(hint) or hint
    if not isinstance(value, {int: Integral, float: Real, tuple: (tuple, list)}.get(kind, kind)):
        return False
    if kind is dict:
        return all(_fits(name, str) and _fits(weight, float) for name, weight in value.items())
    return kind is not tuple or all(isinstance(one, str) for one in value)


@dataclass(frozen=True)
class GANConfig(TrainConfig):
    """Everything that decides a GAN's training: SRGAN's second stage (arXiv 1609.04802, Section 3.2)."""

    steps: int = 100_000
    # Terms of the generator's loss and their weights; adversarial is the discriminator's part of it.
    loss: dict[str, float] = field(default_factory=lambda: {"mse": 0.0, "content": 1.0, "adversarial": 1e-3})
    # The network behind the term content, whose layers the loss may name: vgg19, vgg16, small-vgg, squeezenet or clip.
    features: str = "vgg19"
    # Learning rate, after the warm-up and before the schedule lowers it.
    lr: float = 1e-4
    # Filters of the discriminator's first layer; the last has eight times as many.
    discriminator: int = 64
    # Side of the pictures that it takes: any size if not given; 96 with the paper's fully connected layers.
    discriminator_size: int | None = None
    # Learning rate of the discriminator, as a multiple of the generator's.
    discriminator_lr: float = 1.0
    # First steps in which the discriminator learns alone; the learning rate's own warm-up goes on meanwhile.
    discriminator_warmup: int = 0
    # The discriminator's target for real pictures; 0.9 keeps it from being too sure (label smoothing).
    real_label: float = 1.0
    # Allow a generator that no first stage has trained.
    from_scratch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discriminator < 1 or self.discriminator_warmup < 0 or not 0 < self.discriminator_lr < math.inf:
            raise SRKitError("discriminator and discriminator_lr must be more than 0, discriminator_warmup 0 or more")
        if not 0.5 < self.real_label <= 1:
            raise SRKitError(f"real_label is {self.real_label}: it lies above 0.5, usually at 0.9 or 1")
        if "adversarial" not in self.loss:
            raise SRKitError("a GAN's loss needs the term adversarial, e.g. --loss content 1 adversarial 0.001")
