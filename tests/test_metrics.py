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


def table(*psnrs: float, terms: tuple[float, ...] = ()) -> metrics.Table:
    terms = terms or (0.1,) * len(psnrs)
    rows = [metrics.Row(f"p{i}", 9, 9, psnr, 0.5, {"l1": terms[i]}) for i, psnr in enumerate(psnrs)]
    return metrics.Table(4, rows)


def test_psnr_of_the_mean_error_is_another_figure():
    ones = table(20.0, 40.0)
    assert ones.psnr == 30 and ones.psnr_of_mean == pytest.approx(-10 * math.log10((1e-2 + 1e-4) / 2))
    assert table(33.0, 33.0).psnr_of_mean == pytest.approx(33)
    assert table(math.inf, 20.0).psnr_of_mean == pytest.approx(20 + 10 * math.log10(2))
    assert table(math.inf).psnr_of_mean == math.inf


def test_paired_differences_and_their_spread():
    pair = metrics.paired(table(20, 30, 40, terms=(0.3, 0.2, 0.1)), table(21, 32, 39, terms=(0.2, 0.2, 0.1)))
    psnr, l1 = pair.changes["psnr"], pair.changes["l1"]
    assert (psnr.before, psnr.after, psnr.improved, psnr.differences) == (30, pytest.approx(92 / 3), 2, (1, 2, -1))
    assert psnr.difference == pytest.approx(2 / 3)
    assert psnr.deviation == pytest.approx(math.sqrt(7 / 3)) and psnr.error == pytest.approx(math.sqrt(7 / 9))
    assert l1.improved == 1 and l1.difference == pytest.approx(-0.1 / 3)  # smaller is better
    plain = pair.to_dict()
    assert plain["pictures"][1] == {"name": "p1", "psnr": [30, 32], "ssim": [0.5, 0.5], "l1": [0.2, 0.2]}
    assert plain["psnr"]["improved"] == 2 and plain["psnr_of_mean"][0] == pair.before.psnr_of_mean
    lines = [line.split() for line in str(pair).splitlines()]
    assert lines[1] == ["PSNR", "/", "dB", "30", "30.667", "+0.6667", "1.53", "0.882", "2", "of", "3"]
    assert lines[-1][:2] == ["p2", "-1"] and "PSNR of mean MSE" in str(pair)


def test_paired_with_one_or_perfect_pictures():
    single = metrics.paired(table(20), table(21)).changes["psnr"]
    assert single.difference == 1 and math.isnan(single.deviation) and math.isnan(single.error)
    perfect = metrics.paired(table(math.inf, 20), table(math.inf, 20)).changes["psnr"]
    assert perfect.differences == (0, 0) and perfect.improved == 0
    assert metrics.paired(table(20, 20), table(math.inf, 21)).changes["psnr"].improved == 2
    assert metrics.paired(table(20, 20), table(20.0001, 20.001)).changes["psnr"].improved == 1  # rounding is no change


def test_paired_refuses_what_cannot_be_compared():
    one, rows = table(20, 30), table(20, 30).rows
    with pytest.raises(SRKitError, match=r"not of the same pictures \(2 and 1\)"):
        metrics.paired(one, table(20))
    with pytest.raises(SRKitError, match="not of the same pictures"):
        metrics.paired(one, metrics.Table(4, rows[::-1]))
    with pytest.raises(SRKitError, match="before is of scale 4, after of 2"):
        metrics.paired(one, metrics.Table(2, rows))
    with pytest.raises(SRKitError, match=r"other terms \(l1; none\)"):
        metrics.paired(one, metrics.Table(4, [metrics.Row(row.name, 9, 9, 1, 1) for row in rows]))


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
