"""Texts that are too large to be held: they lie in a file without a name, and are read in pieces.

A reply with a model of some hundred megabytes would be held as text, as JSON and as tensors at once. `engines` put such
a text into a file, `wire` reads the JSON around its long strings, and `averaging` adds up one tensor at a time.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from v6_algorithm.errors import WireError

if TYPE_CHECKING:
    import torch

# Strings of so many bytes stay in the file.
LONG = 2**20
_PIECE = 2**20
# The layout of safetensors, from its description of the format: its names of types, and torch's.
_DTYPES = {
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32",
    "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_LONGEST_HEADER = 10**8
_NOT_TENSORS = "tensors are not valid base64 safetensors"


class TextFile:
    """A text in a file that is gone with this object, or with the process.

    Parameters
    ----------
    folder
        Where; None: where the system keeps temporary files.
    in_memory
        Where no disk has room, memory may.
    """

    def __init__(self, folder: str | None = None, *, in_memory: bool = False) -> None:
        # It lasts as long as this object.
        self.file: IO[bytes] = io.BytesIO() if in_memory else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def __len__(self) -> int:
        return self.file.seek(0, os.SEEK_END)

    def write(self, piece: bytes) -> None:
        """Add to its end."""
        self.file.seek(0, os.SEEK_END)
        self.file.write(piece)

    def read(self) -> str:
        """Return all of it."""
        return self.at(0, len(self)).decode()

    def at(self, offset: int, length: int) -> bytes:
        """Read some bytes of it."""
        self.file.seek(offset)
        return self.file.read(length)

    def read_into(self, offset: int, content: bytearray) -> None:
        """Fill `content` with bytes of it; raises ValueError where there are not so many."""
        self.file.seek(offset)
        if self.file.readinto(content) != len(content):  # type: ignore[attr-defined]
            raise ValueError("it is cut short")


class InMemory:
    """A text in memory, of which `LongString` reads pieces as of a file."""

    def __init__(self, text: str) -> None:
        self._text = text

    def at(self, offset: int, length: int) -> bytes:
        """Return some characters of it; raises ValueError where these are no ASCII."""
        return self._text[offset : offset + length].encode("ascii")


class LongString:
    """A string of a JSON text that lies in a file, without its quotes."""

    def __init__(self, text: TextFile | InMemory, offset: int, length: int) -> None:
        self._text, self._offset, self._length = text, offset, length

    def __len__(self) -> int:
        return self._length

    def read(self) -> str:
        """Return it; raises WireError where it is no plain ASCII."""
        try:
            return self._text.at(self._offset, self._length).decode("ascii")
        except UnicodeDecodeError:
            raise WireError("a long text of it is not plain ASCII") from None

    def decoded(self) -> Iterator[bytes]:
        """Yield what its base64 stands for in pieces; raises ValueError where it is none."""
        import pybase64

        for place in range(0, self._length, 4 * _PIECE):
            yield pybase64.b64decode(
                self._text.at(self._offset + place, min(4 * _PIECE, self._length - place)), validate=True
            )

    def bytes(self, begin: int, end: int) -> bytearray:
        """Return the bytes from `begin` to before `end` of what its base64 stands for; raises ValueError."""
        import pybase64

        content = bytearray(end - begin)
        for start in range(begin, end, 3 * _PIECE):
            stop = min(start + 3 * _PIECE, end)
            first, last = start // 3 * 4, -(-stop // 3) * 4
            piece = pybase64.b64decode(self._text.at(self._offset + first, last - first), validate=True)
            wanted = piece[start - first // 4 * 3 :][: stop - start]
            if len(wanted) != stop - start:
                raise ValueError("it is cut short")
            content[start - begin : stop - begin] = wanted
        return content

    def size(self) -> int:
        """Return how many bytes its base64 stands for; raises ValueError where it is none."""
        if self._length % 4:
            raise ValueError("base64 comes in fours")
        return self._length // 4 * 3 - self._text.at(self._offset + self._length - 2, 2).count(b"=")

    def tensors(self, most_bytes: int) -> TensorsInFile:
        """Return the tensors of a safetensors file in base64, which are read when they are looked at.

        Raises
        ------
        WireError
            When it is none, or is larger than `most_bytes`.
        """
        if len(self) * 3 // 4 > most_bytes + 3:
            raise WireError(f"tensors of {len(self) * 3 // 4} bytes are over the cap of {most_bytes} bytes")
        try:
            total = self.size()
            size = int.from_bytes(self.bytes(0, 8), "little")
            if not 0 < size <= min(total - 8, _LONGEST_HEADER):
                raise ValueError("its header is too long")
            header = json.loads(self.bytes(8, 8 + size))
            header.pop("__metadata__", None)
            return TensorsInFile(self, _entries(header, total - 8 - size), 8 + size)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise WireError(_NOT_TENSORS) from None


class LongBytes(LongString):
    """Bytes in a file that stand for a string, which is their base64."""

    def __init__(self, text: TextFile, offset: int, length: int) -> None:
        super().__init__(text, offset, length)
        self._file = text

    def __len__(self) -> int:
        return -(-self._length // 3) * 4

    def read(self) -> str:
        """Return their base64."""
        import pybase64

        return pybase64.b64encode_as_string(self._text.at(self._offset, self._length))

    def decoded(self) -> Iterator[bytes]:
        """Yield them in pieces."""
        for place in range(0, self._length, _PIECE):
            yield self._text.at(self._offset + place, min(_PIECE, self._length - place))

    def bytes(self, begin: int, end: int) -> bytearray:
        """Return those from `begin` to before `end`; raises ValueError where they are not there."""
        if not 0 <= begin <= end <= self._length:
            raise ValueError("it is cut short")
        content = bytearray(end - begin)
        self._file.read_into(self._offset + begin, content)
        return content

    def size(self) -> int:
        """Return how many there are."""
        return self._length


class TensorsInFile(Mapping[str, "torch.Tensor"]):
    """Tensors that are read from a file each time they are looked at: one at a time is in memory."""

    def __init__(self, text: LongString, entries: Mapping[str, tuple[str, list[int], int, int]], start: int) -> None:
        self._text, self._entries, self._start = text, entries, start

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        dtype, shape, begin, end = self._entries[name]
        kind = getattr(torch, dtype)
        if begin == end:
            return torch.empty(shape, dtype=kind)
        try:
            content = self._text.bytes(self._start + begin, self._start + end)
        except ValueError:
            raise WireError(_NOT_TENSORS) from None
        return torch.frombuffer(content, dtype=kind).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __or__(self, other: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return all of them in memory, those of `other` in the places of these."""
        return {name: other[name] if name in other else self[name] for name in [*self, *(set(other) - set(self))]}

    def in_order(self, names: list[str]) -> TensorsInFile:
        """Return the same, by these names in this order."""
        return TensorsInFile(self._text, {name: self._entries[name] for name in names}, self._start)


def _entries(header: Mapping[str, Any], total: int) -> dict[str, tuple[str, list[int], int, int]]:
    """Check a header as safetensors does: no byte without a tensor, none of two; raises as a wrong one does."""
    import torch

    entries, covered = {}, 0
    for name, item in sorted(header.items(), key=lambda pair: tuple(pair[1]["data_offsets"])):
        shape, (begin, end), dtype = list(item["shape"]), item["data_offsets"], _DTYPES[item["dtype"]]
        numbers = 1
        for length in shape:
            if type(length) is not int or not 0 <= length < 2**63:
                raise ValueError("a shape is no whole numbers")
            numbers *= length
        if type(begin) is not int or begin != covered or end - begin != numbers * getattr(torch, dtype).itemsize:
            raise ValueError("tensors are not side by side")
        covered = end
        entries[name] = dtype, shape, begin, end
    if covered != total:
        raise ValueError("there are bytes of no tensor")
    return entries


def read_json(text: TextFile, loads: Callable[[str], Any]) -> Any:
    """Parse the JSON of a file; strings that are long and have nothing to unescape come as `LongString`.

    `loads` parses the text in which they are left out; raises what that raises.
    """
    mark = secrets.token_hex(16)
    long: list[LongString] = []
    pieces: list[bytes] = []
    current: list[bytes] = []
    inside = left_out = escaped = False
    begin = held = base = 0
    text.file.seek(0)
    while chunk := text.file.read(_PIECE):
        if chunk.endswith(b"\\"):
            chunk += text.file.read(1)
        place = 0
        while place < len(chunk):
            quote = chunk.find(b'"', place)
            stop = len(chunk) if quote < 0 else quote
            if not inside:
                pieces.append(chunk[place : stop + 1])
                if quote >= 0:
                    inside, left_out, escaped, begin, held = True, False, False, base + quote + 1, 0
                    current = []
                place = stop + 1
                continue
            if (backslash := chunk.find(b"\\", place, stop)) >= 0:
                if left_out:
                    raise WireError("a long text of the reply has escaped characters")
                current.append(chunk[place : backslash + 2])
                escaped, place = True, backslash + 2
                continue
            if not left_out:
                current.append(chunk[place:stop])
                held += stop - place
                # The beginning of a string that is left out is in the file as well.
                if held > LONG and not escaped:
                    left_out, current = True, []
            if quote >= 0:
                if left_out:
                    pieces.append(f"{mark}{len(long)}".encode())
                    long.append(LongString(text, begin, base + quote - begin))
                else:
                    pieces += current
                pieces.append(b'"')
                inside, current = False, []
            place = stop + 1
        base += len(chunk)
    pieces += current

    def with_long(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(mark):
            return long[int(value.removeprefix(mark))]
        if isinstance(value, dict):
            return {key: with_long(item) for key, item in value.items()}
        return [with_long(item) for item in value] if isinstance(value, list) else value

    return with_long(loads(b"".join(pieces).decode()))
