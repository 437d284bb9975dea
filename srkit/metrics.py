"""PSNR and SSIM under one stated protocol, and `evaluate`, which makes a table of them.

The protocol, everywhere in the course: `high` cut to a multiple of the scale, `low` made from it by
antialiased bicubic and rounded to 8 bits, the output rounded to 8 bits; both compared on BT.601 studio luma, a
border of `scale` pixels cut, one value per picture, the mean over pictures. Bicubic on Set5 then reads
33.68 / 30.41 / 28.43 dB for x2 / x3 / x4; if yours does not, another choice was made somewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.errors import SRKitError
from srkit.images import check_scale, crop_to_multiple, degrade, luma
from srkit.losses import WeightedLoss
from srkit.models import output_at

WINDOW = 11  # SSIM looks through an 11 x 11 Gaussian window


def psnr(output: Tensor, high: Tensor, border: int = 0) -> Tensor:
    """Peak signal-to-noise ratio on luma, in dB: 10 log10(1 / MSE), one value per picture.

    Args:
        output, high: (3, H, W) or (N, 3, H, W), RGB in [0, 1]; output is clipped to that.
        border: pixels to cut on every side.

    Returns:
        (N,), or a single value for a single picture; infinite where the two are equal.

    Raises:
        SRKitError: the shapes differ, or the border leaves nothing.
    """
    output, high = _comparable(output, high, border, smallest=1)
    return -10 * (output - high).square().mean((-3, -2, -1)).log10()


def ssim(output: Tensor, high: Tensor, border: int = 0) -> Tensor:
    """Structural similarity on luma: 1 for equal pictures, one value per picture.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004,
    eq. 13 with K1 = 0.01, K2 = 0.03 and an 11 x 11 Gaussian window of sigma 1.5; the mean over every
    place where the window fits. As scikit-image's structural_similarity(gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False).

    Args and raises: as `psnr`; each side must be at least 11 pixels after the cut.
    """
    output, high = _comparable(output, high, border, smallest=WINDOW)
    single = output.ndim == 3
    a, b = (x[None] if single else x for x in (output, high))
    at = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    gauss = torch.exp(-(at**2) / (2 * 1.5**2))
    gauss = gauss / gauss.sum()
    # The Gaussian is separable: a column and a row are the same as the square, for 2/11 of the work.
    both = torch.cat([a, b, a * a, b * b, a * b])
    means = F.conv2d(F.conv2d(both, gauss.view(1, 1, -1, 1)), gauss.view(1, 1, 1, -1))
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = means.chunk(5)
    variance_a, variance_b = mean_aa - mean_a**2, mean_bb - mean_b**2
    covariance = mean_ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    values = similarity.mean((-3, -2, -1))
    return values[0] if single else values


def _comparable(output: Tensor, high: Tensor, border: int, smallest: int) -> tuple[Tensor, Tensor]:
    """Luma of both in double precision, rounded to 8 bits as a file would hold them, the border cut off."""
    if output.shape != high.shape:
        raise SRKitError(f"output {tuple(output.shape)} and high {tuple(high.shape)} differ in shape")
    height, width = high.shape[-2] - 2 * border, high.shape[-1] - 2 * border
    if min(height, width) < smallest:
        raise SRKitError(
            f"{high.shape[-1]} x {high.shape[-2]} pixels are too few to measure: "
            f"{smallest + 2 * border} are needed on each side"
        )
    pair = (luma(picture.double().mul(255).round().clamp(0, 255) / 255) for picture in (output, high))
    return tuple(y[..., border : border + height, border : border + width] for y in pair)


@dataclass(frozen=True)
class Row:
    """One picture's figures."""

    name: str
    width: int
    height: int
    psnr: float
    ssim: float
    terms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """What `evaluate` measured: a row per picture; `psnr` (dB), `ssim` and `terms` are the means of the rows."""

    scale: int
    rows: list[Row]

    @property
    def psnr(self) -> float:
        return sum(row.psnr for row in self.rows) / len(self.rows)

    @property
    def ssim(self) -> float:
        return sum(row.ssim for row in self.rows) / len(self.rows)

    @property
    def terms(self) -> dict[str, float]:
        return {name: sum(row.terms[name] for row in self.rows) / len(self.rows) for name in self.rows[0].terms}

    def to_dict(self) -> dict:
        """Plain words and numbers: scale, psnr, ssim, the terms, pictures."""
        pictures = [asdict(row) for row in self.rows]
        pictures = [row | row.pop("terms") for row in pictures]
        return {"scale": self.scale, "psnr": self.psnr, "ssim": self.ssim, **self.terms, "pictures": pictures}

    def __str__(self) -> str:
        wide = max(len("picture"), *(len(row.name) for row in self.rows))
        names = "".join(f"  {name:>11}" for name in self.terms)
        lines = [f"{'picture':{wide}}  {'size':>11}  {'PSNR / dB':>9}  {'SSIM':>6}{names}"]
        mean = Row("mean", 0, 0, self.psnr, self.ssim, self.terms)
        for row in (*self.rows, mean):
            size = f"x{self.scale}" if row is mean else f"{row.width} x {row.height}"
            terms = "".join(f"  {value:>11.4g}" for value in row.terms.values())
            lines.append(f"{row.name:{wide}}  {size:>11}  {row.psnr:9.2f}  {row.ssim:.4f}{terms}")
        return "\n".join(lines)


@torch.inference_mode()
def evaluate(
    model: nn.Module, pictures: Iterable[tuple[str, Tensor]], scale: int, loss: WeightedLoss | None = None
) -> Table:
    """Measure a model by the protocol at the top of this file.

    Args:
        model: takes low (1, 3, H, W), gives output `scale` times larger; `models.create("bicubic", 3)`
            is one too.
        pictures: (name, high) pairs, high (3, H, W) in [0, 1]; a Bank is such a sequence of pairs.
        scale: 2, 3 or 4; of a model with several outputs, the one that is measured.
        loss: whose terms are measured too, each raw, whatever it weighs.

    Returns:
        A Table. The model runs in eval mode, in full precision, where its parameters are.

    Raises:
        SRKitError: no pictures, one too small to measure, another scale, or a model made for another.
    """
    check_scale(scale)
    own = getattr(model, "scales", (getattr(model, "scale", scale),))
    if scale not in own:
        does = " or ".join(map(str, own))
        raise SRKitError(f"this model enlarges by {does}, not by {scale}: ask for scale {does}")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training = model.training
    model.eval()
    rows = []
    for name, picture in pictures:
        try:
            high = crop_to_multiple(picture.to(device), scale)
            output = output_at(model, degrade(high, scale)[None], scale)[0]
            values = psnr(output, high, scale).item(), ssim(output, high, scale).item()
            terms = loss.measure(output[None].clamp(0, 1), high[None]) if loss else {}
        except SRKitError as error:
            raise SRKitError(f"{name}: {error}") from None
        rows.append(Row(name, high.shape[-1], high.shape[-2], *values, terms))
    model.train(training)
    if not rows:
        raise SRKitError("no pictures to evaluate: name a data set or a folder that holds some")
    return Table(scale, rows)
