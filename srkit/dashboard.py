"""The view of a `live.Run` in a notebook: sliders for its weights while it trains, its pictures and its curves.

    run = live.Run(trainer, high)
    board = dashboard.show(run, here, presets={"MSE only": {"mse": 1}, "the paper's": {"mse": 1, "relu2_2": 0.05}})

The training's thread never touches a widget. The heartbeat is the browser's: Play, the widget with the Start button,
counts up every half second, and at each count the view takes over what is new (`refresh`).
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Collection, Mapping
from html import escape
from pathlib import Path
from typing import Any

from srkit import sketch
from srkit.errors import SRKitError
from srkit.gallery import STRIP, Gallery, Kept, weighing
from srkit.live import Run, last_lines
from srkit.presets import Presets
from srkit.profiles import Setup

DIGITS = (1, 1.5, 2.2, 3.3, 4.7, 6.8)  # the stops of a slider in each power of ten

STYLE = """<style>
.srkit { max-width: 1060px; padding: 2px 4px 8px 2px;
         color: var(--colab-primary-text-color, var(--jp-content-font-color1, currentColor)); }
.srkit .widget-html, .srkit .widget-html-content { color: inherit; line-height: 1.45; height: auto; min-width: 0; }
.srkit .widget-html, .srkit .widget-html-content, .srkit .widget-image, .srkit .jupyter-button { margin: 0; }
.srkit .widget-play { width: auto; margin: 0; overflow: visible; gap: 6px; }
.srkit .widget-play button { width: auto; min-width: 92px; padding: 0 14px; overflow: visible; }
.srkit .widget-play i { font: inherit; }
.srkit .fa-play::before { content: "\\25B6\\FE0E\\00A0 Start"; }
.srkit .fa-pause::before { content: "\\275A\\275A\\00A0 Pause"; }
.srkit .fa-stop::before { content: "\\25A0\\00A0 Stop"; }
.srkit-facts { display: flex; flex-wrap: wrap; gap: 0 18px; font-variant-numeric: tabular-nums; }
.srkit-bar { height: 3px; margin-top: 3px; background: rgba(128, 128, 128, .25); }
.srkit-bar div { height: 100%; background: #3d85c6; }
.srkit-hint { opacity: .7; font-size: 12px; }
/* no <pre>: notebooks have rules of their own for it */
.srkit-error { margin: 4px 0; padding: 8px 10px; border-left: 4px solid #d1495b; background: rgba(209, 73, 91, .12);
             color: inherit; white-space: pre-wrap; font-family: monospace; font-size: 12px; line-height: 1.4; }
.srkit-said { padding: 1px 10px; border-left: 4px solid #a6761d; }
.srkit-under { display: flex; flex-wrap: wrap; gap: 0 24px; align-items: center; }
.srkit .widget-image { width: auto; max-width: 100%; height: auto; object-fit: contain; }
.srkit-words { font-size: 12px; } .srkit-words span { display: block; min-height: 1.45em; opacity: .75; }
.srkit-gallery { display: flex; flex-wrap: wrap; gap: 10px 14px; }
.srkit-gallery figure { margin: 0; width: 168px; font-size: 12px; }
.srkit-gallery img { display: block; width: 168px; margin: 0 0 3px; }
</style>"""


HINT = '<span class="srkit-hint">Far left is <b>off</b>: the term weighs 0 and is not even computed.</span>'


def show(
    run: Run, here: Setup, presets: Mapping[str, Mapping[str, float]] | None = None, headless: str | None = None
) -> Dashboard:
    """Show the dashboard of a run; its Start button starts it.

    Where nobody can press it, with SRKIT_HEADLESS=1, the same call trains to the end with the preset `headless`,
    and shows one figure.

    Args:
        run: from `live.Run`.
        here: from `srkit.setup`: where presets and figures go.
        presets: weights by a name each; a term that a preset leaves out weighs 0. It may hold a learning_rate.
        headless: a preset's name; the last one if not given; the weights as they are if there are no presets.

    Raises:
        SRKitError: a preset has a term that this loss does not have; headless, also what ended the training.
    """
    from IPython.display import Image, display

    board = Dashboard(run, here, presets)
    if not os.environ.get("SRKIT_HEADLESS"):
        display(board.view)
        return board
    if headless or board.presets.given:
        board.apply(headless or list(board.presets.given)[-1])
    run.start()
    try:
        run.wait()
    finally:
        run.stop()  # an interrupt reaches this cell, not the thread
    if run.error:
        raise SRKitError(run.error)
    board.refresh()
    display(Image(data=sketch.png(board.still()), width=900))
    return board


def stops(reference: float, exact: Collection[float] = (), off: bool = True) -> list[tuple[str, float]]:
    """Where a logarithmic slider can stand: its labels and values, from a hundredth to the hundredfold of `reference`.

    Args:
        reference: a positive number.
        exact: values that must be among them; those nearby are left out.
        off: begin with a stop of 0, which no logarithm reaches.
    """
    low, high = math.log10(reference) - 2.001, math.log10(reference) + 2.001
    round_ones = [float(f"{digit}e{power}") for power in range(math.floor(low), math.ceil(high)) for digit in DIGITS]
    exact = {reference, *exact} - {0}
    values = {value for value in round_ones if low <= math.log10(value) <= high}
    values = {value for value in values if all(abs(math.log(value / one)) > 0.1 for one in exact)} | exact
    return [("off", 0.0)] * off + [(sketch.short(value), value) for value in sorted(values)]


def _guarded(method: Callable) -> Callable:
    """A widget's callback: what goes wrong in it stands on the dashboard; elsewhere it would vanish."""

    @functools.wraps(method)
    def callback(self: Dashboard, *args: Any) -> None:
        try:
            method(self, *args)
        except SRKitError as error:
            self.message = str(error)
        except Exception:
            self.failure = last_lines()
        try:
            self.refresh()
        except Exception:
            self._messages.value = _failed(last_lines())

    return callback


def _said(line: str) -> str:
    return f'<div class="srkit-said">{escape(line)}</div>' if line else ""


def _failed(error: str) -> str:
    return f'<div class="srkit-error">{escape(error)}</div>'


class Dashboard:
    """The widgets around a Run. What its buttons do can be called, too: `apply`, `keep`, `clear`, `save`.

    Attributes:
        view: the widget that `show` displays.
        presets: the lesson's and the student's own.
        sliders: one for each term, and "learning_rate".
        gallery: the picture that one watches, and its snapshots.
        message: a line below the status; `failure`: the last lines of what went wrong in a callback.
    """

    def __init__(self, run: Run, here: Setup, presets: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self.run, self.here, self.gallery = run, here, Gallery(run)
        self.terms = [name for name in run.weights.snapshot() if name != "learning_rate"]
        self.presets = Presets(self.terms, presets or {}, here.runs / "presets.json")
        self.message, self.failure = self.presets.message, ""
        self.curves = sketch.Curves(run.history, run.trainer.loss.note)
        self._shown: dict[str, float] = {}  # the weights on the sliders
        self._seen = -1  # the step of the output on the page
        self._lock = threading.Lock()  # JupyterLab calls back in two threads: one refresh at a time
        self._build()
        self._draw_pictures()
        self.refresh()

    def __repr__(self) -> str:
        return f"<Dashboard of a run that is {self.run.state} at step {self.run.step}>"

    # ------------------------------------------------------------------------------ what one does

    def apply(self, name: str) -> None:
        """Set all weights to those of a preset, from one and the same step on.

        Raises:
            SRKitError: no such preset.
        """
        self.run.weights.set(**self.presets[name])

    @property
    def kept(self) -> list[Kept]:
        """The gallery's snapshots, the earliest first."""
        return self.gallery.kept

    def keep(self) -> Kept:
        """Take model, weights and output as they are now into the gallery.

        Raises:
            SRKitError: the run watches no picture.
        """
        kept = self.gallery.keep()
        self._tiles.value = self.gallery.html()
        return kept

    def clear(self) -> None:
        """Empty the gallery."""
        self.kept.clear()
        self._tiles.value = self.gallery.html()

    def save(self, name: str = "by_hand", show: bool = False) -> Path:
        """Save the graded figure, see `Gallery.save`; returns the path of the PNG.

        Raises:
            SRKitError: the run watches no picture.
        """
        path = self.gallery.save(name, self.here, show)
        self.message = f"saved: {os.path.relpath(path)}"
        return path

    def still(self) -> Any:
        """Curves and pictures as a matplotlib Figure; its caption says the weights and whose features were used."""
        self.curves.read()
        words = f"after step {self.run.step}, weights {', '.join(weighing(self.run.weights.snapshot(), self.terms))}"
        note = self.run.trainer.loss.note
        pictures = {
            f"{name} ({remark})" if remark else name: picture
            for name, (remark, picture, _) in self.gallery.strip().items()
        }
        words += f"; features: {note}" if note else ""
        return sketch.still(self.curves, pictures, ". ".join(filter(None, [words, self.run.verdict])))

    # ------------------------------------------------------------------------------ building

    def _build(self) -> None:
        import ipywidgets as W

        def button(words: str, callback: Callable, tooltip: str = "") -> Any:
            made = W.Button(description=words, tooltip=tooltip, layout=W.Layout(width="auto", flex="0 0 auto"))
            made.on_click(callback)
            return made

        row = W.Layout(flex_flow="row wrap", align_items="center", grid_gap="6px", overflow="visible")
        self._play = W.Play(value=1, min=0, max=10**9, interval=500, layout=W.Layout(flex="0 0 auto"))
        self._play.show_repeat = False
        self._playing = "playing" if self._play.has_trait("playing") else "_playing"  # ipywidgets 8, or 7
        self._play.observe(self._on_play, self._playing)
        self._play.observe(self._on_beat, "value")
        self._status = W.HTML(layout=W.Layout(flex="1 1 320px", margin="0 0 0 8px"))
        self._messages, self._remark = W.HTML(), W.HTML()
        self._presets = W.Box(layout=row)
        self._name = W.Text(placeholder="name of your own", layout=W.Layout(width="150px", flex="0 0 auto"))
        self._button = button
        self._save_preset = button("save preset", self._on_save_preset, "keep the weights as they are now")
        self._sliders_of(W)
        self._whole = W.ToggleButton(
            value=False, description="whole picture", layout=W.Layout(width="auto", flex="0 0 auto")
        )
        self._whole.observe(self._on_whole, "value")
        self._images = {name: W.Image(format="jpeg") for name in STRIP}
        self._words = {name: W.HTML() for name in self._images}
        columns = [
            W.VBox(pair, layout=W.Layout(flex="0 1 auto", max_width="33%", overflow="visible"))
            for pair in zip(self._images.values(), self._words.values(), strict=True)
        ]
        strip = W.HBox(columns, layout=W.Layout(grid_gap="8px", overflow="visible"))
        actions = [
            button("keep this", self._on_keep, "a snapshot for the gallery"),
            button("clear the gallery", self._on_clear),
            button("save the graded figure", self._on_save),
        ]
        self._graphs, self._tiles = W.HTML(), W.HTML()
        self.view = W.VBox(
            [
                W.HTML(STYLE, layout=W.Layout(display="none")),
                W.Box([self._play, self._status], layout=row),
                self._messages,
                W.Box([self._presets, self._name, self._save_preset], layout=row),
                self._grid,
                self._remark,
                *([strip, W.Box([self._whole, *actions], layout=row)] if self.run.high is not None else []),
                self._graphs,
                self._tiles,
            ],
            layout=W.Layout(grid_gap="8px", overflow="visible"),
        )
        self.view.add_class("srkit")
        self._draw_presets()

    def _sliders_of(self, W: Any) -> None:
        """A slider for each term and the learning rate; each preset's weights are stops of theirs."""
        now, presets = self.run.weights.snapshot(), [self.presets[name] for name in self.presets.names()]
        self.sliders, self._callbacks = {}, {}
        for term, value in now.items():
            exact = {value, *(preset[term] for preset in presets if term in preset)}
            options = stops(max(exact) or 1.0, exact, off=term != "learning_rate")
            self.sliders[term] = W.SelectionSlider(
                options=options,
                value=value,
                description="learning rate" if term == "learning_rate" else f"λ {term}",
                style={"description_width": "92px"},
                layout=W.Layout(width="auto", min_width="0", flex="0 0 auto"),
            )
            self._callbacks[term] = functools.partial(self._on_slider, term)
            self.sliders[term].observe(self._callbacks[term], "value")
        columns = "repeat(auto-fill, minmax(min(400px, 100%), 1fr))"
        layout = W.Layout(grid_template_columns=columns, grid_gap="0 20px", overflow="visible")
        self._grid = W.GridBox([*self.sliders.values()], layout=layout)

    # ------------------------------------------------------------------------------ callbacks

    @_guarded
    def _on_play(self, change: Any) -> None:
        if change["new"]:
            self.run.start()
        else:
            self.run.pause()
            with self.run.between_steps():  # the step that was being done is seen, too
                pass

    @_guarded
    def _on_beat(self, change: Any) -> None:
        if change["new"] == 0:  # Play goes back to 0 only where its Stop is pressed
            self.run.stop()
            self.run.wait(10)

    @_guarded
    def _on_slider(self, term: str, change: Any) -> None:
        if change["new"] != self.run.weights.snapshot()[term]:
            self.message = ""
            self._shown = {}  # taken or refused: the slider shows what holds
            self.run.weights.set(**{term: change["new"]})

    @_guarded
    def _on_preset(self, button: Any) -> None:
        self.message = ""
        self.apply(button.description)

    @_guarded
    def _on_save_preset(self, button: Any) -> None:
        self.message = f"saved: {self.presets.save(self._name.value, self.run.weights.snapshot())}"
        self._name.value = ""
        self._draw_presets()

    @_guarded
    def _on_whole(self, change: Any) -> None:
        self._draw_pictures()

    @_guarded
    def _on_keep(self, button: Any) -> None:
        kept = self.keep()
        self.message = f"kept: snapshot {len(self.kept)} of step {kept.step} stands below the curves"

    @_guarded
    def _on_clear(self, button: Any) -> None:
        self.clear()

    @_guarded
    def _on_save(self, button: Any) -> None:
        self.message = "drawing the figure …"
        self.refresh()
        self.save()

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
            if self.curves.read():
                self._graphs.value = self.curves.svg()
            preview = self.run.preview
            if preview is not None and preview.step != self._seen:
                self._seen = preview.step
                self._draw_pictures(["output"])
        finally:
            self._lock.release()

    def _draw_status(self) -> None:
        run, total = self.run, self.run.trainer.steps
        state = {"ready": "ready: press Start", "stopped": "stopped: Start goes on"}.get(run.state, run.state)
        rate = run.trainer.optimizer.param_groups[0]["lr"]
        facts = [f"<b>{state}</b>", f"step {run.step} of {total}", f"{run.seconds:.0f} s",
                 f"{run.pictures_per_second:.1f} pictures/s", f"learning rate {rate:.2g}"]  # fmt: skip
        self._status.value = (
            f'<div class="srkit-facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</div>'
            f'<div class="srkit-bar"><div style="width:{100 * run.step / total:.1f}%"></div></div>'
        )
        errors = [_failed(error) for error in (run.error, self.failure) if error]
        self._messages.value = "".join(errors + [_said(line) for line in (*run.messages, run.verdict)])
        self._messages.layout.display = "" if self._messages.value else "none"  # empty, it would still take a gap
        self._remark.value = f'<div class="srkit-under">{HINT}{_said(self.message)}</div>'

    def _draw_sliders(self) -> None:
        """Show the weights that hold, whoever set them."""
        values = self.run.weights.snapshot()
        if values == self._shown:
            return
        self._shown = values
        for term, slider in self.sliders.items():
            if values[term] not in (value for _, value in slider.options):  # set in a cell, to a weight of its own
                slider.unobserve(self._callbacks[term], "value")
                slider.options = sorted(
                    [*slider.options, (sketch.short(values[term]), values[term])], key=lambda o: o[1]
                )
                slider.value = values[term]
                slider.observe(self._callbacks[term], "value")
            slider.value = values[term]
        for button in self._presets.children:
            holds = self.presets[button.description].items() <= values.items()
            button.button_style = "info" if holds else ""

    def _draw_presets(self) -> None:
        self.curves.presets = {name: self.presets[name] for name in self.presets.names()}
        self._presets.children = [
            self._button(name, self._on_preset, ", ".join(weighing(self.presets[name])))
            for name in self.presets.names()
        ]
        self._shown = {}

    def _draw_pictures(self, names: Collection[str] = STRIP) -> None:
        for name, (remark, picture, times) in self.gallery.strip(self._whole.value, names).items():
            self._images[name].value = sketch.jpeg(picture, times)
            self._words[name].value = f'<div class="srkit-words"><b>{name}</b><span>{remark}</span></div>'
