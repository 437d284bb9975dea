"""Pictures seen at a slant: patches that are warped views of whole pictures, for small data sets of one's own.

A few hundred pictures are soon known by heart. With a `Warp`, a data set never shows one twice in the same way: each
patch has it turned, stretched, slanted and in perspective.

Warp, crop and resize are one map. Whoever warps first and shrinks afterwards interpolates twice, and the network learns
the blur; whoever warps low and high apart teaches it a degradation that does not exist. Here high is sampled once, from
the file's own pixels, and low is made from it as ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from srkit.data.images import from_uint8, resize, to_uint8
from srkit.settings import SRKitError

ANGLE, SHEAR, STRETCH, ZOOM, SLANT = math.pi / 4, 0.3, 1.2, 1.5, 0.15  # the most that strength 1 does
RIM = 2  # pixels that bicubic shrinking reads beyond the pixel that it makes


@dataclass(frozen=True)
class Warp:
    """An affine map and a homography (Hartley and Zisserman, Multiple View Geometry, 2.4), drawn anew for each patch.

    The view of a picture is a square, turned by up to 45°, sheared by 0.3, stretched by 1.2, zoomed by 1.5 and slanted
    so that its far side is up to 1.35 times as long as its near one; all of it times `strength`. It never reaches
    outside of the picture, so that nothing is made up. Nor does it enlarge, as far as the picture has the pixels: at
    strength 0.5 that takes a shorter side of 1.7 times `size`, at 1 of 2.5 times. Of smaller pictures the ground truth
    is partly blurred.

    Args:
        strength: 0 shows what a data set without warp shows; 1 is strong.
        size: the view shows a whole picture, its shorter side as this many pixels, and patches are cut from the view.
            None: the view is the patch, anywhere in the picture, at the picture's own resolution.

    Raises:
        SRKitError: a strength that is not from 0 to 1.
    """

    strength: float = 0.5
    size: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise SRKitError(f"a warp of {self.strength}: its strength lies from 0 (none) to 1 (strong), e.g. 0.5")

    def patches(
        self, pictures: Sequence[Tensor], where: Tensor, patch_size: int, noise: Tensor, device: torch.device | str
    ) -> Tensor:
        """One patch of each picture, uint8 (N, 3, patch_size, patch_size) on the device.

        High is rounded to 8 bits: it is what a file of this view would hold, as is the ground truth that one measures
        against.

        Args:
            pictures: N of uint8 (3, H, W).
            where: (N, 2) in [0, 1), how far down and right the patch lies.
            noise: (N, 8) in [0, 1), of which 0.5 is no warp.
        """
        sizes = torch.tensor([picture.shape[:0:-1] for picture in pictures], dtype=torch.float64)
        maps = views(sizes, patch_size, self.size, self.strength, where.flip(1).double(), noise.double())
        return torch.stack([sample(*pair, patch_size, device) for pair in zip(pictures, maps, strict=True)])


def sample(picture: Tensor, view: Tensor, patch_size: int, device: torch.device | str = "cpu") -> Tensor:
    """What a map shows of a picture, sampled once and antialiased: uint8 (3, patch_size, patch_size) on the device.

    Args:
        picture: uint8 (3, H, W).
        view: a map of `views`, (3, 3) in double precision on the CPU.
    """
    # With a rim of as many pixels as shrinking reads beyond the patch: what lies there counts as in the whole picture.
    whole = patch_size + 2 * RIM
    view = view @ _matrices(whole / patch_size, view.new_zeros(1, 2))[0]
    points, stretch = _corners(view)
    # Only the part that is seen is moved and made floats: a small patch of a large picture is cheap.
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


def views(sizes: Tensor, patch_size: int, size: int | None, strength: float, where: Tensor, noise: Tensor) -> Tensor:
    """The maps from patches to pictures: for each a 3 x 3 matrix of homogeneous coordinates.

    It takes (u, v, 1), u and v from -1 to 1 across and down the patch, to w (x, y, 1), x and y in pixels from the
    picture's left and upper edge. It is a product of three: from the patch to the view, from the view to a slanted one
    in pixels, and from there to its place in the picture.

    Args:
        sizes: width and height of each picture, (N, 2); this and what follows in double precision.
        patch_size: side of the patch in pixels.
        size, strength: see `Warp`.
        where: (N, 2) in [0, 1), how far right and down the patch lies in the view; without a size, in the picture.
        noise: (N, 8) in [0, 1), of which 0.5 is no warp.

    Returns:
        (N, 3, 3).
    """
    side = size or patch_size
    shrink = sizes.amin(1) / size if size else sizes.new_ones(len(sizes))  # pixels of the picture for one of the view
    slanted = _homographies(2 * noise[:, :6] - 1, strength)
    slanted[:, :2] *= (shrink * side / 2).view(-1, 1, 1)
    # So small that the picture holds it, and so large that no pixel is enlarged, if the picture holds that.
    points, stretch = _corners(slanted)
    fits = (sizes / (points.amax(1) - points.amin(1))).amin(1)
    sharp = side / 2 / stretch.amin((1, 2))
    slanted[:, :2] *= torch.minimum(fits, torch.maximum(fits.clamp(max=1), sharp)).view(-1, 1, 1)
    # Anywhere in the picture where it fits. A view that is not slanted begins at a whole pixel, and loses nothing.
    points, _ = _corners(slanted)
    first, last = -points.amin(1), sizes - points.amax(1)
    place, freedom = (noise[:, 6:], strength) if size else (where, 1.0)
    centre = (1 - freedom) * (sizes / 2).clamp(first, last) + freedom * (first + place * (last - first))
    half = (shrink * side / 2).view(-1, 1)
    centre = ((centre - half).floor() + half).clamp(first, last)
    offset = (where * (side - patch_size + 1)).floor() if size else torch.zeros_like(where)
    return _matrices(1, centre) @ slanted @ _matrices(patch_size / side, (patch_size + 2 * offset) / side - 1)


def _homographies(noise: Tensor, strength: float) -> Tensor:
    """Maps of the square from -1 to 1: turned, sheared, stretched, zoomed, slanted; noise is (N, 6) in [-1, 1)."""
    angle, shear, stretch, zoom, *slant = (noise * strength).T
    cos, sin, zero, one = (angle * ANGLE).cos(), (angle * ANGLE).sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turned = torch.stack((cos, -sin, sin, cos), 1).view(-1, 2, 2)
    sheared = torch.stack((one, SHEAR * shear, zero, one), 1).view(-1, 2, 2)
    stretched = torch.stack((STRETCH ** (stretch / 2), STRETCH ** (-stretch / 2)), 1).unsqueeze(1)
    maps = torch.zeros(len(noise), 3, 3, dtype=noise.dtype)
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
