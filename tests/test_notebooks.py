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
from nbformat.v4 import new_code_cell, new_notebook

from srkit import notebooks
from srkit.errors import SRKitError


def write_notebook(path: Path, *sources: str, tags: tuple[str, ...] = ()) -> Path:
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
        import os, sys, json, threading
        seen = {name: os.environ[name] for name in ["SRKIT_HEADLESS", "SRKIT_PROFILE", "OMP_NUM_THREADS"]}
        print(json.dumps(seen | {"python": sys.executable, "folder": os.getcwd()}))
        """,
        """
        import srkit
        print(srkit.__file__)
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
        """
        from IPython.display import Image
        from matplotlib_inline.backend_inline import new_figure_manager
        import matplotlib
        print(matplotlib.get_backend())
        """,
        """
        import ipywidgets
        display(ipywidgets.IntSlider())
        """,
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
        "with out:\n    raise KeyError('in a block')",
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
    "failing_callback": [
        """
        import ipywidgets
        slider = ipywidgets.IntSlider()
        slider.observe(lambda change: 1 / 0, "value")
        slider.value = 3
        """
    ],
    "dead_kernel": ["print('about to die')", "import os\nos._exit(1)"],
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The results by name, and what was echoed."""
    folder = tmp_path_factory.mktemp("lessons")
    tags = {"failing_cell": ["raises-exception"], "hidden_errors": ["skip-execution"]}
    paths = [write_notebook(folder / f"{name}.ipynb", *SOURCES[name], tags=tags.get(name, ())) for name in SOURCES]
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(foreign_kernel(tmp_path_factory.mktemp("jupyter"))))
        patch.setenv("MPLBACKEND", "agg")
        patch.delenv("OMP_NUM_THREADS", raising=False)
        results = notebooks.run(paths, out=folder / "out", jobs=2, timeout=8, offline=True, echo=said.append)
    return {result.lesson: result for result in results}, said


def foreign_kernel(folder: Path) -> Path:
    """A kernelspec named python3 that starts something else, as another install may have left one."""
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "x", "language": "python"}
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    return folder


def printed(result: notebooks.Result, cell: int) -> str:
    return nbformat.read(result.executed, as_version=4).cells[cell].outputs[0]["text"].strip()


def test_a_lesson_without_errors_passes_and_names_its_figures(ran):
    result = ran[0]["passes"]
    assert result.error is None
    assert result.seconds > 0
    assert result.figures == tuple(result.executed.parents[1] / name for name in ("grid.png", "curves.png"))


def test_the_kernel_is_this_python_in_the_notebooks_folder_with_the_lessons_environment(ran):
    result = ran[0]["passes"]
    seen = json.loads(printed(result, 0))
    assert seen["python"] == sys.executable
    assert Path(seen["folder"]) == result.executed.parents[1]
    assert (seen["SRKIT_HEADLESS"], seen["SRKIT_PROFILE"]) == ("1", "quick")
    assert 1 <= int(seen["OMP_NUM_THREADS"]) <= os.cpu_count()
    assert Path(printed(result, 1)) == Path(notebooks.__file__).with_name("__init__.py")
    assert "inline" in printed(result, 4)


def test_offline_refuses_addresses_and_names(ran):
    assert printed(ran[0]["passes"], 2).splitlines() == [
        "offline: no connection to 192.0.2.1",
        "offline: no connection to example.org",
    ]


def test_the_page_holds_the_outputs_and_needs_the_web_for_formulas_only(ran):
    page = ran[0]["passes"].html.read_text("utf-8")
    assert "offline: no connection to example.org" in page
    assert "widget-state" not in page
    scripts = re.findall(r'<script[^>]+src="([^"]+)"', page)
    assert all("mathjax" in script for script in scripts)


def test_a_failing_cell_is_named_with_its_line_whatever_its_tags_and_ends_its_lesson_only(ran):
    result = ran[0]["failing_cell"]
    assert result.error == "cell 2 (step-2): ZeroDivisionError: division by zero\n    cell 2, line 4: half(x)"
    assert [c.execution_count for c in nbformat.read(result.executed, as_version=4).cells] == [1, 2, None]
    assert list(ran[0]) == list(SOURCES)


def test_errors_that_a_notebook_hides_are_found_where_they_were_set_off(ran):
    result = ran[0]["hidden_errors"]
    assert printed(result, -1) == "went on"
    assert [line for line in result.error.splitlines() if line.startswith("cell")] == [
        "cell 2 (step-2): ValueError: moved to 0.8",
        "cell 3 (step-3): KeyError: 'in a block'",
        "cell 4 (step-4): ValueError: seen by nobody",
        "cell 5 (step-5): ZeroDivisionError: division by zero",
        "cell 6 (step-6), in a thread: RuntimeError: the loss is NaN",
    ]
    assert 'cell 1, line 5: raise ValueError(f"moved to' in result.error


def test_an_uncaptured_callback_fails_its_cell(ran):
    assert ran[0]["failing_callback"].error.startswith("cell 1 (step-1): ZeroDivisionError")


def test_a_slow_cell_is_stopped(ran):
    result = ran[0]["slow_cell"]
    assert result.error.startswith("cell 2 (step-2): stopped because it took longer than 8 s")
    assert result.seconds < 40


def test_a_dead_kernel_is_reported_and_its_outputs_are_kept(ran):
    assert ran[0]["dead_kernel"].error.startswith("cell 2 (step-2): the kernel died")
    assert printed(ran[0]["dead_kernel"], 0) == "about to die"


def test_a_line_tells_when_a_lesson_starts_and_one_when_it_ends(ran):
    said = ran[1]
    assert len(said) == 2 * len(SOURCES)
    assert not any("\n" in line for line in said)
    assert sorted(said[:2]) == ["passes …", "slow_cell …"]  # two at a time
    assert any(re.fullmatch(r"passes: \d+ s, figures: 2, ok", line) for line in said)
    assert any(re.match(r"slow_cell: \d+ s, figures: 0, FAILED at cell 2", line) for line in said)


def test_the_table_names_lessons_figures_and_errors():
    good = notebooks.Result("02_srcnn", 41.26, (Path("figures/a.png"), Path("figures/b.png")), Path("x"), None, None)
    bad = notebooks.Result("03_mse_training", 3.0, (), Path("y"), Path("y.html"), "cell 2 (fit): ValueError: no")
    assert notebooks.table([good, bad]) == dedent(
        """\
        lesson           result  seconds  figures
        -------------------------------------------------------
        02_srcnn         ok         41.3  a.png
                                          b.png
        03_mse_training  FAILED      3.0  none

        03_mse_training, see y.html
          cell 2 (fit): ValueError: no"""
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_ends_the_kernels_and_starts_no_more(tmp_path):
    pid = tmp_path / "pid"
    source = f"""
        import os, time
        print(os.getpid(), file=open({str(pid)!r}, "w"), flush=True)
        time.sleep(60)
    """
    paths = [str(write_notebook(tmp_path / f"{name}.ipynb", source)) for name in "ab"]
    program = f"from srkit import notebooks; notebooks.run({paths}, out={str(tmp_path / 'out')!r}, jobs=1)"
    runner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 40
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < end
        time.sleep(0.1)
    runner.send_signal(signal.SIGINT)
    told, errors = runner.communicate(timeout=20)
    assert errors.strip().endswith(b"KeyboardInterrupt")
    assert told.decode("utf-8").split() == ["a", "…"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_an_unknown_profile_starts_nothing(tmp_path):
    said = []
    with pytest.raises(SRKitError, match="unknown profile 'quik': did you mean 'quick'"):
        notebooks.run([write_notebook(tmp_path / "a.ipynb", "1")], "quik", tmp_path, echo=said.append)
    assert not said


def test_a_file_that_is_no_notebook_gets_one_clear_line(tmp_path):
    (tmp_path / "a.ipynb").write_text("no JSON")
    with pytest.raises(SRKitError, match=r"a\.ipynb: not a notebook"):
        notebooks.run([tmp_path / "a.ipynb"], out=tmp_path)


def test_an_empty_folder_has_no_lessons_to_run(tmp_path):
    with pytest.raises(SRKitError, match="no lessons"):
        notebooks.run(folder=tmp_path, out=tmp_path)


# ---------------------------------------------------------------------------------- which lessons


@pytest.fixture
def lessons(tmp_path, monkeypatch):
    """The notebooks/ of a clone in which a student has worked."""
    monkeypatch.delenv("SRKIT_ROOT", raising=False)
    folder = tmp_path / "clone" / "notebooks"
    folder.mkdir(parents=True)
    (tmp_path / "clone" / "srkit").mkdir()
    for name in ("02_srcnn", "01_dataset", "03_mse_training", "03_mse_training-Copy1", "Untitled"):
        write_notebook(folder / f"{name}.ipynb", "1")
    return folder


def test_find_gives_all_lessons_in_order_without_copies_and_trials(lessons):
    assert [path.stem for path in notebooks.find(folder=lessons)] == [
        "01_dataset",
        "02_srcnn",
        "03_mse_training",
    ]


@pytest.mark.parametrize("asked", ["3", "03", "03_mse_training", "03_mse_training.ipynb"])
def test_find_knows_a_lesson_by_number_and_name(lessons, asked):
    assert notebooks.find([asked], lessons) == [lessons / "03_mse_training.ipynb"]
    assert notebooks.find(asked, lessons) == [lessons / "03_mse_training.ipynb"]


def test_find_takes_paths_keeps_the_order_asked_for_and_drops_repeats(lessons):
    found = notebooks.find([str(lessons / "Untitled.ipynb"), "2", "1", "02"], lessons)
    assert [path.stem for path in found] == ["Untitled", "02_srcnn", "01_dataset"]


@pytest.mark.parametrize("asked", ["4", "03_mse_trainin", "-1", "", "gone/01_dataset.ipynb"])
def test_find_refuses_what_it_does_not_know(lessons, asked):
    with pytest.raises(SRKitError, match=r"unknown lesson .*Known: 01_dataset, 02_srcnn, 03_mse_training"):
        notebooks.find([asked], lessons)


def test_find_looks_upwards_from_the_current_folder(lessons, monkeypatch):
    monkeypatch.chdir(lessons)
    assert notebooks.find(["1"]) == [lessons / "01_dataset.ipynb"]


def test_find_says_to_clone_where_there_are_no_lessons(tmp_path, monkeypatch):
    monkeypatch.delenv("SRKIT_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebooks, "HOME", tmp_path)
    with pytest.raises(SRKitError, match="clone the repository"):
        notebooks.find()


def test_show_source_shows_functions_classes_and_the_class_of_an_object(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    notebooks.show_source(notebooks.find, notebooks.Result, SRKitError("x"))
    assert [data["text/plain"].split("(")[0] for data in shown] == [
        "def find",
        "@dataclass",
        "class SRKitError",
    ]
    assert "style=" in shown[0]["text/html"] and "lessons" in shown[0]["text/html"]


def test_a_relative_path_in_the_environment_means_the_folder_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "eye.pth").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRKIT_WEIGHTS", "eye.pth")
    assert notebooks._environment("quick", False, None)["SRKIT_WEIGHTS"] == str(tmp_path / "eye.pth")
    monkeypatch.setenv("SRKIT_WEIGHTS", "random")  # a word, no file
    assert notebooks._environment("quick", False, None)["SRKIT_WEIGHTS"] == "random"
