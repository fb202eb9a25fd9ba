"""Where the knots of a regression's curves are: at quantiles of all sites' rows; `negotiate` asks for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from v6_algorithm.coordinator.preparation.quantile_cells import gather_cells
from v6_algorithm.coordinator.preparation.questions import Gather
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.quantiles import next_windows, quantiles
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.terms import KNOT_SHARES


def agree_on_knots(
    gather: Gather, experiment: Experiment, setup: Setup, moments: Moments, sites: Sequence[str]
) -> tuple[Setup, list[str]]:
    """Return the setup with the knots of its curves, and a sentence that says where they are.

    Those that the experiment does not place are quantiles of the training rows of all sites, rounded to a tenth of the
    order of the column's standard deviation: a round number tells of nobody, and can be written in a paper.

    Raises
    ------
    ExperimentError
        When a column has too few different values for its number of knots.
    """
    if setup.terms is None or not setup.terms.splines:
        return setup, []
    splines = experiment.model.splines  # type: ignore[union-attr]
    numbers = {name: spline.number for name, spline in splines.items() if isinstance(spline.knots, int)}
    folds = len(moments.rows)
    knots = {
        name: np.tile(np.array(spline.knots, dtype=np.float64), (folds, 1))
        for name, spline in splines.items()
        if name not in numbers
    }
    if numbers:
        shares = sorted({share for n in numbers.values() for share in KNOT_SHARES[n]})
        cells = gather_cells(
            gather,
            sites,
            replace(setup, terms=None),
            moments.mean.size,
            lambda told: next_windows([site.columns() for site in told], shares),
        )
        columns = list(zip(*(site.columns() for site in cells), strict=True))
        for name, number in numbers.items():
            feature = setup.features.index(name)
            of_folds = [columns[fold * len(setup.features) + feature] for fold in range(folds)]
            places = [
                _rounded(
                    [quantile.value for quantile in quantiles(column, KNOT_SHARES[number])],
                    float(moments.deviation[fold, feature]),
                )
                for fold, column in enumerate(of_folds)
                if any(len(rows) for rows, *_ in column)
            ]
            if len(places) < folds or any(len(set(of_fold)) < number for of_fold in places):
                raise ExperimentError(
                    f"model.splines: '{name}' has too few different values for {number} knots at its quantiles; take "
                    "fewer, give their places, or leave the column a straight line"
                )
            knots[name] = np.array(places)
    told = "; ".join(f"{name} at {', '.join(f'{place:g}' for place in knots[name][0])}" for name in setup.terms.splines)
    where = "" if folds == 1 else " (of the first fold)"
    return replace(setup, terms=setup.terms.with_knots(knots)), [f"knots{where}: {told}"]


def _rounded(places: Sequence[float], deviation: float) -> list[float]:
    """Round to a tenth of the largest power of ten that is not above the deviation."""
    if deviation <= 0:
        return list(places)
    digits = 1 - math.floor(math.log10(deviation))
    return [round(place, digits) for place in places]
