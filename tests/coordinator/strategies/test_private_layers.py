"""Layers that stay at the sites, over whole runs: what travels, what is averaged, what is measured, what is lost."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import command, write

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.strategy.kinds import ONE_GRADIENT, STRATEGIES
from v6_algorithm.site import SiteContext, handle

ROWS = {"amsterdam": 60, "berlin": 44, "cairo": 50}
OWN = {"model.1.weight", "model.1.bias", "model.1.running_mean", "model.1.running_var", "model.1.num_batches_tracked"}


def frames(apart=3.0):
    found = {}
    for number, (name, rows) in enumerate(ROWS.items()):
        generator = np.random.default_rng(number)
        values = generator.normal(size=(rows, 3))
        frame = pd.DataFrame(values * (1 + number) + apart * number, columns=["a", "b", "c"])
        found[name] = frame.assign(y=(values[:, 0] - values[:, 1] > generator.normal(0, 0.3, rows)).astype(int))
    return found


def experiment_of(**changes):
    content = {
        "data": {"target": "y"},
        "model": {"kind": "mlp", "hidden": [4], "norm": "batch"},
        "training": {"batch_size": 8, "optimizer": {"kind": "sgd", "lr": 0.1}},
        "strategy": {"private": "norm"},
        "rounds": 4,
        "stopping": {"patience": None},
    }
    return Experiment.parse(content | changes)


def contexts(folder=None, apart=3.0):
    return {
        name: SiteContext({name: TableSource(frame=frame)}, state=folder / name if folder else None)
        for name, frame in frames(apart).items()
    }


class Recording:
    """Every request and reply of a run; `before` may do something to the sites first."""

    def __init__(self, monkeypatch, before=None):
        self.asked, self.answered = [], []

        def listen(method, request, context, **options):
            if before:
                before(method, request, context)
            reply = handle(method, request, context, **options)
            self.asked.append((method, json.loads(json.dumps(request))))
            self.answered.append((method, json.loads(wire.to_text(reply))))
            return reply

        monkeypatch.setattr(local, "handle", listen)


def finished(experiment, folder=None):
    result = run(LocalFederation(contexts(folder)), experiment)
    assert result["status"] == "completed"
    return result


def lost(result):
    return [note for note in result["notes"] if "had lost its own layers" in note]


def test_the_wire_carries_the_shared_tensors_only(monkeypatch):
    recording = Recording(monkeypatch)
    result = finished(experiment_of())
    items = [item for _, message in recording.asked + recording.answered for item in message.get("folds", [])]
    texts = [item["parameters"] for item in items if item.get("parameters")]
    texts.append(result["parameters"])
    shared = {"model.0.weight", "model.0.bias"}
    assert len(texts) > 20
    for text in texts:
        assert not set(wire.unpack(text)) & OWN
        assert set(wire.unpack(text)) > shared
    about = json.loads(wire.read_metadata(result["parameters"])["v6_algorithm"])
    assert about["private"] == {"include": ["norm"], "exclude": [], "epochs": None}


def test_shared_layers_are_averaged_and_own_layers_go_on_from_where_they_were(monkeypatch, tmp_path):
    """Round by round: what a site keeps after a round is what it starts the next one with, and nobody else's."""
    recording = Recording(monkeypatch)
    result = finished(experiment_of(output={"model": "last"}, rounds=3), tmp_path)
    kept = {
        site: {int(path.stem.split("-")[3]): wire.unpack(wire.pack_file(path.read_bytes()))
               for path in (tmp_path / site).glob("private-*-0-*")}
        for site in ROWS
    }  # fmt: skip
    assert all(set(own[3]) == OWN for own in kept.values())
    newest = [own[3]["model.1.running_mean"] for own in kept.values()]
    assert not newest[0].equal(newest[1])
    steps = [own[3]["model.1.num_batches_tracked"].item() for own in kept.values()]
    # 36, 26 and 30 training rows in batches of 8, for three rounds: counters of a model that began anew would be less.
    assert steps == [3 * 5, 3 * 4, 3 * 4]
    replies = {
        reply["site"]: reply["folds"][0]
        for method, reply in recording.answered
        if method == "train" and reply["round"] == 3
    }
    total = sum(item["rows"] for item in replies.values())
    mean = sum(
        wire.unpack(item["parameters"])["model.0.weight"].double() * item["rows"] / total for item in replies.values()
    )
    torch.testing.assert_close(wire.unpack(result["parameters"])["model.0.weight"].double(), mean, rtol=1e-6, atol=1e-7)


def test_memory_and_folder_give_the_same_result(tmp_path):
    one, other = finished(experiment_of()), finished(experiment_of(), tmp_path)
    assert one["parameters"] == other["parameters"]
    assert one["metrics"] == other["metrics"]
    assert finished(experiment_of(strategy="fedavg"))["metrics"] != one["metrics"]


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_the_best_model_is_tested_with_the_layers_of_its_round(place, tmp_path):
    training = {"optimizer": {"kind": "sgd", "lr": 3.0}, "batch_size": 8, "local_epochs": 4}
    experiment = experiment_of(training=training, rounds=8)
    result = finished(experiment, tmp_path if place == "folder" else None)
    assert result["best_round"] < 8, "a test of nothing, otherwise"
    best = result["history"]["validation_loss"][result["best_round"] - 1]
    assert result["metrics"]["validation"]["pooled"]["loss"] == pytest.approx(best, rel=1e-12)
    assert not lost(result)


def test_folds_have_layers_of_their_own_and_old_versions_are_removed(tmp_path):
    result = finished(experiment_of(split={"kind": "kfold", "folds": 3}, rounds=6), tmp_path)
    assert not lost(result)
    for site in ROWS:
        versions = [path.stem.split("-")[2:4] for path in (tmp_path / site).glob("private-*")]
        for fold in "012":
            # The newest, that which it went on from, and the best.
            assert 1 <= len([one for one, _ in versions if one == fold]) <= 3


@pytest.mark.parametrize("how", ["removed", "cut short"])
def test_a_site_whose_layers_are_lost_goes_on_from_the_initial_ones_and_the_result_says_so(monkeypatch, tmp_path, how):
    def lose(method, request, context):
        if method == "train" and request["round"] == 3 and request["site"] == "berlin":
            for path in context.state.glob("private-*"):
                path.unlink() if how == "removed" else path.write_bytes(path.read_bytes()[:-3])

    recording = Recording(monkeypatch, lose)
    result = finished(experiment_of(output={"model": "last"}), tmp_path)
    assert lost(result) == ["round 3: site 'berlin' had lost its own layers, of round 2, and took the initial ones"]
    used = {(reply["site"], reply["round"]): reply["folds"][0]["private"]
            for method, reply in recording.answered if method == "train"}  # fmt: skip
    assert [used["berlin", number] for number in (1, 2, 3, 4)] == [0, 1, 0, 3]
    assert [used["cairo", number] for number in (1, 2, 3, 4)] == [0, 1, 2, 3]


def test_a_request_answered_twice_gets_the_same_answer(monkeypatch, tmp_path):
    recording = Recording(monkeypatch)
    finished(experiment_of(rounds=3), tmp_path)
    sites = contexts(tmp_path)
    method, request = next(one for one in recording.asked if one[0] == "train" and one[1]["round"] == 3)
    (given,) = (reply for kind, reply in recording.answered
                if kind == method and (reply["site"], reply["round"]) == (request["site"], 3))  # fmt: skip
    # As after a restart of the node; the version that the request names is still there.
    again = json.loads(wire.to_text(handle(method, request, sites[request["site"]])))
    assert again["folds"] == given["folds"]


def test_sites_that_rest_keep_their_layers(monkeypatch):
    recording = Recording(monkeypatch)
    result = finished(experiment_of(participation={"fraction": 0.6}, rounds=6, output={"model": "last"}))
    assert not lost(result)
    trained = {}
    for method, request in recording.asked:
        if method == "train" and request["folds"][0]["train"]:
            assert request["folds"][0]["private"]["round"] == trained.get(request["site"], 0)
            trained[request["site"]] = request["round"]
    assert len(set(trained.values())) > 1


@pytest.mark.parametrize("kind", [kind for kind in STRATEGIES if kind not in (*ONE_GRADIENT, "moon", "newton")])
@pytest.mark.slow
def test_every_strategy_learns_with_private_layers(kind):
    server = {"server": {"kind": "sgd", "lr": 1.0}} if kind == "fedopt" else {}
    result = finished(experiment_of(strategy={"kind": kind, "private": "norm", **server}, rounds=6))
    assert not lost(result)
    assert not set(wire.unpack(result["parameters"])) & OWN
    losses = result["history"]["train_loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": {"private": "norm", "compress": [{"kind": "topk", "fraction": 0.5}]}},
        {"personal": {"kind": "ditto", "epochs": 1}},
        {"output": {"model": "swa"}},
    ],
    ids=str,
)
def test_compression_personal_models_and_averages_go_with_private_layers(changes, tmp_path):
    one, other = finished(experiment_of(**changes)), finished(experiment_of(**changes), tmp_path)
    assert one["parameters"] == other["parameters"]
    assert one["metrics"] == other["metrics"]
    assert not lost(one)
    assert not set(wire.unpack(one["parameters"])) & OWN


@pytest.mark.parametrize("mode", ["local", "centralised"])
def test_where_nobody_shares_nothing_is_private(mode):
    experiment = experiment_of(mode=mode)
    tables = {name: TableSource(frame=frame) for name, frame in frames().items()}
    plain = experiment_of(mode=mode, strategy="fedavg")
    one, other = (run(local_federation(given, tables), given) for given in (experiment, plain))
    assert one["metrics"] == other["metrics"]


@pytest.mark.slow
def test_a_run_starts_from_the_shared_layers_of_an_earlier_one_or_of_a_whole_model(monkeypatch):
    earlier, whole = finished(experiment_of()), finished(experiment_of(strategy="fedavg"))
    for result, start in ((earlier, {"weights": "before.json"}), (whole, {"weights": "before.json", "partial": True})):
        recording = Recording(monkeypatch)
        run(LocalFederation(contexts()), experiment_of(start=start, rounds=1), weights=result["parameters"])
        first = next(request["folds"][0] for method, request in recording.asked if method == "train")
        sent, given = wire.unpack(first["parameters"]), wire.unpack(result["parameters"])
        assert not set(sent) & OWN
        assert sent["model.0.weight"].equal(given["model.0.weight"])
        assert first["private"] == {"round": 0, "keep": []}


@pytest.mark.slow
def test_own_normalisation_helps_where_the_scanners_differ():
    """Sites whose inputs are of other scales and places: FedBN's case (Li et al., ICLR 2021)."""
    changes = {"data": {"target": "y", "scaling": "none"}, "rounds": 20}
    own, common = (
        run(LocalFederation(contexts(apart=20.0)), experiment_of(strategy=strategy, **changes))["metrics"]["test"]
        for strategy in ({"private": "norm"}, "fedavg")
    )
    assert own["pooled"]["auroc"] > common["pooled"]["auroc"] + 0.1


def test_a_site_without_a_place_that_lasts_refuses(tmp_path, monkeypatch):
    pytest.importorskip("vantage6.algorithm.tools")
    monkeypatch.delenv("TEMPORARY_FOLDER", raising=False)
    file = write(tmp_path, model={"kind": "mlp", "hidden": [4]}, strategy={"private": "head"})
    result = command("run", file, "--engine", "mock", "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert "strategy.private: this site has no place for layers of its own" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": {"kind": "fedsgd", "private": "norm"}}, "private does not go with strategy fedsgd: a site takes"),
        ({"split": "leave_one_site_out"}, "strategy.private does not go with split leave_one_site_out"),
        ({"start": {"pretrain_epochs": 1}}, "strategy.private does not go with start.pretrain_epochs"),
        ({"strategy": {"private": []}}, "strategy.private"),
        ({"strategy": {"private": {"include": ["norm"], "but": "head"}}}, "unknown key 'but'; allowed: include"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ExperimentError) as refused:
        experiment_of(**changes)
    assert message in str(refused.value)


def test_a_pattern_that_fits_nothing_ends_the_run_before_training(monkeypatch):
    recording = Recording(monkeypatch)
    with pytest.raises(Exception, match="'bn' fits no tensor of the model"):
        run(LocalFederation(contexts()), experiment_of(strategy={"private": "bn"}))
    assert "train" not in {method for method, _ in recording.asked}
