"""What a Trainer runs on: its device, its place among several processes, random states, Ctrl-C.

Several processes train together where a launcher starts them, each on its part of every batch:

    accelerate launch --num_processes 2 -m srkit train srcnn --data my/photos            one process for each GPU
    torchrun --nproc-per-node 2 -m srkit train srcnn --data my/photos --device cpu       two on one processor

accelerate's PartialState connects them, DistributedDataParallel averages their gradients. A process on its own uses
neither.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srkit.models import scales_of
from srkit.settings import SRKitError, choose_device

TIMEOUT = timedelta(hours=2)  # how long a process waits for the others: one may be downloading, or validating


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


def open_device(name: str) -> torch.device:
    """The device by name, as `choose_device`; of several processes each gets a GPU of its own.

    Raises:
        SRKitError: an unknown or missing device, or one on which several processes cannot train together.
    """
    asked_for_cpu = name == "auto" and os.environ.get("ACCELERATE_USE_CPU") == "True"  # accelerate launch --cpu
    device = choose_device("cpu" if asked_for_cpu else name)
    if not several_processes():
        return device
    from accelerate import PartialState

    state = PartialState(cpu=device.type == "cpu", timeout=TIMEOUT)
    own = torch.device(state.device or "cpu")
    if state.num_processes == 1 or own.type != device.type:
        raise SRKitError(f"several processes cannot train on {device.type}: start one, or ask for --device cpu")
    return device if device.type == "cpu" else own


@contextmanager
def together(name: str) -> Iterator[torch.device]:
    """Within it this process trains on the device by name, perhaps with others, of which only the main one prints."""
    device = open_device(name)
    if not several_processes():
        if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ:
            print("accelerate launch --cpu started one process: for more, torchrun --nproc-per-node 2 -m srkit …")
        yield device
        return
    from accelerate import PartialState

    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if PartialState().is_main_process else nowhere):
        yield device
    PartialState().destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through it first, then the others: what one has downloaded is there for all."""
    from accelerate import PartialState

    with PartialState().main_process_first() if several_processes() else nullcontext():
        yield


class Processes:
    """This process among those that train together on `device`; on its own, nothing here waits or sends.

    Attributes: `index` and `count`; `is_main`, the one that writes and prints.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.index, self.count = device, 0, 1
        if several_processes():
            from accelerate import PartialState

            self.index, self.count = PartialState().process_index, PartialState().num_processes
        self.is_main = self.index == 0

    def __str__(self) -> str:
        return self.device.type + (f" in {self.count} processes" if self.count > 1 else "")

    def check_divides(self, batch_size: int) -> None:
        """Refuse a batch that cannot be shared equally.

        Raises:
            SRKitError: the message names the nearest sizes that can.
        """
        if batch_size % self.count:
            less = batch_size // self.count * self.count
            fitting = " or ".join(str(size) for size in (less, less + self.count) if size)
            raise SRKitError(
                f"a batch of {batch_size} does not divide among {self.count} processes: --batch-size {fitting}"
            )

    def distribute(self, model: nn.Module, network: nn.Module) -> nn.Module:
        """The network as several processes train it: after a backward pass each has the mean of all gradients.

        Batch normalisation uses the whole batch on GPUs. On the processor, for which PyTorch has no such layer, each
        process normalises its own part.

        Args:
            model: whose weights are trained; it keeps its names, and its own forward.
            network: the model, or what torch.compile has made of it.
        """
        if self.count == 1:
            return network
        if self.device.type == "cuda" and not getattr(model, "frozen_norm", False):
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        # A layer of 1 x 1 has two ways to call its strides; which of them the gradient takes makes no difference.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return nn.parallel.DistributedDataParallel(
            network,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            find_unused_parameters=len(scales_of(model)) > 1,  # the loss may leave an output out
        )

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
            values /= self.count
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return self.mean(torch.tensor(float(flag), device=self.device)).item() > 0 if self.count > 1 else flag

    def from_main(self, value: Any) -> Any:
        """What the main process has, in all of them: plain numbers and words."""
        if self.count == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]


def random_state() -> dict[str, Any]:
    """The states of all random generators, as plain tensors, numbers and strings."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of this process's own GPU
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
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
    """An event that Ctrl-C sets, so that a step is never cut in two; another one, a second later, stops at once.

    SIGTERM, by which launchers and clusters end a process, does the same.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield stopped
        return

    first = 0.0

    def on_signal(number: int, frame: Any) -> None:
        nonlocal first
        if not stopped.is_set():
            first = time.monotonic()
            stopped.set()
        elif time.monotonic() - first > 1:  # a launcher may hand one Ctrl-C on a second time
            signal.signal(number, before[number])
            signal.raise_signal(number)

    before: dict[int, Any] = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
