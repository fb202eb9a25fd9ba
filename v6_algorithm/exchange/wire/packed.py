"""Tensors on their way: as base64 safetensors, exact to the bit, or as they are within one process."""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import tensor_file
from v6_algorithm.exchange.in_file import InMemory, LongString
from v6_algorithm.exchange.wire.spec import DTYPES, StateSpec, alike, check, dtype_of, spec_bytes

if TYPE_CHECKING:
    import numpy as np
    import torch

# Larger than any model that a JSON transport carries in reasonable time (vantage6 base64s it once more).
MAX_BYTES = 2**31
# Bytes of tensors from which on a second copy of them counts.
_LARGE = 2**24


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

    `unpack` takes them as it takes text. They are shared: nobody changes them. `checked` is what their maker, or who
    read them first, knows them to be, finite numbers among it. Two are equal whose text is.
    """

    __slots__ = ("_digest", "checked", "tensors")

    def __init__(self, tensors: Mapping[str, torch.Tensor], checked: StateSpec | None = None) -> None:
        self.tensors, self.checked = tensors, checked
        self._digest: str | None = None

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return _same_bits(self.tensors, other.tensors) if isinstance(other, Held) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self.tensors))

    def text(self) -> Packed:
        """Return them as `pack` does."""
        return pack(self.tensors)

    def letters(self) -> Iterator[str]:
        """Yield the text in pieces."""
        return tensor_file.in_base64(tensor_file.pieces(self.tensors))

    @property
    def digest(self) -> str:
        """The fingerprint that `digest` makes of the text."""
        if self._digest is None:
            seen = hashlib.sha256()
            for letters in self.letters():
                seen.update(letters.encode())
            self._digest = seen.hexdigest()[:32]
        return self._digest

    @property
    def length(self) -> int:
        """How long the text is."""
        return -(-tensor_file.size(self.tensors) // 3) * 4


# A model on its way: as text, or as it is within one process.
Model = str | Held


def hold(tensors: Mapping[str, torch.Tensor], spec: StateSpec | None = None) -> Held:
    """Return tensors that nobody changes any more as they are kept within one process: large ones in a file.

    While a site trains, the model that it was sent is then not in memory beside the site's own. Where the folder for
    temporary files has no room they stay in memory. With a `spec` they are looked at while they are in memory; who
    reads those that do not fit it is told what is wrong.
    """
    checked = None
    if spec is not None:
        with suppress(WireError):
            check(tensors, spec)
            checked = spec
    if sum(tensor.nbytes for tensor in tensors.values()) >= _LARGE:
        with suppress(OSError):
            return Held(tensor_file.Stored(tensors), checked)
    return Held(tensors, checked)


def _same_bits(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    import torch

    return first.keys() == second.keys() and all(
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))
        for name, one in first.items()
        for other in [second[name]]
    )


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
    contiguous = _dense(tensors)
    packed = Packed(pybase64.b64encode_as_string(safetensors.torch.save(contiguous, metadata)))
    if keep:
        packed.tensors = contiguous
    return packed


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> Packed:
    """Encode arrays to the text that `pack` makes of them as tensors, without torch and in a tenth of the time."""
    import numpy as np
    import pybase64

    dense = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    known = all(str(array.dtype) in DTYPES for array in dense.values())
    if not known or sum(array.nbytes for array in dense.values()) >= _LARGE:
        import torch

        return pack({name: torch.from_numpy(array) for name, array in dense.items()})
    about = {name: (str(array.dtype), array.shape, array.nbytes) for name, array in dense.items()}
    header, starts = tensor_file.header(about)
    return Packed(pybase64.b64encode_as_string(header + b"".join(dense[name].tobytes() for name in starts)))


def _dense(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors in dense memory of the processor that no two of them share, as safetensors wants them."""
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    filled = [tensor for tensor in dense.values() if tensor.numel()]
    if len({tensor.untyped_storage().data_ptr() for tensor in filled}) < len(filled):
        dense = {name: tensor.clone() for name, tensor in dense.items()}
    return dense


def _pack_large(
    tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None, *, keep: bool, consume: bool
) -> Packed:
    """Encode as `pack` does, to the same bytes, with less in memory at once."""
    written = ""
    for letters in tensor_file.in_base64(tensor_file.pieces(tensors, metadata)):
        # Of a text that nobody else holds this lengthens it where it is.
        written += letters
    about = tensor_file.about(tensors)
    kept: dict[str, torch.Tensor] | None = None
    if consume and isinstance(tensors, dict):
        tensors.clear()
    elif keep:
        kept = _dense(tensors)
    give_back()
    # The text is copied as it gets its type; the numbers are not there meanwhile, where they may be taken.
    packed = Packed(written)
    del written
    if keep and kept is None:
        content = bytearray()
        for piece in tensor_file.from_base64(packed):
            content += piece
        starts = tensor_file.header(about, metadata)[1]
        kept = {name: _view(content, about[name], starts[name]) for name in about}
    packed.tensors = kept
    return packed


def _view(content: bytearray, about: tensor_file.About, start: int) -> torch.Tensor:
    """Return the tensor that lies in some bytes; `about` is its type, shape and size."""
    import torch

    dtype, shape, size = about
    kind = getattr(torch, dtype)
    if not size:
        return torch.empty(tuple(shape), dtype=kind)
    return torch.frombuffer(content, dtype=kind, offset=start, count=size // kind.itemsize).view(tuple(shape))


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
        if spec is not None and not alike(text.checked, spec):
            check(kept, spec)
            text.checked = spec
        names = spec or sorted(kept)
        if isinstance(kept, tensor_file.Stored):
            # They stay in their file until they are looked at.
            return cast("dict[str, torch.Tensor]", kept.in_order(names))
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
    if len(text) >= _LARGE:
        # Tensor by tensor, so that it is in memory once beside its text.
        in_memory = LongString(InMemory(text), 0, len(text)).tensors(max_bytes)
        tensors = {name: in_memory[name] for name in in_memory}
        if spec is not None:
            check(tensors, spec)
        return {name: tensors[name] for name in spec or sorted(tensors)}
    try:
        content = pybase64.b64decode(text, validate=True)
        # A caller who has let the text go does not have both in memory.
        del text
        tensors = safetensors.torch.load(content)
        del content
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        raise WireError("tensors are not valid base64 safetensors") from None
    for name, tensor in tensors.items():
        if dtype_of(tensor) not in DTYPES:
            raise WireError(f"tensor '{name}' is of dtype {dtype_of(tensor)}; allowed: {', '.join(DTYPES)}")
    if spec is not None:
        check(tensors, spec)
    # safetensors returns them in another order each time; whoever sums over tensors must not.
    return {name: tensors[name] for name in spec or sorted(tensors)}


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


def digest(text: str) -> str:
    """Return a short fingerprint of a packed state, by which sites are seen to agree."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return such a fingerprint of tensors that nobody has packed: of names, dtypes, shapes and numbers."""
    import torch

    seen = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        seen.update(json.dumps([name, dtype_of(tensor), list(tensor.shape)]).encode())
        seen.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return seen.hexdigest()[:32]
