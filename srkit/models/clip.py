"""CLIP's image tower (Radford et al., arXiv 2103.00020): a picture as 512 numbers, through timm."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from srkit.data.images import resize
from srkit.models.features import PREPROCESSINGS, RANDOM, find_weights, timm_module
from srkit.models.files import read, tensors_in
from srkit.settings import SRKitError, data_folder

MODEL = "vit_base_patch32_clip_quickgelu_224.openai"  # without "quickgelu" it would be another activation
SIDE = 224


class ImageTower(nn.Module):
    """The frozen ViT-B/32 of CLIP, 87.85 million weights, with the projection to the space of its descriptions.

    Args:
        weights: "imagenet" (the published ones, which OpenAI trained on captions from the web; timm fetches them into
            data/weights in Hugging Face's folder layout, no SRKIT_MIRROR), a file with timm's names or a folder that
            holds one with clip in its name, or "random" (always the same ones).

    Raises:
        SRKitError: timm is not installed; weights that cannot be had, are damaged or belong to another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path = "imagenet") -> None:
        super().__init__()
        create, weights = timm_module().create_model, str(weights)
        if weights == "imagenet":
            folder, origin = data_folder() / "weights", "OpenAI weights"
            try:
                self.tower = create(MODEL, pretrained=True, cache_dir=folder)
            except Exception as error:  # timm, its hub and the network each raise their own kinds
                raise SRKitError(
                    f"timm/{MODEL} could not be had from huggingface.co ({type(error).__name__}): let timm fetch it "
                    f"into {folder} where there is a network, or give its model.safetensors with weights=…; or {RANDOM}"
                ) from None
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.tower = create(MODEL)
            origin = "random weights"
            if weights != "random":
                path = find_weights(weights, "clip")
                origin = f"weights of {path.name}"
                try:
                    self.tower.load_state_dict(tensors_in(read(path)))
                except RuntimeError:
                    raise SRKitError(f"{path.name}: weights of another network than CLIP's ViT-B/32") from None
        self._caption = f"CLIP ViT-B/32, {origin}"
        _, mean, std, _ = PREPROCESSINGS["clip"]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def describe(self) -> str:
        """Which network with which weights, for captions."""
        return self._caption

    def train(self, mode: bool = True) -> ImageTower:
        """Stays in eval mode whatever the model around it does: frozen means frozen."""
        return super().train(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W), RGB, [0, 1], any size, brought to 224 x 224 by bicubic, to (N, 512), of no certain length."""
        square = resize(pictures, size=(SIDE, SIDE)).clamp(0, 1)
        return self.tower((square - self.mean) / self.std)
