"""Text from elsewhere made fit to be shown: in a terminal, a log, a table.

Called wherever a site's words, or names in its data, reach a screen or a file that other programs open.
"""

from __future__ import annotations

import unicodedata

# Control, format (among them those that turn the direction of writing), lone surrogates, line and paragraph separators.
_UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_REPLACED = "\N{REPLACEMENT CHARACTER}"
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@")
LONGEST = 2000


def printable(text: object, longest: int = LONGEST) -> str:
    """Return text in one line without characters that a terminal acts on, cut where it is too long."""
    given = str(text)
    if given.isascii() and given.isprintable() and len(given) <= longest:
        return given
    shown = "".join(
        " " if letter in "\t\r\n" else _REPLACED if unicodedata.category(letter) in _UNSHOWN else letter
        for letter in given[:longest]
    )
    return shown if len(given) <= longest else f"{shown} …"


def cell(value: object) -> object:
    """Return a cell of a csv file: text that a spreadsheet would run is quoted by an apostrophe; numbers stay."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    if not shown.startswith(_FORMULA):
        return shown
    try:
        float(shown)
    except ValueError:
        return f"'{shown}"
    return shown
