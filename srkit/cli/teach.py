"""The commands of a class: handout, submit, grade, contest, poll."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from srkit.course import grading, handout, inbox, packing, reports, rules
from srkit.metrics import opinions
from srkit.settings import SRKitError, atomic_write, lock, root


@dataclass
class Handout:
    """Write what students get into a new folder: lessons without solutions, an assignment to fill in, its rules."""

    # The new folder.
    folder: Positional[Path]
    # Lessons by number, e.g. --lessons 03 04; the assignment alone if none is named.
    lessons: tuple[str, ...] = ()
    # The rules; an example to change if not given.
    rules: Path | None = None
    # The release or commit that the lessons install on Colab, e.g. v0.2; main if not given.
    revision: str = ""
    # A folder or web address with the data sets' files, from which the lessons take them.
    mirror: str = ""

    def __call__(self) -> None:
        for path in handout.handout(self.folder, self.lessons, self.rules, self.revision, self.mirror):
            print(path)


@dataclass
class Submit:
    """Check what you hand in, as marking will, and pack it: ID_lastname_firstname.zip.

    In the folder lie info.py, filled in, model.py, train.py, an executed notebook, and figures/ with the JSON files.
    """

    # The checkpoint of your network, e.g. runs/assignment/last.pt.
    checkpoint: Positional[Path]
    # Where the rest lies, and where the zip goes.
    folder: Path = Path()
    # The rules; contest.toml in the folder if not given.
    rules: Path | None = None
    # Executed notebooks that lie elsewhere; those in the folder if none is named.
    notebooks: tuple[Path, ...] = ()

    def __call__(self) -> int:
        contest = rules.read(self.rules or self.folder / "contest.toml")
        packed = packing.pack(self.checkpoint, self.folder, contest, self.notebooks)
        print(f"{contest.validation}: {packed.table.psnr:.2f} dB at x{contest.scale}, {packed.parameters:,} parameters")
        print(f"marked: the weights, on test pictures ({contest.results:g}), and these files ({contest.code:g}): "
              f"{', '.join(packed.files)}")  # fmt: skip
        for problem in packed.problems:
            print(f"srkit: {problem}", file=sys.stderr)
        print(packed.path or "nothing was packed: put that right first")
        return 0 if packed.path else 2


@dataclass
class Grade:
    """Measure every submission in a folder anew, without running students' code, and mark it.

    Writes OUT/index.html with a page per student, marks.csv, junit.xml, and results.json for Gradescope. Interrupted,
    it goes on.
    """

    # Zips, or folders with a manifest.json, at any depth; or one of these.
    folder: Positional[Path]
    # The contest.toml that was handed out.
    rules: Path
    # The test pictures: a name that `srkit data` lists, or a folder.
    data: str
    # Where the report goes; runs/marks-FOLDER if not given.
    out: Path | None = None
    # When the platform received them: a CSV with the columns file (or id) and time; or submission_metadata.json.
    times: Path | None = None
    # Run students' own model.py, where the rules say own_network, in bubblewrap.
    run_code: bool = False
    # Run it without bubblewrap: only in a container made for it.
    no_sandbox: bool = False

    def graded(self, kind: str) -> tuple[list[grading.Result], grading.Grader]:
        """Every submission's result."""
        contest = rules.read(self.rules)
        if contest.own_network and not self.run_code:
            raise SRKitError(f"{self.rules} lets students define the network: give --run-code to run their code")
        inbox.find(self.folder)  # an empty folder is said before anything is read
        times = inbox.read_times(self.times) if self.times else None
        out = self.out or root() / "runs" / f"{kind}-{self.folder.resolve().name}"
        with lock(out / "measured", wait=False):
            grader = grading.Grader(contest, self.data, out, not self.no_sandbox)
            return grader.grade(self.folder, times), grader

    def __call__(self) -> None:
        print(reports.write(*self.graded("marks")))


@dataclass
class Contest(Grade):
    """Measure every submission in a folder, as `srkit grade`, and write the standings alone: OUT/standings.html."""

    def __call__(self) -> None:
        print(reports.write_standings(*self.graded("contest")))


@dataclass
class Poll:
    """Pool the answers of a class's blind tests: scores with 95 % intervals, and a page that plots them.

    Each student hands in runs/opinions/ID.json. Scores are Bradley and Terry's: one that is 1 higher was preferred in
    73 of 100 pairs. Damaged files are skipped, and named.
    """

    # The folder with all files, at any depth.
    folder: Positional[Path]
    # The page.
    out: Path = Path("runs/poll.png")

    def __call__(self) -> None:
        from srkit import figures

        poll = opinions.read(self.folder)
        for line in poll.skipped:
            print(f"srkit: {line}", file=sys.stderr)
        scores = opinions.scores(poll.answers)
        print(f"{'':24}{'score':>7}{'95 %':>8}   preferred")
        for name, one in scores.items():
            print(f"{name:24}{one.score:+7.2f}{one.half:8.2f}   {one.wins} of {one.pairs}")
        words = f"{len(poll.answers)} answers, {poll.people} {'person' if poll.people == 1 else 'people'}"
        page = figures.preferences(scores, poll.measures, words)
        with atomic_write(self.out) as draft:
            page.savefig(draft)
        print(f"{words}; {self.out}")
