"""What a Trainer runs on: its device, its place among several processes, Ctrl-C.

Several processes train together where a launcher starts them, each on its part of every batch:

    accelerate launch --num_processes 2 -m srkit train srcnn --data my/photos            one process for each GPU
    torchrun --nproc-per-node 2 -m srkit train srcnn --data my/photos --device cpu       two on one processor

accelerate's PartialState connects them, DistributedDataParallel averages their gradients. A process on its own uses
neither.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from typing import Any

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
    device = choose_device(name)
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
        yield device
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if Processes(device).is_main else nowhere):
        yield device
    torch.distributed.destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through it first, then the others: what one has downloaded is there for all."""
    from accelerate import PartialState

    with PartialState().main_process_first() if several_processes() else nullcontext():
        yield


class Processes:
    """This process among those that train together on `device`; on its own, nothing here waits or sends.

    Attributes: `index` and `count`; `is_main`, the one that writes and prints; `shard`, its part of a batch.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.index = int(os.environ.get("RANK", 0)) if self.count > 1 else 0
        self.is_main, self.shard = self.index == 0, slice(self.index, None, self.count)

    def __str__(self) -> str:
        return self.device.type + (f" in {self.count} processes" if self.count > 1 else "")

    def check_divides(self, batch_size: int) -> None:
        """Refuse a batch that cannot be shared equally.

        Raises:
            SRKitError: the message names the next size that can.
        """
        if batch_size % self.count:
            more = (batch_size // self.count + 1) * self.count
            raise SRKitError(f"{self.count} processes cannot share a batch of {batch_size}: --batch-size {more}")

    def distribute(self, model: nn.Module, network: Any) -> nn.Module:
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
