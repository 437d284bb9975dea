"""A stand-in for one CUDA GPU: every line that a GPU would run is run, on the CPU.

    with fake_cuda.stand_in():                      # a Tesla T4: capability 7.5, no bf16, 15 GiB
        Trainer(model, dataset, TrainConfig(device="cuda")).fit()

Tensors "on cuda:0" are a subclass over ordinary memory. They say that they are on cuda:0, refuse to meet a CPU tensor,
to become a numpy array or to be drawn from a CPU generator, as real ones do, and come back by .cpu(). What it cannot
show: speed, memory, asynchronous execution, the rounding of fp16 (autocast does nothing here), NCCL. `waits` counts
what would make the
processor wait for the GPU: .item(), .tolist(), .cpu(), float(), bool(), comparisons used in an `if`.

Known to run on torch 2.15. A thread needs the mode too: `stand_in` gives it to every thread started within.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter

import torch
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda:0")
waits: Counter[str] = Counter()
MAY_MIX = {"expand_as", "view_as", "reshape_as", "type_as", "__getitem__", "__setitem__", "index_put_", "copy_"}
MAY_MIX |= {"grad", "__repr__", "set_", "swap_tensors"}
PLAIN = {"tolist", "item", "__len__", "__bool__", "__float__", "__int__", "__index__", "backward"}
WAIT = {"tolist", "item", "__bool__", "__float__", "__int__", "__index__", "cpu", "nonzero", "is_nonzero", "equal"}


class OnCuda(torch.Tensor):
    """A tensor that says it is on cuda:0."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def _down(x):
    return x.as_subclass(torch.Tensor) if isinstance(x, OnCuda) else x


def _up(x):
    return x.as_subclass(OnCuda) if isinstance(x, torch.Tensor) and not isinstance(x, OnCuda) else x


def _is_cuda(device) -> bool:
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "cuda"


def _call(func, args, kwargs):
    name = getattr(func, "__name__", str(func))
    full = resolve_name(func) or name
    flat, _ = tree_flatten((args, kwargs))
    tensors = [x for x in flat if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, OnCuda)]
    if ours and name in WAIT:
        waits[name] += 1
    with torch._C.DisableTorchFunctionSubclass():
        if name == "__get__":
            return _attribute(func, full.split(".")[-2] if full.endswith("__get__") else "", args, ours)
        if name == "to":
            return _to(func, args, kwargs, ours)
        if ours:
            first = args[0]
            if name == "cpu":
                return _down(first).clone()
            if name in ("numpy", "__array__"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
            if name == "get_device":
                return 0
            if name == "__deepcopy__":
                return _deepcopy(first, args[1] if len(args) > 1 else {})
            if name in ("__reduce_ex__", "__reduce__"):
                return _down(first.detach()).__reduce_ex__(2)
            if name == "__format__" and first.dim() == 0:
                waits["format"] += 1
                return format(first.item(), args[1])
            strangers = [tuple(x.shape) for x in tensors if not isinstance(x, OnCuda) and x.dim() > 0]
            if strangers and name not in MAY_MIX:
                raise RuntimeError(f"{full}: expected all tensors on one device, found cuda:0 and cpu {strangers}")
        if name == "cuda":
            return _up(args[0].clone())
        if name in ("pin_memory", "is_pinned"):
            return args[0] if name == "pin_memory" else False
        made_on = kwargs.get("device")
        if _is_cuda(made_on):
            if kwargs.get("generator") is not None:
                raise RuntimeError(f"{full}: expected a 'cuda' generator but found 'cpu'")
            kwargs = {**kwargs, "device": torch.device("cpu")}
        out = func(*args, **kwargs)
        if name in PLAIN or (made_on is not None and not _is_cuda(made_on)) or not (ours or _is_cuda(made_on)):
            return out
        return tree_map(_up, out) if isinstance(out, (torch.Tensor, tuple, list, dict)) else out


def _attribute(func, name, args, ours):
    if ours and name in ("device", "is_cuda", "is_cpu"):
        return {"device": DEVICE, "is_cuda": True, "is_cpu": False}[name]
    out = func(*args)
    return _up(out) if ours and name in ("data", "grad", "T", "mT", "real") else out


def _to(func, args, kwargs, ours):
    wanted = kwargs.get("device", args[1] if len(args) > 1 else None)
    if isinstance(wanted, torch.Tensor):
        wanted = DEVICE if isinstance(wanted, OnCuda) else torch.device("cpu")
    target = wanted if isinstance(wanted, (str, torch.device)) else (DEVICE if ours else torch.device("cpu"))
    rest = ["cpu" if _is_cuda(x) else x for x in args[1:]]
    out = func(args[0], *rest, **({**kwargs, "device": "cpu"} if "device" in kwargs else kwargs))
    if _is_cuda(target) != isinstance(args[0], OnCuda):
        out = out.clone() if out.data_ptr() == args[0].data_ptr() else out
        waits["to cpu"] += not _is_cuda(target)
    return _up(out) if _is_cuda(target) else _down(out)


def _deepcopy(tensor, memo):
    if id(tensor) not in memo:
        new = _up(_down(tensor.detach()).clone()).requires_grad_(tensor.requires_grad)
        if isinstance(tensor, torch.nn.Parameter):
            new._is_param = True
        memo[id(tensor)] = new
    return memo[id(tensor)]


def _apply(module, fn, recurse=True):
    for child in module.children():
        child._apply(fn)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                new = fn(parameter)
            module._parameters[name] = torch.nn.Parameter(new.detach(), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module


GROUP = torch.optim.Optimizer._group_tensors_by_device_and_dtype


def _group(*args, **kwargs):
    """An optimiser's tensors by the device that they say, which PyTorch's C++ does not ask."""
    return {(DEVICE, dtype): tensors for (_, dtype), tensors in GROUP(*args, **kwargs).items()}


def _nothing():
    return lambda *args, **kwargs: None  # a new one each: torch.compile's tables know a function once


@contextlib.contextmanager
def stand_in(capability=(7, 5), memory=15 << 30):
    """Within it torch.cuda has one GPU, in every thread that is started here."""
    state = torch.zeros(16, dtype=torch.uint8)
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda *a: capability,
        "get_device_name": lambda *a: "a stand-in for a Tesla T4",
        "mem_get_info": lambda *a: (memory, memory),
        "memory_allocated": lambda *a: 1 << 20,
        "max_memory_allocated": lambda *a: 2 << 20,
        "get_rng_state": lambda *a: state.clone(),
        "is_bf16_supported": lambda *a: capability[0] >= 8,
        "is_initialized": lambda: True,
        **{name: _nothing() for name in ("set_device", "reset_peak_memory_stats", "synchronize", "set_rng_state")},
        **{name: _nothing() for name in ("empty_cache", "manual_seed", "manual_seed_all", "_lazy_init")},
    }
    patches = [(torch.cuda, name, new) for name, new in cuda.items()]
    patches.append((torch.nn.Module, "_apply", _apply))
    patches.append((torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_group)))
    patches.append((clip_grad, "_group_tensors_by_device_and_dtype", _group))
    if hasattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check"):
        patches.append((torch.optim.Optimizer, "_accelerator_graph_capture_health_check", _nothing()))
    run = threading.Thread.run

    def run_within(thread):
        with _Mode():
            run(thread)

    patches.append((threading.Thread, "run", run_within))
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in patches]
    waits.clear()
    for owner, name, new in patches:
        setattr(owner, name, new)
    try:
        with _Mode():
            yield
    finally:
        for owner, name, old in before:
            setattr(owner, name, old)
