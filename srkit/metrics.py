"""PSNR and SSIM under one stated protocol, and `evaluate`, which makes a table of them.

The protocol, everywhere in the course: `high` cut to a multiple of the scale, `low` made from it by
antialiased bicubic and rounded to 8 bits, the output rounded to 8 bits; both compared on BT.601 studio luma, a
border of `scale` pixels cut, one value per picture, the mean over pictures. Bicubic on Set5 then reads
33.68 / 30.41 / 28.43 dB for x2 / x3 / x4; if yours does not, another choice was made somewhere.
"""

from __future__ import annotations

import math
import statistics
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
    """What `evaluate` measured: a row per picture; `psnr` (dB), `ssim` and `terms` are the means of the rows.

    The mean of the pictures' PSNRs is not the PSNR of their mean MSE, `psnr_of_mean`. That one is never higher: a
    difficult picture has a large MSE and rules the mean of MSEs, and only counts as one of many in the mean of PSNRs.
    Who reports a figure says which of them it is; in this course it is the first.
    """

    scale: int
    rows: list[Row]

    @property
    def psnr(self) -> float:
        return sum(row.psnr for row in self.rows) / len(self.rows)

    @property
    def psnr_of_mean(self) -> float:
        """The PSNR, in dB, of the mean over pictures of the MSE (on luma, each picture counting as one)."""
        error = sum(10 ** (-row.psnr / 10) for row in self.rows) / len(self.rows)
        return -10 * math.log10(error) if error else math.inf

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


@dataclass(frozen=True)
class Change:
    """One figure before and after, on the same pictures.

    `before`, `after` and `difference` (after - before) are means over the pictures; `deviation` is the standard
    deviation of the pictures' differences (n - 1), `error` their standard error, deviation / sqrt(n): both nan for a
    single picture. `improved` counts the pictures whose figure got better, which is higher for PSNR and SSIM and
    lower for a term, by more than the 1e-5 of itself that rounding can do. `differences` has one for each picture.
    """

    before: float
    after: float
    difference: float
    deviation: float
    error: float
    improved: int
    differences: tuple[float, ...]


@dataclass(frozen=True)
class Paired:
    """What `paired` compared: two tables of the same pictures; `changes` has "psnr", "ssim" and every term.

    Pictures differ more from each other than a network does from itself before and after. So the differences are
    taken picture by picture first, and the spread told is that of the differences.
    """

    before: Table
    after: Table

    @property
    def changes(self) -> dict[str, Change]:
        return {name: self._change(name) for name in ("psnr", "ssim", *self.before.terms)}

    def _change(self, name: str) -> Change:
        old, new = ([_figure(row, name) for row in table.rows] for table in (self.before, self.after))
        # Two perfect pictures differ by nothing, not by inf - inf.
        differences = tuple(0.0 if a == b else b - a for a, b in zip(old, new, strict=True))
        sign, count = (1 if name in ("psnr", "ssim") else -1), len(differences)
        finite = all(map(math.isfinite, differences))
        better = sum(sign * each > 1e-5 * abs(a) for a, each in zip(old, differences, strict=True))
        deviation = statistics.stdev(differences) if count > 1 and finite else math.nan
        return Change(
            statistics.fmean(old), statistics.fmean(new), statistics.fmean(differences),
            deviation, deviation / math.sqrt(count), better, differences,
        )  # fmt: skip

    def to_dict(self) -> dict:
        """Plain words and numbers: scale, each figure's change, psnr_of_mean, and for each picture before and after."""
        changes = {name: asdict(change) for name, change in self.changes.items()}
        pictures = [
            {"name": a.name} | {name: [_figure(a, name), _figure(b, name)] for name in changes}
            for a, b in zip(self.before.rows, self.after.rows, strict=True)
        ]
        for change in changes.values():
            del change["differences"]
        means = [self.before.psnr_of_mean, self.after.psnr_of_mean]
        return {"scale": self.before.scale, **changes, "psnr_of_mean": means, "pictures": pictures}

    def __str__(self) -> str:
        changes, rows = self.changes, self.before.rows
        said = {"psnr": "PSNR / dB", "ssim": "SSIM"}
        wide = max(len("PSNR of mean MSE"), *(len(name) for name in changes), *(len(row.name) for row in rows))
        heads = f"{'before':>10}  {'after':>10}  {'difference':>11}  {'std dev':>9}  {'std err':>9}  better"
        lines = [f"{'mean':{wide}}  {heads}"]
        for name, c in changes.items():
            figures = f"{c.before:10.5g}  {c.after:10.5g}  {c.difference:+11.4g}  {c.deviation:9.3g}  {c.error:9.3g}"
            lines.append(f"{said.get(name, name):{wide}}  {figures}  {c.improved} of {len(rows)}")
        old, new = self.before.psnr_of_mean, self.after.psnr_of_mean
        lines.append(f"{'PSNR of mean MSE':{wide}}  {old:10.5g}  {new:10.5g}  {new - old:+11.4g}")
        lines += ["", f"{'difference':{wide}}" + "".join(f"  {said.get(name, name):>11}" for name in changes)]
        for number, row in enumerate(rows):
            values = "".join(f"  {change.differences[number]:+11.4g}" for change in changes.values())
            lines.append(f"{row.name:{wide}}{values}")
        return "\n".join(lines)


def _figure(row: Row, name: str) -> float:
    return row.psnr if name == "psnr" else row.ssim if name == "ssim" else row.terms[name]


def paired(before: Table, after: Table) -> Paired:
    """Compare two measurements of the same pictures, picture by picture: what did it change, and by how much more
    than it varies?

    Args:
        before, after: from `evaluate`, with the same loss, if any.

    Raises:
        SRKitError: other pictures, another order, size or scale, or other terms.
    """
    if before.scale != after.scale:
        raise SRKitError(f"before is of scale {before.scale}, after of {after.scale}: nothing can be compared")
    pictures = [[(row.name, row.width, row.height) for row in table.rows] for table in (before, after)]
    if pictures[0] != pictures[1]:
        raise SRKitError(
            f"before and after are not of the same pictures ({len(before.rows)} and {len(after.rows)}): "
            "evaluate both on the same bank"
        )
    if before.terms.keys() != after.terms.keys():
        terms = (" ".join(table.terms) or "none" for table in (before, after))
        raise SRKitError("before and after have other terms ({}; {}): evaluate both with the same loss".format(*terms))
    return Paired(before, after)


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
