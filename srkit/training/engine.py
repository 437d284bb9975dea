"""What a Trainer runs on: precision, accelerate, optimiser, average, memory, random states, Ctrl-C."""

from __future__ import annotations

import ctypes
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srkit.errors import SRKitError, unknown
from srkit.training.config import TrainConfig


def choose_precision(precision: str, device: torch.device) -> str:
    """What was asked for; for "auto", bf16 where the device computes it in hardware, fp16 on other GPUs, else fp32.

    Raises:
        SRKitError: fp16 on anything but a CUDA GPU.
    """
    if precision == "fp16" and device.type != "cuda":
        raise SRKitError(f"fp16 needs a CUDA GPU, not {device.type}: use auto, bf16 or fp32")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"
    return "fp32"


def keep_freed_memory() -> None:
    """Let the C library keep large blocks for the next step instead of returning them to the system.

    Every activation larger than 32 MiB would otherwise be handed back and be mapped anew, page by page, at
    each step: a seventh of the time of a batch of 240 x 240 crops. Linux with glibc only; elsewhere nothing.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_max, arena_max = -1, -4, -8  # the names' numbers in malloc.h
        libc.mallopt(arena_max, 1)  # a thread's own arena could hold no block of 64 MiB
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)


def make_accelerator(device: torch.device, precision: str) -> Any:
    """accelerate's Accelerator, the engine for precision and for several devices."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    # accelerate keeps one state for the process; a second Trainer may want another device or precision.
    AcceleratorState._reset_state()
    if PartialState._shared_state and PartialState().num_processes == 1:
        PartialState._reset_state()
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=device.type == "cpu")


def make_optimizer(
    config: TrainConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser that the settings name, in its fused form where there is one.

    Raises:
        SRKitError: torch.optim has none of that name.
    """
    known = [name for name in dir(torch.optim) if name[0].isupper() and name != "Optimizer"]
    if config.optimizer not in known:
        raise unknown("optimiser", config.optimizer, known)
    fused = {"fused": True} if config.optimizer in ("Adam", "AdamW", "SGD") and device.type in ("cpu", "cuda") else {}
    return getattr(torch.optim, config.optimizer)(parameters, lr=config.learning_rate, **fused)


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Exponential moving average whose memory grows with the steps: early weights, still bad, are soon forgotten."""

    def average(averaged: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        done = float(steps)  # a counter on the CPU: reading it waits for nothing
        return averaged.lerp(current, 1 - min(decay, (1 + done) / (10 + done)))

    return average


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device's memory is full."""
    from accelerate.utils.memory import should_reduce_batch_size

    return should_reduce_batch_size(error)


def random_state() -> dict[str, Any]:
    """The states of all random generators, as plain tensors, numbers and strings."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all random generators where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(tuple(state["numpy"]))
    random.setstate(state["python"])


@contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step is never cut in two; a second Ctrl-C stops at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield stopped
        return

    def on_signal(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        stopped.set()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
