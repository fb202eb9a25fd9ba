"""Cross-validation over sites: who trains which fold, what is tested where, and what is told of all folds."""

import statistics

import numpy as np
import pandas as pd
import pytest
import torch
from spying import lose

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange import wire
from v6_algorithm.site import SiteContext
from v6_algorithm.site.policy import Policy

LEAVE_OUT = {"kind": "leave_one_site_out"}


def trained(requests):
    """Site to the folds that it is asked to train."""
    return {
        site: [item["fold"] for item in request["folds"] if item["train"]]
        for site, request in requests.items()
        if any(item["train"] for item in request["folds"])
    }


# -- leave one site out --------------------------------------------------------------------------------------------


def test_the_site_that_is_tested_does_not_train_in_that_fold(spied, make_experiment):
    spy, result = spied(make_experiment(split=LEAVE_OUT))
    for requests in spy.of("RPC_train"):
        assert trained(requests) == {"amsterdam": [1, 2], "berlin": [0, 2], "cairo": [0, 1]}
        # Its fold's model does not even go there before the test.
        assert all(len(request["folds"]) == 2 for request in requests.values())
    assert [fold["test_site"] for fold in result["folds"]] == ["amsterdam", "berlin", "cairo"]


def test_every_row_of_the_site_left_out_is_tested_and_no_other(spied, tables, make_experiment):
    _, result = spied(make_experiment(split=LEAVE_OUT))
    for fold in result["folds"]:
        tested = fold["metrics"]["test"]["sites"]
        assert list(tested) == [fold["test_site"]]
        assert tested[fold["test_site"]]["n"] == len(tables[fold["test_site"]].frame)
        assert fold["sites"][fold["test_site"]]["n"]["train"] == 0
    assert result["metrics"]["test"]["pooled"]["n"] == 130


def test_the_site_left_out_tells_nothing_to_scales_and_weights(spied, tables, make_experiment):
    """A huge hospital that is left out must not move what the others train on."""
    experiment = make_experiment(
        split=LEAVE_OUT, training={"loss": {"kind": "cross_entropy", "class_weights": "balanced"}}
    )
    frame = tables["cairo"].frame
    changed = frame.assign(a=frame["a"] * 1000 + 7, y=0)
    _, before = spied(experiment)
    _, after = spied(experiment, sites={**tables, "cairo": TableSource(frame=changed)})
    models = [wire.unpack(result["parameters"]) for result in (before, after)]
    own = [name for name in models[0] if name.startswith("fold-2/")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in own)
    assert any(not torch.equal(models[0][name], models[1][name]) for name in set(models[0]) - set(own))


def test_leaving_a_site_out_is_training_without_it(spied, tables, make_experiment):
    options = {"training": {"batch_size": None, "local_steps": 3}, "rounds": 2}
    _, result = spied(make_experiment(split={**LEAVE_OUT, "validation": 0}, **options))
    others = {name: table for name, table in tables.items() if name != "berlin"}
    _, alone = spied(make_experiment(split={"train": 1, "validation": 0, "test": 0}, **options), sites=others)
    models = wire.unpack(result["parameters"])
    assert all(torch.equal(models[f"fold-1/{name}"], own) for name, own in wire.unpack(alone["parameters"]).items())


def test_each_of_many_sites_is_tested_in_turn(run_locally, tables, make_experiment):
    frame = pd.concat([table.read() for table in tables.values()] * 2, ignore_index=True)
    sites = {f"site{number}": TableSource(frame=frame.iloc[number::9].reset_index(drop=True)) for number in range(9)}
    result = run_locally(make_experiment(split=LEAVE_OUT, rounds=1), sites)
    assert (result["status"], len(result["folds"])) == ("completed", 9), result["stopped_because"]
    assert result["metrics"]["test"]["pooled"]["n"] == len(frame)


def test_a_centralised_run_leaves_out_hospitals_too(run_locally, tables, make_experiment):
    results = [
        run_locally(make_experiment(split=LEAVE_OUT, mode=mode), tables) for mode in ("federated", "centralised")
    ]
    counts = [[fold["sites"] for fold in result["folds"]] for result in results]
    assert counts[0] == counts[1]
    assert [fold["test_site"] for fold in results[1]["folds"]] == ["amsterdam", "berlin", "cairo"]


def test_a_site_that_is_left_out_scales_itself_with_its_own_rows(run_locally, tables, make_experiment):
    data = {"target": "y", "scaling": {"kind": "standard", "scope": "site"}}
    shifted = {name: TableSource(frame=table.frame.assign(a=table.frame["a"] + 50)) for name, table in tables.items()}
    results = [run_locally(make_experiment(split=LEAVE_OUT, data=data), sites) for sites in (tables, shifted)]
    losses = [result["metrics"]["test"]["pooled"]["loss"] for result in results]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_minimum_that_no_fold_can_reach_is_refused(spied, make_experiment):
    with pytest.raises(ExperimentError, match=r"fold 0: 2 sites have training rows, participation.minimum is 3"):
        spied(make_experiment(split=LEAVE_OUT, participation={"minimum": 3}))


def test_a_fold_without_sites_says_which_took_no_part_and_why(tables, make_experiment):
    few = dict(list(tables.items())[:2]) | {"few": TableSource(frame=next(iter(tables.values())).read().head(11))}
    experiment = make_experiment(split={"kind": "leave_one_site_out"})
    with pytest.raises(ExperimentError, match=r"fold 0: 1 sites have training rows.*\n  site 'few' took no part: \w"):
        run(local_federation(experiment, few), experiment)


def test_a_fold_waits_a_round_rather_than_average_fewer_sites_than_the_minimum(spied, make_experiment):
    experiment = make_experiment(split=LEAVE_OUT, rounds=4, stopping={"patience": None})
    _, result = spied(experiment, lose("berlin", {2}))
    # Without berlin only its own fold has two sites.
    assert [fold["history"]["round"] for fold in result["folds"]] == [[1, 3, 4], [1, 2, 3, 4], [1, 3, 4]]
    assert all(None not in fold["history"]["validation_loss"] for fold in result["folds"])
    assert "fold 0: not trained in round 2; too few of its sites gave a model" in result["notes"]
    assert result["history"]["round"] == [1, 2, 3, 4]
    assert result["history"]["train_loss"][1] == result["folds"][1]["history"]["train_loss"][1]
    assert result["status"] == "completed"


def test_a_site_lost_before_training_costs_its_fold_only(spied, tables, make_experiment):
    def tamper(method, site, number, reply):
        return "crashed" if site == "berlin" and "moments" in reply else reply

    four = {**tables, "delft": TableSource(frame=tables["berlin"].frame.iloc[::-1])}
    _, result = spied(make_experiment(split=LEAVE_OUT), tamper, four)
    assert [fold["test_site"] for fold in result["folds"]] == ["amsterdam", "cairo", "delft"]
    assert "fold 1: left out, its site 'berlin' was lost before training" in result["notes"]
    assert {name.split("/")[0] for name in wire.unpack(result["parameters"])} == {"fold-0", "fold-2", "fold-3"}


def test_a_site_lost_at_the_test_is_named_and_the_other_folds_count(spied, make_experiment):
    def tamper(method, site, number, reply):
        return "crashed" if method == "RPC_evaluate" and site == "cairo" else reply

    _, result = spied(make_experiment(split=LEAVE_OUT), tamper)
    assert result["metrics"]["test"]["pooled"]["n"] == 100
    assert "test" not in result["folds"][2]["metrics"]
    assert "fold 2: not tested, no answer came from cairo" in result["notes"]


def test_a_node_is_told_how_many_sites_a_fold_is_summed_over(spied, make_experiment):
    """The node's minimum of sites hides it in a sum; the site that is left out is not in it."""
    spy, _ = spied(make_experiment(split=LEAVE_OUT))
    assert {request["sites"] for requests in spy.of("RPC_train") for request in requests.values()} == {2}
    spy, _ = spied(make_experiment())
    assert {request["sites"] for requests in spy.of("RPC_train") for request in requests.values()} == {3}


def test_a_node_that_wants_more_sites_than_a_fold_has_refuses(tables, make_experiment):
    from v6_algorithm.engines.simulation.local import LocalFederation

    contexts = {name: SiteContext({name: table}, Policy(minimum_sites=3)) for name, table in tables.items()}
    with pytest.raises(FederationError, match="this node takes part with at least 3 sites, this run has 2"):
        run(LocalFederation(contexts), make_experiment(split=LEAVE_OUT))


# -- given folds ---------------------------------------------------------------------------------------------------


def test_a_column_of_fold_numbers_makes_folds(run_locally, tables, make_experiment):
    sites = {
        name: TableSource(frame=table.frame.assign(fold=np.arange(len(table.frame)) % 4))
        for name, table in tables.items()
    }
    data = {"target": "y", "split_column": "fold"}
    result = run_locally(make_experiment(data=data, split={"kind": "given", "folds": 4}), sites)
    assert len(result["folds"]) == 4
    assert "fold" not in result["preparation"]["features"]
    assert result["metrics"]["test"]["pooled"]["n"] == 130
    assert result["folds"][1]["sites"]["berlin"]["n"] == {"train": 20, "validation": 10, "test": 10}


def test_split_columns_of_a_dinunet_user_make_a_fold_each(run_locally, tables, make_experiment):
    def with_columns(frame):
        place = np.arange(len(frame)) % 5
        words = [np.select([place == k, place == (k + 1) % 5], ["test", "validation"], "train") for k in range(2)]
        return frame.assign(SPLIT_0=words[0], SPLIT_1=words[1])

    sites = {name: TableSource(frame=with_columns(table.frame)) for name, table in tables.items()}
    data = {"target": "y", "split_column": ["SPLIT_0", "SPLIT_1"]}
    result = run_locally(make_experiment(data=data, split="given"), sites)
    assert [fold["sites"]["cairo"]["n"]["test"] for fold in result["folds"]] == [6, 6]


def test_a_site_may_be_for_testing_only(run_locally, tables, make_experiment):
    def with_part(name, frame):
        words = np.resize(["train", "train", "validation"], len(frame))
        return frame.assign(part="test" if name == "cairo" else words)

    sites = {name: TableSource(frame=with_part(name, table.frame)) for name, table in tables.items()}
    result = run_locally(make_experiment(data={"target": "y", "split_column": "part"}, split="given"), sites)
    assert result["metrics"]["test"]["pooled"]["n"] == result["metrics"]["test"]["sites"]["cairo"]["n"] == 30
    assert result["folds"] == []


def test_a_given_split_that_nobody_trains_is_refused(run_locally, tables, make_experiment):
    sites = {name: TableSource(frame=table.frame.assign(part="test")) for name, table in tables.items()}
    with pytest.raises(ExperimentError, match="fold 0: 0 sites have training rows"):
        run_locally(make_experiment(data={"target": "y", "split_column": "part"}, split="given"), sites)


# -- groups, repeats, what is told ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_patients_stay_in_one_part_of_every_fold(run_locally, make_experiment):
    """Rows of one patient are copies: with a copy in the training part any test would be perfect."""
    generator = np.random.default_rng(0)
    sites = {}
    for name in ("amsterdam", "berlin"):
        patients = pd.DataFrame(generator.normal(size=(24, 12)), columns=list("abcdefghijkl"))
        patients = patients.assign(patient=range(24), y=generator.permutation(np.arange(24) % 2))
        sites[name] = TableSource(frame=pd.concat([patients] * 8, ignore_index=True))
    content = {
        "data": {"target": "y", "group": "patient"},
        "split": {"kind": "kfold", "folds": 4},
        "rounds": 2,
        "training": {"local_steps": 40, "batch_size": None, "optimizer": {"kind": "adam", "lr": 0.05}},
        "model": {"kind": "mlp", "hidden": [64]},
        "output": {"model": "last"},
    }
    accuracy = run_locally(make_experiment(**content), sites)["metrics"]["test"]["pooled"]["accuracy"]
    leaky = make_experiment(**content | {"data": {"target": "y", "exclude": ["patient"]}})
    assert accuracy < 0.7
    assert run_locally(leaky, sites)["metrics"]["test"]["pooled"]["accuracy"] > 0.8


@pytest.mark.slow
def test_repeats_are_folds_of_their_own(run_locally, tables, make_experiment):
    split = {"kind": "kfold", "folds": 3, "repeats": 2}
    result = run_locally(make_experiment(split=split, rounds=2), tables)
    assert [(fold["fold"], fold["repeat"]) for fold in result["folds"]] == [(n, n // 3) for n in range(6)]
    once = run_locally(make_experiment(split={"kind": "kfold", "folds": 3}, rounds=2), tables)
    assert once["folds"][2]["metrics"] == result["folds"][2]["metrics"]


@pytest.mark.slow
def test_repeats_have_the_same_patients_and_no_narrower_interval(run_locally, tables, make_experiment):
    split = {"kind": "kfold", "folds": 3, "repeats": 4}
    changes = {"rounds": 1, "evaluation": {"subgroups": [{"column": "a", "bands": [0]}]}}
    repeated = run_locally(make_experiment(split=split, **changes), tables)
    once = run_locally(make_experiment(split={"kind": "kfold", "folds": 3}, **changes), tables)
    test, alone = repeated["metrics"]["test"], once["metrics"]["test"]
    assert test["pooled"]["n"] == alone["pooled"]["n"] == 130
    assert repeated["sites"]["cairo"]["n"]["test"] == once["sites"]["cairo"]["n"]["test"]
    for scope in (lambda one: one["pooled"], lambda one: one["sites"]["cairo"]):
        widths = [scope(one)["accuracy_high"] - scope(one)["accuracy_low"] for one in (test, alone)]
        assert widths[0] > 0.9 * widths[1]
    groups = repeated["subgroups"]["test"]["a"]
    assert sum(group["n"] for group in groups.values()) <= 130
    assert not any(name.endswith("_low") for group in groups.values() for name in group)
    assert any("same patients" in note for note in repeated["notes"])
    folds = [fold["metrics"]["test"]["pooled"]["accuracy"] for fold in repeated["folds"]]
    mean = test["mean_over_folds"]
    assert mean["accuracy_high"] - mean["accuracy_low"] > 2 * 1.96 * statistics.stdev(folds) / len(folds) ** 0.5


@pytest.mark.parametrize("mode", ["federated", "local"])
def test_mean_and_deviation_over_folds_are_of_the_folds_pooled_metrics(run_locally, tables, make_experiment, mode):
    result = run_locally(make_experiment(split={"kind": "kfold", "folds": 3}, rounds=2, mode=mode), tables)
    test = result["metrics"]["test"]
    if mode == "federated":
        values = [fold["metrics"]["test"]["pooled"]["accuracy"] for fold in result["folds"]]
        assert test["mean_over_folds"]["accuracy"] == pytest.approx(statistics.fmean(values), abs=1e-12)
        assert test["sd_over_folds"]["accuracy"] == pytest.approx(statistics.stdev(values), abs=1e-12)
    else:
        # The models of a fold, one a site, count as one: each row of a fold is tested by one of them.
        hits = [[0.0, 0], [0.0, 0], [0.0, 0]]
        for fold in result["folds"]:
            pooled = fold["metrics"]["test"]["pooled"]
            hits[fold["fold"]][0] += pooled["accuracy"] * pooled["n"]
            hits[fold["fold"]][1] += pooled["n"]
        wanted = statistics.fmean(right / rows for right, rows in hits)
        assert test["mean_over_folds"]["accuracy"] == pytest.approx(wanted, abs=1e-9)
    assert "n" not in test["mean_over_folds"]


def test_a_single_split_tells_nothing_about_folds(run_locally, tables, make_experiment):
    assert "mean_over_folds" not in run_locally(make_experiment(), tables)["metrics"]["test"]


# -- limits and devices --------------------------------------------------------------------------------------------


def test_a_load_limit_bounds_the_rows_of_each_site(run_locally, tables, make_experiment):
    """dinunet's load_limit, for a quick try; drawn from the seed, so that repeats and modes use the same rows."""
    data = {"target": "y", "load_limit": 35}
    results = [run_locally(make_experiment(data=data, mode=mode), tables) for mode in ("federated", "centralised")]
    counts = [{name: site["n"]["rows"] for name, site in result["sites"].items()} for result in results]
    assert counts == [{"amsterdam": 35, "berlin": 35, "cairo": 30}] * 2


def test_the_result_tells_what_each_site_computed_on(run_locally, tables, make_experiment):
    result = run_locally(make_experiment(training={"device": "cpu", "precision": "mixed"}), tables)
    assert result["devices"] == {name: {"name": "cpu", "precision": "mixed"} for name in tables}
    assert not [note for note in result["notes"] if "full precision" in note]


def test_a_site_that_could_not_train_in_mixed_precision_is_named(spied, make_experiment):
    def tamper(method, site, number, reply):
        if "device" in reply and site == "berlin":
            reply["device"] = {"name": "cuda (Tesla T4)", "precision": "full"}
        return reply

    _, result = spied(make_experiment(training={"precision": "mixed"}), tamper)
    assert "trained in full precision, for want of bfloat16: berlin (cuda (Tesla T4))" in result["notes"]


def test_a_device_that_no_site_has_is_refused_before_training(run_locally, tables, make_experiment, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ExperimentError, match=r"site 'amsterdam': training.device is cuda"):
        run_locally(make_experiment(training={"device": "cuda"}), tables)


# -- what coinstac-dinunet gets wrong ------------------------------------------------------------------------------


def test_dinunet_bug_there_is_no_round_too_many(run_locally, tables, make_experiment):
    """seeds.md 2.10: its `epoch > epochs` trains one more."""
    result = run_locally(make_experiment(rounds=3, stopping={"patience": None}), tables)
    assert result["rounds_run"] == 3
    assert result["history"]["round"] == [1, 2, 3]


def test_dinunet_bug_a_model_is_kept_and_tested_though_no_score_beats_zero(run_locally, make_experiment):
    """seeds.md 2.10: its best score starts at 0, and without a better one it has no checkpoint to test."""
    generator = np.random.default_rng(0)
    noise = {
        name: TableSource(frame=pd.DataFrame(generator.normal(size=(30, 5)), columns=list("abcdy")))
        for name in ("amsterdam", "berlin")
    }
    training = {"local_steps": 50, "batch_size": None, "optimizer": {"kind": "adam", "lr": 0.05}}
    experiment = make_experiment(problem="regression", stopping={"monitor": "r2"}, rounds=2, training=training)
    result = run_locally(experiment, noise)
    assert max(result["history"]["validation_r2"]) < 0, "the test needs scores below 0"
    assert result["best_round"] in (1, 2)
    assert result["metrics"]["test"]["pooled"]["n"] == 12
    assert result["parameters"]
