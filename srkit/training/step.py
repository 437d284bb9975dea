"""What one step of a training works with, and what it does; `trainer.Trainer` repeats it, measures and saves.

A subclass that trains otherwise replaces `step` (`gan.GANTrainer`).
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from srkit import losses
from srkit.data import Batch, ImageDataset
from srkit.losses import WeightedLoss
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError, Student, choose_precision, free_memory, out_of_memory, unknown
from srkit.training import optim
from srkit.training.config import TrainConfig
from srkit.training.devices import Processes, main_first, open_device
from srkit.training.history import History, Move
from srkit.training.targets import TargetFeatures

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
Backward = Callable[[Batch, float], dict[str, Tensor]]


class Stepper:
    """Everything that a step needs and changes; the arguments are those of `trainer.Trainer`."""

    config_class: type[TrainConfig] = TrainConfig

    def __init__(
        self,
        model: Any,  # an nn.Module, which may have attributes of its own beside .scale
        dataset: ImageDataset,
        config: TrainConfig | None = None,
        loss: WeightedLoss | None = None,
        validation: ImageDataset | None = None,
        out: str | Path | None = None,
        student: Student | None = None,
        optimizer: MakeOptimizer | None = None,
    ) -> None:
        config = config or self.config_class()
        self.device = open_device(config.device)
        gigabytes = 15e-9 * config.batch_size * config.patch_size**2  # of high alone: as bytes, and as floats
        if gigabytes > 1e-9 * free_memory(self.device):
            raise SRKitError(f"a batch takes {gigabytes:.1f} GB of memory: make --batch-size or --patch-size smaller")
        self.precision = choose_precision(config.precision, self.device)
        self.processes = Processes(self.device)
        self.processes.check_divides(config.batch_size)
        self.log: Callable[[str], None] = print if self.processes.is_main else lambda line: None
        self.dataset, self.validation, self.student = dataset, validation, student or Student()
        self.out = Path(out) if out else None
        self.history = History(self.out / "history.jsonl" if self.out and self.processes.is_main else None)
        self.steps = config.steps
        if config.num_epoch:
            self.steps = math.ceil(config.num_epoch * len(dataset) / config.batch_size)
        self.step_number, self.seconds, self.best, self.interrupted = 0, 0.0, -math.inf, False

        self.start = weights_sha256(model.state_dict()) if getattr(model, "pretrained", False) else ""
        # Three-channel pictures stay NCHW: only inside the model does channels_last pay.
        self.model: Any = model.to(self.device, memory_format=torch.channels_last)
        self.network = self.processes.distribute(model, torch.compile(model) if config.compile else model)
        self.ema: Any = copy.deepcopy(model).requires_grad_(False) if config.ema else None

        with main_first():  # it downloads, if need be
            self.loss = loss or losses.create(**config.loss_settings())
        self.criterion = self.loss
        self.config = config = config.with_loss(self.loss)
        for part in self.loss.perceptual:
            part.extractor.to(self.device).to(memory_format=torch.channels_last)
            part.extractor.check_size(config.patch_size)
        same_patches = not config.augment and dataset.always_whole(config.patch_size)
        self.targets = TargetFeatures(len(dataset)) if same_patches else None

        self.settings: dict[str, float] = {"lr": config.lr, "accumulate": 1}
        self.make_optimizer: MakeOptimizer = optimizer or partial(optim.make_optimizer, config, self.device)
        self.optimizers: list[Optimizer] = []
        self.optimizer = self.add_optimizer(parameter for parameter in model.parameters() if parameter.requires_grad)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        dataset.batch(0, 1, config.patch_size, model.scale)  # a patch that does not fit is refused now, not later

    def add_optimizer(self, parameters: Iterable[nn.Parameter], factor: float = 1.0) -> Optimizer:
        """An optimiser for these parameters whose learning rate is `factor` times that of the schedule."""
        optimizer = self.make_optimizer(parameters)
        for group in optimizer.param_groups:
            group["factor"] = factor * group["lr"] / self.config.lr
        self.optimizers.append(optimizer)
        return optimizer

    # ------------------------------------------------------------------------------ one step

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Change the weights once. Returns what the history records, as tensors: nothing waits for the device."""
        values = self.accumulate(self.optimizer, self.backward, batch)
        self.update(self.optimizer, self.config.clip)
        self.scaler.update()
        return values

    def backward(self, batch: Batch, share: float = 1.0) -> dict[str, Tensor]:
        """Add a batch's gradient, times its share, to the weights' gradients; returns what the history records."""
        with self.autocast():
            output = self.generate(batch.low)
            output = output.float() if isinstance(output, Tensor) else tuple(one.float() for one in output)
            loss, values = self.loss(output, batch.high, targets=self._target_features())
        self.scaler.scale(loss * share).backward()
        return {"loss": loss.detach(), **values}

    def generate(self, low: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The model's output, in training."""
        return self.network(low)

    def accumulate(
        self, optimizer: Optimizer, backward: Backward, batch: Batch, setting: str = "accumulate"
    ) -> dict[str, Tensor]:
        """The batch's gradient, summed over micro-batches: one, as a rule, and twice as many when memory runs out.

        Only gradients are computed again then: no weights have changed, and batch normalisation's statistics are put
        back.
        """
        buffers = self._buffers()
        before = [torch.empty_like(buffer) for buffer in buffers]
        optim.copy_all(before, buffers)
        while True:
            optimizer.zero_grad()
            count, total = int(self.settings[setting]), {}
            try:
                for low, high in zip(batch.low.chunk(count), batch.high.chunk(count), strict=True):
                    share = len(low) / len(batch.low)
                    for name, value in backward(Batch(low, high), share).items():
                        total[name] = total.get(name, 0) + value * share
                return total
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            optim.copy_all(buffers, before)
            self._accumulate_more(setting, len(batch.low))

    def _buffers(self) -> list[Tensor]:
        return [buffer for network in self.networks() for buffer in network.buffers()]

    def _accumulate_more(self, setting: str, batch_size: int) -> None:
        if self.processes.count > 1:  # the others wait for this step's gradient: it cannot begin anew
            where = f"out of memory in process {self.processes.index}"
            raise SRKitError(f"{where}: resume last.pt in more processes, or begin with a smaller --batch-size")
        count = int(self.settings[setting])
        if count >= batch_size:
            raise SRKitError("out of memory with one picture at a time: make --patch-size or the network smaller")
        self.targets = None  # its memory serves the network better
        gc.collect()
        torch.cuda.empty_cache()
        self.change(**{setting: min(2 * count, batch_size)})
        self.log(f"out of memory: from step {self.step_number + 1} on {setting} is {self.settings[setting]}")

    def update(self, optimizer: Optimizer, max_norm: float = 0.0) -> Tensor:
        """Let the optimiser change its weights; returns the norm of their gradient if that was to be limited."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, max_norm) if max_norm else torch.zeros(())
        self.scaler.step(optimizer)
        return norm

    def batch(self) -> Batch:
        """This step's batch, of several processes this one's part, on the device."""
        config, scale, shard = self.config, self.model.scale, self.processes.shard
        options = {"seed": config.seed, "augment": config.augment, "shard": shard}
        batch = self.dataset.batch(self.step_number, config.batch_size, config.patch_size, scale, **options)
        return Batch(*(half.to(self.device, non_blocking=True) for half in batch))

    def autocast(self) -> torch.autocast:
        """Within it the heavy operations compute in the precision of this training."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def _target_features(self) -> Callable | None:
        """Where the loss finds the feature maps of this batch's ground truths, if they are kept; see TargetFeatures."""
        if self.targets is None or self.settings["accumulate"] > 1:
            return None
        indices = self.dataset.indices(self.step_number, self.config.batch_size, self.config.seed)
        return self.targets.for_batch(indices[self.processes.shard])

    # ------------------------------------------------------------------------------ between two steps

    def change(self, **new: float) -> None:
        """Change weights of the loss or settings from the next step on; the history keeps each as a move.

        Args:
            new: by the term's name, e.g. change(relu2_2=0.1), change(**{"x2/psnr": 0}), or lr, accumulate.

        Raises:
            SRKitError: a term that this loss does not have, a negative weight, or all weights 0. Nothing is changed.
        """
        self.check(new)
        old = {**self.loss.weights, **self.settings}
        moves = [Move(self.step_number, name, old[name], value) for name, value in new.items() if value != old[name]]
        if moves:
            self.flush()  # what comes before the move is averaged without what comes after it
        for move in moves:
            self.history.add_move(move)
            values = self.settings if move.name in self.settings else self.loss.weights
            values[move.name] = move.new

    def check(self, new: Mapping[str, float]) -> None:
        """Refuse what `change` would refuse, and change nothing."""
        for name in new:
            if name not in self.loss.weights and name not in self.settings:
                raise unknown("weight", name, [*self.loss.weights, *self.settings])
        losses.check_weights({name: new.get(name, weight) for name, weight in self.loss.weights.items()})
        if not 0 < new.get("lr", 1) < math.inf:
            raise SRKitError(f"the learning rate is {new['lr']}: it must be more than 0, e.g. 0.001")
        for name in self.settings.keys() & new.keys() - {"lr"}:
            if new[name] not in range(1, (most := self.config.batch_size) + 1):
                raise SRKitError(f"{name} is {new[name]}: it is a whole number from 1 to the batch's {most}")

    def flush(self) -> None:
        """One row of the history from the steps since the last; the only place where numbers leave the device.

        Raises:
            SRKitError: the loss is no longer a number; the message names the last good checkpoint.
        """
        rate = self.optimizer.param_groups[0]["lr"]
        row = self.history.flush(self.step_number, self.seconds, rate, self.processes)
        for name in ("loss", "D/loss"):
            if not math.isfinite(row.get(name, 0)):
                raise self.no_number(name)

    def check_numbers(self) -> None:
        """Whether the weights are numbers still: one wait for the device.

        Raises:
            SRKitError: one is not; the message names the last good checkpoint.
        """
        weights = [value for network in self.networks() for value in network.state_dict().values()]
        if not torch.stack([value.isfinite().all() for value in weights]).all():
            raise self.no_number("a weight")

    def networks(self) -> list[nn.Module]:
        """What this training changes."""
        return [self.model]

    def no_number(self, what: str) -> SRKitError:
        """The error for a loss or a weight that is NaN or infinite."""
        advice = f"lower --lr, or set --clip 1; {self._kept()}"
        return SRKitError(f"{what} is no longer a number near step {self.step_number}: {advice}")

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Within it, memory that runs out where no micro-batches help is one line.

        Raises:
            SRKitError: in place of an error that says so; the message names the last good checkpoint.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            advice = f"make --batch-size, the network or the pictures for validation smaller; {self._kept()}"
            raise SRKitError(f"out of memory near step {self.step_number}: {advice}") from error

    def _kept(self) -> str:
        saved = self.out / "last.pt" if self.out else None
        return f"the last good checkpoint is {saved}" if saved and saved.exists() else "no checkpoint was saved before"
