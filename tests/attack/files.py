"""Hostile files: pictures, checkpoints, cards and presets, spoilt in their bytes and in what they say."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from srkit import models
from srkit.data import load_dataset
from srkit.data.images import read, write
from srkit.live.presets import Presets
from srkit.models import pretrained
from srkit.training import GANConfig, GANTrainer, TrainConfig, Trainer, checkpoint

from .campaign import Campaign, command, spoilt
from .campaign import pictures as small_pictures

SETTINGS: dict[str, Any] = {"patch_size": 16, "batch_size": 2, "steps": 2, "log_freq": 1, "device": "cpu"}


# ---------------------------------------------------------------------------------- pictures


def pictures(count: int, random: Random, folder: Path) -> Campaign:
    """Enlarge spoilt pictures; and read a folder of them."""
    campaign, whole, marker = Campaign("pictures"), _whole_pictures(random), folder / "executed"
    hostile = _hostile_pictures(marker)
    for number in range(count):
        if number < len(hostile):
            suffix, content = hostile[number]
        else:
            suffix, content = random.choice(whole)
            content = spoilt(content, random)
        path, out = folder / f"{number}{suffix}", folder / "out" / f"{number}.png"
        path.write_bytes(content)

        def enlarge(path: Path = path, out: Path = out) -> None:
            status = command("upscale", path, "--checkpoint", "bicubic", "--scale", 2, "-o", out)
            assert status == 0 or not out.exists(), "a picture was left behind"
            if status == 0:
                assert read(out).shape[1:] == tuple(2 * side for side in read(path).shape[1:]), "another size"

        campaign.attempt(path.name, enlarge)
        if number % 50 == 49:
            campaign.attempt(f"folder of {number + 1}", lambda: load_dataset(folder, "all"))
    campaign.check("no program in a picture was run", not marker.exists())
    return campaign


def _whole_pictures(random: Random) -> list[tuple[str, bytes]]:
    """Suffix and content of a picture of each kind."""
    array = small_pictures(random, 1, 20)[0].permute(1, 2, 0).numpy()
    colour, found = Image.fromarray(array), []
    kinds = {".png": ("RGB", "RGBA", "L", "P", "I;16", "1", "LA"), ".jpg": ("RGB", "L", "CMYK"), ".bmp": ("RGB", "L")}
    kinds |= {".tif": ("RGB", "L", "F", "CMYK", "I;16"), ".webp": ("RGB", "RGBA"), ".gif": ("P", "L")}
    for suffix, modes in kinds.items():
        for mode in modes:
            out = io.BytesIO()
            picture = Image.fromarray(array[..., 0].astype(np.uint16) * 257) if mode == "I;16" else colour.convert(mode)
            if mode == "F":
                picture = Image.fromarray(array[..., 0].astype(np.float32) / 255)
            options = {"compression": "tiff_lzw"} if suffix == ".tif" and mode == "RGB" else {}
            picture.save(out, Image.registered_extensions()[suffix], **options)
            found.append((suffix, out.getvalue()))
    return found


def _hostile_pictures(marker: Path) -> list[tuple[str, bytes]]:
    """Pictures that somebody has made on purpose."""
    postscript = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({marker}) (w) file closefile showpage\n".encode()
    found = [(suffix, postscript) for suffix in (".png", ".jpg", ".tif", ".gif")]
    sizes = [(10**8, 1), (1, 10**8), (2**31 - 1, 2**31 - 1), (0, 0), (60_000, 60_000), (2**31, 1)]
    found += [(".png", _png(*size)) for size in sizes]
    found += [(".png", _png(9, 9, texts=[zlib.compress(bytes(10**8))])), (".png", b""), (".png", b"GIF89a")]
    for values in ([math.nan] * 4, [math.inf] * 4, [-1.0] * 4, [1e30] * 4):
        out = io.BytesIO()
        Image.fromarray(np.array(values, np.float32).reshape(2, 2)).save(out, "TIFF")
        found.append((".tif", out.getvalue()))
    found += [(".svg", b"<svg/>"), (".png", b"<svg/>"), (".webp", b"RIFF\xff\xff\xff\xffWEBPVP8 ")]
    out = io.BytesIO()
    frames = [Image.new("L", (9, 9), shade % 256) for shade in range(3000)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return [*found, (".gif", out.getvalue())]


def _png(width: int, height: int, texts: list[bytes] | None = None) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content += b"".join(chunk(b"zTXt", b"Comment\x00\x00" + text) for text in texts or [])
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IDAT", zlib.compress(bytes(10**4))) + chunk(b"IEND", b"")


# ---------------------------------------------------------------------------------- checkpoints


class Payload:
    """What a malicious pickle holds: to read it is to make a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def checkpoints(count: int, random: Random, folder: Path) -> Campaign:
    """Inspect, use, measure and resume from spoilt checkpoints, of a training and of a GAN's."""
    campaign, marker = Campaign(f"checkpoints ({count} files)"), folder / "executed"
    bases = _whole_checkpoints(random, folder)
    for number in range(count):
        path = folder / f"{number}.pt"
        what = _spoil_checkpoint(random.choice(bases), path, marker, random)
        for call in _uses(path, folder):
            campaign.attempt(f"{path.name} ({what})", call)
    campaign.check("nothing in a checkpoint was run", not marker.exists())
    return campaign


def _whole_checkpoints(random: Random, folder: Path) -> list[Path]:
    for number, picture in enumerate(small_pictures(random, 4)):
        write(picture / 255, folder / "in" / f"{number}.png")
    pictures = load_dataset(folder / "in", "train", train=3, val=1)
    validation = load_dataset(folder / "in", "val", train=3, val=1)
    config = TrainConfig(**SETTINGS)
    trainers = [Trainer(models.create("srcnn", 2, channels=(4, 4)), pictures, config, None, validation, folder / "one")]
    settings = {"loss": {"mse": 1.0, "adversarial": 0.01}, "discriminator": 2, "from_scratch": True}
    generator = models.create("srresnet", 2, channels=4, blocks=1)
    trainers += [GANTrainer(generator, pictures, GANConfig(**SETTINGS, **settings), out=folder / "two")]
    for trainer in trainers:
        trainer.fit(progress=False)
    return [folder / name / "last.pt" for name in ("one", "two")]


def _uses(path: Path, folder: Path) -> list[Callable[[], None]]:
    picture, out = folder / "in" / "0.png", folder / f"{path.stem}"

    def upscale() -> None:
        target = out / "up.png"
        if command("upscale", picture, "--checkpoint", path, "-o", target) == 0:
            assert read(target).isfinite().all() and read(target).shape[1] in (48, 72, 96)
        else:
            assert not target.exists()

    def resume() -> None:
        if command("resume", path, "--out", out / "resumed", "--steps", 3) == 0:
            state = checkpoint.load(out / "resumed" / "last.pt")
            assert state["step"] == 3 and all(value.isfinite().all() for value in state["model"].values())

    def inspect() -> None:
        command("inspect", path, *(["--json"] if int(path.stem) % 2 else []))

    def evaluate() -> None:
        command("evaluate", path, "--data", folder / "in")

    return [inspect, upscale, evaluate, resume]


def _spoil_checkpoint(base: Path, path: Path, marker: Path, random: Random) -> str:
    """Write a spoilt checkpoint; returns what was done to it."""
    kind = random.choice(("bytes", "bytes", "packed", "pickle", "payload", *["structure"] * 7))
    if kind == "bytes":
        path.write_bytes(spoilt(base.read_bytes(), random))
    elif kind == "packed":
        with zipfile.ZipFile(base) as plain, zipfile.ZipFile(path, "w") as packed:
            for name in plain.namelist():
                content = bytes(10**8) if name.endswith("/0") else plain.read(name)
                packed.writestr(name, content, zipfile.ZIP_DEFLATED)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(marker), protocol=random.choice((0, 2, 4))))
    else:
        state: Any = torch.load(base, weights_only=True)
        poison = Payload(marker) if kind == "payload" else random.choice(_poisons(random))
        kind = _replace(state, poison, random)
        with warnings.catch_warnings(action="ignore"):
            torch.save(state, path)
    return kind


def _replace(state: Any, poison: Any, random: Random) -> str:
    """Change or remove one thing somewhere in nested dicts and lists; returns where, and what it is now."""
    way: list[Any] = []
    while True:
        keys = [*state] if isinstance(state, dict) else [*range(len(state))]
        way.append(key := random.choice(keys))
        below = state[key]
        if isinstance(below, (dict, list)) and below and random.random() < 0.75:
            state = below
            continue
        remove = random.random() < 0.2
        if remove:
            del state[key]
        else:
            state[key] = poison
        return f"{'/'.join(map(str, way))[:80]} {'is gone' if remove else f'becomes {type(poison).__name__}'}"


def _poisons(random: Random) -> list[Any]:
    laughs: Any = ["ha"] * 10
    for _ in range(12):  # printed, it would be 10^13 words
        laughs = [laughs] * 10
    deep: Any = {}
    for _ in range(200):
        deep = {"x": deep}
    numbers = [None, -1, 0, 1, 3, 10**9, 10**30, 10**5000, 0.5, math.nan, math.inf, -math.inf, True]
    words = ["", "x", "\x1b[2J\x1b]0;owned\x07", "a\nb", "imagenet", "/", "..", "/dev/null", "9" * 10**6]
    tensors = [torch.zeros(3), torch.full((3,), math.nan), torch.zeros(1).expand(10**9), torch.zeros(0)]
    tensors += [torch.zeros(2, dtype=torch.complex64), torch.zeros(9, 9).to_sparse(), torch.zeros(3, dtype=torch.bool)]
    return [*numbers, *words, *tensors, [], {}, [1] * 10**5, {1: 2}, copy.copy(laughs), deep, b"bytes", (1, 2)]


# ---------------------------------------------------------------------------------- cards and presets


def cards(count: int, random: Random, folder: Path) -> Campaign:
    """Load published weights whose card, or which themselves, were changed."""
    campaign = Campaign("cards and their weights")
    model = models.create("srcnn", 2, channels=(4, 4))
    path = pretrained.publish(model, "whole-x2", {"measured": {}, "bicubic": {}}, folder)
    weights, card = path.read_bytes(), path.with_suffix(".json").read_text()
    for number in range(count):
        path = folder / f"n{number}-x2.safetensors"
        changed, facts = spoilt(weights, random) if number % 3 == 0 else weights, json.loads(card)
        text = card.encode()
        if number % 3 == 1:
            text = spoilt(text, random)
        elif number % 3 == 2:
            _replace(
                facts, random.choice([x for x in _poisons(random) if not isinstance(x, (torch.Tensor, bytes))]), random
            )
            try:
                text = json.dumps(facts).encode()
            except (ValueError, RecursionError):
                text = b"[" * 10**5
        path.write_bytes(changed)
        path.with_suffix(".json").write_bytes(text)

        def load(path: Path = path, changed: bytes = changed) -> None:
            models.load(path)
            assert changed == weights, "changed weights were loaded"

        campaign.attempt(path.name, load)
        campaign.attempt(f"{path.name} inspected", lambda path=path: command("inspect", path) and None)
    return campaign


def presets(count: int, random: Random, folder: Path) -> Campaign:
    """A dashboard's presets from spoilt files."""
    campaign, path = Campaign("presets"), folder / "presets.json"
    whole = {"mine": {"mse": 1.0, "l1": 0.5}, "other": {"mse": 0.1, "relu2_2": 1e-3}}
    hostile = [
        b"[" * 10**5,
        b'{"a":' * 10**5,
        b"",
        b"null",
        b'{"a": {"mse": 1e400}}',
        b'{"a": {"mse": 1e308}}',
        b"\xff",
    ]
    hostile += [b'{"a": {"mse": ' + b"9" * 10**4 + b"}}", b'{"a": {"mse": 1e-320}}', b'{"a": {"mse": true}}']
    for number in range(count):
        path.write_bytes(hostile[number] if number < len(hostile) else spoilt(json.dumps(whole).encode(), random))

        def use() -> None:
            found = Presets(["mse", "l1"], {"lesson": {"mse": 1.0}}, path)
            assert "lesson" in found.all()
            for term in ("mse", "l1", "lr"):
                assert all(math.isfinite(value) for _, value in found.stops(term, 1e-3))
            found.save("new", {"mse": 1.0, "l1": 0.0})

        campaign.attempt(f"presets {number}", use)
    return campaign
