"""One picture: read, write, resize, luma, and the degradation that makes `low` from `high`.

The only file where value ranges and colour spaces change. Everywhere else a picture is a float32
tensor, RGB, channels first (3, H, W), values in [0, 1]; a batch is (N, 3, H, W).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, TiffImagePlugin, WebPImagePlugin  # noqa: F401, the two register themselves
from torch import Tensor

from srkit.settings import SRKitError, atomic_write, unknown

SCALES = (2, 3, 4)
KERNELS = ("nearest", "bilinear", "bicubic")
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP",
           ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".gif": "GIF"}  # fmt: skip
SUFFIXES = frozenset(FORMATS)
LONGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383, ".gif": 65_535}  # that these files can hold
MOST_PIXELS, MOST_BYTES = 178_956_970, 4 * 178_956_970  # that are read, as floats and as bytes, of each colour
MOST_ACROSS = 1_000_000  # as libpng has it: a longer side is no photograph's
PNG_LEVEL = 4  # of 0 to 9
# Image.open is not used: its limit on pixels is a global, not to be changed while other threads read; and it would try
# every format that Pillow knows, of which EPS starts another program.
Image.preinit()  # registers BMP, GIF, JPEG and PNG
READERS = [Image.OPEN[kind] for kind in FORMATS.values()]


def check_scale(scale: int) -> int:
    """Return `scale` as an int, or raise SRKitError unless it is 2, 3 or 4."""
    if scale not in SCALES:
        raise SRKitError(f"scale {scale} is not one of 2, 3, 4: choose one of these")
    return int(scale)


# ---------------------------------------------------------------------------------- files and tensors


def read(path: str | Path, alpha: str = "white", keep_bytes: bool = False) -> Tensor:
    """Read a picture file as float32 RGB in [0, 1], shape (3, H, W).

    JPEG, PNG, TIFF, WebP, BMP, GIF, whatever the name's suffix; grey, palette, CMYK and 16-bit pictures become RGB
    (Pillow keeps 16 bits for grey pictures and 8 for coloured ones); EXIF rotation is applied.

    Args:
        path: the file.
        alpha: "white" composites a transparent picture on white; "keep" returns (4, H, W), RGBA,
            for every picture that has transparency.
        keep_bytes: for large pictures: what the file holds in 8 bits stays uint8, 0 to 255, a quarter of the memory.

    Raises:
        SRKitError: the file is missing, empty, truncated, no picture, has values outside its range, or so many
            pixels (over 179 million; as bytes four times as many) that decoding it could exhaust memory.
    """
    if alpha not in ("white", "keep"):
        raise unknown("alpha mode", alpha, ["white", "keep"])
    with _opened(Path(path), MOST_BYTES if keep_bytes else MOST_PIXELS) as picture:
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)  # otherwise it would copy pictures that stand upright too
        if picture.mode.startswith("I") or picture.mode == "F":
            return _read_deep(picture, path)
        mode = "RGBA" if picture.has_transparency_data else "L" if keep_bytes and picture.mode in ("1", "L") else "RGB"
        array = np.array(picture if picture.mode == mode else picture.convert(mode))
    chw = torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)
    if keep_bytes and (len(chw) < 4 or alpha == "keep"):
        return chw if len(chw) > 1 else chw.expand(3, -1, -1)
    floats = from_uint8(chw.contiguous())
    if len(floats) == 4 and alpha == "white":
        floats = floats[:3] * floats[3:] + (1 - floats[3:])
    return to_uint8(floats) if keep_bytes else floats


def dimensions(path: str | Path) -> tuple[int, int]:
    """Height and width as the file's header says, before any rotation; nothing is decoded.

    Raises:
        SRKitError: as `read`, as far as a header can tell.
    """
    with _opened(Path(path), MOST_BYTES) as picture:
        return picture.height, picture.width


@contextmanager
def _opened(path: Path, most: int) -> Iterator[Image.Image]:
    """The picture of at most so many pixels, not yet decoded; every way in which that can fail becomes one line."""
    if not path.is_file():
        raise SRKitError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(16)
            file.seek(0)
            readers = [reader for reader, accepts in READERS if accepts and accepts(start)]
            if not readers:
                what = "not a picture, whatever its name says" if start else "the file is empty (0 bytes)"
                raise SRKitError(f"{path}: {what}: PNG, JPEG, TIFF, WebP, BMP and GIF are read")
            with readers[0](file, str(path)) as picture:
                if picture.width * picture.height > most or max(picture.size) > MOST_ACROSS:
                    pixels = f"{picture.width} x {picture.height} pixels"
                    raise SRKitError(f"{path}: {pixels} are more than can be read: cut it into pieces first")
                yield picture
    except SRKitError:
        raise
    except MemoryError:
        raise SRKitError(f"{path}: too large for this machine's memory: cut it into pieces first") from None
    except Exception as error:  # Pillow's readers raise more than a dozen kinds of them on a damaged file
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise SRKitError(f"{path}: damaged or truncated picture ({reason[0]}): get the file again") from None


def _read_deep(picture: Image.Image, path: str | Path) -> Tensor:
    """A grey picture of 16 bits or of floats, as (3, H, W)."""
    grey = np.asarray(picture, dtype=np.float32)
    top = 1.0 if picture.mode == "F" else 65535.0
    if np.isnan(grey).any():
        raise SRKitError(f"{path}: some values are NaN, not a number: save it as an 8-bit or 16-bit picture")
    if grey.min() < 0 or grey.max() > top:
        raise SRKitError(f"{path}: values outside 0 to {top:g}: save it as an 8-bit or 16-bit picture")
    return torch.from_numpy(grey / top).expand(3, -1, -1).contiguous()


def write(picture: Tensor, path: str | Path, quality: int = 95) -> Path:
    """Write a picture in [0, 1] as PNG, JPEG or another type of `SUFFIXES`, as its suffix says.

    The file appears under its name when it is complete.

    Args:
        picture: (1, H, W) grey, (3, H, W) RGB or (4, H, W) RGBA; values outside [0, 1] are clipped.
        path: where to; parent folders are made. A JPEG holds no alpha: it is composited on white.
        quality: JPEG and WebP quality, 1 to 100.

    Raises:
        SRKitError: the shape is none of these, the suffix is no picture type, a side is too long for it, or the file
            cannot be written.
    """
    if picture.ndim != 3 or picture.shape[0] not in (1, 3, 4):
        raise SRKitError(f"cannot write shape {tuple(picture.shape)}: a picture is (1, 3 or 4, H, W)")
    return write_bands([picture], path, (picture.shape[1], picture.shape[2]), quality)


def write_bands(bands: Iterable[Tensor], path: str | Path, size: tuple[int, int], quality: int = 95) -> Path:
    """As `write`, of a picture that comes in bands of whole rows, from the top; a PNG never stands in memory whole.

    Args:
        bands: (C, rows, W), bytes or floats in [0, 1]; C is 1 grey, 3 RGB or 4 RGBA, in all the same.
        path, quality: as for `write`.
        size: (H, W) of the whole picture.

    Raises:
        SRKitError: the suffix is no picture type, a side is too long for it, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise unknown("picture type", path.suffix, sorted(SUFFIXES))
    if max(size) > LONGEST_SIDE.get(suffix, max(size)):
        raise SRKitError(f"{path}: {size[1]} x {size[0]} pixels are too many for {suffix}: write a .png")
    arrays = ((band if band.dtype == torch.uint8 else to_uint8(band)).permute(1, 2, 0).cpu().numpy() for band in bands)
    with atomic_write(path) as draft:
        if suffix == ".png":
            _write_png(arrays, draft, *size)
        else:
            _write_whole(arrays, draft, *size, quality)
    return path


def _write_whole(bands: Iterable[np.ndarray], path: Path, height: int, width: int, quality: int) -> None:
    """Write bands of (rows, W, C) by Pillow, which wants the picture as a whole."""
    kind, whole, top = FORMATS[path.suffix.lower()], None, 0
    for band in bands:
        piece = Image.fromarray(band[..., 0] if band.shape[2] == 1 else band)
        if piece.mode == "RGBA" and kind in ("JPEG", "BMP"):
            piece = Image.alpha_composite(Image.new("RGBA", piece.size, "white"), piece).convert("RGB")
        whole = whole or Image.new(piece.mode, (width, height))
        whole.paste(piece, (0, top))
        top += piece.height
    if whole:
        whole.save(path, format=kind, quality=quality)


def _write_png(bands: Iterable[np.ndarray], path: Path, height: int, width: int) -> None:
    """Write bands of (rows, W, C) as PNG (ISO/IEC 15948), each row as its difference from the one above it."""
    packer, above = zlib.compressobj(PNG_LEVEL), None
    with path.open("wb") as file:

        def chunk(kind: bytes, content: bytes) -> None:
            file.write(struct.pack(">I", len(content)) + kind + content)
            file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))

        file.write(b"\x89PNG\r\n\x1a\n")
        for band in bands:
            if above is None:
                colour_type = {1: 0, 3: 2, 4: 6}[band.shape[2]]
                chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))
                above = np.zeros((1, width * band.shape[2]), np.uint8)
            rows = np.concatenate([above, band.reshape(len(band), -1)])
            above = rows[-1:]
            filtered = np.insert(rows[1:] - rows[:-1], 0, 2, axis=1)  # each row begins with its filter: 2 is "up"
            chunk(b"IDAT", packer.compress(filtered.tobytes()))
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
    if size is None and scale is not None:
        size = (round(picture.shape[-2] * scale), round(picture.shape[-1] * scale))
    elif size is None or scale is not None:
        raise SRKitError("resize takes either size=(H, W) or scale=…, and one of them only")
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

    Cut, never resized: stretching the ground truth to fit moves the x3 figure by 0.5 dB.

    Raises:
        SRKitError: a side is smaller than `scale`.
    """
    height, width = picture.shape[-2:]
    if min(height, width) < scale:
        raise SRKitError(f"a picture of {width} x {height} pixels is too small for scale {scale}")
    return picture[..., : height - height % scale, : width - width % scale]


def square(picture: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` (antialiased bicubic, clipped to [0, 1]), then cut the middle size x size."""
    height, width = picture.shape[-2:]
    factor = size / min(height, width)
    height, width = max(size, round(height * factor)), max(size, round(width * factor))
    picture = resize(picture, (height, width)).clamp(0, 1)
    top, left = (height - size) // 2, (width - size) // 2
    return picture[..., top : top + size, left : left + size]


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


def is_gray(picture: Tensor) -> Tensor:
    """Whether the three colours of (..., 3, H, W) are equal everywhere: one bool per picture, shape (...)."""
    return (picture == picture[..., :1, :, :]).all(-1).all(-1).all(-1)
