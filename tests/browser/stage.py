"""A notebook in a real browser over a real kernel: what the scenes of this folder stand on."""

from __future__ import annotations

import ast
import json
import os
import queue
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import psutil
from jupyter_client import BlockingKernelClient
from playwright.sync_api import Browser, Locator
from playwright.sync_api import Error as PlaywrightError

HOME = Path(__file__).resolve().parents[2]
TOKEN = "stage"
BROKEN = re.compile("Error displaying widget|Error creating widget|Click to show javascript error")


class Server:
    """A Jupyter server of some Python (`python -m command …`), all of whose files lie below an empty folder."""

    def __init__(self, python: Path, command: tuple[str, ...], folder: Path):
        self.notebooks, self.runtime, self.log = folder / "notebooks", folder / "runtime", folder / "server.log"
        settings = folder / "config" / "labconfig" / "page_config.json"
        for place in (self.notebooks, self.runtime, settings.parent):
            place.mkdir(parents=True, exist_ok=True)
        # JupyterLab would ask whether it may fetch news.
        settings.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "SRKIT"))}
        environment = kept | {
            "JUPYTER_CONFIG_DIR": str(settings.parents[1]),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_TOKEN": TOKEN,
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONPATH": str(HOME),
            "SRKIT_ROOT": str(folder),
            "SRKIT_PROFILE": "quick",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # the browser wants a core too
        }
        options = [f"--port={port}", "--no-browser", "--allow-root", "--ip=127.0.0.1", *command[2:]]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = psutil.Popen([str(python), "-m", *command[:2], *options], cwd=self.notebooks,
                                        env=environment, stdout=log, stderr=subprocess.STDOUT)  # fmt: skip

    def wait_until_ready(self, timeout: float = 90) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.get("/api/sessions")
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"no Jupyter server:\n{self.log.read_text('utf-8')[-3000:]}") from None
            time.sleep(0.1)

    def get(self, path: str):
        """What the server's REST interface answers."""
        request = Request(self.url + path, headers={"Authorization": f"token {TOKEN}"})
        with build_opener(ProxyHandler({})).open(request, timeout=5) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End the server and its kernels; return when all their processes are gone."""
        if self.process.poll() is None:
            family = [self.process, *self.process.children(recursive=True)]
            self.process.terminate()
            for process in psutil.wait_procs(family, timeout=20)[1]:
                process.kill()
                process.wait(10)


class Stage:
    """One notebook, open in the browser, and a second line to its kernel.

    Every wait ends in time with an AssertionError that says what was missing, and a screenshot.
    """

    command: tuple[str, ...]
    address: str
    widgets: str  # ipywidgets' version begins so
    ready: str  # JavaScript: is the notebook there?
    cells: str  # JavaScript: each code cell's execution count (0 while it runs) and outputs
    run_all_menu: tuple[str, str]
    outputs: str  # the rest are CSS: what holds the outputs, a slider's handle, a slider's track
    handle: str
    track: str

    def __init__(self, server: Server, browser: Browser, notebook: Path, pictures: Path):
        self.server, self.pictures, self.page_errors = server, pictures, []
        self.kernel, self.kernel_errors, self.stderr = BlockingKernelClient(), [], ""
        self.page = browser.new_page(viewport={"width": 1280, "height": 1400})
        self.page.set_default_timeout(8_000)  # `wait` asks again
        self.page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        self.page.goto(f"{server.url}{self.address}{notebook.name}?token={TOKEN}", timeout=180_000)
        self.wait("the notebook's kernel", self._kernel_file, 180)
        self.kernel.load_connection_file(str(self._kernel_file()))
        self.kernel.start_channels()
        self.wait("an answer from the kernel", self._kernel_answers, 180)
        self.wait("the notebook in the page", lambda: self.page.evaluate(self.ready), 180)

    def _kernel_file(self) -> Path | None:
        sessions = self.server.get("/api/sessions")
        file = self.server.runtime / f"kernel-{sessions[0]['kernel']['id']}.json" if sessions else None
        return file if file and file.exists() else None

    def _kernel_answers(self) -> bool:
        try:
            self.kernel.kernel_info(reply=True, timeout=5)
            return bool(self.kernel.get_iopub_msg(timeout=1))
        except (TimeoutError, queue.Empty):
            return False

    def close(self) -> None:
        self.kernel.stop_channels()
        self.page.close()

    # ------------------------------------------------------------------------------ waiting and looking

    def wait(self, what: str, condition: Callable[[], object], timeout: float = 40) -> None:
        """Return when `condition()` is true. What Playwright can't find or press yet counts as not true."""
        deadline, reason = time.monotonic() + timeout, ""
        while True:
            try:
                if condition():
                    return
            except PlaywrightError as error:
                reason = f"\n{error}"
            if time.monotonic() > deadline:
                errors = "".join(f"\n{error}" for error in self.errors())
                raise AssertionError(f"not in {timeout:g} s: {what} ({self.screenshot('missing')}){errors}{reason}")
            self.page.wait_for_timeout(50)  # the page's events are heard meanwhile
            if self.kernel.channels_running:
                self._listen()

    def screenshot(self, name: str, css: str = "") -> Path:
        """A picture of what the browser shows now, or of the first match alone."""
        path = self.pictures / f"{type(self).__name__}-{name}.png"
        (self.find(css).first if css else self.page).screenshot(path=path, timeout=10_000)
        return path

    def find(self, css: str) -> Locator:
        """What matches in the outputs of the notebook."""
        return self.page.locator(self.outputs).locator(css)

    def errors(self) -> list[str]:
        """What went wrong so far: in the page's scripts, in its widgets, in the kernel's callbacks."""
        self._listen()
        broken = self.page.get_by_text(BROKEN).all_inner_texts()
        in_threads = [self.stderr] if "Traceback" in self.stderr else []
        return [*self.page_errors, *self.kernel_errors, *in_threads, *broken]

    def _listen(self) -> None:
        """Take in what the kernel has sent to all its listeners."""
        while True:
            try:
                message = self.kernel.get_iopub_msg(timeout=0)
            except queue.Empty:
                return
            content = message["content"]
            if message["msg_type"] == "error":
                self.kernel_errors.append(f"{content['ename']}: {content['evalue']}")
            elif content.get("name") == "stderr":
                self.stderr += content["text"]

    # ------------------------------------------------------------------------------------------ hands

    def run_all(self, timeout: float = 120) -> None:
        """Run all cells from the menu, and return when the last has ended; an error in one ends the test."""
        # Both in one: where the second click comes too late, the menu has to be opened again.
        self.wait("the menu Run All", lambda: [self.page.click(item) for item in self.run_all_menu])
        self.wait("the end of all cells", self._all_done, timeout)

    def _all_done(self) -> bool:
        cells = self.page.evaluate(self.cells)
        for output in (output for cell in cells for output in cell["outputs"]):
            assert output["output_type"] != "error", f"{output['ename']}: {output['evalue']}"
        return all(cell["count"] for cell in cells)

    def slider(self, label: str) -> Locator:
        """The slider whose label (its description) is exactly this."""
        exact = self.page.locator(".widget-label").get_by_text(label, exact=True)
        slider = self.find(".widget-hslider, .widget-slider").filter(has=exact)
        self.wait(f"one slider {label!r}", lambda: slider.count() == 1)
        return slider

    def press(self, label: str, *keys: str) -> None:
        """Give keys to a slider, as ArrowRight or Home."""
        handle = self.slider(label).locator(self.handle)
        self.wait(f"the handle of {label!r}", lambda: handle.focus() is None)
        for key in keys:
            self.page.keyboard.press(key)

    def drag_to_left_end(self, label: str) -> None:
        """Drag a slider's handle beyond the left end of its track, as a hand does."""
        handle, track = self.slider(label).locator(self.handle), self.slider(label).locator(self.track)
        self.wait(f"the handle of {label!r}", lambda: handle.hover() is None)  # once it stands still
        rail = track.bounding_box()
        self.page.mouse.down()
        self.page.mouse.move(rail["x"] - 20, rail["y"], steps=8)
        self.page.mouse.up()

    def play(self, action: str) -> None:
        """Press the Play widget's own button: "play", "pause" or "stop"."""
        button = self.find(f".widget-play button:has(.fa-{action})")
        self.wait(f"Play's button {action}", lambda: button.click() is None)

    def button(self, label: str) -> None:
        """Press the button with this text."""
        button = self.find(".widget-button, .widget-toggle-button").get_by_text(label)
        self.wait(f"the button {label!r}", lambda: button.click() is None)

    def reload(self) -> None:
        """Save the notebook and load the page anew; the kernel goes on."""
        self.page.keyboard.press("Control+s")
        self.page.wait_for_timeout(1500)
        self.page.reload()
        self.wait("the notebook in the page", lambda: self.page.evaluate(self.ready), 180)

    # ---------------------------------------------------------------------------------------- kernel

    def ask(self, expression: str, timeout: float = 40):
        """The value of a Python expression in the notebook's kernel, as JSON carries it (tuples become lists).

        It waits in the same queue as the cells. Comes back as text where JSON knows no such thing.
        """
        wanted = {"value": f"__import__('json').dumps({expression}, default=str)"}
        reply = self.kernel.execute("", silent=True, user_expressions=wanted, reply=True, timeout=timeout)["content"]
        assert reply["status"] == "ok", f"the kernel refused to tell {expression}: {reply}"
        value = reply["user_expressions"]["value"]
        assert value["status"] == "ok", f"{expression}: {value.get('ename')}: {value.get('evalue')}"
        return json.loads(ast.literal_eval(value["data"]["text/plain"]))

    def wait_for(self, expression: str, timeout: float = 40) -> None:
        """Return when the expression is true in the kernel."""
        self.wait(f"{expression} in the kernel", lambda: self.ask(expression), timeout)


class JupyterLab(Stage):
    """JupyterLab 4 and ipywidgets 8, as on a laptop."""

    command = ("jupyter", "lab", "--expose-app-in-browser")
    widgets = "8."
    address = "/lab/tree/"
    outputs = ".jp-Notebook"
    ready = "Boolean(window.jupyterapp?.shell.currentWidget?.content?.model?.cells.length)"
    cells = """[...jupyterapp.shell.currentWidget.content.model.cells].filter(cell => cell.type == "code").map(cell => (
        {count: cell.executionState == "idle" && cell.executionCount || 0, outputs: cell.outputs.toJSON()}))"""
    run_all_menu = (".lm-MenuBar-itemLabel:text-is('Run')", ".lm-Menu-itemLabel:text-is('Run All Cells')")
    handle = ".noUi-handle"
    track = ".noUi-base"


class Notebook6(Stage):
    """Notebook 6.5 and ipywidgets 7, the versions that Colab has."""

    command = ("jupyter", "notebook")
    widgets = "7.7.1"
    address = "/notebooks/"
    outputs = "#notebook-container"
    ready = "Boolean(window.Jupyter?.notebook?._fully_loaded && Jupyter.notebook.kernel?.is_connected())"
    cells = """Jupyter.notebook.get_cells().filter(cell => cell.cell_type == "code").map(cell => (
        {count: Number(cell.input_prompt_number) || 0, outputs: cell.output_area.toJSON()}))"""
    run_all_menu = ("#celllink", "#run_all_cells")
    handle = ".ui-slider-handle"
    track = ".ui-slider"
