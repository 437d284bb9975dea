"""Writing a figure together with the facts behind it, so that a grader can compute it again."""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from srkit.figures.pages import ACCENT, DPI
from srkit.metrics import Table
from srkit.models.pretrained import weights_sha256
from srkit.settings import CHECKS, MISSIONS, PREDICTIONS, Setup, atomic_write
from srkit.training import Trainer

Subject = Trainer | nn.Module
Subjects = Subject | Mapping[str, Subject] | None
Tables = Table | Mapping[str, Table] | None


def save(
    fig: Figure, name: str, here: Setup, trainer: Subjects = None, table: Tables = None, show: bool = True
) -> Path:
    """Write figures/LESSON_NAME.png at 300 dpi with its provenance, and show it at a readable width.

    The PNG's text chunks and the JSON file beside it say who made it, in which lesson, from which weights, pictures
    and loss, with which measurements and versions, and what the student had written and predicted. Across the foot of
    a page whose student has no name stands NOT SIGNED.

    Args:
        fig: e.g. from `grid`, `comparison` or `curves`; a page becomes exactly 3600 x 3600 pixels.
        name: the file's name without ".png"; the lesson's number is put before it.
        here: from `setup()`.
        trainer: whose model made the picture; several by name where it compares several, also pretrained models.
        table: what `metrics.evaluate` measured; by the same names.
        show: display the picture in the notebook.

    Raises:
        SRKitError: it could not be written.
    """
    path = here.figures / f"{here.lesson}_{name}.png"
    facts = {**provenance(here, trainer, table), "shown": getattr(fig, "scores", [])}
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    with atomic_write(path) as draft:
        (fig if here.student.name else unsigned(fig)).savefig(draft, dpi=DPI, metadata=text)
    with atomic_write(path.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if os.environ.get("SRKIT_FIGURE_LOG"):  # srkit run reads here what a lesson exported
        with open(os.environ["SRKIT_FIGURE_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{path.resolve()}\n")
    if show:
        from IPython import get_ipython
        from IPython.display import Image, display

        if get_ipython():
            display(Image(filename=str(path), width=900))
    return path


STRIP = 0.45  # inches at the foot of a page without a name


def unsigned(fig: Figure) -> Figure:
    """A page as large that shows the figure a little smaller, and below it, where no caption is, NOT SIGNED."""
    picture, strip = io.BytesIO(), STRIP / fig.get_figheight()
    fig.savefig(picture, dpi=DPI)
    page = Figure(figsize=tuple(fig.get_size_inches()), dpi=DPI, facecolor="white")
    ax = page.add_axes((strip / 2, strip, 1 - strip, 1 - strip))
    ax.imshow(Image.open(picture).convert("RGB"), aspect="auto")
    ax.set_axis_off()
    style = {"size": 20, "weight": "bold", "color": ACCENT}
    page.text(0.5, strip / 2, "     ".join(["NOT SIGNED"] * 4), ha="center", va="center", **style)
    return page


def provenance(here: Setup, trainer: Subjects = None, table: Tables = None) -> dict[str, Any]:
    """The facts behind a figure, as plain words and numbers; of several models each under "models"."""
    facts: dict[str, Any] = {
        "lesson": here.lesson,
        "profile": here.profile.name,
        "student": asdict(here.student),
        "checks": dict(CHECKS),
        "missions": dict(MISSIONS),
        "predictions": {name: asdict(one) | {"right": one.right} for name, one in PREDICTIONS.items()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "srkit": version("srkit")},
    }
    if isinstance(trainer, Mapping):
        tables = table if isinstance(table, Mapping) else {}
        return facts | {"models": {name: _about(one, tables.get(name)) for name, one in trainer.items()}}
    return facts | _about(trainer, table if isinstance(table, Table) else None)


def _about(subject: Subject | None, table: Table | None) -> dict[str, Any]:
    """One model: what it is, its weights, what it was trained on and for if that is known, and what was measured."""
    facts: dict[str, Any] = {"metrics": table.to_dict()} if table else {}
    if subject is None:
        return facts
    model = subject.result if isinstance(subject, Trainer) else subject
    facts |= {"model": getattr(model, "config", {}), "weights_sha256": weights_sha256(model.state_dict())}
    if isinstance(subject, Trainer):
        facts["model"] = {**facts["model"], "step": subject.step_number}
        facts["loss"], facts["features"] = subject.loss.weights, subject.loss.describe()
        facts["moves"] = [move._asdict() for move in subject.history.moves]
        facts["data"] = {**subject.dataset.config, "fingerprint": subject.dataset.fingerprint}
    return facts
