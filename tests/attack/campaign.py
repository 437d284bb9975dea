"""What the campaigns share: an attempt that must end cleanly within bounds, and the table of them all."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import resource
import signal
import subprocess
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from srkit import cli
from srkit.data import ImageDataset
from srkit.settings import SRKitError

SECONDS, BYTES = 20, 2 * 2**30  # that an attempt may take


class Hang(BaseException):
    """An attempt took too long; no `except Exception` swallows it."""


@dataclass
class Campaign:
    """How often something was tried, and what went wrong."""

    name: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)

    def attempt(self, what: str, call: Callable[[], object]) -> None:
        """Try: it may do its work, or end in one line (SRKitError, OSError); an AssertionError says what was not so."""
        self.tried += 1
        start, before = time.monotonic(), _peak()
        try:
            with _limited(), _nothing_executed(), warnings.catch_warnings(record=True) as leaked:
                call()
            if leaked:
                self.fail(what, f"a warning leaked: {leaked[0].message}")
        except (SRKitError, OSError) as error:
            if "\n" in str(error):
                self.fail(what, f"more than a line: {error}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.fail(what, f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:200]}")
        if (seconds := time.monotonic() - start) > SECONDS:
            self.fail(what, f"took {seconds:.0f} s")
        if before < _peak() > BYTES:
            self.fail(what, f"took {_peak() / 2**30:.1f} GiB")

    def check(self, what: str, good: bool) -> None:
        """Something that must be so."""
        self.tried += 1
        if not good:
            self.fail(what, "is not so")

    def fail(self, what: str, why: str) -> None:
        """Note what went wrong."""
        self.failures.append(f"{what}: {why}")


def table(campaigns: list[Campaign]) -> str:
    """A line for each campaign, and what went wrong below."""
    lines = [f"{'campaign':54}{'tried':>7}{'clean':>7}{'failed':>7}"]
    for one in campaigns:
        failed = len({failure.split(": ")[0] for failure in one.failures})
        lines.append(f"{one.name:54}{one.tried:7}{one.tried - failed:7}{failed:7}")
    return "\n".join(lines + [f"  {one.name}: {failure}" for one in campaigns for failure in one.failures])


def command(*words: object) -> int:
    """Run a command of srkit's; its status. A failure must say so in one line for each thing that failed."""
    out, err = io.StringIO(), io.StringIO()
    out.fileno = err.fileno = lambda: 1  # pyright: ignore[reportAttributeAccessIssue]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:  # tyro leaves this way
            status = 2 if stop.code else 0
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert "\x1b" not in out.getvalue() + err.getvalue(), "a terminal escape was printed"
    assert status in (0, 2) and (status == 0 or err.getvalue().count("\n") == 1), f"{status}: {err.getvalue()}"
    return status


def processes() -> Callable[..., Any]:
    """What makes processes that can be killed: forked from one that has imported all, and runs no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.warm"])
    return context.Process


def pictures(random: Random, count: int = 4, side: int = 24) -> list[Tensor]:
    """Pictures as bytes, uint8 (3, side, side)."""
    generator = torch.Generator().manual_seed(random.getrandbits(32))
    return [torch.randint(256, (3, side, side), dtype=torch.uint8, generator=generator) for _ in range(count)]


def dataset(random: Random, side: int = 24) -> ImageDataset:
    """A small data set."""
    return ImageDataset(pictures(random, side=side))


def spoilt(content: bytes, random: Random) -> bytes:
    """A file with something changed: bits flipped, an end missing, a block zeroed, doubled or put elsewhere."""
    changed = bytearray(content)
    start = random.randrange(len(changed))
    stop = min(len(changed), start + random.choice((1, 4, 64, 1000)))
    match random.randrange(6):
        case 0:
            for _ in range(random.choice((1, 3, 20))):
                changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        case 1:
            del changed[start:]
        case 2:
            changed[start:stop] = bytes(stop - start)
        case 3:
            changed[start:start] = changed[start:stop]
        case 4:
            del changed[start:stop]
        case 5:  # near the beginning, where sizes stand
            changed[random.randrange(min(64, len(changed)))] = random.choice((0, 1, 127, 128, 255))
    return bytes(changed)


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Within it, what takes too long is stopped."""

    def stop(*_: object) -> None:
        raise Hang(f"no end after {SECONDS} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _nothing_executed() -> Iterator[None]:
    """Within it, another program that is started is seen."""
    with mock.patch.object(subprocess.Popen, "__init__", side_effect=AssertionError("a program was started")):
        yield
