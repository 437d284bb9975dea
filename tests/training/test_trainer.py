"""Trainer: it learns, resumes bit for bit, and loses nothing when something goes wrong."""

from __future__ import annotations

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
from srkit.settings import SRKitError, Student, lock
from srkit.training import TrainConfig, Trainer, checkpoint, optim, resume

SMALL = {"batch_size": 2, "patch_size": 24, "warmup": 3, "log_freq": 5, "val_freq": 6, "save_freq": 6, "device": "cpu"}
PERCEPTUAL = {"loss": {"mse": 1, "relu1_2": 0.1}, "feature_weights": "random"}


def trainer(dataset, steps=12, out=None, validation=None, seed=0, **settings) -> Trainer:
    torch.manual_seed(seed)
    model = models.create("srcnn915", 2, channels=(16, 8))
    return Trainer(model, dataset, TrainConfig(steps=steps, seed=seed, **{**SMALL, **settings}), None, validation, out)


def fitted(*args, **settings) -> Trainer:
    made = trainer(*args, **settings)
    made.fit(progress=False)
    return made


def sha(trainer: Trainer) -> str:
    return weights_sha256(trainer.result.state_dict())


def test_training_beats_the_bicubic_it_starts_from():
    textured = ImageDataset([(photograph(32, 32, seed) > 0.5).byte() * 255 for seed in range(5)])
    bicubic = models.create("bicubic", 2)
    start = sum((bicubic(low) - high).square().mean() for low, high in textured.pairs(2)) / len(textured)
    history = fitted(textured, 80, validation=textured, lr=3e-3, val_freq=80, log_freq=1).history
    assert history.series("val/mse")[1][-1] < 0.9 * start
    steps, values = history.series("mse")
    assert steps == list(range(1, 81)) and sum(values[-10:]) < sum(values[:10])


# ---------------------------------------------------------------------------------- going on


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": {"mse": 1, "l1": 0}},
        {"schedule": "cosine", "schedule_steps": 12, "clip": 0.1, "loss": {"mse": 1, "l1": 0.1}, "precision": "bf16"},
        {"loss": {"mse": 1, "l1": 0}, "ema": 0, "optimizer": "SGD"},
    ],
)
def test_n_and_n_more_steps_are_2n_steps_bit_for_bit_with_their_moves(settings, dataset, tmp_path):
    def train(steps, out, state=None):
        subject = trainer(dataset, steps, tmp_path / out, dataset, **settings)
        if state:
            subject.load_state(state)
        for step in subject:
            if step == 5:
                subject.change(l1=0.5, lr=5e-4)
        return subject

    whole, half = train(12, "whole"), train(6, "half")
    torch.rand(7)  # whatever else happens in between
    rest = train(12, "rest", checkpoint.load(tmp_path / "half" / "last.pt"))
    assert sha(rest) == sha(whole) != sha(half)
    assert rest.history.series("loss") == whole.history.series("loss") and rest.history.moves == whole.history.moves


def test_resume_needs_nothing_but_the_file(tmp_path, capsys):
    for seed in range(4):
        write(photograph(32, 32, seed), tmp_path / "in" / f"{seed}.png")
    dataset, validation = (load_dataset(tmp_path / "in", split, train=3, val=1) for split in ("train", "val"))
    whole = fitted(dataset, 6, tmp_path / "whole", validation, **PERCEPTUAL)
    fitted(dataset, 3, tmp_path / "half", validation, **PERCEPTUAL)
    last = tmp_path / "half" / "last.pt"
    again = resume(last, tmp_path / "again", steps=6)
    again.fit(progress=False)
    assert sha(again) == sha(whole) and len(again.validation) == 1 and "changed" not in capsys.readouterr().out
    assert "random" in again.loss.describe()
    other = resume(last, tmp_path / "other", num_epoch=4, batch_size=3, lr=1e-5)
    assert other.steps == 4 and "batch_size" in capsys.readouterr().out
    assert other.fit(progress=False).series("lr")[1][-1] == 1e-5
    with pytest.raises(SRKitError):
        resume(last, learning_rate=1)
    for name in ("0", "1"):
        write(photograph(32, 32, 9), tmp_path / "in" / f"{name}.png")
    with pytest.raises(SRKitError):
        resume(last, steps=12)


def test_fit_resume_trains_goes_on_finds_all_done_or_another_training(dataset, tmp_path):
    whole = fitted(dataset, 12, tmp_path / "whole")
    for steps in (6, 12, 12):
        subject = trainer(dataset, steps, tmp_path / "parts")
        subject.fit(resume=True, progress=False)
    assert sha(subject) == sha(whole)

    def found(**settings):
        return trainer(dataset, 12, tmp_path / "parts", **settings).restore().step_number

    assert found(feature_weights="random") == 12  # which matters only where a term reads features
    assert found(lr=1e-2) == found(**PERCEPTUAL) == found(loss={"mse": 1.01}) == 0
    assert found(loss={"mse": 1.0001}) == 12  # a weight that was computed of pictures, on another machine


@pytest.mark.parametrize(("steps", "log_freq", "expected"), [(80, 2, 8), (100, 3, 9), (40, 10, 10), (15_000, 10, 500)])
def test_checkpoints_come_ten_times_a_training_and_every_500_steps(dataset, steps, log_freq, expected):
    assert trainer(dataset, steps, save_freq=None, log_freq=log_freq).save_freq == expected


def own_network(activation: str, channels: int = 4) -> torch.nn.Module:
    """A network as a student writes it into a notebook."""
    source = f"""
class Yours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = 2
        self.first = torch.nn.Conv2d(3, {channels}, 3, padding=1)
        self.last = torch.nn.Conv2d({channels}, 12, 3, padding=1)

    def forward(self, low):
        return torch.nn.functional.pixel_shuffle(self.last(self.first(low).{activation}()), 2)
"""
    names = {"torch": torch, "__name__": "__main__"}
    exec(source, names)
    return names["Yours"]()


def test_an_own_network_that_was_rewritten_is_trained_anew(dataset, tmp_path):
    def steps_done(*written):
        subject = Trainer(own_network(*written), dataset, TrainConfig(steps=4, **SMALL), out=tmp_path)
        done = subject.restore().step_number
        subject.fit(progress=False)
        return done

    assert [steps_done(*one) for one in (("relu",), ("relu",), ("tanh",), ("tanh",), ("tanh", 6))] == [0, 4, 0, 4, 0]


def test_beginning_anew_in_a_used_folder_loses_nothing(dataset, tmp_path):
    for steps in (7, 5, 6):
        fitted(dataset, steps, tmp_path)
    kept = [checkpoint.load(tmp_path / "replaced" / str(n) / "last.pt")["step"] for n in (1, 2)]
    assert kept == [7, 5] and checkpoint.load(tmp_path / "last.pt")["step"] == 6
    assert len((tmp_path / "replaced" / "1" / "history.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_which_another_trains_is_refused_and_left_as_it_is(resume, dataset, tmp_path):
    fitted(dataset, 3, tmp_path)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4}\n')  # the other one has gone on since it saved
    before = [(tmp_path / name).read_bytes() for name in ("last.pt", "history.jsonl")]
    subject = trainer(dataset, 6, tmp_path)
    with lock(tmp_path), pytest.raises(SRKitError, match=str(os.getpid())):
        subject.restore() if resume else subject.change(mse=0.5)
        next(subject)
    assert before == [(tmp_path / name).read_bytes() for name in ("last.pt", "history.jsonl")]
    assert not (tmp_path / "replaced").exists()
    trainer(dataset, 6, tmp_path).fit(resume=True, progress=False)
    lock(tmp_path, wait=False).release()  # whose training has ended holds nothing


def test_checkpoints_last_previous_best_and_what_they_hold(dataset, tmp_path):
    subject = trainer(dataset, 18, tmp_path, dataset, ema=0.9)
    subject.student = Student("Ada", "1815", "ada@example.org")
    subject.fit(progress=False)
    assert [checkpoint.load(tmp_path / f"{name}.pt")["step"] for name in ("last", "previous")] == [18, 12]
    state = checkpoint.load(tmp_path / "last.pt")
    assert state["student"]["name"] == "Ada" and state["history"] == subject.history.rows
    low = torch.rand(1, 3, 9, 9)
    loaded = models.load(tmp_path / "last.pt")(low)
    assert torch.allclose(loaded, subject.result(low), atol=1e-6)
    assert not torch.allclose(loaded, subject.model.eval()(low), atol=1e-5)  # the average, not the last
    measured = dict(zip(*subject.history.series("val/dB"), strict=True))
    assert checkpoint.load(tmp_path / "best.pt")["step"] == max(measured, key=measured.__getitem__)
    names = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert names == ["best.pt", "history.jsonl", "last.pt", "previous.pt"]


# ---------------------------------------------------------------------------------- the step


def test_a_subclass_replaces_only_the_step_and_a_model_of_ones_own_trains_and_saves(dataset, tmp_path):
    seen = []

    class Mine(torch.nn.Sequential):
        scale = 2

        def __init__(self):
            super().__init__(torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2))

    class Watching(Trainer):
        def step(self, batch):
            seen.append(batch)
            return super().step(batch)

    subject = Watching(Mine(), dataset, TrainConfig(steps=5, seed=3, **{**SMALL, "log_freq": 2}), out=tmp_path)
    assert list(subject) == [1, 2, 3, 4, 5] and subject.history.series("loss")[0] == [2, 4, 5]
    for step, batch in enumerate(seen):
        assert torch.equal(batch.high, dataset.batch(step, 2, 24, 2, seed=3).high)
    for refused in (models.load, resume):
        with pytest.raises(SRKitError):
            refused(tmp_path / "last.pt")
    Mine().load_state_dict(checkpoint.load(tmp_path / "last.pt")["ema"])


def test_a_step_that_ends_by_stop_iteration_is_an_error(dataset):
    subject = trainer(dataset)
    subject.step = lambda batch: next(iter(()))
    with pytest.raises(RuntimeError):
        list(subject)


def test_steps_rates_and_averages(dataset):
    assert trainer(dataset, num_epoch=3, batch_size=2).steps == 8  # 15 pictures, two at a time

    def rates(steps, **settings):
        return [optim.schedule(TrainConfig(**{"warmup": 0, **settings}), step, 100) for step in steps]

    assert rates((0, 99)) == [1, 1]
    assert rates((0, 50, 100), schedule="cosine") == pytest.approx([1, 0.5, 0])
    assert rates((0, 50), schedule="cosine", schedule_steps=50) == pytest.approx([1, 0])
    assert rates((0, 4, 9, 50), warmup=10) == pytest.approx([0.1, 0.5, 1, 1])
    old, new = torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)
    for step, kept in ((10_000, 0.9), (1, 2 / 11), (0, 0.0)):  # the start is soon forgotten
        torch.nn.init.ones_(old.weight), torch.nn.init.zeros_(new.weight)
        optim.moving_average(old, new, 0.9, step)
        assert old.weight.item() == pytest.approx(kept)


def test_the_seed_decides_and_weights_of_zero_change_nothing(dataset):
    zero = fitted(dataset, 3, loss={"mse": 1, "relu1_2": 0}, feature_weights="random")
    plain, other = fitted(dataset, 3), fitted(dataset, 3, seed=1)
    assert sha(plain) == sha(zero) != sha(other) and zero.history.names() == plain.history.names()


def test_trainers_of_different_precision_in_one_process_keep_theirs(dataset):
    subjects = [trainer(dataset, precision=precision) for precision in ("bf16", "fp32")]
    for subject, enabled in zip(subjects, (True, False), strict=True):
        with subject.autocast():
            assert torch.is_autocast_enabled("cpu") == enabled


def test_what_is_compiled_keeps_its_names_and_is_compiled_once(dataset, monkeypatch):
    graphs, compile_ = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend=lambda g, _: graphs.append(g) or g))
    subjects = [trainer(dataset, 3, compile=choice) for choice in (True, False)]
    for subject in subjects:
        next(subject), subject.change(mse=0.5), next(subject)
    assert len(graphs) == 1 and sha(subjects[0]) == sha(subjects[1])


# ---------------------------------------------------------------------------------- settings that move


def test_a_change_takes_effect_from_the_next_step_and_is_in_the_history(dataset):
    subject = trainer(dataset, 12, loss={"mse": 1, "l1": 0}, ema=0)
    for step in subject:
        if step == 7:
            subject.change(l1=0.5, lr=5e-4)
            subject.change(l1=0.5)  # the same again is no move
    assert subject.history.moves == [(7, "l1", 0, 0.5), (7, "lr", 1e-3, 5e-4)]
    assert subject.history.series("l1")[0] == [10, 12]
    assert subject.history.series("mse")[0] == [5, 7, 10, 12]  # no row mixes steps with and without l1
    assert subject.optimizer.param_groups[0]["lr"] == 5e-4
    assert subject.state()["weights"] == {"mse": 1, "l1": 0.5} and subject.config.loss == {"mse": 1, "l1": 0}


CHANGES = [{"l1": -1}, {"l1": 0, "mse": 0}, {"charbonnier": 1}, {"lr": float("nan")}, {"accumulate": 0}]


@pytest.mark.parametrize("bad", CHANGES)
def test_bad_changes_are_refused_and_change_nothing(bad, dataset):
    subject = trainer(dataset, loss={"mse": 1, "l1": 0.1})
    with pytest.raises(SRKitError):
        subject.change(**bad)
    assert subject.loss.weights == {"mse": 1, "l1": 0.1} and not subject.history.moves


# ---------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("poisoned_at", [14, 23])
def test_nan_stops_and_keeps_the_last_good_checkpoint(poisoned_at, dataset, tmp_path):
    subject = trainer(dataset, 24, tmp_path)
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
    assert state["step"] == poisoned_at // 6 * 6 and all(value.isfinite().all() for value in state["model"].values())


def test_nan_at_the_last_step_is_said_without_a_folder_too(dataset):
    subject = trainer(dataset, 3, ema=0)
    subject.update = lambda optimizer, *_: optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))
    with pytest.raises(SRKitError, match="no longer a number"):
        for step in subject:
            subject.update = Trainer.update.__get__(subject) if step < 2 else subject.update
            assert step < 3


def test_a_validation_of_weights_that_are_no_numbers_is_not_the_best(dataset, tmp_path):
    subject = trainer(dataset, 9, tmp_path, dataset)
    next(subject)
    subject.model.reconstruct.bias.data.fill_(float("nan"))
    subject.best = float("-inf")
    subject.score = lambda row: 30.0
    with pytest.raises(SRKitError, match="no longer a number"):
        subject.validate()
    assert not (tmp_path / "best.pt").exists()


@pytest.mark.parametrize("place", ["batch", "validate", "state"])
def test_memory_that_runs_out_elsewhere_is_one_line(place, dataset, tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    subject = trainer(dataset, 9, tmp_path, dataset)
    for _ in range(7):
        next(subject)
    monkeypatch.setattr(subject, place, full)
    with pytest.raises(SRKitError, match=r"out of memory .*last\.pt"):
        subject.fit(progress=False)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 6


def test_memory_that_runs_out_leaves_the_statistics_as_they_were(dataset):
    def normed() -> Trainer:
        torch.manual_seed(0)
        model = models.create("srresnet", 2, channels=4, blocks=1)
        return Trainer(model, dataset, TrainConfig(**{**SMALL, "steps": 3, "batch_size": 4, "precision": "fp32"}))

    broken, twin = normed(), normed()
    loss, failed = broken.loss, []

    def limited(output, *rest, **more):  # after the network has normalised the whole batch
        if len(output) == 4:
            failed.append(True)
            raise MemoryError
        return loss(output, *rest, **more)

    limited.__dict__.update(weights=loss.weights, perceptual=())
    broken.loss, broken.log = limited, lambda line: None
    twin.change(accumulate=2)
    for _ in range(3):
        next(broken), next(twin)
    assert failed and sha(broken) == sha(twin)


def test_accumulation_has_the_gradient_of_the_whole_batch(dataset):
    gradients = []
    for count in (1, 2):
        subject = trainer(dataset, batch_size=5, loss={"mse": 1, "psnr": 0.1}, precision="fp32")
        subject.change(accumulate=count)
        values = subject.accumulate(subject.optimizer, subject.backward, subject.batch())
        gradients.append([p.grad for p in subject.model.parameters()] + [values["loss"], values["psnr"]])
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: …"), MemoryError()])
def test_out_of_memory_accumulates_and_goes_on(error, dataset):
    whole, narrow = (trainer(dataset, 3, batch_size=4, precision="fp32") for _ in range(2))
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
    narrow.model.forward, narrow.steps = lambda low: limited(torch.cat([low, low])), 4
    with pytest.raises(SRKitError):
        next(narrow)


def test_ctrl_c_finishes_the_step_saves_and_stops(dataset, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    subject = trainer(dataset, 100_000, tmp_path, save_freq=100_000)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
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
def test_kill_9_while_saving_leaves_checkpoints_that_load_and_no_lock(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "previous.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert checkpoint.load(tmp_path / "last.pt")["step"] >= 2
    assert checkpoint.load(tmp_path / "previous.pt")["step"] >= 1
    lock(tmp_path, wait=False).release()


DEEP = {"loss": {"relu5_3": 1}, "feature_weights": "random"}
BAD = [{"optimizer": "Adm"}, {"loss": {"mes": 1}}, {"patch_size": 60}, {"patch_size": 25}, {"lr": 0}, {"batch_size": 0}]
BAD += [
    {"ema": 1},
    {"device": "tpu"},
    {"precision": "fp16"},
    {"patch_size": 8, **DEEP},
    {"steps": "many"},
    {"warmup": -1},
]
BAD += [
    {"warmup": -1},
    {"schedule_steps": 10**30},
    {"batch_size": 10**9},
    {"loss": {"mse": "1"}},
    {"schedule": "linear"},
    {"content": 3},
]


@pytest.mark.parametrize("bad", BAD)
def test_bad_settings_are_refused_before_anything_is_trained(bad, dataset):
    with pytest.raises(SRKitError):
        trainer(dataset, **bad)


def test_what_cannot_be_saved_or_loaded(dataset):
    subject = trainer(dataset)
    other = {**subject.state(), "model": models.create("srcnn").state_dict()}
    for refused in (subject.save, subject.restore, lambda: subject.load_state(other)):
        with pytest.raises(SRKitError):
            refused()
