"""Every loss of the course, term by term, and `WeightedLoss`, which adds them up.

A term compares `output` (SR) with `high` (HR, the ground truth), both (N, 3, H, W) in [0, 1], and returns one number
to minimise. `PerceptualLoss` compares feature maps of a frozen network: several terms from one pass over each picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.data.images import degrade, read, resize
from srkit.models.features import NETWORKS, Extractor, load_features
from srkit.settings import SRKitError, unknown

Term = Callable[[Tensor, Tensor], Tensor]
Output = Tensor | tuple[Tensor, ...]
Targets = Callable[[Extractor, Tensor, Sequence[str]], dict[str, Tensor]]  # the ground truth's feature maps


# ---------------------------------------------------------------------------------- pixels


def mse(output: Tensor, high: Tensor) -> Tensor:
    """Mean squared error over all pixels and colours (SRCNN, arXiv 1501.00092, eq. 4)."""
    return (output - high).square().mean()


def l1(output: Tensor, high: Tensor) -> Tensor:
    """Mean absolute error: a single large error weighs less than in `mse`."""
    return (output - high).abs().mean()


def charbonnier(output: Tensor, high: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(error² + epsilon²): `l1` with a round tip, so that its gradient is smooth at zero.

    Lai et al., LapSRN, arXiv 1704.03915, eq. 2; epsilon = 0.001 as there.
    """
    return ((output - high).square() + epsilon**2).sqrt().mean()


def psnr(output: Tensor, high: Tensor) -> Tensor:
    """1 / PSNR, with PSNR = -10 log10(MSE) of each picture in dB over RGB, averaged over the batch.

    Smaller is better: 0.0361 is 27.7 dB. An error below one hundredth of a grey level counts as that.
    """
    error = (output - high).square().flatten(1).mean(1).clamp(min=(0.01 / 255) ** 2)
    return (-math.log(10) / 10 / error.log()).mean()


def tv(output: Tensor, high: Tensor) -> Tensor:
    """Total variation of the output alone: the mean step from pixel to pixel, across and down. Small is smooth.

    Rudin, Osher, Fatemi, Physica D 60 (1992), in the anisotropic form: |step across| + |step down|.
    """
    across, down = output[..., :, 1:] - output[..., :, :-1], output[..., 1:, :] - output[..., :-1, :]
    return across.abs().mean() + down.abs().mean()


TERMS: dict[str, Term] = {"mse": mse, "l1": l1, "charbonnier": charbonnier, "psnr": psnr, "tv": tv}


# ---------------------------------------------------------------------------------- a discriminator


def discriminator_loss(logits: Tensor, label: float) -> Tensor:
    """Binary cross-entropy of a discriminator's logits, (N,), with the right answer: 1 real, 0 generated.

    -label log D - (1 - label) log(1 - D) with D = sigmoid(logit), averaged (arXiv 1406.2661, eq. 1). Computed from the
    logit in float32: where D is sure, its sigmoid is exactly 0 or 1 and has no gradient left.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, label, dtype=torch.float32))


class Adversarial:
    """-log D(output), averaged over the batch (SRGAN, arXiv 1609.04802, eq. 6): small where D takes it for real.

    Minimising log(1 - D(output)) instead would give hardly any gradient while D wins, which it does at the beginning
    (Goodfellow et al., arXiv 1406.2661, Section 3).

    Args:
        discriminator: takes (N, 3, H, W) in [0, 1], gives N logits. This term changes nothing in it.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        self.discriminator = discriminator

    def __call__(self, output: Tensor, high: Tensor) -> Tensor:
        """`high` is not used: any picture that passes for real will do."""
        return discriminator_loss(self.discriminator(output), 1.0)


# ---------------------------------------------------------------------------------- feature maps


def gram(features: Tensor) -> Tensor:
    """Gram matrix: how strongly each two channels are active together, wherever in the picture.

    G[c, d] = sum over pixels of features[c] features[d] / (C H W): (N, C, H, W) to (N, C, C).
    Johnson, Alahi, Fei-Fei, "Perceptual Losses", arXiv 1603.08155, eq. 3.
    """
    rows = features.float().flatten(2)
    with torch.autocast(rows.device.type, enabled=False):  # sums over a whole picture need more than 16 bits
        return rows @ rows.transpose(1, 2) / rows[0].numel()


def feature_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of feature maps (N, C, H, W), at least in fp32 (arXiv 1603.08155, eq. 2).

    As `mse`, but in one pass over memory, without a squared copy.
    """
    precision = torch.promote_types(a.dtype, torch.float32)
    return torch.linalg.vector_norm(a - b, dtype=precision).square() / a.numel()


def gram_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frobenius norm of the difference of the Gram matrices, averaged over the batch (eq. 4 there)."""
    return (gram(a) - gram(b)).square().sum((1, 2)).mean()


CONTENT_SCALE = 1 / 12.75  # of SRGAN's activations, arXiv 1609.04802, Section 3.2: the term is 0.006 times as large


class PerceptualLoss:
    """Terms that compare feature maps of a frozen network: all of them from one pass over each picture.

    - each of `layers` is a term of its own name, "relu2_2": `feature_distance` there (feature reconstruction);
    - "content" is the same with activations divided by 12.75, summed over the layers of `content` (VGG-19's relu5_4
      in SRGAN, arXiv 1609.04802, eq. 5): about as large as an MSE of pixels;
    - "texture" is `gram_distance`, summed over the layers of `texture` (style reconstruction): Gram matrices forget
      where things are.

    Args:
        extractor: from `models.features`, e.g. `VGG16(["relu1_2", "relu2_2"])`; it must give every layer named.
        layers: those that become terms; all that the extractor gives if neither of the others is given.
        content, texture: layers of these terms; no such term if empty.

    Raises:
        SRKitError: a layer that the extractor does not give.
    """

    def __init__(
        self, extractor: Extractor, layers: Sequence[str] = (), content: Sequence[str] = (), texture: Sequence[str] = ()
    ) -> None:
        self.extractor = extractor
        layers = layers or (() if content or texture else extractor.layers)
        groups = {layer: (layer,) for layer in layers} | {"content": tuple(content), "texture": tuple(texture)}
        self.layers_of = {name: group for name, group in groups.items() if group}
        for layer in {layer for group in self.layers_of.values() for layer in group}:
            if layer not in extractor.layers:
                raise unknown("layer of this extractor", layer, extractor.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that it offers."""
        return tuple(self.layers_of)

    def __call__(
        self, output: Tensor, high: Tensor, names: Collection[str], targets: Targets | None = None
    ) -> dict[str, Tensor]:
        """The terms asked for; nothing past the deepest layer that they need is computed.

        Args:
            output, high: (N, 3, H, W) in [0, 1].
            names: terms out of `names`.
            targets: targets(extractor, high, layers) returns the feature maps of `high` by layer, e.g.
                `training.targets.TargetFeatures.for_batch(…)`; without it the extractor computes them.
        """
        layers = tuple(dict.fromkeys(layer for name in names for layer in self.layers_of[name]))
        with torch.no_grad():  # the ground truth is given: no gradient, and no memory for one
            wanted = targets(self.extractor, high, layers) if targets else self.extractor(high, layers)
        found = self.extractor(output, layers)
        terms = {}
        for name in names:
            distance = gram_distance if name == "texture" else feature_distance
            total = reduce(torch.add, [distance(found[layer], wanted[layer]) for layer in self.layers_of[name]])
            terms[name] = total * CONTENT_SCALE**2 if name == "content" else total
        return terms


class StyleLoss(PerceptualLoss):
    """Two terms of style transfer, each relative to its own size, so that any weights give about the same:

    - "content", mean over its layers of |F(output) - F(high)|² / |F(high)|²: what is seen where;
    - "style", mean over its layers of |G(output) - G(style)|² / |G(style)|², with the Gram matrices G of the style's
      picture: which features go together, wherever.

    Gatys, Ecker, Bethge, arXiv 1508.06576, eq. 1 and 5; Johnson et al., arXiv 1603.08155, eq. 2 and 4; there both are
    absolute.

    Args:
        extractor: must give every layer named.
        picture: the style's, (3, H, W) in [0, 1].
        style, content: layers of the two terms.

    Raises:
        SRKitError: a layer that the extractor does not give; a picture too small for its poolings.
    """

    def __init__(
        self, extractor: Extractor, picture: Tensor, style: Sequence[str], content: Sequence[str] = ("relu2_2",)
    ) -> None:
        super().__init__(extractor, (), content, style)
        self.layers_of = {"content": tuple(content), "style": tuple(style)}
        extractor.check_size(min(picture.shape[1:]))
        with torch.no_grad():
            maps = extractor(picture[None].to(extractor.offset.device), self.layers_of["style"])
        self.grams = {layer: gram(found) for layer, found in maps.items()}

    def __call__(
        self, output: Tensor, high: Tensor, names: Collection[str], targets: Targets | None = None
    ) -> dict[str, Tensor]:
        """As in `PerceptualLoss`; `high` is the content's picture."""
        layers = tuple(dict.fromkeys(layer for name in names for layer in self.layers_of[name]))
        found, terms = self.extractor(output, layers), {}
        if "content" in names:
            content = self.layers_of["content"]
            with torch.no_grad():
                wanted = targets(self.extractor, high, content) if targets else self.extractor(high, content)
            distances = [feature_distance(found[one], wanted[one]) / _mean_square(wanted[one]) for one in content]
            terms["content"] = torch.stack(distances).mean()
        if "style" in names:
            self.grams = {layer: one.to(output.device) for layer, one in self.grams.items()}
            terms["style"] = torch.stack([self._style(layer, found[layer]) for layer in self.layers_of["style"]]).mean()
        return terms

    def _style(self, layer: str, found: Tensor) -> Tensor:
        wanted = self.grams[layer]
        return (gram(found) - wanted).square().sum((1, 2)).mean() / wanted.square().sum()


def _mean_square(features: Tensor) -> Tensor:
    return features.float().square().mean()


SMALLEST_STYLE = 64  # pixels of a side: what is smaller has no strokes to learn


def style_picture(path: str | Path, size: int) -> Tensor:
    """The picture of a style, its shorter side `size` pixels, (3, H, W) in [0, 1].

    Raises:
        SRKitError: it cannot be read, or has a side under 64 pixels.
    """
    picture = read(path)
    shorter = min(picture.shape[1:])
    if min(shorter, size) < SMALLEST_STYLE:
        raise SRKitError(f"{path}: a style of {min(shorter, size)} pixels is too small: give {SMALLEST_STYLE} or more")
    return resize(picture, scale=min(1, size / shorter)).clamp(0, 1)


# ---------------------------------------------------------------------------------- the weighted sum


class Probed(NamedTuple):
    """A term on some pictures: raw, weighted, and its pull: the norm of the weighted term's gradient at the output."""

    value: float
    weighted: float
    pull: float


class WeightedLoss:
    """The weighted sum of terms: loss = Σ weight · term. A term of weight 0 is not computed.

    A model with several outputs (a tuple, coarsest first, the coarsest at x2) is measured on each of them, against
    `high` degraded to that size: "x2/mse" and "x4/mse" weigh one output, and "mse" weighs every output that has no
    weight of its own.

    Args:
        weights: weight of each term by name, e.g. {"mse": 1, "relu2_2": 0.1}; each finite and >= 0.
        perceptual: whose terms may be named too.
        terms: where the other names are looked up; TERMS unless your own are given.

    `weights` may be changed between steps: the next call reads them, each once.

    Raises:
        SRKitError: an unknown term (the message names the nearest), a negative or infinite weight, or no term at all
            that weighs more than 0.
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
        """Every term that could have a weight."""
        return [*self.terms, *(name for part in self.perceptual for name in part.names)]

    @property
    def device(self) -> torch.device | None:
        """Where the networks of its terms lie, and the pictures must too; None if no term has one."""
        networks: list[nn.Module] = [part.extractor for part in self.perceptual]
        networks += [term.discriminator for term in self.terms.values() if isinstance(term, Adversarial)]
        return next((parameter.device for network in networks for parameter in network.parameters()), None)

    def describe(self) -> str:
        """Whose feature maps the terms compare, for captions: "VGG-16, ImageNet weights"; empty if none."""
        return "; ".join(part.extractor.describe() for part in self.perceptual)

    def __call__(
        self, output: Output, high: Tensor, exclude: Collection[str] = (), targets: Targets | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the sum, to call backward() on, and each term raw ("mse") and weighted ("weighted/mse"), detached.

        Args:
            output, high: (N, 3, H, W) in [0, 1]; output may be a tuple.
            exclude: terms to leave out, whatever they weigh.
            targets: where the feature maps of `high` come from, see `PerceptualLoss`.

        Raises:
            SRKitError: output and high differ in shape (broadcasting would hide it), or the model has no such output.
        """
        weights, raw, weighted = dict(self.weights), {}, {}
        names = [name for name in dict.fromkeys(map(term_of, weights)) if name not in exclude]
        for level, picture, wanted in _levels(output, high):
            if picture.shape != wanted.shape:
                raise SRKitError(f"output {tuple(picture.shape)} and high {tuple(wanted.shape)} differ in shape")
            weight_of = {name: weights.get(level + name, weights.get(name, 0)) for name in names}
            computed = [name for name, weight in weight_of.items() if weight]
            for name, value in self._terms(picture, wanted, computed, targets if wanted is high else None):
                raw[level + name] = value
                weighted[f"weighted/{level}{name}"] = weight_of[name] * value
        if not raw and not exclude:
            raise SRKitError(f"this model has none of the outputs that {', '.join(weights)} would weigh")
        values = {name: value.detach() for name, value in (raw | weighted).items()}
        return sum(weighted.values(), high.new_zeros(())), values

    @torch.no_grad()
    def measure(self, output: Output, high: Tensor) -> dict[str, Tensor]:
        """Every term that has a weight, one of 0 too, raw: a tensor of one number each.

        Args:
            output, high: as for a call.
        """
        names, measured = list(dict.fromkeys(map(term_of, self.weights))), {}
        for level, picture, wanted in _levels(output, high):
            measured |= {level + name: value for name, value in self._terms(picture, wanted, names)}
        return measured

    def probe(self, output: Output, high: Tensor) -> dict[str, Probed]:
        """Every term that has a weight, one of 0 too, and how hard it pulls at the output; changes nothing.

        Args:
            output, high: as for a call.
        """
        asked = [term.discriminator for term in self.terms.values() if isinstance(term, Adversarial)]
        training = [network for network in asked if network.training]
        for network in training:
            network.eval()  # else batch normalisation would learn from pictures that only are looked at
        names, found = list(dict.fromkeys(map(term_of, self.weights))), {}
        for level, picture, wanted in _levels(output, high):
            leaf = picture.detach().requires_grad_()
            for name, value in self._terms(leaf, wanted, names):
                weight, pull = self.weights.get(level + name, self.weights.get(name, 0.0)), 0.0
                if weight:
                    (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)
                    pull = weight * gradient.norm().item()
                found[level + name] = Probed(value.item(), weight * value.item(), pull)
        for network in training:
            network.train()
        return found

    def _terms(
        self, output: Tensor, high: Tensor, names: Sequence[str], targets: Targets | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            if name in self.terms:
                yield name, self.terms[name](output, high)
        for part in self.perceptual:
            if mine := [name for name in names if name in part.names and name not in self.terms]:
                yield from part(output, high, mine, targets).items()


def term_of(name: str) -> str:
    """The term itself, without the output that it is measured on: "x2/mse" is "mse"."""
    level, _, term = name.rpartition("/")
    return term if level.removeprefix("x").isdigit() else name


def _levels(output: Output, high: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each output with its ground truth and the prefix of its terms: "" for an only output, else "x2/", "x4/"."""
    if isinstance(output, Tensor):
        yield "", output, high
        return
    for picture in output:
        times = high.shape[-1] // picture.shape[-1]
        yield f"x{2 * picture.shape[-1] // output[0].shape[-1]}/", picture, high if times == 1 else degrade(high, times)


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


# ---------------------------------------------------------------------------------- by name

STYLE_LAYERS = {  # of the term "style", in reach of quick trainings: Johnson et al. read relu4_3, too
    "vgg16": ("relu1_2", "relu2_2", "relu3_3"),
    "vgg19": ("relu1_1", "relu2_1", "relu3_1"),
}
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {  # the layers of "content" and "texture" where none are given
    "vgg16": {"texture": ("relu1_2", "relu2_2", "relu3_3", "relu4_3")},  # Johnson et al., Section 4.1
    "small-vgg": {"texture": ("relu1_2", "relu2_2", "relu3_3", "relu4_3")},
    "vgg19": {
        "content": ("relu5_4",),  # SRGAN's "VGG54"
        "texture": ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),  # Gatys et al., arXiv 1508.06576
    },
}


def create(
    weights: Mapping[str, float],
    features: str = "vgg16",
    feature_weights: str = "imagenet",
    preprocessing: str | None = None,
    content: Sequence[str] = (),
    discriminator: nn.Module | None = None,
    style: str | Path | None = None,
    style_size: int = 256,
) -> WeightedLoss:
    """The loss that a configuration names in plain words; the frozen network is loaded only if a term needs it.

    Args:
        weights: a term of TERMS, a layer of the network ("relu2_2"), "content" (VGG-19) or "texture" (VGG-16, VGG-19);
            with a style "content" and "style", see `StyleLoss`.
        features: "small-vgg", "vgg16", "vgg19", "squeezenet" or "clip".
        feature_weights: "imagenet", "random", or a file or folder of weights.
        preprocessing: see `models.features.Extractor`.
        content: the layers of "content", of whichever network; those of GROUPS if not given.
        discriminator: the one that the term "adversarial" asks; without it there is no such term.
        style, style_size: a style's picture, and to how many pixels its shorter side is resized.

    Raises:
        SRKitError: as `WeightedLoss` and `models.features.load_features`.
    """
    if features not in NETWORKS:
        raise unknown("network", features, NETWORKS)
    terms = dict(TERMS) if discriminator is None else TERMS | {"adversarial": Adversarial(discriminator)}
    names = [name for name in dict.fromkeys(map(term_of, weights)) if name not in terms]
    if "style" in names and style is None:
        raise SRKitError("the term style needs a picture: --style painting.jpg")
    if not names:
        return WeightedLoss(weights, terms=terms)
    if style is not None:
        if features not in STYLE_LAYERS:
            raise unknown("network for a style", features, STYLE_LAYERS)
        picture, layers, content = style_picture(style, style_size), STYLE_LAYERS[features], content or ("relu2_2",)
        extractor = load_features(features, (*layers, *content), feature_weights, preprocessing)
        return WeightedLoss(weights, StyleLoss(extractor, picture, layers, content), terms=terms)
    groups = GROUPS.get(features, {}) | ({"content": tuple(content)} if content else {})
    known = [*terms, *NETWORKS[features].names(), *groups]
    for name in names:
        if name not in known:
            raise unknown("loss", name, known)
    groups = {name: group for name, group in groups.items() if name in names}
    layers = [name for name in names if name not in groups]
    extractor = load_features(features, sum(groups.values(), tuple(layers)), feature_weights, preprocessing)
    return WeightedLoss(weights, PerceptualLoss(extractor, layers, **groups), terms=terms)


@torch.no_grad()
def balance(loss: WeightedLoss, output: Tensor, high: Tensor, shares: Mapping[str, float]) -> dict[str, float]:
    """Weights with which each term makes up its share of the loss on these pictures.

    Terms live on scales of their own: an activation's squared error may be a thousand times a pixel's. So a weight
    says little by itself; a share does.

    Args:
        loss: knows the terms.
        output, high: (N, 3, H, W); say, an enlargement and the ground truth.
        shares: share of each term, e.g. {"mse": 0.5, "relu2_2": 0.5}; the term "mse", or else the first, gets
            weight 1.

    Returns:
        {"mse": 1.0, "relu2_2": …}: share / value, rounded to two digits, so that another device, whose sums differ in
        the last digit, gives the same weights. A share of 0 gives a weight of 0.
    """
    values = dict(loss._terms(output, high, [name for name, share in shares.items() if share]))
    first = "mse" if shares.get("mse") else next(name for name in shares if shares[name])
    unit = shares[first] / float(values[first])
    weights = {name: share / float(values[name]) / unit if share else 0.0 for name, share in shares.items()}
    return {name: float(f"{weight:.2g}") for name, weight in weights.items()}
