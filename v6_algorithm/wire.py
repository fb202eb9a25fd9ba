"""The payload format: tensors and messages <-> JSON, and every check on what came in.

Tensors travel as safetensors bytes in base64, exact to the bit, inside a JSON message that carries the schema
version, the round and the attempt. Nothing is unpickled, and nothing is computed with before keys, shapes, dtypes,
finiteness and size were checked. `site` and `federation` write messages; `master` and `site` read them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import WireError

if TYPE_CHECKING:
    import torch

SCHEMA = 1
# Larger than any model that a JSON transport carries in reasonable time (vantage6 base64s it once more).
MAX_BYTES = 2**31
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "uint8", "bool")


# -- tensors -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorSpec:
    """What one tensor of a state must look like.

    `kind` says how replies are merged: a ``parameter`` and a ``buffer`` are averaged, of a ``counter`` the maximum
    is kept. Only parameters may ever meet a server optimiser.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str = "parameter"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"shape": list(self.shape)}


StateSpec = dict[str, TensorSpec]


def spec_from_json(content: Any) -> StateSpec:
    """Read a state's spec from a reply; raises WireError when it is not one."""
    try:
        spec = {
            str(name): TensorSpec(tuple(int(n) for n in item["shape"]), str(item["dtype"]), str(item["kind"]))
            for name, item in content.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise WireError("the description of the model's tensors is malformed") from None
    for name, item in spec.items():
        if item.dtype not in _DTYPES or item.kind not in ("parameter", "buffer", "counter") or min((0, *item.shape)):
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


def pack(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> str:
    """Encode tensors as base64 safetensors.

    Parameters
    ----------
    tensors
        Name to tensor; float16, bfloat16, float32, float64, int64, int32, uint8 or bool, any shape.
    metadata
        Text to keep in the file's header.
    """
    import safetensors.torch

    # safetensors wants dense memory that no two entries share.
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if len({tensor.untyped_storage().data_ptr() for tensor in own.values() if tensor.numel()}) < sum(
        1 for tensor in own.values() if tensor.numel()
    ):
        own = {name: tensor.clone() for name, tensor in own.items()}
    return base64.b64encode(safetensors.torch.save(own, metadata)).decode("ascii")


def unpack(text: Any, spec: StateSpec | None = None, *, max_bytes: int = MAX_BYTES) -> dict[str, torch.Tensor]:
    """Decode and check what `pack` made.

    Parameters
    ----------
    text
        The base64 text.
    spec
        Names, shapes and dtypes that must be found, all of them and no others.
    max_bytes
        Size cap on the decoded bytes; with a `spec` the cap is what the spec needs.

    Raises
    ------
    WireError
        Naming the tensor and what was expected; never a value.
    """
    import safetensors
    import safetensors.torch

    if not isinstance(text, str):
        raise WireError(f"tensors must be base64 text, not {type(text).__name__}")
    if spec is not None:
        max_bytes = min(max_bytes, spec_bytes(spec) + 1024 * (len(spec) + 8))
    if len(text) * 3 // 4 > max_bytes + 3:
        raise WireError(f"tensors of {len(text) * 3 // 4} bytes are over the cap of {max_bytes} bytes")
    try:
        tensors = safetensors.torch.load(binascii.a2b_base64(text.encode("ascii")))
    except (UnicodeEncodeError, binascii.Error, safetensors.SafetensorError, ValueError, KeyError):
        raise WireError("tensors are not valid base64 safetensors") from None
    for name, tensor in tensors.items():
        if _dtype(tensor) not in _DTYPES:
            raise WireError(f"tensor '{name}' is of dtype {_dtype(tensor)}; allowed: {', '.join(_DTYPES)}")
    if spec is not None:
        _check(tensors, spec)
    return tensors


def _check(tensors: Mapping[str, torch.Tensor], spec: StateSpec) -> None:
    import torch

    for name in sorted(set(spec) ^ set(tensors)):
        raise WireError(f"tensor '{name}' is {'missing' if name in spec else 'not part of the model'}")
    for name, expected in spec.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != expected.shape:
            raise WireError(f"tensor '{name}' has shape {list(tensor.shape)}, expected {list(expected.shape)}")
        if _dtype(tensor) != expected.dtype:
            raise WireError(f"tensor '{name}' has dtype {_dtype(tensor)}, expected {expected.dtype}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WireError(f"tensor '{name}' holds non-finite numbers")


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def digest(text: str) -> str:
    """Return a short fingerprint of a packed state, by which sites are seen to agree."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# -- messages ------------------------------------------------------------------------------------------------------


def message(*, site: str, round: int, attempt: int, **body: Any) -> dict[str, Any]:
    """Build a request or a reply; `body` is JSON."""
    return {"schema": SCHEMA, "site": site, "round": round, "attempt": attempt, **body}


def to_text(content: Mapping[str, Any]) -> str:
    """Write a message as JSON text; a NaN is refused, for browsers do not read it."""
    return json.dumps(content, allow_nan=False)


def read_reply(text: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Parse a reply and check that it answers `request`.

    Raises
    ------
    WireError
        When it is not JSON, of another schema version, or of another site, round or attempt (a stale reply).
    """
    try:
        reply = json.loads(text)
    except ValueError:
        raise WireError("the reply is not JSON") from None
    if not isinstance(reply, dict):
        raise WireError(f"the reply is a {type(reply).__name__}, not a message")
    for key in ("schema", "site", "round", "attempt"):
        if reply.get(key) != request[key]:
            raise WireError(f"the reply is of {key} {str(reply.get(key))[:40]!r}, asked was {request[key]!r}")
    if reply.get("status") not in ("ok", "error"):
        raise WireError("the reply has no status")
    return reply
