"""Every loss of the course, term by term, and `WeightedLoss`, which adds them up.

A term compares `output` with `high`, both (N, 3, H, W) in [0, 1], and returns one number to minimise.
`PerceptualLoss` compares what a trained network sees in the two; it gives several terms from one look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.errors import SRKitError, unknown
from srkit.features import NETWORKS, Extractor, open_features
from srkit.images import degrade

Term = Callable[[Tensor, Tensor], Tensor]
Output = Tensor | tuple[Tensor, ...]


def mse(output: Tensor, high: Tensor) -> Tensor:
    """Mean squared error over all pixels and colours (SRCNN, arXiv 1501.00092, eq. 4)."""
    return (output - high).square().mean()


def l1(output: Tensor, high: Tensor) -> Tensor:
    """Mean absolute error: cares less for single large errors than `mse`."""
    return (output - high).abs().mean()


def charbonnier(output: Tensor, high: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(error² + epsilon²): `l1` with a round tip, so that its gradient is smooth at zero.

    Lai et al., LapSRN, arXiv 1704.03915, eq. 2; epsilon = 0.001 as there.
    """
    return ((output - high).square() + epsilon**2).sqrt().mean()


def psnr(output: Tensor, high: Tensor) -> Tensor:
    """1 / PSNR, with the PSNR of each picture in dB over RGB, averaged over the batch.

    Smaller is better: 0.0361 is 27.7 dB. An error under one hundredth of a grey level counts as that.
    """
    error = (output - high).square().flatten(1).mean(1).clamp(min=(0.01 / 255) ** 2)
    return (-math.log(10) / 10 / error.log()).mean()


def tv(output: Tensor, high: Tensor) -> Tensor:
    """Total variation of the output alone: the mean step from pixel to pixel, across and down. Small is smooth.

    Rudin, Osher, Fatemi, Physica D 60 (1992), in the form that takes both directions apart.
    """
    across, down = output[..., :, 1:] - output[..., :, :-1], output[..., 1:, :] - output[..., :-1, :]
    return across.abs().mean() + down.abs().mean()


TERMS: dict[str, Term] = {"mse": mse, "l1": l1, "charbonnier": charbonnier, "psnr": psnr, "tv": tv}


# ---------------------------------------------------------------------------------- what a judge says


def judged(logits: Tensor, label: float) -> Tensor:
    """Binary cross-entropy between a discriminator's logits, (N,), and what it should have said: 1 real, 0 made.

    Through the logit and not through a sigmoid's answer, of which nothing is left in float32 where D is sure.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, label, dtype=torch.float32))


class Adversarial:
    """The term that asks a discriminator: how far is it from taking the output for a real picture?

    -log D(output), averaged over the batch: arXiv 1609.04802, eq. 6. Minimising log(1 - D(output)) instead would
    give hardly any gradient while D wins, which it does at the beginning (Goodfellow et al., arXiv 1406.2661).

    Args:
        discriminator: takes (N, 3, H, W) in [0, 1], gives N logits. This term changes nothing in it.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        self.discriminator = discriminator

    def __call__(self, output: Tensor, high: Tensor) -> Tensor:
        """High, the truth, is not even looked at: any real-looking picture will do."""
        return judged(self.discriminator(output), 1.0)


# ---------------------------------------------------------------------------------- what a trained network sees


def gram(activations: Tensor) -> Tensor:
    """How strongly each two channels fire together, wherever in the picture: (N, C, H, W) to (N, C, C).

    Johnson, Alahi, Fei-Fei, "Perceptual Losses", arXiv 1603.08155, eq. 3.
    """
    rows = activations.float().flatten(2)
    with torch.autocast(rows.device.type, enabled=False):  # sums over a whole picture need more than 16 bits
        return rows @ rows.transpose(1, 2) / rows[0].numel()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of activations (N, C, H, W), at least fp32: read once, not squared into a copy."""
    exact = torch.promote_types(a.dtype, torch.float32)
    return torch.linalg.vector_norm(a - b, dtype=exact).square() / a.numel()


RESCALE = 1 / 12.75  # of the activations behind "content"; its term becomes 0.006 times as large


class PerceptualLoss:
    """Terms that compare activations of a frozen network: all of them from one pass over each picture.

    - each of `layers` is a term of its own name, "relu2_2": the mean squared difference of the
      activations there (feature reconstruction, arXiv 1603.08155, eq. 2);
    - "content" is the same with activations divided by 12.75, summed over the layers of `content` (VGG-19's
      relu5_4 in SRGAN, arXiv 1609.04802, eq. 5 and Section 3.2): VGG-19's then lie where an MSE of pixels does;
    - "texture" compares the Gram matrices of the layers of `texture`, and so forgets where things
      lie: the squared Frobenius norm of their difference, summed over the layers (arXiv 1603.08155, eq. 4).

    Args:
        extractor: from `features`, e.g. `features.VGG16(["relu1_2", "relu2_2"])`; it must read every layer named.
        layers: those that become terms; all that the extractor reads if neither of the others is given.
        content, texture: layers of these terms; no such term if empty.

    Raises:
        SRKitError: a layer that the extractor does not read.
    """

    def __init__(
        self,
        extractor: Extractor,
        layers: Sequence[str] = (),
        content: Sequence[str] = (),
        texture: Sequence[str] = (),
    ) -> None:
        self.extractor = extractor
        layers = layers or (() if content or texture else extractor.layers)
        groups = {"content": tuple(content), "texture": tuple(texture)}
        self.reads = {**{layer: (layer,) for layer in layers}, **{name: ls for name, ls in groups.items() if ls}}
        for layer in {layer for ls in self.reads.values() for layer in ls}:
            if layer not in extractor.layers:
                raise unknown("layer of this extractor", layer, extractor.layers)

    @staticmethod
    def look(extractor: Extractor, high: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """What the network sees in the truth. A training that has kept it puts its own in this one's place."""
        return extractor(high, layers)

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that it offers."""
        return tuple(self.reads)

    def __call__(self, output: Tensor, high: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """The terms asked for. Nothing past the deepest layer that they need is computed."""
        layers = tuple(dict.fromkeys(layer for name in names for layer in self.reads[name]))
        with torch.no_grad():  # the target is given: no gradient, and no memory for one
            wanted = self.look(self.extractor, high, layers)
        seen = self.extractor(output, layers)
        terms = {}
        for name in names:
            pairs = [(seen[layer], wanted[layer]) for layer in self.reads[name]]
            if name == "texture":
                terms[name] = sum((gram(a) - gram(b)).square().sum((1, 2)).mean() for a, b in pairs)
            else:
                terms[name] = sum(distance(a, b) for a, b in pairs) * (RESCALE**2 if name == "content" else 1)
        return terms


# ---------------------------------------------------------------------------------- the weighted sum


class WeightedLoss:
    """The weighted sum of terms: loss = Σ weight · term. A term that weighs 0 is not computed.

    A model with several outputs (a tuple, coarsest first, the coarsest at x2) is measured on each of them,
    against `high` degraded to that size: "x2/mse" and "x4/mse" weigh one output, and "mse" weighs every
    output that has no weight of its own.

    Args:
        weights: weight of each term by name, e.g. {"mse": 1, "relu2_2": 0.1}; each finite and >= 0.
        perceptual: whose terms may be named too.
        terms: where the other names are looked up; TERMS unless your own are given.

    `weights` may be changed between steps: the next call reads them, each once.

    Raises:
        SRKitError: an unknown term (the message says the nearest), a negative or infinite weight, or
            no term at all that weighs more than 0.
    """

    def __init__(
        self, weights: Mapping[str, float], *perceptual: PerceptualLoss, terms: Mapping[str, Term] = TERMS
    ) -> None:
        self.terms, self.perceptual, self.weights = dict(terms), perceptual, dict(weights)
        for name in self.weights:
            if term_of(name) not in self.known:
                raise unknown("loss", name, self.known)
        check_weights(self.weights)

    @property
    def known(self) -> list[str]:
        """Every term that could weigh something."""
        return [*self.terms, *(name for part in self.perceptual for name in part.names)]

    @property
    def note(self) -> str:
        """Whose features the terms compare, for captions: "VGG-16, ImageNet weights"; empty if none."""
        return "; ".join(part.extractor.note for part in self.perceptual)

    def __call__(self, output: Output, high: Tensor, but: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the sum, to call backward() on, and each term raw ("mse") and weighted ("weighted/mse"), detached.

        Args:
            output, high: (N, 3, H, W) in [0, 1]; output may be a tuple.
            but: terms to leave out, whatever they weigh.

        Raises:
            SRKitError: output and high differ in shape (broadcasting would hide it), or the model has no such output.
        """
        weights, raw, weighted = dict(self.weights), {}, {}
        for level, picture, truth in _levels(output, high):
            if picture.shape != truth.shape:
                raise SRKitError(f"output {tuple(picture.shape)} and high {tuple(truth.shape)} differ in shape")
            names = [name for name in map(term_of, weights) if name not in but]
            weight_of = {name: weights.get(level + name, weights.get(name, 0)) for name in names}
            for name, value in self._terms(picture, truth, [n for n, weight in weight_of.items() if weight]):
                raw[level + name] = value
                weighted[f"weighted/{level}{name}"] = weight_of[name] * value
        if not raw and not but:
            raise SRKitError(f"this model has none of the outputs that {', '.join(weights)} would weigh")
        return sum(weighted.values(), high.new_zeros(())), {
            name: value.detach() for name, value in {**raw, **weighted}.items()
        }

    @torch.no_grad()
    def measure(self, output: Tensor, high: Tensor) -> dict[str, float]:
        """Every term with a weight, also of 0, raw and as a number."""
        return {name: float(value) for name, value in self._terms(output, high, [*map(term_of, self.weights)])}

    def _terms(self, output: Tensor, high: Tensor, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            if name in self.terms:
                yield name, self.terms[name](output, high)
        for part in self.perceptual:
            if mine := [name for name in names if name in part.names and name not in self.terms]:
                yield from part(output, high, mine).items()


def term_of(name: str) -> str:
    """The term itself, without the output that it is measured on: "x2/mse" is "mse"."""
    level, _, term = name.rpartition("/")
    return term if level.removeprefix("x").isdigit() else name


def _levels(output: Output, high: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each output with its truth and the prefix of its terms: "" for an only output, else "x2/", "x4/"."""
    if isinstance(output, Tensor):
        yield "", output, high
        return
    for picture in output:
        times = high.shape[-1] // picture.shape[-1]
        truth = high if times == 1 else degrade(high, times)
        yield f"x{2 * picture.shape[-1] // output[0].shape[-1]}/", picture, truth


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights with which nothing can be trained.

    Raises:
        SRKitError: one is negative, infinite or no number; or all of them are 0.
    """
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise SRKitError(f"the weight of {name} is {weight}: give a number that is 0 or more")
    if not any(weights.values()):
        raise SRKitError("every loss weighs 0: give at least one a weight, e.g. mse 1")


GROUPS: dict[str, dict[str, tuple[str, ...]]] = {  # the layers that "content" and "texture" mean where none are given
    "vgg16": {"texture": ("relu1_2", "relu2_2", "relu3_3", "relu4_3")},  # Johnson et al., Section 4.1
    "vgg19": {
        "content": ("relu5_4",),  # SRGAN's "VGG54"
        "texture": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),  # Gatys et al., arXiv 1508.06576
    },
}


def create(
    weights: Mapping[str, float],
    features: str = "vgg16",
    feature_weights: str = "imagenet",
    preprocessing: str = "auto",
    mirror: str | None = None,
    content: Sequence[str] = (),
    discriminator: nn.Module | None = None,
) -> WeightedLoss:
    """The loss that a configuration names in plain words; the frozen network is opened only if a term needs it.

    Args:
        weights: a term of TERMS, a layer of the network ("relu2_2"), "content" (VGG-19) or "texture" (VGG-16, VGG-19).
        features: "vgg16", "vgg19", "squeezenet" or "clip".
        feature_weights: "imagenet", "random", or a file or folder of weights.
        preprocessing, mirror: see `features.Extractor`.
        content: the layers behind "content", of whichever network; those of GROUPS if not given.
        discriminator: the judge behind the term "adversarial"; without one there is no such term.

    Raises:
        SRKitError: as `WeightedLoss` and `features.open_features`.
    """
    if features not in NETWORKS:
        raise unknown("network", features, NETWORKS)
    terms = {**TERMS, **({"adversarial": Adversarial(discriminator)} if discriminator is not None else {})}
    layer_names, groups = NETWORKS[features].names(), dict(GROUPS.get(features, {}))
    if content:
        groups["content"] = tuple(content)
    names = list(dict.fromkeys(term_of(name) for name in weights if term_of(name) not in terms))
    for name in names:
        if name not in (*layer_names, *groups):
            raise unknown("loss", name, [*terms, *layer_names, *groups])
    if not names:
        return WeightedLoss(weights, terms=terms)
    layers = [name for name in names if name in layer_names]
    groups = {name: group for name, group in groups.items() if name in names}
    reads = dict.fromkeys([*layers, *(layer for group in groups.values() for layer in group)])
    extractor = open_features(features, list(reads), feature_weights, preprocessing, mirror)
    return WeightedLoss(weights, PerceptualLoss(extractor, layers, **groups), terms=terms)


@torch.no_grad()
def balance(loss: WeightedLoss, output: Tensor, high: Tensor, shares: Mapping[str, float]) -> dict[str, float]:
    """Weights with which each term makes up its share of the loss on these pictures.

    Terms live on scales of their own: an activation's squared error may be a thousand times a pixel's. So a
    weight says little by itself; a share does.

    Args:
        loss: knows the terms.
        output, high: (N, 3, H, W); say, an enlargement and the truth.
        shares: share of each term, e.g. {"mse": 0.5, "relu2_2": 0.5}; the sum that they make is that of
            the term "mse", or else the first, with weight 1.

    Returns:
        {"mse": 1.0, "relu2_2": …}, rounded to two digits, so that another device, whose sums differ in the last
        digit, gives the same weights. A share of 0 gives a weight of 0.
    """
    values = dict(loss._terms(output, high, [name for name, share in shares.items() if share]))
    first = "mse" if shares.get("mse") else next(name for name in shares if shares[name])
    unit = shares[first] / float(values[first])
    weights = {name: share / float(values[name]) / unit if share else 0.0 for name, share in shares.items()}
    return {name: float(f"{weight:.2g}") for name, weight in weights.items()}
