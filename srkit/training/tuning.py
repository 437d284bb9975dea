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
import torch.nn.functional as F
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
    hyper_lr: float = 0.15
    # Learning rate of the response, with Adam.
    response_lr: float = 5e-3
    # Standard deviation of the perturbations at the start, on that line; it is tuned, too.
    perturbation: float = 1.0
    # What the entropy of the perturbations weighs against the loss, which is 1 at bicubic: keeps them from vanishing.
    entropy: float = 1e-2
    # First steps in which the response learns and the hyper-parameters stay.
    hyper_warmup: int = 15
    # Steps for one move of the hyper-parameters.
    hyper_freq: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hyper_freq < 1 or self.hyper_warmup < 0:
            raise SRKitError("hyper_freq must be 1 or more, hyper_warmup 0 or more")
        for name in ("hyper_lr", "response_lr", "perturbation"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SRKitError(f"{name} is {getattr(self, name)}: it must be more than 0")


class Tuner:
    """λ, how far it is perturbed, the response, and the two steps that change them; the network's own step is not here.

    Args:
        model: see `Response`.
        hypers: what is tuned.
        config: the settings of self-tuning in it.
        example: see `Response`.

    Attributes:
        raw: (H,), λ on the line that `Hyper.value` maps to its range; `spread` the perturbations' softplus⁻¹, both on
            the CPU.
    """

    def __init__(
        self, model: nn.Module, hypers: Sequence[Hyper], config: TuningConfig, example: Tensor | None = None
    ) -> None:
        self.hypers, self.config = list(hypers), config
        self.raw = torch.tensor([one.raw(one.start or 0.0) for one in hypers], requires_grad=True)
        self.spread = torch.tensor(config.perturbation).expm1().log().repeat(len(hypers)).requires_grad_()
        self.response = Response(model, len(hypers), config.seed, example)
        self.response_optimizer = Adam(self.response.parameters(), config.response_lr)
        self.hyper_optimizer = Adam([self.raw, self.spread], config.hyper_lr)

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
        raw = self.raw + F.softplus(self.spread) * torch.cat([half, -half])[:count]
        return self.values(raw.detach()), raw - self.raw.detach()

    def response_step(
        self, batch: Batch, values: Tensor, delta: Tensor, loss: Callable, dropout: Dropout | None = None
    ) -> Tensor:
        """Teach the response to do well on a batch that was made with perturbed λ; returns the loss, detached.

        Args:
            batch: low and high, or any input and target.
            values, delta: (N, H), from `perturbed`.
            loss: of (output, high).
        """
        delta = delta.detach()
        value = loss(self.response.linearized(batch.low, delta, dropout), batch.high)
        for number, one in enumerate(self.hypers):
            if one.at == "weights":
                factors = values[:, number].to(value.device, non_blocking=True)
                value = value + (factors * self.response.squared_norm(delta)).mean()
        _descend(self.response_optimizer, value, list(self.response.parameters()))
        return value.detach()

    def hyper_step(self, batch: Batch, loss: Callable, generator: torch.Generator) -> Tensor:
        """Move λ and its spread down the validation loss, through the weights' response; returns the loss, detached."""
        _, delta = self.perturbed(len(batch.low), generator)
        value = loss(self.response(batch.low, delta), batch.high)
        entropy = F.softplus(self.spread).log().sum()  # of a Gaussian, but for a constant
        _descend(self.hyper_optimizer, value - self.config.entropy * entropy.to(value.device), [self.raw, self.spread])
        return value.detach()

    def state(self) -> dict[str, Any]:
        """Plain tensors and numbers."""
        return {
            "hypers": [one.config for one in self.hypers],
            "raw": self.raw.detach().clone(),
            "spread": self.spread.detach().clone(),
            "response": self.response.state_dict(),
            "response_optimizer": self.response_optimizer.state_dict(),
            "hyper_optimizer": self.hyper_optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        with torch.no_grad():
            self.raw.copy_(state["raw"])
            self.spread.copy_(state["spread"])
        self.response.load_state_dict(state["response"])
        optim.load(self.response_optimizer, state["response_optimizer"])
        optim.load(self.hyper_optimizer, state["hyper_optimizer"])


def _descend(optimizer: Optimizer, loss: Tensor, parameters: list) -> None:
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient.to(parameter.device)
    optimizer.step()


class TuningTrainer(RegularizedTrainer):
    """A Trainer whose hyper-parameters move by themselves: Delta-STN's three steps in one.

    Each step is a plain one of the network at λ, and one of the response, on half as many patches, each twice with
    perturbed λ; every
    `hyper_freq` steps after the first `hyper_warmup`, λ moves. In all a step takes about as long as three. A row of the
    history also holds "hyper/NAME", each hyper-parameter's value; "response/loss" and "hyper/loss", multiples of
    bicubic's loss. A hyper step waits for the device once: λ lives on the CPU.

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
        self._hyper_loss: Tensor | None = None
        self._silent: set[str] = set()

    def values(self) -> Tensor:
        """λ as it is now, (H,), on the CPU."""
        return self.tuner.values() if self.tuner else self.fixed

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the network, one of the response, and perhaps one of λ."""
        assert self.tuner
        found = super().step(batch)
        count = max(2, self.config.batch_size // 2 * 2)
        values, delta = self.tuner.perturbed(count, self._generator(2))
        mirrored = [self.regularized(half) for half in values.chunk(2)]  # the same patches, noise and drops
        perturbed = Batch(*map(torch.cat, zip(*mirrored, strict=True)))
        options = {"loss": self.relative_loss, "dropout": self._dropout(values, mirrored=True)}
        found["response/loss"] = self.tuner.response_step(perturbed, values, delta, **options)
        steps = self.step_number + 1
        if steps > self.config.hyper_warmup and steps % self.config.hyper_freq == 0:
            training = self.model.training
            self.model.eval()
            self._hyper_loss = self.tuner.hyper_step(self._validation_batch(), self.relative_loss, self._generator(3))
            self.model.train(training)
        if self._hyper_loss is not None:
            found["hyper/loss"] = self._hyper_loss
        if steps % SILENT == 0:
            self._name_silent(values)
        now = self.values().to(self.device, non_blocking=True)
        return found | {f"hyper/{one.name}": value for one, value in zip(self.hypers, now, strict=True)}

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

    def _name_silent(self, values: Tensor) -> None:
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
                        f"{self.step_number + 1} steps: does act use its strength, and does its range act?"
                    )

    # ------------------------------------------------------------------------------ saving and resuming

    def state(self) -> dict[str, Any]:
        """As Trainer's, and all of the tuning."""
        assert self.tuner
        return {**super().state(), "tuning": {**self.tuner.state(), "hyper_loss": self._hyper_loss}}

    def _load_state(self, state: dict[str, Any]) -> None:
        assert self.tuner
        tuning = state.get("tuning")
        if not isinstance(tuning, dict) or tuning["hypers"] != [one.config for one in self.hypers]:
            raise SRKitError("the checkpoint tunes other hyper-parameters, or none: begin with its own")
        super()._load_state(state)
        with damage_of("the checkpoint"):
            self.tuner.load_state(copy.deepcopy(tuning))
            loss = tuning["hyper_loss"]
            self._hyper_loss = None if loss is None else loss.to(self.device)

    def _differences(self, state: dict[str, Any]) -> list[str]:
        own = [one.config for one in self.hypers]
        differ = (state.get("tuning") or {}).get("hypers") != own and state["trainer"] == type(self).__name__
        return super()._differences(state) + ["hyper-parameters"] * differ
