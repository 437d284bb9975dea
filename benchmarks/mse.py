"""One step of MSE training: the textbook's loop against srkit's Trainer.

    uv run python -m benchmarks.mse [--batch-sizes 4 16] [--steps 12] [--rounds 3] [--json]

Both train the course's SRCNN (9-5-5, 64-32-3, x2, 240 x 240) on the same JPEG files for the same number of
steps. The textbook opens, cuts and shrinks each file with Pillow in two DataLoader workers, computes in fp32
and asks for the loss at every step. srkit decodes into a Bank once and uses the Trainer as it comes.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import in_turn, matrix_peak, paired_ratio, peak_megabytes, synchronize
from srkit import models, sources
from srkit.banks import open_bank
from srkit.profiles import choose_device
from srkit.training import TrainConfig, Trainer

SIDE, SCALE, FILES, WARM_UP = 240, 2, 48, 3


class JpegFolder(Dataset):
    """As a good student writes it: open, resize the shorter side, cut the middle, shrink, to tensors."""

    def __init__(self, folder: Path, length: int) -> None:
        self.paths, self.length = sorted(folder.glob("*.jpg")), length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture = Image.open(self.paths[index % len(self.paths)]).convert("RGB")
        factor = SIDE / min(picture.size)
        picture = picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.BICUBIC)
        left, top = (picture.width - SIDE) // 2, (picture.height - SIDE) // 2
        high = picture.crop((left, top, left + SIDE, top + SIDE))
        low = high.resize((SIDE // SCALE, SIDE // SCALE), Image.BICUBIC)
        return tuple(torch.from_numpy(np.asarray(x).copy()).permute(2, 0, 1).float() / 255 for x in (low, high))


class TextbookSRCNN(nn.Module):
    """The exercise's network, written with no thought of speed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 9, padding=4)
        self.conv2 = nn.Conv2d(64, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 3, 5, padding=2)

    def forward(self, low: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(low, scale_factor=SCALE, mode="bilinear", align_corners=False)
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


def textbook(folder: Path, batch_size: int, steps: int, device: str) -> float:
    """Seconds of `steps` steps after the warm-up."""
    data = JpegFolder(folder, (steps + WARM_UP) * batch_size)
    loader = DataLoader(data, batch_size, shuffle=True, num_workers=2, pin_memory=device == "cuda")
    model = TextbookSRCNN().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for step, (low, high) in enumerate(loader):
        if step == WARM_UP:
            synchronize(device)
            start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.mse_loss(model(low.to(device)), high.to(device))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    synchronize(device)
    return time.perf_counter() - start


def srkit(folder: Path, batch_size: int, steps: int, device: str) -> float:
    """Seconds of `steps` steps after the warm-up."""
    bank = open_bank(folder, "all", size=SIDE, device=device)
    config = TrainConfig(steps=steps + WARM_UP, batch_size=batch_size, crop=SIDE, device=device)
    trainer = Trainer(models.create("srcnn", SCALE), bank, config)
    for step in trainer:
        if step == WARM_UP:
            synchronize(device)
            start = time.perf_counter()
    synchronize(device)
    return time.perf_counter() - start


SIDES = {"textbook": textbook, "srkit": srkit}


def make_folder(folder: Path) -> None:
    """JPEG files of Pascal VOC's size, 500 x 375, cut out of the bundled photographs."""
    dice = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in sources.pictures("bundled")]
    pictures = [picture for picture in pictures if picture.width >= 500 and picture.height >= 375]
    for number in range(FILES):
        picture = pictures[number % len(pictures)]
        left, top = (int(dice.integers(0, room + 1)) for room in (picture.width - 500, picture.height - 375))
        picture.crop((left, top, left + 500, top + 375)).save(folder / f"{number:03}.jpg", quality=90)


def flops_per_picture() -> float:
    """Arithmetic of one training step on one picture, worked out by hand: forward, and twice that backward.

    The first layer needs no gradient for its input.
    """
    layers = [9 * 9 * 3 * 64, 5 * 5 * 64 * 32, 5 * 5 * 32 * 3]
    return 2.0 * SIDE**2 * (3 * sum(layers) - layers[0])


@dataclass
class Options:
    """Compare one step of MSE training: the textbook's loop against srkit's Trainer."""

    batch_sizes: tuple[int, ...] = (4, 16)
    """Batch sizes to compare at."""
    steps: int = 12
    """Steps that are timed, after three that warm up."""
    rounds: int = 3
    """How often both sides run, in turn."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    json: bool = False
    """Print JSON and nothing else."""
    side: str | None = None
    """Internal: run this side alone."""
    folder: Path | None = None
    """Internal: the JPEG files."""


def compare(options: Options, folder: Path) -> dict:
    """Both sides at every batch size; `ratio` is the smallest of the rows' ratios."""
    device = choose_device(options.device).type
    peaks = {name: matrix_peak(dtype, device) for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))}
    rows = []
    for batch_size in options.batch_sizes:
        arguments = ["--batch-sizes", str(batch_size), "--steps", str(options.steps), "--device", device]
        results = in_turn(
            "benchmarks.mse", ("textbook", "srkit"), [*arguments, "--folder", str(folder)], options.rounds
        )
        rate = {side: [result["pictures_per_second"] for result in results[side]] for side in SIDES}
        row = {"batch_size": batch_size, "ratio": paired_ratio(rate["srkit"], rate["textbook"])}
        for side in SIDES:
            row[side] = {
                "pictures_per_second": median(rate[side]),
                "peak_megabytes": max(result["peak_megabytes"] for result in results[side]),
                **{
                    f"share_of_{name}_peak": median(rate[side]) * flops_per_picture() / peak
                    for name, peak in peaks.items()
                },
            }
        rows.append(row)
    return {
        "benchmark": "mse",
        "device": device,
        "threads": torch.get_num_threads(),
        "peak_gflops": {name: peak / 1e9 for name, peak in peaks.items()},
        "ratio": min(row["ratio"] for row in rows),
        "rows": rows,
    }


def table(facts: dict) -> str:
    """The comparison as text."""
    peaks = ", ".join(f"{name} {peak:.0f} GFLOP/s" for name, peak in facts["peak_gflops"].items())
    lines = [
        f"MSE step, SRCNN 9-5-5 x2 at 240 x 240, {facts['device']}, {facts['threads']} threads; matrix peaks: {peaks}",
        "batch  side       pictures/s  peak memory  of bf16 peak  of fp32 peak  ratio",
    ]
    for row in facts["rows"]:
        for side in SIDES:
            one = row[side]
            ratio = f"{row['ratio']:.2f}" if side == "srkit" else ""
            lines.append(
                f"{row['batch_size']:5}  {side:9}  {one['pictures_per_second']:10.1f}  {one['peak_megabytes']:8.0f} MB"
                f"  {one['share_of_bf16_peak']:12.0%}  {one['share_of_fp32_peak']:12.0%}  {ratio:>5}"
            )
    return "\n".join(lines)


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.mse")
    if options.side:
        device = choose_device(options.device).type
        (batch_size,) = options.batch_sizes
        seconds = SIDES[options.side](options.folder, batch_size, options.steps, device)
        rate = options.steps * batch_size / seconds
        print(json.dumps({"pictures_per_second": rate, "peak_megabytes": peak_megabytes(device)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder))
        facts = compare(options, Path(folder))
    print(json.dumps(facts, indent=2) if options.json else table(facts))


if __name__ == "__main__":
    main()
