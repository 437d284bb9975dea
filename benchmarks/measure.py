"""Measure all pretrained networks anew, on the pictures that their cards name, and say what moved.

    uv run python -m benchmarks.measure runs/pack [--photos FOLDER] [--write] [--json]

PACK holds Set5 and the photographs of most cards; --photos is the folder behind those of `benchmarks.srgan`. Only PSNR
and SSIM are measured, of the network and of bicubic. --write puts them into the cards; without it nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from benchmarks import published, timing
from benchmarks.pretrain import Pack
from benchmarks.timing import Facts
from srkit import models
from srkit.data import load_dataset
from srkit.models import pretrained
from srkit.settings import SRKitError, choose_device


@dataclass(kw_only=True)
class Options(timing.Options):
    """Measure all pretrained networks anew, on the pictures that their cards name."""

    pack: Positional[Path]  # the folder that `benchmarks.pack` made
    photos: Path | None = None  # the photographs of benchmarks.srgan: 450 to train on, 50 held out
    weights: Path = pretrained.FOLDER  # the folder of weights and cards
    write: bool = False  # put what was measured into the cards


def run(options: Options) -> tuple[Facts, str]:
    """Every card: what was and what is."""
    tests, side = Pack(options.pack).tests, published.SIDE
    if options.photos:
        title = f"50 held-out pictures of {side} x {side}"
        held_out = load_dataset(options.photos, "val", size=side, train=450, val=50, device=choose_device())
        tests = {**tests, title: held_out}
    facts, lines = {}, []
    for name in pretrained.names(options.weights):
        card = pretrained.card(name, options.weights)
        try:
            model = models.load(options.weights / f"{name}.safetensors")
        except SRKitError as error:  # timm is not installed
            timing.log(f"{name} is left out: {error}")
            continue
        asked = {title: pictures for title, pictures in tests.items() if title in card["measured"]}
        subjects = {"measured": model, "bicubic": models.create("bicubic", models.scales_of(model)[-1])}
        facts[name] = {}
        for key, subject in subjects.items():
            for title, found in published.on_tests(subject, asked).items():
                before = card[key][title]
                facts[name][f"{key}, {title}"] = {word: [before[word], found[word]] for word in ("psnr", "ssim")}
                lines.append(f"{name:24}{key:10}{title:40}{before['psnr']:7.3f} → {found['psnr']:7.3f} dB")
                card[key][title] = {**before, **found}
        if options.write:
            published.write_json(card, options.weights / f"{name}.json")
    return facts, "\n".join(lines)


if __name__ == "__main__":
    timing.command(Options, run, "benchmarks.measure")
