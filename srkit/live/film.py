"""What one watches during a `Run`: the details of its pictures, and a film of how the model enlarges them.

Every frame measures all terms that the loss knows on these details, those of weight 0 too. They are always the same
pixels: what changes from frame to frame is the model, where the curves of a training change with every batch.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srkit import figures, metrics
from srkit.data.images import crop_to_multiple, degrade, luma, resize, to_uint8
from srkit.live.weights import held
from srkit.losses import WeightedLoss, term_of
from srkit.models import device_of, scales_of
from srkit.models.files import read
from srkit.settings import SRKitError, atomic_write
from srkit.training import Trainer

SIDE = 96  # of a detail in pixels: every scale divides it
RIM = 8  # low pixels around a detail that the model sees, too
FRAMES = 400  # that are kept; then every second one goes
STATES = 256 * 2**20  # bytes of the checkpoints with which frames can be gone on from
PARTS = ("weighted", "pull")  # of what is probed: what a frame has the shares of


@dataclass(eq=False)
class Frame:
    """A moment of the film.

    `details` are what the model made, (N, 3, side, side), uint8; `psnr`, on luma in dB, and `terms`, each raw, are
    means over them; `loss` and `pull` say, by the name of each weight, its share of the loss and of its gradient with
    respect to the output (both 0 to 1); `grid` is how strong a pattern is that repeats every 4 pixels, in levels of
    255; `weights` those of the loss and lr. `state` is the Trainer's, by which a Run can go on from here, while there
    is room for it; `marked` frames, at moves and snapshots, keep it longest. `levels` are the model's outputs, each
    (N, 3, side, side), until they are measured.
    """

    step: int
    psnr: float
    terms: dict[str, float]
    grid: float
    details: Tensor
    loss: dict[str, float] = field(default_factory=dict)
    pull: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    state: dict[str, Any] | None = None
    marked: bool = False
    levels: Sequence[Tensor] = ()


class Film:
    """Frames of some pictures' details.

    Attributes:
        pictures: the whole pictures by name, (3, H, W) in [0, 1], sides multiples of the scale.
        places: left and top of each detail, in pixels of high; `side`, of all of them.
        bicubic: a frame of what bicubic interpolation makes, from `compare`.
        frames: the earliest first; `ghost`: those of the future that was left when the run went back.
        latest: what the model makes after a move, to be seen while it is being measured.

    Args:
        pictures: by name.
        scale: the model's.
        places: left and top of each detail; the busiest part if not given.

    Raises:
        SRKitError: no picture.
    """

    bicubic: Frame

    def __init__(
        self, pictures: Mapping[str, Tensor], scale: int, places: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        if not pictures:
            raise SRKitError("this run has no picture: give it one, live.Run(trainer, high)")
        self.scale, self.frames, self.ghost = scale, list[Frame](), list[Frame]()
        self.latest: Frame | None = None
        self.pictures = {name: crop_to_multiple(high, scale).cpu() for name, high in pictures.items()}
        self._low = {name: degrade(high, scale) for name, high in self.pictures.items()}
        shortest = min(min(high.shape[-2:]) for high in self.pictures.values())
        self.side = min(SIDE, shortest // scale * scale)
        self.places: dict[str, tuple[int, int]] = {}
        self._windows: dict[str, tuple[Tensor, int, int]] = {}
        for name, high in self.pictures.items():
            self.place(name, *((places or {}).get(name) or figures.busiest(high, self.side)[:2]))

    def place(self, name: str, left: int, top: int) -> None:
        """Move a picture's detail; what was filmed before shows the old one."""
        height, width = self.pictures[name].shape[-2:]
        left, top = (max(0, min(at, most - self.side)) for at, most in ((left, width), (top, height)))
        self.places[name] = left // self.scale * self.scale, top // self.scale * self.scale
        self._windows[name] = self._window(name)

    def _window(self, name: str) -> tuple[Tensor, int, int]:
        """What the model sees of a picture, (3, h, w) low, and the detail's left and top in it, in pixels of high."""
        high, (left, top) = self.pictures[name], self.places[name]
        size = [min(self.side + 2 * RIM * self.scale, most) for most in high.shape[-2:]]
        corner = [
            max(0, min(at - RIM * self.scale, most - wide))
            for at, most, wide in zip((top, left), high.shape[-2:], size, strict=True)
        ]
        low = self._low[name]
        y, x, height, width = (number // self.scale for number in (*corner, *size))
        return low[:, y : y + height, x : x + width], left - corner[1], top - corner[0]

    @property
    def low(self) -> Tensor:
        """The details at the input's size, (N, 3, side / scale, side / scale)."""
        return torch.stack([_cut(low, left, top, self.side, self.scale) for low, left, top in self._windows.values()])

    @property
    def high(self) -> Tensor:
        """The ground truth of the details, (N, 3, side, side)."""
        return torch.stack([_cut(high, *self.places[name], self.side) for name, high in self.pictures.items()])

    # ------------------------------------------------------------------------------ filming

    def take(self, model: nn.Module, loss: WeightedLoss, step: int) -> Frame:
        """How a model enlarges the details, and every term of the loss there; nothing is added to the film."""
        frame = self.look(model, step)
        self.measure(frame, loss)
        return frame

    def look(self, model: nn.Module, step: int) -> Frame:
        """A frame as quickly as can be: details and PSNR alone, the rest by `measure`."""
        return self._frame(self._enlarge(model), step)

    def measure(self, frame: Frame, loss: WeightedLoss) -> None:
        """Every term of the loss, with the frame's own weights where it has any."""
        if not frame.levels:
            return
        loss = copy.copy(loss)
        loss.weights = {name: frame.weights.get(name, weight) for name, weight in loss.weights.items()}
        levels, high = frame.levels, self.high
        probed = loss.probe(levels[0] if len(levels) == 1 else tuple(levels), high.to(levels[0].device))
        order = [term_of(name) for name in loss.weights]
        names = sorted(probed, key=lambda name: order.index(term_of(name)))
        frame.terms = {name: probed[name].value for name in names}
        frame.loss, frame.pull = (
            _shares({name: getattr(one, kind) for name, one in probed.items()}, loss) for kind in PARTS
        )
        frame.grid = _grid(luma(levels[-1].clamp(0, 1).cpu()) - luma(high))
        frame.levels = ()

    def shoot(self, trainer: Trainer, marked: bool = False) -> Frame:
        """The newest frame, if that is of this very step; else a new one, not measured yet and not in the film."""
        frame = self.frames[-1] if self.frames else None
        if frame is None or frame.step != trainer.step_number or not frame.state:
            frame = self.look(trainer.result, trainer.step_number)
            frame.weights, frame.state = held(trainer), kept_state(trainer.state())
        frame.marked |= marked
        return frame

    def keep(self, loss: WeightedLoss, *frames: Frame) -> None:
        """Measure frames and add them; the last one is seen at once."""
        self.latest = frames[-1]
        try:
            for frame in frames:
                self.measure(frame, loss)
                newest = self.frames[-1] if self.frames else None
                if newest and newest.step == frame.step:
                    frame.marked |= newest.marked
                    self.frames[-1] = frame  # in one go: the view reads the film meanwhile
                else:
                    self.add(frame)
        finally:
            self.latest = None

    def retake(self, frame: Frame, model: nn.Module, loss: WeightedLoss) -> None:
        """Film a moment again, where a detail has been moved since: with the weights of then, and its model."""
        new = self.look(model, frame.step)
        new.weights = frame.weights
        self.measure(new, loss)
        for name in ("psnr", "terms", "grid", "details", "loss", "pull"):
            setattr(frame, name, getattr(new, name))

    def compare(self, model: nn.Module, loss: WeightedLoss) -> Frame:
        """The same of bicubic interpolation, to the scales and on the device of a model."""
        sizes = [self.side // self.scale * scale for scale in scales_of(model)]
        low = self.low.to(device_of(model))
        frame = self._frame([resize(low, (size, size)).clamp(0, 1) for size in sizes], 0)
        self.measure(frame, loss)
        return frame

    def _frame(self, levels: Sequence[Tensor], step: int) -> Frame:
        shown = levels[-1].clamp(0, 1).cpu()
        scores = [metrics.psnr(*pair).item() for pair in zip(shown, self.high, strict=True)]
        return Frame(step, sum(scores) / len(scores), {}, 0.0, to_uint8(shown), levels=levels)

    @torch.no_grad()
    def _enlarge(self, model: nn.Module) -> list[Tensor]:
        """The model's outputs of the details, coarsest first; in full precision."""
        device, found = device_of(model), []
        windows = list(self._windows.values())
        if getattr(model, "whole", False):  # it answers with all of the picture, whatever it is given
            windows = [(self._low[name], *self.places[name]) for name in self.pictures]
        for low, left, top in windows:
            outputs = model(low[None].to(device))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            cut = []
            for output in outputs:
                times = output.shape[-1] / (low.shape[-1] * self.scale)
                x, y, side = (round(number * times) for number in (left, top, self.side))
                cut.append(output[0, :, y : y + side, x : x + side].float())
            found.append(cut)
        return [torch.stack(level) for level in zip(*found, strict=True)]

    def add(self, frame: Frame) -> None:
        """Append a frame; when there are many, every second one of the older goes, and states that take too much."""
        self.frames.append(frame)
        if len(self.frames) > FRAMES:
            old = self.frames[: FRAMES // 2]
            kept = [one for index, one in enumerate(old) if one.marked or index % 2 == 0]
            self.frames = kept + self.frames[FRAMES // 2 :]
        with_state = [one for one in self.frames if one.state]
        room = max(2, STATES // (_bytes(frame.state) or STATES))
        for one in sorted(with_state[1:-1], key=lambda one: one.marked)[: max(0, len(with_state) - room)]:
            one.state = None  # the first and the newest stay, and marked ones go last

    def cut(self, frame: Frame) -> None:
        """End the film with a frame; what came later is its ghost."""
        at = next(index for index, one in enumerate(self.frames) if one is frame)
        self.ghost, self.frames = self.frames[at:], self.frames[: at + 1]
        for one in self.ghost[1:]:
            one.state = None  # nobody can go back there

    # ------------------------------------------------------------------------------ keeping it

    def save(self, path: Path, history: Sequence[Mapping[str, float]]) -> None:
        """Write the frames, without their states, and how the history of the training begins."""
        rows = [
            {"step": one.step, "psnr": one.psnr, "grid": one.grid, "terms": one.terms, "loss": one.loss,
             "pull": one.pull, "weights": one.weights, "marked": one.marked}
            for one in self.frames
        ]  # fmt: skip
        details = torch.stack([one.details for one in self.frames])
        with atomic_write(path) as draft:
            torch.save({"of": self._of(history), "rows": rows, "details": details}, draft)

    def restore(self, path: Path, history: Sequence[Mapping[str, float]]) -> None:
        """Take up what `save` has written of this training, as far as its history goes; another film is left alone."""
        step = history[-1]["step"]
        try:
            kept = read(path)
            if kept["of"] != self._of(history):
                return
            pairs = zip(kept["rows"], kept["details"], strict=True)
            frames = [Frame(**row, details=details) for row, details in pairs if row["step"] <= step]
            if any(one.details.shape != (len(self.places), 3, self.side, self.side) for one in frames):
                return
        except (SRKitError, KeyError, TypeError, ValueError, AttributeError):
            return  # a film is for the eyes: the training goes on without it
        self.frames = frames

    def _of(self, history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """By what a film of this training is known."""
        pixels = hashlib.sha256(to_uint8(self.high).numpy().tobytes()).hexdigest()
        return {"places": [list(at) for at in self.places.values()], "pixels": pixels, "first": dict(history[0])}


def kept_state(state: dict[str, Any]) -> dict[str, Any]:
    """A Trainer's state that the training does not change any more; the rows of a history never change anyhow."""
    rows = state["history"]
    return {**copy.deepcopy({name: value for name, value in state.items() if name != "history"}), "history": rows}


def weight_of(name: str, weights: Collection[str]) -> str:
    """Which of the weights holds for a measured term: "x2/mse" has its own, or else that of "mse" on every output."""
    return name if name in weights or term_of(name) not in weights else term_of(name)


def _shares(values: Mapping[str, float], loss: WeightedLoss) -> dict[str, float]:
    """Each weight's part of a sum over measured terms, over all the outputs for which it holds."""
    parts, whole = dict.fromkeys(loss.weights, 0.0), sum(values.values()) or 1
    for name, value in values.items():
        if (weight := weight_of(name, parts)) in parts:
            parts[weight] += value / whole
    return parts


def _cut(picture: Tensor, left: int, top: int, side: int, smaller: int = 1) -> Tensor:
    left, top, side = left // smaller, top // smaller, side // smaller
    return picture[..., top : top + side, left : left + side]


def _grid(error: Tensor) -> float:
    """The spread, in levels of 255, of the mean errors (N, 1, H, W) at the 16 places of a 4 x 4 grid of pixels.

    What a picture lacks lies anywhere; what poolings and strides leave repeats.
    """
    height, width = (size // 4 * 4 for size in error.shape[-2:])
    cells = error[..., :height, :width].unflatten(-2, (-1, 4)).unflatten(-1, (-1, 4))
    return 255 * cells.mean((1, 2, 4)).flatten(1).std(1).mean().item()


def _bytes(state: Any) -> int:
    """What the tensors in a state take."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(_bytes(one) for name, one in state.items() if name != "history")
    return sum(map(_bytes, state)) if isinstance(state, list) else 0
