"""The best response: how a network's weights would answer if hyper-parameters moved (Delta-STN, arXiv 2010.13514).

Trained to the end, a network's weights are a function of its hyper-parameters, w*(λ). `Response` learns the slope of
that function at the present λ, beside any network of convolutions or linear layers, and changes nothing in it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srkit.settings import SRKitError

LAYERS = {F.conv2d, F.linear}  # that have a response
ACTIVATIONS = {F.relu, torch.relu, Tensor.relu, F.prelu, F.leaky_relu, F.silu, F.gelu}  # after which dropout acts
POINTWISE = ACTIVATIONS | {torch.sigmoid, Tensor.sigmoid, F.sigmoid, torch.tanh, Tensor.tanh, F.batch_norm}
ADDING = {Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.sub, Tensor.__sub__}


class Response(nn.Module):
    """W(δ) = W + diag(V_w δ) R and b(δ) = b + (V_b δ) r in every layer, for the δ by which hyper-parameters move.

    Section 4.2 and Appendix D of the paper. As activations: y = W * x + b + (V_w δ)(R * x) + (V_b δ) r, so that each
    example of a batch can have a δ of its own. V starts at zero: at first the weights do not answer at all.

    Args:
        model: any network with convolutions or linear layers; it is kept as it is. Batch normalisation must be frozen.
        count: H, how many hyper-parameters there are.
        seed: decides R.

    Attributes:
        two_pass: whether `linearized` may send the change alone through the network, which takes half the time; not
            for networks that multiply feature maps, where it is carried by forward-mode
            differentiation. It is found out by a comparison of both on `example`.

    Raises:
        SRKitError: no convolution and no linear layer, or none that uses its weights whole.
    """

    def __init__(self, model: nn.Module, count: int, seed: int = 0, example: Tensor | None = None) -> None:
        super().__init__()
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        if not layers:
            raise SRKitError("this network has no convolution: nothing in it can answer to a hyper-parameter")
        self._model = [model]  # in a list, so that its weights are not taken for the response's
        self._index = {id(layer.weight): number for number, layer in enumerate(layers)}
        generator = torch.Generator().manual_seed(seed)

        def like(weight: Tensor) -> nn.Parameter:  # as PyTorch starts a layer
            bound = 1 / math.sqrt(layers[0].weight[0].numel() if weight.ndim < 2 else weight[0].numel())
            drawn = (2 * torch.rand(weight.shape, generator=generator) - 1) * bound
            return nn.Parameter(drawn.to(weight))

        self.kernels = nn.ParameterList(like(layer.weight) for layer in layers)
        self.biases = nn.ParameterList(like(layer.weight[:, 0].flatten(1).sum(1)) if layer.weight.ndim > 2
                                       else like(layer.weight[:, 0]) for layer in layers)  # fmt: skip
        self.gates = nn.ParameterList(
            nn.Parameter(layer.weight.new_zeros(2 * len(layer.weight), count)) for layer in layers
        )
        self.two_pass = example is not None and self._passes_agree(example, count)

    @property
    def model(self) -> Any:
        """The network that this is the response of."""
        return self._model[0]

    def forward(self, x: Tensor, delta: Tensor, dropout: Dropout | None = None) -> Tensor:
        """f(x; W(δ)), the network itself with changed weights: what a hyper step differentiates.

        Args:
            x: (N, …), what the network takes.
            delta: (N, H), each example's own.
            dropout: acts after every activation.
        """
        with _Changed(self, delta, dropout):
            return self.model(x)

    def linearized(self, x: Tensor, delta: Tensor, dropout: Dropout | None = None) -> Tensor:
        """f(x; W) + J (W(δ) - W), with the Jacobian J of the weights: the paper's eq. 13, what the response learns by.

        Only the response gets a gradient. Args: as `forward`.
        """
        if self.two_pass:
            return self._two_passes(x, delta, dropout)
        return self._forward_mode(x, delta, dropout)

    def squared_norm(self, delta: Tensor) -> Tensor:
        """‖W(δ)‖² over all layers, (N,): what weight decay punishes; only the response gets a gradient."""
        total = delta.new_zeros(len(delta), device=self.kernels[0].device)
        for number, weight in self._weights():
            change, kernel = self.gate(number, delta, bias=False), self.kernels[number].flatten(1)
            weight = weight.detach().flatten(1)
            total = total + weight.square().sum() + 2 * change @ (weight * kernel).sum(1)
            total = total + change.square() @ kernel.square().sum(1)
        return total

    def gate(self, number: int, delta: Tensor, bias: bool) -> Tensor:
        """V_w δ or V_b δ of a layer, (N, O)."""
        weights = self.gates[number].chunk(2)[int(bias)]
        return delta.to(weights, non_blocking=True) @ weights.T

    def change(
        self, number: int, layer: Callable, x: Tensor, delta: Tensor, has_bias: bool, *rest: Any, **options: Any
    ) -> Tensor:
        """What the response adds to a layer's output."""
        shape = (len(x), -1) + (1,) * (x.ndim - 2)
        change = self.gate(number, delta, bias=False).view(shape) * layer(
            x, self.kernels[number], None, *rest, **options
        )
        if not has_bias:
            return change
        return change + (self.gate(number, delta, bias=True) * self.biases[number]).view(shape)

    def _weights(self) -> list[tuple[int, Tensor]]:
        return [(self._index[id(one)], one) for one in self.model.parameters() if id(one) in self._index]

    def _two_passes(self, x: Tensor, delta: Tensor, dropout: Dropout | None) -> Tensor:
        """The first pass remembers what each layer saw; the second carries the change alone, which starts as zero."""
        with torch.no_grad(), (seen := _Remember(dropout)):
            output = self.model(x)
        with _Carry(self, delta, seen):
            return output + self.model(torch.zeros_like(x))

    def _forward_mode(self, x: Tensor, delta: Tensor, dropout: Dropout | None) -> Tensor:
        """Every number carries its change along, whatever the network does with it."""
        with forward_ad.dual_level(), _Dual(self, delta, dropout):
            output, change = forward_ad.unpack_dual(self.model(x))
            return output.detach() + change  # pyright: ignore[reportOperatorIssue]

    def _passes_agree(self, x: Tensor, count: int) -> bool:
        """Whether both ways give the same change, with gates that are not zero."""
        before = [gate.detach().clone() for gate in self.gates]
        training, delta = self.model.training, torch.ones(len(x), count)
        self.model.eval()
        with torch.no_grad(), warnings.catch_warnings():
            for number, gate in enumerate(self.gates):
                gate.copy_(torch.linspace(-0.1, 0.1 + 0.01 * number, gate.numel()).view_as(gate))
            try:
                warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)  # PyTorch 2.15 about its own
                slow = self._forward_mode(x, delta, None)
                fast = self._two_passes(x, delta, None)
                still = torch.equal(slow, self.model(x))
            finally:
                for gate, old in zip(self.gates, before, strict=True):
                    gate.copy_(old)
                self.model.train(training)
            if still:
                raise SRKitError(
                    "no layer of this network uses its weights whole: nothing answers to a hyper-parameter"
                )
            return bool(torch.allclose(fast, slow, rtol=1e-3, atol=1e-4 * float(slow.abs().max())))


class Dropout:
    """Sets whole feature maps to zero, each with its example's own rate, and scales up what is left.

    Tompson et al., arXiv 1411.4280, Section 3.2 ("SpatialDropout").

    Args:
        rates: (N,) in [0, 1).
        generator: on the CPU; decides which.
        mirrored: the second half of a batch draws the same numbers as the first.
    """

    def __init__(self, rates: Tensor, generator: torch.Generator, mirrored: bool = False) -> None:
        self.rates, self.generator, self.mirrored = rates, generator, mirrored

    def mask(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1): 0, or 1 / (1 - rate)."""
        keep = 1 - self.rates[:, None]
        times = 2 if self.mirrored else 1
        kept = torch.rand(len(x) // times, x.shape[1], generator=self.generator).repeat(times, 1) < keep
        mask = (kept / keep).view(*x.shape[:2], *(1,) * (x.ndim - 2))
        return mask.to(x, non_blocking=True)


class _Layers(TorchFunctionMode):
    """Within it, layers and pointwise functions are done by the methods below, wherever in a network they stand."""

    def __init__(self, dropout: Dropout | None = None) -> None:
        super().__init__()
        self.dropout = dropout

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in LAYERS:
            return self.layer(func, *args, **kwargs)
        if func in POINTWISE:
            return self.pointwise(func, *args, **kwargs)
        return func(*args, **kwargs)

    def layer(
        self, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any
    ) -> Tensor:
        return func(x, weight, bias, *rest, **options)

    def pointwise(self, func: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        y = func(x, *rest, **options)
        return y * self.dropout.mask(y) if self.dropout and func in ACTIVATIONS else y


dropping = _Layers  # with dropping(Dropout(…)): a network with dropout, and nothing else


class _Changed(_Layers):
    """Layers with the weights W(δ), and W itself without a gradient."""

    def __init__(self, response: Response, delta: Tensor, dropout: Dropout | None) -> None:
        super().__init__(dropout)
        self.response, self.delta = response, delta

    def layer(
        self, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any
    ) -> Tensor:
        y = func(x, weight.detach(), None if bias is None else bias.detach(), *rest, **options)
        number = self.response._index.get(id(weight))
        if number is None:
            return y
        return self.added(y, x, partial(self.response.change, number, func), bias is not None, *rest, **options)

    def added(self, y: Tensor, x: Tensor, change: Callable[..., Tensor], *rest: Any, **options: Any) -> Tensor:
        """A layer's answer y to x, with its response."""
        return y + change(x, self.delta, *rest, **options)


class _Dual(_Changed):
    """Layers that add their response to the change that their input brings along."""

    def added(self, y: Tensor, x: Tensor, change: Callable[..., Tensor], *rest: Any, **options: Any) -> Tensor:
        value, before = forward_ad.unpack_dual(y)
        response = change(forward_ad.unpack_dual(x)[0].detach(), self.delta, *rest, **options)
        return forward_ad.make_dual(value.detach(), response if before is None else before + response)


class _Remember(_Layers):
    """Keeps, call by call, what each layer saw, and the slope of each pointwise function."""

    def __init__(self, dropout: Dropout | None) -> None:
        super().__init__(dropout)
        self.kept: list[Tensor] = []

    def layer(self, func: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        self.kept.append(x)
        return func(x, *rest, **options)

    def pointwise(self, func: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = func(x * 1 if options.get("inplace") else x, *rest, **options)
            (slope,) = torch.autograd.grad(y.sum(), x)
        mask = self.dropout.mask(y) if self.dropout and func in ACTIVATIONS else 1
        self.kept.append(slope * mask)
        return y.detach() * mask


class _Carry(_Changed):
    """Carries the change alone: a layer without its bias, plus its response to what it saw; and slopes."""

    def __init__(self, response: Response, delta: Tensor, seen: _Remember) -> None:
        super().__init__(response, delta, None)
        self.kept = iter(seen.kept)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in ADDING and not isinstance(args[1], Tensor):
            return args[0]  # a constant does not change
        return super().__torch_function__(func, types, args, kwargs)

    def layer(
        self, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any
    ) -> Tensor:
        seen, y = next(self.kept), func(x, weight.detach(), None, *rest, **options)
        number = self.response._index.get(id(weight))
        if number is None:
            return y
        return y + self.response.change(number, func, seen, self.delta, bias is not None, *rest, **options)

    def pointwise(self, func: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
        return x * next(self.kept)
