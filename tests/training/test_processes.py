"""Several processes: the weights of one, one writer, one end for all. The file is also what those processes run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
FLAGS = "--batch-size 4 --patch-size 24 --warmup 3 --precision fp32 --device cpu --log-freq 5 --val-freq 5"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--main_process_port", "0"]
SHARP = {"optimizer": "SGD", "lr": 1.0, "ema": 0.5}  # Adam would hide a gradient of the wrong length
MULTI = {"name": "superresnet-multi", "loss": {"x2/mse": 1.0}, "steps": 3}  # leaves an output out
CLOSE = {"rtol": 0, "atol": 1e-6}  # the mean of two means is rounded otherwise than the mean of all
ADAM = {"rtol": 0, "atol": 5e-5}  # and Adam makes a whole step of a rounded gradient near 0


def launch(launcher: list[str], *words: object) -> subprocess.CompletedProcess:
    """Two processes of one thread each; a hang fails."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command, pipe = [*launcher, *map(str, words)], subprocess.PIPE
    started = subprocess.Popen(command, env=environment, start_new_session=True, stdout=pipe, stderr=pipe, text=True)
    try:
        out, err = started.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)  # those that the launcher has started, too
        raise
    return subprocess.CompletedProcess(command, started.returncode, out, err)


# ---------------------------------------------------------------------------------- what the two processes run


def pictures() -> ImageDataset:
    return ImageDataset([photograph(40, 48, seed).mul(255).byte() for seed in range(7)])


def trainer(steps: int = 10, out=None, name="srcnn915", **settings) -> Trainer:
    torch.manual_seed(0)
    changes = {"srcnn915": {"channels": (16, 8)}, "srresnet-small": {"norm": True, "blocks": 2}}.get(name, {})
    return Trainer(
        models.create(name, **changes), pictures(), TrainConfig(steps=steps, **{**SMALL, **settings}), out=out
    )


def refusal(work) -> str:
    try:
        work()
    except SRKitError as error:
        return str(error)
    return ""


def disturbed(subject: Trainer, trouble: Callable) -> Trainer:
    """In the second process, and in no other, something happens within the eighth step."""
    step = subject.step

    def troubled(batch):
        if subject.processes.index == 1 and subject.step_number == 7:
            trouble(batch)
        return step(batch)

    subject.step = troubled
    return subject


def no_memory(*_):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


def together(out: Path) -> None:
    """Everything that one pair of processes can show, written by each into a file of its own; at last both fail."""
    subject = trainer()
    rank, facts = subject.processes.index, {"high": subject.batch().high}
    for name, settings in (
        ("clipped", {**SHARP, "clip": 1e-3}),
        ("multi", MULTI),
        ("norm", {"name": "srresnet-small", "steps": 3}),
    ):
        done = trainer(**settings)
        done.fit(progress=False)
        facts[name] = done.result.state_dict()
    told = disturbed(trainer(1000, out / "told"), lambda batch: os.kill(os.getpid(), signal.SIGTERM))
    told.fit(progress=False)
    facts["told"] = {"step": told.step_number, "interrupted": told.interrupted}
    poisoned = disturbed(trainer(out=out / "poisoned", save_freq=5), lambda batch: batch.high.fill_(float("nan")))
    fresh, config = models.create("srresnet-small"), TrainConfig(**SMALL)
    adversarial = GANConfig(**SMALL, loss={"mse": 1.0, "adversarial": 0.1}, from_scratch=True)
    facts["refused"] = {
        "poisoned": refusal(lambda: poisoned.fit(progress=False)),
        "uneven": refusal(lambda: trainer(batch_size=5)),
        "tuner": refusal(lambda: FineTuner(fresh, pictures(), config, validation=pictures(), criterion=None)),
        "run": refusal(lambda: live.Run(subject)),
        "compare": refusal(lambda: compare.compare(["superresnet"], pictures(), pictures(), config, out)),
        "gan": refusal(lambda: GANTrainer(fresh, pictures(), adversarial)),
    }
    torch.save(facts, out / f"facts-{rank}.pt")
    tight = trainer()
    if rank == 1:
        tight.backward = no_memory
    tight.fit(progress=False)


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
    """10 steps by the command: in one process, and in two that accelerate has started."""
    out = tmp_path_factory.mktemp("trained")
    words = ["train", "srcnn915", "--data", str(folder), "--train", "6", "--val", "2", *FLAGS.split()]
    words += ["--save-freq", "5", "--steps", "10"]
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


def test_two_processes_train_as_one_and_one_of_them_writes_and_prints(trained):
    one, two = (sorted(path.name for path in (trained.out / name).glob("[!.]*")) for name in ("one", "two"))
    assert one == two == ["best.pt", "history.jsonl", "last.pt", "previous.pt"]
    for name in ("last.pt", "previous.pt", "best.pt"):
        assert_same_training(trained.out / "one" / name, trained.out / "two" / name)
    last = checkpoint.load(trained.out / "two" / "last.pt")
    torch.manual_seed(0)
    moved = last["model"]["reconstruct.bias"] - models.create("srcnn915", 2).state_dict()["reconstruct.bias"]
    assert moved.abs().max() > 1e-4  # several times as far as they may differ
    rows = [json.loads(line) for line in (trained.out / "two" / "history.jsonl").read_text().splitlines()]
    assert rows == last["history"]
    for words in ("on cpu in 2 processes in fp32", "training on", "10 steps"):
        assert trained.ran.stdout.count(words) == 1
    assert trained.ran.stderr.count("0/10 [00:00<?") == 1


def test_resume_in_another_number_of_processes(trained):
    def command(start: str, to: str) -> list[str]:
        return ["resume", str(trained.out / start / "last.pt"), "--steps", "20", "--out", str(trained.out / to)]

    assert cli.main(command("one", "one-one")) == cli.main(command("two", "two-one")) == 0
    ran = launch(TORCHRUN, "-m", "srkit", *command("one", "one-two"))
    assert ran.returncode == 0, ran.stderr
    for name in ("two-one", "one-two"):
        assert_same_training(trained.out / "one-one" / "last.pt", trained.out / name / "last.pt")


def test_each_patch_of_a_batch_is_trained_on_once(facts):
    whole = pictures().batch(0, 4, 24, 2).high
    assert all(torch.equal(one["high"], whole[rank::2]) for rank, one in enumerate(facts.both))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("clipped", {**SHARP, "clip": 1e-3}), ("multi", MULTI)],  # the gradient as a whole; an output that is left out
)
def test_the_gradient_is_that_of_one_process(name, settings, facts):
    alone = trainer(**settings)
    alone.fit(progress=False)
    torch.testing.assert_close(facts.both[1][name], alone.result.state_dict(), **CLOSE)


def test_batch_normalisation_leaves_the_processes_with_the_same_weights(facts):
    first, second = (one["norm"] for one in facts.both)
    learnt = [name for name in first if "running" not in name and "tracked" not in name]
    assert any("running" in name for name in first) and all(torch.equal(first[name], second[name]) for name in learnt)


def test_one_is_told_to_stop_or_meets_no_number_and_all_stop_after_the_same_step(facts):
    assert [one["told"] for one in facts.both] == [{"step": 8, "interrupted": True}] * 2
    assert checkpoint.load(facts.out / "told" / "last.pt")["step"] == 8
    assert all("no longer a number near step 10" in one["refused"]["poisoned"] for one in facts.both)
    assert checkpoint.load(facts.out / "poisoned" / "last.pt")["step"] == 5


def test_memory_that_runs_out_ends_all_with_one_line(facts):
    assert facts.ran.returncode != 0 and facts.seconds < 100
    assert "out of memory in process 1: resume last.pt in more processes" in facts.ran.stderr


def test_what_works_in_one_process_only_says_so(facts, monkeypatch, capsys):
    for one in facts.both:
        assert "--batch-size 6" in one["refused"]["uneven"]
        for name in ("gan", "tuner", "run", "compare"):
            assert "start it without accelerate launch" in one["refused"][name]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["evaluate", "bicubic", "--data", "bundled", "--scale", "2"]) == 2
    assert "srkit evaluate works in one process" in capsys.readouterr().err


if __name__ == "__main__":
    together(Path(sys.argv[1]))
