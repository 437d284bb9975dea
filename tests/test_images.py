"""images: everything a person has becomes float32 RGB in [0, 1]; the protocol's resize, degradation and luma."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr

from srkit import images
from srkit.errors import SRKitError


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def test_png_round_trip_is_exact(tmp_path):
    picture = images.read(save(tmp_path / "a.png", RGB))
    assert picture.shape == (3, 4, 6) and picture.dtype == torch.float32
    assert torch.equal(images.read(images.write(picture, tmp_path / "new" / "b.png")), picture)


def test_jpeg_is_close(tmp_path):
    picture = images.read(save(tmp_path / "a.png", np.full((16, 16, 3), 100, np.uint8)))
    again = images.read(images.write(picture, tmp_path / "b.jpg"))
    assert (again - picture).abs().max() < 3 / 255


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 51, (0.2, 0.2, 0.2)),
        ("1", 1, (1, 1, 1)),
        ("P", 2, None),
        ("CMYK", (0, 255, 255, 0), (1, 0, 0)),
        ("I;16", 65535, (1, 1, 1)),
        ("I;16", 13107, (0.2, 0.2, 0.2)),
        ("F", 0.25, (0.25, 0.25, 0.25)),
        ("LA", (255, 0), (1, 1, 1)),
    ],
)
def test_every_mode_becomes_rgb(mode, value, expected, tmp_path):
    picture = Image.new(mode, (5, 3), value)
    if mode == "P":
        picture.putpalette([0, 0, 0, 9, 9, 9, 51, 102, 255])
        expected = (0.2, 0.4, 1.0)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.tif" if mode == "F" else "a.png")
    picture.save(path)
    read = images.read(path)
    assert read.shape == (3, 3, 5) and read.dtype == torch.float32
    assert torch.allclose(read[:, 1, 1], torch.tensor(expected, dtype=torch.float32), atol=0.02)


def test_alpha_on_white_or_kept(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (2, 2), (255, 0, 0, 51)).save(path)
    assert torch.allclose(images.read(path)[:, 0, 0], torch.tensor([1, 0.8, 0.8]))
    kept = images.read(path, alpha="keep")
    assert kept.shape == (4, 2, 2) and torch.allclose(kept[:, 0, 0], torch.tensor([1, 0, 0, 0.2]))
    assert torch.allclose(
        images.read(images.write(kept, tmp_path / "b.jpg"))[:, 0, 0], torch.tensor([1, 0.8, 0.8]), atol=0.02
    )


def test_palette_with_transparency_on_white(tmp_path):
    picture = Image.new("P", (2, 2), 0)
    picture.putpalette([0, 0, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    assert images.read(tmp_path / "a.png").min() == 1


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left column is the top row
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert images.read(tmp_path / "a.png").shape == (3, 6, 4)


def test_bad_files_are_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    cases = {
        "none.png": "no such file",
        "empty.png": "empty",
        "text.png": "not a picture",
        "whole.png": "million pixels",
    }
    for name, message in cases.items():
        with pytest.raises(SRKitError, match=message) as caught:
            images.read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    for name in ("cut.png", "cut.jpg"):
        with pytest.raises(SRKitError, match=f"{name}: damaged or truncated"):
            images.read(tmp_path / name)


def test_one_pixel_wide_can_be_read_but_not_degraded(tmp_path):
    picture = images.read(save(tmp_path / "a.png", RGB[:, :1]))
    assert picture.shape == (3, 4, 1)
    with pytest.raises(SRKitError, match="1 x 4 pixels is too small for scale 2"):
        images.crop_to_multiple(picture, 2)


def test_write_refuses_what_is_no_picture(tmp_path):
    with pytest.raises(SRKitError, match="a picture is"):
        images.write(torch.rand(2, 4, 4), tmp_path / "a.png")
    with pytest.raises(SRKitError, match=r"did you mean '\.png'"):
        images.write(torch.rand(3, 4, 4), tmp_path / "a.pngg")


@pytest.mark.parametrize("kernel", images.KERNELS)
def test_resize_keeps_flat_pictures_flat_and_dimensions_as_they_were(kernel):
    flat = torch.full((3, 9, 12), 0.3)
    for picture in (flat, flat[None]):
        for wanted, options in {(27, 36): {"scale": 3}, (3, 4): {"scale": 1 / 3}, (5, 7): {"size": (5, 7)}}.items():
            out = images.resize(picture, kernel=kernel, **options)
            assert out.shape[-2:] == wanted and out.ndim == picture.ndim
            assert torch.allclose(out, torch.tensor(0.3), atol=1e-6)


def test_resize_bad_arguments():
    picture = torch.rand(3, 8, 8)
    with pytest.raises(SRKitError, match="did you mean 'bicubic'"):
        images.resize(picture, scale=2, kernel="bicubik")
    with pytest.raises(SRKitError, match="one of them only"):
        images.resize(picture)
    with pytest.raises(SRKitError, match="nothing would be left"):
        images.resize(picture, scale=0.01)


def test_shrinking_is_antialiased():
    stripes = torch.zeros(1, 1, 12, 12)
    stripes[..., ::3] = 1  # every third column: without antialiasing x3 sees only one phase
    inside = images.resize(stripes, scale=1 / 3)[..., 1:3]
    assert torch.allclose(inside, torch.tensor(1 / 3), atol=0.02)


def test_degrade_rounds_to_eight_bits_and_refuses_bad_sizes():
    low = images.degrade(torch.rand(2, 3, 12, 18), 3)
    assert low.shape == (2, 3, 4, 6)
    assert torch.equal((low * 255).round() / 255, low) and low.min() >= 0 and low.max() <= 1
    with pytest.raises(SRKitError, match="does not divide by 3"):
        images.degrade(torch.rand(3, 12, 13), 3)
    for scale in (1, 5, 2.5):
        with pytest.raises(SRKitError, match="not one of 2, 3, 4"):
            images.degrade(torch.rand(3, 20, 20), scale)


def test_luma_is_studio_range_as_scikit_image():
    picture = torch.rand(3, 7, 5, dtype=torch.double)
    expected = rgb2ycbcr(picture.permute(1, 2, 0).numpy())[..., 0]
    assert np.allclose(images.luma(picture)[0].numpy() * 255, expected)
    assert images.luma(torch.zeros(1, 3, 1, 1)).item() == pytest.approx(16 / 255)
    assert images.luma(torch.ones(3, 1, 1)).item() == pytest.approx(235 / 255)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_bands_become_one_file(channels, suffix, tmp_path):
    picture = torch.randint(0, 256, (channels, 37, 23), dtype=torch.uint8)
    path = images.write_bands(picture.split(10, dim=1), tmp_path / "new" / f"a.{suffix}", (37, 23))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as file:
        assert file.size == (23, 37) and len(file.getbands()) == (3 if (channels, suffix) == (4, "jpg") else channels)
        if suffix != "jpg":
            pixels = torch.from_numpy(np.asarray(file).reshape(37, 23, channels).copy()).permute(2, 0, 1)
            assert torch.equal(pixels, picture)
    floats = images.write_bands((picture / 255).split(10, dim=1), tmp_path / f"floats.{suffix}", (37, 23))
    assert floats.read_bytes() == path.read_bytes()


def test_bands_that_stop_leave_no_file(tmp_path):
    def bands():
        yield torch.zeros(3, 4, 5, dtype=torch.uint8)
        raise SRKitError("out of memory")

    with pytest.raises(SRKitError, match="out of memory"):
        images.write_bands(bands(), tmp_path / "a.png", (8, 5))
    for name, size, message in (
        ("a.jpg", (8, 70_000), r"70000 x 8 pixels are too many for \.jpg: write a \.png"),
        ("a.pngg", (8, 5), r"did you mean '\.png'"),
    ):
        with pytest.raises(SRKitError, match=message):
            images.write_bands(bands(), tmp_path / name, size)
    assert not list(tmp_path.iterdir())


def test_bytes_stay_bytes_and_may_be_four_times_as_many(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", RGB)
    kept = images.read(path, keep_bytes=True)
    assert kept.dtype == torch.uint8 and torch.equal(kept / 255, images.read(path))
    save(tmp_path / "grey.png", RGB[..., 0])
    grey = images.read(tmp_path / "grey.png", keep_bytes=True)
    assert grey.shape == (3, 4, 6) and torch.equal(grey / 255, images.read(tmp_path / "grey.png"))
    Image.new("RGBA", (2, 2), (255, 0, 0, 51)).save(tmp_path / "clear.png")
    assert images.read(tmp_path / "clear.png", keep_bytes=True)[:, 0, 0].tolist() == [255, 204, 204]
    assert images.read(tmp_path / "clear.png", "keep", keep_bytes=True)[:, 0, 0].tolist() == [255, 0, 0, 51]
    deep = save(tmp_path / "deep.png", np.full((2, 2), 257, np.uint16))
    assert images.read(deep, keep_bytes=True).dtype == torch.float32  # 16 bits are more than a byte
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # RGB has 24
    with pytest.raises(SRKitError, match="cut it into pieces"):
        images.read(path)
    assert torch.equal(images.read(path, keep_bytes=True), kept) and Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(SRKitError, match="cut it into pieces"):
        images.read(path, keep_bytes=True)
