"""Kinds of rows: numbers, series, image files, pixels in columns, and those that others install."""

from __future__ import annotations

from v6_algorithm.data.rows.image_files import ImageFiles
from v6_algorithm.data.rows.kind import RowKind
from v6_algorithm.data.rows.numbers import Numbers
from v6_algorithm.data.rows.pixels import Pixels
from v6_algorithm.data.rows.series import Series
from v6_algorithm.experiment import Data, plugins

__all__ = ["RowKind", "row_kind"]


def row_kind(data: Data) -> RowKind:
    """Return the kind of row that an experiment's `data` section asks for."""
    if data.rows is not None:
        kind: RowKind = plugins.row_kind(data.rows.kind)(data, data.rows.options())
        return kind
    if data.sequence is not None:
        return Series(data)
    if data.image is not None:
        return Pixels(data) if data.image.column is None else ImageFiles(data)
    return Numbers(data)
