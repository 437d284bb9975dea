"""The training loop: one step after another, saved so that nothing is ever lost.

A `Loop` is an iterator of steps: the loop itself is `__next__`. What a step does, a Trainer says.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srkit import metrics
from srkit.data import Batch, ImageDataset
from srkit.losses import WeightedLoss
from srkit.settings import SRKitError
from srkit.training import checkpoint, optim
from srkit.training.config import TrainConfig
from srkit.training.devices import Processes, ctrl_c
from srkit.training.history import History

# Settings in which a training may differ from the checkpoint that it goes on from.
FREE = {"num_epoch", "device", "compile", "log_freq", "val_freq", "save_freq"}


class Loop:
    """Steps with their logging, validation and saving; `trainer.Trainer` makes it whole.

    Attributes:
        steps, step_number: how many there are, how many are done; `seconds` were spent in them.
        best: the highest score of a validation; `interrupted`, whether Ctrl-C ended the last `fit`.
        log: takes each line that there is to say.
    """

    config: TrainConfig
    model: Any  # an nn.Module, which may have attributes of its own beside .scale
    ema: Any
    loss: WeightedLoss
    criterion: WeightedLoss
    validation: ImageDataset | None
    settings: dict[str, float]
    optimizers: list[torch.optim.Optimizer]
    device: torch.device
    processes: Processes
    start: str

    def __init__(self, steps: int, out: str | Path | None, processes: Processes) -> None:
        self.steps, self.processes = steps, processes
        self.out = Path(out) if out else None
        self.folder = checkpoint.Folder(self.out) if self.out and processes.is_main else None
        self.history = History(self.out / "history.jsonl" if self.out and processes.is_main else None)
        self.step_number, self.seconds, self.best, self.interrupted = 0, 0.0, -math.inf, False
        self.log: Callable[[str], None] = print if processes.is_main else lambda line: None

    # ------------------------------------------------------------------------------ what a Trainer says

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Change the weights once; returns what the history records."""
        raise NotImplementedError

    def batch(self) -> Batch:
        """The batch of this step."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All that exact resuming needs."""
        raise NotImplementedError

    def load_state(self, state: dict[str, Any]) -> Any:
        """Go on from such a state."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------ the loop

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        """Do the next step, with the logging, validation and saving that are due after it; returns its number."""
        if self.step_number >= self.steps:
            self.release()
            raise StopIteration
        self._claim_folder()
        start = time.perf_counter()
        self._set_learning_rates()
        self.model.train()
        try:
            values = self.step(self.batch())
        except StopIteration as error:  # it would end a for loop without a word
            raise RuntimeError("a step raised StopIteration") from error
        if self.ema is not None:
            optim.moving_average(self.ema, self.model, self.config.ema, self.step_number)
        if not self.history.fits(values):
            self._flush()  # a term came or went: a row holds one kind of step
        self.history.collect(values)
        self.step_number += 1
        if self._due(self.config.log_freq):
            self._flush()
        self.seconds += time.perf_counter() - start
        if self.validation is not None and self._due(self.config.val_freq):
            self.validate()
        if self.out and self._due(self.config.save_freq):
            self.save()
        return self.step_number

    def _set_learning_rates(self) -> None:
        rate = self.settings["lr"] * optim.learning_rate(self.config, self.step_number, self.steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["factor"] * rate

    def _due(self, frequency: int) -> bool:
        return self.step_number == self.steps or self.step_number % frequency == 0

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
        self.interrupted, saved = False, None
        hidden = not progress or not self.processes.is_main or bool(os.environ.get("SRKIT_HEADLESS"))
        bar = tqdm(total=self.steps, initial=self.step_number, unit="step", disable=hidden, mininterval=0.5)
        try:
            with bar, ctrl_c() as stopped:
                for step in self:
                    bar.update()
                    logged = step % self.config.log_freq == 0
                    if logged and self.history.rows:
                        bar.set_postfix(_brief(self.history.rows[-1]), refresh=False)
                    # Of several processes on GPUs asking one another would be a wait at each step.
                    ask = self.processes.count == 1 or self.device.type == "cpu" or logged
                    if ask and self.processes.any(stopped.is_set()):
                        self.interrupted = True
                        break
                saved = self.save() if self.interrupted and self.out else None
        finally:
            self.release()
        if self.interrupted:
            advice = f"srkit resume {saved} goes on" if saved else "not saved, for this Trainer has no folder"
            self.log(f"stopped after step {self.step_number}: {advice}")
        return self.history

    @property
    def result(self) -> nn.Module:
        """The model to use and to measure: with the averaged weights where there are any; in eval mode."""
        model = self.model if self.ema is None else self.ema
        model.pretrained = bool(self.start) or self.step_number > 0
        return model.eval()

    def diagnose(self) -> str:
        """What the history says about the training's health, in plain words; nothing, where one curve says it all."""
        return ""

    def _flush(self) -> None:
        """One row of the history from the steps since the last; the only place where numbers leave the device."""
        row = self.history.flush(
            self.step_number, self.seconds, self.optimizers[0].param_groups[0]["lr"], self.processes
        )
        for name in ("loss", "D/loss"):
            if not math.isfinite(row.get(name, 0)):
                raise SRKitError(self._not_finite("the loss" if name == "loss" else "the discriminator's loss"))

    def _not_finite(self, what: str) -> str:
        saved = self.out / "last.pt" if self.out else None
        kept = f"the last good checkpoint is {saved}" if saved and saved.exists() else "no checkpoint was saved before"
        return f"{what} is no longer a number near step {self.step_number}: lower --lr, or set --clip 1; {kept}"

    # ------------------------------------------------------------------------------ validation

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
        start = time.perf_counter()
        table = metrics.evaluate(
            self.result,
            self.validation,
            self.model.scale,
            self.criterion,
            batch_size=self.config.batch_size,
            with_ssim=False,
        )
        row = {f"val/{name}": value for name, value in {**table.terms, "dB": table.psnr}.items()}
        return {"step": self.step_number, **row, "val/seconds": time.perf_counter() - start}

    # ------------------------------------------------------------------------------ saving and resuming

    def save(self) -> Path:
        """Write last.pt, keeping the one before as previous.pt; returns its path.

        Without validation best.pt follows last.pt: nothing says which is better.

        Raises:
            SRKitError: the Trainer has no folder, loss or weights are no longer numbers, or it cannot be written.
        """
        if self.out is None:
            raise SRKitError("this Trainer has no folder to save to: give it out=…")
        self._flush()
        if not torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).all():
            raise SRKitError(self._not_finite("a weight"))
        self._write("last.pt", keep="previous.pt")
        if self.validation is None:
            self._write("best.pt")
        return self.out / "last.pt"

    def release(self) -> None:
        """Let others train in this Trainer's folder."""
        if self.folder:
            self.folder.release()

    def _claim_folder(self) -> None:
        """Before a step: lock the folder; before the first, move what another training left there out of the way."""
        if self.step_number == 0:
            self.processes.wait()  # another process may still be reading what is there
        if self.folder and not self.folder.claimed:
            self.folder.claim()
            if self.step_number == 0 and (aside := self.folder.set_aside()):
                self.log(f"the training that was in {self.out} is now in {aside}")

    def _write(self, name: str, keep: str | None = None) -> None:
        if self.folder:
            self.folder.save(self.state(), name, keep)
        self.processes.wait()  # whoever ended before it stands would have the launcher end the writer

    def restore(self) -> Loop:
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
        differ = self._differences(state)
        if differ:
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
            free |= {"features", "feature_weights", "preprocessing", "content"}
        own = self.state()
        names = [name for name in ("trainer", "model_config", "start", "fingerprint") if own[name] != state[name]]
        settings = [name for name in own["config"] if name not in free]
        return names + [name for name in settings if own["config"][name] != state["config"].get(name)]


def _brief(row: dict[str, float]) -> dict[str, str]:
    if "val/dB" in row:
        return {"val": f"{row['val/dB']:.2f} dB"}
    return {"loss": f"{row['loss']:.3g}"} if "loss" in row else {}
