"""A reply in one file in which models are the bytes that they are, behind its JSON.

vantage6 writes every result in base64, and a model that is base64 in JSON would go through that twice. So a container
whose request asks for it (`ASKED`) leaves a large reply so, and `wire.read_reply` reads it like any other.

The file: `MARK`, the parts one after the other, JSON with the message and the sizes of the parts, and eight bytes with
the length of that JSON. In the message `{"$part": n}` stands for a part's base64.

Couriers import this: the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from v6_algorithm.exchange.in_file import TextFile

# The key of a request that asks for such a reply; who answers it takes the key out first.
ASKED = "frames"
# Characters of base64 from which on a text is worth a part.
LEAST_CHARACTERS = 2**22
# No UTF-8, so that nobody takes it for text.
MARK = b"\x93v6-algorithm reply\n"
_PART = "$part"
_LENGTH_BYTES = 8


def take_out(content: Mapping[str, Any], packed: type[str]) -> tuple[dict[str, Any], list[bytes]]:
    """Return a message without its large texts of the type `packed`, and these as the bytes that they are base64 of."""
    import pybase64

    parts: list[bytes] = []

    def without(value: Any) -> Any:
        if isinstance(value, packed) and len(value) >= LEAST_CHARACTERS:
            parts.append(pybase64.b64decode(value, validate=True))
            return {_PART: len(parts) - 1}
        if isinstance(value, Mapping):
            return {key: without(item) for key, item in value.items()}
        return [without(item) for item in value] if isinstance(value, (list, tuple)) else value

    return {key: without(value) for key, value in content.items()}, parts


class Frame:
    """The file of a reply while it is written; an earlier attempt at it is written over.

    Parameters
    ----------
    path
        Where.

    Attributes
    ----------
    sizes
        Bytes of the parts so far.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self.sizes: list[int] = []

    def add(self, pieces: Iterable[bytes]) -> None:
        """Write a part, piece by piece."""
        if self._file is None:
            self._file = open(self._path, "wb")  # noqa: SIM115 - `finish` closes it
            self._file.write(MARK)
        self.sizes.append(0)
        for piece in pieces:
            self._file.write(piece)
            self.sizes[-1] += len(piece)

    def give_up(self) -> None:
        """Close the file, so that nothing is written into it any more."""
        if self._file is not None:
            self._file.close()

    def finish(self, message: Mapping[str, Any]) -> None:
        """Write the message, and close the file."""
        if self._file is None:
            raise ValueError("a frame needs a part")
        text = json.dumps({"message": message, "parts": self.sizes}).encode()
        with self._file as file:
            file.write(text + len(text).to_bytes(_LENGTH_BYTES, "big"))


def is_frame(text: TextFile | bytes) -> bool:
    """Say whether a file, or what was read of one, is such a reply."""
    return (text if isinstance(text, bytes) else text.at(0, len(MARK))).startswith(MARK)


def read(text: TextFile, loads: Callable[[str], Any]) -> Any:
    """Return the message of such a file; its parts come as `LongBytes`, and stay there.

    Raises
    ------
    ValueError
        When the file is not as `Frame` writes it, or as `loads` does.
    """
    from v6_algorithm.exchange.in_file import LongBytes

    total = len(text)
    length = int.from_bytes(text.at(total - _LENGTH_BYTES, _LENGTH_BYTES), "big")
    end = total - _LENGTH_BYTES - length
    if end < len(MARK):
        raise ValueError("its message is longer than the file")
    content = loads(text.at(end, length).decode())
    sizes = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(sizes, list) or any(type(size) is not int or size < 0 for size in sizes):
        raise ValueError("the sizes of its parts are no whole numbers")
    if sum(sizes) != end - len(MARK):
        raise ValueError("its parts do not fill the file")
    starts = [len(MARK) + sum(sizes[:number]) for number in range(len(sizes))]

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {_PART}:
                number = value[_PART]
                if type(number) is not int or not 0 <= number < len(sizes):
                    raise ValueError("it names a part that is not there")
                return LongBytes(text, starts[number], sizes[number])
            return {key: whole(item) for key, item in value.items()}
        return [whole(item) for item in value] if isinstance(value, list) else value

    return whole(content.get("message"))
