"""Self-tuning: hyper-parameters that move while a network trains, by the gradient of the validation loss (lesson 08).

Delta-STN (Bae and Grosse, arXiv 2010.13514): λ* = argmin L_V(w*(λ)), where w*(λ) = argmin L_T(w, λ). Validation does
not blur, drop or punish anything, so that λ acts through the weights alone: dL_V/dλ = (dw*/dλ)ᵀ dL_V/dw. A `Response`
learns dw*/dλ on the way, from batches whose examples each have a λ of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from srkit.data import Batch, ImageDataset
from srkit.models.files import damage_of
from srkit.settings import SRKitError
from srkit.training import optim
from srkit.training.config import TrainConfig
from srkit.training.hyper import Hyper
from srkit.training.regularized import RegularizedTrainer
from srkit.training.response import Dropout, Response

SILENT = 50  # steps after which a hyper-parameter that changes nothing is named


@dataclass(frozen=True)
class TuningConfig(TrainConfig):
    """Everything that decides a training with self-tuning."""

    # Learning rate of the hyper-parameters, with Adam, on the line that their sigmoid maps to the range.
    hyper_lr: float = 0.1
    # Learning rate of the response, with Adam. As high as the network's or lower: above it the response can run away.
    response_lr: float = 1e-3
    # Standard deviation of the perturbations, on that line.
    perturbation: float = 1.0
    # First step with a response: before it the network settles at the hyper-parameters it starts with, by plain steps.
    tune_from: int = 0
    # After so many steps the hyper-parameters stay where they are, and steps are plain again; never if not given.
    tune_until: int | None = None
    # First steps of the response, in which the hyper-parameters stay.
    hyper_warmup: int = 30
    # Steps for one move of the hyper-parameters.
    hyper_freq: int = 3
    # Validation patches for one.
    hyper_batch_size: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.hyper_freq, self.hyper_batch_size) < 1:
            raise SRKitError("hyper_freq and hyper_batch_size must be 1 or more")
        if min(self.hyper_warmup, self.tune_from) < 0:
            raise SRKitError("hyper_warmup and tune_from must be 0 or more")
        if self.tune_until is not None and self.tune_until <= self.tune_from:
            raise SRKitError(f"tune_until is {self.tune_until}: it must be more than tune_from, {self.tune_from}")
        for name in ("hyper_lr", "response_lr", "perturbation"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SRKitError(f"{name} is {getattr(self, name)}: it must be more than 0")


class Tuner:
    """λ, the response, and the two steps that change them; the network's own step is not here.

    Other than in the paper λ moves by the gradient at λ itself, and how far it is perturbed stays: in trainings of some
    hundred steps the perturbations' noise hides the gradient.

    Args:
        model: see `Response`.
        hypers: what is tuned.
        config: the settings of self-tuning in it.
        example: see `Response`.

    Attributes:
        raw: (H,), λ on the line that `Hyper.value` maps to its range, on the CPU.
    """

    def __init__(
        self, model: nn.Module, hypers: Sequence[Hyper], config: TuningConfig, example: Tensor | None = None
    ) -> None:
        self.hypers, self.config = list(hypers), config
        self.raw = torch.tensor([one.raw(one.start or 0.0) for one in hypers], requires_grad=True)
        self.response = Response(model, len(hypers), config.seed, example)
        self.response_optimizer = Adam(self.response.parameters(), config.response_lr)
        self.hyper_optimizer = Adam([self.raw], config.hyper_lr)

    def values(self, raw: Tensor | None = None) -> Tensor:
        """λ in its ranges, (H,); or of perturbed ones, (N, H)."""
        raw = self.raw.detach() if raw is None else raw
        return torch.stack([one.value(column) for one, column in zip(self.hypers, raw.unbind(-1), strict=True)], -1)

    def perturbed(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """λ of each of `count` examples in its range, and δ, by how far it is off λ on the line; both (count, H).

        The second half mirrors the first. Given the same pictures twice, all that does not depend on λ cancels in the
        response's gradient, which otherwise is noise for the most part.
        """
        half = torch.randn((count + 1) // 2, len(self.hypers), generator=generator)
        delta = self.config.perturbation * torch.cat([half, -half])[:count]
        return self.values(self.raw.detach() + delta), delta

    def response_step(
        self, batch: Batch, values: Tensor, delta: Tensor, loss: Callable, dropout: Dropout | None = None
    ) -> Tensor:
        """Teach the response to do well on a batch that was made with perturbed λ; returns the loss, detached.

        Args:
            batch: low and high, or any input and target.
            values, delta: (N, H), from `perturbed`.
            loss: of (output, high).
        """
        value = loss(self.response.linearized(batch.low, delta, dropout), batch.high)
        for number, one in enumerate(self.hypers):
            if one.at == "weights":
                factors = values[:, number].to(value.device, non_blocking=True)
                value = value + (factors * self.response.squared_norm(delta)).mean()
        _descend(self.response_optimizer, value, list(self.response.parameters()))
        return value.detach()

    def hyper_step(self, batch: Batch, loss: Callable) -> Tensor:
        """Move λ down the validation loss, through the weights' response at δ = 0; returns the loss, detached."""
        delta = (self.raw - self.raw.detach()).expand(len(batch.low), -1)
        value = loss(self.response(batch.low, delta), batch.high)
        _descend(self.hyper_optimizer, value, [self.raw])
        return value.detach()

    def state(self) -> dict[str, Any]:
        """Plain tensors and numbers."""
        return {
            "hypers": [one.config for one in self.hypers],
            "raw": self.raw.detach().clone(),
            "response": self.response.state_dict(),
            "response_optimizer": self.response_optimizer.state_dict(),
            "hyper_optimizer": self.hyper_optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        with torch.no_grad():
            self.raw.copy_(state["raw"])
        self.response.load_state_dict(state["response"])
        optim.load(self.response_optimizer, state["response_optimizer"])
        optim.load(self.hyper_optimizer, state["hyper_optimizer"])


def _descend(optimizer: Optimizer, loss: Tensor, parameters: list) -> None:
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient.to(parameter.device)
    optimizer.step()


class TuningTrainer(RegularizedTrainer):
    """A Trainer whose hyper-parameters move by themselves: Delta-STN's three steps.

    Each step is a plain one of the network at λ. From `tune_from` to `tune_until` one of the response follows, on half
    as many patches, each twice with perturbed λ; every `hyper_freq` of those, after the first `hyper_warmup`, λ moves.
    Such a step takes about as long as four plain ones. A row of the history also holds "hyper/NAME", each
    hyper-parameter's value; "response/loss" and "hyper/loss", multiples of bicubic's loss. A hyper step waits for the
    device once: λ lives on the CPU.

    Args and raises: as RegularizedTrainer; also a network that has no convolution, or is compiled.
    """

    config_class = TuningConfig
    config: TuningConfig

    def __init__(
        self, model: nn.Module, dataset: ImageDataset, config: TuningConfig | None = None, **options: Any
    ) -> None:
        self.tuner: Tuner | None = None
        super().__init__(model, dataset, config, **options)
        if self.config.compile:
            raise SRKitError("self-tuning changes what layers do, which a compiled network does not: leave out compile")
        side = min(16, self.config.patch_size // self.model.scale)
        example = torch.rand(1, 3, side, side, generator=self._generator(0)).to(self.device)
        self.tuner = Tuner(self.model, self.hypers, self.config, example)
        self._losses: dict[str, Tensor] = {}  # the newest, of the response and of λ
        self._silent: set[str] = set()

    def values(self) -> Tensor:
        """λ as it is now, (H,), on the CPU."""
        return self.tuner.values() if self.tuner else self.fixed

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the network, and perhaps one of the response and one of λ."""
        found, steps = super().step(batch), self.step_number + 1
        if self.config.tune_from < steps <= (self.config.tune_until or self.steps):
            self._tune(steps - self.config.tune_from)
        now = self.values().to(self.device, non_blocking=True)
        return found | self._losses | {f"hyper/{one.name}": value for one, value in zip(self.hypers, now, strict=True)}

    def _tune(self, steps: int) -> None:
        assert self.tuner
        count = max(2, self.config.batch_size // 2 * 2)
        values, delta = self.tuner.perturbed(count, self._generator(2))
        mirrored = [self.regularized(half) for half in values.chunk(2)]  # the same patches, noise and drops
        perturbed = Batch(*map(torch.cat, zip(*mirrored, strict=True)))
        options = {"loss": self.relative_loss, "dropout": self._dropout(values, mirrored=True)}
        self._losses["response/loss"] = self.tuner.response_step(perturbed, values, delta, **options)
        if steps > self.config.hyper_warmup and steps % self.config.hyper_freq == 0:
            training, validation = self.model.training, self._validation_batch(self.config.hyper_batch_size)
            self.model.eval()
            self._losses["hyper/loss"] = self.tuner.hyper_step(validation, self.relative_loss)
            self.model.train(training)
        if steps % SILENT == 0:
            self._name_silent(values, steps)

    def networks(self) -> list[nn.Module]:
        """What this training changes."""
        return [self.model, *([self.tuner.response] if self.tuner else [])]

    def flush(self) -> None:
        """As Trainer's.

        Raises:
            SRKitError: the loss or a hyper-parameter is no longer a number; the message names the last good checkpoint.
        """
        self._check_values()
        super().flush()

    def check_numbers(self) -> None:
        """As Trainer's, of the response and the hyper-parameters, too."""
        self._check_values()
        super().check_numbers()

    def _check_values(self) -> None:
        for one, value in zip(self.hypers, self.values().tolist(), strict=True):
            if value != value:
                raise self.no_number(f"the hyper-parameter {one.name}")

    def _name_silent(self, values: Tensor, steps: int) -> None:
        """Say once of each hyper-parameter without effect that it has none: its gradient is noise."""
        for number, one in enumerate(self.hypers):
            if one.act and one.name not in self._silent:
                alone = self.values().repeat(len(values), 1)
                still = self.regularized(alone).low
                alone[:, number] = values[:, number]
                if torch.equal(self.regularized(alone).low, still):
                    self._silent.add(one.name)
                    self.log(
                        f"{one.name} changes nothing near {self.values()[number]:.3g} and has had no gradient in "
                        f"{steps} steps: does act use its strength, and does its range act?"
                    )

    # ------------------------------------------------------------------------------ saving and resuming

    def state(self) -> dict[str, Any]:
        """As Trainer's, and all of the tuning."""
        assert self.tuner
        return {**super().state(), "tuning": {**self.tuner.state(), "losses": dict(self._losses)}}

    def _load_state(self, state: dict[str, Any]) -> None:
        assert self.tuner
        tuning = state.get("tuning")
        if not isinstance(tuning, dict) or tuning["hypers"] != [one.config for one in self.hypers]:
            raise SRKitError("the checkpoint tunes other hyper-parameters, or none: begin with its own")
        super()._load_state(state)
        with damage_of("the checkpoint"):
            self.tuner.load_state(copy.deepcopy(tuning))
            self._losses = {name: loss.to(self.device) for name, loss in tuning["losses"].items()}

    def _differences(self, state: dict[str, Any]) -> list[str]:
        own = [one.config for one in self.hypers]
        differ = (state.get("tuning") or {}).get("hypers") != own and state["trainer"] == type(self).__name__
        return super()._differences(state) + ["hyper-parameters"] * differ
