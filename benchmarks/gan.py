"""One step of a GAN, discriminator and generator: the textbook's loop against srkit's GANTrainer.

    uv run python -m benchmarks.gan [--batch-sizes 16] [--steps 6] [--rounds 3] [--json]

Both train the same two networks (srresnet-small x4, a discriminator of 32 filters, pictures of 96 x 96) on MSE,
VGG-19's relu2_2 with random weights, and the discriminator's say. The textbook computes in fp32, leaves VGG trainable,
sends the truth through it with gradients, and lets the generator's step compute gradients for the discriminator's
weights, which nobody uses; srkit uses the GANTrainer as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.steps import Comparison, Options
from benchmarks.textbook import loader
from srkit import models
from srkit.banks import Bank, open_bank
from srkit.training import GANConfig, GANTrainer
from srkit.training.gan import new_discriminator

SIDE, SCALE, FILTERS = 96, 4, 32
WEIGHTS = {"mse": 1.0, "relu2_2": 0.02, "adversarial": 1e-3}
RELU2_2 = 8  # which of torchvision's vgg19().features


def config_of(batch_size: int, steps: int, device: str) -> GANConfig:
    """The settings of srkit's side."""
    return GANConfig(
        **{"steps": steps, "batch_size": batch_size, "crop": SIDE, "device": device, "loss": WEIGHTS},
        **{"feature_weights": "random", "discriminator": FILTERS, "from_scratch": True},
    )


def textbook(folder: Path, batch_size: int, steps: int, device: str) -> Iterator[float]:
    return textbook_steps(loader(folder, batch_size, steps, device, SIDE, SCALE), device)


def textbook_steps(batches, device: str) -> Iterator[float]:
    """The loop itself, on batches (low, high)."""
    from torchvision.models import vgg19

    generator = models.create("srresnet-small", SCALE).to(device)
    discriminator = new_discriminator(config_of(1, 1, device)).to(device)
    vgg = vgg19(weights=None).features[: RELU2_2 + 1].eval().to(device)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-4)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-4)

    def says(pictures: torch.Tensor, label: float) -> torch.Tensor:
        logits = discriminator(pictures)
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    for low, high in batches:
        low, high = low.to(device), high.to(device)
        output = generator(low)
        discriminator_optimizer.zero_grad()
        judged = says(high, 1.0) + says(output.detach(), 0.0)
        judged.backward()
        discriminator_optimizer.step()

        optimizer.zero_grad()
        seen, wanted = (vgg((x - mean) / std) for x in (output, high))
        terms = F.mse_loss(output, high), F.mse_loss(seen, wanted), says(output, 1.0)
        loss = sum(weight * term for weight, term in zip(WEIGHTS.values(), terms, strict=True))
        loss.backward()
        optimizer.step()
        yield loss.item() + judged.item()


def srkit(folder: Path, batch_size: int, steps: int, device: str) -> GANTrainer:
    return trainer_of(open_bank(folder, "all", size=SIDE, device=device), batch_size, steps, device)


def trainer_of(bank: Bank, batch_size: int, steps: int, device: str) -> GANTrainer:
    return GANTrainer(models.create("srresnet-small", SCALE), bank, config_of(batch_size, steps, device))


def flops(side: str, batch_size: int = 2) -> float:
    """The arithmetic of one step for one picture, counted by PyTorch while it is done."""
    from torch.utils.flop_counter import FlopCounterMode

    bank = Bank(torch.randint(0, 256, (batch_size, 3, SIDE, SIDE), dtype=torch.uint8))
    steps = (
        trainer_of(bank, batch_size, 1, "cpu")
        if side == "srkit"
        else textbook_steps([bank.batch(0, batch_size, SIDE, SCALE)], "cpu")
    )
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return counter.get_total_flops() / batch_size


COUNTED: dict[str, Callable[[], float]] = {side: partial(flops, side) for side in ("textbook", "srkit")}
COMPARISON = Comparison(
    "benchmarks.gan",
    f"GAN step, srresnet-small x{SCALE} at {SIDE} x {SIDE}, VGG-19 to relu2_2",
    {"textbook": textbook, "srkit": srkit},
    COUNTED,
    defaults=Options(batch_sizes=(16,), steps=6),
)

if __name__ == "__main__":
    COMPARISON.main()
