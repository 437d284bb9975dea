"""What is handed in: one zip, checked by the same function before it is packed and after it is received.

Nothing in it is run: info.py is read as literals, the notebook and the sidecars as JSON, the weights as tensors.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from srkit.course.rules import Rules
from srkit.settings import SRKitError

FORMAT = "srkit submission 1"
MODEL, MANIFEST = "model.safetensors", "manifest.json"
MOST_FILES, MOST_BYTES = 200, 500_000_000
MOST_TEXT = 50_000_000  # bytes of a notebook, a sidecar, a manifest: parsing them takes many times as much
WHO = {"ID": "", "FIRST_NAME": "", "LAST_NAME": "", "EMAIL": "", "DECLARATION": False, "SOURCES": "", "ENSEMBLE": False}


@dataclass
class Inspected:
    """What reading a submission found. `problems` has a line for each item of the code marks; "" where all is well."""

    info: dict[str, Any]
    manifest: dict[str, Any]
    problems: dict[str, str] = field(default_factory=dict)
    figures: list[dict[str, Any]] = field(default_factory=list)  # the sidecars


def unpack(source: Path, folder: Path) -> None:
    """Copy a zip's or a folder's files into an empty folder: nothing that could grow without end or land elsewhere.

    Raises:
        SRKitError: no zip, a damaged one, too many or too large files, a link, or a name that leads out of the folder.
    """
    try:
        if source.is_dir():
            paths = [path for path in source.rglob("*") if ".git" not in path.parts and not path.is_dir()]
            names = {path.relative_to(source).as_posix(): path for path in paths}
            _bounded([(name, path.lstat().st_size, path.lstat().st_mode) for name, path in names.items()])
            for name, path in names.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)
            return
        with zipfile.ZipFile(source) as packed:
            members = [each for each in packed.infolist() if not each.is_dir()]
            _bounded([(each.filename, each.file_size, each.external_attr >> 16) for each in members])
            for each in members:  # Python reads no more of a member than the size that was looked at
                (folder / each.filename).parent.mkdir(parents=True, exist_ok=True)
                (folder / each.filename).write_bytes(packed.read(each))
    except SRKitError:
        raise
    except Exception as error:  # a damaged zip can raise nearly everything
        raise SRKitError(f"no zip that can be read ({type(error).__name__}): pack it with srkit submit") from None


def _bounded(files: Sequence[tuple[str, int, int]]) -> None:
    if len(files) > MOST_FILES or sum(size for _, size, _ in files) > MOST_BYTES:
        size = sum(size for _, size, _ in files) / 1e6
        most = f"{MOST_FILES} files and {MOST_BYTES / 1e6:.0f} MB"
        raise SRKitError(f"{len(files)} files of {size:,.0f} MB: more than {most} are not unpacked")
    for name, _, mode in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", name):
            raise SRKitError(f"a file named {name[:60]!r}, which leads out of the folder: not unpacked")
        if stat.S_ISLNK(mode):
            raise SRKitError(f"{name[:60]!r} is a link: not unpacked")
    if len({name.lower() for name, _, _ in files}) < len(files):
        raise SRKitError("two files of one name: not unpacked")


def read_info(folder: Path) -> dict[str, Any]:
    """The values in info.py, which is read and not run.

    Raises:
        SRKitError: there is none, or a value that is no plain text or True/False.
    """
    found = dict(WHO)
    try:
        tree = ast.parse((folder / "info.py").read_bytes()[:10_000])
        for line in (line for line in tree.body if isinstance(line, ast.Assign)):
            value = ast.literal_eval(line.value)
            found |= {target.id: value for target in line.targets if isinstance(target, ast.Name)}
    except FileNotFoundError:
        raise SRKitError("no info.py: fill in the one that was handed out") from None
    except (SyntaxError, ValueError, UnicodeDecodeError, RecursionError, MemoryError):
        raise SRKitError('info.py is no list of values such as ID = "123": use the one handed out') from None
    for name, default in WHO.items():
        if isinstance(found[name], str) and len(found[name]) > 2000:
            raise SRKitError(f"info.py: {name} is too long")
        if type(found[name]) is not type(default):
            raise SRKitError(f"info.py: {name} must be {'a text' if default == '' else 'True or False'}")
    return {name: found[name].strip() if default == "" else found[name] for name, default in WHO.items()}


def inspect(folder: Path, rules: Rules) -> Inspected:
    """Read a submission that lies in a folder, and say what is wrong with each item.

    Raises:
        SRKitError: nobody can be named as its author, or it holds no network or no manifest.
    """
    info = read_info(folder)
    if missing := [name for name in ("ID", "FIRST_NAME", "LAST_NAME") if not info[name]]:
        raise SRKitError(f"info.py: fill in {', '.join(missing)}")
    if not (folder / MODEL).is_file():
        raise SRKitError(f"no {MODEL}: srkit submit makes it from a checkpoint; pickles are not read")
    found = Inspected(info, _json(folder / MANIFEST))
    if found.manifest.get("format") != FORMAT:
        raise SRKitError(f"no {MANIFEST} of srkit: pack it with srkit submit")
    valid = re.fullmatch(r"[\w.-]{1,40}", info["ID"])
    found.problems["declaration"] = "" if info["DECLARATION"] is True else "info.py: DECLARATION is not True"
    if not valid:
        found.problems["declaration"] = f"info.py: the ID {info['ID'][:40]!r} may hold letters, digits, . _ - alone"
    found.problems["manifest"] = _hashes(folder, found.manifest)
    if rules.figures:
        found.problems["figures"] = _figures(folder, rules, found)
    if rules.notebook:
        found.problems["notebook"] = _notebooks(folder)
    for name in rules.checks:
        passed = any(sidecar.get("checks", {}).get(name) is True for sidecar in found.figures)
        found.problems[f"check {name}"] = "" if passed else f"no figure says that the check {name} was passed"
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8")) if path.stat().st_size <= MOST_TEXT else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_in(folder: Path) -> dict[str, str]:
    """The sha256 of every file but the manifest, by name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def _hashes(folder: Path, manifest: dict[str, Any]) -> str:
    stated, real = manifest.get("files", {}), files_in(folder)
    differ = sorted(name for name in {*stated, *real} if stated.get(name) != real.get(name))
    return f"other files than the manifest says: {', '.join(differ[:3])}" if differ else ""


def _figures(folder: Path, rules: Rules, found: Inspected) -> str:
    """Fills `found.figures`; a line about the first figure whose text chunks, sidecar and student do not agree."""
    paths = sorted(folder.glob("figures/*.png"))
    if len(paths) < rules.figures:
        return f"{len(paths)} figures of srkit in figures/, and the rules want {rules.figures}"
    weights = set()
    for path in paths:
        sidecar = _json(path.with_suffix(".json"))
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                chunks = dict(getattr(picture, "text", {}))
        except Exception:  # Pillow raises more than a dozen kinds on a damaged file
            return f"{path.name}: no PNG that can be read"
        stated = {key: value if isinstance(value, str) else json.dumps(value) for key, value in sidecar.items()}
        if not sidecar or any(chunks.get(key) != value for key, value in stated.items()):
            return f"{path.name}: the picture and the sidecar beside it say different things: save it anew"
        student = sidecar.get("student")
        if not isinstance(student, dict) or student.get("id") != found.info["ID"]:
            return f"{path.name}: made by another student than info.py names"
        found.figures.append(sidecar)
        weights |= {about.get("weights_sha256") for about in models_in(sidecar)}
    if found.manifest.get("weights_sha256") not in weights:
        return "no figure was made from the weights that are handed in"
    return ""


def models_in(sidecar: dict[str, Any]) -> list[dict[str, Any]]:
    """What a figure's sidecar says about each of its models."""
    several = sidecar.get("models")
    each = list(several.values()) if isinstance(several, dict) else [sidecar]
    return [about for about in each if isinstance(about, dict)]


def _notebooks(folder: Path) -> str:
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        return "no notebook"
    for path in paths:
        cells = _json(path).get("cells", [])
        cells = cells if isinstance(cells, list) else []
        code = [c for c in cells if isinstance(c, dict) and c.get("cell_type") == "code" and c.get("source")]
        if not code or [cell.get("execution_count") for cell in code] != list(range(1, len(code) + 1)):
            return f"{path.name}: not executed from the first cell to the last: restart the kernel and run all"
        outputs = [output for cell in code for output in cell.get("outputs", []) if isinstance(output, dict)]
        if any(output.get("output_type") == "error" for output in outputs):
            return f"{path.name}: a cell ended with an error"
    return ""


def zip_name(info: dict[str, Any]) -> str:
    """ID_lastname_firstname.zip, of characters that every file system takes."""
    words = (re.sub(r"[^\w.-]+", "-", info[name]) for name in ("ID", "LAST_NAME", "FIRST_NAME"))
    return "_".join(words) + ".zip"


def write_zip(folder: Path, path: Path) -> None:
    """All files of a folder as a zip; the weights hardly shrink, the figures not at all."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in [*files_in(folder), MANIFEST]:
            packed.write(folder / name, name)


def now() -> str:
    """The time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
