"""Pictures ready for training: an ImageDataset cuts, flips and degrades batches where the pictures lie.

A textbook data loader opens, shrinks and crops every picture again in every epoch. An ImageDataset decodes each
picture once, keeps its bytes (a quarter of the floats) on the device, and makes a batch of (low, high) there by
batched tensor operations. Lesson 01 compares it with the textbook's three ways.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from srkit.data import sources
from srkit.data.degradation import Camera, PhotoDegradation
from srkit.data.images import crop_to_multiple, degrade, dimensions, from_uint8, read, square, to_uint8
from srkit.data.warping import Warp
from srkit.settings import SRKitError, free_memory, unknown

T = TypeVar("T")


class Batch(NamedTuple):
    """low (N, 3, h, w) and high (N, 3, scale * h, scale * w), float32 in [0, 1]."""

    low: Tensor
    high: Tensor


class ImageDataset:
    """Pictures as bytes, and batches cut from them; `dataset[i]` is (name, high).

    The bytes lie on the device if they take at most half of its free memory, else, for a GPU, pinned in the host's.

    Args:
        pictures: uint8 (3, H, W) each; the sizes may differ.
        names: one name per picture; numbers if not given.
        device: where batches are made.
        config: how `load_dataset` would make this data set again; empty for pictures of your own.
        warp: batches warp their pictures; `pairs`, `dataset[i]` and what measures show them unwarped, squared to the
            warp's size.
        degradation: how low is made of high; as the protocol does if not given.

    Attributes:
        names, device, config, warp, degradation: as above.
        pictures: uint8 (3, H, W) each, where they lie.
        bytes: how many they are.
        fingerprint: sha256 of all pixels and shapes, and warp and degradation in words: two data sets that train alike
            have the same.

    Raises:
        SRKitError: no pictures, or one that is not uint8 (3, H, W).
    """

    def __init__(
        self,
        pictures: Iterable[Tensor],
        names: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        config: dict[str, Any] | None = None,
        warp: Warp | None = None,
        degradation: PhotoDegradation | Camera | None = None,
    ) -> None:
        self.device, self.config = torch.device(device), dict(config or {})
        self.warp, self.degradation = warp, degradation
        self.pictures = list(pictures)
        self.names = [str(i) for i in range(len(self.pictures))] if names is None else list(names)
        if not self.pictures:
            raise SRKitError("a data set needs at least one picture")
        self.bytes, digest = sum(picture.numel() for picture in self.pictures), hashlib.sha256()
        for picture in self.pictures:
            if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
                raise SRKitError(f"a data set holds uint8 (3, H, W), not {picture.dtype} {tuple(picture.shape)}")
            digest.update(repr(tuple(picture.shape)).encode())
            digest.update(picture.cpu().contiguous().numpy().data)
        self.fingerprint = digest.hexdigest()
        if warp:  # a training with another warp is another training: it must not resume from this one's checkpoint
            self.fingerprint += f" warp {warp.strength:g} of {warp.size or 'crops'}"
        if degradation:
            self.fingerprint += f" {degradation}"
        if self.device.type != "cuda" or self.bytes <= free_memory(self.device) // 2:
            self.pictures = [picture.to(self.device).contiguous() for picture in self.pictures]
        else:  # only pinned memory is copied to a GPU while it computes
            self.pictures = [picture.cpu().contiguous().pin_memory() for picture in self.pictures]
        index = min(range(len(self)), key=lambda i: min(self.pictures[i].shape[1:]))
        self._narrowest = (self.names[index], *self.pictures[index].shape[1:])
        if warp and warp.size:
            self._narrowest = ("the view of a warp", warp.size, warp.size)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        """The name, and the whole picture, high, as float32 (3, H, W) in [0, 1] on the device."""
        high = from_uint8(self.pictures[index].to(self.device))
        if self.warp and self.warp.size:
            high = from_uint8(to_uint8(square(high, self.warp.size)))
        return self.names[index], high

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        sizes = sorted({(p.shape[-1], p.shape[-2]) for p in self.pictures})
        size = f"{sizes[0][0]} x {sizes[0][1]}" + (f" to {sizes[-1][0]} x {sizes[-1][1]}" if sizes[1:] else "")
        more = f", warp {self.warp.strength:g}" if self.warp else ""
        more += f", degraded as by {self.degradation}" if self.degradation else ""
        where = f"{self.bytes / 1e6:.1f} MB on {self.pictures[0].device}"
        return f"ImageDataset({len(self)} pictures, {size}, {where}{more})"

    def batch(
        self,
        step: int,
        batch_size: int,
        patch_size: int,
        scale: int,
        *,
        seed: int = 0,
        augment: bool = True,
        shard: slice = slice(None),
        warps: Tensor | None = None,
    ) -> Batch:
        """The training batch of one step: random patches, flipped and rotated, and their low.

        A function of (seed, step) alone, on every device: whoever resumes at step 1000 gets the batch
        that an uninterrupted run would have got. Each epoch shows each picture once, in a new order.

        Args:
            step: counted from 0.
            batch_size: patches in the batch.
            patch_size: side of high in pixels; must divide by `scale`.
            scale: 2, 3 or 4.
            seed: another seed, another order.
            augment: flip and rotate each patch at random, one of the eight ways.
            shard: which of the batch's patches to make; several processes share a batch so.
            warps: (batch_size,), how strongly each patch is warped, 0 to 1, in place of the data set's own warp.

        Raises:
            SRKitError: the patch is larger than a picture, or does not divide by the scale.
        """
        self._check_patch_size(patch_size, scale)
        pictures = [self.pictures[index] for index in self.indices(step, batch_size, seed)[shard]]
        # Whoever makes a shard draws what the others draw, and takes its own.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        where = torch.rand(batch_size, 2, generator=generator)[shard]
        ways = torch.randint(8, (batch_size,), generator=generator)[shard]
        if self.warp or warps is not None:
            noise = torch.rand(batch_size, 8, generator=generator)[shard]
            if warps is not None:
                noise = 0.5 + (noise - 0.5) * warps[shard, None]
            warp = Warp(1.0) if warps is not None else self.warp
            assert warp
            high = warp.patches(pictures, where, patch_size, noise, self.device)
        else:
            high = torch.stack([_cut(*pair, patch_size) for pair in zip(pictures, where.tolist(), strict=True)])
            high = high.to(self.device, non_blocking=True)
        if augment:
            high = _dihedral(high, ways.to(self.device, non_blocking=True))
        high = from_uint8(high)
        if shard.start:  # of several processes each has strengths of its own
            generator.manual_seed(seed * 1_000_003 + step + 999_983 * shard.start)
        return Batch(self.degraded(high, scale, generator), high)

    def degraded(self, high: Tensor, scale: int, generator: torch.Generator) -> Tensor:
        """low (N, 3, h, w) of high (N, 3, scale * h, scale * w), as this data set makes it; `generator` on the CPU."""
        return self.degradation(high, scale, generator) if self.degradation else degrade(high, scale)

    def pairs(self, scale: int, batch_size: int = 1) -> Iterator[Batch]:
        """Every whole picture once, in order, as batches of up to `batch_size` of equal shape: for validation.

        Each picture is cut to a multiple of `scale`.

        Raises:
            SRKitError: a picture is smaller than `scale`.
        """
        waiting: list[Batch] = []
        for number, (name, high) in enumerate(self):
            try:
                high = crop_to_multiple(high, scale)[None]
            except SRKitError as error:
                raise SRKitError(f"{name}: {error}") from None
            if waiting and (len(waiting) == batch_size or waiting[0].high.shape != high.shape):
                yield Batch(*map(torch.cat, zip(*waiting, strict=True)))
                waiting = []
            waiting.append(Batch(self.degraded(high, scale, torch.Generator().manual_seed(number)), high))
        yield Batch(*map(torch.cat, zip(*waiting, strict=True)))

    def indices(self, step: int, batch_size: int, seed: int = 0) -> list[int]:
        """Which pictures the batch of a step shows, by their index; arguments as in `batch`."""
        places = range(step * batch_size, (step + 1) * batch_size)
        return [_shuffled(len(self), seed, place // len(self))[place % len(self)] for place in places]

    def always_whole(self, patch_size: int) -> bool:
        """Whether batches of patches of this side show every picture whole, as long as nothing flips it."""
        return not self.warp and all(picture.shape[1:] == (patch_size, patch_size) for picture in self.pictures)

    def _check_patch_size(self, patch_size: int, scale: int) -> None:
        if patch_size % scale:
            nearest = patch_size - patch_size % scale
            raise SRKitError(f"a patch size of {patch_size} does not divide by scale {scale}: try {nearest}")
        name, height, width = self._narrowest
        if patch_size > min(height, width):
            where = f"{name} ({width} x {height})"
            raise SRKitError(f"a patch of {patch_size} does not fit into {where}: choose a smaller one")


def _cut(picture: Tensor, where: Sequence[float], patch_size: int) -> Tensor:
    """The patch that lies so far down and right in the picture, both in [0, 1)."""
    top = int(where[0] * (picture.shape[1] - patch_size + 1))
    left = int(where[1] * (picture.shape[2] - patch_size + 1))
    return picture[:, top : top + patch_size, left : left + patch_size]


@lru_cache(maxsize=8)
def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).tolist()


def _dihedral(pictures: Tensor, ways: Tensor) -> Tensor:
    """Turn each square picture one of eight ways: bit 1 flips it left-right, bit 2 up-down, bit 4 transposes."""
    for bit, turned in ((1, lambda x: x.flip(3)), (2, lambda x: x.flip(2)), (4, lambda x: x.transpose(2, 3))):
        chosen = (ways & bit).bool().view(-1, 1, 1, 1)
        pictures = torch.where(chosen, turned(pictures), pictures)
    return pictures


def load_dataset(
    source: str | Path,
    split: str = "train",
    *,
    size: int | None = None,
    train: int | None = None,
    val: int | None = None,
    test: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    warp: float | None = None,
    photo: float | None = None,
) -> ImageDataset:
    """Read one split of a data set or of a folder of your own into an ImageDataset.

    Args:
        source: a name that `srkit data` lists, or a folder.
        split: "train", "val" or "test", as `sources.split` deals them out; or "all".
        size: make every picture size x size: the shorter side is resized, the middle cut out. None
            keeps the pictures as they are, whatever their sizes. A picture with a shorter side would be
            enlarged, and its ground truth blurred: a line says which.
        train, val, test, seed: see `sources.split`.
        device: see `ImageDataset`.
        warp: strength, 0 to 1, with which batches warp their pictures, see `warping.Warp`. None does not.
        photo: strength, 0 to 1, with which low is spoilt as photographs are, see `degradation.PhotoDegradation`. None
            makes it as the protocol does.

    Raises:
        SRKitError: an unknown source or split, no pictures, more than the memory holds, a picture that cannot be read;
            of a folder's to train on or to validate on it is left out, and listed.
    """
    known = isinstance(source, str) and source in sources.SOURCES  # else a folder: one finds it from everywhere
    where = source if known else Path(source).expanduser().resolve()
    config: dict[str, Any] = {"source": str(where), "split": split, "size": size}
    config |= {"train": train, "val": val, "test": test, "seed": seed}
    if warp is not None:
        config["warp"] = warp
    if photo is not None:
        config["photo"] = photo
    if split == "all":
        paths = sources.pictures(source)
    elif split in sources.Split._fields:
        paths = getattr(sources.split(source, train, val, test, seed), split)
    else:
        raise unknown("split", split, (*sources.Split._fields, "all"))
    if not paths:
        raise SRKitError(f"{source} has no {split} pictures: ask for another split, or for 'all'")
    side = size if warp is None else None  # what warps keeps the pictures' own pixels
    # No measure is of fewer pictures than it says; of a folder's to learn from, some may be damaged.
    left_out: list[str] | None = None if known or split not in ("train", "val") else []
    asked = len(paths)
    paths, shapes = _readable(dimensions, paths, left_out)
    total, free = 3 * sum(side**2 if side else height * width for height, width in shapes), free_memory()
    if total > free:
        takes = f"{len(paths)} pictures take {total / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
        raise SRKitError(f"{source}: {takes}: ask for fewer, or for a smaller size")
    small = [path.name for path, shape in zip(paths, shapes, strict=True) if size and min(shape) < size]
    if small:
        shown = ", ".join(small[:3]) + (", …" if len(small) > 3 else "")
        print(
            f"{len(small)} of {len(paths)} pictures are smaller than {size} x {size} and enlarged, so that their "
            f"ground truth is blurred: {shown}: leave them out, or choose a smaller size"
        )

    def decode(path: Path) -> Tensor:
        picture = read(path)
        return to_uint8(square(picture, side) if side else picture)

    paths, decoded = _readable(decode, paths, left_out)
    if left_out:
        print(f"{len(left_out)} of {asked} {split} pictures cannot be read and are left out:")
        print(*sorted(left_out), sep="\n", flush=True)
    if not paths:
        raise SRKitError(f"{source}: none of its {split} pictures can be read")
    views = None if warp is None else Warp(warp, size)
    spoilt = None if photo is None else PhotoDegradation(photo)
    return ImageDataset(decoded, [path.stem for path in paths], device, config, views, spoilt)


def _readable(
    action: Callable[[Path], T], paths: Sequence[Path], left_out: list[str] | None
) -> tuple[list[Path], list[T]]:
    """The files that an action can read, and what it makes of them; what is wrong with the others goes into a list.

    Raises:
        SRKitError: one cannot be read, and there is no list.
    """

    def attempt(path: Path) -> T | None:
        try:
            return action(path)
        except SRKitError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
            return None

    with ThreadPoolExecutor() as pool:
        done = [(path, one) for path, one in zip(paths, pool.map(attempt, paths), strict=True) if one is not None]
    return [path for path, _ in done], [one for _, one in done]
