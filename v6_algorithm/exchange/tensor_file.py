"""A safetensors file in pieces, so that nothing large is in memory twice; `wire` and checkpoints are made of it.

To the byte it is what safetensors' own `save` returns, which copies each tensor twice. `Stored` are tensors that lie in
such a file and not in memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The format's names of torch's types, in the order in which safetensors writes them, the last first.
_SHORT = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "float32": "F32",
    "float64": "F64", "int64": "I64",
}  # fmt: skip
_BY_SIZE = tuple(_SHORT)
# Bytes that are made text at once; a multiple of three.
PIECE = 3 * 2**22

# Of a tensor its type, shape and size in bytes.
About = tuple[str, Sequence[int], int]


def header(about: Mapping[str, About], metadata: Mapping[str, str] | None = None) -> tuple[bytes, dict[str, int]]:
    """Return the file's beginning, and the place of each tensor's first byte in the file, in their order there."""
    content: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end, places = 0, {}
    for name in sorted(about, key=lambda name: (-_BY_SIZE.index(about[name][0]), name)):
        dtype, shape, size = about[name]
        content[name] = {"dtype": _SHORT[dtype], "shape": list(shape), "data_offsets": [end, end + size]}
        places[name] = end
        end += size
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, {name: 8 + len(text) + place for name, place in places.items()}


def about(tensors: Mapping[str, torch.Tensor]) -> dict[str, About]:
    """Return what the header says of tensors."""
    if isinstance(tensors, Stored):
        return tensors.about
    return {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.nbytes)
        for name, tensor in tensors.items()
    }


def size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return how many bytes the file of some tensors has."""
    known = about(tensors)
    return len(header(known)[0]) + sum(length for _, _, length in known.values())


def pieces(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Yield the file: its beginning, then each tensor's bytes, which lie in the tensor's memory, or are read."""
    beginning, places = header(about(tensors), metadata)
    yield beginning
    for name in places:
        if isinstance(tensors, Stored):
            yield from tensors.pieces(name)
        else:
            yield bytes_of(tensors[name])


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor, in its memory where that is dense and of the processor."""
    import torch

    content: memoryview = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    return content


def in_base64(content: Iterable[Any]) -> Iterator[str]:
    """Yield the base64 of bytes that come in pieces."""
    import pybase64

    rest = b""
    for piece in content:
        view = memoryview(piece)
        if rest:
            missing = 3 - len(rest)
            rest, view = rest + bytes(view[:missing]), view[missing:]
            if len(rest) < 3:
                continue
            yield pybase64.b64encode_as_string(rest)
        end = len(view) // 3 * 3
        for place in range(0, end, PIECE):
            yield pybase64.b64encode_as_string(view[place : min(place + PIECE, end)])
        rest = bytes(view[end:])
    if rest:
        yield pybase64.b64encode_as_string(rest)


def from_base64(text: str) -> Iterator[bytes]:
    """Yield the bytes of a base64 text in pieces."""
    import pybase64

    length = PIECE // 3 * 4
    for place in range(0, len(text), length):
        yield pybase64.b64decode(text[place : place + length])


class Stored(Mapping[str, "torch.Tensor"]):
    """Tensors in a file without a name, of which each is read when it is looked at, into memory of its own.

    Who looks may change what it gets. The file is gone with the last object that reads it, or with the process.

    Parameters
    ----------
    tensors
        Name to tensor, of any type that a safetensors file has.

    Attributes
    ----------
    about
        By name the type, shape and size of each.

    Raises
    ------
    OSError
        When the folder for temporary files has no room for them.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.about, self._places, end = about(tensors), {}, 0
        # It lasts as long as this object.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        for name, tensor in tensors.items():
            self._places[name] = end
            rest = bytes_of(tensor)
            end += len(rest)
            while rest:
                rest = rest[self._file.write(rest) :]

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        dtype, shape, _ = self.about[name]
        tensor = torch.empty(tuple(shape), dtype=getattr(torch, dtype))
        self._read(self._places[name], bytes_of(tensor))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.about)

    def __len__(self) -> int:
        return len(self.about)

    def __or__(self, other: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return all of them in memory, those of `other` in the places of these."""
        return {name: other[name] if name in other else self[name] for name in [*self, *(set(other) - set(self))]}

    def in_order(self, names: Iterable[str]) -> Stored:
        """Return those of some names in this order; the file is the same."""
        chosen = object.__new__(Stored)
        chosen._file, chosen._places = self._file, self._places
        chosen.about = {name: self.about[name] for name in names}
        return chosen

    def pieces(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of a tensor, some at a time in the same memory, which is the next piece's then."""
        place, end = self._places[name], self._places[name] + self.about[name][2]
        content = memoryview(bytearray(min(PIECE, end - place)))
        while place < end:
            piece = content[: end - place]
            self._read(place, piece)
            yield piece
            place += len(piece)

    def _read(self, place: int, content: memoryview) -> None:
        self._file.seek(place)
        while content:
            length = self._file.readinto(content)
            if not length:
                raise OSError("a temporary file is shorter than what was written to it")
            content = content[length:]
