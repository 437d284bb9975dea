"""Lesson 07: a homography, a warp that samples once, two means of PSNR, what is frozen, a change and its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.course.checks.check import Check

# ---------------------------------------------------------------------------------- homographies


def _projected(matrix: Tensor, points: Tensor) -> Tensor:
    moved = torch.cat([points, torch.ones_like(points[:, :1])], 1) @ matrix.T
    return moved[:, :2] / moved[:, 2:]


def _homography(generator: torch.Generator, reach: float = 1) -> Tensor:
    """Near to doing nothing; its last number is 1."""
    size = torch.tensor([[0.2, 0.2, reach], [0.2, 0.2, reach], [0.02, 0.02, 0]])
    return torch.eye(3) + size * torch.rand(3, 3, generator=generator)


project = Check(
    "project",
    _projected,
    lambda generator: [(_homography(generator), 4 * torch.rand(count, 2, generator=generator) + 1) for count in (1, 5)],
    {
        "the division is missing: x and y are the first two numbers, divided by the third": lambda matrix, points: (
            torch.cat([points, torch.ones_like(points[:, :1])], 1) @ matrix.T
        )[:, :2],
        "the matrix is transposed: points in rows are multiplied by matrix.T": lambda matrix, points: _projected(
            matrix.T, points
        ),
        "c and f do nothing: append a 1 to each point, not a 0": lambda matrix, points: _projected(
            matrix * torch.tensor([[1.0, 1, 0], [1, 1, 0], [1, 1, 1]]), points
        ),
        "this is the way back: no inverse": lambda matrix, points: _projected(matrix.inverse(), points),
        "it returns three numbers a point: divide by the third and leave it out": lambda matrix, points: torch.cat(
            [_projected(matrix, points), torch.ones_like(points[:, :1])], 1
        ),
    },
)


def _warped(picture: Tensor, matrix: Tensor, side: int, fault: str = "") -> Tensor:
    v, u = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    u, v = (v, u) if fault == "uv" else (u, v)
    points = torch.stack([u.flatten(), v.flatten()], 1).to(picture)
    places = _projected(matrix.inverse() if fault == "inverse" else matrix, points)
    size = torch.tensor([picture.shape[2], picture.shape[1]]).to(picture) - int(fault != "corners")
    grid = (2 * places / size - 1).reshape(1, side, side, 2)
    if fault == "xy":
        grid = grid.flip(-1)
    mode = "nearest" if fault == "nearest" else "bilinear"
    return F.grid_sample(picture[None], grid, mode, align_corners=fault != "align")[0]


def _views(generator: torch.Generator) -> list[tuple]:
    return [
        (torch.rand(3, height, width, generator=generator), _homography(generator, 2), side)
        for height, width, side in ((8, 10, 2), (12, 9, 4), (14, 20, 6))
    ]


warp = Check(
    "warp",
    _warped,
    _views,
    {
        "x and y are exchanged: grid_sample takes (x, y), across first": partial(_warped, fault="xy"),
        "u and v are exchanged: u goes across the patch, v down": partial(_warped, fault="uv"),
        "this is the way back: the matrix leads from the patch to the picture, no inverse": partial(
            _warped, fault="inverse"
        ),
        "-1 and 1 are the middles of the outer pixels: 2 x / (W - 1) - 1": partial(_warped, fault="corners"),
        "align_corners=True, for -1 and 1 are the middles of the outer pixels": partial(_warped, fault="align"),
        "this takes the nearest pixel: bilinear": partial(_warped, fault="nearest"),
    },
)


# ---------------------------------------------------------------------------------- means and errors


def _db(error: Tensor) -> Tensor:
    return -10 * error.log10()


def _two_means(errors: Tensor) -> tuple[Tensor, Tensor]:
    return _db(errors).mean(), _db(errors.mean())


two_means = Check(
    "two_means",
    _two_means,
    lambda generator: [(10 ** (-3 * torch.rand(count, generator=generator) - 1),) for count in (2, 6)],
    {
        "the two are exchanged: first the mean of the PSNRs": lambda errors: _two_means(errors)[::-1],
        "both are the PSNR of the mean error: the first is the mean of each picture's PSNR": lambda errors: (
            _two_means(errors)[1],
            _two_means(errors)[1],
        ),
        "both are the mean of the PSNRs: the second takes the mean of the errors first": lambda errors: (
            _two_means(errors)[0],
            _two_means(errors)[0],
        ),
        "log is the natural logarithm: log10": lambda errors: tuple(
            math.log(10) * value for value in _two_means(errors)
        ),
        "the sign is wrong: PSNR = -10 log10(MSE)": lambda errors: tuple(-value for value in _two_means(errors)),
    },
)


def _paired_change(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    differences = after - before
    return differences.mean(), differences.std() / len(differences) ** 0.5


paired_change = Check(
    "paired_change",
    _paired_change,
    lambda generator: [
        tuple(30 + torch.randn(2, count, generator=generator) * torch.tensor([[3.0], [3.5]])) for count in (3, 8)
    ],
    {
        "the pictures' own spread is in it: the standard deviation of the differences, not of before and after": (
            lambda before, after: (
                (after - before).mean(),
                ((before.var() + after.var()) / len(before)) ** 0.5,
            )
        ),
        "this is the standard deviation: divide by the root of n": lambda before, after: (
            (after - before).mean(),
            (after - before).std(),
        ),
        "divided by n: by its root": lambda before, after: (
            (after - before).mean(),
            (after - before).std() / len(before),
        ),
        "the standard deviation is over n: over n - 1, as torch.std does": lambda before, after: (
            (after - before).mean(),
            (after - before).std(correction=0) / len(before) ** 0.5,
        ),
        "the sign is wrong: after - before": lambda before, after: (
            (before - after).mean(),
            _paired_change(before, after)[1],
        ),
    },
)


# ---------------------------------------------------------------------------------- what is frozen


def _freeze_norms(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def _freeze_in_vain(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return network


def _freeze_children(network: nn.Module) -> nn.Module:
    for module in network.children():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def _on_norms(answer: Callable) -> Callable:
    """After a batch: the running statistics, the output of the norms, who still trains, and what gets a gradient."""

    def run(pictures: Tensor) -> Any:
        channels = pictures.shape[1]
        inner = nn.Sequential(nn.BatchNorm2d(channels), nn.Dropout(0.0))
        network = nn.Sequential(nn.BatchNorm2d(channels), inner).train()
        found = answer(network)
        if found is None or found is ...:
            return None
        output = network(pictures)
        statistics = [torch.cat([b.flatten().float() for n, b in network.named_buffers() if "running" in n])]
        trains = [module.training for module in network.modules() if not isinstance(module, nn.BatchNorm2d)]
        return *statistics, output, trains, [weight.requires_grad for weight in network.parameters()]

    return run


freeze_norms = Check(
    "freeze_norms",
    _freeze_norms,
    lambda generator: [(3 * torch.rand(2, c, 3, 3, generator=generator) + 2,) for c in (1, 3)],
    {
        "all of the network is in eval mode: only its BatchNorm2d layers": lambda network: network.eval(),
        "requires_grad stops the weights, not the running statistics: .eval() on each norm": _freeze_in_vain,
        "norms inside other modules are missed: modules(), not children()": _freeze_children,
        "the norms' weights may go on learning: .eval() alone, no requires_grad": lambda network: _freeze_in_vain(
            _freeze_norms(network)
        ),
    },
    _on_norms,
)


def _train_only(network: nn.Module, names: Sequence[str], fault: str = "") -> int:
    for name, parameter in network.named_parameters():
        wanted = any(part in name for part in names) if fault == "in" else name.split(".")[0] in names
        parameter.requires_grad_(wanted and (fault != "thaw" or parameter.requires_grad))
    counted = [each for each in network.parameters() if each.requires_grad or fault == "all"]
    return len(counted) if fault == "tensors" else sum(each.numel() for each in counted)


def _on_parts(answer: Callable) -> Callable:
    """How many it says, and which weights take a gradient; one of those to train was frozen before."""

    def run(sizes: list[int], names: list[str]) -> Any:
        parts = {"head": nn.Linear(sizes[0], 2), "body": nn.Linear(2, sizes[1]), "tail": nn.Linear(sizes[1], 3)}
        network = nn.ModuleDict({**parts, "overhead": nn.BatchNorm1d(2)})
        parts["tail"].requires_grad_(False)
        found = answer(network, names)
        return found if found is None or found is ... else (found, [p.requires_grad for p in network.parameters()])

    return run


train_only = Check(
    "train_only",
    _train_only,
    lambda generator: [
        (torch.randint(2, 9, (2,), generator=generator).tolist(), names)
        for names in (["tail"], ["head"], ["body", "tail"])
    ],
    {
        "this counts all weights: those that take a gradient": partial(_train_only, fault="all"),
        "this counts tensors: the numbers in them, numel()": partial(_train_only, fault="tensors"),
        "`in` finds 'head' in 'overhead' too: compare the name's first part, name.split('.')[0]": partial(
            _train_only, fault="in"
        ),
        "what was frozen before stays frozen: requires_grad_(True) for the parts to train": partial(
            _train_only, fault="thaw"
        ),
    },
    _on_parts,
)
