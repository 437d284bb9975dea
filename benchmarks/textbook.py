"""The textbook's way, against which srkit is measured: what a good student writes with no thought of speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from srkit import sources

SIDE, SCALE = 240, 2


class JpegFolder(Dataset):
    """As a good student writes it: open, resize the shorter side, cut the middle, shrink, to tensors."""

    def __init__(self, folder: Path, length: int, side: int = SIDE, scale: int = SCALE) -> None:
        self.paths, self.length, self.side, self.scale = sorted(folder.glob("*.jpg")), length, side, scale

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture = Image.open(self.paths[index % len(self.paths)]).convert("RGB")
        side, small = self.side, self.side // self.scale
        factor = side / min(picture.size)
        picture = picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.BICUBIC)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        high = picture.crop((left, top, left + side, top + side))
        low = high.resize((small, small), Image.BICUBIC)
        return tuple(torch.from_numpy(np.asarray(x).copy()).permute(2, 0, 1).float() / 255 for x in (low, high))


class TextbookSRCNN(nn.Module):
    """The exercise's network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 9, padding=4)
        self.conv2 = nn.Conv2d(64, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 3, 5, padding=2)

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(low, scale_factor=SCALE, mode="bilinear", align_corners=False)
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


def loader(folder: Path, batch_size: int, steps: int, device: str, side: int = SIDE, scale: int = SCALE) -> DataLoader:
    """The usual loader: two workers, shuffled."""
    data = JpegFolder(folder, steps * batch_size, side, scale)
    return DataLoader(data, batch_size, shuffle=True, num_workers=2, pin_memory=device == "cuda")


def make_folder(folder: Path, files: int = 48) -> None:
    """JPEG files of Pascal VOC's size, 500 x 375, cut out of the bundled photographs."""
    dice = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in sources.pictures("bundled")]
    pictures = [picture for picture in pictures if picture.width >= 500 and picture.height >= 375]
    for number in range(files):
        picture = pictures[number % len(pictures)]
        left, top = (int(dice.integers(0, room + 1)) for room in (picture.width - 500, picture.height - 375))
        picture.crop((left, top, left + 500, top + 375)).save(folder / f"{number:03}.jpg", quality=90)


def srcnn_flops() -> float:
    """Arithmetic of one step on one picture, worked out by hand: forward, and twice that backward.

    The first layer needs no gradient for its input.
    """
    layers = [9 * 9 * 3 * 64, 5 * 5 * 64 * 32, 5 * 5 * 32 * 3]
    return 2.0 * SIDE**2 * (3 * sum(layers) - layers[0])
