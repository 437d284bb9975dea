"""The command `srkit style`: a photograph repainted, by a network that learnt a style, or by Gatys' optimisation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm
from tyro.conf import Positional

from srkit import inference, models
from srkit.cli.upscale import Output
from srkit.data import images
from srkit.losses import SMALLEST_STYLE, style_picture
from srkit.models import pretrained
from srkit.settings import SRKitError, choose_device
from srkit.training import gatys

GATYS_SIZE = 512  # an evaluation of VGG-16 takes seconds of a processor at this size


@dataclass
class Style:
    """Repaint photographs of your own: srkit style photo.jpg --checkpoint brushes.

    With --style painting.jpg in place of --checkpoint by Gatys' optimisation, which takes any painting, and minutes.
    """

    # Picture files.
    pictures: Positional[tuple[Path, ...]]
    # A trained style: brushes or tissue, which come along; or a checkpoint of srkit train style.
    checkpoint: str | None = None
    # The painting whose style the photograph takes, for Gatys' optimisation.
    style: Path | None = None
    # A folder; or, for one picture, a file. NAME_STYLE.png beside each picture if not given.
    out: Output = None
    # Longest side of the result in pixels: the picture is made smaller first. With --style 512 if not given.
    size: int | None = None
    # Of a trained style, 0 to 1: how much of it is mixed into the photograph.
    strength: float = 1.0
    # Of Gatys: the content's share of the loss; 0.3 leaves nearly the photograph, 0.003 hardly anything of it.
    content: float = 0.03
    # Of Gatys: steps of about four evaluations of the loss each.
    steps: int = 20
    # Of Gatys: weights of VGG-16: imagenet (downloaded once), a file or folder of yours, or random.
    feature_weights: str = "imagenet"
    # Write anew what exists already.
    overwrite: bool = False
    # cpu, cuda, mps or auto.
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def __call__(self) -> None:
        if (self.checkpoint is None) == (self.style is None):
            known = ", ".join(pretrained.styles())
            raise SRKitError(f"give either --checkpoint, one of {known} or a file, or --style painting.jpg")
        if not self.pictures:
            raise SRKitError("name a picture or more: srkit style photo.jpg --checkpoint brushes")
        one_file = bool(self.out and self.out.suffix and not self.out.is_dir())
        if one_file and len(self.pictures) > 1:
            raise SRKitError(f"{len(self.pictures)} pictures: name a folder for --out")
        model = models.load(self.checkpoint).to(choose_device(self.device)) if self.checkpoint else None
        for path in self.pictures:
            target = self.out if one_file and self.out else self._target(path)
            if target.exists() and not self.overwrite:
                print(f"{target}: exists already and was left as it is; --overwrite writes it anew")
                continue
            picture = self._resized(images.read(path, alpha="keep" if model else "white"))
            start = time.perf_counter()
            output = self.repaint(model, picture)
            images.write(output, target)
            height, width = output.shape[1:]
            print(f"{target}: {width} x {height}, {time.perf_counter() - start:.0f} s", flush=True)

    def repaint(self, model: torch.nn.Module | None, picture: Tensor) -> Tensor:
        """One picture in the style that was asked for."""
        if model is not None:
            return inference.stylize(model, picture, self.strength)  # type: ignore[arg-type]  # it looks for itself
        assert self.style
        if not 0 <= self.content < 1:
            raise SRKitError(f"content is {self.content}: it is a share, from 0 to under 1")
        painting = style_picture(self.style, max(SMALLEST_STYLE, *picture.shape[1:]))
        weights = {"content": self.content, "style": 1 - self.content}
        loss = gatys.gatys_loss(painting, weights, self.feature_weights)
        trainer = gatys.Gatys(picture, loss, self.steps, device=self.device)
        print(f"the loss compares {trainer.loss.describe()}")
        for _ in tqdm(trainer, total=self.steps, unit="step", leave=False):
            pass
        return trainer.picture

    def _target(self, path: Path) -> Path:
        name = Path(self.checkpoint or self.style or "").stem
        return (self.out or path.parent) / f"{path.stem}_{name}.png"

    def _resized(self, picture: Tensor) -> Tensor:
        size = self.size or (GATYS_SIZE if self.style else 0)
        return images.within(picture, size) if size else picture
