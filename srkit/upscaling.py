"""Use a trained model on a picture of your own: any size, grey or colour, with or without alpha."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srkit.images import resize
from srkit.models import output_at


@torch.inference_mode()
def upscale(model: nn.Module, picture: Tensor, scale: int | None = None) -> Tensor:
    """Enlarge one picture by `model.scale`, or by another of its scales if it has several.

    Colour goes through the model. Alpha, which no model was trained on, is enlarged by bicubic. A grey
    picture (three equal channels) stays grey: the model's three answers are averaged.

    Args:
        model: takes (1, 3, H, W) in [0, 1].
        picture: (3, H, W) or (4, H, W), RGB or RGBA in [0, 1], of any size.
        scale: which output, of a model with several; the largest if not given.

    Returns:
        (3 or 4, scale * H, scale * W), clipped to [0, 1], on the CPU.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    colour, alpha = picture[:3], picture[3:]
    output = output_at(model.eval(), colour[None].to(device), scale)[0].cpu()
    if bool((colour[0] == colour[1]).all() and (colour[1] == colour[2]).all()):
        output = output.mean(0, keepdim=True).expand(3, -1, -1)
    if len(alpha):
        output = torch.cat([output, resize(alpha, scale=scale or model.scale)])
    return output.clamp(0, 1)
