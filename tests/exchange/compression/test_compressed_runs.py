"""Compression in whole runs: what it costs, what it needs of a site's folder, and what goes with it."""

import pytest
import torch

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, handle

COMPRESSIONS = {
    "powersgd": {"kind": "powersgd", "rank": 2},
    "rankdad": {"kind": "rankdad", "rank": 3},
    "topk": {"kind": "topk", "fraction": 0.05},
    "int8": "int8",
    "bfloat16": "bfloat16",
    "powersgd int8": [{"kind": "powersgd", "rank": 2}, "int8"],
}
WIDE = {"kind": "mlp", "hidden": [64, 64], "norm": "batch"}


def bytes_of(result, call="train"):
    """Bytes of replies, by round."""
    return {
        item["round"]: sum(item["bytes_received"].values())
        for item in result["timing"]["rounds"]
        if item["call"] == call
    }


@pytest.fixture
def compressed(make_experiment, run_locally, tables):
    def go(compress, kind="fedavg", rounds=10, **changes):
        strategy = {"kind": kind, "compress": compress}
        experiment = make_experiment(
            strategy=strategy, model=WIDE, rounds=rounds, stopping={"patience": None}, **changes
        )
        return run_locally(experiment, tables)

    return go


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
@pytest.mark.slow
def test_a_compressed_run_learns_with_fewer_bytes(compressed, compress):
    result, dense = compressed(compress), compressed(None)
    assert result["metrics"]["test"]["pooled"]["accuracy"] > 0.85
    assert bytes_of(result)[1] == pytest.approx(bytes_of(dense)[1], rel=0.01)
    assert bytes_of(result)[5] < 0.7 * bytes_of(dense)[5]


def test_compression_begins_with_the_round_it_is_told(compressed):
    found = bytes_of(compressed({"stages": "powersgd", "start": 4}, rounds=5))
    assert found[3] > 1.5 * found[4]


def test_all_numbers_of_topk_are_the_dense_run(compressed):
    """With every number sent whole, all that compression does is to send the model as a difference."""
    models = [
        wire.unpack(compressed(compress, rounds=4, training={"dtype": "float64"})["parameters"])
        for compress in (None, {"kind": "topk", "fraction": 1.0})
    ]
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_fedsgd_compresses_gradients_which_is_rankdad(compressed):
    training = {"local_steps": 1, "batch_size": None, "optimizer": {"kind": "adam", "lr": 0.02}}
    result = compressed({"kind": "rankdad", "rank": 8}, kind="fedsgd", rounds=40, training=training)
    assert result["metrics"]["test"]["pooled"]["accuracy"] > 0.85


def test_the_same_seed_gives_the_same_compressed_run(compressed):
    first, second = (compressed(["powersgd", "int8"], rounds=4) for _ in range(2))
    assert first["parameters"] == second["parameters"]


def in_folders(experiment, tables, tmp_path):
    contexts = {name: SiteContext({name: table}, state=tmp_path / name) for name, table in tables.items()}
    return LocalFederation(contexts)


def test_a_folder_remembers_what_a_process_does(make_experiment, tables, tmp_path):
    experiment = make_experiment(strategy={"kind": "fedavg", "compress": "powersgd"}, model=WIDE)
    results = [
        run(federation, experiment)
        for federation in (local_federation(experiment, tables), in_folders(experiment, tables, tmp_path))
    ]
    assert results[0]["parameters"] == results[1]["parameters"]
    for site in tables:
        # Of four rounds, the newest two.
        names = sorted(path.stem.rpartition("-")[2] for path in (tmp_path / site).glob("compression-*"))
        assert names == ["3", "4"]


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_a_lost_folder_does_not_corrupt_a_run(make_experiment, tables, tmp_path, loss):
    experiment = make_experiment(strategy={"kind": "fedavg", "compress": "powersgd"}, model=WIDE, rounds=8)
    federation = in_folders(experiment, tables, tmp_path)

    def lose(event):
        if event["event"] == "round":
            for path in (tmp_path / "berlin").glob("compression-*"):
                path.unlink() if loss == "gone" else path.write_bytes(b"\0" * 9)

    result = run(federation, experiment, lose)
    assert result["rounds_run"] == 8
    assert result["metrics"]["test"]["pooled"]["accuracy"] > 0.8
    assert all(not item["missing"] for item in result["participation"])


def test_a_request_that_comes_twice_is_answered_alike(make_experiment, spied, tables, tmp_path):
    """A node runs a task again after a restart."""
    experiment = make_experiment(strategy={"kind": "fedavg", "compress": ["powersgd", "int8"]}, model=WIDE, rounds=3)
    spy, _ = spied(experiment)
    context = SiteContext({"berlin": tables["berlin"]}, state=tmp_path)
    for requests in spy.of("RPC_train"):
        answers = [handle("train", requests["berlin"], context)["folds"][0]["parameters"] for _ in range(2)]
        assert answers[0] == answers[1]


def test_another_run_at_the_same_sites_finds_nothing_of_the_last(make_experiment, tables):
    experiment = make_experiment(strategy={"kind": "fedavg", "compress": "powersgd"}, model=WIDE)
    federation = local_federation(experiment, tables)
    assert run(federation, experiment)["parameters"] == run(federation, experiment)["parameters"]


def test_a_robust_rule_combines_what_was_decompressed(make_experiment, spied):
    strategy = {"kind": "fedavg", "compress": "powersgd", "combine": "median"}

    def explode(method, site, number, reply):
        if method == "RPC_train" and site == "berlin" and number > 1:
            payload = wire.unpack(reply["folds"][0]["parameters"])
            payload = {name: tensor * 1e6 if tensor.is_floating_point() else tensor for name, tensor in payload.items()}
            reply["folds"][0]["parameters"] = wire.pack(payload)
        return reply

    experiment = make_experiment(strategy=strategy, model=WIDE, rounds=10, output={"model": "last"})
    assert spied(experiment, explode)[1]["metrics"]["test"]["pooled"]["accuracy"] > 0.8


def test_a_damaged_compressed_reply_is_dropped_and_named(make_experiment, spied):
    experiment = make_experiment(strategy={"kind": "fedavg", "compress": "powersgd"}, model=WIDE, rounds=3)

    def damage(method, site, number, reply):
        if method == "RPC_train" and site == "berlin" and number == 2:
            payload = wire.unpack(reply["folds"][0]["parameters"])
            name = next(name for name in payload if name.endswith(":left"))
            reply["folds"][0]["parameters"] = wire.pack(payload | {name: payload[name][:-1]})
        return reply

    _, result = spied(experiment, damage)
    missing = next(item["missing"] for item in result["participation"] if item["round"] == 2)
    assert "factors that do not fit" in missing["berlin"]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            {"kind": "fedavg", "compress": "zip"},
            "unknown value 'zip'; allowed: powersgd, rankdad, topk, int8, float16, bfloat16",
        ),
        ({"kind": "fedavg", "compress": ["int8", "powersgd"]}, "behind it one of int8"),
        ({"kind": "fedavg", "compress": ["topk", "powersgd"]}, "behind it one of int8"),
        ({"kind": "fedavg", "compress": {"kind": "topk", "fraction": 0}}, r"compress\.stages\.0\.fraction"),
        ({"kind": "fedavg", "compress": {"stages": "int8", "start": 1}}, "start"),
        ({"kind": "scaffold", "compress": "int8"}, "compress does not go with strategy scaffold: what scaffold keeps"),
        ({"kind": "feddyn", "compress": "int8"}, "compress does not go with strategy feddyn"),
        ({"kind": "cyclic", "compress": "int8"}, "nothing is averaged"),
    ],
)
def test_what_does_not_go_with_compression_is_refused(strategy, message):
    content = {"data": {"target": "y"}, "strategy": strategy, "training": {"optimizer": {"kind": "sgd", "lr": 0.1}}}
    with pytest.raises(ExperimentError, match=message):
        Experiment.parse(content)


def test_late_updates_are_not_used_when_they_are_compressed():
    content = {"data": {"target": "y"}, "strategy": {"kind": "fedavg", "compress": "int8"}}
    with pytest.raises(ExperimentError, match="late stale does not go with compress"):
        Experiment.parse(content | {"participation": {"late": "stale"}})
