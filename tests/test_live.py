"""live: moves reach the running training, are recorded, and can be replayed; a thread's failure is never lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import photograph

from srkit import live, models
from srkit.errors import SRKitError
from srkit.losses import PerceptualLoss, WeightedLoss
from srkit.training import TrainConfig, Trainer, checkpoint
from srkit.training.checkpoint import weights_sha256

SETTINGS = {"steps": 400, "batch_size": 2, "crop": 16, "log_freq": 5, "device": "cpu", "ema": 0.9}


@pytest.fixture
def make(bank):
    runs = []

    def make(out=None, weights=None, **changes):
        torch.manual_seed(0)
        model = models.create("srcnn", scale=2, channels=(8, 8))
        loss = WeightedLoss(weights or {"mse": 1, "l1": 0})
        trainer = Trainer(model, bank, TrainConfig(**{**SETTINGS, **changes}), loss, out=out)
        runs.append(live.Run(trainer, photograph(40, 52)))
        return runs[-1]

    yield make
    for run in runs:
        run.stop()
        assert run.wait(30)


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def test_a_move_reaches_the_training_and_is_recorded(make):
    run = make(steps=10**6)
    run.start()
    until(lambda: run.step >= 3)
    run.weights.set(l1=0.5, learning_rate=2e-3)
    until(lambda: len(run.history.moves()) == 2)
    step = run.step
    until(lambda: run.step > step + 10)
    run.stop()
    assert run.wait(30) and run.state == "stopped"
    moves = run.history.moves()
    assert {(m.term, m.old, m.new) for m in moves} == {("l1", 0, 0.5), ("learning_rate", 1e-3, 2e-3)}
    assert moves[0].step >= 3 and run.trainer.loss.weights == {"mse": 1, "l1": 0.5}
    steps, values = run.history.series("weighted/l1")
    assert steps[0] > moves[0].step and all(value > 0 for value in values)
    assert run.trainer.optimizer.param_groups[0]["lr"] > 1e-3 * min(1, run.step / 100)


def test_pause_freezes_and_resume_goes_on(make):
    run = make(steps=10**6)
    run.start()
    until(lambda: run.step >= 2)
    run.pause()
    with run.between_steps():
        pass
    with run.between_steps() as trainer:
        frozen, weights = run.step, weights_sha256(trainer.model.state_dict())
    time.sleep(0.1)
    assert run.state == "paused" and run.step == frozen
    assert weights_sha256(run.trainer.model.state_dict()) == weights
    assert not run.wait(0.01)
    run.resume()
    until(lambda: run.step > frozen)


def test_it_ends_by_itself_and_shows_the_last_picture(make):
    run = make(steps=7)
    run.start()
    assert run.wait(30) and run.state == "finished" and run.step == 7
    assert run.preview.step == 7 and run.preview.output.shape == (3, 40, 52) and 5 < run.preview.psnr < 60
    assert run.pictures_per_second > 0
    run.start()
    assert run.state == "finished"


def test_stopped_it_is_saved_and_can_go_on(make, tmp_path):
    run = make(tmp_path / "run", steps=10**6)
    run.start()
    until(lambda: run.step >= 3)
    run.stop()
    assert run.wait(30) and (tmp_path / "run" / "last.pt").exists()
    step = run.step
    run.start()
    until(lambda: run.step > step)


def test_replay_ends_in_the_same_weights(make):
    run = make(steps=40)
    run.weights.set(l1=0.1)  # before it begins is a move too
    run.start()
    for weight, step in ((0.7, 4), (0, 11)):
        until(lambda step=step: run.step >= step)
        run.weights.set(l1=weight, mse=1 + weight, learning_rate=1e-3 + weight * 1e-3)
    assert run.wait(60) and run.state == "finished"
    moves = run.history.moves()
    assert len(moves) == 7 and {move.term for move in moves} == {"l1", "mse", "learning_rate"}
    twin = live.replay(run)
    assert twin.step_number == 40 and twin.history.moves() == moves
    assert weights_sha256(twin.model.state_dict()) == weights_sha256(run.trainer.model.state_dict())
    assert weights_sha256(twin.result.state_dict()) == weights_sha256(run.trainer.result.state_dict())
    plain = Trainer(models.build(run.trainer.model.recipe), run.trainer.bank, run.trainer.config)
    plain.load_state({**run._beginning})
    plain.fit(progress=False)  # without the moves it comes out otherwise
    assert weights_sha256(plain.model.state_dict()) != weights_sha256(twin.model.state_dict())


def test_replay_of_perceptual_weights(bank):
    from srkit import features

    torch.manual_seed(0)
    loss = WeightedLoss({"mse": 1, "relu1_2": 0}, PerceptualLoss(features.VGG16(["relu1_2"], weights="random")))
    trainer = Trainer(models.create("srcnn", 2, channels=(8, 8)), bank, TrainConfig(**{**SETTINGS, "steps": 8}), loss)
    run = live.Run(trainer)
    run.start()
    until(lambda: run.step >= 2)
    run.weights.set(relu1_2=0.3)
    assert run.wait(60) and run.state == "finished", run.error
    assert weights_sha256(live.replay(run).model.state_dict()) == weights_sha256(trainer.model.state_dict())


def test_a_failure_is_kept_with_its_last_lines(make, tmp_path):
    run = make(steps=10**6)

    def burst(batch):
        raise ZeroDivisionError("a wire is loose")

    run.trainer.step = burst
    run.start()
    assert run.wait(30) and run.state == "failed"
    assert run.error.endswith("ZeroDivisionError: a wire is loose") and "burst" in run.error
    other = make(steps=10**6, learning_rate=1e30, warmup=0, log_freq=1)
    other.start()
    assert other.wait(60) and other.state == "failed"
    assert other.error.startswith("the loss is no longer a number") and "\n" not in other.error


def test_one_run_at_a_time(make):
    first = make(steps=10**6)
    first.start()
    until(lambda: first.step >= 1)
    make()
    assert first.state == "stopped" and first.wait(0)


def test_a_copy_of_the_model_beside_the_training(make):
    run = make(steps=10**6)
    run.start()
    until(lambda: run.step >= 2)
    copy = run.snapshot()
    before = weights_sha256(copy.state_dict())
    step = run.step
    until(lambda: run.step > step + 5)
    assert weights_sha256(copy.state_dict()) == before and not copy.training
    assert copy(torch.rand(1, 3, 8, 8)).shape == (1, 3, 16, 16)


def test_bad_weights_are_refused_and_change_nothing(make):
    run = make()
    before = run.weights.snapshot()
    for bad, message in (
        ({"l1": -1}, "0 or more"),
        ({"l1": float("nan")}, "0 or more"),
        ({"mse": 0}, "every loss weighs 0"),
        ({"l2": 1}, "did you mean 'l1'"),
        ({"learning_rate": 0}, "more than 0"),
    ):
        with pytest.raises(SRKitError, match=message):
            run.weights.set(**bad)
    assert run.weights.snapshot() == before
    with pytest.raises(SRKitError, match="not begun"):
        live.replay(run)


def test_out_of_memory_is_said_and_the_run_goes_on(make):
    run = make(steps=5, batch_size=4)
    forward = run.trainer.model.forward
    run.trainer.model.forward = lambda low: forward(low) if len(low) <= 2 else _too_much()
    run.start()
    assert run.wait(30) and run.state == "finished", run.error
    assert run.messages == ["out of memory: from step 1 on a batch goes through in 2 parts"]
    assert run.history.moves() == [(0, "parts", 1, 2)]


def _too_much():
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


def test_a_run_that_goes_on_when_python_ends_is_saved(tmp_path):
    script = f"""
import torch
from srkit import live, models
from srkit.banks import Bank
from srkit.training import TrainConfig, Trainer
bank = Bank([torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8)])
config = TrainConfig(steps=10**6, batch_size=1, crop=16, device="cpu")
run = live.Run(Trainer(models.create("srcnn", 2, channels=(8, 8)), bank, config, out={str(tmp_path / "run")!r}))
run.start()
while run.step < 2: pass
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] >= 2


def test_the_thread_is_gone_at_the_end(make):
    run = make(steps=3)
    run.start()
    run.wait(30)
    assert not [thread for thread in threading.enumerate() if thread.name == "srkit-run" and thread is run._thread]
