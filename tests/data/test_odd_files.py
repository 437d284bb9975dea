"""Odd files through `srkit upscale`: what each is, and what comes out. The table:

    uv run pytest -q -n 0 -s tests/data/test_odd_files.py | grep "^|"

Bicubic enlarges and quality is 100, for the question is what the way in and out keeps.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from test_photographs import profile

from srkit.cli.upscale import Upscale
from srkit.data import images, photographs

COLOURS = np.array([[[200, 60, 50], [40, 180, 60]], [[128, 120, 140], [250, 240, 10]]], np.uint8)
PATCHES = Image.fromarray(COLOURS.repeat(16, 0).repeat(16, 1))  # of P3 and of sRGB alike; four flat patches of 16 x 16
ALPHA = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
DEEP = torch.linspace(0, 1, 32 * 32).reshape(1, 32, 32).mul(65535).round() / 65535
P3 = profile()
CAMERA = {0x0110: "Pinhole 1", 0x0132: "2026:05:04 12:30:00"}


def exif(rotated: bool = False) -> Image.Exif:
    """Camera, date and a place; perhaps lying on its side."""
    tags = Image.Exif()
    tags.update(CAMERA | ({0x0112: 6} if rotated else {}))
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 0.0), 3: "E", 4: (11.0, 34.0, 0.0)})
    return tags


def deep(channels: int) -> Callable[[Path], Any]:
    colours = DEEP.expand(channels, -1, -1) * torch.tensor([1, 0.5, 0.2, 1])[:channels, None, None]
    return lambda path: photographs.write([colours], path, (channels, 32, 32),
                                          photographs.Photograph(DEEP, "PNG"))  # fmt: skip


def saved(picture: Image.Image, **options: Any) -> Callable[[Path], Any]:
    return lambda path: picture.save(path, **options)


def cut(path: Path) -> None:
    whole = io.BytesIO()
    PATCHES.resize((200, 200)).save(whole, "JPEG")
    path.write_bytes(whole.getvalue()[:-1500])


RGBA = PATCHES.copy()
RGBA.putalpha(ALPHA)
LA = PATCHES.convert("L")
LA.putalpha(ALPHA)
PALETTE = PATCHES.quantize(8)
PAGES = {"save_all": True, "append_images": [PATCHES.rotate(90), PATCHES.rotate(180)]}
FILES: dict[str, tuple[Callable[[Path], Any], str]] = {  # how to make it, and what must come out: see `row`
    "camera.jpg": (saved(PATCHES, exif=exif(), dpi=(300, 300)), "jpg RGB 8 camera dpi"),
    "rotated.jpg": (saved(PATCHES.crop((0, 0, 32, 16)), exif=exif(rotated=True)), "jpg RGB 8 camera dpi upright"),
    "P3.jpg": (saved(PATCHES, icc_profile=P3, quality=100, subsampling=0), "jpg RGB 8 profile"),
    "CMYK.jpg": (saved(PATCHES.convert("CMYK")), "jpg RGB 8"),
    "grey.jpg": (saved(PATCHES.convert("L")), "jpg L 8"),
    "P3.png": (saved(PATCHES, icc_profile=P3), "png RGB 8 profile"),
    "RGBA.png": (saved(RGBA), "png RGBA 8"),
    "LA.png": (saved(LA), "png RGBA 8"),
    "palette.png": (saved(PALETTE), "png RGB 8"),
    "palette-transparent.png": (saved(PALETTE, transparency=0), "png RGBA 8"),
    "1-bit.png": (saved(PATCHES.convert("1")), "png L 8"),
    "grey-16.png": (deep(1), "png L 16"),
    "colour-16.png": (deep(3), "png RGB 16"),
    "alpha-16.png": (deep(4), "png RGBA 16"),
    "1x1.png": (saved(PATCHES.resize((1, 1))), "png RGB 8"),
    "2000x1.png": (saved(PATCHES.resize((2000, 1))), "png RGB 8"),
    "🌻 and a space.png": (saved(PATCHES), "png RGB 8"),
    "still.gif": (saved(PALETTE), "png RGB 8"),
    "animated.gif": (saved(PALETTE, **PAGES), "png RGB 8 first"),
    "camera.tif": (saved(PATCHES, exif=exif()), "tif RGB 8 camera dpi"),
    "rotated.tif": (saved(PATCHES.crop((0, 0, 32, 16)), exif=exif(rotated=True)), "tif RGB 8 camera dpi upright"),
    "pages.tif": (saved(PATCHES, dpi=(600, 600), **PAGES), "tif RGB 8 dpi first"),
    "CMYK.tif": (saved(PATCHES.convert("CMYK")), "tif RGB 8 dpi"),
    "grey-16.tif": (deep(1), "tif L 16 dpi"),
    "colour-16.tif": (deep(3), "tif RGB 16 dpi"),
    "floats.tif": (saved(Image.fromarray(DEEP[0].numpy())), "tif L 16 dpi"),
    "alpha.webp": (saved(RGBA, lossless=True, exif=exif()), "webp RGBA 8 camera"),
    "plain.bmp": (saved(PATCHES), "bmp RGB 8 dpi"),
    "P3.avif": (saved(PATCHES, icc_profile=P3, exif=exif(), quality=100), "avif RGB 8 profile camera"),
    "P3.heic": (saved(PATCHES, icc_profile=P3, exif=exif(), quality=100), "heic RGB 8 profile camera"),
    "PNG.jpg": (saved(PATCHES, format="PNG"), "jpg RGB 8"),
    "PDF.jpg": (lambda path: path.write_bytes(b"%PDF-1.7\n1 0 obj"), "not a picture"),
    "truncated.jpg": (cut, "damaged or truncated"),
    "empty.png": (lambda path: path.write_bytes(b""), "not a picture"),
}
NEEDS = {".avif", ".heic"} - images.SUFFIXES  # what this Pillow, or its extra, cannot read


class Row(NamedTuple):
    """A file: what it is, and what came out in the words of FILES, or what was said."""

    name: str
    given: str
    made: str
    path: Path | None


def row(name: str, folder: Path) -> Row:
    """Make an odd file, enlarge it, and see what came out."""
    source = folder / "in" / name
    source.parent.mkdir(exist_ok=True)
    FILES[name][0](source)
    told, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(said):
        status = Upscale((source,), checkpoint="bicubic", scale=2, quality=100, out=folder / "out" / Path(name).stem)()
    if status:
        return Row(name, "-", said.getvalue().strip().replace(f"srkit: {source}: ", ""), None)
    (out,) = (folder / "out" / Path(name).stem).iterdir()
    before, after = photographs.read(source), photographs.read(out)
    with Image.open(source) as given, Image.open(out) as made:
        words = [out.suffix[1:], {1: "L", 3: "RGB", 4: "RGBA"}[len(after.pixels)], str(after.bits)]
        words += ["profile"] * (before.profile == after.profile != b"")
        place = [dict(one.getexif().get_ifd(0x8825)) for one in (given, made)]
        words += ["camera"] * (made.getexif().get(0x0110) == CAMERA[0x0110] and place[0] == place[1])
        words += ["dpi"] * (before.dpi is not None and np.allclose(before.dpi, after.dpi or 0, rtol=0.01))
        words += ["upright"] * (0x0112 not in made.getexif() and made.height > made.width)  # no other file is higher
        words += ["first"] * ("the first of 3 pictures" in told.getvalue())
        facts = f"{given.format} {given.mode}, {given.width} x {given.height}, {before.bits} bits"
        facts += ", profile" * bool(before.profile) + f", {before.frames} pictures" * (before.frames > 1)
    return Row(name, facts, " ".join(words), out)


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_comes_out_as_it_should(name, tmp_path):
    if Path(name).suffix in NEEDS:
        pytest.skip("this Pillow cannot read it")
    found = row(name, tmp_path)
    print(f"\n| {found.name} | {found.given} | {found.made} |")
    expected = FILES[name][1]
    assert found.made == expected if found.path else expected in found.made, found
    if found.path and "profile" in expected:
        assert np.abs(shown(found.path) - shown(tmp_path / "in" / name)).max() <= 2
    assert found.path or not list((tmp_path / "out").glob("*/*"))


def shown(path: Path) -> np.ndarray:
    """The four patches' colours in the middle of each, as sRGB: (4, 3)."""
    with Image.open(path) as picture:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"])), ImageCms.createProfile("sRGB")
        pixels = np.asarray(ImageCms.profileToProfile(picture.convert("RGB"), own, srgb), int)
    quarter = len(pixels) // 4
    return pixels[quarter :: 2 * quarter, quarter :: 2 * quarter].reshape(4, 3)
