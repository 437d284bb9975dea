"""The runner of the lessons: no error stays hidden, nothing of this machine or of the network gets in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from srkit.course import lessons, pages, show_source
from srkit.settings import SRKitError


def write_notebook(path: Path, *sources: str, tags: tuple[str, ...] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [
        new_code_cell(dedent(source).strip(), id=f"step-{number}", metadata={"tags": list(tags)})
        for number, source in enumerate(sources, 1)
    ]
    nbformat.write(new_notebook(cells=cells), path)
    return path


# ---------------------------------------------------------------------------------- running

# All of them run once, two at a time; the tests look at what came out.
SOURCES = {
    "slow_cell": ["import time", "time.sleep(60)"],
    "passes": [
        """
        import os, sys, json, srkit
        names = ["SRKIT_HEADLESS", "SRKIT_PROFILE", "OMP_NUM_THREADS", "MPLBACKEND"]
        print(json.dumps({name: os.environ[name] for name in names}
                         | {"python": sys.executable, "folder": os.getcwd(), "srkit": srkit.__file__}))
        """,
        """
        import socket
        for address in ["192.0.2.1", "example.org"]:
            try:
                socket.create_connection((address, 80), timeout=5)
            except OSError as error:
                print(error)
        """,
        """
        with open(os.environ["SRKIT_FIGURE_LOG"], "a") as log:
            for name in ["grid.png", "curves.png", "grid.png"]:
                print(os.path.abspath(name), file=log)
        """,
        "import ipywidgets\ndisplay(ipywidgets.IntSlider())",
    ],
    "failing_cell": ["x = 1", "def half(x):\n    return x / 0\n\nhalf(x)", "print('not reached')"],
    "hidden_errors": [
        """
        import ipywidgets, threading
        slider, button, out = ipywidgets.FloatSlider(), ipywidgets.Button(), ipywidgets.Output()
        @out.capture()
        def moved(change):
            raise ValueError(f"moved to {change['new']}")
        slider.observe(moved, "value")
        """,
        "slider.value = 0.8",
        "with out:\n    raise ValueError('seen by nobody')\nout.clear_output()",
        "button.on_click(lambda _: 1 / 0)\nbutton.click()",
        """
        def train():
            raise RuntimeError("the loss is NaN")
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        """,
        "print('went on')",
    ],
    "dead_kernel": ["print('about to die')", "import os\nos._exit(1)"],
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[str, lessons.Result]:
    folder, other = tmp_path_factory.mktemp("lessons"), tmp_path_factory.mktemp("jupyter")
    tags = {"failing_cell": ("raises-exception",), "hidden_errors": ("skip-execution",)}
    paths = [write_notebook(folder / f"{name}.ipynb", *SOURCES[name], tags=tags.get(name, ())) for name in SOURCES]
    # A kernelspec named python3 that starts something else, as another install may have left one.
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "x", "language": "python"}
    (other / "kernels" / "python3").mkdir(parents=True)
    (other / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(other))
        patch.setenv("MPLBACKEND", "agg")
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setattr(lessons, "CELL_LIMIT", 10)
        results = lessons.run(paths, out=folder / "out", jobs=2, offline=True)
    return {result.lesson: result for result in results}


def executed(result: lessons.Result) -> list:
    return nbformat.read(result.page.with_suffix(".ipynb"), as_version=4).cells


def printed(result: lessons.Result, cell: int) -> str:
    return executed(result)[cell].outputs[0]["text"].strip()


def test_formulas_are_drawn_without_a_network_and_code_keeps_its_dollars():
    text = "With $x^2$ for `$HOME` it costs $5 or $6:\n\n$$\\frac{a}{b}$$\n\n```\necho $x$\n```\n"
    found = pages.mathml(text)
    assert found.count("<math") == 2 and found.count('display="block"') == 1 and "<mfrac>" in found
    assert all(kept in found for kept in ("`$HOME`", "costs $5 or $6:", "echo $x$"))
    notebook = new_notebook(cells=[new_markdown_cell(text)])
    html = pages.page(notebook, Path("a.ipynb"))
    assert html.count("<math") == 2 and "mathjax" not in html.lower() and not re.findall(r'<script[^>]+src="[^"]', html)
    assert notebook.cells[0].source == text


@pytest.mark.slow
def test_a_lesson_runs_in_this_python_in_its_folder_offline(ran):
    result = ran["passes"]
    folder = result.page.parents[1]
    assert result.error is None and result.figures == (folder / "grid.png", folder / "curves.png")
    assert re.fullmatch(r"passes: \d+ s, figures: grid.png, curves.png; ok", str(result))
    found = json.loads(printed(result, 0))
    assert found["python"] == sys.executable and Path(found["folder"]) == folder
    assert (found["SRKIT_HEADLESS"], found["SRKIT_PROFILE"]) == ("1", "quick") and "inline" in found["MPLBACKEND"]
    assert 1 <= int(found["OMP_NUM_THREADS"]) <= (os.cpu_count() or 1)
    assert Path(found["srkit"]) == Path(lessons.__file__).parents[1] / "__init__.py"
    refused = [f"offline: no connection to {address}" for address in ("192.0.2.1", "example.org")]
    assert printed(result, 1).splitlines() == refused
    page = result.page.read_text("utf-8")
    assert refused[1] in page and "widget-state" not in page
    assert "mathjax" not in page.lower() and not re.findall(r'<script[^>]+src="[^"]', page)


@pytest.mark.slow
def test_errors_end_their_lesson_only_and_those_that_a_notebook_hides_are_found(ran):
    failing, hidden, slow, dead = (ran[name] for name in ("failing_cell", "hidden_errors", "slow_cell", "dead_kernel"))
    assert failing.error == "cell 2 (step-2): ZeroDivisionError: division by zero\n    cell 2, line 4: half(x)"
    assert [cell.execution_count for cell in executed(failing)] == [1, 2, None]
    assert f"failing_cell: {failing.seconds:.0f} s, figures: none; FAILED, see {failing.page}\n" in str(failing)
    assert printed(hidden, -1) == "went on"
    assert [line for line in hidden.error.splitlines() if line.startswith("cell")] == [
        "cell 2 (step-2): ValueError: moved to 0.8",
        "cell 3 (step-3): ValueError: seen by nobody",
        "cell 4 (step-4): ZeroDivisionError: division by zero",
        "cell 5 (step-5), in a thread: RuntimeError: the loss is NaN",
    ]
    assert slow.error.startswith("cell 2 (step-2): A cell timed out") and "10 seconds" in slow.error
    assert dead.error == "cell 2 (step-2): Kernel died" and printed(dead, 0) == "about to die"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_ends_the_kernels_and_starts_no_more(tmp_path):
    pid = tmp_path / "pid"
    source = f"import os, time\nprint(os.getpid(), file=open({str(pid)!r}, 'w'), flush=True)\ntime.sleep(60)"
    paths = [str(write_notebook(tmp_path / f"{name}.ipynb", source)) for name in "ab"]
    program = f"from srkit.course import run; run({paths}, out={str(tmp_path / 'out')!r}, jobs=1)"
    runner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 90
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < end
        time.sleep(0.1)
    runner.send_signal(signal.SIGINT)
    told, errors = runner.communicate(timeout=120)
    assert errors.strip().endswith(b"KeyboardInterrupt") and told.decode("utf-8").split() == ["a", "…"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# ---------------------------------------------------------------------------------- which lessons


def test_find_knows_all_lessons_their_numbers_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.delenv("SRKIT_ROOT")
    (tmp_path / "clone" / "srkit").mkdir(parents=True)  # a clone in which a student has worked, who is in it
    folder = tmp_path / "clone" / "notebooks"
    for name in ("02_srcnn", "01b_quality", "01_dataset", "03_mse_training", "03_mse_training-Copy1", "Untitled"):
        write_notebook(folder / f"{name}.ipynb", "1")
    monkeypatch.chdir(folder)
    assert [path.stem for path in lessons.find()] == ["01_dataset", "01b_quality", "02_srcnn", "03_mse_training"]
    assert lessons.find(["1b"]) == lessons.find(["01b"]) == [folder / "01b_quality.ipynb"]
    for asked in ("3", "03", "03_mse_training", "03_mse_training.ipynb"):
        assert lessons.find([asked]) == [folder / "03_mse_training.ipynb"]
    found = lessons.find([folder / "Untitled.ipynb", "2", "1", "02"])
    assert [path.stem for path in found] == ["Untitled", "02_srcnn", "01_dataset"]
    for asked in ("4", "03_mse_trainin", "", "gone/01_dataset.ipynb"):
        with pytest.raises(SRKitError, match=r"unknown lesson .*01_dataset, 01b_quality, 02_srcnn, 03_mse_training"):
            lessons.find([asked])
    with pytest.raises(SRKitError, match="did you mean 'quick'"):
        lessons.run(["1"], "quik", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lessons, "HOME", tmp_path)
    with pytest.raises(SRKitError, match="clone the repository"):
        lessons.find()


def test_a_relative_path_in_the_environment_means_the_folder_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "vgg.pth").touch()
    monkeypatch.chdir(tmp_path)
    for value, passed_on in (("vgg.pth", str(tmp_path / "vgg.pth")), ("random", "random")):  # a file, a word
        monkeypatch.setenv("SRKIT_WEIGHTS", value)
        assert lessons._environment("quick", False, None)["SRKIT_WEIGHTS"] == passed_on


def test_show_source_shows_functions_classes_and_the_class_of_an_object(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    show_source(lessons.find, lessons.Result, SRKitError("x"))
    starts = [data["text/plain"].split("(")[0] for data in shown]
    assert starts == ["def find", "@dataclass", "class SRKitError"] and "style=" in shown[0]["text/html"]
