"""The repository as a whole: light imports, one list of requirements, no address but one."""

from __future__ import annotations

import ast
import base64
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
def test_imports_are_light():
    heavy = {"matplotlib", "ipywidgets", "torchvision", "skimage", "accelerate", "tyro", "pooch", "IPython", "nbclient"}
    found = f"print(*{heavy} & sys.modules.keys())"
    code = f"import sys, torch, srkit; {found}; import srkit.cli; {found}"  # a command says --help without them
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["", "tyro"]


def test_names_at_the_top():
    import srkit

    assert all(getattr(srkit, name) for name in srkit.__all__)
    assert srkit.__version__ == PROJECT["project"]["version"]
    with pytest.raises(AttributeError, match="no attribute 'Trainr'"):
        _ = srkit.Trainr


def requirements(lines: list[str]) -> dict[str, str]:
    """Name → version range, in one spelling."""
    parsed = [re.match(r"([\w.-]+)(\[.*\])?\s*(.*)", line) for line in lines]
    return {match[1].lower(): match[3].replace(" ", "") for match in parsed if match}


def test_environment_yml_is_pyproject():
    text = (ROOT / "environment.yml").read_text()
    lines = re.findall(r"^\s+- (?!conda-forge|pip|-e)([^#\n]+?)\s*(?:#.+)?$", text, re.M)
    wanted = requirements(PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"])
    wanted["python"] = PROJECT["project"]["requires-python"]
    wanted["pytorch"] = wanted.pop("torch")  # conda-forge's name for it
    assert requirements(lines) == wanted


def test_every_package_imported_is_required():
    project = PROJECT["project"]
    known = {"srkit", *sys.stdlib_module_names, *requirements(project["dependencies"])}
    known |= {name for lines in project["optional-dependencies"].values() for name in requirements(lines)}
    known |= {"PIL", "skimage", "IPython", "jupyter_client", "pygments", "matplotlib_inline"}  # come with those
    known |= {"requests", "urllib3", "tifffile", "google"}  # come with pooch, scikit-image and Colab
    known |= {name.replace("-", "_") for name in known}
    for path in (ROOT / "srkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "srkit"] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= known, f"pyproject.toml lacks a package of {path.name}"


def test_one_address_everywhere():
    address = PROJECT["project"]["urls"]["Repository"]
    slug = address.removeprefix("https://github.com/")
    for path in [ROOT / "README.md", *LESSONS]:
        text = path.read_text("utf-8")
        assert set(re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)", text)) <= {slug}, path.name
        assert set(re.findall(r"REPOSITORY = \\\"(.+?)\\\"", text)) <= {address}, path.name


def test_pictures_in_lessons_are_the_references():
    for path in LESSONS:
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            for name, kinds in cell.get("attachments", {}).items():
                (packed,) = kinds.values()
                assert base64.b64decode(packed) == (ROOT / "figures" / "reference" / name).read_bytes()
                assert f"(attachment:{name})" in "".join(cell["source"])


def test_nothing_of_one_machine_is_committed():
    ran = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    left = (".lock", ".pt", ".pyc")
    assert not [name for name in ran.stdout.splitlines() if name.endswith(left) or name.startswith("runs/")]
