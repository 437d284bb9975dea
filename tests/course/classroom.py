"""A simulated class: what students hand in, honest or not, and what marking has to say about each.

python tests/course/classroom.py FOLDER      # makes the class of 60, marks it, prints expected against said
"""

from __future__ import annotations

import io
import json
import shutil
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import photograph

from srkit import models
from srkit.course import packing, reports, submission
from srkit.course.grading import Grader, Result
from srkit.course.rules import Rules
from srkit.data import images, load_dataset
from srkit.figures import save
from srkit.metrics import evaluate
from srkit.models.files import weights_sha256
from srkit.settings import CHECKS, Setup, Student, current_profile
from srkit.training import TrainConfig, Trainer

DEADLINE = datetime.fromisoformat("2026-12-01T23:59:00+01:00")
Change = Callable[[Path], None]


@dataclass(frozen=True)
class Plan:
    """One submission: what kind it is, how it differs from an honest one, and the remark that marking has to make."""

    kind: str
    expected: str = ""  # "" expects no remark at all
    student: int | None = None  # whose; a new one's if not given
    change: Change | None = None  # of the files that are packed
    signed: bool = True  # whether the manifest's hashes are made anew after the change
    days: float = -1  # handed in after the deadline
    copies: int | None = None  # whose network
    steps: int = 0  # trained at all, so that it is near bicubic still
    raw: Callable[[Path], None] | None = None  # writes the zip itself
    name: tuple[str, str] = ("", "")
    marks: float | None = None  # lost
    other: dict = field(default_factory=dict)


# ---------------------------------------------------------------------------------- ways to cheat and to fail


def edit(name: str, change: Callable[[dict], None]) -> Change:
    """Change a JSON file."""

    def edited(folder: Path) -> None:
        found = json.loads((folder / name).read_text("utf-8"))
        change(found)
        (folder / name).write_text(json.dumps(found), "utf-8")

    return edited


def claim(name: str, value: float) -> Change:
    return edit("manifest.json", lambda manifest: manifest["claims"].update({name: value}))


def forged_figure(change: Callable[[dict], None], chunks: bool = True) -> Change:
    """Change a sidecar, and the picture's text chunks with it."""

    def forged(folder: Path) -> None:
        path = folder / "figures/assignment_result.json"
        edit("figures/assignment_result.json", change)(folder)
        if chunks:
            text = PngInfo()
            for key, value in json.loads(path.read_text()).items():
                text.add_text(key, value if isinstance(value, str) else json.dumps(value))
            with Image.open(path.with_suffix(".png")) as picture:
                picture.load()
                picture.save(path.with_suffix(".png"), pnginfo=text)

    return forged


SLOW = {"architecture": "SRCNN", "kernels": [1001, 1, 1], "channels": [4, 4]}
LARGE = {"architecture": "SRCNN", "kernels": [1, 1, 1], "channels": [2048, 2048]}


def pretrained(manifest: dict) -> None:
    manifest["training"]["start"] = "0" * 64


def jumbled(notebook: dict) -> None:
    notebook["cells"][0]["execution_count"] = 7


def better(sidecar: dict) -> None:
    """3 dB more on every picture, and on the mean."""
    sidecar["metrics"]["psnr"] += 3
    for picture in sidecar["metrics"]["pictures"]:
        picture["psnr"] += 3


def weights(change: Callable[[dict], dict]) -> Change:
    """Change the tensors."""

    def changed(folder: Path) -> None:
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")

    return changed


def permuted(tensors: dict) -> dict:
    """The same function with its channels in another order."""
    order = torch.arange(len(tensors["head.bias"]) - 1, -1, -1)
    for name in ("head.weight", "head.bias", "body.0.second.weight", "body.0.second.bias"):
        tensors[name] = tensors[name][order]
    for name in ("body.0.first.weight", "tail.weight"):
        tensors[name] = tensors[name][:, order]
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def noised(tensors: dict) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {n: t + 2e-4 * t.std() * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}


def swapped(folder: Path) -> None:
    """Other weights than the figure's, and a manifest that agrees with them."""
    weights(noised)(folder)
    sha256 = weights_sha256(load_file(folder / "model.safetensors"))
    edit("manifest.json", lambda manifest: manifest.update(weights_sha256=sha256))(folder)


def network(**config: object) -> Change:
    """Another config, with weights of zeros that fit it."""

    def changed(folder: Path) -> None:
        config_ = {"name": "mine", "architecture": "EfficientSR", "scale": 2, **config}
        (folder / "model.json").write_text(json.dumps({"config": config_}))
        try:
            small = sum(p.numel() for p in models.build(config_).parameters()) < 2e7
        except Exception:
            small = False
        if small:
            state = models.build(config_).state_dict()
            save_file({name: torch.zeros_like(tensor) for name, tensor in state.items()}, folder / "model.safetensors")

    return changed


def huge(folder: Path) -> None:
    """20 billion parameters in a config of a hundred bytes."""
    config = {"name": "mine", "architecture": "EfficientSR", "scale": 2, "channels": 2048, "blocks": 300}
    (folder / "model.json").write_text(json.dumps({"config": config}))


def info(**values: object) -> Change:
    def changed(folder: Path) -> None:
        lines = (folder / "info.py").read_text() + "".join(f"{name} = {value!r}\n" for name, value in values.items())
        (folder / "info.py").write_text(lines)

    return changed


def own(folder: Path) -> None:
    """srkit's own network in place of a trained one."""
    model = models.load("efficient-x2")
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps({"config": model.config}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")


def trained_on(test: Path, smaller: bool) -> Change:
    """The manifest names a test picture among the training pictures, as it is or as a small JPEG."""

    def changed(folder: Path) -> None:
        from srkit.course.copies import prints

        path = sorted(test.iterdir())[1]
        picture = images.read(path)
        if smaller:
            file = io.BytesIO()
            with Image.open(path) as opened:
                opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((36, 36)).save(file, "JPEG", quality=80)
            file.seek(0)
            (folder / "small.jpg").write_bytes(file.read())
            picture = images.read(folder / "small.jpg")
            (folder / "small.jpg").unlink()
        found = prints(images.to_uint8(picture))
        edit("manifest.json", lambda manifest: manifest["training"]["pictures"].append(found))(folder)

    return changed


def code(folder: Path) -> None:
    (folder / "info.py").write_text("import os\nID = os.system('touch /tmp/owned')\n")


def raw(*members: tuple[str | zipfile.ZipInfo, bytes]) -> Callable[[Path], None]:
    """A zip with these members, whatever they are."""

    def written(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members:
                packed.writestr(name, content)

    return written


def bomb(path: Path) -> None:
    """Two megabytes that become half a gigabyte."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
        packed.open("model.safetensors", "w") as member,
    ):
        for _ in range(501):
            member.write(bytes(1_000_000))


def lying_bomb(path: Path) -> None:
    """20 megabytes that say they are 100 bytes."""
    content = zlib.compress(bytes(20_000_000), 9)[2:-4]
    raw(("model.safetensors", b"x" * 100))(path)
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(content), 100, 8, 0) + b"model.st"
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(content), 100, 8, 0, 0, 0, 0, 0, 0)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central) + 8, len(head) + len(content), 0)
    path.write_bytes(head + content + central + b"model.st" + end)


def link() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("info.py")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def plans(test: Path) -> list[Plan]:
    """The class of 60."""
    honest = [Plan("honest") for _ in range(11)]
    honest += [Plan("honest, hardly trained", steps=5 + index) for index in range(4)]
    honest += [Plan("honest, name", name=name) for name in [("Łukasz", "Ó Briain-Smith"), ("李", "小龙")]]
    late = [Plan("late", f"{lost} marks lost", days=days, marks=lost) for days, lost in [(0.2, 10), (1.5, 20), (5, 30)]]
    late += [Plan("too late", "100 marks lost", days=9, marks=100)]
    again = [Plan("replaced", "a later submission counts", student=0, days=-3)]
    again += [Plan("replaced, too late", "a later submission counts", student=1, days=20)]
    forged = [
        Plan("forged", "the manifest says 35.10 dB", change=claim("psnr", 35.1)),
        Plan("forged", "the manifest says nan dB", change=claim("psnr", float("nan"))),
        Plan("forged", "the manifest says 1000 parameters", change=claim("parameters", 1000)),
        Plan("forged", "a figure says", change=forged_figure(better)),
        Plan("forged", "not the mean of its pictures", change=forged_figure(lambda s: s["metrics"].update(psnr=40.0))),
        Plan("forged", "say different things", change=forged_figure(better, chunks=False)),
        Plan("forged", "made by another student", change=forged_figure(lambda s: s["student"].update(id="s9"))),
        Plan("forged", "names other weights", change=weights(noised)),
        Plan("forged", "no figure was made from", change=swapped),
        Plan("forged", "other files than the manifest says: info.py", change=info(EMAIL="x@y.z"), signed=False),
    ]
    same = "the same answers as"
    copied = [Plan("copied", same, copies=2), Plan("permuted", same, copies=3, change=weights(permuted))]
    copied += [Plan("noised", same, copies=4, change=weights(noised)), Plan("srkit's", f"{same} srkit's", change=own)]
    pictures = [Plan("test picture", "trained on test pictures", change=trained_on(test, False)),
                Plan("test picture, smaller", "(nearly)", change=trained_on(test, True))]  # fmt: skip
    ruled = [
        Plan("budget", "parameters, allowed are", change=network(channels=40, blocks=4)),
        Plan("pretrained", "started from a pretrained", change=edit("manifest.json", pretrained)),
        Plan("wrong scale", "enlarges by 3, and the rules want 2", change=network(scale=3)),
    ]  # fmt: skip
    broken = [
        Plan("bomb", "are not unpacked", raw=bomb),
        Plan("lying bomb", "no zip that can be read", raw=lying_bomb),
        Plan("path", "leads out of the folder", raw=raw(("../../owned.py", b"x"))),
        Plan("link", "is a link", raw=raw((link(), b"/etc/passwd"))),
        Plan("20 billion", "more than 200,000,000 are not made", change=huge),
        Plan("pickle", "runs no code from a file", change=pickled),
        Plan("NaN", "NaN or infinite", change=weights(lambda t: {n: v * float("nan") for n, v in t.items()})),
        Plan("an hour", "stopped: it takes longer", change=network(**SLOW)),
        Plan("memory", "of memory", change=network(**LARGE)),
        Plan("no figure", "0 figures", change=lambda folder: shutil.rmtree(folder / "figures")),
        Plan("not declared", "DECLARATION is not True", change=info(DECLARATION=False)),
        Plan("formula", "letters, digits", change=info(ID='=hyperlink("x")')),
        Plan("no zip", "no zip that can be read", raw=lambda path: path.write_bytes(b"PK\3\4" + bytes(50))),
        Plan("empty", "no info.py", raw=raw()),
        Plan("not executed", "restart the kernel", change=edit("work.ipynb", jumbled)),
        Plan("code", "no list of values", change=code),
    ]  # fmt: skip
    twins = [Plan("one ID", "another student has this ID", other={"id": "s500"}) for _ in range(2)]
    everything = [*honest, *late, *again, *forged, *copied, *pictures, *ruled, *broken, *twins]
    # Who was copied from is told so, too.
    return [replace(plan, expected=same) if index in (2, 3, 4) else plan for index, plan in enumerate(everything)]


# ---------------------------------------------------------------------------------- making them


class Class:
    """A folder of pictures, rules, and submissions with the times at which the platform received them."""

    def __init__(self, folder: Path, contest: Rules | None = None) -> None:
        self.folder, self.times, self.plans = folder, {}, {}
        for index in range(16):
            kind = "train" if index < 8 else "val" if index < 11 else "test"
            images.write(photograph(48, 48, index), folder / kind / f"{kind}{index}.png")
        own = Rules(
            scale=2, parameters=10_000, pretrained=False, deadline=DEADLINE,
            hard_deadline=DEADLINE + timedelta(days=8), curve=((-40.0, 0.0), (5.0, 1.0)), checks=("merge",),
            seconds=60, memory=1.0, file_size=0.1,
        )  # fmt: skip
        self.rules = replace(contest or own, validation=str(folder / "val"))
        self.dataset = load_dataset(folder / "train", "all")
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.psnr: dict[str, float] = {}

    def network(self, seed: int, steps: int) -> torch.nn.Module:
        """A tiny network of its own; with no steps to come, one that is as far from bicubic as a trained one is."""
        torch.manual_seed(seed)
        model = models.build(
            {"name": "mine", "architecture": "EfficientSR", "scale": self.rules.scale, "channels": 6, "blocks": 1}
        )
        if not steps:
            torch.nn.init.normal_(model.tail.weight, std=0.02)
        return model

    def add(self, index: int, plan: Plan) -> None:
        """Make one submission and put it into the inbox."""
        number = index if plan.student is None else plan.student
        first, last = plan.name if plan.name[0] else (f"First{number}", f"Last{number}")
        identity = plan.other.get("id", f"s{number}")
        path = self.inbox / f"{index:02}_{identity}.zip"
        self.times[path.name], self.plans[path.name] = DEADLINE + timedelta(days=plan.days), plan
        if plan.raw:
            plan.raw(path)
            return
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            student = Student(f"{first} {last}", identity)
            lines = {"ID": identity, "FIRST_NAME": first, "LAST_NAME": last, "DECLARATION": True}
            (folder / "info.py").write_text("".join(f"{name} = {value!r}\n" for name, value in lines.items()), "utf-8")
            seed = number if plan.copies is None else plan.copies
            out = folder / "run"
            config = TrainConfig(steps=max(1, plan.steps), batch_size=2, patch_size=24, ema=0, device="cpu",
                                 lr=1e-3 if plan.steps else 1e-9, precision="fp32", seed=seed)  # fmt: skip
            trainer = Trainer(self.network(seed, plan.steps), self.dataset, config, out=out, student=student)
            trainer.fit(progress=False)
            model = models.load(out / "last.pt")
            self.figure(folder, student, model)
            executed = {"cell_type": "code", "execution_count": 1, "outputs": [], "source": ["merge = 1"]}
            (folder / "work.ipynb").write_text(json.dumps({"cells": [executed], "nbformat": 4}))
            packed = packing.pack(out / "last.pt", folder, self.rules)
            assert packed.path, packed.problems
            shutil.move(packed.path, path)
        self.psnr[path.name] = evaluate(model, load_dataset(self.folder / "test", "all")).psnr
        if plan.change:
            self.change(path, plan)

    def figure(self, folder: Path, student: Student, model: torch.nn.Module) -> None:
        from matplotlib.figure import Figure

        here = Setup("assignment", current_profile("quick"), torch.device("cpu"), student, figures=folder / "figures")
        CHECKS["merge"] = True
        save(Figure((0.2, 0.2)), "result", here, model, evaluate(model, load_dataset(self.folder / "val", "all")))
        del CHECKS["merge"]

    def change(self, path: Path, plan: Plan) -> None:
        """Pack it anew with the change, and with hashes that fit it, as one would who knows how srkit does it."""
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            submission.unpack(path, folder)
            assert plan.change
            plan.change(folder)
            manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
            if plan.signed:
                manifest["files"] = submission.files_in(folder)
                (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
            submission.write_zip(folder, path)

    def mark(self, out: Path) -> list[Result]:
        grader = Grader(self.rules, str(self.folder / "test"), out)
        results = grader.grade(self.inbox, self.times)
        reports.write(results, grader)
        reports.write_standings(results, grader)
        return results

    def missed(self, results: list[Result]) -> list[str]:
        """Prints what was expected and what was said; returns where they differ."""
        differ = []
        for one in sorted(results, key=lambda one: one.file):
            plan, said = self.plans[one.file], reports.remarks(one)
            right = any(plan.expected in line for line in said) if plan.expected else not said
            if not plan.expected or plan.marks:  # honest: also the figure and the marks are exactly right
                right &= (
                    one.table is not None and abs(one.table.psnr - self.psnr[one.file]) < 1e-4
                )  # a value between two grey levels can go either way
                right &= one.code == 40 and one.lost == (plan.marks or 0)
            row = f"{one.file:12} {plan.kind:24} {plan.expected or 'nothing':44} {'ok' if right else 'WRONG':6}"
            row += "; ".join(said)
            print(row)
            differ += [] if right else [row]
        return differ


if __name__ == "__main__":
    import resource
    import time

    room = Class(Path(sys.argv[1]))
    for number, each in enumerate(plans(room.folder / "test")):
        room.add(number, each)
    begin = time.monotonic()
    found = room.missed(room.mark(room.folder / "marks"))
    peaks = [resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{len(room.plans)} submissions in {(time.monotonic() - begin) / 60:.1f} min, {len(found)} wrong; "
          f"peak memory {peaks[0]:.2f} GB, of one that measures {peaks[1]:.2f} GB")  # fmt: skip
    sys.exit(bool(found))
