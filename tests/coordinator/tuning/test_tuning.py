"""The search for settings: what is tried, that validation alone decides, and that the choice is then run as it is."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spying import Spy

from v6_algorithm.coordinator.master import run
from v6_algorithm.coordinator.tuning import Tuning, _heats, describe, tune
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.tuning import Halving

RATES = {"training.optimizer.lr": [1e-6, 0.05]}


@pytest.fixture
def tuned(tables, make_experiment):
    """Tune on the made-up hospitals; return the watched federations and the result."""

    def go(section, **sections):
        experiment = make_experiment(tune=section, **sections)
        spies = []

        def federation(trial):
            spies.append(Spy(local_federation(trial, tables)))
            return spies[-1]

        return spies, tune(federation, experiment)

    return go


@pytest.mark.slow
def test_the_best_on_validation_rows_is_run_as_run_would(tuned, tables):
    _, result = tuned({"space": RATES}, rounds=4)
    tried = result["tuning"]["trials"]
    assert [trial["setting"]["training.optimizer.lr"] for trial in tried] == [1e-6, 0.05]
    assert tried[1]["scores"][0] < tried[0]["scores"][0]
    assert result["tuning"]["chosen"] == 2
    assert result["experiment"]["training"]["optimizer"]["lr"] == 0.05
    chosen = Experiment.parse(result["experiment"])
    again = run(local_federation(chosen, tables), chosen)
    assert again["parameters"] == result["parameters"]
    assert again["metrics"] == result["metrics"]


def test_no_trial_looks_at_a_test_row(tuned):
    spies, result = tuned({"space": RATES}, rounds=2)
    *trials, final = spies
    assert len(trials) == 2
    for spy in trials:
        asked = [
            item["evaluate"] for requests in spy.of("RPC_evaluate") for r in requests.values() for item in r["folds"]
        ]
        assert asked
        assert not any("test" in parts for parts in asked)
    (last,) = final.of("RPC_evaluate")
    assert all("test" in item["evaluate"] for request in last.values() for item in request["folds"])
    assert result["metrics"]["test"]["pooled"]["n"] > 0


def test_sites_are_not_told_what_is_tried(tuned):
    spies, _ = tuned({"space": RATES}, rounds=1)
    for spy in spies:
        for _, requests in spy.requests:
            assert all("tune" not in request["experiment"] for request in requests.values())


def test_a_metric_of_which_more_is_better_is_maximised(tuned):
    _, result = tuned({"space": RATES, "metric": "auroc"}, rounds=4)
    scores = [trial["scores"][0] for trial in result["tuning"]["trials"]]
    assert result["tuning"]["chosen"] == 1 + scores.index(max(scores))


@pytest.mark.slow
def test_halving_gives_all_rounds_to_few(tuned):
    space = {"training.optimizer.lr": [1e-6, 1e-5, 0.02, 0.05]}
    _, result = tuned({"space": space, "halving": {"first_rounds": 2, "keep": 0.5}}, rounds=8)
    rounds = {trial["setting"]["training.optimizer.lr"]: trial["rounds"] for trial in result["tuning"]["trials"]}
    assert rounds[1e-6] == rounds[1e-5] == [2]
    assert rounds[0.02] == rounds[0.05] == [2, 4]
    assert result["rounds_run"] == 8


@given(st.integers(1, 60), st.integers(1, 200), st.integers(1, 10), st.floats(0.05, 0.95))
def test_heats_lose_settings_and_gain_rounds(settings, rounds, first, keep):
    heats = list(_heats(settings, rounds, Halving(first_rounds=first, keep=keep)))
    assert all(1 < count <= settings and 1 <= now <= rounds for now, count in heats)
    assert all(one[0] < two[0] and one[1] >= two[1] for one, two in itertools.pairwise(heats))


def test_draws_are_seeded_different_and_within_their_range(make_experiment):
    section = {
        "space": {
            "training.optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
            "training.batch_size": {"low": 4, "high": 6, "integer": True},
            "strategy.weighting": ["samples", "uniform"],
        },
        "draws": 20,
    }
    one, again = (Tuning(make_experiment(tune=section)).trials for _ in range(2))
    assert [trial.setting for trial in one] == [trial.setting for trial in again]
    assert len({json.dumps(trial.setting) for trial in one}) == 20
    assert all(1e-4 <= trial.setting["training.optimizer.lr"] <= 1e-1 for trial in one)
    assert {trial.setting["training.batch_size"] for trial in one} == {4, 5, 6}
    other = Tuning(make_experiment(tune=section, seed=1)).trials
    assert [trial.setting for trial in one] != [trial.setting for trial in other]


def test_more_draws_than_there_are_settings_are_all_settings(make_experiment):
    trials = Tuning(make_experiment(tune={"space": RATES, "draws": 50})).trials
    assert sorted(trial.setting["training.optimizer.lr"] for trial in trials) == [1e-6, 0.05]


def test_a_setting_that_fails_is_told_and_the_others_go_on(tuned):
    space = {"training.optimizer.lr": [1e30, 0.05]}
    _, result = tuned({"space": space}, rounds=3, model={"kind": "mlp", "hidden": [4]})
    failed, _ = result["tuning"]["trials"]
    assert failed["scores"] == [None]
    assert "diverged" in failed["failed"]
    assert result["tuning"]["chosen"] == 2


def test_settings_that_all_fail_are_an_error_that_names_them(tuned):
    with pytest.raises(FederationError, match=r"no setting has a score\n  training\.optimizer\.lr 1e\+30: "):
        tuned(
            {"space": {"training.optimizer.lr": [1e30]}, "draws": None}
            | {"space": {"training.optimizer.lr": [1e30, 1e31]}}
        )


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"space": {"seed": [1, 2]}}, "seed cannot be tuned; allowed: model, training, strategy"),
        ({"space": {"split.test": [0.1]}}, "split.test cannot be tuned"),
        ({"space": {"modelling": [1]}}, "modelling cannot be tuned"),
        ({"space": {}}, "tune.space"),
        ({"space": {"model": []}}, "tune.space.model"),
        ({"space": {"training.optimizer.lr": {"low": 0.1, "high": 1}}}, "is a range, of which there is no grid"),
        ({"space": {"training.optimizer.lr": {"low": 0, "high": 1, "log": True}}, "draws": 2}, "log needs low above 0"),
        ({"space": {"training.optimizer.lr": {"low": 2, "high": 1}}, "draws": 2}, "low .2. must be below high .1."),
        ({"space": RATES, "metric": "auc"}, "tune.metric is 'auc', which is not measured"),
        ({"space": {"training.loss.class_weights": ["balanced"]}}, "changes what the loss is; give tune.metric"),
        ({"space": RATES, "halving": {"keep": 1}}, "tune.halving.keep"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_site_is_asked(make_experiment, section, says):
    with pytest.raises(ExperimentError, match=says):
        make_experiment(tune=section)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({}, "tune: is required"),
        ({"tune": {"space": RATES}, "mode": "local"}, "mode: local trains a model a site"),
        (
            {"tune": {"space": RATES}, "split": {"kind": "ratio", "train": 0.8, "validation": 0, "test": 0.2}},
            "split.validation: is 0",
        ),
        ({"tune": {"space": {"model.hidden": [[0]]}}}, r"tune.space \(model.hidden \[0\]\): model.*hidden"),
    ],
)
def test_a_search_that_cannot_choose_is_refused(make_experiment, sections, says):
    with pytest.raises(ExperimentError, match=says):
        Tuning(make_experiment(**sections))


def test_a_setting_is_one_line():
    assert describe({"model": {"kind": "mlp", "hidden": [8]}, "lr": 0.1234567}) == "model mlp hidden=[8], lr 0.1235"
