"""SRCNN: three convolutions that turned super-resolution over to neural networks.

Dong, Loy, He, Tang: "Image Super-Resolution Using Deep Convolutional Networks", arXiv 1501.00092.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.data.images import KERNELS, check_scale, resize
from srkit.settings import SRKitError, unknown

INITS = ("default", "paper", "identity")
ALL, COLOURS, OTHERS = slice(None), slice(3), slice(3, None)  # a layer's channels: all, the first three, the rest


class SRCNN(nn.Module):
    """Enlarge, then three convolutions: extract features, map them, reconstruct (Section 3.1, eq. 1 to 3).

        low ─ enlarge ─ conv k1, n1 ─ ReLU ─ conv k2, n2 ─ ReLU ─ conv k3, 3 ─ output

    Args:
        scale: 2, 3 or 4.
        kernels: the three odd kernel sizes; (9, 1, 5) is the classic, (9, 5, 5) the larger one.
        channels: filters of the first two layers; (64, 32) in the paper.
        upsample: how the first operation enlarges: "bicubic" or "bilinear" (or "nearest").
        init: how the weights start, see `initialise`.
        carry: keep the first three channels of every layer as they are with init="identity", where they
            hand the picture on unchanged, so that the others learn only what it lacks. It remains the same
            network with the same weights; see `carried`.

    Raises:
        SRKitError: a scale, kernel size, upsampling or initialisation that does not exist.
    """

    def __init__(
        self,
        scale: int = 2,
        kernels: Sequence[int] = (9, 5, 5),
        channels: Sequence[int] = (64, 32),
        upsample: str = "bilinear",
        init: str = "identity",
        carry: bool = False,
    ) -> None:
        super().__init__()
        if len(kernels) != 3 or any(k < 1 or k % 2 == 0 for k in kernels) or len(channels) != 2 or min(channels) < 4:
            raise SRKitError(f"kernels {kernels}, channels {channels}: three odd sizes, and two numbers of 4 or more")
        if upsample not in KERNELS:
            raise unknown("upsampling", upsample, KERNELS)
        self.scale, self.upsample, self.carry = check_scale(scale), upsample, carry
        # Padding by half the kernel keeps the size: a pixel of the output answers a pixel of the input.
        self.extract = nn.Conv2d(3, channels[0], kernels[0], padding=kernels[0] // 2)
        self.map = nn.Conv2d(channels[0], channels[1], kernels[1], padding=kernels[1] // 2)
        self.reconstruct = nn.Conv2d(channels[1], 3, kernels[2], padding=kernels[2] // 2)
        initialise(self, init)

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale * H, scale * W); not clipped."""
        return self.refine(resize(low, scale=self.scale, kernel=self.upsample))

    def refine(self, enlarged: Tensor) -> Tensor:
        """The three convolutions, from an enlarged picture to an output as large; not clipped."""
        if self.carry:
            return self.carried(enlarged)
        x = F.relu(self.extract(enlarged))
        x = F.relu(self.map(x))
        return convolve(self.reconstruct, x)

    @torch.no_grad()
    def passes(self, low: Tensor, count: int) -> list[Tensor]:
        """The convolutions applied to their own output: low enlarged, then after 1 to `count` passes, each clipped."""
        found = [resize(low, scale=self.scale, kernel=self.upsample).clamp(0, 1)]
        for _ in range(count):
            found.append(self.refine(found[-1]).clamp(0, 1))
        return found

    def carried(self, enlarged: Tensor) -> Tensor:
        """The same output, with the three carried channels added at the end instead of convolved.

        bf16 has 256 steps from 0.5 to 1: a picture that goes through layers in bf16 loses its finest levels, and
        weights near 1 cannot move by less than a 256th. Added in fp32, the picture stays whole. ReLU, which
        the carried channels would pass, clips what bicubic undershoots below 0.
        """
        x = F.relu(convolve(self.extract, enlarged, outputs=OTHERS))
        x = F.relu(convolve(self.map, x, outputs=OTHERS, inputs=OTHERS))
        x = convolve(self.reconstruct, x, inputs=OTHERS)
        return x + enlarged.clamp(min=0)


def convolve(layer: nn.Conv2d, x: Tensor, outputs: slice = ALL, inputs: slice = ALL) -> Tensor:
    """A layer's convolution, with some of its output and input channels only."""
    weight, bias = layer.parameters()
    weight, bias, k = weight[outputs, inputs], bias[outputs], layer.kernel_size[0]
    if layer.training and x.device.type == "cpu" and len(weight) == 3 and k > 1:
        return convolve_by_rows(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=k // 2)


def convolve_by_rows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same convolution, for few outputs: on a processor it takes a training step half the time, or less.

    A processor computes 16 outputs side by side; a layer that makes three colours leaves 13 of these places empty.
    So each row of the kernel makes outputs of its own, and then the rows are added up, each moved to its height:
    Σ over i and j of weight[i, j] x[y + i, x + j] = Σ over i of (Σ over j of weight[i, j] x[…, x + j])[y + i].

    Args:
        x: (N, channels, H, W).
        weight, bias: (outputs, channels, k, k), k odd, and (outputs).

    Returns:
        (N, outputs, H, W), the picture's rim padded with zeros.
    """
    outputs, channels, k, _ = weight.shape
    rows = weight.transpose(1, 2).reshape(outputs * k, channels, 1, k)
    moves = torch.eye(outputs * k, dtype=x.dtype, device=x.device).view(outputs, k, outputs * k, 1).transpose(1, 2)
    return F.conv2d(F.conv2d(x, rows, padding=(0, k // 2)), moves, bias, padding=(k // 2, 0))


@torch.no_grad()
def initialise(model: SRCNN, init: str) -> None:
    """Set the starting weights in place.

    - "default": PyTorch's own (Kaiming uniform). The first output is a random mixture around 0.
    - "paper": Gaussian with standard deviation 0.001, biases 0 (Section 4). The first output is
      almost black, and with a loss averaged over pixels it stays so for long.
    - "identity": training starts at the enlarged picture, that is at the PSNR of bicubic. The first
      three filters of each layer hand the picture on unchanged (a single 1 in the middle; ReLU lets
      it pass, since a picture is not negative). The first layer's other filters find edges: each sums to
      zero, so that half of all patches, whatever their brightness, pass its ReLU; and nothing reads them yet,
      since the last layer's weights on them are zero.

    Raises:
        SRKitError: another name.
    """
    if init not in INITS:
        raise unknown("initialisation", init, INITS)
    for layer in (model.extract, model.map, model.reconstruct):
        weight, bias = layer.parameters()
        if init == "paper":
            nn.init.normal_(weight, std=0.001)
        if init == "identity":
            nn.init.kaiming_normal_(weight)
        if init != "default":
            nn.init.zeros_(bias)
    if init == "identity":
        model.extract.weight -= model.extract.weight.mean((2, 3), keepdim=True)
        model.reconstruct.weight.zero_()
    if init == "identity" or model.carry:
        _hand_on(model)


def _hand_on(model: SRCNN) -> None:
    """Make the first three channels of every layer hand the picture on: nothing mixed in, and to no other channel."""
    model.extract.weight[COLOURS] = 0
    model.map.weight[COLOURS] = 0
    model.map.weight[:, COLOURS] = 0
    model.reconstruct.weight[:, COLOURS] = 0
    for layer in (model.extract, model.map, model.reconstruct):
        weight, bias = layer.parameters()
        bias[COLOURS] = 0
        middle = layer.kernel_size[0] // 2
        weight[range(3), range(3), middle, middle] = 1
