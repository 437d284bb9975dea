"""Pictures ready for training: a Bank cuts, flips and degrades batches where the pictures lie.

A textbook data loader opens, shrinks and crops every picture again in every epoch. A Bank decodes each
picture once, keeps its bytes (a quarter of the floats) on the device, and makes a batch of (low, high)
there by batched tensor operations. The three textbook ways stand at the end of this file, to be
compared with it in lesson 01.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from srkit import sources
from srkit.errors import SRKitError, unknown
from srkit.images import crop_to_multiple, degrade, dimensions, from_uint8, read, resize, to_uint8, write

PLACES = ("auto", "device", "host", "disk")


class Batch(NamedTuple):
    """low (N, 3, h, w) and high (N, 3, scale * h, scale * w), float32 in [0, 1]."""

    low: Tensor
    high: Tensor


class Bank:
    """Pictures as bytes, and batches cut from them; `bank[i]` is (name, picture).

    Args:
        pictures: uint8 (3, H, W) each; the sizes may differ.
        names: one name per picture; numbers if not given.
        device: where batches are made.
        place: where the bytes lie. "device"; "host", pinned in memory for a GPU; "disk", a temporary file
            mapped into memory, filled picture by picture; or "auto", the first of these with room: a
            bank takes at most half of the memory that is free.
        recipe: how `open_bank` would make this bank again; empty for pictures of your own.

    Raises:
        SRKitError: no pictures, or one that is not uint8 (3, H, W), or an unknown place.
    """

    def __init__(
        self,
        pictures: Iterable[Tensor],
        names: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        place: str = "auto",
        recipe: dict[str, Any] | None = None,
    ) -> None:
        self.device, self.recipe = torch.device(device), dict(recipe or {})
        if place not in PLACES:
            raise unknown("place", place, PLACES)
        if place == "auto":
            pictures = list(pictures)
            place = choose_place(sum(picture.numel() for picture in pictures), self.device)
        self.place = place
        # One long row of bytes holds every picture, whatever its size: it moves and maps as a whole.
        row, shapes, self.fingerprint = self._fill(pictures)
        self.bytes = row.numel()
        self.names = list(names) if names is not None else [str(i) for i in range(len(shapes))]
        self.pictures, start = [], 0
        for shape in shapes:
            self.pictures.append(row[start : start + shape.numel()].view(shape))
            start += shape.numel()
        self._narrowest = min(range(len(self)), key=lambda i: min(shapes[i][1:]))

    def _fill(self, pictures: Iterable[Tensor]) -> tuple[Tensor, list[torch.Size], str]:
        """The row of bytes in its place, each picture's shape, and the sha256 of all of it."""
        digest, shapes, parts = hashlib.sha256(), [], []
        if self.place == "disk":
            self._folder = tempfile.TemporaryDirectory(prefix="srkit-bank-", ignore_cleanup_errors=True)
            path = Path(self._folder.name) / "pictures"
        with path.open("wb") if self.place == "disk" else nullcontext() as file:
            for picture in pictures:
                if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
                    raise SRKitError(f"a bank holds uint8 (3, H, W), not {picture.dtype} {tuple(picture.shape)}")
                array = picture.cpu().contiguous().numpy()
                digest.update(repr(tuple(picture.shape)).encode())
                digest.update(array.data)
                shapes.append(picture.shape)
                if file:
                    file.write(array.data)
                else:
                    parts.append(picture.reshape(-1))
        if not shapes:
            raise SRKitError("a bank needs at least one picture")
        if self.place == "disk":
            count = sum(shape.numel() for shape in shapes)
            row = torch.from_file(str(path), shared=True, size=count, dtype=torch.uint8)
        else:
            row = torch.cat(parts)
            if self.place == "device":
                row = row.to(self.device)
            elif self.device.type == "cuda":
                row = row.pin_memory()  # only pinned memory is copied to a GPU while it computes
        return row, shapes, digest.hexdigest()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        """The name, and the whole picture as float32 (3, H, W) in [0, 1] on the device."""
        return self.names[index], from_uint8(self.pictures[index].to(self.device))

    def __repr__(self) -> str:
        sizes = sorted({(p.shape[-1], p.shape[-2]) for p in self.pictures})
        size = f"{sizes[0][0]} x {sizes[0][1]}" + (f" to {sizes[-1][0]} x {sizes[-1][1]}" if sizes[1:] else "")
        return f"Bank({len(self)} pictures, {size}, {self.bytes / 1e6:.1f} MB on {self.place} for {self.device})"

    def batch(
        self,
        step: int,
        size: int,
        crop: int,
        scale: int,
        *,
        seed: int = 0,
        augment: bool = True,
        centre: bool = False,
        part: slice = slice(None),
    ) -> Batch:
        """The training batch of one step: random crops, flipped and rotated, and their low.

        A function of (seed, step) alone, on every device: whoever resumes at step 1000 gets the batch
        that an uninterrupted run would have got. Each epoch shows each picture once, in a new order.

        Args:
            step: counted from 0.
            size: crops in the batch.
            crop: side of high in pixels; must divide by `scale`.
            scale: 2, 3 or 4.
            seed: another seed, another order.
            augment: flip and rotate each crop at random, one of the eight ways.
            centre: cut the middle of each picture instead of a random place.
            part: which of the batch's crops to make; several processes share a batch so.

        Raises:
            SRKitError: the crop is larger than a picture, or does not divide by the scale.
        """
        if crop % scale:
            raise SRKitError(f"a crop of {crop} does not divide by scale {scale}: try {crop - crop % scale}")
        self._check_room(crop)
        chosen = self.chosen(step, size, seed)[part]
        dice = torch.Generator().manual_seed(seed * 1_000_003 + step)
        where = torch.rand(size, 2, generator=dice)
        where = torch.full_like(where, 0.5) if centre else where
        ways = torch.randint(8, (size,), generator=dice)[part]
        high = self._crops(chosen, where, part, crop, dice)
        if augment:
            high = _dihedral(high, ways.to(self.device, non_blocking=True))
        high = from_uint8(high)
        return Batch(degrade(high, scale), high)

    def _crops(self, chosen: Sequence[int], where: Tensor, part: slice, crop: int, dice: torch.Generator) -> Tensor:
        """High before it is flipped: uint8 (N, 3, crop, crop), of the chosen pictures, on the device.

        A bank that shows its pictures otherwise replaces this. `where`, (size, 2) in [0, 1), is of the whole batch, and
        so must be whatever is drawn from `dice`: whoever makes a part draws what the others draw.
        """
        crops = []
        for index, (down, right) in zip(chosen, where[part].tolist(), strict=True):
            picture = self.pictures[index]
            top = int(down * (picture.shape[1] - crop + 1))
            left = int(right * (picture.shape[2] - crop + 1))
            crops.append(picture[:, top : top + crop, left : left + crop])
        return torch.stack(crops).to(self.device, non_blocking=True)

    def pairs(self, scale: int, size: int = 1) -> Iterator[Batch]:
        """Every whole picture once, in order, as batches of up to `size` of equal shape: for validation.

        Each picture is cut to a multiple of `scale`.
        """
        waiting: list[Tensor] = []
        for _, picture in self:
            picture = crop_to_multiple(picture, scale)
            if waiting and (len(waiting) == size or waiting[0].shape != picture.shape):
                high = torch.stack(waiting)
                yield Batch(degrade(high, scale), high)
                waiting = []
            waiting.append(picture)
        high = torch.stack(waiting)
        yield Batch(degrade(high, scale), high)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return (self[index] for index in range(len(self)))

    def chosen(self, step: int, size: int, seed: int = 0) -> list[int]:
        """Which pictures the batch of a step shows, by their index; arguments as in `batch`."""
        places = range(step * size, (step + 1) * size)
        return [_shuffled(len(self), seed, place // len(self))[place % len(self)] for place in places]

    def shows_alike(self, crop: int) -> bool:
        """Whether batches with crops of this side, in pixels, show every picture whole, as long as nothing flips it."""
        whole = all(picture.shape[1:] == (crop, crop) for picture in self.pictures)
        return whole and type(self)._crops is Bank._crops  # a bank with crops of its own may show it in any way

    def _check_room(self, crop: int) -> None:
        height, width = self.pictures[self._narrowest].shape[1:]
        if crop > min(height, width):
            name = self.names[self._narrowest]
            raise SRKitError(f"a crop of {crop} does not fit into {name} ({width} x {height}): choose a smaller crop")


@lru_cache(maxsize=8)
def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    dice = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=dice).tolist()


def _dihedral(pictures: Tensor, ways: Tensor) -> Tensor:
    """Turn each square picture one of eight ways: bit 1 flips it left-right, bit 2 up-down, bit 4 transposes."""
    for bit, turned in ((1, lambda x: x.flip(3)), (2, lambda x: x.flip(2)), (4, lambda x: x.transpose(2, 3))):
        chosen = (ways & bit).bool().view(-1, 1, 1, 1)
        pictures = torch.where(chosen, turned(pictures), pictures)
    return pictures


def choose_place(size: int, device: torch.device) -> str:
    """Where `size` bytes should lie for a device: the first of "device", "host" and "disk" with room."""
    if device.type == "cuda":
        if size <= torch.cuda.mem_get_info(device)[0] // 2:
            return "device"
        return "host" if size <= _free_memory() // 2 else "disk"
    return "device" if size <= _free_memory() // 2 else "disk"


def _free_memory() -> int:
    import psutil

    return psutil.virtual_memory().available


# ---------------------------------------------------------------------------------- from files


def open_bank(
    source: str | Path,
    part: str = "train",
    *,
    size: int | None = None,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    seed: int = 0,
    mirror: str | Path | None = None,
    device: torch.device | str = "cpu",
    place: str = "auto",
    warp: float | None = None,
) -> Bank:
    """Read one part of a data set or of a folder of your own into a Bank.

    Args:
        source: a name that `srkit data` lists, or a folder.
        part: "train", "val" or "test", as `sources.split` deals them out; or "all".
        size: make every picture size x size: the shorter side is resized, the middle cut out. None
            keeps the pictures as they are, whatever their sizes. A picture with a shorter side would be
            enlarged, and its truth blurred: a line says which.
        train, val, test, seed, mirror: see `sources.split`.
        device, place: see `Bank`.
        warp: strength, 0 to 1, with which batches warp their pictures: a `warping.WarpingBank`. None does not.

    Raises:
        SRKitError: an unknown source or part, no pictures, a picture that cannot be read.
    """
    if part == "all":
        paths = sources.pictures(source, mirror=mirror)
    else:
        split = sources.split(source, train=train, val=val, test=test, seed=seed, mirror=mirror)
        if part not in ("train", "val", "test"):
            raise unknown("part", part, ["train", "val", "test", "all"])
        paths = getattr(split, part)
    if not paths:
        few = " (of fewer than 3 pictures all are for training)" if part != "all" and 0 < len(split.train) < 3 else ""
        raise SRKitError(f"{source} has no {part} pictures{few}: ask for another part, or for part 'all'")
    recipe = {"source": str(source), "part": part, "size": size, "train": train, "val": val, "test": test, "seed": seed}
    whole = size is None or warp is not None  # what warps keeps the pictures' own pixels
    if place == "auto":
        count = sum(math.prod(dimensions(path)) if whole else size * size for path in paths)
        place = choose_place(3 * count, torch.device(device))
    small: dict[Path, str] = {}

    def decode(path: Path) -> Tensor:
        picture = read(path)
        height, width = picture.shape[1:]
        if size and min(height, width) < size:
            small[path] = f"{path.name} ({width} x {height})"
        return to_uint8(picture if whole else square(picture, size))

    with ThreadPoolExecutor() as pool:
        decoded, names = pool.map(decode, paths), [path.stem for path in paths]
        if warp is None:
            bank = Bank(decoded, names, device, place, recipe)
        else:
            from srkit.warping import WarpingBank  # which stands on this file

            bank = WarpingBank(decoded, names, device, place, {**recipe, "warp": warp}, size=size, strength=warp)
    if small:
        shown = ", ".join([small[path] for path in paths if path in small][:3]) + (", …" if len(small) > 3 else "")
        print(
            f"{len(small)} of {len(paths)} pictures are smaller than {size} x {size} and enlarged, so that their truth "
            f"is blurred: {shown}: leave them out, or choose a smaller size"
        )
    return bank


def square(picture: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` (antialiased bicubic), then cut the middle size x size."""
    height, width = picture.shape[-2:]
    factor = size / min(height, width)
    height, width = max(size, round(height * factor)), max(size, round(width * factor))
    picture = resize(picture, (height, width)).clamp(0, 1)
    top, left = (height - size) // 2, (width - size) // 2
    return picture[..., top : top + size, left : left + size]


# ---------------------------------------------------------------------------------- the textbook ways


def save_sizes(paths: Sequence[Path], folder: str | Path, size: int, scale: int) -> Path:
    """Textbook way 1, done once: write folder/high and folder/low as PNG files of size and size / scale."""
    folder = Path(folder)
    for path in paths:
        high = square(read(path), size)
        write(high, folder / "high" / f"{path.stem}.png")
        write(degrade(high, scale), folder / "low" / f"{path.stem}.png")
    return folder


class SavedPairs(Dataset):
    """Textbook way 1: both sizes lie on disk; an item opens two files and computes nothing."""

    def __init__(self, folder: str | Path) -> None:
        self.high = sorted((Path(folder) / "high").glob("*.png"))
        self.low = sorted((Path(folder) / "low").glob("*.png"))

    def __len__(self) -> int:
        return len(self.high)

    def __getitem__(self, index: int) -> Batch:
        return Batch(read(self.low[index]), read(self.high[index]))


class HighPictures(Dataset):
    """Textbook way 2: an item is high alone; the training loop makes low from the whole batch on the fly."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = list(paths), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return square(read(self.paths[index]), self.size)


class PairedPictures(Dataset):
    """Textbook way 3: an item is the pair (low, high), made anew whenever asked for. The usual way."""

    def __init__(self, paths: Sequence[Path], size: int, scale: int) -> None:
        self.paths, self.size, self.scale = list(paths), size, scale

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        high = square(read(self.paths[index]), self.size)
        return Batch(degrade(high, self.scale), high)
