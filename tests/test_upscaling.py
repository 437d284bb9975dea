"""upscaling: tiles have the pixels of one pass, memory is bounded, grey and alpha stay what they are."""

from __future__ import annotations

import pytest
import torch
from conftest import photograph
from torch import nn

from srkit import models
from srkit.errors import SRKitError
from srkit.images import resize
from srkit.models.foreign import ForeignSRResNet
from srkit.upscaling import Reach, Upscaler, measure_reach, upscale

SMALL = {"channels": 8, "blocks": 2}
VGG = {"feature_weights": "random"}
NETWORKS = {
    "srcnn 9-5-5": lambda: models.create("srcnn", 2),
    "srcnn 9-1-5 x3": lambda: models.create("srcnn915", 3),
    "srcnn x4": lambda: models.create("srcnn", 4, carry=False),
    "superresnet": lambda: models.create("superresnet"),
    "superresnet-multi": lambda: models.create("superresnet-multi"),
    "superresnet-residual": lambda: models.create("superresnet-residual", skip=True),
    "superresnet-dilated": lambda: models.create("superresnet-dilated"),
    "superresnet-vgg": lambda: models.create("superresnet-vgg", **VGG),
    "superresnet-clip": lambda: models.create("superresnet-clip", **VGG),
    "srresnet": lambda: models.create("srresnet", **SMALL),
    "srresnet x2 tanh": lambda: models.create("srresnet", 2, **SMALL, norm=False, output="tanh"),
    "srresnet-small": lambda: models.create("srresnet-small", **SMALL),
    "foreign": lambda: ForeignSRResNet(signed=True, end="prelu", **SMALL),
    "nearest": lambda: models.create("nearest", 3),
    "bilinear": lambda: models.create("bilinear", 3),
    "bicubic": lambda: models.create("bicubic", 2),
}


def make(name: str) -> nn.Module:
    """A network whose every layer matters; batch normalisation has learnt something."""
    if "clip" in name:
        pytest.importorskip("timm", reason="CLIP's network comes with timm")
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and (name.startswith("srcnn") or not layer.weight.any()):
            nn.init.normal_(layer.weight, std=0.03)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_have_the_pixels_of_one_pass(name):
    model = make(name)
    for height, width, tile in ((61, 75, 16), (48, 90, 29)):
        low = torch.rand(4, height, width, generator=torch.Generator().manual_seed(height))
        tiles, whole = (Upscaler(model, tile=side)(low) for side in (tile, 100))
        assert tiles.shape == (4, model.scale * height, model.scale * width)
        assert (tiles - whole).abs().max() <= 1e-5
        with torch.no_grad():
            plain = models.output_at(model, low[None, :3])[0].clamp(0, 1)
        assert (whole[:3] - plain).abs().max() <= 1e-5
        assert (whole[3:] - resize(low[3:], scale=model.scale).clamp(0, 1)).abs().max() <= 1e-6


@pytest.mark.parametrize("name", ["srcnn 9-1-5 x3", "superresnet-vgg", "srresnet", "srresnet-small"])
def test_the_ensemble_is_the_mean_of_eight_and_tiles_have_its_pixels(name):
    model = make(name)
    low = torch.rand(3, 47, 55, generator=torch.Generator().manual_seed(3))
    answers = []
    with torch.no_grad():
        for quarters in range(4):
            for mirrored in (False, True):
                seen = torch.rot90(low.flip(-1) if mirrored else low, quarters, (-2, -1))
                output = torch.rot90(models.output_at(model, seen[None])[0], -quarters, (-2, -1))
                answers.append(output.flip(-1) if mirrored else output)
    expected = torch.stack(answers).mean(0).clamp(0, 1)
    for tile in (100, 16):
        assert (Upscaler(model, tile=tile, ensemble=True)(low) - expected).abs().max() <= 1e-5
    assert (upscale(model, low) - expected).abs().max() > 1e-4  # one answer is not the mean


def test_either_output_of_a_network_with_two():
    model, low = make("superresnet-residual"), torch.rand(3, 40, 41)
    for scale in (2, 4):
        output = Upscaler(model, scale, tile=16)(low)
        assert output.shape == (3, 40 * scale, 41 * scale)
        assert (output - upscale(model, low, scale)).abs().max() <= 1e-5
    with pytest.raises(SRKitError, match="enlarges by 2 or 4, not by 3"):
        upscale(model, low, 3)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "clip" not in name])
def test_reach_is_the_receptive_fields(name):
    model = make(name)
    reach, field = measure_reach(model), models.receptive_field(model)[-1]
    assert reach.grid == (2 if "vgg" in name else 1)
    assert field / 2 - reach.grid <= reach.pixels <= field / 2 + reach.grid


def test_reach_of_poolings_in_fours_and_of_everything_at_once():
    four = models.create("superresnet-vgg", feature_layers=("relu3_3",), **VGG)
    assert measure_reach(four).grid == 4
    for height, width in ((48, 64), (50, 64)):  # of 50 rows the last two fill no group: that goes in one pass
        low = torch.rand(3, height, width)
        assert (Upscaler(four, tile=16)(low) - Upscaler(four, tile=100)(low)).abs().max() <= 1e-5
    assert measure_reach(Everything()) is None
    low = torch.rand(3, 60, 60)
    assert torch.equal(Upscaler(Everything(), tile=16)(low), Upscaler(Everything(), tile=100)(low))


def test_measuring_leaves_the_model_alone():
    model = make("srresnet").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert measure_reach(model) == Reach(12, 1)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_bytes_in_bytes_out_band_by_band():
    model = make("srcnn 9-5-5")
    low = torch.randint(0, 256, (4, 50, 70), dtype=torch.uint8)
    rows_of_colours = low.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as files are read
    expected = upscale(model, low / 255).mul(255).round().byte()
    for picture in (low, rows_of_colours):
        upscaler = Upscaler(model, tile=16)
        output = upscaler(picture)
        assert output.dtype == torch.uint8 and (output.int() - expected.int()).abs().max() <= 1
        bands = list(upscaler.bands(picture))
        assert len(bands) == 4 and torch.equal(torch.cat(bands, 1), output)


def test_grey_is_decided_for_the_whole_picture():
    model = make("srresnet-small")
    grey = photograph(40, 60)[:1].expand(3, -1, -1)
    output = Upscaler(model, tile=16)(grey)
    assert torch.equal(output[0], output[1]) and torch.equal(output[1], output[2])
    one_red = grey.clone()
    one_red[0, -1, -1] = 1 - one_red[0, -1, -1]
    output = Upscaler(model, tile=16)(one_red)
    assert not torch.equal(output[0, :40, :40], output[1, :40, :40])  # far away, and yet coloured as in one pass


def test_where_memory_runs_out_tiles_are_halved(capsys):
    """Out of memory above 40 pixels a side: tiles are halved, and the result is the same."""
    model = LittleMemory(make("srcnn 9-5-5"), most=40)
    low = torch.rand(3, 90, 100)
    upscaler = Upscaler(model, tile=64)
    assert (upscaler(low) - upscale(model.inner, low)).abs().max() <= 1e-5
    assert upscaler.tile == 25 and "out of memory: going on in tiles of 25 pixels" in capsys.readouterr().out
    tried = len(model.sides)
    upscaler(low)
    assert max(model.sides[tried:]) <= 40  # the next picture of a folder begins with what fits
    assert Upscaler(model, tile=256)(low).shape == (3, 180, 200)  # one pass would do, if it had the memory


def test_out_of_memory_with_the_smallest_tiles_is_one_line():
    low = torch.rand(3, 90, 100)
    with pytest.raises(SRKitError, match=r"out of memory, even in tiles of \d+ pixels"):
        Upscaler(LittleMemory(make("srcnn 9-5-5"), most=20), tile=64)(low)
    with pytest.raises(SRKitError, match="needs the whole picture at once"):
        Upscaler(LittleMemory(Everything(), most=20), tile=64)(low)
    with pytest.raises(RuntimeError, match="another"):
        Upscaler(LittleMemory(make("srcnn 9-5-5"), most=20, error=RuntimeError("another error")), tile=64)(low)


def test_bf16_is_close():
    model, low = models.load("srresnet-small-x4"), photograph(40, 50)
    difference = (Upscaler(model, precision="bf16")(low) - upscale(model, low)).abs()
    assert 0 < difference.mean() < 0.5 / 255 and difference.max() < 3 / 255


def test_bad_arguments():
    model = models.create("bicubic", 2)
    for shape in ((1, 3, 8, 8), (1, 8, 8), (5, 8, 8), (3, 0, 8)):
        with pytest.raises(SRKitError, match="a picture is"):
            upscale(model, torch.zeros(shape))
    for arguments, message in (
        ({"tile": 8}, "choose 16 or more"),
        ({"precision": "bf61"}, "did you mean 'bf16'"),
        ({"device": "gpu"}, "unknown device"),
        ({"scale": 3}, "enlarges by 2, not by 3"),
    ):
        with pytest.raises(SRKitError, match=message):
            Upscaler(model, **arguments)


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
