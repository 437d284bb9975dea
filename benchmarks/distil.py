"""A small VGG whose distances agree with VGG-16's: the feature network that comes along, from nothing.

    uv run python -m benchmarks.distil my/photos --more t91 my/bsds200 --feature-weights FILE [--publish] [--json]

Every step shows both networks some photographs and what is left of them after damages (`DAMAGES`, each at several
strengths). The small one learns to say, layer by layer, what the large one sees, through a linear map that is thrown
away afterwards (Romero et al., FitNets, arXiv 1412.6550), and how far it finds each damaged picture from the
whole one, place by place: it is distances that a perceptual loss is made of. Called again after it was stopped, it
goes on. Measured on photographs that were not trained on: the rank correlation (Spearman's) of its distances with
VGG-16's over all damages and for each, beside that of random networks; how far the gradients of both point the same
way, which is all that a training asks of a loss; and the seconds of a loss and its gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit.data import ImageDataset
from srkit.data.degradation import blur, jpeg
from srkit.data.images import resize
from srkit.metrics.opinions import spearman
from srkit.models.features import FOLDER, VGG16, Extractor, SmallVGG
from srkit.models.files import weights_sha256
from srkit.settings import atomic_write, choose_device

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
LOG_FREQ, SAVE_FREQ = 20, 100
CELLS = 4  # of a feature map across and down, in which distances are compared besides those of the whole map
MEASURED = 120  # side of the held-out pictures, in pixels
SMALL = 1e-3  # a distance that counts as none; a layer's mean square activation is 1


@dataclass(kw_only=True)
class Options(timing.Options):
    """Distil VGG-16 into the small VGG that srkit ships, and measure how well their distances agree."""

    data: Positional[str]  # photographs: a folder, or a name that `srkit data` lists
    more: tuple[str, ...] = ()  # folders or names whose pictures are all trained on, too
    held_out: int = 50  # photographs of DATA to measure on, which are not trained on
    feature_weights: str = "imagenet"  # weights of VGG-16: imagenet, or a file
    steps: int = 3000
    batch_size: int = 4  # photographs in a step, each whole and damaged in three ways
    patch_size: int = 64  # pixels
    lr: float = 2e-3  # of Adam at the start, falling by a cosine
    publish: bool = False  # put weights and card into srkit/weights/features
    out: Path = Path("runs/distil")  # where everything goes


# ---------------------------------------------------------------------------------- damages


def softened(high: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Out of focus: a Gaussian of 0.3 to 2.5 pixels."""
    return blur(high, 0.3 + 2.2 * strength)


def shrunk(high: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Made smaller by 1.3 to 4 and enlarged again, by bicubic interpolation: one factor for all."""
    size, factor = (high.shape[-2], high.shape[-1]), 1.3 + 2.7 * strength.mean().item()
    return resize(resize(high, (round(size[0] / factor), round(size[1] / factor))), size)


def noisy(high: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of 2 to 30 of 255 levels."""
    return high + torch.randn(high.shape, generator=generator) * (2 + 28 * strength.view(-1, 1, 1, 1)) / 255


def ringing(high: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Oversharpened: 0.2 to 2 times the difference from a blur of 1.2 pixels is added, which leaves rims on edges."""
    soft = blur(high, torch.full_like(strength, 1.2))
    return high + (0.2 + 1.8 * strength.view(-1, 1, 1, 1)) * (high - soft)


def compressed(high: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """JPEG of quality 90 to 10."""
    return jpeg(high.clamp(0, 1), 90 - 80 * strength)


def shifted(high: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Moved to the right by 0.2 to 2 pixels, between pixels linearly; the first columns are repeated."""
    line = torch.linspace(-1, 1, high.shape[-1])
    across = line.expand(len(high), high.shape[-2], -1) - (0.2 + 1.8 * strength.view(-1, 1, 1)) * 2 / high.shape[-1]
    down = torch.linspace(-1, 1, high.shape[-2]).view(1, -1, 1).expand_as(across)
    grid = torch.stack([across, down], -1)
    return F.grid_sample(high, grid, padding_mode="border", align_corners=True)


def patterned(high: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """A weave of 2 to 25 of 255 levels with a period of 2 or 4 pixels, as losses on features leave it."""
    period = 2 if torch.rand((), generator=generator) < 0.5 else 4
    y, x = torch.meshgrid(torch.arange(high.shape[-2]), torch.arange(high.shape[-1]), indexing="ij")
    weave = torch.cos(2 * math.pi * x / period) * torch.cos(2 * math.pi * y / period)
    return high + weave * (2 + 23 * strength.view(-1, 1, 1, 1)) / 255


Damage = Callable[[Tensor, Tensor, torch.Generator], Tensor]
DAMAGES: dict[str, Damage] = {
    **{"blur": softened, "bicubic": shrunk, "noise": noisy, "rings": ringing},
    **{"JPEG": compressed, "shift": shifted, "weave": patterned},
}


def damaged(high: Tensor, name: str, strength: Tensor, generator: torch.Generator) -> Tensor:
    """What a damage leaves of pictures (N, 3, H, W), each with its strength (N,) in 0 to 1; on their device."""
    left = DAMAGES[name](high.cpu(), strength, generator)
    return left.mul(255).round().clamp(0, 255).div(255).to(high.device)


# ---------------------------------------------------------------------------------- learning


class Distillation(nn.Module):
    """The small network, and the linear maps from its layers to the large one's."""

    def __init__(self, large: Extractor, scale: Mapping[str, float]) -> None:
        super().__init__()
        self.small, self.large, self.scale = SmallVGG(LAYERS, "random"), large, scale
        self.small.requires_grad_(True)
        channels = {layer: large.channels(layer) for layer in LAYERS}
        maps = {layer: nn.Conv2d(self.small.channels(layer), channels[layer], 1) for layer in LAYERS}
        self.maps = nn.ModuleDict(maps)

    def forward(self, pictures: Tensor, copies: int) -> Tensor:
        """The loss on pictures (copies * N, 3, H, W): N whole ones first, then all of them damaged, again and again."""
        with torch.no_grad():
            wanted = {layer: x * self.scale[layer] for layer, x in self.large(pictures).items()}
        found, total = self.small(pictures), pictures.new_zeros(())
        for layer in LAYERS:
            small, large = found[layer], wanted[layer]
            total = total + F.mse_loss(self.maps[layer](small), large)
            for cells in (CELLS, 1):
                total = total + F.mse_loss(_log_distance(small, copies, cells), _log_distance(large, copies, cells))
        return total


def _log_distance(features: Tensor, copies: int, cells: int) -> Tensor:
    """The logarithm of the mean squared difference of each damaged picture from its whole one, in cells x cells."""
    whole, *rest = features.chunk(copies)
    squares = torch.cat([(one - whole).square().mean(1, keepdim=True) for one in rest])
    return (F.adaptive_avg_pool2d(squares, cells) + SMALL).log()


@torch.no_grad()
def scales(large: Extractor, dataset: ImageDataset, options: Options) -> dict[str, float]:
    """What each layer of the large network is multiplied by, so that its mean square activation is 1."""
    high = dataset.batch(0, 32, options.patch_size, 2).high
    return {layer: x.square().mean().rsqrt().item() for layer, x in large(high).items()}


def train(options: Options, large: Extractor) -> tuple[SmallVGG, Facts]:
    """Distil to the end, or on from where it was stopped."""
    device = choose_device()
    dataset = published.all_pictures(options.data, options.more, options.held_out, options.patch_size)
    torch.manual_seed(0)
    network = Distillation(large.to(device), scales(large, dataset, options)).to(device)
    learnt = [*network.small.parameters(), *network.maps.parameters()]
    optimizer = torch.optim.Adam(learnt, lr=options.lr)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, options.steps))
    path, step, seconds, curve = options.out / "last.pt", 0, 0.0, []
    if path.is_file():
        state = torch.load(path, map_location=device, weights_only=True)
        network.load_state_dict(state["network"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        step, seconds, curve = state["step"], state["seconds"], state["curve"]
        rate.last_epoch = step
        timing.log(f"going on from step {step}")
    start = time.perf_counter() - seconds
    while step < options.steps:
        generator = torch.Generator().manual_seed(step)
        high = dataset.batch(step, options.batch_size, options.patch_size, 2).high
        kinds = [list(DAMAGES)[i] for i in torch.randperm(len(DAMAGES), generator=generator)[:3].tolist()]
        strengths = torch.rand(3, options.batch_size, generator=generator)
        spoilt = [damaged(high, kind, one, generator) for kind, one in zip(kinds, strengths, strict=True)]
        loss = network(torch.cat([high, *spoilt]), 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        step += 1
        if step % LOG_FREQ == 0 or step == options.steps:
            curve.append((step, loss.item()))
            timing.log(f"step {step} of {options.steps}: {mean(value for _, value in curve[-5:]):.4f}")
        if step % SAVE_FREQ == 0 or step == options.steps:
            seconds = time.perf_counter() - start
            kept = {key: value for key, value in network.state_dict().items() if not key.startswith("large.")}
            state = {"network": kept, "optimizer": optimizer.state_dict()}
            state |= {"step": step, "seconds": seconds, "curve": curve}
            with atomic_write(path) as draft:
                torch.save(state, draft)
    facts = {
        "trained on": repr(dataset),
        "steps": step,
        "seconds": round(seconds),
        "loss": mean(value for _, value in curve[-5:]),
    }
    return network.small.requires_grad_(False), facts


def _cosine(step: int, steps: int) -> float:
    """From 1 to 0; the first hundred steps warm up."""
    return min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2


# ---------------------------------------------------------------------------------- measuring


@torch.no_grad()
def agreement(
    networks: Mapping[str, Extractor], large: Extractor, held_out: ImageDataset, strengths: Sequence[float]
) -> dict[str, dict[str, dict[str, float]]]:
    """Spearman's rank correlation of distances with the large network's: by network, layer, and damage or "all"."""
    everyone = {**networks, "": large}
    found = {name: {layer: {kind: [] for kind in DAMAGES} for layer in LAYERS} for name in everyone}
    generator = torch.Generator().manual_seed(0)
    for _, picture in held_out:
        high = picture[None].float().cpu()  # where the networks are
        for kind in DAMAGES:
            spoilt = [damaged(high, kind, torch.tensor([one]), generator) for one in strengths]
            for name, network in everyone.items():
                for layer, x in network(torch.cat([high, *spoilt])).items():
                    found[name][layer][kind] += (x[1:] - x[:1]).square().flatten(1).mean(1).tolist()
    wanted, table = found.pop(""), {}
    for name, layers in found.items():
        table[name] = {}
        for layer, kinds in layers.items():
            pairs = {kind: (values, wanted[layer][kind]) for kind, values in kinds.items()}
            pairs["all"] = ([*chain(*kinds.values())], [*chain(*wanted[layer].values())])
            table[name][layer] = {kind: spearman(*pair) for kind, pair in pairs.items()}
    return table


def directions(
    networks: Mapping[str, Extractor], large: Extractor, held_out: ImageDataset, strength: float = 0.5
) -> dict[str, dict[str, float]]:
    """Where each would send an enlarged picture: the mean cosine of its distance's gradient with the large one's.

    A network that only judges needs to agree in distances; a loss is followed along its gradient, and nothing else of
    it is ever asked. By network and layer; 1 is the same way, 0 has nothing to do with it.
    """
    found: dict[str, dict[str, float]] = {name: dict.fromkeys(LAYERS, 0.0) for name in networks}
    for _, picture in held_out:
        high = picture[None].float().cpu()
        spoilt = damaged(high, "bicubic", torch.tensor([strength]), torch.Generator())
        for layer in LAYERS:
            wanted = _pull(large, high, spoilt, layer)
            for name, network in networks.items():
                cosine = F.cosine_similarity(_pull(network, high, spoilt, layer), wanted, dim=0)
                found[name][layer] += cosine.item() / len(held_out)
    return found


def _pull(network: Extractor, high: Tensor, spoilt: Tensor, layer: str) -> Tensor:
    """The gradient of a layer's distance with respect to the spoilt picture's pixels, flat."""
    with torch.no_grad():
        whole = network(high)[layer]
    spoilt = spoilt.clone().requires_grad_(True)
    (pull,) = torch.autograd.grad((network(spoilt)[layer] - whole).square().mean(), spoilt)
    return pull.flatten()


def speed(networks: Mapping[str, Extractor], rounds: int = 7) -> dict[str, float]:
    """Seconds of a perceptual loss and its gradient on one 120 x 120 picture, the median of turns taken in pairs."""
    picture, seconds = torch.rand(1, 3, 120, 120), {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            output, start = picture.clone().requires_grad_(True), time.perf_counter()
            torch.stack([x.square().mean() for x in network.cpu()(output).values()]).sum().backward()
            seconds[name].append(time.perf_counter() - start)
    return {name: sorted(times)[rounds // 2] for name, times in seconds.items()}


def run(options: Options) -> tuple[Facts, str]:
    """Distil, measure, and publish."""
    large = VGG16(LAYERS, options.feature_weights)
    small, facts = train(options, large)
    networks: dict[str, Extractor] = {
        **{"small VGG": small.cpu(), "small, random": SmallVGG(LAYERS, "random")},
        "VGG-16, random": VGG16(LAYERS, "random"),
    }
    held_out = published.photographs(options.data, "val", options.held_out, MEASURED)
    table = agreement(networks, large.cpu(), held_out, (0.1, 0.5, 0.9))
    pulls = directions(networks, large, held_out)
    seconds = speed({"VGG-16": large, "small VGG": networks["small VGG"]})
    facts |= {
        "distilled from": large.describe(),
        "agreement": table,
        "cosine of gradients": pulls,
        "seconds of a loss and its gradient, 120 x 120": seconds,
        "made by": "python -m benchmarks.distil PHOTOS --more T91 BSDS200",
        "license": "the weights were learnt from VGG-16's answers (Oxford, CC BY 4.0)",
    }
    facts["training"] = {name: getattr(options, name) for name in ("steps", "batch_size", "patch_size", "lr")}
    weights = {key: value.half().contiguous() for key, value in small.features.state_dict().items()}
    path = (FOLDER if options.publish else options.out / "weights") / SmallVGG.file
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    facts["weights_sha256"] = weights_sha256(load_file(path))
    published.write_json(facts, path.with_suffix(".json"))
    rows = {
        f"{name}, {layer}": {**kinds, "gradient": pulls[name][layer]}
        for name, layers in table.items()
        for layer, kinds in layers.items()
    }
    times = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
    ratio = seconds["VGG-16"] / seconds["small VGG"]
    return facts, f"{published.table(rows)}\na loss and its gradient, 120 x 120: {times} ({ratio:.1f} times)"


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.distil")
