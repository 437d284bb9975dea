"""live.Run: moves reach the running training, are recorded, and can be replayed; a thread's end is never lost."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import photograph

from srkit import live, models
from srkit.data.images import degrade
from srkit.live import film
from srkit.live.film import kept_state
from srkit.losses import WeightedLoss
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError
from srkit.training import FineTuner, TrainConfig, Trainer, checkpoint
from srkit.training.history import Move

SETTINGS = {"steps": 10**6, "batch_size": 2, "patch_size": 16, "log_freq": 5, "device": "cpu", "ema": 0.9}


def srcnn():
    torch.manual_seed(0)
    return models.create("srcnn", scale=2, channels=(8, 8))


@pytest.fixture
def make(dataset):
    runs = []

    def make(out=None, **changes):
        config = TrainConfig(**{**SETTINGS, **changes})
        runs.append(live.Run(Trainer(srcnn(), dataset, config, WeightedLoss({"mse": 1, "l1": 0}), out=out),
                             photograph(40, 52)))  # fmt: skip
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


def sha(model):
    return weights_sha256(model.state_dict())


def test_a_move_reaches_the_training_and_is_recorded(make):
    run = make()
    run.start()
    until(lambda: run.step >= 3)
    run.weights.set(l1=0.5, lr=2e-3)
    until(lambda: len(run.history.moves) == 2)
    step = run.step
    until(lambda: run.step > step + 10)
    run.stop()
    assert run.wait(30) and run.state == "stopped"
    moves = run.history.moves
    assert {(m.name, m.old, m.new) for m in moves} == {("l1", 0, 0.5), ("lr", 1e-3, 2e-3)} and moves[0].step >= 3
    steps, values = run.history.series("weighted/l1")
    assert steps[0] > moves[0].step and all(value > 0 for value in values)


def test_pause_freezes_and_resume_goes_on(make):
    run = make()
    run.start()
    until(lambda: run.step >= 2)
    run.pause()
    with run.between_steps() as trainer, run.between_steps():  # one guest may come twice
        frozen, weights = run.step, sha(trainer.model)
    time.sleep(0.1)
    assert run.state == "paused" and run.step == frozen and sha(run.trainer.model) == weights
    assert not run.wait(0.01)
    run.start()
    until(lambda: run.step > frozen)


def test_it_ends_by_itself_and_films_the_last_picture(make):
    run = make(steps=7)
    (first,) = run.film.frames
    run.start()
    assert run.wait(30) and run.state == "finished" and run.step == 7
    last = run.film.frames[-1]
    assert first.step == 0 and last.step == 7 and last.details.shape == (1, 3, 40, 40) and last.psnr != first.psnr
    run.start()
    assert run.state == "finished" and run.wait(0)
    assert not [thread for thread in threading.enumerate() if thread.name == "srkit-run"]


def test_stopped_it_is_saved_lets_others_in_and_can_go_on(make, tmp_path):
    run = make(tmp_path / "run")
    run.start()
    run.stop()  # before the first step: there is nothing to save
    assert run.wait(30) and (run.step or not (tmp_path / "run" / "last.pt").exists())
    run.start()
    until(lambda: run.step >= 3)
    run.stop()
    assert run.wait(30) and checkpoint.load(tmp_path / "run" / "last.pt")["step"] == run.step
    again = make(tmp_path / "run")  # a cell that is run again
    again.start()
    until(lambda: again.step >= 3 or again.error)
    assert again.state == "running", again.error
    again.stop()
    step = again.step
    again.start()
    until(lambda: again.step > step)


def test_starting_and_stopping_from_many_threads_leaves_one_thread_and_a_true_state(make):
    run = make()
    generator = random.Random(0)

    def meddle():
        for _ in range(40):
            generator.choice([run.start, run.stop, run.pause])()
            time.sleep(generator.random() / 500)

    meddlers = [threading.Thread(target=meddle) for _ in range(4)]
    for thread in meddlers:
        thread.start()
    for thread in meddlers:
        thread.join()
    run.start()
    step = run.step
    until(lambda: run.step > step)
    assert run.state == "running" and [t.name for t in threading.enumerate()].count("srkit-run") == 1
    run.stop()
    assert run.wait(30) and run.state == "stopped" and not run.error


def test_replay_ends_in_the_same_weights(make):
    run = make(steps=40)
    with pytest.raises(SRKitError, match="not begun"):
        live.replay(run)
    run.weights.set(l1=0.1)  # before it begins is a move too
    run.start()
    for weight, step in ((0.7, 4), (0, 11)):
        until(lambda step=step: run.step >= step)
        run.weights.set(l1=weight, mse=1 + weight, lr=1e-3 + weight * 1e-3)
    assert run.wait(60) and run.state == "finished"
    twin = live.replay(run)
    assert twin.step_number == 40 and twin.history.moves == run.history.moves and twin.out is None
    assert {move.name for move in twin.history.moves} == {"l1", "mse", "lr"}
    assert sha(twin.model) == sha(run.trainer.model) and sha(twin.result) == sha(run.trainer.result)


def test_a_fine_tuner_is_replayed_too(dataset):  # and a GAN, which is tested with the GAN
    config = TrainConfig(**{**SETTINGS, "steps": 40, "val_freq": 2, "lr": 1e-3})
    loss = WeightedLoss({"mse": 1, "l1": 0})
    trainer = FineTuner(srcnn(), dataset, config, loss, validation=dataset, criterion=loss, patience=2)
    run = live.Run(trainer, photograph(48, 48))
    run.start()
    until(lambda: run.step >= 3 or run.error)
    run.weights.set(l1=0.3)
    assert run.wait(60) and run.state == "finished", run.error
    twin = live.replay(run)
    assert type(twin) is FineTuner and sha(twin.result) == sha(trainer.result)
    assert [move.name for move in run.history.moves] == ["l1"] and twin.history.moves == run.history.moves


def test_a_nan_is_a_failure_of_one_line(make):
    run = make(lr=1e30, warmup=0, log_freq=1)
    run.start()
    assert run.wait(60) and run.state == "failed" and "no longer a number" in run.error and "\n" not in run.error


@pytest.mark.parametrize("end", [ZeroDivisionError, SystemExit, KeyboardInterrupt, StopIteration])
def test_a_thread_that_ends_otherwise_is_failed_too(make, end, tmp_path):
    run = make(tmp_path / "run")

    def leave(batch):
        raise end

    run.trainer.step = leave
    run.start()
    assert run.wait(30) and run.state == "failed" and end.__name__ in run.error
    assert run.trainer._lock is None


def test_one_run_at_a_time_and_a_copy_of_its_model(make):
    first = make()
    first.start()
    until(lambda: first.step >= 2)
    copy, step = first.snapshot(), first.step
    before = sha(copy)
    until(lambda: first.step > step + 5)
    make()
    assert first.state == "stopped" and first.wait(0)
    assert sha(copy) == before != sha(first.trainer.result) and not copy.training


def test_bad_weights_are_refused_and_change_nothing(make):
    run = make()
    before = run.weights.snapshot()
    for bad in ({"l1": -1}, {"l1": float("nan")}, {"mse": 0}, {"l2": 1}, {"lr": 0}):
        with pytest.raises(SRKitError):
            run.weights.set(**bad)
    assert run.weights.snapshot() == before


def test_out_of_memory_is_said_and_the_run_goes_on(make):
    run = make(steps=5, batch_size=4)
    forward = run.trainer.model.forward

    def small_only(low):
        if len(low) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return forward(low)

    run.trainer.model.forward = small_only
    run.start()
    assert run.wait(30) and run.state == "finished", run.error
    assert len(run.messages) == 1 and "out of memory" in run.messages[0]
    assert run.history.moves == [(0, "accumulate", 1, 2)]


@pytest.mark.slow
def test_a_run_that_goes_on_when_python_ends_is_saved(tmp_path):
    script = f"""
import torch
from srkit import live, models
from srkit.data import ImageDataset
from srkit.training import TrainConfig, Trainer
dataset = ImageDataset([torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8)])
config = TrainConfig(steps=10**6, batch_size=1, patch_size=16, device="cpu")
run = live.Run(Trainer(models.create("srcnn", 2, channels=(8, 8)), dataset, config, out={str(tmp_path / "run")!r}))
run.start()
while run.step < 2: pass
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] >= 2


def test_back_to_a_frame_is_as_if_the_rest_had_not_been_and_leaves_a_ghost(make):
    run, straight = make(steps=40), make(steps=40)
    straight.start()
    assert straight.wait(30)
    run.plan = {11: {"l1": 0.5}, 23: {"lr": 0.1}}
    run.start()
    assert run.wait(30) and len(run.history.moves) == 2
    frame = next(one for one in run.film.frames if one.step == 11 and one.marked)
    assert frame.weights["l1"] == 0 and frame.state is not None
    run.go_back(frame)
    assert (run.step, run.state) == (11, "stopped") and run.weights.snapshot() == {"mse": 1, "l1": 0, "lr": 1e-3}
    assert run.film.frames[-1] is frame and run.film.ghost[-1].step == 40 and run.history.moves == []
    run.start()
    assert run.wait(30) and run.state == "finished"
    assert sha(run.trainer.model) == sha(straight.trainer.model)
    assert [row["step"] for row in run.history.rows] == [row["step"] for row in straight.history.rows]
    with pytest.raises(SRKitError, match="not of this"):
        run.go_back(straight.film.frames[0])


def test_undo_takes_back_the_last_move_and_more_steps_can_be_had(make):
    run = make(steps=20)
    with pytest.raises(SRKitError, match="no move"):
        run.undo()
    run.plan = {5: {"l1": 0.5}, 12: {"l1": 2.0}}
    run.start()
    assert run.wait(30)
    run.extend(15)
    assert run.state == "stopped" and run.trainer.steps == 35
    run.start()
    assert run.wait(30) and run.step == 35
    run.undo()
    assert run.step == 12 and run.weights.snapshot()["l1"] == 0.5
    run.undo()
    assert run.step == 5 and run.weights.snapshot()["l1"] == 0


def test_moves_of_one_slider_that_follow_closely_are_undone_together(make):
    run = make(steps=30)
    run.plan = {5: {"lr": 2e-4}, 10: {"l1": 0.1}, 12: {"l1": 0.2}, 13: {"l1": 0.3}}
    run.start()
    assert run.wait(30)
    run.undo()
    assert run.step == 10 and run.weights.snapshot()["l1"] == 0 and run.weights.snapshot()["lr"] == 2e-4
    run.undo()
    assert run.step == 5 and run.weights.snapshot()["lr"] != 2e-4


def test_a_preset_is_undone_by_itself(make):
    run = make(steps=30)
    run.plan = {10: {"l1": 0.1, "lr": 2e-4}, 12: {"lr": 1e-4}}
    run.start()
    assert run.wait(30)
    run.undo()
    assert run.step == 12 and run.weights.snapshot()["l1"] == 0.1 and run.weights.snapshot()["lr"] == 2e-4
    run.undo()
    assert run.step == 10 and run.weights.snapshot()["l1"] == 0


def test_every_term_is_measured_on_the_same_pixels_and_nothing_is_learnt_from_it(make):
    run = make(steps=30)
    quiet = make(steps=30)
    quiet.film = None
    for one in (run, quiet):
        one.start()
        assert one.wait(30)
    assert sha(run.trainer.model) == sha(quiet.trainer.model)
    last = run.film.frames[-1]
    assert set(last.terms) == {"mse", "l1"} == set(run.film.bicubic.terms)  # one of them weighs 0
    assert last.loss == {"mse": 1, "l1": 0} == last.pull
    shown, high = last.details.float() / 255, run.film.high
    assert last.terms["l1"] == pytest.approx((shown - high).abs().mean().item(), abs=4e-3)
    assert run.film.take(run.trainer.result, run.trainer.loss, 30).terms == last.terms


def test_after_a_move_its_picture_is_seen_before_it_is_measured(make, monkeypatch):
    run, seen = make(steps=30), []
    run.plan = {7: {"l1": 0.5}}
    measure = film.Film.measure

    def slow(self, frame, loss):
        seen.append((frame.step, self.latest.step, self.latest.psnr, dict(self.latest.terms)))
        measure(self, frame, loss)

    monkeypatch.setattr(film.Film, "measure", slow)
    run.start()
    assert run.wait(30) and run.film.latest is None
    before, after = (next(one for one in run.film.frames if one.step == step) for step in (7, 8))
    assert [one[:2] for one in seen if one[0] in (7, 8)] in ([(7, 8), (8, 8)], [(7, 7), (8, 8)])  # or filmed anyhow
    assert all(psnr > 0 and terms == {} for step, _, psnr, terms in seen if step in (7, 8))  # the last may come twice
    assert before.marked and before.loss["l1"] == 0 and before.weights["l1"] == 0  # by the weights of then
    assert after.loss["l1"] > 0 and set(before.terms) == set(after.terms) == {"mse", "l1"}


def test_before_a_move_that_ends_it_there_is_a_way_back(make, monkeypatch):
    run = make(steps=30)
    run.plan = {7: {"l1": 0.5}}
    monkeypatch.setattr(type(run.trainer), "__next__", failing_from(7, type(run.trainer).__next__))
    run.start()
    assert run.wait(30) and run.state == "failed" and "disk" in run.error
    last = run.film.frames[-1]
    assert (last.step, last.marked) == (7, True) and last.terms
    run.go_back(last)
    assert run.state == "stopped"


def failing_from(step, advance):
    def fail(trainer):
        if trainer.step_number >= step:
            raise SRKitError("the disk is full")
        return advance(trainer)

    return fail


def test_a_long_film_is_thinned_and_its_marks_stay(make):
    run = make()
    frame = run.film.frames[0]
    run.film.frames.clear()
    for step in range(3 * film.FRAMES):
        marked = step % 100 == 50
        run.film.add(film.Frame(step, 30.0, frame.terms, 0.0, frame.details, state=frame.state, marked=marked))
    steps = [one.step for one in run.film.frames]
    assert len(steps) <= film.FRAMES and steps == sorted(steps) and steps[-1] == 3 * film.FRAMES - 1
    assert {*range(50, 3 * film.FRAMES, 100)} <= {*steps}


def test_checkpoints_of_frames_stay_in_bounds(make, monkeypatch):
    run = make()
    monkeypatch.setattr(film, "STATES", 6 * film._bytes(run.film.frames[0].state))
    frame = run.film.frames[0]
    for step in range(1, 40):
        state = kept_state(run.trainer.state())
        run.film.add(film.Frame(step, 30.0, frame.terms, 0.0, frame.details, state=state, marked=step == 7))
    assert {0, 7, 39} < {one.step for one in run.film.frames if one.state} and sum(
        one.state is not None for one in run.film.frames
    ) <= 7


def test_the_film_outlives_the_session(make, tmp_path):
    run = make(tmp_path / "run", steps=30)
    run.start()
    assert run.wait(30)
    run.trainer.save()
    steps = [frame.step for frame in run.film.frames]
    trainer = run.trainer.fresh(out=tmp_path / "run").restore()
    again = live.Run(trainer, photograph(40, 52))
    assert [frame.step for frame in again.film.frames] == steps
    other = live.Run(trainer, photograph(44, 44))  # another picture: its own film
    assert [frame.step for frame in other.film.frames] == [30]
    (tmp_path / "run" / "film.pt").write_bytes(b"spoilt")
    assert len(live.Run(trainer, photograph(40, 52)).film.frames) == 1


def test_another_detail_is_filmed_anew(make):
    run = make(steps=30)
    run.film = film.Film({"picture": photograph(150, 180)}, 2, {"picture": (0, 0)})
    run.film.bicubic = run.film.compare(run.trainer.model, run.trainer.loss)
    run._take_frame(run.film)
    run.start()
    assert run.wait(30)
    steps, old = [frame.step for frame in run.film.frames], run.film.frames[-1].details
    run.place("picture", 1000, 31)
    assert run.film.places == {"picture": (84, 30)} and [frame.step for frame in run.film.frames] == steps
    new, high = run.film.frames[-1], run.film.pictures["picture"]
    assert not torch.equal(new.details, old) and torch.equal(run.film.high[0], high[:, 30:126, 84:180])
    whole = run.trainer.result(degrade(high, 2)[None])[0].clamp(0, 1)  # a rim of the input is seen with the detail
    assert (whole[:, 30:126, 84:180] - new.details[0] / 255).abs().max() < 1 / 255


def test_a_run_goes_on_where_a_killed_one_was_saved(make, tmp_path):
    first = make(tmp_path / "run", steps=40)
    first.weights.set(l1=0.5)
    first.start()
    until(lambda: first.step >= 9)
    first.pause()
    with first.between_steps() as trainer:  # as a kill leaves it: nothing is saved now, the last checkpoint stands
        saved = checkpoint.load(tmp_path / "run" / "last.pt")["step"]
        trainer.out, trainer.history.path = None, None
        trainer.release()
    again = make(tmp_path / "run", steps=40)
    assert again.step == saved == trainer.save_freq * (saved // trainer.save_freq) > 0
    assert f"going on from step {saved} of 40" in again.messages[0] and again.film.frames[-1].step == saved
    assert again.weights.snapshot()["l1"] == 0.5 and again.history.moves == first.history.moves
    again.start()
    assert again.wait(30) and again.state == "finished" and again.step == 40, again.error
    assert sha(live.replay(again).model) == sha(again.trainer.model)


def test_a_finished_run_is_shown_in_a_new_kernel_and_begun_anew_in_its_own(make, tmp_path, monkeypatch):
    first = make(tmp_path / "run", steps=12)
    first.start()
    assert first.wait(30) and first.state == "finished", first.error
    monkeypatch.setattr("srkit.live.run._current", None)  # a new kernel
    again = make(tmp_path / "run", steps=12)
    assert again.state == "finished" and again.step == 12 and sha(again.trainer.model) == sha(first.trainer.model)
    assert make(tmp_path / "run", steps=12).step == 0  # the cell is run again where it has finished
    monkeypatch.setattr("srkit.live.run._current", None)
    run = live.Run(make(tmp_path / "run", steps=12).trainer.fresh(out=tmp_path / "run"), resume=False)
    assert run.step == 0 and run.state == "ready"


def test_a_move_that_no_step_has_seen_is_taken_back_and_nothing_else(make):
    run = make(steps=20)
    run.plan = {5: {"l1": 0.5}}
    run.start()
    assert run.wait(30)
    run.weights.set(l1=9.0)
    run.undo()
    assert run.step == 20 and run.weights.snapshot()["l1"] == 0.5
    run.trainer.history.add_move(Move(20, "accumulate", 1, 2))  # as after memory ran out: nobody's hand
    run.undo()
    assert run.step == 5


def test_a_run_of_a_damaged_checkpoint_does_not_stand_in_the_next_ones_way(make, tmp_path):
    run = make(tmp_path / "run", steps=10)
    run.start()
    assert run.wait(30)
    run.trainer.save()
    live.Run(run.trainer.fresh())  # another one, so that this cell is not run again
    (tmp_path / "run" / "last.pt").write_bytes(b"spoilt")
    with pytest.raises(SRKitError):
        make(tmp_path / "run", steps=10)
    assert make(tmp_path / "new", steps=10).state == "ready"


def test_another_picture_of_the_same_size_has_a_film_of_its_own(make, tmp_path):
    run = make(tmp_path / "run", steps=20)
    run.start()
    assert run.wait(30)
    run.trainer.save()
    trainer = run.trainer.fresh(out=tmp_path / "run").restore()
    assert len(live.Run(trainer, photograph(40, 52, seed=5), {"picture": (0, 0)}).film.frames) == 1


def test_outputs_weighed_one_by_one_are_filmed(dataset):
    torch.manual_seed(0)
    config = TrainConfig(**{**SETTINGS, "steps": 3, "patch_size": 24, "loss": {"x4/mse": 1.0, "x2/l1": 0.5}})
    run = live.Run(Trainer(models.create("superresnet-multi", channels=4), dataset, config), photograph(48, 48))
    run.start()
    assert run.wait(60) and run.state == "finished", run.error
    assert {"x4/mse", "x2/l1"} <= {*run.film.frames[-1].terms}


def test_a_weight_has_the_share_of_the_outputs_for_which_it_holds(dataset):
    torch.manual_seed(0)
    config = TrainConfig(**{**SETTINGS, "steps": 1, "patch_size": 24, "loss": {"mse": 1.0, "x2/mse": 0.5, "l1": 0.0}})
    run = live.Run(Trainer(models.create("superresnet-multi", channels=4), dataset, config), photograph(48, 48))
    (frame,) = run.film.frames
    weighted = {"mse": frame.terms["x4/mse"], "x2/mse": 0.5 * frame.terms["x2/mse"], "l1": 0.0}
    expected = {name: value / sum(weighted.values()) for name, value in weighted.items()}
    assert frame.loss == pytest.approx(expected) and frame.pull.keys() == frame.loss.keys()
    assert sum(frame.pull.values()) == pytest.approx(1)


def test_what_failed_keeps_its_film_and_leaves_the_folder_to_others_between_two_steps(make, tmp_path):
    run = make(tmp_path / "run")
    step, released = run.trainer.step, []

    def fail(batch):
        if run.step == 12:
            raise ZeroDivisionError
        return step(batch)

    def release(of=run.trainer.release):
        released.append(run._step_lock._is_owned())
        of()

    run.trainer.step, run.trainer.release = fail, release
    run.start()
    assert run.wait(30) and run.state == "failed" and released == [True]
    kept = torch.load(tmp_path / "run" / "film.pt", weights_only=True)
    assert [row["step"] for row in kept["rows"]] == [frame.step for frame in run.film.frames]


@pytest.mark.parametrize("step", [0, 11])
def test_after_a_way_back_the_folder_holds_this_future(make, tmp_path, monkeypatch, step):
    run = make(tmp_path / "run", steps=40)
    run.plan = {11: {"l1": 0.5}}
    run.start()
    assert run.wait(30) and checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 40
    run.go_back(next(frame for frame in run.film.frames if frame.step == step))
    assert run.trainer._lock is None  # nobody trains
    monkeypatch.setattr("srkit.live.run._current", None)  # the kernel is killed, and another one begun
    again = make(tmp_path / "run", steps=40)
    assert again.step == step and again.history.moves == [] and again.film.frames[-1].step == step
    other = tmp_path / "run" / ("previous.pt" if step else "replaced/1/last.pt")
    assert checkpoint.load(other)["step"] == 40


def test_a_way_back_while_it_trains_keeps_the_folder(make, tmp_path):
    run = make(tmp_path / "run")
    run.start()
    until(lambda: run.step > 20)
    run.go_back(run.film.frames[0])
    assert run.trainer._lock is not None
    until(lambda: run.step > 20)
    assert run.state == "running", run.error


def test_another_detail_keeps_what_was_trained_then(make):
    run = make(steps=30)
    run.film = film.Film({"picture": photograph(150, 180)}, 2, {"picture": (0, 0)})
    run.film.bicubic = run.film.compare(run.trainer.model, run.trainer.loss)
    run._take_frame(run.film)
    run.plan = {0: {"mse": 0.0, "l1": 0.5}, 20: {"mse": 1.0, "l1": 0.0}}
    run.start()
    assert run.wait(30)
    run.film.frames[0].state = None  # as one of before a restart
    steps = [frame.step for frame in run.film.frames if frame.state]
    run.place("picture", 84, 30)
    assert [frame.step for frame in run.film.frames] == steps
    early, late = (next(one for one in run.film.frames if one.step == step) for step in (20, 30))
    assert early.weights["l1"] == 0.5 and early.loss == early.pull == {"mse": 0, "l1": 1}
    assert late.loss == late.pull == {"mse": 1, "l1": 0} and run.trainer.loss.weights == {"mse": 1.0, "l1": 0.0}


def test_a_frame_shrinks_no_picture_and_a_detail_only_its_own(monkeypatch):
    shrunk = []
    monkeypatch.setattr(film, "degrade", lambda high, scale: (shrunk.append(1), degrade(high, scale))[1])
    made = film.Film({"one": photograph(150, 180), "two": photograph(120, 120)}, 2)
    windows = dict(made._windows)
    model, loss = srcnn().eval(), WeightedLoss({"mse": 1.0})
    made.place("one", 0, 0)
    made.take(model, loss, 0)
    made.compare(model, loss)
    assert len(shrunk) == 2 and made._windows["two"] is windows["two"] and made._windows["one"] is not windows["one"]
