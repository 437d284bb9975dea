"""A student's hands on the dashboard: in JupyterLab, and with the versions that Colab has."""

from __future__ import annotations

import nbformat
import pytest

pytestmark = pytest.mark.slow

# Stands in for lesson 04: a thread that counts, and the view of it.
RUN = '''
import threading, time

class Run:
    """Counts in a thread while it is "running"."""

    def __init__(self):
        self.step, self.state, self.weight, self.moves = 0, "paused", 1.0, []
        self.thread = threading.Thread(target=self.train, daemon=True)
        self.thread.start()

    def train(self):
        while self.state != "stopped":
            time.sleep(0.01)
            self.step += self.state == "running"

    def set(self, weight):
        self.moves.append((self.step, self.weight, weight))
        self.weight = weight

run = Run()
'''
VIEW = """
import ipywidgets as W

play = W.Play(min=0, max=10**9, interval=200)
slider = W.FloatSlider(description="relu1_2", value=1.0, min=0, max=2, step=0.1)
log = W.SelectionSlider(description="relu2_2", options=["off", "0.01", "0.1", "1"], value="off")
curve = W.HTML()

def refresh(change=None):
    marks = "".join(f"<line class='move' x1='{step}' x2='{step}' y2='9' stroke='red'/>" for step, *_ in run.moves)
    curve.value = f"<p class='step'>step {run.step}</p><svg height='9'>{marks}</svg>"

def on_playing(change):
    run.state = "running" if change["new"] else "paused"

def on_value(change):
    if change["new"] == 0:
        run.state = "stopped"
    refresh()

play.observe(on_playing, "playing" if play.has_trait("playing") else "_playing")
play.observe(on_value, "value")
slider.observe(lambda change: run.set(change["new"]), "value")
W.VBox([play, slider, log, curve])
"""


@pytest.fixture
def lesson(tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in (RUN, VIEW)]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "toy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
    return path


def test_start_turn_pause_stop(stage, lesson):
    page = stage(lesson)
    page.run_all()
    assert page.ask("W.__version__").startswith(page.widgets)
    assert page.ask("run.step") == 0

    page.play("play")
    page.wait_for("run.step > 10")
    page.wait("the step in the page", lambda: page.text(".step") != "step 0")

    page.press("relu1_2", "ArrowRight", "ArrowRight")
    page.wait_for("abs(run.weight - 1.2) < 1e-6")
    page.drag("relu1_2", to=0)
    page.wait_for("run.weight == 0")
    page.press("relu2_2", "End")
    page.wait_for("log.value == '1'")
    moves = page.ask("run.moves")
    assert moves[0][1:] == [1.0, 1.1] and moves[0][0] > 10
    assert moves[-1][2] == 0
    page.wait("a mark for each move", lambda: page.find("svg .move").count() == len(moves))
    page.screenshot("running")

    page.play("pause")
    page.wait_for("run.state == 'paused'")
    step = page.ask("run.step")
    page.press("relu1_2", "ArrowRight")
    page.wait_for("run.weight == 0.1")
    assert page.ask("run.step") - step <= 1

    page.play("stop")
    page.wait_for("not run.thread.is_alive()")
    page.run_all()
    assert page.ask("(run.step, run.thread.is_alive())") == [0, True]
    assert page.errors() == []
