"""What a model costs and how far it sees: counted and measured, not asserted."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from srkit.errors import SRKitError
from srkit.models.superresnet import Frozen

LARGEST = 256  # side of the largest picture on which a receptive field is looked for


def count(model: nn.Module) -> tuple[int, int]:
    """How many parameters training can change, and how many are frozen, those of a frozen network in it included."""
    parameters = [parameter for part in _parts(model) for parameter in part.parameters(recurse=False)]
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

    with FlopCounterMode(display=False) as counter:
        _outputs(model, torch.rand(1, 3, height, width))
    return counter.get_total_flops() // 2  # a multiplication and an addition are two operations


def receptive_field(model: nn.Module) -> tuple[int, ...]:
    """Side of the square of low pixels that one pixel of the output can see; one number per output.

    Measured on a copy: with positive weights nothing cancels and no ReLU stops anything, so that a brighter row of
    low changes exactly those rows of the output that see it. Where pixels of the output see differently
    far, as enlarging makes them, the farthest counts. For networks of convolutions, poolings and interpolations.

    Args:
        model: takes low (N, 3, H, W) of any size, gives one output or a tuple of them.

    Raises:
        SRKitError: it sees about 256 pixels, or more.
    """
    probe = _monotone(model)
    for size in (32, 64, 128, LARGEST):
        seen = _rows_seen(probe, size)
        if not any(rows[:, [0, -1]].any() for rows in seen):  # the border cuts nothing off
            return tuple(_extent(rows) for rows in seen)
    raise SRKitError(f"this model sees about {LARGEST} pixels or more: its receptive field was not measured")


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """All modules, those of frozen networks too, which PyTorch itself does not find."""
    for module in model.modules():
        yield module
        if isinstance(module, Frozen):
            yield from module.extractor.modules()


@torch.no_grad()
def _outputs(model: nn.Module, low: Tensor) -> tuple[Tensor, ...]:
    """What the model answers in eval mode, always as a tuple."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training = model.training
    outputs = model.eval()(low.to(device))
    model.train(training)
    return outputs if isinstance(outputs, tuple) else (outputs,)


@torch.no_grad()
def _monotone(model: nn.Module) -> nn.Module:
    """A copy in double precision whose output can only rise with its input: weights positive, biases 0."""
    probe = copy.deepcopy(model).double()
    for part in _parts(probe):
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_parameters()
            continue
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.ndim > 1:
                parameter.fill_(0.5 / parameter[0].numel())  # half the mean: no layer makes the picture brighter
            elif name == "bias":
                parameter.zero_()
    return probe


def _rows_seen(probe: nn.Module, size: int) -> list[Tensor]:
    """For each output, which of the `size` rows of low (columns) its rows (rows) see, around the middle of low."""
    # As bright as 0.6, mean subtraction leaves every colour positive. A narrow strip is enough for one direction.
    low = torch.full((size + 1, 3, size, 8), 0.6, dtype=torch.float64)
    low[range(size), :, range(size)] = 1e6  # in picture i row i shines, in the last none
    parts = zip(*(_outputs(probe, part) for part in low.split(32)), strict=True)  # all pictures at once take gigabytes
    seen = []
    for output in map(torch.cat, parts):
        scale = output.shape[-2] // size
        middle = slice(scale * (size // 2 - 4), scale * (size // 2 + 4))
        rows = output[:, :, middle, output.shape[-1] // 2].sum(1)
        seen.append(((rows[:-1] - rows[-1]).abs() > 1e-12).T)
    return seen


def _extent(rows: Tensor) -> int:
    """The largest distance from the first to the last row of low that a row of the output sees, both counted."""
    at = [row.nonzero().flatten() for row in rows]
    return max(int(i[-1] - i[0]) + 1 for i in at if len(i))
