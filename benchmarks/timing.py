"""What every benchmark is timed with: a command line, sides that take turns, and the machine's best."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
import tyro

from srkit.settings import SRKitError, choose_precision

Facts = dict[str, Any]
ROOT = Path(__file__).parents[1]
COLUMNS = TEXTBOOK, STUDENT, SRKIT = "textbook", "student", "srkit"  # of every table
ANSWER = "answer: "  # begins the lines that a worker means for whoever started it


@dataclass(kw_only=True)
class Options:
    """Options that every benchmark has."""

    json: bool = False  # print JSON and nothing else


def command(kind: type, run: Callable[[Any], tuple[Facts, str]], name: str) -> None:
    """A benchmark's command line: prints the text that `run` returns or, with --json, its facts.

    Args:
        kind: a dataclass of options.
        name: as in `python -m NAME`.
    """
    options = tyro.cli(kind, prog=f"python -m {name}")
    try:
        facts, text = run(options)
    except KeyboardInterrupt:
        sys.exit("stopped")
    except SRKitError as error:
        sys.exit(str(error))
    print(json.dumps(facts, indent=2) if options.json else text)


def log(message: str) -> None:
    """How far it is, on stderr: stdout is for the result."""
    print(message, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------- taking turns


@dataclass(frozen=True)
class Side:
    """One of the ways that are compared: a command that ends in `serve`, as one or several processes at once.

    Each side has a process of its own, so that none inherits another's memory or caches, and keeps it, so that it
    starts and warms up once.
    """

    command: Sequence[str]  # after `python`
    count: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> list[subprocess.Popen[str]]:
        """Its processes."""
        command, environment = [sys.executable, *self.command], {**os.environ, **self.environment}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return [subprocess.Popen(command, env=environment, cwd=ROOT, **pipes) for _ in range(self.count)]


def serve(turn: Callable[[], Facts]) -> None:
    """In a side's process: do `turn` whenever a line comes in, until there are no more."""
    print(ANSWER + "{}", flush=True)  # ready
    for _ in sys.stdin:
        print(ANSWER + json.dumps(turn()), flush=True)


def in_turn(sides: Mapping[str, Side], rounds: int) -> dict[str, list[Facts]]:
    """Let the sides take turns, A B C A B C …, after each has warmed up alone.

    Returns:
        Each side's answers, one a round; `rate` is the sum of a side's processes, which begin together.

    Raises:
        SRKitError: a side failed.
    """
    answers: dict[str, list[Facts]] = {name: [] for name in sides}
    teams: dict[str, list[subprocess.Popen[str]]] = {}
    with ExitStack() as stack:  # at the end it closes the processes' inputs: they stop
        for name, side in sides.items():
            log(f"  {name} warms up …")
            teams[name] = [stack.enter_context(process) for process in side.start()]
            for process in teams[name]:
                _answer(process)
        for turn in range(rounds):
            log(f"  round {turn + 1} of {rounds} …")
            for name, team in teams.items():
                for process in team:
                    print(file=process.stdin, flush=True)
                found = [_answer(process) for process in team]
                answers[name].append({**found[0], "rate": sum(one["rate"] for one in found)})
    return answers


def _answer(process: subprocess.Popen[str]) -> Facts:
    for line in process.stdout or ():
        if line.startswith(ANSWER):
            return json.loads(line.removeprefix(ANSWER))
    raise SRKitError(f"{process.args} failed: its own message stands above")


def paired_ratio(mine: Sequence[Facts], other: Sequence[Facts]) -> float:
    """The median over the rounds of my rate / the other's: both of a round ran within the same seconds."""
    return median(a["rate"] / b["rate"] for a, b in zip(mine, other, strict=True))


def row(what: str, unit: str, answers: Mapping[str, Sequence[Facts]], about: Facts, moved: float = 0) -> Facts:
    """One row of the table: what each side reached.

    Args:
        what, unit: in words.
        answers: of the sides "textbook", "student" (if there is one) and "srkit", from `in_turn`.
        about: from `machine`.
        moved: bytes that must be read and written for one of `unit`, where that is known.

    Returns:
        rate: each side's median; peak_megabytes: each side's most; ratio: srkit's to each other's, the median of
        pairs; and where it can be said `share`, srkit's, of what `of` names.
    """
    found = {
        "what": what,
        "unit": unit,
        "rate": {side: median(one["rate"] for one in rounds) for side, rounds in answers.items()},
        "peak_megabytes": {side: max(one["peak_megabytes"] for one in rounds) for side, rounds in answers.items()},
        "ratio": {side: paired_ratio(answers[SRKIT], answers[side]) for side in answers if side != SRKIT},
    }
    last = answers[SRKIT][-1]
    if moved:
        found |= {"share": found["rate"][SRKIT] * moved / about["bandwidth_gigabytes"] / 1e9, "of": "memory bandwidth"}
    elif last.get("gflop") and last["precision"] in about["peak_gflops"]:
        share = found["rate"][SRKIT] * last["gflop"] / about["peak_gflops"][last["precision"]]
        found |= {"share": share, "of": f"best {last['precision']} convolution"}
    return found


def table(facts: Facts) -> str:
    """Rows and remarks as text."""
    lines = [f"{'':44}{'textbook':>10}{'student':>10}{'srkit':>10}  {'unit':13}{'ratios':>13}   srkit's share"]
    for row in facts["rows"]:
        rates = "".join(f"{row['rate'][side]:10.2f}" if side in row["rate"] else " " * 10 for side in COLUMNS)
        ratios = " ".join(f"{row['ratio'][side]:6.2f}" if side in row["ratio"] else " " * 6 for side in COLUMNS[:2])
        share = f"{row['share']:6.0%} of the {row['of']}" if "share" in row else ""
        lines.append(f"{row['what']:44}{rates}  {row['unit']:13}{ratios}   {share}".rstrip())
    return "\n".join([*(lines if facts["rows"] else ()), *facts.get("remarks", ())])


# ---------------------------------------------------------------------------------- the machine

# Input and output channels, kernel, side: from SRCNN's layers to those of VGG.
CONVOLUTIONS = ((3, 64, 9, 240), (64, 32, 5, 240), (64, 64, 3, 240), (128, 128, 3, 120), (256, 256, 3, 60))


def best_convolution(dtype: torch.dtype, device: str, seconds: float = 0.8) -> float:
    """The fastest of several convolutions, in FLOP/s: the most that a network of convolutions can reach.

    A matrix product is no such limit: in fp32 some processors convolve faster than they multiply matrices.
    """
    best = 0.0
    for channels, outputs, kernel, side in CONVOLUTIONS:
        work = 2.0 * (4 if device == "cpu" else 32) * side**2 * channels * outputs * kernel**2
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(4 if device == "cpu" else 32, channels, side, side, device=device, dtype=dtype)
            weight = torch.randn(outputs, channels, kernel, kernel, device=device, dtype=dtype)
            x, weight = x.to(memory_format=layout), weight.to(memory_format=layout)
            took = fastest(lambda x=x, weight=weight: F.conv2d(x, weight, padding="same"), device, seconds)
            best = max(best, work / took)
    return best


def memory_bandwidth(device: str, megabytes: int = 256, seconds: float = 1.5) -> float:
    """The fastest a = b + s c (STREAM's triad), in bytes/s: two arrays read, one written."""
    a, b, c = (torch.ones(megabytes * 250_000, device=device) for _ in range(3))
    return 3 * a.nbytes / fastest(lambda: torch.add(b, c, alpha=0.5, out=a), device, seconds)


@torch.no_grad()
def fastest(work: Callable[[], Any], device: str, seconds: float) -> float:
    """The shortest time, in seconds, that `work` took within `seconds`, and in three tries at least."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def machine(device: str) -> Facts:
    """What ran the measurement, without its name or folders, and the fastest that it can do."""
    fast = choose_precision("auto", torch.device(device))
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {
        "device": device,
        "cpu": processor(),
        **gpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": fast,
        "peak_gflops": {name: best_convolution(dtypes[name], device) / 1e9 for name in {"fp32": 0, fast: 0}},
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


def described(about: Facts) -> str:
    """The machine in one line."""
    peaks = ", ".join(f"{peak:.0f} GFLOP/s in {name}" for name, peak in about["peak_gflops"].items())
    return (
        f"{about.get('gpu', about['cpu'])}, {about['threads']} threads, torch {about['torch']}; "
        f"best convolution {peaks}; memory {about['bandwidth_gigabytes']:.0f} GB/s"
    )
