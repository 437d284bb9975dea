"""A run's film to keep: one HTML page that needs no server and no network, and a GIF."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from srkit.data.images import to_uint8
from srkit.live.film import Film, Frame
from srkit.live.gallery import describe, jpeg, png, source
from srkit.live.run import Run
from srkit.live.svg import LEFT, RIGHT, colors_of, draw, term_colors
from srkit.settings import atomic_write

LARGEST = 1_400_000  # bytes of a page
IMAGES = 40  # of a GIF
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")


def page(run: Run, largest: int = LARGEST) -> str:
    """The film as a piece of HTML: a scrubber that moves the pictures, the weights and a mark in the curves together.

    Args:
        run: with a film.
        largest: bytes; frames are left out, evenly, until it fits.
    """
    film = run.film
    assert film is not None  # else there is no dashboard
    curves = draw(film, run.history, film.frames[-1])
    frames, count = list(film.frames), len(film.frames)
    encoded = {id(frame): [source(jpeg(one), "jpeg") for one in frame.details] for frame in frames}
    while True:
        some = _evenly(frames, count)
        pictures = [encoded[id(frame)] for frame in some]
        if count <= 2 or sum(len(one) for images in pictures for one in images) + len(curves) < largest - 200_000:
            break
        count = count * 3 // 4
    data = {
        "pictures": list(film.pictures),
        "frames": [_facts(frame, images, film) for frame, images in zip(some, pictures, strict=True)],
        "truth": [source(png(one)) for one in to_uint8(film.high)],
        "bicubic": [source(png(one)) for one in film.bicubic.details],
        "axis": [LEFT, RIGHT],
        "colors": colors_of(run.trainer.loss.weights),
    }
    features = run.trainer.loss.describe()
    words = [f"{run.step} steps of {run.trainer.seconds:.0f} s", *([f"features: {features}"] if features else [])]
    words += [run.trainer.diagnose()] if run.trainer.diagnose() else []
    facts = json.dumps(data, allow_nan=False).replace("</", "<\\/")
    return (
        f"<style>{STYLE}</style>"
        '<div class="srkit-film"><div class="srkit-film-row"><div class="srkit-film-which"></div>'
        '<label>against <select class="srkit-film-against"><option>bicubic</option><option>ground truth</option>'
        '</select></label></div><div class="srkit-film-row"><div class="srkit-film-stage">'
        '<img class="srkit-film-output" alt="the output"><img class="srkit-film-other" alt="what it is compared with">'
        '<input class="srkit-film-wipe" type="range" min="0" max="100" value="30" aria-label="wipe"></div>'
        '<div class="srkit-film-facts"></div></div>'
        '<div class="srkit-film-row"><button class="srkit-film-play">Play</button>'
        '<input class="srkit-film-time" type="range" min="0" value="0" aria-label="time"></div>'
        f'{curves}<p class="srkit-film-words">{escape("; ".join(words))}</p>'
        f'<script type="application/json">{facts}</script><script>{SCRIPT}</script></div>'
    )


def write_page(run: Run, path: Path) -> None:
    """The film as a file, at most 1.5 MB."""
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    title = f"<title>{escape(path.stem)}</title><body>"
    with atomic_write(path) as draft:
        draft.write_text(head + title + page(run), encoding="utf-8")


def write_gif(run: Run, path: Path, picture: str | None = None) -> None:
    """The film of one picture as a GIF: bicubic, output and ground truth, the weights, and the curves as they grow."""
    film = run.film
    assert film is not None
    index = list(film.pictures).index(picture) if picture else 0
    frames = _evenly(film.frames, IMAGES)
    images = [_image(film, frame, frames[-1].step, index) for frame in frames]
    images = [one.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE) for one in images]
    with atomic_write(path) as draft:
        times = [120] * (len(images) - 1) + [2000]
        images[0].save(draft, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0)


def _image(film: Film, frame: Frame, last: int, index: int) -> Image.Image:
    """One image of the GIF."""
    fig = Figure(figsize=(9, 5.2), dpi=80, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(fig)
    parts: Any = fig.subfigures(2, 1, height_ratios=(3, 2))
    top, bottom = parts
    shown = {
        f"bicubic {film.bicubic.psnr:.2f} dB": film.bicubic.details[index],
        f"step {frame.step}: {frame.psnr:.2f} dB": frame.details[index],
        "ground truth": to_uint8(film.high)[index],
    }
    for ax, (title, picture) in zip(top.subplots(1, 3), shown.items(), strict=True):
        ax.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        ax.set_title(title, fontsize=10)
        ax.axis("off")
    left, right = bottom.subplots(1, 2)
    past = [one for one in film.frames if one.step <= frame.step]
    left.plot([one.step for one in past], [one.psnr for one in past], color="black")
    if math.isfinite(film.bicubic.psnr):
        left.axhline(film.bicubic.psnr, ls="--", lw=1, color="grey")
    left.set(title="PSNR / dB (dashed: bicubic)", xlim=(0, max(1, last)))
    left.set_ylim(*_range([one.psnr for one in film.frames] + [film.bicubic.psnr]))
    values = {name: value for name, value in film.bicubic.terms.items() if value > 0}
    for name, colour in term_colors(film).items():
        if name in values:
            line = [one.terms[name] / values[name] for one in past]
            right.plot([one.step for one in past], line, color=colour, label=f"{name}")
    right.axhline(1, ls="--", lw=1, color="grey")
    right.set(title=f"terms / bicubic's; now {', '.join(describe(frame.weights))}", xlim=(0, max(1, last)))
    right.set_ylim(*_range([one.terms[name] / value for one in film.frames for name, value in values.items()] + [1.0]))
    right.legend(fontsize=7, frameon=False, loc="upper right")
    for ax in (left, right):
        ax.title.set_fontsize(9)
        ax.tick_params(labelsize=8)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _range(values: list[float]) -> tuple[float, float]:
    """Of the 2nd to the 98th percentile, with a margin: one crash must not flatten all else."""
    values = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = torch.tensor(values).quantile(torch.tensor([0.02, 0.98])).tolist()
    margin = 0.1 * (high - low) or 0.1
    return low - margin, high + margin


def _evenly(frames: list[Frame], count: int) -> list[Frame]:
    """So many frames, the first and the last among them."""
    if len(frames) <= count:
        return list(frames)
    return [frames[round(index * (len(frames) - 1) / (count - 1))] for index in range(count)]


def _facts(frame: Frame, images: list[str], film: Film) -> dict[str, object]:
    weights = {name: value for name, value in frame.weights.items() if name != "lr"}
    over = frame.psnr - film.bicubic.psnr  # infinite where nothing is enlarged, and JSON knows no such number
    psnr = round(frame.psnr, 3) if math.isfinite(frame.psnr) else None
    return {"step": frame.step, "psnr": psnr, "images": images, "weights": weights, "lr": frame.weights.get("lr"),
            "loss": {name: round(one, 3) for name, one in frame.loss.items()},
            "over": round(over, 3) if math.isfinite(over) else None}  # fmt: skip
