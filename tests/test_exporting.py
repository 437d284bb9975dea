"""exporting: ONNX files that give PyTorch's pixels at any size, and say what they are."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from srkit import cli, exporting, models
from srkit.errors import SRKitError
from srkit.training.checkpoint import weights_sha256

onnx = pytest.importorskip("onnx", reason="pip install 'srkit[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'srkit[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'srkit[onnx]'")

SMALL = {"channels": 8, "blocks": 1}
NETWORKS = {
    "srcnn": lambda: models.create("srcnn", 2),
    "srcnn915": lambda: models.create("srcnn915", 3),
    "srresnet": lambda: models.create("srresnet", **SMALL),
    "srresnet-small": lambda: models.create("srresnet-small", **SMALL),
    "superresnet-vgg": lambda: models.create("superresnet-vgg", feature_weights="random"),
    "nearest": lambda: models.create("nearest", 3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_gives_the_same_pixels_at_any_size(name, tmp_path):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    facts = exporting.to_onnx(model, tmp_path / "new" / "model.onnx")
    assert facts["difference"] <= 1e-4 and [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "new" / "model.onnx", providers=["CPUExecutionProvider"])
    for batch, height, width in ((1, 33, 8), (3, 16, 50), (1, 120, 121)):
        low = torch.rand(batch, 3, height, width)
        with torch.no_grad():
            expected = model(low)
        expected = (expected,) if isinstance(expected, torch.Tensor) else expected
        for one, other in zip(session.run(None, {"low": low.numpy()}), expected, strict=True):
            assert one.shape == other.shape and abs(torch.from_numpy(one) - other).max() <= 1e-4
    assert facts["outputs"] == [output.name for output in session.get_outputs()]
    assert facts["outputs"] == (["x2", "x4"] if "super" in name else ["output"])


def test_a_file_says_what_it_is(tmp_path, capsys):
    assert cli.main(["export", "srresnet-small-x4", "-o", str(tmp_path / "m.onnx")]) == 0
    assert "onnxruntime and PyTorch differ by" in capsys.readouterr().out
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert facts["name"] == "srresnet-small" and facts["scale"] == "4" and facts["colours"] == "RGB"
    assert "0 to 1" in facts["range"] and json.loads(facts["recipe"])["blocks"] == 8
    assert facts["weights_sha256"] == weights_sha256(models.load("srresnet-small-x4").state_dict())


def test_what_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_one_difference", lambda *_: 0.01)
    with pytest.raises(SRKitError, match="onnxruntime's answer differs by"):
        exporting.to_onnx(models.create("bicubic", 2), tmp_path / "m.onnx")
    monkeypatch.setattr(exporting, "_one_difference", lambda *_: float("nan"))
    with pytest.raises(SRKitError, match="differs by nan"):
        exporting.to_onnx(models.create("bicubic", 2), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_one_line(tmp_path):
    class Undecided(nn.Module):
        scale = 1

        def forward(self, low: torch.Tensor) -> torch.Tensor:
            return low if low.mean() > 0.5 else 1 - low

    with pytest.raises(SRKitError, match="cannot export this Undecided as ONNX") as caught:
        exporting.to_onnx(Undecided(), tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert exporting.to_onnx(models.create("bicubic", 2), tmp_path / "m.onnx")["difference"] is None
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SRKitError, match=r"onnxscript is not installed: pip install 'srkit\[onnx\]'"):
        exporting.to_onnx(models.create("bicubic", 2), tmp_path / "m.onnx")
