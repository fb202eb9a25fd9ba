"""Rows of time series: a column whose cells are arrays over time, or name files with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.files import names_files
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.rows.kind import (
    Agreed,
    Array,
    RowKind,
    Schemas,
    Shelf,
    channel_names,
    named_files_fingerprint,
)
from v6_algorithm.data.sequences import count_gaps, describe_sequences, find_files, read_files, stack_sequences
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.experiment import Data, Sequence

if TYPE_CHECKING:
    import pandas as pd

# Only these are sure to hold no arrays, which it would take long to read again in every round.
_WITHOUT_ARRAYS = ("csv", "excel")


class Series(RowKind):
    """Rows that are one time series each, whose channels are the features."""

    def __init__(self, data: Data, options: Any = None) -> None:
        super().__init__(data, options)
        self.sequence = data.sequence or Sequence(column="")

    def columns(self) -> dict[str, str]:
        """Return the column of the series."""
        return {"sequence": self.sequence.column}

    def describe(self, frame: pd.DataFrame) -> dict[str, Any]:
        """Tell lengths and channels."""
        return {"sequence": describe_sequences(frame[self.sequence.column], self.sequence)}

    def check(self, schema: Mapping[str, Any]) -> None:
        """Raise WireError unless lengths and channels are whole numbers."""
        described = schema["sequence"]
        if not all(
            isinstance(described[key], int) and 0 < described[key] < 10**9
            for key in ("shortest", "longest", "channels")
        ):
            raise WireError("shapes of time series must be whole numbers above 0")

    def agree(self, schemas: Schemas, notes: list[str], problems: list[str]) -> Agreed:
        """Name the channels, and choose the length that rows are brought to."""
        column = self.sequence.column
        channels = {site: schema["sequence"]["channels"] for site, schema in schemas.items()}
        if len(set(channels.values())) > 1:
            shown = ", ".join(f"{site} {number}" for site, number in channels.items())
            raise ExperimentError(f"data.sequence: column '{column}' has different numbers of channels: {shown}")
        shortest = min(schema["sequence"]["shortest"] for schema in schemas.values())
        longest = max(schema["sequence"]["longest"] for schema in schemas.values())
        padded = self.sequence.length == "longest"
        if (width := next(iter(channels.values()))) > longest:
            axes = "channels_time" if self.sequence.axes == "time_channels" else "time_channels"
            notes.append(
                f"time series are read as {longest} times of {width} channels; where it is the other way round, "
                f"data.sequence.axes: {axes}"
            )
        if longest > shortest and not padded:
            notes.append(
                f"time series are cut to their first {shortest} times, the shortest; the longest has {longest}"
            )
        return Agreed(
            channel_names(column, next(iter(channels.values()))),
            sequence_length=longest if padded else shortest,
            sequence_shortest=shortest,
        )

    def fingerprint(self, source: TableSource) -> str | None:
        """Identify the table and the files of series that it names."""
        return named_files_fingerprint(
            source, self.sequence.column, self.data.missing_values, find_files, _WITHOUT_ARRAYS
        )

    def read(self, frame: pd.DataFrame, source: TableSource, shelf: Shelf) -> pd.DataFrame:
        """Read the files that cells name, and note how many series have gaps."""
        name = self.sequence.column
        if name not in frame:
            return frame
        if names_files(frame[name]):
            frame = frame.assign(**{name: read_files(frame[name], find_files(frame[name], source.folder))})
        if gaps := count_gaps(frame[name]):
            source.assumed["gaps"] = [], gaps
        return frame

    def encode(self, frame: pd.DataFrame, setup: Setup, dtype: str) -> tuple[Array, Array]:
        """Return (rows, time, channels) values and, where rows are padded, their lengths."""
        values, lengths = stack_sequences(
            frame[self.sequence.column], self.sequence, setup.sequence_length or 0, len(setup.features), dtype
        )
        values[~np.isfinite(values)] = np.nan
        return values, lengths

    def misfits(self, schema: Mapping[str, Any], setup: Setup) -> list[str]:
        """Compare channels and lengths with the model's."""
        series, problems, times = schema["sequence"], [], setup.sequence_length or 0
        if series["channels"] != len(setup.features):
            problems.append(
                f"its time series have {series['channels']} channels, the model's have {len(setup.features)}"
            )
        if self.sequence.length == "shortest" and series["shortest"] < times:
            problems.append(f"its shortest time series has {series['shortest']} times, the model needs {times}")
        if self.sequence.length == "longest" and series["longest"] > times:
            problems.append(f"its longest time series has {series['longest']} times, the model takes {times} at most")
        return problems
