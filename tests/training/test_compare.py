"""compare: one low for all networks, trainings that are resumed, costs, and what is missing said by name."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from conftest import photograph

from srkit import cli, metrics, models
from srkit.data import ImageDataset, images
from srkit.data.images import degrade, resize
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError
from srkit.training import TrainConfig, Trainer, compare

SMALL = TrainConfig(steps=2, batch_size=2, patch_size=48, loss={"psnr": 1.0}, warmup=0, val_freq=1, log_freq=1,
                    feature_weights="random", device="cpu", precision="fp32")  # fmt: skip


@pytest.fixture
def pictures() -> ImageDataset:
    return ImageDataset([photograph(48, 48, seed).mul(255).byte() for seed in range(4)])


def test_a_network_with_the_mid_output_alone_gets_the_same_low(pictures):
    half = compare.HalvedDataset(pictures)
    for mine, theirs in [
        (half.batch(3, 4, 24, 2, seed=1), pictures.batch(3, 4, 48, 4, seed=1)),
        (next(iter(half.pairs(2, 4))), next(iter(pictures.pairs(4, 4)))),
    ]:
        assert torch.equal(mine.low, theirs.low) and torch.equal(mine.high, degrade(theirs.high, 2))
    assert half.fingerprint != pictures.fingerprint, "srkit resume would go on with another low"
    assert pictures.batch(0, 1, 24, 2).low.shape[-1] == 12, "the dataset itself stays as it was"


def test_all_are_measured_on_one_low(pictures):
    mid = compare.measure(models.create("bicubic", 2), pictures)[2].rows[1]
    high = pictures[1][1]
    by_hand = metrics.psnr(resize(degrade(high, 4), scale=2), degrade(high, 2), border=2)
    assert (mid.psnr, mid.width) == (pytest.approx(by_hand.item()), 24)
    both = compare.make("superresnet-multi+skip", SMALL)  # untrained it is bilinear, at both sizes
    tables = compare.measure(both, pictures)
    for scale in (2, 4):
        bilinear = compare.measure(models.create("bilinear", scale), pictures)[scale]
        assert tables[scale].psnr == pytest.approx(bilinear.psnr, abs=1e-6)


@pytest.mark.slow
def test_compare_trains_measures_and_is_resumed(pictures, tmp_path, capsys):
    names = ["superresnet", "superresnet-multi", "superresnet-vgg+skip"]
    first, again = (compare.compare(names, pictures, pictures, SMALL, tmp_path) for _ in range(2))
    single, multi, skip = first.results.values()
    assert (multi.trainable, multi.frozen, multi.receptive_field) == (39_110, 0, (6, 7))
    assert (skip.frozen, skip.trainer.model.skip) == (260_160, True)
    assert [*single.tables] == [2] and [*multi.tables] == [2, 4]
    assert len(single.losses(2)) == 2 and single.losses(4) == [] and len(multi.losses(4)) == 2
    assert multi.epoch_seconds == pytest.approx(multi.trainer.seconds)  # 2 steps of 2 show 4 pictures
    # The very same patches: before anything is learnt, the two agree on the mid output.
    assert single.trainer.history.rows[0]["psnr"] == pytest.approx(multi.trainer.history.rows[0]["x2/psnr"], rel=1e-5)
    assert "step 2 of 2" in capsys.readouterr().out
    shas = [[weights_sha256(r.trainer.result.state_dict()) for r in both.results.values()] for both in (first, again)]
    assert shas[0] == shas[1]
    table = [line for line in str(again).splitlines() if line.startswith("|")]
    assert len(table) == 6 and {line.count("|") for line in table} == {14} and "vgg+skip" in table[5]
    assert "random weights" in str(again) and list(again.results) == names


def test_measuring_a_step_changes_nothing_and_frozen_networks_keep_less(pictures):
    def memory(model, **changes):
        return compare.step_memory(Trainer(model, pictures, replace(SMALL, **changes)))

    plain, frozen, free = (compare.make(f"superresnet-{name}", SMALL) for name in ("multi", "vgg", "vgg"))
    before = weights_sha256(plain.state_dict())
    small = memory(plain)
    assert weights_sha256(plain.state_dict()) == before and all(p.grad is None for p in plain.parameters())
    assert memory(plain, batch_size=4) == pytest.approx(2 * small, rel=0.01)
    free.frozen.extractor.requires_grad_(True)
    assert small < memory(frozen) < memory(free)


def test_clip_without_its_weights_or_timm_is_left_out_by_name(tiny_clip, monkeypatch, capsys):
    assert compare.available(TrainConfig(feature_weights="random")) == [
        n for n in compare.SIX if n != "superresnet-clip"
    ]
    assert "superresnet-clip is left out: an untrained CLIP" in capsys.readouterr().out
    assert compare.make("superresnet-clip", SMALL).embed  # by its name it can be had
    monkeypatch.setitem(sys.modules, "timm", None)  # an import of it fails
    with pytest.raises(SRKitError, match="pip install timm"):
        compare.make("superresnet-clip", SMALL)


def test_without_a_network_those_whose_weights_are_not_here_are_left_out_by_name(monkeypatch, capsys, tmp_path):
    def refuse(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert compare.available() == [name for name in compare.SIX if name not in ("superresnet-vgg", "superresnet-clip")]
    left_out = [line for line in capsys.readouterr().out.splitlines() if "is left out" in line]
    assert len(left_out) == 2 and "superresnet-vgg is left out: vgg16" in left_out[0]
    for name in "abc":
        images.write(photograph(48, 48, ord(name)), tmp_path / "photos" / f"{name}.png")
    words = ["compare", "--data", str(tmp_path / "photos"), "--train", "2", "--val", "1", "--size", "48"]
    words += ["--steps", "1", "--batch-size", "2", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "superresnet-vgg is left out" in told and "| residual" in told and "| vgg" not in told
    assert cli.main(["compare", "superresnet-vgg", *words[1:]]) == 2  # named, it is missing


@pytest.mark.parametrize(
    ("names", "patch_size"), [([], 48), (["srcnn"], 48), (["superresnet-mutli"], 48), (["superresnet-multi"], 46)]
)
def test_what_cannot_be_compared(names, patch_size, pictures, tmp_path):
    with pytest.raises(SRKitError):
        compare.compare(names, pictures, pictures, replace(SMALL, patch_size=patch_size), tmp_path)
