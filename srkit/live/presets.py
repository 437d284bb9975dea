"""Weights of a loss under a name: those of a lesson, and a student's own, which the next session finds again."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from srkit.live.svg import short
from srkit.losses import check_weights
from srkit.settings import SRKitError, atomic_write, unknown

DIGITS = (1, 1.5, 2.2, 3.3, 4.7, 6.8)  # the stops of a slider in each power of ten


class Presets:
    """The presets of a loss. Each says all weights: a term that it leaves out weighs 0.

    Args:
        terms: of the loss.
        given: the lesson's, by name; each may hold lr, the learning rate, too.
        path: a JSON file for the student's own; other lessons' presets in it are left as they are.

    Attributes:
        given, own: by name.
        message: what was wrong with the file, if anything.

    Raises:
        SRKitError: a given preset has a term that the loss does not have, or no good weights.
    """

    def __init__(self, terms: Collection[str], given: Mapping[str, Mapping[str, float]], path: Path) -> None:
        self.terms, self.path, self.message = list(terms), path, ""
        self.given = {name: dict(preset) for name, preset in given.items()}
        for name, preset in self.given.items():
            for term in preset:
                if term not in (*self.terms, "lr"):
                    raise unknown(f"weight in the preset {name!r}", term, self.terms)
            check_weights({term: weight for term, weight in preset.items() if term != "lr"})
        self.own = self._read()

    def all(self) -> dict[str, dict[str, float]]:
        """All weights by name: the lesson's presets, then the student's own that have no terms but this loss's."""
        own = {name: preset for name, preset in self.own.items() if {*preset} <= {*self.terms}}
        none = dict.fromkeys(self.terms, 0.0)
        return {name: {**none, **preset} for name, preset in {**self.given, **own, **self.given}.items()}

    def save(self, name: str, weights: Mapping[str, float]) -> str:
        """Keep weights under a name, at most 40 letters of it; returns the name as kept.

        Raises:
            SRKitError: no name, or one of the lesson's, or the file cannot be written.
        """
        name = " ".join(name.split())[:40]
        if not name:
            raise SRKitError("give your preset a name first")
        if name in self.given:
            raise SRKitError(f"{name!r} is a preset of the lesson: choose another name")
        self.own[name] = {term: weights[term] for term in self.terms}
        with atomic_write(self.path) as draft:
            draft.write_text(json.dumps(self.own, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return name

    def stops(self, term: str, now: float) -> list[tuple[str, float]]:
        """Where a logarithmic slider of a term can stand, labels and values: `now`, what the presets say, and round
        numbers between a hundredth and the hundredfold of their largest; 0, which no logarithm reaches, is "off".

        Args:
            term: of the loss; or lr, which has no "off".
            now: what it weighs.
        """
        exact = {now, *(preset[term] for preset in self.all().values() if term in preset)} - {0} or {1.0}
        low, high = math.log10(max(exact)) - 2.001, math.log10(max(exact)) + 2.001
        powers = range(math.floor(low), math.ceil(high))
        values = {float(f"{digit}e{power}") for power in powers for digit in DIGITS}
        values = {value for value in values if low <= math.log10(value) <= high}
        values = {value for value in values if all(abs(math.log(value / one)) > 0.1 for one in exact)} | exact
        return [("off", 0.0)] * (term != "lr") + [(short(value), value) for value in sorted(values)]

    def _read(self) -> dict[str, dict[str, float]]:
        if not self.path.exists():
            return {}
        try:
            own = json.loads(self.path.read_text(encoding="utf-8"))
            for preset in own.values():
                check_weights(preset)
            return own
        except Exception:  # what a file holds that an editor spoilt is not to be listed
            self.message = f"{self.path} is damaged: your own presets are left out, and saving one writes it anew"
            return {}
