"""Several processes: the weights of one, one writer, one end for all. The file is also what those processes run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import photograph

from srkit import cli, live, models
from srkit.data import ImageDataset
from srkit.data.images import write
from srkit.settings import SRKitError
from srkit.training import FineTuner, GANConfig, GANTrainer, TrainConfig, Trainer, checkpoint, compare

pytestmark = pytest.mark.slow

SMALL = {"batch_size": 4, "patch_size": 24, "warmup": 3, "log_freq": 5, "device": "cpu", "precision": "fp32"}
FLAGS = (
    "--batch-size 4 --patch-size 32 --warmup 3 --precision fp32 --device cpu --log-freq 5 --val-freq 10 --save-freq 10"
)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--main_process_port", "0"]
SHARP = {"optimizer": "SGD", "lr": 1.0, "ema": 0.5}  # Adam would hide a gradient of the wrong length
CLOSE = {"rtol": 0, "atol": 1e-6}  # the mean of two means is rounded otherwise than the mean of all
ADAM = {"rtol": 0, "atol": 5e-5}  # and Adam makes a whole step of a rounded gradient near 0


def launch(launcher: list[str], *words: object) -> subprocess.CompletedProcess:
    """Two processes of one thread each; a hang fails."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [*launcher, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    try:
        out, err = started.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)  # those that the launcher has started, too
        raise
    return subprocess.CompletedProcess(command, started.returncode, out, err)


# ---------------------------------------------------------------------------------- what the two processes run


def pictures() -> ImageDataset:
    return ImageDataset([photograph(40, 48, seed).mul(255).byte() for seed in range(7)])


def trainer(kind: type[Trainer] = Trainer, steps: int = 10, out=None, name="srcnn915", **settings) -> Trainer:
    torch.manual_seed(0)
    changes = {"srcnn915": {"channels": (16, 8)}, "srresnet-small": {"norm": True, "blocks": 2}}.get(name, {})
    return kind(models.create(name, **changes), pictures(), TrainConfig(steps=steps, **{**SMALL, **settings}), out=out)


def refusal(work) -> str:
    try:
        work()
    except SRKitError as error:
        return str(error)
    return ""


class Told(Trainer):
    """The second process, and no other, is told to stop within its eighth step."""

    def step(self, batch):
        if self.processes.index == 1 and self.step_number == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().step(batch)


class Poisoned(Trainer):
    """The second process alone sees a crop that is no number."""

    def step(self, batch):
        if self.processes.index == 1 and self.step_number == 7:
            batch.high.fill_(float("nan"))
        return super().step(batch)


class Tight(Trainer):
    """Memory runs out in the second process."""

    def backward(self, batch, share=1.0):
        if self.processes.index == 1 and self.step_number == 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().backward(batch, share)


def together(out: Path) -> None:
    """Everything that one pair of processes can show, written by each into a file of its own; at last both fail."""
    subject = trainer()
    rank, facts = subject.processes.index, {"high": subject.batch().high}
    for name, kind, settings in (
        ("clipped", Trainer, {**SHARP, "clip": 1e-3}),
        ("multi", Trainer, {"name": "superresnet-multi", "loss": {"x2/mse": 1.0}, "steps": 3}),
        ("norm", Trainer, {"name": "srresnet-small", "steps": 3}),
    ):
        done = trainer(kind, **settings)
        done.fit(progress=False)
        facts[name] = done.result.state_dict()
    told = trainer(Told, 1000, out / "told")
    told.fit(progress=False)
    facts["told"] = {"step": told.step_number, "interrupted": told.interrupted}
    fresh, config = models.create("srresnet-small"), TrainConfig(**SMALL)
    facts["refused"] = {
        "poisoned": refusal(lambda: trainer(Poisoned, out=out / "poisoned", save_freq=5).fit(progress=False)),
        "uneven": refusal(lambda: trainer(batch_size=5)),
        "tuner": refusal(lambda: FineTuner(fresh, pictures(), config, validation=pictures(), criterion=None)),
        "run": refusal(lambda: live.Run(subject)),
        "compare": refusal(lambda: compare.compare(["superresnet"], pictures(), pictures(), config, out)),
        "gan": refusal(
            lambda: GANTrainer(
                fresh,
                pictures(),
                GANConfig(**SMALL, loss={"mse": 1.0, "adversarial": 0.1}, from_scratch=True, discriminator=4),
            )
        ),
    }
    torch.save(facts, out / f"facts-{rank}.pt")
    trainer(Tight).fit(progress=False)


# ---------------------------------------------------------------------------------- what they must have done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight pictures, two of which are for validation by the flags below."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(8):
        write(photograph(40, 48, seed), folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> SimpleNamespace:
    """20 steps by the command: in one process, and in two that accelerate has started."""
    out = tmp_path_factory.mktemp("trained")
    words = ["train", "srcnn915", "--data", str(folder), "--train", "6", "--val", "2", *FLAGS.split(), "--steps", "20"]
    assert cli.main([*words, "--out", str(out / "one")]) == 0
    ran = launch(ACCELERATE, "-m", "srkit", *words, "--out", out / "two")
    assert ran.returncode == 0, ran.stderr
    return SimpleNamespace(out=out, words=words, ran=ran)


@pytest.fixture(scope="module")
def facts(tmp_path_factory) -> SimpleNamespace:
    """What `together` wrote in each of two processes that torchrun has started."""
    out = tmp_path_factory.mktemp("facts")
    start = time.monotonic()
    ran = launch(TORCHRUN, __file__, out)
    both = [torch.load(out / f"facts-{rank}.pt") for rank in (0, 1)]
    return SimpleNamespace(out=out, both=both, ran=ran, seconds=time.monotonic() - start)


def assert_same_training(one: Path, two: Path) -> None:
    """Same weights, same rows, same keys; only times may differ."""
    mine, theirs = checkpoint.load(one), checkpoint.load(two)
    assert mine.keys() == theirs.keys() and mine["step"] == theirs["step"]
    for kind in ("model", "ema"):
        torch.testing.assert_close(theirs[kind], mine[kind], **ADAM)
    assert [row.keys() for row in theirs["history"]] == [row.keys() for row in mine["history"]]
    for row, other in zip(mine["history"], theirs["history"], strict=True):
        timeless = {name: value for name, value in row.items() if "seconds" not in name}
        assert timeless == pytest.approx({name: other[name] for name in timeless}, rel=1e-3)
    steps = {state["step"].item() for state in theirs["optimizer"]["state"].values()}
    assert steps == {theirs["step"]}  # once a step, however many processes


def test_two_processes_train_as_one(trained):
    for name in ("last.pt", "previous.pt", "best.pt"):
        assert_same_training(trained.out / "one" / name, trained.out / "two" / name)
    torch.manual_seed(0)
    start = models.create("srcnn915", 2).state_dict()
    moved = checkpoint.load(trained.out / "two" / "last.pt")["model"]["reconstruct.bias"] - start["reconstruct.bias"]
    assert moved.abs().max() > 2e-4  # several times as far as they may differ


def test_one_process_writes_and_prints(trained):
    one, two = (sorted(path.name for path in (trained.out / name).glob("[!.]*")) for name in ("one", "two"))
    assert one == two == ["best.pt", "history.jsonl", "last.pt", "previous.pt"]
    rows = [json.loads(line) for line in (trained.out / "two" / "history.jsonl").read_text().splitlines()]
    assert rows == checkpoint.load(trained.out / "two" / "last.pt")["history"]
    for words in ("on cpu in 2 processes in fp32", "training on", "20 steps"):
        assert trained.ran.stdout.count(words) == 1
    assert trained.ran.stderr.count("20/20") == 1


def test_resume_in_another_number_of_processes(trained):
    out = trained.out
    assert cli.main([*trained.words, "--steps", "40", "--out", str(out / "straight")]) == 0
    assert cli.main(["resume", str(out / "two" / "last.pt"), "--steps", "40", "--out", str(out / "two-one")]) == 0
    ran = launch(TORCHRUN, "-m", "srkit", "resume", out / "one" / "last.pt", "--steps", "40", "--out", out / "one-two")
    assert ran.returncode == 0, ran.stderr
    for name in ("two-one", "one-two"):
        assert_same_training(out / "straight" / "last.pt", out / name / "last.pt")


def test_each_crop_of_a_batch_is_trained_on_once(facts):
    whole = pictures().batch(0, 4, 24, 2).high
    assert all(torch.equal(one["high"], whole[rank::2]) for rank, one in enumerate(facts.both))


def test_the_gradient_is_clipped_as_a_whole(facts):
    alone = trainer(**SHARP, clip=1e-3)
    alone.fit(progress=False)
    torch.testing.assert_close(facts.both[1]["clipped"], alone.result.state_dict(), **CLOSE)


def test_memory_that_runs_out_ends_all_with_one_line(facts):
    assert facts.ran.returncode != 0 and facts.seconds < 100
    assert "out of memory in process 1: resume last.pt in more processes" in facts.ran.stderr


def test_outputs_that_the_loss_leaves_out(facts):
    alone = trainer(name="superresnet-multi", loss={"x2/mse": 1.0}, steps=3)
    alone.fit(progress=False)
    torch.testing.assert_close(facts.both[1]["multi"], alone.result.state_dict(), **CLOSE)


def test_batch_normalisation_leaves_the_processes_with_the_same_weights(facts):
    first, second = (one["norm"] for one in facts.both)
    learnt = [name for name in first if "running" not in name and "tracked" not in name]
    assert any("running" in name for name in first) and all(torch.equal(first[name], second[name]) for name in learnt)


def test_one_is_told_to_stop_and_all_stop_after_the_same_step(facts):
    assert [one["told"] for one in facts.both] == [{"step": 8, "interrupted": True}] * 2
    assert checkpoint.load(facts.out / "told" / "last.pt")["step"] == 8


def test_what_is_no_number_in_one_process_stops_all(facts):
    for one in facts.both:
        assert "no longer a number near step 10" in one["refused"]["poisoned"]
    assert checkpoint.load(facts.out / "poisoned" / "last.pt")["step"] == 5


def test_what_works_in_one_process_only_says_so(facts):
    for one in facts.both:
        assert one["refused"]["uneven"] == "a batch of 5 does not divide among 2 processes: --batch-size 4 or 6"
        for name in ("gan", "tuner", "run", "compare"):
            assert "start it without accelerate launch" in one["refused"][name]


def test_other_commands_say_so_too(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["evaluate", "bicubic", "--data", "bundled", "--scale", "2"]) == 2
    assert "srkit evaluate works in one process" in capsys.readouterr().err


if __name__ == "__main__":
    together(Path(sys.argv[1]))
