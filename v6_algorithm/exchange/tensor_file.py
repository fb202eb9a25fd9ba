"""A safetensors file in pieces, so that nothing large is in memory twice; `wire` and checkpoints are made of it.

To the byte it is what safetensors' own `save` returns, which copies each tensor twice.
"""

from __future__ import annotations

import json
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
    return {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.nbytes)
        for name, tensor in tensors.items()
    }


def size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return how many bytes the file of some tensors has."""
    return len(header(about(tensors))[0]) + sum(tensor.nbytes for tensor in tensors.values())


def pieces(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Yield the file: its beginning, then each tensor's bytes, which lie in the tensor's memory."""
    beginning, places = header(about(tensors), metadata)
    yield beginning
    for name in places:
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
