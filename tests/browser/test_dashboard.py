"""A student's hands on the dashboard: in JupyterLab, and with the versions that Colab has."""

from __future__ import annotations

import re

import nbformat
import pytest

pytestmark = pytest.mark.slow

TERM = "l1"
CELLS = [
    """
import torch
from srkit import live, models, settings
from srkit.data import load_dataset
from srkit.losses import WeightedLoss
from srkit.training import TrainConfig, Trainer

torch.manual_seed(0)
here = settings.setup("04", settings.Student("Ada", "1815"))
dataset, test = load_dataset("bundled", "train", size=96), dict(load_dataset("bundled", "test", size=192))
config = TrainConfig(steps=20_000, batch_size=2, patch_size=48, log_freq=5, ema=0.9)
loss = WeightedLoss({"mse": 1.0, "l1": 0.0, "tv": 0.0})
run = live.Run(Trainer(models.create("srcnn", 3, channels=(8, 8)), dataset, config, loss, out=here.runs / "hand"), test)
""",
    """
presets = {"MSE alone": {"mse": 1.0}, "edges": {"mse": 1.0, "l1": 0.05}, "crash": {"mse": 1.0, "lr": 3.0}}
mission = live.Mission("go far", {"come to step 20": lambda now, film: now.step >= 20})
board = live.show(run, here, presets, [mission])
""",
]


@pytest.fixture
def page(stage, tmp_path):
    path = tmp_path / "board.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    page = stage(path)
    page.run_all(timeout=600)
    assert page.ask("__import__('ipywidgets').__version__").startswith(page.widgets)
    assert page.ask("(run.state, run.step)") == ["ready", 0]
    return page


def test_start_move_compare_go_back_and_stop(page):
    page.play("play")
    page.wait_for("run.step > 20", timeout=180)
    page.wait("the step in the page", lambda: "step 0 of" not in page.find(".srkit-facts").first.inner_text())
    page.wait("the mission", lambda: "✓" in page.find(".srkit-mission").first.inner_text())

    page.button("edges")
    page.wait_for(f"run.trainer.loss.weights['{TERM}'] == 0.05", timeout=180)
    page.press(f"λ {TERM}", "ArrowRight")
    page.wait_for(f"run.trainer.loss.weights['{TERM}'] > 0.05", timeout=180)
    handle = page.slider(f"λ {TERM}").locator(page.handle)
    words = re.compile(r"0\.0\d+, (loss \d+%, gradient \d+%|off: .*)$")
    page.wait("the slider in words", lambda: words.match(handle.get_attribute("aria-valuetext") or ""))
    assert handle.get_attribute("aria-label") == f"weight of {TERM}" and handle.get_attribute("role") == "slider"
    page.drag_to_left_end(f"λ {TERM}")
    page.wait_for(f"run.trainer.loss.weights['{TERM}'] == 0", timeout=180)
    moves = page.ask("run.history.moves")
    assert [new for _, name, _, new in moves if name == TERM][-1] == 0  # and one drag was one move
    assert len(moves) == 3
    graph = page.find(".srkit-graphs svg")
    page.wait("one drawing of all curves", lambda: graph.count() == 1)
    page.wait("a mark at each step with a move", lambda: graph.locator("g.move").count() == len({m[0] for m in moves}))
    page.wait("a line for what weighs 0", lambda: graph.locator(f"path.line:has(title:text-is('{TERM}'))").count() == 1)

    page.button("wipe")
    page.wait_for("board.screen.kind.value == 'wipe'")
    page.button("keep this")
    page.wait("the snapshot", lambda: page.find(".srkit-gallery figure").count() == 1)
    page.screenshot("running", ".srkit")

    before = page.ask("run.step")
    page.button("undo")
    page.wait_for("len(run.history.moves) < 3", timeout=180)
    page.wait("the ghost of the other future", lambda: graph.locator("path.ghost").count() > 0)
    assert page.ask("run.film.ghost[-1].step") >= before - 200

    page.play("pause")
    page.wait_for("run.state == 'paused'")
    later = "(__import__('time').sleep(1), run.step)[1]"
    page.wait("the end of the step that was being done", lambda: page.ask("run.step") == page.ask(later))
    step = page.ask("run.step")
    page.press("time", "Home")
    page.wait_for("board.screen.frame is run.film.frames[0]")
    time = page.slider("time").locator(page.handle)
    page.wait("the time in words", lambda: time.get_attribute("aria-valuetext") == "step 0")
    page.button("go on from here")
    page.wait_for(f"run.step < {step} and board.screen.frame is None")
    page.button("+1000 steps")
    page.wait_for("run.trainer.steps == 21_000")

    page.play("stop")
    page.wait_for("run.state == 'stopped' and run.wait(0)", timeout=180)
    assert page.errors() == []


def test_the_coach_saves_a_crash(page):
    page.play("play")
    page.wait_for("run.step > 100", timeout=180)
    page.button("crash")
    page.wait_for("board._advice is not None and board._advice.back is not None", timeout=120)
    page.play("pause") if page.ask("run.state") == "running" else None
    page.wait("advice in the page", lambda: "learning rate" in page.find(".srkit-coach").first.inner_text())
    page.screenshot("coach", ".srkit")
    page.button("back to step")
    page.wait_for("run.weights.snapshot()['lr'] == 0.3 and run.film.frames[-1].psnr > run.film.bicubic.psnr - 15")
    assert page.errors() == []


def test_a_page_loaded_anew_goes_on_being_drawn(page):
    if page.widgets.startswith("7"):
        pytest.skip("ipywidgets 7 starts its timer from its own button alone")
    page.play("play")
    page.wait_for("run.step > 5", timeout=180)
    page.reload()
    page.wait("the dashboard", lambda: page.find(".srkit-facts").count() == 1, timeout=180)
    seen, beats = page.find(".srkit-facts").first.inner_text(), page.ask("board._beats")
    page.wait("news", lambda: page.find(".srkit-facts").first.inner_text() != seen, timeout=60)
    page.wait_for(f"board._beats > {beats} + 4", timeout=180)  # the page's own timer, not the kernel's reviver alone
    assert page.ask("run.state") == "running"
    page.play("stop")
    page.wait_for("run.wait(0)", timeout=180)
