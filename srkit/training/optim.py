"""What changes the weights: the optimiser, its learning rate over the steps, and the average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from srkit.settings import SRKitError, unknown
from srkit.training.config import TrainConfig


def make_optimizer(config: TrainConfig, device: torch.device, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser that the settings name, in its fused form where there is one.

    Raises:
        SRKitError: torch.optim has none of that name.
    """
    known = [name for name in dir(torch.optim) if name[0].isupper() and name != "Optimizer"]
    if config.optimizer not in known:
        raise unknown("optimiser", config.optimizer, known)
    fused = {"fused": True} if config.optimizer in ("Adam", "AdamW", "SGD") and device.type in ("cpu", "cuda") else {}
    return getattr(torch.optim, config.optimizer)(parameters, lr=config.lr, **fused)


def schedule(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of a step as a part of the full one: it rises from 0, then stays or falls along half a cosine.

    Args:
        step: counted from 0.
        steps: of the whole training.
    """
    rising = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "constant":
        return rising
    length = config.schedule_steps or steps
    return rising * 0.5 * (1 + math.cos(math.pi * min(step / length, 1)))


def load(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser the averages that a checkpoint holds; its groups stay as the settings made them.

    Raises:
        SRKitError: it cannot take a step with them.
    """
    try:
        averages = state["state"] if isinstance(state, dict) else None
        if not isinstance(averages, dict) or not all(isinstance(one, dict) for one in averages.values()):
            raise TypeError("no averages")
        optimizer.load_state_dict({"state": averages, "param_groups": optimizer.state_dict()["param_groups"]})
        if not averages:  # at step 0 there is nothing yet to try
            return
        trial = copy.deepcopy(optimizer)  # what each optimiser keeps is its own affair: whether it can go on, it shows
        for parameter in (parameter for group in trial.param_groups for parameter in group["params"]):
            parameter.grad = torch.zeros_like(parameter)
        trial.step()
    except Exception as error:
        raise SRKitError(f"the checkpoint's optimiser is damaged ({type(error).__name__}): get it again") from error


def set_learning_rate(optimizers: Iterable[Optimizer], rate: float) -> None:
    """Give every parameter group its "factor" times this rate; see `Stepper.add_optimizer`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * rate


@torch.no_grad()
def moving_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """One step of an exponential moving average: one operation for all weights, and no wait for the device.

    Its memory grows with the steps, so that early weights, still bad, are soon forgotten.

    Args:
        average: changed in place; buffers (batch normalisation's statistics) become the model's.
        decay: what is kept of the average at each step, in the long run.
        step: counted from 0.
    """
    new = 1 - min(decay, (1 + step) / (10 + step)) if step else 1.0
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        list(average.parameters()), list(model.parameters()), new
    )
    copy_all(list(average.buffers()), list(model.buffers()))


@torch.no_grad()
def copy_all(to: list[Tensor], values: list[Tensor]) -> None:
    """Each of `values` into the tensor of `to` at its place: one operation for all."""
    if to:
        torch._foreach_copy_(to, values)  # pyright: ignore[reportPrivateImportUsage]
