"""Beyond the protocol: BRISQUE, which needs no ground truth, and LPIPS, a distance learnt from people's answers.

Both are lower for better pictures, and both are what one implementation with one file of weights says: implementations
of BRISQUE differ by several points. So a column of a table is named with its implementation, and only figures of one
column may be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srkit.data.downloads import File, fetch_file
from srkit.models.features import SqueezeNet
from srkit.models.files import read, tensors_in
from srkit.settings import SRKitError, data_folder, unknown

SMALLEST = 32  # pixels of a side: below, BRISQUE's half-size statistics and SqueezeNet's poolings are left with nothing

# The support vectors that BRISQUE's authors trained on the LIVE database, as libsvm writes them.
VECTORS = File(
    "brisque_svm.txt",
    "sha256:19526fb799c4c7992ccc109fcfecddb25976ba024b194cd3ee275d27e8909c8d",
    (
        "https://raw.githubusercontent.com/rehanguha/brisque/76b2756450d4f9dccdd85f2af2ad625adedb6a13/brisque/models/svm.txt",
        "https://raw.githubusercontent.com/krshrimali/No-Reference-Image-Quality-Assessment-using-BRISQUE-Model/master/C%2B%2B/allmodel",
    ),
    megabytes=0.36,
)
# What the 36 features ranged from and to in that training. piq's own ranges belong to another one, of 774 vectors.
LEAST = (
    0.336999, 0.019667, 0.23, -0.125959, 0.000167, 0.000616, 0.231, -0.125873, 0.000165, 0.0006, 0.241, -0.128814,
    0.000179, 0.000386, 0.243, -0.13308, 0.000182, 0.000421, 0.436998, 0.016929, 0.247, -0.200231, 0.000104, 0.000834,
    0.257, -0.200017, 0.000112, 0.000876, 0.257, -0.155072, 0.000112, 0.000356, 0.258, -0.154374, 0.000117, 0.000351,
)  # fmt: skip
MOST = (
    9.999411, 0.807472, 1.644021, 0.202917, 0.712384, 0.468672, 1.644021, 0.169548, 0.713132, 0.467896, 1.553016,
    0.101368, 0.687324, 0.533087, 1.554016, 0.101, 0.689177, 0.533133, 3.639918, 0.800955, 1.096995, 0.175286, 0.755547,
    0.39927, 1.095995, 0.155928, 0.751488, 0.402398, 1.041992, 0.093209, 0.623516, 0.532925, 1.042992, 0.093714,
    0.621958, 0.534484,
)  # fmt: skip


def brisque(picture: Tensor) -> Tensor:
    """How unnatural a picture's noise and blur look, without a ground truth: about 0 (natural) to 100, one value each.

    Mittal, Moorthy and Bovik, "No-reference image quality assessment in the spatial domain", 2012. A photograph's
    luminance, freed of its local mean and contrast (eq. 1), is nearly Gaussian, and so are its neighbours' products
    (eq. 7 to 10) of a known skewed shape; 18 numbers say of what shape they are, at full and at half size, and a
    support vector regression guesses from them what people would say. Decimals mean nothing: implementations differ
    by points. It knows the distortions of its training (JPEG, JPEG 2000, noise, blur, fading), and no SR network's.

    Args:
        picture: (3, H, W) or (N, 3, H, W), RGB in [0, 1], grey too; clipped, and rounded to 8 bits as a file would be.

    Returns:
        (N,), or a single value for a single picture, on the CPU; nan where luminance is constant, or nearly: it has no
        statistics.

    Raises:
        SRKitError: a side below 32 pixels; piq is not installed; the support vectors cannot be had.
    """
    _check_size(picture)
    scores = []
    for luminance in gray(picture).split(1):
        try:
            scores.append(score(torch.cat([_statistics(luminance), _statistics(_half(luminance))], -1)))
        except AssertionError:  # piq's way to say that there are no statistics
            scores.append(luminance.new_tensor(torch.nan))
    return torch.stack(scores) if picture.ndim == 4 else scores[0]


def gray(picture: Tensor) -> Tensor:
    """Luminance (N, 1, H, W) in whole levels from 0 to 255 as MATLAB's rgb2gray, double precision, on the CPU."""
    levels = (picture if picture.ndim == 4 else picture[None]).detach().cpu().double().clamp(0, 1).mul(255).round()
    return (levels * levels.new_tensor([0.298936, 0.587043, 0.114021]).view(3, 1, 1)).sum(1, keepdim=True).round()


def score(features: Tensor) -> Tensor:
    """BRISQUE of its 36 features (1, 36), by the support vector regression; errors as `brisque`."""
    coefficients, vectors, gamma, rho = _support_vectors(_fetch_vectors())
    least, most = vectors.new_tensor(LEAST), vectors.new_tensor(MOST)
    scaled = 2 * (features.double() - least) / (most - least) - 1
    return coefficients @ torch.exp(-gamma * (scaled - vectors).square().sum(-1)) - rho


def lpips(output: Tensor, high: Tensor) -> Tensor:
    """Learned perceptual image patch similarity: 0 for equal pictures, lower for more alike, one value each.

    Zhang et al., arXiv 1801.03924, eq. 1, version 0.1 on SqueezeNet: seven layers' activations, of unit length at each
    place, their squared differences weighed per channel by what people answered, the mean over places, the sum over
    layers. Papers' figures mostly come from AlexNet, and are others.

    Args:
        output, high: (3, H, W) or (N, 3, H, W), RGB in [0, 1]; output is clipped to that.

    Returns:
        (N,), or a single value for a single picture, where high is.

    Raises:
        SRKitError: a side below 32 pixels, shapes that differ; lpips, which brings the channels' weights, is not
            installed; SqueezeNet's ImageNet weights cannot be had.
    """
    if output.shape != high.shape:
        raise SRKitError(f"output {tuple(output.shape)} and high {tuple(high.shape)} differ in shape")
    _check_size(high)
    network, heads = _lpips_network()
    pair = [(x if x.ndim == 4 else x[None]).to(high.device, torch.float32).clamp(0, 1) for x in (output, high)]
    with torch.no_grad():
        maps = [network.to(high.device)(x) for x in pair]
        total = torch.zeros(len(pair[0]), device=high.device)
        for layer, head in zip(network.layers, heads, strict=True):
            a, b = (found[layer] / (found[layer].norm(dim=1, keepdim=True) + 1e-10) for found in maps)
            total += ((a - b).square() * head.to(high.device)).sum(1).mean((-2, -1))
    return total if high.ndim == 4 else total[0]


# By name: the package that a measure needs, what a column is called with its version, how it is made ready, and done.
MEASURES: dict[str, tuple[str, str, Callable[[], Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "brisque": ("piq", "BRISQUE (piq {})", lambda: _fetch_vectors(), lambda output, high: brisque(output)),
    "lpips": ("lpips", "LPIPS (lpips {}, SqueezeNet)", lambda: _lpips_network(), lpips),
}


def columns(names: Iterable[str]) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Measures by what their columns are called; what they need is fetched now, not after an hour's work.

    Args:
        names: of MEASURES.

    Returns:
        A function of (output, high) for each, in the order of the names.

    Raises:
        SRKitError: an unknown name, a package or weights that are missing.
    """
    found = {}
    for name in names:
        if name not in MEASURES:
            raise unknown("measure", name, MEASURES)
        package, title, prepare, function = MEASURES[name]
        _package(package)
        prepare()
        found[title.format(metadata.version(package))] = function
    return found


def available(names: Iterable[str]) -> tuple[list[str], str]:
    """Those measures that can be had here, and a line that names the others and why; "" if there are none.

    Raises:
        SRKitError: an unknown name.
    """
    found, lines = [], []
    for name in names:
        try:
            columns([name])
            found.append(name)
        except SRKitError as error:
            if name not in MEASURES:
                raise
            lines.append(f"{name} is left out: {error}")
    return found, "; ".join(lines)


def _check_size(picture: Tensor) -> None:
    height, width = picture.shape[-2:]
    if min(height, width) < SMALLEST:
        raise SRKitError(f"{width} x {height} pixels are too few for BRISQUE or LPIPS: each side needs {SMALLEST}")


def _package(name: str) -> Path:
    """Where an optional package lies; found, not imported, which may take seconds."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SRKitError(f"{name} is not installed: pip install {name}")
    return Path(spec.origin).parent


def _fetch_vectors() -> Path:
    return fetch_file(VECTORS, data_folder() / "weights", otherwise="measure without brisque")


@cache
def _support_vectors(path: Path) -> tuple[Tensor, Tensor, float, float]:
    """Of libsvm's text: coefficients (n,), vectors (n, 36), the kernel's gamma, and rho; zeros are left out in it."""
    header, _, body = path.read_text(encoding="ascii").partition("\nSV\n")
    facts, lines = dict(line.split(maxsplit=1) for line in header.splitlines()), body.splitlines()
    vectors = torch.zeros(len(lines), len(LEAST), dtype=torch.float64)
    for vector, line in zip(vectors, lines, strict=True):
        for place, value in (entry.split(":") for entry in line.split()[1:]):
            vector[int(place) - 1] = float(value)
    coefficients = torch.tensor([float(line.split()[0]) for line in lines], dtype=torch.float64)
    return coefficients, vectors, float(facts["gamma"]), float(facts["rho"])


def _statistics(luminance: Tensor) -> Tensor:
    """The 18 features of a luminance (1, 1, H, W) from 0 to 255, as (1, 18)."""
    _package("piq")
    return import_module("piq.brisque")._natural_scene_statistics(luminance)


def _half(luminance: Tensor) -> Tensor:
    """Half the size, as MATLAB's imresize, with which the support vectors were trained."""
    return import_module("piq.functional").imresize(luminance, sizes=[side // 2 for side in luminance.shape[-2:]])


@cache
def _lpips_network() -> tuple[SqueezeNet, list[Tensor]]:
    """SqueezeNet at the seven layers, and each one's weights of channels (1, C, 1, 1)."""
    file = _package("lpips") / "weights" / "v0.1" / "squeeze.pth"
    heads = tensors_in(read(file))
    network = SqueezeNet(["relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9"])
    return network, [heads[f"lin{i}.model.1.weight"] for i in range(len(network.layers))]
