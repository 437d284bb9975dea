"""Check: compares an answer with srkit's own, and with likely mistakes, on inputs that nobody has seen."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srkit import settings

PACKAGE, HERE = str(Path(__file__).parents[2]), str(Path(__file__).parent)
Cases = Callable[[torch.Generator], Sequence[tuple]]


@dataclass(frozen=True)
class Check:
    """One stub's check: `answer = check(answer)`.

    Args:
        name: of the student's function.
        own: srkit's own answer.
        cases: makes the arguments of several calls from a random generator, the smallest first.
        mistakes: likely wrong answers by what there is to say about them.
        wrap: what makes a function to call out of an answer, e.g. `module`.
    """

    name: str
    own: Callable
    cases: Cases
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    wrap: Callable[[Callable], Callable] = lambda answer: answer

    def __call__(self, answer: Callable) -> Callable:
        """The answer if it is right, else srkit's own; prints which, and why. `figures.save` notes it."""
        if answer is self.own:  # this cell was run again, and not the one above it
            complaint = "this is what the check gave back: run the cell with your lines first, then this one"
        else:
            complaint = self.complaint(answer)
        settings.CHECKS[self.name] = not complaint
        print(f"{self.name}: {complaint}. srkit's own is used" if complaint else f"{self.name}: right, yours is used")
        return self.own if complaint else answer

    def complaint(self, answer: Callable) -> str:
        """What is wrong with an answer in a line; "" if nothing is."""
        generator = torch.Generator()
        generator.seed()
        cases = self.cases(generator)
        expected = [self.wrap(self.own)(*copy.deepcopy(case)) for case in cases]
        found = []
        for case in cases:
            mine = copy.deepcopy(case)
            try:
                with _watched() as called:
                    found.append(self.wrap(answer)(*mine))
            except Exception as error:
                if isinstance(error, NotImplementedError):
                    return "not written yet"
                if called:
                    return f"it calls srkit's own {called[0]}: use what the stub is given, and PyTorch"
                return f"it stops with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            if found[-1] is None or found[-1] is ...:
                if len(found) > 1:
                    return "for some inputs it returns nothing"
                return "it returns nothing: is `return` missing?" if written(answer) else "not written yet"
            if called:
                return f"it calls srkit's own {called[0]}: use what the stub is given, and PyTorch"
            if not _same(mine, case):
                return "it changes its argument in place: make a new tensor"
        if all(map(_same, found, expected)):
            return ""
        for message, wrong in self.mistakes.items():
            if all(_same(one, self.wrap(wrong)(*copy.deepcopy(case))) for one, case in zip(found, cases, strict=True)):
                return message
        if len(found) > 2 and all(_same(found[0], one) for one in found):
            return "it returns the same whatever it is given"
        index = next(i for i, pair in enumerate(zip(found, expected, strict=True)) if not _same(*pair))
        given = _short(cases[index])
        plain = not isinstance(answer, type) and self.wrap(answer) is answer
        return _difference(f"{self.name}({given})" if plain else f"for {given} it", found[index], expected[index])


def _stub() -> Any: ...


def written(answer: Any) -> bool:
    """Whether there is more in a function than `...`; of a class, in each of its methods but __init__."""
    if isinstance(answer, type):
        methods = [one for name, one in vars(answer).items() if hasattr(one, "__code__") and name != "__init__"]
        return bool(methods) and all(map(written, methods))
    code = getattr(answer, "__code__", None)
    return code is not None and len(code.co_code) > len(_stub.__code__.co_code)


def module(kind: Callable[[], nn.Module]) -> Callable[..., Tensor]:
    """A class of networks as a function of their input: every weight is set by its order and shape alone."""

    def output(*inputs: Tensor) -> Any:
        model = kind()
        if not isinstance(model, nn.Module):
            return None
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.data = torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5
        with torch.no_grad():
            return model.eval()(*inputs)

    return output


class _watched:
    """Within it, notes which public functions of srkit are called."""

    def __enter__(self) -> list[str]:
        self.called: list[str] = []

        def record(frame: Any, event: str, argument: Any) -> None:
            code = frame.f_code
            if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_filename.startswith(HERE):
                self.called.append(code.co_name)

        self.before = sys.getprofile()
        sys.setprofile(record)
        return self.called

    def __exit__(self, *error: Any) -> None:
        sys.setprofile(self.before)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-5)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    numbers: list[Any] = [one.item() if isinstance(one, Tensor) and one.numel() == 1 else one for one in (a, b)]
    if all(isinstance(number, int | float) for number in numbers):
        return math.isclose(*numbers, rel_tol=1e-4, abs_tol=1e-5)
    return type(a) is type(b) and bool(a == b)


def _difference(call: str, found: Any, expected: Any, place: str = "") -> str:
    """How an answer differs from the expected one; `call` says of which call, `place` where in what it returns."""
    where = f"of what it returns, number {place}: " if place else ""
    if isinstance(expected, tuple | list) and _holds_tensors(expected):
        if not isinstance(found, tuple | list) or len(found) != len(expected):
            return f"{where}it returns {_short((found,))}, expected are {len(expected)} things"
        index = next(i for i, pair in enumerate(zip(found, expected, strict=True)) if not _same(*pair))
        deeper = f"{place}{'.' if place else ''}{index + 1}"
        return _difference(call, found[index], expected[index], deeper)
    if isinstance(expected, Tensor) and getattr(found, "shape", None) != expected.shape:
        kind = f"the shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        return f"{where}it returns {kind}, expected is {tuple(expected.shape)}"
    if isinstance(expected, Tensor):
        index = tuple(torch.unravel_index((found - expected).abs().argmax(), expected.shape))
        at = f" at {[int(number) for number in index]}" if index else ""
        return f"{where}{call} gives {found[index].item():.4g}{at}, expected is {expected[index].item():.4g}"
    return f"{where}{call} gives {_short((found,))}, expected is {_short((expected,))}"


def _holds_tensors(values: Any) -> bool:
    return any(isinstance(one, Tensor) or (isinstance(one, tuple | list) and _holds_tensors(one)) for one in values)


def _short(values: tuple) -> str:
    """Arguments in a few words."""
    texts = []
    for value in values:
        if isinstance(value, Tensor) and value.numel() > 9:
            texts.append(f"a tensor {tuple(value.shape)}")
        elif isinstance(value, Tensor):
            texts.append(str([round(number, 4) for number in value.flatten().tolist()]))
        elif isinstance(value, tuple | list):
            texts.append(f"[{_short(tuple(value))}]")
        else:
            texts.append(f"{value:.4g}" if isinstance(value, float) else str(value))
    return ", ".join(texts)
