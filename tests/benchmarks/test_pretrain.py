"""benchmarks.pack, pretrain and measure: a folder within its budget; networks trained, published and measured anew."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import measure, pack, pretrain
from srkit import models
from srkit.data.images import write
from srkit.models import pretrained
from srkit.settings import SRKitError


@pytest.fixture(scope="module", autouse=True)
def few():
    """Networks as they are, in a hundredth of a hundredth of their steps, and small packs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pretrain.PART, "quick", 1e-4)
        patch.setattr(pretrain, "HELD_OUT", 3)
        patch.setattr(pack, "FEWEST", 10)
        yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three folders of noise: photographs, large enough and not, T91 and Set5."""
    folder = tmp_path_factory.mktemp("sets")
    generator = torch.Generator().manual_seed(0)
    for name, count, side in (("photos", 20, 288), ("t91", 3, 96), ("set5", 2, 96)):
        for number in range(count):
            soft = torch.rand(3, side // 8, side // 8, generator=generator)
            write(soft.repeat_interleave(8, 1).repeat_interleave(8, 2), folder / name / f"{number:02}.png")
    write(torch.rand(3, 200, 300, generator=generator), folder / "photos" / "too_small.png")
    return folder


def packed(sets, target, **changes):
    names = {name: str(sets / name) for name in ("photos", "t91", "set5")}
    return pack.pack(replace(pack.Options(pack=target, **names, title="noise"), **changes))


@pytest.fixture(scope="module")
def options(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretraining")
    packed(sets, folder / "pack")
    return pretrain.Options(
        pack=folder / "pack",
        profile="quick",
        minutes=10,
        networks=("srcnn915-x2", "superresnet-x2", "superresnet-vgg-x4", "srcnn-perceptual-x3"),
        vgg16="random",
        out=folder / "out",
    )


def test_a_pack_keeps_its_budget_and_copies_files_as_they_are(sets, tmp_path):
    facts = packed(sets, tmp_path / "all")
    assert facts["photos"]["files"] == 20  # not the one that is too small
    budget = sum(part["megabytes"] for part in facts.values()) * 0.8
    small = packed(sets, tmp_path / "some", megabytes=budget)
    assert 10 <= small["photos"]["files"] < 20
    assert sum(path.stat().st_size for path in (tmp_path / "some").rglob("*.png")) <= budget * 1e6
    chosen = {path.name: path.read_bytes() for path in (tmp_path / "some" / "photos").iterdir()}
    assert all(content == (sets / "photos" / name).read_bytes() for name, content in chosen.items())
    packed(sets, tmp_path / "again", megabytes=budget)
    assert {path.name for path in (tmp_path / "again" / "photos").iterdir()} == set(chosen)
    with pytest.raises(SRKitError):
        packed(sets, tmp_path / "all")  # it is not empty
    with pytest.raises(SRKitError):
        packed(sets, tmp_path / "none", megabytes=0.01)


def test_a_plan_fits_the_minutes(options, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrain.Pretraining, "seconds_per_step", lambda self, name: 1.0)
    monkeypatch.setitem(pretrain.PART, "quick", 0.01)
    generous = pretrain.Pretraining(replace(options, out=tmp_path / "generous", minutes=1000)).plan
    assert generous["steps"]["srcnn915-x2"] == 120 and generous["part of the steps"] == 1
    tight = replace(options, out=tmp_path / "tight", minutes=2)
    assert sum(pretrain.Pretraining(tight).plan["steps"].values()) == pytest.approx(120 * 0.85, abs=4)
    for changes in ({"minutes": 3}, {"networks": ("srcnn-x2",)}):  # another plan lies there
        with pytest.raises(SRKitError):
            _ = pretrain.Pretraining(replace(tight, **changes)).plan


def test_what_a_pretraining_refuses(options, tmp_path):
    with pytest.raises(SRKitError, match="did you mean 'srcnn915-x3'"):
        pretrain.Pretraining(replace(options, networks=("srcnn915x3",)))
    with pytest.raises(SRKitError):
        pretrain.Pretraining(replace(options, pack=tmp_path))
    alone = replace(options, networks=("srgan-small-x4",), vgg19="random", out=tmp_path / "gan")
    with pytest.raises(SRKitError):  # its generator was never trained
        pretrain.Pretraining(alone).trainer("srgan-small-x4", 10, tmp_path / "gan")


@pytest.mark.slow
def test_a_pretraining_goes_on_publishes_and_is_measured_anew(options):
    stopped = pretrain.Pretraining(options)
    plan = stopped.plan["steps"]
    first = stopped.trainer("srcnn915-x2", plan["srcnn915-x2"], options.out / "srcnn915-x2")
    next(first)
    first.save()
    first.release()
    facts, text = pretrain.run(options)
    cards, folder = facts["networks"], options.out / "weights"
    assert set(cards) == set(options.networks) == set(pretrained.names(folder))
    assert {name: card["steps"] for name, card in cards.items()} == plan
    assert len(text.splitlines()) == 2 + len(cards)
    weights = cards["srcnn-perceptual-x3"]["loss"]
    assert weights["mse"] == 1 and weights["relu1_2"] > 0 and weights["relu2_2"] > 0
    assert cards["superresnet-vgg-x4"]["features"] == "small VGG, distilled weights"
    trained, low = models.load(options.out / "srcnn915-x2" / "last.pt"), torch.rand(1, 3, 24, 24)
    assert torch.allclose(trained(low), models.load(folder / "srcnn915-x2.safetensors")(low), atol=2e-3)

    wrong = json.loads((folder / "srcnn915-x2.json").read_text())
    right = wrong["measured"]["Set5"]["psnr"]
    wrong["measured"]["Set5"]["psnr"] = 1.0
    (folder / "srcnn915-x2.json").write_text(json.dumps(wrong))
    measure.run(measure.Options(pack=options.pack, weights=folder, write=True))
    again = pretrained.card("srcnn915-x2", folder)
    assert again["measured"]["Set5"]["psnr"] == pytest.approx(right, abs=1e-6)
