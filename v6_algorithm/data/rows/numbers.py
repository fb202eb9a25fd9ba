"""Rows of numbers: each feature is a column of the table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from v6_algorithm.data.description.hints import HINTS
from v6_algorithm.data.identifiers import looks_like_identifier
from v6_algorithm.data.measurements import without_unit
from v6_algorithm.data.names import not_there
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.reading.cells import FLOAT32_MAX, blurred, columns_at
from v6_algorithm.data.rows.kind import Agreed, Array, RowKind, Schemas, listed
from v6_algorithm.experiment.table_form import of_one_table

if TYPE_CHECKING:
    import pandas as pd

# Columns of a wide table that are converted at once.
_BLOCK_COLUMNS = 512


class Numbers(RowKind):
    """Rows whose features are columns of numbers."""

    tables: ClassVar[bool] = True

    def agree(self, schemas: Schemas, notes: list[str], problems: list[str]) -> Agreed:
        """Take `data.features`, or every numeric column that all sites have and that is not used otherwise."""
        features = self._features(schemas, notes, problems)
        return Agreed(features, required=features)

    def inputs(self, setup: Setup) -> list[str]:
        """Name the features."""
        return setup.features

    def encode(self, frame: pd.DataFrame, setup: Setup, dtype: str) -> tuple[Array, Array]:
        """Return (rows, features) numbers."""
        return numbers_of(frame, setup.features, dtype), np.empty(0, dtype=np.int64)

    def misfits(self, schema: Mapping[str, Any], setup: Setup) -> list[str]:
        """Name the inputs that the table has not, or not as numbers."""
        problems, columns = [], schema["columns"]
        for name in [*(setup.pixels or setup.features), *setup.covariates]:
            if name not in columns:
                problems.append(not_there(f"column '{name}', an input of the model,", name, columns))
            elif columns[name] not in ("numeric", "empty"):
                problems.append(f"column '{name}' holds {columns[name]} where the model's input is numbers")
        return problems + [
            not_there(f"column '{name}', an input of the model,", name, columns)
            for name in setup.categories
            if name not in columns
        ]

    def _features(self, schemas: Schemas, notes: list[str], problems: list[str]) -> list[str]:
        data = self.data
        if data.features is not None:
            return [name for name in data.features if name not in data.categorical]
        used = {*data.target_columns.values(), data.group, data.synthetic, *data.split_columns}
        used |= {*data.exclude, *data.categorical, data.measures}
        everywhere, left_out = [], LeftOut()
        names = dict.fromkeys(name for schema in schemas.values() for name in schema["columns"])
        plain = _plain_numbers(schemas.values())
        for name in names:
            if name in used:
                continue
            if name in plain and not looks_like_identifier(name):
                everywhere.append(name)
                continue
            kinds = {site: schema["columns"].get(name) for site, schema in schemas.items()}
            hints = {site: str(schema.get("hints", {}).get(name, "")) for site, schema in schemas.items()}
            numeric = [site for site, kind in kinds.items() if kind == "numeric"]
            identifies = looks_like_identifier(name) and "measured" not in hints.values()
            if identifies and not (name.startswith("Unnamed: ") and not numeric):
                left_out.identifiers.append(name)
            elif not numeric:
                left_out.add(name, kinds, hints)
            elif text := [site for site, kind in kinds.items() if kind in ("text", "other")]:
                reason, remedy = HINTS.get(hints[text[0]], ("", ""))
                problems.append(
                    f"site '{text[0]}': column '{name}' holds {reason or kinds[text[0]]}, at site '{numeric[0]}' it "
                    f"holds numbers; {remedy or 'clean it there, list it under data.categorical'}"
                    f"{of_one_table(remedy, text[0])}, or leave it out with data.exclude"
                )
            elif lacking := [site for site, kind in kinds.items() if kind is None]:
                left_out.somewhere[name] = lacking
            elif all(hints[site] == "row numbers" for site in numeric):
                left_out.row_numbers.append(name)
            else:
                everywhere.append(name)
        notes += left_out.notes()
        return everywhere


@dataclass
class LeftOut:
    """Columns that are not used, by the reason."""

    identifiers: list[str] = field(default_factory=list)
    somewhere: dict[str, list[str]] = field(default_factory=dict)
    row_numbers: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    text: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, kinds: Mapping[str, str | None], hints: Mapping[str, str]) -> None:
        """Add a column that holds numbers at no site."""
        if all(kind in ("empty", None) for kind in kinds.values()):
            self.empty.append(name)
        else:
            known = [reason for reason in hints.values() if reason in HINTS]
            self.text.setdefault(known[0] if known else "", []).append(name)

    def notes(self) -> list[str]:
        """Say for each reason which columns are not used, and what would make them so."""
        notes = []
        if self.identifiers:
            notes.append(
                f"left out as identifiers by their names: {listed(self.identifiers)}; "
                "data.features uses them all the same"
            )
        if self.row_numbers:
            notes.append(
                "left out, for they hold whole numbers that never repeat or only go up, such as row or patient "
                "numbers: "
                f"{listed(self.row_numbers)}; data.features uses them all the same"
            )
        if self.somewhere:
            lacking: dict[str, list[str]] = {}
            for name, sites in self.somewhere.items():
                lacking.setdefault(listed(sites), []).append(name)
            shown = "; ".join(f"{listed(names)} (not at {sites})" for sites, names in lacking.items())
            notes.append(f"left out because not every site has them: {shown}{_alike(list(self.somewhere))}")
        if self.empty:
            notes.append(f"left out, empty at every site that has them: {listed(self.empty)}")
        for reason, names in self.text.items():
            holds, remedy = HINTS.get(reason, ("text", f"use them with data.categorical: [{listed(names)}]"))
            notes.append(f"left out, for they hold {holds}: {listed(names)}; {remedy}")
        return notes


def _alike(names: Sequence[str]) -> str:
    """Say of names that not every site has which are one name, but for case, spaces or Unicode form."""
    from v6_algorithm.data.preparation.spelling import folded

    written: dict[object, list[str]] = {}
    for name in names:
        written.setdefault(folded(name), []).append(name)
    pairs = [" and ".join(f"{name!a}" for name in same) for same in written.values() if len(same) > 1]
    alike = f"; {'; '.join(pairs)} are one name, spelled differently: spell it alike at all sites" if pairs else ""
    bare: dict[object, list[str]] = {}
    for same in written.values():
        bare.setdefault(folded(without_unit(same[0])), []).append(same[0])
    units = [" and ".join(f"{name!a}" for name in same) for same in bare.values() if len(same) > 1]
    return alike + (
        f"; {'; '.join(units)} differ in the unit that their names have: write them in one unit there, under one name"
        if units
        else ""
    )


def _plain_numbers(schemas: Collection[Mapping[str, Any]]) -> set[str]:
    """Name the columns that hold numbers at every site, and of which none has anything to say."""
    at_sites = [{name for name, kind in schema["columns"].items() if kind == "numeric"} for schema in schemas]
    plain = set.intersection(*at_sites) if at_sites else set()
    return plain.difference(*(schema.get("hints", ()) for schema in schemas))


def numbers_of(frame: pd.DataFrame, features: list[str], dtype: str) -> Array:
    """Return (rows, features) numbers, NaN where a cell is empty or infinite; some columns at a time.

    They are float64, whatever `dtype` is, where a column's numbers are so far from 0 that float32 cannot tell them
    apart (10,000,000 and 10,000,000.4): `TableData.inputs` rounds them when they are centred.
    """
    import pandas as pd

    values = np.empty((len(frame), len(features)), dtype=dtype)
    places = {name: place for place, name in enumerate(frame.columns.tolist())}
    for start in range(0, len(features), _BLOCK_COLUMNS):
        names = features[start : start + _BLOCK_COLUMNS]
        block = columns_at(frame, [places[name] for name in names])
        kinds = block.dtypes.tolist()
        text = {kind for kind in set(kinds) if not pd.api.types.is_numeric_dtype(kind)}
        texts = [name for name, kind in zip(names, kinds, strict=True) if kind in text]
        if texts:
            block = block.assign(**{name: pd.to_numeric(block[name], errors="coerce") for name in texts})
        rounds = dtype == "float32" and len(frame) > 0 and set(kinds) != {np.dtype("float32")}
        if rounds and blurred(_within_float32(block.to_numpy(dtype=np.float64, na_value=np.nan))).any():
            return numbers_of(frame, features, "float64")
        numbers = values[:, start : start + _BLOCK_COLUMNS]
        # What float32 cannot hold becomes infinite, and counts as empty.
        of_numpy = not texts and all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in set(kinds))
        with np.errstate(over="ignore"):
            # Numbers of numpy have no other empty cell than NaN, which need not be looked for.
            numbers[:] = block.to_numpy(dtype=dtype) if of_numpy else block.to_numpy(dtype=dtype, na_value=np.nan)
        if (infinite := np.isinf(numbers)).any():
            numbers[infinite] = np.nan
        if dtype == "float64":
            numbers[:] = _within_float32(numbers)
    return values


def _within_float32(numbers: Array) -> Array:
    """Return float64 numbers with NaN for those that float32 cannot hold; the same array where there are none."""
    large = np.abs(numbers) > FLOAT32_MAX
    return np.where(large, np.nan, numbers) if large.any() else numbers
