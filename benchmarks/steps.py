"""What the textbook, an experienced student and srkit do in turn: steps of training, batches of pictures, enlargements.

The course's SRCNN (9-5-5, x2, 240 x 240) is trained on the MSE, and on MSE and VGG-16's relu1_2 to relu4_3; the GAN's
two networks (srresnet-small x4, a discriminator of 32 filters, pictures of 96 x 96) on MSE, VGG-19's relu2_2 and the
adversarial loss. Feature networks have random weights, which cost what trained ones cost. srkit's dataset and Trainer
are used as they come. Large pictures are enlarged by SRCNN from bytes to bytes: in one piece, and by `Upscaler`.

    python -m benchmarks.steps mse srkit --folder JPEGS --size 4

is the process that the one run starts for a side, see `timing.Side`.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tyro.conf import Positional

from benchmarks import textbook, timing
from benchmarks.textbook import SCALE, SIDE, Author, files_of, load, make_folder
from benchmarks.timing import SRKIT, STUDENT, TEXTBOOK, Facts, Side
from srkit import models
from srkit.data import ImageDataset, load_dataset
from srkit.inference import Upscaler
from srkit.settings import choose_precision
from srkit.training import GANConfig, GANTrainer, TrainConfig, Trainer

FOREVER = 1_000_000  # steps
GAN_SIDE, GAN_SCALE, FILTERS = 96, 4, 32
PROCESSES = int(os.environ.get("WORLD_SIZE", 1))  # that a launcher started to train together


@dataclass
class Place:
    """Where and with what a side works."""

    folder: Path  # of JPEG files
    size: float  # pictures in a batch, or megapixels
    device: str

    def dataset(self, side: int = SIDE) -> ImageDataset:
        """srkit's."""
        return load_dataset(self.folder, "all", size=side, device=self.device)

    def pairs(self, side: int = SIDE, scale: int = SCALE) -> Iterator:
        """The textbook's batches."""
        return load(textbook.PairedPictures(files_of(self.folder), side, scale), int(self.size), self.device)

    def settings(self, patch_size: int = SIDE) -> Facts:
        """srkit's training."""
        batch_size = int(self.size) * PROCESSES
        return {"steps": FOREVER, "batch_size": batch_size, "patch_size": patch_size, "device": self.device}


Make = Callable[[Place], Iterator]

# ---------------------------------------------------------------------------------- training


def by_hand(place: Place, loop: str, experienced: bool) -> Iterator:
    """One of the loops of one's own."""
    return getattr(Author(experienced, place.device), loop)(place.pairs())


def mse(place: Place) -> Iterator:
    return Trainer(models.create("srcnn", SCALE), place.dataset(), TrainConfig(**place.settings()))


def perceptual(place: Place, augment: bool = True) -> Trainer:
    loss = {"mse": 1.0, **dict.fromkeys(textbook.VGG16, textbook.WEIGHT)}
    config = TrainConfig(**place.settings(), loss=loss, feature_weights="random", augment=augment)
    return Trainer(models.create("srcnn", SCALE), place.dataset(), config)


def without_flips(place: Place) -> Iterator:
    """Pictures that are always alike, as the textbook's are: after an epoch their features are kept."""
    trainer = perceptual(place, augment=False)
    for _ in range(math.ceil(len(trainer.dataset) / place.size)):
        next(trainer)
    yield from trainer


def gan(place: Place) -> Iterator:
    loss = {"mse": 1.0, "relu2_2": textbook.WEIGHT, "adversarial": textbook.ADVERSARIAL}
    rest = {"feature_weights": "random", "discriminator": FILTERS, "from_scratch": True}
    config = GANConfig(**place.settings(GAN_SIDE), loss=loss, **rest)
    return GANTrainer(models.create("srresnet-small", GAN_SCALE), place.dataset(GAN_SIDE), config)


def gan_by_hand(place: Place, experienced: bool) -> Iterator:
    networks = models.create("srresnet-small", GAN_SCALE), models.Discriminator(FILTERS)
    return Author(experienced, place.device).gan(place.pairs(GAN_SIDE, GAN_SCALE), *networks)


# ---------------------------------------------------------------------------------- pictures


def batches(place: Place) -> Iterator:
    dataset = place.dataset()
    return (dataset.batch(step, int(place.size), SIDE, SCALE) for step in itertools.count())


def saved_pairs(place: Place) -> Iterator:
    folder = place.folder.parent / "saved"
    textbook.save_pairs(sorted(place.folder.glob("*.jpg")), folder)
    names = [path.stem for path in files_of(place.folder)]
    return load(textbook.SavedPairs(names, folder), int(place.size), place.device)


def high_pictures(place: Place) -> Iterator:
    return textbook.with_low(load(textbook.HighPictures(files_of(place.folder)), int(place.size), place.device))


def upscaling(place: Place, tiles: bool) -> Iterator:
    """Enlarge a random picture to so many megapixels again and again; first a small one, to warm up."""
    model = models.create("srcnn", SCALE).to(place.device).eval()
    upscaler = Upscaler(model)

    @torch.inference_mode()
    def in_one_piece(low: Tensor) -> Tensor:
        output = model((low.float() / 255)[None].to(place.device))
        return (output.clamp(0, 1) * 255).round().byte()[0].cpu()

    for megapixels in itertools.chain((0.05, 0.05), itertools.repeat(place.size)):
        height = round((megapixels * 1e6 / SCALE**2 / 1.2) ** 0.5)
        low = torch.randint(0, 256, (3, height, round(1.2 * height)), dtype=torch.uint8)
        yield upscaler(low) if tiles else in_one_piece(low)


# ---------------------------------------------------------------------------------- the comparisons


@dataclass(frozen=True)
class Comparison:
    """What is compared: sides, and the rows of the table, each with the sides in its columns."""

    sides: dict[str, Make]
    rows: dict[str, dict[str, str]]  # title: {column: side}
    sizes: Sequence[float]  # pictures in a batch, or megapixels
    unit: str = "pictures/s"
    moved: float = 0  # the least number of bytes that must be read and written for one picture, where that is known
    counted: bool = True  # whether arithmetic is what counts
    lead_in: int = 0  # untimed steps of each turn: they take what the textbook's workers prepared while others ran
    largest: float = math.inf  # size; beyond it srkit works alone


def training(loop: str, **srkit: Make) -> dict[str, Make]:
    """A loop of one's own, by both authors, and srkit's."""
    own = {TEXTBOOK: partial(by_hand, loop=loop, experienced=False)}
    return {**own, STUDENT: partial(by_hand, loop=loop, experienced=True), **srkit}


ALL = {TEXTBOOK: TEXTBOOK, STUDENT: STUDENT, SRKIT: SRKIT}
NUMBERS = 3 * SIDE**2  # of a picture: its bytes are read, high is written and read again, low is written
COMPARISONS = {
    "mse": Comparison(training("mse", srkit=mse), {"MSE step": ALL}, (4, 16)),
    "perceptual": Comparison(
        training("perceptual", srkit=perceptual, without_flips=without_flips),
        {"perceptual step": ALL, "perceptual step, without flips": {**ALL, SRKIT: "without_flips"}},
        (4,),
    ),
    "gan": Comparison(
        {
            TEXTBOOK: partial(gan_by_hand, experienced=False),
            STUDENT: partial(gan_by_hand, experienced=True),
            SRKIT: gan,
        },
        {"GAN step": ALL},
        (16,),
    ),
    "pipeline": Comparison(
        {TEXTBOOK: Place.pairs, "saved": saved_pairs, "high": high_pictures, SRKIT: batches},
        {
            "data, a pair made per item": {TEXTBOOK: TEXTBOOK, SRKIT: SRKIT},
            "data, both sizes saved": {TEXTBOOK: "saved", SRKIT: SRKIT},
            "data, low made per batch": {TEXTBOOK: "high", SRKIT: SRKIT},
        },
        (16,),
        moved=NUMBERS * (1 + 4 + 4 + 4 / SCALE**2),
        counted=False,
        lead_in=5,
    ),
    "upscaling": Comparison(
        {TEXTBOOK: partial(upscaling, tiles=False), SRKIT: partial(upscaling, tiles=True)},
        {"upscaling": {TEXTBOOK: TEXTBOOK, SRKIT: SRKIT}},
        (1, 10),
        unit="megapixels/s",
        counted=False,
        largest=20,
    ),
}


def compare(
    part: str,
    about: Facts,
    rounds: int,
    seconds: float,
    files: int,
    sizes: Sequence[float] = (),
    environment: Mapping[str, str] | None = None,
) -> Facts:
    """One comparison: its sides in turn, at each size.

    Args:
        part: of COMPARISONS.
        about: what `timing.machine` says.
        seconds: that a turn takes, and one step at least.
        files: JPEG files to read.
        sizes: pictures in a batch, or megapixels; the comparison's own if not given.
        environment: variables of srkit's processes.

    Returns:
        rows, see `timing.row`.
    """
    comparison, rows = COMPARISONS[part], []
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder) / "jpeg", files)
        for size in sizes or comparison.sizes:
            alone = size > comparison.largest
            settings = ["--folder", f"{folder}/jpeg", "--size", str(size), "--device", about["device"]]
            settings += ["--seconds", str(seconds)]
            names = [SRKIT] if alone else list(comparison.sides)
            own = {name: {} if name in (TEXTBOOK, STUDENT) else environment or {} for name in names}
            command = ["-m", "benchmarks.steps", part]
            sides = {name: Side([*command, name, *settings], environment=own[name]) for name in names}
            answers = timing.in_turn(sides, rounds)
            for title, columns in comparison.rows.items():
                found = {column: answers[side] for column, side in columns.items() if side in answers}
                what = f"{title}, {'batch ' if comparison.unit == 'pictures/s' else ''}{size:g}"
                rows.append(timing.row(what, comparison.unit, found, about, comparison.moved))
    return {"rows": rows}


# ---------------------------------------------------------------------------------- a worker


def work(
    part: Positional[str], side: Positional[str], folder: Path, size: float, device: str = "cpu", seconds: float = 2.0
) -> None:
    """One side of a comparison: two steps to warm up, of which PyTorch counts the arithmetic of the second; then turns.

    Of several processes that train together the first answers, for all.
    """
    comparison = COMPARISONS[part]
    steps = iter(comparison.sides[side](Place(folder, size, device)))
    next(steps)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    fast = choose_precision("auto", torch.device(device))
    fast_author = side == STUDENT and fast == "bf16"  # the student does without a scaler
    own = fast_author or (side not in (TEXTBOOK, STUDENT) and comparison.counted)
    facts: Facts = {"precision": fast if own else "fp32"}
    if comparison.counted:
        facts["gflop"] = counter.get_total_flops() / size / 1e9

    def agreed(go: bool) -> bool:
        """What the first of the processes says, in all of them."""
        flag = torch.tensor(go)
        if PROCESSES > 1:
            torch.distributed.broadcast(flag, 0)
        return bool(flag)

    def turn() -> Facts:
        for _ in range(comparison.lead_in):
            next(steps)
        timing.synchronize(device)
        start, count = time.perf_counter(), 0
        while agreed(not count or time.perf_counter() - start < seconds):
            next(steps)
            count += 1
        timing.synchronize(device)
        rate = count * size * PROCESSES / (time.perf_counter() - start)
        return {**facts, "rate": rate, "peak_megabytes": timing.peak_megabytes(device)}

    if int(os.environ.get("RANK", 0)) == 0:
        timing.serve(lambda: turn() if agreed(True) else {})
        agreed(False)
    else:
        while agreed(True):
            turn()


if __name__ == "__main__":
    tyro.cli(work)
