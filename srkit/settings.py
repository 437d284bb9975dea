"""How much of the course runs, where and for whom; the one error; and how files that matter are written.

The floor that everything stands on: profiles, devices, students, folders, `setup()`, `atomic_write` and `lock`.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from types import EllipsisType
from uuid import uuid4

import torch

CHECKS: dict[str, bool] = {}  # whether each check of a lesson that was called found the student's own answer right
MISSIONS: dict[str, bool] = {}  # whether what a live lesson asks to bring about has been
PREDICTIONS: dict[str, Prediction] = {}  # what a student expected of the lesson's numbers, by name
DRIVE = Path("/content/drive")  # where Colab mounts a student's Google Drive
DEVICES = ("auto", "cpu", "cuda", "mps")
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # a file system that cannot lock
PRECISIONS = ("fp32", "auto", "bf16", "fp16")


# ---------------------------------------------------------------------------------- errors


class SRKitError(ValueError):
    """Something a person can put right; its message is one line and says how."""


def unknown(kind: str, name: object, known: Iterable[str]) -> SRKitError:
    """The error for a name nobody knows: names the nearest known one, then all of them.

    >>> str(unknown("model", "srcn", ["srcnn", "bicubic"]))
    "unknown model 'srcn': did you mean 'srcnn'? Known: srcnn, bicubic"
    """
    known = list(known)
    nearest = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return SRKitError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(known)}")


def printable(text: str) -> str:
    """The text without what a terminal would obey, for words that come from a stranger's file."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


# ---------------------------------------------------------------------------------- profiles


@dataclass(frozen=True)
class Profile:
    """What the lessons' settings are taken from, so that no notebook edits constants.

    `data`, split into `train`, `val` and `test` pictures (None: the data set's own numbers), trains, validates
    and shows the course's SRCNN on `size` x `size` pictures for `steps` steps of `batch_size`;
    `classic` and `classic_test` are the data sets of the x3 benchmark, trained for `classic_steps`.
    `features` is the feature network (lesson 04 on) and `feature_weights` its weights, see `models.features`.
    """

    name: str
    summary: str
    data: str
    train: int | None
    val: int | None
    test: int | None
    size: int
    steps: int
    batch_size: int
    classic: str
    classic_test: str
    classic_steps: int
    features: str
    feature_weights: str = "imagenet"


QUICK = Profile(
    "quick", "bundled photographs, no network, one to four minutes a lesson on a laptop",
    data="bundled", train=None, val=None, test=None, size=240, steps=80, batch_size=2,
    classic="bundled", classic_test="bundled", classic_steps=100, features="small-vgg",
)  # fmt: skip
CLASS = Profile(
    "class", "Pascal VOC 2011 (1000/200 pictures) and T91, minutes on a Colab T4",
    data="voc2011", train=1000, val=200, test=50, size=240, steps=2500, batch_size=16,
    classic="t91", classic_test="set5", classic_steps=15_000, features="vgg16",
)  # fmt: skip
FULL = replace(
    CLASS, name="full", summary="the same data sets, trained until the curves are flat",
    steps=20_000, classic_steps=100_000,
)  # fmt: skip
PROFILES = {profile.name: profile for profile in (QUICK, CLASS, FULL)}


def current_profile(name: str | None = None) -> Profile:
    """The profile by name, else by the variable SRKIT_PROFILE, else "class" with a GPU and "quick" without.

    SRKIT_WEIGHTS=file-or-folder, with VGG-16's weights, puts that network in place of its feature network.

    Raises:
        SRKitError: no such profile.
    """
    name = name or os.environ.get("SRKIT_PROFILE") or ("class" if torch.cuda.is_available() else "quick")
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    own = os.environ.get("SRKIT_WEIGHTS")
    return replace(PROFILES[name], features="vgg16", feature_weights=own) if own else PROFILES[name]


# ---------------------------------------------------------------------------------- devices


def choose_device(name: str = "auto") -> torch.device:
    """The device by name; "auto" takes a CUDA GPU, else Apple's, else the CPU.

    Raises:
        SRKitError: an unknown name, or a device that this machine lacks.
    """
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if have[device])
    if name not in have:
        raise unknown("device", name, DEVICES)
    if not have[name]:
        raise SRKitError(f"this machine has no {name} device that torch can use: ask for cpu, or for auto")
    return torch.device(name)


def choose_precision(precision: str, device: torch.device) -> str:
    """What was asked for; for "auto", bf16 where the device computes it in hardware, fp16 on other GPUs, else fp32.

    Raises:
        SRKitError: an unknown name, fp16 on anything but a CUDA GPU, or bf16 on a GPU that has none.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    on_gpu = device.type == "cuda"
    has_bf16 = not on_gpu or torch.cuda.get_device_capability(device)[0] >= 8
    if precision == "fp16" and not on_gpu:
        raise SRKitError(f"fp16 needs a CUDA GPU, not {device.type}: use auto, bf16 or fp32")
    if precision == "bf16" and not has_bf16:
        raise SRKitError("this GPU computes no bf16: use auto, fp16 or fp32")
    if precision != "auto":
        return precision
    if on_gpu:
        return "bf16" if has_bf16 else "fp16"
    has = torch.cpu.get_capabilities() if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"


def free_memory(device: torch.device | str | None = None) -> int:
    """Bytes free on a CUDA GPU, or, for any other device, in the machine's memory."""
    if device is not None and torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device's memory is full."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or should_reduce_batch_size(error)


# ---------------------------------------------------------------------------------- a lesson


@dataclass(frozen=True)
class Student:
    """Who trained: written into checkpoints and figures."""

    name: str = ""
    id: str = ""
    email: str = ""


def root() -> Path:
    """The folder that holds data/, runs/ and figures/.

    SRKIT_ROOT if set; else the nearest folder upwards with notebooks/ and srkit/, the clone; else here.

    Raises:
        SRKitError: SRKIT_ROOT lies on a Drive that is not mounted: the folder would be made, and go with the session.
    """
    if os.environ.get("SRKIT_ROOT"):
        named = Path(os.environ["SRKIT_ROOT"])
        if named.is_relative_to(DRIVE) and not os.path.ismount(DRIVE):
            raise SRKitError(
                f"SRKIT_ROOT is {named}, and no Drive is mounted: tick DRIVE and run the set-up cell again"
            )
        return named
    here = Path.cwd()
    clones = [p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "srkit").is_dir()]
    return clones[0] if clones else here


def data_folder() -> Path:
    """Where downloads go: SRKIT_DATA, else data/ of `root()`."""
    return Path(os.environ.get("SRKIT_DATA") or root() / "data").expanduser()


@dataclass(frozen=True)
class Prediction:
    """A number or a word that a student expected, with an error bar, and what was measured."""

    value: float | str
    within: float | None = None
    measured: float | str | None = None

    @property
    def right(self) -> bool:
        """Whether it was measured and lies within the error bar."""
        if self.measured is None:
            return False
        if isinstance(self.value, str) or isinstance(self.measured, str):
            return str(self.value).strip().casefold() == str(self.measured).strip().casefold()
        return abs(self.measured - self.value) <= self.bar * (1 + 1e-9)  # 0.3 - 0.2 is a little more than 0.1

    @property
    def bar(self) -> float:
        """How far the number may be off."""
        return 0.0 if isinstance(self.value, str) else abs(self.value) / 10 if self.within is None else self.within

    @property
    def words(self) -> str:
        return self.value if isinstance(self.value, str) else f"{_short(self.value)} ± {_short(self.bar)}"


NUMBER = r"\s*([-+]?\d+(?:[.,]\d+)?)\s*(?:dB|%)?\s*"  # as a student may write it


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


@dataclass(frozen=True)
class Setup:
    """What a lesson works with: its number, the profile, the device, the student and two folders."""

    lesson: str
    profile: Profile
    device: torch.device
    student: Student
    runs: Path = field(default_factory=lambda: root() / "runs")
    figures: Path = field(default_factory=lambda: root() / "figures")

    def predict(self, name: str, value: float | str | EllipsisType, within: float | None = None) -> None:
        """Say what will come out, before the cell that tells.

        Args:
            name: of what `measured` will tell, e.g. "dB after 500 steps".
            value: a number ("7,5 dB" is one, too), or a word where the question is which one; `...` is none yet.
            within: your error bar, in the number's unit; a tenth of the number if not given.
        """
        known = PREDICTIONS.get(name)
        if value is ...:
            print(f"{name}: no prediction yet: put yours in place of the ...")
        elif known and known.measured is not None:
            print(f"{name}: measured before, {_short(known.measured)}: a prediction comes first")
        else:
            number = value if isinstance(value, str) else float(value)
            if isinstance(value, str) and (digits := re.fullmatch(NUMBER, value)):
                number = float(digits[1].replace(",", "."))
            PREDICTIONS[name] = Prediction(number, None if isinstance(number, str) else within)
            print(f"{name}: you predict {PREDICTIONS[name].words}")

    def measured(self, name: str, value: float | str) -> None:
        """Tell what came out, and how near the prediction of this name was, if there is one."""
        found = value if isinstance(value, str) else float(value)
        if name not in PREDICTIONS:
            print(f"{name}: {_short(found)}")
            return
        known = PREDICTIONS[name] = replace(PREDICTIONS[name], measured=found)
        print(f"{name}: {_short(found)}; you predicted {known.words}: {'right' if known.right else 'not so'}")

    def accomplished(self, name: str, done: bool) -> None:
        """Note whether a mission of a live lesson is accomplished; once it is, it stays so."""
        MISSIONS[name] = done or MISSIONS.get(name, False)

    def summary(self) -> None:
        """Print what the student wrote, predicted, brought about and exported; figures' sidecars carry it, too."""
        own = [name for name, right in CHECKS.items() if right]
        others = [name for name, right in CHECKS.items() if not right]
        told = [one for one in PREDICTIONS.values() if one.measured is not None]
        lines = [f"{len(own)} of {len(CHECKS)} checks: {', '.join(own) or 'none yet'}"]
        lines += [f"srkit's own in place of {', '.join(others)}"] if others else []
        print("written  ", "; ".join(lines))
        print(f"predicted {sum(one.right for one in told)} of {len(told)} within your own error bar")
        for name, one in PREDICTIONS.items():
            told_now = "not measured yet" if one.measured is None else f"measured {_short(one.measured)}"
            print(f"          {name}: predicted {one.words}, {told_now}")
        if MISSIONS:
            done = [name for name in MISSIONS if MISSIONS[name]]
            print(f"missions  {len(done)} of {len(MISSIONS)}: {', '.join(done) or 'none yet'}")
        pages = sorted(path.name for path in self.figures.glob(f"{self.lesson}_*.png"))
        print(f"exported  {', '.join(pages) or 'nothing yet'}" + ("" if self.student.name else "; NOT SIGNED"))


def setup(lesson: str, student: Student | None = None, profile: str | None = None) -> Setup:
    """Prepare a lesson and print, in five lines, what it will work with.

    Args:
        lesson: its number, e.g. "03"; figures and runs are named after it.
        student: who you are; graded figures carry it.
        profile: "quick", "class" or "full"; see `current_profile` for the default.

    Raises:
        SRKitError: no such profile, or as `root`.
    """
    student = student or Student()
    here = Setup(lesson, current_profile(profile), choose_device(), student)
    name = torch.cuda.get_device_name() if here.device.type == "cuda" else f"{os.cpu_count()} processor cores"
    who = " · ".join(value for value in asdict(student).values() if value) or "nobody yet: fill in Student(…)"
    print(f"lesson    {lesson}, srkit {version('srkit')}")
    print(f"device    {here.device.type}: {name}")
    print(f"versions  Python {platform.python_version()}, torch {torch.__version__}")
    print(f"profile   {here.profile.name}: {here.profile.summary}")
    print(f"student   {who}; figures go to {os.path.relpath(here.figures)}")
    return here


# ---------------------------------------------------------------------------------- files that matter


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Within it, a disk that is full or a folder that refuses is one line.

    Raises:
        SRKitError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise SRKitError(f"could not write {path} ({reason}): free some space, or choose another folder") from error


@contextmanager
def atomic_write(path: str | Path, keep: str | Path | None = None) -> Iterator[Path]:
    """A file appears under its name when it is complete, or not at all:

        with atomic_write("runs/last.pt") as draft:
            torch.save(state, draft)

    Args:
        path: the file; its folder is made.
        keep: a second name for the file that stood at `path`.

    Yields:
        a path in the same folder, with the same suffix, that no other process or thread has.

    Raises:
        SRKitError: the system refused to write (an OSError inside the block says so, too); what stood at `path`
            still stands there.
    """
    path = Path(path)
    draft = path.with_name(f".{uuid4().hex[:12]}{path.suffix}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield draft
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            if keep is not None and path.exists():  # both names at once: at every moment a whole file has the first
                with atomic_write(keep) as second:
                    try:
                        os.link(path, second)
                    except OSError:  # Google Drive and some USB sticks know no links
                        shutil.copyfile(path, second)
            os.replace(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink()


class Lock(ExitStack):
    """A folder that is this process's own until `release()` or the end of a `with` block."""

    release = ExitStack.close  # lets others in; doing so twice is no harm


def lock(folder: str | Path, wait: bool = True) -> Lock:
    """Keep other processes and threads that ask for the same folder out of it; the folder is made.

    The system itself ends the lock of a process that was killed. A file system without locks goes on without.

    Args:
        wait: until the folder is free; False raises at once.

    Raises:
        SRKitError: another one has it (says which process), or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    owner = folder / ".lock.owner"  # beside the lock, which Windows lets nobody read
    held = FileLock(folder / ".lock", thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except Timeout:
            other = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
            if not wait:
                raise SRKitError(f"{folder}: {other} is working there: wait for it, or choose another folder") from None
            print(f"{folder}: waiting for {other}", file=sys.stderr)
            held.acquire()
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            held.release()
            raise SRKitError(f"could not write {folder} ({error.strerror or error}): choose another folder") from error
    mine = Lock()
    mine.callback(held.release)
    mine.callback(owner.unlink, missing_ok=True)  # the last comes first
    return mine
