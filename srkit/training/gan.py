"""SRGAN's second stage: a generator against a discriminator that learns to tell its pictures from real ones.

Ledig et al., arXiv 1609.04802, eq. 2: in turn, one step of the discriminator D and one of the generator G.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from srkit import models
from srkit.banks import Bank, Batch
from srkit.errors import SRKitError
from srkit.losses import Adversarial, WeightedLoss, judged
from srkit.losses import create as create_loss
from srkit.models.srresnet import check_generator
from srkit.profiles import Student
from srkit.training.config import GANConfig
from srkit.training.history import History
from srkit.training.trainer import KINDS, Trainer

LOOK = 10  # rows of the history that a verdict is made of


class GANTrainer(Trainer):
    """Trains a generator on WeightedLoss with the term "adversarial", and its discriminator beside it.

    A row of the history also holds D/real and D/fake, the mean probability with which the discriminator takes real
    pictures and outputs for real; D/loss, its cross-entropy (0.69 is a coin's); and D/gradient and G/gradient, the
    norms of the gradients. `verdict()` reads them. With validation, best.pt is the step whose outputs look most
    like the truth to the frozen network, for the PSNR of a GAN falls from its first step on.

    Args:
        model: the generator, from the first stage: `load_model(…)`.
        bank, config, validation, out, student, optimizer: as for Trainer, with a GANConfig. Both networks get an
            optimiser of the same kind.
        loss: must have the term "adversarial", as `losses.create(…, discriminator=…)` makes it; its
            discriminator is the one that is trained.
        discriminator: to begin with; a new one from `config` if neither this nor a loss is given.

    Raises:
        SRKitError: a generator that was never trained, unless the config says from_scratch; a discriminator or a
            network with several outputs as the generator; what a Trainer raises.
    """

    settings = GANConfig

    def __init__(
        self,
        model: nn.Module,
        bank: Bank,
        config: GANConfig | None = None,
        loss: WeightedLoss | None = None,
        validation: Bank | None = None,
        out: str | Path | None = None,
        student: Student | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        discriminator: nn.Module | None = None,
    ) -> None:
        config = config or GANConfig()
        check_generator(model)
        if not (getattr(model, "trained", False) or config.from_scratch):
            raise SRKitError(
                "this generator was never trained, and a GAN from noise finds noise: train it on the MSE first and "
                "give load_model(…/best.pt) (--start), or ask for from_scratch (--from-scratch)"
            )
        if loss is None:
            loss = create_loss(**config.loss_settings(), discriminator=discriminator or new_discriminator(config))
        judge = loss.terms.get("adversarial")
        if not isinstance(judge, Adversarial):
            raise SRKitError("this loss has no term adversarial: make it by losses.create(…, discriminator=…)")
        super().__init__(model, bank, config, loss, validation, out, student, optimizer)
        if self.accelerator.num_processes > 1:
            raise SRKitError("a GAN trains on one device here: start it without accelerate launch")
        self.discriminator = judge.discriminator.to(self.device, memory_format=torch.channels_last)
        self.discriminator_optimizer = self._prepared(self.discriminator.parameters(), config.discriminator_rate)
        self.optimizers.append(self.discriminator_optimizer)
        self._output: Tensor | None = None
        if self.steps <= config.discriminator_warmup:
            self.say(f"all {self.steps} steps are the discriminator's warm-up: the generator will not learn")
        with torch.no_grad():  # a crop that the discriminator cannot judge is refused now, not later
            self.discriminator.eval()(torch.zeros(1, 3, config.crop, config.crop, device=self.device))

    # ------------------------------------------------------------------------------ one step

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the discriminator, then, once that has warmed up, one of the generator."""
        self._output = None
        self.discriminator.train()
        values = self._learn("D", self.discriminator, self.discriminator_optimizer, self.judge, batch)
        if self.step_number >= self.config.discriminator_warmup:
            with _held_fixed(self.discriminator):
                values |= self._learn("G", self.model, self.optimizer, self.backward, batch)
        return values

    def judge(self, batch: Batch, share: float = 1.0) -> dict[str, Tensor]:
        """Add the gradient of the discriminator's loss to its weights', and to no others."""
        with self.autocast():
            output = self._fresh_output(batch.low)
            # Two batches, not one of both: each is normalised by its own statistics, as the generator's will be.
            real = self.discriminator(batch.high)
            fake = self.discriminator(output.detach().float())  # detached: G must not learn from D's step
            loss = (judged(real, self.config.real_label) + judged(fake, 0.0)) / 2
        self.accelerator.backward(loss * share)
        chances = {"D/real": real.detach().float().sigmoid().mean(), "D/fake": fake.detach().float().sigmoid().mean()}
        return {**chances, "D/loss": loss.detach()}

    def answer(self, low: Tensor) -> Tensor:
        """The generator's output, the one that the discriminator has just learnt from where it was kept."""
        output, self._output = self._output, None
        return super().answer(low) if output is None else output

    def _fresh_output(self, low: Tensor) -> Tensor:
        """A new output; kept with its graph for the generator's step, unless memory made the batch go in parts."""
        keep = self.parts == 1 and self.step_number >= self.config.discriminator_warmup
        with torch.set_grad_enabled(keep):
            output = super().answer(low)
        self._output = output if keep else None
        return output

    def _learn(
        self, name: str, model: nn.Module, optimizer: torch.optim.Optimizer, backward: Callable, batch: Batch
    ) -> dict[str, Tensor]:
        """One step of one network; the history also gets the norm of its gradient."""
        optimizer.zero_grad()
        values = self.in_parts(backward, batch)
        norm = self.accelerator.clip_grad_norm_(model.parameters(), self.config.clip or math.inf)
        optimizer.step()
        return {**values, f"{name}/gradient": norm}

    # ------------------------------------------------------------------------------ what one sees

    def verdict(self) -> str:
        """Whether the two networks are in balance, in plain words, and what to try if not; see `verdict`."""
        return verdict(self.history)

    def score(self, row: dict[str, float]) -> float:
        """What best.pt has the highest of: likeness to the frozen network; without one, the newest is the best."""
        seen = [row[f"val/{name}"] for part in self.loss.perceptual for name in part.names if f"val/{name}" in row]
        return -sum(seen) if seen else float(self.step_number)

    # ------------------------------------------------------------------------------ saving and resuming

    def state(self) -> dict[str, Any]:
        """As Trainer's, and the discriminator with its optimiser."""
        judge = {
            "recipe": getattr(self.discriminator, "recipe", {}),
            "weights": self.discriminator.state_dict(),
            "optimizer": self.discriminator_optimizer.state_dict(),
        }
        return {**super().state(), "discriminator": judge}

    def load_state(self, state: dict[str, Any]) -> GANTrainer:
        """Go on from where a GAN's checkpoint stands; returns the Trainer.

        Raises:
            SRKitError: the checkpoint holds no discriminator, or another; what Trainer raises.
        """
        if "discriminator" not in state:
            raise SRKitError("the checkpoint is no GAN's: give its model to a new GANTrainer instead")
        try:
            self.discriminator.load_state_dict(state["discriminator"]["weights"])
        except RuntimeError:
            raise SRKitError("the checkpoint holds another discriminator than this one") from None
        super().load_state(state)
        self.discriminator_optimizer.load_state_dict(state["discriminator"]["optimizer"])
        return self


KINDS["GANTrainer"] = GANTrainer


@contextmanager
def _held_fixed(network: nn.Module) -> Iterator[None]:
    """Within it gradients go through the network, but none is kept for its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def new_discriminator(config: GANConfig) -> nn.Module:
    """The discriminator that a config describes; its seed decides the starting weights."""
    recipe = {"name": "discriminator", "architecture": "Discriminator", "channels": config.discriminator}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return models.build({**recipe, "size": None if config.judges == "any" else int(config.judges)})


def verdict(history: History) -> str:
    """What the last rows of a GAN's history say of its health, in plain words, and what to try.

    Told apart are: one term rules the generator's loss; the discriminator wins, is blind, or not sure yet; all is well.
    The thresholds are rules of thumb, no theory.
    """
    rows = [row for row in list(history.rows) if "D/real" in row][-LOOK:]
    if not rows:
        return "no step yet"
    real, fake = (fmean(row[name] for row in rows) for name in ("D/real", "D/fake"))
    says = f"D takes real pictures for real with {real:.0%}, outputs with {fake:.0%}"
    if "G/gradient" not in rows[-1]:
        return f"warming up, D learns alone: {says}"
    rows = [row for row in rows if "G/gradient" in row]
    share = fmean(row.get("weighted/adversarial", 0) / max(row["loss"], 1e-12) for row in rows)
    if share > 0.6:
        lost = _lost(history)
        return (
            f"the adversarial term rules, with {share:.0%} of the generator's loss{lost}: looking real is all that "
            "counts, and truth nothing; try a tenth of its weight"
        )
    if real - fake > 0.9:
        return f"D wins: {says}; G can learn little from it; try real_label 0.9, fewer filters in D, or more of stage 1"
    if abs(real - fake) < 0.05:
        return f"D is blind: {says}; G learns nothing from it; try some steps of discriminator_warmup, or more filters"
    if real - fake < 0.2:
        return f"undecided: {says}; it is early, or D is weak: more steps, more filters, or a higher discriminator_rate"
    if not share:
        return f"the adversarial term weighs nothing: D only looks on; {says}"
    if share < 0.01:
        return (
            f"balanced, but D has no say: {share:.1%} of the generator's loss is adversarial; try ten times its weight"
        )
    return f"healthy: {says}; the adversarial term makes up {share:.0%} of the generator's loss"


def _lost(history: History) -> str:
    """How far the validation's PSNR has fallen, in words; nothing where it has not."""
    _, values = history.series("val/dB")
    return f" (validation PSNR {values[-1] - values[0]:+.1f} dB)" if len(values) > 1 and values[-1] < values[0] else ""
