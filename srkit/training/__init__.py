"""Training: the loop, the GAN's, fine-tuning, self-tuning, comparisons, checkpoints and the history."""

from srkit.training.config import GANConfig, TrainConfig
from srkit.training.finetune import FineTuner
from srkit.training.gan import GANTrainer
from srkit.training.history import History, Move
from srkit.training.hyper import Hyper
from srkit.training.regularized import RegularizedTrainer
from srkit.training.resuming import resume
from srkit.training.trainer import Trainer
from srkit.training.tuning import TuningConfig, TuningTrainer

__all__ = ["FineTuner", "GANConfig", "GANTrainer", "History", "Hyper", "Move", "RegularizedTrainer", "TrainConfig",
           "Trainer", "TuningConfig", "TuningTrainer", "resume"]  # fmt: skip
