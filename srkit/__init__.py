"""srkit: a course kit on image super-resolution.

A way through the house, in one line:
sources → banks → Trainer(model, WeightedLoss) → checkpoint → evaluate / figures.

    import srkit
    here = srkit.setup("03", srkit.Student(name="Ada Lovelace"))
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Read when first used, so that `import srkit` costs nothing beside `import torch`.
_WHERE = {"setup": "profiles", "Student": "profiles", "SRKitError": "errors", "evaluate": "metrics",
          "Trainer": "training", "TrainConfig": "training", "GANTrainer": "training", "GANConfig": "training",
          "open_bank": "banks", "upscale": "upscaling"}  # fmt: skip

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"srkit.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'srkit' has no attribute {name!r}")
