"""What features and a discriminator change: efficient-x4 goes on by VGG-16's features alone, and as a GAN.

    uv run python -m benchmarks.srgan my/photos --more t91 my/bsds200 [--feature-weights FILE]
        [--second-weights FILE] [--publish] [--json]

Each run starts from the same network and on the same batches; they differ in the adversarial term's share of the loss
at the start: none, a tenth, and so much that the game breaks. The second is then mixed with where it began, weight by
weight, as Wang et al. do (arXiv 1811.10515); half and half is what is published. Measured on photographs that none has
seen, and on Set5: PSNR, SSIM, the distance in layers of VGG-16, of which relu5_3 is in no loss, in two of SqueezeNet,
which only measures, and BRISQUE, which knows no ground truth, where it can be had. Stopped, it goes on where it stood;
`--shares 0.1` trains that run alone.
Writes srgan.jpg, srgan_tradeoff.jpg, srgan_runs.jpg and srgan.json, which holds the runs' histories, into
figures/reference; --publish puts the mixture's weights into srkit/weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from skimage import data as samples
from torch import Tensor, nn
from tyro.conf import Positional

from benchmarks import perceptual, published, timing
from benchmarks.timing import Facts
from srkit import figures, metrics, models
from srkit.data import ImageDataset, load_dataset
from srkit.data.images import crop_to_multiple, degrade
from srkit.inference import upscale
from srkit.settings import choose_device
from srkit.training import GANConfig, GANTrainer

START, NAME = "efficient-x4", "efficient-gan-x4"
# Shares of what the adversarial term leaves. Without relu1_2, which sees single pixels, a grid lies over everything.
CONTENT = perceptual.FEATURES
LAYERS, SECOND = ("relu3_3", "relu5_3"), ("fire5", "fire9")  # to measure by
SHARES, MIXTURES, ALPHA = (0.0, 0.1, 0.9), (0.25, 0.5, 0.75), 0.5  # of the adversarial term; of the GAN
PARTS = {"face": ("astronaut", 160, 16), "fur": ("chelsea", 80, 60), "letters": ("page", 16, 0)}  # left, top
EYE, SHOWN, VALIDATIONS = ("chelsea", 92, 112), 144, 6


@dataclass(kw_only=True)
class Runs(timing.Options):
    """How runs are trained and measured; `benchmarks.grid` has them, too."""

    data: Positional[str]  # photographs: a folder, or a name that `srkit data` lists
    more: tuple[str, ...] = ()  # folders or names whose pictures are all trained on, too
    held_out: int = 50  # photographs of DATA to measure on, which are not trained on
    set5: str = "set5"  # what else to measure on: its name, which downloads it, or a folder
    feature_weights: str = "imagenet"  # weights of VGG-16: imagenet, a file, or random
    second_weights: str = "imagenet"  # weights of SqueezeNet, which only measures
    steps: int = 1800  # of each run; a third of them for the one that crashes
    tv: float = 0.0  # share of total variation, beside those of the features: a way to less of their grid
    out: Path = Path("runs/srgan")


@dataclass(kw_only=True)
class Options(Runs):
    """Train efficient-x4 on by features, and against a discriminator, mix it with the latter, and compare."""

    shares: tuple[float, ...] = SHARES  # which runs to train; all are needed to compare
    publish: bool = False  # put weights and card into srkit/weights


def title_of(share: float) -> str:
    """What a run is called."""
    return f"GAN, {share:.0%}" if share else "features alone"


def mixture(alpha: float) -> str:
    """What a mixture of the start with the second run is called."""
    return NAME if alpha == ALPHA else f"mixture, {alpha:g}"


def picture(name: str) -> Tensor:
    """A bundled photograph, or scikit-image's scanned page; (3, H, W)."""
    if name == "page":
        return crop_to_multiple(torch.tensor(samples.page()).expand(3, -1, -1) / 255, 4)
    return crop_to_multiple(dict(load_dataset("bundled", "test"))[name], 4)


def bundled() -> ImageDataset:
    """What the runs are validated on: the middle of the bundled photographs."""
    return load_dataset("bundled", "test", size=published.SIDE, device=choose_device())


def part(image: Tensor, left: int, top: int, side: int = SHOWN) -> Tensor:
    """A square of an image."""
    return image[:, top : top + side, left : left + side]


def eye(image: Tensor) -> Tensor:
    """The cat's eye."""
    return part(image, EYE[1], EYE[2], side=96)


class Recorded(GANTrainer):
    """A GANTrainer that keeps at each validation what the network makes of the eye."""

    def validate(self) -> None:
        super().validate()
        assert self.out is not None
        torch.save(eye(upscale(self.result, degrade(picture(EYE[0]), 4))), self.out / f"eye-{self.step_number}.pt")


def train(options: Runs, share: float, content: Mapping[str, float] = CONTENT) -> Recorded:
    """The network that goes on from START; the loss's weights follow from the shares."""
    steps = max(VALIDATIONS, options.steps // (1 if share < 0.5 else 3))  # a crash is seen soon
    settings: dict[str, Any] = {**models.PRESETS["efficient-gan"].training, "steps": steps, "content": ()}
    content = dict(content) | ({"tv": options.tv} if options.tv else {})
    settings["loss"] = {name: weight * (1 - share) for name, weight in content.items()} | {"adversarial": share}
    settings |= {"log_freq": 20, "save_freq": 100, "val_freq": steps // VALIDATIONS}
    config = GANConfig(**settings, feature_weights=options.feature_weights, precision="fp32")
    pictures = published.all_pictures(options.data, options.more, options.held_out, 96)
    torch.manual_seed(0)
    start: Any = models.load(START)
    batch = pictures.batch(0, 16, config.patch_size, start.scale, seed=1)
    loss = published.loss_by_shares(config, config.loss, start, batch)
    trainer = Recorded(start, pictures, config, loss, validation=bundled(), out=options.out / f"share-{share:g}")
    published.train(trainer, progress=not options.json)
    return trainer


def previews(trainers: Mapping[str, Recorded]) -> Figure:
    """The eye at each validation: a row for each run."""
    truth = picture(EYE[0])
    begin = upscale(models.load(START), degrade(truth, 4))
    fig = Figure(figsize=(12, 2 * len(trainers) + 0.2), layout="constrained")
    for axes, (title, trainer) in zip(fig.subplots(len(trainers), VALIDATIONS + 2), trainers.items(), strict=True):
        steps = trainer.history.series("val/dB")[0][-VALIDATIONS:]
        found = {f"step {step}": torch.load(Path(trainer.out or "") / f"eye-{step}.pt") for step in steps}
        shown = {"step 0": eye(begin), **found, "ground truth": eye(truth)}
        for ax, (step, output) in zip(axes, shown.items(), strict=False):
            figures.show(ax, output, step)
        axes[0].set_ylabel(title, fontsize=12)
    return fig


def rounded(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """A history in four digits."""
    return [{name: value if name == "step" else float(f"{value:.4g}") for name, value in row.items()} for row in rows]


def methods_of(trainers: Mapping[str, Recorded]) -> dict[str, nn.Module]:
    """The start, what each run made of it, and mixtures of the second with the start."""
    gan = trainers[title_of(SHARES[1])].result
    methods = {"bicubic": models.create("bicubic", 4), START: models.load(START)}
    methods |= {name: trainer.result for name, trainer in trainers.items()}
    return methods | {mixture(alpha): published.mixed(models.load(START), gan, alpha) for alpha in MIXTURES}


def parts(methods: Mapping[str, nn.Module]) -> Figure:
    """Face, fur and letters by some methods, and the ground truth."""
    rows = []
    for name, left, top in PARTS.values():
        outputs = [upscale(method, degrade(picture(name), 4)) for method in methods.values()]
        rows.append([part(image, left, top) for image in (*outputs, picture(name))])
    return figures.grid(rows, (*methods, "ground truth"), border=4)


def draw(methods: Mapping[str, nn.Module], trainers: Mapping[str, Recorded], facts: Facts, title: str) -> None:
    """Parts of pictures, the runs' previews, and PSNR against a distance."""
    histories = {name: rounded(trainer.history.rows) for name, trainer in trainers.items()}
    page = parts({name: methods[name] for name in ("bicubic", START, NAME)})
    published.publish(page, "srgan", {**facts, "histories": histories})
    published.publish(previews(trainers), "srgan_runs", {"command": facts["command"], "models": facts["models"]})
    measured = {name: one[title] for name, one in facts["measured"].items() if name != "bicubic"}
    points = {name: (one["psnr"], one["fire9"]) for name, one in measured.items()}
    line = [START, *map(mixture, MIXTURES), title_of(SHARES[1])]
    published.publish(figures.tradeoff(points, "fire9 of SqueezeNet", line), "srgan_tradeoff", facts)


def ship(options: Options, model: nn.Module, last: Recorded, facts: Facts) -> None:
    """Write the mixture's weights and card."""
    measured = facts["measured"]
    card = {"start": START, "mixed": facts["mixture"], "seconds": round(last.seconds), "measured": measured[NAME]}
    card |= {"bicubic": measured["bicubic"], "made by": facts["command"]}
    model = models.rebuild(model.cpu(), name=NAME.removesuffix("-x4"))
    published.ship(model, NAME, last, card, None if options.publish else options.out / "weights")


def measure(options: Runs, methods: Mapping[str, nn.Module]) -> tuple[str, Facts, str]:
    """What all methods reach on held-out photographs, whose title comes first, and on Set5; as a table, too."""
    loss = published.judges(LAYERS, SECOND, options.feature_weights, options.second_weights)
    held_out = published.photographs(options.data, "val", options.held_out, published.SIDE)
    tests = {"Set5": load_dataset(options.set5, "all", device=choose_device())}
    title = f"{len(held_out)} held-out pictures of {published.SIDE} x {published.SIDE}"
    measures, remark = metrics.available(["brisque"])
    measured = {}
    for name, method in methods.items():
        table = metrics.evaluate(method, held_out, 4, loss, measures=measures)
        measured[name] = {title: published.measured(table), **published.on_tests(method, tests)}
    table = {name: {**one[title], "Set5 psnr": one["Set5"]["psnr"]} for name, one in measured.items()}
    facts = {"features": loss.describe(), "measured": measured}
    return title, facts, f"{title}, x4; {loss.describe()}; {remark}\n{published.table(table)}"


def run(options: Options) -> tuple[Facts, str]:
    """All runs and mixtures, measured and shown."""
    trainers = {title_of(share): train(options, share) for share in options.shares}
    if options.shares != SHARES:
        return {}, f"trained: {', '.join(trainers)}"
    methods = methods_of(trainers)
    title, found, table = measure(options, methods)
    facts: Facts = {
        "command": "python -m benchmarks.srgan",
        **found,
        "mixture": {"of": [START, title_of(SHARES[1])], "alpha": ALPHA},
        "diagnoses": {name: trainer.diagnose() for name, trainer in trainers.items()},
        "models": {name: published.about(trainer) for name, trainer in trainers.items()},
    }
    draw(methods, trainers, facts, title)
    ship(options, methods[NAME], trainers[title_of(SHARES[1])], facts)
    return facts, "\n".join([table, *(f"{name}: {words}" for name, words in facts["diagnoses"].items())])


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.srgan")
