"""The repository as a whole: light imports, one list of requirements, no address but one."""

from __future__ import annotations

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


def test_import_is_light():
    heavy = (
        "matplotlib",
        "ipywidgets",
        "torchvision.models",
        "torchvision",
        "skimage",
        "accelerate",
        "tyro",
        "pooch",
        "IPython",
    )
    code = f"import sys, torch, srkit; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_names_at_the_top():
    import srkit

    assert all(getattr(srkit, name) for name in srkit.__all__)
    assert srkit.__version__ == PROJECT["project"]["version"]
    with pytest.raises(AttributeError, match="no attribute 'Trainr'"):
        _ = srkit.Trainr


def test_floors_import_only_downwards():
    floors = [
        {"errors", "images"},
        {"features", "sources", "downloads", "labels", "profiles", "domains"},
        {"losses", "metrics", "banks", "models", "warping"},
        {"training", "upscaling", "exporting", "live", "comparing", "finetuning"},
        {"dashboard", "gallery", "presets", "sketch", "figures", "notebooks"},
        {"cli", "__main__"},
    ]
    floor_of = {name: floor for floor, names in enumerate(floors) for name in names}
    for path in (ROOT / "srkit").rglob("*.py"):
        own = path.relative_to(ROOT / "srkit").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in set(re.findall(r"^\s*from srkit\.(\w+)", path.read_text(), re.M)) | set(
            re.findall(r"^\s*from srkit import (\w+)", path.read_text(), re.M)
        ):
            assert floor_of[name] <= floor_of[own], f"{path.name} imports {name}, which stands above it"


def requirements(lines: list[str]) -> dict[str, str]:
    """Name → version range, in one spelling."""
    parsed = (re.match(r"([\w.-]+)(\[.*\])?\s*(.*)", line).group(1, 3) for line in lines)
    return {name.lower(): version.replace(" ", "") for name, version in parsed}


def test_environment_yml_is_pyproject():
    text = (ROOT / "environment.yml").read_text()
    lines = re.findall(r"^\s+- ([^#\n]+?)\s*(?:#\s*(.+))?$", text, re.M)
    conda = requirements([line for line, _ in lines if not line.startswith(("conda-forge", "pip", "-e"))])
    groups = PROJECT["dependency-groups"]["dev"]
    wanted = requirements(PROJECT["project"]["dependencies"] + groups)
    wanted["python"] = PROJECT["project"]["requires-python"]
    spelled = {"torch": "pytorch"}  # conda-forge's name for it
    assert conda == {spelled.get(name, name): version for name, version in wanted.items()}
    for line, comment in lines:
        if not line.startswith(("conda-forge", "pip", "-e")):
            assert re.search(r"lesson|tests", comment), f"{line}: say which lesson needs it"


def test_one_address_everywhere():
    address = PROJECT["project"]["urls"]["Repository"]
    slug = address.removeprefix("https://github.com/")
    for path in [ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        text = path.read_text()
        for found in re.findall(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)", text):
            assert found == slug, f"{path.name} links to {found}, pyproject.toml says otherwise"
        for found in re.findall(r"REPOSITORY = \\\"(.+?)\\\"", text):
            assert found == address, f"{path.name} installs {found}, pyproject.toml says otherwise"


def test_pictures_in_lessons_are_the_references():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            for name, kinds in cell.get("attachments", {}).items():
                (packed,) = kinds.values()
                assert base64.b64decode(packed) == (ROOT / "figures" / "reference" / name).read_bytes()
                assert f"(attachment:{name})" in "".join(cell["source"])


def test_nothing_of_one_machine_is_committed():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert not [name for name in files if name.endswith((".lock", ".pt")) or name.startswith(("runs/", "data/t91"))]
