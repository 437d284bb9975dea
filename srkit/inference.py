"""Use a trained model: on pictures of your own, of any size, grey or colour, with or without alpha; or as ONNX.

A large picture goes through in tiles. Each tile brings along as many pixels of its surroundings as the network's
reach, so that the result has the same pixels as in one pass: there are no seams to blend.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from srkit.data.images import from_uint8, is_gray, resize, to_uint8, within
from srkit.models import TransformerNet, complexity, device_of, output_at, scales_of
from srkit.models.clip import SIDE
from srkit.models.complexity import Reach
from srkit.models.convert import origin
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError, atomic_write, choose_device, choose_precision, out_of_memory

TILE = 256
STYLE_TILE = 1024  # where a style's strokes are seen against the whole
SMALLEST = 16  # side of the smallest tile: below it, a network computes nearly nothing but surroundings
BICUBIC = Reach(pixels=2, grid=1)
Side = tuple[int, int]  # where a tile begins and ends along a side of low


def upscale(model: nn.Module, picture: Tensor, scale: int | None = None) -> Tensor:
    """Enlarge one picture by `model.scale`, or by another of its scales if it has several: `Upscaler` in one line.

    Args:
        model: takes (1, 3, H, W) in [0, 1].
        picture: (3, H, W) or (4, H, W), RGB or RGBA in [0, 1], of any size.
        scale: which output, of a model with several; the largest if not given.

    Returns:
        (3 or 4, scale * H, scale * W), clipped to [0, 1], on the CPU.

    Raises:
        SRKitError: as `Upscaler`.
    """
    return Upscaler(model, scale)(picture)


class SelfEnsemble(nn.Module):
    """The mean of a model's outputs for the eight ways of turning and flipping a picture, each turned back.

    "Geometric self-ensemble", Lim et al. (EDSR), arXiv 1707.02921, Section 3.4. Eight times the work.

    Args:
        model: takes low (N, 3, H, W).
        scale: which output, of a model with several.
    """

    def __init__(self, model: nn.Module, scale: int) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    @property
    def embed(self) -> Any:
        """The model's, if it reads an embedding."""
        return getattr(self.model, "embed", None)

    def forward(self, low: Tensor, **given: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale * H, scale * W); not clipped. `given` is passed on to the model."""
        outputs = []
        for upside_down, mirrored, transposed in product((False, True), repeat=3):
            axes = [-2] * upside_down + [-1] * mirrored
            turned = low.flip(axes).transpose(-2, -1) if transposed else low.flip(axes)
            output = output_at(self.model, turned, self.scale, **given).float()
            outputs.append((output.transpose(-2, -1) if transposed else output).flip(axes))
        return torch.stack(outputs).mean(0)


class Upscaler:
    """Enlarges pictures of any size with bounded memory.

    Colour goes through the model. Alpha, which no model was trained on, is enlarged by bicubic. A grey picture (three
    equal channels) stays grey: the model's three channels are averaged. A picture no larger than a tile goes through
    in one pass, and so does every picture if each output pixel depends on all of it.

    Args:
        model: takes (1, 3, H, W) in [0, 1]; it is put into eval mode.
        scale: which output, of a model with several; the largest if not given.
        tile: largest side of a tile, in pixels of low. Where memory runs out it is halved, and stays so.
        precision: "fp32"; "bf16", "fp16" or "auto" (what the device is fast in) for the network's convolutions.
        ensemble: enlarge by `SelfEnsemble(model)`.
        device: "cpu", "cuda", "mps" or "auto" to move the model there; where it is if not given.

    Attributes:
        title: what stands before the bar.

    Raises:
        SRKitError: a scale that the model lacks, a tile too small, an unknown precision or device, weights that are
            no numbers (NaN or infinite).
    """

    def __init__(
        self,
        model: nn.Module,
        scale: int | None = None,
        tile: int = TILE,
        precision: str = "fp32",
        ensemble: bool = False,
        device: str | None = None,
    ) -> None:
        scales = scales_of(model)
        if scale not in (None, *scales):
            raise SRKitError(f"this model enlarges by {' or '.join(map(str, scales))}, not by {scale}")
        if tile < SMALLEST:
            raise SRKitError(f"a tile of {tile} pixels is too small: choose {SMALLEST} or more, usually {TILE}")
        for name, weight in model.state_dict().items():
            if not weight.isfinite().all():
                raise SRKitError(f"the model's {name} holds NaN or infinite values: its training failed, load another")
        self.device = device_of(model) if device is None else choose_device(device)
        self.scale, self.tile = scale or scales[-1], tile
        self.model = (SelfEnsemble(model, self.scale) if ensemble else model).to(self.device).eval()
        self.precision, self.title = choose_precision(precision, self.device), ""
        # Channels last is the order in which processors convolve fastest; of GPUs, only the units for 16 bits want it.
        last = self.device.type == "cpu" or (self.device.type == "cuda" and self.precision != "fp32")
        self.layout = torch.channels_last if last else torch.contiguous_format

    def __call__(self, picture: Tensor) -> Tensor:
        """Enlarge one picture.

        Args:
            picture: (3, H, W) or (4, H, W), RGB or RGBA: floats in [0, 1], or bytes (uint8).

        Returns:
            (3 or 4, scale * H, scale * W) on the CPU: float32 clipped to [0, 1], or bytes if bytes were given.

        Raises:
            SRKitError: another shape; an output that is no number; or memory runs out with the smallest tiles too.
        """
        _check(picture)
        channels, height, width = picture.shape
        output = _empty(picture, channels, self.scale * height, self.scale * width)
        top = 0
        for band in self._bands(picture):
            output[:, top : top + band.shape[1]] = band
            top += band.shape[1]
        return output

    def bands(self, picture: Tensor, start: int = 0) -> Iterator[Tensor]:
        """Enlarge one picture band by band, from the top: (3 or 4, rows, scale * W) each, otherwise as a call gives it.

        The whole result never stands in memory: `photographs.write` writes such bands into a file.

        Args:
            picture: as for a call.
            start: a row of the output with which a band has begun before: what is above is left out.

        Raises:
            SRKitError: as a call.
        """
        _check(picture)
        return self._bands(picture, start // self.scale)

    def seconds(self, height: int, width: int) -> float:
        """About how long a picture of (height, width) takes: measured on a corner, if it has many tiles; else 0."""
        pixels, side = height * width, min(self.tile, 128)
        if pixels < 64 * side**2 or self._reach(height, width) is None:
            return 0.0
        times, corner = [], torch.zeros(3, side, side)
        given = self._embedding(corner)
        for _ in range(2):  # the first warms up
            start = time.perf_counter()
            self._tile(corner, (0, side), (0, side), None, False, given).cpu()
            times.append(time.perf_counter() - start)
        return times[-1] * pixels / side**2

    def _bands(self, picture: Tensor, done: int = 0) -> Iterator[Tensor]:
        channels, height, width = picture.shape
        recolours = getattr(self.model, "recolours", False)
        given = self._embedding(picture[:3])
        gray = not recolours and all(is_gray(rows) for rows in picture[:3].split(TILE, dim=1))  # colour shows early
        reach = None if max(height, width) <= self.tile else self._reach(height, width)
        scale, hidden = self.scale, reach is None or bool(os.environ.get("SRKIT_HEADLESS"))
        options: dict[str, Any] = {"unit": "px", "unit_scale": True, "leave": False, "disable": hidden}
        area = scale**2 * width
        with tqdm(total=area * height, initial=area * done, desc=self.title or None, **options) as bar:
            while done < height:
                side = self.tile if reach else max(height, width)
                rows, columns = _share(height - done, side), _share(width, side)
                band = _empty(picture, channels, scale * rows, scale * width)
                before = bar.n
                try:
                    for start in range(0, width, columns):
                        stop = min(start + columns, width)
                        tile = self._tile(picture, (done, done + rows), (start, stop), reach, gray, given)
                        band[..., scale * start : scale * stop] = tile
                        bar.update(scale**2 * rows * (stop - start))
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                else:
                    yield band
                    done += rows
                    continue
                # Outside of `except`, where the error no longer holds on to what filled the memory.
                bar.update(before - bar.n)
                reach = reach or self._reach(height, width)
                self._halve(max(rows, columns), possible=reach is not None)

    # ------------------------------------------------------------------------------ one tile

    @torch.inference_mode()
    def _embedding(self, picture: Tensor) -> dict[str, Tensor]:
        """What a network that reads the whole picture is told with each of its tiles; nothing to any other."""
        embed = getattr(self.model, "embed", None)
        if embed is None:
            return {}
        # Bytes are made small as bytes: as floats, a large picture would take four times the memory.
        low = F.interpolate(picture[None], (SIDE, SIDE), mode="bicubic", antialias=True).to(self.device)
        return {"embedding": embed(from_uint8(low) if low.dtype == torch.uint8 else low.float())}

    @torch.inference_mode()
    def _tile(
        self, picture: Tensor, rows: Side, columns: Side, reach: Reach | None, gray: bool, given: dict[str, Tensor]
    ) -> Tensor:
        """The output of one rectangle of low, on the device: clipped, or bytes if the picture is."""
        low, own = self._window(picture[:3], rows, columns, reach)
        kind = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, kind, enabled=self.precision != "fp32"):
            low = low[None].contiguous(memory_format=self.layout)
            output = output_at(self.model, low, self.scale, **given)[0].float()
        output = output[:, *own]
        if not output.isfinite().all():
            raise SRKitError("the model's output holds NaN or infinite values: use precision fp32, or another model")
        if gray:
            output = output.mean(0, keepdim=True).expand(3, -1, -1)
        if len(picture) == 4:
            low, own = self._window(picture[3:], rows, columns, reach and BICUBIC)
            output = torch.cat([output, resize(low, scale=self.scale)[:, *own]])
        return to_uint8(output) if picture.dtype == torch.uint8 else output.clamp(0, 1)

    def _window(
        self, picture: Tensor, rows: Side, columns: Side, reach: Reach | None
    ) -> tuple[Tensor, tuple[slice, slice]]:
        """A tile with its surroundings, floats on the device; and which rows and columns of its output are its own."""
        top, bottom = _span(*rows, picture.shape[1], reach)
        left, right = _span(*columns, picture.shape[2], reach)
        low = picture[:, top:bottom, left:right].to(self.device)
        own = (slice(*(self.scale * (y - top) for y in rows)), slice(*(self.scale * (x - left) for x in columns)))
        return (from_uint8(low) if low.dtype == torch.uint8 else low.float()), own

    # ------------------------------------------------------------------------------ how large a tile

    @cached_property
    def _measured(self) -> Reach | None:
        return complexity.reach(self.model, self.scale)

    def _reach(self, height: int, width: int) -> Reach | None:
        """The network's reach; None if tiles of this picture would not have the same pixels as one pass."""
        reach = self._measured
        # A pooling drops the last rows if they fill no group, and the rest is stretched over them.
        if reach and reach.grid > 1 and (height % reach.grid or width % reach.grid):
            return None
        return reach

    def _halve(self, side: int, possible: bool) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if not possible:
            raise SRKitError("out of memory, and this network needs the whole picture at once: give it a smaller one")
        if side // 2 < SMALLEST:
            raise SRKitError(f"out of memory, even in tiles of {side} pixels: close other programs, or use the cpu")
        self.tile = side // 2
        tqdm.write(f"out of memory: going on in tiles of {self.tile} pixels")


def _check(picture: Tensor) -> None:
    if picture.ndim != 3 or len(picture) not in (3, 4) or 0 in picture.shape:
        raise SRKitError(f"cannot upscale shape {tuple(picture.shape)}: a picture is (3 or 4, H, W)")


def _empty(picture: Tensor, *shape: int) -> Tensor:
    """Memory for an output of this picture, on the CPU: bytes if the picture is."""
    return torch.empty(shape, dtype=torch.uint8 if picture.dtype == torch.uint8 else torch.float32)


def _share(length: int, tile: int) -> int:
    """The side of tiles that share a length fairly: 300 pixels are 150 and 150, not 256 and 44."""
    return math.ceil(length / math.ceil(length / tile))


def _span(start: int, stop: int, length: int, reach: Reach | None) -> Side:
    """Which pixels of a side a tile must bring along, the side's own end being a border as in one pass."""
    if reach is None:
        return 0, length
    first = max(0, start - reach.pixels) // reach.grid * reach.grid
    last = math.ceil((stop + reach.pixels) / reach.grid) * reach.grid
    return first, min(length, last)


# ---------------------------------------------------------------------------------- styles


def stylize(model: TransformerNet, picture: Tensor, strength: float = 1.0, tile: int = STYLE_TILE) -> Tensor:
    """Repaint one picture, of any size, in a trained style.

    A picture larger than a tile is normalised by the means and variances of itself made as small as one, in all of its
    tiles alike, which therefore fit together without seams; see `TransformerNet.with_statistics_of`.

    Args:
        model: a trained style, on any device.
        picture: (3, H, W) or (4, H, W) in [0, 1], 16 pixels or more a side; alpha stays as it is.
        strength: 0 is the picture, 1 the style; a mean of both between them.
        tile: largest side of a tile in pixels.

    Returns:
        The same shape, on the CPU.

    Raises:
        SRKitError: a network that enlarges, a side under 16 pixels, or another strength; what `Upscaler` raises.
    """
    if not isinstance(model, TransformerNet):
        raise SRKitError("this network enlarges and repaints nothing: give a style, e.g. brushes, or srkit upscale it")
    _check(picture)
    height, width = picture.shape[1:]
    if min(height, width) < SMALLEST or not 0 <= strength <= 1:
        raise SRKitError(f"{width} x {height} pixels at strength {strength}: give {SMALLEST} or more, strength 0 to 1")
    low = picture.cpu()
    if max(height, width) > tile:
        # Two layers of stride 2: only where both sides divide by 4 have tiles the pixels of one pass.
        low = F.pad(low[None], (0, -width % 4, 0, -height % 4), mode="replicate")[0]
        small = within(low[:3], tile)
        model = model.with_statistics_of(small[None].to(device_of(model)))
    output = Upscaler(model, tile=tile)(low)[..., :height, :width]
    return torch.lerp(picture.cpu(), output, strength)


# ---------------------------------------------------------------------------------- ONNX


def to_onnx(model: nn.Module, path: str | Path) -> Path:
    """Write a network as ONNX, for onnxruntime and other programs.

    The file takes `low` (N, 3, H, W), float32, RGB, [0, 1], of any N, H and W, and gives `output`; of a network with
    several outputs, `x2` and `x4`. Nothing is clipped. Its metadata say so, and name the network, its scale and the
    sha256 of its weights.

    Args:
        model: on any device.
        path: the file; its folder is made.

    Raises:
        SRKitError: onnx or onnxscript is missing, or PyTorch cannot export the network; no file is left behind then.
    """
    try:
        import onnx  # noqa: F401  (torch.onnx needs both)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SRKitError(f"{error.name} is not installed: pip install 'srkit[onnx]'") from None
    path, model = Path(path), copy.deepcopy(model).cpu().float().eval()
    scales, config = scales_of(model), getattr(model, "config", {})
    program = _export(model, ["output"] if len(scales) == 1 else [f"x{scale}" for scale in scales])
    program.model.metadata_props.update({
        "name": config.get("name", type(model).__name__),
        **origin(model),
        "config": json.dumps(config),
        "scale": ",".join(map(str, scales)),
        "weights_sha256": weights_sha256(model.state_dict()),
        "input": "RGB, NCHW, float32, 0 to 1; the output is not clipped",
    })  # fmt: skip
    with atomic_write(path) as draft:
        program.save(draft)
    return path


def _export(model: nn.Module, names: list[str]) -> Any:
    """The network as torch.onnx has it, with batch, height and width left open."""
    low = torch.zeros(2, 3, 24, 20)  # of a batch of one, the exporter would make a constant
    sizes = {0: "batch", 2: "height", 3: "width"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                model, (low,), dynamo=True, dynamic_shapes=(sizes,), input_names=["low"], output_names=names,
                verbose=False,
            )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise SRKitError(f"PyTorch cannot export this {type(model).__name__} as ONNX: {reason}") from None
