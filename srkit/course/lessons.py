"""Lessons: run them headless, and show a helper's source in them.

A lesson fails on every error, also on those a notebook hides: what a widget's callback or an `Output`
swallowed, what was cleared from the screen, what ended a thread.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import Any

from srkit.course import pages
from srkit.settings import SRKitError, current_profile, root, unknown

# 03_mse_training, 01b_quality, but not a student's 03_mse_training-Copy1 or Untitled
LESSON = re.compile(r"\d\d[a-z]?_\w+")
HOME = Path(__file__).resolve().parents[2]
# glibc keeps freed memory for the next step, where it would return it to the system, which maps it anew page by page.
# A step of SRCNN on 16 patches of 240 x 240 on one core took 13 % less processor time (median of five pairs, 9 to 22 %)
# and 0.4 GB more memory: nearly none of 360,000 page faults were left. One arena, because a thread's own, in which live
# runs train, holds no large blocks.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "99999999999", "MALLOC_MMAP_MAX_": "0", "MALLOC_ARENA_MAX": "1"}


CELL_LIMIT = 15 * 60  # seconds that a cell may take in quick


@dataclass(frozen=True)
class Result:
    """What one lesson's run gave: its figures, its page with the executed copy (.ipynb) beside it, and in `error` None,
    or in a few lines where it failed and why."""

    lesson: str
    seconds: float
    figures: tuple[Path, ...]
    page: Path
    error: str | None

    def __str__(self) -> str:
        ending = f"FAILED, see {self.page}\n{indent(self.error, '  ')}" if self.error else "ok"
        names = ", ".join(figure.name for figure in self.figures) or "none"
        return f"{self.lesson}: {self.seconds:.0f} s, figures: {names}; {ending}"


# ---------------------------------------------------------------------------------- which lessons


def find(lessons: Sequence[str | Path] = ()) -> list[Path]:
    """The notebooks of these lessons in the order asked for, or of all lessons in theirs.

    They lie in notebooks/ of `root()`, else of the clone that srkit was installed from.

    Args:
        lessons: numbers ("3", "03", "1b"), names ("03_mse_training") or paths of notebooks.

    Raises:
        SRKitError: a lesson nobody knows, or no notebooks/ anywhere.
    """
    paths = [_match(str(lesson)) for lesson in lessons]
    return list(dict.fromkeys(paths)) or list(_all().values())


def _match(lesson: str) -> Path:
    if lesson.endswith(".ipynb") and Path(lesson).is_file():
        return Path(lesson).resolve()
    known = _all()
    for name, path in known.items():
        number = name.split("_")[0]
        if lesson in (name, path.name) or lesson.zfill(len(number)) == number:
            return path
    raise unknown("lesson", lesson, known)


def _all() -> dict[str, Path]:
    for folder in (root() / "notebooks", HOME / "notebooks"):
        paths = {path.stem: path for path in sorted(folder.resolve().glob("*.ipynb"))}
        if lessons := {name: path for name, path in paths.items() if LESSON.fullmatch(name)}:
            return lessons
    raise SRKitError(f"no lessons in {root() / 'notebooks'}: clone the repository and run this inside it")


# ---------------------------------------------------------------------------------- running them


def run(
    lessons: Sequence[str | Path] = (),
    profile: str = "quick",
    out: str | Path | None = None,
    jobs: int | None = None,
    offline: bool = False,
) -> list[Result]:
    """Run lessons, each in a fresh kernel of this very Python, in the notebook's folder as JupyterLab does.

    Prints a line when a lesson starts, and its result when it ends. A failing lesson doesn't stop the others; Ctrl-C
    stops them all.

    Args:
        lessons: as for `find`.
        profile: "quick", "class" or "full".
        out: the folder for executed copies and their web pages; by default runs/notebooks.
        jobs: lessons at a time; by default two in quick on two cores or more (1.6 times faster on two),
            else one, because class and full want the whole machine.
        offline: refuse the lessons' connections to other machines, to show that they need none.

    Raises:
        SRKitError: an unknown profile or lesson, or no lessons at all.
    """
    profile = current_profile(profile).name
    paths = find(lessons)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = max(1, min(jobs or (2 if profile == "quick" and cores > 1 else 1), len(paths)))
    out = Path(out or root() / "runs/notebooks").resolve()
    out.mkdir(parents=True, exist_ok=True)
    environment = _environment(profile, offline, cores // jobs if jobs > 1 else None)
    runner = _Runner(out, environment, CELL_LIMIT if profile == "quick" else None)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(runner.run, path) for path in paths]
        try:
            while wait(futures, timeout=0.5).not_done:  # short waits: Windows hears Ctrl-C only between them
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            raise
    return [future.result() for future in futures]


def _environment(profile: str, offline: bool, threads: int | None) -> dict[str, str]:
    """The environment of the lessons' kernels."""
    backend = "module://matplotlib_inline.backend_inline"
    environment = {**KEEP_MEMORY, **os.environ, "SRKIT_HEADLESS": "1", "SRKIT_PROFILE": profile, "MPLBACKEND": backend}
    for name in ("SRKIT_WEIGHTS", "SRKIT_MIRROR", "SRKIT_DATA", "SRKIT_ROOT"):
        if Path(environment.get(name) or "-").exists():  # a kernel works in another folder
            environment[name] = str(Path(environment[name]).absolute())
    if (HOME / "pyproject.toml").is_file():  # a clone: `import srkit` means this one, installed or not
        environment["PYTHONPATH"] = os.pathsep.join([str(HOME), *filter(None, [os.getenv("PYTHONPATH")])])
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
    if offline:
        environment |= {"SRKIT_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}  # the hub would try again for half a minute
    return environment


@dataclass
class _Runner:
    """Runs one lesson after another, in as many threads as wanted, and can stop them all."""

    out: Path
    environment: dict[str, str]
    timeout: int | None
    kernels: list[Any] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, path: Path) -> Result:
        """Run one notebook; write its executed copy and its page."""
        import nbformat

        print(f"{path.stem} …", flush=True)
        started = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            errors = self._execute(notebook, path.parent, Path(scratch))
            figures = tuple(Path(line) for line in dict.fromkeys(_lines(Path(scratch, "figures.txt"))))
        if self.stopped.is_set():
            raise InterruptedError
        page = self.out / f"{path.stem}.html"
        nbformat.write(notebook, page.with_suffix(".ipynb"))
        page.write_text(pages.page(notebook, path), "utf-8")
        error = "\n".join(errors[:5]) or None  # more would help nobody
        result = Result(path.stem, time.monotonic() - started, figures, page, error)
        print(result, flush=True)
        return result

    def _execute(self, notebook: Any, folder: Path, scratch: Path) -> list[str]:
        """Fill the notebook with its outputs; return its errors, each with its place."""
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError

        errors: list[str] = []
        where = "before the first cell"
        thread_log = scratch / "threads.txt"

        class Client(NotebookClient):
            """Notes every error a kernel sends, wherever it is shown and however soon it is cleared."""

            def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
                if msg["msg_type"] == "error":
                    errors.append(f"{where}: {_shorten(msg['content'])}")
                return super().process_message(msg, cell, cell_index)

        def before_cell(cell: Any, cell_index: int) -> None:
            nonlocal where
            if self.stopped.is_set():
                raise InterruptedError
            number = sum(other.cell_type == "code" for other in notebook.cells[: cell_index + 1])
            where = f"cell {number} ({cell.get('id', 'no id')})"

        def after_cell(cell: Any, cell_index: int, execute_reply: Any) -> None:
            errors.extend(f"{where}, in a thread: {line}" for line in _lines(thread_log))
            thread_log.unlink(missing_ok=True)

        own = KernelSpecManager(kernel_dirs=[])  # looking in no folder leaves the running interpreter's kernel
        kernel = AsyncKernelManager(
            kernel_name="python3", kernel_spec_manager=own, connection_file=str(scratch / "kernel.json")
        )
        self.kernels.append(kernel)
        arguments = [
            "--log-level=CRITICAL",  # a kernel that is stopped would log its last moments
            "--IPKernelApp.exec_lines=__import__('srkit.course.lessons', fromlist=['_guard'])._guard()",
        ]
        limits = {"timeout": self.timeout, "startup_timeout": 120, "iopub_timeout": 30}
        whatever_its_tags = {"force_raise_errors": True, "skip_cells_with_tag": ""}
        hooks = {"on_cell_execute": before_cell, "on_cell_executed": after_cell}
        client = Client(notebook, km=kernel, extra_arguments=arguments, **limits, **whatever_its_tags, **hooks)
        environment = self.environment | {
            "SRKIT_FIGURE_LOG": str(scratch / "figures.txt"),
            "SRKIT_THREAD_LOG": str(thread_log),
            "IPYTHONDIR": str(scratch),  # nobody's own start-up files
        }
        try:
            client.execute(cwd=str(folder), env=environment, cleanup_kc=True)
        except CellExecutionError:
            pass  # noted by process_message
        except (RuntimeError, OSError) as error:  # a cell too slow; a dead kernel, most often of too little memory
            errors.insert(0, f"{where}: {str(error).splitlines()[0]}")  # before what ending the kernel has set off
        return errors

    def stop(self) -> None:
        """End all kernels now."""
        self.stopped.set()
        for kernel in self.kernels:
            if kernel.has_kernel:
                kernel.provisioner.process.kill()


def _guard() -> None:
    """In the kernel, before the first cell: note what ends a thread; refuse connections if asked to."""

    def record(args: Any) -> None:
        if args.exc_type is not SystemExit:
            with open(os.environ["SRKIT_THREAD_LOG"], "a", encoding="utf-8") as file:
                print(*f"{args.exc_type.__name__}: {args.exc_value}".splitlines(), file=file)
        threading.__excepthook__(args)

    def refuse(event: str, args: tuple) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            address = args[1] if event == "socket.connect" else args
            if isinstance(address, tuple) and address[0] not in (None, "127.0.0.1", "::1", "localhost"):
                raise OSError(f"offline: no connection to {address[0]}")

    threading.excepthook = record
    if os.environ.get("SRKIT_OFFLINE"):
        sys.addaudithook(refuse)


def _shorten(error: dict) -> str:
    """A kernel's error message in a few lines: what was raised, and the line of the cell."""
    text = "\n".join(f"{error['ename']}: {error['evalue']}".splitlines()[:4])
    traceback = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error["traceback"]))
    line = re.search(r"^Cell In ?\[(\d+)\].*?^-+> (\d+) +(.*?)$", traceback, re.MULTILINE | re.DOTALL)
    return f"{text}\n    cell {line[1]}, line {line[2]}: {line[3]}" if line else text


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines() if file.exists() else []


def recorded(name: str) -> dict[str, Any]:
    """What a run of benchmarks/ found that takes longer than a lesson: figures/reference/NAME.json.

    Raises:
        SRKitError: there is no such record.
    """
    for folder in (HOME / "figures/reference", Path(__file__).parent / "reference"):  # a clone, or an installed package
        if (path := folder / f"{name}.json").is_file():
            return json.loads(path.read_text("utf-8"))
    raise SRKitError(
        f"no record {name}.json: run python -m benchmarks.{name.split('_')[0]} in a clone of the repository"
    )


def show_source(*things: object) -> None:
    """Show, in a notebook, the coloured source of functions and classes, or of an object's class."""
    from IPython.display import display
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    # Colours within the tags hold in JupyterLab, on Colab and in dark themes alike.
    formatter = HtmlFormatter(noclasses=True, prestyles="color: #222; background: none; font-family: monospace")
    for thing in things:
        source = inspect.getsource(thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing))
        page = highlight(source, PythonLexer(), formatter)
        display({"text/html": page, "text/plain": source}, raw=True)
