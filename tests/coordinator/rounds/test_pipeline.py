"""Rounds that overlap (`pipeline: 1`): which model a round trains, what becomes of its answers, and what is refused."""

import pytest
import torch
from loopback import LoopbackProxy, numbered
from spying import Spy, lose

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines import entry
from v6_algorithm.engines.simulation.simulate import local_federation, mock_federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.site.policy import Policy

LONG = {"stopping": {"patience": None}, "pipeline": 1}


def sent(spy, number):
    (request,) = [
        next(iter(asked.values())) for asked in spy.of("RPC_train") if next(iter(asked.values()))["round"] == number
    ]
    return request["folds"][0]


def test_from_round_three_on_sites_train_the_model_of_the_round_before_the_last(spied, make_experiment):
    experiment = make_experiment(rounds=6, **LONG)
    spy, result = spied(experiment)
    assert result["history"]["trained_from"] == [0, 1, 1, 2, 3, 4]
    assert [(entry["round"], entry["call"]) for entry in result["participation"][2:]] == [
        *((number, "train") for number in range(1, 7)), (6, "evaluate")
    ]  # fmt: skip
    rows = {site: reply["folds"][0]["rows"] for method, site, reply in spy.replies if method == "RPC_train"}
    for number in (3, 4):
        # What round n makes is sent in round n + 2.
        before, origin, made = (wire.unpack(sent(spy, n)["parameters"]) for n in (number + 1, number, number + 2))
        moved = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in origin.items()}
        for method, site, reply in spy.replies:
            if method == "RPC_train" and reply["round"] == number:
                trained = wire.unpack(reply["folds"][0]["parameters"])
                for name in moved:
                    moved[name] += rows[site] / sum(rows.values()) * (trained[name].double() - origin[name].double())
        for name in moved:
            assert torch.allclose(made[name].double(), before[name].double() + moved[name], rtol=0, atol=1e-6)
            assert not torch.equal(made[name], before[name])


def test_the_history_has_every_model_that_was_made_and_its_measures_are_of_it(spied, make_experiment):
    spy, result = spied(make_experiment(rounds=5, **LONG))
    measured = [set(sent(spy, number)["evaluate"]) for number in range(1, 6)]
    assert measured == [set(), {"validation"}, set(), {"validation"}, {"validation"}]
    losses = result["history"]["validation_loss"]
    assert None not in losses
    assert len(losses) == 5
    assert result["metrics"]["validation"]["pooled"]["loss"] == min(losses)
    assert result["best_round"] == losses.index(min(losses)) + 1


@pytest.mark.slow
def test_every_engine_comes_to_the_same_bits(tables, make_experiment, monkeypatch, tmp_path):
    experiment = make_experiment(rounds=4, **LONG, participation={"poll_s": 0.01, "fraction": 0.7}, resident=False)
    local = run(local_federation(experiment, tables), experiment)
    mock = run(mock_federation(experiment, tables), experiment)
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("TEMPORARY_FOLDER", str(tmp_path / "job"))
    organizations = numbered(tables)
    with LoopbackProxy(organizations) as proxy:
        client = proxy.client()
        network = entry.run_master(client, None, experiment.for_task())
        rounds = [task["name"].split(" at ")[0] for task in proxy.tasks.values() if "RPC_train" in task["name"]]
    for result in (mock, network):
        for key in ("history", "parameters", "metrics"):
            assert result[key] == local[key], key
    assert list(dict.fromkeys(rounds)) == [f"RPC_train round {number}" for number in range(1, 5)]


@pytest.mark.slow
def test_the_next_round_is_asked_for_before_the_answers_of_this_one_are_looked_at(
    tables, make_experiment, monkeypatch, tmp_path
):
    experiment = make_experiment(rounds=4, **LONG, participation={"poll_s": 0.01}, resident=False)
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    organizations = numbered(tables)
    order = []
    with LoopbackProxy(organizations) as proxy:
        get, create = proxy.get, proxy.create

        def looked(path, query):
            if path == "result":
                order.append(("result", proxy.tasks[int(query["task_id"][0])]["name"].split(" at ")[0]))
            return get(path, query)

        def created(body):
            order.append(("create", body["name"].split(" at ")[0]))
            return create(body)

        proxy.get, proxy.create = looked, created
        entry.run_master(proxy.client(), None, experiment.for_task())
    first = {event: place for place, event in reversed(list(enumerate(order)))}
    for number in (3, 4):
        asked, before = ("create", f"RPC_train round {number}"), ("result", f"RPC_train round {number - 1}")
        if number == 3:
            # A node must not begin with round 3 before it has begun with round 2.
            assert first[before] < first[asked]
        else:
            assert first[asked] < first[before]


def test_nodes_that_watch_the_order_of_requests_answer_all_of_them(tables, make_experiment):
    experiment = make_experiment(rounds=5, **LONG)
    policy = Policy.from_environment({"V6_ALGORITHM_POLICY": "trusted", "V6_ALGORITHM_REQUEST_ORDER": "true"})
    result = run(local_federation(experiment, tables, policy), experiment)
    assert all(not entry["missing"] for entry in result["participation"])


@pytest.mark.parametrize("pipeline", [0, 1])
def test_early_stopping_is_measured_at_nodes_that_watch_the_order_of_requests(tables, make_experiment, pipeline):
    experiment = make_experiment(rounds=40, stopping={"patience": 1, "min_delta": 0.5}, pipeline=pipeline)
    policy = Policy.from_environment({"V6_ALGORITHM_POLICY": "trusted", "V6_ALGORITHM_REQUEST_ORDER": "true"})
    result = run(local_federation(experiment, tables, policy), experiment)
    assert result["status"] == "completed"
    assert result["rounds_run"] < 40
    assert result["metrics"]["test"]["pooled"]["loss"] > 0


def test_a_quorum_that_is_lost_ends_the_run_with_what_was_made(tables, make_experiment):
    experiment = make_experiment(rounds=6, **LONG, participation={"minimum": len(tables)})
    result = run(Spy(local_federation(experiment, tables), lose("berlin", {3})), experiment)
    assert result["status"] == "stopped"
    assert result["rounds_run"] == 2


@pytest.mark.parametrize("late", ["drop", "stale"])
def test_a_late_answer_counts_as_without_overlap(tables, make_experiment, late):
    experiment = make_experiment(rounds=7, **LONG, participation={"minimum": 2, "late": late})
    spy = Spy(local_federation(experiment, tables), lose("berlin", {3}, "late"), back={"berlin"})
    result = run(spy, experiment)
    third = next(entry for entry in result["participation"] if entry["round"] == 3)
    assert third["missing"]["berlin"].startswith("late")
    assert "berlin" in {site for entry in result["participation"] if entry["round"] >= 5 for site in entry["answered"]}
    told = [entry["belated"]["berlin"] for entry in result["participation"] if "belated" in entry]
    assert told == (["round 3"] if late == "stale" else []) or (late == "drop" and "not used" in told[0])


def test_training_that_is_over_says_which_round_was_asked_for_in_vain(spied, make_experiment):
    _, result = spied(make_experiment(rounds=40, stopping={"patience": 2, "min_delta": 0.2}, pipeline=1))
    assert result["rounds_run"] < 40
    assert any("was asked for before training was found to be over" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy": "scaffold", "training": {"optimizer": {"kind": "sgd", "lr": 0.1}}}, "strategy scaffold"),
        ({"strategy": "cyclic"}, "strategy cyclic"),
        ({"strategy": {"private": "head"}}, "strategy.private"),
        ({"strategy": {"compress": {"kind": "topk", "fraction": 0.1}}}, "remembers what the round before left out"),
        ({"strategy": {"compress": {"kind": "powersgd", "feedback": False}}}, "warm"),
        ({"privacy": {"secure_aggregation": {}}}, "privacy.secure_aggregation"),
        (
            {"privacy": {"differential_privacy": {"epsilon": 3, "delta": 1e-5, "unit": "sample"}}},
            "differential_privacy",
        ),
        ({"pipeline": 2}, "pipeline: must be less than or equal to 1 (given: 2)"),
    ],
)
def test_what_has_to_know_the_round_before_is_refused_by_name(make_experiment, changes, reason):
    with pytest.raises(ExperimentError) as refused:
        make_experiment(**({"pipeline": 1} | changes))
    assert reason in str(refused.value)


def test_compressed_updates_count_from_the_newest_model(tables, make_experiment):
    whole = make_experiment(rounds=5, **LONG)
    half = make_experiment(rounds=5, **LONG, strategy={"compress": "float16"})
    models = [wire.unpack(run(local_federation(one, tables), one)["parameters"]) for one in (whole, half)]
    for name, tensor in models[0].items():
        assert torch.allclose(tensor, models[1][name], atol=2e-3)
