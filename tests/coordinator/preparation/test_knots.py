"""Knots of curves from the cells of two sites: their places, fold by fold, and when there are too few."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.coordinator.preparation.knots import agree_on_knots
from v6_algorithm.data.preparation.setup import Setup, pack_arrays, unpack_arrays
from v6_algorithm.data.preparation.statistics import Moments
from v6_algorithm.data.preparation.terms import DesignTerms
from v6_algorithm.data.quantiles import Cells
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment

MANY, FEW, NONE = np.arange(200.0), np.tile([0.0, 1.0], 100), np.array([])


def agreed(*folds):
    """Agree on four knots of age; every second value of each fold is at the other site."""
    model = {"kind": "glm", "splines": {"age": 4}}
    experiment = Experiment.parse({"data": {"target": "y", "features": ["age"]}, "model": model})
    setup = Setup(["age"], {}, [0, 1], terms=DesignTerms.of(experiment.model, ["age"], {}))

    def gather(sites, body, read):
        windows = None if body["windows"] is None else unpack_arrays(body["windows"])["windows"]
        return {
            site: read({"cells": pack_arrays(Cells.of([fold[place::2] for fold in folds], 5, windows).arrays())})
            for place, site in enumerate(sites)
        }

    moments = Moments.of([fold[:, None] for fold in folds], with_range=False)
    return agree_on_knots(gather, experiment, setup, moments, ["a", "b"])


def test_knots_are_at_the_quantiles_of_each_folds_rows_at_all_sites():
    setup, (note,) = agreed(MANY, MANY + 1000)
    wanted = np.quantile(MANY, [0.05, 0.35, 0.65, 0.95])
    assert setup.terms.knots["age"] == pytest.approx(np.array([wanted, wanted + 1000]), abs=2)
    assert note.startswith("knots (of the first fold): age at ")
    assert agreed(MANY)[1][0].startswith("knots: age at ")


@pytest.mark.parametrize("folds", [(FEW,), (MANY, FEW), (FEW, MANY), (MANY, NONE), (NONE,)])
def test_a_column_with_too_few_values_for_its_knots_in_any_fold_is_named(folds):
    with pytest.raises(ExperimentError, match="'age' has too few different values for 4 knots"):
        agreed(*folds)
