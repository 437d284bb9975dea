"""What is the same as something else: pictures by pixels and by what they show, networks by their answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from srkit import models
from srkit.data import sources
from srkit.data.images import degrade, from_uint8, luma, read, resize, to_uint8
from srkit.models import pretrained

NEAR = 40  # of 256 bits: of 345 photographs none came nearer than 65 to another; at JPEG quality 40, 344 within 30
SAME_ANSWER, MARGIN = 55.0, 10.0  # dB
Prints = tuple[str, str]  # sha256 of the pixels, and 256 bits of what they show as hexadecimal digits


def prints(picture: Tensor) -> Prints:
    """Two fingerprints of a picture, uint8 (3, H, W): equal pixels share the first, other sizes and JPEGs the second.

    The second is a difference hash: of the luma, shrunk to 16 x 17, whether each pixel is darker than the next.
    """
    digest = hashlib.sha256(repr(tuple(picture.shape)).encode() + picture.contiguous().numpy().tobytes()).hexdigest()
    small = luma(resize(from_uint8(picture)[None], (16, 17)))[0, 0]
    bits = (small[:, 1:] > small[:, :-1]).flatten().tolist()
    return digest, f"{sum(bit << index for index, bit in enumerate(bits)):064x}"


def turned(picture: Tensor) -> list[Tensor]:
    """A picture's eight flips and turns."""
    both = (picture, picture.flip(-1))
    return [torch.rot90(one, times, (-2, -1)) for one in both for times in range(4)]


def near(one: str, other: str) -> bool:
    """Whether two second prints are of the same picture, smaller, larger or compressed."""
    return (int(one, 16) ^ int(other, 16)).bit_count() <= NEAR


def seen(training: Sequence[Prints], tests: Mapping[str, Sequence[Prints]]) -> list[str]:
    """The test pictures, by name with the prints of their flips and turns, that are among the training pictures."""
    pixels = {first for first, _ in training}
    found = []
    for name, ways in tests.items():
        if any(first in pixels for first, _ in ways):
            found.append(name)
        elif any(near(second, bits) for _, second in training for _, bits in ways):
            found.append(f"{name} (nearly)")
    return found


# ---------------------------------------------------------------------------------- networks


def fixed_low(scale: int) -> Tensor:
    """The picture that every network answers, uint8 (3, 192 / scale, 192 / scale): one that scikit-image brings."""
    (path,) = (path for path in sources.pictures("bundled") if path.stem == "astronaut")
    high = read(path)
    return to_uint8(degrade(high[:, 40:232, 130:322], scale))  # the face


def closeness(one: Tensor, other: Tensor) -> float:
    """PSNR in dB between two answers, uint8 RGB; infinite where they are equal."""
    error = (one.double() - other.double()).square().mean() / 255**2
    return float(-10 * error.log10())


def same(answers: Mapping[str, Tensor], bicubic: Tensor) -> dict[tuple[str, str], float]:
    """Pairs whose answers agree by 55 dB, and by 10 dB more than either does with bicubic, from which both may start.

    Permuted channels give the same answers, a little noise on the weights nearly the same; networks that were trained
    apart agree by 40 dB at most.
    """
    found, names = {}, list(answers)
    start = {name: closeness(answers[name], bicubic) for name in names}
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            agree = closeness(answers[name], answers[other])
            if agree >= max(SAME_ANSWER, MARGIN + min(start[name], start[other])):
                found[name, other] = agree
    return found


def published(low: Tensor, scale: int) -> dict[str, Tensor]:
    """The answers of srkit's own pretrained networks of a scale that need no other package."""
    found = {}
    for name in pretrained.names():
        if pretrained.card(name)["config"].get("scale") == scale and "needs" not in pretrained.card(name):
            model = models.load(name)
            with torch.inference_mode():
                found[f"srkit's {name}"] = to_uint8(models.output_at(model, from_uint8(low)[None], scale)[0])
    return found


def as_prints(stated: object) -> list[Prints]:
    """The prints in a manifest; anything else in their place is left out."""
    pairs = stated if isinstance(stated, list) else []
    texts = [tuple(pair) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
    hexadecimal = set("0123456789abcdef")
    return [(a, b) for a, b in texts if isinstance(a, str) and isinstance(b, str) and b and set(b) <= hexadecimal]
