"""What a GAN changes: SRResNet x4 trained on the MSE, then against a discriminator with more and more of a say.

    uv run python -m benchmarks.srgan --data FOLDER [--feature-weights FILE] [--judge-weights FILE] [--json]

Stage 1 trains srresnet-small with its preset's settings. Each run of stage 2 starts from there and from the same
discriminator, on the same batches; the runs differ in the adversarial term's share of the loss at the start.
Measured on pictures that neither stage trained on (240 x 240 each) and on Set5; nothing is chosen on them: PSNR, SSIM,
the distance in VGG22, which is in the loss, in a deeper layer and in one of SqueezeNet, which are not.
Stopped, it goes on where it stood. Writes figures/reference/srgan.jpg and srgan_tradeoff.jpg, each with its provenance;
with --publish also the weights that come with srkit, srresnet-small-x4 and srgan-small-x4, with their cards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.reference import about, publish, training
from srkit import features, figures, losses, metrics, models
from srkit.banks import open_bank
from srkit.images import crop_to_multiple, degrade
from srkit.models import trained
from srkit.profiles import choose_device
from srkit.training import GANConfig, GANTrainer, TrainConfig, Trainer
from srkit.training.gan import new_discriminator
from srkit.upscaling import upscale

SIDE = 240


@dataclass
class Options:
    """Train SRResNet, and SRGANs from it with the adversarial term at several weights, and compare."""

    data: str
    """A folder of pictures, or a name that `srkit data` lists."""
    train: int = 450
    """How many of them to train on."""
    held_out: int = 50
    """How many others to measure on."""
    test_data: str = "set5"
    """What else to measure on."""
    test_title: str = "Set5"
    """What that is called."""
    feature_weights: str = "imagenet"
    """Weights of VGG-19, whose layer is the content term: imagenet, a file, or random."""
    content: tuple[str, ...] = ("relu1_2", "relu2_2")
    """Its layers: relu2_2 is VGG22; relu1_2 beside it sees the weave that a layer behind a pooling forgives."""
    deeper: str = "relu3_1"
    """A deeper layer of it, which only measures; relu5_4 (VGG54) where the weights hold it."""
    judge_weights: str = "imagenet"
    """Weights of SqueezeNet, which only measures."""
    judge: str = "fire5"
    """Its layer."""
    shares: tuple[float, ...] = (0.0, 0.01, 0.05, 0.25)
    """The adversarial term's shares of the loss at the start, one run each; of the rest MSE is a twentieth."""
    shown: float = 0.05
    """The share whose pictures the figure shows."""
    steps: int = 800
    """Of stage 2, in each run."""
    picture: str = "chelsea"
    """Which bundled test picture the figure shows."""
    part: tuple[int, int, int] = (92, 112, 96)
    """Left, top and width of the part that it magnifies."""
    title: str = ""
    """What the pictures are, for the cards of the weights."""
    publish: bool = False
    """Write the weights into srkit/weights."""
    out: Path = Path("runs/srgan")
    json: bool = False


def stage1(options: Options) -> Trainer:
    """SRResNet on the MSE."""
    config = TrainConfig(**models.PRESETS["srresnet-small"].training, save_freq=250)
    torch.manual_seed(config.seed)
    bank, held_out = (banks_of(options, part) for part in ("train", "val"))
    model = models.create("srresnet-small")
    trainer = Trainer(model, bank, config, validation=held_out, out=options.out / "stage1").pick_up()
    trainer.fit()
    return trainer


def stage2(options: Options, generator: torch.nn.Module, share: float) -> GANTrainer:
    """The same generator against a new discriminator; the weights follow from the share."""
    settings = {**models.PRESETS["srgan-small"].training, "steps": options.steps}
    names = {"mse": 1.0, "content": 1.0, "adversarial": 1.0}
    seen = {"feature_weights": options.feature_weights, "content": options.content}
    config = GANConfig(**{**settings, **seen, "loss": names, "save_freq": 250})
    bank = banks_of(options, "train")
    loss = losses.create(**config.loss_settings(), discriminator=new_discriminator(config))
    batch = bank.batch(0, 16, config.crop, 4, seed=1)
    with torch.no_grad():
        output = generator(batch.low)
    shares = {"mse": 0.05 * (1 - share), "content": 0.95 * (1 - share), "adversarial": share}
    loss.weights = losses.balance(loss, output, batch.high, shares)
    start = models.rebuild(generator, name="srgan-small")
    trainer = GANTrainer(start, bank, config, loss, out=options.out / f"share-{share:g}").pick_up()
    trainer.fit()
    return trainer


def banks_of(options: Options, part: str) -> Any:
    return open_bank(options.data, part, train=options.train, val=options.held_out, device=choose_device())


def card(options: Options, name: str, trainer: Trainer, facts: dict[str, Any]) -> dict[str, Any]:
    """What a published network's card says beside its recipe."""
    test = f"on {options.test_title}"
    return {
        "trained on": options.title or Path(options.data).name,
        **training(trainer),
        "measured": {facts["measured on"]: facts["measured"][name], test: facts[test][name]},
        "bicubic": {facts["measured on"]: facts["measured"]["bicubic"], test: facts[test]["bicubic"]},
        "made by": facts["command"],
        "weights": "half precision; trained by and for srkit, under its licence",
    }


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.srgan")
    first = stage1(options)
    runs = {share: stage2(options, first.result, share) for share in options.shares}
    names = {share: f"GAN, {share:.0%}" for share in runs} | {0.0: "content alone", options.shown: "SRGAN"}

    vgg = features.VGG19(["relu2_2", options.deeper], options.feature_weights)
    squeezenet = features.SqueezeNet([options.judge], options.judge_weights)
    eyes = losses.PerceptualLoss(vgg), losses.PerceptualLoss(squeezenet)
    loss = losses.WeightedLoss({"mse": 1.0, "relu2_2": 0.0, options.deeper: 0.0, options.judge: 0.0}, *eyes)
    methods = {"bicubic": models.create("bicubic", 4), "SRResNet": first.result}
    methods |= {names[share]: run.result for share, run in runs.items()}
    pictures = open_bank(
        options.data, "val", size=SIDE, train=options.train, val=options.held_out, device=choose_device()
    )
    tables = {name: metrics.evaluate(method, pictures, 4, loss) for name, method in methods.items()}
    test = open_bank(options.test_data, "all", device=choose_device())
    on_test = {name: metrics.evaluate(method, test, 4) for name, method in methods.items()}

    facts = {
        "command": "python -m benchmarks.srgan",
        "features": f"{vgg.note}; {squeezenet.note}",
        "adversarial shares": {names[share]: share for share in runs},
        "measured on": f"{len(pictures)} held-out pictures of {SIDE} x {SIDE}",
        "measured": {name: {"psnr": t.psnr, "ssim": t.ssim, **t.terms} for name, t in tables.items()},
        f"on {options.test_title}": {n: {"psnr": t.psnr, "ssim": t.ssim} for n, t in on_test.items()},
        "weights": {names[share]: run.loss.weights for share, run in runs.items()},
        "verdicts": {names[share]: run.verdict() for share, run in runs.items()},
        "seconds": {"SRResNet": first.seconds, **{names[share]: run.seconds for share, run in runs.items()}},
        "models": {
            "SRResNet": about(first.out / "last.pt"),
            **{names[share]: about(run.out / "last.pt") for share, run in runs.items()},
        },
    }
    high = crop_to_multiple(dict(open_bank("bundled", "test"))[options.picture], 4)
    low = degrade(high, 4)
    shown = {"nearest": models.create("nearest", 4), **{n: methods[n] for n in ("bicubic", "SRResNet", "SRGAN")}}
    footer = f"srresnet-small, x4: {first.steps} steps on the MSE, then {options.steps} as a GAN"
    page = figures.comparison(
        {name: upscale(m, low) for name, m in shown.items()}, high, options.part, footer, border=4
    )
    publish(page, "srgan", {**facts, "picture": options.picture})
    points = {name: (table.psnr, table.terms[options.judge]) for name, table in tables.items()}
    sweep = ["SRResNet", *(names[share] for share in sorted(runs))]
    publish(figures.tradeoff(points, f"{options.judge} of SqueezeNet", sweep), "srgan_tradeoff", facts)

    if options.publish:
        for name, trainer in {"SRResNet": first, "SRGAN": runs[options.shown]}.items():
            trained.publish(trainer.result, f"{trainer.result.recipe['name']}-x4", card(options, name, trainer, facts))
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{facts['measured on']}, x4; {facts['features']}")
    columns = ["psnr", "ssim", *loss.weights]
    print(f"{'':12}" + "".join(f"{name:>12}" for name in columns) + f"{options.test_title:>12}")
    for name, row in facts["measured"].items():
        print(f"{name:12}" + "".join(f"{row[c]:12.5g}" for c in columns) + f"{on_test[name].psnr:12.2f}")
    for name, words in facts["verdicts"].items():
        print(f"{name}: {words}")


if __name__ == "__main__":
    main()
