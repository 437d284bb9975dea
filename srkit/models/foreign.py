"""Generators that other SRGAN projects have trained, made into the SRResNet of lesson 06.

A file is recognised by its keys. Blocks, channels and scale come from its keys and shapes; then every tensor must be
there in its shape, and nothing else. The output is the original's, border included, before any clipping to [0, 1].
"""

from __future__ import annotations

import math
import pickle
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srkit.errors import SRKitError, unknown
from srkit.models.srresnet import SRResNet

ENDS = ("norm", "prelu")
COUNTER = "num_batches_tracked"  # PyTorch counts since 0.4.1; older files have none, and evaluating needs none


class ForeignSRResNet(SRResNet):
    """An SRResNet with what some projects do otherwise, and what no change of weights can make up for.

    Args:
        signed: the first convolution reads 2 low - 1. Its weights could take that over but for the border, where the
            zeros it is padded with would then be black instead of grey.
        end: what follows the trunk's last convolution: "norm", or "prelu" and no normalisation.
        arguments: those of `SRResNet`.

    Raises:
        SRKitError: another end; or as `SRResNet`.
    """

    def __init__(self, signed: bool = False, end: str = "norm", **arguments: Any) -> None:
        super().__init__(**arguments)
        if end not in ENDS:
            raise unknown("end of an SRResNet's trunk", end, ENDS)
        if signed:
            self.enter = _Signed(*self.enter)
        if end == "prelu":
            self.trunk[-1] = nn.PReLU()


class _Signed(nn.Sequential):
    """Layers that see [0, 1] as [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x - 1)


@dataclass(frozen=True)
class Layout:
    """How a project names the modules of its generator. i counts its n blocks, j its d doublings, both from 0.

    `block` names conv, norm, PReLU, conv and norm; `fuse`, the trunk's end, conv and norm; `enter` and `double` conv
    and PReLU. `judge` holds keys that only its discriminator has.
    """

    project: str
    licence: str
    enter: tuple[str, str]
    block: Callable[[int], list[str]]
    fuse: Callable[[int], list[str]]
    double: Callable[[int, int], list[str]]
    leave: Callable[[int, int], str]
    judge: frozenset[str]
    arguments: dict[str, Any] = field(default_factory=dict)
    bias: bool = True  # of convolutions before a normalisation
    plain: bool = False  # the last convolution gives [0, 1] itself
    old_end: bool = False  # older files have a PReLU for the trunk's last normalisation

    @property
    def name(self) -> str:
        """Project and licence, the name in a recipe."""
        return f"{self.project} ({self.licence})"

    def count(self, weights: Mapping[str, Tensor]) -> tuple[int, int]:
        """How many blocks and doublings the keys speak of."""
        modules = {_module(key) for key in weights}

        def highest(names: Callable[[int], list[str]]) -> int:
            return max((i + 1 for i in range(len(modules)) if not modules.isdisjoint(names(i))), default=0)

        blocks = highest(self.block)
        return blocks, max(1, highest(lambda j: self.double(blocks, j)))

    def modules(self, blocks: int, doublings: int) -> dict[str, str]:
        """The modules of an SRResNet with the project's names for them."""
        named = {f"enter.{k}": name for k, name in enumerate(self.enter)}
        for i in range(blocks):
            named |= {f"trunk.{i}.change.{k}": name for k, name in enumerate(self.block(i))}
        named |= {f"trunk.{blocks + k}": name for k, name in enumerate(self.fuse(blocks))}
        for j in range(doublings):
            named |= {f"enlarge.{j}.{2 * k}": name for k, name in enumerate(self.double(blocks, j))}
        return {**named, "leave": self.leave(blocks, doublings)}


LAYOUTS = (
    Layout(
        "leftthomas/SRGAN",
        "MIT",
        enter=("block1.0", "block1.1"),
        block=lambda i: [f"block{i + 2}.{part}" for part in ("conv1", "bn1", "prelu", "conv2", "bn2")],
        fuse=lambda n: [f"block{n + 2}.0", f"block{n + 2}.1"],
        double=lambda n, j: [f"block{n + 3}.{j}.conv", f"block{n + 3}.{j}.prelu"],
        leave=lambda n, d: f"block{n + 3}.{d}",
        judge=frozenset({"net.0.weight", "net.24.weight", "net.26.weight"}),
        arguments={"output": "tanh"},
        old_end=True,
    ),
    Layout(
        "dongheehand/SRGAN-PyTorch",
        "no licence stated",
        enter=("conv01.body.0", "conv01.body.1"),
        block=lambda i: [f"body.{i}.body.{k // 3}.body.{k % 3}" for k in range(5)],
        fuse=lambda n: ["conv02.body.0", "conv02.body.1"],
        double=lambda n, j: [f"tail.{j}.body.0.body.0", f"tail.{j}.body.2"],
        leave=lambda n, d: "last_conv.body.0",
        judge=frozenset({"conv01.body.0.weight", "tail.0.weight", "tail.2.weight"}),
        arguments={"output": "tanh", "last_kernel": 3, "signed": True},
    ),
    Layout(
        "Lornatang/SRGAN-PyTorch",
        "Apache-2.0",
        enter=("conv1.0", "conv1.1"),
        block=lambda i: [f"trunk.{i}.rcb.{k}" for k in range(5)],
        fuse=lambda n: ["conv2.0", "conv2.1"],
        double=lambda n, j: [f"upsampling.{j}.upsample_block.0", f"upsampling.{j}.upsample_block.2"],
        leave=lambda n, d: "conv3",
        judge=frozenset({"features.0.weight", "features.3.running_mean", "classifier.2.weight"}),
        bias=False,
        plain=True,
    ),
)  # fmt: skip
READABLE = f"srkit reads its own checkpoints and the generators of {', '.join(each.project for each in LAYOUTS)}"


def read(path: str | Path) -> dict[str, Any] | None:
    """What a safetensors file holds, or a PyTorch file from before it wrote zip files (1.6). None: it is neither.

    Raises:
        SRKitError: it is truncated or damaged, or holds anything but plain data, which is never executed.
    """
    with Path(path).open("rb") as file:
        head = file.read(len(_BEFORE_ZIP))
    try:
        if head == _BEFORE_ZIP:
            return torch.load(path, map_location="cpu", weights_only=True)
        if head[8:9] == b"{":
            return _read_safetensors(path)
    except pickle.UnpicklingError:
        raise SRKitError(f"{path}: holds a pickled program, not plain tensors: it was not opened") from None
    except Exception:  # a damaged file can raise nearly everything
        raise SRKitError(f"{path}: truncated or damaged: get it again") from None
    return None


_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that such files begin with


def _read_safetensors(path: str | Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        # Tensors that modules share are written once; the remarks say under which name.
        shared = {key: tensors[kept] for key, kept in (file.metadata() or {}).items() if kept in tensors}
    return {**shared, **tensors}


def load(content: Any, path: str | Path) -> nn.Module:
    """The generator in a file of another project, on the CPU and in eval mode.

    `recipe` makes the network again, and its name says project and licence; `trained` is True.

    Args:
        content: what the file holds: tensors by name, or a dict with these under "state_dict". What torch.compile,
            several devices or averaging have put before the names is dropped.
        path: the file, for messages.

    Raises:
        SRKitError: no layout that srkit knows; a discriminator; a tensor that is missing, misshapen or does not
            belong there; a scale that an SRResNet cannot do.
    """
    weights = _unwrap(content)
    if weights is None:
        raise SRKitError(f"{path}: a file of another program: {READABLE}")
    layout = _recognise(weights, path)
    recipe = _recipe(layout, weights, path)
    with torch.device("meta"):  # shapes alone: nothing is made before they fit
        expected = _build(recipe).state_dict()
    weights = _rename(layout, recipe, weights, expected, path)
    model = _build(recipe)
    model.load_state_dict(weights)
    model.recipe, model.trained = recipe, True
    return model.eval()


def origin(model: nn.Module) -> dict[str, str]:
    """Project and licence of a network of another project; nothing for others."""
    name = getattr(model, "recipe", {}).get("name")
    return next(({"project": each.project, "licence": each.licence} for each in LAYOUTS if each.name == name), {})


def _unwrap(content: Any) -> dict[str, Tensor] | None:
    """Tensors by name, without what training has put around them; None if there are none."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        return None
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        return None
    weights = dict(content)
    if any(key.startswith("module.") for key in weights):
        weights.pop("n_averaged", None)  # of torch.optim.swa_utils.AveragedModel
    for prefix in ("_orig_mod.", "module.") * 2:  # compiled and then averaged, or the other way round
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _recognise(weights: Mapping[str, Tensor], path: str | Path) -> Layout:
    """The layout that knows most of the keys, and at least half of them."""
    for layout in LAYOUTS:
        if layout.judge <= weights.keys():
            raise SRKitError(
                f"{path}: the discriminator of {layout.project}, which judges pictures and enlarges none: "
                "give its generator's file"
            )
    shares = {}
    for layout in LAYOUTS:
        names = set(layout.modules(*layout.count(weights)).values())
        shares[sum(_module(key) in names for key in weights)] = layout
    if max(shares) < len(weights) / 2:
        raise SRKitError(f"{path}: a network that srkit does not know (with {min(weights)!r}): {READABLE}")
    return shares[max(shares)]


def _recipe(layout: Layout, weights: Mapping[str, Tensor], path: str | Path) -> dict[str, Any]:
    """What keys and shapes say about the network."""
    blocks, doublings = layout.count(weights)
    sizes = [len(value) for value in weights.values() if value.dim() == 1 and len(value) > 1]
    channels = statistics.mode(sizes) if sizes else 1  # of every bias and normalisation but the doublings'
    steps = []
    for j in range(doublings):
        weight = weights.get(f"{layout.double(blocks, j)[0]}.weight")
        rows = 4 * channels if weight is None or weight.dim() != 4 else len(weight)
        steps.append(math.isqrt(rows // channels) if rows % channels == 0 else 2)
    if steps not in ([2], [2, 2]):
        raise SRKitError(
            f"{path}: a generator of {layout.project} that enlarges by {math.prod(steps)}, in steps of "
            f"{', '.join(map(str, steps))}: an SRResNet doubles once or twice, so get the one for 2 or 4"
        )
    arguments = {"scale": 2**doublings, "channels": channels, "blocks": blocks, **layout.arguments}
    end = layout.fuse(blocks)[1]
    if layout.old_end and {key for key in weights if _module(key) == end} <= {f"{end}.weight"}:
        arguments["end"] = "prelu"
    own = {"signed", "end"}.isdisjoint(arguments)
    return {"name": layout.name, "architecture": "SRResNet" if own else "ForeignSRResNet", **arguments}


def _build(recipe: Mapping[str, Any]) -> SRResNet:
    return ForeignSRResNet(**{key: value for key, value in recipe.items() if key not in ("name", "architecture")})


def _rename(
    layout: Layout, recipe: Mapping[str, Any], weights: Mapping[str, Tensor], expected: Mapping[str, Tensor],
    path: str | Path,
) -> dict[str, Tensor]:  # fmt: skip
    """The weights under the names of an SRResNet, after each has been looked at."""
    modules = layout.modules(recipe["blocks"], recipe["scale"].bit_length() - 1)
    theirs = {key: f"{modules[_module(key)]}.{key.rpartition('.')[2]}" for key in expected}
    own = {}
    if not layout.bias:
        norms = [_module(key) for key in expected if key.endswith("running_mean")]
        before = {norm.rpartition(".")[0] + f".{int(norm.rpartition('.')[2]) - 1}.bias" for norm in norms}
        own = {key: torch.zeros(expected[key].shape) for key in before}
    wrong = f"{path}: a generator of {layout.project}, but"
    needed = [key for key in theirs if key not in own]
    missing = [theirs[key] for key in needed if theirs[key] not in weights and not key.endswith(COUNTER)]
    if missing:
        raise SRKitError(f"{wrong} {_first(missing)} missing: get the whole file again")
    surplus = sorted(weights.keys() - {theirs[key] for key in needed})
    if surplus:
        raise SRKitError(f"{wrong} {_first(surplus)} none of its tensors: it was changed, and srkit cannot tell how")
    for key in needed:
        value = weights.get(theirs[key])
        if value is None:
            value = torch.zeros((), dtype=torch.long)
        if value.shape != expected[key].shape:
            shapes = f"{tuple(value.shape)} where {tuple(expected[key].shape)} belongs"
            raise SRKitError(f"{wrong} {theirs[key]} is {shapes}: get the file again")
        plain = value.layout == torch.strided and not value.is_meta
        if not plain or value.is_floating_point() != expected[key].is_floating_point():
            raise SRKitError(f"{wrong} {theirs[key]} holds no plain {expected[key].dtype}: get the file again")
        own[key] = value
    if layout.plain:  # an SRResNet halves and adds a half at its end
        own["leave.weight"] = 2 * own["leave.weight"].float()
        own["leave.bias"] = 2 * own["leave.bias"].float() - 1
    return own


def _module(key: str) -> str:
    """The module that a tensor belongs to: "conv3.weight" to "conv3"."""
    return key.rpartition(".")[0]


def _first(keys: list[str]) -> str:
    """The first key, and how many others: the subject of a sentence."""
    return f"{keys[0]} is" if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more are"
