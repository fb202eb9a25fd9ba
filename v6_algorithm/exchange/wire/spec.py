"""What the tensors of a model must look like, and whether some do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import WireError

if TYPE_CHECKING:
    import torch

DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "int8", "uint8", "bool")


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor of a state must look like.

    `kind` says how replies are merged: a ``parameter`` and a ``buffer`` are averaged, of a ``counter`` the maximum
    is kept, and what is ``frozen`` is the same at all sites. Only parameters may ever meet a server optimiser. `thaws`
    is the last round in which nobody may move the tensor; 0: there is none. `momentum` is of BatchNorm's running
    variances: the share of each batch in the statistics, 0 where they are the mean over all batches; of others None.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str = "parameter"
    thaws: int = 0
    momentum: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, in which what is not said is left out."""
        content = asdict(self) | {"shape": list(self.shape)}
        unsaid = {"thaws": 0, "momentum": None}
        return {name: value for name, value in content.items() if name not in unsaid or value != unsaid[name]}


StateSpec = dict[str, TensorSpec]


def spec_from_json(content: Any) -> StateSpec:
    """Read a state's spec from a reply; raises WireError when it is not one."""
    try:
        spec = {
            str(name): TensorSpec(
                tuple(item["shape"]), str(item["dtype"]), str(item["kind"]), item.get("thaws", 0), item.get("momentum")
            )
            for name, item in content.items()
        }
    except (AttributeError, KeyError, TypeError):
        raise WireError("the description of the model's tensors is malformed") from None
    for name, item in spec.items():
        if any(type(length) is not int or length < 0 for length in item.shape):
            raise WireError(f"tensor '{name}' is described with a shape that is not whole numbers from 0")
        if type(item.thaws) is not int or item.thaws < 0:
            raise WireError(f"tensor '{name}' is described as frozen for rounds that are no whole number from 0")
        if item.momentum is not None and not (type(item.momentum) in (int, float) and 0 <= item.momentum <= 1):
            raise WireError(f"tensor '{name}' is described with a momentum that is no number from 0 to 1")
        if item.dtype not in DTYPES or item.kind not in ("parameter", "buffer", "counter", "frozen"):
            raise WireError(f"tensor '{name}' is described as {item.kind} of {item.dtype}, which is not known")
    return spec


def spec_bytes(spec: StateSpec) -> int:
    """Return the size in bytes of the tensors that `spec` describes."""
    import torch

    total = 0
    for item in spec.values():
        elements = 1
        for length in item.shape:
            elements *= length
        total += elements * getattr(torch, item.dtype).itemsize
    return total


def check(tensors: Mapping[str, torch.Tensor], spec: StateSpec) -> None:
    """Raise WireError unless these are the tensors of `spec`, all of them and no others, and hold finite numbers."""
    for name in sorted(set(spec) ^ set(tensors)):
        raise WireError(f"tensor '{name}' is {'missing' if name in spec else 'not part of the model'}")
    for name, expected in spec.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != expected.shape:
            raise WireError(f"tensor '{name}' has shape {list(tensor.shape)}, expected {list(expected.shape)}")
        if dtype_of(tensor) != expected.dtype:
            raise WireError(f"tensor '{name}' has dtype {dtype_of(tensor)}, expected {expected.dtype}")
        if not all_finite(tensor):
            raise WireError(f"tensor '{name}' holds non-finite numbers")


def check_stacks(
    stacks: Mapping[str, torch.Tensor], sites: int, spec: StateSpec, names: Collection[str], known: StateSpec
) -> None:
    """Raise WireError unless stacks, (sites, …), hold so many times the tensors of `spec`, all and no others.

    `names` are those that are sent, and `known` is what their maker knows them to be, finite numbers among it.
    """
    if set(names) != set(spec) or not set(spec) <= set(stacks) or not alike(known, spec):
        raise WireError("the sites' tensors are others than the model's")
    for name, expected in spec.items():
        if tuple(stacks[name].shape) != (sites, *expected.shape) or dtype_of(stacks[name]) != expected.dtype:
            raise WireError(f"tensor '{name}' has another shape or dtype than expected")


def fit(
    tensors: Mapping[str, torch.Tensor], spec: StateSpec, *, partial: bool
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Fit tensors from a file to a model.

    Parameters
    ----------
    tensors
        Name to tensor. Of a model of one network, the network's name may be absent: ``0.weight`` for
        ``model.0.weight``, as torch itself names them. Floats are cast to the model's.
    spec
        The model's tensors.
    partial
        Take what fits by name and shape, rather than refuse.

    Returns
    -------
    tuple of dict and list
        The tensors that fit, and the names of the model's tensors that none did.

    Raises
    ------
    WireError
        Naming the first tensor that does not fit; when `partial`, only if none fits or one is not finite.
    """
    import torch

    networks = {name.split(".")[0] for name in spec}
    if len(networks) == 1 and not set(tensors) & set(spec):
        (network,) = networks
        tensors = {f"{network}.{name}": tensor for name, tensor in tensors.items()}
    cast = {
        name: tensor.to(getattr(torch, spec[name].dtype))
        if name in spec and tensor.is_floating_point() and getattr(torch, spec[name].dtype).is_floating_point
        else tensor
        for name, tensor in tensors.items()
    }
    if partial:
        cast = {
            name: tensor
            for name, tensor in cast.items()
            if name in spec and (tuple(tensor.shape), dtype_of(tensor)) == (spec[name].shape, spec[name].dtype)
        }
        if not cast:
            raise WireError("none of its tensors fits the model by name and shape")
    expected = {name: item for name, item in spec.items() if name in cast} if partial else spec
    check(cast, expected)
    return {name: cast[name] for name in expected}, [name for name in spec if name not in expected]


def all_finite(tensor: torch.Tensor) -> bool:
    """Say whether a tensor is free of NaN and infinity."""
    import torch

    # A NaN or an infinity shows in the sum, which is several times faster than looking at each number; only the sum
    # of finite numbers may overflow, so an infinite one is looked into.
    if not tensor.is_floating_point() or math.isfinite(tensor.sum().item()):
        return True
    return bool(torch.isfinite(tensor).all())


def dtype_of(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# The two that were compared last and are equal: many sites' tensors are of the same two objects.
_compared: tuple[StateSpec | None, StateSpec | None] = None, None


def alike(known: StateSpec | None, spec: StateSpec) -> bool:
    """Say whether two descriptions are equal; nobody changes one."""
    global _compared
    if known is spec or (known is _compared[0] and spec is _compared[1]):
        return True
    if known != spec:
        return False
    _compared = known, spec
    return True
