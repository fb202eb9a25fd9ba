"""How a table is written: what separates cells, how numbers and letters are written, which words are no empty cells.

`data` says it for all sites, and `sites` for one table of a local run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from v6_algorithm.experiment.base import refuse


def _known_encoding(name: str) -> str:
    import codecs

    try:
        codecs.lookup(name)
    except (LookupError, ValueError):
        raise refuse(f"unknown encoding '{name}'; such as utf-8, latin-1, cp1252, utf-16") from None
    return name


def _one_character(text: str) -> str:
    if len(text) != 1:
        raise refuse(f"must be one character, such as ';' or '\\t', not {text!r}")
    return text


Separator = Annotated[str, AfterValidator(_one_character)] | None
Decimal = Literal[".", ","] | None
Thousands = Literal[".", ",", "'", " "] | None
Encoding = Annotated[str, AfterValidator(_known_encoding)] | None
Words = list[str]


@dataclass(frozen=True)
class TableForm:
    """How a table is written; None: as is usual, which is a comma, a decimal point, no thousands mark and UTF-8.

    `kept` are words that are no empty cells, `whole` columns whose cells are arrays, and `measures` is the column that
    names tables of a subject. Of `codes`, which are labels, 01 is not 1.
    """

    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    kept: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    measures: str | None = None
    codes: tuple[str, ...] = ()

    @classmethod
    def of(cls, section: Any) -> TableForm:
        """Read the keys of a section."""
        kept = tuple(getattr(section, "not_missing", ()))
        return cls(section.separator, section.decimal, section.thousands, section.encoding, kept)

    def over(self, other: TableForm) -> TableForm:
        """Return this form, with what it leaves open as `other` says."""
        return TableForm(
            self.separator or other.separator,
            self.decimal or other.decimal,
            self.thousands or other.thousands,
            self.encoding or other.encoding,
            self.kept or other.kept,
            self.whole or other.whole,
            self.measures or other.measures,
            self.codes or other.codes,
        )


USUAL = TableForm()
_KEY = re.compile(r"\bdata\.(separator|decimal|thousands|encoding)\b")


def of_one_table(remedy: str, site: str) -> str:
    """Return what to add to a remedy such as ``data.separator: ";"`` where one site's table alone is written so."""
    keys = [f"sites.{site}.{key}" for key in dict.fromkeys(_KEY.findall(remedy))]
    return f" ({', '.join(keys)} in a local run, where only this table is written so)" if keys else ""


def check_marks(decimal: str | None, thousands: str | None, separator: str | None) -> None:
    """Refuse one character for two uses."""
    if (decimal or ".") == thousands:
        raise refuse(f"decimal and thousands are both '{thousands}'; one mark has one use")
    if separator is not None and separator == thousands:
        raise refuse(f"separator and thousands are both '{separator}'; one mark has one use")
