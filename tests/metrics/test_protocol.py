"""metrics: the protocol's figures on Set5, and agreement with scikit-image."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import photograph
from cuda import fake_cuda
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from srkit import losses, metrics, models
from srkit.data import ImageDataset, load_dataset
from srkit.data.images import degrade, luma
from srkit.losses import WeightedLoss
from srkit.settings import SRKitError


def rounded(picture: torch.Tensor) -> torch.Tensor:
    return picture.mul(255).round() / 255


@pytest.mark.parametrize(("scale", "expected"), [(2, 33.68), (3, 30.41), (4, 28.43)])
def test_bicubic_on_set5_reads_what_the_protocol_says(scale, expected, set5):
    found = metrics.evaluate(models.create("bicubic", scale), load_dataset(set5, "all"), with_ssim=False)
    assert len(found.rows) == 5 and found.scale == scale
    assert found.psnr == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("gray", [False, True])
def test_psnr_and_ssim_agree_with_scikit_image(border, gray):
    high = rounded(photograph(40, 50))
    high = high[:1].expand(3, -1, -1) if gray else high
    output = rounded((high + 0.1 * torch.randn(high.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1))
    a, b = (luma(x.double())[0, border : 40 - border, border : 50 - border].numpy() for x in (output, high))
    if gray:  # Y is the grey itself; the output's Y, on the same range, weighs its colours as luma does
        a, b = (a - 16 / 255) * 255 / 219, high.double().numpy()[0, border : 40 - border, border : 50 - border]
    assert metrics.psnr(output, high, border).item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1))
    expected = structural_similarity(a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert metrics.ssim(output, high, border).item() == pytest.approx(expected, abs=1e-6)


def test_one_value_per_picture_each_on_its_own_range():
    colour, other = rounded(photograph(20, 20, 1)), rounded(photograph(20, 20, 2))
    gray = other[:1].expand(3, -1, -1)
    high = torch.stack([colour, gray])
    output = torch.stack([other, rounded((gray + 0.1).clamp(0, 1))])
    for measure in (metrics.psnr, metrics.ssim):
        alone = [measure(*pair).item() for pair in zip(output, high, strict=True)]
        assert measure(output, high).tolist() == pytest.approx(alone)
    assert metrics.psnr(high, high).tolist() == [math.inf, math.inf]
    assert metrics.ssim(high, high).tolist() == pytest.approx([1, 1])
    # One grey picture of 14 lowers a mean by 0.094 dB: its differences are no longer squeezed to 219 levels.
    studio = -10 * (luma(output[1].double()) - luma(gray.double())).square().mean().log10().item()
    assert (studio - metrics.psnr(output[1], gray).item()) / 14 == pytest.approx(0.094, abs=5e-4)


def table(*psnrs: float, l1: tuple[float, ...] = (0.1, 0.1, 0.1)) -> metrics.Table:
    return metrics.Table(4, [metrics.Row(f"p{i}", 9, 9, psnr, 0.5, {"l1": l1[i]}) for i, psnr in enumerate(psnrs)])


def test_mean_is_over_pictures_not_over_errors():
    two = table(20, 40, l1=(0.1, 0.3))
    assert two.psnr == 30 and two.ssim == 0.5 and two.terms == {"l1": pytest.approx(0.2)}
    assert two.psnr_of_mean == pytest.approx(-10 * math.log10((1e-2 + 1e-4) / 2))
    picture = {"name": "p1", "width": 9, "height": 9, "psnr": 40.0, "ssim": 0.5, "l1": 0.3}
    assert two.to_dict()["pictures"][1] == picture
    lines = [line.split() for line in str(two).splitlines()]
    assert lines[1] == ["p0", "9", "x", "9", "20.00", "0.5000", "0.1"]
    assert lines[-1] == ["mean", "x4", "30.00", "0.5000", "0.2"]
    assert table(math.inf, 20).psnr_of_mean == pytest.approx(20 + 10 * math.log10(2))
    assert table(math.inf).psnr_of_mean == math.inf


def test_paired_differences_and_their_spread():
    pair = metrics.paired(table(20, 30, 40, l1=(0.3, 0.2, 0.1)), table(21, 32, 39, l1=(0.2, 0.2, 0.1)))
    psnr, l1 = pair.changes["psnr"], pair.changes["l1"]
    assert (psnr.before, psnr.after, psnr.improved, psnr.differences) == (30, pytest.approx(92 / 3), 2, (1, 2, -1))
    assert psnr.difference == pytest.approx(2 / 3)
    assert psnr.deviation == pytest.approx(math.sqrt(7 / 3)) and psnr.error == pytest.approx(math.sqrt(7 / 9))
    assert l1.improved == 1 and l1.difference == pytest.approx(-0.1 / 3)  # smaller is better
    assert pair.to_dict()["psnr"]["differences"] == (1, 2, -1) and pair.to_dict()["pictures"] == ["p0", "p1", "p2"]
    lines = [line.split() for line in str(pair).splitlines()]
    assert lines[1] == ["psnr", "/", "dB", "30", "30.667", "+0.6667", "1.53", "0.882", "2", "of", "3"]
    assert lines[-1] == ["p2", "-1", "+0", "+0"]


def test_paired_with_one_or_perfect_pictures():
    single = metrics.paired(table(20), table(21)).changes["psnr"]
    assert single.difference == 1 and math.isnan(single.deviation) and math.isnan(single.error)
    perfect = metrics.paired(table(math.inf, 20), table(math.inf, 20)).changes["psnr"]
    assert perfect.differences == (0, 0) and perfect.improved == 0
    assert metrics.paired(table(math.inf, 20), table(20, math.inf)).changes["psnr"].improved == 1
    assert metrics.paired(table(20, 20), table(20.0001, 20.001)).changes["psnr"].improved == 1  # rounding is no change


def test_paired_refuses_what_cannot_be_compared():
    rows = table(20, 30).rows
    without_terms = [metrics.Row(row.name, 9, 9, 1, 1) for row in rows]
    for scale, others in ((4, rows[:1]), (4, rows[::-1]), (2, rows), (4, without_terms)):
        with pytest.raises(SRKitError):
            metrics.paired(metrics.Table(4, rows), metrics.Table(scale, others))


# ---------------------------------------------------------------------------------- evaluate


def test_terms_of_a_loss_are_measured_whatever_they_weigh():
    loss, bicubic = WeightedLoss({"mse": 1, "l1": 0, "psnr": 1}), models.create("bicubic", 2)
    pictures = [("a", photograph(32, 32, 1)), ("b", photograph(32, 32, 2))]
    found, plain = metrics.evaluate(bicubic, pictures, loss=loss), metrics.evaluate(bicubic, pictures)
    expected = [(bicubic(degrade(high, 2)[None])[0].clamp(0, 1) - high).abs().mean().item() for _, high in pictures]
    assert [row.terms["l1"] for row in found.rows] == pytest.approx(expected)
    assert found.terms["psnr"] < 0.1 and found.psnr == plain.psnr == found.to_dict()["psnr"]  # two figures of one name


def test_each_output_of_a_model_is_measured_at_its_scale():
    model = models.create("superresnet-multi", skip=True)  # an untrained skip is bilinear
    pictures = [("a", photograph(32, 32))]
    for scale in (2, 4):
        bilinear = metrics.evaluate(models.create("bilinear", scale), pictures)
        assert metrics.evaluate(model, pictures, scale).psnr == pytest.approx(bilinear.psnr, abs=0.01)
    assert metrics.evaluate(model, pictures).scale == 4
    with pytest.raises(SRKitError):
        metrics.evaluate(model, pictures, 3)


def test_batches_of_a_dataset_give_the_same_figures():
    pictures = ImageDataset([photograph(32, 48, seed).mul(255).byte() for seed in range(3)], names="abc")
    model, loss = models.create("superresnet-multi", skip=True), WeightedLoss({"mse": 1, "x2/l1": 0})
    alone = metrics.evaluate(model, list(pictures), loss=loss)
    both = metrics.evaluate(model, pictures, loss=loss, batch_size=2, with_ssim=False)
    assert [row.psnr for row in both.rows] == pytest.approx([row.psnr for row in alone.rows])
    assert both.terms == pytest.approx(alone.terms) and list(alone.terms) == ["x2/mse", "x2/l1", "x4/mse", "x4/l1"]
    assert [row.name for row in both.rows] == ["a", "b", "c"] and math.isnan(both.ssim)


def test_bad_input_is_one_line_and_the_mode_is_kept():
    model = models.create("srcnn", 3).train()
    odd = metrics.evaluate(model, [("odd", photograph(41, 35))])
    assert model.training and (odd.rows[0].width, odd.rows[0].height) == (33, 39)
    for pictures in ([], [("thin", torch.rand(3, 30, 1))], [("small", torch.rand(3, 15, 15))]):
        with pytest.raises(SRKitError, match=pictures[0][0] if pictures else "no pictures"):
            metrics.evaluate(model, pictures)
    assert model.training
    with pytest.raises(SRKitError):
        metrics.evaluate(model, [("a", torch.rand(3, 30, 30))], 2)
    with pytest.raises(SRKitError):
        metrics.psnr(torch.rand(3, 4, 4), torch.rand(3, 4, 5))


@pytest.mark.parametrize("model", ["bicubic", "srcnn"])
def test_what_has_no_device_goes_where_the_networks_of_the_loss_are(model):
    pictures = [("a", photograph(32, 32))]
    loss = losses.create({"mse": 1.0, "relu2_2": 0.1}, "vgg16", "random")
    network: nn.Module = models.create(model, 2)
    expected = metrics.evaluate(network, pictures, loss=loss)
    with fake_cuda.stand_in():
        for part in loss.perceptual:
            part.extractor.to("cuda")
        assert loss.device == torch.device("cuda:0")
        found = metrics.evaluate(network, pictures, loss=loss)  # of a network on the CPU only its output moves
    assert found.to_dict() == expected.to_dict()
