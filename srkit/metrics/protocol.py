"""PSNR and SSIM under one stated protocol, and `evaluate`, which makes a table of them.

The protocol, everywhere in the course: `high` (HR, the ground truth) cut to a multiple of the scale, `low` (LR) made
from it by antialiased bicubic and rounded to 8 bits, `output` (SR) rounded to 8 bits; both compared on BT.601 studio
luma, a border of `scale` pixels cut, one value per picture, the mean over pictures. A grey ground truth has no luma to
make: it is Y itself, 0 to 255, as in the literature (Set14 holds one such picture, and on studio luma, 16 to 235, its
mean would read 0.094 dB higher). Bicubic on Set5 then reads 33.68 / 30.41 / 28.43 dB for x2 / x3 / x4; if yours does
not, another choice was made somewhere.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.data.dataset import ImageDataset
from srkit.data.images import check_scale, crop_to_multiple, degrade, is_gray, luma
from srkit.losses import WeightedLoss
from srkit.metrics import quality
from srkit.models import scales_of
from srkit.settings import SRKitError

WINDOW = 11  # side of SSIM's Gaussian window, in pixels


def psnr(output: Tensor, high: Tensor, border: int = 0) -> Tensor:
    """Peak signal-to-noise ratio on luma, in dB: 10 log10(1 / MSE), one value per picture.

    Args:
        output, high: (3, H, W) or (N, 3, H, W), RGB in [0, 1]; output is clipped to that. Where high is grey, the two
            are compared on grey from 0 to 255, not on luma from 16 to 235: 1.32 dB lower.
        border: pixels to cut on every side.

    Returns:
        (N,), or a single value for a single picture; infinite where the two are equal.

    Raises:
        SRKitError: the shapes differ, or the border leaves nothing.
    """
    a, b = _comparable(output, high, border, smallest=1)
    return _back(-10 * (a - b).square().mean((-3, -2, -1)).log10(), high)


def ssim(output: Tensor, high: Tensor, border: int = 0) -> Tensor:
    """Structural similarity on luma: 1 for equal pictures, one value per picture.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004,
    eq. 13 with K1 = 0.01, K2 = 0.03 and an 11 x 11 Gaussian window of sigma 1.5; the mean over every
    place where the window fits. As scikit-image's structural_similarity(gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False).

    Args and raises: as `psnr`; each side must be at least 11 pixels after the cut.
    """
    a, b = _comparable(output, high, border, smallest=WINDOW)
    a, b = (x if x.ndim == 4 else x[None] for x in (a, b))
    at = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    gauss = torch.exp(-(at**2) / (2 * 1.5**2))
    gauss = gauss / gauss.sum()
    # The Gaussian is separable: a column and a row are the same as the square, for 2/11 of the work.
    moments = torch.cat([a, b, a * a, b * b, a * b])
    means = F.conv2d(F.conv2d(moments, gauss.view(1, 1, -1, 1)), gauss.view(1, 1, 1, -1))
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = means.chunk(5)
    variance_a, variance_b = mean_aa - mean_a**2, mean_bb - mean_b**2
    covariance = mean_ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    return _back(similarity.mean((-3, -2, -1)).view(high.shape[:-3]), high)


def _comparable(output: Tensor, high: Tensor, border: int, smallest: int) -> tuple[Tensor, Tensor]:
    """Luma of both in double precision, rounded to 8 bits as a file would hold them, the border cut off."""
    if output.shape != high.shape:
        raise SRKitError(f"output {tuple(output.shape)} and high {tuple(high.shape)} differ in shape")
    height, width = high.shape[-2] - 2 * border, high.shape[-1] - 2 * border
    if min(height, width) < smallest:
        least = smallest + 2 * border
        raise SRKitError(f"{high.shape[-1]} x {high.shape[-2]} pixels are too few to measure: each side needs {least}")
    if high.device.type == "mps":  # Apple's GPUs have no double precision
        output, high = output.cpu(), high.cpu()
    gray = is_gray(high)[..., None, None, None]
    inside, found = (..., slice(border, border + height), slice(border, border + width)), []
    for picture in (output, high):
        y = luma(picture.double().mul(255).round().clamp(0, 255) / 255)[inside]
        found.append(torch.where(gray, (255 * y - 16) / 219, y))
    return found[0], found[1]


def _back(values: Tensor, high: Tensor) -> Tensor:
    """Figures to where the pictures were."""
    return values.to(high.device, torch.float32) if high.device.type == "mps" else values


# ---------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Row:
    """One picture's figures; `terms` holds a loss's terms, and the further measures that were asked for."""

    name: str
    width: int
    height: int
    psnr: float
    ssim: float
    terms: dict[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """PSNR (dB), SSIM, the terms of a loss and further measures, by name."""
        protocol = {"psnr": self.psnr, "ssim": self.ssim}
        return protocol | self.terms | protocol  # a loss's term "psnr" is another figure


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
    def figures(self) -> dict[str, float]:
        """The means, by name as in the rows."""
        return {name: _mean([row.figures[name] for row in self.rows]) for name in self.rows[0].figures}

    @property
    def psnr(self) -> float:
        return self.figures["psnr"]

    @property
    def psnr_of_mean(self) -> float:
        """The PSNR, in dB, of the mean over pictures of the MSE (on luma, each picture counting as one)."""
        error = _mean([10 ** (-row.psnr / 10) for row in self.rows])
        return -10 * math.log10(error) if error else math.inf

    @property
    def ssim(self) -> float:
        return self.figures["ssim"]

    @property
    def terms(self) -> dict[str, float]:
        return {name: _mean([row.terms[name] for row in self.rows]) for name in self.rows[0].terms}

    def to_dict(self) -> dict[str, Any]:
        """Plain words and numbers: scale, psnr, ssim, the terms, pictures."""
        pictures = [{"name": row.name, "width": row.width, "height": row.height, **row.figures} for row in self.rows]
        return {"scale": self.scale, **self.figures, "pictures": pictures}

    def __str__(self) -> str:
        lines = [["picture", "size", "PSNR / dB", "SSIM", *self.terms]]
        sizes = [(row.name, f"{row.width} x {row.height}", row) for row in self.rows]
        for name, size, found in [*sizes, ("mean", f"x{self.scale}", self)]:
            terms = [f"{value:.4g}" for value in found.terms.values()]
            lines.append([name, size, f"{found.psnr:.2f}", f"{found.ssim:.4f}", *terms])
        return _aligned(lines)


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
    taken picture by picture first, and the spread given is that of the differences.
    """

    before: Table
    after: Table
    changes: dict[str, Change]

    def to_dict(self) -> dict[str, Any]:
        """Plain words and numbers: scale, each figure's change, and the pictures' names."""
        changes = {name: asdict(change) for name, change in self.changes.items()}
        return {"scale": self.before.scale, **changes, "pictures": [row.name for row in self.before.rows]}

    def __str__(self) -> str:
        means = [["mean", "before", "after", "difference", "std dev", "std err", "better"]]
        pictures = [["difference", *self.changes]]
        for name, c in self.changes.items():
            figures = [f"{c.before:.5g}", f"{c.after:.5g}", f"{c.difference:+.4g}"]
            spread = [f"{c.deviation:.3g}", f"{c.error:.3g}", f"{c.improved} of {len(c.differences)}"]
            means.append([f"{name} / dB" if name == "psnr" else name, *figures, *spread])
        for row, *differences in zip(self.before.rows, *(c.differences for c in self.changes.values()), strict=True):
            pictures.append([row.name, *(f"{difference:+.4g}" for difference in differences)])
        return f"{_aligned(means)}\n\n{_aligned(pictures)}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Words in columns: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([name.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for name, *rest in lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def paired(before: Table, after: Table) -> Paired:
    """Compare two measurements of the same pictures, picture by picture: what did it change, and by how much more
    than it varies?

    Args:
        before, after: from `evaluate`, with the same loss, if any.

    Raises:
        SRKitError: other pictures, another order, size or scale, or other terms.
    """
    tables = before, after
    pictures = [(table.scale, [(row.name, row.width, row.height) for row in table.rows]) for table in tables]
    if pictures[0] != pictures[1] or before.terms.keys() != after.terms.keys():
        raise SRKitError(
            "before and after differ in their pictures, scale or terms: evaluate both on the same dataset, at the same "
            "scale, with the same loss"
        )
    figures = {name: [[row.figures[name] for row in table.rows] for table in tables] for name in before.figures}
    return Paired(before, after, {name: _change(name, *values) for name, values in figures.items()})


def _change(name: str, before: Sequence[float], after: Sequence[float]) -> Change:
    # Two perfect pictures differ by nothing, not by inf - inf.
    differences = tuple(0.0 if a == b else b - a for a, b in zip(before, after, strict=True))
    sign, count = (1 if name in ("psnr", "ssim") else -1), len(differences)
    better = sum(sign * each > 1e-5 * abs(a) for a, each in zip(before, differences, strict=True))
    deviation = statistics.stdev(differences) if count > 1 and all(map(math.isfinite, differences)) else math.nan
    means = _mean(before), _mean(after), _mean(differences)
    return Change(*means, deviation, deviation / math.sqrt(count), better, differences)


# ---------------------------------------------------------------------------------- the loop


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    pictures: ImageDataset | Iterable[tuple[str, Tensor]],
    scale: int | None = None,
    loss: WeightedLoss | None = None,
    batch_size: int = 1,
    with_ssim: bool = True,
    measures: Sequence[str] = (),
) -> Table:
    """Measure a model by the protocol at the top of this file: the one loop that degrades, runs and measures.

    Args:
        model: takes low (N, 3, H, W), gives output `scale` times larger; `models.create("bicubic", 3)` is one too.
        pictures: an ImageDataset, or (name, high) pairs, high (3, H, W) in [0, 1].
        scale: 2, 3 or 4; of a model with several outputs, the one that is measured; its largest if not given.
        loss: whose terms are measured too, each raw, whatever it weighs; of a model with several outputs, on each.
        batch_size: how many pictures of a dataset, if of one size, go through the model at a time. The terms of a row
            are then the mean over its batch; the table's means are the same.
        with_ssim: SSIM takes longer than PSNR; without it a row's is nan.
        measures: further columns by their names in `MEASURES`, "brisque" or "lpips"; each is a term of the table,
            called after its implementation, e.g. "BRISQUE (piq 0.8.0)", and lower is better.

    Returns:
        A Table. The model runs in eval mode, in full precision, where its parameters are; one without parameters
        where the loss's networks are, else where the pictures are.

    Raises:
        SRKitError: no pictures, one too small to measure, another scale, or a model made for another; a measure's
            package or weights that are missing.
    """
    scales = scales_of(model)
    scale = check_scale(scale or scales[-1])
    if scale not in scales:
        does = " or ".join(map(str, scales))
        raise SRKitError(f"this model enlarges by {does}, not by {scale}: ask for scale {does}")
    device = next((parameter.device for parameter in model.parameters()), loss.device if loss else None)
    rows, training = [], model.training
    columns = quality.columns(measures)  # what is missing is said now, not after the first picture
    model.eval()
    try:
        for names, low, high in _batches(pictures, scale, batch_size):
            low, high = (batch.to(device or batch.device) for batch in (low, high))
            outputs = model(low)
            output = outputs if isinstance(outputs, Tensor) else outputs[scales.index(scale)]
            try:
                measured = _rows(output, high, names, scale, columns, with_ssim)
            except SRKitError as error:
                raise SRKitError(f"{names[0]}: {error}") from None
            terms = _terms(loss, outputs if scale == scales[-1] else output, high) if loss else {}
            rows += [replace(row, terms=terms | row.terms) for row in measured]
    finally:
        model.train(training)
    if not rows:
        raise SRKitError("no pictures to evaluate: name a data set or a folder that holds some")
    return Table(scale, rows)


def measure(
    output: Tensor,
    high: Tensor,
    names: Sequence[str],
    scale: int,
    measures: Sequence[str] = (),
    with_ssim: bool = True,
) -> list[Row]:
    """Measure outputs that exist already, whatever made them: what `evaluate` does with each batch of a model.

    Args:
        output, high: (N, 3, H, W), RGB in [0, 1].
        names: of the N pictures.
        scale: the border to cut, in pixels.
        measures, with_ssim: as for `evaluate`.

    Raises:
        SRKitError: pictures too small to measure, shapes that differ, a measure that cannot be had.
    """
    return _rows(output, high, names, scale, quality.columns(measures), with_ssim)


def _rows(
    output: Tensor, high: Tensor, names: Sequence[str], scale: int, columns: Mapping[str, Callable], with_ssim: bool
) -> list[Row]:
    psnrs = psnr(output, high, scale).tolist()
    ssims = ssim(output, high, scale).tolist() if with_ssim else [math.nan] * len(names)
    more = {title: function(output, high).tolist() for title, function in columns.items()}
    size = high.shape[-1], high.shape[-2]
    return [
        Row(name, *size, psnrs[i], ssims[i], {title: values[i] for title, values in more.items()})
        for i, name in enumerate(names)
    ]


def _batches(
    pictures: ImageDataset | Iterable[tuple[str, Tensor]], scale: int, batch_size: int
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Names, low and high of whole pictures."""
    if isinstance(pictures, ImageDataset):
        names = iter(pictures.names)
        for low, high in pictures.pairs(scale, batch_size):
            yield [next(names) for _ in high], low, high
        return
    for name, picture in pictures:
        try:
            high = crop_to_multiple(picture, scale)
        except SRKitError as error:
            raise SRKitError(f"{name}: {error}") from None
        yield [name], degrade(high, scale)[None], high[None]


def _terms(loss: WeightedLoss, outputs: Tensor | tuple[Tensor, ...], high: Tensor) -> dict[str, float]:
    """A loss's terms as numbers, computed where its networks are."""
    device = loss.device or high.device
    if isinstance(outputs, Tensor):
        clipped = outputs.clamp(0, 1).to(device)
    else:
        clipped = tuple(output.clamp(0, 1).to(device) for output in outputs)
    return {name: value.item() for name, value in loss.measure(clipped, high.to(device)).items()}
