"""live.dashboard: the widgets reach the run, show all that it does and all that goes wrong; headless, one figure."""

from __future__ import annotations

import io
import json
import re
import time

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image

from srkit import live, models, settings
from srkit.data import ImageDataset
from srkit.data.images import degrade, to_uint8
from srkit.live import dashboard, export, svg
from srkit.losses import WeightedLoss
from srkit.settings import SRKitError
from srkit.training import GANConfig, GANTrainer, TrainConfig, Trainer, TuningConfig, TuningTrainer
from srkit.training.hyper import HYPERS

SETTINGS = {"steps": 12, "batch_size": 2, "patch_size": 24, "log_freq": 2, "device": "cpu", "ema": 0.9}
PRESETS = {"MSE only": {"mse": 1}, "paper's": {"mse": 1, "l1": 0.0125}, "detail": {"l1": 0.05, "lr": 2e-3}}


@pytest.fixture
def here(capsys):
    return settings.setup("04", settings.Student("Ada", "1815"), "quick")


@pytest.fixture
def run(dataset):
    torch.manual_seed(0)
    loss = WeightedLoss({"mse": 1, "l1": 0})
    trainer = Trainer(models.create("srcnn", scale=2, channels=(4, 4)), dataset, TrainConfig(**SETTINGS), loss)
    run = live.Run(trainer, photograph(96, 120))
    yield run
    run.stop()
    assert run.wait(30)


@pytest.fixture
def board(run, here, monkeypatch):
    monkeypatch.delenv("SRKIT_HEADLESS", raising=False)
    monkeypatch.setattr(dashboard, "display", lambda *shown: None)
    return live.show(run, here, PRESETS)


def widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets(child)


def press(board, label):
    """Press the button with this text."""
    next(widget for widget in widgets(board.view) if getattr(widget, "description", None) == label).click()


def page(board) -> str:
    """All the HTML that is seen."""
    return "\n".join(widget.value for widget in widgets(board.view) if type(widget).__name__ == "HTML")


def train(board):
    board.run.start()
    assert board.run.wait(60)
    board.refresh()


def test_sliders_reach_zero_and_every_preset_exactly(board):
    labels = [slider.description for slider in board.controls.sliders.values()]
    assert labels == ["λ mse", "λ l1", "learning rate"] and "<b>off</b>: measured" in page(board)
    for term, slider in board.controls.sliders.items():
        values = [value for _, value in slider.options]
        assert values == sorted(set(values)) and len(values) >= 24
        assert (slider.options[0] == ("off", 0.0)) == (term != "lr")
        assert {preset[term] for preset in PRESETS.values() if term in preset} <= set(values)


def test_a_slider_moves_the_weight_or_jumps_back_and_says_why(board, run):
    board.controls.sliders["mse"].index = 0
    assert board.controls.sliders["mse"].value == 1 == run.weights.snapshot()["mse"]
    assert "every loss weighs 0" in page(board) and not board.failure
    board.controls.sliders["l1"].value = 0.05
    assert "every loss weighs 0" not in page(board)  # a remark stays no longer than it is true
    board.controls.sliders["mse"].index = 0
    board.controls.sliders["lr"].value = 2e-3
    assert run.weights.snapshot() == {"mse": 0, "l1": 0.05, "lr": 2e-3} and not board.failure
    train(board)
    assert len(run.history.moves) == 3 and page(board).count('class="move"') == 1  # one step, through all graphs
    assert "step 0: λ mse 1 → off" in page(board)


def test_presets_apply_exactly_and_show_which_holds(board, run):
    press(board, "detail")
    assert run.weights.snapshot() == {"mse": 0, "l1": 0.05, "lr": 2e-3} and board.controls.sliders["mse"].label == "off"
    press(board, "paper's")
    assert run.weights.snapshot() == {"mse": 1, "l1": 0.0125, "lr": 2e-3}
    held = [w.description for w in widgets(board.view) if getattr(w, "button_style", "") == "info"]
    assert held == ["paper's"]
    run.weights.set(l1=0.0777)  # in a cell: seen on the slider
    board.refresh()
    assert board.controls.sliders["l1"].value == 0.0777
    with pytest.raises(SRKitError, match="did you mean 'detail'"):
        board.apply("details")
    for bad in ({"l2": 1}, {"mse": 0, "lr": 1e-3}):
        with pytest.raises(SRKitError):
            live.show(run, board.here, {"x": bad})


def test_own_presets_outlive_the_session(board, run, here):
    board.controls.sliders["l1"].value = 0.05
    for name, answer in (("", "a name"), ("MSE only", "choose another"), (" my   <own> ", "my &lt;own")):
        board.controls.name.value = name
        press(board, "save preset")
        assert answer in page(board)
    path = here.runs / "presets.json"
    saved = json.loads(path.read_text())
    assert saved == {"my <own>": {"mse": 1, "l1": 0.05}}
    path.write_text(json.dumps({**saved, "of another lesson": {"relu1_2": 1}}))
    again = live.Dashboard(run, here)
    press(again, "my <own>")
    assert list(again.presets.all()) == ["my <own>"] and run.weights.snapshot()["l1"] == 0.05
    again.presets.save("second", run.weights.snapshot())
    assert set(json.loads(path.read_text())) == {"my <own>", "of another lesson", "second"}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {"mse": "x"}}', "\xff"])
def test_a_broken_presets_file_is_left_out(run, here, text):
    here.runs.mkdir(parents=True)
    (here.runs / "presets.json").write_bytes(text.encode("latin-1"))
    board = live.Dashboard(run, here, PRESETS)
    assert list(board.presets.all()) == list(PRESETS) and "presets.json is damaged" in page(board)


def test_play_starts_pauses_and_stops(board, run):
    run.trainer.steps = 10**6
    play = board._play
    play.playing = True
    deadline = time.monotonic() + 30
    while run.step < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    play.value = 2
    assert run.state == "running" and ">running</b>" in page(board) and 'class="line"' in page(board)
    play.playing = False
    step = run.step
    assert run.state == "paused" and "<b>paused</b>" in page(board) and f"step {step} of" in page(board)
    play.playing = True
    play.playing = False
    play.value = 0
    assert run.state == "stopped" and run.wait(0) and "stopped: Start goes on" in page(board)


def test_the_heartbeat_ends_with_the_run_and_nothing_is_sent_without_news(board, run):
    board._play.playing = True
    assert run.wait(30)
    board._play.value = 2
    assert not board._play.playing and "<b>finished</b>" in page(board) and "step 12 of 12" in page(board)
    sent = []
    for widget in widgets(board.view):
        widget.observe(sent.append)
    board.refresh()
    assert sent == []


def test_the_pictures_follow_and_the_gallery_keeps_model_weights_and_picture(board, run):
    screen = board.screen
    images = [screen.large, screen.bicubic, screen.ground_truth, screen.whole]
    assert [Image.open(io.BytesIO(image.value)).size for image in images] == [(96, 96)] * 3 + [(120, 96)]
    assert "step 0 ·" in page(board) and "against bicubic" in page(board)
    before = [image.value for image in images]
    press(board, "keep this")
    train(board)
    press(board, "keep this")
    changed = [a != b.value for a, b in zip(before, images, strict=True)]
    assert changed == [True, False, False, False] and f"{run.film.frames[-1].psnr:.2f} dB" in page(board)
    first, second = board.gallery.kept
    assert (first.frame.step, second.frame.step) == (0, 12) and first.frame.weights == {"mse": 1, "l1": 0, "lr": 1e-3}
    again = run.film.take(second.model, run.trainer.loss, 12)
    assert torch.equal(again.details, second.frame.details) and first.frame.psnr != second.frame.psnr
    press(board, "clear the gallery")
    assert len(board.gallery.kept) == 2  # it asks
    press(board, "really clear the gallery?")
    assert board.gallery.kept == [] and "data:image/png" not in page(board)


def test_the_output_is_compared_in_place(board, run):
    train(board)
    press(board, "keep this")
    output, truth = run.film.frames[-1].details[0], to_uint8(run.film.high)[0]
    screen = board.screen

    def shown():
        return torch.from_numpy(np.array(Image.open(io.BytesIO(screen.large.value)))).permute(2, 0, 1)

    assert torch.equal(shown(), output) and list(screen.against.options) == ["bicubic", "ground truth", "kept 1"]
    screen.against.value, screen.kind.value, screen.line.value = "ground truth", "wipe", 0.25
    assert torch.equal(shown()[..., :23], truth[..., :23]) and torch.equal(shown()[..., 24:], output[..., 24:])
    screen.kind.value = "difference x 8"
    assert torch.equal(shown(), (128 + 8 * (output.int() - truth.int())).clamp(0, 255).to(torch.uint8))
    screen.kind.value = "blink"
    turns = []
    for beat in range(4):
        board._play.value = 10 + beat
        turns.append(torch.equal(shown(), truth))
    assert sorted(turns) == [False, False, True, True]


def test_one_scrubs_back_and_goes_on_from_there(board, run):
    run.plan = {6: {"l1": 0.5}}
    train(board)
    screen, frames = board.screen, list(run.film.frames)
    at = next(index for index, frame in enumerate(frames) if frame.step == 6)
    screen.scrub.value = at
    assert screen.frame is frames[at] and "· step 6 ·" in page(board) and "<b>finished</b>" in page(board)
    assert not screen.back.disabled
    press(board, "newest")
    assert screen.frame is None and screen.scrub.value == len(frames) - 1 and screen.back.disabled
    screen.scrub.value = at
    press(board, "go on from here")
    assert run.step == 6 and screen.frame is None and "stopped: Start goes on" in page(board)
    assert 'class="ghost"' in page(board) and board.controls.sliders["l1"].value == 0
    train(board)
    assert run.step == 12
    press(board, "+1000 steps")
    assert run.trainer.steps == 1012 and "step 12 of 1012" in page(board)
    press(board, "undo")
    assert "no move to undo" in page(board)


def test_a_click_on_the_whole_picture_moves_the_detail(board, run):
    overlay = [w for w in widgets(board.view) if getattr(w, "tooltip", None) == "detail in row 1, column 6"]
    overlay[0].click()
    assert run.film.places == {"picture": (24, 0)} and not board.failure


def test_snapshots_show_the_detail_that_is_watched_and_a_click_lets_nothing_go_unasked(board, run):
    run.film.pictures["picture"] = high = photograph(150, 180)
    run.film._low["picture"] = degrade(high, 2)
    run.place("picture", 0, 0)
    press(board, "keep this")
    train(board)
    press(board, "keep this")
    first, second = board.gallery.kept
    run.film.frames.remove(first.frame)  # as one of a future that was left
    run.film.frames[0].state = None
    before, tiles, count = first.frame.details, board.tiles.view.children[0], len(run.film.frames)
    click = next(w for w in widgets(board.view) if getattr(w, "tooltip", None) == "detail in row 6, column 6")
    click.click()
    assert run.film.places == {"picture": (0, 0)} and f"1 of {count} moments have no checkpoint" in page(board)
    click.click()
    assert run.film.places == {"picture": (84, 54)} and len(run.film.frames) == count - 1 and not board.failure
    for kept in (first, second):
        again = run.film.take(kept.model, run.trainer.loss, 0)
        assert torch.equal(kept.frame.details, again.details) and kept.frame.psnr == again.psnr
    assert not torch.equal(first.frame.details, before) and board.tiles.view.children[0] is not tiles


def test_what_is_compared_is_made_only_where_something_is_new(board, run, monkeypatch):
    made, other = [], board.gallery.other
    monkeypatch.setattr(board.gallery, "other", lambda name: (made.append(name), other(name))[1])
    board.refresh()
    assert made == []
    train(board)
    assert made == ["bicubic"]  # the small pictures stand


def test_missions_are_checked_and_stand_in_the_summary(run, here, capsys):
    twelve = live.Mission(
        "to the end", {"begin": lambda now, film: now.step >= 5, "end": lambda now, film: now.step > 11}
    )
    never = live.Mission("fly", {"reach 90 dB": lambda now, film: now.psnr > 90})
    board = live.Dashboard(run, here, PRESETS, [twelve, never])
    assert "<b>to the end</b>: ○ begin, ○ end" in page(board)
    train(board)
    assert "<b>to the end</b>: ✓ begin, ✓ end" in page(board) and "<b>fly</b>: ○ reach 90 dB" in page(board)
    here.summary()
    assert "missions  1 of 2: to the end" in capsys.readouterr().out


def test_a_way_back_in_time_counts_for_a_mission(run, here):
    there = {"there": lambda now, film: now.step >= 5, "and back": lambda now, film: now.step < 5}
    board = live.Dashboard(run, here, PRESETS, [live.Mission("there and back", there)])
    train(board)
    assert "✓ there, ○ and back" in page(board)
    run.go_back(run.film.frames[0])
    board.refresh()
    assert "✓ there, ✓ and back" in page(board)


def test_a_page_loaded_anew_is_revived(board, run, monkeypatch):
    monkeypatch.setattr(dashboard, "STALE", 0.3)
    run.trainer.steps = 10**6
    seen = []
    board._play.observe(seen.append, "playing")
    board._play.playing = True
    deadline = time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [change["new"] for change in seen[:3]] == [True, False, True] and run.state == "running"
    board._play.playing = False
    assert run.state == "paused"


@pytest.mark.slow
def test_the_graded_figure_carries_moves_and_snapshots(board, here):
    board.controls.sliders["l1"].value = 0.05
    train(board)
    for _ in range(7):
        board.keep()
    press(board, "save the graded figure")
    path = here.figures / "04_by_hand.png"
    assert not board.failure and path.name in page(board) and Image.open(path).size == (3600, 3600)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["moves"] == [{"step": 0, "name": "l1", "old": 0, "new": 0.05}]
    named = [entry["picture"] for entry in facts["shown"]]
    assert named == ["bicubic", *(f"{n}, step 12" for n in (3, 4, 5, 6, 7)), "now, step 12"]
    assert facts["shown"][-1]["weights_sha256"] == facts["weights_sha256"] == facts["shown"][1]["weights_sha256"]
    assert facts["shown"][1]["loss"] == {"mse": 1, "l1": 0.05}


def test_what_goes_wrong_in_the_thread_or_a_callback_is_shown(board, run, monkeypatch):
    monkeypatch.setattr(board, "keep", lambda: {}["<lost>"])
    press(board, "keep this")
    assert "KeyError: &#x27;&lt;lost&gt;&#x27;</div>" in page(board)
    run.trainer.step = lambda batch: 1 / 0
    run.messages.append("out of memory")
    train(board)
    assert "<b>failed</b>" in page(board) and "ZeroDivisionError: division by zero</div>" in page(board)
    assert "out of memory" in page(board)
    monkeypatch.setattr(board.controls, "draw", lambda: [][0])  # even if the drawing is what fails
    press(board, "MSE only")
    assert "IndexError" in page(board)


def film_page(text: str) -> dict:
    """The data in an exported page."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def test_headless_trains_with_the_script_and_shows_the_film_or_raises(run, here, monkeypatch):
    shown = []
    monkeypatch.setenv("SRKIT_HEADLESS", "1")
    monkeypatch.setattr(dashboard, "display", shown.append)
    board = live.show(run, here, PRESETS, script={0: "MSE only", 5: "detail"})
    assert run.state == "finished" and run.step == 12 and run.weights.snapshot() == {"mse": 0, "l1": 0.05, "lr": 2e-3}
    assert {move.step for move in run.history.moves} == {5}
    (figure,) = shown
    data = film_page(figure.data)
    assert data["frames"][0]["step"] == 0 and data["frames"][-1]["weights"] == {"mse": 0, "l1": 0.05}
    assert "<svg" in figure.data and "http" not in figure.data
    assert board.keep().frame.step == 12
    failing = live.Run(run.trainer.fresh(), photograph(48, 48))
    failing.trainer.step = lambda batch: 1 / 0
    with pytest.raises(SRKitError, match="ZeroDivisionError"):
        live.show(failing, here)


def test_the_film_is_exported_and_fits(board, run, here):
    train(board)
    details = run.film.frames[-1].details
    page_path, gif = board.export()
    assert page_path.stat().st_size < 1_500_000 and "<title>04_film</title>" in page_path.read_text()
    with Image.open(gif) as film:
        assert film.n_frames == len(run.film.frames)
    few = export.page(run, largest=200_000 + len(svg.draw(run.film, run.history)) + 4 * len(export.jpeg(details[0])))
    assert len(film_page(few)["frames"]) == 2 < len(run.film.frames)


def test_captions_name_the_features_and_a_gans_diagnosis(dataset, here):
    model = models.create("srresnet-small", 2, channels=8, blocks=1)
    weights = {"loss": {"mse": 1.0, "fire2": 0.01, "adversarial": 0.01}, "features": "squeezenet"}
    config = GANConfig(**SETTINGS, **weights, feature_weights="random", discriminator=4, from_scratch=True)
    trainer = GANTrainer(model, dataset, config)
    with pytest.raises(SRKitError, match="no picture"):
        live.Dashboard(live.Run(trainer), here)
    board = live.Dashboard(live.Run(trainer, photograph(48, 48)), here)
    train(board)
    caption, diagnosis = export.page(board.run), trainer.diagnose()[:10]
    assert not board.run.error and diagnosis and diagnosis in page(board) and diagnosis in caption
    assert "SqueezeNet, random weights" in caption and "a coin" in page(board)
    assert "adversarial" in board.controls.sliders and "adversarial" in board.film.frames[-1].terms


def test_hyper_parameters_move_by_themselves_on_sliders_that_nobody_can_move(here, monkeypatch):
    monkeypatch.setattr(dashboard, "display", lambda *shown: None)
    monkeypatch.delenv("SRKIT_HEADLESS", raising=False)
    pictures = [(photograph(48, 48, seed) * 255).to(torch.uint8) for seed in (1, 2)]
    config = TuningConfig(**SETTINGS, hyper_warmup=2)
    model = models.create("srresnet-small", 2, channels=8, blocks=1)
    options = {"hypers": HYPERS, "validation": ImageDataset(pictures[1:])}
    trainer = TuningTrainer(model, ImageDataset(pictures[:1]), config, **options)
    board = live.show(live.Run(trainer, pictures[0] / 255), here)
    sliders = board.controls.hypers
    before = {name: slider.value for name, slider in sliders.items()}
    assert [*before] == [one.name for one in HYPERS] and all(slider.disabled for slider in sliders.values())
    train(board)
    assert board.run.state == "finished", board.run.error
    for (name, slider), value in zip(sliders.items(), board.run.trainer.values().tolist(), strict=True):
        assert slider.value == pytest.approx(value, rel=1e-4) and slider.value != before[name]
        assert f"{name}</tspan>, a hyper-parameter" in page(board)
