"""What a model costs and how much context it has: counted and measured, not asserted."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from srkit.models.presets import device_of, output_at, scales_of
from srkit.models.superresnet import Frozen
from srkit.settings import SRKitError

SIDES = (64, 128, 256, 512)  # of the pictures on which a receptive field is looked for, one after the other
GRIDS = (1, 2, 4, 8)
PERIOD = max(GRIDS)  # after so many pixels of low, poolings and strides repeat


class Reach(NamedTuple):
    """Which surroundings a tile needs, in pixels of low."""

    pixels: int  # how far to either side an output pixel depends on low
    grid: int  # poolings take pixels in pairs or fours: a tile must begin where such a group does


def count(model: nn.Module) -> tuple[int, int]:
    """How many parameters training can change, and how many are frozen, those of a frozen network in it included."""
    parameters = list(model.parameters())
    for part in model.modules():
        if isinstance(part, Frozen):  # PyTorch does not find what is in it
            parameters += part.extractor.parameters()
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return trainable, sum(p.numel() for p in parameters) - trainable


def count_parameters(model: nn.Module) -> int:
    """How many numbers training can change."""
    return count(model)[0]


def multiply_adds(model: nn.Module, height: int, width: int) -> int:
    """How often convolutions and matrix products multiply and add for one picture; interpolation is left out.

    Args:
        model: takes low (1, 3, height, width).
        height, width: of low, in pixels.
    """
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.rand(1, 3, height, width, device=device_of(model)))
    model.train(training)
    return counter.get_total_flops() // 2  # a multiplication and an addition are two operations


def receptive_field(model: nn.Module) -> tuple[int, ...]:
    """Side of the square of low pixels that one pixel of the output depends on; one number per output.

    Where pixels of the output depend on differently many, as enlarging makes them, the most count. An interpolation
    depends on every pixel that it reads: at x3 that adds one which has weight zero.

    What a network reads of the whole picture, its embedding, is beside that: it is held still.

    Args:
        model: takes low (N, 3, H, W) of any size, gives one output or a tuple of them.

    Raises:
        SRKitError: they are about 500 pixels, or more.
    """
    traced = _trace(_probe(model), [range(i, i + 1) for i in range(PERIOD)])
    if traced is None:
        raise SRKitError(f"this model's receptive field is about {SIDES[-1]} pixels or more: it was not measured")
    side, traces = traced
    fields = []
    for trace in traces:
        # Row y depends on low's row r as y + period depends on r + PERIOD: all rows are told by one period.
        period = trace.shape[1] // side * PERIOD
        reads: list[list[int]] = [[] for _ in range(period)]
        for r, y in trace.nonzero().tolist():
            reads[y % period].append(r - y // period * PERIOD)
        fields.append(max((max(rows) - min(rows) + 1 for rows in reads if rows), default=0))
    return tuple(fields)


@torch.inference_mode()
def reach(model: nn.Module, scale: int | None = None) -> Reach | None:
    """Which surroundings a tile needs, so that it has the same pixels as in one pass.

    Args:
        model: takes low (N, 3, H, W) of any size.
        scale: which output, of a model with several; the largest if not given.

    Returns:
        None if an output pixel depends on the whole picture, as where a network normalises by the picture's mean.
    """
    scale = scale or scales_of(model)[-1]
    probe = _probe(model)
    traced = _trace(probe, [range(PERIOD)])
    if traced is None:
        return None
    side, traces = traced
    rows = traces[scales_of(model).index(scale)][0].nonzero().flatten() // scale
    pixels = max(side // 2 - int(rows[0]), int(rows[-1]) - side // 2 - PERIOD + 1)
    low = _picture(2 * (pixels + 2 * PERIOD) + PERIOD)
    whole, border = output_at(probe, low, scale, **_given(probe)), scale * (pixels + PERIOD)
    # The grid is the smallest shift of the input that shifts the output along and changes nothing else.
    for grid in GRIDS:
        shifted = output_at(probe, low[..., grid:, :], scale, **_given(probe))
        difference = (shifted - whole[..., scale * grid :, :])[..., border:-border, :].abs().max()
        if difference < 1e-4:
            return Reach(pixels, grid)
    return None


def _probe(model: nn.Module) -> nn.Module:
    """A copy to measure."""
    return copy.deepcopy(model).cpu().float().eval()


def _given(probe: nn.Module) -> dict[str, Tensor]:
    """An embedding, whichever, for a network that reads the whole picture's."""
    embed = getattr(probe, "embed", None)
    return {"embedding": torch.ones(1, embed.channels)} if embed else {}


def _picture(height: int) -> Tensor:
    """A narrow strip: one direction is enough."""
    return torch.rand(1, 3, height, PERIOD, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def _trace(probe: nn.Module, marks: Sequence[range]) -> tuple[int, list[Tensor]] | None:
    """Which rows of each output depend on some rows of low: the measurement behind both.

    The rows are "not a number", which no layer can hide: whatever depends on them is so, too.

    Args:
        marks: for each of several pictures the rows of low, counted from its middle.

    Returns:
        The height of low, and for each output, (pictures, rows of output), which are marked: a height at which the
        border cuts nothing off. None: no picture is that large.
    """
    for side in SIDES:
        low = _picture(side).repeat(len(marks), 1, 1, 1)
        for picture, rows in zip(low, marks, strict=True):
            picture[:, side // 2 + rows.start : side // 2 + rows.stop] = torch.nan
        outputs = probe(low, **_given(probe))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        traces = [output.isnan().any(1).any(-1) for output in outputs]
        edges = [len(trace[0]) // side * PERIOD for trace in traces]
        if not any(trace[:, :edge].any() or trace[:, -edge:].any() for trace, edge in zip(traces, edges, strict=True)):
            return side, traces
    return None
