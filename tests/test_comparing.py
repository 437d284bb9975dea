"""comparing: one low for all networks, trainings that are picked up, costs, and what is missing said by name."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from conftest import photograph

from srkit import comparing, metrics, models
from srkit.banks import Bank
from srkit.errors import SRKitError
from srkit.images import degrade, resize
from srkit.training import TrainConfig, Trainer
from srkit.upscaling import upscale

SMALL = TrainConfig(steps=4, batch_size=2, crop=48, loss={"psnr": 1.0}, warmup=0, val_freq=2, log_freq=1,
                    feature_weights="random", device="cpu", precision="fp32")  # fmt: skip


@pytest.fixture
def pictures() -> Bank:
    return Bank([photograph(64, 64, seed).mul(255).byte() for seed in range(4)])


def sha(trainer: Trainer) -> float:
    return sum(float(p.detach().double().abs().sum()) for p in trainer.result.parameters())


def test_a_network_with_the_mid_output_alone_gets_the_same_low(pictures):
    half = comparing.Halved(pictures)
    for mine, theirs in [
        (half.batch(3, 4, 24, 2, seed=1), pictures.batch(3, 4, 48, 4, seed=1)),
        (next(iter(half.pairs(2, 4))), next(iter(pictures.pairs(4, 4)))),
    ]:
        assert torch.equal(mine.low, theirs.low)
        assert torch.equal(mine.high, degrade(theirs.high, 2))
    assert half.fingerprint != pictures.fingerprint, "srkit resume would go on with another low"
    assert pictures.batch(0, 1, 24, 2).low.shape[-1] == 12, "the bank itself stays as it was"


def test_all_are_measured_on_one_low(pictures):
    large = comparing.measure(models.create("bicubic", 4), pictures)[4]
    assert large.psnr == pytest.approx(metrics.evaluate(models.create("bicubic", 4), pictures, 4).psnr)
    mid = comparing.measure(models.create("bicubic", 2), pictures)[2].rows[1]
    high = pictures[1][1]
    by_hand = metrics.psnr(resize(degrade(high, 4), scale=2), degrade(high, 2), border=2)
    assert (mid.psnr, mid.width) == (pytest.approx(by_hand.item()), 32)
    both = comparing.make("superresnet-multi+skip", SMALL)  # untrained it is bilinear, at both sizes
    tables = comparing.measure(both, pictures)
    for scale in (2, 4):
        bilinear = comparing.measure(models.create("bilinear", scale), pictures)[scale]
        assert tables[scale].psnr == pytest.approx(bilinear.psnr, abs=1e-6)


def test_compare_trains_measures_and_is_picked_up(pictures, tmp_path, capsys):
    names = ["superresnet", "superresnet-multi", "superresnet-vgg+skip"]
    first = comparing.compare(names, pictures, pictures, SMALL, tmp_path / "out")
    assert list(first.results) == names
    single, multi, skip = first.results.values()
    assert (multi.trainable, multi.frozen, multi.receptive_field) == (39_110, 0, (6, 7))
    assert (skip.frozen, skip.trainer.model.skip) == (260_160, True)
    assert [*single.tables] == [2] and [*multi.tables] == [2, 4]
    assert len(single.losses(2)) == 2 and single.losses(4) == [] and len(multi.losses(4)) == 2
    assert single.losses(2)[-1] == pytest.approx(1 / 12, rel=0.5)  # of an untrained network: 1/dB
    assert multi.epoch_seconds == pytest.approx(multi.trainer.seconds / 4 * 2)  # 4 pictures, 2 in a step
    # The very same crops: before anything is learnt, the two agree on the mid output.
    assert single.trainer.history.rows[0]["psnr"] == pytest.approx(multi.trainer.history.rows[0]["x2/psnr"], rel=1e-5)

    again = comparing.compare(names, pictures, pictures, SMALL, tmp_path / "out")
    assert "going on from step 4 of 4" in capsys.readouterr().out
    assert [sha(r.trainer) for r in again.results.values()] == [sha(r.trainer) for r in first.results.values()]
    assert len(again.results["superresnet-multi"].losses(4)) == 2
    titles, bicubic, *rows = again.rows()
    assert len(titles) == len(bicubic) == len(rows[0]) == 13 and rows[2][0] == "vgg+skip"
    assert "random weights" in str(again) and "random weights" in again._repr_markdown_()


def test_measuring_a_step_changes_nothing(pictures, tmp_path):
    trainer = Trainer(comparing.make("superresnet-residual", SMALL), pictures, SMALL)
    before = sha(trainer)
    small = comparing.step_memory(trainer)
    assert sha(trainer) == before and all(p.grad is None for p in trainer.model.parameters())
    trainer.config = replace(SMALL, batch_size=4)
    assert comparing.step_memory(trainer) == pytest.approx(2 * small, rel=0.01)


def test_a_frozen_network_keeps_less_than_a_trained_one(pictures):
    def memory(model):
        return comparing.step_memory(Trainer(model, pictures, SMALL))

    plain, frozen, free = (comparing.make(f"superresnet-{name}", SMALL) for name in ("multi", "vgg", "vgg"))
    free.frozen.extractor.requires_grad_(True)
    assert memory(plain) < memory(frozen) < memory(free)


def test_sizes_that_do_not_divide(pictures):
    model = comparing.make("superresnet-multi", SMALL)
    assert upscale(model, photograph(73, 73)).shape == (3, 292, 292)  # inference: any size
    assert upscale(model, photograph(73, 73), 2).shape == (3, 146, 146)
    for name in ("superresnet", "superresnet-multi"):
        with pytest.raises(SRKitError, match="does not divide by scale 4: try 4"):
            comparing.compare([name], pictures, pictures, replace(SMALL, crop=46), "nowhere")
    with pytest.raises(SRKitError, match="73 x 73 does not divide by 4"):
        degrade(photograph(73, 73), 4)


def test_without_timm_only_clip_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(comparing.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "timm", None)  # an import of it fails
    assert comparing.available() == [name for name in comparing.SIX if name != "superresnet-clip"]
    assert "superresnet-clip is left out" in capsys.readouterr().out
    with pytest.raises(SRKitError, match=r"pip install timm"):
        comparing.make("superresnet-clip", SMALL)


@pytest.mark.parametrize("name", ["srcnn", "superresnet-mutli", "bicubic"])
def test_unknown_networks(name):
    with pytest.raises(SRKitError, match="unknown network"):
        comparing.make(name, SMALL)


def test_nothing_to_compare(pictures, tmp_path):
    with pytest.raises(SRKitError, match="at least one"):
        comparing.compare([], pictures, pictures, SMALL, tmp_path)
