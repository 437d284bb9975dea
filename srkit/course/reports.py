"""What marking writes: a table for the office, pages to read, and the files that Gradescope and CI systems want."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from srkit.course.grading import Grader, Result
from srkit.data import images
from srkit.settings import atomic_write

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:90rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left}
td,th{vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.bad{color:#a3263f;overflow-wrap:anywhere}
img{width:192px;image-rendering:pixelated;display:block}figure{display:inline-block;margin:0 1rem 1rem 0}"""
COLUMNS = ("file", "id", "last name", "first name", "email", "time", "time from", "PSNR / dB", "above bicubic / dB",
           "parameters", "s per megapixel", "rank", "code", "results", "lost", "mark", "remarks")  # fmt: skip


def write(results: Sequence[Result], grader: Grader) -> Path:
    """Write marks.csv, index.html with a page per student, junit.xml, and results.json for Gradescope.

    Returns:
        index.html. A single submission's results.json lies beside it, of several each in students/.
    """
    out = grader.out
    _write(out / "marks.csv", marks_csv(results))
    _write(out / "junit.xml", junit(results))
    pages = {one.file: f"students/{index:03}-{_slug(one)}" for index, one in enumerate(results, 1)}
    for one in results:
        graded = json.dumps(gradescope(one, grader), indent=2)
        _write(out / f"{pages[one.file]}.json" if len(results) > 1 else out / "results.json", graded)
        _write(out / f"{pages[one.file]}.html", student_page(one, grader))
    links = {file: f"{page}.html" for file, page in pages.items()}
    _write(out / "index.html", overview(results, grader, links))
    return out / "index.html"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as draft:
        draft.write_text(text, "utf-8", newline="")


def _slug(result: Result) -> str:
    return re.sub(r"[^a-z0-9]+", "-", result.who.lower()).strip("-")[:40] or "submission"


def remarks(result: Result) -> list[str]:
    """Everything that there is to say about a submission, a line each."""
    lines = [result.error, *(f"against the rules: {each}" for each in result.broken), *result.flags]
    lines += [problem for problem in result.problems.values() if problem and problem not in result.flags]
    lines += [f"{result.lost:g} marks lost: late"] if result.lost and not result.replaced else []
    lines += ["a later submission counts"] if result.replaced else []
    return [each for each in lines if each]


# ---------------------------------------------------------------------------------- tables for programs


def safe(cell: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = re.sub(r"[\r\n\t\0]+", " ", str(cell))
    return f"'{text}" if text.lstrip()[:1] in tuple("=+-@|%") and not re.fullmatch(r"-?\d+(\.\d+)?", text) else text


def marks_csv(results: Iterable[Result]) -> str:
    """A row for each submission."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(COLUMNS)
    for one in results:
        who = [one.info.get(name, "") for name in ("ID", "LAST_NAME", "FIRST_NAME", "EMAIL")]
        time = one.time.isoformat() if one.time else ""
        psnr = f"{one.table.psnr:.3f}" if one.table else ""
        reached = [psnr, f"{one.gain:.3f}", one.parameters, f"{one.seconds:.3f}"]
        points = [one.rank or "", one.code, one.results, one.lost, "" if one.replaced else one.mark]
        cells = [one.file, *who, time, one.clock, *(reached if one.table else [""] * 4), *points]
        table.writerow([safe(cell) for cell in [*cells, "; ".join(remarks(one))]])
    return text.getvalue()


def junit(results: Sequence[Result]) -> str:
    """A test suite for each submission, a test case for each item and one for measuring it."""
    suites = ElementTree.Element("testsuites", name="srkit grade")
    for one in results:
        cases = {"measured": one.error, "rules": "; ".join(one.broken), **one.problems}
        failures = str(sum(map(bool, cases.values())))
        about = {"name": _xml(one.who), "tests": str(len(cases)), "failures": failures}
        suite = ElementTree.SubElement(suites, "testsuite", about)
        for name, problem in cases.items():
            case = ElementTree.SubElement(suite, "testcase", classname=_xml(one.file), name=name)
            if problem:
                ElementTree.SubElement(case, "failure", message=_xml(problem))
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)


def _xml(text: str) -> str:
    return re.sub(r"[^\x20-\ud7ff\ue000-\ufffd]", "?", text)  # what XML 1.0 cannot hold


def gradescope(result: Result, grader: Grader) -> dict[str, Any]:
    """What Gradescope reads as /autograder/results/results.json: the score, a test for each item, the leaderboard."""
    rules = grader.rules
    each = rules.code / max(1, len(result.problems))
    tests = [
        {"name": name, "score": 0 if problem else round(each, 4), "max_score": round(each, 4),
         "status": "failed" if problem else "passed", "output": problem}
        for name, problem in result.problems.items()
    ]  # fmt: skip
    reached = f"{result.table.psnr:.2f} dB, {result.gain:+.2f} above bicubic" if result.table else "not measured"
    tests.append({"name": "results", "score": result.results, "max_score": rules.results, "output": reached})
    found: dict[str, Any] = {"score": result.mark, "output": "\n".join(remarks(result)), "tests": tests}
    if result.table and not result.broken:
        found["leaderboard"] = [
            {"name": "PSNR / dB", "value": round(result.table.psnr, 3)},
            {"name": "parameters", "value": result.parameters, "order": "asc"},
            {"name": "seconds per megapixel", "value": round(result.seconds, 3), "order": "asc"},
        ]
    return found


# ---------------------------------------------------------------------------------- pages


def page(title: str, body: str) -> str:
    """A page that needs nothing from the web."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Numbers to the right; what is HTML already comes as a tuple."""

    def cell(value: Any) -> str:
        if isinstance(value, tuple):
            return f"<td>{value[0]}</td>"
        number = isinstance(value, int | float) or bool(re.fullmatch(r"[+-]?[\d,]+(\.\d+)?", str(value)))
        return f'<td class="n">{value}</td>' if number else f"<td>{escape(str(value))}</td>"

    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{names}</tr>{lines}</table>"


def _picture(path: Path) -> str:
    if not path.is_file():
        return ""
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def _view(result: Result, grader: Grader) -> str:
    return _picture(grader.out / "measured" / f"{result.key}-view.png") if result.table else ""


def _bad(lines: Sequence[str]) -> tuple[str]:
    return ("".join(f'<div class="bad">{escape(each)}</div>' for each in lines),)


def _reached(one: Result) -> list[str]:
    if not one.table:
        return ["", "", "", ""]
    return [f"{one.table.psnr:.2f}", f"{one.gain:+.2f}", f"{one.parameters:,}", f"{one.seconds:.2f}"]


def overview(results: Sequence[Result], grader: Grader, links: Mapping[str, str]) -> str:
    """The class on one page."""
    rows = []
    for one in results:
        name = (f'<a href="{escape(links[one.file])}">{escape(one.who)}</a>',)
        points = ["", "", "", ""] if one.replaced else [f"{x:g}" for x in (one.code, one.results, one.lost, one.mark)]
        rows.append([one.rank or "", name, *_reached(one), *points, _bad(remarks(one))])
    head = ("rank", "student", "dB", "above bicubic", "parameters", "s / megapixel", "code", "results", "lost", "mark",
            "remarks")  # fmt: skip
    return page(grader.rules.title, f"<h1>{escape(grader.rules.title)}</h1>{_about(grader)}{_table(head, rows)}")


def _about(grader: Grader) -> str:
    rules, psnr = grader.rules, grader.bicubic.psnr
    run = (
        ""
        if not rules.own_network
        else " Students' own code was run"
        + (" in a sandbox." if grader.sandboxed else " without a sandbox of srkit's.")
    )
    return (
        f"<p>PSNR on luma at x{rules.scale}, mean of {len(grader.test)} test pictures, on which bicubic reaches "
        f"{psnr:.2f} dB. Every figure was computed again from the weights that were handed in.{run} Seconds are this "
        "machine's. Who is behind by no more than two standard errors of the paired differences shares a rank.</p>"
    )


def student_page(result: Result, grader: Grader) -> str:
    """One submission: marks with their reasons, every test picture, and a part of the first."""
    rules = grader.rules
    late = f"{result.time:%Y-%m-%d %H:%M %z}, says {result.clock}" if result.time else "unknown"
    items = [(name, _bad([problem]) if problem else "right") for name, problem in result.problems.items()]
    body = [f"<h1>{escape(result.who)}</h1><p>{escape(result.file)}, handed in: {escape(late)}</p>"]
    rows = (("code", result.code, rules.code), ("results", result.results, rules.results),
            ("lost by the time", result.lost, 0), ("mark", result.mark, rules.code + rules.results))  # fmt: skip
    marks = [(name, f"{value:g}", f"{most:g}" if most else "") for name, value, most in rows]
    body += [
        _table(("", "marks", "of"), marks),
        "<h2>Remarks</h2>",
        *(_bad(remarks(result)) if remarks(result) else ("<p>none</p>",)),
    ]
    body += ["<h2>Code</h2>", _table(("item", "found"), items)]
    if result.table:
        high = images.crop_to_multiple(grader.test[0][1], rules.scale)
        truth = images.to_uint8(grader.view(high))
        views = f"<figure>{_view(result, grader)}<figcaption>output</figcaption></figure><figure>{_inline(truth)}"
        body.append(f"<h2>{escape(grader.test.names[0])}</h2>{views}<figcaption>ground truth</figcaption></figure>")
        rows = [
            (x.name, f"{x.width} x {x.height}", f"{x.psnr:.2f}", f"{x.psnr - bicubic.psnr:+.2f}", f"{x.ssim:.4f}")
            for x, bicubic in zip(result.table.rows, grader.bicubic.rows, strict=True)
        ]
        body.append(_table(("picture", "size", "PSNR / dB", "above bicubic", "SSIM"), rows))
    return page(result.who, "".join(body))


def _inline(picture: Any) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def standings(results: Sequence[Result], grader: Grader) -> str:
    """The contest's page: who takes part, ranks, and no marks."""
    rows = [[one.rank, one.who, *_reached(one), (_view(one, grader),)] for one in results if one.rank]
    head = ("rank", "network of", "dB", "above bicubic", "parameters", "s / megapixel", grader.test.names[0])
    others = len({one.who for one in results if not one.replaced}) - len(rows)
    body = f"<h1>{escape(grader.rules.title)}</h1>{_about(grader)}{_table(head, rows)}"
    return page(grader.rules.title, body + (f"<p>{others} more could not be ranked.</p>" if others > 0 else ""))


def write_standings(results: Sequence[Result], grader: Grader) -> Path:
    """Write standings.html."""
    _write(grader.out / "standings.html", standings(results, grader))
    return grader.out / "standings.html"
