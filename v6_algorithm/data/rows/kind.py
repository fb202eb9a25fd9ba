"""What a row is: the interface of every kind of row, and what a site has at hand to read one.

A kind says which columns it needs, and how a table of such rows is described, agreed on, fingerprinted, read and turned
into the arrays of `TableData`. `site`, `encoding`, `preparation` and the researcher's own table ask the kind of the
experiment (`row_kind`) and know none by name. A kind of your own is one subclass, installed under the entry-point group
``v6_algorithm.rows`` and asked for by ``data.rows``; see docs/extend.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from v6_algorithm.data.files import as_names, names_files, print_files
from v6_algorithm.data.missing_values import without_codes
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.experiment import Data
from v6_algorithm.experiment.base import Section

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.data.imaging.stack import TableImages
    from v6_algorithm.experiment.missing_values import MissingValues

Array = np.ndarray
Schemas = Mapping[str, Mapping[str, Any]]
_SHOWN = 30


class NoOptions(Section):
    """A kind of row without options."""


@dataclass(frozen=True)
class Shelf:
    """What one site has at hand to read rows.

    Attributes
    ----------
    fingerprint
        Identifies what a table, and the files that it names, hold; None where that cannot be told.
    memory
        What a process that serves several rounds may keep between them.
    state
        Folder that survives between rounds, or None.
    """

    fingerprint: Callable[[TableSource], str | None]
    memory: dict[Any, Any] = field(default_factory=dict)
    state: Path | None = None


@dataclass(frozen=True)
class Agreed:
    """What the sites agree on about rows of one kind; `features` name the model's numeric inputs, in their order.

    `required` are numeric columns that every site must have; the rest as in `Agreement`.
    """

    features: list[str]
    required: list[str] = field(default_factory=list)
    sequence_length: int | None = None
    sequence_shortest: int | None = None
    image_shape: list[int] | None = None
    pixels: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class RowKind:
    """Rows of one kind; a subclass overrides what differs from rows of numbers that need no file.

    Attributes
    ----------
    Options
        What may stand beside ``kind`` in ``data.rows``, for kinds that are installed.
    tables
        Whether numbers in other columns, such as covariates, are checked and used beside the rows.
    data, options
        The experiment's `data` section, and this kind's options.
    """

    Options: ClassVar[type[Section]] = NoOptions
    tables: ClassVar[bool] = False

    def __init__(self, data: Data, options: Any = None) -> None:
        self.data, self.options = data, options

    def columns(self) -> dict[str, str]:
        """Return the columns that must be there, by the key of `data` that names each."""
        return {}

    def describe(self, frame: pd.DataFrame) -> dict[str, Any]:
        """Describe the rows that have a target: entries of the site's schema; `facts` is for installed kinds.

        Raises DataError when the rows are not of this kind.
        """
        return {}

    def summarise(self, source: TableSource, smallest: int) -> dict[str, Any]:
        """Tell a researcher more of the rows than columns say, in cells of at least `smallest` rows."""
        return {}

    def describe_files(
        self, source: TableSource, shelf: Shelf, disclosed: Callable[[int], int | None]
    ) -> dict[str, Any]:
        """Describe the files that a table names; `told` returns a count, or None where it is too small to tell."""
        return {}

    def check(self, schema: Mapping[str, Any]) -> None:
        """Raise WireError, KeyError or TypeError unless a site's schema is of the form that `describe` gives."""

    def agree(self, schemas: Schemas, notes: list[str], problems: list[str]) -> Agreed:
        """Combine the sites' schemas; add to `notes` what is to be told, to `problems` what does not fit.

        Raises ExperimentError when the sites cannot agree.
        """
        raise NotImplementedError

    def inputs(self, setup: Setup) -> list[str]:
        """Name the table's columns whose cells are inputs, which a node's policy must allow."""
        return []

    def cells(self, setup: Setup) -> list[str]:
        """Name those of `inputs` that `encode` needs in the frame."""
        return self.inputs(setup)

    def fingerprint(self, source: TableSource) -> str | None:
        """Identify what a table, and the files that it names, hold; None where that cannot be told."""
        return source.fingerprint

    def read(self, frame: pd.DataFrame, source: TableSource, shelf: Shelf) -> pd.DataFrame:
        """Return a table with the cells that name files read, and without rows that cannot be."""
        return frame

    def usable(
        self, frames: dict[str, pd.DataFrame], sources: Mapping[str, TableSource], setup: Setup, shelf: Shelf
    ) -> tuple[dict[str, pd.DataFrame], dict[str, Array]]:
        """Return the frames with usable rows only, and of each which rows are copies: see `load_table`."""
        return frames, {}

    def encode(self, frame: pd.DataFrame, setup: Setup, dtype: str) -> tuple[Array, Array]:
        """Return (rows, features) or (rows, time, channels) values, NaN where empty, and (rows,) lengths or none."""
        raise NotImplementedError

    def positions(self, frame: pd.DataFrame) -> Array:
        """Return (rows,) places of the rows in their table, where they are needed later; else none."""
        return np.empty(0, dtype=np.int64)

    def images(
        self, sources: Mapping[str, TableSource], setup: Setup, shelf: Shelf, member: Array, position: Array
    ) -> TableImages | None:
        """Return the images of a table's rows, read when a batch asks for them; None where `encode` gave the values."""
        return None

    def misfits(self, schema: Mapping[str, Any], setup: Setup) -> list[str]:
        """Say why a trained model cannot be measured on a table of this schema; nothing where it can."""
        return []

    def remarks(self, schema: Mapping[str, Any]) -> list[str]:
        """Say what is to be told of a table that a model is measured on."""
        return []


def listed(names: Collection[str]) -> str:
    """Name columns for a message, at most 30 of them."""
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(list(names)[:_SHOWN]) + more


def some(count: int | None) -> str:
    """Write a count that a site may have too few of to tell."""
    return "some" if count is None else str(count)


def channel_names(column: str, number: int) -> list[str]:
    """Name the channels of a series or image."""
    return [f"{column}[{channel}]" for channel in range(number)]


def named_files_fingerprint(
    source: TableSource,
    column: str,
    missing_values: MissingValues,
    find: Callable[[pd.Series, Path | None], list[Any]],
    quick: Collection[str],
) -> str | None:
    """Identify a table and the files that one of its columns names.

    `find` returns the file of each cell; of sources that are not of a `quick` kind the column is not read again.
    """
    if source.fingerprint is None or source.kind not in quick:
        return source.fingerprint
    frame = without_codes(source.read(lambda name: name == column), missing_values)
    if column not in frame or not names_files(as_names(frame[column])):
        return source.fingerprint
    return f"{source.fingerprint}:{print_files(find(frame[column], source.folder))}"
