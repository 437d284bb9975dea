"""A blind A/B test in a notebook: two pictures, which one looks better? Whose they are stands nowhere in the page."""

from __future__ import annotations

import base64
import itertools
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import ipywidgets as W
from IPython.display import HTML, display
from torch import Tensor

from srkit.data.images import to_uint8
from srkit.live.controls import OPEN, ROW, button, put
from srkit.live.gallery import png
from srkit.metrics import Table, opinions
from srkit.metrics.opinions import Answer
from srkit.settings import Setup, SRKitError

QUESTION = "Which picture looks better?"
SIDES = {"left": "1", "right": "2"}  # and their keys
PAUSE = 0.25  # seconds after a new pair in which nothing is taken: the second half of a double click
STYLE = (
    "<style>.srkit-pair { display: flex; gap: 12px; } .srkit-pair img { width: 50%; max-width: 480px; min-width: 0; "
    "image-rendering: pixelated; align-self: flex-start; }</style>"
)


def blind_test(
    outputs: Mapping[str, Mapping[str, Tensor]],
    here: Setup,
    tables: Mapping[str, Table] | None = None,
    count: int | None = None,
) -> BlindTest:
    """Show a blind test; answers go to runs/opinions/PERSON.json, after each one, and a second time goes on there.

    With SRKIT_HEADLESS=1, where nobody can answer, its first pair is shown.

    Args:
        outputs: what each method made, by method, then by picture, (3, H, W) in [0, 1]; of a picture all of one size.
        here: from `srkit.setup`: the person is the student's ID, else the name, else "nobody".
        tables: what `metrics.evaluate` measured, by method; noted beside the answers.
        count: how many pairs are asked for; all of each picture if not given.

    Raises:
        SRKitError: fewer than two methods, no picture, or methods that have not the same pictures in the same sizes; a
            file of answers that is damaged.
    """
    test = BlindTest(outputs, here, tables, count)
    if os.environ.get("SRKIT_HEADLESS"):
        display(HTML(STYLE + test.pair + test.told))
    else:
        display(test.view)
    return test


class BlindTest:
    """The widgets of a blind test; `answer` and `undo` are what its buttons do.

    Attributes:
        view: the widget that `blind_test` displays.
        path: where the answers are kept.
        trials: (picture, left, right), in an order that is random, but the same for one person.
        answers: so far.
    """

    def __init__(
        self,
        outputs: Mapping[str, Mapping[str, Tensor]],
        here: Setup,
        tables: Mapping[str, Table] | None = None,
        count: int | None = None,
    ) -> None:
        _check(outputs)
        self.outputs = outputs
        self.person = here.student.id or here.student.name or "nobody"
        self.path = here.runs / "opinions" / (re.sub(r"[^\w.-]+", "_", self.person) + ".json")
        self.measures = {name: table.figures for name, table in (tables or {}).items()}
        self.trials = _trials(outputs, self.person)[:count]
        before = opinions.read(self.path).answers if self.path.exists() else []
        known = {(one.picture, frozenset((one.left, one.right))): one for one in before}
        asked = [(picture, frozenset(pair)) for picture, *pair in self.trials]
        self.answers = [known[key] for key in asked if key in known]
        self._left = [trial for trial, key in zip(self.trials, asked, strict=True) if key not in known]
        self._since = 0.0  # when the pair that is shown was
        self._build()
        self._draw()

    @property
    def pair(self) -> str:
        """The two pictures that are shown, as HTML."""
        return self._pair.value

    @property
    def told(self) -> str:
        """What stands below them, as HTML."""
        return self._told.value

    # ------------------------------------------------------------------------------ what its buttons do

    def answer(self, side: str) -> None:
        """Say which one looks better, "left" or "right", of the pair that is shown.

        Raises:
            SRKitError: the answer could not be written.
        """
        if self._left:
            picture, left, right = self._left[0]
            self._keep([*self.answers, Answer(self.person, picture, left, right, {"left": left, "right": right}[side])])
            self._left.pop(0)
            self._draw()

    def undo(self) -> None:
        """Take back the last answer; the pair is shown again.

        Raises:
            SRKitError: the file could not be written.
        """
        if self.answers:
            last = self.answers[-1]
            self._keep(self.answers[:-1])
            self._left.insert(0, (last.picture, last.left, last.right))
            self._draw()

    def _keep(self, answers: list[Answer]) -> None:
        if answers:
            opinions.write(self.path, answers, self.measures)
        else:
            self.path.unlink(missing_ok=True)
        self.answers = answers

    # ------------------------------------------------------------------------------ the page

    def _build(self) -> None:
        self._pair, self._told = W.HTML(), W.HTML()
        self._buttons = [
            button(f"{side} ({key})", self._guarded(lambda pressed, side=side: self._on_side(side)), "looks better")
            for side, key in SIDES.items()
        ]
        self._undo = button("undo", self._guarded(lambda pressed: self.undo()), "take back the last answer")
        self._keys = W.Text(placeholder="click here: 1 or 2", description="keys", layout={"width": "220px"})
        self._keys.observe(self._guarded(self._on_key), "value")
        self._row = W.Box([*self._buttons, self._undo, self._keys], layout=ROW)
        style = W.HTML(STYLE, layout={"display": "none"})
        self.view = W.VBox([style, W.HTML(f"<b>{QUESTION}</b>"), self._pair, self._row, self._told], layout=OPEN)
        self.view.add_class("srkit")

    def _guarded(self, action: Callable[..., None]) -> Callable[..., None]:
        """A widget's callback: what goes wrong in it stands below the pictures; elsewhere it would vanish."""

        def callback(*args: Any) -> None:
            try:
                action(*args)
            except SRKitError as error:
                put(self._told, f'<div role="alert"><b>{escape(str(error))}</b></div>')

        return callback

    def _on_side(self, side: str) -> None:
        if time.monotonic() - self._since > PAUSE:
            self.answer(side)

    def _on_key(self, change: Any) -> None:
        if pressed := change["new"].strip():
            self._keys.value = ""
            for side, key in SIDES.items():
                if pressed[-1] == key:
                    self._on_side(side)

    def _draw(self) -> None:
        done, total = len(self.answers), len(self.trials)
        if self._left:
            picture, *pair = self._left[0]
            shown = zip(SIDES, (self.outputs[method][picture] for method in pair), strict=True)
            put(self._pair, f'<div class="srkit-pair">{"".join(_image(side, output) for side, output in shown)}</div>')
            words = f"pair {done + 1} of {total}"
            words += "; nobody is here to answer" if os.environ.get("SRKIT_HEADLESS") else ""
        else:
            put(self._pair, "")
            words = f"all {total} pairs are answered, thank you; kept in {os.path.relpath(self.path)}"
        for one in (*self._buttons, self._keys):
            one.disabled = not self._left
        self._undo.disabled = not self.answers
        put(self._told, f'<div role="status" aria-live="polite">{escape(words)}</div>')
        self._since = time.monotonic()


def _check(outputs: Mapping[str, Mapping[str, Tensor]]) -> None:
    """The one door: two methods, a picture, and all of them of all."""
    if len(outputs) < 2:
        raise SRKitError(f"a blind test compares two methods at least, not {len(outputs)}: give outputs of one more")
    sizes = [{picture: tuple(output.shape) for picture, output in of_one.items()} for of_one in outputs.values()]
    if not sizes[0]:
        raise SRKitError("a blind test needs a picture at least")
    if any(other != sizes[0] for other in sizes):
        raise SRKitError(f"{', '.join(outputs)}: a blind test needs the same pictures of each, in the same sizes")


def _trials(outputs: Mapping[str, Mapping[str, Tensor]], person: str) -> list[tuple[str, str, str]]:
    """Every pair of methods on every picture: each pair once, then each again on other pictures; sides by chance."""
    chance = random.Random(person)
    pairs, pictures = [*itertools.combinations(outputs, 2)], [*next(iter(outputs.values()))]
    chance.shuffle(pairs)
    chance.shuffle(pictures)
    trials = []
    for turn in range(len(pictures)):
        for number, pair in enumerate(pairs):
            picture = pictures[(number + turn) % len(pictures)]
            trials.append((picture, *chance.sample(pair, 2)))
    return trials


def _image(side: str, output: Tensor) -> str:
    """A picture in the page's own text: no file, and no name but its side."""
    packed = base64.b64encode(png(to_uint8(output))).decode()
    return f'<img alt="{side} picture" src="data:image/png;base64,{packed}">'
