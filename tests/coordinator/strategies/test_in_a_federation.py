"""Strategies over whole runs: where their fixed points are, what they equal, and who is asked when."""

import numpy as np
import pandas as pd
import pytest
import torch
from spying import lose

from v6_algorithm.coordinator.strategies import create_strategy
from v6_algorithm.data.sources import TableSource
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.wire import TensorSpec

ROWS = {"one": 30, "two": 50, "three": 80}


def different_sites():
    """Sites with other inputs and another slope each, so that the mean of their minima is not that of the mean."""
    sites = {}
    for number, (name, rows) in enumerate(ROWS.items()):
        generator = np.random.default_rng(number)
        values = generator.normal(size=(rows, 2)) * [1 + number, 3 - number]
        frame = pd.DataFrame(values, columns=["a", "b"])
        frame["y"] = values @ [number - 1.0, 2.0 * number] + number + generator.normal(0, 0.1, rows)
        sites[name] = TableSource(frame=frame)
    return sites


def regression(make_experiment, strategy, **changes):
    content = {
        "problem": "regression",
        "model": "linear",
        "data": {"target": "y", "scaling": "none"},
        "split": {"kind": "ratio", "train": 1, "validation": 0, "test": 0},
        "strategy": strategy,
        "rounds": 80,
        "training": {
            "local_steps": 5, "batch_size": None, "dtype": "float64", "optimizer": {"kind": "sgd", "lr": 0.02},
        },
    }  # fmt: skip
    return make_experiment(**content | changes)


def weights(result):
    model = wire.unpack(result["parameters"])
    return np.append(model["model.weight"].numpy().ravel(), model["model.bias"].item())


def least_squares(sites):
    frame = pd.concat([source.frame for source in sites.values()])
    inputs = np.column_stack([frame[["a", "b"]], np.ones(len(frame))])
    return np.linalg.lstsq(inputs, frame["y"], rcond=None)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "rounds", "training"),
    [
        ({"kind": "scaffold"}, 80, {}),
        ({"kind": "scaffold"}, 80, {"optimizer": {"kind": "sgd", "lr": 0.004, "momentum": 0.8}}),
        ({"kind": "feddyn", "alpha": 1.0}, 60, {"local_steps": 30}),
    ],
    ids=["scaffold", "scaffold with momentum", "feddyn"],
)
def test_corrected_strategies_reach_the_minimum_of_all_rows_and_fedavg_does_not(
    run_locally, make_experiment, strategy, rounds, training
):
    sites = different_sites()
    base = regression(make_experiment, strategy).training.model_dump(exclude_none=True) | {"batch_size": None}
    changes = {"training": base | training, "rounds": rounds}
    pooled = least_squares(sites)
    corrected = weights(run_locally(regression(make_experiment, strategy, **changes), sites))
    plain = weights(run_locally(regression(make_experiment, "fedavg", **changes), sites))
    assert np.abs(corrected - pooled).max() < 1e-3
    assert np.abs(plain - pooled).max() > 0.02


@pytest.mark.slow
def test_scaffold_reaches_it_with_a_sample_of_the_sites_in_each_round(run_locally, make_experiment):
    sites = different_sites()
    experiment = regression(make_experiment, "scaffold", participation={"fraction": 0.6, "minimum": 2}, rounds=150)
    assert np.abs(weights(run_locally(experiment, sites)) - least_squares(sites)).max() < 1e-3


@pytest.mark.parametrize("optimizer", [{"kind": "adam", "lr": 0.1}, {"kind": "sgd", "lr": 0.02, "momentum": 0.9}])
def test_fedsgd_is_centralised_training_whatever_the_optimiser(run_locally, make_experiment, optimizer):
    sites = different_sites()
    training = {"batch_size": None, "dtype": "float64", "optimizer": optimizer}
    federated = regression(make_experiment, "fedsgd", rounds=30, training=training)
    central = regression(
        make_experiment, "fedavg", rounds=1, mode="centralised", training={**training, "local_steps": 30}
    )
    found, wanted = weights(run_locally(federated, sites)), weights(run_locally(central, sites))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


def test_fedprox_without_a_pull_is_fedavg_to_the_bit(run_locally, tables, make_experiment):
    plain = run_locally(make_experiment(), tables)
    unpulled = run_locally(make_experiment(strategy={"kind": "fedprox", "mu": 0}), tables)
    assert unpulled["parameters"] == plain["parameters"]


@pytest.mark.slow
def test_fedprox_stays_nearer_to_the_received_model_the_stronger_the_pull(run_locally, tables, make_experiment):
    training = {"local_epochs": 5, "batch_size": 8, "optimizer": {"kind": "sgd", "lr": 0.05}}
    moved = []
    for mu in (0, 1, 10):
        strategy = {"kind": "fedprox", "mu": mu}
        models = [
            wire.unpack(run_locally(make_experiment(rounds=rounds, strategy=strategy, training=training,
                                                    output={"model": "last"}), tables)["parameters"])
            for rounds in (1, 2)
        ]  # fmt: skip
        moved.append(sum(float((models[1][name] - models[0][name]).square().sum()) for name in models[0]))
    assert moved[0] > moved[1] > moved[2]


@pytest.mark.parametrize("mode", ["local", "centralised"])
def test_a_site_alone_trains_plainly(run_locally, tables, make_experiment, mode):
    plain = run_locally(make_experiment(mode=mode), tables)
    adaptive = run_locally(make_experiment(mode=mode, strategy="fedadam"), tables)
    assert adaptive["parameters"] == plain["parameters"]


def test_each_fold_has_a_strategy_state_of_its_own(spied, make_experiment):
    """Each fold's model is what its replies alone make of a strategy that knows no other fold."""
    experiment = make_experiment(
        strategy={"kind": "fedyogi", "lr": 0.1}, split={"kind": "kfold", "folds": 3},
        output={"model": "last"}, stopping={"patience": None},
    )  # fmt: skip
    spy, result = spied(experiment)
    made = wire.unpack(result["parameters"])
    for number in range(3):
        items = [(site, r["folds"][number]) for method, site, r in spy.replies if method == "RPC_train"]
        model = wire.unpack(items[0][1]["strategy"]["start"])
        spec = {name: TensorSpec(tuple(tensor.shape), "float32") for name, tensor in model.items()}
        strategy = create_strategy(experiment, spec, {site: item["rows"] for site, item in items})
        for round in range(experiment.rounds):
            asked = {"strategy": {"start": True}} if round == 0 else {}
            strategy.configure(round + 1, list(strategy.rows), model)
            for site, item in items[3 * round : 3 * round + 3]:
                strategy.add(strategy.read(site, item, asked))
            model = strategy.aggregate()
        assert all(torch.equal(made[f"fold-{number}/{name}"], tensor) for name, tensor in model.items())


def test_in_cyclic_transfer_each_site_trains_what_the_one_before_made(spied, make_experiment):
    spy, result = spied(make_experiment(rounds=2, strategy="cyclic", output={"model": "last"}))
    trained = [
        (site, request["folds"][0]["parameters"])
        for requests in spy.of("RPC_train")
        for site, request in requests.items()
        if request["folds"][0]["train"]
    ]
    replies = [
        reply["folds"][0]["parameters"]
        for method, _, reply in spy.replies
        if method == "RPC_train" and "parameters" in reply["folds"][0]
    ]
    assert [site for site, _ in trained] == ["amsterdam", "berlin", "cairo"] * 2
    received = [model for _, model in trained]
    assert received[0] is None
    for before, now in zip(replies, received[1:], strict=False):
        assert all(torch.equal(tensor, wire.unpack(now)[name]) for name, tensor in wire.unpack(before).items())
    kept = wire.unpack(result["parameters"])
    assert all(torch.equal(tensor, kept[name]) for name, tensor in wire.unpack(replies[-1]).items())


def test_in_cyclic_transfer_a_random_order_is_drawn_anew_and_repeats_with_the_seed(spied, make_experiment):
    def orders():
        spy, _ = spied(make_experiment(rounds=5, strategy={"kind": "cyclic", "order": "random"}))
        calls = [s for requests in spy.of("RPC_train") for s, r in requests.items() if r["folds"][0]["train"]]
        return [tuple(calls[at : at + 3]) for at in range(0, len(calls), 3)]

    found = orders()
    assert len(set(found)) > 1
    assert all(len(set(order)) == 3 for order in found)
    assert orders() == found


def test_in_cyclic_transfer_a_lost_site_is_passed_over_and_named(spied, make_experiment):
    _, result = spied(make_experiment(rounds=3, strategy="cyclic"), lose("berlin", {2}))
    missing = [entry["missing"] for entry in result["participation"] if entry["round"] == 2 and entry["missing"]]
    assert missing == [{"berlin": "crashed: lost on the way"}]
    assert result["status"] == "completed"


def test_in_cyclic_transfer_the_quorum_holds_for_the_round_not_for_a_turn(spied, make_experiment):
    experiment = make_experiment(rounds=3, strategy="cyclic", participation={"minimum": 3})
    _, result = spied(experiment, lose("cairo", {2}))
    assert result["status"] == "stopped"
    assert "round 2: 2 of 3 sites answered" in result["stopped_because"]
    assert result["rounds_run"] == 1


def test_a_node_knows_that_in_cyclic_transfer_no_sum_hides_its_model(spied, make_experiment):
    spy, _ = spied(make_experiment(rounds=1, strategy="cyclic"))
    assert [request["sites"] for requests in spy.of("RPC_train") for request in requests.values()] == [1, 1, 1]


def test_a_site_that_started_from_another_model_is_dropped(spied, make_experiment):
    def tamper(method, site, number, reply):
        told = reply["folds"][0].get("strategy") if method == "RPC_train" and site == "berlin" else None
        if told:
            start = wire.unpack(told["start"])
            told["start"] = wire.pack({name: tensor + 1 for name, tensor in start.items()})
        return reply

    _, result = spied(make_experiment(strategy="fedavgm"), tamper)
    (first, *_) = [entry for entry in result["participation"] if entry["call"] == "train"]
    assert first["missing"] == {"berlin": "wrong: it started from another model than the other sites"}


def test_the_start_is_asked_for_in_the_first_round_only_and_of_fedavg_never(spied, make_experiment):
    for strategy, wanted in (("fedavg", [False] * 3), ("fedavgm", [True, False, False])):
        spy, _ = spied(make_experiment(rounds=3, strategy=strategy))
        asked = [
            any("strategy" in request["folds"][0] for request in requests.values()) for requests in spy.of("RPC_train")
        ]
        assert asked == wanted


def test_the_start_is_not_asked_for_where_it_is_known(spied, make_experiment):
    experiment = make_experiment(strategy="fedavgm", start={"pretrain_epochs": 1})
    spy, result = spied(experiment)
    assert not any("strategy" in r["folds"][0] for requests in spy.of("RPC_train") for r in requests.values())
    assert result["status"] == "completed"


@pytest.mark.parametrize("kind", ["fedadam", "scaffold", "qfedavg", "fedsgd"])
def test_answering_twice_gives_the_same_reply(spied, tables, make_experiment, kind):
    from v6_algorithm.engines.simulation.simulate import local_federation

    training = {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}
    experiment = make_experiment(strategy=kind, training=training)
    spy, _ = spied(experiment)
    answers = []
    for _ in range(2):
        replies = local_federation(experiment, tables).call("RPC_train", spy.of("RPC_train")[-1], deadline_s=60)
        answers.append({site: reply["folds"] for site, reply in replies})
    assert answers[0] == answers[1]
