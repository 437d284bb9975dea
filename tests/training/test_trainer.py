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
from srkit.banks import Bank, open_bank
from srkit.errors import SRKitError
from srkit.images import write
from srkit.profiles import Student
from srkit.training import TrainConfig, Trainer, checkpoint, load_model
from srkit.training.engine import choose_precision, compiled, moving_average

SMALL = {"batch_size": 2, "crop": 24, "warmup": 3, "log_freq": 5, "val_freq": 10, "save_freq": 10, "device": "cpu"}


def trainer(bank, steps=20, out=None, validation=None, seed=0, **settings) -> Trainer:
    torch.manual_seed(seed)
    model = models.create("srcnn915", 2, channels=(16, 8))
    return Trainer(model, bank, TrainConfig(steps=steps, seed=seed, **{**SMALL, **settings}), None, validation, out)


def sha(trainer: Trainer) -> str:
    return checkpoint.weights_sha256(trainer.result.state_dict())


def test_training_beats_the_bicubic_it_starts_from():
    textured = [(photograph(48, 48, seed) > 0.5).byte() * 255 for seed in range(5)]
    bank = Bank(textured)
    subject = trainer(bank, steps=100, learning_rate=3e-3, validation=bank, val_freq=100, log_freq=1)
    before = models.create("bicubic", 2)
    start = sum((before(low) - high).square().mean() for low, high in bank.pairs(2)) / len(bank)
    history = subject.fit(progress=False)
    _, (validated,) = history.series("val/mse")
    assert validated < 0.9 * start
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
def test_n_and_n_more_steps_are_2n_steps_bit_for_bit(settings, bank, tmp_path):
    bank.recipe = {}
    whole = trainer(bank, 20, tmp_path / "whole", bank, **settings)
    whole.fit(progress=False)
    half = trainer(bank, 10, tmp_path / "half", bank, **settings)
    half.fit(progress=False)
    torch.rand(7)  # whatever else happens in between
    again = trainer(bank, 20, tmp_path / "again", bank, seed=0, **settings)
    again.load_state(checkpoint.load(tmp_path / "half" / "last.pt"))
    again.fit(progress=False)
    assert sha(again) == sha(whole) != sha(half)
    assert again.history.series("loss") == whole.history.series("loss")
    written = [json.loads(line)["step"] for line in (tmp_path / "again" / "history.jsonl").read_text().splitlines()]
    assert written == [row["step"] for row in whole.history.rows]


def test_resume_needs_nothing_but_the_file(tmp_path):
    for index in range(4):
        write(photograph(40, 40, index), tmp_path / "in" / f"{index}.png")
    bank, validation = (open_bank(tmp_path / "in", part, train=3, val=1) for part in ("train", "val"))
    whole = trainer(bank, 12, tmp_path / "whole", validation)
    whole.fit(progress=False)
    half = trainer(bank, 6, tmp_path / "half", validation)
    half.fit(progress=False)
    again = Trainer.resume(tmp_path / "half" / "last.pt", out=tmp_path / "again", steps=12)
    again.fit(progress=False)
    assert sha(again) == sha(whole) and len(again.validation) == 1
    slower = Trainer.resume(tmp_path / "half" / "last.pt", out=tmp_path / "slower", steps=7, learning_rate=1e-5)
    slower.fit(progress=False)
    assert slower.history.series("learning_rate")[1][-1] == 1e-5
    write(photograph(40, 40, 9), tmp_path / "in" / "0.png")
    write(photograph(40, 40, 8), tmp_path / "in" / "1.png")
    with pytest.raises(SRKitError, match="the pictures are not those"):
        Trainer.resume(tmp_path / "half" / "last.pt", steps=12)


def test_pick_up_trains_goes_on_or_finds_all_done(bank, tmp_path, capsys):
    whole = trainer(bank, 20, tmp_path / "whole")
    whole.pick_up().fit(progress=False)
    for steps in (10, 20, 20):
        subject = trainer(bank, steps, tmp_path / "parts")
        subject.pick_up().fit(progress=False)
    assert sha(subject) == sha(whole) and "going on from step 20 of 20" in capsys.readouterr().out
    other = trainer(bank, 20, tmp_path / "parts", learning_rate=1e-2).pick_up()
    assert other.step_number == 0 and "another training (learning_rate): starting anew" in capsys.readouterr().out
    with pytest.raises(SRKitError, match="no folder"):
        trainer(bank).pick_up()


def test_beginning_anew_in_a_used_folder_loses_nothing(bank, tmp_path, capsys):
    first = trainer(bank, 10, tmp_path)
    first.fit(progress=False)
    trainer(bank, 5, tmp_path, seed=1).fit(progress=False)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 5 and "is now in" in capsys.readouterr().out
    kept = tmp_path / "replaced"
    assert checkpoint.load(kept / "last.pt")["step"] == 10
    assert len((kept / "history.jsonl").read_text().splitlines()) == 2
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_checkpoints_last_previous_best_and_what_they_hold(bank, tmp_path):
    subject = trainer(bank, 30, tmp_path, bank, ema=0.9)
    subject.student = Student("Ada", "1815", "ada@example.org")
    subject.fit(progress=False)
    steps = {name: checkpoint.load(tmp_path / f"{name}.pt")["step"] for name in ("last", "previous")}
    assert steps == {"last": 30, "previous": 20}
    state = checkpoint.load(tmp_path / "last.pt")
    assert state["student"]["name"] == "Ada" and state["fingerprint"] == bank.fingerprint
    assert state["config"]["batch_size"] == 2 and state["history"] == subject.history.rows
    low = torch.rand(1, 3, 9, 9)
    loaded = load_model(tmp_path / "last.pt")(low)
    assert torch.allclose(loaded, subject.result(low), atol=1e-6)
    assert not torch.allclose(loaded, subject.model.eval()(low), atol=1e-5)  # the average, not the last
    measured = dict(zip(*subject.history.series("val/dB"), strict=True))
    assert checkpoint.load(tmp_path / "best.pt")["step"] == max(measured, key=measured.get)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "best.pt", "history.jsonl", "last.pt", "previous.pt"]  # fmt: skip


def test_iterator_yields_step_numbers_and_a_subclass_replaces_only_the_step(bank):
    class Counting(Trainer):
        def step(self, batch):
            return {"loss": batch.high.mean()}

    subject = Counting(
        models.create("srcnn", 2, channels=(4, 4)), bank, TrainConfig(steps=6, **{**SMALL, "log_freq": 2})
    )
    assert list(subject) == [1, 2, 3, 4, 5, 6] and subject.history.series("loss")[0] == [2, 4, 6]


def test_the_trainer_gets_the_random_crops_of_its_bank(bank):
    seen = []

    class Looking(Trainer):
        def step(self, batch):
            seen.append(batch)
            return {"loss": batch.high.mean()}

    list(Looking(models.create("srcnn", 2), bank, TrainConfig(steps=4, seed=3, **SMALL)))
    for step, (low, high) in enumerate(seen):
        expected = bank.batch(step, 2, 24, 2, seed=3)
        assert torch.equal(high, expected.high) and torch.equal(low, expected.low)


def test_epochs(bank):
    assert trainer(bank, num_epoch=3, batch_size=2).steps == 8  # 15 pictures, two at a time


def test_schedules(bank):
    def rates(steps, **settings):
        return [trainer(bank, 100, **{"warmup": 0, **settings}).learning_rate(step) for step in steps]

    assert rates((0, 99)) == [1, 1]
    assert rates((0, 50, 100), schedule="cosine") == pytest.approx([1, 0.5, 0])
    assert rates((0, 50), schedule="cosine", schedule_steps=50) == pytest.approx([1, 0])
    assert rates((0, 4, 9, 50), warmup=10) == pytest.approx([0.1, 0.5, 1, 1])


def test_average_moves_towards_the_current_weights():
    average = moving_average(0.9)
    old, new = torch.tensor(1.0), torch.tensor(0.0)
    assert average(old, new, torch.tensor(10_000)).item() == pytest.approx(0.9)  # keeps most of the old
    assert average(old, new, torch.tensor(0)).item() == pytest.approx(0.1)  # and forgets the start quickly


def test_nan_stops_and_keeps_the_last_good_checkpoint(bank, tmp_path):
    subject = trainer(bank, 40, tmp_path, save_freq=10, log_freq=5)
    step = subject.step

    def poisoned(batch):
        if subject.step_number == 23:
            with torch.no_grad():
                subject.model.reconstruct.bias.fill_(float("nan"))
        return step(batch)

    subject.step = poisoned
    with pytest.raises(SRKitError, match=r"no longer a number near step 25.*the last good checkpoint is .*last\.pt"):
        subject.fit(progress=False)
    state = checkpoint.load(tmp_path / "last.pt")
    assert state["step"] == 20 and all(value.isfinite().all() for value in state["model"].values())


def test_ctrl_c_finishes_the_step_saves_and_stops(bank, tmp_path):
    subject = trainer(bank, 100_000, tmp_path, save_freq=100_000)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    subject.fit(progress=False)
    assert subject.interrupted and 0 < subject.step_number < 100_000
    assert checkpoint.load(tmp_path / "last.pt")["step"] == subject.step_number
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


KILLED = """
import torch
from srkit import models
from srkit.banks import Bank
from srkit.training import TrainConfig, Trainer
bank = Bank([torch.zeros(3, 24, 24, dtype=torch.uint8)])
config = TrainConfig(steps=10**9, crop=8, batch_size=1, save_freq=1, log_freq=1, device="cpu", precision="fp32")
Trainer(models.create("srcnn", 2, channels=(4, 4)), bank, config, out={out!r}).fit(progress=False)
"""


def test_kill_9_while_saving_leaves_a_checkpoint_that_loads(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED.format(out=str(tmp_path))])
    deadline = time.monotonic() + 60
    while not (tmp_path / "previous.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert checkpoint.load(tmp_path / "last.pt")["step"] >= 2
    assert checkpoint.load(tmp_path / "previous.pt")["step"] >= 1


def test_bad_settings(bank):
    with pytest.raises(SRKitError, match="did you mean 'Adam'"):
        trainer(bank, optimizer="Adm")
    with pytest.raises(SRKitError, match="did you mean 'mse'"):
        trainer(bank, loss={"mes": 1})
    with pytest.raises(SRKitError, match="does not fit into"):
        trainer(bank, crop=60)
    with pytest.raises(SRKitError, match="learning rate"):
        trainer(bank, learning_rate=0)
    with pytest.raises(SRKitError, match="batch_size is 0"):
        trainer(bank, batch_size=0)
    with pytest.raises(SRKitError, match="ema is 1"):
        trainer(bank, ema=1)
    with pytest.raises(SRKitError, match="no folder to save to"):
        trainer(bank).save()
    if not torch.cuda.is_available():
        with pytest.raises(SRKitError, match="no cuda device"):
            trainer(bank, device="cuda")
        with pytest.raises(SRKitError, match="fp16 needs a CUDA GPU"):
            trainer(bank, precision="fp16")
    with pytest.raises(SRKitError, match="another model"):
        trainer(bank).load_state({**trainer(bank).state(), "model": models.create("srcnn").state_dict()})


def test_precision_is_fp32_where_the_device_has_no_better(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == "bf16"


def test_two_trainers_of_different_precision_in_one_process(bank):
    for precision in ("bf16", "fp32", "bf16"):
        subject = trainer(bank, 2, precision=precision)
        subject.fit(progress=False)
        assert subject.accelerator.mixed_precision == {"bf16": "bf16", "fp32": "no"}[precision]


def test_a_model_of_ones_own_trains_and_saves(bank, tmp_path):
    class Mine(torch.nn.Module):
        scale = 2

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 12, 3, padding=1)

        def forward(self, low):
            return torch.pixel_shuffle(self.layer(low), 2)

    subject = Trainer(Mine(), bank, TrainConfig(steps=3, **SMALL), out=tmp_path)
    subject.fit(progress=False)
    with pytest.raises(SRKitError, match="a model of your own"):
        load_model(tmp_path / "last.pt")
    Mine().load_state_dict(checkpoint.load(tmp_path / "last.pt")["ema"])


def test_tensorboard_beside_the_history(bank, tmp_path):
    pytest.importorskip("tensorboard")
    trainer(bank, 10, tmp_path, tensorboard=True).fit(progress=False)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_the_seed_decides(bank):
    shas = []
    for seed in (1, 1, 2):
        subject = trainer(bank, 3, seed=seed)
        subject.fit(progress=False)
        shas.append(sha(subject))
    assert shas[0] == shas[1] != shas[2]


# ---------------------------------------------------------------------------------- weights that move


def test_a_change_takes_effect_from_the_next_step_and_is_in_history_and_checkpoint(bank, tmp_path):
    subject = trainer(bank, steps=20, out=tmp_path / "a", loss={"mse": 1, "l1": 0}, ema=0)
    for step in subject:
        if step == 7:
            subject.change(l1=0.5, learning_rate=5e-4)
            subject.change(l1=0.5)  # the same again is no move
    assert subject.history.moves() == [(7, "l1", 0, 0.5), (7, "learning_rate", 1e-3, 5e-4)]
    assert subject.history.series("l1")[0] == [10, 15, 20]
    assert subject.history.series("mse")[0] == [5, 7, 10, 15, 20]  # no row mixes steps with and without l1
    assert "to/l1" not in subject.history.names()
    again = Trainer(subject.model, bank, subject.config, validation=None).load_state(
        checkpoint.load(tmp_path / "a" / "last.pt")
    )
    assert again.loss.weights == {"mse": 1, "l1": 0.5} and again.config.loss == {"mse": 1, "l1": 0}
    assert again.history.moves() == subject.history.moves()
    again.step_number, again.steps = 20, 21
    next(again)
    assert again.optimizer.param_groups[0]["lr"] == 5e-4


def test_resume_after_moves_is_bit_for_bit(bank, tmp_path):
    def train(steps, out, state=None):
        subject = trainer(bank, steps=steps, out=out, loss={"mse": 1, "l1": 0})
        if state:
            subject.load_state(state)
        for step in subject:
            if step == 5:
                subject.change(l1=0.5, learning_rate=5e-4)
        return subject

    whole = train(20, tmp_path / "whole")
    train(10, tmp_path / "half")
    rest = train(20, tmp_path / "rest", checkpoint.load(tmp_path / "half" / "last.pt"))
    assert sha(rest) == sha(whole)


def test_bad_changes_are_refused_and_change_nothing(bank):
    subject = trainer(bank, loss={"mse": 1, "l1": 0.1})
    for bad, message in (
        ({"l1": -1}, "0 or more"),
        ({"l1": 0, "mse": 0}, "every loss weighs 0"),
        ({"charbonnier": 1}, "unknown weight"),
        ({"learning_rate": float("nan")}, "more than 0"),
    ):
        with pytest.raises(SRKitError, match=message):
            subject.change(**bad)
    assert subject.loss.weights == {"mse": 1, "l1": 0.1} and not subject.history.rows


def test_with_perceptual_weights_of_zero_it_is_the_mse_run(bank):
    plain = trainer(bank, steps=5)
    zero = trainer(bank, steps=5, loss={"mse": 1, "relu1_2": 0, "relu2_2": 0}, feature_weights="random")
    plain.fit(progress=False), zero.fit(progress=False)
    assert sha(plain) == sha(zero) and zero.history.names() == plain.history.names()


def test_a_perceptual_training_resumes_from_its_file_alone(tmp_path):
    for seed in range(4):
        write(photograph(48, 48, seed), tmp_path / "pictures" / f"{seed}.png")
    settings = {"loss": {"mse": 1, "relu1_2": 0.1}, "feature_weights": "random", "ema": 0}
    bank = open_bank(tmp_path / "pictures", "all")
    whole = trainer(bank, steps=6, out=tmp_path / "whole", **settings)
    whole.fit(progress=False)
    half = trainer(bank, steps=3, out=tmp_path / "half", **settings)
    half.fit(progress=False)
    rest = Trainer.resume(tmp_path / "half" / "last.pt", steps=6)
    rest.fit(progress=False)
    assert sha(rest) == sha(whole) and rest.loss.note == "VGG-16, random weights"
    assert rest.history.series("relu1_2")[1][-1] > 0
    assert "relu1_2" in rest.loss.weights and Trainer.resume(tmp_path / "half" / "last.pt", loss={"mse": 2}).loss


def test_features_matter_for_picking_up_only_where_a_term_reads_them(bank, tmp_path, capsys):
    trainer(bank, steps=3, out=tmp_path / "mse").fit(progress=False)
    assert trainer(bank, steps=3, out=tmp_path / "mse", feature_weights="random").pick_up().step_number == 3
    seen = {"loss": {"mse": 1, "relu1_2": 0.1}, "feature_weights": "random"}
    trainer(bank, steps=3, out=tmp_path / "vgg", **seen).fit(progress=False)
    assert trainer(bank, steps=3, out=tmp_path / "vgg", **seen).pick_up().step_number == 3
    assert trainer(bank, steps=3, out=tmp_path / "vgg", **seen, features="vgg19").pick_up().step_number == 0
    assert "another training (features" in capsys.readouterr().out


def test_a_picture_too_small_for_the_network_is_said_before_training(bank):
    with pytest.raises(SRKitError, match="pixels"):
        trainer(bank, crop=8, loss={"relu5_3": 1}, feature_weights="random")


@pytest.mark.parametrize("size", [4, 5])
def test_a_batch_in_parts_has_the_same_gradient(size, bank):
    gradients = []
    for parts in (1, 2):
        subject = trainer(bank, batch_size=size, loss={"mse": 1, "psnr": 0.1}, precision="fp32")
        subject.parts = parts
        values = subject.in_parts(subject.backward, subject._batch())
        gradients.append([p.grad for p in subject.model.parameters()] + [values["loss"], values["psnr"]])
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-7)


def test_out_of_memory_halves_the_batch_and_goes_on(bank):
    whole, halved = (trainer(bank, steps=6, batch_size=4, precision="fp32") for _ in range(2))
    forward = halved.model.forward

    def narrow(low):
        if len(low) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: …")
        return forward(low)

    halved.model.forward, said = narrow, []
    halved.say = said.append
    whole.fit(progress=False), halved.fit(progress=False)
    assert halved.parts == 4 and len(said) == 2 and halved.history.moves() == [(0, "parts", 1, 2), (0, "parts", 2, 4)]
    for one, two in zip(whole.model.parameters(), halved.model.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-4)
    halved.model.forward = lambda low: narrow(torch.cat([low, low]))
    halved.steps = 7
    with pytest.raises(SRKitError, match="one picture at a time"):
        next(halved)


def test_an_older_trainer_keeps_its_precision(bank):
    first = trainer(bank, precision="bf16")
    trainer(bank, precision="fp32")
    with first.autocast():
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_nothing_is_compiled_where_it_does_not_pay(bank, choice):
    subject = trainer(bank, compile=choice)
    assert subject.network is subject.model


def test_what_is_compiled_keeps_its_names_and_takes_new_weights_of_the_loss(bank, monkeypatch):
    compilations = []

    def count(graph, _):
        compilations.append(graph)
        return graph

    monkeypatch.setenv("CXX", "c++")
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend=count))
    subject = trainer(bank, steps=3, compile="on", loss={"mse": 1.0, "l1": 0.1})
    plain = trainer(bank, steps=3, loss={"mse": 1.0, "l1": 0.1})
    for both in (subject, plain):
        next(both)
        both.change(mse=0.5)
        next(both)
        both.change(l1=0.0)
        next(both)
    assert len(compilations) == 1
    assert subject.state()["model"].keys() == plain.state()["model"].keys()
    assert sha(subject) == sha(plain)


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SRKitError, match="--compile off"):
        compiled(torch.nn.Identity(), "on")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SRKitError, match="Windows"):
        compiled(torch.nn.Identity(), "on")
