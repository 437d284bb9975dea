"""The picture that one watches during a `live.Run`: how the model enlarges it, and the snapshots of it."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Collection, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from srkit import figures, metrics, sketch
from srkit.errors import SRKitError
from srkit.images import resize
from srkit.live import Preview, Run
from srkit.models import output_at
from srkit.profiles import Setup
from srkit.training.checkpoint import weights_sha256

DETAIL = 84  # side of the detail, in pixels: every scale divides it
WIDE = 336  # of a picture on the screen, in its pixels
STRIP = ("input", "output", "ground truth")
KEPT = 5  # snapshots that the graded page has room for


class Kept(NamedTuple):
    """A snapshot.

    `step` and `weights` say how far the model was and what it was being trained with; `output`, (3, H, W) in
    [0, 1], is what it makes of the picture; `psnr` is on luma in dB; `model` lies on the CPU.
    """

    step: int
    weights: dict[str, float]
    psnr: float
    output: Tensor
    model: nn.Module


class Gallery:
    """What is seen of a run's picture, and the snapshots.

    Attributes:
        kept: the snapshots, the earliest first.
        box: left, top and side of the detail, the busiest part, in pixels of high.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.scale, self.kept = run, run.trainer.model.scale, []
        if run.high is None:
            return
        side = min(DETAIL, *run.high.shape[-2:])
        self.box = tuple(number // self.scale * self.scale for number in figures.busiest(run.high, side))
        self.bicubic = resize(run.low, tuple(run.high.shape[-2:])).clamp(0, 1)
        self.bicubic_psnr = self._psnr(self.bicubic)
        with run.between_steps() as trainer:
            step, output = trainer.step_number, self.enlarge(trainer.result)
        self._first = Preview(step, output, self._psnr(output))

    def _psnr(self, output: Tensor) -> float:
        return metrics.psnr(output, self.run.high, self.scale).item()

    @torch.inference_mode()
    def enlarge(self, model: nn.Module) -> Tensor:
        """What a model makes of the picture: (3, H, W) in [0, 1], on the CPU, in full precision.

        Raises:
            SRKitError: the run watches no picture.
        """
        if self.run.low is None:
            raise SRKitError("this run watches no picture: give it one, live.Run(trainer, high)")
        device = next((parameter.device for parameter in model.parameters()), self.run.low.device)
        return output_at(model, self.run.low[None].to(device))[0].float().clamp(0, 1).cpu()

    # ------------------------------------------------------------------------------ what is seen

    def strip(self, whole: bool = False, names: Collection[str] = STRIP) -> dict[str, tuple[str, Tensor, int]]:
        """For each of STRIP a remark, the same part of the picture, and how many times it is to be shown larger.

        Args:
            whole: all of the picture; otherwise the detail. The PSNR is always that of the whole.
            names: only these.
        """
        if self.run.high is None:
            return {}
        look = self.run.preview or self._first
        times = max(1, round(WIDE / (self.run.high.shape[-1] if whole else self.box[2])))

        pictures = {
            "input": (
                f"bicubic {self.bicubic_psnr:.2f} dB",
                self._part(self.run.low, whole, self.scale),
                times * self.scale,
            ),
            "output": (f"{look.psnr:.2f} dB at step {look.step}", self._part(look.output, whole), times),
            "ground truth": ("", self._part(self.run.high, whole), times),
        }
        return {name: pictures[name] for name in names}

    def _part(self, picture: Tensor, whole: bool = False, smaller: int = 1) -> Tensor:
        if whole:
            return picture
        left, top, side = (number // smaller for number in self.box)
        return picture[:, top : top + side, left : left + side]

    def html(self) -> str:
        """The snapshots' details side by side, each with its step, PSNR and weights."""
        tiles = []
        for number, one in enumerate(self.kept, start=1):
            source = sketch.data_url(sketch.jpeg(self._part(one.output), 2))
            weights = "<br>".join(map(escape, weighing(one.weights)))
            tiles.append(
                f'<figure><img src="{source}" alt="detail of snapshot {number}"><figcaption><b>{number}</b> '
                f"· step {one.step} · {one.psnr:.2f} dB<br>{weights}</figcaption></figure>"
            )
        return f'<div class="srkit-gallery">{"".join(tiles)}</div>' if tiles else ""

    # ------------------------------------------------------------------------------ what is kept

    def keep(self) -> Kept:
        """Add a snapshot of the run as it is now: everything in it is of one and the same step.

        Raises:
            SRKitError: the run watches no picture.
        """
        with self.run.between_steps() as trainer:
            step, weights = trainer.step_number, dict(trainer.loss.weights)
            model = copy.deepcopy(trainer.result).requires_grad_(False)
        output = self.enlarge(model)
        self.kept.append(Kept(step, weights, self._psnr(output), output, model.cpu()))
        return self.kept[-1]

    def save(self, name: str, here: Setup, show: bool = False) -> Path:
        """Save the graded figure: the detail in bicubic, by the last snapshots, by the model now, and in truth.

        Args:
            name: of the file, after the lesson's number.
            here: from `setup()`.
            show: display it, too.

        Returns:
            The PNG's path. Moves, features, and each picture's weights stand in the JSON beside it.

        Raises:
            SRKitError: the run watches no picture.
        """
        with self.run.between_steps() as trainer:  # held still: picture, step, moves and hash belong together
            now = Kept(trainer.step_number, dict(trainer.loss.weights), 0, self.enlarge(trainer.result), trainer.result)
            shown = {f"{number}, step {one.step}": one for number, one in enumerate(self.kept, start=1)}
            shown = {**dict([*shown.items()][-KEPT:]), f"now, step {now.step}": now}
            words = [f"{label.split(',')[0]}: {', '.join(weighing(one.weights))}" for label, one in shown.items()]
            words += [f"features: {trainer.loss.note}"] if trainer.loss.note else []
            left, top, side = self.box
            page = figures.comparison(
                {"bicubic": self.bicubic, **{label: one.output for label, one in shown.items()}},
                self.run.high,
                (left, top, side * 9 // 10),  # comparison rounds it to whole squares
                "\n".join(textwrap.wrap("; ".join(words), 165)[:2]),  # the foot has room for two small lines
                border=self.scale,
            )
            page.texts[-1].set_fontsize(9)
            for entry in page.scores:
                if one := shown.get(entry["picture"]):
                    entry |= {"step": one.step, "loss": one.weights}
                    entry |= {"weights_sha256": weights_sha256(one.model.state_dict())}
            return figures.save(page, name, here, trainer, show=show)


def weighing(weights: Mapping[str, float], terms: Collection[str] | None = None) -> list[str]:
    """What weighs more than 0: ["mse 1", "relu2_2 0.05"]."""
    return [f"{name} {sketch.short(weights[name])}" for name in (terms or weights) if weights[name]]
