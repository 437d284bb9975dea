"""The right of the dashboard: the detail, compared in place, the whole picture to choose it from, and the time."""

from __future__ import annotations

import functools
import math
from html import escape
from typing import Any

import ipywidgets as W

from srkit.live.controls import FIT, OPEN, ROW, Guard, button, put
from srkit.live.film import Frame
from srkit.live.gallery import VIEWS, Gallery, Kept, locator, png, tile, view
from srkit.live.run import Run
from srkit.settings import SRKitError

PLACES = 6  # by 6 of the detail, that a click on the whole picture chooses among


class Screen:
    """Pictures of a film, and where in space and time one looks.

    Args:
        run: with a film.
        gallery: what the output can be compared with.
        guard: wraps each callback, see `Dashboard`.

    Attributes:
        picture: which of the film's pictures is shown; `frame`: the frame that is looked at, or None for the newest.
        view: the pictures; `time`: the scrubber with its buttons.
    """

    def __init__(self, run: Run, gallery: Gallery, guard: Guard) -> None:
        self.run, self.gallery, self.film = run, gallery, gallery.film
        self.picture, self.frame = next(iter(self.film.pictures)), None
        self._seen: Any = None  # what the large picture shows
        self._beside: Any = None  # what the small ones show
        self._asked: Any = None  # where a click would let moments go
        self._moving = False
        names = list(self.film.pictures)
        self.which = W.ToggleButtons(options=names, layout={**FIT, "display": "" if len(names) > 1 else "none"})
        self.kind = W.ToggleButtons(options=VIEWS, layout=FIT)
        self.against = W.Dropdown(options=["bicubic", "ground truth"], layout={**FIT, "width": "120px"})
        self.line = W.FloatSlider(value=0.5, min=0, max=1, step=0.01, readout=False)
        self.scrub = W.IntSlider(value=0, min=0, max=1, readout=False, description="time", layout={"flex": "1 1 200px"})
        self.scrub.style.description_width = "36px"
        self.scrub.add_class("srkit-scrub")
        self.which.observe(guard(self._on_which), "value")
        self.scrub.observe(guard(self._on_scrub), "value")
        for widget in (self.kind, self.against, self.line):
            widget.observe(guard(lambda change: None), "value")  # to draw anew
        self.large, self.ground_truth, self.bicubic, self.whole = (W.Image(format="png") for _ in range(4))
        for image in (self.large, self.ground_truth, self.bicubic, self.whole):
            image.add_class("srkit-exact")
        self.large.add_class("srkit-big")
        self.line.add_class("srkit-wipe")  # as wide as the picture, so that the handle stands below the line
        self.words, self.moment = W.HTML(), W.HTML()
        small = [W.HTML("<b>whole picture</b>: click"), self._chooser(guard)]
        small += [W.HTML("<b>bicubic</b>"), self.bicubic, W.HTML("<b>ground truth</b>"), self.ground_truth]
        column = W.VBox(small, layout={**OPEN, "grid_gap": "1px", "flex": "0 0 auto"})
        column.add_class("srkit-small")
        left = W.VBox([self.large, self.line], layout={**OPEN, "grid_gap": "0", "flex": "0 0 auto"})
        against = W.Box([W.HTML("against"), self.against], layout=ROW)
        choices = W.Box([self.which, self.kind, against], layout=ROW)
        pictures = W.Box([left, column], layout={**OPEN, "flex_flow": "row wrap", "grid_gap": "14px"})
        self.view = W.VBox([choices, pictures, self.words], layout={**OPEN, "grid_gap": "2px"})
        self.newest = button("newest", guard(self._on_newest), "look at the newest picture again")
        self.back = button("go on from here", guard(self._on_back), "as if what came later had not been")
        self.time = W.Box([self.scrub, self.moment, self.newest, self.back], layout=ROW)

    def _chooser(self, guard: Guard) -> W.Box:
        """The whole picture below a grid of buttons that one does not see: core widgets know no place of a click."""
        places = []
        for number in range(PLACES**2):
            row, column = divmod(number, PLACES)
            words = f"detail in row {row + 1}, column {column + 1}"
            places.append(button("", guard(functools.partial(self._on_place, row, column)), words))
        layout = {"grid_template_columns": f"repeat({PLACES}, 1fr)", "grid_gap": "0"}
        overlay = W.GridBox(places, layout=layout)
        overlay.add_class("srkit-overlay")
        chooser = W.Box([self.whole, overlay], layout={"overflow": "visible"})
        chooser.add_class("srkit-chooser")
        return chooser

    # ------------------------------------------------------------------------------ callbacks

    def _on_which(self, change: Any) -> None:
        self.picture = change["new"]

    def _on_place(self, row: int, column: int, pressed: W.Button) -> None:
        (height, width), side = self.film.pictures[self.picture].shape[-2:], self.film.side
        left, top = ((2 * at + 1) * size // (2 * PLACES) - side // 2 for at, size in ((column, width), (row, height)))
        gone, here = sum(one.state is None for one in self.film.frames), (self.picture, row, column)
        if gone and self._asked != here:
            self._asked = here
            raise SRKitError(
                f"{gone} of {len(self.film.frames)} moments have no checkpoint any more and show this detail alone: "
                "click there again to let them go"
            )
        self.gallery.place(self.picture, left, top)

    def _on_scrub(self, change: Any) -> None:
        frames = self.film.frames
        if not self._moving and change["new"] < len(frames) - 1:
            self.frame = frames[change["new"]]

    def _on_newest(self, pressed: W.Button) -> None:
        self.frame = None

    def _on_back(self, pressed: W.Button) -> None:
        if self.frame:
            self.run.go_back(self.frame)
            self.frame = None

    # ------------------------------------------------------------------------------ drawing

    def draw_time(self) -> None:
        """The scrubber, as long as the film."""
        frames = self.film.frames
        at = next((index for index, one in enumerate(frames) if one is self.frame), None)
        if at is None:
            self.frame, at = None, len(frames) - 1  # what was looked at is of a future that was left, or thinned out
        if (self.scrub.max, self.scrub.value) != (last := max(1, len(frames) - 1), at):
            self._moving = True  # by the view itself: nobody looks back
            self.scrub.max = last
            self.scrub.value = at
            self._moving = False
        put(self.moment, f'<span class="srkit-aloud">step {frames[at].step}</span>')
        self.newest.disabled = self.frame is None
        self.back.disabled = self.frame is None or frames[at].state is None

    def draw(self, frame: Frame, beats: int) -> None:
        """The pictures of a frame; `beats` says whose turn it is in a blink."""
        names = self.gallery.names()
        if list(self.against.options) != names:
            chosen = self.against.value if self.against.value in names else "bicubic"
            self.against.options, self.against.value = names, chosen
        kind, name, place = str(self.kind.value), str(self.against.value), self.film.places[self.picture]
        turn = kind == "blink" and bool(beats // 2 % 2)
        seen = (frame, self.picture, kind, name, self.line.value, turn, place, len(names), id(frame.details))
        if seen == self._seen:
            return
        self._seen, index = seen, list(self.film.pictures).index(self.picture)
        other = self.gallery.other(name)[index]
        self.large.value = png(view(kind, frame.details[index], other, self.line.value, turn))
        if self._beside != (beside := (self.picture, place)):
            self._beside = beside
            for image, of in ((self.ground_truth, "ground truth"), (self.bicubic, "bicubic")):
                image.value = png(self.gallery.other(of)[index])
            self.whole.value = png(locator(self.film.pictures[self.picture], place, self.film.side))
        self.line.layout.display = "" if kind == "wipe" else "none"
        shown = {"wipe": f"{name} | output", "blink": name if turn else "output", "output": "output"}.get(kind)
        shown = shown or f"128 + 8 x (output - {name})"
        over = frame.psnr - self.film.bicubic.psnr
        words = f"<b>{escape(shown)}</b> · step {frame.step} · {frame.psnr:.2f} dB"
        words += f" ({round(over, 2) + 0.0:+.2f} against bicubic)" if math.isfinite(over) else ""
        best = max(self.film.frames, key=lambda one: one.psnr if math.isfinite(one.psnr) else -math.inf)
        words += f" · best {best.psnr:.2f} at step {best.step}" if math.isfinite(best.psnr) else ""
        alt = escape(f"{shown} of {self.picture}, step {frame.step}")
        put(self.words, f'<div class="srkit-words" role="img" aria-label="{alt}">{words}</div>')


class Tiles:
    """The snapshots of a gallery, each with a button that goes on from it; and one that clears them, pressed twice.

    Args:
        screen: whose gallery it is, and on whose picture one looks.
        guard: wraps each callback, see `Dashboard`.
    """

    def __init__(self, screen: Screen, guard: Guard) -> None:
        self.screen, self.gallery, self._guard = screen, screen.gallery, guard
        self.view = W.Box(layout={**ROW, "align_items": "flex-start"})
        self._seen: Any = []
        self._sure = False

    def clear(self) -> None:
        """Empty the gallery."""
        self.gallery.kept.clear()
        self.draw()

    def draw(self) -> None:
        """The tiles, where they are others than before, or show another picture or detail."""
        picture, kept = self.screen.picture, self.gallery.kept
        seen = [(picture, id(one.frame.details)) for one in kept]
        if seen == self._seen:
            return
        self._seen, self._sure, tiles = seen, False, []
        index = list(self.screen.film.pictures).index(picture)
        for number, one in enumerate(kept, start=1):
            on_press = self._guard(functools.partial(self._on_kept, one))
            back = button(f"back to snapshot {number}", on_press, "go on from here")
            tiles.append(W.VBox([W.HTML(f'<div class="srkit-gallery">{tile(number, one, index)}</div>'), back]))
        clear = [button("clear the gallery", self._guard(self._on_clear))] if tiles else []
        self.view.children = [*tiles, *clear]

    def _on_kept(self, kept: Kept, pressed: W.Button) -> None:
        self.screen.run.go_back(kept.frame)
        self.screen.frame = None

    def _on_clear(self, pressed: W.Button) -> None:
        if self._sure:
            self.clear()
        else:
            self._sure, pressed.description = True, "really clear the gallery?"
