"""Tables in terminals that are narrower than they are: columns go into further tables, and no number is cut.

A title that is wider than its table stands on a line of its own, so that it does not wrap inside the table's width.

Called by the console of `terminal` for every table that a command prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

_UNBOUNDED = 100_000


def pieces(console: Console, table: Table) -> list[Table | Text]:
    """Return what shows a table in the width of a console: itself where it fits, else its columns in several tables.

    Parameters
    ----------
    console : rich.console.Console
        Where they are shown.
    table : rich.table.Table
        A table of any width. Its first column names the rows and stands in each piece; headers wrap
        between words, and so do cells that fold, or are wider than half of the console.

    Returns
    -------
    list of rich.table.Table or rich.text.Text
        The title as text where the table is narrower than it, then tables as wide as the console at most.
    """
    from rich.box import SIMPLE_HEAD

    made: list[Table | Text] = []
    compact = _with(table, table.columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    if _width(console, table) <= console.width or len(table.columns) < 2:
        made = [table]
    elif _width(console, compact) <= console.width:
        made = [compact]
    else:
        made = [*_columns_that_fit(console, table)]
    return [*_long_title(console, made[0]), *made]  # type: ignore[arg-type]


def _columns_that_fit(console: Console, table: Table) -> list[Table]:
    """Return tables of the first column and as many others as fit; the first has the title, the last the caption."""
    first, *others = [_Widths.of(console, column) for column in table.columns]
    made: list[Table] = []
    taken: list[_Widths] = []
    for column in others:
        if taken and _width(console, _narrowest(table, [first, *taken, column])) > console.width:
            made.append(_spread(console, table, [first, *taken]))
            taken = []
        taken.append(column)
    made.append(_spread(console, table, [first, *taken]))
    for piece in made[:-1]:
        piece.caption = None
    for piece in made[1:]:
        piece.title = None
    return made


def _long_title(console: Console, table: Table) -> list[Text]:
    """Take the title of a table that is narrower than it, and return it."""
    from rich.text import Text

    if table.title is None:
        return []
    title = table.title if isinstance(table.title, Text) else Text.from_markup(str(table.title))
    if title.cell_len <= _width(console, table):
        return []
    table.title = None
    title = title.copy()
    title.stylize("table.title")
    return [title]


def _width(console: Console, table: Table) -> int:
    """Return the characters that a table takes where it has all the room it wants."""
    return console.measure(table, options=console.options.update(max_width=_UNBOUNDED)).maximum


@dataclass(frozen=True)
class _Widths:
    """A column, the fewest characters in which none of its words or numbers is cut, and those it takes on one line."""

    column: Column
    fewest: int
    natural: int

    @classmethod
    def of(cls, console: Console, column: Column) -> _Widths:
        """Measure a column: headers wrap between words, cells where the column folds or is wide."""
        from rich.measure import Measurement

        options = console.options.update(max_width=_UNBOUNDED)
        header = Measurement.get(console, options, column.header)
        cells = [Measurement.get(console, options, cell) for cell in column.cells]
        widest = max((cell.maximum for cell in cells), default=1)
        longest_word = max((cell.minimum for cell in cells), default=1)
        most = max(console.width // 2 - 4, 8)
        fewest = min(widest, max(longest_word, 12)) if column.overflow == "fold" else widest
        fewest = min(max(header.minimum, fewest), most)
        column = replace(column, overflow="fold") if widest > most else column
        return cls(column, fewest, max(header.maximum, widest))

    def at(self, width: int) -> Column:
        """Return the column in just so many characters."""
        return replace(self.column, min_width=width, max_width=width)


def _narrowest(table: Table, columns: Sequence[_Widths]) -> Table:
    return _with(table, [column.at(column.fewest) for column in columns])


def _spread(console: Console, table: Table, columns: Sequence[_Widths]) -> Table:
    """Return a table of these columns, in which the first ones that want it take what room the terminal has."""
    room = max(console.width - _width(console, _narrowest(table, columns)), 0)
    wide: list[Column] = []
    for column in columns:
        more = min(room, max(column.natural - column.fewest, 0))
        wide.append(column.at(column.fewest + more))
        room -= more
    return _with(table, wide)


def _with(table: Table, columns: Sequence[Column], **options: Any) -> Table:
    """Return a table like another, of these columns with their cells."""
    from rich.table import Table as Made

    kept = ("title", "caption", "box", "pad_edge", "padding", "collapse_padding", "show_header")
    piece = Made(**{name: getattr(table, name) for name in kept} | options)
    for column in columns:
        shown = ("justify", "overflow", "no_wrap", "min_width", "max_width", "style")
        piece.add_column(column.header, **{name: getattr(column, name) for name in shown})
    for row, cells in zip(table.rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        piece.add_row(*cells, style=row.style, end_section=row.end_section)
    return piece
