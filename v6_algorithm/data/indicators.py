"""Inputs that say whether a cell was empty: `data.missing.indicators`, made when a site reads its table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Data

if TYPE_CHECKING:
    import pandas as pd


def with_indicators(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Return the table with a column of 0 and 1 for each that is asked for: 1 where the cell holds no finite number.

    Raises
    ------
    DataError
        When the table has a column of that name.
    """
    import pandas as pd

    made = {}
    for name, column in data.indicators.items():
        if name in frame.columns:
            raise DataError(f"column '{name}' is there, and is what data.missing.indicators calls its own; rename it")
        if column in frame.columns:
            numbers = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            made[name] = (~np.isfinite(numbers)).astype(np.int64)
    return frame.assign(**made) if made else frame
