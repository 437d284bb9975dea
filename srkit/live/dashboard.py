"""The view of a `Run` in a notebook: sliders, pictures and curves on one screen, while it trains.

The training's thread never touches a widget. The heartbeat is the browser's: Play, the widget with the Start button,
counts up every quarter of a second, and at each count the view takes over what is new (`refresh`).
"""

from __future__ import annotations

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
from srkit.live.controls import FIT, OPEN, ROW, Controls, button, put
from srkit.live.gallery import Gallery, Kept
from srkit.live.presets import Presets
from srkit.live.run import Run, last_lines
from srkit.live.screen import Screen, Tiles
from srkit.live.svg import draw
from srkit.settings import Setup, SRKitError, unknown

STYLE, SCRIPT = (Path(__file__).with_suffix(kind).read_text(encoding="utf-8") for kind in (".css", ".js"))
BEAT = 250  # milliseconds between two refreshes
STALE = 3.0  # seconds without one while the run goes on: the page was loaded anew
MORE = 1000  # steps


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
        SRKitError: the run has no picture; a preset has a term that this loss does not have; the script names a preset
            that is none; headless, also what ended the training.
    """
    board = Dashboard(run, here, presets, missions)
    if not os.environ.get("SRKIT_HEADLESS"):
        display(HTML(f"<script>{SCRIPT}</script>"))
        display(board.view)
        return board
    script, known = script or ({0: list(presets)[-1]} if presets else {}), board.presets.all()
    for name in script.values():
        if name not in known:
            raise unknown("preset", name, known)
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
        controls: sliders and presets; `screen`: the pictures, and the place and time that are looked at.
        gallery: the snapshots; `tiles`: what is seen of them.
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
        self.missions = dict.fromkeys(missions, 0)  # how many of its parts are done
        self._checked: Any = None  # the frame up to which they are
        self.message, self.failure = self.presets.message, ""
        self._drawn: Any = None  # what the curves show
        self._advice: Advice | None = None
        self._beats, self._last_beat = 0, time.monotonic()
        self._reviving = False
        self._watch: threading.Thread | None = None  # that revives the browser's timer
        self._lock = threading.Lock()  # JupyterLab calls back in two threads: one refresh at a time
        self.controls = Controls(run, self.presets, self._guarded, self._tell)
        self.screen = Screen(run, self.gallery, self._guarded)
        self.tiles = Tiles(self.screen, self._guarded)
        self._build()
        self.refresh()

    # ------------------------------------------------------------------------------ what its buttons do

    def apply(self, name: str) -> None:
        """Set all weights to those of a preset, see `Controls.apply`."""
        self.controls.apply(name)

    def keep(self) -> Kept:
        """Take model, weights and output as they are now into the gallery."""
        kept = self.gallery.keep()
        self.message = f"kept: snapshot {len(self.gallery.kept)} of step {kept.frame.step}"
        self.tiles.draw()
        return kept

    def clear(self) -> None:
        """Empty the gallery."""
        self.tiles.clear()

    def save(self, name: str = "by_hand") -> Path:
        """Save the graded figure, see `Gallery.save`; returns the path of the PNG.

        Raises:
            SRKitError: the figure cannot be written.
        """
        path = self.gallery.save(name, self.here, self.screen.picture)
        self.message = f"saved: {os.path.relpath(path)}"
        return path

    def export(self) -> tuple[Path, Path]:
        """Write the film as a page that needs no server and no network, and as a GIF; returns their paths.

        Raises:
            SRKitError: they cannot be written.
        """
        paths = tuple(self.here.figures / f"{self.here.lesson}_film.{kind}" for kind in ("html", "gif"))
        export.write_page(self.run, paths[0])
        export.write_gif(self.run, paths[1], self.screen.picture)
        self.message = f"written: {' and '.join(os.path.relpath(path) for path in paths)}"
        return paths[0], paths[1]

    # ------------------------------------------------------------------------------ building

    def _build(self) -> None:
        guarded = self._guarded
        self._play = W.Play(value=1, min=0, max=10**9, interval=BEAT, show_repeat=False, layout=FIT)
        self._playing = "playing" if self._play.has_trait("playing") else "_playing"  # ipywidgets 8, or 7
        self._play.observe(guarded(self._on_play), self._playing)
        self._play.observe(guarded(self._on_beat), "value")
        self._status, self._messages, self._remark, self._graphs, self._mission = (W.HTML() for _ in range(5))
        self._follow = button("", guarded(self._on_follow), "do what the coach says")
        style = W.HTML(f"<style>{STYLE}</style>", layout={"display": "none"})
        controls = self.controls
        left = [self._play, self._status, self._messages, controls.presets, controls.view, controls.save]
        left += [self._remark, self._follow, self._mission]
        actions = [
            button("undo", guarded(lambda pressed: self.run.undo()), "back to just before the last move"),
            button("keep this", guarded(lambda pressed: self.keep()), "a snapshot for the gallery"),
            button(f"+{MORE} steps", guarded(lambda pressed: self.run.extend(MORE))),
            button("export the film", guarded(lambda pressed: self.export()), "a page for a colleague, and a GIF"),
            button("save the graded figure", guarded(lambda pressed: self.save())),
        ]
        right = [self.screen.view, self._graphs, self.screen.time, W.Box(actions, layout=ROW)]
        columns = [
            W.VBox(left, layout={**OPEN, "flex": "1 1 280px", "max_width": "360px", "grid_gap": "3px"}),
            W.VBox(right, layout={**OPEN, "flex": "3 1 560px"}),
        ]
        main = W.Box(columns, layout={**OPEN, "flex_flow": "row wrap", "grid_gap": "18px"})
        self.view = W.VBox([style, main, self.tiles.view], layout=OPEN)
        self.view.add_class("srkit")

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
            if self._watch is None or not self._watch.is_alive():
                self._watch = threading.Thread(target=self._revive, name="srkit-revive", daemon=True)
                self._watch.start()
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
                try:
                    self._play.playing = False
                    self._play.playing = True
                finally:
                    self._reviving = False

    def _on_follow(self, pressed: W.Button) -> None:
        if self._advice:
            self._advice.follow(self.run)
            self.screen.frame = None

    def _tell(self, line: str) -> None:
        self.message = line

    # ------------------------------------------------------------------------------ drawing

    def refresh(self) -> None:
        """Take over what is new in the run; a widget is touched only where something is."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            run, film = self.run, self.film
            if run.state in ("stopped", "finished", "failed") and getattr(self._play, self._playing):
                setattr(self._play, self._playing, False)
            self._draw_status()
            self.controls.draw()
            history, newest = run.history, film.frames[-1]
            self.screen.draw_time()
            drawn = (
                newest,
                self.screen.frame,
                id(newest.details),
                len(history.rows),
                len(history.moves),
                len(film.ghost),
            )
            if drawn != self._drawn:
                self._drawn = drawn
                self._graphs.value = draw(film, history, self.screen.frame)
                self.controls.draw_shares(self.screen.frame or newest)
                self._check_missions()
            self._draw_advice()
            self.screen.draw(self.screen.frame or film.latest or newest, self._beats)
            self.tiles.draw()
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
        put(self._status, (
            f'<div class="srkit-facts">{"".join(f"<span>{fact}</span>" for fact in facts)}</div>'
            f'<div class="srkit-bar"><div style="width:{100 * run.step / total:.1f}%"></div></div>'
        ))  # fmt: skip
        boxes = [_box("error", error) for error in (run.error, self.failure)]
        put(self._messages, "".join(boxes + [_box("said", line) for line in run.messages[-2:]]))

    def _draw_advice(self) -> None:
        self._advice, words = advise(self.run), self.run.trainer.diagnose()
        said = self._advice.text if self._advice else ""
        put(self._remark, "".join(_box(*one) for one in (("coach", said), ("coach", words), ("said", self.message))))
        button = self._advice.button if self._advice else ""
        self._follow.description, self._follow.layout.display = button, "" if button else "none"

    def _check_missions(self) -> None:
        lines, frames = [], list(self.film.frames)
        at = next((index for index, one in enumerate(frames) if one is self._checked), None)
        if self._checked is not None:  # what is new; after a way back, where one is
            frames = frames[-1:] if at is None else frames[at + 1 :]
        self._checked = frames[-1] if frames else self._checked
        for mission, before in self.missions.items():
            self.missions[mission] = done = mission.done(self.film, frames, before)
            self.here.accomplished(mission.name, done == len(mission.parts))
            parts = [f"{'✓' if index < done else '○'} {escape(part)}" for index, part in enumerate(mission.parts)]
            lines.append(f'<div class="srkit-mission"><b>{escape(mission.name)}</b>: {", ".join(parts)}</div>')
        put(self._mission, "".join(lines))


def _box(kind: str, text: str) -> str:
    return f'<div class="srkit-{kind}">{escape(text)}</div>' if text else ""
