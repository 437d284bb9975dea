"""A student's hands on lesson 04's dashboard: in JupyterLab, and with the versions that Colab has."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "04_perceptual_loss.ipynb"
LAYER = "relu2_2"


def test_start_turn_pause_stop(stage):
    page = stage(LESSON)
    page.run_all(timeout=600)
    assert page.ask("__import__('ipywidgets').__version__").startswith(page.widgets)
    assert page.ask("(run.state, run.step)") == ["ready", 0]

    page.play("play")
    page.wait_for("run.step > 5", timeout=60)
    page.wait("the step in the page", lambda: "step 0 of" not in page.find(".srkit-facts").first.inner_text())
    start = page.ask("run.weights.snapshot()")

    page.press(f"λ {LAYER}", "ArrowRight", "ArrowRight")
    page.wait_for(f"run.weights.snapshot()['{LAYER}'] > {start[LAYER]}")
    page.wait_for("len(run.history.moves) >= 1", timeout=60)
    page.drag_to_left_end(f"λ {LAYER}")
    page.wait_for(f"run.trainer.loss.weights['{LAYER}'] == 0", timeout=60)
    page.button("detail")
    page.wait_for(f"run.trainer.loss.weights['{LAYER}'] > 0", timeout=60)
    moves = page.ask("run.history.moves")
    assert moves[0][0] > 5 and moves[0][1] == LAYER and moves[0][2] == start[LAYER] < moves[0][3]
    assert any(name == LAYER and new == 0 for _, name, _, new in moves)
    page.wait_for(f"run.history.rows[-1].get('weighted/{LAYER}', 0) > 0", timeout=60)

    graphs = page.find(".srkit svg")
    page.wait("two graphs", lambda: graphs.count() == 2)
    steps = {step for step, *_ in moves}
    page.wait("a mark at each step with a move", lambda: graphs.first.locator("g.move").count() >= len(steps))
    page.button("keep this")
    page.wait("the snapshot", lambda: page.find(".srkit-gallery figure").count() == 1)
    page.screenshot("running", ".srkit")

    page.play("pause")
    page.wait_for("run.state == 'paused'")
    later = "(__import__('time').sleep(1), run.step)[1]"
    page.wait("the end of the step that was being done", lambda: page.ask("run.step") == page.ask(later))
    step = page.ask("run.step")
    page.press(f"λ {LAYER}", "End")
    page.wait_for(f"run.weights.snapshot()['{LAYER}'] > 0")
    assert page.ask("run.step") == step

    page.play("stop")
    page.wait_for("run.state == 'stopped' and run.wait(0)", timeout=60)
    assert page.errors() == []
