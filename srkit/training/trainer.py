"""The Trainer: what one step of a training does. `loop.Loop` repeats it, measures and saves.

A subclass that trains otherwise replaces `step` (`gan.GANTrainer`).
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srkit import losses
from srkit.data import Batch, ImageDataset
from srkit.losses import TargetFeatures, WeightedLoss
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError, Student, choose_precision, out_of_memory, unknown
from srkit.training import optim
from srkit.training.config import TrainConfig
from srkit.training.devices import Processes, main_first, open_device, random_state, set_random_state
from srkit.training.history import Move
from srkit.training.loop import Loop

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Trainer(Loop):
    """Trains a model, one step after another: `trainer.fit()`, or `for step in trainer: …`.

    The batch and the learning rate of a step follow from its number and the seed alone, and a checkpoint holds the rest
    (weights, average, optimiser, scaler, random states, history). N steps, a checkpoint and N more therefore give the
    weights of 2N steps: bit for bit on the CPU.

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
        settings: what can be changed during the training besides the weights of the loss: "lr", the learning rate, and
            "accumulate", in how many micro-batches a batch goes through the network: more when memory runs out.
        criterion: the loss whose terms validation measures.
        result: the model to use.
        log: takes each line that the Trainer has to say.

    Raises:
        SRKitError: a device that is not there, an unknown optimiser or loss, a patch that does not fit.
    """

    config_class: type[TrainConfig] = TrainConfig

    def __init__(
        self,
        model: Any,
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
        self.precision = choose_precision(config.precision, self.device)
        steps = math.ceil(config.num_epoch * len(dataset) / config.batch_size) if config.num_epoch else config.steps
        super().__init__(steps, out, Processes(self.device))
        self.processes.check_divides(config.batch_size)
        self.dataset, self.validation, self.student = dataset, validation, student or Student()

        self.start = weights_sha256(model.state_dict()) if getattr(model, "pretrained", False) else ""
        # Three-channel pictures stay NCHW: only inside the model does channels_last pay.
        self.model = model.to(self.device, memory_format=torch.channels_last)
        compiled: Any = torch.compile(model) if config.compile else model
        self.network = self.processes.distribute(model, compiled)
        self.ema = copy.deepcopy(model).requires_grad_(False) if config.ema else None

        with main_first():  # it downloads, if need be
            self.loss = loss or losses.create(**config.loss_settings())
        self.criterion = self.loss
        self.config = config = dataclasses.replace(config, **_described(self.loss))
        for part in self.loss.perceptual:
            part.extractor.to(self.device).to(memory_format=torch.channels_last)
            part.extractor.check_size(config.patch_size)
        same_patches = not config.augment and dataset.always_whole(config.patch_size)
        self.targets = TargetFeatures(len(dataset)) if same_patches else None

        self.settings = {"lr": config.lr, "accumulate": 1}
        self.make_optimizer = optimizer
        self.optimizers = []
        self.optimizer = self.add_optimizer(parameter for parameter in model.parameters() if parameter.requires_grad)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        dataset.batch(0, 1, config.patch_size, model.scale)  # a patch that does not fit is refused now, not later

    def add_optimizer(self, parameters: Iterable[nn.Parameter], factor: float = 1.0) -> torch.optim.Optimizer:
        """An optimiser for these parameters whose learning rate is `factor` times that of the schedule."""
        make = self.make_optimizer or (lambda parameters: optim.make_optimizer(self.config, parameters, self.device))
        optimizer = make(parameters)
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
            loss, values = self.loss(_full_precision(output), batch.high, targets=self._target_features())
        self.scaler.scale(loss * share).backward()
        return {"loss": loss.detach(), **values}

    def generate(self, low: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The model's output, in training."""
        return self.network(low)

    def accumulate(
        self,
        optimizer: torch.optim.Optimizer,
        backward: Callable[[Batch, float], dict[str, Tensor]],
        batch: Batch,
        setting: str = "accumulate",
    ) -> dict[str, Tensor]:
        """The batch's gradient, summed over micro-batches: one, as a rule, and twice as many when memory runs out.

        Only gradients are computed again then, no weights have changed.
        """
        while True:
            optimizer.zero_grad()
            count, total = int(self.settings[setting]), {}
            try:
                for micro_batch in _split(batch, count):
                    share = len(micro_batch.low) / len(batch.low)
                    for name, value in backward(micro_batch, share).items():
                        total[name] = total.get(name, 0) + value * share
                return total
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            self._accumulate_more(setting, len(batch.low))

    def update(self, optimizer: torch.optim.Optimizer, max_norm: float = 0.0) -> Tensor:
        """Let the optimiser change its weights; returns the norm of their gradient if that was to be limited."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, max_norm) if max_norm else torch.zeros(())
        self.scaler.step(optimizer)
        return norm

    def batch(self) -> Batch:
        """This step's batch, of several processes this one's part, on the device."""
        config = self.config
        batch = self.dataset.batch(
            self.step_number,
            config.batch_size,
            config.patch_size,
            self.model.scale,
            seed=config.seed,
            augment=config.augment,
            shard=self._shard,
        )
        return Batch(*(half.to(self.device, non_blocking=True) for half in batch))

    def autocast(self) -> torch.autocast:
        """Within it the heavy operations compute in the precision of this training."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def _accumulate_more(self, setting: str, batch_size: int) -> None:
        if self.processes.count > 1:  # the others wait for this step's gradient: it cannot begin anew
            raise SRKitError(
                f"out of memory in process {self.processes.index}: resume last.pt in more processes, or begin again "
                "with a smaller --batch-size"
            )
        count = int(self.settings[setting])
        if count >= batch_size:
            raise SRKitError("out of memory with one picture at a time: make --patch-size or the network smaller")
        self.targets = None  # its memory serves the network better
        gc.collect()
        torch.cuda.empty_cache()
        self.change(**{setting: min(2 * count, batch_size)})
        self.log(f"out of memory: from step {self.step_number + 1} on {setting} is {self.settings[setting]}")

    def _target_features(self) -> Callable | None:
        """Where the loss finds the feature maps of this batch's ground truths, if they are kept; see TargetFeatures."""
        config = self.config
        if self.targets is None or self.settings["accumulate"] > 1:
            return None
        indices = self.dataset.indices(self.step_number, config.batch_size, config.seed)[self._shard]
        return self.targets.for_batch(indices)

    @property
    def _shard(self) -> slice:
        return slice(self.processes.index, None, self.processes.count)

    # ------------------------------------------------------------------------------ the whole training

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
        if not moves:
            return
        self._flush()  # what comes before the move is averaged without what comes after it
        for move in moves:
            self.history.add_move(move)
        self.loss.weights = {name: new.get(name, weight) for name, weight in self.loss.weights.items()}
        self.settings = {name: new.get(name, value) for name, value in self.settings.items()}

    def check(self, new: Mapping[str, float]) -> None:
        """Refuse what `change` would refuse, and change nothing."""
        for name in new:
            if name not in self.loss.weights and name not in self.settings:
                raise unknown("weight", name, [*self.loss.weights, *self.settings])
        losses.check_weights({name: new.get(name, weight) for name, weight in self.loss.weights.items()})
        if not 0 < new.get("lr", 1) < math.inf:
            raise SRKitError(f"the learning rate is {new['lr']}: it must be more than 0, e.g. 0.001")

    def fresh(self, **arguments: Any) -> Trainer:
        """A new Trainer of this one's kind, model, dataset and loss, as config describes it, that writes nothing."""
        loss = WeightedLoss(self.config.loss, *self.loss.perceptual, terms=copy.deepcopy(self.loss.terms))
        arguments = {"student": self.student, "optimizer": self.make_optimizer, **arguments}
        return type(self)(copy.deepcopy(self.model), self.dataset, self.config, loss=loss, **arguments)

    # ------------------------------------------------------------------------------ saving and resuming

    def state(self) -> dict[str, Any]:
        """Everything that exact resuming and rebuilding need, as plain tensors, numbers, strings, lists and dicts."""
        return {
            "trainer": type(self).__name__,
            "start": self.start,  # sha256 of the weights that a pretrained model came with
            "model_config": getattr(self.model, "config", {}),
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
            "random": random_state(),
        }

    def load_state(self, state: dict[str, Any]) -> Trainer:
        """Go on from where a checkpoint stands; returns the Trainer.

        Raises:
            SRKitError: the checkpoint is of another model, or of other pictures.
        """
        if state["fingerprint"] != self.dataset.fingerprint:
            raise SRKitError(
                "the pictures are not those that the checkpoint was trained on: exact resuming needs the same ones"
            )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError:
            name = state["model_config"].get("name", "unnamed")
            raise SRKitError(f"the checkpoint holds another model ({name})") from None
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"] or state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.start = state["start"]
        self.step_number, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.loss.weights = {name: state["weights"].get(name, weight) for name, weight in self.loss.weights.items()}
        self.settings = {**self.settings, **state["settings"]}
        self.history.restore(state["history"], state["moves"])
        set_random_state(state["random"])
        return self


def _described(loss: WeightedLoss) -> dict[str, Any]:
    """A loss as settings, so that a checkpoint can make it again."""
    settings: dict[str, Any] = {"loss": dict(loss.weights)}
    for part in loss.perceptual[:1]:
        config = part.extractor.config
        settings |= {"features": config["features"], "feature_weights": config["weights"]}
        settings |= {"preprocessing": config.get("preprocessing"), "content": part.layers_of.get("content", ())}
    return settings


def _split(batch: Batch, count: int) -> list[Batch]:
    if count == 1:
        return [batch]
    return [Batch(*pair) for pair in zip(batch.low.chunk(count), batch.high.chunk(count), strict=True)]


def _full_precision(output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return output.float() if isinstance(output, Tensor) else tuple(one.float() for one in output)
