"""Checks of a student's answers: right ones are used, wrong ones named, and nobody is stuck."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srkit import losses, settings
from srkit.course import checks
from srkit.course.checks import Check
from srkit.data import images

ALL = [check for check in vars(checks).values() if isinstance(check, Check)]
MISTAKES = [pytest.param(check, message, id=f"{check.name}: {message}") for check in ALL for message in check.mistakes]


def mean(x):
    return x.mean(0)


average = Check(
    "average",
    mean,
    lambda generator: [(torch.randn(2, 2, generator=generator),) for _ in range(3)],
    {"this is the sum: divide by how many there are": lambda x: x.sum(0)},
)


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.name)
def test_own_answer_is_right_and_a_stub_is_not_written_yet(check):
    assert check.complaint(check.own) == ""
    assert check.complaint(lambda *arguments: ...) == "not written yet"


@pytest.mark.parametrize(("check", "message"), MISTAKES)
def test_each_likely_mistake_is_told_its_own_message(check, message):
    assert check.complaint(check.mistakes[message]) == message


def test_right_answer_is_used_and_a_wrong_one_is_not(capsys):
    def right(x):
        return sum(x) / len(x)

    def wrong(x):
        return x.sum(0)

    assert average(right) is right and settings.CHECKS["average"]
    assert average(wrong) is mean and not settings.CHECKS["average"]
    assert "divide by how many" in capsys.readouterr().out


def test_a_check_that_is_run_twice_does_not_praise_its_own_answer(capsys):
    def stub(x): ...

    given_back = average(average(stub))
    assert given_back is mean and not settings.CHECKS["average"]
    assert "run the cell with your lines first" in capsys.readouterr().out


def no_return(x):
    x.mean(0)


class NoReturn(nn.Module):
    def forward(self, x):
        x + 1


def test_what_is_written_and_returns_nothing_is_told_from_a_stub():
    assert average.complaint(no_return) == "it returns nothing: is `return` missing?"
    assert checks.save_training.complaint(lambda path, *rest: torch.zeros(2)).startswith("no file is there")
    check = Check("NoReturn", nn.Identity, lambda generator: [(torch.randn(1, 1, 2, 2),)], {}, checks.module)
    assert "return" in check.complaint(NoReturn)


def in_place(x):
    x /= 2
    return x.sum(0)


def fails(x):
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (in_place, "in place"),
        (fails, "ValueError: no such thing"),
        (lambda x: torch.zeros(2), "the same whatever"),
        (lambda x: x.mean(), r"shape ()"),
        (lambda x: str(x), "a str"),
        (lambda x: x.mean(0) + 0 * losses.l1(x, x), "srkit's own"),
        (lambda x: x.mean(0) + 0.5, "expected is"),
    ],
)
def test_any_other_wrong_answer_is_told_what_is_wrong_with_it(answer, words):
    assert words in average.complaint(answer)


def test_a_wrong_part_of_several_answers_is_named_in_a_short_line():
    def both(pictures):
        return torch.stack(pictures), [len(pictures)]

    check = Check("both", both, lambda generator: [([torch.rand(4, 4, generator=generator)] * n,) for n in (1, 2)])
    line = check.complaint(lambda pictures: (torch.stack(pictures, 1), [len(pictures)]))
    assert line == "of what it returns, number 1: it returns the shape (4, 1, 4), expected is (1, 4, 4)"
    line = check.complaint(lambda pictures: (torch.stack(pictures), [len(pictures) + 1]))
    assert line == "of what it returns, number 2: both([a tensor (4, 4)]) gives [2], expected is [1]"
    assert "expected are 2 things" in check.complaint(torch.stack)


def test_a_part_of_a_part_is_named_by_both_numbers():
    check = Check("nested", lambda x: ((x, x), [True]), lambda generator: [(torch.rand(2, generator=generator),)])
    line = check.complaint(lambda x: ((x, x.sum()), [True]))
    assert line == "of what it returns, number 1.2: it returns the shape (), expected is (2,)"
    assert check.complaint(lambda x: ((x, x), [False])).endswith("gives [False], expected is [True]")


def test_a_call_of_srkits_own_is_noticed_where_it_fails_too(tmp_path):
    def forwarding(x):
        return images.read(tmp_path / "none.png")

    assert "it calls srkit's own read" in average.complaint(forwarding)


class Small(nn.Module):
    def __init__(self, padding=1):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=padding)

    def forward(self, x):
        return self.layer(x)


def test_networks_are_compared_by_what_their_weights_make_of_a_picture():
    check = Check(
        "Small",
        Small,
        lambda generator: [(torch.randn(1, 1, 5, 5, generator=generator),)],
        {"it makes the picture smaller: padding": lambda: Small(0)},
        checks.module,
    )
    assert check.complaint(Small) == ""
    assert check.complaint(lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))) == ""
    assert "smaller" in check.complaint(lambda: Small(0))
    assert check.complaint(lambda: ...) == "not written yet"
