"""style: TransformerNet's sizes and normalisation, tiles without seams, and what is refused."""

from __future__ import annotations

import pytest
import torch
from conftest import photograph

from srkit import inference, models
from srkit.data import images
from srkit.models import pretrained
from srkit.models.style import InstanceNorm
from srkit.settings import SRKitError


@pytest.fixture
def painter() -> models.TransformerNet:
    """A small network whose normalisations have learnt something."""
    torch.manual_seed(0)
    model = models.create("style", channels=4, blocks=1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def test_parameters_are_counted_by_hand():
    convolutions = (
        3 * 16 * 81 + 16 * 32 * 9 + 32 * 64 * 9 + 8 * 64 * 64 * 9 + 64 * 32 * 9 + 32 * 16 * 9 + 16 * 3 * 81 + 3
    )
    norms = 2 * (16 + 32 + 64 + 8 * 64 + 32 + 16)
    assert models.count_parameters(models.create("style")) == convolutions + norms == 350_115


def test_instance_norm_is_each_channels_own_and_pytorchs():
    norm, x = InstanceNorm(3), 5 + 2 * torch.randn(2, 3, 8, 9)
    torch.nn.init.uniform_(norm.weight), torch.nn.init.uniform_(norm.bias)
    wanted = torch.nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias)
    assert torch.allclose(norm(x), wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (31, 19)])
@torch.no_grad()
def test_every_size_comes_out_as_it_went_in(painter, size):
    output = painter(torch.rand(2, 3, *size))
    assert output.shape == (2, 3, *size) and output.min() >= 0 and output.max() <= 1


@torch.no_grad()
def test_tiles_have_the_pixels_of_one_pass_with_the_thumbnails_statistics(painter):
    picture = photograph(150, 201)
    tiled = inference.stylize(painter, picture, tile=64)
    padded = torch.nn.functional.pad(picture[None], (0, 3, 0, 2), mode="replicate")
    small = images.resize(padded, (48, 64)).clamp(0, 1)  # of 152 x 204, as large as a tile
    whole = painter.with_statistics_of(small)(padded)[0, :, :150, :201]
    assert tiled.shape == (3, 150, 201) and (tiled - whole).abs().max() < 1e-4
    assert (painter(picture[None]) - painter(picture[None])).abs().max() == 0  # and the network itself is unchanged


@torch.no_grad()
def test_strength_alpha_and_grey(painter):
    picture = torch.cat([photograph(24, 20)[:1].expand(3, -1, -1), torch.rand(1, 24, 20)])
    output = inference.stylize(painter, picture)
    assert not images.is_gray(output[:3]) and torch.allclose(output[3], picture[3], atol=1e-6)
    assert torch.equal(inference.stylize(painter, picture, strength=0), picture)
    assert torch.allclose(inference.stylize(painter, picture, 0.5), (picture + output) / 2, atol=1e-6)


@pytest.mark.parametrize(("size", "strength"), [((15, 40), 1), ((20, 20), 1.5), ((20, 20), float("nan"))])
def test_small_pictures_and_other_strengths_are_refused(painter, size, strength):
    with pytest.raises(SRKitError, match="16 or more, strength 0 to 1"):
        inference.stylize(painter, torch.rand(3, *size), strength)


def test_a_network_that_enlarges_is_no_style_and_a_style_has_one_scale():
    with pytest.raises(SRKitError, match="repaints nothing"):
        inference.stylize(models.create("bicubic"), torch.rand(3, 20, 20))
    with pytest.raises(SRKitError, match="a style's scale is 1"):
        models.create("style", 2)


@pytest.mark.parametrize("name", pretrained.styles())
def test_what_ships_repaints_and_names_its_licence(name):
    card = pretrained.card(name, pretrained.STYLES)
    assert card["licence"] and card["by"] and (pretrained.STYLES / f"{name}.safetensors").stat().st_size < 800_000
    picture = photograph(48, 48)
    output = inference.stylize(models.load(name), picture)
    assert 0.02 < (output - picture).abs().mean() < 0.5
    style = images.read(pretrained.STYLES / f"{name}.jpg")
    nearer = (output - style.mean((1, 2), keepdim=True)).square().mean() < (picture.mean() - style).square().mean() * 4
    assert nearer and min(style.shape[1:]) >= 256
