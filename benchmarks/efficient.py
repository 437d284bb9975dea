"""The networks that `srkit upscale` takes: efficient-x4, -x2, -x3, and efficient-photo-x4, -x2, from nothing.

    uv run python -m benchmarks.efficient my/photos --more t91 my/bsds200 [--average FILE] [--publish] [--json]

Called again after it was stopped, it goes on. x4 comes first; x2 and x3 start from its body and learn a new last
convolution; those for photographs as they are start from their clean sister, and learn and are measured on LR that is
blurred, noisy and saved as JPEG (`data.degradation`). The learning rate rises, stays, and falls in a straight line over
the last part of the steps (--cooldown), in which the mean squared error takes the place of the absolute one: the same
command with more --steps therefore lengthens a training that has ended, and --again goes on from the network that ships
where its run is gone. Two ends of one training, averaged weight by weight, are better than either (Wortsman et al.,
"Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import models
from srkit.data import Batch, load_dataset
from srkit.models.efficient import ExpandedConv
from srkit.settings import SRKitError, choose_device, unknown
from srkit.training import TrainConfig, Trainer, checkpoint

START = {"x2": "x4", "x3": "x4", "photo-x4": "x4", "photo-x2": "x2"}  # from whose weights, where they fit
MUON = 6.0  # a kernel's learning rate, as a multiple of all others'
PATCH = 24  # side of a patch of low, in pixels


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train efficient-x4, and the others from it."""

    data: Positional[str]  # photographs: a folder, or a name that `srkit data` lists
    more: tuple[str, ...] = ()  # folders or names whose pictures are all trained on, too
    held_out: int = 50  # photographs of DATA to measure on, which are not trained on
    set5: str = "set5"  # what else to measure on: its name, which downloads it, or a folder
    smaller: float | None = None  # learn from each picture at this part of its size, too, say 0.6
    networks: tuple[str, ...] = ("x4", "x2", "x3", "photo-x4", "photo-x2")  # which to train, in this order
    again: bool = False  # each starts from the network of its name that ships, and none from a run
    steps: int = 3400  # of x4; more are better
    cooldown: float = 0.45  # the last part of them, in which the learning rate falls to zero, on the MSE
    finetune: int = 900  # steps of each of the others
    finetune_cooldown: float = 0.6  # the last part of those
    lr: float = 1e-3  # of x4; half of it for the others
    photo: float = 1.0  # strength of the degradation of those for photographs
    batch_size: int = 16  # patches in a batch
    average: Path | None = None  # x4's weights of before it was lengthened: both, cooled, are averaged
    publish: bool = False  # put weights and cards into srkit/weights
    out: Path = Path("runs/efficient")  # where everything goes


class Muon(torch.optim.Optimizer):
    """Square kernels move by the orthogonal matrix nearest to their gradient's average, all else by Adam.

    Jordan et al., "Muon", 2024: every direction of a kernel, as a matrix (outputs, 9 inputs), is then learnt equally
    fast. Five steps of Newton and Schulz's iteration come near enough to the orthogonal matrix.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, factor: float) -> None:
        groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for parameter in parameters:
            groups[parameter.ndim == 4 and len(parameter) == parameter.shape[1]].append(parameter)
        super().__init__([{"params": groups[False], "lr": lr}, {"params": groups[True], "lr": factor * lr}], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        others, kernels = self.param_groups
        for shape in {kernel.shape for kernel in kernels["params"]}:
            alike = [kernel for kernel in kernels["params"] if kernel.shape == shape]
            gradients = [kernel.grad.lerp(self.average(kernel, 0.95), 0.95).flatten(1) for kernel in alike]
            for kernel, move in zip(alike, orthogonal(torch.stack(gradients)), strict=True):
                kernel.sub_(move.view_as(kernel), alpha=kernels["lr"])
        for parameter in others["params"]:
            state, mean = self.state[parameter], self.average(parameter, 0.9)
            square = state.setdefault("square", torch.zeros_like(parameter))
            square.mul_(0.99).addcmul_(parameter.grad, parameter.grad, value=0.01)
            count = state["count"] = state.get("count", 0) + 1
            root = (square / (1 - 0.99**count)).sqrt().add_(1e-8)
            parameter.addcdiv_(mean / (1 - 0.9**count), root, value=-others["lr"])

    def average(self, parameter: nn.Parameter, decay: float) -> Tensor:
        """The running average of a parameter's gradient, with the newest one."""
        return self.state[parameter].setdefault("mean", torch.zeros_like(parameter)).lerp_(parameter.grad, 1 - decay)


def orthogonal(x: Tensor) -> Tensor:
    """The orthogonal matrices nearest to (N, rows, columns), about: singular values end between 0.7 and 1.2."""
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x


class Cooling(Trainer):
    """A Trainer whose learning rate stays until the last `cooldown` steps, which minimise the MSE."""

    cooldown = 1

    def step(self, batch: Batch) -> dict[str, Tensor]:
        left = self.steps - self.step_number
        cooling = left <= self.cooldown
        self.change(charbonnier=float(not cooling), mse=float(cooling))  # also back, if a training is lengthened
        for group in self.optimizer.param_groups:
            group["lr"] *= min(1.0, left / self.cooldown)
        return super().step(batch)


@torch.no_grad()
def expand(plain: nn.Module, wide: nn.Module) -> None:
    """Give a network with branches a plain one's function: the 3 x 3 branches take what the others lack."""
    for name, layer in wide.named_modules():
        one: Any = plain.get_submodule(name)
        if isinstance(layer, ExpandedConv):
            layer.square += one.weight - layer.kernel()
            layer.bias.copy_(one.bias)
        elif isinstance(layer, nn.Conv2d):
            layer.load_state_dict(one.state_dict())


def train(options: Options, network: str) -> Cooling:
    """One network, to its end, or on from where it stopped.

    Raises:
        SRKitError: an unknown network, or one whose start is not there yet.
    """
    if network != "x4" and network not in START:
        raise unknown("network", network, ["x4", *START])
    steps, part, lr, scale = options.steps, options.cooldown, options.lr, int(network[-1])
    photo = options.photo if network.startswith("photo") else None
    torch.manual_seed(0)
    model = models.create("efficient", scale, expand=True)
    if network in START:
        steps, part, lr = options.finetune, options.finetune_cooldown, options.lr / 2
    if options.again:
        expand(models.load(f"efficient-{network}"), model)
    elif network in START:
        start, own = options.out / START[network] / "last.pt", model.state_dict()
        if not start.exists():
            raise SRKitError(f"{start} is missing: {network} starts from {START[network]}, so train it first")
        kept = {key: value for key, value in checkpoint.load(start)["ema"].items() if value.shape == own[key].shape}
        model.load_state_dict({**own, **kept})
    config = TrainConfig(
        steps=steps, batch_size=options.batch_size, patch_size=scale * PATCH, lr=lr,
        loss={"charbonnier": 1.0, "mse": 0.0}, save_freq=200,
    )  # fmt: skip
    trainer = Cooling(
        model,
        published.all_pictures(options.data, options.more, options.held_out, config.patch_size, photo, options.smaller),
        config,
        validation=published.photographs(options.data, "val", options.held_out, published.SIDE, photo),
        out=options.out / network,
        optimizer=partial(Muon, lr=lr, factor=MUON),
    )
    trainer.cooldown = max(1, round(part * steps))
    published.train(trainer, progress=not options.json)
    return trainer


def publish(options: Options, trainer: Cooling, network: str) -> Facts:
    """Write the plain network, in half precision, and its card, which is returned."""
    scale = trainer.model.scale
    photo: Any = trainer.dataset.degradation
    spoilt = ", LR spoilt as photographs are" if photo else ""
    tests = {
        f"{options.held_out} held-out pictures of {published.SIDE} x {published.SIDE}{spoilt}": trainer.validation,
        f"Set5{spoilt}": load_dataset(options.set5, "all", photo=photo and photo.strength, device=choose_device()),
    }
    wide: Any = trainer.result
    plain = wide.merged()
    earlier = options.average if network == "x4" else None
    start = f"efficient-{START[network]}" if network in START else "nothing"
    if options.again:
        start = f"efficient-{network} as it was before"
    if earlier:
        published.mixed(plain, models.load(earlier), 0.5)
    plain.half().float()  # what is stored is what is measured
    card = {
        **({"smaller copies": options.smaller} if options.smaller else {}),
        **({"degradation": f"blur, noise, JPEG, twice; strength {photo.strength:g}"} if photo else {}),
        **({"averaged with": "itself, shorter and cooled before"} if earlier else {}),
        "stages": {"charbonnier": trainer.steps - trainer.cooldown, "mse, cooling": trainer.cooldown},
        "optimizer": f"Muon for the kernels, {MUON} x the learning rate; Adam for all else",
        "start": start,
        "seconds": round(trainer.seconds),
        "measured": published.on_tests(plain, tests),
        "bicubic": published.on_tests(models.create("bicubic", scale), tests),
        "made by": "python -m benchmarks.efficient",
    }
    folder = None if options.publish else options.out / "weights"
    return published.ship(plain, f"efficient-{network}", trainer, card, folder)


def run(options: Options) -> tuple[Facts, str]:
    """The networks, one after the other."""
    cards = {f"efficient-{one}": publish(options, train(options, one), one) for one in options.networks}
    lines = [
        f"{name}, {test}: {found['psnr']:.2f} dB, bicubic {card['bicubic'][test]['psnr']:.2f}"
        for name, card in cards.items()
        for test, found in card["measured"].items()
    ]
    return {"command": "python -m benchmarks.efficient", "networks": cards}, "\n".join(lines)


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.efficient")
