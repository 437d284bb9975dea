"""The one way to a trained model: weights in srkit/weights/, checkpoints of srkit's, and other projects' files.

`models.load("srresnet-small-x4")` needs neither a download nor a training. Its weights are stored in half precision,
as safetensors, beside a card that says how they came about; `models.load("runs/last.pt")` reads a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from srkit.models.convert import convert
from srkit.models.files import read, weights_sha256
from srkit.models.presets import fill, label
from srkit.settings import SRKitError, atomic_write, unknown

FOLDER = Path(__file__).parents[1] / "weights"
STAMP = "srkit checkpoint 2"  # what a checkpoint holds under "format"


def names(folder: Path = FOLDER) -> list[str]:
    """The pretrained networks: network and scale, e.g. "srresnet-small-x4". `card` says what one needs."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """How a network was trained and what it reaches: config, pictures, settings, device, PSNR and SSIM.

    "needs" names a package that srkit does not bring, such as timm.

    Raises:
        SRKitError: no such network.
    """
    if name not in names(folder):
        raise unknown("pretrained network", name, names(folder))
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def load(name_or_path: str | Path) -> nn.Module:
    """A trained model in eval mode on the CPU, in float32; `model.pretrained` is True if it was trained at all.

    Args:
        name_or_path: a pretrained network's name (see `names`); or a file: a checkpoint of srkit, of which the
            averaged weights are taken if it has them, weights that `publish` wrote, or another project's generator
            (see `convert`).

    Raises:
        SRKitError: no such name (the message says the nearest) or file; a file that is damaged, or holds a model that
            srkit cannot rebuild; a package that the network needs is not installed.
    """
    path = Path(name_or_path).expanduser()
    if str(name_or_path) in names():
        path = FOLDER / f"{name_or_path}.safetensors"
    elif not path.is_file() and not path.suffix:
        raise SRKitError(f"{unknown('pretrained network', name_or_path, names())}; or give a file")
    content = read(path)
    own = is_checkpoint(content, path)
    try:
        if own:
            if not content.get("model_config"):
                raise SRKitError("a model of your own: make it, then load_state_dict(torch.load(…)['model'])")
            model = fill(content["model_config"], content["ema"] or content["model"])
            return label(model.eval(), pretrained=content["step"] > 0)  # a GAN asks whether its generator was trained
        if path.suffix == ".safetensors" and path.with_suffix(".json").is_file():
            facts = card(path.stem, path.parent)
            if hashlib.sha256(path.read_bytes()).hexdigest() != facts.get("sha256"):
                raise SRKitError("other weights than the card beside it says: get both files again")
            return label(fill(facts["config"], content).eval(), pretrained=True)
        return convert(content)
    except SRKitError as error:
        raise SRKitError(f"{name_or_path}: {error}") from None


def is_checkpoint(state: Any, path: str | Path = "this file") -> bool:
    """Whether srkit wrote what `read` has read from `path`.

    Raises:
        SRKitError: an older or a newer srkit wrote it.
    """
    form = state.get("format") if isinstance(state, dict) else None
    if isinstance(form, str) and form.startswith("srkit checkpoint") and form != STAMP:
        raise SRKitError(f"{path}: {form}, and this srkit reads {STAMP}: train again, or use the version that wrote it")
    return form == STAMP


def publish(
    model: nn.Module, name: str, facts: dict[str, Any], folder: Path = FOLDER, dtype: torch.dtype = torch.float16
) -> Path:
    """Write a model's weights, rounded to `dtype`, and its card; `load` of the path returned reads them.

    Args:
        model: with `config`, as `build` makes it.
        facts: what else the card says.
    """
    rounded = {
        key: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in model.state_dict().items()
    }
    content = save(rounded)
    facts = {"config": getattr(model, "config", {}), **facts, "sha256": hashlib.sha256(content).hexdigest()}
    path = folder / f"{name}.safetensors"
    for file, data in ((path, content), (path.with_suffix(".json"), json.dumps(facts, indent=2).encode() + b"\n")):
        with atomic_write(file) as draft:
            draft.write_bytes(data)
    return path


__all__ = ["FOLDER", "STAMP", "card", "is_checkpoint", "load", "names", "publish", "read", "weights_sha256"]
