"""Firth's penalty of a Cox model over sites: the maximum of the penalised partial likelihood of the pooled rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from oracles import cox_firth

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError

COLUMNS = ["treated", "marker"]
KEYS = {
    "data": {"target": {"duration": "days", "event": "died"}, "features": COLUMNS, "missing": "error"},
    "problem": "survival",
}


@pytest.fixture(scope="module")
def frames():
    """Two sites in which only the treated have the event, some of them on the same day."""
    generator = np.random.default_rng(1)
    treated, marker = generator.integers(0, 2, 80), generator.normal(size=80)
    days = np.ceil(20 * generator.exponential(1, 80))
    died = ((treated == 1) & (generator.random(80) < 0.5)).astype(int)
    rows = pd.DataFrame({"treated": treated, "marker": marker, "days": days, "died": died})
    return {"one": rows[::2].reset_index(drop=True), "two": rows[1::2].reset_index(drop=True)}


def reference(frames, *, strata):
    pooled = pd.concat(frames.values())
    centre, spread = pooled[COLUMNS].mean(), pooled[COLUMNS].std()
    parts = list(frames.values()) if strata else [pooled]
    rows = [
        (((p[COLUMNS] - centre) / spread).to_numpy(), p["days"].to_numpy(), p["died"].to_numpy() == 1) for p in parts
    ]
    best, errors, gain = cox_firth(rows, gtol=1e-7)
    return best / spread, errors / spread, gain


@pytest.mark.parametrize("strata", ["none", "site"])
def test_estimates_are_finite_and_those_of_the_pooled_rows(frames, strata):
    result = v6.run({**KEYS, "model": {"kind": "cox", "firth": True, "strata": strata}}, frames)
    estimates, errors, gain = reference(frames, strata=strata == "site")
    fit = result.content["fit"]
    assert fit["converged"]
    assert fit["rounds"] <= 40
    np.testing.assert_allclose(result.coefficients["estimate"], estimates, rtol=1e-5)
    np.testing.assert_allclose(result.coefficients["standard_error"], errors, rtol=1e-5)
    assert fit["likelihood_ratio"] == pytest.approx(2 * gain, rel=1e-6)
    assert not any("separat" in note for note in result.content["notes"])
    assert np.isfinite(result.predict(next(iter(frames.values())))["log_risk"]).all()


@pytest.mark.slow
def test_masked_sums_come_to_the_same(frames):
    keys = {**KEYS, "model": {"kind": "cox", "firth": True, "strata": "site"}}
    frames = {**frames, "three": frames["one"].assign(marker=-frames["one"]["marker"])}
    plain, hidden = (
        v6.run({**keys, **more}, frames) for more in ({}, {"privacy": {"secure_aggregation": {"threshold": 2}}})
    )
    np.testing.assert_allclose(hidden.coefficients["estimate"], plain.coefficients["estimate"], rtol=1e-10)


def test_two_penalties_are_refused():
    with pytest.raises(ExperimentError, match="two penalties"):
        v6.run({**KEYS, "model": {"kind": "cox", "firth": True, "ridge": 1.0}}, {"a": "a.csv"})
