"""Right content made wrong: parts of nested mappings and lists replaced, moved, cut or repeated, and texts likewise."""

from __future__ import annotations

import copy
import json
import random
import string
from collections.abc import Iterator
from typing import Any

WEIRD: list[Any] = [
    10**400, -(10**400), 1e308, -1e308, 10**18, 2**63, 0, -1, 1, 0.5, True, False, None, "", "01", "=1", "\x1b\x00",
    "\ud800", "x" * 5000, "../../etc/passwd", "data.target", "> 0", [], {}, [[]], [None], {"": None}, {"kind": "x"},
    [1, "a"], 1e-320, "nan", "1e999", "é\u202e",
]  # fmt: skip


class Right:
    """Right content, of which wrong copies are made without walking through all of it each time.

    Parameters
    ----------
    content
        Nested mappings and lists as JSON has them.
    but
        A key on top that stays as it is.
    """

    def __init__(self, content: Any, but: str | None = None) -> None:
        self._text = json.dumps(content)
        self._places = [path for path in places(json.loads(self._text)) if path[0] != but]

    def copy(self) -> Any:
        """Return it as it is."""
        return json.loads(self._text)

    def spoiled(self, draw: random.Random) -> Any:
        """Return a copy with one to three parts replaced, removed, renamed or swapped."""
        return _spoil(self.copy(), draw, self._places)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of nested mappings and lists, of long lists the first thirty."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(children)[:30]:
        yield from places(child, (*path, key))


def spoil(value: Any, draw: random.Random) -> Any:
    """Return a copy of nested mappings and lists with one to three parts replaced, removed, renamed or swapped."""
    return _spoil(copy.deepcopy(value), draw, list(places(value)))


def _spoil(value: Any, draw: random.Random, paths: list[tuple[Any, ...]]) -> Any:
    if not paths:
        return copy.deepcopy(draw.choice(WEIRD))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        try:
            *path, last = draw.choice(paths)
            place = value
            for key in path:
                place = place[key]
            _change(value, place, last, paths, draw)
        except (KeyError, IndexError, TypeError):  # an earlier change took that part away
            continue
    return value


def _change(value: Any, place: Any, last: Any, paths: list[tuple[Any, ...]], draw: random.Random) -> None:
    what = draw.randrange(6)
    if what == 0 and isinstance(place, dict):
        place[draw.choice(["x", "", "kind", "folds", "0"])] = place.pop(last)
    elif what == 1 and isinstance(place, list):
        place.extend(copy.deepcopy(place[:3]))
    elif what == 2:
        del place[last]
    elif what == 3:
        source = value
        for key in draw.choice(paths):
            source = source[key]
        place[last] = copy.deepcopy(source)
    elif what == 4 and isinstance(place[last], str):
        place[last] = spoil_text(place[last], draw)
    else:
        place[last] = copy.deepcopy(draw.choice(WEIRD))


def spoil_text(text: str, draw: random.Random) -> str:
    """Return a text with some of it replaced, removed, repeated or put in."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice((0, 1, 1, 4, 40)))
        put = draw.choice(["", text[start:end] * 2, draw.choice(string.printable), "\x00", "[", "{", ": ", "- ", "&a ",
                           "*a", "é", "9" * 30, "\t", "!!python/object:os.system ", "<<: "])  # fmt: skip
        text = text[:start] + put + text[end:]
    return text
