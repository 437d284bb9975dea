"""Use a trained model on pictures of your own: any size, grey or colour, with or without alpha.

A large picture goes through in tiles. Each tile brings as many pixels of its surroundings along as the network looks
at, so that the result has the same pixels as in one pass: there are no seams to blend.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from srkit.errors import SRKitError, unknown
from srkit.images import from_uint8, resize, to_uint8
from srkit.models import output_at
from srkit.profiles import choose_device
from srkit.training.engine import choose_precision, out_of_memory

DEFAULT = "srresnet-small-x4"  # for who names no model: it comes trained
TILE = 256
SMALLEST = 16  # side of the smallest tile: below it, a network computes nearly nothing but surroundings
GRIDS = (1, 2, 4, 8)
LARGEST = 512  # side of the largest picture on which a network's reach is looked for
PRECISIONS = ("fp32", "auto", "bf16", "fp16")


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


class Reach(NamedTuple):
    """How a network looks around, in pixels of low."""

    pixels: int  # how far to either side an output pixel can see
    grid: int  # poolings take pixels in pairs or fours: a tile must begin where such a group does


BICUBIC = Reach(pixels=2, grid=1)
Side = tuple[int, int]  # where something begins and ends along a side of low


class Upscaler:
    """Enlarges pictures of any size with bounded memory.

    Colour goes through the model. Alpha, which no model was trained on, is enlarged by bicubic. A grey picture (three
    equal channels) stays grey: the model's three answers are averaged. A picture no larger than a tile goes through
    in one pass, and so does every picture if the network looks at all of it at once.

    Args:
        model: takes (1, 3, H, W) in [0, 1]; it is put into eval mode.
        scale: which output, of a model with several; the largest if not given.
        tile: largest side of a tile, in pixels of low. Where memory runs out it is halved, and stays so.
        precision: "fp32"; "bf16", "fp16" or "auto" (what the device is fast in) for the network's convolutions.
        ensemble: the mean of the answers to the eight ways of turning and flipping the picture, each turned back:
            "geometric self-ensemble", Lim et al. (EDSR), arXiv 1707.02921. Eight times the work.
        device: "cpu", "cuda", "mps" or "auto" to move the model there; where it is if not given.

    Raises:
        SRKitError: a scale that the model lacks, a tile too small, an unknown precision or device.
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
        scales = getattr(model, "scales", (model.scale,))
        if scale not in (None, *scales):
            raise SRKitError(f"this model enlarges by {' or '.join(map(str, scales))}, not by {scale}")
        if tile < SMALLEST:
            raise SRKitError(f"a tile of {tile} pixels is too small: choose {SMALLEST} or more, usually {TILE}")
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if device is None:
            self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        else:
            self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        self.precision = choose_precision(precision, self.device)
        # Channels last is the order in which processors convolve fastest; of GPUs, only the units for 16 bits want it.
        last = self.device.type == "cpu" or (self.device.type == "cuda" and self.precision != "fp32")
        self.layout = torch.channels_last if last else torch.contiguous_format
        self.scale, self.tile, self.ensemble = scale or scales[-1], tile, ensemble

    def __call__(self, picture: Tensor) -> Tensor:
        """Enlarge one picture.

        Args:
            picture: (3, H, W) or (4, H, W), RGB or RGBA: floats in [0, 1], or bytes (uint8).

        Returns:
            (3 or 4, scale * H, scale * W) on the CPU: float32 clipped to [0, 1], or bytes if bytes were given.

        Raises:
            SRKitError: another shape; or memory runs out with the smallest tiles too.
        """
        _check(picture)
        channels, height, width = picture.shape
        kind = torch.uint8 if picture.dtype == torch.uint8 else torch.float32
        output = torch.empty(channels, self.scale * height, self.scale * width, dtype=kind)
        done = 0
        for band in self.bands(picture):
            output[:, done : done + band.shape[1]] = band
            done += band.shape[1]
        return output

    def bands(self, picture: Tensor) -> Iterator[Tensor]:
        """Enlarge one picture band by band, from the top: (3 or 4, rows, scale * W) each, otherwise as a call gives it.

        The whole result never stands in memory: `images.write_bands` writes such bands into a file.

        Raises:
            SRKitError: as a call.
        """
        from tqdm.auto import tqdm

        _check(picture)
        _, height, width = picture.shape
        grey = is_grey(picture)
        reach = None if max(height, width) <= self.tile else self._reach(height, width)
        done, pixels = 0, self.scale**2 * height * width
        with tqdm(total=pixels, unit="px", unit_scale=True, leave=False, disable=reach is None) as bar:
            while done < height:
                side = self.tile if reach else max(height, width)
                rows, columns = _share(height - done, side), _share(width, side)
                before = bar.n
                try:
                    band = self._band(picture, (done, done + rows), columns, reach, grey, bar)
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    band = None
                if band is None:  # outside of `except`, where the error no longer holds on to what filled the memory
                    reach = reach or self._reach(height, width)
                    self._halve(max(rows, columns), possible=reach is not None)
                    bar.update(before - bar.n)
                else:
                    yield band
                    done += rows

    # ------------------------------------------------------------------------------ one tile after the other

    def _band(self, picture: Tensor, rows: Side, columns: int, reach: Reach | None, grey: bool, bar: Any) -> Tensor:
        """The output of some rows of low, tile by tile from left to right."""
        width, scale = picture.shape[2], self.scale
        kind = torch.uint8 if picture.dtype == torch.uint8 else torch.float32
        band = torch.empty(len(picture), scale * (rows[1] - rows[0]), scale * width, dtype=kind)
        for start in range(0, width, columns):
            stop = min(start + columns, width)
            output = self._tile(picture, rows, (start, stop), reach, grey)
            band[..., scale * start : scale * stop] = to_uint8(output) if kind == torch.uint8 else output.clamp(0, 1)
            bar.update(output[0].numel())
        return band

    @torch.inference_mode()
    def _tile(self, picture: Tensor, rows: Side, columns: Side, reach: Reach | None, grey: bool) -> Tensor:
        """The output of one rectangle of low, on the CPU, not clipped."""
        ways = list(product((False, True), repeat=3)) if self.ensemble else [(False, False, False)]
        colour = sum(self._colour(picture[:3], rows, columns, reach, *way) for way in ways) / len(ways)
        if grey:
            colour = colour.mean(0, keepdim=True).expand(3, -1, -1)
        if len(picture) == 3:
            return colour.cpu()
        seen, own = self._around(picture, rows, columns, reach and BICUBIC)
        return torch.cat([colour, resize(self._floats(picture[3:, *seen]), scale=self.scale)[:, *own]]).cpu()

    def _colour(
        self, picture: Tensor, rows: Side, columns: Side, reach: Reach | None,
        upside_down: bool, mirrored: bool, turned: bool,
    ) -> Tensor:  # fmt: skip
        """What the model answers to a tile that was flipped, transposed or both, brought back as it was."""
        axes = [-2] * upside_down + [-1] * mirrored
        seen, own = self._around(picture, rows, columns, reach, upside_down, mirrored)
        low = self._floats(picture[:, *seen]).flip(axes)
        low = low.transpose(-2, -1) if turned else low
        with self._autocast():
            output = output_at(self.model, low[None].contiguous(memory_format=self.layout), self.scale)[0].float()
        output = output.transpose(-2, -1) if turned else output
        return output.flip(axes)[:, *own]

    def _around(
        self, picture: Tensor, rows: Side, columns: Side, reach: Reach | None,
        upside_down: bool = False, mirrored: bool = False,
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:  # fmt: skip
        """Which rows and columns of low a tile must see; and which of their output are the tile's own."""
        top, bottom = _span(*rows, picture.shape[1], reach, upside_down)
        left, right = _span(*columns, picture.shape[2], reach, mirrored)
        own = (slice(*(self.scale * (row - top) for row in rows)), slice(*(self.scale * (x - left) for x in columns)))
        return (slice(top, bottom), slice(left, right)), own

    def _floats(self, low: Tensor) -> Tensor:
        low = low.to(self.device)
        return from_uint8(low) if low.dtype == torch.uint8 else low.float()

    def _autocast(self) -> torch.autocast:
        kind = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, kind, enabled=self.precision != "fp32")

    # ------------------------------------------------------------------------------ how large a tile

    def _reach(self, height: int, width: int) -> Reach | None:
        """The network's reach; None if tiles of this picture would not have the same pixels as one pass."""
        reach = measure_reach(self.model, self.scale)
        # A pooling drops the last rows if they fill no group, and the rest is stretched over them; pairs are padded.
        if reach and reach.grid > 2 and (height % reach.grid or width % reach.grid):
            return None
        return reach

    def _halve(self, side: int, possible: bool) -> None:
        from tqdm.auto import tqdm

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if not possible:
            raise SRKitError("out of memory, and this network needs the whole picture at once: give it a smaller one")
        if side // 2 < SMALLEST:
            raise SRKitError(f"out of memory, even in tiles of {side} pixels: close other programs, or use the cpu")
        self.tile = side // 2
        tqdm.write(f"out of memory: going on in tiles of {self.tile} pixels")


def is_grey(picture: Tensor) -> bool:
    """Whether the three colours of (3 or 4, H, W) are equal everywhere."""
    return torch.equal(picture[0], picture[1]) and torch.equal(picture[1], picture[2])


@torch.inference_mode()
def measure_reach(model: nn.Module, scale: int | None = None) -> Reach | None:
    """How far a network looks around, measured on a copy on the CPU.

    A few rows of low are marked as "not a number", which no layer can hide: whatever looked at them is marked in the
    output. The grid is the smallest shift of the input that shifts the output along and changes nothing else.

    Args:
        model: takes low (N, 3, H, W) of any size.
        scale: which output, of a model with several; the largest if not given.

    Returns:
        None if a network looks at everything at once, as one that normalises by the picture's mean does.
    """
    probe = copy.deepcopy(model).cpu().float().eval()
    scale, block = scale or model.scale, max(GRIDS)
    side = 64
    while side <= LARGEST:
        low = torch.rand(1, 3, side, block, generator=torch.Generator().manual_seed(0))
        marked, middle = low.clone(), side // 2
        marked[..., middle : middle + block, :] = torch.nan
        rows = output_at(probe, marked, scale)[0].isnan().any(0).any(1).nonzero().flatten() // scale
        pixels = max(middle - int(rows[0]), int(rows[-1]) - middle - block + 1)
        if 2 * (pixels + 2 * block) < side:
            break
        side *= 2
    else:
        return None
    whole, border = output_at(probe, low, scale), scale * (pixels + block)
    for grid in GRIDS:
        shifted = output_at(probe, low[..., grid:, :], scale)
        difference = (shifted - whole[..., scale * grid :, :])[..., border:-border, :].abs().max()
        if difference < 1e-4:
            return Reach(pixels, grid)
    return None


def _check(picture: Tensor) -> None:
    if picture.ndim != 3 or len(picture) not in (3, 4) or 0 in picture.shape:
        raise SRKitError(f"cannot upscale shape {tuple(picture.shape)}: a picture is (3 or 4, H, W)")


def _share(length: int, tile: int) -> int:
    """The side of tiles that share a length fairly: 300 pixels are 150 and 150, not 256 and 44."""
    return math.ceil(length / math.ceil(length / tile))


def _span(start: int, stop: int, length: int, reach: Reach | None, flipped: bool) -> tuple[int, int]:
    """Which pixels of a side a tile must see, the side's own end being a border as in one pass."""
    if reach is None:
        return 0, length
    if flipped:  # groups of pixels are counted from the other end
        first, last = _span(length - stop, length - start, length, reach, False)
        return length - last, length - first
    first = max(0, start - reach.pixels) // reach.grid * reach.grid
    last = math.ceil((stop + reach.pixels) / reach.grid) * reach.grid
    return first, min(length, last)
