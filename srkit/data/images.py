"""One picture: read, write, resize, luma, and the degradation that makes `low` from `high`.

The only file where value ranges and colour spaces change. Everywhere else a picture is a float32
tensor, RGB, channels first (3, H, W), values in [0, 1]; a batch is (N, 3, H, W).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from srkit.settings import SRKitError, atomic_write, unknown

SCALES = (2, 3, 4)
KERNELS = ("nearest", "bilinear", "bicubic")
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
           ".webp": "WEBP", ".gif": "GIF"}  # fmt: skip
if features.check("avif"):  # older Pillows have it not
    FORMATS[".avif"] = "AVIF"
with suppress(ImportError):  # an extra
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS |= {".heic": "HEIF", ".heif": "HEIF"}
LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 65_536, "HEIF": 16_384}  # that files can hold
SUFFIXES = frozenset(FORMATS)
MOST_PIXELS = 178_956_970  # that are read: with this many Pillow, too, takes a file for a bomb
MOST_ACROSS = 1_000_000  # as libpng has it: a longer side is no photograph's
warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with a file the error says; from every thread


def check_scale(scale: int) -> int:
    """Return `scale` as an int, or raise SRKitError unless it is 2, 3 or 4."""
    if scale not in SCALES:
        raise SRKitError(f"scale {scale} is not one of 2, 3, 4: choose one of these")
    return int(scale)


# ---------------------------------------------------------------------------------- files and tensors


def read(path: str | Path, alpha: str = "white") -> Tensor:
    """Read a picture file as float32 RGB in [0, 1], shape (3, H, W).

    JPEG, PNG, TIFF, WebP, BMP, GIF, AVIF, and HEIC where pillow-heif is installed, whatever the name's suffix; grey,
    palette, CMYK and 16-bit pictures become RGB (16 bits of grey pictures, 8 of coloured ones); EXIF rotation is
    applied, colour profiles are not (`photographs.read` does).

    Args:
        path: the file.
        alpha: "white" composites a transparent picture on white; "keep" returns (4, H, W), RGBA,
            for every picture that has transparency.

    Raises:
        SRKitError: the file is missing, empty, truncated, no picture, has values outside its range, or so many
            pixels (over 179 million) that decoding it could exhaust memory.
    """
    with opened(path) as stored:
        ImageOps.exif_transpose(stored, in_place=True)  # otherwise it would copy pictures that stand upright too
        if stored.mode.startswith("I") or stored.mode == "F":
            return deep_grey(stored, path).expand(3, -1, -1).contiguous()
        mode = "RGBA" if stored.has_transparency_data else "RGB"
        array = np.array(stored if stored.mode == mode else stored.convert(mode))
    picture = from_uint8(torch.from_numpy(array).permute(2, 0, 1).contiguous())
    if len(picture) == 4 and alpha != "keep":
        picture = picture[:3] * picture[3:] + (1 - picture[3:])
    return picture


def deep_grey(picture: Image.Image, path: str | Path) -> Tensor:
    """A grey picture of 16 bits or floats as float32 (1, H, W) in [0, 1].

    Raises:
        SRKitError: a value is NaN or outside its range.
    """
    top = 1 if picture.mode == "F" else 65535
    values = np.asarray(picture, np.float32) / np.float32(top)
    if not ((values >= 0) & (values <= 1)).all():
        bad = f"some values are NaN or outside 0 to {top}"
        raise SRKitError(f"{path}: {bad}: save it as an 8-bit or 16-bit picture")
    return torch.from_numpy(values)[None]


def dimensions(path: str | Path) -> tuple[int, int]:
    """Height and width as the file's header says, before any rotation; nothing is decoded.

    Raises:
        SRKitError: as `read`, as far as a header can tell.
    """
    with opened(path) as picture:
        return picture.height, picture.width


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """The picture, not yet decoded; every way in which that can fail becomes one line."""
    kinds = tuple(FORMATS.values())  # named, for among all that Pillow knows is EPS, which starts another program
    try:
        with Image.open(path, formats=kinds) as picture:
            if picture.width * picture.height > MOST_PIXELS or max(picture.size) > MOST_ACROSS:
                raise Image.DecompressionBombError
            yield picture
    except SRKitError:
        raise
    except FileNotFoundError:
        raise SRKitError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        if Path(path).suffix.lower() in (".heic", ".heif") and ".heic" not in FORMATS:
            raise SRKitError(f"{path}: HEIC is read by another package: pip install pillow-heif") from None
        what = "empty, or not a picture, whatever its name says"
        raise SRKitError(f"{path}: {what}: {', '.join(sorted(set(kinds)))} are read") from None
    except (MemoryError, Image.DecompressionBombError):
        raise SRKitError(f"{path}: more pixels than can be read: cut it into pieces first") from None
    except Exception as error:  # Pillow's readers raise more than a dozen kinds of them on a damaged file
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise SRKitError(f"{path}: damaged or truncated picture ({reason[0]}): get the file again") from None


def write(picture: Tensor, path: str | Path, quality: int = 95) -> Path:
    """Write a picture in [0, 1] as PNG, JPEG or another type of `SUFFIXES`, as its suffix says.

    The file appears under its name when it is complete.

    Args:
        picture: (1, H, W) grey, (3, H, W) RGB or (4, H, W) RGBA; values outside [0, 1] are clipped.
        path: where to; parent folders are made. A JPEG holds no alpha: it is composited on white.
        quality: JPEG, WebP, AVIF and HEIC quality, 1 to 100.

    Raises:
        SRKitError: the shape is none of these, the suffix is no picture type, or a side is too long for it.
        OSError: the file cannot be written.
    """
    if picture.ndim != 3 or picture.shape[0] not in (1, 3, 4):
        raise SRKitError(f"cannot write shape {tuple(picture.shape)}: a picture is (1, 3 or 4, H, W)")
    path = Path(path)
    kind = format_of(path, picture.shape)
    with atomic_write(path) as draft:
        save(to_uint8(picture).permute(1, 2, 0).cpu().numpy(), draft, kind, quality=quality)
    return path


def format_of(path: Path, shape: Sequence[int]) -> str:
    """The format that a file's suffix names, as Pillow calls it.

    Raises:
        SRKitError: it names none, or one that cannot hold (C, H, W).
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise unknown("picture type", path.suffix, sorted(SUFFIXES))
    if max(shape) > LONGEST_SIDE.get(kind, max(shape)):
        raise SRKitError(f"{path}: {shape[2]} x {shape[1]} pixels are too many for {path.suffix}: write a .png")
    return kind


def save(array: np.ndarray, path: Path, kind: str, **options: Any) -> None:
    """Write bytes (H, W, 1, 3 or 4) by Pillow, as a format of its own names."""
    picture = Image.fromarray(array if array.shape[2] > 1 else array[..., 0])
    if picture.mode == "RGBA" and kind in ("JPEG", "BMP"):
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    picture.save(path, format=kind, **options)


def to_uint8(picture: Tensor) -> Tensor:
    """[0, 1] floats to 0-255 bytes, rounded to the nearest and clipped."""
    return picture.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def from_uint8(picture: Tensor) -> Tensor:
    """0-255 bytes to float32 in [0, 1]."""
    return picture.to(torch.float32).div_(255)


# ---------------------------------------------------------------------------------- size and degradation


def resize(picture: Tensor, size: tuple[int, int] | None = None, scale: float = 1, kernel: str = "bicubic") -> Tensor:
    """Resize a picture or a batch, up or down, the way the protocol counts on.

    Bilinear and bicubic are antialiased: when shrinking, the kernel is stretched by the factor so that
    every pixel of the source counts. With antialiasing torch's bicubic has Keys' a = -0.5, as MATLAB's
    and Pillow's have; without it, a = -0.75 and other numbers (Set5 x3 bicubic 29.64 dB, not 30.41).

    Args:
        picture: (C, H, W) or (N, C, H, W), any float type.
        size: the new (H, W); or else
        scale: the factor, e.g. 3 or 1/3; sizes are rounded to the nearest pixel.
        kernel: "nearest", "bilinear" or "bicubic".

    Returns:
        The same number of dimensions. Bicubic can overshoot [0, 1] slightly: nothing is clipped here.

    Raises:
        SRKitError: unknown kernel.
    """
    if kernel not in KERNELS:
        raise unknown("kernel", kernel, KERNELS)
    size = size or (round(picture.shape[-2] * scale), round(picture.shape[-1] * scale))
    mode = "nearest-exact" if kernel == "nearest" else kernel
    batch = picture if picture.ndim == 4 else picture[None]
    batch = F.interpolate(batch, size, mode=mode, antialias=kernel != "nearest")
    return batch if picture.ndim == 4 else batch[0]


def within(picture: Tensor, longest: int) -> Tensor:
    """A picture, (C, H, W) in [0, 1], made smaller by bicubic if a side is longer than this, in pixels."""
    height, width = picture.shape[-2:]
    if max(height, width) <= longest:
        return picture
    size = [max(1, round(side * longest / max(height, width))) for side in (height, width)]
    return resize(picture, (size[0], size[1])).clamp(0, 1)


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


def degrade(high: Tensor, scale: int) -> Tensor:
    """Make `low` from `high`: shrink by `scale` (bicubic), then round to the 256 levels a file can hold.

    Args:
        high: (C, H, W) or (N, C, H, W) in [0, 1]; H and W must divide by `scale`.
        scale: a whole number.

    Returns:
        low, `scale` times smaller, in [0, 1].

    Raises:
        SRKitError: a size that does not divide (crop_to_multiple cuts it).
    """
    height, width = high.shape[-2:]
    if height % scale or width % scale:
        raise SRKitError(f"{width} x {height} does not divide by {scale}: crop_to_multiple() cuts it first")
    low = resize(high, (height // scale, width // scale))
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
