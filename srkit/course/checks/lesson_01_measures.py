"""Lesson 01: PSNR and SSIM."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from srkit.course.checks.check import Check

# ---------------------------------------------------------------------------------- psnr


def _psnr(output: Tensor, high: Tensor) -> Tensor:
    return (-10 * (output - high).square().mean((1, 2, 3)).log10()).mean()


def _pictures(generator: torch.Generator) -> list[tuple]:
    def batch(count: int, side: int, channels: int = 1) -> tuple[Tensor, Tensor]:
        high = torch.rand(count, channels, side, side, generator=generator)
        errors = torch.rand(count, channels, 1, 1, generator=generator) + 0.02
        return high + errors * torch.randn(high.shape, generator=generator) / 3, high

    return [batch(1, 2), batch(3, 6), batch(4, 5, 3)]


psnr = Check(
    "psnr",
    _psnr,
    _pictures,
    {
        "this is the PSNR of the mean error: average the PSNR of each picture": lambda output, high: (
            -10 * (output - high).square().mean().log10()
        ),
        "it is half of it: 10 log10(1 / MSE), or 20 log10(1 / root of the MSE)": lambda output, high: (
            _psnr(output, high) / 2
        ),
        "it is twice as much: 20 goes with the root of the MSE, 10 with the MSE": lambda output, high: (
            2 * _psnr(output, high)
        ),
        "this is the natural logarithm: log10": lambda output, high: _psnr(output, high) * math.log(10),
        "the sign is wrong: a smaller error is a larger PSNR": lambda output, high: -_psnr(output, high),
        "the peak of values from 0 to 1 is 1, not 255": lambda output, high: _psnr(output, high) + 20 * math.log10(255),
        "the peak of values from 0 to 1 is 1, not 255; and average the PSNR of each picture": lambda output, high: (
            10 * (255**2 / (output - high).square().mean()).log10()
        ),
        "the squares are summed, not averaged: mean": lambda output, high: (
            -10 * (output - high).square().sum((1, 2, 3)).log10()
        ).mean(),
        "these are absolute differences: square them": lambda output, high: (
            -10 * (output - high).abs().mean((1, 2, 3)).log10()
        ).mean(),
        "one value for each picture: average them": lambda output, high: (
            -10 * (output - high).square().mean((1, 2, 3)).log10()
        ),
        "one MSE for each picture, over its channels, too: mean((1, 2, 3))": lambda output, high: (
            -10 * (output - high).square().mean((2, 3)).log10()
        ).mean(),
        "this is the MSE: PSNR = 10 log10(1 / MSE)": lambda output, high: (output - high).square().mean(),
    },
)

# ---------------------------------------------------------------------------------- ssim

K1, K2 = 0.01, 0.03


def _ssim(a: Tensor, b: Tensor, c1: float = K1**2, c2: float = K2**2, own: int = 0, both: int = 0) -> Tensor:
    """`own` and `both`: what the variances and the covariance subtract from the number of pixels."""
    n, mean_a, mean_b = a.numel(), a.mean(), b.mean()
    variance_a, variance_b = a.var(correction=own), b.var(correction=own)
    covariance = ((a - mean_a) * (b - mean_b)).sum() / (n - both)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_a + variance_b + c2)


def _windows(generator: torch.Generator) -> list[tuple]:
    # Small contrasts, so that the two constants matter.
    def pair(side: int, contrast: float) -> tuple[Tensor, Tensor]:
        a = 0.02 + contrast * torch.rand(side, side, generator=generator)
        return a, a * 0.7 + contrast / 2 * torch.rand(side, side, generator=generator)

    return [pair(2, 0.3), pair(4, 0.05), pair(6, 0.2)]


def _with_deviations(a: Tensor, b: Tensor) -> Tensor:
    spread = a.var(correction=0) + b.var(correction=0) + K2**2
    return _ssim(a, b) * spread / (a.std(correction=0) + b.std(correction=0) + K2**2)


ssim = Check(
    "ssim",
    _ssim,
    _windows,
    {
        "the constants are missing: in a black or flat window this is 0 / 0": lambda a, b: _ssim(a, b, 0, 0),
        "the constants are squares: c1 = 0.01², c2 = 0.03²": lambda a, b: _ssim(a, b, K1, K2),
        "the two constants are exchanged: c1 = 0.01² goes with the means": lambda a, b: _ssim(a, b, K2**2, K1**2),
        "you divide by N - 1: the window's weights sum to 1, so divide by N (correction=0)": lambda a, b: _ssim(
            a, b, own=1, both=1
        ),
        "variances by N - 1 and the covariance by N: use N for both (correction=0)": lambda a, b: _ssim(a, b, own=1),
        "these are standard deviations: the second fraction has variances": _with_deviations,
        "values are 0 to 1: c1 = 0.01² and c2 = 0.03², without 255": lambda a, b: _ssim(
            a, b, (255 * K1) ** 2, (255 * K2) ** 2
        ),
        "the covariance is the mean of the product less the product of the means": lambda a, b: (
            (2 * a.mean() * b.mean() + K1**2)
            / (a.mean() ** 2 + b.mean() ** 2 + K1**2)
            * (2 * (a * b).mean() + K2**2)
            / (a.var(correction=0) + b.var(correction=0) + K2**2)
        ),
        "luminance is missing: this is contrast times structure": lambda a, b: _ssim(
            a - a.mean() + 0.5, b - b.mean() + 0.5
        ),
        "this is luminance alone": lambda a, b: (
            (2 * a.mean() * b.mean() + K1**2) / (a.mean() ** 2 + b.mean() ** 2 + K1**2)
        ),
    },
)
