"""The calls of a multiple imputation, one a sweep: sums of products come in, drawn regressions go out with setups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.coordinator.preparation.questions import Gather
from v6_algorithm.data.preparation.imputation import Imputation, draw_regression
from v6_algorithm.data.preparation.setup import Setup, unpack_arrays
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.rows.kind import listed
from v6_algorithm.errors import WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER
from v6_algorithm.experiment import Experiment


def agree_on_imputation(
    gather: Gather, experiment: Experiment, setup: Setup, moments: Moments, sites: Sequence[str]
) -> tuple[Setup, list[str]]:
    """Return the setup with the regressions that fill empty cells, and sentences for the researcher."""
    missing = experiment.data.missing
    if missing.kind != "impute":
        return setup, []
    empty = moments.rows[0] - moments.count[0]
    columns = [name for name, cells in zip(setup.features, empty.tolist(), strict=True) if cells > 0]
    if not columns:
        return setup, ["data.missing impute: no numeric feature has an empty cell, so all imputations are the same"]
    width = 2 + len(setup.features) + len(setup.category_columns)
    made = Imputation.empty(columns, experiment.seed, missing.imputations, width)
    places = [1 + setup.features.index(name) for name in columns]
    shape = (missing.imputations, len(columns), width, width)
    for sweep in range(missing.iterations):
        answers = gather(
            sites,
            {"step": "imputation", "setup": replace(setup, imputation=made, terms=None).to_json()},
            lambda reply: _check(reply, shape),
        )
        sums = np.sum(list(answers.values()), axis=0)
        coefficients, deviations = np.zeros(shape[:3]), np.zeros(shape[:2])
        for number in range(missing.imputations):
            for column, place in enumerate(places):
                generator = seeding.numpy_generator(experiment.seed, "regression", number, sweep, column)
                coefficients[number, column], deviations[number, column] = draw_regression(
                    sums[number, column], place, generator
                )
        made = made.followed_by(coefficients, deviations)
    shares = [f"{name} {empty[setup.features.index(name)] / moments.rows[0]:.1%}" for name in columns]
    notes = [
        f"data.missing impute: empty cells are drawn {missing.imputations} times by chained equations, in "
        f"{missing.iterations} sweeps; empty are {listed(shares)}. The folds of this result are the imputations, and "
        "coefficients are pooled by Rubin's rules",
        "data.missing impute: where a site has fewer rows with empty cells than its node wants, these are left out, "
        "for the tables differ in them alone; under policies other than trusted also where fewer have theirs in the "
        "same columns. Such nodes draw cells from the regression, where others take values of rows that are near",
    ]
    if setup.categories:
        notes.append(
            f"data.missing impute: empty cells of {listed(list(setup.categories))} are not imputed; where there are "
            "any, the row is of no category"
        )
    return replace(setup, imputation=made), notes


def _check(reply: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    sums = unpack_arrays(reply["products"])["products"]
    if sums.shape != shape or not (np.abs(sums) <= LARGEST_NUMBER).all():
        raise WireError("its sums of products are of another shape, or not finite")
    return sums
