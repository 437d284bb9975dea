"""What srkit is measured against: data sets and training loops as one writes them oneself.

*The textbook* is what tutorials show: Pillow in DataLoader workers, fp32, a pretrained network in eval mode but with
its gradients left on, the loss asked for at every step. *An experienced student* writes the same loop with the feature
network frozen, the ground truth's features under no_grad, channels_last, bf16 where the device computes it, and the
loss left on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from srkit.data import pictures
from srkit.settings import choose_precision

SIDE, SCALE = 240, 2
BICUBIC = Image.Resampling.BICUBIC
VGG16 = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22}  # places in torchvision's vgg16().features
VGG19 = {"relu2_2": 8}  # places in torchvision's vgg19().features
WEIGHT = 0.02  # of each layer in the loss
ADVERSARIAL = 1e-3

Pairs = Iterator[tuple[Tensor, Tensor]]

# ---------------------------------------------------------------------------------- pictures


def open_square(path: Path, side: int) -> Image.Image:
    """A picture file's middle, its shorter side resized to `side`."""
    picture = Image.open(path).convert("RGB")
    factor = side / min(picture.size)
    picture = picture.resize((round(picture.width * factor), round(picture.height * factor)), BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def to_tensor(picture: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def save_pairs(paths: Sequence[Path], folder: Path, side: int = SIDE, scale: int = SCALE) -> None:
    """Write folder/high and folder/low, once, for `SavedPairs`."""
    for name in ("high", "low"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in paths:
        high = open_square(path, side)
        high.save(folder / "high" / f"{path.stem}.png")
        high.resize((side // scale, side // scale), BICUBIC).save(folder / "low" / f"{path.stem}.png")


@dataclass
class SavedPairs(Dataset):
    """Textbook way 1: both sizes lie on disk; an item opens two files and computes nothing."""

    names: Sequence[str]
    folder: Path

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        low, high = (Image.open(self.folder / size / f"{self.names[index]}.png") for size in ("low", "high"))
        return to_tensor(low), to_tensor(high)


@dataclass
class HighPictures(Dataset):
    """Textbook way 2: an item is high alone; the loop makes low from the whole batch, see `with_low`."""

    paths: Sequence[Path]
    side: int = SIDE

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, Tensor]:
        return to_tensor(open_square(self.paths[index], self.side))


def with_low(highs: Iterator[Tensor], scale: int = SCALE) -> Pairs:
    """Batches (low, high) from batches of high."""
    for high in highs:
        yield F.interpolate(high, scale_factor=1 / scale, mode="bicubic", antialias=True), high


@dataclass
class PairedPictures(HighPictures):
    """Textbook way 3, the usual one: an item is the pair (low, high), made anew whenever asked for."""

    scale: int = SCALE

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        high = open_square(self.paths[index], self.side)
        low = high.resize((self.side // self.scale, self.side // self.scale), BICUBIC)
        return to_tensor(low), to_tensor(high)


def load(dataset: Dataset, batch_size: int, device: str) -> Iterator:
    """Batches without end from the usual loader: two workers, shuffled; on the device."""
    pinned = device == "cuda"
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=2, pin_memory=pinned, persistent_workers=True)
    while True:
        for batch in loader:
            yield batch.to(device) if isinstance(batch, Tensor) else [part.to(device) for part in batch]


def make_folder(folder: Path, files: int = 48) -> None:
    """JPEG files of Pascal VOC's size, 500 x 375, cut out of the bundled photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    photographs = [Image.open(path).convert("RGB") for path in pictures("bundled")]
    photographs = [picture for picture in photographs if picture.width >= 500 and picture.height >= 375]
    for number in range(files):
        picture = photographs[number % len(photographs)]
        left, top = (int(generator.integers(0, room + 1)) for room in (picture.width - 500, picture.height - 375))
        picture.crop((left, top, left + 500, top + 375)).save(folder / f"{number:03}.jpg", quality=90)


def files_of(folder: Path, length: int = 4800) -> list[Path]:
    """The folder's JPEG files, each so often that an epoch is as long as that of a real set."""
    paths = sorted(folder.glob("*.jpg"))
    return paths * max(1, length // len(paths))


# ---------------------------------------------------------------------------------- training


class TextbookSRCNN(nn.Module):
    """The exercise's network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 9, padding=4)
        self.conv2 = nn.Conv2d(64, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 3, 5, padding=2)

    def forward(self, low: Tensor) -> Tensor:
        x = F.interpolate(low, scale_factor=SCALE, mode="bilinear", align_corners=False)
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


class Author:
    """Who writes a training loop: the textbook's author or, if experienced, a student who has written several."""

    def __init__(self, experienced: bool, device: str) -> None:
        self.experienced, self.device = experienced, device
        self.bf16 = experienced and choose_precision("auto", torch.device(device)) == "bf16"

    def network(self, network: nn.Module) -> nn.Module:
        """A network on the device."""
        network = network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.experienced else network

    def frozen(self, network: nn.Module) -> nn.Module:
        """A network that is not trained: the textbook's author thinks that eval() says so."""
        return self.network(network).eval().requires_grad_(not self.experienced)

    def autocast(self) -> AbstractContextManager:
        """The precision of a forward pass."""
        return torch.autocast(self.device, torch.bfloat16) if self.bf16 else nullcontext()

    def ground_truth(self) -> AbstractContextManager:
        """Within it features of the ground truth are computed."""
        return torch.no_grad() if self.experienced else nullcontext()

    def report(self, loss: Tensor) -> Tensor | float:
        """What a step says of its loss."""
        return loss.detach() if self.experienced else loss.item()

    def mse(self, batches: Pairs) -> Iterator:
        """Train the exercise's network on the MSE, a step at a time."""
        model = self.network(TextbookSRCNN())
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for low, high in batches:
            optimizer.zero_grad()
            with self.autocast():
                loss = F.mse_loss(model(low), high)
            loss.backward()
            optimizer.step()
            yield self.report(loss)

    def perceptual(self, batches: Pairs) -> Iterator:
        """Train it on the MSE and on VGG-16's features; random weights cost what trained ones cost."""
        from torchvision.models import vgg16

        model, vgg = self.network(TextbookSRCNN()), Features(self.frozen(vgg16(weights=None).features), VGG16)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for low, high in batches:
            with self.autocast():
                output = model(low)
                with self.ground_truth():
                    wanted = vgg(high)
                loss = F.mse_loss(output, high)
                for mine, theirs in zip(vgg(output), wanted, strict=True):
                    loss = loss + WEIGHT * F.mse_loss(mine, theirs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield self.report(loss)

    def gan(self, batches: Pairs, generator: nn.Module, discriminator: nn.Module) -> Iterator:
        """Train a generator on the MSE, VGG-19's relu2_2 and a discriminator, which is trained in turn."""
        from torchvision.models import vgg19

        generator, discriminator = self.network(generator), self.network(discriminator)
        vgg = Features(self.frozen(vgg19(weights=None).features), VGG19)
        optimizers = [torch.optim.Adam(network.parameters(), lr=1e-4) for network in (generator, discriminator)]

        def taken_for(pictures: Tensor, label: float) -> Tensor:
            logits = discriminator(pictures)
            return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

        for low, high in batches:
            with self.autocast():
                output = generator(low)
                discriminator_loss = taken_for(high, 1.0) + taken_for(output.detach(), 0.0)
            optimizers[1].zero_grad()
            discriminator_loss.backward()
            optimizers[1].step()

            if self.experienced:  # the generator's step needs no gradients for the discriminator's weights
                discriminator.requires_grad_(False)
            with self.autocast():
                with self.ground_truth():
                    wanted = vgg(high)
                content = sum(F.mse_loss(a, b) for a, b in zip(vgg(output), wanted, strict=True))
                loss = F.mse_loss(output, high) + WEIGHT * content + ADVERSARIAL * taken_for(output, 1.0)
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()
            discriminator.requires_grad_(True)
            yield self.report(loss + discriminator_loss)


class Features:
    """Some of the feature maps of a stack of layers, for pictures in [0, 1]."""

    def __init__(self, stack: nn.Module, layers: dict[str, int]) -> None:
        self.stack, self.places = stack, layers.values()
        device = next(stack.parameters()).device
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
        self.std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def __call__(self, x: Tensor) -> list[Tensor]:
        x, found = (x - self.mean) / self.std, []
        for place, layer in enumerate(self.stack.children()):
            x = layer(x)
            if place in self.places:
                found.append(x)
            if place == max(self.places):
                break
        return found
