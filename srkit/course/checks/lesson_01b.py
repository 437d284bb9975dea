"""Lesson 01b: a mean opinion score, SSIM as a map, normalised luminance, Bradley-Terry scores, rank correlation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from srkit.course.checks.check import Check

# ---------------------------------------------------------------------------------- mos


def _mos(ratings: Tensor) -> tuple[Tensor, Tensor]:
    return ratings.mean(0), 1.96 * ratings.std(0) / len(ratings) ** 0.5


def _ratings(generator: torch.Generator) -> list[tuple]:
    sizes = ((4, 2), (9, 3), (25, 5))
    return [(torch.randint(1, 6, (people, pictures), generator=generator).float(),) for people, pictures in sizes]


mos = Check(
    "mos",
    _mos,
    _ratings,
    {
        "you average over the pictures: a column is a picture, so .mean(0)": lambda r: (
            r.mean(1),
            1.96 * r.std(1) / r.shape[1] ** 0.5,
        ),
        "this is the spread of the people, not of their mean: divide by the root of how many they are": lambda r: (
            r.mean(0),
            1.96 * r.std(0),
        ),
        "the deviation is divided by n, not by its root": lambda r: (r.mean(0), 1.96 * r.std(0) / len(r)),
        "this is one standard error: 95 % lie within 1.96 of them": lambda r: (r.mean(0), r.std(0) / len(r) ** 0.5),
        "this is the whole interval: return half of it": lambda r: (r.mean(0), 2 * _mos(r)[1]),
        "the deviation of a sample is divided by n - 1: .std(0) as it is": lambda r: (
            r.mean(0),
            1.96 * r.std(0, correction=0) / len(r) ** 0.5,
        ),
        "this is the variance: take its root": lambda r: (r.mean(0), 1.96 * r.var(0) / len(r) ** 0.5),
    },
)

# ---------------------------------------------------------------------------------- ssim_map

C1, C2 = 0.01**2, 0.03**2


def _local(x: Tensor, window: Tensor, padding: int = 0) -> Tensor:
    return F.conv2d(x[None, None], window[None, None], padding=padding)[0, 0]


def _ssim_map(x: Tensor, y: Tensor, window: Tensor, c1=C1, c2=C2, subtract=(1, 1, 1), padding: int = 0) -> Tensor:
    """`subtract`: how often the squared means go off the variance of x, of y, and off the covariance."""
    mean_x, mean_y, xx, yy, xy = (_local(z, window, padding) for z in (x, y, x * x, y * y, x * y))
    variances = xx - subtract[0] * mean_x**2 + yy - subtract[1] * mean_y**2
    covariance = xy - subtract[2] * mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _pairs(generator: torch.Generator) -> list[tuple]:
    found = []
    for side, size in ((4, 3), (7, 3), (12, 5)):
        x = 0.1 + 0.4 * torch.rand(side, side + 2, generator=generator)
        window = 0.2 + torch.rand(size, generator=generator)
        window = window[:, None] * window
        y = 0.7 * x + 0.2 * torch.rand(x.shape, generator=generator)
        found.append((x, y, window / window.sum()))
    return found


def _flat_window(x: Tensor, y: Tensor, window: Tensor) -> Tensor:
    return _ssim_map(x, y, torch.full_like(window, 1 / window.numel()))


ssim_map = Check(
    "ssim_map",
    _ssim_map,
    _pairs,
    {
        "E[x²] is not yet the variance: subtract the squared mean": lambda x, y, w: _ssim_map(
            x, y, w, subtract=(0, 0, 0)
        ),
        "E[xy] is not yet the covariance: subtract the product of the means": lambda x, y, w: _ssim_map(
            x, y, w, subtract=(1, 1, 0)
        ),
        "it pads, so windows hang over the rim: padding=0, and the map is smaller": lambda x, y, w: _ssim_map(
            x, y, w, padding=w.shape[0] // 2
        ),
        "the constants are squares: c1 = 0.01², c2 = 0.03²": lambda x, y, w: _ssim_map(x, y, w, 0.01, 0.03),
        "the constants are missing: in a flat window this is 0 / 0": lambda x, y, w: _ssim_map(x, y, w, 0, 0),
        "the two constants are exchanged: c1 goes with the means": lambda x, y, w: _ssim_map(x, y, w, C2, C1),
        "all pixels of the window count the same: weigh them by `window`": _flat_window,
        "this is the mean of the map: return the map": lambda x, y, w: _ssim_map(x, y, w).mean(),
        "the map of a batch, (1, 1, H, W): return (H, W)": lambda x, y, w: _ssim_map(x, y, w)[None, None],
    },
)

# ---------------------------------------------------------------------------------- normalised


def _normalised(y: Tensor, window: Tensor, c: float = 1 / 255, root: bool = True, centred: bool = True) -> Tensor:
    half = window.shape[0] // 2
    mean = _local(y, window)
    variance = (_local(y * y, window) - mean**2).clamp(min=0)
    inside = y[half : y.shape[0] - half, half : y.shape[1] - half]
    return (inside - mean * centred) / ((variance.sqrt() if root else variance) + c)


normalised = Check(
    "normalised",
    _normalised,
    lambda generator: [(x, window) for x, _, window in _pairs(generator)],
    {
        "the local mean is not subtracted": lambda y, w: _normalised(y, w, centred=False),
        "you divide by the variance: take its root": lambda y, w: _normalised(y, w, root=False),
        "the constant is missing: in a flat window this is 0 / 0": lambda y, w: _normalised(y, w, 0),
        "the constant is 1 level of 255: with values from 0 to 1 that is 1 / 255": lambda y, w: _normalised(y, w, 1),
        "one mean and one deviation of the whole picture: they are local": lambda y, w: (
            (y - y.mean()) / (y.std(correction=0) + 1 / 255)
        )[w.shape[0] // 2 : y.shape[0] - w.shape[0] // 2, w.shape[0] // 2 : y.shape[1] - w.shape[0] // 2],
        "the rim of y has to go, as it does from the means": lambda y, w: F.pad(
            _normalised(y, w), [w.shape[0] // 2] * 4
        ),
    },
)

# ---------------------------------------------------------------------------------- bradley_terry


def _bradley_terry(wins: Tensor, steps: int = 3000) -> Tensor:
    pairs, p = wins + wins.T, torch.ones(len(wins))
    for _ in range(steps):
        p = wins.sum(1) / (pairs / (p[:, None] + p)).sum(1)
        p = p / p.log().mean().exp()
    return p.log()


def _wins(generator: torch.Generator) -> list[tuple]:
    return [
        (torch.randint(4, 20, (count, count), generator=generator).float().fill_diagonal_(0),) for count in (2, 3, 4)
    ]


bradley_terry = Check(
    "bradley_terry",
    _bradley_terry,
    _wins,
    {
        "these are the strengths p: return their logarithms": lambda wins: _bradley_terry(wins).exp(),
        "the scores' mean is not 0: subtract it": lambda wins: _bradley_terry(wins) - _bradley_terry(wins)[0],
        "rows won, columns lost: you have it the other way round": lambda wins: _bradley_terry(wins.T),
        "this is one round: repeat it until nothing moves": lambda wins: _bradley_terry(wins, 1),
        "these are shares of won pairs: whom one won against counts, too": lambda wins: (
            wins.sum(1) / (wins + wins.T).sum(1)
        ),
        "n_ij are all pairs of i and j, not only those that i won": lambda wins: _bradley_terry_of_wins(wins),
    },
)


def _bradley_terry_of_wins(wins: Tensor) -> Tensor:
    p = torch.ones(len(wins))
    for _ in range(3000):
        p = wins.sum(1) / (wins / (p[:, None] + p)).sum(1)
        p = p / p.log().mean().exp()
    return p.log()


# ---------------------------------------------------------------------------------- spearman


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()


def _ranks(x: Tensor) -> Tensor:
    return x.argsort().argsort().float()


def _columns(generator: torch.Generator) -> list[tuple]:
    found = []
    for count in (4, 6, 9):
        a = torch.randn(count, generator=generator).exp()
        found.append((a, a**3 + torch.randn(count, generator=generator)))
    return found


spearman = Check(
    "spearman",
    lambda a, b: _correlation(_ranks(a), _ranks(b)).item(),
    _columns,
    {
        "this is the correlation of the values: take their ranks first": lambda a, b: _correlation(a, b).item(),
        "argsort tells who is at each place; the place of each is argsort of that": lambda a, b: _correlation(
            a.argsort().float(), b.argsort().float()
        ).item(),
        "the ranks' means are not subtracted": lambda a, b: (
            (_ranks(a) * _ranks(b)).sum() / (_ranks(a).square().sum() * _ranks(b).square().sum()).sqrt()
        ).item(),
        "this is the covariance: divide by both deviations": lambda a, b: (
            ((_ranks(a) - _ranks(a).mean()) * (_ranks(b) - _ranks(b).mean())).mean().item()
        ),
        "the sign is wrong": lambda a, b: -_correlation(_ranks(a), _ranks(b)).item(),
    },
)
