"""A GPU that is not there, for tests of what would go wrong on one: tensors that say they are on ``cuda``.

Their numbers are in memory and computed there. What torch refuses on a real GPU is refused here: an operation on
tensors of both devices, `numpy()` of one on the GPU, a generator of the other device. Nothing else of a GPU is here: no
other rounding, no lack of memory, no operation that is not deterministic, no mixed precision, and no series of uneven
length, whose lengths torch wants on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda:0")
CPU = torch.device("cpu")
_aten = torch.ops.aten
# These take what is on the CPU beside what is on a GPU: copies, and numbers of rows.
_MOVES = (_aten.copy_.default, _aten._to_copy.default)
_INDEXES = (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default)


class OnGpu(Tensor):
    """A tensor on the GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        assert type(held) is Tensor
        made: OnGpu = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, layout=held.layout, device=CPU
        )
        made.held = held
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _check(function, args, kwargs)
        result = function(*_held(args), **_held(kwargs))
        return return_and_correct_aliasing(function, args, kwargs, _on_gpu(result))


def _check(function: Any, args: Any, kwargs: Any) -> None:
    if function in _MOVES:
        return
    looked_at = args[:1] if function in _INDEXES and isinstance(args[0], OnGpu) else args
    tensors = [each for each in tree_flatten((looked_at, kwargs))[0] if isinstance(each, Tensor)]
    elsewhere = [each for each in tensors if not isinstance(each, OnGpu) and each.dim()]
    if elsewhere and len(elsewhere) < len(tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two, cuda:0 and cpu! ({function})"
        )
    if isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


def _held(values: Any) -> Any:
    return tree_map(lambda each: each.held if isinstance(each, OnGpu) else each, values)


def _on_gpu(values: Any) -> Any:
    return tree_map(lambda each: OnGpu(each) if type(each) is Tensor else each, values)


class _Down(torch.autograd.Function):
    """From the GPU to the CPU; gradients go back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _held(tensor).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return OnGpu(gradient)


class _Up(torch.autograd.Function):
    """From the CPU to the GPU."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return OnGpu(tensor.detach().as_subclass(Tensor).clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _held(gradient)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if isinstance(tensor, OnGpu) == (device.type == "cuda"):
        return tensor
    moved: Tensor = (_Up if device.type == "cuda" else _Down).apply(tensor)
    return moved


def _as_device(value: Any) -> torch.device | None:
    """Return the device that an argument names, if it is one."""
    if isinstance(value, torch.device):
        return value
    return torch.device(value) if isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu") else None


class _Devices(TorchFunctionMode):
    """Sends what names the GPU there."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "")
        first = args[0] if args else None
        if isinstance(first, Tensor):
            if name == "cpu":
                return _moved(first, CPU)
            if name == "cuda":
                return _moved(first, GPU)
            if name == "to":
                return self._to(function, first, args[1:], kwargs)
            if name == "pin_memory":
                return first
            if isinstance(first, OnGpu):
                if name == "one_hot":
                    # It makes the numbers of the classes itself, on the device that torch sees underneath.
                    return OnGpu(function(first.held, *args[1:], **kwargs))
                if name == "numpy":
                    raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
                if name == "tolist":
                    return first.held.tolist()
        device = _as_device(kwargs.get("device"))
        if device is None or device.type != "cuda":
            return function(*args, **kwargs)
        made = function(*args, **{**kwargs, "device": None if isinstance(first, OnGpu) else CPU})
        return _moved(made, GPU)

    @staticmethod
    def _to(function: Any, tensor: Tensor, args: Any, kwargs: Any) -> Any:
        wanted = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        devices = [_as_device(each) for each in (*args, *kwargs.values())]
        devices = [each for each in devices if each is not None] + [each.device for each in wanted]
        dtypes = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.dtype)]
        dtypes += [each.dtype for each in wanted]
        if not devices:
            return function(tensor, *args, **kwargs)
        moved = _moved(tensor, devices[0])
        tensor = moved.clone() if kwargs.get("copy") and moved is tensor else moved
        if dtypes:
            tensor = function(tensor, dtypes[0])
        layout = kwargs.get("memory_format")
        return tensor if layout is None else tensor.contiguous(memory_format=layout)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Let this process have a GPU while a block lasts: its own if it has one, else one that is pretended."""
    if torch.cuda.is_available():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "pretended")
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_: False)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "manual_seed_all", lambda _: None)
        patch.setattr(torch.random, "fork_rng", _fork_rng)
        # Builds of torch for CUDA ask the driver there.
        patch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda _: None, raising=False)
        # A parameter cannot become one of another class; on a real GPU it stays the same object.
        patch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
        # Of what is made in it no view can be wrapped.
        patch.setattr(torch, "inference_mode", torch.no_grad)
        with _Devices():
            yield


_forks = torch.random.fork_rng


def _fork_rng(devices: Any = None, **options: Any) -> Any:
    return _forks(devices=[], **options)
