"""Training at fixed hyper-parameters: LR is spoilt by them, feature maps are dropped, weights are punished.

What self-tuning, and any search, is compared with; `tuning.TuningTrainer` is this with hyper-parameters that move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from srkit import models
from srkit.data import Batch, ImageDataset
from srkit.data.images import degrade
from srkit.settings import SRKitError
from srkit.training import hyper
from srkit.training.config import TrainConfig
from srkit.training.devices import check_alone
from srkit.training.hyper import Hyper
from srkit.training.response import Dropout, dropping
from srkit.training.trainer import Trainer


class RegularizedTrainer(Trainer):
    """Trains with hyper-parameters that stay where they start: what self-tuning, and any search, is compared with.

    Args:
        model, dataset, config, options: as for Trainer. The pictures are clean: the hyper-parameters spoil them.
        hypers: what acts on pictures, feature maps and weights.
        validation: other pictures, as they come in use: from the camera itself.

    Raises:
        SRKitError: hyper-parameters that contradict each other or do not keep a picture's shape; no validation
            pictures, or one that is trained on, too; pictures that the data set itself spoils; what a Trainer raises.
    """

    validation: ImageDataset

    def __init__(
        self,
        model: nn.Module,
        dataset: ImageDataset,
        config: TrainConfig | None = None,
        *,
        hypers: Sequence[Hyper],
        validation: ImageDataset | None,
        **options: Any,
    ) -> None:
        check_alone("self-tuning")
        hyper.check(hypers)
        if dataset.degradation:
            raise SRKitError(
                "these training pictures are spoilt already: give clean ones, the hyper-parameters do that"
            )
        if validation is None:
            raise SRKitError("self-tuning needs validation pictures, or nothing says what is better: give validation=…")
        if same := shared(dataset, validation):
            raise SRKitError(f"{same} is among the training and the validation pictures: λ would only learn to overfit")
        self._layers = [one.weight for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
        if not self._layers:
            raise SRKitError("this network has no convolution: nothing in it can answer to a hyper-parameter")
        self.hypers = list(hypers)
        self.fixed = torch.tensor([one.start or 0.0 for one in hypers])
        super().__init__(model, dataset, config, validation=validation, **options)
        with torch.no_grad():
            low, high = self._validation_batch(self.config.batch_size)
            self.unit = max(float(self.loss(models.create("bicubic", self.model.scale)(low), high)[0]), 1e-12)
        self.batch()  # an act that spoils a picture's shape is refused now, not later

    def values(self) -> Tensor:
        """The hyper-parameters as they are now, (H,), on the CPU."""
        return self.fixed

    def batch(self) -> Batch:
        """This step's batch, with the hyper-parameters as they are."""
        return self.regularized(self.values().expand(self.config.batch_size, -1))

    def regularized(self, values: Tensor) -> Batch:
        """This step's batch, each picture with hyper-parameters of its own: the same patches and noise for all values.

        Args:
            values: (N, H), on the CPU; as many patches.
        """
        config, scale, warps = self.config, self.model.scale, self._of("view", values)
        options = {"seed": config.seed, "augment": config.augment, "warps": warps}
        high = self.dataset.batch(self.step_number, len(values), config.patch_size, scale, **options).high
        high, generator = high.to(self.device, non_blocking=True), self._generator(0)
        low = degrade(high, scale)
        for number, one in enumerate(self.hypers):
            if one.act:
                acted = one.act(low, values[:, number], generator)
                if getattr(acted, "shape", None) != low.shape:
                    found = tuple(getattr(acted, "shape", ())) or type(acted).__name__
                    raise SRKitError(f"{one.name}: act makes {found} of pictures {tuple(low.shape)}: keep the shape")
                low = acted
        return Batch(low, high)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """As Trainer's; batch normalisation stays as it was learnt."""
        for layer in self.model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return super().step(batch)

    def generate(self, low: Tensor) -> Any:
        """The model's output, with dropout if that is a hyper-parameter."""
        dropout = self._dropout(self.values().expand(len(low), -1))
        if dropout is None:
            return super().generate(low)
        with dropping(dropout):
            return super().generate(low)

    def backward(self, batch: Batch, share: float = 1.0) -> dict[str, Tensor]:
        """As Trainer's, and the gradient of the weight decay."""
        values = super().backward(batch, share)
        if (decay := self._of("weights", self.values()[None])) is not None:
            penalty = self.unit * float(decay) * torch.stack([weight.square().sum() for weight in self._layers]).sum()
            self.scaler.scale(penalty * share).backward()
        return values

    def relative_loss(self, output: Tensor, high: Tensor) -> Tensor:
        """The loss as a multiple of bicubic's on the validation pictures."""
        return self.loss(output, high)[0] / self.unit

    def fresh(self, **arguments: Any) -> Trainer:
        """As Trainer's, with the same hyper-parameters and validation."""
        return super().fresh(hypers=self.hypers, validation=self.validation, **arguments)

    def _of(self, place: str, values: Tensor) -> Tensor | None:
        """The strengths, (N,), of the one hyper-parameter that acts there."""
        return next((values[:, number] for number, one in enumerate(self.hypers) if one.at == place), None)

    def _dropout(self, values: Tensor, mirrored: bool = False) -> Dropout | None:
        rates = self._of("features", values)
        return None if rates is None else Dropout(rates, self._generator(1), mirrored)

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(4 * (self.config.seed * 1_000_003 + self.step_number) + purpose)

    def _validation_batch(self, count: int) -> Batch:
        config, seed = self.config, self.config.seed + 1
        batch = self.validation.batch(
            self.step_number, count, config.patch_size, self.model.scale, seed=seed, augment=config.augment
        )
        return Batch(*(half.to(self.device, non_blocking=True) for half in batch))


def shared(a: ImageDataset, b: ImageDataset) -> str:
    """The name of a picture that two data sets have both, pixel by pixel; "" if there is none."""
    found = {(tuple(picture.shape), hash(picture.cpu().numpy().tobytes())) for picture in a.pictures}
    twice = ((tuple(one.shape), hash(one.cpu().numpy().tobytes())) in found for one in b.pictures)
    return next((name for name, same in zip(b.names, twice, strict=True) if same), "")
