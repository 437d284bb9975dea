"""EfficientSR, a small plain network for processors: all work at the input's size, learnt by branches, shipped without.

Each idea has its paper:

- Every convolution works at the input's size, and one PixelShuffle lays the last one's channels out as pixels (ESPCN,
  Shi et al., arXiv 1609.05158, eq. 4). SRResNet computes its last layers on 4 and 16 times as many pixels.
- Residual blocks without batch normalisation, and a skip over all of them (EDSR, Lim et al., arXiv 1707.02921).
- The network learns only what the enlarged input lacks (VDSR, Kim et al., arXiv 1511.04587). The enlargement is added
  in full precision: half precision then rounds the details, never the picture.
- While it learns, each 3 x 3 convolution is a sum of parallel branches, 3 x 3, 1 x 1 and identity (RepVGG, Ding et al.,
  arXiv 2101.03697; for super-resolution ECBSR, Zhang et al., ACM MM 2021, and SPAN, Wan et al., arXiv 2311.12770). A
  sum of convolutions is a convolution, so the branches merge into one 3 x 3 kernel exactly. Here the kernels are added
  before the picture passes: a step of training costs what it costs without branches.
- SiLU, x sigmoid(x) (Elfwing et al., arXiv 1702.03118; as in SPAN): as cheap as ReLU beside a convolution, and smooth.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.data.images import check_scale, resize
from srkit.settings import SRKitError


class ExpandedConv(nn.Module):
    """A 3 x 3 convolution learnt as parallel branches whose kernels are added: 3 x 3, 1 x 1, and the identity (RepVGG).

    Args:
        channels: of input and output.
        identity: whether that branch is there.
        start: how large the weights of the other two are at first, as a part of what keeps a picture's contrast.
    """

    def __init__(self, channels: int, identity: bool, start: float) -> None:
        super().__init__()
        self.square = nn.Parameter(torch.randn(channels, channels, 3, 3) * start * (9 * channels) ** -0.5)
        self.point = nn.Parameter(torch.randn(channels, channels, 1, 1) * start * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.identity = identity

    def kernel(self) -> Tensor:
        """The one kernel (channels, channels, 3, 3) that does what the branches do."""
        centre = self.point
        if self.identity:
            centre = centre + torch.eye(len(centre), dtype=centre.dtype, device=centre.device)[:, :, None, None]
        return self.square + F.pad(centre, (1, 1, 1, 1))  # a 1 x 1 kernel amid zeros

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        return F.conv2d(x, self.kernel(), self.bias, padding=1)

    def merged(self) -> nn.Conv2d:
        """The same function as a plain convolution."""
        channels = len(self.bias)
        plain = nn.Conv2d(channels, channels, 3, padding=1)
        plain.weight = nn.Parameter(self.kernel().detach())
        plain.bias = nn.Parameter(self.bias.detach().clone())
        return plain


class Block(nn.Module):
    """x + conv3(SiLU(conv3(x))): EDSR's block, with the smoother activation of SPAN in place of ReLU."""

    def __init__(self, channels: int, expand: bool) -> None:
        super().__init__()
        if expand:  # at first SiLU sees x, and the block changes little
            self.first = ExpandedConv(channels, identity=True, start=0.5)
            self.second = ExpandedConv(channels, identity=False, start=0.1)
        else:
            self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        return x + self.second(F.silu(self.first(x), inplace=not torch.is_grad_enabled()))


class EfficientSR(nn.Module):
    """Residual blocks at the input's size, one PixelShuffle, and the bicubic enlargement added.

        low ─┬─ head: conv3 ─┬─ body: blocks ─ + ─ tail: conv3 ─ PixelShuffle ─ + ─ output
             │               └─────────────────┘                                │
             └─ bicubic, in full precision ─────────────────────────────────────┘

    Args:
        scale: 2, 3 or 4. Only the last convolution depends on it.
        channels: filters of every convolution but the last.
        blocks: residual blocks of two convolutions.
        expand: with the branches that it learns by. `merged()` gives the plain network, which is what ships.

    Raises:
        SRKitError: another scale, no channels or no blocks.
    """

    config: dict[str, Any]

    def __init__(self, scale: int = 4, channels: int = 32, blocks: int = 8, expand: bool = False) -> None:
        super().__init__()
        if channels < 1 or blocks < 1:
            raise SRKitError(f"channels {channels}, blocks {blocks}: at least 1 of each")
        self.scale, self.expand = check_scale(scale), expand
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(*(Block(channels, expand) for _ in range(blocks)))
        self.tail = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.5)  # activations of about 1, where SiLU bends
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)  # training starts at bicubic

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale * H, scale * W); not clipped."""
        x = self.head(low - 0.5)
        details = F.pixel_shuffle(self.tail(x + self.body(x)), self.scale)
        return details + resize(low.float(), scale=self.scale)

    def merged(self) -> EfficientSR:
        """The plain network that computes the same, its branches merged: a new model; itself if there are none."""
        if not self.expand:
            return self
        plain = copy.deepcopy(self)
        plain.expand = False
        for block in plain.body:
            for name, layer in block.named_children():
                if isinstance(layer, ExpandedConv):
                    setattr(block, name, layer.merged())
        if hasattr(self, "config"):  # a network made by hand has none
            plain.config = {**self.config, "expand": False}
        return plain
