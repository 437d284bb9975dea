"""A recorded run at the sliders: what pixels, the feature maps of VGG-16, and both make of the same details.

    uv run python -m benchmarks.film --data my/photos [--feature-weights FILE] [--json]

A pretrained network goes on training by a script of moves: the MSE, feature maps alone, the MSE again, both. Writes
figures/reference/live.html, the page that the dashboard exports, live.gif, and live.json, where they come from.
"""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from benchmarks import published, timing
from benchmarks.timing import Facts
from srkit import live, models
from srkit.data import load_dataset
from srkit.live import export
from srkit.settings import SRKitError, atomic_write, choose_device
from srkit.training import TrainConfig, Trainer

PLACES = {"eye": (110, 96), "face": (190, 90), "cup": (230, 130)}  # of the details, in bundled photographs
PICTURES = {"eye": "chelsea", "face": "astronaut", "cup": "coffee"}
TIMES, GAP, TITLE, COLOURS = 2, 6, 32, 128  # of the GIF
MOVES = {"MSE": 0.0, "features": 0.1, "MSE again": 0.6, "both": 0.75}  # when each begins, as a part of the steps


@dataclass(kw_only=True)
class Options(timing.Options):
    """Train by a script of moves, and film it."""

    data: str  # a folder of pictures, or a name that `srkit data` lists
    start: str = "efficient-x4"  # the pretrained network
    features: str = "vgg16"  # the feature network: vgg16 or small-vgg
    feature_weights: str = "imagenet"  # its weights: imagenet, or a file
    layers: tuple[str, ...] = ("relu2_2", "relu3_3")
    share: float = 0.5  # of the MSE in the loss at the last move
    steps: int = 260
    batch_size: int = 3
    patch_size: int = 64
    lr: float = 5e-4
    out: Path = published.REFERENCE


def run(options: Options) -> tuple[Facts, str]:
    """Film it, and write what is shown."""
    pictures = load_dataset(options.data, device=choose_device())
    torch.manual_seed(0)
    model, layers = models.load(options.start), options.layers
    config = TrainConfig(
        steps=options.steps, batch_size=options.batch_size, patch_size=options.patch_size, lr=options.lr, ema=0.9,
        warmup=0, schedule="constant", features=options.features, feature_weights=options.feature_weights,
        loss={"mse": 1.0, **dict.fromkeys(layers, 0.0)},
    )  # fmt: skip
    batch = pictures.batch(0, 16, config.patch_size, models.scales_of(model)[-1])
    shares = {"mse": options.share, **dict.fromkeys(layers, (1 - options.share) / len(layers))}
    both = published.loss_by_shares(config, shares, model, batch).weights
    trainer = Trainer(model, pictures, config)
    bundled = dict(load_dataset("bundled", "test"))
    film = live.Run(trainer, {name: bundled[picture] for name, picture in PICTURES.items()}, PLACES)
    film.filming = 0.3
    pixels, features = {"mse": 1.0, **dict.fromkeys(layers, 0.0)}, {**both, "mse": 0.0}
    weights = dict(zip(MOVES, (pixels, features, pixels, both), strict=True))
    film.plan = {round(MOVES[name] * options.steps): weights[name] for name in MOVES}
    film.start()
    film.wait()
    if film.error:
        raise SRKitError(film.error)
    assert film.film is not None
    options.out.mkdir(parents=True, exist_ok=True)
    export.write_page(film, options.out / "live.html")
    moving(options.out / "live.html", "eye")
    rows = [
        {"step": one.step, "psnr": one.psnr, "grid": one.grid, **one.terms, "loss": one.loss}
        for one in film.film.frames
    ]
    facts = {
        "command": "python -m benchmarks.film",
        "start": options.start,
        "moves": [move._asdict() for move in film.history.moves],
        "bicubic": {"psnr": film.film.bicubic.psnr, **film.film.bicubic.terms},
        "frames": rows,
        **published.about(trainer),
    }
    published.write_json(facts, options.out / "live.json")
    shown = {f"step {one['step']}": {name: one[name] for name in one if name != "loss"} for one in rows}
    chosen = dict(list(shown.items())[:: max(1, len(shown) // 20)])
    return facts, f"{facts['features']}; {trainer.seconds:.0f} s\n{published.table(chosen)}"


def moving(page: Path, picture: str) -> None:
    """A page's film of one picture as a GIF beside it: bicubic, output, ground truth, each pixel TIMES x TIMES."""
    found = re.search(r'<script type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None  # the page was written just now
    film = json.loads(found[1])
    index, images = film["pictures"].index(picture), list[Image.Image]()
    bicubic, truth = (opened(film[name][index]) for name in ("bicubic", "truth"))
    for frame in film["frames"]:
        shares = ", ".join(f"{share:.0%} {name}" for name, share in frame["loss"].items() if share)
        names = ("bicubic", f"step {frame['step']}\n{shares}", "ground truth")
        side = bicubic.width * TIMES
        image = Image.new("RGB", (3 * side + 2 * GAP, side + TITLE), "white")
        for number, (name, shown) in enumerate(
            zip(names, (bicubic, opened(frame["images"][index]), truth), strict=True)
        ):
            image.paste(shown.resize((side, side), Image.Resampling.NEAREST), (number * (side + GAP), TITLE))
            ImageDraw.Draw(image).text((number * (side + GAP) + 2, 2), name, fill="black", font_size=11)
        images.append(image)
    all_of_them = Image.new("RGB", (images[0].width, len(images) * images[0].height))
    for number, image in enumerate(images):
        all_of_them.paste(image, (0, number * image.height))
    palette = all_of_them.quantize(COLOURS, Image.Quantize.MAXCOVERAGE)  # one for all: what stands still costs nothing
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    with atomic_write(page.with_suffix(".gif")) as draft:
        times = [250] * (len(images) - 1) + [2000]
        images[0].save(draft, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0)


def opened(source: str) -> Image.Image:
    """A picture in a page."""
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.film")
