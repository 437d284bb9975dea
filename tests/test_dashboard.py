"""dashboard: the widgets reach the run, show all that it does and all that goes wrong; headless, one figure."""

from __future__ import annotations

import io
import json
import re
import time
from itertools import pairwise

import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import dashboard, features, live, models, profiles
from srkit.errors import SRKitError
from srkit.losses import PerceptualLoss, WeightedLoss
from srkit.training import TrainConfig, Trainer

SETTINGS = {"steps": 12, "batch_size": 2, "crop": 24, "log_freq": 2, "device": "cpu", "ema": 0.9}
PRESETS = {"MSE only": {"mse": 1}, "paper's": {"mse": 1, "l1": 0.0125}, "detail": {"l1": 0.05, "learning_rate": 2e-3}}


@pytest.fixture
def here(capsys):
    return profiles.setup("04", profiles.Student("Ada", "1815"), "quick")


@pytest.fixture
def run(bank):
    torch.manual_seed(0)
    loss = WeightedLoss({"mse": 1, "l1": 0})
    trainer = Trainer(models.create("srcnn", scale=2, channels=(4, 4)), bank, TrainConfig(**SETTINGS), loss)
    run = live.Run(trainer, photograph(96, 120))
    yield run
    run.stop()
    assert run.wait(30)


@pytest.fixture
def board(run, here, monkeypatch):
    monkeypatch.delenv("SRKIT_HEADLESS", raising=False)
    monkeypatch.setattr("IPython.display.display", lambda *shown: None)
    return dashboard.show(run, here, PRESETS)


def press(board, label):
    """Press the button with this text."""
    buttons = [widget for widget in widgets(board.view) if getattr(widget, "description", None) == label]
    assert len(buttons) == 1, label
    buttons[0].click() if hasattr(buttons[0], "click") else setattr(buttons[0], "value", not buttons[0].value)


def widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets(child)


def page(board) -> str:
    """All the HTML that is seen."""
    return "\n".join(widget.value for widget in widgets(board.view) if type(widget).__name__ == "HTML")


def test_sliders_reach_zero_and_every_preset_exactly(board):
    labels = [slider.description for slider in board.sliders.values()]
    assert labels == ["λ mse", "λ l1", "learning rate"] and "Far left is <b>off</b>" in page(board)
    for term, slider in board.sliders.items():
        values = [value for _, value in slider.options]
        assert values == sorted(values) and len(values) >= 24 and len(set(slider.options)) == len(values)
        assert (slider.options[0] == ("off", 0.0)) == (term != "learning_rate")
        assert {preset[term] for preset in PRESETS.values() if term in preset} <= set(values)
    assert max(value for _, value in board.sliders["l1"].options) >= 0.05 * 90  # two powers of ten to each side
    assert board.sliders["l1"].options[1][1] <= 0.05 / 68


def test_stops_are_evenly_spread():
    values = [value for _, value in dashboard.stops(0.02, {0.02, 0.1, 0.0})]
    steps = [b / a for a, b in pairwise(values[1:])]
    assert values[0] == 0 and {0.02, 0.1} <= set(values) and min(steps) > 1.1 and max(steps) < 2.3
    assert [label for label, _ in dashboard.stops(1.0)][:4] == ["off", "0.01", "0.015", "0.022"]


def test_a_slider_moves_the_weight(board, run):
    board.sliders["l1"].value = 0.05
    board.sliders["mse"].index = 0
    board.sliders["learning_rate"].value = 2e-3
    assert run.weights.snapshot() == {"mse": 0, "l1": 0.05, "learning_rate": 2e-3} and not board.failure
    run.start()
    run.wait(30)
    board.refresh()
    assert len(run.history.moves()) == 3 and page(board).count('class="move"') == 1  # one graph, one step
    assert "step 0: λ mse 1 → off" in page(board)


def test_a_refused_weight_jumps_back_and_says_why(board, run):
    board.sliders["mse"].index = 0
    assert board.sliders["mse"].value == 1 == run.weights.snapshot()["mse"]
    assert "every loss weighs 0" in page(board) and not board.failure
    board.sliders["l1"].value = 0.05
    assert "every loss weighs 0" not in page(board)


def test_presets_apply_exactly_and_show_which_holds(board, run):
    press(board, "detail")
    assert run.weights.snapshot() == {"mse": 0, "l1": 0.05, "learning_rate": 2e-3}
    assert board.sliders["l1"].value == 0.05 and board.sliders["mse"].label == "off"
    press(board, "paper's")
    assert run.weights.snapshot() == {"mse": 1, "l1": 0.0125, "learning_rate": 2e-3}
    held = [w.description for w in widgets(board.view) if getattr(w, "button_style", "") == "info"]
    assert held == ["paper's"]
    with pytest.raises(SRKitError, match="did you mean 'detail'"):
        board.apply("details")


def test_weights_set_in_a_cell_are_seen_on_the_sliders(board, run):
    run.weights.set(l1=0.0777)
    board.refresh()
    assert board.sliders["l1"].value == 0.0777 and run.weights.snapshot()["mse"] == 1
    board.sliders["l1"].index = 0
    assert run.weights.snapshot()["l1"] == 0


def test_own_presets_outlive_the_session(board, run, here):
    board.sliders["l1"].value = 0.05
    press(board, "save preset")
    assert "give your preset a name" in page(board)
    board._name.value = "MSE only"
    press(board, "save preset")
    assert "choose another name" in page(board)
    board._name.value = "  my   <own> "
    press(board, "save preset")
    assert "saved: my &lt;own&gt;" in page(board)
    path = here.runs / "presets.json"
    saved = json.loads(path.read_text())
    assert saved == {"my <own>": {"mse": 1, "l1": 0.05}} and [p.name for p in here.runs.iterdir()] == ["presets.json"]
    path.write_text(json.dumps({**saved, "of another lesson": {"relu1_2": 1}}))
    again = dashboard.Dashboard(run, here)
    press(again, "my <own>")
    assert again.presets.names() == ["my <own>"] and run.weights.snapshot()["l1"] == 0.05
    again.presets.save("second", run.weights.snapshot())
    assert set(json.loads(path.read_text())) == {"my <own>", "of another lesson", "second"}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"mse": -1}}', '{"a": {"mse": "x"}}', "\xff"])
def test_a_broken_presets_file_is_left_out_with_a_message(run, here, text):
    here.runs.mkdir(parents=True)
    (here.runs / "presets.json").write_bytes(text.encode("latin-1"))
    board = dashboard.Dashboard(run, here, PRESETS)
    assert board.presets.names() == list(PRESETS) and "presets.json is damaged" in page(board)


def test_bad_presets_are_refused(run, here):
    with pytest.raises(SRKitError, match="preset 'x' 'l2': did you mean 'l1'"):
        dashboard.show(run, here, {"x": {"l2": 1}})
    with pytest.raises(SRKitError, match="every loss weighs 0"):
        dashboard.show(run, here, {"x": {"mse": 0, "learning_rate": 1e-3}})


def test_play_starts_pauses_and_stops(board, run):
    run.trainer.steps = 10**6
    play = board._play
    play.playing = True
    deadline = time.monotonic() + 30
    while run.step < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    play.value = 2
    assert run.state == "running" and "<b>running</b>" in page(board) and 'class="line"' in page(board)
    play.playing = False
    step = run.step
    assert run.state == "paused" and "<b>paused</b>" in page(board) and f"step {step} of" in page(board)
    play.playing = True
    play.playing = False
    play.value = 0
    assert run.state == "stopped" and run.wait(0) and "stopped: Start goes on" in page(board)


def test_the_heartbeat_ends_with_the_run(board, run):
    board._play.playing = True
    assert run.wait(30)
    board._play.value = 2
    assert not board._play.playing and "<b>finished</b>" in page(board) and f"step {run.step} of 12" in page(board)


def test_pictures_are_jpegs_of_one_size(board, run):
    def sizes():
        files = [Image.open(io.BytesIO(image.value)) for image in board._images.values()]
        assert {file.format for file in files} == {"JPEG"}
        return {file.size for file in files}

    assert sizes() == {(336, 336)} and "dB at step 0" in page(board) and "bicubic" in page(board)
    before = [image.value for image in board._images.values()]
    run.start()
    run.wait(30)
    board.refresh()
    after = [image.value for image in board._images.values()]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert f"{run.preview.psnr:.2f} dB at step 12" in page(board)
    press(board, "whole picture")
    assert sizes() == {(360, 288)}


def test_nothing_is_sent_where_nothing_is_new(board, run):
    run.start()
    run.wait(30)
    board.refresh()
    sent = []
    for widget in widgets(board.view):
        widget.observe(sent.append)
    board.refresh()
    assert sent == []


def test_the_gallery_keeps_model_weights_and_picture(board, run):
    press(board, "keep this")
    run.start()
    run.wait(30)
    run.weights.set(l1=0.05)
    press(board, "keep this")
    first, second = board.kept
    assert (first.step, second.step) == (0, 12) and first.weights == {"mse": 1, "l1": 0}
    assert second.output.shape == (3, 96, 120) and second.psnr == pytest.approx(run.preview.psnr, abs=0.05)
    assert torch.equal(board.gallery.enlarge(second.model), second.output) and first.psnr != second.psnr
    gallery = board._tiles.value
    assert gallery.index("step 0 ·") < gallery.index("step 12 ·") and gallery.count("data:image/jpeg") == 2
    press(board, "clear the gallery")
    assert board.kept == [] and board._tiles.value == ""


def test_the_graded_figure_carries_moves_and_snapshots(board, run, here):
    board.sliders["l1"].value = 0.05
    run.start()
    run.wait(30)
    for _ in range(7):
        press(board, "keep this")
    press(board, "save the graded figure")
    path = here.figures / "04_by_hand.png"
    assert not board.failure and f"{path.name}" in page(board) and Image.open(path).size == (3600, 3600)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["moves"] == [{"step": 0, "term": "l1", "old": 0, "new": 0.05}] and facts["features"] == ""
    named = [entry["picture"] for entry in facts["shown"]]
    assert named == ["bicubic", *(f"{n}, step 12" for n in (3, 4, 5, 6, 7)), "now, step 12"]
    assert facts["shown"][-1]["weights_sha256"] == facts["weights_sha256"] == facts["shown"][1]["weights_sha256"]
    assert facts["shown"][1]["loss"] == {"mse": 1, "l1": 0.05}


def test_what_ends_the_thread_is_shown(board, run):
    run.trainer.step = lambda batch: 1 / 0
    run.messages.append("out of memory: from step 1 on a batch goes through in 2 parts")
    run.start()
    run.wait(30)
    board.refresh()
    assert "<b>failed</b>" in page(board) and "ZeroDivisionError: division by zero</div>" in page(board)
    assert "in 2 parts" in page(board)


def test_what_goes_wrong_in_a_callback_is_shown(board, run, monkeypatch):
    monkeypatch.setattr(board, "keep", lambda: {}["<lost>"])
    press(board, "keep this")
    assert "KeyError: &#x27;&lt;lost&gt;&#x27;</div>" in page(board)
    monkeypatch.setattr(board, "_draw_sliders", lambda: 1 / 0)  # even if the drawing is what fails
    press(board, "MSE only")
    assert "ZeroDivisionError" in page(board)


def test_without_a_picture(bank, here):
    trainer = Trainer(models.create("srcnn", scale=2, channels=(4, 4)), bank, TrainConfig(**SETTINGS))
    run = live.Run(trainer)
    board = dashboard.Dashboard(run, here)
    with pytest.raises(SRKitError, match="watches no picture"):
        board.keep()
    run.start()
    run.wait(30)
    board.refresh()
    assert 'class="line"' in page(board) and board.still().axes
    assert not any(type(widget).__name__ == "Image" for widget in widgets(board.view))


def test_headless_trains_with_the_preset_and_shows_one_figure(run, here, monkeypatch):
    shown = []
    monkeypatch.setenv("SRKIT_HEADLESS", "1")
    monkeypatch.setattr("IPython.display.display", shown.append)
    board = dashboard.show(run, here, PRESETS, headless="paper's")
    assert run.state == "finished" and run.step == 12 and run.weights.snapshot()["l1"] == 0.0125
    (figure,) = shown
    width, height = Image.open(io.BytesIO(figure.data)).size
    assert figure.width == 900 and width >= 900 and 0.5 < height / width < 1
    assert board.keep().step == 12


def test_headless_takes_the_last_preset_and_raises_what_ended_the_training(run, here, monkeypatch):
    monkeypatch.setenv("SRKIT_HEADLESS", "1")
    run.trainer.step = lambda batch: 1 / 0
    with pytest.raises(SRKitError, match="ZeroDivisionError"):
        dashboard.show(run, here, PRESETS)
    assert run.weights.snapshot() == {"mse": 0, "l1": 0.05, "learning_rate": 2e-3}


def test_captions_name_the_features(bank, here, monkeypatch):
    loss = WeightedLoss({"mse": 1, "relu1_2": 0.01}, PerceptualLoss(features.VGG16(["relu1_2"], weights="random")))
    trainer = Trainer(models.create("srcnn", 2, channels=(4, 4)), bank, TrainConfig(**SETTINGS), loss)
    run = live.Run(trainer, photograph(96, 120))
    board = dashboard.Dashboard(run, here)
    run.start()
    assert run.wait(60) and not run.error
    board.refresh()
    still = board.still()
    assert "features: VGG-16, random weights" in still.get_supxlabel() and len(still.subfigs) == 2
    graphs = re.findall(r"<svg.*?</svg>", page(board), re.DOTALL)
    assert len(graphs) == 2 and "VGG-16, random weights" in graphs[1]
    path = board.save()
    assert json.loads(path.with_suffix(".json").read_text())["features"] == "VGG-16, random weights"
