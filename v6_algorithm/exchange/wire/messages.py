"""Requests and replies as JSON text, and every check on a reply's form."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from v6_algorithm.errors import WireError
from v6_algorithm.exchange import frames
from v6_algorithm.exchange.in_file import LongString, TextFile, read_json
from v6_algorithm.exchange.wire.packed import Held, Packed

SCHEMA = 1
# Squares and sums of squares of such numbers over all sites are still finite; no measured quantity is larger.
LARGEST_NUMBER = 1e100
# How deep in a reply the keys of an item are: reply, folds, item.
_IN_AN_ITEM = 3
_MOST_DIGITS, _LARGEST_COUNT = 20, 2**62


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
_NUMBERS = PLAIN - {str}


def to_text(content: Mapping[str, Any]) -> str:
    """Write a message as JSON text; a NaN is refused, for browsers do not read it."""
    pieces, packed = _pieces(content)
    written = pieces[0]
    for value, piece in zip(packed, pieces[1:], strict=True):
        if isinstance(value, Packed):
            written = "".join((written, value))
        else:
            for letters in value.letters():
                # Of a text that nobody else holds this lengthens it where it is.
                written += letters
        written += piece
    return written


def as_read(content: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return what a reader gets of the text of a message, and how long that text is.

    Equal to parsing what `to_text` returns, but each model's text is made by itself: with the text of the whole
    message all of them would be in memory twice.
    """
    pieces, packed = _pieces(content)
    mark = secrets.token_hex(16)
    texts = [_plain(value) for value in packed]
    length = sum(map(len, pieces)) + sum(map(len, texts))
    texts.reverse()
    read: dict[str, Any] = _with_packed(json.loads(mark.join(pieces)), mark, texts)
    return read, length


def _plain(value: Packed | Held) -> str:
    if isinstance(value, Packed):
        return str(value)
    written = ""
    for letters in value.letters():
        written += letters
    return written


def _with_packed(value: Any, mark: str, texts: list[str]) -> Any:
    """Put texts, the first one last, in the places of `mark`."""
    if value == mark:
        return texts.pop()
    if isinstance(value, dict):
        return {key: _with_packed(item, mark, texts) for key, item in value.items()}
    if isinstance(value, list):
        # As in `_without_packed`: what is flat has no mark, or few.
        return [_with_packed(item, mark, texts) if type(item) not in _NUMBERS else item for item in value]
    return value


def text_length(content: Mapping[str, Any]) -> int:
    """Return how long the text of a message is, without making one of what is packed or held."""
    pieces, packed = _pieces(content)
    return sum(map(len, pieces)) + sum(len(value) if isinstance(value, Packed) else value.length for value in packed)


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
