"""What the frozen networks of a loss see in the true pictures: once for each picture, where it is always the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from srkit.banks import choose_place
from srkit.features import Extractor
from srkit.losses import PerceptualLoss


class KeptTargets:
    """Activations of the true pictures, kept from the first time that they are computed.

    A perceptual step goes three times through the frozen network: forward for the truth, forward and backward for the
    output. Where a training shows each picture always alike (no flips, and the crop is the whole picture), the truth's
    third is the same in each epoch. The first epoch fills what the others read, exactly as computed; a layer whose
    weight a slider turns up later is added when it is first asked for.

    All layers of a network that are first asked for together are kept, or none: they take at most half of the memory
    that is free on the device.

    Args:
        parts: the perceptual terms of a loss.
        count: pictures in the bank.
    """

    def __init__(self, parts: Sequence[PerceptualLoss], count: int) -> None:
        self.parts, self.count = parts, count
        self.kept: dict[tuple[Extractor, str], dict[int, Tensor]] = {}  # by network and layer, then by picture

    @contextmanager
    def shown(self, high: Tensor, chosen: Sequence[int]) -> Iterator[None]:
        """Within it the loss looks up what it compares with `high`, (N, 3, H, W), the bank's pictures `chosen`."""

        def look(extractor: Extractor, pictures: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
            # A part of the batch, or the truth of a smaller output, is another tensor.
            return self.seen(extractor, high, layers, chosen) if pictures is high else extractor(pictures, layers)

        for part in self.parts:
            part.look = look
        try:
            yield
        finally:
            for part in self.parts:
                del part.look

    def seen(
        self, extractor: Extractor, high: Tensor, layers: Sequence[str], chosen: Sequence[int]
    ) -> dict[str, Tensor]:
        """The layers' activations of the pictures `chosen`, which are `high`: read, or else computed and kept."""
        lacking = [layer for layer in layers if not self.kept.get((extractor, layer), {}).keys() >= set(chosen)]
        fresh = extractor(high, lacking) if lacking else {}
        new = {layer: seen for layer, seen in fresh.items() if (extractor, layer) not in self.kept}
        if self._fit(new.values()):
            self.kept |= {(extractor, layer): {} for layer in new}
        for layer, seen in fresh.items():
            if (extractor, layer) in self.kept:
                self.kept[extractor, layer] |= dict(zip(chosen, seen.split(1), strict=True))
        return {
            layer: fresh[layer] if layer in fresh else torch.cat([self.kept[extractor, layer][i] for i in chosen])
            for layer in layers
        }

    def _fit(self, activations: Sequence[Tensor]) -> bool:
        """Whether these, of all pictures, have room beside what has been promised to others and is not yet filled."""
        size = sum(seen[0].nbytes for seen in activations) * self.count
        promised = sum(
            next(iter(rows.values())).nbytes * (self.count - len(rows)) for rows in self.kept.values() if rows
        )
        return all(choose_place(size + promised, seen.device) == "device" for seen in activations)
