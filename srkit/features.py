"""Frozen networks that look at pictures: what a perceptual loss compares, read at named layers.

    extractor = features.VGG16(["relu1_2", "relu2_2"])
    extractor(pictures)  # {"relu1_2": (N, 64, H, W), "relu2_2": (N, 128, H / 2, W / 2)}

A network is built only up to the deepest layer asked for. It stays in eval mode, its weights are never trained, and
it brings its own normalisation: pictures come as everywhere in the course, (N, 3, H, W), RGB, [0, 1].
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from srkit.downloads import File, fetch_file
from srkit.errors import SRKitError, unknown
from srkit.sources import data_folder

# How a network wants its pictures: the order of colours, and mean and standard deviation of each, in [0, 1].
PREPROCESSINGS = {
    "imagenet": ("RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": ("BGR", (103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255, 1 / 255, 1 / 255)),
    "clip": ("RGB", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
SUFFIXES = (".safetensors", ".pth", ".pt")
RANDOM = 'ask for random features with weights="random" (--feature-weights random)'


class Extractor(nn.Module):
    """A frozen network read at named layers: what VGG16, VGG19, SqueezeNet and CLIP share.

    Args:
        layers: names out of `names()`, in any order; a VGG also answers to conv1_1, …: before the ReLU.
        weights: "imagenet" (the published ones, downloaded once into data/weights); a weights file (.safetensors
            or .pth, the whole network or its first layers) or a folder that holds it; or "random" (always the
            same ones), which no picture ever taught anything.
        preprocessing: "imagenet", "caffe" (BGR, 0 to 255, mean subtracted), "clip", or "auto": the file's own
            `preproc` (a 1 x 1 convolution) where it has one, "caffe" where its name or its remarks say so, else
            what the network's published weights were trained with.
        mirror: a folder or an http(s) address that holds the published file under its own name, tried first.
            Default: the environment's SRKIT_MIRROR.

    Attributes:
        layers: the layers asked for, in network order.
        recipe: plain words that `open_features` builds the same extractor from: features (its name), weights, layers,
            and preprocessing where it was not left to "auto".
        note: which network with which weights, for captions.
        smallest: the smallest side of a picture, in pixels, that the deepest layer still allows.

    Raises:
        SRKitError: an unknown layer or preprocessing; weights that cannot be had, are damaged, belong to another
            network or lack a layer asked for. Nothing in a weights file is ever executed.
    """

    name: str  # in configs
    title: str  # in captions
    published = "ImageNet"  # what the published weights were trained on
    usual = "imagenet"  # the preprocessing that goes with them
    not_read: str  # what else a file of the whole network holds: keys that start like this

    def __init__(
        self,
        layers: Iterable[str],
        weights: str | Path = "imagenet",
        preprocessing: str = "auto",
        mirror: str | Path | None = None,
    ) -> None:
        super().__init__()
        known = self._places()
        layers = [layers] if isinstance(layers, str) else list(layers)
        for layer in layers:
            if layer not in known:
                raise unknown(f"layer of {self.title}", layer, known)
        if not layers:
            raise SRKitError(f"{self.title}: name at least one layer, e.g. {self.names()[0]}")
        if preprocessing not in ("auto", *PREPROCESSINGS):
            raise unknown("preprocessing", preprocessing, ("auto", *PREPROCESSINGS))
        self.layers = tuple(sorted(set(layers), key=known.__getitem__))
        self.smallest = self._smallest(self.layers[-1])

        with torch.device("meta"):  # shapes without memory or dice: nothing is filled that is cut off or replaced
            network = self._network()
        self.features = network[: known[self.layers[-1]] + 1]

        if weights == "random":
            file, source = _Weights(_random(self.features)), "random weights"
        elif weights == "imagenet":
            file, source = self._published(mirror), f"{self.published} weights"
        else:
            file = _read(self._choose(weights))
            source = f"weights of {file.name}"
        self._fill(network, file)

        matrix, offset, remark = self._colours(preprocessing, file)
        self.register_buffer("matrix", matrix.T.reshape(3, 3, 1, 1), persistent=False)
        self.register_buffer("offset", offset.reshape(1, 3, 1, 1), persistent=False)
        self.note = f"{self.title}, {source}{remark}"
        self.recipe = {"features": self.name, "weights": str(weights), "layers": list(self.layers)}
        if preprocessing != "auto":
            self.recipe["preprocessing"] = preprocessing
        self.requires_grad_(False)
        self.eval()

    # ------------------------------------------------------------------------------ what a network must say

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The layers that papers read, in network order."""
        return tuple(cls._places())

    @classmethod
    def _places(cls) -> dict[str, int]:
        """Each layer's name and which child of `_network` puts it out, in network order."""
        raise NotImplementedError

    @classmethod
    def _network(cls) -> nn.Sequential:
        """The whole network, without weights."""
        raise NotImplementedError

    @classmethod
    def _smallest(cls, layer: str) -> int:
        """The smallest side of a picture, in pixels, that reaches this layer."""
        raise NotImplementedError

    @classmethod
    def _address(cls) -> str:
        """Where the published weights lie; the first digits of their sha256 stand in the file's name."""
        raise NotImplementedError

    @staticmethod
    def _key(key: str) -> str:
        """A file's name of a tensor in the words of `_network`."""
        return key.removeprefix("features.")

    # ------------------------------------------------------------------------------ use

    def forward(self, pictures: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """What the layers answer; nothing is computed past the deepest one.

        Args:
            pictures: (N, 3, H, W), RGB, [0, 1].
            layers: some of `self.layers`; all of them by default.

        Returns:
            The activations by layer, in network order, each (N, channels, H / stride, W / stride); under autocast
            in its lower precision.

        Raises:
            SRKitError: a layer that the extractor was not built for.
        """
        known = self._places()
        layers = self.layers if layers is None else layers
        for layer in layers:
            if layer not in self.layers:
                raise unknown(f"layer of this {self.title}", layer, self.layers)
        wanted = {known[layer]: layer for layer in layers}
        found = {}
        x = self.normalise(pictures)
        for place, module in enumerate(self.features):
            if len(found) == len(wanted):
                break
            x = module(x)
            if place in wanted:
                found[wanted[place]] = x
        return found

    def normalise(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), RGB, [0, 1], as the network was trained to see them; float32.

        Sums rather than a 1 x 1 convolution, which autocast would run in bf16: that has 8 bits, too few here.
        """
        seen = self.offset
        for colour, weights in zip(pictures.float().split(1, dim=1), self.matrix, strict=True):
            seen = torch.addcmul(seen, colour, weights)
        return seen

    def check_size(self, height: int, width: int) -> None:
        """Say before training that pictures of this size, in pixels, are too small.

        Raises:
            SRKitError: they are.
        """
        if min(height, width) < self.smallest:
            raise SRKitError(
                f"pictures of {height} x {width} pixels are too small for {self.layers[-1]} of {self.title}: "
                f"its poolings need {self.smallest} x {self.smallest} at least; take larger ones or an earlier layer"
            )

    def train(self, mode: bool = True) -> Extractor:
        """Stays in eval mode whatever the model around it does: frozen means frozen."""
        return super().train(False)

    # ------------------------------------------------------------------------------ weights

    def _published(self, mirror: str | Path | None) -> _Weights:
        address = self._address()
        name = address.rsplit("/", 1)[1]
        digits = Path(name).stem.rsplit("-", 1)[1]  # "vgg16-397923af.pth" carries the first digits of its hash
        file = File(name, f"sha256:{digits}", (address,))
        return _read(fetch_file(file, data_folder() / "weights", mirror, otherwise=RANDOM))

    def _choose(self, weights: str | Path) -> Path:
        """The weights file that a path means: itself, or the one in that folder that is ours."""
        path = Path(weights).expanduser()
        if path.is_file():
            return path
        if not path.is_dir():
            if isinstance(weights, str) and len(path.parts) == 1 and not path.suffix:
                raise SRKitError(f"{unknown('weights', weights, ('imagenet', 'random'))}; or give a file or a folder")
            raise SRKitError(f"{path}: no such weights file or folder")
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
        if len(found) > 1:
            found = [file for file in found if self.name in file.name.lower()]
        if len(found) != 1:
            amount = f"{len(found)} weights files" if found else f"no weights file ({' '.join(SUFFIXES)})"
            raise SRKitError(f"{path}: holds {amount} for {self.title}: name the one you mean")
        return found[0]

    def _fill(self, network: nn.Sequential, file: _Weights) -> None:
        """Copy tensors into the layers that are kept, once it is certain that they are this network's."""
        state = {self._key(key): value for key, value in file.tensors.items() if not key.startswith(self.not_read)}
        expected = network.state_dict()
        other = f"{file.name}: weights of another network"
        for key, value in state.items():
            if key not in expected or value.shape != expected[key].shape:
                raise SRKitError(f"{other}: {self.title} has no {key} {tuple(value.shape)}")
        # VGG-16 and VGG-19 begin alike: where only the first layers are given, no shape tells them apart.
        for name in ("vgg16", "vgg19"):
            if name != self.name and name in file.about and self.name not in file.about:
                raise SRKitError(f"{other}: {name}, not {self.name}")

        place = {name: i for i, (name, _) in enumerate(network.named_children())}
        first_lacking = min((place[key.split(".")[0]] for key in expected if key not in state), default=len(network))
        known = self._places()
        lacking = [layer for layer in self.layers if known[layer] >= first_lacking]
        if lacking:
            held = ", ".join(layer for layer in self.names() if known[layer] < first_lacking) or "none"
            raise SRKitError(f"{file.name}: no weights for {', '.join(lacking)}; the layers it holds: {held}")
        wanted = {key: state[key].to(value.dtype, copy=True) for key, value in self.features.state_dict().items()}
        self.features.load_state_dict(wanted, assign=True)

    def _colours(self, asked: str, file: _Weights) -> tuple[Tensor, Tensor, str]:
        """The colour matrix (3 out, 3 in) and offset (3) that pictures go through, and what a caption says of it."""
        if asked == "auto" and file.preproc:
            weight, bias = file.preproc
            return weight.float().reshape(3, 3), bias.float(), " (its own preprocessing)"
        if asked == "auto":
            asked = "caffe" if re.search("caffe|bgr", file.about) else self.usual
        order, mean, std = PREPROCESSINGS[asked]
        mean, std = torch.tensor(mean), torch.tensor(std)
        matrix = torch.eye(3)[["RGB".index(colour) for colour in order]] / std[:, None]
        words = {"imagenet": " (ImageNet preprocessing)", "caffe": " (Caffe)", "clip": " (CLIP preprocessing)"}
        return matrix, -mean / std, "" if asked == self.usual else words[asked]


@dataclass(frozen=True)
class _Weights:
    """What a weights file holds: tensors by name, its own name and what else it says about itself."""

    tensors: dict[str, Tensor]
    name: str = ""
    remarks: str = ""
    preproc: tuple[Tensor, Tensor] | None = None  # weight (3, 3, 1, 1) and bias (3) of its own 1 x 1 convolution

    @property
    def about(self) -> str:
        return f"{self.name} {self.remarks}".lower()


def _random(network: nn.Module) -> dict[str, Tensor]:
    """The same He weights every time (Kaiming normal, fan-in), from dice of their own; no bias."""
    dice, state = torch.Generator().manual_seed(0), {}
    for key, value in network.state_dict().items():
        ones = key.endswith(("bn.weight", "running_var"))
        state[key] = torch.full(value.shape, int(ones), dtype=value.dtype)
        if value.dim() == 4:
            nn.init.kaiming_normal_(state[key], nonlinearity="relu", generator=dice)
    return state


def _read(path: Path) -> _Weights:
    """A weights file, whichever network it belongs to.

    Raises:
        SRKitError: no file of plain tensors, truncated or damaged.
    """
    remarks = {}
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                remarks = file.metadata() or {}
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file can raise nearly everything
        raise SRKitError(
            f"{path}: not read: it is truncated or damaged, or a pickle with code in it, of which nothing was run; "
            "get it again, as .safetensors or as a plain state_dict"
        ) from None
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(each, Tensor) for each in tensors.values()):
        raise SRKitError(f"{path}: holds no weights: give a state_dict, tensors by name")
    own = [tensors.pop(key) for key in ("preproc.weight", "preproc.bias") if key in tensors]
    if own and [tuple(each.shape) for each in own] != [(3, 3, 1, 1), (3,)]:
        raise SRKitError(f"{path}: its preproc is no 1 x 1 convolution from three colours to three")
    return _Weights(tensors, path.name, " ".join(remarks.values()), tuple(own) or None)


# ---------------------------------------------------------------------------------- the networks


class _VGG(Extractor):
    not_read = "classifier."
    convolutions: tuple[int, ...]  # in each of the five blocks

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """relu1_1, relu1_2, relu2_1, …: block and convolution, after the ReLU; in network order."""
        return tuple(name for name in cls._places() if name.startswith("relu"))

    @classmethod
    def _places(cls) -> dict[str, int]:
        places, place = {}, 0
        for block, convolutions in enumerate(cls.convolutions, 1):
            for i in range(1, convolutions + 1):
                places[f"conv{block}_{i}"], places[f"relu{block}_{i}"] = place, place + 1
                place += 2
            place += 1  # the pooling
        return places

    @classmethod
    def _network(cls) -> nn.Sequential:
        modules, channels = [], 3
        for convolutions, width in zip(cls.convolutions, (64, 128, 256, 512, 512), strict=True):
            for _ in range(convolutions):
                modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            modules.append(nn.MaxPool2d(2))
        return nn.Sequential(*modules)

    @classmethod
    def _smallest(cls, layer: str) -> int:
        return 2 ** (int(layer[4]) - 1)  # a pooling by two before each block but the first


class VGG16(_VGG):
    """VGG-16 (Simonyan and Zisserman, arXiv 1409.1556, table 1 D), 528 MB: relu1_1 … relu5_3.

    Johnson et al. (arXiv 1603.08155) read relu1_2, relu2_2, relu3_3 and relu4_3. Block b answers at 1 / 2^(b-1) of
    the picture's size. Arguments, attributes and errors as in `Extractor`.
    """

    name, title, convolutions = "vgg16", "VGG-16", (2, 2, 3, 3, 3)

    @classmethod
    def _address(cls) -> str:
        from torchvision.models import VGG16_Weights

        return VGG16_Weights.IMAGENET1K_V1.url


class VGG19(_VGG):
    """VGG-19 (Simonyan and Zisserman, arXiv 1409.1556, table 1 E), 548 MB: relu1_1 … relu5_4.

    SRGAN (Ledig et al., arXiv 1609.04802, eq. 5) reads relu2_2 (VGG22) and relu5_4 (VGG54); some follow-ups read
    conv5_4 instead, before the ReLU. Arguments, attributes and errors as in `Extractor`.
    """

    name, title, convolutions = "vgg19", "VGG-19", (2, 2, 4, 4, 4)

    @classmethod
    def _address(cls) -> str:
        from torchvision.models import VGG19_Weights

        return VGG19_Weights.IMAGENET1K_V1.url


class _Fire(nn.Module):
    """SqueezeNet's block: few channels through 1 x 1, then many through 1 x 1 and 3 x 3 side by side."""

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1).relu()


class SqueezeNet(Extractor):
    """SqueezeNet 1.1 (Iandola et al., arXiv 1602.07360), 5 MB: relu1, fire2 … fire9.

    torchvision's features[1], [3], [4], [6], [7], [9] … [12]. LPIPS (Zhang et al., arXiv 1801.03924) reads relu1,
    fire3, fire5, fire6, fire7, fire8 and fire9. Strides 2 (relu1), 4, 8 (from fire4) and 16 (from fire6); the first
    convolution has no padding. Arguments, attributes and errors as in `Extractor`.
    """

    name, title, not_read = "squeezenet", "SqueezeNet", "classifier."

    @classmethod
    def _places(cls) -> dict[str, int]:
        names = ("relu1", "fire2", "fire3", "fire4", "fire5", "fire6", "fire7", "fire8", "fire9")
        return dict(zip(names, (1, 3, 4, 6, 7, 9, 10, 11, 12), strict=True))

    @classmethod
    def _network(cls) -> nn.Sequential:
        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        return nn.Sequential(
            *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool(), _Fire(64, 16, 64), _Fire(128, 16, 64)),
            *(pool(), _Fire(128, 32, 128), _Fire(256, 32, 128)),
            *(pool(), _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256)),
        )

    @classmethod
    def _smallest(cls, layer: str) -> int:
        return {"relu1": 3, "fire2": 5, "fire3": 5, "fire4": 9, "fire5": 9}.get(layer, 17)

    @classmethod
    def _address(cls) -> str:
        from torchvision.models import SqueezeNet1_1_Weights

        return SqueezeNet1_1_Weights.IMAGENET1K_V1.url

    @staticmethod
    def _key(key: str) -> str:
        return key.removeprefix("features.").replace("squeeze1x1", "squeeze")  # Caffe's own name


class CLIP(Extractor):
    """The ResNet-50 of CLIP (Radford et al., arXiv 2103.00020), through timm: stem, layer1 … layer4.

    `stem` is the stem's last convolution after its ReLU, at 1/2 of the picture's size; layer1 … layer4 are the four
    stages, at 1/4, 1/8, 1/16 and 1/32. "imagenet" means its published weights here too, which OpenAI trained on
    captions from the web; timm fetches them (Hugging Face's folder layout below data/weights, no `mirror`).
    A file of your own has timm's names. Arguments, attributes and errors as in `Extractor`, and:

    Raises:
        SRKitError: timm is not installed.
    """

    name, title, published, usual, not_read = "clip", "CLIP ResNet-50", "OpenAI", "clip", "head."

    @classmethod
    def _places(cls) -> dict[str, int]:
        return {"stem": 2, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}  # 3 is the stem's pooling

    @classmethod
    def _network(cls) -> nn.Sequential:
        network = nn.Sequential(OrderedDict(_timm().create_model(CLIP_MODEL, features_only=True)))
        for module in network.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # a layer that was read must not change afterwards
        return network

    @classmethod
    def _smallest(cls, layer: str) -> int:
        return {"stem": 1, "layer1": 3, "layer2": 7, "layer3": 15, "layer4": 31}[layer]

    def _published(self, mirror: str | Path | None) -> _Weights:
        folder = data_folder() / "weights"
        try:
            model = _timm().create_model(CLIP_MODEL, pretrained=True, features_only=True, cache_dir=folder)
        except Exception as error:  # timm, its hub and the network each raise their own kinds
            raise SRKitError(
                f"timm/{CLIP_MODEL} could not be had from huggingface.co ({type(error).__name__}): let timm fetch it "
                f"into {folder} where there is a network, or give its model.safetensors with weights=…; or {RANDOM}"
            ) from None
        return _Weights(model.state_dict(), CLIP_MODEL)

    @staticmethod
    def _key(key: str) -> str:
        return re.sub(r"^(stem|stages)\.", r"\1_", key)


CLIP_MODEL = "resnet50_clip.openai"


def _timm():
    try:
        import timm
    except ImportError:
        raise SRKitError("timm is not installed: pip install timm") from None
    return timm


NETWORKS: dict[str, type[Extractor]] = {"vgg16": VGG16, "vgg19": VGG19, "squeezenet": SqueezeNet, "clip": CLIP}


def open_features(
    name: str,
    layers: Iterable[str],
    weights: str | Path = "imagenet",
    preprocessing: str = "auto",
    mirror: str | Path | None = None,
) -> Extractor:
    """An extractor by its name in NETWORKS; arguments and errors as in `Extractor`.

    Raises:
        SRKitError: an unknown network, or all that `Extractor` raises.
    """
    if name not in NETWORKS:
        raise unknown("features", name, NETWORKS)
    return NETWORKS[name](layers, weights, preprocessing, mirror)
