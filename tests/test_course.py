"""benchmarks.pack and benchmarks.course: a folder within its budget; every network trained, measured and published."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import course, pack
from srkit.errors import SRKitError
from srkit.images import write
from srkit.models import trained


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three folders of noise: photographs, large enough and not, T91 and Set5."""
    folder = tmp_path_factory.mktemp("sets")
    dice = torch.Generator().manual_seed(0)
    for name, count, side in (("photos", 20, 288), ("t91", 3, 96), ("set5", 2, 96)):
        for number in range(count):
            soft = torch.rand(3, side // 8, side // 8, generator=dice)
            write(soft.repeat_interleave(8, 1).repeat_interleave(8, 2), folder / name / f"{number:02}.png")
    write(torch.rand(3, 200, 300, generator=dice), folder / "photos" / "too_small.png")
    return folder


def packed(sets, target, **changes):
    options = pack.Options(target, str(sets / "photos"), str(sets / "t91"), str(sets / "set5"), "noise")
    return pack.pack(replace(options, **changes))


def test_a_pack_keeps_its_budget_and_copies_files_as_they_are(sets, tmp_path):
    facts = packed(sets, tmp_path / "all")
    assert facts["photos"]["files"] == 20  # not the one that is too small
    budget = sum(facts[part]["megabytes"] for part in facts) * 0.8
    small = packed(sets, tmp_path / "half", megabytes=budget)
    assert 10 <= small["photos"]["files"] < 20
    assert sum(path.stat().st_size for path in (tmp_path / "half").rglob("*.png")) <= budget * 1e6
    one = next((tmp_path / "half" / "photos").iterdir())
    assert one.read_bytes() == (sets / "photos" / one.name).read_bytes()
    again = packed(sets, tmp_path / "again", megabytes=budget)
    assert again == small and {p.name for p in (tmp_path / "again" / "photos").iterdir()} == {
        p.name for p in (tmp_path / "half" / "photos").iterdir()
    }


def test_a_pack_refuses_a_full_folder_and_too_small_a_budget(sets, tmp_path):
    packed(sets, tmp_path / "one")
    with pytest.raises(SRKitError, match="is not empty"):
        packed(sets, tmp_path / "one")
    with pytest.raises(SRKitError, match="raise --megabytes"):
        packed(sets, tmp_path / "two", megabytes=0.01)


@pytest.fixture(scope="module")
def options(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    packed(sets, folder / "pack")
    names = ("srcnn915-x2", "superresnet-x2", "superresnet-multi-x4", "srcnn-perceptual-x3")
    return course.Options(
        folder / "pack", "quick", minutes=10, networks=names, vgg16="random", frozen="random", out=folder / "out"
    )


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Networks as they are, in a hundredth of a hundredth of their steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(course.PART, "quick", 1e-4)
        patch.setattr(course, "HELD_OUT", 3)
        patch.setattr(pack, "FEWEST", 10)
        yield


@pytest.mark.slow
def test_a_course_trains_goes_on_and_publishes(options, capsys):
    stopped = course.Course(options)
    first = stopped.trainer("srcnn915-x2", stopped.plan["steps"]["srcnn915-x2"], options.out / "srcnn915-x2")
    next(first)
    first.save()
    trainers = course.Course(options).train()
    assert list(trainers) == ["srcnn915-x2", "srcnn-perceptual-x3", "superresnet-x2", "superresnet-multi-x4"]
    said = capsys.readouterr()
    assert "srcnn915-x2: step 1 of" in said.err and "srcnn-perceptual-x3: step 0 of" in said.err
    plan = json.loads((options.out / "plan.json").read_text())
    assert {name: trainer.step_number for name, trainer in trainers.items()} == plan["steps"]
    folder = options.out / "weights"
    assert trained.names(folder) == sorted(trainers)
    for name, trainer in trainers.items():
        card, model = trained.card(name, folder), trained.load(name, folder)
        assert card["steps"] == plan["steps"][name] and set(card["measured"]) == set(card["bicubic"])
        low = torch.rand(1, 3, 24, 24)
        wanted, got = trainer.result(low), model(low)
        pairs = [(wanted, got)] if isinstance(wanted, torch.Tensor) else zip(wanted, got, strict=True)
        assert all(torch.allclose(a, b, atol=2e-3) for a, b in pairs)  # half precision
    weights = trained.card("srcnn-perceptual-x3", folder)["loss"]
    assert weights["mse"] == 1 and weights["relu1_2"] > 0 and weights["relu2_2"] > 0
    facts = {"networks": {name: trained.card(name, folder) for name in trainers}}
    assert len(course.table(facts).splitlines()) == 2 + len(trainers)


def test_a_plan_fits_the_minutes(options, monkeypatch, tmp_path):
    monkeypatch.setattr(course.Course, "seconds_per_step", lambda self, name: 1.0)
    monkeypatch.setitem(course.PART, "quick", 0.01)
    generous = course.Course(replace(options, out=tmp_path / "generous", minutes=1000)).plan
    assert generous["steps"]["srcnn915-x2"] == 120 and generous["part of the steps"] == 1
    tight = course.Course(replace(options, out=tmp_path / "tight", minutes=2)).plan
    assert sum(tight["steps"].values()) == pytest.approx(120 * (1 - course.RESERVE), abs=4)
    with pytest.raises(SRKitError, match="is a plan for quick, 2 minutes"):
        _ = course.Course(replace(options, out=tmp_path / "tight", minutes=3)).plan
    with pytest.raises(SRKitError, match="name another --out"):
        _ = course.Course(replace(options, out=tmp_path / "tight", minutes=2, networks=("srcnn-x2",))).plan


def test_what_a_course_refuses(options, tmp_path):
    with pytest.raises(SRKitError, match="did you mean 'srcnn915-x3'"):
        course.Course(replace(options, networks=("srcnn915x3",)))
    with pytest.raises(SRKitError, match="is no pack"):
        course.Course(replace(options, pack=tmp_path))
    alone = course.Course(replace(options, networks=("srgan-small-x4",), vgg19="random", out=tmp_path / "gan"))
    with pytest.raises(SRKitError, match="was never trained"):  # its generator was never trained
        alone.trainer("srgan-small-x4", 10, tmp_path / "gan")
