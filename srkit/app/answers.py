"""What the class's page answers: it upscales, paints, compares and runs one's own network, without Gradio.

Whatever comes from outside is looked at before it is decoded: its header says how many pixels it has. Pixels are kept
as bytes, a quarter of what floats take, wherever no metric needs more.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from srkit import figures, inference, metrics, models
from srkit.data import images
from srkit.models import pretrained
from srkit.settings import SRKitError, choose_device, current_profile, printable
from srkit.training import gatys

MEGAPIXELS, RESULT = 4.0, 16.0  # of an upload, and of what is made of it: they bound the memory that it takes
SECONDS = 300  # after which the others no longer wait for one picture
DETAIL, MAGNIFIED = 96, 3  # pixels a side of the square that is compared, and how many times as large it is shown
GATYS_SIZE, GATYS_STEPS = 192, 10  # pixels a side; a minute or two of a processor
Wipe = tuple[Any, Any]  # before and after, (H, W, 3) bytes


def read(path: str | None) -> Tensor:
    """An upload, (3, H, W) in [0, 1].

    Raises:
        SRKitError: none, not a picture, more pixels than this page takes, or damaged: one line without the path.
    """
    if not path:
        raise SRKitError("give a picture first")
    try:
        height, width = images.dimensions(path)
        if height * width > MEGAPIXELS * 1e6:
            size = f"{width} x {height} pixels"
            raise SRKitError(f"{size} are too many for this page: at most {MEGAPIXELS:g} megapixels; srkit takes any")
        return images.read(path)
    except SRKitError as error:
        raise SRKitError(str(error).replace(str(path), Path(path).name)) from None


def upscale(path: str | None, name: str, ground_truth: str | None = None) -> tuple[Wipe, str]:
    """Enlarge an upload: before and after, and what there is to say."""
    model, high = models.load(_known(name, pretrained.names())), read(ground_truth) if ground_truth else None
    return _enlarge(model, name, read(path), high)


def style(path: str | None, name: str, strength: float, painting: str | None = None) -> tuple[Wipe, str]:
    """Repaint an upload in a trained style; or in that of a painting, small, by Gatys' optimisation."""
    if not painting:
        model: Any = models.load(_known(name, pretrained.styles()))
        return _repaint(model, name, read(path), strength)
    picture, example = (images.within(read(one), GATYS_SIZE) for one in (path, painting))
    profile = current_profile()
    loss = gatys.gatys_loss(example, feature_weights=profile.feature_weights, features=profile.features)
    trainer = gatys.Gatys(picture, loss, GATYS_STEPS)
    trainer.fit()
    output = torch.lerp(picture, trainer.picture, strength)
    return (_array(picture), _array(output)), f"Gatys, {trainer.seconds:.0f} s; features: {loss.describe()}"


def compare(path: str | None, names: list[str]) -> tuple[list[tuple[Any, str]], list[list[str]]]:
    """Shrink an upload, enlarge it by bicubic and by several networks, and measure each against it.

    Returns:
        The picture, and its square with the most detail, as it is and as each makes it; and a row for each, measured
        on the whole picture: name, PSNR, SSIM, seconds.
    """
    high = read(path)
    if not 1 <= len(names) <= 4:
        raise SRKitError(f"{len(names)} networks: choose one to four")
    chosen: dict[str, Any] = {name: models.load(_known(name, pretrained.names())) for name in names}
    scales = sorted({model.scale for model in chosen.values()})
    sides: dict[str, Any] = {f"bicubic-x{scale}": models.create("bicubic", scale) for scale in scales} | chosen
    high = images.crop_to_multiple(high, math.lcm(*scales))  # the same pixels for all
    left, top, side = figures.busiest(high, min(DETAIL, *high.shape[1:]))

    def detail(picture: Tensor) -> Any:
        pixels = _array(picture[:, top : top + side, left : left + side])
        return pixels.repeat(MAGNIFIED, 0).repeat(MAGNIFIED, 1)

    whole = Image.fromarray(_array(high))
    frame, line = (left, top, left + side - 1, top + side - 1), 2 + max(whole.size) // 200
    ImageDraw.Draw(whole).rectangle(frame, outline=figures.ACCENT, width=line)
    shown, rows = [(whole, "which square"), (detail(high), "ground truth")], []
    for name, model in sides.items():
        low, start = images.degrade(high, model.scale), time.perf_counter()
        output = inference.upscale(model.to(choose_device()), low)
        seconds = time.perf_counter() - start
        psnr, ssim = (measure(output, high, model.scale).item() for measure in (metrics.psnr, metrics.ssim))
        shown.append((detail(output), name))
        rows.append([name, f"{psnr:.2f}", f"{ssim:.4f}", f"{seconds:.2f}"])
    return shown, rows


def own_network(path: str | None, checkpoint: str | None) -> tuple[Wipe, str]:
    """As `upscale`, by a student's checkpoint, of which nothing is run; a style's repaints."""
    if not checkpoint:
        raise SRKitError("give a checkpoint: last.pt or best.pt of your training")
    try:
        model = models.load(checkpoint, closed=True)
    except SRKitError as error:
        raise SRKitError(str(error).replace(str(checkpoint), Path(checkpoint).name)) from None
    picture = read(path)
    if isinstance(model, models.TransformerNet):
        return _repaint(model, "your style", picture, 1.0)
    return _enlarge(model, "your network", picture, None)


def _enlarge(model: nn.Module, name: str, picture: Tensor, high: Tensor | None) -> tuple[Wipe, str]:
    upscaler, low = inference.Upscaler(model.to(choose_device())), images.to_uint8(picture)
    height, width = (upscaler.scale * side for side in low.shape[1:])
    if height * width > RESULT * 1e6:
        size = f"{width} x {height} pixels"
        raise SRKitError(f"{size} would be too large for this page: at most {RESULT:g} megapixels; srkit makes any")
    if high is not None and high.shape[1:] != (height, width):
        size = f"{high.shape[2]} x {high.shape[1]}"
        raise SRKitError(f"the ground truth has {size} pixels, the result {width} x {height}")
    if seconds := upscaler.seconds(*low.shape[1:]):
        upscaler.title = f"about {seconds:.0f} s"
    start, bands = time.perf_counter(), []
    for band in upscaler.bands(low):
        bands.append(band)
        if (seconds := time.perf_counter() - start) > SECONDS:
            raise SRKitError(f"stopped after {seconds:.0f} s, for others wait: give a smaller picture, or run srkit")
    output = torch.cat(bands, dim=1)
    said = f"{name}: {width} x {height} pixels in {time.perf_counter() - start:.1f} s"
    if high is not None:
        said += f"; {metrics.psnr(images.from_uint8(output), high, upscaler.scale).item():.2f} dB"
    return (_array(images.resize(low, (height, width))), _array(output)), said


def _repaint(model: models.TransformerNet, name: str, picture: Tensor, strength: float) -> tuple[Wipe, str]:
    start = time.perf_counter()
    output = inference.stylize(model.to(choose_device()), picture, strength)
    said = f"{name}: {picture.shape[2]} x {picture.shape[1]} pixels in {time.perf_counter() - start:.1f} s"
    return (_array(picture), _array(output)), said


def _known(name: str, names: list[str]) -> str:
    """The name, if it is one of these: what a client sends is no path to a file of this machine."""
    if name not in names:
        raise SRKitError(f"no network {printable(str(name))[:40]!r} on this page: choose one of {', '.join(names)}")
    return name


def _array(picture: Tensor) -> Any:
    return (picture if picture.dtype == torch.uint8 else images.to_uint8(picture)).permute(1, 2, 0).numpy()
