"""As docs/teaching.md says it: from `srkit handout` to a mark, by the commands alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import photograph

from srkit.course.lessons import HOME
from srkit.data import images


def command(*words: object, cwd: Path) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(HOME), "SRKIT_ROOT": str(cwd), "MPLBACKEND": "agg"}
    ran = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.slow
def test_from_handing_out_to_a_mark(tmp_path):
    given, inbox, tests = tmp_path / "given", tmp_path / "inbox", tmp_path / "tests"
    inbox.mkdir()
    for index in range(3):
        images.write(photograph(64, 64, index), tests / f"{index}.png")
    assert command("-m", "srkit", "handout", given, cwd=tmp_path)[0] == 0
    path = given / "train.py"
    path.write_text(path.read_text().replace("steps=200", "steps=3"))
    status, said = command("-m", "srkit", "submit", "runs/assignment/last.pt", cwd=given)
    assert status == 2 and "no such file" in said
    for name, value in {"ID": "s1", "FIRST_NAME": "Ada", "LAST_NAME": "Lovelace"}.items():
        text = (given / "info.py").read_text()
        (given / "info.py").write_text(re.sub(f'^{name} = ""', f'{name} = "{value}"', text, flags=re.MULTILINE))
    assert command("train.py", cwd=given)[0] == 0
    status, said = command("-m", "srkit", "submit", "runs/assignment/last.pt", cwd=given)
    assert status == 2 and "DECLARATION is not True" in said and "no notebook" in said and not list(given.glob("*.zip"))
    (given / "info.py").write_text((given / "info.py").read_text().replace("DECLARATION = False", "DECLARATION = True"))
    cell = {"cell_type": "code", "execution_count": 1, "outputs": [], "source": ["1"]}
    (given / "work.ipynb").write_text(json.dumps({"cells": [cell]}))
    status, said = command("-m", "srkit", "submit", "runs/assignment/last.pt", cwd=given)
    assert status == 0 and "6,064 parameters" in said, said
    (given / "s1_Lovelace_Ada.zip").rename(inbox / "s1_Lovelace_Ada.zip")
    for name in ("grade", "contest"):
        words = ("-m", "srkit", name, "inbox", "--rules", given / "contest.toml", "--data", tests, "--out", "marks")
        status, said = command(*words, cwd=tmp_path)
        assert status == 0 and "Lovelace Ada s1" in said, said
    found = json.loads((tmp_path / "marks/results.json").read_text())
    assert 40 <= found["score"] <= 100 and found["leaderboard"][0]["name"] == "PSNR / dB"
    assert "Lovelace" in (tmp_path / "marks/standings.html").read_text()
    status, said = command("-m", "srkit", "grade", tests, *words[4:], cwd=tmp_path)
    assert status == 2 and "no submissions" in said
