"""MOON over whole runs: what each site is sent, and where it is FedAvg."""

from pathlib import Path

import pytest
import torch
from playing import SCALAR, make, reply, scalar

from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems.tabular import Classification

DEMO = Path(__file__).parents[3] / "mock" / "breast_cancer.yaml"
LAST = {"output": {"model": "last"}, "stopping": {"patience": None}}


def own_of(message):
    return wire.unpack(message["contrast"]["own"]) if message else None


def test_each_site_is_sent_its_own_last_model_and_nothing_before_it_has_one():
    strategy = make({"kind": "moon", "mu": 2.0, "tau": 0.3, "clip": 0.5}, SCALAR, {"a": 10, "b": 30})
    messages = strategy.configure(1, ["a", "b"], scalar(1))
    assert messages == {"a": {}, "b": {}}
    strategy.add(reply("a", scalar(2), 10))
    strategy.add(reply("b", scalar(4), 30))
    strategy.aggregate()
    messages = strategy.configure(2, ["b"], scalar(3))
    assert {key: messages["b"]["contrast"][key] for key in ("mu", "tau")} == {"mu": 2.0, "tau": 0.3}
    assert own_of(messages["b"]) == scalar(4), "what it trained, and not what `clip` left of it"
    strategy.add(reply("b", scalar(7), 30))
    strategy.aggregate()
    messages = strategy.configure(3, ["a", "b"], scalar(3))
    assert (own_of(messages["a"]), own_of(messages["b"])) == (scalar(2), scalar(7)), "a was away, and keeps its own"


def test_a_site_is_sent_the_model_that_it_trained_last(spied, make_experiment):
    spy, result = spied(make_experiment(strategy="moon", rounds=3, **LAST))
    asked = [{site: r["folds"][0] for site, r in requests.items()} for requests in spy.of("RPC_train")]
    answers = [(site, r["folds"][0]) for method, site, r in spy.replies if method == "RPC_train"]
    assert result["status"] == "completed"
    assert all("strategy" not in item for item in asked[0].values())
    compared = 0
    for round, items in enumerate(asked[1:], start=1):
        before = dict(answers[3 * (round - 1) : 3 * round])
        for site, item in items.items():
            if item["train"]:
                assert item["strategy"]["contrast"]["own"] == before[site]["parameters"]
                compared += 1
    assert compared == 6


def test_the_first_round_is_fedavg_to_the_bit_and_the_second_is_not(run_locally, tables, make_experiment):
    for rounds, same in ((1, True), (2, False)):
        plain, moon = (
            run_locally(make_experiment(strategy=kind, rounds=rounds, **LAST), tables) for kind in ("fedavg", "moon")
        )
        assert (plain["parameters"] == moon["parameters"]) is same


def test_moon_without_mu_is_fedavg_to_the_bit(run_locally, tables, make_experiment):
    plain = run_locally(make_experiment(), tables)
    assert run_locally(make_experiment(strategy={"kind": "moon", "mu": 0}), tables)["parameters"] == plain["parameters"]


@pytest.mark.slow
def test_the_smaller_mu_the_nearer_to_fedavg(run_locally, tables, make_experiment):
    training = {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8, "dtype": "float64"}

    def model(strategy):
        experiment = make_experiment(strategy=strategy, training=training, **LAST)
        return wire.unpack(run_locally(experiment, tables)["parameters"])

    plain, away = model("fedavg"), []
    for mu in (1e-1, 1e-3, 1e-5):
        found = model({"kind": "moon", "mu": mu})
        away.append(max(float((found[name] - plain[name]).abs().max()) for name in plain))
    assert away[0] > 10 * away[1] > 100 * away[2] > 0


def test_answering_twice_gives_the_same_reply(spied, tables, make_experiment):
    experiment = make_experiment(strategy="moon")
    spy, _ = spied(experiment)
    (request,) = [one for one in spy.of("RPC_train") if next(iter(one.values()))["round"] == 3]
    assert all("contrast" in one["folds"][0]["strategy"] for one in request.values())
    answers = []
    for _ in range(2):
        replies = local_federation(experiment, tables).call("RPC_train", request, deadline_s=60)
        answers.append({site: answer["folds"] for site, answer in replies})
    assert answers[0] == answers[1]


def test_a_sites_alien_own_model_is_refused_at_the_site(spied, tables, make_experiment):
    experiment = make_experiment(strategy="moon", rounds=2)
    spy, _ = spied(experiment)
    (request,) = [one for one in spy.of("RPC_train") if next(iter(one.values()))["round"] == 2]
    request["berlin"]["folds"][0]["strategy"]["contrast"]["own"] = wire.pack({"model.0.weight": torch.zeros(2, 2)})
    replies = local_federation(experiment, tables).call("RPC_train", request, deadline_s=60)
    assert {site for site, _ in replies} == {"amsterdam", "cairo"}
    assert replies.missing["berlin"].kind == "request"
    assert "is missing" in str(replies.missing["berlin"])


def test_a_problem_without_features_is_refused_before_anything_is_trained(spied, make_experiment, monkeypatch):
    monkeypatch.setattr(Classification, "head", lambda self, networks: None)
    with pytest.raises(ExperimentError, match="strategy moon compares features, and problem classification"):
        spied(make_experiment(strategy="moon"))


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_moon_goes_with_the_stages_folds_and_a_sample_of_the_sites(run_locally, tables, make_experiment, norm):
    strategy = {"kind": "moon", "clip": 5.0, "combine": "median", "server": {"kind": "sgd", "lr": 0.9}}
    model = {"kind": "mlp", "hidden": [8, 4], "norm": norm, "dropout": 0.2}
    split, some = {"kind": "kfold", "folds": 3}, {"fraction": 0.7, "minimum": 1}
    experiment = make_experiment(strategy=strategy, model=model, split=split, participation=some)
    assert run_locally(experiment, tables)["status"] == "completed"


def test_moon_learns_at_the_mock_hospitals(run_locally):
    pytest.importorskip("sklearn")
    experiment = Experiment.load(DEMO, ["strategy=moon", "rounds=6"])
    result = run_locally(experiment, tables_of(experiment, DEMO.parent))
    assert result["metrics"]["test"]["pooled"]["auroc"] > 0.95
