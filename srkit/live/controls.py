"""The left of the dashboard: a slider for each weight of the loss, in its curve's colour, and the presets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import ipywidgets as W

from srkit.live.film import Frame
from srkit.live.gallery import describe
from srkit.live.presets import Presets
from srkit.live.run import Run
from srkit.live.svg import COLORS, colors_of, short
from srkit.settings import unknown

FIT = {"width": "auto", "flex": "0 0 auto"}  # layouts: of a control, of what may be large, of a line of controls
OPEN = {"grid_gap": "6px", "overflow": "visible"}
ROW = {**OPEN, "flex_flow": "row wrap", "align_items": "center"}

Guard = Callable[[Callable[..., Any]], Callable[..., None]]


def put(widget: W.HTML, value: str) -> None:
    """Touch a widget only where something is new; an empty one would still take a gap."""
    if widget.value != value:
        widget.value = value
        widget.layout.display = "" if value else "none"


def button(words: str, callback: Callable[[W.Button], Any], tooltip: str = "") -> W.Button:
    """A button; its callback is guarded already."""
    made = W.Button(description=words, tooltip=tooltip, layout=FIT)
    made.on_click(callback)
    return made


class Controls:
    """Sliders, their shares, and presets.

    Args:
        run: whose weights they set.
        presets: by name.
        guard: wraps each callback, see `Dashboard`.
        tell: takes a line to show.

    Attributes:
        sliders: one for each term, and "lr", the learning rate; `presets` and `save` are lines of buttons.
        hypers: one for each hyper-parameter that a `TuningTrainer` moves, to look at.
        view: the sliders, each with its shares below it.
    """

    def __init__(self, run: Run, presets: Presets, guard: Guard, tell: Callable[[str], None]) -> None:
        self.run, self.known, self._guard, self._tell = run, presets, guard, tell
        self.sliders: dict[str, W.SelectionSlider] = {}
        self._callbacks: dict[str, Callable[..., None]] = {}
        self._bars: dict[str, W.HTML] = {}
        self._shown: dict[str, float] = {}  # the weights on the sliders
        self.presets = W.Box(layout=ROW)
        self.name = W.Text(placeholder="name of your own", layout={**FIT, "width": "150px"})
        save = button("save preset", guard(self._on_save), "keep the weights as they are now")
        self.save = W.Box([self.name, save], layout=ROW)
        widgets: list[W.Widget] = []
        for number, (term, value) in enumerate(run.weights.snapshot().items()):
            widgets.append(self._slider(term, value, number))
            if term != "lr":
                self._bars[term] = W.HTML()
                widgets.append(self._bars[term])
        self.hypers = {one.name: _shown_range(one) for one in getattr(run.trainer, "hypers", ())}
        self.view = W.VBox([*widgets, *self.hypers.values()], layout={**OPEN, "grid_gap": "3px"})
        self._draw_presets()

    def _slider(self, term: str, value: float, number: int) -> W.SelectionSlider:
        slider = self.sliders[term] = W.SelectionSlider(
            options=self.known.stops(term, value),
            value=value,
            description="learning rate" if term == "lr" else f"λ {term}",
            continuous_update=False,  # one drag is one move
            style={"description_width": "96px"},
            layout={**FIT, "min_width": "0"},
        )
        self._callbacks[term] = self._guard(functools.partial(self._on_slider, term))
        slider.observe(self._callbacks[term], "value")
        slider.add_class("srkit-rate" if term == "lr" else f"srkit-c{number % len(COLORS)}")
        return slider

    def apply(self, name: str) -> None:
        """Set all weights to those of a preset, from one and the same step on.

        Raises:
            SRKitError: no such preset.
        """
        presets = self.known.all()
        if name not in presets:
            raise unknown("preset", name, presets)
        self.run.weights.set(**presets[name])

    def _on_slider(self, term: str, change: Any) -> None:
        if change["new"] != self.run.weights.snapshot()[term]:
            self._tell("")
            self._shown = {}  # taken or refused: the slider shows what holds
            self.run.weights.set(**{term: change["new"]})

    def _on_preset(self, pressed: W.Button) -> None:
        self._tell("")
        self.apply(pressed.description)

    def _on_save(self, pressed: W.Button) -> None:
        self._tell(f"saved: {self.known.save(self.name.value, self.run.weights.snapshot())}")
        self.name.value = ""
        self._draw_presets()

    def _draw_presets(self) -> None:
        on_press = self._guard(self._on_preset)
        presets = self.known.all().items()
        self.presets.children = [button(name, on_press, ", ".join(describe(weights))) for name, weights in presets]
        self._shown = {}

    def draw(self) -> None:
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
        presets = self.known.all()
        for one in self.presets.children:
            one.button_style = "info" if presets[one.description].items() <= values.items() else ""

    def draw_shares(self, frame: Frame) -> None:
        """Each term's share of the loss and of the gradient in a frame, as two bars below its slider."""
        colors = colors_of(self._bars)
        for term, bar in self._bars.items():
            loss, pull = (shares.get(term, 0.0) for shares in (frame.loss, frame.pull))
            look = f"background:{colors[term]}"
            lines = "".join(f'<i style="width:{100 * share:.0f}%;{look}"></i>' for share in (loss, pull))
            words = f"loss {loss:.0%}, gradient {pull:.0%}" if loss else "<b>off</b>: measured, not trained on"
            put(bar, f'<div class="srkit-share"><div>{lines}</div><span class="srkit-aloud">{words}</span></div>')


def _shown_range(hyper: Any) -> W.FloatSlider | W.FloatLogSlider:
    """A slider for a hyper-parameter, which moves by itself."""
    kind, ends = W.FloatSlider, (hyper.least, hyper.most)
    if hyper.log:
        kind, ends = W.FloatLogSlider, (math.log10(hyper.least), math.log10(hyper.most))
    options = {"min": ends[0], "max": ends[1], "step": (ends[1] - ends[0]) / 500, "readout_format": ".3g"}
    look = {"style": {"description_width": "96px"}, "layout": {**FIT, "min_width": "0"}}
    return kind(hyper.start, description=hyper.name, disabled=True, **options, **look)
