"""Train every network of the lessons within a given time, on whatever device there is, from one folder of pictures.

    uv run python -m benchmarks.pack runs/pack
    uv run python -m benchmarks.course runs/pack --profile class --minutes 60

At first each network does a few steps, and from their time follows a plan: all the steps that the profile wants or,
where the minutes do not allow them, the same part of them for every network. Stopped at any moment and called again,
it goes on with that plan. OUT then holds the checkpoints, history and card of each network; weights/, ready for
`models.load`; course.json, course.md and two figures. --publish puts weights and figures where they come with srkit.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from matplotlib.figure import Figure
from torch import nn
from tyro.conf import Positional

from benchmarks import reference
from benchmarks.measure import synchronize
from srkit import figures, losses, metrics, models
from srkit.banks import Bank, open_bank
from srkit.comparing import SIX, Halved, available
from srkit.errors import SRKitError, unknown
from srkit.images import crop_to_multiple, degrade
from srkit.models import trained
from srkit.profiles import choose_device
from srkit.training import GANConfig, GANTrainer, Trainer, load_model
from srkit.training.gan import new_discriminator
from srkit.upscaling import upscale

HELD_OUT, SIDE = 50, 240  # photographs on which nothing is trained or chosen, and how much of each is measured
PART = {"quick": 0.01, "class": 1.0, "full": 10.0}  # of the steps below
PROBE = 3  # steps that warm up, and as many that are timed
WORTH = 0.01  # dB on Set5: what half precision may cost
PICTURE, BOX = "chelsea", (92, 112, 96)  # what the figure shows: left, top, width
OURS = "trained by and for srkit, under its licence"
RESERVE = 0.15  # of the time, for validating, measuring and drawing


@dataclass(frozen=True)
class Network:
    """How a network of the course is trained: a preset on one of the pack's folders, for so many steps."""

    preset: str
    scale: int
    data: Literal["t91", "photos"]
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)  # those that differ from the preset's
    shares: dict[str, float] = field(
        default_factory=dict
    )  # of each term in the loss at the start; {}: the preset's loss
    start: str = ""  # the network whose weights it begins with


# Small crops: a step then costs a ninth of the workshop's 288 pixels, and teaches nearly as much.
VARIANT = {"crop": 96, "batch_size": 16, "schedule": "cosine"}
SHARE = 0.05  # of the adversarial term; of the rest MSE has a twentieth, and the features have what remains

NETWORKS: dict[str, Network] = {
    "srcnn915-x2": Network("srcnn915", 2, "t91", 12_000),
    "srcnn915-x3": Network("srcnn915", 3, "t91", 12_000),
    "srcnn915-x4": Network("srcnn915", 4, "t91", 12_000),
    "srcnn-x2": Network("srcnn", 2, "t91", 8000),
    "srcnn-x3": Network("srcnn", 3, "photos", 2500),  # the next one's sister, on the MSE alone
    "srcnn-perceptual-x3": Network(
        "srcnn", 3, "photos", 2500, {"features": "vgg16"}, {"mse": 0.1, "relu1_2": 0.45, "relu2_2": 0.45}
    ),
    "superresnet-x2": Network("superresnet", 2, "photos", 6000, {**VARIANT, "crop": 48}),
    "superresnet-multi-x4": Network("superresnet-multi", 4, "photos", 6000, VARIANT),
    "superresnet-residual-x4": Network("superresnet-residual", 4, "photos", 6000, VARIANT),
    "superresnet-dilated-x4": Network("superresnet-dilated", 4, "photos", 6000, VARIANT),
    "superresnet-vgg-x4": Network("superresnet-vgg", 4, "photos", 6000, VARIANT),
    "superresnet-clip-x4": Network("superresnet-clip", 4, "photos", 6000, VARIANT),
    "srresnet-small-x4": Network("srresnet-small", 4, "photos", 3000),
    "srgan-small-x4": Network(
        "srgan-small", 4, "photos", 800, {"content": ("relu1_2", "relu2_2")},
        {"mse": 0.05 * (1 - SHARE), "content": 0.95 * (1 - SHARE), "adversarial": SHARE}, start="srresnet-small-x4",
    ),
}  # fmt: skip


@dataclass
class Options:
    """Train every network of the lessons within a given time."""

    pack: Positional[Path]
    """The folder that `benchmarks.pack` made."""
    profile: Literal["quick", "class", "full"] = "class"
    """quick: a hundredth of the steps of class, to try it out; full: ten times as many."""
    minutes: float = 60.0
    """How long it may take in all."""
    networks: tuple[str, ...] = ()
    """Only these, e.g. srcnn915-x3; all of them if none is named."""
    vgg16: str = "imagenet"
    """Weights of VGG-16 behind the perceptual loss: imagenet, a file, or random."""
    vgg19: str = "imagenet"
    """Weights of VGG-19 behind the GAN's content term: imagenet, a file, or random."""
    frozen: str = "imagenet"
    """Weights of the frozen networks inside superresnet-vgg and -clip: imagenet, or random."""
    out: Path = Path("runs/course")
    """Where everything goes."""
    publish: bool = False
    """Put weights and cards into srkit/weights, and course.* into figures/reference."""
    json: bool = False
    """Print JSON and nothing else."""


class Course:
    """The trainings of all networks, in order, with what they share: pictures, device, plan.

    Raises:
        SRKitError: an unknown network, no such pack, or feature weights that cannot be had.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.device = options, choose_device()
        for name in options.networks:
            if name not in NETWORKS:
                raise unknown("network", name, NETWORKS)
        if not (options.pack / "photos").is_dir():
            raise SRKitError(f"{options.pack} is no pack: make one with python -m benchmarks.pack {options.pack}")
        self.names = [name for name in NETWORKS if name in (options.networks or possible())]
        self.banks: dict[tuple, Bank] = {}
        self.bicubics: dict[int, dict] = {}

    # ------------------------------------------------------------------------------ pictures

    def bank(self, data: str, part: str = "train", size: int | None = None) -> Bank:
        """Pictures of the pack: those of T91 are all for training, and of the photographs HELD_OUT are not."""
        if (data, part, size) not in self.banks:
            val = HELD_OUT if data == "photos" else 0
            deal = {} if part == "all" else {"val": val, "test": 0}
            self.banks[data, part, size] = open_bank(
                self.options.pack / data, part, size=size, **deal, device=self.device
            )
        return self.banks[data, part, size]

    @cached_property
    def tests(self) -> dict[str, Bank]:
        """What every network is measured on."""
        held_out = self.bank("photos", "val", SIDE)
        return {"Set5": self.bank("set5", "all"), f"{HELD_OUT} held-out photographs, {SIDE} x {SIDE}": held_out}

    # ------------------------------------------------------------------------------ trainings

    def trainer(self, name: str, steps: int, out: Path | None) -> Trainer:
        """The training of a network from its first step on; without a folder, to see how long a step takes."""
        network = NETWORKS[name]
        preset = models.PRESETS[network.preset]
        kind = GANTrainer if preset.gan else Trainer
        config = kind.settings(**{**preset.training, **network.settings, "steps": steps, "val_freq": 1000})
        model = self.model(name, config.seed, probe=out is None)
        bank, held_out = self.bank(network.data), self.bank("photos", "val", SIDE)
        if network.preset == "superresnet":  # in lesson 05 it learns from the same low as its x4 sisters
            bank, held_out = Halved(bank), Halved(held_out)
        loss = self.loss(config, network, model) if network.shares else None
        if loss:
            config = replace(config, loss=dict(loss.weights), feature_weights=getattr(self.options, config.features))
        return kind(model, bank, config, loss, validation=held_out, out=out)

    def model(self, name: str, seed: int, probe: bool) -> nn.Module:
        """A network at the start of its training."""
        network = NETWORKS[name]
        torch.manual_seed(seed)
        if network.start:
            path = self.options.out / network.start / "last.pt"
            start = load_model(path) if path.exists() else self.model(network.start, seed, probe)
            start.trained = path.exists() or probe  # an untrained one takes as long
            return models.rebuild(start, name=network.preset)
        looks = "features" in models.PRESETS[network.preset].arguments
        changes = {"feature_weights": self.options.frozen} if looks else {}
        return models.create(network.preset, network.scale, **changes)

    def loss(self, config: Any, network: Network, model: nn.Module) -> losses.WeightedLoss:
        """The loss in which each term has its share of what is lost at the start."""
        config = replace(
            config, loss=dict.fromkeys(network.shares, 1.0), feature_weights=getattr(self.options, config.features)
        )
        judge = {"discriminator": new_discriminator(config)} if isinstance(config, GANConfig) else {}
        loss = losses.create(**config.loss_settings(), **judge)
        low, high = self.bank(network.data).batch(0, 16, config.crop, network.scale, seed=1)
        first = model if network.start else models.create("bicubic", network.scale)
        for part in loss.perceptual:
            part.extractor.to(self.device)
        with torch.no_grad():
            output = first.to(self.device)(low)
        loss.weights = losses.balance(loss, output, high, network.shares)
        return loss

    @cached_property
    def plan(self) -> dict[str, Any]:
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
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".part")
            draft.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
            os.replace(draft, path)
        return plan

    def seconds_per_step(self, name: str) -> float:
        """What a step of a network's training takes on this device."""
        trainer = self.trainer(name, 2 * PROBE + 1, None)  # one more: the last one validates
        for _ in range(PROBE):
            next(trainer)
        synchronize(self.device.type)
        start = time.perf_counter()
        for _ in range(PROBE):
            next(trainer)
        synchronize(self.device.type)
        return (time.perf_counter() - start) / PROBE

    def train(self) -> dict[str, Trainer]:
        """Train every network to the end of its plan, or on from where it stopped, and give each its card."""
        trainers = {}
        for name in self.names:
            trainer = self.trainer(name, self.plan["steps"][name], self.options.out / name).pick_up()
            print(f"{name}: step {trainer.step_number} of {trainer.steps}", file=sys.stderr, flush=True)
            trainer.fit(progress=not self.options.json)
            if trainer.interrupted:
                raise KeyboardInterrupt
            self.publish(name, trainer)
            trainers[name] = trainer
        return trainers

    # ------------------------------------------------------------------------------ what came of it

    def measure(self, model: nn.Module, scale: int, tests: Sequence[str]) -> dict[str, dict[str, float]]:
        """PSNR and SSIM of a model on some of the tests."""
        tables = {test: metrics.evaluate(model, self.tests[test], scale) for test in tests}
        return {test: {"psnr": table.psnr, "ssim": table.ssim} for test, table in tables.items()}

    def bicubic(self, scale: int) -> dict[str, dict[str, float]]:
        """What bicubic reaches on all the tests; the same for every network of that scale."""
        if scale not in self.bicubics:
            self.bicubics[scale] = self.measure(models.create("bicubic", scale), scale, list(self.tests))
        return self.bicubics[scale]

    def publish(self, name: str, trainer: Trainer) -> None:
        """Write the weights, in half precision where that costs Set5 less than 0.01 dB, and the card."""
        model, scale = trainer.result, trainer.model.scale
        rounded = copy.deepcopy(model)
        rounded.load_state_dict({key: value.half().to(value.dtype) for key, value in model.state_dict().items()})
        exact, half = (self.measure(one, scale, ["Set5"])["Set5"]["psnr"] for one in (model, rounded))
        halved = exact - half < WORTH
        card = {
            "trained on": self.described(NETWORKS[name].data),
            **reference.training(trainer),
            "measured": self.measure(rounded if halved else model, scale, list(self.tests)),
            "bicubic": self.bicubic(scale),
            "made by": f"python -m benchmarks.course PACK --profile {self.options.profile}",
            "weights": f"{'half' if halved else 'full'} precision (half costs {exact - half:.4f} dB); {OURS}",
        }
        folder = trained.FOLDER if self.options.publish else self.options.out / "weights"
        trained.publish(model, name, card, folder, torch.float16 if halved else torch.float32)

    def described(self, data: str) -> str:
        """What a network was trained on."""
        title = json.loads((self.options.pack / "pack.json").read_text(encoding="utf-8"))[data]["title"]
        return f"{len(self.bank(data))} pictures of {title}; fingerprint {self.bank(data).fingerprint[:12]}"


def possible() -> list[str]:
    """The networks that can be trained here: without timm there is no CLIP, and a line says so."""
    left_out = {f"{name}-x4" for name in set(SIX) - set(available())}
    return [name for name in NETWORKS if name not in left_out]


def draw(course: Course, trainers: dict[str, Trainer], facts: dict[str, Any]) -> None:
    """The same part of one picture by every x4 network, and how each of them learnt."""
    out = reference.FOLDER if course.options.publish else course.options.out
    large = {name.removesuffix("-x4"): trainer for name, trainer in trainers.items() if trainer.model.scale == 4}
    if not large:
        return
    high = crop_to_multiple(dict(open_bank("bundled", "test"))[PICTURE], 4)
    low = degrade(high, 4)
    outputs = {"bicubic": upscale(models.create("bicubic", 4), low)}
    outputs |= {name: upscale(trainer.result.cpu(), low) for name, trainer in large.items()}
    notes = dict.fromkeys(trainer.model.note for trainer in large.values() if getattr(trainer.model, "note", ""))
    footer = "the networks of the course that enlarge by 4" + "".join(f"; {note}" for note in notes)
    reference.publish(figures.comparison(outputs, high, BOX, footer, border=4), "course", facts, out)
    reference.publish(learning(large), "course_curves", {"command": facts["command"], "see": "course.json"}, out)


def learning(trainers: dict[str, Trainer]) -> Figure:
    """The validation PSNR of each training over its steps."""
    fig = Figure(figsize=(figures.INCHES, 5), layout="constrained")
    ax = fig.add_subplot()
    for name, trainer in trainers.items():
        ax.plot(*trainer.history.series("val/dB"), ".-", label=name)
    ax.set(xlabel="step", ylabel="PSNR on luma / dB")
    ax.set_title(f"{HELD_OUT} held-out photographs, {SIDE} x {SIDE}, x4", loc="left")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def table(facts: dict[str, Any]) -> str:
    """The networks and what they reach, as a table for a web page."""
    tests = list(next(iter(facts["networks"].values()))["measured"])
    columns = [f"{test}: {word}" for test in tests for word in ("bicubic", "PSNR / dB", "SSIM")]
    lines = ["| network | steps | " + " | ".join(columns) + " |", "|---|---:" + "|---:" * len(columns) + "|"]
    for name, card in facts["networks"].items():
        numbers = [
            f"{card['bicubic'][test]['psnr']:.2f} | {found['psnr']:.2f} | {found['ssim']:.4f}"
            for test, found in card["measured"].items()
        ]
        lines.append(f"| {name} | {card['steps']:,} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.course")
    try:
        course = Course(options)
        trainers = course.train()
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
    except SRKitError as error:
        sys.exit(str(error))
    folder = trained.FOLDER if course.options.publish else course.options.out / "weights"
    cards = {name: trained.card(name, folder) for name in trainers}
    facts = {"command": "python -m benchmarks.course", "plan": course.plan, "networks": cards}
    draw(course, trainers, facts)
    (course.options.out / "course.md").write_text(table(facts) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=2) if course.options.json else table(facts))


if __name__ == "__main__":
    main()
