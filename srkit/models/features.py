"""Frozen feature networks by name: what a perceptual loss compares, read at named layers.

    extractor = features.VGG16(["relu1_2", "relu2_2"])
    extractor(pictures)  # {"relu1_2": (N, 64, H, W), "relu2_2": (N, 128, H / 2, W / 2)}

A network is kept only up to the deepest layer asked for. It stays in eval mode, its weights are never trained, and
it brings its own normalisation: pictures come as everywhere in the course, (N, 3, H, W), RGB, [0, 1].
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from srkit.data.sources import File, fetch_file
from srkit.models.files import read, tensors_in
from srkit.settings import SRKitError, data_folder, unknown

# How a network wants its pictures: the order of colours, mean and standard deviation of each in [0, 1], and a caption.
PREPROCESSINGS = {
    "imagenet": ("RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet preprocessing"),
    "caffe": ("BGR", (103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255, 1 / 255, 1 / 255), "Caffe preprocessing"),
    "clip": ("RGB", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "CLIP preprocessing"),
}
CAFFE_INPUT = re.compile(r"BGR,? 0-255,? minus \[103\.939, ?116\.779, ?123\.68\]")  # so a file's metadata may say it
RANDOM = 'ask for random features with weights="random" (--feature-weights random)'
UNUSED = ("classifier.", "head.")  # how keys begin that a file of the whole network holds beside its features
PYTORCH = "https://download.pytorch.org/models"
CLIP_MODEL = "resnet50_clip.openai"
FOLDER = Path(__file__).parents[1] / "weights" / "features"  # of those that come along


class Extractor(nn.Module):
    """A frozen network read at named layers: what VGG16, VGG19, SqueezeNet and CLIP share.

    Args:
        layers: names out of `places`, in any order: of a VGG relu1_1, …, and before the ReLU conv1_1, ….
        weights: "imagenet" (the published ones, downloaded once into data/weights); a weights file (.safetensors
            or .pth, the whole network or its first layers), or a folder that holds one with the network's name in
            its own (of several, the largest); or "random" (always the same ones), which no picture ever taught
            anything. "caffe:PATH" is a file or folder together with the preprocessing that it was trained with (in
            SRKIT_WEIGHTS and --feature-weights, too).
        preprocessing: "imagenet", "caffe" (BGR, 0 to 255, mean subtracted) or "clip". If neither this nor `weights`
            says it: what the file says itself (`preproc`, a 1 x 1 convolution among its tensors; or Caffe's numbers
            as "input" in the metadata of safetensors), else that of the network's published weights. A file's name
            says nothing.

    Attributes:
        places: each layer's name and which child of the whole network puts it out, in network order.
        layers: the layers asked for, in network order.
        config: plain words that `load_features` builds the same extractor from: features (the network's name),
            weights, layers, and preprocessing (None: the file's own `preproc`).

    Raises:
        SRKitError: an unknown layer or preprocessing; weights that cannot be had, are damaged, belong to another
            network or lack a layer asked for. Nothing in a weights file is ever executed.
    """

    name: str  # in configs
    title: str  # in captions
    file: str  # of the published weights, and its sha256
    sha256: str
    trained_on = "ImageNet"  # the published weights
    usual = "imagenet"  # the preprocessing that goes with them
    places: Mapping[str, int]
    matrix: Tensor
    offset: Tensor

    def __init__(
        self, layers: Iterable[str], weights: str | Path = "imagenet", preprocessing: str | None = None
    ) -> None:
        super().__init__()
        source, path = str(weights), None
        stated, _, rest = source.partition(":")
        if rest and stated in PREPROCESSINGS:
            source, preprocessing = rest, preprocessing or stated
        if preprocessing not in (None, *PREPROCESSINGS):
            raise unknown("preprocessing", preprocessing, PREPROCESSINGS)
        layers = set(layers)
        for layer in layers - self.places.keys():
            raise unknown(f"layer of {self.title}", layer, self.places)
        self.layers = tuple(sorted(layers, key=self.places.__getitem__))
        stack = self._stack()
        self.features = stack[: self.places[self.layers[-1]] + 1]
        for module in self.features.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # a layer that was read must not change afterwards

        if source == "random":
            tensors, origin = _random(self.features), "random weights"
        elif source == "imagenet":
            tensors, origin = self._published(stack), f"{self.trained_on} weights"
        else:
            path = find_weights(source, self.name)
            tensors, origin = self._read(path, stack), f"weights of {path.name}"
        state = {key: tensors[key].to(old.dtype, copy=True) for key, old in self.features.state_dict().items()}
        self.features.load_state_dict(state, assign=True)

        if preprocessing is None and "preproc.weight" in tensors:
            matrix, offset, words = tensors["preproc.weight"], tensors["preproc.bias"], "its own preprocessing"
        else:
            preprocessing = preprocessing or ("caffe" if path and _says_caffe(path) else self.usual)
            matrix, offset, words = _colours(preprocessing)
        self.register_buffer("matrix", matrix.float().reshape(3, 3).T.reshape(3, 3, 1, 1), persistent=False)
        self.register_buffer("offset", offset.float().reshape(1, 3, 1, 1), persistent=False)
        facts = {"features": self.name, "weights": str(weights), "layers": list(self.layers)}
        self.config: dict[str, Any] = {**facts, "preprocessing": preprocessing}
        self._caption = f"{self.title}, {origin}" + (f" ({words})" if path or preprocessing != self.usual else "")
        self.requires_grad_(False)
        self.eval()

    def describe(self) -> str:
        """Which network with which weights, for captions."""
        return self._caption

    def channels(self, layer: str) -> int:
        """How many feature maps a layer puts out."""
        before = list(self.features[: self.places[layer] + 1].modules())
        return [module.out_channels for module in before if isinstance(module, nn.Conv2d)][-1]

    @classmethod
    def names(cls) -> list[str]:
        """The layers that papers read, in network order."""
        return [name for name in cls.places if not name.startswith("conv")]

    def forward(self, pictures: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The feature maps of some layers; nothing is computed past the deepest one.

        Args:
            pictures: (N, 3, H, W), RGB, [0, 1].
            layers: some of `self.layers`; all of them by default.

        Returns:
            The activations by layer, in network order, each (N, channels, H / stride, W / stride); under autocast
            in its lower precision.
        """
        wanted = {self.places[layer]: layer for layer in (self.layers if layers is None else layers)}
        found, x = {}, self.normalise(pictures)
        for place, module in enumerate(self.features):
            if len(found) == len(wanted):
                break
            x = module(x)
            if place in wanted:
                found[wanted[place]] = x
        return found

    def normalise(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), RGB, [0, 1], as the network was trained to take them; float32.

        Sums rather than a 1 x 1 convolution, which autocast would run in bf16: that has 8 bits, too few here.
        """
        x = self.offset
        for colour, weights in zip(pictures.float().split(1, dim=1), self.matrix, strict=True):
            x = torch.addcmul(x, colour, weights)
        return x

    def check_size(self, side: int) -> None:
        """Say before training that squares of this side, in pixels, are too small: the poolings leave nothing.

        Raises:
            SRKitError: they are.
        """
        network = self._stack()[: len(self.features)].eval()  # a second one, without memory or time
        try:
            network(torch.empty(1, 3, side, side, device="meta"))
        except RuntimeError:
            raise SRKitError(
                f"pictures of {side} x {side} pixels are too small for {self.layers[-1]} of {self.title}: "
                "take larger ones or an earlier layer"
            ) from None

    def train(self, mode: bool = True) -> Extractor:
        """Stays in eval mode whatever the model around it does: frozen means frozen."""
        return super().train(False)

    @classmethod
    def _stack(cls) -> nn.Sequential:
        """The whole network in its library's words, its shapes alone: most is cut off or replaced."""
        from torchvision.models import get_model

        with torch.device("meta"):
            stack = get_model(cls.file.split("-")[0], weights=None).features
        assert isinstance(stack, nn.Sequential)
        return stack

    def _published(self, stack: nn.Sequential) -> dict[str, Tensor]:
        file = File(self.file, f"sha256:{self.sha256}", (f"{PYTORCH}/{self.file}",))
        return self._read(fetch_file(file, data_folder() / "weights", otherwise=RANDOM), stack)

    def _read(self, path: Path, stack: nn.Sequential) -> dict[str, Tensor]:
        """What a file holds of this network, by the stack's names; and its `preproc`.

        Raises:
            SRKitError: no file of plain tensors, of another network, or without a layer asked for.
        """
        tensors = {_key(key): value for key, value in tensors_in(read(path)).items() if not key.startswith(UNUSED)}
        shapes = {key: value.shape for key, value in stack.state_dict().items()}
        for key, value in tensors.items():
            if shapes.get(key) != value.shape and not key.startswith("preproc."):
                raise SRKitError(f"{path.name}: weights of another network than {self.title}: {key}")
        lacking = [key.split(".")[0] for key in self.features.state_dict() if key not in tensors]
        if lacking:
            end = [name for name, _ in self.features.named_children()].index(lacking[0])
            held = ", ".join(layer for layer in self.names() if self.places[layer] < end) or "none"
            raise SRKitError(f"{path.name}: no weights for {self.layers[-1]}; the layers it holds: {held}")
        return tensors


def _key(key: str) -> str:
    """A file's name of a tensor in the words of torchvision's feature stacks and of timm."""
    key = key.removeprefix("features.").replace("squeeze1x1", "squeeze")  # Caffe's own name
    return re.sub(r"^(stem|stages)\.", r"\1_", key)


def find_weights(weights: str, network: str) -> Path:
    """The weights file that a path means: itself, or in a folder the largest with the network's name in its own."""
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise SRKitError(f"{path}: no such weights file or folder; or say imagenet or random")
    kinds = (".safetensors", ".pth", ".pt")
    found = [file for file in path.iterdir() if file.suffix in kinds and network in file.name.lower()]
    if not found:
        raise SRKitError(f"{path}: holds no weights file with {network} in its name")
    return max(found, key=lambda file: file.stat().st_size)


def _says_caffe(file: Path) -> bool:
    """Whether a file's metadata states Caffe's preprocessing."""
    if file.suffix != ".safetensors":
        return False
    with safe_open(file, "pt") as content:
        return bool(CAFFE_INPUT.match((content.metadata() or {}).get("input", "")))


def _colours(preprocessing: str) -> tuple[Tensor, Tensor, str]:
    """The colour matrix (3 out, 3 in) and offset (3) of a preprocessing, and what a caption calls it."""
    order, mean, std, words = PREPROCESSINGS[preprocessing]
    matrix = torch.eye(3)[["RGB".index(colour) for colour in order]] / torch.tensor(std)[:, None]
    return matrix, -torch.tensor(mean) / torch.tensor(std), words


def _random(network: nn.Module) -> dict[str, Tensor]:
    """The same He weights every time (Kaiming normal, fan-in), from a generator of their own; no bias."""
    generator, state = torch.Generator().manual_seed(0), {}
    for key, value in network.state_dict().items():
        ones = key.endswith(("bn.weight", "running_var"))
        state[key] = torch.full(value.shape, int(ones), dtype=value.dtype)
        if value.dim() == 4:
            nn.init.kaiming_normal_(state[key], nonlinearity="relu", generator=generator)
    return state


# ---------------------------------------------------------------------------------- the networks


def _vgg(*convolutions: int) -> dict[str, int]:
    """The places in a VGG with so many convolutions in each block: conv and ReLU in turn, and a pooling at the end."""
    places, place = {}, 0
    for block, count in enumerate(convolutions, 1):
        for number in range(1, count + 1):
            places |= {f"conv{block}_{number}": place, f"relu{block}_{number}": place + 1}
            place += 2
        place += 1
    return places


class VGG16(Extractor):
    """VGG-16 (Simonyan and Zisserman, arXiv 1409.1556, table 1 D), 528 MB: relu1_1 … relu5_3.

    Johnson et al. (arXiv 1603.08155) read relu1_2, relu2_2, relu3_3 and relu4_3. The maps of block b have 1 / 2^(b-1)
    of the picture's size. Arguments, attributes and errors as in `Extractor`.
    """

    name, title, file = "vgg16", "VGG-16", "vgg16-397923af.pth"
    sha256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
    places = _vgg(2, 2, 3, 3, 3)


class VGG19(Extractor):
    """VGG-19 (Simonyan and Zisserman, arXiv 1409.1556, table 1 E), 548 MB: relu1_1 … relu5_4.

    SRGAN (Ledig et al., arXiv 1609.04802, eq. 5) reads relu2_2 (VGG22) and relu5_4 (VGG54); some follow-ups read
    conv5_4 instead, before the ReLU. Arguments, attributes and errors as in `Extractor`.
    """

    name, title, file = "vgg19", "VGG-19", "vgg19-dcbb9e9d.pth"
    sha256 = "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
    places = _vgg(2, 2, 4, 4, 4)


class SqueezeNet(Extractor):
    """SqueezeNet 1.1 (Iandola et al., arXiv 1602.07360), 5 MB: relu1, fire2 … fire9.

    torchvision's features[1], [3], [4], [6], [7], [9] … [12]. LPIPS (Zhang et al., arXiv 1801.03924) reads relu1,
    fire3, fire5, fire6, fire7, fire8 and fire9. Strides 2 (relu1), 4, 8 (from fire4) and 16 (from fire6); the first
    convolution has no padding. Arguments, attributes and errors as in `Extractor`.
    """

    name, title, file = "squeezenet", "SqueezeNet", "squeezenet1_1-b8a52dc0.pth"
    sha256 = "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"
    places: ClassVar = {"relu1": 1, "fire2": 3, "fire3": 4, "fire4": 6, "fire5": 7, "fire6": 9}
    places |= {"fire7": 10, "fire8": 11, "fire9": 12}


class SmallVGG(Extractor):
    """VGG-16's first ten convolutions with 24, 48, 80 and 112 filters in place of 64 to 512: relu1_1 … relu4_3.

    It comes along with srkit: 0.5 million weights, 1 MB, about a tenth of VGG-16's arithmetic, and no download.
    `benchmarks.distil` has taught it to find pictures as far apart as VGG-16 does (FitNets, arXiv 1412.6550); its card,
    srkit/weights/features/small-vgg.json, says how well they agree. "imagenet" means these weights. Arguments,
    attributes and errors as in `Extractor`.
    """

    name, title, file, trained_on = "small-vgg", "small VGG", "small-vgg.safetensors", "distilled"
    filters: ClassVar = (24, 48, 80, 112)
    places = _vgg(2, 2, 3, 3)

    @classmethod
    def _stack(cls) -> nn.Sequential:
        modules: list[nn.Module] = []
        channels = 3
        with torch.device("meta"):
            for name in cls.places:
                if name.startswith("conv"):
                    block, number = int(name[4]), int(name[-1])
                    if block > 1 and number == 1:
                        modules.append(nn.MaxPool2d(2))
                    modules += [nn.Conv2d(channels, cls.filters[block - 1], 3, padding=1), nn.ReLU()]
                    channels = cls.filters[block - 1]
        return nn.Sequential(*modules)

    def _published(self, stack: nn.Sequential) -> dict[str, Tensor]:
        return self._read(FOLDER / self.file, stack)


class CLIP(Extractor):
    """The ResNet-50 of CLIP (Radford et al., arXiv 2103.00020), through timm: stem, layer1 … layer4.

    `stem` is the stem's last convolution after its ReLU, at 1/2 of the picture's size; layer1 … layer4 are the four
    stages, at 1/4, 1/8, 1/16 and 1/32. "imagenet" means its published weights here too, which OpenAI trained on
    captions from the web; timm fetches them (Hugging Face's folder layout below data/weights, no SRKIT_MIRROR).
    A file of your own has timm's names. Arguments, attributes and errors as in `Extractor`, and:

    Raises:
        SRKitError: timm is not installed.
    """

    name, title, trained_on, usual = "clip", "CLIP ResNet-50", "OpenAI", "clip"
    places: ClassVar = {"stem": 2, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}  # 3 is the stem's pooling

    @classmethod
    def _stack(cls) -> nn.Sequential:
        with torch.device("meta"):
            children = timm_module().create_model(CLIP_MODEL, features_only=True).named_children()
            return nn.Sequential(OrderedDict(children))

    def _published(self, stack: nn.Sequential) -> dict[str, Tensor]:
        folder = data_folder() / "weights"
        try:
            model = timm_module().create_model(CLIP_MODEL, pretrained=True, features_only=True, cache_dir=folder)
        except Exception as error:  # timm, its hub and the network each raise their own kinds
            raise SRKitError(
                f"timm/{CLIP_MODEL} could not be had from huggingface.co ({type(error).__name__}): let timm fetch it "
                f"into {folder} where there is a network, or give its model.safetensors with weights=…; or {RANDOM}"
            ) from None
        return model.state_dict()


def timm_module() -> Any:
    """The package timm.

    Raises:
        SRKitError: it is not installed.
    """
    try:
        return import_module("timm")
    except ImportError:
        raise SRKitError("timm is not installed: pip install timm") from None


NETWORKS: dict[str, type[Extractor]] = {network.name: network for network in (SmallVGG, VGG16, VGG19, SqueezeNet, CLIP)}


def load_features(
    name: str, layers: Iterable[str], weights: str | Path = "imagenet", preprocessing: str | None = None
) -> Extractor:
    """An extractor by its name in NETWORKS; arguments and errors as in `Extractor`.

    Raises:
        SRKitError: an unknown network, or all that `Extractor` raises.
    """
    if name not in NETWORKS:
        raise unknown("features", name, NETWORKS)
    return NETWORKS[name](layers, weights, preprocessing)
