"""Two runs over the same folds: the difference of each metric with an interval, for `api.paired` and `report --paired`.

The rows that a fold tests are the same in both runs, so chance that lies in the rows falls out of the difference; two
intervals that overlap say nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from v6_algorithm.coordinator.inference.distributions import t_p, t_quantile
from v6_algorithm.errors import ExperimentError
from v6_algorithm.researcher.report.reading import finite, mapping, sequence

if TYPE_CHECKING:
    import pandas as pd

    from v6_algorithm.researcher.python.result import Result

# What decides which rows are in which part.
_OF_ROWS = ("target", "targets", "positive", "group", "synthetic", "split_column", "where", "load_limit")
_LEAST_FOLDS = 3


def paired(first: Result, second: Result, part: str = "test") -> pd.DataFrame:
    """Compare two runs of one cross-validation, fold by fold.

    The difference is the second less the first, its interval by the corrected variance of Nadeau and Bengio, since
    folds share training rows: (1 / J + tested / trained) times that of the differences between J folds, Student's t.

    Parameters
    ----------
    first, second
        Runs with folds (``split: kfold`` or ``leave_one_site_out``), of one seed, split and set of rows.
    part
        ``test`` or ``validation``.

    Returns
    -------
    pandas.DataFrame
        By metric `first`, `second` (means over folds), `difference`, `low`, `high` (95 %), `p`, `folds`.

    Raises
    ------
    ExperimentError
        Where the runs have no folds, or not the same rows in them.

    References
    ----------
    Nadeau and Bengio (2003), Inference for the generalization error, Machine Learning 52(3), 239-281.
    """
    import pandas as pd

    contents = first.content, second.content
    _check_same(*contents)
    folds = [[mapping(fold) for fold in sequence(content, "folds")] for content in contents]
    scopes = [[mapping(fold, "metrics", part, "pooled") for fold in of_run] for of_run in folds]
    if not all(all(of_run) for of_run in scopes):
        raise ExperimentError(f"paired: a fold has no metrics of part {part}")
    trained = _mean_rows(folds[0], "train")
    lines: dict[str, dict[str, Any]] = {}
    for metric in scopes[0][0]:
        if metric in ("n", "non_finite") or metric.endswith(("_low", "_high", "_resolution", "_se")):
            continue
        pairs = [(finite(a.get(metric)), finite(b.get(metric))) for a, b in zip(*scopes, strict=True)]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if len(known) < len(pairs):
            continue
        differences = [b - a for a, b in known]
        error = sqrt((1 / len(known) + _mean_rows(folds[0], part) / trained) * variance(differences))
        mean, freedom = fmean(differences), len(known) - 1
        reach = t_quantile(0.975, freedom) * error
        lines[metric] = {
            "first": fmean(a for a, _ in known),
            "second": fmean(b for _, b in known),
            "difference": mean,
            "low": mean - reach,
            "high": mean + reach,
            "p": t_p(mean / error, freedom) if error > 0 else float(mean == 0),
            "folds": len(known),
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("metric")


def _mean_rows(folds: Sequence[Mapping[str, Any]], part: str) -> float:
    return fmean(sum(mapping(fold, "sites", site, "n")[part] for site in mapping(fold, "sites")) for fold in folds)


def _check_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Raise ExperimentError unless both runs test the same rows in the same folds."""
    experiments = mapping(first, "experiment"), mapping(second, "experiment")
    for key in ("seed", "split"):
        one, other = (experiment.get(key) for experiment in experiments)
        if one != other:
            raise ExperimentError(f"paired: the runs differ in {key}, so that their folds are of other rows")
    for key in _OF_ROWS:
        if mapping(experiments[0], "data").get(key) != mapping(experiments[1], "data").get(key):
            raise ExperimentError(f"paired: the runs differ in data.{key}, so that their folds are of other rows")
    folds = [sequence(content, "folds") for content in (first, second)]
    if min(map(len, folds)) < _LEAST_FOLDS:
        raise ExperimentError(
            f"paired: needs {_LEAST_FOLDS} folds or more in both runs (split: kfold or leave_one_site_out)"
        )
    rows = [[mapping(fold, "sites") for fold in of_run] for of_run in folds]
    if rows[0] != rows[1]:
        raise ExperimentError("paired: the runs have other rows of sites in their folds")
