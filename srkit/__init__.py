"""srkit: a course kit on image super-resolution.

A way through the house, in one line:
load_dataset → Trainer(model, dataset, loss) → checkpoint → evaluate / figures.

    import srkit
    here = srkit.setup("03", srkit.Student(name="Ada Lovelace"))
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Read when first used, so that `import srkit` costs nothing beside `import torch`.
_WHERE = {"setup": "settings", "Student": "settings", "SRKitError": "settings", "on_colab": "course.colab",
          "load_dataset": "data", "ImageDataset": "data", "evaluate": "metrics",
          "Trainer": "training", "TrainConfig": "training", "GANTrainer": "training", "GANConfig": "training",
          "FineTuner": "training", "upscale": "inference"}  # fmt: skip

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"srkit.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'srkit' has no attribute {name!r}")
