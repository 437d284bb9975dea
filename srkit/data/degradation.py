"""How photographs are spoilt: blur, sensor noise and JPEG, batched, with a strength of its own for every picture.

The protocol's LR is a clean picture made smaller. A photograph is not: its lens was a little out of focus, its sensor
noisy, it was saved as JPEG, made smaller, and saved again. A network that should enlarge photographs trains on LR
pictures made that way, each with strengths drawn at random ("blind" super-resolution: Zhang et al., BSRGAN, arXiv
2103.14006; Wang et al., Real-ESRGAN, arXiv 2107.10833, Section 3, from whom the idea to do everything twice is).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from srkit.data.images import degrade, resize
from srkit.settings import SRKitError

# How coarsely JPEG rounds each frequency at quality 50: ITU-T T.81, Annex K, Tables K.1 and K.2.
LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
# From RGB to luma and two colour differences, and back: ITU-T T.871 (JFIF), Section 7.
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
FROM_YCC = ((1, 0, 1.402), (1, -0.344136, -0.714136), (1, 1.772, 0))


def blur(pictures: Tensor, sigma: Tensor, across: Tensor | None = None, angle: Tensor | None = None) -> Tensor:
    """Blur each picture by a Gaussian of its own; at the rim the last pixels are repeated.

    Args:
        pictures: (N, C, H, W).
        sigma: (N,), standard deviations in pixels; on the CPU a GPU need not wait for them.
        across: (N,), those at right angles to it; `sigma` if not given.
        angle: (N,), by which the Gaussian is turned, in radians.
    """
    across = sigma if across is None else across
    angle = torch.zeros_like(sigma) if angle is None else angle
    reach = max(1, math.ceil(3 * max(sigma.max().item(), across.max().item())))
    line = torch.arange(-reach, reach + 1, device=sigma.device, dtype=sigma.dtype)
    y, x = torch.meshgrid(line, line, indexing="ij")
    sine, cosine = angle.sin().view(-1, 1, 1), angle.cos().view(-1, 1, 1)
    along, aside = (cosine * x + sine * y) / sigma.view(-1, 1, 1), (cosine * y - sine * x) / across.view(-1, 1, 1)
    kernels = (-(along**2 + aside**2) / 2).exp()
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    count, channels, height, width = pictures.shape
    padded = F.pad(pictures, (reach,) * 4, mode="replicate").flatten(0, 1)[None]
    kernels = kernels.repeat_interleave(channels, 0)[:, None].to(pictures, non_blocking=True)
    return F.conv2d(padded, kernels, groups=count * channels).view(count, channels, height, width)


def jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """What JPEG at each picture's quality leaves of it, with colours at half the size, as cameras and phones save.

    Blocks of 8 x 8 pixels are taken apart into cosines, and each cosine's weight is rounded. libjpeg computes in
    integers: on average the two differ by less than one of 255 levels.

    Args:
        pictures: (N, 3, H, W) in [0, 1].
        quality: (N,), 1 to 100.
    """
    height, width = pictures.shape[-2:]
    padded = F.pad(pictures, (0, -width % 16, 0, -height % 16), mode="replicate")
    colours = torch.einsum("dc,nchw->ndhw", pictures.new_tensor(TO_YCC), (padded * 255).round()).round()
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(-1, 1, 1, 1, 1, 1).to(pictures)
    luma = _rounded(colours[:, :1] - 128, LUMA_STEPS, factor) + 128
    chroma = _rounded(F.avg_pool2d(colours[:, 1:], 2).round(), CHROMA_STEPS, factor)
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    colours = torch.cat([luma, chroma.round()], 1)
    back = torch.einsum("dc,nchw->ndhw", pictures.new_tensor(FROM_YCC), colours)
    return back[..., :height, :width].round().clamp(0, 255) / 255


def _rounded(planes: Tensor, steps: tuple, factor: Tensor) -> Tensor:
    """(N, C, H, W) with the cosines of each 8 x 8 block rounded to multiples of steps x factor."""
    number = torch.arange(8, device=planes.device, dtype=planes.dtype)
    cosines = torch.cos((2 * number + 1) * number[:, None] * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)  # now orthonormal: cosines @ cosines.T is the identity
    count, channels, height, width = planes.shape
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    step = (planes.new_tensor(steps) * factor).round().clamp(1, 255)
    weights = ((cosines @ blocks @ cosines.T) / step).round() * step
    return (cosines.T @ weights @ cosines).transpose(3, 4).reshape(planes.shape).round().clamp(-128, 127)


@dataclass(frozen=True)
class PhotoDegradation:
    """LR as a photograph is: soft, noisy, saved as JPEG, and all of that twice.

    Args:
        strength: 0 to 1: the strongest that is drawn. At 1: blur of 1.5 and noise of 15 / 255, qualities from 30.

    Raises:
        SRKitError: another strength.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise SRKitError(f"strength {self.strength} of the degradation: it lies above 0 and goes up to 1")

    def __call__(self, high: Tensor, scale: int, generator: torch.Generator) -> Tensor:
        """Make low (N, 3, h, w) from high (N, 3, scale * h, scale * w), on its device, in 256 levels.

        Args:
            generator: on the CPU; decides everything that is drawn.
        """
        low = degrade(high, scale)
        size = (low.shape[-2], low.shape[-1])
        middle = 1 + 0.4 * self.strength * (torch.rand((), generator=generator).item() - 0.3)  # its size between both
        low = self._once(low, generator, 1.0)
        low = resize(low, scale=middle).clamp(0, 1)
        low = self._once(low, generator, 0.5)
        return resize(low, size).mul_(255).round_().clamp_(0, 255).div_(255)

    def __str__(self) -> str:
        return f"photo {self.strength:g}"

    def _once(self, low: Tensor, generator: torch.Generator, share: float) -> Tensor:
        """Out of focus, noise, JPEG; with this share of the full strengths."""

        def draw(least: float, most: float, *shape: int) -> Tensor:
            return least + (most - least) * torch.rand(len(low), *shape, generator=generator)

        top = self.strength * share
        low = blur(low, draw(0.1, 0.1 + 1.4 * top), draw(0.1, 0.1 + 1.4 * top), draw(0, math.pi))
        noise = torch.randn(low.shape, generator=generator)
        noise = torch.lerp(noise, noise[:, :1].expand_as(noise), draw(0, 1, 1, 1, 1).round())  # grey in half of them
        noise *= draw(0, 15 / 255 * top, 1, 1, 1)
        low = (low + noise.to(low.device, non_blocking=True)).clamp(0, 1)
        # The grid of blocks lies anywhere: a patch is a piece of a photograph.
        down, right = torch.randint(8, (2,), generator=generator).tolist()
        padded = F.pad(low, (right, 0, down, 0), mode="replicate")
        return jpeg(padded, draw(100 - 70 * top, 98))[..., down:, right:]


# ---------------------------------------------------------------------------------- one camera


def soften(pictures: Tensor, sigma: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each picture (N, 3, H, W) blurred by a round Gaussian of its own `sigma`, (N,), in pixels; 0 changes nothing."""
    return blur(pictures, sigma.clamp(min=0.05))  # narrower than that, no other pixel weighs anything


def add_noise(pictures: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture (N, 3, H, W) with Gaussian noise of its own `sigma`, (N,), of values in [0, 1], in 256 levels."""
    noise = torch.randn(pictures.shape, generator=generator) * sigma.view(-1, 1, 1, 1)
    noisy = pictures + noise.to(pictures, non_blocking=True)
    return noisy.mul_(255).round_().clamp_(0, 255).div_(255)


@dataclass(frozen=True)
class Camera:
    """LR as one camera takes it, always the same: I_x = D(I_y; δ) with an unknown δ, which lesson 08 finds out.

    Args:
        blur: standard deviation of its lens's blur, in pixels of LR.
        noise: standard deviation of its sensor's noise, of values in [0, 1].

    Raises:
        SRKitError: one is negative.
    """

    blur: float
    noise: float

    def __post_init__(self) -> None:
        if not (self.blur >= 0 and self.noise >= 0):
            raise SRKitError(f"a camera with blur {self.blur} and noise {self.noise}: both are 0 or more")

    def __call__(self, high: Tensor, scale: int, generator: torch.Generator) -> Tensor:
        """Make low (N, 3, h, w) from high (N, 3, scale * h, scale * w), on its device; `generator` on the CPU."""
        low = soften(degrade(high, scale), torch.full((len(high),), self.blur))
        return add_noise(low, torch.full((len(high),), self.noise), generator)

    def __str__(self) -> str:
        return f"camera with blur {self.blur:g} and noise {self.noise:g}"
