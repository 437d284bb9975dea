"""Marks a folder of submissions: every figure is computed again from the weights that were handed in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from srkit import metrics, models
from srkit.course import claims, copies, inbox, measuring, rules, submission
from srkit.course.rules import Rules
from srkit.data import ImageDataset, images, sources
from srkit.metrics import Row, Table
from srkit.models.files import read, weights_sha256
from srkit.settings import SRKitError, atomic_write

VIEW = 96  # side of the part of a test picture that the report shows


@dataclass
class Result:
    """One submission: who, when, what was measured, what is wrong with it, and its marks."""

    file: str
    info: dict[str, Any] = field(default_factory=dict)
    time: datetime | None = None
    clock: str = ""  # whose time that is
    error: str = ""  # why it could not be measured
    problems: dict[str, str] = field(default_factory=dict)  # a line for each item of the code marks; "" where it holds
    flags: list[str] = field(default_factory=list)  # for the teacher to look at
    broken: list[str] = field(default_factory=list)  # rules, so that the results count nothing
    table: Table | None = None
    parameters: int = 0
    seconds: float = 0.0  # for a megapixel of output
    training: list[copies.Prints] = field(default_factory=list)
    key: str = ""  # of its files in measured/
    gain: float = 0.0  # dB above bicubic
    rank: int = 0
    code: float = 0.0
    results: float = 0.0
    lost: float = 0.0
    replaced: bool = False  # a later one of the same student counts

    @property
    def mark(self) -> float:
        return max(0.0, round(self.code + self.results - self.lost, 2))

    @property
    def who(self) -> str:
        names = (self.info.get(name, "") for name in ("LAST_NAME", "FIRST_NAME", "ID"))
        return " ".join(name for name in names if name) or self.file


class Replay(nn.Module):
    """Stands where `evaluate` wants a network, and gives outputs that were computed before, in order."""

    def __init__(self, outputs: Sequence[Tensor], scale: int) -> None:
        super().__init__()
        self.scale, self.outputs = scale, iter(outputs)

    def forward(self, low: Tensor) -> Tensor:
        """(1, 3, H, W) to (1, 3, scale * H, scale * W)."""
        return images.from_uint8(next(self.outputs))[None]


class Grader:
    """Marks submissions under rules; what it has measured once lies in out/measured, and is not measured again.

    Args:
        contest: the rules.
        data: the test pictures: a data set or a folder.
        out: where the report goes.
        sandboxed: see `measuring.measure`.

    Raises:
        SRKitError: no such pictures.
    """

    def __init__(self, contest: Rules, data: str, out: Path, sandboxed: bool = True) -> None:
        self.rules, self.out, self.sandboxed = contest, out, sandboxed
        self.test = rules.pictures(data, "test")
        self.validation = rules.pictures(contest.validation, "val")
        self.bicubic = metrics.evaluate(models.create("bicubic", contest.scale), self.test)
        self.low = copies.fixed_low(contest.scale)
        self.lows = [self.low, *(low for part in (self.test, self.validation) for low in self.lows_of(part))]
        self.tests = {
            name: [copies.prints(way) for way in copies.turned(picture)]
            for name, picture in zip(self.test.names, self.test.pictures, strict=True)
        }
        self.allowed: set[str] = set()
        if contest.pictures:
            paths = sources.pictures(contest.pictures)
            self.allowed = {copies.prints(images.to_uint8(images.read(path)))[0] for path in paths}
        decide = ("scale", "ensemble", "own_network", "seconds", "memory", "file_size")  # the rest only marks
        facts = [getattr(contest, name) for name in decide]
        self.stamp = repr((*facts, self.test.fingerprint, self.validation.fingerprint, sandboxed))

    def lows_of(self, dataset: ImageDataset) -> list[Tensor]:
        return [images.to_uint8(pair.low[0]) for pair in dataset.pairs(self.rules.scale)]

    # ------------------------------------------------------------------------------ one submission

    def result(self, path: Path, name: str) -> Result:
        """What a submission holds and reaches, without the marks that depend on the others."""
        result = Result(name)
        with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            folder = Path(scratch).resolve() / "submission"
            folder.mkdir()
            try:
                submission.unpack(path, folder)
                result.info = submission.read_info(folder)
                found = submission.inspect(folder, self.rules)
                result.problems = found.problems
                result.time, result.clock = inbox.time_of(found.manifest.get("packed")), "the student's computer"
                contents = json.dumps(sorted(submission.files_in(folder).items())) + json.dumps(found.manifest)
                result.key = hashlib.sha256((self.stamp + contents).encode()).hexdigest()[:32]
                self._apply(result, found, self._measured(folder, result))
            except SRKitError as error:
                result.error = str(error).replace(str(folder), "").lstrip("/: ")
            except Exception as error:  # it is anybody's: whatever is in it, the others are marked
                result.error = f"made by hand, and not readable ({type(error).__name__}): pack it with srkit submit"
        return result

    def _measured(self, folder: Path, result: Result) -> dict[str, Any]:
        """The figures of a submission: measured now, or when marking was interrupted."""
        path = self.out / "measured" / f"{result.key}.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        ensemble = self.rules.ensemble and result.info["ENSEMBLE"]
        try:
            outputs, facts = measuring.measure(folder, self.lows, self.rules, ensemble, self.sandboxed)
            answers = outputs[1:]
            for name, dataset in (("test", self.test), ("validation", self.validation)):
                mine, answers = answers[: len(dataset)], answers[len(dataset) :]
                table = metrics.evaluate(Replay(mine, self.rules.scale), dataset)
                facts[name] = [asdict(row) for row in table.rows]
            facts["sha256"] = weights_sha256(read(folder / submission.MODEL))
            if self.rules.own_network:  # its count, too, is the student's own word
                with safe_open(folder / submission.MODEL, "pt") as file:
                    sizes = [torch.Size(file.get_slice(key).get_shape()).numel() for key in file.keys()]  # noqa: SIM118
                facts["parameters"] = max(facts["parameters"], sum(sizes))
            images.write(images.from_uint8(outputs[0]), path.with_suffix(".png"))
            images.write(self.view(images.from_uint8(outputs[1])), path.with_name(f"{result.key}-view.png"))
        except SRKitError as error:  # not kept: a busy machine, too, ends what takes too long
            return {"error": str(error)}
        with atomic_write(path) as draft:
            draft.write_text(json.dumps(facts), "utf-8")
        return facts

    def view(self, output: Tensor) -> Tensor:
        """The part of the first test picture that the report shows."""
        from srkit.figures import busiest  # matplotlib: not for who asks for help

        high = images.crop_to_multiple(self.test[0][1], self.rules.scale)
        left, top, side = busiest(high, min(VIEW, *high.shape[1:]))
        return output[:, top : top + side, left : left + side]

    def _apply(self, result: Result, found: submission.Inspected, facts: dict[str, Any]) -> None:
        """From the figures to claims, rules and flags."""
        result.error = facts.get("error", "")
        training = found.manifest.get("training")
        training = training if isinstance(training, dict) else {}
        result.training = copies.as_prints(training.get("pictures"))
        if result.error:
            result.problems["claims"] = "nothing could be measured"
            return
        result.parameters, result.seconds = int(facts["parameters"]), facts["seconds per megapixel"]
        result.table = Table(self.rules.scale, [Row(**row) for row in facts["test"]])
        result.gain = result.table.psnr - self.bicubic.psnr
        validation = Table(self.rules.scale, [Row(**row) for row in facts["validation"]])
        measured = claims.Measured(facts["sha256"], result.parameters, result.table, validation)
        result.problems["claims"] = "; ".join(claims.differences(found, measured, self.rules))
        result.broken = claims.broken(training, result.training, result.parameters, self.rules, self.allowed)
        if tests := copies.seen(result.training, self.tests):
            result.flags.append(f"trained on test pictures: {', '.join(tests[:5])}")
        if result.problems["claims"]:
            result.flags.append(result.problems["claims"])

    # ------------------------------------------------------------------------------ all of them

    def grade(self, folder: Path, times: Mapping[str, datetime] | None = None) -> list[Result]:
        """Measure every submission in a folder and mark them; best results first.

        Args:
            folder: zips, or folders with a manifest.json, at any depth; or one such submission itself.
            times: when it was handed in, by file name or student's ID, as the platform says; see `inbox.read_times`.

        Raises:
            SRKitError: no submission there.
        """
        found = inbox.find(folder)
        results = []
        for number, (name, path) in enumerate(found.items(), 1):
            result = self.result(path, name)
            clock = (times or {}).get(name.rsplit("/")[-1]) or (times or {}).get(result.info.get("ID", ""))
            if clock := clock or (times or {}).get(""):
                result.time, result.clock = clock, "the platform"
            print(f"{number}/{len(found)} {line(result)}", flush=True)
            results.append(result)
        counting = []
        for group in inbox.students(results, lambda one: one.info):
            own = sorted(group, key=self._order)
            for one in own[:-1]:
                one.replaced = True
            counting.append(own[-1])
        self._one_id(counting)
        self._copies(counting)
        _ranks(counting)
        for result in counting:
            self._mark(result, sum(bool(each.rank) for each in counting))
        return sorted(results, key=lambda one: (one.replaced, not one.rank, one.rank, -one.gain, one.who))

    def _order(self, one: Result) -> tuple[bool, float]:
        """The last counts: the latest, before those that came after the hard deadline."""
        return not self.rules.too_late(one.time), one.time.timestamp() if one.time else 0.0

    def _one_id(self, results: Sequence[Result]) -> None:
        """Flag different students with one ID: nobody knows whose is whose."""
        for one in results:
            others = [x.who for x in results if x is not one and x.info.get("ID") == one.info.get("ID") and x.info]
            if others and one.info.get("ID"):
                one.flags.append(f"another student has this ID: {', '.join(sorted(others))}")

    def _copies(self, results: Sequence[Result]) -> None:
        """Flag whose answers are another's, or one of srkit's own networks'."""
        paths = {one.file: self.out / "measured" / f"{one.key}.png" for one in results if one.table}
        answers = {name: images.to_uint8(images.read(path)) for name, path in paths.items()}
        known = copies.published(self.low, self.rules.scale) if not self.rules.pretrained else {}
        bicubic = models.create("bicubic", self.rules.scale)(images.from_uint8(self.low)[None])[0]
        by_file = {one.file: one for one in results}
        for (a, b), agree in copies.same({**answers, **known}, images.to_uint8(bicubic)).items():
            for mine, other in ((a, b), (b, a)):
                if mine in by_file:
                    name = by_file[other].who if other in by_file else other
                    how = "to the last bit" if agree == float("inf") else f"to {agree:.0f} dB"
                    by_file[mine].flags.append(f"the same answers as {name} ({how})")

    def _mark(self, result: Result, ranked: int) -> None:
        if result.problems:
            right = sum(not problem for problem in result.problems.values())
            result.code = round(self.rules.code * right / len(result.problems), 2)
        if result.rank:
            share = 1 - (result.rank - 1) / ranked if self.rules.ranked else self.rules.share(result.gain)
            result.results = round(self.rules.results * share, 2)
        result.lost = self.rules.lost(result.time)


def _ranks(results: Sequence[Result]) -> None:
    """1 for the best. Who is behind by no more than two standard errors of the paired differences shares the rank."""
    order = [one for one in results if one.table and not one.broken]
    order.sort(key=lambda one: -one.gain)
    leader: Result | None = None
    for place, one in enumerate(order, 1):
        one.rank = place
        if leader and leader.table and one.table:
            change = metrics.paired(one.table, leader.table).changes["psnr"]
            if change.difference <= 2 * change.error or change.difference == 0:
                one.rank = leader.rank
                continue
        leader = one


def line(result: Result) -> str:
    """A submission in a line."""
    lines = [*result.broken, *result.flags, *filter(None, result.problems.values())]
    said = result.error or "; ".join(dict.fromkeys(lines))
    reached = f"{result.table.psnr:.2f} dB" if result.table else "not measured"
    return f"{result.who}: {reached}" + (f" - {said}" if said else "")
