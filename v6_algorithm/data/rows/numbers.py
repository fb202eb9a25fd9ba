"""Rows of numbers: each feature is a column of the table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.rows.kind import Agreed, Array, RowKind, Schemas, listed

if TYPE_CHECKING:
    import pandas as pd

# Columns of a wide table that are converted at once.
_BLOCK_COLUMNS = 512
# Names that say "this is who, not what": numeric, but nothing to learn from. `data.features` overrules this.
_IDENTIFIER = re.compile(
    r"(index|unnamed: 0|(.*_)?id|subject|patient|name|(subject|patient|record|sample)[ _]?(id|nr|no))", re.I
)


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
                problems.append(f"column '{name}', an input of the model, is not there")
            elif columns[name] not in ("numeric", "empty"):
                problems.append(f"column '{name}' holds {columns[name]} where the model's input is numbers")
        return problems + [
            f"column '{name}', an input of the model, is not there" for name in setup.categories if name not in columns
        ]

    def _features(self, schemas: Schemas, notes: list[str], problems: list[str]) -> list[str]:
        data = self.data
        if data.features is not None:
            return [name for name in data.features if name not in data.categorical]
        used = {*data.target_columns.values(), data.group, data.synthetic, *data.split_columns}
        used |= {*data.exclude, *data.categorical}
        everywhere, somewhere, identifiers = [], [], []
        names = dict.fromkeys(name for schema in schemas.values() for name in schema["columns"])
        for name in names:
            kinds = {site: schema["columns"].get(name) for site, schema in schemas.items()}
            numeric = [site for site, kind in kinds.items() if kind == "numeric"]
            if name in used or not numeric:
                continue
            if looks_like_identifier(name):
                identifiers.append(name)
            elif text := [site for site, kind in kinds.items() if kind in ("text", "other")]:
                problems.append(
                    f"site '{text[0]}': column '{name}' holds {kinds[text[0]]}, at site '{numeric[0]}' it holds "
                    "numbers; clean it there, list it under data.categorical, or leave it out with data.exclude"
                )
            elif None in kinds.values():
                somewhere.append(name)
            else:
                everywhere.append(name)
        if identifiers:
            notes.append(f"left out as identifiers by their names: {listed(identifiers)}")
        if somewhere:
            notes.append(f"left out because not every site has them: {listed(somewhere)}")
        return everywhere


def looks_like_identifier(name: str) -> bool:
    """Say whether a column's name tells that it says who, not what."""
    return _IDENTIFIER.fullmatch(name.strip()) is not None


def numbers_of(frame: pd.DataFrame, features: list[str], dtype: str) -> Array:
    """Return (rows, features) numbers, NaN where a cell is empty or infinite; some columns at a time."""
    import pandas as pd

    values = np.empty((len(frame), len(features)), dtype=dtype)
    for start in range(0, len(features), _BLOCK_COLUMNS):
        block = frame[features[start : start + _BLOCK_COLUMNS]]
        text = [name for name, kind in block.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
        block = block.assign(**{str(name): pd.to_numeric(block[name], errors="coerce") for name in text})
        numbers = block.to_numpy(dtype=dtype, na_value=np.nan)
        values[:, start : start + _BLOCK_COLUMNS] = np.where(np.isfinite(numbers), numbers, np.nan)
    return values
