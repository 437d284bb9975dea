"""How much of the course runs, where, and for whom: profiles, devices, students, and `setup()`."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch

from srkit.errors import SRKitError, unknown

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Profile:
    """What the lessons' settings are taken from, so that no notebook edits constants.

    `data`, dealt into `train`, `val` and `test` pictures (None: the set's own numbers), trains, validates
    and shows the course's SRCNN on `size` x `size` pictures for `steps` steps of `batch_size`;
    `classic` and `classic_test` are the sets of the x3 benchmark, trained for `classic_steps`.
    `feature_weights` are those of the networks that look at pictures (lesson 04 on), see `features`.
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
    feature_weights: str


PROFILES = {
    "quick": Profile(
        "quick", "bundled photographs, no network, about a minute a lesson on a laptop",
        data="bundled", train=None, val=None, test=None, size=240, steps=80, batch_size=2,
        classic="bundled", classic_test="bundled", classic_steps=100, feature_weights="random",
    ),
    "class": Profile(
        "class", "Pascal VOC 2011 (1000/200 pictures) and T91, minutes on a Colab T4",
        data="voc2011", train=1000, val=200, test=50, size=240, steps=2500, batch_size=16,
        classic="t91", classic_test="set5", classic_steps=15_000, feature_weights="imagenet",
    ),
    "full": Profile(
        "full", "the same sets, trained until the curves are flat",
        data="voc2011", train=1000, val=200, test=50, size=240, steps=20_000, batch_size=16,
        classic="t91", classic_test="set5", classic_steps=100_000, feature_weights="imagenet",
    ),
}  # fmt: skip


def current_profile(name: str | None = None) -> Profile:
    """The profile by name, else by the variable SRKIT_PROFILE, else "class" with a GPU and "quick" without.

    SRKIT_WEIGHTS=file-or-folder puts weights that you have on your disk in place of its `feature_weights`.

    Raises:
        SRKitError: no such profile.
    """
    name = name or os.environ.get("SRKIT_PROFILE") or ("class" if torch.cuda.is_available() else "quick")
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    return replace(PROFILES[name], feature_weights=os.environ.get("SRKIT_WEIGHTS") or PROFILES[name].feature_weights)


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


@dataclass(frozen=True)
class Student:
    """Who trained: written into checkpoints and figures."""

    name: str = ""
    id: str = ""
    email: str = ""


def root() -> Path:
    """The folder that holds data/, runs/ and figures/.

    SRKIT_ROOT if set; else the nearest folder upwards with notebooks/ and srkit/, the clone; else here.
    """
    if os.environ.get("SRKIT_ROOT"):
        return Path(os.environ["SRKIT_ROOT"])
    here = Path.cwd()
    clones = [p for p in (here, *here.parents) if (p / "notebooks").is_dir() and (p / "srkit").is_dir()]
    return clones[0] if clones else here


@dataclass(frozen=True)
class Setup:
    """What a lesson works with: its number, the profile, the device, the student and two folders."""

    lesson: str
    profile: Profile
    device: torch.device
    student: Student
    runs: Path = field(default_factory=lambda: root() / "runs")
    figures: Path = field(default_factory=lambda: root() / "figures")


def setup(lesson: str, student: Student | None = None, profile: str | None = None) -> Setup:
    """Prepare a lesson and print, in five lines, what it will work with.

    Args:
        lesson: its number, e.g. "03"; figures and runs are named after it.
        student: who you are; graded figures carry it.
        profile: "quick", "class" or "full"; see `current_profile` for the default.

    Raises:
        SRKitError: no such profile.
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
