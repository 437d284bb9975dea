"""The one way to a trained model: weights in srkit/weights/, checkpoints of srkit's, and other projects' files.

`models.load("srresnet-small-x4")` needs neither a download nor a training. Its weights are stored in half precision,
as safetensors, beside a card that says how they came about; `models.load("runs/last.pt")` reads a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from srkit.models.convert import convert
from srkit.models.files import damage_of, read, weights_sha256
from srkit.models.presets import fill, label
from srkit.settings import SRKitError, atomic_write, unknown

FOLDER = Path(__file__).parents[1] / "weights"
STYLES = FOLDER / "styles"
STAMP = "srkit checkpoint 2"  # what a checkpoint holds under "format"
# The kinds of its fields; and what stands for those that are not in every file, so that older ones can still be read.
FIELDS: dict[str, Any] = {
    **dict.fromkeys(("model_config", "config", "dataset", "weights", "settings", "optimizer", "random"), dict),
    **{"trainer": str, "fingerprint": str, "step": int, "model": object},  # of "model" what is made of it says more
}
DEFAULTS: dict[str, Any] = {
    **{"start": "", "code": "", "student": {}, "validation": {}, "seconds": 0.0, "best": -math.inf},
    **{"history": [], "moves": [], "ema": {}, "scaler": {}},
}
WORDS = ("model_config", "config", "dataset", "validation", "student", "weights", "settings")  # no tensors, not nested


def names(folder: Path = FOLDER) -> list[str]:
    """The pretrained networks: network and scale, e.g. "srresnet-small-x4". `card` says what one needs."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def styles() -> list[str]:
    """The pretrained styles, e.g. "brushes": for `srkit style`. Beside each lies the picture that it learnt from."""
    return names(STYLES)


def card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """How a network was trained and what it reaches: config, pictures, settings, device, PSNR and SSIM.

    "needs" names a package that srkit does not bring, such as timm.

    Raises:
        SRKitError: no such network.
    """
    if name not in names(folder):
        raise unknown("pretrained network", name, names(folder))
    path = folder / f"{name}.json"
    with damage_of(path):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
            raise SRKitError("no card of a network: get it again")
        return found


def load(name_or_path: str | Path, closed: bool = False) -> nn.Module:
    """A trained model in eval mode on the CPU, in float32; `model.pretrained` is True if it was trained at all.

    Args:
        name_or_path: a pretrained network's name (see `names`), or a style's (see `styles`); or a file: a checkpoint
            of srkit, of which the averaged weights are taken if it has them, weights that `publish` wrote, or another
            project's generator (see `convert`).

        closed: refuse a file whose model would read another file, or download one: for a stranger's checkpoint.

    Raises:
        SRKitError: no such name (the message says the nearest) or file; a file that is damaged, or holds a model that
            srkit cannot rebuild; a package that the network needs is not installed.
    """
    path = Path(name_or_path).expanduser()
    if found := [folder for folder in (FOLDER, STYLES) if str(name_or_path) in names(folder)]:
        path = found[0] / f"{name_or_path}.safetensors"
    elif not path.is_file() and not path.suffix:
        raise SRKitError(f"{unknown('pretrained network', name_or_path, [*names(), *styles()])}; or give a file")
    content = read(path)
    with damage_of(name_or_path):
        if is_checkpoint(content, path):
            if not content.get("model_config"):
                raise SRKitError("a model of your own: make it, then load_state_dict(torch.load(…)['model'])")
            model = fill(content["model_config"], content["ema"] or content["model"], closed)
            return label(model.eval(), pretrained=content["step"] > 0)  # a GAN asks whether its generator was trained
        if path.suffix == ".safetensors" and path.with_suffix(".json").is_file():
            facts = card(path.stem, path.parent)
            if hashlib.sha256(path.read_bytes()).hexdigest() != facts.get("sha256"):
                raise SRKitError("other weights than the card beside it says: get both files again")
            return label(fill(facts["config"], content, closed).eval(), pretrained=True)
        return convert(content)


def is_checkpoint(state: Any, path: str | Path = "this file") -> bool:
    """Whether srkit wrote what `read` has read from `path`; fields that an older file may lack are filled in.

    Raises:
        SRKitError: an older or a newer srkit wrote it, or a field is of another kind than it should be.
    """
    form = state.get("format") if isinstance(state, dict) else None
    if isinstance(form, str) and form.startswith("srkit checkpoint") and form != STAMP:
        raise SRKitError(f"{path}: {form}, and this srkit reads {STAMP}: train again, or use the version that wrote it")
    if form != STAMP:
        return False
    for name, default in DEFAULTS.items():
        state[name] = type(default)(default) if state.get(name) is None else state[name]
    kinds = FIELDS | {name: type(default) for name, default in DEFAULTS.items()}
    for name in [name for name in kinds if name in state]:
        whole = isinstance(state[name], kinds[name]) and (name not in WORDS or _plain(state[name]))
        if not whole or (name == "step" and not 0 <= state[name] < 10**12):
            raise SRKitError(f"{path}: {name!r} is damaged: get the file again, or use previous.pt beside it")
    return True


def _plain(value: Any, depth: int = 2) -> bool:
    """Whether it is a word, a number, or a few of them: what can be printed without end is none."""
    if isinstance(value, (list, tuple, dict)):
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        return depth > 0 and len(inside) < 10_000 and all(_plain(one, depth - 1) for one in inside)
    if isinstance(value, (str, int)):
        return len(value) < 10_000 if isinstance(value, str) else abs(value) < 10**15
    return value is None or isinstance(value, float)


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


__all__ = ["FOLDER", "STAMP", "card", "is_checkpoint", "load", "names", "publish", "read", "styles",
           "weights_sha256"]  # fmt: skip
