"""The grid of features, and what it costs: networks of `benchmarks.srgan` as they are, and made even.

    uv run python -m benchmarks.grid my/photos --more t91 my/bsds200 [--recipe features] [--feature-weights FILE]
        [--second-weights FILE] [--json]

efficient-x4 goes on by VGG-16's features alone, and against a discriminator with a tenth of the loss, in one of the
perceptual study's mixtures. Measured: both, their mean, and each of them with a last layer whose sub-pixels answer
alike in smooth places (`even`). Writes grid_RECIPE.jpg and .json into figures/reference.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks import perceptual, published, srgan, timing
from benchmarks.timing import Facts
from srkit import models
from srkit.settings import unknown


@dataclass(kw_only=True)
class Options(srgan.Runs):
    """Train efficient-x4 on by features, alone and against a discriminator, and make both even."""

    recipe: str = "features"  # shares of the content's terms: one of the perceptual study's
    out: Path = Path("runs/grid")


def even(model: nn.Module) -> nn.Module:
    """A copy without a grid in smooth places.

    PixelShuffle lays 16 filters' outputs side by side as 4 x 4 pixels. Where features do not change from place to place
    each filter answers by the sums of its kernels and its bias: if these differ, the 16 pixels do, everywhere in the
    same way. Here they all get the mean, by the smallest change of the kernels.
    """
    model = copy.deepcopy(model).cpu()
    tail: Any = model.get_submodule("tail")
    kernels, bias = tail.weight.data.unflatten(0, (3, -1)), tail.bias.data.view(3, -1)  # (3, 16, C, 3, 3), (3, 16)
    sums = kernels.sum((3, 4), keepdim=True)
    kernels -= (sums - sums.mean(1, keepdim=True)) / 9
    bias.copy_(bias.mean(1, keepdim=True).expand_as(bias))
    return model


def run(options: Options) -> tuple[Facts, str]:
    """Both runs and their mean, as they are and even.

    Raises:
        SRKitError: an unknown recipe.
    """
    if options.recipe not in perceptual.RECIPES:
        raise unknown("recipe", options.recipe, perceptual.RECIPES)
    name = options.recipe.replace(",", "").replace(" ", "_")
    options = replace(options, out=options.out / name)
    trainers = [srgan.train(options, share, perceptual.RECIPES[options.recipe]) for share in srgan.SHARES[:2]]
    alone, gan = (trainer.result for trainer in trainers)
    methods = {srgan.START: models.load(srgan.START), "features": alone, "GAN": gan}
    methods["mean"] = published.mixed(copy.deepcopy(alone), gan, 0.5)
    methods |= {f"{one}, even": even(method) for one, method in methods.items()}
    _, found, table = srgan.measure(options, methods)
    facts = {
        "command": f"python -m benchmarks.grid --recipe '{options.recipe}'",
        **found,
        "models": {one: published.about(trainer) for one, trainer in zip(("features", "GAN"), trainers, strict=True)},
    }
    shown = (srgan.START, "features", "features, even", "mean, even")
    published.publish(srgan.parts({one: methods[one] for one in shown}), f"grid_{name}", facts)
    return facts, table


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.grid")
