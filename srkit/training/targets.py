"""The feature maps of the ground truth, kept from the first epoch on for a perceptual loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from srkit.losses import Targets
from srkit.models.features import Extractor
from srkit.settings import free_memory


class TargetFeatures:
    """Keeps the ground truth's feature maps from the first time that they are computed.

    A perceptual step goes three times through the frozen network: forward for the ground truth, forward and backward
    for the output. Where a training shows each picture always alike (no flips, and the patch is the whole picture),
    the first third is the same in each epoch. The first epoch keeps what the others use, exactly as computed.

    Layers that are first asked for together are kept, or none of them: what is kept of all pictures takes at most half
    of the memory that was free on the device at the first step.

    Args:
        count: pictures in the dataset.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.room: int | None = None  # bytes
        self.kept: dict[tuple[Extractor, str], dict[int, Tensor]] = {}

    def for_batch(self, indices: Sequence[int]) -> Targets:
        """The argument `targets` of a loss for a batch whose `high` are the dataset's pictures `indices`, in order."""
        return partial(self._find, indices)

    def _find(
        self, indices: Sequence[int], extractor: Extractor, high: Tensor, layers: Sequence[str]
    ) -> dict[str, Tensor]:
        kept = {layer: self.kept[extractor, layer] for layer in layers if (extractor, layer) in self.kept}
        missing = [layer for layer in layers if not kept.get(layer, {}).keys() >= set(indices)]
        fresh = extractor(high, missing) if missing else {}
        new = [layer for layer in fresh if layer not in kept]
        size = self.count * sum(fresh[layer][0].nbytes for layer in new)
        self.room = free_memory(high.device) // 2 if self.room is None else self.room
        if size <= self.room:
            self.room -= size
            kept |= {layer: self.kept.setdefault((extractor, layer), {}) for layer in new}
        for layer in fresh.keys() & kept.keys():
            kept[layer].update(zip(indices, fresh[layer].split(1), strict=True))
        return fresh | {layer: torch.cat([kept[layer][i] for i in indices]) for layer in layers if layer not in fresh}
