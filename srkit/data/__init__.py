"""Pictures: one of them (`images`), where they come from (`sources`), and batches on the device (`dataset`)."""

from srkit.data.dataset import Batch, ImageDataset, load_dataset
from srkit.data.sources import SOURCES, pictures, split

__all__ = ["SOURCES", "Batch", "ImageDataset", "load_dataset", "pictures", "split"]
