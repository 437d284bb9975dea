"""Training: the Trainer and the GAN's, their checkpoints and their history."""

from srkit.training.checkpoint import load_discriminator, load_model
from srkit.training.config import GANConfig, TrainConfig
from srkit.training.gan import GANTrainer
from srkit.training.history import History
from srkit.training.trainer import Trainer

__all__ = ["GANConfig", "GANTrainer", "History", "TrainConfig", "Trainer", "load_discriminator", "load_model"]
