"""figures: pages of exactly 3600 x 3600 clean pixels, curves, and the provenance that goes with each."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import photograph
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from srkit import figures, losses, metrics, models, settings
from srkit.figures.saving import unsigned
from srkit.models.pretrained import weights_sha256
from srkit.settings import SRKitError
from srkit.training import History, Move, TrainConfig, Trainer

CONFIG = TrainConfig(steps=1, batch_size=1, patch_size=24, device="cpu")


@pytest.fixture
def here(capsys):
    return settings.setup("03", settings.Student("Ada", "1815"), "quick")


def test_a_saved_page_is_3600_clean_pixels_with_text_and_sidecar(here, dataset, tmp_path, monkeypatch):
    log = tmp_path / "log.txt"
    monkeypatch.setenv("SRKIT_FIGURE_LOG", str(log))
    monkeypatch.setitem(settings.CHECKS, "merge", False)
    trainer = Trainer(models.create("srcnn", 2, channels=(4, 4)), dataset, CONFIG)
    trainer.fit(progress=False)
    trainer.change(mse=2.0)
    table = metrics.evaluate(trainer.result, dataset, 2)
    dots, high = torch.zeros(3, 48, 48), photograph(48, 48)
    dots[:, ::2, ::2] = 1
    rows = [[high * 0.9, high * 0.99, high], [dots, dots, dots]]
    page = figures.grid(rows, zoom=[(4, 4, 12)] * 2, footer="made here")
    path = figures.save(page, "grid", here, trainer, table)
    assert path == here.figures / "03_grid.png" and log.read_text().strip() == str(path.resolve())
    picture, facts = Image.open(path), json.loads(path.with_suffix(".json").read_text())
    assert picture.size == (3600, 3600) and round(picture.info["dpi"][0]) == 300
    assert json.loads(picture.info["student"]) == facts["student"] == {"name": "Ada", "id": "1815", "email": ""}
    assert json.loads(picture.info["checks"])["merge"] is facts["checks"]["merge"] is False
    assert facts["lesson"] == picture.info["lesson"] == "03" and facts["profile"] == "quick"
    assert facts["model"]["name"] == "srcnn" and facts["model"]["step"] == 1
    assert facts["weights_sha256"] == weights_sha256(trainer.result.state_dict())
    assert facts["data"]["fingerprint"] == dataset.fingerprint and facts["loss"] == {"mse": 2.0}
    assert facts["moves"] == [{"step": 1, "name": "mse", "old": 1.0, "new": 2.0}] and facts["features"] == ""
    assert facts["shown"][0] == {"picture": "input", "border": 0, "psnr / ssim": figures.score(high * 0.9, high)}
    assert len(facts["shown"]) == 4 and facts["metrics"]["psnr"] == table.psnr
    assert facts["versions"]["torch"] == torch.__version__
    second_row = np.asarray(picture.convert("L")).astype(int)[2200:2300, 600:1100]  # beside frame and inset
    changes = np.flatnonzero(np.abs(np.diff(second_row[np.abs(np.diff(second_row)).sum(1).argmax()])) > 128)
    assert len(changes) > 10 and len(set(np.diff(changes))) == 1  # every pixel a square of whole pixels


def test_a_page_without_a_name_says_so_and_its_sidecar_what_the_student_wrote_and_predicted(here):
    settings.CHECKS.clear(), settings.PREDICTIONS.clear()
    settings.CHECKS["psnr"] = True
    here.predict("dB", 30.0, within=1)
    here.measured("dB", 30.5)
    page = figures.Page()
    feet = []
    for student in (here.student, settings.Student()):
        path = figures.save(page, "empty", replace(here, student=student))
        feet.append(np.asarray(Image.open(path).convert("L"))[3400:])
    assert feet[0].min() == 255 and (feet[1] < 255).mean() > 0.02 and not page.texts
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["checks"] == {"psnr": True}
    assert facts["predictions"]["dB"] == {"value": 30.0, "within": 1, "measured": 30.5, "right": True}


def test_not_signed_lies_below_the_whole_page():
    history, high = History(), photograph(48, 48)
    history.add({"step": 1, "lr": 1e-3, "mse": 0.1})
    graph = figures.curves(history, ["mse"])
    graph.supxlabel("a caption at the foot")
    for fig in (graph, figures.grid([[high, high, high]], footer="a footer")):
        page = unsigned(fig)
        page.draw_without_rendering()
        (mark,), (ax,) = page.texts, page.axes
        words, shown = mark.get_window_extent(), ax.get_window_extent()
        assert 0 < words.y0 < words.y1 < shown.y0 and 0 < words.x0 < words.x1 < page.bbox.x1
        assert tuple(page.get_size_inches()) == tuple(fig.get_size_inches())
        assert shown.width / shown.height == pytest.approx(page.bbox.width / page.bbox.height)


def test_provenance_of_several_models(here, dataset):
    trainer, pretrained = Trainer(models.create("srcnn915", 2), dataset, CONFIG), models.load("srresnet-small-x4")
    table = metrics.evaluate(models.create("bicubic", 2), dataset, 2)
    facts = figures.provenance(here, {"a": trainer, "b": pretrained}, {"a": table})["models"]
    assert list(facts["a"]["model"]["kernels"]) == [9, 1, 5] and facts["a"]["metrics"]["psnr"] == table.psnr
    assert facts["b"]["model"]["name"] == "srresnet-small" and "metrics" not in facts["b"]
    assert facts["b"]["weights_sha256"] == weights_sha256(pretrained.state_dict())


def test_captions_are_measured_and_noted():
    high = photograph(64, 64).mul(255).round() / 255
    output = high * 0.9 + 0.2  # above 1 here and there, as a network's output can be
    loss = losses.create({"relu1_2": 1.0, "l1": 0.0}, "vgg16", "random")
    measured = loss.measure(output[None].clamp(0, 1), high[None])
    grid = figures.grid([[output, high]], ("output", "ground truth"), border=4, loss=loss)
    pages = [figures.comparison({"output": output}, high, (0, 0, 32), "", 4, insets, loss) for insets in (False, True)]
    for fig in (grid, *pages):
        (text,) = (text.get_text() for text in fig.texts if "dB" in text.get_text())
        assert figures.score(output, high, 4) in text
        assert text.endswith("".join(f" / {name} {value:.4g}" for name, value in measured.items()))
        terms = {name: value.item() for name, value in measured.items()}
        assert fig.scores == [
            {"picture": "output", "border": 4, "psnr / ssim": figures.score(output, high, 4), **terms}
        ]


@pytest.mark.parametrize("insets", [False, True])
@pytest.mark.parametrize("methods", [2, 9])
def test_comparison_shows_every_method_without_overlap(methods, insets):
    high = photograph(96, 96)
    pictures = {f"{'a method of many words, ' * 2}{i} of $x^": high * (0.9 - i / 100) for i in range(methods)}
    fig = figures.comparison(pictures, high, (30, 20, 24), "a footer " * 20, border=2, insets=insets)
    captions = " ".join(text.get_text() for text in fig.texts)
    assert all(name in captions for name in (*pictures, "ground truth")) and len(fig.scores) == methods
    assert len(fig.axes) == methods + 1 + (not insets)
    assert all(len(ax.child_axes) == insets for ax in fig.axes)
    renderer = FigureCanvasAgg(fig).get_renderer()  # a $ in a name is no formula, or this would raise
    boxes = [text.get_window_extent(renderer) for text in fig.texts]
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))
    with pytest.raises(SRKitError, match="does not lie inside 96 x 96 pixels"):
        figures.comparison(pictures, high, (80, 20, 24), insets=insets)


def test_busiest_finds_the_detail():
    picture = torch.zeros(3, 60, 80)
    picture[:, 30:40, 50:60] = torch.rand(3, 10, 10)
    left, top, side = figures.busiest(picture, 16)
    assert left <= 50 and left + side >= 60 and top <= 30 and top + side >= 40


def test_curves_one_graph_a_quantity_with_units():
    history = History()
    for step in range(1, 30):
        terms = {"mse": 1 / step} | ({} if 10 < step < 20 else {"relu2_2": 2 / step})
        history.add({"step": step, "seconds": 1.0, "lr": 1e-3, "loss": 1.0, **terms, "weighted/mse": 1 / step})
    history.add({"step": 29, "val/mse": 0.04, "val/dB": 30.0, "val/seconds": 1.0})
    history.add_move(Move(12, "mse", 1.0, 2.0))
    fig = figures.curves(history, ["mse", "relu2_2", "dB", "x2/psnr"])
    assert [ax.get_title() for ax in fig.axes] == ["MSE", "relu2_2", "PSNR", "1 / PSNR, x2"]
    assert fig.axes[2].get_ylabel() == "PSNR on luma / dB" and fig.axes[0].get_xlabel() == "step"
    assert [line.get_label() for line in fig.axes[0].lines][:2] == ["training", "validation"]
    assert [text.get_text() for text in fig.axes[2].get_legend().get_texts()] == ["validation"]  # a line alone, too
    assert [line.get_xdata()[0] for line in fig.axes[0].lines if line.get_linestyle() == ":"] == [12]
    values = fig.axes[1].lines[0].get_ydata()
    assert [math.isnan(value) for value in values] == [10 < step < 20 for step in range(1, 30)]  # the line is broken
    both = figures.curves({"$a": history, "$b": history}, ["mse"])
    assert len(both.axes) == 1 and len(both.axes[0].lines) == 5
    FigureCanvasAgg(both).draw()
    with pytest.raises(SRKitError, match="history is empty"):
        figures.curves(History(), ["mse"])


def test_a_gans_health_in_pairs():
    history = History()
    for step in range(1, 20):
        row = {"step": step, "lr": 1e-4, "D/real": 0.6, "D/fake": 0.4, "D/loss": 0.6, "D/gradient": 2.0}
        if step > 5:  # before, the discriminator warms up
            row |= {"loss": 0.1, "content": 0.1, "weighted/content": 0.1, "G/gradient": 0.1}
        history.add(row)
    names = ["D/real", "D/fake", "D/gradient", "G/gradient", "content"]
    graphs = {ax.get_title(): ax for ax in figures.curves(history, names).axes}
    assert list(graphs) == ["D(real) and D(output)", "Gradients", "Content"]
    probabilities, gradients = graphs["D(real) and D(output)"], graphs["Gradients"]
    assert probabilities.get_ylim() == (0, 1) and probabilities.get_yscale() == "linear"
    assert [text.get_text() for text in probabilities.get_legend().get_texts()] == ["real pictures", "outputs"]
    assert np.isnan(gradients.lines[1].get_ydata()).sum() == 5 and gradients.get_yscale() == "log"
    fig = figures.curves({"mild": history, "wild": history}, ["D/real", "D/fake", "G/gradient"])
    probabilities, gradient = fig.axes
    assert "(dashed: outputs)" in probabilities.get_ylabel() and gradient.get_title() == "Gradient of G"
    looks = [(line.get_linestyle(), line.get_color()) for line in probabilities.lines]
    assert looks == [("-", "C0"), ("--", "C0"), ("-", "C1"), ("--", "C1")]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["mild training", "wild training"]


def test_tradeoff_names_every_point():
    points = {f"a $method$, {i}": (25 + i / 9, 0.4 - i / 99) for i in range(5)}
    fig = figures.tradeoff(points, "relu5_4 of VGG-19", sweep=list(points)[:2])
    fig.draw_without_rendering()
    ax, (legend,) = fig.axes[0], fig.legends
    assert [text.get_text().replace("\\$", "$") for text in legend.get_texts()] == list(points)
    assert [tuple(line.get_xydata()[0]) for line in ax.lines] == list(points.values()) and len(ax.texts) == 1
    assert "PSNR" in ax.get_xlabel() and "relu5_4 of VGG-19" in ax.get_ylabel() and fig.get_size_inches()[0] == 12


def test_differences_have_a_dot_a_picture_and_the_mean():
    def table(shift):
        values = [20 + shift, 25 + 2 * shift, 30 - shift]
        return metrics.Table(4, [metrics.Row(f"p{i}", 9, 9, v, 0.5, {"mse": v / 100}) for i, v in enumerate(values)])

    pairs = {"plain": metrics.paired(table(0), table(0.1)), "$warp$": metrics.paired(table(0), table(0.3))}
    fig = figures.differences(pairs, ["psnr", "mse"])
    assert [ax.get_ylabel() for ax in fig.axes] == ["PSNR on luma / dB: after - before", "MSE: after - before"]
    dots = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in dots] == [list(p.changes["psnr"].differences) for p in pairs.values()]
    assert [text.get_text() for text in fig.axes[1].get_xticklabels()] == [
        "plain\n1 of 3\nbetter",
        "\\$warp\\$\n1 of 3\nbetter",
    ]


def test_a_grid_without_its_ground_truth_is_refused():
    with pytest.raises(SRKitError):
        figures.grid([[torch.zeros(3, 8, 8)]])
