"""The command `srkit upscale`: photographs in, larger photographs out."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from tyro.conf import Positional, arg

from srkit import inference, models
from srkit.cli.unfinished import kept
from srkit.data import images, photographs
from srkit.models import pretrained
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError, choose_device, choose_precision

Output = Annotated[Path | None, arg(aliases=["-o"])]
EXTRA = {".heic", ".heif", ".avif"}  # not read everywhere; a folder's are named, not skipped
PATIENCE = 60  # seconds: what takes longer is told before it begins
WIPED = 2400  # most pixels along a side of the page that wipes


@dataclass
class Upscale:
    """Enlarge pictures of your own with a trained model: srkit upscale photo.jpg.

    Pictures of any size, grey or colour, with or without alpha, go through in tiles; there are no seams. Colour
    profile, 16 bits, camera data and resolution come through. A file that exists already is left as it is, so that a
    folder that was interrupted can be gone on with; so can a single picture that takes more than a minute.
    """

    # Picture files, or folders with all that is in them, but no NAME_x4 beside its own NAME.
    pictures: Positional[tuple[Path, ...]]
    # A pretrained network, e.g. srcnn915-x3 (srkit inspect lists them); a checkpoint, srkit's or another project's
    # (see srkit inspect -h); or nearest, bilinear or bicubic. If none is named: efficient-x2, -x3 or -x4, by --scale,
    # which suits clean pictures; efficient-photo-x2 or -x4 suits photographs that are noisy, soft, or saved as JPEG.
    checkpoint: str | None = None
    # A folder; or, for one picture, a file. NAME_x4 beside each picture if not given.
    out: Output = None
    # 2, 3 or 4; 4 if neither this nor a checkpoint is given. A checkpoint's model knows its own; one with several
    # outputs gives the largest unless you say which.
    scale: int | None = None
    # png, jpg, tif, webp, …; each picture's own if not given. The largest pictures need the least memory as png.
    format: str | None = None
    # Of a JPEG, WebP, AVIF or HEIC, 1 to 100.
    quality: int = 95
    # Leave out camera, date, place and resolution.
    strip: bool = False
    # Write also a page, NAME_x4.html, that wipes between bicubic and the model.
    compare: bool = False
    # Write anew what exists already.
    overwrite: bool = False
    # Mean of the eight ways of turning and flipping the picture: a little better, eight times the work.
    ensemble: bool = False
    # Side of a tile in pixels of the picture; halved by itself where memory runs out.
    tile: int = inference.TILE
    # bf16 is about twice as fast on processors that compute it, and a few pixels differ by one of the 256 grey levels.
    # auto: bf16 there, fp16 on older GPUs, fp32 else.
    precision: Literal["fp32", "auto", "bf16", "fp16"] = "fp32"
    # cpu, cuda, mps or auto.
    device: str = "auto"

    def __call__(self) -> int:
        file = self.out if self.out and self.out.suffix and not self.out.is_dir() else None
        for suffix in (self.format and f".{self.format.lower()}", file and file.suffix):
            if suffix:
                images.format_of(Path(f"picture{suffix}"), (3, 1, 1))
        name = self.checkpoint or default(self.scale)
        model = load(name, self.scale)
        upscaler = inference.Upscaler(model, self.scale, self.tile, self.precision, self.ensemble, self.device)
        found = [pair for named in self.pictures for pair in _pictures(named)]
        if not found or (file and len(found) > 1):
            raise SRKitError(f"{len(found)} pictures: name one or more, and a folder for --out if there are several")
        stems = [(self.out / inside if self.out else path.parent) / path.stem for path, inside in found]
        alike, made, failed = Counter(stems), set[Path](), []
        for number, ((path, _), stem) in enumerate(zip(found, stems, strict=True), 1):
            # Two pictures of one name have their formats in the names of what is made of them.
            same = f"_{path.suffix[1:].lower()}" if alike[stem] > 1 else ""
            target = file or stem.with_name(f"{stem.name}{same}_x{upscaler.scale}{self._suffix(path)}")
            upscaler.title = f"{number} of {len(found)}" if len(found) > 1 else ""
            try:
                if target in made:
                    raise SRKitError(f"{path}: {target} is made of another picture: rename one of the two")
                made.add(target)
                if target.exists() and not self.overwrite:
                    line = f"{target}: exists already and was left as it is; --overwrite writes it anew"
                else:
                    line = f"{target}: {self.enlarge(upscaler, path, target)}, by {name}"
                print(f"{number} of {len(found)}: {line}" if len(found) > 1 else line, flush=True)
            except (SRKitError, OSError) as error:  # the others go on
                failed.append(str(error))
        for line in failed:
            print(f"srkit: {line}", file=sys.stderr)
        return 2 if failed else 0

    def enlarge(self, upscaler: inference.Upscaler, path: Path, target: Path) -> str:
        """Enlarge one file; returns what there is to say about it."""
        photograph = photographs.read(path)
        low = photograph.pixels
        channels, height, width = len(low), *(upscaler.scale * side for side in low.shape[1:])
        if photograph.format == "JPEG" and photographs.shows_blocks(low) and not self.checkpoint:
            photo = [name for name in pretrained.names() if "-photo-" in name and name.endswith(f"-x{upscaler.scale}")]
            cure = f": --checkpoint {photo[0]} smooths them" if photo else ""
            print(f"{path}: JPEG's blocks are plain, and will be enlarged, too{cure}")
        like = photograph.stripped() if self.strip else photograph
        seconds, rgb = upscaler.seconds(*low.shape[1:]), low.expand(max(3, channels), -1, -1)
        bands, unfinished = upscaler.bands(rgb), None
        if seconds > PATIENCE:
            print(f"{path}: {width} x {height} pixels take about {self._minutes(seconds, low)}", flush=True)
            about: dict[str, Any] = {"picture": sha256(path.read_bytes()).hexdigest(), "scale": upscaler.scale}
            about |= {"network": weights_sha256(upscaler.model.state_dict()), "ensemble": self.ensemble}
            about["precision"] = upscaler.precision
            unfinished = target.with_name(f".{target.name}.unfinished")
            bands = kept(lambda row: upscaler.bands(rgb, row), unfinished, about)
        bands = (band[:channels] for band in bands)
        if self.compare:
            output = torch.cat(list(bands), dim=1)
            bands = iter([output])
            self._compare(low, output, target.with_suffix(".html"))
        photographs.write(bands, target, (channels, height, width), like, self.quality)
        if unfinished:
            shutil.rmtree(unfinished)
        frames = f", the first of {photograph.frames} pictures" if photograph.frames > 1 else ""
        return f"{width} x {height}{frames}"

    def _minutes(self, seconds: float, low: Tensor) -> str:
        """A time in words, with the ways that are faster here: each is measured as `Upscaler.seconds` does."""
        ways: dict[str, dict[str, Any]] = {}
        if not self.checkpoint and self.scale in (None, 3, 4):
            ways["--scale 2"] = {"scale": 2}
        if choose_precision("auto", choose_device(self.device)) != self.precision == "fp32":
            ways["--precision auto"] = {"precision": "auto"}
        if self.ensemble:
            ways["leaving out --ensemble"] = {"ensemble": False}
        times = {}
        for way, change in ways.items():
            own = {"scale": self.scale, "precision": self.precision, "ensemble": self.ensemble, **change}
            model = load(self.checkpoint or default(own["scale"]), own["scale"])
            other = inference.Upscaler(model, tile=self.tile, device=self.device, **own)
            times[way] = other.seconds(*low.shape[1:])
        faster = [f"{way}: about {time / 60:.0f}" for way, time in times.items() if time < 0.7 * seconds]
        return f"{seconds / 60:.0f} minutes here" + (f" ({', '.join(faster)})" if faster else "")

    def _compare(self, low: Tensor, output: Tensor, path: Path) -> None:
        """The page that wipes; of a large picture its middle."""
        from srkit.figures import wipe  # with it comes matplotlib

        scale = output.shape[1] // low.shape[1]
        top, left = (max(0, side - WIPED // scale) // 2 for side in low.shape[1:])
        part = low[:3, top : top + WIPED // scale, left : left + WIPED // scale]
        bicubic = images.resize(images.from_uint8(part) if part.dtype == torch.uint8 else part, scale=scale)
        ours = output[:3, scale * top : scale * top + WIPED, scale * left : scale * left + WIPED]
        wipe(bicubic, ours, ("bicubic", self.checkpoint or default(self.scale)), path.stem, path)

    def _suffix(self, path: Path) -> str:
        own = path.suffix.lower()
        return f".{self.format.lower()}" if self.format else own if own in images.FORMATS and own != ".gif" else ".png"


def default(scale: int | None) -> str:
    """The pretrained network for who names none, of the scale that is asked for.

    Raises:
        SRKitError: another scale than 2, 3 or 4.
    """
    return f"efficient-x{4 if scale is None else images.check_scale(scale)}"


def load(name: str, scale: int | None = None) -> nn.Module:
    """A trained model by its name or its file, or an interpolation by name, which needs a scale.

    Raises:
        SRKitError: none of these, or the scale is missing.
    """
    if name in images.KERNELS:
        if scale is None:
            raise SRKitError(f"{name} can enlarge by any scale: say which, e.g. --scale 3")
        return models.create(name, scale)
    if name in models.PRESETS:
        known = ", ".join(pretrained.names())
        raise SRKitError(f"{name} is not trained yet: name a checkpoint, e.g. runs/{name}-…/best.pt, or one of {known}")
    model = models.load(name)
    if isinstance(model, models.TransformerNet):
        raise SRKitError(f"{name} repaints and does not enlarge: srkit style photo.jpg --checkpoint {name}")
    return model


def _pictures(path: Path) -> list[tuple[Path, Path]]:
    """A picture, or all below a folder, but what was enlarged from one of them; each with its folder inside."""
    if not path.is_dir():
        return [(path, Path())]
    every = sorted(one for one in path.rglob("*") if one.is_file() and one.suffix.lower() in images.SUFFIXES | EXTRA)
    names = {one.parent / one.stem for one in every}
    return [
        (one, one.relative_to(path).parent)
        for one in every
        if (one.parent / re.sub("(_[a-z]+)?_x[234]$", "", one.stem)) not in names - {one.parent / one.stem}
    ]
