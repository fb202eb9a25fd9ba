"""A template of file names, `data.image.files`: which images of a folder there are, and what their names say of them.

`data.imaging.naming` reads a folder by it. A template is not a regular expression, for it comes from a task and is read
at a hospital: each part of a name is found in one pass from its ends, so that no name takes long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# `{name}`, `{name:2}`, `*`, or what a name has as it stands.
_TOKEN = re.compile(r"\{(?P<name>[A-Za-z_]\w*)(?::(?P<width>[1-9]\d?))?\}|(?P<star>\*)|(?P<text>[^{}*]+)")
_LONGEST = 200


@dataclass(frozen=True)
class Field:
    """A piece of a name that becomes a column; with `width` of exactly so many characters."""

    name: str
    width: int | None = None


@dataclass(frozen=True)
class Level:
    """One folder's or file's name: what stands before its `*` and after it; `after` is None where it has none."""

    before: tuple[Field | str, ...]
    after: tuple[Field | str, ...] | None

    def read(self, name: str) -> dict[str, str] | None:
        """Return the fields of a name, or None where it does not fit."""
        fields: dict[str, str] = {}
        rest = _take(self.before, name, fields, open_end=self.after is not None)
        if rest is None:
            return None
        if self.after is None:
            return None if rest else fields
        # From the end, what comes last comes first.
        mirrored = tuple(piece[::-1] if isinstance(piece, str) else piece for piece in self.after[::-1])
        backwards: dict[str, str] = {}
        if _take(mirrored, rest[::-1], backwards, open_end=True) is None:
            return None
        return fields | {field: text[::-1] for field, text in backwards.items()}


@dataclass(frozen=True)
class Template:
    """The levels of a path from the folder to the image."""

    levels: tuple[Level, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template; raises ValueError with a sentence about what is wrong with it."""
        if not text or len(text) > _LONGEST:
            raise ValueError(f"must have 1 to {_LONGEST} characters")
        if any(level in ("", ".", "..") for level in text.split("/")):
            raise ValueError("must be names with / between them, from the folder down")
        template = cls(tuple(_level(level) for level in text.split("/")))
        names = template.fields
        if not names:
            raise ValueError("has no {field}: nothing would be known of an image")
        if len(set(names)) < len(names):
            raise ValueError("has a field twice")
        return template

    @property
    def fields(self) -> list[str]:
        """Names of the columns that it makes."""
        pieces = [piece for level in self.levels for piece in (*level.before, *(level.after or ()))]
        return [piece.name for piece in pieces if isinstance(piece, Field)]

    def read(self, path: str) -> dict[str, str] | None:
        """Return the fields of a path from the folder down, with / between its names; None where it does not fit."""
        names = path.split("/")
        if len(names) != len(self.levels):
            return None
        fields: dict[str, str] = {}
        for level, name in zip(self.levels, names, strict=True):
            level_fields = level.read(name)
            if level_fields is None:
                return None
            fields |= level_fields
        return fields


def _level(text: str) -> Level:
    pieces: list[Field | str] = []
    star: int | None = None
    end, loose = 0, 0
    for token in _TOKEN.finditer(text):
        if token.start() != end:
            break
        end = token.end()
        if token["star"]:
            if star is not None:
                raise ValueError(f"has two * in '{text}'; one is allowed between two /")
            star = len(pieces)
        else:
            pieces.append(token["text"] or Field(token["name"], int(token["width"]) if token["width"] else None))
        # What has no width ends at a text, or at the end of the name: of two side by side neither would.
        loose = 0 if token["text"] else loose + (token["width"] is None)
        if loose > 1:
            raise ValueError(f"does not say where a field of '{text}' ends; put text between, or a width: {{name:1}}")
    if end != len(text):
        raise ValueError(f"cannot be read at '{text[end : end + 20]}'; a field is written {{name}} or {{name:2}}")
    if star is None:
        return Level(tuple(pieces), None)
    return Level(tuple(pieces[:star]), tuple(pieces[star:]))


def _take(pieces: tuple[Field | str, ...], text: str, fields: dict[str, str], *, open_end: bool) -> str | None:
    """Take the pieces off the front of a text; return what is left, or None where they do not fit."""
    for place, piece in enumerate(pieces):
        if isinstance(piece, str):
            if not text.startswith(piece):
                return None
            text = text[len(piece) :]
            continue
        following = pieces[place + 1 :]
        end = piece.width or _end(following, text, open_end=open_end)
        before = pieces[place - 1] if place else None
        value = text[:end] if 0 < end <= len(text) else ""
        # What separates it from its neighbours is not in it: a name that can be read in two ways does not fit.
        if not value or (isinstance(before, str) and piece.width is None and before in value):
            return None
        fields[piece.name], text = value, text[len(value) :]
    return text


def _end(following: tuple[Field | str, ...], text: str, *, open_end: bool) -> int:
    """Return how many characters a field without a width has: up to the next text, less the widths before that."""
    widths = 0
    for piece in following:
        if isinstance(piece, str):
            return text.find(piece, widths) - widths
        widths += piece.width or 0
    return len(text) - widths
