"""Pictures seen at a slant: a bank whose crops are warped views of whole pictures, for small sets of one's own.

A few hundred pictures are soon known by heart. A `WarpingBank` never shows one twice in the same way: each crop sees
it turned, stretched, slanted and in perspective.

Warp, crop and resize are one map. Whoever warps first and shrinks afterwards interpolates twice, and the network learns
the blur; whoever warps low and high apart teaches it a degradation that does not exist. Here high is sampled once, from
the file's own pixels, and low is made from it as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srkit.banks import Bank, square
from srkit.errors import SRKitError
from srkit.images import from_uint8, resize, to_uint8

ANGLE, SHEAR, STRETCH, ZOOM, SLANT = math.pi / 4, 0.3, 1.2, 1.5, 0.15  # the most that strength 1 does
RIM = 2  # pixels that bicubic shrinking looks beyond the pixel that it makes


class WarpingBank(Bank):
    """A Bank that keeps pictures whole and warps each crop: an affine map and a homography, drawn anew each time.

    The view of a picture is a square, turned by up to 45°, sheared by 0.3, stretched by 1.2, zoomed by 1.5 and slanted
    so that its far side is up to 1.35 times as long as its near one; all of it times `strength`. It never reaches
    outside of the picture, so that nothing is made up. Nor does it enlarge, as far as the picture has the pixels: at
    strength 0.5 that takes a shorter side of 1.7 times `size`, at 1 of 2.5 times. Of smaller pictures the truth is
    partly blurred.

    A batch remains a function of (seed, step), and `part` of it is that part. High is rounded to 8 bits: it is what a
    file of this view would hold, as is the truth that one measures against. `bank[i]`, `pairs` and `metrics.evaluate`
    see the pictures unwarped, as the Bank of this `size` holds them.

    Args:
        pictures, names, device, place, recipe: as `Bank`; the pictures whole.
        size: the view shows a whole picture, its shorter side as this many pixels, and crops are cut from the view.
            None: the view is the crop, anywhere in the picture, at the picture's own resolution.
        strength: 0 shows what the Bank of this size shows; 1 is strong.

    Raises:
        SRKitError: a strength that is not from 0 to 1; what `Bank` raises.
    """

    def __init__(
        self,
        pictures: Iterable[Tensor],
        names: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        place: str = "auto",
        recipe: dict[str, Any] | None = None,
        *,
        size: int | None = None,
        strength: float = 0.5,
    ) -> None:
        if not 0 <= strength <= 1:
            raise SRKitError(f"a warp of {strength}: its strength lies from 0 (none) to 1 (strong), e.g. 0.5")
        super().__init__(pictures, names, device, place, recipe)
        self.size, self.strength = size, strength
        # A training with another warp is another training: it must not go on from this one's checkpoint.
        self.fingerprint = f"{self.fingerprint} warp {strength:g} of {size or 'crops'}"

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        """The name, and the picture as the Bank of this size holds it: float32 (3, H, W) in [0, 1] on the device."""
        name, picture = super().__getitem__(index)
        return name, from_uint8(to_uint8(square(picture, self.size))) if self.size else picture

    def __repr__(self) -> str:
        return f"Warping{super().__repr__()[:-1]}, warp {self.strength:g})"

    def _check_room(self, crop: int) -> None:
        if self.size is None:
            super()._check_room(crop)
        elif crop > self.size:
            raise SRKitError(f"a crop of {crop} does not fit into a view of {self.size}: choose a smaller crop")

    def _crops(self, chosen: Sequence[int], where: Tensor, part: slice, crop: int, dice: torch.Generator) -> Tensor:
        luck = torch.rand(len(where), 8, generator=dice)[part].double()
        pictures = [self.pictures[index] for index in chosen]
        sizes = torch.tensor([picture.shape[:0:-1] for picture in pictures], dtype=torch.float64)
        maps = views(sizes, crop, self.size, self.strength, where[part].flip(1).double(), luck)
        return torch.stack([see(*pair, crop, self.device) for pair in zip(pictures, maps, strict=True)])


def see(picture: Tensor, view: Tensor, crop: int, device: torch.device | str = "cpu") -> Tensor:
    """What a map shows of a picture, sampled once and antialiased: uint8 (3, crop, crop) on the device.

    Args:
        picture: uint8 (3, H, W).
        view: a map of `views`, (3, 3) in double precision on the CPU.
    """
    # With a rim of as many pixels as shrinking looks beyond the crop: what lies there counts as in the whole picture.
    whole = crop + 2 * RIM
    view = view @ _matrices(whole / crop, view.new_zeros(1, 2))[0]
    points, stretch = _corners(view)
    # Only the part that is seen is moved and made floats: a small crop of a large picture is cheap.
    left, top = (max(0, math.floor(least) - 3) for least in points.amin(0).tolist())
    right, bottom = (math.ceil(most) + 3 for most in points.amax(0).tolist())
    seen = from_uint8(picture[:, top:bottom, left:right].to(device, non_blocking=True))
    height, width = seen.shape[1:]
    normalised = view.new_tensor(
        [[2 / width, 0, -2 * left / width - 1], [0, 2 / height, -2 * top / height - 1], [0, 0, 1]]
    )
    # As many samples as the map passes over pixels, so that each of them counts, as in an antialiased resize.
    dense = whole * max(1, math.ceil(float(stretch.max()) / (whole / 2) - 1e-6))
    at = (torch.arange(dense, device=device) + 0.5) * (2 / dense) - 1
    v, u = torch.meshgrid(at, at, indexing="ij")
    samples = torch.stack((u, v, torch.ones_like(u)), -1) @ (normalised @ view).T.to(device, torch.float32)
    grid = samples[..., :2] / samples[..., 2:]
    seen = F.grid_sample(seen[None], grid[None], mode="bicubic", padding_mode="reflection", align_corners=False)
    return to_uint8(resize(seen, (whole, whole)) if dense > whole else seen)[0, :, RIM:-RIM, RIM:-RIM]


def views(sizes: Tensor, crop: int, size: int | None, strength: float, where: Tensor, luck: Tensor) -> Tensor:
    """The maps from crops to pictures: for each a 3 x 3 matrix of homogeneous coordinates.

    It takes (u, v, 1), u and v from -1 to 1 across and down the crop, to w (x, y, 1), x and y in pixels from the
    picture's left and upper edge. It is a product of three: from the crop to the view, from the view to a slanted one
    in pixels, and from there to its place in the picture.

    Args:
        sizes: width and height of each picture, (N, 2); this and what follows in double precision.
        crop, size, strength: see `WarpingBank`.
        where: (N, 2) in [0, 1), how far right and down the crop lies in the view; without a size, in the picture.
        luck: (N, 8) in [0, 1), of which 0.5 is no warp.

    Returns:
        (N, 3, 3).
    """
    side = size or crop
    shrink = sizes.amin(1) / size if size else sizes.new_ones(len(sizes))  # pixels of the picture for one of the view
    slanted = _homographies(2 * luck[:, :6] - 1, strength)
    slanted[:, :2] *= (shrink * side / 2).view(-1, 1, 1)
    # So small that the picture holds it, and so large that no pixel is enlarged, if the picture holds that.
    points, stretch = _corners(slanted)
    fits = (sizes / (points.amax(1) - points.amin(1))).amin(1)
    sharp = side / 2 / stretch.amin((1, 2))
    slanted[:, :2] *= torch.minimum(fits, torch.maximum(fits.clamp(max=1), sharp)).view(-1, 1, 1)
    # Anywhere in the picture where it fits. A view that is not slanted begins at a whole pixel, and loses nothing.
    points, _ = _corners(slanted)
    first, last = -points.amin(1), sizes - points.amax(1)
    place, freedom = (luck[:, 6:], strength) if size else (where, 1.0)
    centre = (1 - freedom) * (sizes / 2).clamp(first, last) + freedom * (first + place * (last - first))
    half = (shrink * side / 2).view(-1, 1)
    centre = ((centre - half).floor() + half).clamp(first, last)
    offset = (where * (side - crop + 1)).floor() if size else torch.zeros_like(where)
    return _matrices(1, centre) @ slanted @ _matrices(crop / side, (crop + 2 * offset) / side - 1)


def _homographies(luck: Tensor, strength: float) -> Tensor:
    """Maps of the square from -1 to 1: turned, sheared, stretched, zoomed, slanted; luck is (N, 6) in [-1, 1)."""
    angle, shear, stretch, zoom, *slant = (luck * strength).T
    cos, sin, zero, one = (angle * ANGLE).cos(), (angle * ANGLE).sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turned = torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2)
    sheared = torch.stack((one, SHEAR * shear, zero, one), 1).view(-1, 2, 2)
    stretched = torch.stack((STRETCH ** (stretch / 2), STRETCH ** (-stretch / 2)), 1).unsqueeze(1)
    maps = torch.zeros(len(luck), 3, 3, dtype=luck.dtype)
    maps[:, :2, :2] = turned @ sheared * stretched * (ZOOM**zoom).view(-1, 1, 1)
    maps[:, 2] = torch.stack((SLANT * slant[0], SLANT * slant[1], one), 1)
    return maps


def _matrices(factor: float, shift: Tensor) -> Tensor:
    """The maps p -> factor p + shift, for shifts (N, 2)."""
    maps = torch.diag(shift.new_tensor([factor, factor, 1])).repeat(len(shift), 1, 1)
    maps[:, :2, 2] = shift
    return maps


def _corners(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Where a map takes the corners of the square from -1 to 1, (..., 4, 2), and its greatest and least stretch there.

    In between all lies between: a homography takes the square to a convex four-sided figure. (Its least stretch can
    be a little less along an edge.)
    """
    square = maps.new_tensor([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]])
    scaled = square @ maps.transpose(-1, -2)
    points, w = scaled[..., :2] / scaled[..., 2:], scaled[..., 2:, None]
    derivative = (maps[..., None, :2, :2] - points[..., :, None] * maps[..., None, 2:, :2]) / w
    return points, torch.linalg.svdvals(derivative)
