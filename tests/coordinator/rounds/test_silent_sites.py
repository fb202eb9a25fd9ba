"""Sites whose owners let no model be measured in the rounds: the others choose the round, all measure at the end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext
from v6_algorithm.site.policy import Policy

NAMES = ("amsterdam", "berlin", "cairo")
ROUNDS = 6
AT_THE_END = "this node measures models at the end, none in the rounds (V6_ALGORITHM_ROUND_METRICS)"


def table(seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(2, 80))
    return pd.DataFrame({"a": a, "b": b, "ill": (a - b + generator.normal(size=80) > 0).astype(int)})


def go(silent: tuple[str, ...], **changes):
    """Train among sites of which some are silent; return the result and the requests that each site was sent."""
    content = {
        "data": {"target": "ill"},
        "model": {"kind": "mlp", "hidden": [4]},
        # So good a first round that nothing later is better: training would stop after the next.
        "training": {"optimizer": {"kind": "sgd", "lr": 1e-6}},
        "rounds": ROUNDS,
        "stopping": {"patience": 1, "min_delta": 0.5},
    } | changes
    contexts = {
        name: SiteContext(
            {name: TableSource(frame=table(seed))}, Policy.of("trusted", round_metrics=name not in silent), memory={}
        )
        for seed, name in enumerate(NAMES)
    }
    federation, asked = LocalFederation(contexts), []
    call = federation.call

    def noting(method, requests, *, deadline_s):
        asked.extend((method, site, request) for site, request in requests.items())
        return call(method, requests, deadline_s=deadline_s)

    federation.call = noting
    return run(federation, Experiment.parse(content)), asked


def measured_in_rounds(asked):
    return {
        site
        for method, site, request in asked
        if method == "RPC_train"
        for item in request["folds"]
        if item["evaluate"]
    }


def test_the_others_choose_the_round_and_all_measure_at_the_end():
    result, asked = go(("cairo",))
    assert measured_in_rounds(asked) == {"amsterdam", "berlin"}
    assert len(result["history"]["round"]) < ROUNDS
    assert any(note.startswith(f"cairo: {AT_THE_END}; the best round, early") for note in result["notes"])
    assert all(not call["missing"] for call in result["participation"])
    assert set(result["metrics"]["test"]["sites"]) == set(NAMES)
    assert set(result["metrics"]["validation"]["sites"]) == set(NAMES)


def test_where_all_are_silent_all_rounds_are_trained_and_the_newest_model_is_kept():
    result, asked = go(NAMES)
    assert measured_in_rounds(asked) == set()
    assert result["history"]["round"] == list(range(1, ROUNDS + 1))
    assert result["best_round"] == ROUNDS
    assert any("so all rounds are trained, and the newest model is kept" in note for note in result["notes"])
    assert set(result["metrics"]["validation"]["sites"]) == set(NAMES)


def test_without_silent_sites_nothing_is_said():
    result, asked = go(())
    assert measured_in_rounds(asked) == set(NAMES)
    assert not any(AT_THE_END in note for note in result["notes"])


def test_a_sum_over_all_sites_is_not_measured_where_one_is_silent():
    result, asked = go(("berlin",), privacy={"secure_aggregation": {"threshold": 2}})
    assert measured_in_rounds(asked) == set()
    assert result["history"]["round"] == list(range(1, ROUNDS + 1))
    assert [note for note in result["notes"] if AT_THE_END in note] == [
        f"berlin: {AT_THE_END}; no other site does, so all rounds are trained, and the newest model is kept"
    ]
    assert result["metrics"]["test"]["pooled"]["n"] > 0


def test_a_rate_that_follows_a_metric_is_refused_where_no_site_measures_it():
    scheduler = {"optimizer": {"kind": "sgd", "lr": 0.1}, "scheduler": {"kind": "reducelronplateau"}}
    with pytest.raises(ExperimentError, match="follows a validation metric, and no site measures models in the rounds"):
        go(NAMES, training=scheduler)
