"""What the Python API takes as a site's rows: a dataframe, a file or folder, arrays, or keys as in an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import source_of
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, Source

if TYPE_CHECKING:
    import pandas as pd

_SHAPES = "2-D (rows, columns), 3-D (rows, time, channels), 4-D (rows, channels, height, width), 5-D volumes"


def tables_of_sites(sites: Mapping[str, Any], experiment: Experiment) -> dict[str, TableSource]:
    """Return each site's table.

    Parameters
    ----------
    sites
        Site name to: a pandas DataFrame; a path (csv, parquet, xlsx, sqlite, npz, a folder of images with a table);
        ``(X, y)`` or ``X`` alone, arrays, see `frame_of`; or a mapping such as ``{"uri": …, "query": …}``.
    experiment
        Its `data` says which columns are used; of arrays the target becomes the column `data.target`.

    Raises
    ------
    ExperimentError
        When a site is given in another way, or its file is not there.
    """
    check_sites(sites)
    return {str(name): source_of_rows(rows, experiment, f"site '{name}'") for name, rows in sites.items()}


def check_sites(sites: Any) -> None:
    """Refuse what is no mapping of names to rows; raises ExperimentError."""
    if not isinstance(sites, Mapping) or not sites:
        given = "no site is named" if isinstance(sites, Mapping) else f"a {type(sites).__name__} is not taken"
        raise ExperimentError(f"sites: {given}; allowed: a mapping of names to rows, as {{'a': frame, 'b': 'b.csv'}}")


def source_of_rows(rows: Any, experiment: Experiment, where: str) -> TableSource:
    """Return one table; see `tables_of_sites`."""
    if hasattr(rows, "columns") and hasattr(rows, "iloc"):
        return TableSource(frame=rows)
    if isinstance(rows, (str, Path)):
        return source_of(where, Source(uri=str(rows)), Path.cwd(), experiment)
    if isinstance(rows, Mapping):
        if unknown := [str(key) for key in rows if key not in Source.model_fields]:
            raise ExperimentError(
                f"{where}: a mapping with '{unknown[0]}' is not taken; allowed keys: {', '.join(Source.model_fields)}; "
                "of columns make a DataFrame"
            )
        return source_of(where, Source.model_validate(dict(rows)), Path.cwd(), experiment)
    if isinstance(rows, (tuple, list)) and len(rows) == 2:
        return TableSource(frame=frame_of(rows[0], rows[1], experiment, where))
    if hasattr(rows, "shape"):
        return TableSource(frame=frame_of(rows, None, experiment, where))
    raise ExperimentError(
        f"{where}: a {type(rows).__name__} is not taken; allowed: a DataFrame, a path, (X, y) arrays, or "
        "a mapping with uri"
    )


def frame_of(x: Any, y: Any, experiment: Experiment, where: str) -> pd.DataFrame:
    """Make a table of arrays.

    Parameters
    ----------
    x
        (rows, columns) numbers: columns ``x0``, ``x1``, …; (rows, time, channels): one column of series, that of
        `data.sequence`; (rows, channels, lengths …): pixels as columns, with `data.image.shape`.
    y
        (rows,) what is learned, or None where nothing is (to predict).
    experiment, where
        Names the columns; what to call the site in messages.
    """
    import pandas as pd

    values = np.asarray(x)
    if values.ndim < 2 or values.ndim > 5 or (not np.issubdtype(values.dtype, np.number) and values.dtype != bool):
        raise ExperimentError(f"{where}: X is {values.ndim}-D of {values.dtype}; allowed: numbers, {_SHAPES}")
    if values.ndim == 3:
        column = experiment.data.sequence.column if experiment.data.sequence else "series"
        frame = pd.DataFrame({column: [row.tolist() for row in values]})
    else:
        flat = values.reshape(len(values), -1)
        frame = pd.DataFrame(flat, columns=[f"x{number}" for number in range(flat.shape[1])])
    if y is None:
        return frame
    columns = list(experiment.data.target_columns.values())
    target = np.asarray(y)
    if len(target) != len(values):
        raise ExperimentError(f"{where}: X has {len(values)} rows, y has {len(target)}")
    target = target.reshape(len(target), -1)
    if target.shape[1] != len(columns):
        raise ExperimentError(
            f"{where}: y has {target.shape[1]} column{'s' * (target.shape[1] != 1)}, the experiment learns "
            f"{len(columns)}: {', '.join(columns)}"
        )
    return frame.assign(**{name: target[:, number] for number, name in enumerate(columns)})


def keys_of_arrays(sites: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that an experiment needs where its sites are arrays: problem, series or image, by their shape."""
    check_sites(sites)
    for rows in sites.values():
        x = rows[0] if isinstance(rows, (tuple, list)) and len(rows) == 2 else rows
        shape = getattr(x, "shape", None)
        if shape is None or hasattr(x, "columns"):
            continue
        if len(shape) == 3:
            return {"problem": {"kind": "sequence_classification"}, "data": {"sequence": {"column": "series"}}}
        if len(shape) in (4, 5):
            kind = "image_classification" if len(shape) == 4 else "volume_classification"
            image = {"shape": [int(length) for length in shape[1:]], "dimensions": len(shape) - 2}
            return {"problem": {"kind": kind}, "data": {"image": image}}
    return {}
