"""figures: pages of exactly 3600 x 3600 clean pixels, with their provenance."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import figures, losses, metrics, models, profiles
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


@pytest.mark.parametrize("make", ["grid", "whole", "part"])
def test_captions_with_the_terms_of_a_loss(make, here):
    high = photograph(64, 64).mul(255).round() / 255
    output = high * 0.9 + 0.2  # above 1 here and there, as a network's output can be
    loss = losses.create({"relu2_2": 1.0, "l1": 0.0}, "vgg16", "random")
    if make == "grid":
        fig = figures.grid([[output, high]], ("output", "ground truth"), border=4, loss=loss)
    else:
        fig = figures.comparison({"output": output}, high, (0, 0, 32), "", 4, insets=make == "whole", loss=loss)
    measured = loss.measure(output[None].clamp(0, 1), high[None])
    (text,) = (text.get_text() for text in fig.texts if "dB" in text.get_text())
    assert text.endswith("".join(f" / {name} {value:.4g}" for name, value in measured.items()))
    facts = json.loads(figures.save(fig, "annotated", here).with_suffix(".json").read_text())
    (shown,) = facts["shown"]
    assert shown["psnr / ssim"] == figures.score(output, high, 4)
    assert {name: shown[name] for name in measured} == measured


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


def test_long_captions_shrink_to_their_place():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    high = photograph(96, 96)
    pictures = {f"{'a method of many words, ' * 2}{i}": high * (0.9 - i / 100) for i in range(5)}
    fig = figures.comparison(pictures, high, (30, 20, 24), insets=True)
    renderer = FigureCanvasAgg(fig).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in fig.texts]
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))
    short = figures.comparison({"bicubic": high * 0.9}, high, (30, 20, 24), insets=True)
    assert short.texts[0].get_fontsize() == 14


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


def gan_history() -> History:
    history = History()
    for step in range(1, 20):
        row = {"step": step, "learning_rate": 1e-4, "D/real": 0.6, "D/fake": 0.4, "D/loss": 0.6, "D/gradient": 2.0}
        if step > 5:  # before, the discriminator warms up
            row |= {"loss": 0.1, "content": 0.1, "adversarial": 0.7, "weighted/content": 0.1}
            row |= {"weighted/adversarial": 7e-4, "G/gradient": 0.1}
        history.add(row)
    return history


def test_a_gans_health_in_pairs():
    fig = figures.curves(gan_history())
    graphs = {ax.get_title(): ax for ax in fig.axes}
    assert list(graphs) == [
        "How real D finds them", "Loss of the discriminator D", "Gradients", "Loss", "Content", "Adversarial",
    ]  # fmt: skip
    chances = graphs["How real D finds them"]
    assert chances.get_ylim() == (0, 1) and chances.get_yscale() == "linear" and chances.get_ylabel()
    assert [line.get_label() for line in chances.lines] == ["real pictures", "outputs"]
    assert [text.get_text() for text in chances.get_legend().get_texts()] == ["real pictures", "outputs"]
    assert graphs["Gradients"].lines[1].get_xdata().min() == 6 and graphs["Gradients"].get_yscale() == "log"
    assert "0.69" in graphs["Loss of the discriminator D"].get_ylabel()
    alone = figures.curves(gan_history(), ["D/fake", "D/loss"]).axes[0]
    assert alone.get_title() == "How real D finds outputs" and alone.get_ylim() == (0, 1) and len(alone.lines) == 1


def test_health_of_two_gans_tells_them_by_colour():
    fig = figures.curves({"mild": gan_history(), "wild": gan_history()}, ["D/real", "D/fake", "G/gradient"])
    chances, gradient = fig.axes
    assert "(dashed: outputs)" in chances.get_ylabel() and gradient.get_title() == "Gradient of G"
    assert [line.get_linestyle() for line in chances.lines] == ["-", "--", "-", "--"]
    assert [line.get_color() for line in chances.lines] == ["C0", "C0", "C1", "C1"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["mild training", "wild training"]


@pytest.mark.parametrize("count", range(3, 9))
@pytest.mark.parametrize("spread", [0, 0.02, 3])
def test_tradeoff_names_never_overlap(count, spread):
    dice = np.random.default_rng(count)
    points = {f"a method, number {i}": tuple(dice.normal((25, 0.4), (spread, spread / 10))) for i in range(count)}
    fig = figures.tradeoff(points, "relu2_2", sweep=list(points)[:3])
    ax, renderer = fig.axes[0], fig.canvas.get_renderer()
    notes = {text.get_text(): text.get_window_extent(renderer) for text in ax.texts if text.get_text()}
    dots = [ax.transData.transform(line.get_xydata()[0]) for line in ax.lines]
    boxes = list(notes.values())
    assert list(notes) == list(points) and len(dots) == count
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i]) and not any(box.contains(*dot) for dot in dots)
        assert ax.bbox.contains(box.x0, box.y0) and ax.bbox.contains(box.x1, box.y1)


def test_tradeoff_is_as_wide_as_a_page_and_names_its_axes(here):
    points = {"bicubic": (26.0, 0.5), "SRResNet": (27.0, 0.4), "SRGAN": (25.5, 0.2)}
    fig = figures.tradeoff(points, "relu5_4 of VGG-19", ["SRResNet", "SRGAN"], "three pictures")
    ax = fig.axes[0]
    assert Image.open(figures.save(fig, "tradeoff", here)).size[0] == 3600
    assert "PSNR" in ax.get_xlabel() and "relu5_4 of VGG-19" in ax.get_ylabel()
    arrows = [(text.xyann, text.xy) for text in ax.texts if not text.get_text()]
    assert arrows == [(points["SRResNet"], points["SRGAN"])]


def test_bad_tradeoffs():
    with pytest.raises(SRKitError, match="two points or more"):
        figures.tradeoff({"bicubic": (26.0, 0.5)}, "relu2_2")
    with pytest.raises(SRKitError, match="both finite"):
        figures.tradeoff({"bicubic": (26.0, 0.5), "truth": (float("inf"), 0.0)}, "relu2_2")
    with pytest.raises(SRKitError, match="unknown point of the trade-off 'SRGA'"):
        figures.tradeoff({"SRResNet": (26.0, 0.5), "SRGAN": (25.0, 0.2)}, "relu2_2", ["SRGA"])


def test_differences_have_a_dot_a_picture_and_the_mean(here):
    def table(shift):
        values = [20 + shift, 25 + 2 * shift, 30 - shift]
        return metrics.Table(4, [metrics.Row(f"p{i}", 9, 9, v, 0.5, {"mse": v / 100}) for i, v in enumerate(values)])

    pairs = {"plain": metrics.paired(table(0), table(0.1)), "warp": metrics.paired(table(0), table(0.3))}
    fig = figures.differences(pairs, ["psnr", "mse"])
    assert [ax.get_ylabel() for ax in fig.axes] == ["PSNR on luma / dB: after - before", "MSE: after - before"]
    dots = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in dots] == [list(p.changes["psnr"].differences) for p in pairs.values()]
    assert [text.get_text() for text in fig.axes[1].texts] == ["1 of 3\nbetter"] * 2
    assert Image.open(figures.save(fig, "differences", here)).width == 3600
    assert len(figures.differences(pairs).axes) == 3
    figures.differences({"one": metrics.paired(*(metrics.Table(4, table(0.1).rows[:1]),) * 2)})  # no spread, no change
    with pytest.raises(SRKitError, match="did you mean 'psnr'"):
        figures.differences(pairs, ["psn"])
    with pytest.raises(SRKitError, match="no comparison to draw"):
        figures.differences({})


def test_bad_figures():
    with pytest.raises(SRKitError, match="3 pictures: input, output, ground truth"):
        figures.grid([[torch.zeros(3, 8, 8)]])
    with pytest.raises(SRKitError, match="history is empty"):
        figures.curves(History())


def test_a_model_that_came_trained_has_its_fingerprint_in_the_provenance(here):
    model = models.load("srresnet-small-x4")
    (facts,) = figures.provenance(here, {"SRResNet": model})["models"].values()
    assert facts["model"]["name"] == "srresnet-small" and facts["weights_sha256"] == checkpoint.weights_sha256(
        model.state_dict()
    )
