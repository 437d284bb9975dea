"""Pascal VOC with its labels: boxes and classes, whose number differs from picture to picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor
from torch.utils.data import Dataset

from srkit import images
from srkit.errors import SRKitError, unknown

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class LabelledPictures(Dataset):
    """VOC's pictures with the objects in them; for lesson 01, which shows why labels need a collate.

    Item i is (picture, labels): the picture (3, H, W) in [0, 1], and labels (n, 5), float, one line per
    object: class (index in VOC_CLASSES), xmin, ymin, xmax, ymax in pixels counted from the top left
    corner, so that 0 <= xmin < xmax <= W. n differs from picture to picture and may be 0.

    Args:
        paths: picture files of a VOC data set, e.g. `split("voc2007").train`.
        size: (H, W) to which every picture and its boxes are resized; None keeps each as it is.

    Raises:
        SRKitError: (when an item is read) the annotation is missing or damaged, or of an unknown class.
    """

    def __init__(self, paths: Sequence[Path], size: tuple[int, int] | None = None):
        self.paths = [Path(path) for path in paths]
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        picture, labels = images.read(self.paths[i]), _read_labels(self.paths[i])
        if self.size is None:
            return picture, labels
        height, width = self.size
        across, down = width / picture.shape[2], height / picture.shape[1]
        labels = labels * labels.new_tensor([1, across, down, across, down])
        return images.resize(picture, self.size).clamp_(0, 1), labels


def _read_labels(picture: Path) -> Tensor:
    """(n, 5) labels of one VOC picture, from ../Annotations/NAME.xml."""
    path = picture.parent.parent / "Annotations" / f"{picture.stem}.xml"
    if not path.is_file():
        raise SRKitError(f"{path}: no such file: labels are only for data sets laid out as VOC is")
    rows = []
    try:
        for thing in ElementTree.parse(path).iterfind("object"):
            name = thing.findtext("name", "")
            if name not in VOC_CLASSES:
                raise unknown("VOC class", name, VOC_CLASSES)
            xmin, ymin, xmax, ymax = (
                float(thing.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            # VOC counts pixels from 1 and names the last one inside the box
            rows.append([VOC_CLASSES.index(name), xmin - 1, ymin - 1, xmax, ymax])
    except SRKitError:
        raise
    except (ElementTree.ParseError, ValueError) as error:
        raise SRKitError(f"{path}: damaged annotation ({error})") from None
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def pad_labels(batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Collate pictures and labels of different lengths: `DataLoader(…, collate_fn=pad_labels)`.

    Labels (n_i, 5) cannot be stacked while their n_i differ; here the shorter ones get lines of -1, no
    class and no box, so that all have the length of the longest.

    Returns:
        pictures (N, 3, H, W) and labels (N, max n_i, 5).

    Raises:
        SRKitError: the pictures differ in size.
    """
    highs, labels = zip(*batch, strict=True)
    sizes = {tuple(picture.shape[1:]) for picture in highs}
    if len(sizes) > 1:
        raise SRKitError(f"pictures of sizes {sorted(sizes)} in one batch: give LabelledPictures a size=(H, W)")
    padded = torch.nn.utils.rnn.pad_sequence(list(labels), batch_first=True, padding_value=-1.0)
    return torch.stack(highs), padded
