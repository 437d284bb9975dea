"""A word of advice about a run, in plain words, with a button that follows it; and missions to accomplish.

Both read nothing but the film: what every term and the PSNR are on the details that one watches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from srkit.live.film import Film, Frame, weight_of
from srkit.live.run import Run
from srkit.live.svg import short
from srkit.losses import TERMS, term_of

COLLAPSE = 3.0  # dB below the best since the last move: the network breaks
WORSE = 1.25  # times the smallest loss since the last move: the steps are too long
FLAT, PATIENCE = 0.01, 8  # change of the loss over so many frames: nothing learns
GRID = 1.5  # levels of 255 above which one sees the pattern
APART = 0.1  # dB that the PSNR loses while a term of features gains
LOST = 0.02  # part by which the loss was smaller before, where a run stands still


@dataclass(frozen=True)
class Advice:
    """What one sees and what to try: `weights` are new ones, `back` is where to go on from; without both no button."""

    text: str
    button: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    back: Frame | None = None

    def follow(self, run: Run) -> None:
        """Do it."""
        if self.back:
            run.go_back(self.back)
        run.weights.set(**self.weights)


def advise(run: Run) -> Advice | None:
    """The most urgent advice, or None while all is well."""
    frames = _since_last_move(run)
    if not frames:
        return None
    for look in (_broken, _too_long_steps, _grid, _apart, _nothing_learns):
        if found := look(run, frames):
            return found
    return None


def _since_last_move(run: Run) -> list[Frame]:
    film, moves = run.film, [move for move in run.history.moves if not move.name.startswith("accumulate")]
    start = moves[-1].step if moves else 0
    return [frame for frame in film.frames if frame.step >= start] if film else []


def _loss(frame: Frame, weights: dict[str, float]) -> float:
    """The weighted sum on the details."""
    return sum(weights.get(weight_of(name, weights), 0) * value for name, value in frame.terms.items())


def _slower(run: Run, frames: Sequence[Frame], text: str) -> Advice:
    rate = run.weights.snapshot()["lr"] / 10
    kept = [one for one in run.film.frames if one.state] if run.film else []
    best = max(kept, key=lambda one: one.psnr, default=None)
    words = f"back to step {best.step}, learning rate {short(rate)}" if best else f"learning rate {short(rate)}"
    return Advice(text, words, {"lr": rate}, best)


def _broken(run: Run, frames: Sequence[Frame]) -> Advice | None:
    best = max(run.film.frames, key=lambda one: one.psnr if math.isfinite(one.psnr) else -1) if run.film else frames[0]
    now = frames[-1].psnr
    spoilt = run.state == "failed" and not all(weight.isfinite().all() for weight in run.trainer.model.parameters())
    if spoilt or math.isnan(now):
        return _slower(run, frames, "The loss is no longer a number: the learning rate is far too high.")
    if math.isfinite(best.psnr) and best.psnr - now > COLLAPSE and frames[-1].loss:
        text = f"The picture has lost {best.psnr - now:.1f} dB since step {best.step}"
        return _slower(run, frames, f"{text}: the learning rate is about ten times too high for these weights.")
    return None


def _too_long_steps(run: Run, frames: Sequence[Frame]) -> Advice | None:
    losses = [_loss(one, frames[-1].weights) for one in frames]
    if len(losses) > 3 and min(losses[-2:]) > WORSE * min(losses[:-2]) > 0:
        text = f"The loss on the details is {losses[-1] / min(losses):.1f} times its smallest since the last move"
        return _slower(run, frames, f"{text}: the steps are too long. A learning rate ten times lower helps.")
    return None


def _grid(run: Run, frames: Sequence[Frame]) -> Advice | None:
    now, least = frames[-1].grid, min(one.grid for one in run.film.frames) if run.film else 0
    deep = {name: share for name, share in frames[-1].loss.items() if term_of(name) not in TERMS and share > 0}
    if now < max(GRID, 2 * least) or not deep:
        return None
    strongest = max(deep, key=deep.__getitem__)
    weight = run.weights.snapshot().get(strongest, 0) / 3
    text = f"A grid that repeats every 4 pixels has grown to {now:.1f} of 255 levels: {strongest} lies behind poolings,"
    return Advice(f"{text} and hardly sees it. Pixels do: give them a larger share.",
                  f"λ {strongest} {short(weight)}", {strongest: weight} if weight else {})  # fmt: skip


def _apart(run: Run, frames: Sequence[Frame]) -> Advice | None:
    first, now = frames[0], frames[-1]
    if not math.isfinite(first.psnr) or first.psnr - now.psnr < APART:
        return None
    gains = {
        name: 1 - value / first.terms[name]
        for name, value in now.terms.items()
        if term_of(name) not in TERMS and now.loss.get(weight_of(name, now.loss)) and first.terms.get(name, 0) > 0
    }
    if gains and (best := max(gains, key=gains.__getitem__)) and gains[best] > 0.05:
        lost = f"Since the last move the PSNR has lost {first.psnr - now.psnr:.1f} dB"
        gained = f"{best} is {gains[best]:.0%} nearer to the truth"
        return Advice(f"{lost} and {gained}: the two pull apart. Which picture do you prefer?")
    return None


def _nothing_learns(run: Run, frames: Sequence[Frame]) -> Advice | None:
    if len(frames) < PATIENCE or run.state != "running":
        return None
    losses = [_loss(one, frames[-1].weights) for one in frames[-PATIENCE:]]
    if max(losses) > (1 + FLAT) * min(losses):
        return None
    rate, first, weights = run.weights.snapshot()["lr"], run.trainer.config.lr, frames[-1].weights
    text = f"Over {frames[-1].step - frames[-PATIENCE].step} steps the loss on the details has not moved by {FLAT:.0%}"
    kept = [one for one in run.film.frames if one.state] if run.film else []
    best = min(kept, key=lambda one: _loss(one, weights), default=frames[-1])
    if losses[-1] > (1 + LOST) * _loss(best, weights):  # filters may have died, and no gradient wakes them
        words = f"{text}. Step {best.step} was better by the same weights, {best.psnr:.2f} dB: something was lost since"
        return Advice(f"{words} that training does not bring back.", f"back to step {best.step}", back=best)
    if rate < first:
        return Advice(f"{text}: the learning rate is low.", f"learning rate {short(10 * rate)}", {"lr": 10 * rate})
    return Advice(f"{text}: this is what the network makes of these weights. Move one.")


# ---------------------------------------------------------------------------------- missions


@dataclass(frozen=True, eq=False)
class Mission:
    """Something to bring about with the sliders: parts, each to come true after the one before.

        live.Mission("cure a grid", {"make a grid": lambda now, film: now.grid > 2, "lose it": …})

    Args:
        name: for the lesson's summary.
        parts: what to do, and a condition that takes the frame of a moment and the film, and says whether it is done.
    """

    name: str
    parts: Mapping[str, Callable[[Frame, Film], bool]]

    def done(self, film: Film, frames: Sequence[Frame], before: int = 0) -> int:
        """How many of its parts are done after these moments of a film, where so many were done before them."""
        conditions = list(self.parts.values())
        for frame in frames:
            while before < len(conditions) and conditions[before](frame, film):
                before += 1
        return before
