"""One picture: read, write, resize, luma, and the degradation that makes `low` from `high`.

The only file where value ranges and colour spaces change. Everywhere else a picture is a float32
tensor, RGB, channels first (3, H, W), values in [0, 1]; a batch is (N, 3, H, W).
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from srkit.errors import SRKitError, unknown

SCALES = (2, 3, 4)
KERNELS = ("nearest", "bilinear", "bicubic")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
LONGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383, ".gif": 65_535}  # that these files can hold
PNG_LEVEL = 4  # of 0 to 9


def check_scale(scale: int) -> int:
    """Return `scale` as an int, or raise SRKitError unless it is 2, 3 or 4."""
    if scale not in SCALES:
        raise SRKitError(f"scale {scale} is not one of 2, 3, 4: choose one of these")
    return int(scale)


# ---------------------------------------------------------------------------------- files and tensors


def read(path: str | Path, alpha: str = "white", keep_bytes: bool = False) -> Tensor:
    """Read any picture file as float32 RGB in [0, 1], shape (3, H, W).

    JPEG, PNG, TIFF, WebP, …; grey, palette, CMYK and 16-bit pictures become RGB (Pillow keeps 16 bits
    for grey pictures and 8 for coloured ones); EXIF rotation is applied.

    Args:
        path: the file.
        alpha: "white" composites a transparent picture on white; "keep" returns (4, H, W), RGBA,
            for every picture that has transparency.
        keep_bytes: for large pictures: what the file holds in 8 bits stays uint8, 0 to 255, a quarter of the memory.

    Raises:
        SRKitError: the file is missing, empty, truncated, no picture, or has so many pixels (over
            2 * PIL.Image.MAX_IMAGE_PIXELS, about 179 million; as bytes four times as many) that opening it
            could exhaust memory.
    """
    if alpha not in ("white", "keep"):
        raise unknown("alpha mode", alpha, ["white", "keep"])
    path = Path(path)
    picture = _open(path, limit=4 if keep_bytes else 1)
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = np.asarray(picture, dtype=np.float32)
        top = 65535.0 if picture.mode.startswith("I") else 1.0
        if grey.min() < 0 or grey.max() > top:
            raise SRKitError(f"{path}: values outside 0 to {top:g}: save it as an 8-bit or 16-bit picture")
        return torch.from_numpy(grey / top).expand(3, -1, -1).contiguous()
    mode = "RGBA" if picture.has_transparency_data else "L" if keep_bytes and picture.mode in ("1", "L") else "RGB"
    read = _to_chw(picture if picture.mode == mode else picture.convert(mode))
    if keep_bytes and (len(read) < 4 or alpha == "keep"):
        return read if len(read) > 1 else read.expand(3, -1, -1)
    read = from_uint8(read.contiguous())
    if len(read) == 4 and alpha == "white":
        read = read[:3] * read[3:] + (1 - read[3:])
    return to_uint8(read) if keep_bytes else read


def dimensions(path: str | Path) -> tuple[int, int]:
    """Height and width as the file's header says, before any rotation; nothing is decoded.

    Raises:
        SRKitError: as `read`, as far as a header can tell.
    """
    with _one_line_errors(Path(path)), Image.open(path) as picture:
        return picture.height, picture.width


def _open(path: Path, limit: int) -> Image.Image:
    """Decode the whole file, of up to `limit` times as many pixels as Pillow allows, and turn it upright."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = limit * before
    try:
        with _one_line_errors(path), Image.open(path) as picture:
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)  # otherwise it would copy pictures that stand upright too
            return picture
    finally:
        Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Every way in which opening a picture can fail becomes one clear line."""
    if not path.is_file():
        raise SRKitError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise SRKitError(f"{path}: the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except UnidentifiedImageError:
        raise SRKitError(f"{path}: not a picture, whatever its name says") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise SRKitError(f"{path}: more than {limit} million pixels: cut it into pieces first") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise SRKitError(f"{path}: damaged or truncated picture ({error}): get the file again") from None


def _to_chw(picture: Image.Image) -> Tensor:
    """Its bytes as (C, H, W), a view of (H, W, C); copied a few rows at a time, for numpy would take all twice."""
    rows = np.empty((picture.height, picture.width, len(picture.getbands())), np.uint8)
    for top in range(0, picture.height, 256):
        part = picture.crop((0, top, picture.width, min(top + 256, picture.height)))
        rows[top : top + 256] = np.asarray(part).reshape(part.height, part.width, -1)
    return torch.from_numpy(rows).permute(2, 0, 1)


def write(picture: Tensor, path: str | Path, quality: int = 95) -> Path:
    """Write a picture in [0, 1] as PNG, JPEG or another type that Pillow knows by its suffix.

    Args:
        picture: (1, H, W) grey, (3, H, W) RGB or (4, H, W) RGBA; values outside [0, 1] are clipped.
        path: where to; parent folders are made. A JPEG holds no alpha: it is composited on white.
        quality: JPEG and WebP quality, 1 to 100.

    Raises:
        SRKitError: the shape is none of these, or the suffix is no picture type.
    """
    if picture.ndim != 3 or picture.shape[0] not in (1, 3, 4):
        raise SRKitError(f"cannot write shape {tuple(picture.shape)}: a picture is (1, 3 or 4, H, W)")
    path = Path(path)
    _check_file(path, tuple(picture.shape[1:]))
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(to_uint8(picture).permute(1, 2, 0).cpu().numpy(), path, path.suffix.lower(), quality)
    return path


def write_bands(bands: Iterable[Tensor], path: str | Path, size: tuple[int, int], quality: int = 95) -> Path:
    """Write a picture that comes in bands of whole rows, from the top; a PNG never stands in memory whole.

    The file appears under its name when it is complete.

    Args:
        bands: (C, rows, W) on the CPU, bytes or floats in [0, 1]; C is 1 grey, 3 RGB or 4 RGBA, in all the same.
        path, quality: as for `write`.
        size: (H, W) of the whole picture.

    Raises:
        SRKitError: the suffix is no picture type, a side is too long for it, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    _check_file(path, size)
    bands = iter(bands)
    first = next(bands)
    bands = chain([first], bands)
    bands = (band if band.dtype == torch.uint8 else to_uint8(band) for band in bands)
    bands = (band.permute(1, 2, 0).numpy() for band in bands)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        if suffix == ".png":
            _save_png(bands, part, size, len(first))
        else:
            whole, done = np.empty((*size, len(first)), np.uint8), 0
            for band in bands:
                whole[done : done + len(band)] = band
                done += len(band)
            _save(whole, part, suffix, quality)
        os.replace(part, path)
    except OSError as error:
        raise SRKitError(f"could not write {path} ({error})") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _check_file(path: Path, size: tuple[int, int]) -> None:
    """Say before anything is computed that a file of this kind cannot hold a picture of (H, W) pixels."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise unknown("picture type", path.suffix, sorted(SUFFIXES))
    if max(size) > LONGEST_SIDE.get(suffix, max(size)):
        raise SRKitError(f"{path}: {size[1]} x {size[0]} pixels are too many for {suffix}: write a .png")


def _save(array: np.ndarray, path: Path, suffix: str, quality: int) -> None:
    """Write (H, W, 1, 3 or 4) bytes by Pillow as the file type that the suffix means."""
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    if image.mode == "RGBA" and suffix in (".jpg", ".jpeg", ".bmp"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    image.save(path, format=Image.registered_extensions()[suffix], quality=quality)


def _save_png(bands: Iterable[np.ndarray], path: Path, size: tuple[int, int], channels: int) -> None:
    """Write bands of (rows, W, C) as PNG (ISO/IEC 15948), each row as its difference from the one above it."""

    def chunk(kind: bytes, content: bytes) -> None:
        file.write(struct.pack(">I", len(content)) + kind + content)
        file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))

    colour_type, up = {1: 0, 3: 2, 4: 6}[channels], 2
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, colour_type, 0, 0, 0))
        packer, above = zlib.compressobj(PNG_LEVEL), np.zeros((1, size[1] * channels), np.uint8)
        for band in bands:
            rows = np.concatenate([above, band.reshape(len(band), -1)])
            above = rows[-1:]
            filtered = np.empty((len(band), 1 + rows.shape[1]), np.uint8)
            filtered[:, 0] = up
            np.subtract(rows[1:], rows[:-1], out=filtered[:, 1:])
            chunk(b"IDAT", packer.compress(filtered))
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")


def to_uint8(picture: Tensor) -> Tensor:
    """[0, 1] floats to 0-255 bytes, rounded to the nearest and clipped."""
    return picture.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def from_uint8(picture: Tensor) -> Tensor:
    """0-255 bytes to float32 in [0, 1]."""
    return picture.to(torch.float32).div_(255)


# ---------------------------------------------------------------------------------- size and degradation


def resize(
    picture: Tensor, size: tuple[int, int] | None = None, scale: float | None = None, kernel: str = "bicubic"
) -> Tensor:
    """Resize a picture or a batch, up or down, the way the protocol counts on.

    Bilinear and bicubic are antialiased: when shrinking, the kernel is stretched by the factor so that
    every pixel of the source counts. With antialiasing torch's bicubic has Keys' a = -0.5, as MATLAB's
    and Pillow's have; without it, a = -0.75 and other numbers (Set5 x3 bicubic 29.64 dB, not 30.41).

    Args:
        picture: (C, H, W) or (N, C, H, W), any float type.
        size: the new (H, W); or
        scale: the factor, e.g. 3 or 1/3; sizes are rounded to the nearest pixel.
        kernel: "nearest", "bilinear" or "bicubic".

    Returns:
        The same number of dimensions. Bicubic can overshoot [0, 1] slightly: nothing is clipped here.

    Raises:
        SRKitError: unknown kernel, or not exactly one of size and scale, or an empty result.
    """
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS)
    if (size is None) == (scale is None):
        raise SRKitError("resize takes either size=(H, W) or scale=…, and one of them only")
    if size is None:
        size = (round(picture.shape[-2] * scale), round(picture.shape[-1] * scale))
    if min(size) < 1:
        raise SRKitError(f"cannot resize {tuple(picture.shape[-2:])} to {tuple(size)}: nothing would be left")
    batch = picture if picture.ndim == 4 else picture[None]
    if kernel == "nearest":
        batch = F.interpolate(batch, tuple(size), mode="nearest-exact")
    else:
        batch = F.interpolate(batch, tuple(size), mode=kernel, antialias=True, align_corners=False)
    return batch if picture.ndim == 4 else batch[0]


def crop_to_multiple(picture: Tensor, scale: int) -> Tensor:
    """Cut the bottom and right edges so that height and width divide by `scale`.

    Cut, never resized: stretching the truth to fit moves the x3 figure by 0.5 dB.

    Raises:
        SRKitError: a side is smaller than `scale`.
    """
    height, width = picture.shape[-2:]
    if min(height, width) < scale:
        raise SRKitError(f"a picture of {width} x {height} pixels is too small for scale {scale}")
    return picture[..., : height - height % scale, : width - width % scale]


def degrade(high: Tensor, scale: int, kernel: str = "bicubic") -> Tensor:
    """Make `low` from `high`: shrink by `scale`, then round to the 256 levels a file can hold.

    Args:
        high: (C, H, W) or (N, C, H, W) in [0, 1]; H and W must divide by `scale`.
        scale: 2, 3 or 4.
        kernel: what shrinks the picture; the protocol's is "bicubic".

    Returns:
        low, `scale` times smaller, in [0, 1].

    Raises:
        SRKitError: another scale, or a size that does not divide (crop_to_multiple cuts it).
    """
    check_scale(scale)
    height, width = high.shape[-2:]
    if height % scale or width % scale:
        raise SRKitError(f"{width} x {height} does not divide by {scale}: crop_to_multiple() cuts it first")
    low = resize(high, (height // scale, width // scale), kernel=kernel)
    return low.mul_(255).round_().clamp_(0, 255).div_(255)


# ---------------------------------------------------------------------------------- colour


def luma(picture: Tensor) -> Tensor:
    """BT.601 studio luma, the Y that super-resolution is measured on.

    Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255, so black is 16/255 and white 235/255: the 219
    levels of ITU-R BT.601, as MATLAB's rgb2ycbcr. Full-range luma (Pillow's "YCbCr") would lower the
    PSNR by 1.3 dB.

    Args:
        picture: (3, H, W) or (N, 3, H, W), RGB in [0, 1].

    Returns:
        (1, H, W) or (N, 1, H, W).
    """
    weight = picture.new_tensor([65.481, 128.553, 24.966]).view(3, 1, 1)
    return ((picture * weight).sum(-3, keepdim=True) + 16) / 255
