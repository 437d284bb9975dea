"""A photograph as its file has it, with profile, 16 bits, EXIF and resolution, which come through an enlargement.

A file's RGB numbers go through the network as they are, whatever its profile, and the profile goes into the new file: a
way by sRGB would clip the colours that only the wider one has. Colours that are no RGB become sRGB.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from srkit.data import images
from srkit.settings import atomic_write

DEEP = ("PNG", "TIFF")  # formats that hold 16 bits
PNG_LEVEL = 4  # of compression, 0 to 9
ORIENTATION, BITS = 0x0112, 258  # tags of EXIF and TIFF
# Of a TIFF's tags: description, camera, program, date, artist, copyright, EXIF, GPS. The others are how it is stored.
ABOUT = {270, 271, 272, 305, 306, 315, 33432, 34665, 34853}


@dataclass(frozen=True)
class Photograph:
    """What a file holds.

    Attributes:
        pixels: (1 grey, 3 RGB or 4 RGBA, H, W): uint8, or float32 in [0, 1] if the file has 16 bits.
        format: as Pillow calls it, e.g. "JPEG".
        profile: the ICC profile that `pixels` are in, if the file has one for RGB.
        exif: camera, date, place, without the rotation, which is applied.
        dpi: pixels per inch, along x and y.
        frames: how many pictures the file holds; `pixels` are the first.
    """

    pixels: Tensor
    format: str
    profile: bytes = b""
    exif: bytes = b""
    dpi: tuple[float, float] | None = None
    frames: int = 1

    @property
    def bits(self) -> int:
        """8 or 16, of each number in the file."""
        return 8 if self.pixels.dtype == torch.uint8 else 16

    def stripped(self) -> Photograph:
        """Without camera, date, place and resolution; the colours keep their profile."""
        return replace(self, exif=b"", dpi=None)


def read(path: str | Path) -> Photograph:
    """Read a photograph with everything that should come through.

    Raises:
        SRKitError: as `images.read`.
    """
    with images.opened(path) as picture:
        kind = picture.format or "PNG"
        pixels = _deep(picture, Path(path))  # before anything else: getexif decodes a PNG
        frames = getattr(picture, "n_frames", 1)  # counting goes through the file, and the tags are read anew
        exif = picture.getexif()
        profile, dpi = picture.info.get("icc_profile") or b"", picture.info.get("dpi")
        if pixels is None:
            ImageOps.exif_transpose(picture, in_place=True)  # otherwise it would copy pictures that stand upright too
            exif.pop(ORIENTATION, None)
            pixels, profile = _rgb(picture, profile)
        for tag in exif.keys() - ABOUT if kind == "TIFF" else ():
            del exif[tag]
    if len(pixels) == 3 and images.is_gray(pixels):
        pixels = pixels[:1]
    dots = (float(dpi[0]), float(dpi[1])) if dpi else None
    return Photograph(pixels, kind, profile, exif.tobytes() if len(exif) else b"", dots, frames)


def write(
    bands: Iterable[Tensor], path: str | Path, shape: Sequence[int], like: Photograph | None = None, quality: int = 95
) -> Path:
    """Write a picture that comes in bands of whole rows; a PNG never stands in memory whole.

    The file appears under its name when it is complete.

    Args:
        bands: (C, rows, W), bytes or floats in [0, 1], from the top; C is 1 grey, 3 RGB or 4 RGBA.
        path: its suffix says the format; parent folders are made. A JPEG holds no alpha: it is composited on white.
        shape: (C, H, W) of the whole.
        like: whose profile, bits, EXIF and resolution go into the file, too.
        quality: of JPEG, WebP, AVIF and HEIC, 1 to 100.

    Raises:
        SRKitError: the suffix is no picture type, or a side is too long for it.
        OSError: the file cannot be written.
    """
    path, like = Path(path), like or Photograph(torch.zeros(1, 1, 1, dtype=torch.uint8), "PNG")
    kind = images.format_of(path, shape)
    deep = like.bits == 16 and kind in DEEP
    arrays = (_numbers(band, deep) for band in bands)
    with atomic_write(path) as draft:
        if kind == "PNG":
            _write_png(arrays, draft, shape, 16 if deep else 8, like)
            return path
        whole = np.concatenate(list(arrays))
        if deep:
            import tifffile

            dots = like.dpi or (72.0, 72.0)
            colour = "rgb" if shape[0] >= 3 else "minisblack"
            options: dict[str, Any] = {"resolution": dots, "resolutionunit": "INCH", "iccprofile": like.profile or None}
            tifffile.imwrite(draft, whole.squeeze(), photometric=colour, **options)
            return path
        more = {"icc_profile": like.profile, "exif": like.exif, "dpi": like.dpi}
        more = {key: value for key, value in more.items() if value}
        images.save(whole, draft, kind, quality=quality, **more)
    return path


def shows_blocks(pixels: Tensor) -> bool:
    """Whether JPEG's blocks are plain: the steps of every eighth pixel are larger than those amid the blocks.

    Args:
        pixels: (C, H, W) as a file has them, from its corner.
    """
    luma = pixels.float().mean(0)
    for steps in (luma.diff(dim=1).abs().mean(0), luma.diff(dim=0).abs().mean(1)):
        places = torch.arange(len(steps)) % 8
        if len(steps) < 32 or steps[places == 7].mean() < 1.25 * steps[(places == 2) | (places == 4)].mean():
            return False
    return True


def _deep(picture: Image.Image, path: Path) -> Tensor | None:
    """The pixels of a file with 16 bits or floats, float32 in [0, 1], as they lie; None if it has eight bits."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return images.deep_grey(picture, path)
    if picture.format == "PNG" and "16" in str(getattr(picture, "tile", "")):  # Pillow would make eight of colours' 16
        from torchvision.io import decode_image, read_file

        return decode_image(read_file(str(path))).float() / 65535
    if picture.format == "TIFF" and 16 in getattr(picture, "tag_v2", {}).get(BITS, ()):
        import tifffile

        return torch.from_numpy(tifffile.imread(path, key=0).astype(np.float32) / 65535).permute(2, 0, 1)
    return None


def _rgb(picture: Image.Image, profile: bytes) -> tuple[Tensor, bytes]:
    """Bytes (3 or 4, H, W), and the profile that they are in; those of CMYK or grey are converted by theirs to sRGB."""
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    colours = picture if picture.mode in ("RGB", "CMYK", "L") else picture.convert("RGB")
    if profile:
        try:
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            core: Any = own.profile
            if core.xcolor_space.strip() != "RGB":
                profile = b""
                colours = ImageCms.profileToProfile(colours, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):  # a damaged profile, or one of other colours than these
            profile = b""
    colours = (colours or picture).convert("RGB")
    if alpha is not None:
        colours.putalpha(alpha)
    return torch.from_numpy(np.array(colours)).permute(2, 0, 1), profile


def _numbers(band: Tensor, deep: bool) -> np.ndarray:
    """(rows, W, C) as the file will hold them."""
    if deep:
        return (band.float().clamp(0, 1) * 65535).round().permute(1, 2, 0).cpu().numpy().astype(np.uint16)
    return (band if band.dtype == torch.uint8 else images.to_uint8(band)).permute(1, 2, 0).cpu().numpy()


def _write_png(bands: Iterable[np.ndarray], path: Path, shape: Sequence[int], bits: int, like: Photograph) -> None:
    """Write bands of (rows, W, C) as PNG (ISO/IEC 15948), each pixel as its difference from the one to its left."""
    packer = zlib.compressobj(PNG_LEVEL)
    channels, height, width = shape
    with path.open("wb") as file:

        def chunk(kind: bytes, content: bytes) -> None:
            file.write(struct.pack(">I", len(content)) + kind + content)
            file.write(struct.pack(">I", zlib.crc32(kind + content)))

        file.write(b"\x89PNG\r\n\x1a\n")
        colour_type = {1: 0, 3: 2, 4: 6}[channels]
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
        if like.profile and channels >= 3:
            chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(like.profile))
        if like.dpi:
            chunk(b"pHYs", struct.pack(">IIB", *(round(dots / 0.0254) for dots in like.dpi), 1))
        if like.exif:
            chunk(b"eXIf", like.exif.removeprefix(b"Exif\0\0"))
        for band in bands:
            stored = np.ascontiguousarray(band.astype(">u2") if bits == 16 else band).view(np.uint8)
            stored = stored.reshape(len(band), width, -1)
            rows = np.diff(stored, axis=1, prepend=np.uint8(0)).reshape(len(band), -1)
            rows = np.insert(rows, 0, 1, axis=1)  # each row begins with its filter: 1 is "sub"
            chunk(b"IDAT", packer.compress(rows.tobytes()))
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")
