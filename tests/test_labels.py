"""labels: VOC's boxes beside its pictures, and the collate that pads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from srkit import sources
from srkit.errors import SRKitError
from srkit.labels import LabelledPictures, pad_labels


def voc_tree(root: Path, boxes: dict[str, list[tuple]], size=(40, 20)) -> list[Path]:
    """Pictures and annotations laid out as VOC is; boxes: {name: [(class, xmin, ymin, xmax, ymax), …]}."""
    (root / "JPEGImages").mkdir(parents=True)
    (root / "Annotations").mkdir()
    for i, (name, things) in enumerate(boxes.items()):
        Image.new("RGB", size, (i, 0, 7)).save(root / "JPEGImages" / f"{name}.png")
        objects = "".join(
            f"<object><name>{c}</name><bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for c, x1, y1, x2, y2 in things
        )
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return sources.pictures(root)


def test_labels_scale_with_the_picture(tmp_path):
    paths = voc_tree(tmp_path, {"a": [("cat", 1, 1, 40, 20), ("dog", "11.0", 5, 20, 10)], "b": []})
    picture, labels = LabelledPictures(paths)[0]
    assert picture.shape == (3, 20, 40)
    assert labels.tolist() == [[7, 0, 0, 40, 20], [11, 10, 4, 20, 10]]
    picture, labels = LabelledPictures(paths, size=(40, 60))[0]
    assert picture.shape == (3, 40, 60) and picture.min() >= 0 and picture.max() <= 1
    assert labels.tolist() == [[7, 0, 0, 60, 40], [11, 15, 8, 30, 20]]
    assert LabelledPictures(paths)[1][1].shape == (0, 5)


def test_pad_labels_mends_what_the_default_collate_cannot(tmp_path):
    paths = voc_tree(tmp_path, {"a": [("cat", 1, 1, 9, 9)], "b": [("dog", 1, 1, 9, 9)] * 3, "c": []})
    data = LabelledPictures(paths, size=(12, 16))
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        next(iter(DataLoader(data, batch_size=3)))
    highs, labels = next(iter(DataLoader(data, batch_size=3, collate_fn=pad_labels)))
    assert highs.shape == (3, 3, 12, 16) and labels.shape == (3, 3, 5)
    assert (labels[0, 1:] == -1).all() and (labels[2] == -1).all() and (labels[1, :, 0] == 11).all()
    with pytest.raises(SRKitError, match="size="):
        pad_labels([(torch.zeros(3, 4, 4), labels[0]), (torch.zeros(3, 4, 5), labels[1])])


def test_bad_annotations(tmp_path):
    (path,) = voc_tree(tmp_path, {"a": [("catt", 1, 1, 9, 9)]})
    with pytest.raises(SRKitError, match="did you mean 'cat'"):
        LabelledPictures([path])[0]
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><obj")
    with pytest.raises(SRKitError, match="damaged annotation"):
        LabelledPictures([path])[0]
    (tmp_path / "Annotations" / "a.xml").unlink()
    with pytest.raises(SRKitError, match="laid out as VOC"):
        LabelledPictures([path])[0]
