"""SRGAN's second stage: a generator against a discriminator that learns to tell its pictures from real ones.

Ledig et al., arXiv 1609.04802, eq. 2: in turn, one step of the discriminator D and one of the generator G.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from srkit import losses, models
from srkit.data import Batch, ImageDataset
from srkit.losses import Adversarial, WeightedLoss, discriminator_loss
from srkit.models import Discriminator, scales_of
from srkit.models.files import damage_of
from srkit.settings import SRKitError
from srkit.training import optim
from srkit.training.config import GANConfig
from srkit.training.devices import check_alone
from srkit.training.history import History
from srkit.training.trainer import Trainer

RECENT = 10  # rows of the history that a diagnosis is made of


class GANTrainer(Trainer):
    """Trains a generator on a WeightedLoss with the term "adversarial", and its discriminator beside it.

    A row of the history also holds D/real and D/fake, the mean probability with which the discriminator takes real
    pictures and outputs for real; D/loss, its cross-entropy (0.69 is a coin's); and D/gradient and G/gradient, the
    norms of the gradients. `diagnose()` reads them. With validation, best.pt is the step whose feature maps are nearest
    to the ground truth's, for the PSNR of a GAN falls from its first step on.

    Args:
        model: the generator, from the first stage: `models.load(…)`.
        dataset, config, options: as for Trainer, with a GANConfig. Both networks get an optimiser of the same kind.
        loss: must have the term "adversarial", as `losses.create(…, discriminator=…)` makes it; its discriminator is
            the one that is trained, be it new or from `checkpoint.load_discriminator`. Without a loss, `config` says.

    Raises:
        SRKitError: a generator that was never trained, unless the config says from_scratch; a discriminator or a
            network with several outputs as the generator; what a Trainer raises.
    """

    config_class = GANConfig
    config: GANConfig

    def __init__(
        self,
        model: nn.Module,
        dataset: ImageDataset,
        config: GANConfig | None = None,
        loss: WeightedLoss | None = None,
        **options: Any,
    ) -> None:
        config = config or GANConfig()
        check_alone("a GAN's training")
        if isinstance(model, Discriminator) or len(scales_of(model)) > 1:
            raise SRKitError("a GAN's generator is a network that enlarges, with one output, such as srresnet")
        if not (getattr(model, "pretrained", False) or config.from_scratch):
            raise SRKitError(
                "this generator was never trained, and a GAN from noise finds noise: train it on the MSE first and "
                "give models.load(…/best.pt) (--start), or ask for from_scratch (--from-scratch)"
            )
        if loss is None:
            loss = losses.create(**config.loss_settings(), discriminator=new_discriminator(config))
        adversarial = loss.terms.get("adversarial")
        if not isinstance(adversarial, Adversarial):
            raise SRKitError("this loss has no term adversarial: make it by losses.create(…, discriminator=…)")
        super().__init__(model, dataset, config, loss, **options)
        # Validation measures every other term, whatever it weighs just then: so scores can be compared.
        others = [name for name in loss.weights if name != "adversarial"]
        self.criterion = WeightedLoss(dict.fromkeys(others or ["mse"], 1.0), *loss.perceptual)
        self.discriminator = adversarial.discriminator.to(self.device).to(memory_format=torch.channels_last)
        self.discriminator_optimizer = self.add_optimizer(self.discriminator.parameters(), config.discriminator_lr)
        self.settings["accumulate_discriminator"] = 1
        self._output: Any = None
        with torch.no_grad():  # a patch that the discriminator cannot take is refused now, not later
            self.discriminator.eval()(torch.zeros(1, 3, config.patch_size, config.patch_size, device=self.device))

    def networks(self) -> list[nn.Module]:
        """What this training changes."""
        return [self.model, self.discriminator]

    # ------------------------------------------------------------------------------ one step

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the discriminator, then, once that has warmed up, one of the generator."""
        limit = self.config.clip or math.inf  # without a limit the norm is measured all the same
        self._output = None
        self.discriminator.train().requires_grad_(True)
        optimizer = self.discriminator_optimizer
        values = self.accumulate(optimizer, self.backward_discriminator, batch, "accumulate_discriminator")
        values["D/gradient"] = self.update(optimizer, limit)
        if self.step_number >= self.config.discriminator_warmup:
            self.discriminator.requires_grad_(False)  # gradients go through it, and none is kept for its weights
            values |= self.accumulate(self.optimizer, self.backward, batch)
            values["G/gradient"] = self.update(self.optimizer, limit)
        self.scaler.update()  # once for both: they share its scale
        return values

    def backward_discriminator(self, batch: Batch, share: float = 1.0) -> dict[str, Tensor]:
        """Add the gradient of the discriminator's loss to its weights', and to no others.

        The generator's output is kept with its graph for the generator's step, unless memory has the batch accumulated.
        """
        whole = self.settings["accumulate"] == self.settings["accumulate_discriminator"] == 1
        keep = whole and self.step_number >= self.config.discriminator_warmup
        with self.autocast():
            with torch.set_grad_enabled(keep):
                output: Any = super().generate(batch.low)
            self._output = output if keep else None
            # Two batches, not one of both: each is normalised by its own statistics, as the generator's will be.
            real = self.discriminator(batch.high)
            fake = self.discriminator(output.detach().float())  # detached: G must not learn from D's step
            loss = (discriminator_loss(real, self.config.real_label) + discriminator_loss(fake, 0.0)) / 2
        self.scaler.scale(loss * share).backward()
        real, fake = (logits.detach().float().sigmoid().mean() for logits in (real, fake))
        return {"D/real": real, "D/fake": fake, "D/loss": loss.detach()}

    def generate(self, low: Tensor) -> Any:
        """The generator's output: the one that the discriminator has just learnt from, if it was kept."""
        output, self._output = self._output, None
        if output is not None and len(output) == len(low):  # memory may have split the batch since
            return output
        return super().generate(low)

    def score(self, row: dict[str, float]) -> float:
        """What best.pt has the highest of: likeness of feature maps; without any, the newest is the best."""
        distances = [row[f"val/{name}"] for part in self.loss.perceptual for name in part.names if f"val/{name}" in row]
        return -sum(distances) if distances else float(self.step_number)

    def diagnose(self) -> str:
        """Whether the two networks are in balance, in plain words, and what to try if not; see `diagnose`."""
        return diagnose(self.history)

    # ------------------------------------------------------------------------------ saving and resuming

    def state(self) -> dict[str, Any]:
        """As Trainer's, and the discriminator with its optimiser."""
        discriminator = {
            "config": getattr(self.discriminator, "config", {}),
            "weights": self.discriminator.state_dict(),
            "optimizer": self.discriminator_optimizer.state_dict(),
        }
        return {**super().state(), "discriminator": discriminator}

    def load_state(self, state: dict[str, Any]) -> GANTrainer:
        """Go on from where a GAN's checkpoint stands; returns the Trainer.

        Raises:
            SRKitError: the checkpoint holds no discriminator, or another; what Trainer raises.
        """
        try:
            self.discriminator.load_state_dict(state["discriminator"]["weights"])
        except (KeyError, TypeError, AttributeError, RuntimeError):
            raise SRKitError("the checkpoint holds another discriminator, or none: begin with its model") from None
        super().load_state(state)
        with damage_of("the checkpoint"):
            optim.load(self.discriminator_optimizer, state["discriminator"]["optimizer"])
        return self


def new_discriminator(config: GANConfig) -> nn.Module:
    """The discriminator that a config describes; its seed decides the starting weights."""
    arguments = {"channels": config.discriminator, "size": config.discriminator_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return models.build(models.bounded({"name": "discriminator", "architecture": "Discriminator", **arguments}))


def diagnose(history: History) -> str:
    """What the last rows of a GAN's history say of its health, in plain words, and what to try.

    Told apart are: one term rules the generator's loss; the discriminator wins, learns nothing, or is not sure yet; all
    is well. The thresholds are rules of thumb, no theory.
    """
    rows = [row for row in list(history.rows) if "D/real" in row][-RECENT:]
    if not rows:
        return "no step yet"
    real, fake = (fmean(row[name] for row in rows) for name in ("D/real", "D/fake"))
    says = f"D takes real pictures for real with {real:.0%}, outputs with {fake:.0%}"
    if "G/gradient" not in rows[-1]:
        return f"warming up, D learns alone: {says}"
    rows = [row for row in rows if "G/gradient" in row]
    share = fmean(row.get("weighted/adversarial", 0) / max(row["loss"], 1e-12) for row in rows)
    if share > 0.6:
        return (
            f"the adversarial term rules, with {share:.0%} of the generator's loss: looking real is all that counts, "
            "and the ground truth nothing; try a tenth of its weight"
        )
    if real - fake > 0.9:
        return f"D wins: {says}; G can learn little from it; try real_label 0.9, fewer filters in D, or more of stage 1"
    if abs(real - fake) < 0.05:
        return f"D cannot tell them apart: {says}; try some steps of discriminator_warmup, or more filters"
    if real - fake < 0.2:
        return f"undecided: {says}; it is early, or D is weak: more steps, more filters, or a higher discriminator_lr"
    if not share:
        return f"the adversarial term weighs nothing: D changes nothing in G; {says}"
    if share < 0.01:
        return f"balanced, but only {share:.1%} of the generator's loss is adversarial; try ten times its weight"
    return f"healthy: {says}; the adversarial term makes up {share:.0%} of the generator's loss"
