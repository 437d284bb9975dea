"""Where the speed run started: srresnet-small by srkit's Trainer, with the settings of its preset."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from srkit import models
from srkit.data import ImageDataset
from srkit.data.images import read, to_uint8
from srkit.training import TrainConfig, Trainer

NAME = "srresnet-small"


def train(files: list[Path], seed: int) -> nn.Module:
    """From the files' names to the trained network."""
    config = TrainConfig(**models.PRESETS[NAME].training, seed=seed)
    pictures = [to_uint8(read(path)) for path in files]
    dataset = ImageDataset([one for one in pictures if min(one.shape[1:]) >= config.patch_size])
    torch.manual_seed(seed)
    trainer = Trainer(models.create(NAME, 4), dataset, config)
    trainer.fit(progress=False)
    return trainer.result
