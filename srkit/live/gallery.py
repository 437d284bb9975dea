"""The picture that one watches during a `Run`: how the model enlarges it, its snapshots, and figures of both."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor, nn

from srkit import figures, metrics
from srkit.data.images import resize, to_uint8
from srkit.live.run import Run
from srkit.live.svg import draw, short
from srkit.models.pretrained import weights_sha256
from srkit.settings import Setup, SRKitError

DETAIL = 84  # side of the detail, in pixels: every scale divides it
WIDE = 336  # of a picture on the screen, in its pixels
STRIP = ("input", "output", "ground truth")
KEPT = 5  # snapshots that the graded page has room for


class Kept(NamedTuple):
    """A snapshot.

    `output`, (3, H, W) in [0, 1], is what the model made of the picture at `step`; `psnr` is on luma in dB; `weights`
    are those of the loss then; `model` lies on the CPU.
    """

    step: int
    output: Tensor
    psnr: float
    weights: dict[str, float]
    model: nn.Module


class Gallery:
    """What is seen of a run's picture, and the snapshots.

    Attributes:
        kept: the snapshots, the earliest first.
        box: left, top and side of the detail, the busiest part, in pixels of high.

    Raises:
        SRKitError: the run has no picture.
    """

    def __init__(self, run: Run) -> None:
        if run.picture is None:
            raise SRKitError("this run has no picture: give it one, live.Run(trainer, high)")
        self.run, self.kept = run, list[Kept]()
        self.low, self.high = run.picture
        left, top, side = figures.busiest(self.high, min(DETAIL, *self.high.shape[-2:]))
        self.box = left // run.scale * run.scale, top // run.scale * run.scale, side // run.scale * run.scale
        self.bicubic = resize(self.low, scale=run.scale).clamp(0, 1)
        self.bicubic_psnr = metrics.psnr(self.bicubic, self.high, run.scale).item()

    def strip(self) -> dict[str, tuple[str, Tensor, int]]:
        """For each of STRIP a remark, the detail, and how many times it is to be shown larger.

        The PSNR is that of the whole picture.
        """
        preview, scale = self.run.preview, self.run.scale
        assert preview is not None  # a run with a picture has one from the start
        times = max(1, round(WIDE / self.box[2]))
        contents = (
            (f"bicubic {self.bicubic_psnr:.2f} dB", self._detail(self.low, scale), times * scale),
            (f"{preview.psnr:.2f} dB at step {preview.step}", self._detail(preview.output), times),
            ("", self._detail(self.high), times),
        )
        return dict(zip(STRIP, contents, strict=True))

    def _detail(self, picture: Tensor, smaller: int = 1) -> Tensor:
        left, top, side = (number // smaller for number in self.box)
        return picture[:, top : top + side, left : left + side]

    def keep(self) -> Kept:
        """Add a snapshot of the run as it is now."""
        self.kept.append(self._now())
        return self.kept[-1]

    def _now(self) -> Kept:
        with self.run.between_steps() as trainer:  # all of one and the same step
            return Kept(*self.run.enlarge(trainer.result), dict(trainer.loss.weights), self.run.snapshot())

    def html(self) -> str:
        """The snapshots' details side by side, each with its step, PSNR and weights."""
        tiles = []
        for number, one in enumerate(self.kept, start=1):
            words = [f"<b>{number}</b> · step {one.step} · {one.psnr:.2f} dB", *map(escape, describe(one.weights))]
            tiles.append(_tile(f"detail of snapshot {number}", self._detail(one.output), 2, "<br>".join(words)))
        return f'<div class="srkit-gallery">{"".join(tiles)}</div>' if tiles else ""

    def save(self, name: str, here: Setup) -> Path:
        """Save the graded figure: the detail in bicubic, by the last snapshots, by the model now, and in ground truth.

        Args:
            name: of the file, after the lesson's number.
            here: from `setup()`.

        Returns:
            The PNG's path. Moves, features, and each picture's weights stand in the JSON beside it.
        """
        with self.run.between_steps() as trainer:  # held still: picture, step, moves and hash belong together
            last = list(enumerate(self.kept, start=1))[-KEPT:]
            now = self._now()
            shown = {f"{number}, step {one.step}": one for number, one in last} | {f"now, step {now.step}": now}
            words = [f"{label.split(',')[0]}: {', '.join(describe(one.weights))}" for label, one in shown.items()]
            words += [f"features: {trainer.loss.describe()}"] if trainer.loss.describe() else []
            left, top, side = self.box
            page = figures.comparison(
                {"bicubic": self.bicubic, **{label: one.output for label, one in shown.items()}},
                self.high,
                (left, top, side * 9 // 10),  # comparison rounds it to whole squares
                "; ".join(words),
                border=self.run.scale,
            )
            for entry in page.scores:
                if one := shown.get(entry["picture"]):
                    entry |= {"step": one.step, "loss": one.weights}
                    entry |= {"weights_sha256": weights_sha256(one.model.state_dict())}
            return figures.save(page, name, here, trainer, show=False)


def still(run: Run, gallery: Gallery) -> str:
    """Curves and pictures as HTML that needs no kernel; its caption says the weights and whose features.

    Args:
        run: with rows in its history.
        gallery: of the run.
    """
    loss = run.trainer.loss
    tiles = [
        _tile(name, picture, times, f"<b>{name}</b><br>{remark}")
        for name, (remark, picture, times) in gallery.strip().items()
    ]
    words = [f"after step {run.step}, weights {', '.join(describe(loss.weights))}"]
    words += [f"features: {loss.describe()}"] if loss.describe() else []
    caption = escape("; ".join(filter(None, [*words, run.trainer.diagnose()])))
    pictures = f'<div class="srkit-gallery srkit-large">{"".join(tiles)}</div>'
    return f"{draw(run.history, loss.describe())}{pictures}<p>{caption}</p>"


def _tile(name: str, picture: Tensor, times: int, words: str) -> str:
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg(picture, times)).decode()}"
    return f'<figure><img src="{source}" alt="{name}"><figcaption>{words}</figcaption></figure>'


def describe(weights: Mapping[str, float]) -> list[str]:
    """What weighs more than 0: ["mse 1", "relu2_2 0.05"]."""
    return [f"{name} {short(weight)}" for name, weight in weights.items() if weight]


def jpeg(picture: Tensor, times: int) -> bytes:
    """A picture (3, H, W) in [0, 1] as JPEG: each pixel a square of times x times."""
    image = Image.fromarray(to_uint8(picture).permute(1, 2, 0).cpu().numpy())
    image = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, subsampling=0)  # subsampling would wash out the colours of single pixels
    return file.getvalue()
