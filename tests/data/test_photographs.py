"""Photographs in and out: colours, bits and metadata come through, whatever kind of file it is."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image, ImageCms

from srkit.data import images, photographs
from srkit.data.photographs import Photograph
from srkit.settings import SRKitError

# D50-adapted XYZ of Display P3's primaries.
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))


def profile(primaries=P3, name: bytes = b"Display P3") -> bytes:
    """A small ICC profile (version 2): matrix and gamma 2.2."""

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    desc = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {b"desc": desc, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1, 0.8249))}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, primaries), strict=True))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, content in tags.items():
        content += bytes(-len(content) % 4)
        table += key + struct.pack(">II", start + len(body), len(content))
        body += content
    header = struct.pack(
        ">I4sI4s4s4s", 132 + 12 * len(tags) + len(body), b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


def whole(path, tmp_path, suffix: str) -> tuple[Photograph, Photograph]:
    """A file as it is read, and as it is read again from a copy that srkit wrote."""
    before = photographs.read(path)
    target = photographs.write([before.pixels], tmp_path / f"copy{suffix}", before.pixels.shape, before, quality=100)
    return before, photographs.read(target)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_colours_of_another_profile_keep_their_numbers_and_their_profile(suffix, tmp_path):
    colours = np.array([[[200, 60, 50], [40, 180, 60]], [[128, 128, 128], [250, 240, 10]]], np.uint8).repeat(16, 0)
    picture = Image.fromarray(colours.repeat(16, 1))
    picture.save(tmp_path / "p3.png", icc_profile=profile())
    before, after = whole(tmp_path / "p3.png", tmp_path, suffix)
    inside = (slice(None), slice(4, 28, 16), slice(4, 28, 16))
    assert (before.pixels.float() - after.pixels.float())[inside].abs().max() <= 2
    assert before.profile == after.profile == profile()
    own, srgb = (ImageCms.ImageCmsProfile(one) for one in (io.BytesIO(after.profile), ImageCms.createProfile("sRGB")))
    shown = [np.asarray(ImageCms.profileToProfile(one, own, srgb), int) for one in (
        picture, Image.fromarray(after.pixels.permute(1, 2, 0).numpy()))]  # fmt: skip
    assert abs(shown[0] - shown[1])[4:28:16, 4:28:16].max() <= 3


def test_a_damaged_profile_is_left_out(tmp_path):
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "a.png", icc_profile=b"no profile")
    before, after = whole(tmp_path / "a.png", tmp_path, ".png")
    assert before.profile == after.profile == b"" and before.pixels[:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_stay_sixteen(channels, suffix, tmp_path):
    numbers = (torch.rand(channels, 20, 30, generator=torch.Generator().manual_seed(0)) * 65535).round() / 65535
    like = Photograph(numbers, "PNG", profile=profile() if channels > 1 else b"", dpi=(300.0, 300.0))
    path = photographs.write(numbers.split(7, dim=1), tmp_path / f"a{suffix}", numbers.shape, like)
    before, after = whole(path, tmp_path, suffix)
    assert before.bits == after.bits == 16
    assert torch.equal(before.pixels, numbers) and torch.equal(after.pixels, numbers)
    assert after.profile == like.profile or suffix == ".tif"
    eight = photographs.read(photographs.write([numbers], tmp_path / "a.jpg", numbers.shape, like))
    assert eight.bits == 8


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_camera_place_and_resolution_come_through_and_rotation_is_applied_once(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "Maker", "2026:05:01 10:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 12.0, 0.0)
    Image.fromarray(photograph(20, 30).mul(255).byte().permute(1, 2, 0).numpy()).save(
        tmp_path / "a.jpg", exif=exif, dpi=(300, 300)
    )
    before, after = whole(tmp_path / "a.jpg", tmp_path, suffix)
    assert before.pixels.shape == after.pixels.shape == (3, 30, 20)
    with Image.open(tmp_path / f"copy{suffix}") as picture:
        found = picture.getexif()
        assert found[0x010F] == "Maker" and found.get(0x0112, 1) == 1 and found.get_ifd(0x8825)[1] == "N"
    if suffix != ".webp":  # which holds none
        assert after.dpi == pytest.approx((300, 300), abs=0.1)
    stripped = photographs.write([before.pixels], tmp_path / f"bare{suffix}", before.pixels.shape, before.stripped())
    with Image.open(stripped) as picture:
        assert 0x010F not in picture.getexif()


MODES = {"I;16.png": (1, 16), "F.tif": (1, 16), "L.jpg": (1, 8), "1.png": (1, 8), "LA.png": (4, 8), "RGBA.png": (4, 8)}
MODES |= {"RGBA.webp": (4, 8)}
MODES |= dict.fromkeys(("RGB.jpg", "CMYK.jpg", "P.png", "P.gif", "RGB.bmp", "RGB.avif", "RGB.heic"), (3, 8))


@pytest.mark.parametrize("kind", MODES)
def test_every_kind_of_file_is_read_as_it_is(kind, tmp_path):
    mode, suffix = kind.split(".")
    if f".{suffix}" not in images.FORMATS:
        pytest.skip(f"this Pillow reads no {suffix}")
    picture = Image.fromarray(photograph(12, 17).mul(255).byte().permute(1, 2, 0).numpy())
    if mode in ("I;16", "F"):
        numbers = np.linspace(0, 1, 12 * 17, dtype=np.float32).reshape(12, 17)
        picture = Image.fromarray(numbers if mode == "F" else (numbers * 65535).astype(np.uint16))
    else:
        picture = picture.convert(mode)
        if "A" in mode:
            picture.putalpha(100)
    picture.save(tmp_path / f"día ☀.{suffix}")
    found = photographs.read(tmp_path / f"día ☀.{suffix}")
    assert (len(found.pixels), found.bits, found.frames) == (*MODES[kind], 1)
    assert found.pixels.shape[1:] == (12, 17)


def test_frames_are_counted_and_the_first_is_read(tmp_path):
    frames = [Image.new("RGB", (9, 8), (shade, 0, 0)) for shade in (10, 90, 200)]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        found = photographs.read(tmp_path / name)
        assert found.frames == 3 and found.pixels[0, 0, 0] == 10


def test_blocks_of_a_jpeg_are_noticed(tmp_path):
    high = photograph(96, 128)
    assert not photographs.shows_blocks(high)
    for quality, plain in ((8, True), (95, False)):
        path = images.write(high, tmp_path / f"{quality}.jpg", quality=quality)
        assert photographs.shows_blocks(photographs.read(path).pixels) == plain


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_bands_become_one_file(channels, suffix, tmp_path):
    picture = photograph(37, 23).mul(255).byte()
    picture = torch.cat([picture, picture[:1]])[:channels]
    path = photographs.write(picture.split(10, dim=1), tmp_path / "new" / f"a.{suffix}", picture.shape)
    with Image.open(path) as file:
        assert file.size == (23, 37)
        if suffix != "jpg":  # as they were, whoever reads them
            pixels = torch.from_numpy(np.asarray(file).reshape(37, 23, channels).copy()).permute(2, 0, 1)
            assert torch.equal(pixels, picture)


def test_a_bad_write_leaves_no_file(tmp_path):
    def bands():
        yield torch.zeros(3, 4, 5, dtype=torch.uint8)
        raise SRKitError("out of memory")

    for name, shape in (("a.png", (3, 8, 5)), ("a.jpg", (3, 8, 70_000)), ("a.pngg", (3, 8, 5))):
        with pytest.raises(SRKitError):
            photographs.write(bands(), tmp_path / name, shape)
    assert not list(tmp_path.iterdir())
