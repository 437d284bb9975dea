"""The dashboard in JupyterLab, measured: python -m tests.browser.measure [--minutes 10] [--moves 20]

Lesson 04's training in the profile quick goes on while its weights are moved every few seconds. Printed are the
milliseconds from a key on a slider to the first picture in the page that was made with the move, and, each minute, the
page's heap (after a collection) and the memory that the kernel holds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import nbformat
import psutil
from playwright.sync_api import sync_playwright

from .conftest import QUIET, program
from .stage import JupyterLab, Server

TERM = "relu2_2"
CELL = """
from benchmarks.dashboard import lesson_04
from srkit import live, settings
from srkit.data import load_dataset

here = settings.setup("04", settings.Student("Ada", "1815"))
run = live.Run(lesson_04("cpu", 4), dict(load_dataset("bundled", "test", size=240)))
board = live.show(run, here, {"MSE only": {"mse": 1.0}})
"""
# Each picture's step, as the page shows it, and when; and when a key went down.
WATCH = """() => {
  window.shown = [];
  const words = document.querySelector(".srkit-words").closest(".widget-html");
  const look = () => shown.push([performance.now(), Number(/step (\\d+)/.exec(words.textContent)?.[1])]);
  new MutationObserver(look).observe(words, {subtree: true, childList: true, characterData: true});
  document.addEventListener("keydown", () => { window.pressed = performance.now(); window.shown = []; }, true);
}"""


def respond(page: JupyterLab, number: int) -> float:
    """Milliseconds from a key on a slider to the first picture that was made with the move."""
    before = page.ask("len(run.history.moves)")
    page.press(f"λ {TERM}", "ArrowLeft" if number % 2 else "ArrowRight")
    page.wait_for(f"len(run.history.moves) > {before}", timeout=120)
    step = page.ask("run.history.moves[-1].step")
    first = f"shown.find(([_, step]) => step > {step})"
    page.wait("the picture", lambda: page.page.evaluate(f"Boolean({first})"), timeout=120)
    return page.page.evaluate(f"{first}[0] - pressed")


def megabytes(page: JupyterLab) -> tuple[float, float]:
    """What the page's heap and the kernel hold."""
    session = page.page.context.new_cdp_session(page.page)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return heap / 2**20, psutil.Process(page.ask("__import__('os').getpid()")).memory_info().rss / 2**20


def measure(page: JupyterLab, minutes: float, moves: int) -> None:
    """Move, wait, measure."""
    page.page.set_viewport_size({"width": 1366, "height": 768})
    page.run_all(timeout=600)
    page.play("play")
    page.wait_for("run.step > 5", timeout=120)
    page.page.evaluate(WATCH)
    found, start, minute = [], time.monotonic(), 0
    while len(found) < moves or time.monotonic() - start < 60 * minutes:
        if time.monotonic() - start >= 60 * minute:
            step, frames = page.ask("[run.step, len(run.film.frames)]")
            heap, kernel = megabytes(page)
            print(
                f"minute {minute:2}: page {heap:6.1f} MB, kernel {kernel:7.1f} MB, step {step}, {frames} frames",
                flush=True,
            )
            minute += 1
        found.append(respond(page, len(found)))
        page.page.wait_for_timeout(1000 + 370 * (len(found) % 5))  # not always at the same beat
    spread = ", ".join(f"{value:.0f}" for value in sorted(found))
    print(f"from a move to its first picture: {median(found):.0f} ms, the median of {len(found)} ({spread})")
    print(f"{page.ask('run.step / run.trainer.seconds'):.1f} steps a second; {page.errors() or 'no errors'}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--moves", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "board.ipynb")
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        server = Server(Path(sys.executable), JupyterLab.command, Path(folder))
        browser = playwright.chromium.launch(executable_path=program(playwright), args=QUIET)
        try:
            nbformat.write(notebook, server.notebooks / path.name)
            server.wait_until_ready()
            page = JupyterLab(server, browser, path, Path(folder))
            measure(page, options.minutes, options.moves)
            page.close()
        finally:
            browser.close()
            server.stop()


if __name__ == "__main__":
    main()
