"""Fine-tuning: a pretrained network goes on, carefully, on a small dataset of its own (lesson 07).

A few hundred pictures are enough to improve a network a little, and to spoil it. `FineTuner` is a Trainer with four
precautions: the network is copied, its batch normalisation stays as it was learnt, a criterion that is not the loss
says when it was best, and the start takes part: if nothing beats it, it is what remains.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from srkit import models
from srkit.data import ImageDataset
from srkit.losses import PerceptualLoss, WeightedLoss
from srkit.models.features import load_features
from srkit.settings import SRKitError
from srkit.training import checkpoint
from srkit.training.config import TrainConfig
from srkit.training.devices import check_alone
from srkit.training.trainer import Trainer


class FineTuner(Trainer):
    """A Trainer for a network that can do something already.

    After `fit` the model has the weights that the criterion liked best, which are also in best.pt: of the start, or of
    a validation on the way. Training stops when `patience` validations in a row were no better than the best.

    Args:
        model: pretrained; it is copied, and itself not changed. Batch normalisation is frozen (Ledig's generators have
            it, see `SRResNet.frozen_norm`): the mean and variance of a few patches of one kind would replace those of
            hundreds of thousands.
        dataset, config, loss, options: as for Trainer. Learning rates of fine-tuning are small: 1e-5 to
            1e-4.
        validation: pictures of the same kind that are neither trained on nor reported on.
        criterion: a loss whose terms are measured on them; its last is what must become small. For instance
            `criterion()`: a distance of feature maps, for PSNR rises longest where textures are lost.
        patience: validations.

    Raises:
        SRKitError: no validation pictures, or what `Trainer` raises.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: ImageDataset,
        config: TrainConfig | None = None,
        loss: WeightedLoss | None = None,
        *,
        validation: ImageDataset | None,
        criterion: WeightedLoss,
        patience: int = 5,
        **options: Any,
    ) -> None:
        check_alone("fine-tuning")
        if validation is None:
            raise SRKitError("fine-tuning needs validation pictures, or nothing says when to stop: give validation=…")
        tuned = models.rebuild(model, frozen_norm=True) if hasattr(model, "frozen_norm") else copy.deepcopy(model)
        super().__init__(tuned, dataset, config, loss, validation, **options)
        self.criterion, self.patience = criterion, patience
        for part in criterion.perceptual:
            part.extractor.to(self.device)
        self._best_weights: dict[str, Tensor] | None = None

    def __next__(self) -> int:
        """As Trainer's; the start is measured before the first step, and too long without a better one is the end."""
        if self.step_number == 0 and not self.history.rows:
            self.claim()
            self.validate()
        scores = list(self._scores().values())
        if self.step_number >= self.steps or len(scores) - 1 - scores.index(max(scores)) >= self.patience:
            if self.out and self.step_number < self.steps and self.step_number % self.save_freq:
                self.save()
            self._take_best()
            self.release()
            raise StopIteration
        return super().__next__()

    @property
    def best_step(self) -> int:
        """The step of the weights that the criterion liked best; 0 is the start."""
        scores = self._scores()
        return max(scores, key=scores.__getitem__)

    def validate(self) -> None:
        """As Trainer's; the best weights stay in memory, too."""
        before = self.best
        super().validate()
        if self.best > before:
            self._best_weights = copy.deepcopy(self.result.state_dict())

    def score(self, row: dict[str, float]) -> float:
        """What best.pt has the highest of: minus the criterion's last term."""
        return -row[f"val/{list(self.criterion.weights)[-1]}"]

    def fresh(self, **arguments: Any) -> Trainer:
        """As Trainer's, with the same validation and criterion."""
        own = {"validation": self.validation, "criterion": self.criterion, "patience": self.patience}
        return super().fresh(**own, **arguments)

    def _scores(self) -> dict[int, float]:
        return {int(row["step"]): self.score(row) for row in self.history.rows if "val/dB" in row}

    def _take_best(self) -> None:
        weights = self._best_weights
        if weights is None and self.out:  # resumed: this Trainer itself has measured nothing better
            state = checkpoint.load(self.out / "best.pt")
            weights = state["ema"] or state["model"]
        if weights is not None:
            self.result.load_state_dict(weights)


def criterion(
    feature_weights: str | Path = "imagenet",
    deepest: str = "relu5_4",
    *,
    features: str = "vgg19",
    second: str | Path | None = None,
) -> WeightedLoss:
    """What fine-tuning is measured by: MSE, relu2_2 of VGG-19 ("VGG22") and a deeper layer.

    relu5_4 is "VGG54" (arXiv 1609.04802, Section 2.2.1). Activations are compared as they are, without SRGAN's division
    by 12.75, so that the numbers of different weights files cannot be compared with each other.

    Args:
        feature_weights: as for `models.features.Extractor`.
        deepest: the deeper layer; a file of VGG-19's first layers may hold relu3_1 and no more.
        features: another network instead, e.g. "small-vgg" with relu4_3.
        second: weights of SqueezeNet, whose deepest layer, fire9, then is a term too, before VGG's: the distance of a
            network by which nothing was chosen.

    Raises:
        SRKitError: weights that cannot be had, or an unknown layer.
    """
    parts = [PerceptualLoss(load_features("squeezenet", ["fire9"], second))] if second else []
    parts.append(PerceptualLoss(load_features(features, ["relu2_2", deepest], feature_weights)))
    return WeightedLoss(dict.fromkeys(["mse", *(name for part in parts for name in part.names)], 1.0), *parts)
