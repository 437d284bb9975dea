"""Train every network of the lessons within a given time, on whatever device there is, from one folder of pictures.

    uv run python -m benchmarks.pack runs/pack
    uv run python -m benchmarks.pretrain runs/pack --profile class --minutes 60

At first each network does a few steps, and from their time follows a plan: all the steps that the profile wants or,
where the minutes do not allow them, the same part of them for every network. Stopped at any moment and called again,
it goes on with that plan. OUT then holds the checkpoints, history and card of each network; weights/, whose files
`models.load` takes; and pretrained.md, a table. --publish puts the weights where they come with srkit.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.networks import NETWORKS, Network
from benchmarks.timing import Facts, synchronize
from srkit import models
from srkit.data import ImageDataset, load_dataset
from srkit.losses import WeightedLoss
from srkit.models import pretrained
from srkit.models.presets import label
from srkit.settings import SRKitError, atomic_write, choose_device, unknown
from srkit.training import GANTrainer, TrainConfig, Trainer
from srkit.training.compare import SIX, HalvedDataset, available

HELD_OUT = 50  # photographs on which nothing is trained or chosen
PART = {"quick": 0.01, "class": 1.0, "full": 10.0}  # of the steps in NETWORKS
PROBE = 3  # steps that warm up, and as many that are timed
WORTH = 0.01  # dB on Set5: what half precision may cost
RESERVE = 0.15  # of the time, for validating, measuring and drawing


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train every network of the lessons within a given time."""

    pack: Positional[Path]  # the folder that `benchmarks.pack` made
    # quick: a hundredth of the steps of class, to try it out; full: ten times as many.
    profile: Literal["quick", "class", "full"] = "class"
    minutes: float = 60.0  # how long it may take in all
    networks: tuple[str, ...] = ()  # only these, e.g. srcnn915-x3; all of them if none is named
    vgg16: str = "imagenet"  # weights of VGG-16 behind the perceptual loss: imagenet, a file, or random
    vgg19: str = "imagenet"  # weights of VGG-19 behind the GAN's content term: imagenet, a file, or random
    frozen: str = "imagenet"  # weights of the frozen networks inside superresnet-vgg and -clip: imagenet, or random
    publish: bool = False  # put weights and cards into srkit/weights
    out: Path = Path("runs/pretrained")  # where everything goes


class Pack:
    """The pictures of a folder that `benchmarks.pack` made: those of T91 are all for training, photographs are split.

    Raises:
        SRKitError: no such pack.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "photos").is_dir():
            raise SRKitError(f"{folder} is no pack: make one with python -m benchmarks.pack {folder}")
        self.folder, self.device = folder, choose_device()
        self.opened: dict[tuple, ImageDataset] = {}

    def dataset(self, name: str, split: str = "train", size: int | None = None) -> ImageDataset:
        """Pictures of "t91", "photos" or "set5"."""
        if (name, split, size) not in self.opened:
            val = HELD_OUT if name == "photos" else 0
            opened = load_dataset(self.folder / name, split, size=size, val=val, test=0, device=self.device)
            self.opened[name, split, size] = opened
        return self.opened[name, split, size]

    @cached_property
    def tests(self) -> dict[str, ImageDataset]:
        """What every network is measured on."""
        side = published.SIDE
        held_out = self.dataset("photos", "val", side)
        return {"Set5": self.dataset("set5", "all"), f"{HELD_OUT} held-out photographs, {side} x {side}": held_out}

    def describe(self, name: str) -> str:
        """What a network was trained on, for its card."""
        title = json.loads((self.folder / "pack.json").read_text(encoding="utf-8"))[name]["title"]
        pictures = self.dataset(name)
        return f"{len(pictures)} pictures of {title}; fingerprint {pictures.fingerprint[:12]}"


class Pretraining:
    """The trainings of all networks, in order, with what they share: pictures, device, plan.

    Raises:
        SRKitError: an unknown network, no such pack, or feature weights that cannot be had.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.pack = options, Pack(options.pack)
        for name in options.networks:
            if name not in NETWORKS:
                raise unknown("network", name, NETWORKS)
        can = available(TrainConfig(feature_weights=options.frozen))
        left_out = set() if options.networks else {f"{name}-x4" for name in set(SIX) - set(can)}
        self.names = [name for name in NETWORKS if name in (options.networks or NETWORKS) and name not in left_out]
        self.bicubic: dict[int, dict[str, Facts]] = {}

    def trainer(self, name: str, steps: int, out: Path | None) -> Trainer:
        """The training of a network from its first step on; without a folder, to see how long a step takes."""
        network = NETWORKS[name]
        preset = models.PRESETS[network.preset]
        kind: Any = GANTrainer if preset.gan else Trainer
        config = kind.config_class(**{**preset.training, **network.settings, "steps": steps, "val_freq": 1000})
        model = self.model(name, config.seed, probe=out is None)
        pictures, held_out = self.pack.dataset(network.data), self.pack.dataset("photos", "val", published.SIDE)
        if network.preset == "superresnet":  # in lesson 05 it learns from the same low as its x4 sisters
            pictures, held_out = HalvedDataset(pictures), HalvedDataset(held_out)
        loss = self.loss(config, network, model) if network.shares else None
        return kind(model, pictures, config, loss, validation=held_out, out=out)

    def model(self, name: str, seed: int, probe: bool) -> nn.Module:
        """A network at the start of its training."""
        network = NETWORKS[name]
        torch.manual_seed(seed)
        if network.start:
            path = self.options.out / network.start / "last.pt"
            start = models.load(path) if path.exists() else self.model(network.start, seed, probe)
            label(start, pretrained=path.exists() or probe)  # an untrained one takes as long
            return models.rebuild(start, name=network.preset)
        frozen = "features" in models.PRESETS[network.preset].arguments
        changes = {"feature_weights": self.options.frozen} if frozen else {}
        return models.create(network.preset, network.scale, **changes, **network.arguments)

    def loss(self, config: TrainConfig, network: Network, model: nn.Module) -> WeightedLoss:
        """The loss in which each term has its share of the sum at the start."""
        config = replace(config, feature_weights=getattr(self.options, config.features))
        batch = self.pack.dataset(network.data).batch(0, 16, config.patch_size, network.scale, seed=1)
        first = model if network.start else models.create("bicubic", network.scale)
        return published.loss_by_shares(config, network.shares, first, batch)

    @cached_property
    def plan(self) -> Facts:
        """How many steps each network gets; made once, from timed steps, and kept in OUT/plan.json."""
        path = self.options.out / "plan.json"
        plan = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        wish = {"profile": self.options.profile, "minutes": self.options.minutes}
        if plan and {key: plan[key] for key in wish} != wish:
            raise SRKitError(f"{path} is a plan for {plan['profile']}, {plan['minutes']} minutes: say so, or delete it")
        if plan and not set(self.names) <= set(plan["steps"]):
            raise SRKitError(f"{path} is a plan for {', '.join(plan['steps'])}: name another --out for other networks")
        if not plan:
            seconds = {name: self.seconds_per_step(name) for name in self.names}
            wanted = {name: max(10, round(NETWORKS[name].steps * PART[wish["profile"]])) for name in self.names}
            needed = sum(seconds[name] * wanted[name] for name in self.names)
            part = min(1.0, 60 * wish["minutes"] * (1 - RESERVE) / needed)
            steps = {name: max(10, round(wanted[name] * part)) for name in self.names}
            plan = {**wish, "seconds per step": seconds, "part of the steps": part, "steps": steps}
            published.write_json(plan, path)
        return plan

    def seconds_per_step(self, name: str) -> float:
        """What a step of a network's training takes on this device."""
        trainer = self.trainer(name, 2 * PROBE + 1, None)  # one more: the last one validates
        for _ in range(PROBE):
            next(trainer)
        synchronize(self.pack.device.type)
        start = time.perf_counter()
        for _ in range(PROBE):
            next(trainer)
        synchronize(self.pack.device.type)
        return (time.perf_counter() - start) / PROBE

    def train(self) -> dict[str, Trainer]:
        """Train every network to the end of its plan, or on from where it stopped, and give each its card."""
        trainers = {}
        for name in self.names:
            steps = self.plan["steps"][name]
            timing.log(f"{name}: {steps} steps")
            trainer = self.trainer(name, steps, self.options.out / name)
            trainers[name] = published.train(trainer, progress=not self.options.json)
            self.publish(name, trainer)
        return trainers

    @property
    def weights(self) -> Path:
        """Where weights and cards go."""
        return pretrained.FOLDER if self.options.publish else self.options.out / "weights"

    def publish(self, name: str, trainer: Trainer) -> None:
        """Write the weights, in half precision where that costs Set5 less than 0.01 dB, and the card."""
        model, scale, tests = trainer.result, NETWORKS[name].scale, self.pack.tests
        rounded = copy.deepcopy(model)
        for tensor in rounded.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
        exact, half = (published.on_tests(one, tests) for one in (model, rounded))
        cost = exact["Set5"]["psnr"] - half["Set5"]["psnr"]
        dtype, word = (torch.float16, "half") if cost < WORTH else (torch.float32, "full")
        if scale not in self.bicubic:
            self.bicubic[scale] = published.on_tests(models.create("bicubic", scale), tests)
        card = {
            "trained on": self.pack.describe(NETWORKS[name].data),
            **published.training(trainer),
            "measured": half if cost < WORTH else exact,
            "bicubic": self.bicubic[scale],
            "made by": f"python -m benchmarks.pretrain PACK --profile {self.options.profile}",
            "weights": f"{word} precision (half costs {cost:.4f} dB); trained by and for srkit, under its licence",
        }
        pretrained.publish(model, name, card, self.weights, dtype)


def table(cards: dict[str, Facts]) -> str:
    """The networks and what they reach, as a table for a web page."""
    tests = list(next(iter(cards.values()))["measured"])
    columns = [f"{test}: {word}" for test in tests for word in ("bicubic", "PSNR / dB", "SSIM")]
    lines = ["| network | steps | " + " | ".join(columns) + " |", "|---|---:" + "|---:" * len(columns) + "|"]
    for name, card in cards.items():
        numbers = [
            f"{card['bicubic'][test]['psnr']:.2f} | {found['psnr']:.2f} | {found['ssim']:.4f}"
            for test, found in card["measured"].items()
        ]
        lines.append(f"| {name} | {card['steps']:,} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def run(options: Options) -> tuple[Facts, str]:
    """The command."""
    pretraining = Pretraining(options)
    trainers = pretraining.train()
    cards = {name: pretrained.card(name, pretraining.weights) for name in trainers}
    facts = {"command": "python -m benchmarks.pretrain", "plan": pretraining.plan, "networks": cards}
    with atomic_write(options.out / "pretrained.md") as draft:
        draft.write_text(table(cards) + "\n", encoding="utf-8")
    return facts, table(cards)


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.pretrain")
