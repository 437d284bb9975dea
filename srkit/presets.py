"""Weights of a loss under a name: those of a lesson, and a student's own, which the next session finds again."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from srkit.errors import SRKitError, unknown
from srkit.losses import check_weights

Weights = dict[str, float]


class Presets:
    """The presets of a loss. Each says all weights: a term that it leaves out weighs 0.

    Args:
        terms: of the loss.
        given: the lesson's, by name; each may hold a learning_rate, too.
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
                if term not in (*self.terms, "learning_rate"):
                    raise unknown(f"weight in the preset {name!r}", term, self.terms)
            check_weights({term: weight for term, weight in preset.items() if term != "learning_rate"})
        self.own = self._read()

    def names(self) -> list[str]:
        """The lesson's presets, then the student's own that have no terms but this loss's."""
        return [*self.given, *(n for n, own in self.own.items() if n not in self.given and set(own) <= {*self.terms})]

    def __getitem__(self, name: str) -> Weights:
        """All weights of a preset.

        Raises:
            SRKitError: no such preset.
        """
        if name not in self.names():
            raise unknown("preset", name, self.names())
        return {**dict.fromkeys(self.terms, 0.0), **(self.given.get(name) or self.own[name])}

    def save(self, name: str, weights: Mapping[str, float]) -> str:
        """Keep weights under a name, at most 40 letters of it; returns the name as kept.

        Raises:
            SRKitError: no name, or one of the lesson's.
        """
        name = " ".join(name.split())[:40]
        if not name:
            raise SRKitError("give your preset a name first")
        if name in self.given:
            raise SRKitError(f"{name!r} is a preset of the lesson: choose another name")
        self.own[name] = {term: weights[term] for term in self.terms}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.own, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(draft, self.path)  # a session lost in mid-write leaves the old file whole
        return name

    def _read(self) -> dict[str, Weights]:
        if not self.path.exists():
            return {}
        try:
            own = json.loads(self.path.read_text(encoding="utf-8"))
            for preset in own.values():
                check_weights(preset)
            return own
        except (OSError, ValueError, AttributeError, TypeError):
            self.message = f"{self.path} is damaged: your own presets are left out, and saving one writes it anew"
            return {}
