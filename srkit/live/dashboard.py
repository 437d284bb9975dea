"""The view of a `Run` in a notebook: sliders, pictures and curves on one screen, while it trains.

The training's thread never touches a widget. The heartbeat is the browser's: Play, the widget with the Start button,
counts up every quarter of a second, and at each count the view takes over what is new (`refresh`).
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as W
from IPython.display import HTML, display

from srkit.live import export
from srkit.live.coach import Advice, Mission, advise
from srkit.live.film import Frame
from srkit.live.gallery import VIEWS, Gallery, Kept, describe, locator, png, tile, view
from srkit.live.presets import Presets
from srkit.live.run import Run, last_lines
from srkit.live.svg import colors_of, draw, short
from srkit.settings import Setup, SRKitError, unknown

STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
BEAT = 250  # milliseconds between two refreshes
STALE = 3.0  # seconds without one while the run goes on: the page was loaded anew
MORE = 1000  # steps
GRID = 6  # by 6 places of the detail that a click chooses among
FIT = {"width": "auto", "flex": "0 0 auto"}  # layouts: of a control, of what may be large, of a line of controls
OPEN = {"grid_gap": "6px", "overflow": "visible"}
ROW = {**OPEN, "flex_flow": "row wrap", "align_items": "center"}


def show(
    run: Run,
    here: Setup,
    presets: Mapping[str, Mapping[str, float]] | None = None,
    missions: Sequence[Mission] = (),
    script: Mapping[int, str] | None = None,
) -> Dashboard:
    """Show the dashboard of a run; its Start button starts it.

    Where nobody can press it, with SRKIT_HEADLESS=1, the same call trains to the end: with the script's presets, or the
    last one; and shows the film, which can be scrubbed in the page.

    Args:
        run: from `live.Run`, with a picture to watch.
        here: from `srkit.setup`: where presets and figures go.
        presets: weights by a name each; a term that a preset leaves out weighs 0. It may hold lr, the learning rate.
        missions: what to bring about; the lesson's summary says which are accomplished.
        script: headless, which preset to take at which step.

    Raises:
        SRKitError: the run has no picture; a preset has a term that this loss does not have; headless, also
            what ended the training.
    """
    board = Dashboard(run, here, presets, missions)
    if not os.environ.get("SRKIT_HEADLESS"):
        display(board.view)
        return board
    script, known = script or ({0: list(presets)[-1]} if presets else {}), board.presets.all()
    run.plan = {step: known[name] for step, name in script.items()}
    run.start()
    try:
        run.wait()
    finally:
        run.stop()  # an interrupt reaches this cell, not the thread
    if run.error:
        raise SRKitError(run.error)
    board.refresh()
    display(HTML(export.page(run)))
    return board


class Dashboard:
    """The widgets around a Run. What its buttons do can be called, too: `apply`, `keep`, `clear`, `save`, `export`.

    Attributes:
        view: the widget that `show` displays.
        presets: the lesson's and the student's own.
        sliders: one for each term, and "lr", the learning rate.
        gallery: the pictures that one watches, and the snapshots.
        picture: which of the film's pictures is shown; `frame`: the frame that is looked at, or None for the newest.
        message: a line below the sliders; `failure`: the last lines of what went wrong in a callback.
    """

    def __init__(
        self,
        run: Run,
        here: Setup,
        presets: Mapping[str, Mapping[str, float]] | None = None,
        missions: Sequence[Mission] = (),
    ) -> None:
        self.run, self.here = run, here
        self.gallery = Gallery(run)
        self.film = self.gallery.film
        self.presets = Presets(run.trainer.loss.weights, presets or {}, here.runs / "presets.json")
        self.missions = dict.fromkeys(missions, 0)  # how many of its steps are done
        self.message, self.failure = self.presets.message, ""
        self.sliders: dict[str, W.SelectionSlider] = {}
        self.picture, self.frame = next(iter(self.film.pictures)), None
        self._drawn: Any = None  # what curves and pictures show
        self._shown: dict[str, float] = {}  # the weights on the sliders
        self._advice: Advice | None = None
        self._beats, self._last_beat = 0, time.monotonic()
        self._sure = self._reviving = False
        self._lock = threading.Lock()  # JupyterLab calls back in two threads: one refresh at a time
        self._build()
        self._draw_presets()
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
        self.message = f"kept: snapshot {len(self.gallery.kept)} of step {kept.frame.step}"
        self._draw_tiles()
        return kept

    def clear(self) -> None:
        """Empty the gallery."""
        self.gallery.kept.clear()
        self._draw_tiles()

    def look(self, frame: Frame | None) -> None:
        """Look at a frame of the film, or at the newest again; the training goes on."""
        self.frame = frame

    def save(self, name: str = "by_hand") -> Path:
        """Save the graded figure, see `Gallery.save`; returns the path of the PNG.

        Raises:
            SRKitError: the figure cannot be written.
        """
        path = self.gallery.save(name, self.here, self.picture)
        self.message = f"saved: {os.path.relpath(path)}"
        return path

    def export(self) -> tuple[Path, Path]:
        """Write the film as a page that needs no server and no network, and as a GIF; returns their paths.

        Raises:
            SRKitError: they cannot be written.
        """
        folder = self.here.figures
        paths = folder / f"{self.here.lesson}_film.html", folder / f"{self.here.lesson}_film.gif"
        export.write_page(self.run, paths[0])
        export.write_gif(self.run, paths[1], self.picture)
        self.message = f"written: {' and '.join(os.path.relpath(path) for path in paths)}"
        return paths

    # ------------------------------------------------------------------------------ building

    def _build(self) -> None:
        self._play = W.Play(value=1, min=0, max=10**9, interval=BEAT, show_repeat=False, layout=FIT)
        self._playing = "playing" if self._play.has_trait("playing") else "_playing"  # ipywidgets 8, or 7
        self._play.observe(self._guarded(self._on_play), self._playing)
        self._play.observe(self._guarded(self._on_beat), "value")
        self._status, self._messages, self._remark = W.HTML(), W.HTML(), W.HTML()
        self._graphs, self._tiles, self._mission = W.HTML(), W.Box(layout=ROW), W.HTML()
        self._presets = W.Box(layout=ROW)
        self._name = W.Text(placeholder="name of your own", layout={**FIT, "width": "130px"})
        save_preset = self._button("save preset", self._on_save_preset, "keep the weights as they are now")
        self._follow = self._button("", self._on_follow, "do what the coach says")
        controls = [W.Box([self._play], layout=ROW), self._status, self._messages, self._presets]
        controls += self._slider_widgets()
        controls += [W.Box([self._name, save_preset], layout=ROW), self._remark, self._follow, self._mission]
        left = W.VBox(controls, layout={**OPEN, "flex": "1 1 300px", "max_width": "380px", "grid_gap": "3px"})
        right = W.VBox(self._picture_widgets(), layout={**OPEN, "flex": "3 1 600px"})
        style = W.HTML(f"<style>{STYLE}</style>", layout={"display": "none"})
        main = W.Box([left, right], layout={**OPEN, "flex_flow": "row wrap", "grid_gap": "18px"})
        self.view = W.VBox([style, main, self._tiles], layout=OPEN)
        self.view.add_class("srkit")

    def _slider_widgets(self) -> list[W.Widget]:
        """A slider for each term in its curve's colour, its shares below it, and apart from them the learning rate."""
        self._callbacks, self._bars, widgets = {}, {}, []
        for number, (term, value) in enumerate(self.run.weights.snapshot().items()):
            slider = self.sliders[term] = W.SelectionSlider(
                options=self.presets.stops(term, value),
                value=value,
                description="learning rate" if term == "lr" else f"λ {term}",
                continuous_update=False,  # one drag is one move
                style={"description_width": "96px"},
                layout={**FIT, "min_width": "0"},
            )
            self._callbacks[term] = self._guarded(functools.partial(self._on_slider, term))
            slider.observe(self._callbacks[term], "value")
            slider.add_class("srkit-rate" if term == "lr" else f"srkit-c{number % 7}")
            widgets.append(slider)
            if term != "lr":
                self._bars[term] = W.HTML()
                widgets.append(self._bars[term])
        return widgets

    def _picture_widgets(self) -> list[W.Widget]:
        several = list(self.film.pictures)
        self._which = W.ToggleButtons(options=several, layout={**FIT, "display": "" if len(several) > 1 else "none"})
        self._kind = W.ToggleButtons(options=VIEWS, layout=FIT)
        self._against = W.Dropdown(options=["bicubic", "ground truth"], layout={**FIT, "width": "130px"})
        self._line = W.FloatSlider(value=0.5, min=0, max=1, step=0.01, readout=False, layout={"width": "384px"})
        self._scrub = W.IntSlider(value=0, min=0, max=1, readout=False, layout={"flex": "1 1 200px"})
        self._scrub.add_class("srkit-scrub")
        self._scrub.observe(self._guarded(self._on_scrub), "value")
        for widget in (self._which, self._kind, self._against, self._line):
            widget.observe(self._guarded(lambda change: None), "value")  # refresh does it
        self._which.observe(self._guarded(self._on_which), "value")
        self._large, self._truth, self._bicubic, self._whole = (W.Image(format="png") for _ in range(4))
        for image in (self._large, self._truth, self._bicubic, self._whole):
            image.add_class("srkit-exact")
        self._large.add_class("srkit-big")
        self._words, self._moment = W.HTML(), W.HTML()
        places = [self._button("", functools.partial(self._on_place, row, column), "show this part")
                  for row in range(GRID) for column in range(GRID)]  # fmt: skip
        for number, place in enumerate(places):
            place.tooltip = f"detail in row {number // GRID + 1}, column {number % GRID + 1}"
        overlay = W.GridBox(places, layout={"grid_template_columns": f"repeat({GRID}, 1fr)", "grid_gap": "0"})
        overlay.add_class("srkit-overlay")
        chooser = W.Box([self._whole, overlay], layout={"overflow": "visible"})
        chooser.add_class("srkit-chooser")
        small = W.VBox([
            W.HTML("<b>whole picture</b>: click to move the detail"), chooser,
            W.HTML("<b>bicubic</b>"), self._bicubic, W.HTML("<b>ground truth</b>"), self._truth,
        ], layout={**OPEN, "grid_gap": "2px", "flex": "0 0 auto"})  # fmt: skip
        small.add_class("srkit-small")
        against = W.Box([self._kind, W.HTML("against"), self._against], layout=ROW)
        large = W.VBox([against, self._large, self._line, self._words], layout={**OPEN, "grid_gap": "2px"})
        self._newest = self._button("newest", self._on_newest, "look at the newest picture again")
        self._back = self._button("go on from here", self._on_back, "as if what came later had not been")
        buttons = [
            self._button("undo", lambda button: self.run.undo(), "back to just before the last move"),
            self._button("keep this", lambda button: self.keep(), "a snapshot for the gallery"),
            self._button(f"+{MORE} steps", lambda button: self.run.extend(MORE)),
            self._button("export the film", lambda button: self.export(), "a page for a colleague, and a GIF"),
            self._button("save the graded figure", lambda button: self.save()),
        ]
        scrub = W.Box([W.HTML("time"), self._scrub, self._moment, self._newest, self._back], layout=ROW)
        return [
            self._which,
            W.Box([large, small], layout={**OPEN, "flex_flow": "row wrap", "grid_gap": "14px"}),
            self._graphs,
            scrub,
            W.Box(buttons, layout=ROW),
        ]

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
        if self._reviving:
            return
        self._last_beat = time.monotonic()
        if change["new"]:
            self.run.start()
            threading.Thread(target=self._revive, name="srkit-revive", daemon=True).start()
        else:
            self.run.pause()
            with self.run.between_steps():  # the step that was being done is seen, too
                pass

    def _on_beat(self, change: Any) -> None:
        self._last_beat = time.monotonic()
        self._beats += 1
        if change["new"] == 0:  # Play goes back to 0 only where its Stop is pressed
            self.run.stop()
            self.run.wait(10)

    def _revive(self) -> None:
        """While the run goes on: start the browser's timer anew if it has gone, as when a page is loaded anew."""
        while self.run.state == "running" and self._playing == "playing":  # ipywidgets 7 takes it from its button alone
            time.sleep(STALE / 3)
            if time.monotonic() - self._last_beat > STALE and self.run.state == "running":
                self._last_beat, self._reviving = time.monotonic(), True
                self._play.playing = False
                self._play.playing = True
                self._reviving = False

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

    def _on_follow(self, button: W.Button) -> None:
        if self._advice:
            self._advice.follow(self.run)
            self.frame = None

    def _on_which(self, change: Any) -> None:
        self.picture = change["new"]

    def _on_place(self, row: int, column: int, button: W.Button) -> None:
        high, side = self.film.pictures[self.picture], self.film.side
        left, top = ((2 * at + 1) * size // (2 * GRID) - side // 2
                     for at, size in ((column, high.shape[-1]), (row, high.shape[-2])))  # fmt: skip
        self.run.place(self.picture, left, top)

    def _on_scrub(self, change: Any) -> None:
        frames = self.film.frames
        if change["new"] < len(frames) - 1:
            self.frame = frames[change["new"]]

    def _on_newest(self, button: W.Button) -> None:
        self.frame = None

    def _on_back(self, button: W.Button) -> None:
        if self.frame:
            self.run.go_back(self.frame)
            self.message = f"went back to step {self.frame.step}: the other future stays as a dotted line"
            self.frame = None

    def _on_clear(self, button: W.Button) -> None:
        if not self._sure:
            self._sure, button.description = True, "really clear the gallery?"
        else:
            self.clear()

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
            frame = self.frame or self.film.frames[-1]
            against = self._choices()
            drawn = (frame, frame is self.film.frames[-1], len(self.run.history.rows), len(self.run.history.moves),
                     len(self.film.ghost))  # fmt: skip
            if drawn != self._drawn:
                self._drawn = drawn
                self._graphs.value = draw(self.film, self.run.history, self.frame)
                self._draw_shares(frame)
                self._draw_scrubber()
                self._draw_advice()
            self._draw_pictures(frame, against)
        finally:
            self._lock.release()

    def _draw_status(self) -> None:
        run, total = self.run, self.run.trainer.steps
        state = {"ready": "ready: press Start", "stopped": "stopped: Start goes on"}.get(run.state, run.state)
        facts = [f"<b>{state}</b>", f"step {run.step} of {total}", f"{run.trainer.seconds:.0f} s"]
        if run.state == "running":  # the words fade where no heartbeat draws them anew
            facts[0] = f'<b class="srkit-alive srkit-beat{self._beats % 2}">running</b>'
            facts[0] += f'<b class="srkit-gone srkit-beat{self._beats % 2}">no news: run this cell again</b>'
        if run.step and run.state in ("running", "paused"):
            facts.append(f"about {(total - run.step) * run.trainer.seconds / run.step:.0f} s to go")
        self._set(self._status, (
            f'<div class="srkit-facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</div>'
            f'<div class="srkit-bar"><div style="width:{100 * run.step / total:.1f}%"></div></div>'
        ))  # fmt: skip
        boxes = [_box("error", error) for error in (run.error, self.failure)]
        self._set(self._messages, "".join(boxes + [_box("said", line) for line in run.messages[-2:]]))

    def _draw_sliders(self) -> None:
        """Show the weights that hold, whoever set them."""
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

    def _draw_shares(self, frame: Frame) -> None:
        """Each term's share of the loss and of the gradient, as two bars below its slider."""
        colors = colors_of(self.run.trainer.loss.weights)
        for term, bar in self._bars.items():
            loss, pull = (_share(part, term) for part in (frame.loss, frame.pull))
            lines = "".join(
                f'<i style="width:{100 * share:.0f}%;background:{colors[term]}"></i>' for share in (loss, pull)
            )
            words = f"{loss:.0%} of the loss, {pull:.0%} of the gradient" if loss else "off: still measured below"
            self._set(bar, f'<div class="srkit-share" title="{words}"><div>{lines}</div><span>{words}</span></div>')

    def _draw_scrubber(self) -> None:
        frames = self.film.frames
        at = next((index for index, one in enumerate(frames) if one is self.frame), len(frames) - 1)
        if self.frame is not None and all(one is not self.frame for one in frames):
            self.frame = None  # it is of a future that was left, or was thinned out
        with self._scrub.hold_sync():
            self._scrub.max = max(1, len(frames) - 1)
            self._scrub.value = at
        seen = frames[at]
        self._set(self._moment, f"step {seen.step}")
        self._newest.disabled = self.frame is None
        self._back.disabled = self.frame is None or seen.state is None

    def _draw_advice(self) -> None:
        self._advice, words = advise(self.run), self.run.trainer.diagnose()
        said = self._advice.text if self._advice else ""
        self._set(
            self._remark, "".join(_box(*one) for one in (("coach", said), ("coach", words), ("said", self.message)))
        )
        button = self._advice.button if self._advice else ""
        self._follow.description, self._follow.layout.display = button, "" if button else "none"
        for mission in self.missions:
            self.missions[mission] = max(self.missions[mission], mission.done(self.film))
            self.here.accomplished(mission.name, self.missions[mission] == len(mission.steps))
        self._set(self._mission, "".join(
            f'<div class="srkit-mission">{"✓" if done == len(mission.steps) else f"{done}/{len(mission.steps)}"} '
            f"<b>{escape(mission.name)}</b>: {escape(mission.text)}</div>"
            for mission, done in self.missions.items()
        ))  # fmt: skip

    def _choices(self) -> dict[str, Any]:
        others = self.gallery.others()
        names = ["bicubic", *(name for name in others if name != "bicubic")]
        if list(self._against.options) != names:
            chosen = self._against.value
            self._against.options = names
            self._against.value = chosen if chosen in names else "bicubic"
        return others

    def _draw_pictures(self, frame: Frame, others: Mapping[str, Any]) -> None:
        index, kind, name = list(self.film.pictures).index(self.picture), self._kind.value, self._against.value
        blinked = bool(self._beats // 2 % 2)
        key = (frame, index, kind, name, self._line.value, blinked and kind == "blink", self.film.places[self.picture],
               len(self.gallery.kept))  # fmt: skip
        if key == getattr(self, "_seen", None):
            return
        self._seen = key
        self._large.value = png(view(kind, frame.details[index], others[name][index], self._line.value, blinked))
        self._truth.value, self._bicubic.value = (png(others[one][index]) for one in ("ground truth", "bicubic"))
        self._whole.value = png(
            locator(self.film.pictures[self.picture], self.film.places[self.picture], self.film.side)
        )
        self._line.layout.display = "" if kind == "wipe" else "none"
        shown = {"wipe": f"{name} | output", "blink": name if blinked else "output", "output": "output"}.get(kind, "")
        shown = shown or f"128 + 8 · (output - {name})"
        alt = f"{shown} of {self.picture}, step {frame.step}"
        over = frame.psnr - (self.film.bicubic.psnr if self.film.bicubic else 0)
        words = f"<b>{escape(shown)}</b> · step {frame.step} · {frame.psnr:.2f} dB ({over:+.2f} against bicubic)"
        self._set(self._words, f'<div class="srkit-words" role="img" aria-label="{escape(alt)}">{words}</div>')

    def _draw_presets(self) -> None:
        presets = self.presets.all().items()
        self._presets.children = [self._button(name, self._on_preset, ", ".join(describe(p))) for name, p in presets]
        self._shown = {}

    def _draw_tiles(self) -> None:
        index, self._sure = list(self.film.pictures).index(self.picture), False
        tiles = []
        for number, kept in enumerate(self.gallery.kept, start=1):
            back = self._button("go on from here", functools.partial(self._on_kept, kept), f"from snapshot {number}")
            tiles.append(W.VBox([W.HTML(f'<div class="srkit-gallery">{tile(number, kept, index)}</div>'), back]))
        clear = [self._button("clear the gallery", self._on_clear)] if tiles else []
        self._tiles.children = [*tiles, *clear]

    def _on_kept(self, kept: Kept, button: W.Button) -> None:
        self.run.go_back(kept.frame)
        self.frame = None

    @staticmethod
    def _set(widget: W.HTML, value: str) -> None:
        """Touch a widget only where something is new; an empty one would still take a gap."""
        if widget.value != value:
            widget.value = value
            widget.layout.display = "" if value else "none"


def _share(part: Mapping[str, float], term: str) -> float:
    """A term's share, summed over the outputs that it weighs."""
    return sum(share for name, share in part.items() if name == term or name.endswith(f"/{term}"))


def _box(kind: str, text: str) -> str:
    return f'<div class="srkit-{kind}">{escape(text)}</div>' if text else ""
