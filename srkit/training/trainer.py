"""The Trainer: the training loop, one step after another, saved so that nothing is ever lost.

It is an iterator of steps, and the loop itself is `__next__`. What a step does stands in step.py.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srkit import metrics
from srkit.losses import WeightedLoss
from srkit.models.files import damage_of
from srkit.settings import Lock, SRKitError, lock
from srkit.training import checkpoint, optim
from srkit.training.devices import ctrl_c
from srkit.training.history import History
from srkit.training.step import Stepper

# Settings in which a training may differ from the checkpoint that it goes on from.
FREE = {"num_epoch", "device", "compile", "log_freq", "val_freq", "save_freq"}


class Trainer(Stepper):
    """Trains a model, one step after another: `trainer.fit()`, or `for step in trainer: …`.

    The batch and the learning rate of a step follow from its number and the seed alone, and a checkpoint holds the rest
    (weights, average, optimiser, scaler, PyTorch's random state, history). N steps, a checkpoint and N more therefore
    give the weights of 2N steps: bit for bit on the CPU.

    Args:
        model: takes low (N, 3, h, w), gives output (N, 3, scale * h, scale * w); has `.scale`.
        dataset: the training pictures.
        config: the settings.
        loss: what to minimise; a WeightedLoss of `config.loss` if not given.
        validation: pictures to measure on every `val_freq` steps, whole; None for no validation.
        out: folder for last.pt, previous.pt, best.pt and history.jsonl; None writes nothing. It is locked while this
            Trainer trains; another training that is there is moved to out/replaced/N at the first step.
        student: who trains; written into the checkpoints.
        optimizer: makes an optimiser from the parameters, in place of `config.optimizer`.

    Attributes:
        steps, step_number: how many there are, how many are done; `seconds` were spent in them.
        settings: what can be changed during the training besides the weights of the loss: "lr", the learning rate, and
            "accumulate", in how many micro-batches a batch goes through the network: more when memory runs out.
        criterion: the loss whose terms validation measures.
        result: the model to use.
        best: the highest score of a validation; `interrupted`, whether Ctrl-C ended the last `fit`.
        log: takes each line that the Trainer has to say.

    Raises:
        SRKitError: a device that is not there, an unknown optimiser or loss, a patch that does not fit.
    """

    _lock: Lock | None = None

    # ------------------------------------------------------------------------------ the loop

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        """Do the next step, with the logging, validation and saving that are due after it; returns its number."""
        if self.step_number >= self.steps:
            self.release()
            raise StopIteration
        self.claim()
        with self.memory():
            self._next()
        return self.step_number

    def _next(self) -> None:
        start = time.perf_counter()
        rate = self.settings["lr"] * optim.schedule(self.config, self.step_number, self.steps)
        optim.set_learning_rate(self.optimizers, rate)
        self.model.train()
        try:
            values = self.step(self.batch())
        except StopIteration as error:  # it would end a for loop without a word
            raise RuntimeError("a step raised StopIteration") from error
        if self.ema is not None:
            optim.moving_average(self.ema, self.model, self.config.ema, self.step_number)
        if not self.history.fits(values):
            self.flush()  # a term came or went: a row holds one kind of step
        self.history.collect(values)
        self.step_number += 1
        if self._due(self.config.log_freq):
            self.flush()
        self.seconds += time.perf_counter() - start
        if self.validation is not None and self._due(self.config.val_freq):
            self.validate()
        if self.out and self._due(self.save_freq):
            self.save()
        elif self.step_number == self.steps:
            self.check_numbers()

    def fit(self, resume: bool = False, progress: bool = True) -> History:
        """Train to the last step; Ctrl-C finishes the step, saves, and stops.

        Args:
            resume: first go on from last.pt in this Trainer's folder, see `restore`: `fit(resume=True)` can be run
                again and again.
            progress: show a bar (not with SRKIT_HEADLESS).

        Returns:
            The history; `trainer.interrupted` says whether Ctrl-C ended the training.

        Raises:
            SRKitError: the loss is no longer a number, or a checkpoint could not be written. The last good checkpoint
                stays.
        """
        from tqdm.auto import tqdm

        if resume:
            self.restore()
        self.interrupted = False
        hidden = not progress or not self.processes.is_main or bool(os.environ.get("SRKIT_HEADLESS"))
        bar = tqdm(self, total=self.steps, initial=self.step_number, unit="step", disable=hidden, mininterval=0.5)
        try:
            with ctrl_c() as stopped:
                for step in bar:
                    logged = step % self.config.log_freq == 0
                    if logged and self.history.rows:
                        row = self.history.rows[-1]
                        bar.set_postfix({key: row[key] for key in ("loss", "val/dB") if key in row}, refresh=False)
                    # Of several processes on GPUs asking one another would be a wait at each step.
                    ask = self.processes.count == 1 or self.device.type == "cpu" or logged
                    if ask and self.processes.any(stopped.is_set()):
                        self.interrupted = True
                        saved = f"srkit resume {self.save()} goes on" if self.out else "not saved, for it has no folder"
                        self.log(f"stopped after step {step}: {saved}")
                        break
        finally:
            bar.close()
            self.release()
        return self.history

    def _due(self, frequency: int) -> bool:
        return self.step_number == self.steps or self.step_number % frequency == 0

    @property
    def save_freq(self) -> int:
        """Steps between two checkpoints: the config's, or a tenth of all, 500 at most, where a history's row ends."""
        often, row = min(500, self.steps // 10), self.config.log_freq
        return self.config.save_freq or max(row, often - often % row)

    # ------------------------------------------------------------------------------ measuring

    @property
    def result(self) -> nn.Module:
        """The model to use and to measure: with the averaged weights where there are any; in eval mode."""
        model = self.model if self.ema is None else self.ema
        model.pretrained = bool(self.start) or self.step_number > 0
        return model.eval()

    def validate(self) -> None:
        """Measure by the protocol of metrics.py, and keep best.pt: the main process alone, for all."""
        row = self.processes.from_main(self._measure() if self.processes.is_main else {})
        self.history.add(row)
        if self.score(row) > self.best:
            self.best = self.score(row)
            if self.out:
                self._write("best.pt")

    def score(self, row: dict[str, float]) -> float:
        """Of a validation's row, what best.pt has the highest of: the PSNR."""
        return row["val/dB"]

    def _measure(self) -> dict[str, float]:
        assert self.validation is not None
        start, options = time.perf_counter(), {"batch_size": self.config.batch_size, "with_ssim": False}
        table = metrics.evaluate(self.result, self.validation, self.model.scale, self.criterion, **options)
        row = {f"val/{name}": value for name, value in {**table.terms, "dB": table.psnr}.items()}
        return {"step": self.step_number, **row, "val/seconds": time.perf_counter() - start}

    def diagnose(self) -> str:
        """What the history says about the training's health, in plain words; nothing, where one curve says it all."""
        return ""

    # ------------------------------------------------------------------------------ saving

    def save(self) -> Path:
        """Write last.pt, keeping the one before as previous.pt; returns its path.

        Without validation best.pt follows last.pt: nothing says which is better.

        Raises:
            SRKitError: the Trainer has no folder, loss or weights are no longer numbers, or it cannot be written.
        """
        if self.out is None:
            raise SRKitError("this Trainer has no folder to save to: give it out=…")
        self.flush()
        self._write("last.pt", keep=self.out / "previous.pt")
        if self.validation is None:
            self._write("best.pt")
        return self.out / "last.pt"

    def _write(self, name: str, keep: Path | None = None) -> None:
        self.check_numbers()
        if self.out and self.processes.is_main:
            checkpoint.save(self.state(), self.out / name, keep)
        self.processes.wait()  # whoever ended before it stands would have the launcher end the writer

    def claim(self) -> None:
        """Before a step: lock the folder; before the first, move what another training left there out of the way.

        Raises:
            SRKitError: another process trains there, or the folder cannot be written.
        """
        if self.step_number == 0:
            self.processes.wait()  # another process may still be reading what is there
        if self.out and self.processes.is_main and self._lock is None:
            self._lock = lock(self.out, wait=False)
            if self.step_number == 0 and (aside := checkpoint.set_aside(self.out)):
                self.log(f"the training that was in {self.out} is now in {aside}")
            self.history.open()

    def release(self) -> None:
        """Let others train in this Trainer's folder."""
        self.history.opened = False
        if self._lock:
            self._lock.release()
        self._lock = None

    def state(self) -> dict[str, Any]:
        """Everything that exact resuming and rebuilding need, as plain tensors, numbers, strings, lists and dicts."""
        cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []  # of this process's own GPU
        return {
            "trainer": type(self).__name__,
            "start": self.start,  # sha256 of the weights that a pretrained model came with
            "model_config": getattr(self.model, "config", {}),
            "code": checkpoint.code_of(self.model, self),
            "config": dataclasses.asdict(self.config),
            "dataset": self.dataset.config,
            "validation": self.validation.config if self.validation else {},
            "fingerprint": self.dataset.fingerprint,
            "student": dataclasses.asdict(self.student),
            "step": self.step_number,  # the sampler's and the schedule's position too: both follow from it
            "seconds": self.seconds,
            "best": self.best,
            "weights": dict(self.loss.weights),  # as moves have left them; config.loss is how they began
            "settings": dict(self.settings),
            "history": list(self.history.rows),
            "moves": [list(move) for move in self.history.moves],
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": {"torch": torch.get_rng_state(), "cuda": cuda},
        }

    # ------------------------------------------------------------------------------ going on

    def load_state(self, state: dict[str, Any]) -> Trainer:
        """Go on from where a checkpoint stands; returns the Trainer.

        Raises:
            SRKitError: the checkpoint is of another model, or of other pictures.
        """
        if state["fingerprint"] != self.dataset.fingerprint:
            raise SRKitError("the checkpoint was trained on other pictures: exact resuming needs the same ones")
        with damage_of("the checkpoint"):
            self._load_state(state)
        return self

    def _load_state(self, state: dict[str, Any]) -> None:
        weights = {name: state["weights"].get(name, weight) for name, weight in self.loss.weights.items()}
        self.check({**weights, **state["settings"]})
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError:
            raise SRKitError(f"the checkpoint holds another model ({state['model_config'].get('name')})") from None
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"] or state["model"])
        optim.load(self.optimizer, state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.start = state["start"]
        self.step_number, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.loss.weights = weights
        self.settings |= state["settings"]
        self.history.restore(state["history"], state["moves"])
        torch.set_rng_state(state["random"]["torch"])
        if state["random"]["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random"]["cuda"][0])

    def restore(self) -> Trainer:
        """Go on from last.pt in this Trainer's folder, if it is of this very training; returns the Trainer.

        A checkpoint with another model, other pictures or other settings is left out of account, and a line says so.

        Raises:
            SRKitError: the Trainer has no folder, or the checkpoint there is damaged.
        """
        if self.out is None:
            raise SRKitError("this Trainer has no folder to look into: give it out=…")
        path = self.out / "last.pt"
        if not path.exists():
            return self
        state = checkpoint.load(path)
        if differ := self._differences(state):
            self.log(f"{path} is of another training ({', '.join(differ)}): starting anew")
            return self
        self.log(f"{path}: going on from step {state['step']} of {self.steps}")
        return self.load_state(state)

    def _differences(self, state: dict[str, Any]) -> list[str]:
        """What makes a checkpoint one of another training than this."""
        free = set(FREE)
        if self.config.schedule == "constant" or self.config.schedule_steps:
            free.add("steps")
        if not self.loss.perceptual:  # then no loss reads them; a model's own stand in its config
            free |= {"features", "feature_weights", "preprocessing", "content", "style", "style_size"}
        own = self.state()
        same = ("trainer", "model_config", "code", "start", "fingerprint")
        names = [name for name in same if own[name] != state[name]]
        if not own["model_config"] and not checkpoint.same_shapes(own["model"], state["model"]):
            names.append("model")
        settings = [name for name in own["config"] if name not in free]
        defaults = {name: getattr(type(self.config), name, None) for name in settings}  # of fields that are newer
        then = {name: state["config"].get(name, defaults[name]) for name in settings}
        return names + [name for name in settings if not _same(own["config"][name], then[name])]

    def fresh(self, **arguments: Any) -> Trainer:
        """A new Trainer of this one's kind, model, dataset and loss, as config describes it, that writes nothing."""
        loss = WeightedLoss(self.config.loss, *self.loss.perceptual, terms=copy.deepcopy(self.loss.terms))
        arguments = {"student": self.student, "optimizer": self.make_optimizer, **arguments}
        return type(self)(copy.deepcopy(self.model), self.dataset, self.config, loss=loss, **arguments)


def _same(own: Any, other: Any) -> bool:
    """Equal; a loss's weights to a thousandth, for those that were computed of pictures another machine rounds anew."""
    if isinstance(own, dict) and isinstance(other, dict):
        return own.keys() == other.keys() and all(math.isclose(own[name], other[name], rel_tol=1e-3) for name in own)
    return own == other
