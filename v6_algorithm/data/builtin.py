"""Data for demos and tests, ``source: builtin:NAME``: real ones that come with scikit-learn, and made ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from v6_algorithm.errors import ExperimentError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

_SKLEARN = ("breast_cancer", "digits", "diabetes", "wine")


def load_builtin(name: str) -> pd.DataFrame:
    """Return a data set as a table; the target column of scikit-learn's is ``target``.

    Raises
    ------
    ExperimentError
        When there is no such data set, or scikit-learn is not installed.
    """
    if name in _MADE:
        return _MADE[name]()
    if name not in _SKLEARN:
        allowed = ", ".join([*_SKLEARN, *_MADE])
        raise ExperimentError(f"sites.source: unknown data set 'builtin:{name}'; allowed: {allowed}")
    try:
        from sklearn import datasets
    except ImportError:
        raise ExperimentError(
            "sites.source: builtin data come with scikit-learn: pip install 'v6-algorithm[demo]'"
        ) from None
    frame: pd.DataFrame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    return frame


def made_survival() -> pd.DataFrame:
    """Make 1,200 patients: ``days`` until ``died`` is 1, or until they were last seen; the same at every call.

    Times are of a Weibull distribution of shape 1.3 whose hazard hangs on age, stage, a marker in the shape of a U,
    and treatment in the young only, so that a network finds more than a linear model; 45 % are censored.
    """
    import numpy as np
    import pandas as pd

    rows, generator = 1200, np.random.default_rng(20)
    age, marker = generator.normal(62, 11, rows), generator.normal(0, 1, rows)
    stage, treated = generator.integers(1, 5, rows), generator.integers(0, 2, rows)
    risk = 0.03 * (age - 62) + 0.5 * (stage - 2.5) + 0.6 * (marker**2 - 1) - 0.9 * treated * (age < 62)
    days = 1100 * generator.weibull(1.3, rows) * np.exp(-risk / 1.3)
    followed = generator.uniform(100, 1800, rows)
    return pd.DataFrame(
        {
            "age": age.round(1),
            "stage": stage,
            "marker": marker.round(3),
            "treated": treated,
            "noise": generator.normal(0, 1, rows).round(3),
            "days": np.ceil(np.minimum(days, followed)).astype(int),
            "died": (days <= followed).astype(int),
        }
    )


def made_ica() -> pd.DataFrame:
    """Make 400 subjects of 6 ICA components over 120 scans, (component, time); the same at every call.

    Every component is noise of the same spread. In a `patient` two of them are slow: only the order of the scans tells.
    """
    import numpy as np
    import pandas as pd

    rows, components, times, generator = 400, 6, 120, np.random.default_rng(21)
    patient = generator.integers(0, 2, rows)
    slowness = np.full((rows, components), 0.2)
    slowness[:, :2] = np.where(patient, 0.75, 0.2)[:, None]
    series = np.empty((rows, components, times))
    series[:, :, 0] = generator.normal(size=(rows, components))
    for at in range(1, times):
        fresh = np.sqrt(1 - slowness**2) * generator.normal(size=(rows, components))
        series[:, :, at] = slowness * series[:, :, at - 1] + fresh
    return pd.DataFrame({"components": list(series.round(3)), "patient": patient})


_MADE: dict[str, Callable[[], pd.DataFrame]] = {"made_survival": made_survival, "made_ica": made_ica}
