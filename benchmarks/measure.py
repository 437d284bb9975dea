"""What every benchmark measures with: the machine's peaks, and two sides run in turn."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch


def matrix_peak(dtype: torch.dtype, device: str, size: int = 2048, seconds: float = 1.5) -> float:
    """The fastest matrix product seen within `seconds`, in FLOP/s: what the arithmetic units can do at best."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def memory_bandwidth(device: str, megabytes: int = 256, seconds: float = 1.5) -> float:
    """The fastest a = b + s c seen within `seconds` (STREAM's triad), in bytes/s: two arrays read, one written."""
    a, b, c = (torch.ones(megabytes * 250_000, device=device) for _ in range(3))
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.add(b, c, alpha=0.5, out=a)
        synchronize(device)
        best = max(best, 3 * a.nbytes / (time.perf_counter() - start))
    return best


def machine(device: str) -> dict[str, Any]:
    """What ran the measurement, without its name or folders, and the fastest that it can do."""
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {
        "device": device,
        "cpu": processor(),
        **gpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "peak_gflops": {name: matrix_peak(dtype, device) / 1e9 for name, dtype in kinds.items()},
        "bandwidth_gigabytes": memory_bandwidth(device) / 1e9,
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor that does not say
        return platform.processor() or platform.machine()


def synchronize(device: str) -> None:
    """Wait until the device has done all it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_megabytes(device: str) -> float:
    """The most memory this process held at once: on the GPU, or else resident in main memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == "linux":  # the kernel's own count: that of getrusage begins with the parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return kilobytes * 1024 / 1e6


def in_turn(module: str, sides: Sequence[str], arguments: list[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run the sides A B A B …, each time in a fresh process, so that neither inherits the other's memory or caches.

    `python -m MODULE --side SIDE ARGUMENTS` must print one line of JSON.
    """
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in sides:
            print(f"  {turn + 1}/{rounds} {side} …", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", module, "--side", side, *arguments]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            results[side].append(json.loads(printed.splitlines()[-1]))
    return results


def paired_ratio(mine: list[float], other: list[float]) -> float:
    """The median over the turns of mine / other: both of a turn ran within the same seconds."""
    return median(a / b for a, b in zip(mine, other, strict=True))
