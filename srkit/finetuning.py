"""Fine-tuning: a trained network goes on, carefully, on a small set of pictures of its own (lesson 07).

A few hundred pictures are enough to improve a network a little, and to spoil it. `FineTuner` is a Trainer with four
precautions: the network is copied, its batch normalisation stays as it was learnt, a judge that is not the loss says
when it was best, and the start takes part: if nothing beats it, it is what remains.
"""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from srkit import losses, models
from srkit.banks import Bank
from srkit.errors import SRKitError, unknown
from srkit.features import NETWORKS, open_features
from srkit.losses import WeightedLoss
from srkit.profiles import Student
from srkit.training import History, TrainConfig, Trainer, checkpoint
from srkit.training.engine import check_alone


class FineTuner(Trainer):
    """A Trainer for a network that can do something already.

    After `fit` the model has the weights that the judge liked best, which are also in best.pt: of the start, or of a
    validation on the way. Training stops when `patience` validations in a row were no better than the best.

    Args:
        model: trained; it is copied, and itself not changed. Batch normalisation is frozen (Ledig's generators have it,
            see `SRResNet.frozen_norm`): the mean and variance of a few crops of one kind would replace those of
            hundreds of thousands.
        bank, config, out, student: as `Trainer`. Learning rates of fine-tuning are small: 1e-5 to 1e-4.
        validation: pictures of the same kind that are neither trained on nor reported on.
        judge: a loss whose terms are measured on them, each with a weight; its last is what must become small. For
            instance `judge()`: a distance seen by a frozen network, for PSNR rises longest where textures are lost.
        patience: validations.

    Raises:
        SRKitError: no validation pictures, or what `Trainer` raises.
    """

    def __init__(
        self,
        model: nn.Module,
        bank: Bank,
        config: TrainConfig | None = None,
        *,
        validation: Bank,
        judge: WeightedLoss,
        patience: int = 5,
        out: str | Path | None = None,
        student: Student | None = None,
    ) -> None:
        check_alone("fine-tuning")
        if validation is None:
            raise SRKitError("fine-tuning needs validation pictures, or nothing says when to stop: give validation=…")
        tuned = models.rebuild(model, frozen_norm=True) if hasattr(model, "frozen_norm") else copy.deepcopy(model)
        super().__init__(tuned, bank, config, validation=validation, out=out, student=student)
        self.judge, self.patience, self._kept = judge, patience, None
        for part in judge.perceptual:
            part.extractor.to(self.device)

    def fit(self, progress: bool = True) -> History:
        """Train until nothing gets better or the steps are done, then take the best weights."""
        history = super().fit(progress)
        if not self.interrupted:
            self._take_best()
        return history

    def __next__(self) -> int:
        """As Trainer's; the start is measured before the first step, and too long without a better one is the end."""
        if self.step_number == 0 and not self.history.rows:
            self._set_aside()
            self._validate()
        scores = list(self._scores().values())
        if len(scores) - 1 - scores.index(max(scores)) >= self.patience:
            if self.out and self.step_number % self.config.save_freq:
                self.save()
            raise StopIteration
        return super().__next__()

    @property
    def best_step(self) -> int:
        """The step of the weights that the judge liked best; 0 is the start."""
        scores = self._scores()
        return max(scores, key=scores.__getitem__)

    def score(self, row: dict[str, float]) -> float:
        """What best.pt has the highest of: minus the judge's last term."""
        return -row[f"val/{list(self.judge.weights)[-1]}"]

    def _scores(self) -> dict[int, float]:
        return {int(row["step"]): self.score(row) for row in self.history.rows if "val/dB" in row}

    def _validate(self) -> None:
        training, best = self.loss, self.best
        self.loss = self.judge  # measured, never minimised
        try:
            super()._validate()
        finally:
            self.loss = training
        if self.best > best:
            self._kept = copy.deepcopy(self.result.state_dict())

    def _take_best(self) -> None:
        if self._kept is None:  # picked up: this Trainer itself has measured nothing better
            state = checkpoint.load(self.out / "best.pt")
            self._kept = state["ema"] or state["model"]
        self.result.load_state_dict(self._kept)


def judge(
    feature_weights: str = "imagenet", deepest: str = "relu5_4", *, second: str | Path | None = None
) -> WeightedLoss:
    """What fine-tuning is judged by: MSE, VGG-19's relu2_2 ("VGG22") and the deepest layer that its weights hold.

    With the published weights that is relu5_4 ("VGG54", arXiv 1609.04802, Section 2.2.1); a file of the first layers
    has less, and the term's name says which. Activations are compared as they are, without SRGAN's division by 12.75,
    so that the numbers of different weights files cannot be compared with each other.

    Args:
        feature_weights: as `features.Extractor`.
        deepest: no layer beyond this one, however much the weights hold; a shallower one is quicker.
        second: weights of SqueezeNet, whose deepest layer, fire9, then is a term too, before VGG's: what a network says
            on which nobody has chosen anything.

    Raises:
        SRKitError: weights that cannot be had, or an unknown layer.
    """
    layers = NETWORKS["vgg19"].names()
    if deepest not in layers[layers.index("relu2_2") + 1 :]:
        raise unknown("layer deeper than relu2_2", deepest, layers[layers.index("relu2_2") + 1 :])
    others = [losses.PerceptualLoss(open_features("squeezenet", ["fire9"], str(second)))] if second else []
    for layer in reversed(layers[: layers.index(deepest) + 1]):
        try:
            seen = losses.PerceptualLoss(open_features("vgg19", ["relu2_2", layer], feature_weights))
            break
        except SRKitError as error:
            if "the layers it holds" not in str(error) or layer == "relu2_2":
                raise
    names = ["mse", *(name for part in others for name in part.names), *seen.names]
    return WeightedLoss(dict.fromkeys(names, 1.0), *others, seen)
