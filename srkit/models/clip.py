"""CLIP's towers (Radford et al., arXiv 2103.00020): a picture as 512 numbers, and a sentence, in the same space."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srkit.data.images import resize
from srkit.models.features import PREPROCESSINGS, RANDOM, find_weights, timm_module
from srkit.models.files import read, tensors_in
from srkit.settings import SRKitError, data_folder

MODEL = "vit_base_patch32_clip_quickgelu_224.openai"  # without "quickgelu" it would be another activation
BOTH, TAG = "ViT-B-32-quickgelu", "openai"  # the same network with its text tower, as open_clip calls it
TINY = {  # its construction with 3.4 million weights, for tests, and to try what needs no meaning
    "embed_dim": 32,
    "vision_cfg": {"layers": 2, "width": 64, "head_width": 32, "patch_size": 32, "image_size": 224},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    "quick_gelu": True,
}
SIDE, LONGEST = 224, 77  # pixels of a side; tokens of a sentence, its two ends included


class Frozen(nn.Module):
    """What both have: a caption, pictures as CLIP takes them, and no weight that a training moves."""

    mean: Tensor
    std: Tensor

    def _freeze(self, caption: str) -> None:
        self._caption = caption
        _, mean, std, _ = PREPROCESSINGS["clip"]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def describe(self) -> str:
        """Which network with which weights, for captions."""
        return self._caption

    def train(self, mode: bool = True) -> Frozen:
        """Stays in eval mode whatever the model around it does: frozen means frozen."""
        return super().train(False)

    def _prepared(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W), RGB, [0, 1], any size, by bicubic at CLIP's size and with its mean and deviation."""
        return (resize(pictures, size=(SIDE, SIDE)).clamp(0, 1) - self.mean) / self.std


class ImageTower(Frozen):
    """The frozen ViT-B/32 of CLIP, 87.85 million weights, with the projection to the space of its descriptions.

    Args:
        weights: "imagenet" (the published ones, which OpenAI trained on captions from the web; timm fetches them into
            data/weights in Hugging Face's folder layout, no SRKIT_MIRROR), a file with timm's names or a folder that
            holds one with clip in its name, or "random" (always the same ones).

    Raises:
        SRKitError: timm is not installed; weights that cannot be had, are damaged or belong to another network.
    """

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
        self._freeze(f"CLIP ViT-B/32, {origin}")

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W), RGB, [0, 1], any size, brought to 224 x 224 by bicubic, to (N, 512), of no certain length."""
        return self.tower(self._prepared(pictures))


class TwoTowers(Frozen):
    """CLIP's ViT-B/32 with its text tower, 151 million weights: which sentence describes which picture?

    Args:
        weights: "imagenet" (the published ones, 605 MB, which open_clip fetches into data/weights), a file with
            open_clip's names or a folder that holds one with clip in its name, or "random": a tiny network of the same
            construction that was never trained, always the same. It shows the way, and its answers mean nothing.

    Raises:
        SRKitError: open_clip is not installed; weights that cannot be had, are damaged or belong to another network.
    """

    def __init__(self, weights: str | Path = "imagenet") -> None:
        super().__init__()
        self._package, weights = _open_clip(), str(weights)
        if weights == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.towers = self._package.CLIP(**TINY)
            self._freeze("a tiny CLIP, UNTRAINED: its answers mean nothing")
        elif weights == "imagenet":
            folder = data_folder() / "weights"
            try:
                self.towers = self._package.create_model(BOTH, pretrained=TAG, cache_dir=str(folder))
            except Exception as error:  # open_clip, its hub and the network each raise their own kinds
                raise SRKitError(
                    f"CLIP's two towers could not be had from huggingface.co ({type(error).__name__}): let open_clip "
                    f'fetch them into {folder} where there is a network, or give a file with weights=…; or "random"'
                ) from None
            self._freeze("CLIP ViT-B/32, OpenAI weights")
        else:
            path = find_weights(weights, "clip")
            self.towers = self._package.create_model(BOTH)
            try:
                self.towers.load_state_dict(tensors_in(read(path)))
            except RuntimeError:
                raise SRKitError(f"{path.name}: weights of another network than CLIP's ViT-B/32") from None
            self._freeze(f"CLIP ViT-B/32, weights of {path.name}")
        self._tokens: Any = self._package.SimpleTokenizer(context_length=LONGEST)

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Tensor]) -> Tensor:
        """Pictures (3, H, W), RGB, [0, 1], each of any size, to (n, 512) of length 1.

        Raises:
            SRKitError: no picture.
        """
        if not len(pictures):
            raise SRKitError("no picture: give one at least")
        batch = torch.cat([self._prepared(picture[None].to(self.mean.device)) for picture in pictures])
        return F.normalize(self.towers.encode_image(batch), dim=-1)

    @torch.no_grad()
    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        """Sentences to (m, 512) of length 1. One of more than 77 tokens is cut, which a line on standard error says.

        Raises:
            SRKitError: no sentence, or one without a word.
        """
        if isinstance(sentences, str) or not len(sentences) or not all(sentence.strip() for sentence in sentences):
            raise SRKitError("no sentence: give a list of one at least, each with a word in it")
        for sentence in sentences:
            if (count := len(self._tokens.encode(sentence)) + 2) > LONGEST:
                print(f"{sentence[:40]}…: {count} tokens, cut to CLIP's {LONGEST}", file=sys.stderr)
        tokens = self._tokens(list(sentences)).to(self.mean.device)
        return F.normalize(self.towers.encode_text(tokens), dim=-1)

    def cosines(self, pictures: Sequence[Tensor], sentences: Sequence[str]) -> Tensor:
        """The cosine of the angle between each picture and each sentence, (n, m); errors as the two above."""
        return self.encode_pictures(pictures) @ self.encode_sentences(sentences).T


def _open_clip() -> Any:
    try:
        return import_module("open_clip")
    except ImportError:
        raise SRKitError("open_clip is not installed: pip install open_clip_torch") from None
