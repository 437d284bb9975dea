"""What people say: answers to "which of the two looks better?", kept in a file a person, and the scores they give.

The model is Bradley and Terry's ("Rank analysis of incomplete block designs", Biometrika 1952): a method has a strength
p, and i is preferred to j with the probability p_i / (p_i + p_j). A score is ln p: one that is 1 higher is preferred in
73 of 100 pairs, one that is 2 higher in 88.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from srkit.settings import SRKitError, atomic_write

FORMAT = 1
PRIOR = 0.5  # wins, and as many losses, that each method has beforehand


@dataclass(frozen=True)
class Answer:
    """Of one picture two methods' outputs were shown, left and right; `better` is one of the two."""

    person: str
    picture: str
    left: str
    right: str
    better: str

    @property
    def worse(self) -> str:
        """The method that was not preferred."""
        return self.right if self.better == self.left else self.left


@dataclass(frozen=True)
class Poll:
    """The answers of several people; `measures` is what their tests noted of each method, by name; `skipped` has a
    line for each file that could not be read."""

    answers: list[Answer]
    measures: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def people(self) -> int:
        """How many of them there are."""
        return len({answer.person for answer in self.answers})


@dataclass(frozen=True)
class Score:
    """A method's score: ln of its strength, the mean over methods 0; `half` is half the width of its 95 % interval,
    `wins` counts in how many of its `pairs` it was preferred."""

    score: float
    half: float
    wins: int
    pairs: int


# ---------------------------------------------------------------------------------- files


def write(path: str | Path, answers: Sequence[Answer], measures: Mapping[str, Mapping[str, float]]) -> None:
    """Write the answers of one person.

    Raises:
        SRKitError: they could not be written.
    """
    facts = {"format": FORMAT, "measures": measures, "answers": [asdict(answer) for answer in answers]}
    with atomic_write(path) as draft:
        draft.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read(folder: str | Path) -> Poll:
    """The answers of every file *.json in a folder, at any depth, or of one file.

    A file that is damaged, or is none of these, is skipped and named. What a person says twice of the same two outputs,
    as when a file was handed in twice, counts once.

    Raises:
        SRKitError: no such folder, or not one answer in it.
    """
    folder = Path(folder)
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.json"))
    found: dict[tuple, Answer] = {}
    measures: dict[str, dict[str, float]] = {}
    skipped = []
    for path in paths:
        try:
            answers, noted = _parse(path.read_bytes())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            skipped.append(f"{path.name} is skipped, no answers of a blind test: {type(error).__name__} {error}"[:160])
            continue
        measures = noted | measures
        for one in answers:
            found.setdefault((one.person, one.picture, *sorted((one.left, one.right))), one)
    if not found:
        raise SRKitError("; ".join([f"{folder}: no answers: name the folder with people's files", *skipped[:3]]))
    return Poll(list(found.values()), measures, skipped)


def _parse(content: bytes) -> tuple[list[Answer], dict[str, dict[str, float]]]:
    """Answers and measures of a file; one of several errors if they are none."""
    facts = json.loads(content)
    if facts["format"] != FORMAT:
        raise ValueError(f"format {facts['format']!r:.20}")
    answers = [Answer(**row) for row in facts["answers"]]
    for one in answers:
        if not all(isinstance(word, str) and word for word in asdict(one).values()):
            raise ValueError("an answer without words")
        if one.left == one.right or one.better not in (one.left, one.right):
            raise ValueError(f"{one.better!r:.40} was not to be chosen")
    measures = {
        method: {name: float(value) for name, value in row.items()} for method, row in facts["measures"].items()
    }
    return answers, measures


# ---------------------------------------------------------------------------------- scores


def wins_of(answers: Iterable[Answer], methods: Sequence[str]) -> Tensor:
    """How often each method was preferred to each other one: (K, K), row to column, in the order of the names."""
    wins = torch.zeros(len(methods), len(methods), dtype=torch.float64)
    for answer in answers:
        wins[methods.index(answer.better), methods.index(answer.worse)] += 1
    return wins


def bradley_terry(wins: Tensor, steps: int = 10_000) -> Tensor:
    """The scores ln p that make the answers most likely, (K,), their mean 0.

    By Hunter's iteration ("MM algorithms for generalized Bradley-Terry models", Annals of Statistics 2004, eq. 3): p_i
    becomes i's wins divided by the sum over j of n_ij / (p_i + p_j), n_ij the pairs of i and j, and the answers never
    become less likely.

    Args:
        wins: (K, K), how often the row was preferred to the column. Who won always, or never, has an infinite score.
        steps: at most.
    """
    pairs, logs = wins + wins.T, torch.zeros(len(wins), dtype=torch.float64)
    for _ in range(steps):
        before, p = logs, logs.exp()
        logs = (wins.sum(1) / (pairs / (p[:, None] + p)).sum(1)).log()
        logs = logs - logs.mean()
        if (logs - before).abs().max() < 1e-10:
            break
    return logs


def scores(answers: Sequence[Answer]) -> dict[str, Score]:
    """Each method's Bradley-Terry score with its 95 % interval, the best first.

    Beforehand each method is given half a win and half a loss, shared out over the others: who won always then has a
    finite score, and so have methods that were never shown together. The interval is 1.96 standard errors from the
    curvature of the likelihood, the inverse of Fisher's information. It takes the answers as independent; those of one
    person are less so, and with few people it is too narrow.

    Raises:
        SRKitError: answers of fewer than two methods.
    """
    methods = sorted({name for answer in answers for name in (answer.left, answer.right)})
    if len(methods) < 2:
        raise SRKitError("scores need answers about two methods at least")
    wins, others = wins_of(answers, methods), len(methods) - 1
    known = wins + PRIOR / others * (1 - torch.eye(len(methods), dtype=torch.float64))
    found = bradley_terry(known)
    chance = torch.sigmoid(found[:, None] - found)
    information = -(known + known.T) * chance * (1 - chance)
    information -= torch.diag(information.sum(1))
    halves = 1.96 * torch.linalg.pinv(information, hermitian=True).diagonal().sqrt()  # of differences from the mean
    each = {
        name: Score(found[i].item(), halves[i].item(), int(wins[i].sum()), int((wins + wins.T)[i].sum()))
        for i, name in enumerate(methods)
    }
    return dict(sorted(each.items(), key=lambda item: -item[1].score))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation: the correlation of the ranks, those of equal values their mean; nan if all are equal."""
    columns = torch.tensor([list(a), list(b)], dtype=torch.float64)
    smaller = (columns[:, :, None] > columns[:, None]).sum(-1)
    ranks = smaller + ((columns[:, :, None] == columns[:, None]).sum(-1) + 1) / 2
    return torch.corrcoef(ranks)[0, 1].item()
