"""Generators that other SRGAN projects have trained, made into the SRResNet of lesson 06: tables of renamed keys.

A file is recognised by the keys of its residual blocks; scale, channels and blocks come from its keys and shapes.
Then every tensor must fit. The output is the original's, border included, before any clipping to [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn, zeros

from srkit.models.files import tensors_in
from srkit.models.presets import fill, label
from srkit.settings import SRKitError


@dataclass(frozen=True)
class Layout:
    """How a project names the modules of its generator.

    `table` is theirs: ours, regular expressions for the beginnings of keys. A generator with n blocks has in `body`
    the last convolution at {n} and the last normalisation at {n1}; leftthomas counts these as the module {end}, and
    what enlarges as {last}.
    """

    project: str
    licence: str
    block: str  # a key that there is one of in every block, a normalisation's weight
    table: Mapping[str, str | Callable[[re.Match[str]], str]]
    arguments: dict[str, Any] = field(default_factory=dict)
    plain: bool = False  # no bias before a normalisation, and the last convolution gives [0, 1] itself

    def rename(self, key: str, n: int) -> str:
        """Our name of a tensor in a generator with n blocks; a key that is none of its own stays."""
        numbers = {"n": n, "n1": n + 1, "end": n + 2, "last": n + 3}
        for theirs, ours in self.table.items():
            key = re.sub(f"^{theirs.format(**numbers)}", ours.format(**numbers) if isinstance(ours, str) else ours, key)
        return key


def _leftthomas_block(match: re.Match[str]) -> str:
    """block2 is the first one."""
    place = ("conv1", "bn1", "prelu", "conv2", "bn2").index(match[2])
    return f"body.{int(match[1]) - 2}.body.{place}."


LAYOUTS = (
    Layout(
        "leftthomas/SRGAN",
        "MIT",
        r"block\d+\.bn1\.weight",
        {
            r"block1\.": "head.",
            r"block{end}\.0\.": "body.{n}.",
            r"block{end}\.1\.": "body.{n1}.",
            r"block{last}\.(\d+)\.conv\.": r"upsample.\1.0.",
            r"block{last}\.(\d+)\.prelu\.": r"upsample.\1.2.",
            r"block{last}\.\d+\.": "tail.",
            r"block(\d+)\.(conv1|bn1|prelu|conv2|bn2)\.": _leftthomas_block,
        },
        {"output": "tanh"},
    ),
    Layout(
        "dongheehand/SRGAN-PyTorch",
        "no licence stated",
        r"body\.\d+\.body\.0\.body\.1\.weight",
        {
            r"conv01\.body\.": "head.",
            r"body\.(\d+)\.body\.0\.body\.": r"body.\1.body.",
            r"body\.(\d+)\.body\.1\.body\.0\.": r"body.\1.body.3.",
            r"body\.(\d+)\.body\.1\.body\.1\.": r"body.\1.body.4.",
            r"conv02\.body\.0\.": "body.{n}.",
            r"conv02\.body\.1\.": "body.{n1}.",
            r"tail\.(\d+)\.body\.0\.body\.0\.": r"upsample.\1.0.",
            r"tail\.(\d+)\.body\.2\.": r"upsample.\1.2.",
            r"last_conv\.body\.0\.": "tail.",
        },
        {"output": "tanh", "last_kernel": 3, "signed": True},
    ),
    Layout(
        "Lornatang/SRGAN-PyTorch",
        "Apache-2.0",
        r"trunk\.\d+\.rcb\.1\.weight",
        {
            r"conv1\.": "head.",
            r"trunk\.(\d+)\.rcb\.": r"body.\1.body.",
            r"conv2\.0\.": "body.{n}.",
            r"conv2\.1\.": "body.{n1}.",
            r"upsampling\.(\d+)\.upsample_block\.": r"upsample.\1.",
            r"conv3\.": "tail.",
        },
        plain=True,
    ),
)


def convert(content: Any) -> nn.Module:
    """The generator in a file of another project, on the CPU and in eval mode.

    `config` makes the network again, and its name says project and licence; `pretrained` is True.

    Args:
        content: what the file holds: tensors by name, or a dict with these under "state_dict". What torch.compile,
            several devices or averaging have put before the names is dropped.

    Raises:
        SRKitError: no layout that srkit knows; a tensor that is missing, misshapen or does not belong there; a scale
            that an SRResNet cannot do.
    """
    weights = tensors_in(content)
    for layout in LAYOUTS:
        blocks = [key for key in weights if re.fullmatch(layout.block, key)]
        if blocks:
            break
    else:
        known = ", ".join(each.project for each in LAYOUTS)
        raise SRKitError(f"a file of another program: srkit reads its own checkpoints and the generators of {known}")
    ours = {layout.rename(key, len(blocks)): value for key, value in weights.items()}
    channels = weights[blocks[0]].numel()
    if layout.plain:
        for match in filter(None, [re.fullmatch(r"(body.*)\.(\d+)\.running_mean", key) for key in ours]):
            ours[f"{match[1]}.{int(match[2]) - 1}.bias"] = zeros(1).expand(channels)
    doublings = sum(bool(re.fullmatch(r"upsample\.\d+\.0\.weight", key)) for key in ours)
    config = {"name": f"{layout.project} ({layout.licence})", "architecture": "SRResNet", **layout.arguments}
    config |= {"scale": 2**doublings, "channels": channels, "blocks": len(blocks)}
    if f"body.{len(blocks) + 1}.running_mean" not in ours:  # leftthomas's older files
        config["end"] = "prelu"
    try:
        model = fill(config, ours).eval()
    except SRKitError as error:
        raise SRKitError(f"a generator of {layout.project}, but {error}") from None
    if layout.plain:  # an SRResNet halves and adds a half at its end
        state = model.state_dict()
        state["tail.weight"].mul_(2)
        state["tail.bias"].mul_(2).sub_(1)
    return label(model, pretrained=True)


def origin(model: nn.Module) -> dict[str, str]:
    """Project and licence of a network of another project; nothing for others."""
    match = re.fullmatch(r"(.+/.+) \((.+)\)", getattr(model, "config", {}).get("name", ""))
    return {"project": match[1], "licence": match[2]} if match else {}
