"""Every line that a GPU would run, run on a stand-in for one, which refuses to mix devices and counts the waits.

Where there is a real GPU the same tests run on it, but for the count of waits.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from conftest import photograph

from cuda import fake_cuda
from srkit import inference, live, losses, metrics, models
from srkit.data import ImageDataset, load_dataset
from srkit.data.degradation import Camera, PhotoDegradation
from srkit.data.images import write
from srkit.models.features import load_features
from srkit.settings import Setup, Student, choose_device, current_profile
from srkit.training import (
    FineTuner,
    GANConfig,
    GANTrainer,
    TrainConfig,
    Trainer,
    TuningConfig,
    TuningTrainer,
    compare,
    resume,
    tuning,
)
from srkit.training.gatys import Gatys, gatys_loss
from srkit.training.hyper import HYPERS

SMALL = {"batch_size": 2, "patch_size": 32, "warmup": 2, "log_freq": 4, "val_freq": 4, "save_freq": 4}
SMALL |= {"device": "cuda", "feature_weights": "random"}
PERCEPTUAL = {"loss": {"mse": 1.0, "relu1_2": 0.1}}


@pytest.fixture(autouse=True)
def cuda():
    """A Tesla T4: capability 7.5, so fp16 with a scaler."""
    with contextlib.nullcontext() if torch.cuda.is_available() else fake_cuda.stand_in():
        yield


@pytest.fixture
def pictures(cuda) -> ImageDataset:
    return ImageDataset([photograph(48, 48, seed).mul(255).byte() for seed in range(4)], device="cuda")


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.create("srresnet", 2, channels=8, blocks=1, last_kernel=3)


def gan(pictures, out=None, **settings) -> GANTrainer:
    model = network()
    model.pretrained = True
    config = GANConfig(**{"steps": 8, "discriminator": 4, "features": "squeezenet", "content": ("fire2",), **SMALL,
                          **settings})  # fmt: skip
    return GANTrainer(model, pictures, config, validation=pictures, out=out)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("loss", [{}, PERCEPTUAL])
def test_training_and_resuming(loss, precision, tmp_path):
    for seed in range(4):
        write(photograph(48, 48, seed), tmp_path / "in" / f"{seed}.png")
    dataset, validation = (load_dataset(tmp_path / "in", split, val=1, device="cuda") for split in ("train", "val"))
    config = TrainConfig(steps=4, precision=precision, **SMALL, **loss)
    trainer = Trainer(network(), dataset, config, validation=validation, out=tmp_path / "out")
    trainer.fit(progress=False)
    assert next(trainer.result.parameters()).device.type == "cuda" and trainer.history.rows
    again = resume(tmp_path / "out" / "last.pt", steps=8, device="cuda")
    assert len(again.fit(progress=False).series("val/dB")[0]) == 2


@pytest.mark.parametrize(("free", "place"), [(2**30, "cuda"), (2**10, "cpu")])
def test_wherever_the_pictures_lie_batches_are_on_the_device(free, place, monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda *_: (free, free))
    held = ImageDataset([photograph(48, 48).mul(255).byte()], device="cuda")
    assert held.pictures[0].device.type == place
    batch = held.batch(0, 2, 24, 2)
    assert batch.low.device.type == batch.high.device.type == held[0][1].device.type == "cuda"
    warped = load_dataset("bundled", "test", size=64, warp=0.5, device="cuda")
    assert warped.batch(0, 2, 32, 2).high.device.type == "cuda"
    photo = load_dataset("bundled", "test", size=64, photo=0.5, device="cuda")
    assert all(pair.low.device.type == "cuda" for pair in (photo.batch(0, 2, 32, 2), *photo.pairs(2)))


def test_target_features_are_kept_on_the_device(pictures):
    config = TrainConfig(steps=6, augment=False, **{**SMALL, "patch_size": 48}, **PERCEPTUAL)
    trainer = Trainer(network(), pictures, config)
    trainer.fit(progress=False)
    assert trainer.targets is not None and trainer.targets.kept


def test_gan_and_its_replay(pictures, tmp_path):
    run = live.Run(gan(pictures, tmp_path), photograph(48, 48))
    run.weights.set(adversarial=1e-2)
    run.start()
    run.wait()
    assert not run.error and run.film.frames[-1].step == 8 and run.film.frames[-1].details.device.type == "cpu"
    run.snapshot()
    run.place("picture", 8, 8)
    assert not run.error and run.film.frames[-1].step == 8
    run.undo()
    run.start()
    run.wait()
    assert not run.error and run.step == 8
    assert live.replay(run).step_number == 8
    assert gan(pictures, tmp_path).restore().step_number == 8


def test_a_dashboards_click_films_frames_and_snapshots_anew(pictures, tmp_path):
    config = TrainConfig(steps=4, ema=0.9, **SMALL, **PERCEPTUAL)
    run = live.Run(Trainer(network(), pictures, config), photograph(128, 128), {"picture": (0, 0)})
    board = live.Dashboard(run, Setup("04", current_profile("quick"), choose_device(), Student(), tmp_path, tmp_path))
    first = board.keep()
    run.start()
    run.wait()
    board.refresh()
    run.film.frames.remove(first.frame)  # as one of a future that was left
    before = first.frame.details
    board.gallery.place("picture", 32, 32)
    board.refresh()
    assert not run.error and not board.failure and not torch.equal(first.frame.details, before)
    assert [frame.details.device.type for frame in (first.frame, *run.film.frames)] == ["cpu"] * (
        len(run.film.frames) + 1
    )


def test_fine_tuning_and_comparing(pictures, tmp_path):
    criterion = losses.WeightedLoss({"mse": 1.0, "relu1_2": 1.0}, losses.PerceptualLoss(
        load_features("vgg16", ["relu1_2"], "random")))  # fmt: skip
    config = TrainConfig(steps=4, **SMALL)
    FineTuner(network(), pictures, config, validation=pictures, criterion=criterion).fit(progress=False)
    config = TrainConfig(steps=2, **{**SMALL, "loss": {"psnr": 1.0}})
    compared = compare.compare(["superresnet", "superresnet-vgg"], pictures, pictures, config, tmp_path)
    assert len(compared.results) == 2


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic"])
def test_a_network_without_parameters_is_measured_where_the_features_are(kernel, pictures):
    loss = losses.WeightedLoss({"relu1_2": 1.0}, losses.PerceptualLoss(load_features("vgg16", ["relu1_2"], "random")))
    loss.perceptual[0].extractor.to("cuda")
    model = models.create(kernel, 2)
    on_the_cpu = [("one", photograph(48, 48))]
    for data in (pictures, on_the_cpu):
        assert metrics.evaluate(model, data, 2, loss).terms["relu1_2"] >= 0


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_tiles(precision):
    picture = photograph(70, 60)
    upscaler = inference.Upscaler(network(), tile=32, precision=precision, device="cuda")
    output = upscaler(picture)
    assert output.device.type == "cpu" and output.shape == (3, 140, 120)


# ---------------------------------------------------------------------------------- waits

RARE = {**SMALL, "log_freq": 100}
TRAINERS = {
    "mse": lambda pictures: Trainer(network(), pictures, TrainConfig(**RARE)),
    "perceptual": lambda pictures: Trainer(network(), pictures, TrainConfig(**RARE, **PERCEPTUAL)),
    "gan": lambda pictures: gan(pictures, log_freq=100),
    "photo": lambda pictures: Trainer(
        network(), ImageDataset(pictures.pictures, device="cuda", degradation=PhotoDegradation()), TrainConfig(**RARE)
    ),
}


def test_an_overflow_halves_a_gans_scale_once(pictures):
    trainer = gan(pictures, log_freq=100)
    next(trainer)
    before, scaled = trainer.scaler.get_scale(), trainer.scaler.scale
    trainer.scaler.scale = lambda loss: scaled(loss) * float("inf")  # both networks' gradients overflow
    weights = [parameter.clone() for parameter in trainer.model.parameters()]
    next(trainer)
    assert trainer.scaler.get_scale() == before / 2
    assert all(torch.equal(a, b) for a, b in zip(weights, trainer.model.parameters(), strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="only the stand-in counts")
@pytest.mark.parametrize("kind", TRAINERS)
def test_between_two_rows_of_the_history_nothing_waits_for_the_device(kind, pictures):
    trainer = TRAINERS[kind](pictures)
    trainer.validation = None
    next(trainer)  # the first step may set things up
    fake_cuda.waits.clear()
    for _ in range(3):
        next(trainer)
    assert sum(fake_cuda.waits.values()) == 0
    trainer.flush()
    assert sum(fake_cuda.waits.values()) == 1


def test_self_tuning_and_resuming(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "SILENT", 2)
    validation = ImageDataset([photograph(48, 48, 9).mul(255).byte()], device="cuda", degradation=Camera(1.0, 0.02))
    config = TuningConfig(steps=6, hyper_warmup=1, hyper_freq=2, **SMALL)
    options = {"hypers": HYPERS, "validation": validation, "out": tmp_path}
    trainer = TuningTrainer(network(), pictures, config, **options)
    before = trainer.values()
    trainer.fit(progress=False)
    assert not torch.equal(trainer.values(), before) and trainer.tuner.raw.device.type == "cpu"
    again = TuningTrainer(network(), pictures, config, **options)
    again.restore()
    assert again.step_number == 6 and torch.equal(again.tuner.raw, trainer.tuner.raw)


def test_gatys_and_its_replay(cuda):
    loss = gatys_loss(photograph(32, 32, 1), feature_weights="random", features="small-vgg")
    run = live.Run(Gatys(photograph(32, 40), loss, steps=2, device="cuda"), photograph(32, 40))
    run.start()
    run.wait()
    assert not run.error and run.trainer.model.pixels.device.type == "cuda"
    assert torch.equal(live.replay(run).picture, run.trainer.picture)


def test_tiles_with_clips_embedding(tiny_clip):
    model = models.create("superresnet-clip", feature_weights="random").to("cuda")
    low = photograph(20, 40)
    tiles, whole = (inference.Upscaler(model, tile=side)(low) for side in (16, 64))
    assert tiles.shape == (3, 80, 160) and (tiles - whole).abs().max() < 1e-4
