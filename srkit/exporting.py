"""A trained network as an ONNX file, which onnxruntime and many other programs run without PyTorch.

facts = exporting.to_onnx(models.load("srresnet-small-x4"), "srresnet-small-x4.onnx")
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srkit.errors import SRKitError
from srkit.models import foreign
from srkit.training.checkpoint import weights_sha256

TOLERANCE = 1e-4  # a fortieth of a grey level
CHECKED = ((1, 24, 20), (2, 17, 31), (1, 64, 90), (1, 151, 36))  # (N, H, W), none but the first known to the exporter


def to_onnx(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Write a network as ONNX and compare what onnxruntime makes of it with what PyTorch does.

    The file takes `low` (N, 3, H, W), float32, RGB, [0, 1], of any N, H and W, and gives `output`; of a network with
    several outputs, `x2` and `x4`. Nothing is clipped. Its metadata say so, and name the network, its scale and the
    sha256 of its weights.

    Args:
        model: on any device.
        path: the file; its folder is made.

    Returns:
        path, opset, outputs, megabytes, and `difference`: the largest between the two at several sizes, or None
        without onnxruntime.

    Raises:
        SRKitError: onnx or onnxscript is missing, PyTorch cannot export the network, or the two differ by more than
            1e-4; no file is left behind then.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise SRKitError(f"{error.name} is not installed: pip install 'srkit[onnx]'") from None
    path = Path(path)
    model = copy.deepcopy(model).cpu().float().eval()
    scales = getattr(model, "scales", (model.scale,))
    names = ["output"] if len(scales) == 1 else [f"x{scale}" for scale in scales]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        program = _export(model, names)
        program.save(part)
        written = onnx.load(part)
        onnx.helper.set_model_props(written, _metadata(model, scales))
        onnx.save(written, part)
        difference = _difference(model, part)
        if difference is not None and not difference <= TOLERANCE:
            raise SRKitError(
                f"onnxruntime's answer differs by {difference:.2g} from PyTorch's: {path} was not written; "
                "try another version of torch or onnxruntime"
            )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return {
        "path": str(path),
        "opset": next(each.version for each in written.opset_import if each.domain in ("", "ai.onnx")),
        "outputs": names,
        "megabytes": path.stat().st_size / 1e6,
        "difference": difference,
    }


def _export(model: nn.Module, names: list[str]) -> Any:
    """The network as torch.onnx sees it, with batch, height and width left open."""
    sizes = {0: "batch", 2: "height", 3: "width"}
    (batch, height, width), *_ = CHECKED
    low = torch.zeros(max(2, batch), 3, height, width)  # of a batch of one, the exporter would make a constant
    talk = logging.getLogger("torch.onnx")
    before = talk.level
    talk.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                model, (low,), dynamo=True, dynamic_shapes=(sizes,), input_names=["low"], output_names=names,
                verbose=False,
            )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise SRKitError(f"PyTorch cannot export this {type(model).__name__} as ONNX: {reason}") from None
    finally:
        talk.setLevel(before)


def _metadata(model: nn.Module, scales: tuple[int, ...]) -> dict[str, str]:
    """What a stranger to the file must know."""
    recipe = getattr(model, "recipe", {})
    return {
        "name": recipe.get("name", type(model).__name__),
        **foreign.origin(model),
        "recipe": json.dumps(recipe),
        "scale": ",".join(map(str, scales)),
        "weights_sha256": weights_sha256(model.state_dict()),
        "layout": "NCHW float32",
        "colours": "RGB",
        "range": "0 to 1; the output is not clipped",
    }


@torch.inference_mode()
def _difference(model: nn.Module, path: Path) -> float | None:
    """The largest difference between onnxruntime and PyTorch at several sizes; None if there is no onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        return max(_one_difference(model, session, size) for size in CHECKED)
    except SRKitError:
        raise
    except Exception as error:  # onnxruntime's errors have no common type
        raise SRKitError(f"onnxruntime cannot run what PyTorch exported: {str(error).splitlines()[0]}") from None


def _one_difference(model: nn.Module, session: Any, size: tuple[int, int, int]) -> float:
    batch, height, width = size
    low = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    expected = model(low)
    expected = (expected,) if isinstance(expected, Tensor) else expected
    answers = [torch.from_numpy(answer) for answer in session.run(None, {"low": low.numpy()})]
    if [x.shape for x in answers] != [x.shape for x in expected]:
        raise SRKitError(f"onnxruntime gives {[tuple(x.shape) for x in answers]} for {tuple(low.shape)}")
    return max((a - b).abs().max().item() for a, b in zip(answers, expected, strict=True))
