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

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


# ---------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_files_round_trip(suffix, tmp_path):
    flat = torch.full((3, 8, 16), 100 / 255)
    path = images.write(flat, tmp_path / "new" / f"a.{suffix}")
    again = images.read(path)
    assert again.dtype == torch.float32 and (again - flat).abs().max() < 3 / 255 and images.dimensions(path) == (8, 16)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 51, (0.2, 0.2, 0.2)),
        ("1", 1, (1, 1, 1)),
        ("P", 2, (0.2, 0.4, 1.0)),
        ("CMYK", (0, 255, 255, 0), (1, 0, 0)),
        ("I;16", 13107, (0.2, 0.2, 0.2)),
        ("F", 0.25, (0.25, 0.25, 0.25)),
        ("LA", (255, 0), (1, 1, 1)),
        ("RGBA", (255, 0, 0, 51), (1, 0.8, 0.8)),
    ],
)
def test_every_mode_becomes_rgb(mode, value, expected, tmp_path):
    picture = Image.new(mode, (5, 3), value)
    if mode == "P":
        picture.putpalette([0, 0, 0, 9, 9, 9, 51, 102, 255])
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.tif" if mode == "F" else "a.png")
    picture.save(path)
    read, kept = images.read(path), images.read(path, keep_bytes=True)
    assert read.shape == (3, 3, 5) and read.dtype == torch.float32
    assert torch.allclose(read[:, 1, 1], torch.tensor(expected, dtype=torch.float32), atol=0.02)
    # 16 bits and floats are more than a byte
    assert kept.dtype == (torch.float32 if mode in ("I;16", "F") else torch.uint8)
    assert torch.allclose(kept if kept.dtype == torch.float32 else kept / 255, read)


def test_alpha_is_kept_on_request(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 51)).save(tmp_path / "a.png")
    kept = images.read(tmp_path / "a.png", alpha="keep")
    assert kept.shape == (4, 2, 2) and torch.allclose(kept[:, 0, 0], torch.tensor([1, 0, 0, 0.2]))
    assert images.read(tmp_path / "a.png", "keep", keep_bytes=True)[:, 0, 0].tolist() == [255, 0, 0, 51]
    on_white = images.read(images.write(kept, tmp_path / "b.jpg"))[:, 0, 0]
    assert torch.allclose(on_white, torch.tensor([1, 0.8, 0.8]), atol=0.02)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([0, 0, 0])
    palette.save(tmp_path / "c.png", transparency=0)
    assert images.read(tmp_path / "c.png").min() == 1


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left column is the top row
    assert images.read(save(tmp_path / "a.png", RGB, exif=exif)).shape == (3, 6, 4)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_bad_files_are_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    (tmp_path / "eps.png").write_bytes(eps)  # Pillow would give it to Ghostscript, whatever its name
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: pytest.fail("a program was started"))
    whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    save(tmp_path / "nan.tif", np.array([[0.5, np.nan]], np.float32))
    save(tmp_path / "high.tif", np.array([[0.5, 2]], np.float32))
    header = struct.pack(">IIBBBBB", 100_000_000, 1, 8, 2, 0, 0, 0)
    (tmp_path / "wide.png").write_bytes(whole[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    cases = {"none.png": "no such file", "empty.png": "empty", "text.png": "not a picture", "cut.png": "damaged"}
    cases |= {"cut.jpg": "damaged", "nan.tif": "NaN", "high.tif": "outside 0 to 1", "wide.png": "100000000 x 1 pixels"}
    for name, message in (cases | {"eps.png": "not a picture"}).items():
        with pytest.raises(SRKitError, match=message) as caught:
            images.read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SRKitError):
        images.dimensions(tmp_path / "wide.png")


def test_the_limit_on_pixels_is_our_own(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert images.read(path).shape == (3, 4, 6) and Image.MAX_IMAGE_PIXELS == 1
    monkeypatch.setattr(images, "MOST_PIXELS", 10)  # RGB has 24
    with pytest.raises(SRKitError):
        images.read(path)
    assert images.read(path, keep_bytes=True).dtype == torch.uint8
    monkeypatch.setattr(images, "MOST_BYTES", 23)
    with pytest.raises(SRKitError):
        images.read(path, keep_bytes=True)


# ---------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_bands_become_one_file(channels, suffix, tmp_path):
    picture = torch.randint(0, 256, (channels, 37, 23), dtype=torch.uint8)
    path = images.write_bands(picture.split(10, dim=1), tmp_path / f"a.{suffix}", (37, 23))
    with Image.open(path) as file:
        assert file.size == (23, 37) and len(file.getbands()) == (3 if (channels, suffix) == (4, "jpg") else channels)
        if suffix != "jpg":
            pixels = torch.from_numpy(np.asarray(file).reshape(37, 23, channels).copy()).permute(2, 0, 1)
            assert torch.equal(pixels, picture)
    floats = images.write(picture / 255, tmp_path / f"floats.{suffix}")
    assert torch.equal(images.read(floats, "keep"), images.read(path, "keep"))


def test_bad_writes_leave_no_file(tmp_path):
    def bands():
        yield torch.zeros(3, 4, 5, dtype=torch.uint8)
        raise SRKitError("out of memory")

    for wrong in (
        lambda: images.write_bands(bands(), tmp_path / "a.png", (8, 5)),
        lambda: images.write_bands(bands(), tmp_path / "a.jpg", (8, 70_000)),
        lambda: images.write(torch.rand(3, 4, 4), tmp_path / "a.pngg"),
        lambda: images.write(torch.rand(2, 4, 4), tmp_path / "a.png"),
    ):
        with pytest.raises(SRKitError):
            wrong()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------- size, degradation, colour


@pytest.mark.parametrize("kernel", images.KERNELS)
def test_resize_keeps_flat_pictures_flat_and_dimensions_as_they_were(kernel):
    flat = torch.full((3, 9, 12), 0.3)
    for picture in (flat, flat[None]):
        for wanted, options in {(27, 36): {"scale": 3}, (3, 4): {"scale": 1 / 3}, (5, 7): {"size": (5, 7)}}.items():
            out = images.resize(picture, kernel=kernel, **options)
            assert out.shape[-2:] == wanted and out.ndim == picture.ndim
            assert torch.allclose(out, torch.tensor(0.3), atol=1e-6)


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
    assert images.square(picture, 8).min() == 1
    assert images.square(photograph(31, 77), 24).shape == (3, 24, 24)
    assert torch.equal(images.crop_to_multiple(picture, 3), picture[:, :6, :15])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: images.read("a.png", alpha="black"),
        lambda: images.resize(torch.rand(3, 8, 8)),
        lambda: images.resize(torch.rand(3, 8, 8), (4, 4), 2),
        lambda: images.resize(torch.rand(3, 8, 8), scale=0.01),
        lambda: images.resize(torch.rand(3, 8, 8), scale=2, kernel="bicubik"),
        lambda: images.crop_to_multiple(torch.rand(3, 4, 1), 2),
        lambda: images.degrade(torch.rand(3, 12, 13), 3),
        lambda: images.degrade(torch.rand(3, 20, 20), 5),
    ],
)
def test_bad_arguments(wrong):
    with pytest.raises(SRKitError):
        wrong()


def test_luma_is_studio_range_as_scikit_image():
    picture = torch.rand(3, 7, 5, dtype=torch.double)
    expected = rgb2ycbcr(picture.permute(1, 2, 0).numpy())[..., 0]
    assert np.allclose(images.luma(picture)[0].numpy() * 255, expected)


def test_is_gray():
    grey = torch.rand(1, 5, 4).expand(3, -1, -1)
    nearly = grey.clone()
    nearly[2, 4, 3] += 0.01
    assert images.is_gray(torch.stack([grey, nearly])).tolist() == [True, False]
