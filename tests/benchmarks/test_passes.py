"""benchmarks.passes: each pass starts from the one before, and BRISQUE is left out by a line where it cannot be had."""

from __future__ import annotations

import json

import torch
from conftest import photograph

from benchmarks import passes
from srkit import metrics, models
from srkit.data import images
from srkit.settings import SRKitError


def test_a_pass_starts_from_the_one_before_and_the_first_is_the_networks_own(tmp_path, monkeypatch):
    def missing(picture):
        raise SRKitError("piq is not installed: pip install piq")

    model, high = models.load(passes.NETWORK), photograph(36, 42)
    found = passes.pictures(model, high, 2)
    assert list(found) == ["reference", "interpolated", "pass 1", "pass 2"]
    with torch.no_grad():
        own = model(images.degrade(high, 3)[None])[0].clamp(0, 1)
        again = model.carried(found["pass 1"][None])[0].clamp(0, 1)
    assert torch.allclose(found["pass 1"], own, atol=0.02) and torch.allclose(found["pass 2"], again)

    images.write(high, tmp_path / "photos" / "a.png")
    monkeypatch.setattr(metrics, "brisque", missing)
    options = passes.Options(data=str(tmp_path / "photos"), passes=2, out=tmp_path / "out")
    facts, text = passes.run(options)
    assert "BRISQUE is left out: piq is not installed" in text and "BRISQUE" not in facts["means"]["pass 1"]
    written = json.loads((tmp_path / "out" / "passes.json").read_text())
    assert written["means"] == facts["means"] and facts["pictures"] == 1
    monkeypatch.setattr(metrics, "brisque", lambda picture: torch.tensor(40.4))
    assert "pass 2        BRISQUE 40  SSIM" in passes.run(options)[1]
