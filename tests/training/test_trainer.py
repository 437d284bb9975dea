"""Trainer: it learns, resumes bit for bit, and loses nothing when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import photograph

from srkit import models
from srkit.data import ImageDataset, load_dataset
from srkit.data.images import write
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError, Student
from srkit.training import TrainConfig, Trainer, checkpoint, optim, resume

SMALL = {"batch_size": 2, "patch_size": 24, "warmup": 3, "log_freq": 5, "val_freq": 10, "save_freq": 10}
SMALL |= {"device": "cpu"}


def trainer(dataset, steps=20, out=None, validation=None, seed=0, **settings) -> Trainer:
    torch.manual_seed(seed)
    model = models.create("srcnn915", 2, channels=(16, 8))
    return Trainer(model, dataset, TrainConfig(steps=steps, seed=seed, **{**SMALL, **settings}), None, validation, out)


def fitted(*args, **settings) -> Trainer:
    made = trainer(*args, **settings)
    made.fit(progress=False)
    return made


def sha(trainer: Trainer) -> str:
    return weights_sha256(trainer.result.state_dict())


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != ".")


def test_training_beats_the_bicubic_it_starts_from():
    textured = ImageDataset([(photograph(48, 48, seed) > 0.5).byte() * 255 for seed in range(5)])
    bicubic = models.create("bicubic", 2)
    start = sum((bicubic(low) - high).square().mean() for low, high in textured.pairs(2)) / len(textured)
    history = fitted(textured, 100, validation=textured, lr=3e-3, val_freq=100, log_freq=1).history
    assert history.series("val/mse")[1][-1] < 0.9 * start
    steps, values = history.series("mse")
    assert steps == list(range(1, 101)) and sum(values[-10:]) < sum(values[:10])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema": 0, "precision": "fp32", "optimizer": "SGD"},
        {"schedule": "cosine", "schedule_steps": 20, "clip": 0.1, "loss": {"mse": 1, "l1": 0.1}, "precision": "bf16"},
    ],
)
def test_n_and_n_more_steps_are_2n_steps_bit_for_bit(settings, dataset, tmp_path):
    whole = fitted(dataset, 20, tmp_path / "whole", dataset, **settings)
    half = fitted(dataset, 10, tmp_path / "half", dataset, **settings)
    torch.rand(7)  # whatever else happens in between
    again = trainer(dataset, 20, tmp_path / "again", dataset, **settings)
    again.load_state(checkpoint.load(tmp_path / "half" / "last.pt")).fit(progress=False)
    assert sha(again) == sha(whole) != sha(half)
    assert again.history.series("loss") == whole.history.series("loss")
    lines = (tmp_path / "again" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [row["step"] for row in whole.history.rows]


@pytest.fixture
def folder(tmp_path):
    for seed in range(4):
        write(photograph(48, 48, seed), tmp_path / "in" / f"{seed}.png")
    return tmp_path / "in"


def test_resume_needs_nothing_but_the_file(folder, tmp_path, capsys):
    dataset, validation = (load_dataset(folder, split, train=3, val=1) for split in ("train", "val"))
    whole = fitted(dataset, 12, tmp_path / "whole", validation)
    fitted(dataset, 6, tmp_path / "half", validation)
    last = tmp_path / "half" / "last.pt"
    again = resume(last, tmp_path / "again", steps=12)
    again.fit(progress=False)
    assert sha(again) == sha(whole) and len(again.validation) == 1 and "changed" not in capsys.readouterr().out
    slower = resume(last, tmp_path / "slower", steps=7, lr=1e-5)
    assert slower.fit(progress=False).series("lr")[1][-1] == 1e-5
    larger = resume(last, tmp_path / "larger", num_epoch=16, batch_size=3)
    assert larger.steps == 16 and "batch_size" in capsys.readouterr().out
    larger.fit(progress=False)
    write(photograph(48, 48, 9), folder / "0.png")
    write(photograph(48, 48, 8), folder / "1.png")
    with pytest.raises(SRKitError):
        resume(last, steps=12)


def test_a_perceptual_training_resumes_from_its_file_alone(folder, tmp_path):
    settings = {"loss": {"mse": 1, "relu1_2": 0.1}, "feature_weights": "random", "ema": 0}
    dataset = load_dataset(folder, "all")
    whole = fitted(dataset, 6, tmp_path / "whole", **settings)
    fitted(dataset, 3, tmp_path / "half", **settings)
    rest = resume(tmp_path / "half" / "last.pt", steps=6)
    rest.fit(progress=False)
    assert sha(rest) == sha(whole) and "random" in rest.loss.describe()
    assert rest.history.series("relu1_2")[1][-1] > 0


def test_fit_resume_trains_goes_on_or_finds_all_done(dataset, tmp_path, capsys):
    whole = fitted(dataset, 20, tmp_path / "whole")
    for steps in (10, 20, 20):
        subject = trainer(dataset, steps, tmp_path / "parts")
        subject.fit(resume=True, progress=False)
    assert sha(subject) == sha(whole) and "step 20 of 20" in capsys.readouterr().out
    other = trainer(dataset, 20, tmp_path / "parts", lr=1e-2)
    assert other.restore().step_number == 0 and "lr" in capsys.readouterr().out
    # Features matter only where a term reads them.
    assert trainer(dataset, 20, tmp_path / "parts", feature_weights="random").restore().step_number == 20
    settings = {"loss": {"mse": 1, "relu1_2": 0.1}, "feature_weights": "random"}
    fitted(dataset, 3, tmp_path / "vgg", **settings)
    assert trainer(dataset, 3, tmp_path / "vgg", **settings).restore().step_number == 3
    assert trainer(dataset, 3, tmp_path / "vgg", **settings, features="vgg19").restore().step_number == 0


def test_beginning_anew_in_a_used_folder_loses_nothing(dataset, tmp_path):
    for steps in (10, 5, 6, 7):
        fitted(dataset, steps, tmp_path)
    kept = [checkpoint.load(tmp_path / "replaced" / str(n) / "last.pt")["step"] for n in (1, 2, 3)]
    assert kept == [10, 5, 6] and checkpoint.load(tmp_path / "last.pt")["step"] == 7
    assert len((tmp_path / "replaced" / "1" / "history.jsonl").read_text().splitlines()) == 2


HELD = """
import sys, time
from pathlib import Path
from srkit.training.checkpoint import Folder
folder = Folder(Path(sys.argv[1]))
folder.claim()
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_in_which_another_process_trains_is_refused_and_left_as_it_is(dataset, tmp_path):
    fitted(dataset, 10, tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    other = subprocess.Popen([sys.executable, "-c", HELD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SRKitError, match=str(other.pid)):
            trainer(dataset, 20, tmp_path).fit(progress=False)
        assert (tmp_path / "last.pt").read_bytes() == before and not (tmp_path / "replaced").exists()
    finally:
        other.kill()
        other.wait()
    trainer(dataset, 20, tmp_path).fit(resume=True, progress=False)  # a killed process holds nothing


def test_checkpoints_last_previous_best_and_what_they_hold(dataset, tmp_path):
    subject = trainer(dataset, 30, tmp_path, dataset, ema=0.9)
    subject.student = Student("Ada", "1815", "ada@example.org")
    subject.fit(progress=False)
    assert [checkpoint.load(tmp_path / f"{name}.pt")["step"] for name in ("last", "previous")] == [30, 20]
    state = checkpoint.load(tmp_path / "last.pt")
    assert state["student"]["name"] == "Ada" and state["fingerprint"] == dataset.fingerprint
    assert state["config"]["batch_size"] == 2 and state["history"] == subject.history.rows
    low = torch.rand(1, 3, 9, 9)
    loaded = models.load(tmp_path / "last.pt")(low)
    assert torch.allclose(loaded, subject.result(low), atol=1e-6)
    assert not torch.allclose(loaded, subject.model.eval()(low), atol=1e-5)  # the average, not the last
    measured = dict(zip(*subject.history.series("val/dB"), strict=True))
    assert checkpoint.load(tmp_path / "best.pt")["step"] == max(measured, key=measured.__getitem__)
    assert files(tmp_path) == ["best.pt", "history.jsonl", "last.pt", "previous.pt"]


def test_a_subclass_replaces_only_the_step_and_gets_the_datasets_batches(dataset):
    seen = []

    class Counting(Trainer):
        def step(self, batch):
            seen.append(batch)
            return {"loss": batch.high.mean()}

    config = TrainConfig(steps=6, seed=3, **{**SMALL, "log_freq": 2})
    subject = Counting(models.create("srcnn", 2, channels=(4, 4)), dataset, config)
    assert list(subject) == [1, 2, 3, 4, 5, 6] and subject.history.series("loss")[0] == [2, 4, 6]
    for step, batch in enumerate(seen):
        assert torch.equal(batch.high, dataset.batch(step, 2, 24, 2, seed=3).high)


def test_steps_rates_and_averages(dataset):
    assert trainer(dataset, num_epoch=3, batch_size=2).steps == 8  # 15 pictures, two at a time

    def rates(steps, **settings):
        config = TrainConfig(**{"warmup": 0, **settings})
        return [optim.learning_rate(config, step, 100) for step in steps]

    assert rates((0, 99)) == [1, 1]
    assert rates((0, 50, 100), schedule="cosine") == pytest.approx([1, 0.5, 0])
    assert rates((0, 50), schedule="cosine", schedule_steps=50) == pytest.approx([1, 0])
    assert rates((0, 4, 9, 50), warmup=10) == pytest.approx([0.1, 0.5, 1, 1])
    old, new = torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)
    for step, kept in ((10_000, 0.9), (1, 2 / 11), (0, 0.0)):  # the start is soon forgotten
        torch.nn.init.ones_(old.weight), torch.nn.init.zeros_(new.weight)
        optim.moving_average(old, new, 0.9, step)
        assert old.weight.item() == pytest.approx(kept)


@pytest.mark.parametrize("poisoned_at", [23, 39])
def test_nan_stops_and_keeps_the_last_good_checkpoint(poisoned_at, dataset, tmp_path):
    subject = trainer(dataset, 40, tmp_path, save_freq=10, log_freq=5)
    update = subject.update

    def poisoned(optimizer, *rest):
        update(optimizer, *rest)
        if subject.step_number == poisoned_at:  # the last step's loss was a number still
            with torch.no_grad():
                subject.model.reconstruct.bias.fill_(float("nan"))

    subject.update = poisoned
    with pytest.raises(SRKitError, match=r"last\.pt"):
        subject.fit(progress=False)
    state = checkpoint.load(tmp_path / "last.pt")
    assert state["step"] == poisoned_at // 10 * 10 and all(value.isfinite().all() for value in state["model"].values())


def test_ctrl_c_finishes_the_step_saves_and_stops(dataset, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    subject = trainer(dataset, 100_000, tmp_path, save_freq=100_000)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    subject.fit(progress=False)
    assert subject.interrupted and 0 < subject.step_number < 100_000
    assert checkpoint.load(tmp_path / "last.pt")["step"] == subject.step_number
    assert signal.getsignal(signal.SIGINT) is before


KILLED = """
import sys
import torch
from srkit import models
from srkit.data import ImageDataset
from srkit.training import TrainConfig, Trainer
dataset = ImageDataset([torch.zeros(3, 24, 24, dtype=torch.uint8)])
config = TrainConfig(steps=10**9, patch_size=8, batch_size=1, save_freq=1, log_freq=1, device="cpu", precision="fp32")
Trainer(models.create("srcnn", 2, channels=(4, 4)), dataset, config, out=sys.argv[1]).fit(progress=False)
"""


@pytest.mark.slow
def test_kill_9_while_saving_leaves_a_checkpoint_that_loads(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "previous.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert checkpoint.load(tmp_path / "last.pt")["step"] >= 2
    assert checkpoint.load(tmp_path / "previous.pt")["step"] >= 1


@pytest.mark.parametrize(
    "bad",
    [
        {"optimizer": "Adm"},
        {"loss": {"mes": 1}},
        {"patch_size": 60},
        {"patch_size": 25},
        {"lr": 0},
        {"batch_size": 0},
        {"ema": 1},
        {"device": "cuda"},
        {"precision": "fp16"},
        {"patch_size": 8, "loss": {"relu5_3": 1}, "feature_weights": "random"},
    ],
)
def test_bad_settings_are_refused_before_anything_is_trained(bad, dataset):
    if torch.cuda.is_available() and bad in ({"device": "cuda"},):
        pytest.skip("this machine has a CUDA GPU")
    with pytest.raises(SRKitError):
        trainer(dataset, **bad)


def test_what_cannot_be_saved_or_loaded(dataset):
    with pytest.raises(SRKitError):
        trainer(dataset).save()
    with pytest.raises(SRKitError):
        trainer(dataset).fit(resume=True)
    with pytest.raises(SRKitError):
        trainer(dataset).load_state({**trainer(dataset).state(), "model": models.create("srcnn").state_dict()})


def test_trainers_of_different_precision_in_one_process_keep_theirs(dataset):
    subjects = [trainer(dataset, 2, precision=precision) for precision in ("bf16", "fp32")]
    for subject, enabled in zip(subjects, (True, False), strict=True):
        with subject.autocast():
            assert torch.is_autocast_enabled("cpu") == enabled


def test_a_model_of_ones_own_trains_and_saves(dataset, tmp_path):
    class Mine(torch.nn.Module):
        scale = 2

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, low):
            return torch.pixel_shuffle(self.layer(low), 2)

    Trainer(Mine(), dataset, TrainConfig(steps=3, **SMALL), out=tmp_path).fit(progress=False)
    with pytest.raises(SRKitError):
        models.load(tmp_path / "last.pt")
    Mine().load_state_dict(checkpoint.load(tmp_path / "last.pt")["ema"])


def test_the_seed_decides(dataset):
    shas = [sha(fitted(dataset, 3, seed=seed)) for seed in (1, 1, 2)]
    assert shas[0] == shas[1] != shas[2]


# ---------------------------------------------------------------------------------- settings that move


def test_a_change_takes_effect_from_the_next_step_and_is_in_history_and_checkpoint(dataset, tmp_path):
    subject = trainer(dataset, 20, tmp_path / "a", loss={"mse": 1, "l1": 0}, ema=0)
    for step in subject:
        if step == 7:
            subject.change(l1=0.5, lr=5e-4)
            subject.change(l1=0.5)  # the same again is no move
    assert subject.history.moves == [(7, "l1", 0, 0.5), (7, "lr", 1e-3, 5e-4)]
    assert subject.history.series("l1")[0] == [10, 15, 20]
    assert subject.history.series("mse")[0] == [5, 7, 10, 15, 20]  # no row mixes steps with and without l1
    again = trainer(dataset, 21, loss={"mse": 1, "l1": 0}, ema=0)
    again.load_state(checkpoint.load(tmp_path / "a" / "last.pt"))
    assert again.loss.weights == {"mse": 1, "l1": 0.5} and again.config.loss == {"mse": 1, "l1": 0}
    assert again.history.moves == subject.history.moves
    next(again)
    assert again.optimizer.param_groups[0]["lr"] == 5e-4


def test_resume_after_moves_is_bit_for_bit(dataset, tmp_path):
    def train(steps, out, state=None):
        subject = trainer(dataset, steps, out, loss={"mse": 1, "l1": 0})
        if state:
            subject.load_state(state)
        for step in subject:
            if step == 5:
                subject.change(l1=0.5, lr=5e-4)
        return subject

    whole = train(20, tmp_path / "whole")
    train(10, tmp_path / "half")
    rest = train(20, tmp_path / "rest", checkpoint.load(tmp_path / "half" / "last.pt"))
    assert sha(rest) == sha(whole) and rest.history.moves == whole.history.moves


@pytest.mark.parametrize("bad", [{"l1": -1}, {"l1": 0, "mse": 0}, {"charbonnier": 1}, {"lr": float("nan")}])
def test_bad_changes_are_refused_and_change_nothing(bad, dataset):
    subject = trainer(dataset, loss={"mse": 1, "l1": 0.1})
    with pytest.raises(SRKitError):
        subject.change(**bad)
    assert subject.loss.weights == {"mse": 1, "l1": 0.1} and not subject.history.moves


def test_with_perceptual_weights_of_zero_it_is_the_mse_run(dataset):
    zero = fitted(dataset, 5, loss={"mse": 1, "relu1_2": 0, "relu2_2": 0}, feature_weights="random")
    plain = fitted(dataset, 5)
    assert sha(plain) == sha(zero) and zero.history.names() == plain.history.names()


# ---------------------------------------------------------------------------------- memory and devices


@pytest.mark.parametrize("size", [4, 5])
def test_accumulation_has_the_gradient_of_the_whole_batch(size, dataset):
    gradients = []
    for count in (1, 2):
        subject = trainer(dataset, batch_size=size, loss={"mse": 1, "psnr": 0.1}, precision="fp32")
        subject.settings["accumulate"] = count
        values = subject.accumulate(subject.optimizer, subject.backward, subject.batch())
        gradients.append([p.grad for p in subject.model.parameters()] + [values["loss"], values["psnr"]])
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: …"), MemoryError()])
def test_out_of_memory_accumulates_and_goes_on(error, dataset):
    whole, narrow = (trainer(dataset, 6, batch_size=4, precision="fp32") for _ in range(2))
    forward, said = narrow.model.forward, []

    def limited(low):
        if len(low) > 1:
            raise error
        return forward(low)

    narrow.model.forward, narrow.log = limited, said.append
    whole.fit(progress=False), narrow.fit(progress=False)
    assert len(said) == 2 and narrow.history.moves == [(0, "accumulate", 1, 2), (0, "accumulate", 2, 4)]
    for one, two in zip(whole.model.parameters(), narrow.model.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-4)
    narrow.model.forward = lambda low: limited(torch.cat([low, low]))
    narrow.steps = 7
    with pytest.raises(SRKitError):
        next(narrow)


def test_what_is_compiled_keeps_its_names_and_takes_new_weights_of_the_loss(dataset, monkeypatch):
    compilations = []

    def count(graph, _):
        compilations.append(graph)
        return graph

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend=count))
    subjects = [trainer(dataset, 3, compile=choice, loss={"mse": 1.0, "l1": 0.1}) for choice in (True, False)]
    for subject in subjects:
        next(subject)
        subject.change(mse=0.5)
        next(subject)
        subject.change(l1=0.0)
        next(subject)
    assert len(compilations) == 1 and subjects[0].state()["model"].keys() == subjects[1].state()["model"].keys()
    assert sha(subjects[0]) == sha(subjects[1])
