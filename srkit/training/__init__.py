"""Training: the loop, the GAN's, fine-tuning, comparisons, checkpoints and the history."""

from srkit.training.config import GANConfig, TrainConfig
from srkit.training.finetune import FineTuner
from srkit.training.gan import GANTrainer
from srkit.training.history import History, Move
from srkit.training.resuming import resume
from srkit.training.trainer import Trainer

__all__ = ["FineTuner", "GANConfig", "GANTrainer", "History", "Move", "TrainConfig", "Trainer", "resume"]
