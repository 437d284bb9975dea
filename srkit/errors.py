"""The one kind of error that srkit raises on purpose: a single line that tells what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SRKitError(ValueError):
    """Something a person can put right; its message is one line and says how."""


def unknown(kind: str, name: object, known: Iterable[str]) -> SRKitError:
    """The error for a name nobody knows: names the nearest known one, then all of them.

    >>> str(unknown("model", "srcn", ["srcnn", "bicubic"]))
    "unknown model 'srcn': did you mean 'srcnn'? Known: srcnn, bicubic"
    """
    known = list(known)
    nearest = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return SRKitError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(known)}")
