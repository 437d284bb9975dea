"""The view of a `Run` in a notebook: sliders for its weights while it trains, its pictures and its curves.

The training's thread never touches a widget. The heartbeat is the browser's: Play, the widget with the Start button,
counts up every half second, and at each count the view takes over what is new (`refresh`).
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as W
from IPython.display import HTML, display

from srkit.live.gallery import STRIP, Gallery, Kept, describe, jpeg, still
from srkit.live.presets import Presets
from srkit.live.run import Run, last_lines
from srkit.live.svg import draw, short
from srkit.settings import Setup, SRKitError, unknown

STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
FIT = {"width": "auto", "flex": "0 0 auto"}  # layouts: of a control, of what may be large, of a line of controls
OPEN = {"grid_gap": "8px", "overflow": "visible"}
ROW = {**OPEN, "flex_flow": "row wrap", "align_items": "center"}
HINT = '<span class="srkit-hint">Far left is <b>off</b>: the term weighs 0 and is not even computed.</span>'


def show(run: Run, here: Setup, presets: Mapping[str, Mapping[str, float]] | None = None) -> Dashboard:
    """Show the dashboard of a run; its Start button starts it.

    Where nobody can press it, with SRKIT_HEADLESS=1, the same call trains to the end with the last preset, and shows
    curves and pictures as they stand then.

    Args:
        run: from `live.Run`, with a picture to watch.
        here: from `srkit.setup`: where presets and figures go.
        presets: weights by a name each; a term that a preset leaves out weighs 0. It may hold lr, the learning rate.

    Raises:
        SRKitError: the run has no picture; a preset has a term that this loss does not have; headless, also
            what ended the training.
    """
    board = Dashboard(run, here, presets)
    if not os.environ.get("SRKIT_HEADLESS"):
        display(board.view)
        return board
    if presets:
        board.apply(list(presets)[-1])
    run.start()
    try:
        run.wait()
    finally:
        run.stop()  # an interrupt reaches this cell, not the thread
    if run.error:
        raise SRKitError(run.error)
    board.refresh()
    display(HTML(f'<style>{STYLE}</style><div class="srkit">{still(run, board.gallery)}</div>'))
    return board


class Dashboard:
    """The widgets around a Run. What its buttons do can be called, too: `apply`, `keep`, `clear`, `save`.

    Attributes:
        view: the widget that `show` displays.
        presets: the lesson's and the student's own.
        sliders: one for each term, and "lr", the learning rate.
        hypers: one for each hyper-parameter that a `TuningTrainer` moves, to look at.
        gallery: the picture that one watches, and its snapshots.
        message: a line below the status; `failure`: the last lines of what went wrong in a callback.
    """

    def __init__(self, run: Run, here: Setup, presets: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self.run, self.here = run, here
        self.gallery = Gallery(run)
        self.presets = Presets(run.trainer.loss.weights, presets or {}, here.runs / "presets.json")
        self.message, self.failure = self.presets.message, ""
        self.sliders: dict[str, W.SelectionSlider] = {}
        self.hypers: dict[str, W.FloatSlider | W.FloatLogSlider] = {}
        self._shown: dict[str, float] = {}  # the weights on the sliders
        self._drawn = (0, 0)  # how many rows and moves the curves show
        self._lock = threading.Lock()  # JupyterLab calls back in two threads: one refresh at a time
        self._build()
        self._draw_presets()
        self._draw_pictures()
        self.refresh()

    # ------------------------------------------------------------------------------ what its buttons do

    def apply(self, name: str) -> None:
        """Set all weights to those of a preset, from one and the same step on.

        Raises:
            SRKitError: no such preset.
        """
        presets = self.presets.all()
        if name not in presets:
            raise unknown("preset", name, presets)
        self.run.weights.set(**presets[name])

    def keep(self) -> Kept:
        """Take model, weights and output as they are now into the gallery."""
        kept = self.gallery.keep()
        self._tiles.value = self.gallery.html()
        self.message = f"kept: snapshot {len(self.gallery.kept)} of step {kept.step} stands below the curves"
        return kept

    def clear(self) -> None:
        """Empty the gallery."""
        self.gallery.kept.clear()
        self._tiles.value = ""

    def save(self, name: str = "by_hand") -> Path:
        """Save the graded figure, see `Gallery.save`; returns the path of the PNG.

        Raises:
            SRKitError: the figure cannot be written.
        """
        path = self.gallery.save(name, self.here)
        self.message = f"saved: {os.path.relpath(path)}"
        return path

    # ------------------------------------------------------------------------------ building

    def _build(self) -> None:
        self._play = W.Play(value=1, min=0, max=10**9, interval=500, show_repeat=False, layout=FIT)
        self._playing = "playing" if self._play.has_trait("playing") else "_playing"  # ipywidgets 8, or 7
        self._play.observe(self._guarded(self._on_play), self._playing)
        self._play.observe(self._guarded(self._on_beat), "value")
        self._status = W.HTML(layout={"flex": "1 1 320px", "margin": "0 0 0 8px"})
        self._messages, self._remark, self._graphs, self._tiles = W.HTML(), W.HTML(), W.HTML(), W.HTML()
        self._presets = W.Box(layout=ROW)
        self._name = W.Text(placeholder="name of your own", layout={**FIT, "width": "150px"})
        save_preset = self._button("save preset", self._on_save_preset, "keep the weights as they are now")
        columns = "repeat(auto-fill, minmax(min(400px, 100%), 1fr))"
        self._add_sliders()
        children = [
            W.HTML(f"<style>{STYLE}</style>", layout={"display": "none"}),
            W.Box([self._play, self._status], layout=ROW),
            self._messages,
            W.Box([self._presets, self._name, save_preset], layout=ROW),
            W.GridBox(
                [*self.sliders.values(), *self.hypers.values()],
                layout={**OPEN, "grid_gap": "0 20px", "grid_template_columns": columns},
            ),
            self._remark,
            *self._picture_widgets(),
            self._graphs,
            self._tiles,
        ]
        self.view = W.VBox(children, layout=OPEN)
        self.view.add_class("srkit")

    def _add_sliders(self) -> None:
        """A slider for each term and the learning rate."""
        self._callbacks = {}
        for term, value in self.run.weights.snapshot().items():
            self.sliders[term] = W.SelectionSlider(
                options=self.presets.stops(term, value),
                value=value,
                description="learning rate" if term == "lr" else f"λ {term}",
                style={"description_width": "92px"},
                layout={**FIT, "min_width": "0"},
            )
            self._callbacks[term] = self._guarded(functools.partial(self._on_slider, term))
            self.sliders[term].observe(self._callbacks[term], "value")

        for one in getattr(self.run.trainer, "hypers", ()):  # these move by themselves
            kind, ends = W.FloatSlider, (one.least, one.most)
            if one.log:
                kind, ends = W.FloatLogSlider, (math.log10(one.least), math.log10(one.most))
            options = {"min": ends[0], "max": ends[1], "step": (ends[1] - ends[0]) / 500, "readout_format": ".3g"}
            look = {"style": {"description_width": "92px"}, "layout": {**FIT, "min_width": "0"}}
            self.hypers[one.name] = kind(one.start, description=one.name, disabled=True, **options, **look)

    def _picture_widgets(self) -> list[W.Widget]:
        self._images = {name: W.Image(format="jpeg") for name in STRIP}
        self._words = {name: W.HTML() for name in STRIP}
        column = {"flex": "0 1 auto", "max_width": "33%", "overflow": "visible"}
        columns = [W.VBox([self._images[name], self._words[name]], layout=column) for name in STRIP]
        buttons = [
            self._button("keep this", lambda button: self.keep(), "a snapshot for the gallery"),
            self._button("clear the gallery", lambda button: self.clear()),
            self._button("save the graded figure", lambda button: self.save()),
        ]
        return [W.HBox(columns, layout=OPEN), W.Box(buttons, layout=ROW)]

    def _button(self, words: str, callback: Callable[[W.Button], Any], tooltip: str = "") -> W.Button:
        button = W.Button(description=words, tooltip=tooltip, layout=FIT)
        button.on_click(self._guarded(callback))
        return button

    # ------------------------------------------------------------------------------ callbacks

    def _guarded(self, action: Callable[..., Any]) -> Callable[..., None]:
        """A widget's callback: what goes wrong in it stands on the dashboard; elsewhere it would vanish."""

        def callback(*args: Any) -> None:
            try:
                action(*args)
            except SRKitError as error:
                self.message = str(error)
            except Exception:
                self.failure = last_lines()
            try:
                self.refresh()
            except Exception:
                self._messages.value = _box("error", last_lines())

        return callback

    def _on_play(self, change: Any) -> None:
        if change["new"]:
            self.run.start()
        else:
            self.run.pause()
            with self.run.between_steps():  # the step that was being done is seen, too
                pass

    def _on_beat(self, change: Any) -> None:
        if change["new"] == 0:  # Play goes back to 0 only where its Stop is pressed
            self.run.stop()
            self.run.wait(10)

    def _on_slider(self, term: str, change: Any) -> None:
        if change["new"] != self.run.weights.snapshot()[term]:
            self.message = ""
            self._shown = {}  # taken or refused: the slider shows what holds
            self.run.weights.set(**{term: change["new"]})

    def _on_preset(self, button: W.Button) -> None:
        self.message = ""
        self.apply(button.description)

    def _on_save_preset(self, button: W.Button) -> None:
        self.message = f"saved: {self.presets.save(self._name.value, self.run.weights.snapshot())}"
        self._name.value = ""
        self._draw_presets()

    # ------------------------------------------------------------------------------ drawing

    def refresh(self) -> None:
        """Take over what is new in the run; a widget is touched only where something is."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self.run.state in ("stopped", "finished", "failed") and getattr(self._play, self._playing):
                setattr(self._play, self._playing, False)
            self._draw_status()
            self._draw_sliders()
            history = self.run.history
            if self._drawn != (drawn := (len(history.rows), len(history.moves))):
                self._drawn, self._graphs.value = drawn, draw(history, self.run.trainer.loss.describe())
            if self.run.preview is not self._preview:
                self._draw_pictures()
        finally:
            self._lock.release()

    def _draw_status(self) -> None:
        run, total = self.run, self.run.trainer.steps
        state = {"ready": "ready: press Start", "stopped": "stopped: Start goes on"}.get(run.state, run.state)
        rate = run.trainer.optimizer.param_groups[0]["lr"]
        facts = [f"<b>{state}</b>", f"step {run.step} of {total}", f"{run.trainer.seconds:.0f} s",
                 f"learning rate {rate:.2g}"]  # fmt: skip
        self._status.value = (
            f'<div class="srkit-facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</div>'
            f'<div class="srkit-bar"><div style="width:{100 * run.step / total:.1f}%"></div></div>'
        )
        boxes = [_box("error", error) for error in (run.error, self.failure)]
        self._messages.value = "".join(boxes + [_box("said", line) for line in (*run.messages, run.trainer.diagnose())])
        self._messages.layout.display = "" if self._messages.value else "none"  # empty, it would still take a gap
        self._remark.value = f'<div class="srkit-under">{HINT}{_box("said", self.message)}</div>'

    def _draw_sliders(self) -> None:
        """Show the weights that hold, whoever set them, and hyper-parameters as they are."""
        if self.hypers:
            trainer: Any = self.run.trainer
            for slider, value in zip(self.hypers.values(), trainer.values().tolist(), strict=True):
                slider.value = value
        values = self.run.weights.snapshot()
        if values == self._shown:
            return
        self._shown = values
        for term, slider in self.sliders.items():
            value = values[term]
            if value not in [stop for _, stop in slider.options]:  # set in a cell, to a weight of its own
                slider.unobserve(self._callbacks[term], "value")
                slider.options = sorted([*slider.options, (short(value), value)], key=lambda option: option[1])
                slider.value = value
                slider.observe(self._callbacks[term], "value")
            slider.value = value
        presets = self.presets.all()
        for button in self._presets.children:
            button.button_style = "info" if presets[button.description].items() <= values.items() else ""

    def _draw_presets(self) -> None:
        presets = self.presets.all().items()
        self._presets.children = [self._button(name, self._on_preset, ", ".join(describe(p))) for name, p in presets]
        self._shown = {}

    def _draw_pictures(self) -> None:
        self._preview = self.run.preview
        for name, (remark, picture, times) in self.gallery.strip().items():
            self._images[name].value = jpeg(picture, times)
            self._words[name].value = f'<div class="srkit-words"><b>{name}</b><span>{remark}</span></div>'


def _box(kind: str, text: str) -> str:
    return f'<div class="srkit-{kind}">{escape(text)}</div>' if text else ""
