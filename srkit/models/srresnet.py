"""SRResNet, the deep residual network that becomes SRGAN's generator, and SRGAN's discriminator (lesson 06).

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network",
arXiv 1609.04802, figure 4. Both networks take and give pictures in [0, 1], as everywhere in the course; the
[-1, 1] that the paper computes in stays inside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srkit.data.images import resize
from srkit.settings import SRKitError, unknown


def conv(inputs: int, outputs: int, norm: bool, stride: int = 1) -> list[nn.Module]:
    """A 3 x 3 convolution, and batch normalisation if asked for."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
    return [layer, nn.BatchNorm2d(outputs)] if norm else [layer]


class ResidualBlock(nn.Module):
    """x + norm(conv3(PReLU(norm(conv3(x))))), figure 4 of the paper."""

    def __init__(self, channels: int, norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv(channels, channels, norm), nn.PReLU(), *conv(channels, channels, norm))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape."""
        return x + self.body(x)


class UpsampleBlock(nn.Sequential):
    """Twice as high and wide, learnt: either way one convolution and a PReLU.

    - "shuffle": conv3 to four times the channels, and PixelShuffle lays them out as 2 x 2 pixels (Shi et al.,
      arXiv 1609.05158, eq. 4). The four start equal (ICNR, Aitken et al., arXiv 1707.02937): with four
      different starts, the output starts as a checkerboard.
    - "nearest": repeat each pixel, then conv3. There is no checkerboard, whatever the weights (Odena et al.,
      "Deconvolution and Checkerboard Artifacts", 2016).
    """

    def __init__(self, channels: int, upsample: str) -> None:
        if upsample == "shuffle":
            first = nn.Conv2d(channels, 4 * channels, 3, padding=1)
            icnr(first)
            super().__init__(first, nn.PixelShuffle(2), nn.PReLU())
        else:
            first = nn.Upsample(scale_factor=2, mode="nearest")
            super().__init__(first, nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU())


@torch.no_grad()
def icnr(layer: nn.Conv2d) -> None:
    """Start the convolution before a PixelShuffle(2) so that the two together enlarge like "nearest"."""
    for weights in layer.parameters():  # PixelShuffle takes four neighbouring channels for the pixels of one
        weights.copy_(weights[::4].repeat_interleave(4, dim=0))


class SRResNet(nn.Module):
    """Residual blocks at the input's size, then one doubling after the other.

        low ─ head: conv9, PReLU ─┬─ body: blocks, conv3, norm ─ + ─ upsample: x2, or twice: x4 ─ tail: conv9 ─ output
                                  └──────────────────────────────┘

    Args:
        scale: 2 or 4.
        channels: filters of every layer; 64 in the paper.
        blocks: residual blocks; 16 in the paper.
        norm: batch normalisation in the blocks, as in the paper. Later networks leave it out: its statistics, of a
            few patches, shift colours and contrast (EDSR, arXiv 1707.02921; ESRGAN, arXiv 1809.00219).
        upsample: how it doubles, "shuffle" (the paper's) or "nearest"; see `UpsampleBlock`.
        last_kernel: size of the last convolution; 9 in the paper. With few channels it would be most of the work.
        skip: add the bicubic enlargement of low to the output. The last convolution then starts at zero, and
            training at bicubic. Not in the paper.
        output: "linear", or "tanh" to keep the output between 0 and 1, as some implementations do.
        frozen_norm: keep batch normalisation as it was learnt, in training too. For fine-tuning: the statistics
            of a small dataset would wreck it. Scale and shift, its weights, are still trained.
        signed: low is read as 2 low - 1. Weights could take that over but for the border, where the zeros of the
            padding would then be black instead of grey. For other projects' weights, as is `end`.
        end: what follows the body's last convolution: "norm" (if `norm`), or "prelu" and no normalisation.

    Raises:
        SRKitError: another scale, upsampling, output or end, or no channels.
    """

    def __init__(
        self,
        scale: int = 4,
        channels: int = 64,
        blocks: int = 16,
        norm: bool = True,
        upsample: str = "shuffle",
        last_kernel: int = 9,
        skip: bool = False,
        output: str = "linear",
        frozen_norm: bool = False,
        signed: bool = False,
        end: str = "norm",
    ) -> None:
        super().__init__()
        if scale not in (2, 4):
            raise SRKitError(f"scale {scale}: an SRResNet doubles once or twice, so choose 2 or 4; srcnn does 3")
        for name, known in ((upsample, ("shuffle", "nearest")), (output, ("linear", "tanh")), (end, ("norm", "prelu"))):
            if name not in known:
                raise unknown("choice of an SRResNet", name, known)
        if channels < 1 or blocks < 0 or last_kernel < 1 or last_kernel % 2 == 0:
            raise SRKitError(f"channels {channels}, blocks {blocks}, last_kernel {last_kernel}: at least 1, 0, and odd")
        self.scale, self.skip, self.output, self.frozen_norm, self.signed = scale, skip, output, frozen_norm, signed
        self.head = nn.Sequential(nn.Conv2d(3, channels, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(ResidualBlock(channels, norm) for _ in range(blocks)), *conv(channels, channels, norm or end == "prelu")
        )
        if end == "prelu":
            self.body[-1] = nn.PReLU()
        self.upsample = nn.Sequential(*(UpsampleBlock(channels, upsample) for _ in range(scale // 2)))
        self.tail = nn.Conv2d(channels, 3, last_kernel, padding=last_kernel // 2)
        if skip:
            for parameter in self.tail.parameters():
                nn.init.zeros_(parameter)

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale * H, scale * W); not clipped, unless by tanh."""
        x = self.head(2 * low - 1 if self.signed else low)
        x = x + self.body(x)
        x = self.upsample(x)
        x = self.tail(x).to(low.dtype)  # from here on it is a picture, for which bf16 has too few levels
        if self.output == "tanh":
            x = torch.tanh(x)
        if self.skip:
            return resize(low, scale=self.scale) + x / 2
        return (x + 1) / 2

    def train(self, mode: bool = True) -> SRResNet:
        """As every module, but frozen batch normalisation stays as it is."""
        super().train(mode)
        if self.frozen_norm:
            for layer in self.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self


class Discriminator(nn.Module):
    """Tells real pictures from a generator's: one logit each. Above 0 means "real".

        picture ─ conv3 64, LReLU ─ 7 x [conv3, norm, LReLU] to 512 channels at 1/16 of the size ─ head ─ logit

    Every second convolution halves the size instead of pooling. There is no sigmoid: the loss has it.

    Args:
        channels: filters of the first layer; each halving but the first doubles them, to eight times that. 64 in
            the paper.
        size: None averages over the picture before two 1 x 1 convolutions, so that it takes any size, with 5.2
            million weights. 96 is the paper's: two fully connected layers, 23.6 million weights, no other size.

    Raises:
        SRKitError: a size that four halvings do not divide, or no channels.
    """

    def __init__(self, channels: int = 64, size: int | None = None) -> None:
        super().__init__()
        if channels < 1 or (size is not None and (size < 16 or size % 16)):
            raise SRKitError(f"channels {channels}, size {size}: at least 1, and a multiple of 16 (four halvings)")
        self.size = size
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.LeakyReLU(0.2)]
        inputs = channels
        for outputs in (channels, 2 * channels, 4 * channels, 8 * channels):
            if outputs != inputs:
                layers += [*conv(inputs, outputs, norm=True), nn.LeakyReLU(0.2)]
            layers += [*conv(outputs, outputs, norm=True, stride=2), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        hidden = 16 * channels
        if size is None:
            head = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, hidden, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, 1, 1)]
        else:
            pixels = (size // 16) ** 2
            head = [nn.Flatten(), nn.Linear(inputs * pixels, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)]
        self.head = nn.Sequential(*head)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to N logits.

        Raises:
            SRKitError: another size than the one it was made for.
        """
        if self.size is not None and tuple(pictures.shape[-2:]) != (self.size, self.size):
            raise SRKitError(f"this discriminator takes patches of {self.size} pixels only; with size=None any")
        return self.head(self.features(2 * pictures - 1)).flatten()
