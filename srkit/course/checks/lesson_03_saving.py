"""Lesson 03: saving a training, and going on from the file as if nothing had happened."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from srkit.course.checks.check import Check, written
from srkit.course.checks.lesson_03 import small_network, train_model


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    random = torch.get_rng_state()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "random": random}


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, missing: str = "") -> None:
    state = {key: value for key, value in _state(model, optimizer, step).items() if key != missing}
    torch.save(state, path)


def _save_programs(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    torch.save({**_state(model, optimizer, step), "model": model}, path)


def _load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, missing: str = "") -> int | None:
    state = torch.load(path, weights_only=missing != "safety")
    if missing != "model":
        model.load_state_dict(state["model"])
    if missing != "optimizer":
        optimizer.load_state_dict(state["optimizer"])
    if missing != "random":
        torch.set_rng_state(state["random"])
    return state["step"] if missing != "step" else None


def _renamed(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state = torch.load(path, weights_only=True)
    torch.set_rng_state(state["random"])
    return state["step"]


def _begin(weight: Tensor) -> tuple[nn.Linear, torch.optim.Adam]:
    model = small_network(weight)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def _go_on(model: nn.Module, optimizer: torch.optim.Optimizer, low: Tensor, high: Tensor) -> None:
    """Three steps, each on patches that PyTorch's random numbers choose, as a Trainer's are."""
    for _ in range(3):
        chosen = torch.randint(len(low), (2,))
        train_model(model, optimizer, [(low[chosen], high[chosen])], nn.functional.mse_loss)


def _saved(answer: Callable) -> Callable:
    """What of a training a file holds, in words; None if no file was written."""

    def run(weight: Tensor, low: Tensor, high: Tensor) -> Any:
        with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            model, optimizer = _begin(weight)
            _go_on(model, optimizer, low, high)
            wanted, path = _state(model, optimizer, 3), Path(folder, "last.pt")
            answer(path, model, optimizer, 3)
            if not path.exists():
                return "no file" if written(answer) else None
            try:
                state = torch.load(path, weights_only=True)
            except pickle.UnpicklingError:
                return "a file that only a program can read"
        found = state if isinstance(state, dict) else {}
        right = [key for key in wanted if _alike(found.get(key), wanted[key])]
        others = [f"another {key!r}" if key in wanted else repr(key) for key in found if key not in right]
        return "a file with " + (", ".join([*right, *others]) or "nothing")

    return run


def _alike(a: Any, b: Any) -> bool:
    """Whether two states hold the same numbers."""
    if isinstance(b, Tensor):
        return isinstance(a, Tensor) and torch.equal(a, b)
    if isinstance(b, dict):
        return isinstance(a, dict) and a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in b)
    if isinstance(b, list | tuple):
        return isinstance(a, list | tuple) and len(a) == len(b) and all(map(_alike, a, b))
    return type(a) is type(b) and a == b


class _Program:
    """What a stranger's file may hold: it runs when it is loaded, unless weights_only=True keeps it out."""

    ran: ClassVar[dict[str, bool]] = {}

    def __reduce__(self) -> tuple:
        return _ran, ()


def _ran() -> None:
    _Program.ran["it"] = True


def _gone_on(answer: Callable) -> Callable:
    """The weights when a training went on from a file, and the step that was returned; None if nothing was loaded."""

    def run(weight: Tensor, low: Tensor, high: Tensor) -> Any:
        with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            model, optimizer = _begin(weight)
            _go_on(model, optimizer, low, high)
            _save(path := Path(folder, "last.pt"), model, optimizer, 3)
            torch.randn(7)  # whoever goes on from here without the random state sees other patches
            model, optimizer = _begin(-weight)
            step = answer(path, model, optimizer)
            if (step is None or step is ...) and torch.equal(model.weight, -weight):
                return None
            _go_on(model, optimizer, low, high)
            torch.save({**torch.load(path, weights_only=True), "program": _Program()}, path)
            with contextlib.suppress(Exception):
                answer(path, *_begin(weight))
        step = "several things" if isinstance(step, tuple | list) else step
        return model.weight.detach(), "no step" if step is None or step is ... else step, _Program.ran.pop("it", False)

    return run


def _pictures(generator: torch.Generator) -> list[tuple]:
    return [
        (torch.randn(side, side, generator=generator), *(torch.randn(20, side, generator=generator) for _ in range(2)))
        for side in (2, 3)
    ]


save_training = Check(
    "save_training",
    _save,
    _pictures,
    {
        "the optimiser's state is missing: Adam would go on without its memory": partial(_save, missing="optimizer"),
        "the weights are missing: model.state_dict()": partial(_save, missing="model"),
        "the step is missing: the schedule and the next batch follow from it": partial(_save, missing="step"),
        "the random state is missing: torch.get_rng_state()": partial(_save, missing="random"),
        "it pickles an object, which is a program: save its state_dict()": _save_programs,
        "no file is there at `path`: torch.save(…, path)": lambda path, *rest: _state(*rest),
    },
    _saved,
)

load_training = Check(
    "load_training",
    _load,
    _pictures,
    {
        "Adam begins without memory: optimizer.load_state_dict()": partial(_load, missing="optimizer"),
        "the weights are not loaded: model.load_state_dict()": partial(_load, missing="model"),
        'the random state stays another: torch.set_rng_state(state["random"])': partial(_load, missing="random"),
        'it returns no step: return state["step"]': partial(_load, missing="step"),
        "weights_only=False runs any program that a stranger has put into the file: True": partial(
            _load, missing="safety"
        ),
        "nothing is loaded: `model = …` only gives a name, load_state_dict() fills the network": _renamed,
        "return the step alone: model and optimizer are changed where they are": lambda path, model, optimizer: (
            model,
            optimizer,
            _load(path, model, optimizer),
        ),
    },
    _gone_on,
)
