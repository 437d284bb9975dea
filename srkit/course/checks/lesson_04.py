"""Lesson 04: the cost of a guess, feature maps by hooks, their distance, weights by share, Gram matrix, variation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from srkit.course.checks.check import Check

# ---------------------------------------------------------------------------------- what a guess costs


def _expected_mse(output: Tensor, truths: Tensor) -> Tensor:
    return (output - truths).square().mean()


def _truths(generator: torch.Generator) -> list[tuple]:
    shapes = (2, 1, 1, 2), (3, 3, 4, 5), (9, 3, 6, 6)
    return [(torch.rand(s[1:], generator=generator), torch.rand(s, generator=generator)) for s in shapes]


expected_mse = Check(
    "expected_mse",
    _expected_mse,
    _truths,
    {
        "this is the error of the mean truth: first the error against each, then the mean": lambda output, truths: (
            (output - truths.mean(0)).square().mean()
        ),
        "it returns an error for each truth: the mean of them": lambda output, truths: (
            (output - truths).square().flatten(1).mean(1)
        ),
        "these are absolute errors: square them": lambda output, truths: (output - truths).abs().mean(),
        "this is the smallest error: nobody knows which truth it will be, the mean": lambda output, truths: (
            (output - truths).square().flatten(1).mean(1).min()
        ),
        "this is the sum over the pixels: mean()": lambda output, truths: (
            (output - truths).square().sum() / len(truths)
        ),
        "this is the sum over truths and pixels: mean()": lambda output, truths: (output - truths).square().sum(),
    },
)


# ---------------------------------------------------------------------------------- feature maps by hooks


class _Layer(nn.Module):
    """A layer that notes when it runs."""

    def __init__(self, layer: nn.Module, ran: list[nn.Module]) -> None:
        super().__init__()
        self.layer, self.ran = layer, ran

    def forward(self, x: Tensor) -> Tensor:
        self.ran.append(self)
        return self.layer(x)


def _hooked(network: nn.Sequential, places: Mapping[str, int], pictures: Tensor, skip: str = "") -> dict[str, Tensor]:
    """Feature maps by forward hooks; `skip` leaves out what is most often forgotten."""
    maps: dict[str, Any] = {}
    handles = []
    for name, place in places.items():

        def keep(layer: nn.Module, given: tuple, output: Tensor, name: str = name) -> None:
            maps[list(places)[-1] if skip == "name" else name] = {"output": given[0], "tuple": given}.get(skip, output)

        handles.append(network[place].register_forward_hook(keep))
    (network if skip == "end" else network[: max(places.values()) + (skip != "last")])(pictures)
    for handle in handles if skip != "remove" else []:
        handle.remove()
    return {name: value.detach() if skip == "gradient" else value for name, value in maps.items()}


def _on_a_network(answer: Callable) -> Callable:
    """Of a small VGG: the maps, whether a gradient can pass, how many layers ran, how many hooks stayed."""

    def run(pictures: Tensor, last: int) -> Any:
        ran: list[nn.Module] = []
        generator = torch.Generator().manual_seed(last)
        layers = [nn.Conv2d(2, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(),
                  nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU()]  # fmt: skip
        network = nn.Sequential(*(_Layer(layer, ran) for layer in layers)).requires_grad_(False)
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
        names = {"first": 1, "last": last}
        found = answer(network, names, pictures.clone().requires_grad_())
        if not isinstance(found, dict):
            return found
        maps = tuple(found.get(name) for name in names)
        passes = [isinstance(value, Tensor) and value.requires_grad for value in maps]
        return maps, passes, len(ran), sum(len(layer._forward_hooks) for layer in network)

    return run


def _without(what: str) -> Callable:
    return lambda network, places, pictures: _hooked(network, places, pictures, what)


feature_maps = Check(
    "feature_maps",
    _hooked,
    lambda generator: [
        (torch.randn(1, 2, 4, 4, generator=generator), 4),
        (torch.randn(2, 2, 6, 6, generator=generator), 5),
    ],
    {
        "the hooks stay: each call would add more; keep what register_forward_hook returns, and .remove() it": _without(
            "remove"
        ),
        "it runs the whole network: stop behind the deepest layer, network[: deepest + 1]": _without("end"),
        "every hook writes under the last name: a closure reads `name` late, so bind it, (…, name=name)": _without(
            "name"
        ),
        "these are the layers' inputs: a hook is given (layer, inputs, output)": _without("output"),
        "these are the tuples of inputs: a hook is given (layer, inputs, output)": _without("tuple"),
        "the deepest layer does not run: network[: deepest + 1]": _without("last"),
        "the network runs once for each place: hooks at all of them, then one pass": lambda network, places, pictures: {
            name: _hooked(network, {name: place}, pictures)[name] for name, place in places.items()
        },
        "no gradient can pass: no detach() and no no_grad() in here": _without("gradient"),
    },
    _on_a_network,
)


# ---------------------------------------------------------------------------------- distances of feature maps

Maps = Mapping[str, Tensor]


def _feature_loss(found: Maps, wanted: Maps) -> dict[str, Tensor]:
    return {layer: (found[layer] - wanted[layer]).square().mean() for layer in found}


def _of_maps(answer: Callable) -> Callable:
    """The numbers of two layers, and whether each has a gradient."""

    def run(*maps: Tensor) -> Any:
        near, far, *others = (one.clone().requires_grad_(place < 2) for place, one in enumerate(maps))
        found = answer({"near": near, "far": far}, dict(zip(("near", "far"), others, strict=True)))
        if not isinstance(found, dict):
            return found
        values = tuple(found.get(layer) for layer in ("near", "far"))
        return values, [isinstance(value, Tensor) and value.requires_grad for value in values]

    return run


def _two_layers(generator: torch.Generator) -> list[tuple]:
    def case(count: int, side: int) -> tuple:
        shapes = [(count, 2, 2 * side, 2 * side), (count, 4, side, side)] * 2
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)

    return [case(1, 1), case(2, 3)]


def _each(distance: Callable[[Tensor], Tensor]) -> Callable:
    return lambda found, wanted: {layer: distance(found[layer] - wanted[layer]) for layer in found}


feature_loss = Check(
    "feature_loss",
    _feature_loss,
    _two_layers,
    {
        "this is the sum: divide by C H W, the number of activations: mean()": _each(
            lambda d: d.square().sum() / len(d)
        ),
        "this is the sum, of the whole batch: mean()": _each(lambda d: d.square().sum()),
        "divide by the batch N, too: mean()": _each(lambda d: d.square().sum() / d[0].numel()),
        "one number for each picture: the mean over the batch, too": _each(lambda d: d.square().mean((1, 2, 3))),
        "the square is missing: the squared norm is the sum of the squares": _each(lambda d: d.norm() / d[0].numel()),
        "a dict of layer to number is wanted, not a list": lambda found, wanted: [
            *_feature_loss(found, wanted).values()
        ],
        "the differences are not squared": _each(lambda d: d.abs().mean()),
        "no root: eq. 2 has the squared norm": _each(lambda d: d.square().mean().sqrt()),
        "the gradient does not reach the output: no detach(), no .item(), no torch.tensor(…)": lambda found, wanted: {
            layer: value.item() for layer, value in _feature_loss(found, wanted).items()
        },
        "a dict is wanted, of layer to number: the sum of all layers has no weights left": lambda found, wanted: sum(
            _feature_loss(found, wanted).values()
        ),
    },
    _of_maps,
)


def _gram(maps: Tensor) -> Tensor:
    rows = maps.flatten(2)
    return rows @ rows.transpose(1, 2) / rows[0].numel()


gram = Check(
    "gram",
    _gram,
    lambda generator: [
        (torch.randn(shape, generator=generator),) for shape in ((1, 2, 1, 2), (2, 3, 3, 3), (3, 4, 2, 5))
    ],
    {
        "it grows with the picture: divide by C H W": lambda maps: _gram(maps) * maps[0].numel(),
        "it is divided by H W: by C H W": lambda maps: _gram(maps) * maps.shape[1],
        "it is divided by C alone: the sum runs over H W pixels": lambda maps: _gram(maps) * maps[0, 0].numel(),
        "it is divided by the whole batch: each picture has its own matrix": lambda maps: _gram(maps) / len(maps),
        "this compares places, (H W, H W): multiply channels, rows @ rows.transpose(1, 2)": lambda maps: (
            maps.flatten(2).transpose(1, 2) @ maps.flatten(2) / maps[0].numel()
        ),
        "brackets: / (C * H * W) divides by all three": lambda maps: (
            _gram(maps) * maps[0].numel() / maps.shape[1] * maps[0, 0].numel()
        ),
        "the channels' means are subtracted: a Gram matrix is no covariance": lambda maps: _gram(
            maps - maps.mean((2, 3), keepdim=True)
        ),
        "the pictures of the batch are mixed: one matrix each, (N, C, C)": lambda maps: _gram(
            maps.transpose(0, 1).flatten(1)[None, :, :, None]
        )[0],
    },
)


# ---------------------------------------------------------------------------------- weights, smoothness


def _weights_by_share(values: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    first = next(iter(shares))
    return {term: share / values[term] * values[first] / shares[first] for term, share in shares.items()}


def _of_numbers(answer: Callable) -> Callable:
    def run(values: Tensor, shares: Tensor) -> Any:
        names = [*(f"layer{i}" for i in range(1, len(values))), "mse"]  # the first is not always the MSE
        given = [dict(zip(names, numbers.tolist(), strict=True)) for numbers in (values, shares)]
        found = answer(dict(reversed(given[0].items())), given[1])
        return [found.get(name) for name in names] if isinstance(found, dict) else found

    return run


def _values_and_shares(generator: torch.Generator) -> list[tuple]:
    def case(terms: int) -> tuple:
        shares = torch.rand(terms, generator=generator) + 0.2
        return torch.rand(terms, generator=generator) * torch.logspace(-1, 2, terms) + 0.05, shares / shares.sum()

    return [case(2), case(4)]


def _scaled(factor: Callable[[Mapping, Mapping], float]) -> Callable:
    return lambda values, shares: {
        term: weight * factor(values, shares) for term, weight in _weights_by_share(values, shares).items()
    }


weights_by_share = Check(
    "weights_by_share",
    _weights_by_share,
    _values_and_shares,
    {
        "these are share / value: divide all of them by that of the first term": _scaled(
            lambda values, shares: next(iter(shares.values())) / next(iter(values.values()))
        ),
        "it multiplies: a term with large values needs a small weight, share / value": lambda values, shares: {
            term: share * values[term] for term, share in shares.items()
        },
        "upside down: share / value": lambda values, shares: {
            term: values[term] / shares[term] / values[next(iter(shares))] * shares[next(iter(shares))]
            for term in shares
        },
        "these are the shares themselves: a weight is share / value": lambda values, shares: dict(shares),
        "equal weights for equal values: the shares are missing": lambda values, shares: {
            term: values[next(iter(shares))] / values[term] for term in shares
        },
        "the weights are made to add up to 1: it is weight times value that has the share": _scaled(
            lambda values, shares: 1 / sum(_weights_by_share(values, shares).values())
        ),
    },
    _of_numbers,
)


def _total_variation(output: Tensor) -> Tensor:
    return output.diff(dim=-1).abs().mean() + output.diff(dim=-2).abs().mean()


total_variation = Check(
    "total_variation",
    _total_variation,
    lambda generator: [  # falling from left to right: no sign is right by luck
        (torch.rand(shape, generator=generator) - torch.linspace(0, 2, shape[-1]),)
        for shape in ((1, 2, 2, 2), (2, 3, 4, 6), (1, 3, 7, 5))
    ],
    {
        "steps up and down cancel: abs() first, then the mean": lambda output: (
            output.diff(dim=-1).mean() + output.diff(dim=-2).mean()
        ),
        "only the steps across, dim=-1, are counted: those down, dim=-2, too": lambda output: (
            output.diff(dim=-1).abs().mean()
        ),
        "only the steps down, dim=-2, are counted: those across, dim=-1, too": lambda output: (
            output.diff(dim=-2).abs().mean()
        ),
        "abs() comes before mean(): the mean of steps up and down is nearly 0": lambda output: (
            output.diff(dim=-1).mean().abs() + output.diff(dim=-2).mean().abs()
        ),
        "this is half of it: the sum of both means": lambda output: _total_variation(output) / 2,
        "dimension 1 holds the channels: the steps are along -1 and -2": lambda output: (
            output.diff(dim=1).abs().mean() + output.diff(dim=2).abs().mean()
        ),
        "the steps are squared: abs()": lambda output: (
            output.diff(dim=-1).square().mean() + output.diff(dim=-2).square().mean()
        ),
        "this is the sum: the mean over all steps": lambda output: (
            output.diff(dim=-1).abs().sum() + output.diff(dim=-2).abs().sum()
        ),
        "the last column is compared with the first: roll() goes around, use diff()": lambda output: (
            (output - output.roll(1, -1)).abs().mean() + (output - output.roll(1, -2)).abs().mean()
        ),
    },
)
