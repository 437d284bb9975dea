"""figures: pages of exactly 3600 x 3600 clean pixels, with their provenance."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import figures, metrics, models, profiles
from srkit.errors import SRKitError
from srkit.training import History, TrainConfig, Trainer, checkpoint


@pytest.fixture
def here(capsys):
    return profiles.setup("03", profiles.Student("Ada", "1815"), "quick")


def rows(count: int, side: int = 48) -> list[list[torch.Tensor]]:
    made = []
    for seed in range(count):
        high = photograph(side, side, seed)
        made.append([high * 0.9, high * 0.99, high])
    return made


def test_grid_is_3600_pixels_with_text_and_sidecar(here, bank, tmp_path, monkeypatch):
    log = tmp_path / "log.txt"
    monkeypatch.setenv("SRKIT_FIGURE_LOG", str(log))
    config = TrainConfig(steps=1, batch_size=1, crop=24, device="cpu")
    trainer = Trainer(models.create("srcnn", 2, channels=(4, 4)), bank, config)
    trainer.fit(progress=False)
    table = metrics.evaluate(trainer.result, bank, 2)
    path = figures.save(figures.grid(rows(3), zoom=[(4, 4, 12)] * 3, footer="made here"), "grid", here, trainer, table)
    assert path == here.figures / "03_grid.png" and log.read_text().strip() == str(path.resolve())
    picture = Image.open(path)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert picture.size == (3600, 3600) and round(picture.info["dpi"][0]) == 300
    assert json.loads(picture.info["student"]) == facts["student"] == {"name": "Ada", "id": "1815", "email": ""}
    assert facts["lesson"] == picture.info["lesson"] == "03"
    assert facts["weights_sha256"] == checkpoint.weights_sha256(trainer.result.state_dict())
    assert facts["data"]["fingerprint"] == bank.fingerprint and facts["loss"] == {"mse": 1.0}
    assert facts["moves"] == [] and facts["features"] == ""
    high = rows(1)[0][-1]
    assert facts["shown"][0] == {"picture": "input", "border": 0, "psnr / ssim": figures.score(high * 0.9, high)}
    assert (
        len(facts["shown"]) == 6
        and facts["metrics"]["psnr"] == table.psnr
        and facts["versions"]["torch"] == torch.__version__
    )


def test_provenance_of_several_models(here, bank):
    config = TrainConfig(steps=1, batch_size=1, crop=24, device="cpu")
    trainers = {name: Trainer(models.create(name, 2), bank, config) for name in ("srcnn", "srcnn915")}
    table = metrics.evaluate(models.create("bicubic", 2), bank, 2)
    facts = figures.provenance(here, trainers, {"srcnn": table})
    assert facts["models"]["srcnn915"]["model"]["kernels"] == (9, 1, 5)
    assert facts["models"]["srcnn"]["metrics"]["psnr"] == table.psnr and "metrics" not in facts["models"]["srcnn915"]


def test_every_pixel_is_a_square_of_whole_pixels(here):
    dots = torch.zeros(3, 24, 24)
    dots[:, ::2, ::2] = 1
    path = figures.save(figures.grid([[dots, dots, dots]]), "dots", here)
    page = np.asarray(Image.open(path).convert("L")).astype(int)
    row = page[page.shape[0] // 2 - 400 : page.shape[0] // 2 + 400, 100:1100]
    changes = np.flatnonzero(np.abs(np.diff(row[np.abs(np.diff(row, axis=1)).sum(1).argmax()])) > 128)
    assert len(changes) > 10 and len(set(np.diff(changes))) == 1


def test_captions_are_measured_not_typed():
    high = photograph(48, 48).mul(255).round() / 255
    texts = [text.get_text() for text in figures.grid([[high * 0.9, high]], ("input", "ground truth")).texts]
    assert figures.score(high * 0.9, high) in texts and "inf dB" not in "".join(texts)


def test_comparison_shows_every_method_and_refuses_a_part_outside(here):
    high = photograph(96, 120)
    low = torch.nn.functional.avg_pool2d(high, 2)
    pictures = {name: models.create(name, 2)(low[None])[0] for name in ("nearest", "bilinear", "bicubic")}
    fig = figures.comparison(pictures, high, (30, 20, 40), border=2)
    texts = " ".join(text.get_text() for text in fig.texts)
    assert len(fig.axes) == 5 and all(name in texts for name in (*pictures, "ground truth", "whole picture"))
    assert Image.open(figures.save(fig, "comparison", here)).size == (3600, 3600)
    with pytest.raises(SRKitError, match="does not lie inside 120 x 96 pixels"):
        figures.comparison(pictures, high, (100, 20, 40))


@pytest.mark.parametrize("methods", [2, 8, 10])
def test_comparison_of_whole_pictures_with_insets(methods):
    high = photograph(96, 96)
    pictures = {f"method {i}": high * (0.9 - i / 100) for i in range(methods)}
    fig = figures.comparison(pictures, high, (30, 20, 24), border=2, insets=True)
    texts = " ".join(text.get_text() for text in fig.texts)
    assert len(fig.axes) == methods + 1 and all(name in texts for name in (*pictures, "ground truth"))
    assert all(len(ax.child_axes) == 1 for ax in fig.axes) and len(fig.scores) == methods
    with pytest.raises(SRKitError, match="does not lie inside 96 x 96 pixels"):
        figures.comparison(pictures, high, (80, 20, 24), insets=True)


def test_busiest_finds_the_detail():
    picture = torch.zeros(3, 60, 80)
    picture[:, 30:40, 50:60] = torch.rand(3, 10, 10)
    left, top, side = figures.busiest(picture, 16)
    assert left <= 50 and left + side >= 60 and top <= 30 and top + side >= 40


def test_curves_one_graph_a_quantity_with_units():
    history = History()
    for step in range(1, 30):
        history.add({"step": step, "seconds": 1.0, "learning_rate": 1e-3, "loss": 1 / step, "mse": 1 / step,
                     "weighted/mse": 1 / step})  # fmt: skip
    history.add({"step": 29, "val/mse": 0.04, "val/dB": 30.0, "val/seconds": 1.0})
    fig = figures.curves(history)
    assert [ax.get_title() for ax in fig.axes] == ["MSE", "PSNR"]  # constant rate and the sum of one term say nothing
    assert fig.axes[1].get_ylabel() == "PSNR on luma / dB" and fig.axes[0].get_xlabel() == "step"
    assert [line.get_label() for line in fig.axes[0].lines] == ["training", "validation"]
    history.add({"step": 12, "from/mse": 1.0, "to/mse": 2.0})
    marked = figures.curves(history, ["mse", "x2/psnr", "relu2_2"])
    assert [line.get_xdata()[0] for line in marked.axes[0].lines if line.get_linestyle() == ":"] == [12]
    assert [ax.get_title() for ax in marked.axes] == ["MSE", "1 / PSNR, x2", "relu2_2"]
    assert marked.axes[2].get_ylabel() == "mean squared difference of activations"
    history.rows.pop()
    both = figures.curves({"a": history, "b": history}, ["mse"])
    assert len(both.axes) == 1 and len(both.axes[0].lines) == 4


def test_bad_figures():
    with pytest.raises(SRKitError, match="3 pictures: input, output, ground truth"):
        figures.grid([[torch.zeros(3, 8, 8)]])
    with pytest.raises(SRKitError, match="history is empty"):
        figures.curves(History())
