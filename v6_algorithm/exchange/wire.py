"""The payload format: tensors and messages <-> JSON, and every check on what came in.

Tensors travel as safetensors bytes in base64, exact to the bit, inside a JSON message that carries the schema
version, the round and the attempt. Nothing is unpickled, and nothing is computed with before keys, shapes, dtypes,
finiteness and size were checked. `site` and `federation` write messages; `master` and `site` read them.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import frames
from v6_algorithm.exchange.in_file import LongString, TextFile, read_json

if TYPE_CHECKING:
    import numpy as np
    import torch

SCHEMA = 1
# Larger than any model that a JSON transport carries in reasonable time (vantage6 base64s it once more).
MAX_BYTES = 2**31
# Squares and sums of squares of such numbers over all sites are still finite; no measured quantity is larger.
LARGEST_NUMBER = 1e100
# In the order in which safetensors writes them, the last first, with its names.
_SHORT = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "float32": "F32",
    "float64": "F64", "int64": "I64",
}  # fmt: skip
_BY_SIZE = tuple(_SHORT)
# Bytes of tensors from which on a second copy of them counts.
_LARGE = 2**24
# Bytes that are made text at once; a multiple of three.
_PIECE = 3 * 2**22
# How deep in a reply the keys of an item are: reply, folds, item.
_IN_AN_ITEM = 3
_MOST_DIGITS, _LARGEST_COUNT = 20, 2**62
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "int8", "uint8", "bool")


# -- tensors -------------------------------------------------------------------------------------------------------


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
        if item.dtype not in _DTYPES or item.kind not in ("parameter", "buffer", "counter", "frozen"):
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


class Packed(str):
    """Base64 text made by `pack`: known to need no escaping in JSON, which spares a scan of every character.

    Attributes
    ----------
    tensors
        What it was made of, where the maker keeps that for readers in the same process; None elsewhere. They are
        shared: nobody changes them.
    """

    tensors: Mapping[str, torch.Tensor] | None = None
    # What they were found to be by whoever read them first.
    checked: StateSpec | None = None
    # SHA-256 of the text, once somebody has asked for it.
    digest: str | None = None


class Stacked(Mapping[str, "torch.Tensor"]):
    """One site's tensors, each a layer of a stack with those of other sites: sums over sites can be made at once.

    Most are never looked at by themselves, so a layer is taken out of its stack when somebody does.

    Attributes
    ----------
    stacks
        By name the stack, (sites, …), of which these tensors are layer number `layer`.
    """

    __slots__ = ("_names", "layer", "stacks")

    def __init__(self, stacks: Mapping[str, torch.Tensor], layer: int, names: Collection[str] | None = None) -> None:
        self.stacks, self.layer = stacks, layer
        self._names: Collection[str] = stacks if names is None else names

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self.stacks[name][self.layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __or__(self, other: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**other, **self}

    def only(self, names: Collection[str]) -> Stacked:
        """Return those of some names; the stacks are the same."""
        return self if len(names) == len(self) else Stacked(self.stacks, self.layer, names)


class Held:
    """Tensors that are handed on within one process as they are; they become text only where a message does.

    `unpack` takes them as it takes text. They are shared: nobody changes them. `checked` is what their maker knows them
    to be, finite numbers among it; else whoever reads them looks.
    """

    __slots__ = ("checked", "tensors")

    def __init__(self, tensors: Mapping[str, torch.Tensor], checked: StateSpec | None = None) -> None:
        self.tensors, self.checked = tensors, checked

    def text(self) -> Packed:
        """Return them as `pack` does."""
        return pack(self.tensors)


def pack(
    tensors: Mapping[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
    *,
    keep: bool = False,
    consume: bool = False,
) -> Packed:
    """Encode tensors as base64 safetensors.

    Parameters
    ----------
    tensors
        Name to tensor; float16, bfloat16, float32, float64, int64, int32, int8, uint8 or bool, any shape.
    metadata
        Text to keep in the file's header.
    keep
        Whether the text also carries the tensors, for readers in this process; they must not change any more.
    consume
        Whether large tensors may be taken out of `tensors`, a dictionary, so that nothing is in memory twice.
    """
    import pybase64
    import safetensors.torch

    if sum(tensor.nbytes for tensor in tensors.values()) >= _LARGE:
        return _pack_large(tensors, metadata, keep=keep, consume=consume)
    # safetensors wants dense memory that no two entries share.
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if len({tensor.untyped_storage().data_ptr() for tensor in contiguous.values() if tensor.numel()}) < sum(
        1 for tensor in contiguous.values() if tensor.numel()
    ):
        contiguous = {name: tensor.clone() for name, tensor in contiguous.items()}
    packed = Packed(pybase64.b64encode_as_string(safetensors.torch.save(contiguous, metadata)))
    if keep:
        packed.tensors = contiguous
    return packed


def _pack_large(
    tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None, *, keep: bool, consume: bool
) -> Packed:
    """Encode as `pack` does, to the same bytes, with less in memory at once: kept tensors are views of one copy."""
    import pybase64

    about = {name: (_dtype(tensor), list(tensor.shape), tensor.nbytes) for name, tensor in tensors.items()}
    header, starts = _header(about, metadata)
    content = bytearray(len(header) + sum(size for _, _, size in about.values()))
    content[: len(header)] = header
    for name in list(tensors):
        _view(content, about[name], starts[name]).copy_(tensors[name].detach())
        if consume and isinstance(tensors, dict):
            del tensors[name]
    give_back()
    written = ""
    for place in range(0, len(content), _PIECE):
        # Of a text that nobody else holds this lengthens it where it is.
        written += pybase64.b64encode_as_string(memoryview(content)[place : place + _PIECE])
    # The text is copied as it gets its type; the numbers are not there meanwhile.
    del content
    packed = Packed(written)
    del written
    if keep:
        letters, content = _PIECE // 3 * 4, bytearray()
        for place in range(0, len(packed), letters):
            content += pybase64.b64decode(packed[place : place + letters])
        packed.tensors = {name: _view(content, about[name], starts[name]) for name in about}
    return packed


def _header(
    about: Mapping[str, tuple[str, list[int], int]], metadata: dict[str, str] | None
) -> tuple[bytes, dict[str, int]]:
    """Return what a safetensors file begins with, and where each tensor begins, in the order in which they lie there.

    `about` has type, shape and size in bytes of each.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name in sorted(about, key=lambda name: (-_BY_SIZE.index(about[name][0]), name)):
        dtype, shape, size = about[name]
        header[name] = {"dtype": _SHORT[dtype], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    starts = {name: 8 + len(text) + of["data_offsets"][0] for name, of in header.items() if name in about}
    return len(text).to_bytes(8, "little") + text, starts


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> Packed:
    """Encode arrays to the text that `pack` makes of them as tensors, without torch and in a tenth of the time."""
    import numpy as np
    import pybase64

    dense = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    known = all(str(array.dtype) in _SHORT for array in dense.values())
    if not known or sum(array.nbytes for array in dense.values()) >= _LARGE:
        import torch

        return pack({name: torch.from_numpy(array) for name, array in dense.items()})
    header, starts = _header({name: (str(of.dtype), list(of.shape), of.nbytes) for name, of in dense.items()}, None)
    return Packed(pybase64.b64encode_as_string(header + b"".join(dense[name].tobytes() for name in starts)))


def _view(content: bytearray, about: tuple[str, list[int], int], start: int) -> torch.Tensor:
    """Return the tensor that lies in some bytes; `about` is its type, shape and size."""
    import torch

    dtype, shape, size = about
    kind = getattr(torch, dtype)
    if not size:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(content, dtype=kind, offset=start, count=size // kind.itemsize).view(shape)


def give_back() -> None:
    """Give memory that was let go back to the system, where the C library and Arrow keep it for later."""
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
    kept = text.tensors if isinstance(text, (Packed, Held)) else None
    if kept is not None:
        if spec is not None and not _alike(text.checked, spec):
            check(kept, spec)
            if isinstance(text, Packed):
                text.checked = spec
        names = spec or sorted(kept)
        if isinstance(kept, Stacked):
            # It is read as the dictionary that others get.
            return cast("dict[str, torch.Tensor]", kept.only(names))
        return {name: kept[name] for name in names}
    if isinstance(text, LongString):
        return _unpack_in_file(text, spec, max_bytes)
    import pybase64
    import safetensors
    import safetensors.torch

    if not isinstance(text, str):
        raise WireError(f"tensors must be base64 text, not {type(text).__name__}")
    if spec is not None:
        max_bytes = min(max_bytes, spec_bytes(spec) + 1024 * (len(spec) + 8))
    if len(text) * 3 // 4 > max_bytes + 3:
        raise WireError(f"tensors of {len(text) * 3 // 4} bytes are over the cap of {max_bytes} bytes")
    try:
        content = pybase64.b64decode(text, validate=True)
        # A caller who has let the text go does not have both in memory.
        del text
        tensors = safetensors.torch.load(content)
        del content
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        raise WireError("tensors are not valid base64 safetensors") from None
    for name, tensor in tensors.items():
        if _dtype(tensor) not in _DTYPES:
            raise WireError(f"tensor '{name}' is of dtype {_dtype(tensor)}; allowed: {', '.join(_DTYPES)}")
    if spec is not None:
        check(tensors, spec)
    # safetensors returns them in another order each time; whoever sums over tensors must not.
    return {name: tensors[name] for name in spec or sorted(tensors)}


# The two that were compared last and are equal: many sites' tensors are of the same two objects.
_compared: tuple[StateSpec | None, StateSpec | None] = None, None


def _alike(known: StateSpec | None, spec: StateSpec) -> bool:
    """Say whether two descriptions are equal; nobody changes one."""
    global _compared
    if known is spec or (known is _compared[0] and spec is _compared[1]):
        return True
    if known != spec:
        return False
    _compared = known, spec
    return True


def _unpack_in_file(text: LongString, spec: StateSpec | None, max_bytes: int) -> dict[str, torch.Tensor]:
    """Check what lies in a file tensor by tensor; with a `spec` the tensors stay there until they are looked at."""
    if spec is None:
        tensors = text.tensors(max_bytes)
        return {name: tensors[name] for name in sorted(tensors)}
    tensors = text.tensors(min(max_bytes, spec_bytes(spec) + 1024 * (len(spec) + 8)))
    check(tensors, spec)
    return cast("dict[str, torch.Tensor]", tensors.in_order(list(spec)))


def pack_file(content: bytes) -> Packed:
    """Encode the bytes of a safetensors file as `pack` encodes tensors."""
    import pybase64

    return Packed(pybase64.b64encode_as_string(content))


def read_metadata(text: str) -> dict[str, str]:
    """Return the text kept in the header of what `pack` made; empty where there is none.

    The layout, from safetensors' description of its format: 8 bytes with the header's length, little-endian, then
    the header as JSON.
    """
    import pybase64

    try:
        content = pybase64.b64decode(text, validate=True)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
    except (ValueError, AttributeError):
        raise WireError("tensors are not valid base64 safetensors") from None


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
            if name in spec and (tuple(tensor.shape), _dtype(tensor)) == (spec[name].shape, spec[name].dtype)
        }
        if not cast:
            raise WireError("none of its tensors fits the model by name and shape")
    expected = {name: item for name, item in spec.items() if name in cast} if partial else spec
    check(cast, expected)
    return {name: cast[name] for name in expected}, [name for name in spec if name not in expected]


def check(tensors: Mapping[str, torch.Tensor], spec: StateSpec) -> None:
    """Raise WireError unless these are the tensors of `spec`, all of them and no others, and hold finite numbers."""
    for name in sorted(set(spec) ^ set(tensors)):
        raise WireError(f"tensor '{name}' is {'missing' if name in spec else 'not part of the model'}")
    for name, expected in spec.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != expected.shape:
            raise WireError(f"tensor '{name}' has shape {list(tensor.shape)}, expected {list(expected.shape)}")
        if _dtype(tensor) != expected.dtype:
            raise WireError(f"tensor '{name}' has dtype {_dtype(tensor)}, expected {expected.dtype}")
        if not all_finite(tensor):
            raise WireError(f"tensor '{name}' holds non-finite numbers")


def check_stacks(
    stacks: Mapping[str, torch.Tensor], sites: int, spec: StateSpec, names: Collection[str], known: StateSpec
) -> None:
    """Raise WireError unless stacks, (sites, …), hold so many times the tensors of `spec`, all and no others.

    `names` are those that are sent, and `known` is what their maker knows them to be, finite numbers among it.
    """
    if set(names) != set(spec) or not set(spec) <= set(stacks) or not _alike(known, spec):
        raise WireError("the sites' tensors are others than the model's")
    for name, expected in spec.items():
        if tuple(stacks[name].shape) != (sites, *expected.shape) or _dtype(stacks[name]) != expected.dtype:
            raise WireError(f"tensor '{name}' has another shape or dtype than expected")


def all_finite(tensor: torch.Tensor) -> bool:
    """Say whether a tensor is free of NaN and infinity."""
    import torch

    # A NaN or an infinity shows in the sum, which is several times faster than looking at each number; only the sum
    # of finite numbers may overflow, so an infinite one is looked into.
    if not tensor.is_floating_point() or math.isfinite(tensor.sum().item()):
        return True
    return bool(torch.isfinite(tensor).all())


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def digest(text: str) -> str:
    """Return a short fingerprint of a packed state, by which sites are seen to agree."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return such a fingerprint of tensors that nobody has packed: of names, dtypes, shapes and numbers."""
    import torch

    seen = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        seen.update(json.dumps([name, _dtype(tensor), list(tensor.shape)]).encode())
        seen.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return seen.hexdigest()[:32]


# -- messages ------------------------------------------------------------------------------------------------------


def message(*, site: str, round: int, attempt: int, **body: Any) -> dict[str, Any]:
    """Build a request or a reply; `body` is JSON."""
    return {"schema": SCHEMA, "site": site, "round": round, "attempt": attempt, **body}


def with_texts(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item of a request or a reply with what it says for the strategy as text, where that is held."""
    return {**item, "strategy": _with_texts(item["strategy"])} if item.get("strategy") else dict(item)


def _with_texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_texts(each) for key, each in value.items()}
    return value.text() if isinstance(value, Held) else value


# What is JSON already, and holds nothing else.
PLAIN = frozenset((str, int, float, bool, type(None)))


def to_text(content: Mapping[str, Any]) -> str:
    """Write a message as JSON text; a NaN is refused, for browsers do not read it."""
    pieces, packed = _pieces(content)
    texts = [value if isinstance(value, Packed) else value.text() for value in packed]
    return "".join(part for pair in zip(pieces, [*texts, ""], strict=True) for part in pair)


def text_length(content: Mapping[str, Any]) -> int:
    """Return how long the text of a message is, without a copy of what is packed already."""
    pieces, packed = _pieces(content)
    return sum(map(len, pieces)) + sum(len(value if isinstance(value, Packed) else value.text()) for value in packed)


def _pieces(content: Mapping[str, Any]) -> tuple[list[str], list[Packed | Held]]:
    """Return the pieces of a message's JSON text, and what is packed between them."""
    mark = secrets.token_hex(16)
    packed: list[Packed | Held] = []
    return json.dumps(_without_packed(content, mark, packed), allow_nan=False).split(mark), packed


def _without_packed(value: Any, mark: str, packed: list[Packed | Held]) -> Any:
    """Return JSON with `mark` for what is packed, which is put into `packed`.

    No function within one: that calls itself is a circle, and holds the models until Python looks for circles.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, (Packed, Held)):
        packed.append(value)
        return mark
    if isinstance(value, (list, tuple)):
        # Most are long lists of numbers, and hold nothing that is packed.
        return value if PLAIN.issuperset(map(type, value)) else [_without_packed(item, mark, packed) for item in value]
    if isinstance(value, Mapping):
        return {key: _without_packed(item, mark, packed) for key, item in value.items()}
    return value


def read_reply(text: str | TextFile, request: Mapping[str, Any]) -> dict[str, Any]:
    """Parse a reply and check that it answers `request`.

    Of one that lies in a file, packed parameters of models stay there, for `unpack` to read tensor by tensor.

    Raises
    ------
    WireError
        When it is not JSON, holds a NaN, an infinity or a number so large that sums would overflow, is of another
        schema version, or of another site, round or attempt (a stale reply).
    """
    try:
        if isinstance(text, str):
            reply = _loads(text)
        else:
            reply = _only_parameters((frames.read if frames.is_frame(text) else read_json)(text, _loads))
    except (ValueError, RecursionError):
        raise WireError(
            "the reply is not JSON, or holds numbers that are not finite, or too large to be added up"
        ) from None
    if not isinstance(reply, dict):
        raise WireError(f"the reply is a {type(reply).__name__}, not a message")
    for key in ("schema", "site", "round", "attempt"):
        if reply.get(key) != request[key]:
            raise WireError(f"the reply is of {key} {str(reply.get(key))[:40]!r}, asked was {request[key]!r}")
    if reply.get("status") not in ("ok", "error"):
        raise WireError("the reply has no status")
    return reply


def _loads(text: str) -> Any:
    return json.loads(text, parse_float=_finite, parse_constant=_finite, parse_int=_whole)


def _only_parameters(value: Any, key: str = "", depth: int = 0) -> Any:
    """Read what lies in a file, but for what is packed under "parameters" in an item of a reply."""
    if isinstance(value, LongString):
        return value if key == "parameters" and depth == _IN_AN_ITEM else value.read()
    if isinstance(value, dict):
        return {name: _only_parameters(item, name, depth + 1) for name, item in value.items()}
    return [_only_parameters(item, key, depth + 1) for item in value] if isinstance(value, list) else value


def _finite(text: str) -> float:
    number = float(text)
    if not abs(number) <= LARGEST_NUMBER:
        raise ValueError("not finite, or too large")
    return number


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS or abs(number := int(text)) > _LARGEST_COUNT:
        raise ValueError("too large")
    return number
