"""SuperResNet: the workshop's six networks, from one small vocabulary of blocks (lesson 05).

All work at the input's size for as long as they can and enlarge by bilinear interpolation. What differs is
the block they are made of, how many outputs they have, and whether they read a frozen network's features too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.data.images import resize
from srkit.models.clip import ImageTower
from srkit.models.features import Extractor, load_features
from srkit.settings import SRKitError, unknown


def conv3(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size; dilated, its nine taps lie `dilation` pixels apart."""
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)


def double(x: Tensor) -> Tensor:
    """Bilinear enlargement by 2."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Plain(nn.Module):
    """conv3, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same shape, as for all blocks."""
        return F.relu(self.conv(x))


class Residual(nn.Module):
    """x + conv3(ReLU(conv3(x))): two convolutions that learn only what to change.

    No ReLU after the second convolution nor after the sum, other than in He et al., arXiv 1512.03385: the block
    can take away as well as add, and what it leaves alone goes through untouched (as in EDSR, arXiv 1707.02921).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv3(channels, channels), conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Dilated(nn.Module):
    """Three conv3 side by side with dilation 1, 2 and 4, ReLU each; concatenated; merged by conv1, ReLU.

    Its receptive field is 9 x 9 pixels, with 27 taps (Yu & Koltun, arXiv 1511.07122). The merge is 1 x 1, since
    context is what the three are for, and 3 x 3 would double the block's weights. It adds no input back: the block
    is no residual one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv3(channels, channels, dilation) for dilation in (1, 2, 4))
        self.merge = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.merge(torch.cat([F.relu(conv(x)) for conv in self.convs], 1)))


class Frozen(nn.Module):
    """A frozen network inside another: PyTorch does not find it, so it is not trained, averaged or saved.

    The config makes it again, and `size`, which is saved, tells whether it is still the same one: what it puts out for
    one fixed picture.

    Args:
        extractor: the network, with `describe()`.

    Raises:
        SRKitError: loading a checkpoint that was trained with other frozen weights.
    """

    extractor: Extractor | ImageTower
    size: Tensor

    def __init__(self, extractor: Extractor | ImageTower) -> None:
        super().__init__()
        self.__dict__["extractor"] = extractor  # an assignment would make it a part

    def _measure(self, maps: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Set `size`, the root mean square of each of the maps of a picture, soft and coloured, always the same."""
        noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = maps(resize(noise, scale=4).clamp(0, 1))
        self.register_buffer("size", torch.stack([x.square().mean().sqrt() for x in found]))
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        self.extractor._apply(fn)  # .to(), .cuda(), .double(): it goes along wherever the model goes
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest) -> None:
        saved = state_dict.get(prefix + "size", self.size).to(self.size)
        if saved.shape != self.size.shape or not torch.allclose(saved, self.size, rtol=1e-3):
            raise SRKitError("the checkpoint was trained on other frozen features: give it the same weights file")
        super()._load_from_state_dict(state_dict, prefix, *rest)


class FeatureMaps(Frozen):
    """A frozen network's feature maps of the input: its layers side by side, at the input's own size.

    Layers that pooling or stride have made smaller are enlarged back by bilinear interpolation. Each layer is
    divided by its root mean square on one fixed picture, for raw activations reach the hundreds, and whatever
    reads them would start far away from where it can learn.

    Args:
        name, layers, weights: of features.load_features.

    Raises:
        SRKitError: weights or packages that are missing, unknown names (all from features).
    """

    extractor: Extractor

    def __init__(self, name: str, layers: Sequence[str], weights: str) -> None:
        super().__init__(load_features(name, layers, weights))
        self.layers = list(layers)
        self.channels = sum(x.shape[1] for x in self._measure(self._maps))

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, channels, H, W)."""
        height, width = low.shape[-2:]
        even = F.pad(low, (0, width % 2, 0, height % 2), mode="replicate")  # so that halves double to the same size
        maps = [x / size for x, size in zip(self._maps(even), self.size, strict=True)]
        maps = [F.interpolate(x, even.shape[-2:], mode="bilinear", align_corners=False) for x in maps]
        return torch.cat(maps, 1)[..., :height, :width]

    def _maps(self, low: Tensor) -> list[Tensor]:
        found = self.extractor(low)
        return [found[layer] for layer in self.layers]


class Embedding(Frozen):
    """What CLIP's image tower says of the whole picture: 512 numbers, of a root mean square of 1 each time.

    Args:
        weights: of clip.ImageTower.

    Raises:
        SRKitError: what ImageTower raises.
    """

    def __init__(self, weights: str) -> None:
        super().__init__(ImageTower(weights))
        self.channels = self._measure(lambda low: [self.extractor(low)])[0].shape[1]

    def forward(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size, to (N, 512)."""
        return F.normalize(self.extractor(low), dim=1) * self.channels**0.5


def conv3_constant(conv: nn.Conv2d, x: Tensor, constant: Tensor) -> Tensor:
    """conv(torch.cat([x, constant in every pixel], 1)), without ever making those channels.

    A convolution adds up over its channels. What it makes of channels that are constant in space is the same in every
    pixel: the sum of the nine taps, one number per filter and picture, a bias. At an edge the taps that reach into the
    zeros of the padding are missing, and so there are nine such sums, which a plane of ones finds by itself.

    Args:
        conv: 3 x 3, padding 1, of C + K channels.
        x: (N, C, H, W).
        constant: (N, K), or (1, K) for all pictures.
    """
    varying, fixed = conv.weight.split([x.shape[1], constant.shape[1]], dim=1)
    taps = torch.einsum("ocij,nc->noij", fixed, constant.to(fixed.dtype))  # one 3 x 3 kernel per filter and picture
    ones = torch.ones_like(x[:1, :1], dtype=fixed.dtype)
    bias = F.conv2d(ones, taps.reshape(-1, 1, 3, 3), padding=1).reshape(len(constant), -1, *x.shape[-2:])
    return F.conv2d(x, varying, conv.bias, padding=1) + bias


BLOCKS: dict[str, type[nn.Module]] = {"plain": Plain, "residual": Residual, "dilated": Dilated}


class SuperResNet(nn.Module):
    """Convolutions at the input's size, then one output twice as large, and another twice as large again.

        low ─ conv3, ReLU ─ blocks ─┬─ x2 ─ conv1 ─ sigmoid ─ mid
              frozen ── merge ──────┘  └─ blocks between ─ x2 ─ conv1 ─ sigmoid ─ large

    Args:
        scale: 2 for the first output alone, 4 for both.
        block: what it is made of: "plain", "residual" or "dilated".
        channels: filters of every layer.
        blocks: how many blocks before the first enlargement.
        between: how many between the first and the second.
        features: a frozen network that it reads too; "" for none. Of "vgg16", or another of features.NETWORKS, feature
            maps are concatenated with the blocks' output and merged by conv1, ReLU; of "clip-vit" the embedding, 512
            numbers, is spread over the plane and merged by conv3, ReLU.
        feature_layers: which of its layers; none of "clip-vit".
        feature_weights: "imagenet", a file, or "random"; see features.load_features.
        skip: add the bilinear enlargement of the input to every output. The last convolutions then start at
            zero, so that training starts at bilinear, and the sigmoid is left out: what is to be added can be
            negative, which no sigmoid gives, and a sigmoid of the sum would not be bilinear any more.
        sigmoid: end in a sigmoid, as the workshop's do; without, nothing keeps the outputs in [0, 1].

    Attributes: `scale`, that of the largest output, and `scales`, of all: (2,) or (2, 4).

    Raises:
        SRKitError: another scale, an unknown block, counts below zero; what features.load_features raises.
    """

    def __init__(
        self,
        scale: int = 2,
        block: str = "plain",
        channels: int = 64,
        blocks: int = 1,
        between: int = 0,
        features: str = "",
        feature_layers: Sequence[str] = (),
        feature_weights: str = "imagenet",
        skip: bool = False,
        sigmoid: bool = True,
    ) -> None:
        super().__init__()
        if scale not in (2, 4):
            raise SRKitError(f"scale {scale}: a SuperResNet doubles once or twice: choose 2 (one output) or 4 (two)")
        if block not in BLOCKS:
            raise unknown("block", block, BLOCKS)
        if channels < 1 or min(blocks, between) < 0:
            counts = f"channels {channels}, blocks {blocks}, between {between}"
            raise SRKitError(f"{counts}: at least 1, 0 and 0 are needed")
        self.scale, self.scales = scale, (2,) if scale == 2 else (2, 4)
        self.skip, self.sigmoid = skip, sigmoid and not skip
        self.first = conv3(3, channels)
        self.blocks = nn.Sequential(*(BLOCKS[block](channels) for _ in range(blocks)))
        self.frozen = self.merge = None
        if features == "clip-vit":
            self.frozen = Embedding(feature_weights)
            self.merge = conv3(channels + self.frozen.channels, channels)
        elif features:
            self.frozen = FeatureMaps(features, feature_layers, feature_weights)
            self.merge = nn.Conv2d(channels + self.frozen.channels, channels, 1)
        self.mid = nn.Conv2d(channels, 3, 1)
        self.between = nn.Sequential(*(BLOCKS[block](channels) for _ in range(between if scale == 4 else 0)))
        self.large = nn.Conv2d(channels, 3, 1) if scale == 4 else None
        if skip:
            for conv in filter(None, (self.mid, self.large)):
                for parameter in conv.parameters():
                    nn.init.zeros_(parameter)

    def describe(self) -> str:
        """Which frozen network with which weights, for captions; empty without one."""
        return self.frozen.extractor.describe() if self.frozen else ""

    @property
    def embed(self) -> Embedding | None:
        """Low to the embedding that `forward` reads; None if it reads none."""
        return self.frozen if isinstance(self.frozen, Embedding) else None

    def forward(self, low: Tensor, embedding: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1], any size, to (N, 3, 2H, 2W); with scale 4 to a tuple: that, and (N, 3, 4H, 4W).

        `embedding`, (N, 512) or (1, 512), is what `embed` says of the whole picture where low is a tile of it.
        """
        x = self.blocks(F.relu(self.first(low)))
        if self.merge is not None and isinstance(self.frozen, Embedding):
            x = F.relu(conv3_constant(self.merge, x, self.frozen(low) if embedding is None else embedding))
        elif self.merge is not None and self.frozen is not None:
            x = F.relu(self.merge(torch.cat([x, self.frozen(low)], 1)))
        mid = self._picture(self.mid, x, low, 2)
        if self.large is None:
            return mid
        if self.between:
            x = self.between(double(x))
        return mid, self._picture(self.large, x, low, 4)

    def _picture(self, conv: nn.Conv2d, x: Tensor, low: Tensor, scale: int) -> Tensor:
        """One output: enlarge x to `scale` times low, then conv1, which here comes first.

        The two can change places: one mixes pixels, the other channels, and since the pixels' weights add up to 1
        the bias stays the same. So 3 channels are enlarged instead of 64. In bf16 the picture would lose
        its finest levels: from here on it is what low is, fp32.
        """
        output = conv(x).to(low.dtype)
        while output.shape[-1] < scale * low.shape[-1]:
            output = double(output)
        if self.skip:
            return output + resize(low, scale=scale, kernel="bilinear")
        return torch.sigmoid(output) if self.sigmoid else output
