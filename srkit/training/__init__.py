"""Training: the Trainer, its checkpoints and its history."""

from srkit.training.checkpoint import load_model
from srkit.training.config import TrainConfig
from srkit.training.history import History
from srkit.training.trainer import Trainer

__all__ = ["History", "TrainConfig", "Trainer", "load_model"]
