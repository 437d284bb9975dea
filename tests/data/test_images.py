"""images: everything a person has becomes float32 RGB in [0, 1]; the protocol's resize, degradation and luma."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image
from skimage.color import rgb2ycbcr

from srkit.data import images
from srkit.settings import SRKitError

# ---------------------------------------------------------------------------------- reading


MODES = {
    "L": (51, (0.2, 0.2, 0.2)),
    "1": (1, (1, 1, 1)),
    "P": (2, (0.2, 0.4, 1.0)),
    "CMYK": ((0, 255, 255, 0), (1, 0, 0)),
    "I;16": (13107, (0.2, 0.2, 0.2)),
    "F": (0.25, (0.25, 0.25, 0.25)),
    "LA": ((255, 0), (1, 1, 1)),
    "RGBA": ((255, 0, 0, 51), (1, 0.8, 0.8)),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode, tmp_path):
    value, expected = MODES[mode]
    picture, path = Image.new(mode, (5, 3), value), tmp_path / ("a.tif" if mode in ("F", "CMYK") else "a.png")
    if mode == "P":
        picture.putpalette([0, 0, 0, 9, 9, 9, 51, 102, 255])
    picture.save(path)
    read, kept = images.read(path), images.read(path, alpha="keep")
    assert read.shape == (3, 3, 5) and read.dtype == torch.float32 and images.dimensions(path) == (3, 5)
    assert torch.allclose(read[:, 1, 1], torch.tensor(expected, dtype=torch.float32), atol=0.02)
    assert len(kept) == (4 if mode in ("LA", "RGBA") else 3)


def test_transparent_palettes_and_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left column is the top row
    picture = Image.new("P", (6, 4), 0)
    picture.putpalette([0, 0, 0])
    picture.save(tmp_path / "a.png", transparency=0, exif=exif)
    read = images.read(tmp_path / "a.png")
    assert read.shape == (3, 6, 4) and read.min() == 1


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_bad_files_are_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # what others set there is no matter
    for suffix in ("png", "jpg", "tif"):
        images.write(torch.rand(3, 64, 64), tmp_path / f"whole.{suffix}")
    whole, jpeg = ((tmp_path / f"whole.{suffix}").read_bytes() for suffix in ("png", "jpg"))
    (tmp_path / "empty.png").write_bytes(b"")
    # Pillow would give this one to Ghostscript, whatever its name
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.jpg").write_bytes(jpeg[:-200])
    Image.fromarray(np.array([[0.5, np.nan]], np.float32)).save(tmp_path / "nan.tif")
    Image.fromarray(np.array([[0.5, 2]], np.float32)).save(tmp_path / "high.tif")
    for name, size in {"wide.png": (100_000_000, 1), "vast.png": (20_000, 20_000)}.items():
        header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
        (tmp_path / name).write_bytes(whole[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    cases = {"none.png": "no such file", "empty.png": "empty", "eps.png": "not a picture", "cut.png": "damaged"}
    cases |= {"cut.jpg": "damaged", "nan.tif": "NaN", "high.tif": "outside 0 to 1", "wide.png": "more pixels"}
    for name, message in (cases | {"vast.png": "more pixels"}).items():
        with pytest.raises(SRKitError, match=message) as caught:
            images.read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SRKitError):
        images.dimensions(tmp_path / "wide.png")
    assert Image.MAX_IMAGE_PIXELS is None


# ---------------------------------------------------------------------------------- writing


def test_a_jpeg_of_a_transparent_picture_is_composited_on_white(tmp_path):
    picture = torch.cat([photograph(16, 16), torch.linspace(0, 1, 16).expand(1, 16, 16)])
    white, found = (images.read(images.write(picture, tmp_path / name)) for name in ("a.png", "a.jpg"))
    assert (found - white).abs().mean() < 0.03


def test_bad_writes_leave_no_file(tmp_path):
    for wrong in (
        lambda: images.write(torch.zeros(3, 1, 70_000), tmp_path / "a.jpg"),
        lambda: images.write(torch.rand(3, 4, 4), tmp_path / "a.pngg"),
        lambda: images.write(torch.rand(2, 4, 4), tmp_path / "a.png"),
    ):
        with pytest.raises(SRKitError):
            wrong()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------- size, degradation, colour


@pytest.mark.parametrize("kernel", images.KERNELS)
def test_resize_keeps_flat_pictures_flat_and_dimensions_as_they_were(kernel):
    for picture in (torch.full((3, 9, 12), 0.3), torch.full((1, 3, 9, 12), 0.3)):
        for wanted, options in {(27, 36): {"scale": 3}, (3, 4): {"scale": 1 / 3}, (5, 7): {"size": (5, 7)}}.items():
            out = images.resize(picture, kernel=kernel, **options)
            assert out.shape == (*picture.shape[:-2], *wanted) and (out - 0.3).abs().max() < 1e-6


def test_shrinking_is_antialiased_and_degrade_rounds_to_eight_bits():
    stripes = torch.zeros(1, 1, 12, 12)
    stripes[..., ::3] = 1  # every third column: without antialiasing x3 sees only one phase
    assert torch.allclose(images.resize(stripes, scale=1 / 3)[..., 1:3], torch.tensor(1 / 3), atol=0.02)
    low = images.degrade(torch.rand(2, 3, 12, 18), 3)
    assert low.shape == (2, 3, 4, 6) and torch.equal((low * 255).round() / 255, low)
    assert low.min() >= 0 and low.max() <= 1


def test_square_and_crop_to_multiple():
    picture = torch.zeros(3, 8, 16)
    picture[:, :, 4:12] = 1
    assert images.square(picture, 8).min() == 1 and images.square(photograph(31, 77), 24).shape == (3, 24, 24)
    assert torch.equal(images.crop_to_multiple(picture, 3), picture[:, :6, :15])


def test_bad_arguments():
    for wrong in (
        lambda: images.resize(torch.rand(3, 8, 8), scale=2, kernel="bicubik"),
        lambda: images.crop_to_multiple(torch.rand(3, 4, 1), 2),
        lambda: images.degrade(torch.rand(3, 12, 13), 3),
        lambda: images.check_scale(5),
    ):
        with pytest.raises(SRKitError):
            wrong()


def test_luma_is_studio_range_as_scikit_image_and_gray_is_noticed():
    picture = torch.rand(3, 7, 5, dtype=torch.double)
    expected = rgb2ycbcr(picture.permute(1, 2, 0).numpy())[..., 0]
    assert np.allclose(images.luma(picture)[0].numpy() * 255, expected)
    grey = picture[:1].expand(3, -1, -1)
    nearly = grey.clone()
    nearly[2, 4, 3] += 0.01
    assert images.is_gray(torch.stack([grey, nearly])).tolist() == [True, False]
