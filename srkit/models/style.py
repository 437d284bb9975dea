"""TransformerNet: repaints a picture in one pass. Johnson, Alahi, Fei-Fei, "Perceptual Losses", arXiv 1603.08155.

Instance normalisation in place of the paper's batch normalisation: Ulyanov, Vedaldi, Lempitsky, arXiv 1607.08022.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.settings import SRKitError


class InstanceNorm(nn.Module):
    """Each channel of each picture is given mean 0 and variance 1, then a learnt factor and shift (arXiv 1607.08022).

    Args:
        channels: of the feature maps.

    Attributes:
        statistics: mean and variance, (1, C, 1, 1) each, used in place of the picture's own; None: its own.
        keeps: whether the next pass leaves the picture's own as `statistics`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.statistics: tuple[Tensor, Tensor] | None = None
        self.keeps = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, computed in float32."""
        x = x.float()
        if self.statistics is None:
            mean = x.mean((2, 3), keepdim=True)
            variance = (x - mean).square().mean((2, 3), keepdim=True)
            if self.keeps:
                self.statistics, self.keeps = (mean, variance), False
        else:
            mean, variance = self.statistics
        scale = self.weight[:, None, None] * (variance + 1e-5).rsqrt()
        return (x - mean) * scale + self.bias[:, None, None]


class TransformerNet(nn.Module):
    """Repaints a picture at its own size: conv9, two conv3 of stride 2, residual blocks, two doublings, conv9.

    Nearest-neighbour enlarging before a conv3 in place of the paper's transposed convolutions, which leave a pattern of
    squares (Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016).

    Args:
        scale: 1; here so that it is used as every other network of the course.
        channels: of the first layer; the blocks have four times as many.
        blocks: residual blocks at a quarter of the picture's size.

    Raises:
        SRKitError: another scale, or no channels or blocks.
    """

    recolours = True  # what is grey comes out in the style's colours

    def __init__(self, scale: int = 1, channels: int = 16, blocks: int = 4) -> None:
        super().__init__()
        if scale != 1 or min(channels, blocks) < 1:
            raise SRKitError(
                f"scale {scale}, channels {channels}, blocks {blocks}: a style's scale is 1, the others >= 1"
            )
        self.scale = scale
        c = channels
        self.first = nn.ModuleList([_layer(3, c, 9), _layer(c, 2 * c, 3, 2), _layer(2 * c, 4 * c, 3, 2)])
        self.body = nn.Sequential(*[Residual(4 * c) for _ in range(blocks)])
        self.last = nn.ModuleList([_layer(4 * c, 2 * c, 3), _layer(2 * c, c, 3)])
        self.to_rgb = nn.Conv2d(c, 3, 9, padding=4, padding_mode="reflect")

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to the same shape, in [0, 1]; H and W are 16 or more."""
        x, sizes = low - 0.5, []
        for layer in self.first:
            sizes.append(x.shape[-2:])
            x = F.relu(layer(x))
        x = self.body(x)
        for layer, size in zip(self.last, reversed(sizes[1:]), strict=True):  # odd sizes come out as they went in
            x = F.relu(layer(F.interpolate(x, size, mode="nearest")))
        return torch.sigmoid(self.to_rgb(x))

    def with_statistics_of(self, picture: Tensor) -> TransformerNet:
        """A copy in eval mode that normalises whatever it is given by the means and variances of this one picture.

        So all tiles of a large picture are painted alike, from a first pass over the whole picture made small:
        "thumbnail instance normalization", Chen et al., arXiv 2103.11784.

        Args:
            picture: (1, 3, H, W) in [0, 1], on the network's device.
        """
        fixed = copy.deepcopy(self).eval()
        for module in fixed.modules():
            if isinstance(module, InstanceNorm):
                module.keeps = True
        with torch.inference_mode():
            fixed(picture)
        return fixed

    def _apply(self, fn, recurse: bool = True):  # a device or a precision is for the statistics, too
        super()._apply(fn, recurse)
        for module in self.modules():
            if isinstance(module, InstanceNorm) and module.statistics:
                module.statistics = fn(module.statistics[0]), fn(module.statistics[1])
        return self


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))): the paper's block, after Gross and Wilber, without a last ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _layer(channels, channels, 3), _layer(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x + self.second(F.relu(self.first(x)))


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, with its border reflected, and an instance normalisation, which makes a bias useless."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect", bias=False)
    return nn.Sequential(conv, InstanceNorm(outputs))
