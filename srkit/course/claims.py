"""What a submission states, against what was measured and against the rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from srkit.course import copies, submission
from srkit.course.rules import Rules
from srkit.metrics import Table

SIDES = ("width", "height")
AGREE = 0.05  # dB by which a stated PSNR may differ: other devices and half precision


class Measured(NamedTuple):
    """What the one who marks has found: of the weights, and on the test and the validation pictures."""

    weights_sha256: str
    parameters: int
    test: Table
    validation: Table


def differences(found: submission.Inspected, measured: Measured, contest: Rules) -> Iterator[str]:
    """A line for each number in the manifest and the figures' sidecars that is not what was measured."""
    stated = found.manifest.get("claims")
    stated = stated if isinstance(stated, dict) else {}
    if _differ(stated.get("psnr"), measured.validation.psnr):
        says = f"the manifest says {_number(stated.get('psnr'))} dB on {contest.validation}"
        yield f"{says}, measured {measured.validation.psnr:.2f}"
    if stated.get("parameters") != measured.parameters:
        yield f"the manifest says {stated.get('parameters')!s:.20} parameters, counted {measured.parameters}"
    if found.manifest.get("weights_sha256") != measured.weights_sha256:
        yield "the manifest names other weights than are handed in"
    if contest.ensemble and found.info["ENSEMBLE"]:  # the figures are of the network alone
        return
    rows = {(row.name, row.width, row.height): row.psnr for row in [*measured.validation.rows, *measured.test.rows]}
    for about in (about for sidecar in found.figures for about in submission.models_in(sidecar)):
        table = about.get("metrics")
        same = about.get("weights_sha256") == measured.weights_sha256
        if same and isinstance(table, dict) and table.get("scale") == contest.scale:
            yield from _of_table(table, rows)


def _of_table(table: dict[str, Any], rows: Mapping[tuple, float]) -> Iterator[str]:
    """Of a sidecar's table: each picture that can be measured again, and the mean."""
    pictures, values = table.get("pictures"), []
    for each in pictures if isinstance(pictures, list) else []:
        each = each if isinstance(each, dict) else {}
        values.append(each.get("psnr"))
        psnr = rows.get((str(each.get("name")), *(x if isinstance(x := each.get(side), int) else 0 for side in SIDES)))
        if psnr is not None and _differ(values[-1], psnr):
            yield f"a figure says {_number(values[-1])} dB for {each['name']!s:.40}, measured {psnr:.2f}"
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values) or not numbers or _differ(table.get("psnr"), sum(numbers) / len(numbers)):
        yield f"a figure says {_number(table.get('psnr'))} dB, which is not the mean of its pictures"


def _differ(stated: Any, measured: float) -> bool:
    return not isinstance(stated, int | float) or not (stated == measured or abs(stated - measured) <= AGREE)


def _number(stated: Any) -> str:
    return f"{stated:.2f}" if isinstance(stated, int | float) else "nothing"


def broken(
    training: Mapping[str, Any], pictures: Sequence[copies.Prints], parameters: int, contest: Rules, allowed: set[str]
) -> list[str]:
    """A line for each rule that is broken, as far as the submission admits it and the weights show it.

    Args:
        training: what the manifest says.
        pictures: the training pictures, as it says.
        parameters: counted.
        allowed: first prints of the only pictures allowed; empty: any.
    """
    found = []
    if contest.parameters and parameters > contest.parameters:
        found.append(f"{parameters:,} parameters, allowed are {contest.parameters:,}")
    if training.get("start") and not contest.pretrained:
        found.append("training started from a pretrained network")
    if not pictures and (contest.pictures or contest.most_pictures):
        found.append("the manifest does not say which pictures it was trained on")
    if contest.most_pictures and len(pictures) > contest.most_pictures:
        found.append(f"{len(pictures)} training pictures, allowed are {contest.most_pictures}")
    if others := sum(first not in allowed for first, _ in pictures) if allowed else 0:
        found.append(f"{others} training pictures are not of {contest.pictures}")
    return found
