"""inference: tiles have the pixels of one pass, memory is bounded, grey and alpha stay; ONNX gives the same pixels."""

from __future__ import annotations

import json
import sys
from itertools import product

import pytest
import torch
from conftest import photograph
from cuda import fake_cuda
from torch import nn

from srkit import models
from srkit.data.images import resize
from srkit.inference import Upscaler, to_onnx, upscale
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError

SMALL = {"channels": 8, "blocks": 2}
VGG = {"feature_weights": "random"}
NETWORKS = {
    "srcnn915": lambda: models.create("srcnn915", 3),
    "superresnet": lambda: models.create("superresnet"),
    "superresnet-residual": lambda: models.create("superresnet-residual", skip=True),
    "superresnet-dilated": lambda: models.create("superresnet-dilated"),
    "superresnet-vgg": lambda: models.create("superresnet-vgg", **VGG),
    "superresnet-clip": lambda: models.create("superresnet-clip", **VGG),
    "srresnet": lambda: models.create("srresnet", **SMALL),
    "srresnet-small": lambda: models.create("srresnet-small", **SMALL),
    "nearest": lambda: models.create("nearest", 3),
}


def make(name: str) -> nn.Module:
    """A network whose every layer matters; batch normalisation has learnt something."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and (name.startswith("srcnn") or not layer.weight.any()):
            nn.init.normal_(layer.weight, std=0.03)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return model.eval()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


# ---------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_have_the_pixels_of_one_pass(name, request):
    if "clip" in name:
        request.getfixturevalue("tiny_clip")
    model, tile = make(name), 16
    low = torch.rand(4, 25, 42, generator=torch.Generator().manual_seed(0))
    tiles, whole = (Upscaler(model, tile=side)(low) for side in (tile, 100))
    assert tiles.shape == (4, model.scale * 25, model.scale * 42)
    assert difference(tiles, whole) <= 1e-5
    with torch.no_grad():
        plain = models.output_at(model, low[None, :3])[0].clamp(0, 1)
    assert difference(whole[:3], plain) <= 1e-5
    assert difference(whole[3:], resize(low[3:], scale=model.scale).clamp(0, 1)) <= 1e-6
    for scale in models.scales_of(model)[:-1]:
        assert difference(Upscaler(model, scale, tile)(low), upscale(model, low, scale)) <= 1e-5


def test_the_ensemble_is_the_mean_of_eight_and_tiles_have_its_pixels():
    model, low, outputs = make("superresnet-vgg"), torch.rand(3, 21, 26), []
    for quarters, mirrored in product(range(4), (False, True)):
        turned = torch.rot90(low.flip(-1) if mirrored else low, quarters, (-2, -1))
        with torch.no_grad():
            output = torch.rot90(models.output_at(model, turned[None])[0], -quarters, (-2, -1))
        outputs.append(output.flip(-1) if mirrored else output)
    expected = torch.stack(outputs).mean(0).clamp(0, 1)
    for tile in (100, 16):
        assert difference(Upscaler(model, tile=tile, ensemble=True)(low), expected) <= 1e-5
    assert difference(upscale(model, low), expected) > 1e-4  # one output is not the mean


def test_tiles_share_the_embedding_of_their_picture(tiny_clip):
    model = make("superresnet-clip")
    low = torch.cat([photograph(20, 40), 0.1 * photograph(20, 40, 1)], 1)  # two halves that differ
    for ensemble in (False, True):
        tiles, whole = (Upscaler(model, tile=side, ensemble=ensemble)(low) for side in (16, 100))
        assert difference(tiles, whole) <= 1e-5
    with torch.no_grad():
        own = model(low[None, :, :20], model.embed(low[None]))[1][0, :, :40]
    alone = upscale(model, low[:, :20])[:, :40]
    assert difference(upscale(model, low)[:, :40], own) <= 1e-5 < difference(alone, own)
    calls = []
    model.frozen.extractor.register_forward_hook(lambda *_: calls.append(1))
    Upscaler(model, tile=16)(low)
    assert len(calls) == 1  # not once for each tile
    byte = (low * 255).round().byte()
    assert difference(Upscaler(model, tile=16)(byte) / 255, upscale(model, byte / 255)) <= 1 / 255


def test_poolings_in_fours_and_everything_at_once():
    four = models.create("superresnet-vgg", feature_layers=("relu3_3",), **VGG)
    for height, width in ((24, 32), (26, 32)):  # of 26 rows the last two fill no group: that goes in one pass
        low = torch.rand(3, height, width)
        assert difference(Upscaler(four, tile=16)(low), Upscaler(four, tile=100)(low)) <= 1e-5
    low = torch.rand(3, 40, 40)
    assert torch.equal(Upscaler(Everything(), tile=16)(low), Upscaler(Everything(), tile=100)(low))


def test_bytes_in_bytes_out_band_by_band():
    model = make("superresnet")
    low = torch.randint(0, 256, (4, 50, 70), dtype=torch.uint8)
    rows_of_colours = low.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as files are read
    expected = upscale(model, low / 255).mul(255).round().byte()
    for picture in (low, rows_of_colours):
        upscaler = Upscaler(model, tile=16)
        output = upscaler(picture)
        assert output.dtype == torch.uint8 and (output.int() - expected.int()).abs().max() <= 1
        bands = list(upscaler.bands(picture))
        assert len(bands) == 4 and torch.equal(torch.cat(bands, 1), output)


def test_gray_is_decided_for_the_whole_picture():
    model = make("srresnet-small")
    gray = photograph(40, 60)[:1].expand(3, -1, -1)
    output = Upscaler(model, tile=16)(gray)
    assert torch.equal(output[0], output[1]) and torch.equal(output[1], output[2])
    one_red = gray.clone()
    one_red[0, -1, -1] = 1 - one_red[0, -1, -1]
    output = Upscaler(model, tile=16)(one_red)
    assert not torch.equal(output[0, :40, :40], output[1, :40, :40])  # far away, and yet coloured as in one pass


# ---------------------------------------------------------------------------------- memory


def test_where_memory_runs_out_tiles_are_halved(capsys):
    """Out of memory above 40 pixels a side: tiles are halved, and the result is the same."""
    model = LittleMemory(make("superresnet"), most=40)
    low = torch.rand(3, 90, 100)
    upscaler = Upscaler(model, tile=64)
    assert difference(upscaler(low), upscale(model.inner, low)) <= 1e-5
    assert upscaler.tile == 25 and "tiles of 25 pixels" in capsys.readouterr().out
    tried = len(model.sides)
    upscaler(low)
    assert max(model.sides[tried:]) <= 40  # the next picture of a folder begins with what fits
    assert Upscaler(model, tile=256)(low).shape == (3, 180, 200)  # one pass would do, if it had the memory


def test_out_of_memory_with_the_smallest_tiles_is_one_line():
    low = torch.rand(3, 90, 100)
    for network in (make("superresnet"), Everything()):
        with pytest.raises(SRKitError):
            Upscaler(LittleMemory(network, most=18), tile=64)(low)
    with pytest.raises(RuntimeError, match="another"):
        Upscaler(LittleMemory(make("superresnet"), most=18, error=RuntimeError("another error")), tile=64)(low)


# ---------------------------------------------------------------------------------- devices and bad input


def test_bf16_is_close():
    model, low = models.load("efficient-x4"), photograph(24, 30)
    off = (Upscaler(model, precision="bf16")(low) - upscale(model, low)).abs()
    assert 0 < off.mean() < 0.5 / 255 and off.max() < 3 / 255


def test_on_a_gpu():
    model = make("superresnet")
    low = torch.rand(4, 20, 25)
    expected = Upscaler(model, tile=16, ensemble=True)(low)
    with fake_cuda.stand_in():
        upscaler = Upscaler(model, tile=16, precision="auto", ensemble=True, device="cuda")
        output, inputs = upscaler(low), upscaler(low.mul(255).byte())
    assert upscaler.precision == "fp16" and output.device.type == inputs.device.type == "cpu"
    assert difference(output, expected) <= 1e-5 and inputs.dtype == torch.uint8


def test_bad_arguments():
    model = models.create("bicubic", 2)
    for shape in ((1, 3, 8, 8), (1, 8, 8), (3, 0, 8)):
        with pytest.raises(SRKitError):
            upscale(model, torch.zeros(shape))
        with pytest.raises(SRKitError):
            Upscaler(model).bands(torch.zeros(shape))  # at once, not with the first band
    for arguments in ({"tile": 8}, {"device": "gpu"}, {"scale": 3}, {"precision": "fp16"}, {"precision": "bf61"}):
        with pytest.raises(SRKitError):
            Upscaler(model, **arguments)


@pytest.mark.parametrize("tile", [16, 64])
def test_no_picture_is_made_of_what_is_no_number(tile):
    model, low = make("superresnet"), torch.rand(3, 24, 24)
    low[0, 20, 20] = torch.inf
    with pytest.raises(SRKitError, match="NaN"):
        Upscaler(model, tile=tile)(low)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(SRKitError, match="NaN"):
        Upscaler(model, tile=tile)


class Everything(nn.Module):
    """Adds the mean of the whole picture."""

    scale = 1

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        return low / 2 + low.mean((2, 3), keepdim=True) / 2


class LittleMemory(nn.Module):
    """A network on a device that can hold pictures of `most` pixels a side."""

    def __init__(self, inner: nn.Module, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.inner, self.scale, self.most, self.sides = inner, inner.scale, most, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        if low.shape[-1] != 8:  # so narrow is only what measures the reach
            self.sides.append(max(low.shape[-2:]))
            if self.sides[-1] > self.most:
                raise self.error
        return self.inner(low)


# ---------------------------------------------------------------------------------- ONNX


@pytest.mark.slow
@pytest.mark.parametrize("name", ["srcnn915", "srresnet-small", "superresnet-vgg"])
def test_onnxruntime_gives_the_same_pixels_at_any_size(name, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="pip install 'srkit[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'srkit[onnx]'")
    model = make(name)
    path = to_onnx(model, tmp_path / "new" / "model.onnx")
    assert list(path.parent.iterdir()) == [path]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == (["x2", "x4"] if "super" in name else ["output"])
    for size in ((1, 3, 24, 20), (3, 3, 33, 50)):
        low = torch.rand(size)
        with torch.no_grad():
            expected = model(low)
        expected = (expected,) if isinstance(expected, torch.Tensor) else expected
        for one, other in zip(session.run(None, {"low": low.numpy()}), expected, strict=True):
            assert one.shape == other.shape and difference(torch.from_numpy(one), other) <= 1e-4
    says = session.get_modelmeta().custom_metadata_map
    assert says["scale"].endswith(str(model.scale)) and "RGB" in says["input"]
    assert json.loads(says["config"])["name"] == says["name"] == model.config["name"]
    assert says["weights_sha256"] == weights_sha256(model.state_dict())


@pytest.mark.slow
def test_what_cannot_be_exported_is_one_line_and_no_file(tmp_path, monkeypatch):
    class Undecided(Everything):
        def forward(self, low: torch.Tensor) -> torch.Tensor:
            return low if low.mean() > 0.5 else 1 - low

    with pytest.raises(SRKitError) as caught:
        to_onnx(Undecided(), tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SRKitError, match="srkit\\[onnx\\]"):
        to_onnx(models.create("nearest", 2), tmp_path / "m.onnx")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
