"""Style transfer as Gatys, Ecker and Bethge do it (arXiv 1508.06576): no network is trained, the picture itself is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import LBFGS

from srkit.data import Batch, ImageDataset
from srkit.data.images import to_uint8
from srkit.losses import StyleLoss, WeightedLoss
from srkit.models.features import NETWORKS, load_features
from srkit.settings import SRKitError
from srkit.training.config import TrainConfig
from srkit.training.targets import TargetFeatures
from srkit.training.trainer import Trainer

# The style's motifs need the deep layers: shallow ones give its colours and finest strokes.
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYERS = ("relu4_2",)  # Section 2 there
WEIGHTS = {"content": 0.03, "style": 0.97}
UNIT = 1e5  # by which the loss is multiplied for L-BFGS, whose tolerances are absolute
EVALUATIONS = 4  # of the loss in a step, about


class Canvas(nn.Module):
    """A picture as a network: all of its weights are pixels, and it answers with itself whatever it is given.

    Args:
        picture: (3, H, W) in [0, 1].
    """

    scale = 1
    whole = True  # it cannot answer for a part of the picture alone

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.pixels = nn.Parameter(picture.detach().clone())

    def forward(self, low: Tensor) -> Tensor:
        """The picture, (N, 3, H, W), for a batch of N; not clipped."""
        return self.pixels.expand(len(low), -1, -1, -1)


class Gatys(Trainer):
    """A Trainer whose model is a picture: content and style are the terms of its loss, a step is one of L-BFGS.

    So weights can be changed while the picture changes: `change(content=…, style=…)`, or a slider of `live.show`.

    Args:
        content: (3, H, W) in [0, 1], where the picture starts and whose content it keeps.
        loss: with the terms content and style, see `gatys_loss`.
        steps: of about four evaluations of the loss each.
        start: where the picture starts, if not at the content.
        options: device, log_freq and other fields of `TrainConfig`.

    Raises:
        SRKitError: a picture too small for the loss's layers, or start and content differ in size.
    """

    def __init__(
        self, content: Tensor, loss: WeightedLoss, steps: int = 20, start: Tensor | None = None, **options: Any
    ) -> None:
        start = content if start is None else start
        if start.shape != content.shape:
            raise SRKitError(f"content {tuple(content.shape)} and start {tuple(start.shape)} differ in size")
        fixed: dict[str, Any] = {"batch_size": 1, "augment": False, "lr": 1.0, "warmup": 0, "ema": 0.0, "log_freq": 1}
        fixed |= {"patch_size": min(content.shape[1:]), "precision": "fp32"}  # L-BFGS knows no scaler of gradients
        config = TrainConfig(**{**fixed, "steps": steps, "loss": dict(loss.weights), **options})
        super().__init__(Canvas(start), ImageDataset([to_uint8(content)]), config, loss, optimizer=_lbfgs)
        self.content = content[None].to(self.device)
        self.wanted = TargetFeatures(1).for_batch([0])

    def batch(self) -> Batch:
        """The content, whole, whatever its shape."""
        return Batch(self.content, self.content)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Change the picture by one step of L-BFGS, which waits for the device; returns the terms before it."""
        values: dict[str, Tensor] = {}

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss, found = self.loss(self.network(batch.low), batch.high, targets=self.wanted)
            (UNIT * loss).backward()
            if not values:
                values.update({"loss": loss.detach(), **found})
            return UNIT * loss

        self.optimizer.step(closure)  # type: ignore[arg-type]  # LBFGS takes the tensor
        return values

    def change(self, **new: float) -> None:
        """As Trainer's; what L-BFGS has learnt of the loss's curvature is forgotten where the loss changes."""
        before = len(self.history.moves)
        super().change(**new)
        if len(self.history.moves) > before:
            self.optimizer.state.clear()

    def fresh(self, **arguments: Any) -> Gatys:
        """As Trainer's: a new one with the same content and loss, at its beginning; arguments as of the class."""
        loss = WeightedLoss(self.config.loss, *self.loss.perceptual, terms=self.loss.terms)
        options = {"device": str(self.device), "log_freq": self.config.log_freq, "lr": self.config.lr}
        return Gatys(self.content[0], loss, self.config.steps, **{**options, **arguments})

    @property
    def picture(self) -> Tensor:
        """As it is now, (3, H, W) in [0, 1], on the CPU."""
        return self.model.pixels.detach().clamp(0, 1).cpu()


def gatys_loss(
    style: Tensor,
    weights: dict[str, float] | None = None,
    feature_weights: str = "imagenet",
    layers: Iterable[str] = (),
    features: str = "vgg16",
) -> WeightedLoss:
    """The loss of the paper, both terms relative: content at relu4_2, style at relu1_1, relu2_1, … relu5_1.

    Args:
        style: (3, H, W) in [0, 1].
        weights: of content and style; .03 and .97 if not given.
        feature_weights: as for `models.features.Extractor`.
        layers: of the style; those of the paper that the network has if not given.
        features: "vgg16", "vgg19" as in the paper, or "small-vgg", which ends at relu4_3.

    Raises:
        SRKitError: as `Extractor` and `StyleLoss`.
    """
    layers = tuple(layers) or tuple(layer for layer in STYLE_LAYERS if layer in NETWORKS[features].places)
    extractor = load_features(features, (*layers, *CONTENT_LAYERS), feature_weights)
    return WeightedLoss(weights or WEIGHTS, StyleLoss(extractor, style, layers, CONTENT_LAYERS))


_lbfgs: Callable[[Iterable[nn.Parameter]], LBFGS] = partial(
    LBFGS, lr=1.0, max_iter=EVALUATIONS, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
)
