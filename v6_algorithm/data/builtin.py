"""Real data sets that come with scikit-learn, for demos and tests: ``source: builtin:NAME``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from v6_algorithm.errors import ExperimentError

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("breast_cancer", "digits", "diabetes", "wine")


def load_builtin(name: str) -> pd.DataFrame:
    """Return a data set as a table whose target column is ``target``.

    Raises
    ------
    ExperimentError
        When there is no such data set, or scikit-learn is not installed.
    """
    if name not in NAMES:
        raise ExperimentError(f"sites.source: unknown data set 'builtin:{name}'; allowed: {', '.join(NAMES)}")
    try:
        from sklearn import datasets
    except ImportError:
        raise ExperimentError(
            "sites.source: builtin data come with scikit-learn: pip install 'v6-algorithm[demo]'"
        ) from None
    frame: pd.DataFrame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    return frame
