"""Enlarging without learning, as a model: what every network has to beat."""

from __future__ import annotations

from torch import Tensor, nn

from srkit.errors import unknown
from srkit.images import KERNELS, check_scale, resize


class Interpolation(nn.Module):
    """A model without parameters: `resize` by `scale` with `kernel`.

    Args:
        scale: 2, 3 or 4.
        kernel: "nearest", "bilinear" or "bicubic".

    Raises:
        SRKitError: another scale or kernel.
    """

    def __init__(self, scale: int = 2, kernel: str = "bicubic") -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise unknown("kernel", kernel, KERNELS)
        self.scale, self.kernel = check_scale(scale), kernel

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale * H, scale * W)."""
        return resize(low, scale=self.scale, kernel=self.kernel)
