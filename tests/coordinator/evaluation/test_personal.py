"""Personal models: what each site makes of the shared model for itself, measured and never sent."""

from __future__ import annotations

import pytest

from v6_algorithm.errors import ExperimentError


def metrics(result, run="personal", part="test"):
    return result["baselines"][run]["metrics"][part]["sites"]


def test_the_shared_model_and_its_metrics_are_as_without(spied, make_experiment):
    _, plain = spied(make_experiment())
    _, result = spied(make_experiment(personal={"epochs": 3}))
    assert result["metrics"] == plain["metrics"]
    assert result["parameters"] == plain["parameters"]
    assert "baselines" not in plain
    assert metrics(result) != result["metrics"]["test"]["sites"]
    assert sorted(metrics(result)) == sorted(result["metrics"]["test"]["sites"])


def test_sites_with_rules_of_their_own_are_better_off_with_models_of_their_own(tables, run_locally, make_experiment):
    """Two hospitals in which the same finding means the opposite: no shared model can be right at both."""
    from v6_algorithm.data.sources import TableSource

    one = tables["amsterdam"].frame.assign(y=lambda frame: (frame["a"] > 0).astype(int))
    other = tables["berlin"].frame.assign(y=lambda frame: (frame["a"] < 0).astype(int))
    sites = {"one": TableSource(frame=one), "other": TableSource(frame=other)}
    experiment = make_experiment(personal={"kind": "fine_tune", "epochs": 20}, rounds=3)
    result = run_locally(experiment, sites)
    for site in sites:
        before, after = (found[site]["accuracy"] for found in (result["metrics"]["test"]["sites"], metrics(result)))
        assert after > before + 0.1


def test_dittos_pull_ends_at_the_shared_model(spied, make_experiment):
    training = {"optimizer": {"kind": "sgd", "lr": 1e-4}, "batch_size": 8}
    _, held = spied(make_experiment(training=training, personal={"kind": "ditto", "epochs": 3, "mu": 1e4}))
    _, free = spied(make_experiment(training=training, personal={"kind": "fine_tune", "epochs": 3}))
    shared = held["metrics"]["test"]["sites"]
    for site, values in metrics(held).items():
        assert abs(values["loss"] - shared[site]["loss"]) < abs(metrics(free)[site]["loss"] - shared[site]["loss"])


def test_no_personal_model_leaves_its_site(spied, make_experiment):
    spy, _ = spied(make_experiment(personal="fine_tune"))
    *_, (method, requests) = spy.requests
    assert method == "RPC_evaluate"
    assert all(item["personal"] for request in requests.values() for item in request["folds"])
    for method, _, reply in spy.replies:
        if method == "RPC_evaluate":
            assert all(set(item) == {"fold", "metrics"} for item in reply["folds"])


def test_each_fold_has_its_personal_models(spied, make_experiment):
    _, result = spied(make_experiment(personal="ditto", split={"kind": "kfold", "folds": 3}, rounds=2))
    assert metrics(result)["berlin"]["n"] == result["metrics"]["test"]["sites"]["berlin"]["n"]


def test_a_site_that_is_lost_then_costs_only_its_own_numbers(spied, make_experiment):
    calls = []

    def tamper(method, site, number, reply):
        if method == "RPC_evaluate" and site == "berlin":
            calls.append(number)
            return "crashed" if len(calls) == 2 else reply
        return reply

    _, result = spied(make_experiment(personal="fine_tune"), tamper)
    assert result["status"] == "completed"
    assert sorted(metrics(result)) == ["amsterdam", "cairo"]
    assert "berlin" in result["metrics"]["test"]["sites"]


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"personal": "mine"}, "'fine_tune' or 'ditto'"),
        ({"personal": {"kind": "fine_tune", "mu": 1}}, "mu is for kind ditto"),
        ({"personal": {"kind": "ditto", "mu": 0}}, "personal.mu: must be greater than 0"),
        ({"personal": "ditto", "mode": "local"}, "personal is for mode federated"),
    ],
)
def test_what_cannot_be_is_refused(make_experiment, sections, says):
    with pytest.raises(ExperimentError, match=says):
        make_experiment(**sections)
