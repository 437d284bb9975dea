"""Pictures of a run: the detail in several views, the snapshots, and the graded figure."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from srkit import figures
from srkit.data.images import degrade, resize, to_uint8
from srkit.inference import upscale
from srkit.live.film import Frame
from srkit.live.run import Run
from srkit.live.svg import short
from srkit.models.pretrained import weights_sha256
from srkit.settings import Setup, SRKitError

KEPT = 5  # snapshots that the graded page has room for
DIFFERENCE = 8  # by how much the difference of two pictures is enlarged
VIEWS = ("output", "wipe", "blink", "difference x 8")


class Kept(NamedTuple):
    """A snapshot: its frame of the film, and the model of then, on the CPU."""

    frame: Frame
    model: nn.Module


class Gallery:
    """What is seen of a run's film, and the snapshots.

    Attributes:
        kept: the snapshots, the earliest first.

    Raises:
        SRKitError: the run has no picture.
    """

    def __init__(self, run: Run) -> None:
        if run.film is None:
            raise SRKitError("this run has no picture: give it one, live.Run(trainer, high)")
        self.run, self.film, self.kept = run, run.film, list[Kept]()

    def names(self) -> list[str]:
        """What an output can be compared with."""
        return ["bicubic", "ground truth", *(f"kept {number}" for number, _ in enumerate(self.kept, start=1))]

    def other(self, name: str) -> Tensor:
        """One of `names`: its details, (N, 3, side, side), uint8."""
        if name == "ground truth":
            return to_uint8(self.film.high)
        if name == "bicubic":
            return self.film.bicubic.details
        return self.kept[int(name.removeprefix("kept ")) - 1].frame.details

    def place(self, picture: str, left: int, top: int) -> None:
        """Move a picture's detail, see `Run.place`, in every snapshot too: their models are kept."""
        with self.run.between_steps() as trainer:
            self.run.place(picture, left, top)
            for one in self.kept:
                if one.frame not in self.film.frames:  # the others were filmed anew
                    model = copy.deepcopy(one.model).to(trainer.device)
                    self.film.retake(one.frame, model, trainer.loss)

    def keep(self) -> Kept:
        """Add a snapshot of the run as it is now."""
        with self.run.between_steps():  # frame and model of one and the same step
            self.kept.append(Kept(self.run.mark(), self.run.snapshot()))
        return self.kept[-1]

    def save(self, name: str, here: Setup, picture: str | None = None) -> Path:
        """Save the graded figure: the detail in bicubic, by the last snapshots, by the model now, and in ground truth.

        Args:
            name: of the file, after the lesson's number.
            here: from `setup()`.
            picture: of the film; its first if not given.

        Returns:
            The PNG's path. Moves, features, and each picture's weights stand in the JSON beside it.
        """
        picture = picture or next(iter(self.film.pictures))
        high, (left, top), scale = self.film.pictures[picture], self.film.places[picture], self.run.scale
        low = degrade(high, scale)
        with self.run.between_steps() as trainer:  # held still: picture, step, moves and hash belong together
            last = list(enumerate(self.kept, start=1))[-KEPT:]
            now = Kept(self.run.mark(), self.run.snapshot())
            shown = {f"{number}, step {one.frame.step}": one for number, one in last}
            shown[f"now, step {self.run.step}"] = now
            outputs = {label: upscale(one.model, low, scale).cpu() for label, one in shown.items()}
            words = [f"{label.split(',')[0]}: {', '.join(describe(one.frame.weights))}" for label, one in shown.items()]
            words += [f"features: {trainer.loss.describe()}"] if trainer.loss.describe() else []
            page = figures.comparison(
                {"bicubic": resize(low, scale=scale).clamp(0, 1), **outputs},
                high,
                (left, top, self.film.side * 9 // 10),  # comparison rounds it to whole squares
                "; ".join(words),
                border=scale,
            )
            for entry in page.scores:
                if one := shown.get(entry["picture"]):
                    loss = {name: value for name, value in one.frame.weights.items() if name != "lr"}
                    entry |= {"step": one.frame.step, "loss": loss}
                    entry |= {"weights_sha256": weights_sha256(one.model.state_dict())}
            return figures.save(page, name, here, trainer, show=False)


# ---------------------------------------------------------------------------------- pictures


def view(kind: str, output: Tensor, other: Tensor, at: float = 0.5, blinked: bool = False) -> Tensor:
    """One of VIEWS of two details, (3, H, W), uint8.

    Args:
        kind: of VIEWS. A wipe shows the other on the left, up to a white line, and the output on the right.
        at: where the line stands, 0 to 1.
        blinked: whether it is the other's turn.
    """
    if kind == "blink" and blinked:
        return other
    if kind == "wipe":
        column = round(at * output.shape[-1])
        wiped = torch.cat([other[..., :column], output[..., column:]], -1)
        wiped[..., max(0, column - 1) : column] = 255
        return wiped
    if kind.startswith("difference"):
        return (128 + DIFFERENCE * (output.int() - other.int())).clamp(0, 255).to(torch.uint8)
    return output


def locator(high: Tensor, place: tuple[int, int], side: int) -> Tensor:
    """The whole picture, (3, H, W), uint8, with a frame around the detail."""
    picture = to_uint8(high).clone()
    left, top = place
    thick = max(2, high.shape[-1] // 80)
    for colour, reach in ((0, thick), (255, thick // 2)):
        for rows, columns in (
            (slice(top, top + reach), slice(left, left + side)),
            (slice(top + side - reach, top + side), slice(left, left + side)),
            (slice(top, top + side), slice(left, left + reach)),
            (slice(top, top + side), slice(left + side - reach, left + side)),
        ):
            picture[:, rows, columns] = colour
    return picture


def png(picture: Tensor) -> bytes:
    """(3, H, W), uint8, as PNG: its very pixels; the page shows each as a square."""
    return _encoded(picture, "PNG")


def jpeg(picture: Tensor, quality: int = 85) -> bytes:
    """(3, H, W), uint8, as JPEG."""
    return _encoded(picture, "JPEG", quality=quality, subsampling=0)  # else single pixels would lose their colours


def _encoded(picture: Tensor, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(file, form, **options)
    return file.getvalue()


def source(data: bytes, form: str = "png") -> str:
    """An encoded picture as the `src` of an <img>."""
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


# ---------------------------------------------------------------------------------- words


def describe(weights: Mapping[str, float]) -> list[str]:
    """What weighs more than 0: ["mse 1", "relu2_2 0.05"]; without the learning rate."""
    return [f"{name} {short(weight)}" for name, weight in weights.items() if weight and name != "lr"]


def tile(number: int, kept: Kept, picture: int) -> str:
    """A snapshot with its step, PSNR and weights, as HTML."""
    frame = kept.frame
    words = [f"<b>{number}</b> · step {frame.step} · {frame.psnr:.2f} dB", *map(escape, describe(frame.weights))]
    return (f'<figure><img class="srkit-exact" src="{source(png(frame.details[picture]))}" '
            f'alt="detail of snapshot {number}, step {frame.step}"><figcaption>{"<br>".join(words)}</figcaption>'
            f"</figure>")  # fmt: skip
