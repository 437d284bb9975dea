"""The training loop: one step after another, saved so that nothing is ever lost.

`Trainer` is an iterator of steps. A subclass that trains otherwise (`gan.GANTrainer`) replaces `step`, and says what
else of it a checkpoint must hold.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from srkit import metrics, models
from srkit.banks import Bank, Batch, open_bank
from srkit.errors import SRKitError, unknown
from srkit.losses import WeightedLoss, check_weights
from srkit.losses import create as create_loss
from srkit.profiles import Student
from srkit.training import checkpoint
from srkit.training.config import TrainConfig
from srkit.training.engine import (
    choose_precision,
    compiled,
    ctrl_c,
    distribute,
    from_main,
    keep_freed_memory,
    main_first,
    make_accelerator,
    make_optimizer,
    moving_average,
    open_device,
    out_of_memory,
    random_state,
    set_random_state,
)
from srkit.training.history import History
from srkit.training.targets import KeptTargets

SETTINGS = ("learning_rate", "parts")  # what can be changed during a training, besides the weights of the loss


class Trainer:
    """Trains a model, one step after another: `trainer.fit()`, or `for step in trainer: …`.

    The batch and the learning rate of a step follow from its number and the seed alone, and a checkpoint
    holds the rest (weights, average, optimiser, scaler, random states, history). N steps, a checkpoint and
    N more therefore give the weights of 2N steps: bit for bit on the CPU.

    Args:
        model: takes low (N, 3, h, w), gives output (N, 3, scale * h, scale * w); has `.scale`.
        bank: the training pictures.
        config: the settings; a TrainConfig.
        loss: what to minimise; a WeightedLoss of `config.loss` if not given.
        validation: pictures to measure on every `val_freq` steps, whole; None for no validation.
        out: folder for last.pt, previous.pt, best.pt and history.jsonl; None writes nothing. Another training
            that is there is moved to out/replaced at the first step.
        student: who trains; written into the checkpoints.
        optimizer: makes an optimiser from the parameters, in place of `config.optimizer`.

    Raises:
        SRKitError: a device that is not there, an unknown optimiser or loss, a crop that does not fit.
    """

    settings: type[TrainConfig] = TrainConfig

    def __init__(
        self,
        model: nn.Module,
        bank: Bank,
        config: TrainConfig | None = None,
        loss: WeightedLoss | None = None,
        validation: Bank | None = None,
        out: str | Path | None = None,
        student: Student | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    ) -> None:
        config = config or self.settings()
        self.device = open_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.accelerator = make_accelerator(self.device, self.precision, len(getattr(model, "scales", (1,))))
        self.several = self.accelerator.num_processes > 1
        _check_divides(config.batch_size, self.accelerator.num_processes)
        # Three-channel pictures stay NCHW: only inside the model does channels_last pay.
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.bank, self.validation, self.student = bank, validation, student or Student()
        self.start = checkpoint.weights_sha256(model.state_dict()) if getattr(model, "trained", False) else ""
        with main_first():  # it downloads, if need be
            self.loss = loss or create_loss(**config.loss_settings())
        self.config = config = dataclasses.replace(config, **_described(self.loss))
        for part in self.loss.perceptual:
            part.extractor.to(self.device, memory_format=torch.channels_last).check_size(config.crop, config.crop)
        self.make_optimizer = optimizer or (lambda parameters: make_optimizer(config, parameters, self.device))
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = self._prepared(trainable)
        self.optimizers = [self.optimizer]  # whose learning rates follow the schedule
        self.ema = AveragedModel(self.model, avg_fn=moving_average(config.ema)) if config.ema else None
        self.network = distribute(self.accelerator, self.model, compiled(self.model, config.compile))
        alike = not config.augment and bank.shows_alike(config.crop)
        self.targets = KeptTargets(self.loss.perceptual, len(bank)) if alike and self.loss.perceptual else None
        self.out = Path(out) if out else None
        self.is_main = self.accelerator.is_main_process  # of several processes the one that writes and prints
        writes = self.out and self.is_main
        self.history = History(self.out / "history.jsonl" if writes else None, config.tensorboard and bool(writes))
        self.steps = config.steps
        if config.num_epoch:
            self.steps = math.ceil(config.num_epoch * len(bank) / config.batch_size)
        self.step_number, self.seconds, self.best, self.interrupted = 0, 0.0, -math.inf, False
        self.parts = 1  # in how many parts a batch goes through the network; more when memory runs out
        self.say: Callable[[str], None] = print if self.is_main else lambda line: None
        self._pending: list[dict[str, Tensor]] = []
        bank.batch(0, 1, config.crop, self.model.scale)  # a crop that does not fit is refused now, not later

    def _prepared(self, parameters: Iterable[nn.Parameter], times: float = 1.0) -> torch.optim.Optimizer:
        """An optimiser for these parameters that knows the full learning rate, and how many times that it takes."""
        optimizer = self.accelerator.prepare(self.make_optimizer(parameters))
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["times"] = times
        return optimizer

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    # ------------------------------------------------------------------------------ one step

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Change the weights once. Returns what the history records, as tensors: nothing waits for the device."""
        self.optimizer.zero_grad()
        values = self.in_parts(self.backward, batch)
        if self.config.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        return values

    def backward(self, batch: Batch, share: float = 1.0) -> dict[str, Tensor]:
        """Add a batch's gradient, times its share, to the weights' gradients; returns what the history records."""
        with self.autocast():
            output = self.answer(batch.low)
            loss, values = self.loss(_full_precision(output), batch.high)
        self.accelerator.backward(loss * share)
        return {"loss": loss.detach(), **values}

    def answer(self, low: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The model's output, in training."""
        return self.network(low)

    def in_parts(self, backward: Callable[[Batch, float], dict[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """The batch's gradient, added up over as many parts as memory asks for: one, as a rule."""
        total: dict[str, Tensor] = {}
        chunks = (Batch(*pair) for pair in zip(*(half.chunk(self.parts) for half in batch), strict=True))
        for part in (batch,) if self.parts == 1 else chunks:
            share = len(part.low) / len(batch.low)
            for name, value in backward(part, share).items():
                total[name] = total.get(name, 0) + value * share
        return total

    def autocast(self) -> torch.autocast:
        """Within it the heavy operations compute in the precision of this training."""
        kinds = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(self.device.type, dtype=kinds[self.precision], enabled=self.precision != "fp32")

    def change(self, **new: float) -> None:
        """Change weights of the loss or the learning rate from the next step on; the history keeps each as a move.

        Args:
            new: by the term's name, e.g. change(relu2_2=0.1), change(**{"x2/psnr": 0}), or learning_rate.

        Raises:
            SRKitError: a term that this loss does not have, a negative weight, or all weights 0. Nothing is changed.
        """
        self.check(new)
        old = {**self.loss.weights, "parts": self.parts, "learning_rate": self.optimizer.param_groups[0]["initial_lr"]}
        moved = {name: value for name, value in new.items() if value != old[name]}
        if not moved:
            return
        self._log()  # what comes before the move is averaged without what comes after it
        for name, value in moved.items():
            self.history.add({"step": self.step_number, f"from/{name}": old[name], f"to/{name}": value})
        self.loss.weights = {name: new.get(name, weight) for name, weight in self.loss.weights.items()}
        self.parts = int(new.get("parts", self.parts))
        for group in self._groups() if "learning_rate" in moved else ():
            group["initial_lr"] = new["learning_rate"]

    def check(self, new: Mapping[str, float]) -> None:
        """Refuse what `change` would refuse, and change nothing."""
        for name in new:
            if name not in self.loss.weights and name not in SETTINGS:
                raise unknown("weight", name, [*self.loss.weights, *SETTINGS])
        check_weights({**self.loss.weights, **{name: new[name] for name in new if name not in SETTINGS}})
        if not 0 < new.get("learning_rate", 1) < math.inf:
            raise SRKitError(f"the learning rate is {new['learning_rate']}: it must be more than 0, e.g. 0.001")

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step as a part of the full one: it rises from 0, then follows the schedule."""
        rising = min(1.0, (step + 1) / self.config.warmup) if self.config.warmup else 1.0
        if self.config.schedule == "constant":
            return rising
        length = self.config.schedule_steps or self.steps
        return rising * 0.5 * (1 + math.cos(math.pi * min(step / length, 1)))

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        """Do the next step, with the logging, validation and saving that are due after it; returns its number."""
        if self.step_number >= self.steps:
            raise StopIteration
        if self.step_number == 0:
            self._set_aside()
        start = time.perf_counter()
        for group in self._groups():
            group["lr"] = group["initial_lr"] * group["times"] * self.learning_rate(self.step_number)
        self.model.train()
        batch = self._batch()
        with self.targets.shown(batch.high, self._chosen()) if self.targets else nullcontext():
            values = self._step_that_fits(batch)
        if self.ema:
            self.ema.update_parameters(self.model)
        if self._pending and self._pending[-1].keys() != values.keys():
            self._log()  # a term came or went: a row holds one kind of step
        self._pending.append(values)
        self.step_number += 1
        last = self.step_number == self.steps
        if last or self.step_number % self.config.log_freq == 0:
            self._log()
        self.seconds += time.perf_counter() - start
        if self.validation is not None and (last or self.step_number % self.config.val_freq == 0):
            self._validate()
        if self.out and (last or self.step_number % self.config.save_freq == 0):
            self.save()
        return self.step_number

    def _step_that_fits(self, batch: Batch) -> dict[str, Tensor]:
        """`step`, with the batch in twice as many parts whenever memory runs out: slower, but the same gradient."""
        while True:
            try:
                return self.step(batch)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            if self.several:  # the others wait for this step's gradient: it cannot begin anew
                raise SRKitError(
                    f"out of memory in process {self.accelerator.process_index}: resume last.pt in more processes, or "
                    "begin again with a smaller --batch-size"
                )
            if self.parts >= len(batch.low):
                raise SRKitError("out of memory with one picture at a time: make --crop or the network smaller")
            if self.targets:
                self.targets.kept.clear()  # its memory serves the network better
                self.targets = None
            gc.collect()
            torch.cuda.empty_cache()
            self.change(parts=min(2 * self.parts, len(batch.low)))
            self.say(f"out of memory: from step {self.step_number + 1} on a batch goes through in {self.parts} parts")

    @property
    def _part(self) -> slice:
        """Which of a batch's pictures are this process's."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    def _chosen(self) -> list[int]:
        return self.bank.chosen(self.step_number, self.config.batch_size, self.config.seed)[self._part]

    def _batch(self) -> Batch:
        config = self.config
        batch = self.bank.batch(
            self.step_number,
            config.batch_size,
            config.crop,
            self.model.scale,
            seed=config.seed,
            augment=config.augment,
            part=self._part,
        )
        return Batch(*(part.to(self.device, non_blocking=True) for part in batch))

    # ------------------------------------------------------------------------------ the whole training

    def fit(self, progress: bool = True) -> History:
        """Train to the last step, with a progress bar; Ctrl-C finishes the step, saves, and stops.

        Returns:
            The history; `trainer.interrupted` says whether Ctrl-C ended the training.

        Raises:
            SRKitError: the loss is no longer a number, or a checkpoint could not be written. The last
                good checkpoint stays.
        """
        from tqdm.auto import tqdm

        self.interrupted = False
        bar = tqdm(
            total=self.steps,
            initial=self.step_number,
            unit="step",
            disable=not progress or not self.is_main or bool(os.environ.get("SRKIT_HEADLESS")),
            dynamic_ncols=True,
            mininterval=0.5,
        )
        with bar, ctrl_c() as stopped:
            for _ in self:
                bar.update()
                if self.history.rows and self.step_number % self.config.log_freq == 0:
                    bar.set_postfix(_brief(self.history.rows[-1]), refresh=False)
                if self._all_stop(stopped.is_set()):
                    self.interrupted = True
                    break
            saved = self.save() if self.interrupted and self.out else None
        if self.interrupted and self.is_main:
            advice = f"srkit resume {saved} goes on" if saved else "not saved, for this Trainer has no folder"
            tqdm.write(f"stopped after step {self.step_number}: {advice}")
        return self.history

    def _all_stop(self, stopped: bool) -> bool:
        """Whether any process was told to stop: all of them hear of it after the same step.

        They ask one another at each step on a CPU, and where the history is due on a GPU, which they then wait for.
        """
        if not self.several:
            return stopped
        if stopped:
            self.accelerator.set_trigger()
        due = self.device.type == "cpu" or self.step_number % self.config.log_freq == 0
        return due and self.accelerator.check_trigger()

    @property
    def result(self) -> nn.Module:
        """The model to use and to measure: with the averaged weights where there are any; in eval mode."""
        model = self.ema.module if self.ema else self.model
        model.trained = bool(self.start) or self.step_number > 0
        return model.eval()

    def verdict(self) -> str:
        """What the history says about the training's health, in plain words; nothing, where one curve says it all."""
        return ""

    def _log(self) -> None:
        """One row from the steps since the last; the only place where numbers leave the device."""
        if not self._pending:
            return
        names = list(self._pending[-1])
        table = torch.stack([torch.stack([values[name] for name in names]) for values in self._pending])
        self._pending.clear()
        over_all = self.accelerator.reduce(table.float().mean(0), "mean")  # each process has as large a part
        means = dict(zip(names, over_all.tolist(), strict=True))
        for name in ("loss", "D/loss"):
            if not math.isfinite(means.get(name, 0)):
                raise SRKitError(self._not_a_number(name))
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.add({"step": self.step_number, "seconds": self.seconds, "learning_rate": rate, **means})

    def _not_a_number(self, name: str) -> str:
        saved = self.out / "last.pt" if self.out else None
        kept = f"the last good checkpoint is {saved}" if saved and saved.exists() else "no checkpoint was saved before"
        what = "the loss" if name == "loss" else "the discriminator's loss"
        return f"{what} is no longer a number near step {self.step_number}: lower --lr, or set --clip 1; {kept}"

    def _validate(self) -> None:
        """Measure, and keep best.pt: the main process alone, so that several come to the figures of one."""
        row = from_main(self._measured() if self.is_main else {})
        self.history.add(row)
        if self.score(row) > self.best:
            self.best = self.score(row)
            if self.out:
                self._write(self.out / "best.pt")

    @torch.inference_mode()
    def _measured(self) -> dict[str, float]:
        """Every term and the PSNR (protocol of metrics.py, dB) on the whole validation pictures, in full precision."""
        start, sums, count = time.perf_counter(), {}, 0
        for low, high in self.validation.pairs(self.model.scale, self.config.batch_size):
            low, high = low.to(self.device), high.to(self.device)
            output = self.result(low)
            _, values = self.loss(output, high, but=("adversarial",))
            values = {name: value for name, value in values.items() if not name.startswith("weighted/")}
            values["dB"] = metrics.psnr(_largest(output), high, self.model.scale).mean()
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value * len(high)
            count += len(high)
        row = {f"val/{name}": (value / count).item() for name, value in sums.items()}
        return {"step": self.step_number, **row, "val/seconds": time.perf_counter() - start}

    def score(self, row: dict[str, float]) -> float:
        """Of a validation's row, what best.pt has the highest of: the PSNR."""
        return row["val/dB"]

    # ------------------------------------------------------------------------------ saving and resuming

    def save(self) -> Path:
        """Write last.pt, keeping the one before as previous.pt; returns its path.

        Without validation best.pt follows last.pt: nothing says which is better.

        Raises:
            SRKitError: the Trainer has no folder, or the loss is no longer a number, or it cannot be written.
        """
        if self.out is None:
            raise SRKitError("this Trainer has no folder to save to: give it out=…")
        self._log()
        self._write(self.out / "last.pt", keep=self.out / "previous.pt")
        if self.validation is None:
            self._write(self.out / "best.pt")
        return self.out / "last.pt"

    def _set_aside(self) -> None:
        """Move what another training left in the folder into folder/replaced, so that beginning anew loses nothing."""
        self.accelerator.wait_for_everyone()  # another process may still be reading what is there
        if self.out and self.is_main and (self.out / "last.pt").exists():
            (self.out / "replaced").mkdir(exist_ok=True)
            for name in ("last.pt", "previous.pt", "best.pt", "history.jsonl"):
                if (self.out / name).exists():
                    os.replace(self.out / name, self.out / "replaced" / name)
            self.say(f"the training that was in {self.out} is now in {self.out / 'replaced'}")

    def _write(self, path: Path, keep: Path | None = None) -> None:
        if self.is_main:
            checkpoint.save(self.state(), path, keep)
        self.accelerator.wait_for_everyone()  # whoever ended before it stands would have the launcher end the writer

    def state(self) -> dict[str, Any]:
        """Everything that exact resuming and rebuilding need, as plain tensors, numbers, strings, lists and dicts."""
        scaler = self.accelerator.scaler
        return {
            "trainer": type(self).__name__,
            "start": self.start,  # the weights that a trained model came with
            "recipe": getattr(self.model, "recipe", {}),
            "config": dataclasses.asdict(self.config),
            "data": self.bank.recipe,
            "validation": self.validation.recipe if self.validation else {},
            "fingerprint": self.bank.fingerprint,
            "student": dataclasses.asdict(self.student),
            "step": self.step_number,  # the sampler's and the schedule's position too: both follow from it
            "seconds": self.seconds,
            "best": self.best,
            "weights": dict(self.loss.weights),  # as moves have left them; config.loss is how they began
            "parts": self.parts,
            "history": self.history.rows,
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
            "random": random_state(),
        }

    def load_state(self, state: dict[str, Any]) -> Trainer:
        """Go on from where a checkpoint stands; returns the Trainer.

        Raises:
            SRKitError: the checkpoint is of another model, or of other pictures.
        """
        if state["fingerprint"] != self.bank.fingerprint:
            raise SRKitError(
                "the pictures are not those that the checkpoint was trained on: exact resuming needs the same ones"
            )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError:
            raise SRKitError(f"the checkpoint holds another model ({state['recipe'].get('name', 'unnamed')})") from None
        if self.ema:
            self.ema.module.load_state_dict(state["ema"] or state["model"])
            self.ema.n_averaged.fill_(state["step"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.start = state["start"]
        self.step_number, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.loss.weights = {name: state["weights"].get(name, weight) for name, weight in self.loss.weights.items()}
        self.parts = state["parts"]
        self.history.restore(state["history"])
        set_random_state(state["random"])
        return self

    def pick_up(self) -> Trainer:
        """Go on from last.pt in this Trainer's folder, if it is of this very training; returns the Trainer.

        `Trainer(…, out=folder).pick_up().fit()` can be run again and again: it trains, goes on where a lost
        session stopped, or finds everything done. A checkpoint with another model, other pictures or other
        settings is left out of account, and a line says so.

        Raises:
            SRKitError: the Trainer has no folder, or the checkpoint there is damaged.
        """
        if self.out is None:
            raise SRKitError("this Trainer has no folder to look into: give it out=…")
        path = self.out / "last.pt"
        if not path.exists():
            return self
        state = checkpoint.load(path)
        mine, theirs = ({**s, **s["config"]} for s in (self.state(), state))
        free = {"num_epoch", "device", "compile", "log_freq", "val_freq", "save_freq", "tensorboard"}
        if self.config.schedule == "constant" or self.config.schedule_steps:
            free.add("steps")
        if not self.loss.perceptual:  # then nothing looks through them; a model's own stand in its recipe
            free |= {"features", "feature_weights", "preprocessing", "content"}
        matter = ["trainer", "recipe", "start", "fingerprint", *(name for name in state["config"] if name not in free)]
        differ = [name for name in matter if mine.get(name) != theirs.get(name)]
        if differ:
            self.say(f"{path} is of another training ({', '.join(differ)}): starting anew")
            return self
        self.say(f"{path}: going on from step {state['step']} of {self.steps}")
        return self.load_state(state)

    @classmethod
    def resume(cls, path: str | Path, out: str | Path | None = None, **changes: Any) -> Trainer:
        """The Trainer that goes on from a checkpoint, with its own model, pictures and settings.

        Args:
            path: the checkpoint.
            out: where to write; the checkpoint's own folder if not given.
            changes: settings to change, e.g. steps=20_000, learning_rate=1e-4.

        Raises:
            SRKitError: the checkpoint cannot be read, or its pictures are no longer there.
        """
        state = checkpoint.load(path)
        if not state["recipe"] or not state["data"]:
            raise SRKitError(
                f"{path} was trained on a model or pictures of your own: make the Trainer, then load_state()"
            )
        if state["trainer"] not in KINDS:
            raise SRKitError(f"{path} was trained by a {state['trainer']}: make one like it and call its pick_up()")
        kind = KINDS[state["trainer"]]
        try:
            config = kind.settings(**{**state["config"], **changes})
        except TypeError as error:
            raise SRKitError(f"no such setting: {error}") from None
        device = open_device(config.device)
        with main_first():
            bank = open_bank(**state["data"], device=device)
            validation = open_bank(**state["validation"], device=device) if state["validation"] else None
            model = models.build(state["recipe"])
        model.trained = True
        trainer = kind(
            model,
            bank,
            config,
            None,
            validation,
            out or Path(path).parent,
            Student(**state["student"]),
        )
        trainer.load_state(state)
        rate = {"learning_rate": config.learning_rate} if "learning_rate" in changes else {}
        trainer.change(**changes.get("loss", {}), **rate)
        return trainer


KINDS: dict[str, type[Trainer]] = {"Trainer": Trainer}  # whom `Trainer.resume` can make again


def _described(loss: WeightedLoss) -> dict[str, Any]:
    """A loss as settings, so that a checkpoint can make it again."""
    settings: dict[str, Any] = {"loss": dict(loss.weights)}
    for part in loss.perceptual[:1]:
        recipe = part.extractor.recipe
        settings |= {"features": recipe["features"], "feature_weights": recipe["weights"]}
        settings |= {"preprocessing": recipe.get("preprocessing", "auto"), "content": part.reads.get("content", ())}
    return settings


def _check_divides(batch_size: int, processes: int) -> None:
    if batch_size % processes:
        less = batch_size // processes * processes
        fitting = " or ".join(str(size) for size in (less, less + processes) if size)
        raise SRKitError(f"a batch of {batch_size} does not divide among {processes} processes: --batch-size {fitting}")


def _brief(row: dict[str, float]) -> dict[str, str]:
    if "val/dB" in row:
        return {"val": f"{row['val/dB']:.2f} dB"}
    return {"loss": f"{row['loss']:.3g}"} if "loss" in row else {}


def _full_precision(output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return output.float() if isinstance(output, Tensor) else tuple(one.float() for one in output)


def _largest(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[-1]
