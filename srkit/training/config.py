"""TrainConfig: every setting of a training, the same in Python, in checkpoints and as flags of `srkit train`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from srkit.errors import SRKitError


def _loss_of(words: list[str]) -> dict[str, float]:
    if not words or len(words) % 2:
        raise ValueError("each term needs a weight, as in --loss mse 1 l1 0.1")
    return {term: float(weight) for term, weight in zip(words[::2], words[1::2], strict=True)}


_LOSS_FLAG = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="TERM WEIGHT …",
    instance_from_str=_loss_of,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda loss: [str(word) for pair in loss.items() for word in pair],
)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training, given its model and its pictures."""

    steps: int = 2000
    """How many steps to train: at each, one batch changes the weights once."""
    num_epoch: int | None = None
    """Instead of steps: how often each picture is shown (one random crop of it each time)."""
    batch_size: int = 16
    """Crops in a batch."""
    crop: int = 96
    """Side of the square crops of high, in pixels; it must divide by the scale."""
    loss: Annotated[dict[str, float], _LOSS_FLAG] = field(default_factory=lambda: {"mse": 1.0})
    """Terms of the loss and their weights: --loss mse 1, or --loss mse 1 relu2_2 0.01."""
    features: str = "vgg16"
    """The network whose layers the loss may name as terms: vgg16, vgg19, squeezenet or clip."""
    feature_weights: str = "imagenet"
    """Its weights: imagenet (downloaded once), a file or folder of yours, or random."""
    preprocessing: str = "auto"
    """How it wants its pictures: imagenet, caffe or clip; auto asks the weights."""
    content: tuple[str, ...] = ()
    """Its layers behind the term content; relu5_4 of vgg19 if not given."""
    learning_rate: Annotated[float, tyro.conf.arg(name="lr")] = 1e-3
    """Learning rate, after the warm-up and before the schedule lowers it."""
    optimizer: str = "Adam"
    """Any optimiser of torch.optim by its name: Adam, AdamW, SGD, …"""
    warmup: int = 100
    """Steps over which the learning rate first rises from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Whether the learning rate stays, or falls to zero along half a cosine."""
    schedule_steps: int | None = None
    """Length of the cosine; the length of the training if not given. To train N steps and later as many
    more, exactly as if in one go, give the whole length here from the start."""
    clip: float = 0.0
    """Largest norm of the gradient; longer ones are shortened to it. 0: no limit."""
    ema: float = 0.999
    """Decay of the running average of the weights, which is what is measured and used. 0: no average."""
    augment: bool = True
    """Flip and rotate crops at random."""
    seed: int = 0
    """Decides the starting weights, the order of the pictures and every crop."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the fastest there is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 where the device computes it, fp16 on older GPUs, fp32 else."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to use torch.compile. auto: where it was measured to pay, which is nowhere yet; see engine.compiled."""
    log_freq: int = 10
    """Steps between two rows of the history."""
    val_freq: int = 500
    """Steps between two validations."""
    save_freq: int = 500
    """Steps between two checkpoints."""
    tensorboard: bool = False
    """Write the history for TensorBoard too."""

    def loss_settings(self) -> dict[str, Any]:
        """What `losses.create` makes this training's loss from."""
        names = ("features", "feature_weights", "preprocessing", "content")
        return {"weights": self.loss, **{name: getattr(self, name) for name in names}}

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "crop", "log_freq", "val_freq", "save_freq"):
            if getattr(self, name) < 1:
                raise SRKitError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SRKitError(f"the learning rate is {self.learning_rate}: it must be more than 0, e.g. 0.001")
        if not 0 <= self.ema < 1:
            raise SRKitError(f"ema is {self.ema}: a decay lies from 0 (no average) to just under 1, e.g. 0.999")


@dataclass(frozen=True)
class GANConfig(TrainConfig):
    """Everything that decides a GAN's training: SRGAN's second stage (arXiv 1609.04802, Section 3.2)."""

    steps: int = 100_000
    loss: Annotated[dict[str, float], _LOSS_FLAG] = field(
        default_factory=lambda: {"mse": 0.0, "content": 1.0, "adversarial": 1e-3}
    )
    """Terms of the generator's loss and their weights; adversarial is the discriminator's say."""
    features: str = "vgg19"
    """The network behind the term content, and whose layers the loss may name: vgg16, vgg19, squeezenet or clip."""
    learning_rate: Annotated[float, tyro.conf.arg(name="lr")] = 1e-4
    """Learning rate, after the warm-up and before the schedule lowers it."""
    discriminator: int = 64
    """Filters of the discriminator's first layer; the last has eight times as many."""
    judges: Literal["any", "96"] = "any"
    """Which pictures it judges: of any size; or the paper's, of 96 pixels, with fully connected layers."""
    discriminator_rate: float = 1.0
    """Learning rate of the discriminator, as a multiple of the generator's."""
    discriminator_warmup: int = 0
    """First steps in which the discriminator learns alone: its first say is worth nothing. The learning rate's own
    warm-up goes on meanwhile."""
    real_label: float = 1.0
    """What the discriminator is to say of real pictures; 0.9 keeps it from being too sure (label smoothing)."""
    from_scratch: bool = False
    """Allow a generator that no first stage has trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discriminator < 1 or self.discriminator_warmup < 0:
            raise SRKitError(
                f"discriminator {self.discriminator}, discriminator_warmup {self.discriminator_warmup}: "
                "at least 1 filter and 0 steps are needed"
            )
        if not 0 < self.discriminator_rate < math.inf:
            raise SRKitError(f"discriminator_rate is {self.discriminator_rate}: it must be more than 0, e.g. 4")
        if not 0.5 < self.real_label <= 1:
            raise SRKitError(f"real_label is {self.real_label}: it lies above 0.5, usually at 0.9 or 1")
        if "adversarial" not in self.loss:
            raise SRKitError("a GAN's loss needs the term adversarial, e.g. --loss content 1 adversarial 0.001")
