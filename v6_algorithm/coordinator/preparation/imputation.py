"""The calls of a multiple imputation, one a sweep: sums of products come in, drawn regressions go out with setups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from v6_algorithm import seeding
from v6_algorithm.coordinator.preparation.questions import Gather
from v6_algorithm.data.preparation.imputation import Imputation, blocks_of, draw_category, draw_regression
from v6_algorithm.data.preparation.setup import Setup, unpack_arrays
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.rows.kind import listed
from v6_algorithm.errors import WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER
from v6_algorithm.experiment import Cox, Experiment


def agree_on_imputation(
    gather: Gather, experiment: Experiment, setup: Setup, moments: Moments, sites: Sequence[str]
) -> tuple[Setup, list[str]]:
    """Return the setup with the regressions that fill empty cells, and sentences for the researcher."""
    missing = experiment.data.missing
    if missing.kind != "impute":
        return setup, []
    empty = dict(zip(setup.features, (moments.rows[0] - moments.count[0]).tolist(), strict=True))
    numbers = [name for name in setup.features if empty[name] > 0]
    # How many of their cells are empty the first answers tell; of a category without values there is nothing to draw.
    columns = [*numbers, *(name for name, values in setup.categories.items() if values)]
    nothing = ["data.missing impute: no feature has an empty cell, so all imputations are the same"]
    if not columns:
        return setup, nothing
    width = setup.imputed_width(2 if isinstance(experiment.model, Cox) else 1)
    blocks = blocks_of(columns, setup.features, setup.categories)
    made = Imputation.empty(columns, experiment.seed, missing.imputations, width, blocks)
    shape = (missing.imputations, len(columns), width, width)
    for sweep in range(missing.iterations):
        answers = gather(
            sites,
            {"step": "imputation", "setup": replace(setup, imputation=made, terms=None).to_json()},
            lambda reply: _check(reply, shape),
        )
        sums = np.sum(list(answers.values()), axis=0)
        if not sweep:
            first = sums[0]
            rows = float(moments.rows[0])
            empty |= {name: rows - first[columns.index(name), 0, 0] for name in columns if name not in numbers}
            if not any(empty[name] > 0 for name in columns):
                return setup, nothing
        regressions, deviations = (np.zeros((missing.imputations, *part.shape[2:])) for part in
                                   (made.coefficients, made.deviations))  # fmt: skip
        for number in range(missing.imputations):
            start = 0
            for column, block in enumerate(blocks):
                generator = seeding.numpy_generator(experiment.seed, "regression", number, sweep, column)
                slots = slice(start, start + len(block))
                if columns[column] in setup.categories:
                    drawn, spread = draw_category(sums[number, column], block, generator)
                    regressions[number, slots], deviations[number, slots, : len(block)] = drawn, spread
                else:
                    regressions[number, start], deviations[number, start, 0] = draw_regression(
                        sums[number, column], int(block[0]), generator
                    )
                start += len(block)
        made = made.followed_by(regressions, deviations)
    columns = [name for name in columns if empty[name] > 0]
    shares = [f"{name} {empty[name] / moments.rows[0]:.1%}" for name in columns]
    notes = [
        f"data.missing impute: empty cells are drawn {missing.imputations} times by chained equations, in "
        f"{missing.iterations} sweeps; empty are {listed(shares)}. The folds of this result are the imputations, and "
        "coefficients are pooled by Rubin's rules",
        "data.missing impute: where a site has fewer rows with empty cells than its node wants, these are left out, "
        "for the tables differ in them alone; under policies other than trusted also where fewer have theirs in the "
        "same columns. Such nodes draw cells from the regression, where others take values of rows that are near",
    ]
    if any(name in setup.categories for name in columns):
        notes.append(
            "data.missing impute: empty cells of a category take the value of a row whose predictions are near; where "
            "a node's policy is not trusted, shares of its values that add up to 1, which are not rounded"
        )
    return replace(setup, imputation=made), notes


def _check(reply: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    sums = unpack_arrays(reply["products"])["products"]
    if sums.shape != shape or not (np.abs(sums) <= LARGEST_NUMBER).all():
        raise WireError("its sums of products are of another shape, or not finite")
    return sums
