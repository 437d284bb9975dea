"""What a Trainer runs on: device, precision, accelerate, optimiser, average, memory, random states, Ctrl-C.

Several processes train together where a launcher starts them, each on its part of every batch; accelerate connects
them:

    accelerate launch --num_processes 2 -m srkit train srcnn --data my/photos            one process for each GPU
    torchrun --nproc-per-node 2 -m srkit train srcnn --data my/photos --device cpu       two on one processor

(`accelerate launch --cpu` starts one process, whatever --num_processes says: it leaves several to MPI. Started with
--multi_gpu it asks for no GPU, and two processes with --device cpu are two on the processor. Both launchers give each
process one thread unless OMP_NUM_THREADS says more.)
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srkit.errors import SRKitError, unknown
from srkit.profiles import choose_device
from srkit.training.config import TrainConfig

PATIENCE = timedelta(hours=2)  # how long a process waits for the others: one may be downloading, or validating


def open_device(name: str) -> torch.device:
    """The device by name, as `choose_device`; of several processes each gets a GPU of its own.

    Raises:
        SRKitError: an unknown or missing device, or one on which several processes cannot train together.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    asked_for_cpu = name == "auto" and parse_flag_from_env("ACCELERATE_USE_CPU")  # accelerate launch --cpu
    device = choose_device("cpu" if asked_for_cpu else name)
    if not several_processes():
        return device
    state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    if state.num_processes == 1 or state.device.type != device.type:
        raise SRKitError(f"several processes cannot train on {device.type}: start one, or ask for --device cpu")
    return device if device.type == "cpu" else state.device


def several_processes() -> bool:
    """Whether a launcher (accelerate launch, torchrun) started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def check_alone(what: str) -> None:
    """Refuse to go on as one of several processes.

    Raises:
        SRKitError: this is one of several.
    """
    if several_processes():
        raise SRKitError(f"{what} works in one process: start it without accelerate launch")


@contextmanager
def together(name: str) -> Iterator[torch.device]:
    """Within it this process trains on the device by name, perhaps with others, of which only the main one prints."""
    from accelerate import PartialState

    device = open_device(name)
    if not several_processes():
        if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ:
            print("accelerate launch --cpu started one process: for more, torchrun --nproc-per-node 2 -m srkit …")
        yield device
        return
    state = PartialState()
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if state.is_main_process else nowhere):
        yield device
    state.destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through it first, then the others: what one has downloaded is there for all."""
    from accelerate import PartialState

    with PartialState().main_process_first() if several_processes() else nullcontext():
        yield


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


def make_accelerator(device: torch.device, precision: str, outputs: int = 1) -> Any:
    """accelerate's Accelerator, the engine for precision and for several devices.

    Args:
        device: from `open_device`.
        outputs: how many the model has. The loss may leave one out, and then some weights get no gradient.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, PartialState

    # accelerate keeps one state for the process; a second Trainer may want another device or precision.
    AcceleratorState._reset_state()
    if PartialState._shared_state and PartialState().num_processes == 1:
        PartialState._reset_state()
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=device.type == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=outputs > 1)],
    )


def distribute(accelerator: Any, model: nn.Module, network: nn.Module) -> nn.Module:
    """The network as several processes train it together: after a backward pass each has the mean of all gradients.

    Batch normalisation uses the whole batch on GPUs. On the processor, for which PyTorch has no such layer, each
    process normalises its own part.

    Args:
        model: whose weights are trained; it keeps its names, and its own forward.
        network: the model, or what torch.compile has made of it.
    """
    if accelerator.num_processes == 1:
        return network
    if accelerator.device.type == "cuda" and not getattr(model, "frozen_norm", False):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    # A layer of 1 x 1 has two ways to call its strides; which of them the gradient takes makes no difference.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # prepare_model puts its autocast into the forward of what it gets: that must not be the model's, which validates.
    return accelerator.prepare_model(nn.Sequential(network))


def from_main(value: Any) -> Any:
    """What the main process has, in all of them: plain numbers and words."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def described(accelerator: Any) -> str:
    """Where a training runs, in words: "cpu", "cuda in 2 processes"."""
    count = accelerator.num_processes
    return accelerator.device.type + (f" in {count} processes" if count > 1 else "")


def compiled(model: nn.Module, choice: str) -> nn.Module:
    """The model, or what torch.compile makes of it; the model's own weights and their names stay as they are.

    Args:
        choice: "on", "off", or "auto": where it was measured to pay, which is nowhere. On one thread of a processor
            the course's SRCNN trained as fast without (456 ms a step, 457 with), and a GAN's step, its generator
            compiled, was 17 ms of 303 faster: 3000 steps make up for the 53 s of compiling. On GPUs
            nobody has measured it.

    Raises:
        SRKitError: "on" where torch.compile has no C++ compiler, or on Windows.
    """
    if choice != "on":
        return model
    if sys.platform == "win32":
        raise SRKitError("torch.compile is not used on Windows: take --compile off")
    if not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")):
        raise SRKitError("torch.compile needs a C++ compiler: install g++, or take --compile off")
    return torch.compile(model)


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

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or should_reduce_batch_size(error)


def random_state() -> dict[str, Any]:
    """The states of all random generators, as plain tensors, numbers and strings."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of this process's own GPU
        "numpy": [kind, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all random generators where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])
    np.random.set_state(tuple(state["numpy"]))
    random.setstate(state["python"])


@contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step is never cut in two; a second Ctrl-C stops at once.

    SIGTERM, by which launchers and clusters end a process, does the same.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield stopped
        return

    def on_signal(number: int, frame: Any) -> None:
        signal.signal(number, before[number])
        stopped.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
