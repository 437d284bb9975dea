"""Self-tuning against search, at equal cost: which hyper-parameters find out how a camera spoils its pictures?

    uv run --extra tuning python -m benchmarks.tuning [--seeds 0 1 2 3 4] [--task camera, or a domain: histology, …]

A pretrained x4 network is fine-tuned on clean photographs, of which LR is made by blur and noise; the camera's own
are unknown. All ways get the same seconds of one core: how many steps those are is measured first, plain steps and
self-tuning ones in turn. A search divides them among its trials and keeps the one with the best validation;
self-tuning trains once: plainly at first, then while its hyper-parameters move, then plainly at what they have found.
What is reported comes from a third split. Each arm of each seed is kept in a file: stopped, it goes on.
Writes tuning.json, or tuning_DOMAIN.json, into figures/reference.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import published, timing, transfer
from benchmarks.timing import Facts
from srkit import metrics, models
from srkit.data import ImageDataset, load_dataset
from srkit.data.degradation import Camera
from srkit.settings import SRKitError
from srkit.training import RegularizedTrainer, TuningConfig, TuningTrainer
from srkit.training.hyper import BLUR, DROPOUT, NOISE, WARP, WEIGHT_DECAY, Hyper

ARMS = ("delta-stn", "fixed", "random", "tpe", "halving", "true")
TOLD = ("batch_size", "patch_size", "lr", "clip", "hyper_lr", "settling", "tuning", "trials")  # options
TABLE = ("mean", "ahead", "deviation", "wins")  # ahead: Delta-STN's mean, less this one's
SIDE = 96  # of the tiles that validation and test pictures are cut into


@dataclass(kw_only=True)
class Options(timing.Options):
    """Compare self-tuning with search at equal cost."""

    task: str = "camera"  # or a domain of benchmarks.transfer: histology, astronomy, motorcycle
    start: str = "efficient-x4"  # the pretrained network that is fine-tuned
    seconds: float = 45.0  # of one core, for each arm and seed
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    arms: tuple[str, ...] = ARMS
    trials: int = 5  # of random search and TPE
    batch_size: int = 4
    patch_size: int = 48
    lr: float = 1e-3
    clip: float = 0.3  # single gradients are a thousand times as long as the median, and break a training
    hyper_lr: float = 0.1
    settling: float = 0.15  # share of the seconds before hyper-parameters move
    tuning: float = 0.55  # share of the seconds in which they do
    out: Path = Path("runs/tuning")


@dataclass(frozen=True)
class Task:
    """Pictures to train on, to tune by and to report, and what is tuned; the true values where there are any."""

    train: ImageDataset
    val: ImageDataset
    test: ImageDataset
    hypers: tuple[Hyper, ...]
    truth: dict[str, float]


# What one finds out, here: the values that the camera has, and none of the others.
CAMERA = Camera(blur=1.8, noise=0.03)


def tiles(names: Sequence[str], count: int, camera: Camera) -> ImageDataset:
    """Tiles spread over bundled test pictures, `count` of each, as the camera takes them."""
    pictures, found = load_dataset("bundled", "test"), {}
    for name in names:
        picture = pictures.pictures[pictures.names.index(name)]
        rows, columns = picture.shape[1] // SIDE, picture.shape[2] // SIDE
        places = [(row, column) for row in range(rows) for column in range(columns)]
        for number in range(count):
            row, column = places[round(number * (len(places) - 1) / (count - 1))]
            y, x = row * SIDE, column * SIDE
            found[f"{name}_{row}_{column}"] = picture[:, y : y + SIDE, x : x + SIDE]
    return ImageDataset(found.values(), list(found), degradation=camera)


def task_of(name: str) -> Task:
    """The camera's, or the report's: augmentation and weight decay for a small domain (lesson 07)."""
    if name == "camera":
        clean = [load_dataset("bundled", split) for split in ("train", "val")]
        train = ImageDataset([picture for one in clean for picture in one.pictures])
        val, test = tiles(["chelsea"], 10, CAMERA), tiles(["astronaut", "coffee"], 15, CAMERA)
        truth = {"blur": CAMERA.blur, "noise": CAMERA.noise}
        return Task(train, val, test, (BLUR, NOISE, DROPOUT, WEIGHT_DECAY), truth)
    if name not in transfer.DOMAINS:
        raise SRKitError(f"--task {name}: choose camera, {', '.join(transfer.DOMAINS)}")
    train, val, test = (load_dataset(transfer.cut(name) / split, "all") for split in ("train", "val", "test"))
    return Task(train, val, test, (WARP, WEIGHT_DECAY, DROPOUT), {})


# ---------------------------------------------------------------------------------- one training


class Bench:
    """One task with one seed: trainings, and what is measured of them."""

    def __init__(self, options: Options, task: Task, steps: Facts, seed: int) -> None:
        self.options, self.task, self.steps, self.seed = options, task, steps, seed

    def trainer(self, kind: type[RegularizedTrainer], steps: int, values: dict[str, float]) -> RegularizedTrainer:
        """A training from the pretrained network with hyper-parameters that begin, or stay, at these values."""
        options, never, first = self.options, 10**9, self.steps["settling"]
        config = TuningConfig(
            steps=steps, batch_size=options.batch_size, patch_size=options.patch_size, lr=options.lr, warmup=10,
            clip=options.clip, ema=0.98, hyper_lr=options.hyper_lr, seed=self.seed, precision="fp32", log_freq=5,
            val_freq=never, save_freq=never, tune_from=first, tune_until=first + self.steps["tuning"],
        )  # fmt: skip
        hypers = [replace(one, start=values.get(one.name, one.start)) for one in self.task.hypers]
        return kind(models.load(options.start), self.task.train, config, hypers=hypers, validation=self.task.val)

    def psnr(self, model: nn.Module, split: str) -> float:
        """On the pictures to tune by ("val") or to report ("test"), in dB."""
        pictures = getattr(self.task, split)
        return metrics.evaluate(model, pictures, batch_size=len(pictures), with_ssim=False).psnr

    def trained(self, steps: int, values: dict[str, float]) -> nn.Module:
        """The network after a training at fixed hyper-parameters."""
        return run_to(self.trainer(RegularizedTrainer, steps, values), steps).result

    def fixed(self) -> Facts:
        """All seconds into the values that a search starts at."""
        return self.facts(self.trained(self.steps["plain"], {}), {})

    def true(self) -> Facts:
        """All seconds into the camera's values, without dropout and weight decay: what could be reached."""
        values = {one.name: one.least + 1e-3 * (one.most - one.least) for one in self.task.hypers}
        values |= {"weight_decay": 2 * WEIGHT_DECAY.least} | self.task.truth
        return self.facts(self.trained(self.steps["plain"], values), values)

    def random(self) -> Facts:
        """Values drawn anywhere in the ranges; the best trial by validation."""
        generator = torch.Generator().manual_seed(1000 + self.seed)
        draws = torch.rand(self.options.trials, len(self.task.hypers), generator=generator).clamp(0.01, 0.99)
        return self.best([self.values(draw.tolist()) for draw in draws])

    def values(self, shares: Sequence[float]) -> dict[str, float]:
        """Hyper-parameters at these shares of their ranges."""
        raws = [torch.logit(torch.tensor(share)) for share in shares]
        return {one.name: one.value(raw).item() for one, raw in zip(self.task.hypers, raws, strict=True)}

    def best(self, trials: Sequence[dict[str, float]]) -> Facts:
        """Train at each trial's values for a share of the steps."""
        found = []
        for values in trials:
            model = self.trained(self.steps["plain"] // len(trials), values)
            found.append((self.psnr(model, "val"), model, values))
        _, model, values = max(found, key=lambda one: one[0])
        return self.facts(model, values)

    def tpe(self) -> Facts:
        """Trials that the tree-structured Parzen estimator proposes (Bergstra et al., NeurIPS 2011), by optuna."""
        try:
            import optuna  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise SRKitError("TPE needs optuna: uv run --extra tuning …, or leave it out of --arms") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        found: list[tuple[float, nn.Module, dict[str, float]]] = []

        def objective(trial) -> float:
            values = self.values([trial.suggest_float(one.name, 0.01, 0.99) for one in self.task.hypers])
            model = self.trained(self.steps["plain"] // self.options.trials, values)
            found.append((self.psnr(model, "val"), model, values))
            return found[-1][0]

        sampler = optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=2)
        optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, self.options.trials)
        _, model, values = max(found, key=lambda one: one[0])
        return self.facts(model, values)

    def halving(self) -> Facts:
        """Successive halving (Jamieson and Talwalkar, AISTATS 2016): 8 begin, the better half goes on, 8, 4, 2, 1."""
        rung = self.steps["plain"] // 20  # 8 x 1 + 4 x 1 + 2 x 2 + 1 x 4
        generator = torch.Generator().manual_seed(2000 + self.seed)
        draws = torch.rand(8, len(self.task.hypers), generator=generator).clamp(0.01, 0.99)
        left = [self.trainer(RegularizedTrainer, 8 * rung, self.values(draw.tolist())) for draw in draws]
        for until, keep in ((1, 4), (2, 2), (4, 1), (8, 1)):
            scores = {one: self.psnr(run_to(one, until * rung).result, "val") for one in left}
            left = sorted(left, key=scores.__getitem__, reverse=True)[:keep]
        (winner,) = left
        return self.facts(winner.result, {one.name: float(one.start or 0) for one in winner.hypers})

    def tuned(self) -> Facts:
        """One training whose hyper-parameters move by themselves."""
        until = self.steps["settling"] + self.steps["tuning"]
        rest = self.steps["plain"] * (1 - self.options.settling - self.options.tuning)
        trainer: Any = run_to(self.trainer(TuningTrainer, until + round(rest), {}), until)
        shown = self.task.truth if self.seed == min(self.options.seeds) else ()
        surfaces = {name: surface(trainer, name) for name in shown}  # now, while the response is new
        run_to(trainer, trainer.steps)
        names = [one.name for one in trainer.hypers]
        found = dict(zip(names, trainer.values().tolist(), strict=True))
        curves = {name: trainer.history.series(f"hyper/{name}")[1] for name in names}
        steps = trainer.history.series(f"hyper/{names[0]}")[0]
        facts = self.facts(trainer.result, found) | {"curves": curves, "curve_steps": steps}
        return facts | ({"surface": surfaces} if surfaces else {})

    def facts(self, model: nn.Module, values: dict[str, float]) -> Facts:
        """What an arm found."""
        return {"test": self.psnr(model, "test"), "val": self.psnr(model, "val"), "values": values}


def run_to(trainer: RegularizedTrainer, step: int) -> RegularizedTrainer:
    """Train until this many steps are done, without a last validation."""
    while trainer.step_number < step:
        if trainer.step_number == trainer.steps - 1:
            trainer.validate = lambda: None
        next(trainer)
    return trainer


def surface(trainer: TuningTrainer, name: str, points: int = 5, steps: int = 30) -> Facts:
    """The validation loss over one hyper-parameter: as the response says it, and as short real trainings find it.

    Each real training goes on from the same weights, at its value.
    """
    tuner, number = trainer.tuner, [one.name for one in trainer.hypers].index(name)
    assert tuner
    offsets = torch.linspace(-1, 1, points)
    batches = list(trainer.validation.pairs(trainer.model.scale, len(trainer.validation)))
    found: Facts = {"value": [], "response": [], "trained": []}
    state = trainer.model.state_dict()
    for offset in offsets:
        delta = torch.zeros(len(trainer.hypers))
        delta[number] = offset
        values = tuner.values(tuner.raw.detach() + delta)
        found["value"].append(values[number].item())
        with torch.no_grad():
            trainer.model.eval()
            losses = [float(trainer.relative_loss(tuner.response(low, delta.expand(len(low), -1)), high))
                      for low, high in batches]  # fmt: skip
        found["response"].append(statistics.fmean(losses))
        model = models.rebuild(trainer.model)
        model.load_state_dict(state)
        hypers = [replace(one, start=value) for one, value in zip(trainer.hypers, values.tolist(), strict=True)]
        config = replace(trainer.config, steps=steps, ema=0.95)
        again = RegularizedTrainer(model, trainer.dataset, config, hypers=hypers, validation=trainer.validation)
        model = run_to(again, steps).result
        with torch.no_grad():
            losses = [float(trainer.relative_loss(model(low), high)) for low, high in batches]
        found["trained"].append(statistics.fmean(losses))
    return found


# ---------------------------------------------------------------------------------- all of them


def calibrate(options: Options, task: Task, rounds: int = 4) -> Facts:
    """How many steps the seconds buy: the median time of a plain and of a self-tuning step, taken in turn."""
    bench = Bench(options, task, {"settling": 0, "tuning": 10**6}, 0)
    turns, kinds = TuningConfig().hyper_freq, {"plain": RegularizedTrainer, "tuning": TuningTrainer}
    trainers = {name: bench.trainer(kind, 10**6, {}) for name, kind in kinds.items()}
    trainers["tuning"].step_number = TuningConfig().hyper_warmup  # λ moves, too
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(rounds + 1):
        for name, trainer in trainers.items():
            start = time.process_time()
            for _ in range(turns):
                next(trainer)
            if turn:  # the first warms up
                times[name].append((time.process_time() - start) / turns)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    plain, tuning = (options.seconds / one for one in seconds.values())
    counts = {"plain": plain, "tuning": options.tuning * tuning, "settling": options.settling * plain}
    return {"seconds": seconds, **{name: round(count) for name, count in counts.items()}}


def kept(path: Path, work: Callable[[], Facts]) -> Facts:
    """What a file says, or what `work` finds, which is then written there."""
    if path.exists():
        return json.loads(path.read_text())
    start = time.process_time()
    facts = work()
    facts["process seconds"] = time.process_time() - start
    published.write_json(facts, path)
    return facts


def measure(options: Options, task: Task, folder: Path) -> tuple[Facts, dict[str, dict[str, Facts]]]:
    """Every arm with every seed."""
    steps = kept(folder / "steps.json", lambda: calibrate(options, task))
    found: dict[str, dict[str, Facts]] = {arm: {} for arm in options.arms}
    for seed in options.seeds:
        bench = Bench(options, task, steps, seed)
        for arm in options.arms:
            work = getattr(bench, "tuned" if arm == "delta-stn" else arm)
            found[arm][str(seed)] = kept(folder / f"{arm}-{seed}.json", work)
            timing.log(f"seed {seed}, {arm}: {found[arm][str(seed)]['test']:.2f} dB")
    return steps, found


def lines(found: dict[str, dict[str, Facts]]) -> Iterator[tuple[str, Facts]]:
    """A row for each arm: its seeds' PSNR, their mean, and what it is below Delta-STN, seed by seed."""
    mine = found.get("delta-stn", {})
    for arm, seeds in found.items():
        values = {seed: one["test"] for seed, one in seeds.items()}
        row: Facts = {"seeds": values, "mean": statistics.fmean(values.values())}
        differences = [mine[seed]["test"] - value for seed, value in values.items() if seed in mine]
        if arm != "delta-stn" and differences:
            row["ahead"] = statistics.fmean(differences)
            if len(differences) > 1:
                row["deviation"] = statistics.stdev(differences)
            row["wins"] = sum(one > 0 for one in differences)
        yield arm, row


def run(options: Options) -> tuple[Facts, str]:
    """The table."""
    task, folder = task_of(options.task), options.out / options.task
    steps, found = measure(options, task, folder)
    bench = Bench(options, task, steps, 0)
    start: Any = models.load(options.start)
    rows = dict(lines(found))
    facts = {
        "command": f"python -m benchmarks.tuning --task {options.task} --seconds {options.seconds:g} "
        f"--seeds {' '.join(map(str, options.seeds))} --arms {' '.join(options.arms)}",
        "start": options.start, "truth": task.truth, "steps": steps,
        "training": {name: getattr(options, name) for name in TOLD},
        "pictures": {"train": str(task.train), "val": str(task.val), "test": str(task.test)},
        "ranges": {one.name: one.config for one in task.hypers},
        "bicubic": bench.psnr(models.create("bicubic", start.scale), "test"), "not tuned": bench.psnr(start, "test"),
        "rows": rows, "arms": found,
        "threads": torch.get_num_threads(), "cpu": timing.processor(), "torch": torch.__version__,
    }  # fmt: skip
    published.write_json(
        facts, published.REFERENCE / f"tuning{'' if options.task == 'camera' else '_' + options.task}.json"
    )
    first = f"bicubic {facts['bicubic']:.2f} dB, the network as it comes {facts['not tuned']:.2f} dB; {steps}"
    return facts, f"{first}\n{published.table(rows, TABLE)}"


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.tuning")
