"""metrics: the protocol's figures on Set5, and agreement with scikit-image."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import photograph
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srkit import metrics, models
from srkit.banks import open_bank
from srkit.errors import SRKitError
from srkit.images import degrade, luma
from srkit.losses import WeightedLoss


@pytest.mark.parametrize(("scale", "expected"), [(2, 33.68), (3, 30.41), (4, 28.43)])
def test_bicubic_on_set5_reads_what_the_protocol_says(scale, expected, set5):
    table = metrics.evaluate(models.create("bicubic", scale), open_bank(set5, "all"), scale)
    assert len(table.rows) == 5
    assert table.psnr == pytest.approx(expected, abs=0.02)


def test_bundled_bicubic_needs_no_download():
    table = metrics.evaluate(models.create("bicubic", 3), open_bank("bundled", "test"), 3)
    nearest = metrics.evaluate(models.create("nearest", 3), open_bank("bundled", "test"), 3)
    assert {row.name for row in table.rows} == {"astronaut", "chelsea", "coffee"}
    assert table.psnr > nearest.psnr + 1 and table.ssim > nearest.ssim


@pytest.mark.parametrize("border", [0, 3])
def test_psnr_and_ssim_agree_with_scikit_image(border):
    high = photograph(40, 50).mul(255).round() / 255
    output = (high + 0.1 * torch.randn(high.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    output = output.mul(255).round() / 255
    a, b = (luma(x.double())[0, border : 40 - border, border : 50 - border].numpy() for x in (output, high))
    assert metrics.psnr(output, high, border).item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1))
    expected = structural_similarity(a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert metrics.ssim(output, high, border).item() == pytest.approx(expected, abs=1e-6)


def test_batches_give_one_value_per_picture_and_equal_pictures_are_perfect():
    high = torch.stack([photograph(20, 20, 1), photograph(20, 20, 2)]).mul(255).round() / 255
    output = high.flip(0)
    assert metrics.psnr(output, high).shape == metrics.ssim(output, high).shape == (2,)
    assert metrics.psnr(high, high).tolist() == [math.inf, math.inf]
    assert metrics.ssim(high, high).tolist() == pytest.approx([1, 1])


def test_mean_is_over_pictures_not_over_errors():
    table = metrics.Table(2, [metrics.Row("a", 9, 9, 20.0, 0.5), metrics.Row("b", 9, 9, 40.0, 0.7)])
    assert table.psnr == 30 and table.ssim == pytest.approx(0.6)
    assert table.to_dict()["pictures"][1] == {"name": "b", "width": 9, "height": 9, "psnr": 40.0, "ssim": 0.7}
    assert str(table).splitlines()[-1].split() == ["mean", "x2", "30.00", "0.6000"]


def test_evaluate_keeps_the_mode_and_cuts_to_a_multiple():
    model = models.create("srcnn", 2).train()
    table = metrics.evaluate(model, [("odd", photograph(41, 33))], 2)
    assert model.training and (table.rows[0].width, table.rows[0].height) == (32, 40)


def test_terms_of_a_loss_are_measured_whatever_they_weigh():
    loss = WeightedLoss({"mse": 1, "l1": 0})
    pictures = [("a", photograph(32, 32, 1)), ("b", photograph(32, 32, 2))]
    bicubic = models.create("bicubic", 2)
    table = metrics.evaluate(bicubic, pictures, 2, loss)
    expected = [(bicubic(degrade(high, 2)[None])[0].clamp(0, 1) - high).abs().mean().item() for _, high in pictures]
    assert [row.terms["l1"] for row in table.rows] == pytest.approx(expected)
    assert table.terms["l1"] == pytest.approx(sum(expected) / 2) == table.to_dict()["l1"]
    assert table.to_dict()["pictures"][1]["l1"] == pytest.approx(expected[1])
    assert str(table).splitlines()[0].split()[-2:] == ["mse", "l1"]


def test_each_output_of_a_model_is_measured_at_its_scale():
    model = models.create("superresnet-multi", skip=True)  # an untrained skip is bilinear
    pictures = [("a", photograph(32, 32))]
    for scale in (2, 4):
        bilinear = metrics.evaluate(models.create("bilinear", scale), pictures, scale)
        assert metrics.evaluate(model, pictures, scale).psnr == pytest.approx(bilinear.psnr, abs=0.01)
    with pytest.raises(SRKitError, match="enlarges by 2 or 4, not by 3"):
        metrics.evaluate(model, pictures, 3)


def test_bad_input_is_one_line():
    bicubic = models.create("bicubic", 3)
    with pytest.raises(SRKitError, match="no pictures"):
        metrics.evaluate(bicubic, [], 3)
    with pytest.raises(SRKitError, match="thin: a picture of 1 x 30 pixels is too small"):
        metrics.evaluate(bicubic, [("thin", torch.rand(3, 30, 1))], 3)
    with pytest.raises(SRKitError, match="small: 15 x 15 pixels are too few"):
        metrics.evaluate(bicubic, [("small", torch.rand(3, 15, 15))], 3)
    with pytest.raises(SRKitError, match="enlarges by 3, not by 2"):
        metrics.evaluate(bicubic, [("a", torch.rand(3, 30, 30))], 2)
    with pytest.raises(SRKitError, match="differ in shape"):
        metrics.psnr(torch.rand(3, 4, 4), torch.rand(3, 4, 5))
