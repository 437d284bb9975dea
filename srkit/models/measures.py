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

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _outputs(model, torch.rand(1, 3, height, width))
    return counter.get_total_flops() // 2  # a multiplication and an addition are two operations


def receptive_field(model: nn.Module) -> tuple[int, ...]:
    """Side of the square of low pixels that one pixel of the output can see; one number per output.

    Measured on a copy: with positive weights nothing cancels and no ReLU stops anything, so that a row of the output
    has a gradient in exactly those rows of low that it sees. Where pixels of the output see differently
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
        for name, pool in part.named_children():
            if isinstance(pool, nn.MaxPool2d):  # its gradient would name one pixel of those that it looks at
                setattr(part, name, nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode))
    return probe


def _rows_seen(probe: nn.Module, size: int) -> list[Tensor]:
    """For each output, which of the `size` rows of low (columns) its middle rows (rows) see."""
    # As bright as 0.6, mean subtraction leaves every colour positive. A narrow strip is enough for one direction.
    low = torch.full((1, 3, size, 8), 0.6, dtype=torch.float64, requires_grad=True)
    seen = []
    for output in _outputs(probe, low):
        scale = output.shape[-2] // size
        column = output[0, :, :, output.shape[-1] // 2].sum(0)
        middle = range(scale * (size // 2 - 4), scale * (size // 2 + 4))
        gradients = [torch.autograd.grad(column[row], low, retain_graph=True)[0] for row in middle]
        seen.append(torch.stack([gradient[0].abs().sum((0, 2)) > 0 for gradient in gradients]))
    return seen


def _extent(rows: Tensor) -> int:
    """The largest distance from the first to the last row of low that a row of the output sees, both counted."""
    at = [row.nonzero().flatten() for row in rows]
    return max(int(i[-1] - i[0]) + 1 for i in at if len(i))
