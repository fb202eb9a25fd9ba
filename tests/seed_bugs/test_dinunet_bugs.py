"""What coinstac-dinunet 2.5.3 and its users got wrong: a test for each bug, that fails where we have it too.

The list and its numbers are those of seeds.md, section 2.10; what else its sections 2.1 to 2.9 tell of comes after.
Here each bug is looked at from outside, by a run or a command; the rooms of the tests hold what is asked of each part.

| bug | where it went |
|---|---|
| 9, rankDAD's rank, bias, sum and hooks | not here, and refused: tested. Who adds it tests its maths (appendix C) |
| 10, PowerSGD's error feedback and shapes | the same |
| 2.1, the remote takes the settings of the first site | `master` has the one experiment, and sends it to all |
| 18, no tests | this room |
| 18, CI publishes on every push | no workflow publishes: `make push` does, and is typed |
| 18, a base image of CUDA 9.2 | tests/config/test_dockerfile.py |
| 18, no DP, no secure aggregation | not a bug to have or not, but something to build |
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hospitals import SECRET, command, read_result, table, write
from hospitals import tables as hospital_tables
from spying import lose
from torch import nn
from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

import v6_algorithm
from v6_algorithm.coordinator.rounds.initial_model import read_weights
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment, Recurrent
from v6_algorithm.learning.metrics import ClassificationMetrics, compute, merge_states
from v6_algorithm.learning.models.sequences import RecurrentNetwork
from v6_algorithm.learning.problems.tabular import Classification

FULL = {"kind": "ratio", "train": 1, "validation": 0, "test": 0}
# Nothing is trained: the model stays what it was.
STILL = {"optimizer": {"kind": "sgd", "lr": 1e-30}}


class Payload:
    """What a pickle does when it is read: it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def scores_of(probability, target) -> dict:
    """Return the metric state of one site: the probability of class 1 for each row, or of each class."""
    probability, target = np.asarray(probability, dtype=float), np.asarray(target)
    if probability.ndim == 1:
        probability = np.stack([1 - probability, probability], axis=1)
    metrics = ClassificationMetrics(probability.shape[1])
    metrics.update(probability, target, np.zeros(len(target)))
    return metrics.state()


def test_dinunet_bug_1_a_pickle_from_a_site_is_dropped_and_not_read(spied, make_experiment, tmp_path):
    code = base64.b64encode(pickle.dumps(Payload(tmp_path / "executed"))).decode()

    def tamper(method, site, number, reply):
        if method == "RPC_train" and site == "berlin" and number == 1:
            reply["folds"][0]["parameters"] = code
        return reply

    _, result = spied(make_experiment(rounds=2), tamper)
    assert not (tmp_path / "executed").exists()
    assert result["status"] == "completed"
    (first,) = [entry for entry in result["participation"] if entry["round"] == 1]
    assert "berlin" in first["missing"]


def test_dinunet_bug_1_a_pickle_of_the_researcher_is_not_read(make_experiment, tmp_path):
    (tmp_path / "best.pt").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(ExperimentError, match="is not read, for it is code"):
        read_weights(make_experiment(start="best.pt"), tmp_path)
    assert not (tmp_path / "executed").exists()


def test_dinunet_bug_2_no_name_is_used_that_numpy_has_removed():
    ruff = pytest.importorskip("ruff")
    done = subprocess.run(
        [ruff.find_ruff_bin(), "check", "--isolated", "--no-cache", "--select", "NPY001,NPY201",
         Path(v6_algorithm.__file__).parent],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.fixture
def batches_seen():
    """Collect the rows of every batch that a network is trained on."""
    seen = []

    def look(module, inputs):
        if isinstance(module, nn.Sequential) and module.training:
            seen.append(inputs[0].detach().clone())

    handle = nn.modules.module.register_module_forward_pre_hook(look)
    yield seen
    handle.remove()


def test_dinunet_bug_3_rows_are_shuffled_anew_in_each_epoch_and_none_is_dropped_or_seen_twice(
    run_locally, make_experiment, batches_seen
):
    sites = {"one": TableSource(frame=table(37, 1)[["a", "b", "c", "y"]])}
    run_locally(
        make_experiment(
            rounds=1, split=FULL, mode="local", training={**STILL, "local_epochs": 2, "batch_size": 8},
            participation={"minimum": 1},
        ),
        sites,
    )  # fmt: skip
    assert [len(batch) for batch in batches_seen] == [8, 8, 8, 8, 5] * 2
    epochs = [torch.cat(batches_seen[:5]), torch.cat(batches_seen[5:])]
    assert not torch.equal(*epochs)
    first, second = (sorted(map(tuple, epoch.tolist())) for epoch in epochs)
    assert first == second
    assert len(set(first)) == 37


def test_dinunet_bug_3_metrics_count_each_row_once(run_locally, tables, make_experiment):
    """Padding to the batch doubled rows, in validation too."""
    result = run_locally(make_experiment(rounds=1), tables)
    for part in ("validation", "test"):
        for site, scores in result["metrics"][part]["sites"].items():
            assert scores["n"] == result["sites"][site]["n"][part]


def test_dinunet_bug_4_ten_right_of_twelve_over_two_sites_are_an_accuracy_of_0_833():
    """The mean of the sites' 1.0 and 0.0 is 0.5."""
    good = scores_of([0.9, 0.1] * 5, [1, 0] * 5)
    bad = scores_of([0.9, 0.1], [0, 1])
    assert compute(merge_states([good, bad]))["accuracy"] == pytest.approx(10 / 12)


def test_dinunet_bug_4_a_site_with_one_class_spoils_no_auc():
    both, one = scores_of([0.1, 0.8, 0.4, 0.6], [0, 1, 1, 0]), scores_of([0.9, 0.7], [1, 1])
    assert compute(one)["auroc"] is None
    assert compute(merge_states([both, one]))["auroc"] == pytest.approx(7 / 8)


def test_dinunet_bug_5_the_auc_is_of_scores_and_not_of_predicted_classes():
    """What the problem gives to the metrics are probabilities: of cut ones the AUC is the balanced accuracy."""
    sklearn = pytest.importorskip("sklearn.metrics")
    problem = object.__new__(Classification)
    problem.setup = type("Setup", (), {"classes": [0, 1]})()
    generator = np.random.default_rng(0)
    target = generator.integers(0, 2, 200)
    output = torch.tensor(generator.normal(2 * target - 2, 1.0), dtype=torch.float64)[:, None]
    found = compute(scores_of(problem.prediction(output).numpy(), target))
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(target, output[:, 0]), abs=0.005)
    assert abs(found["auroc"] - found["balanced_accuracy"]) > 0.05


def test_dinunet_bug_6_precision_and_recall_of_three_classes_are_scikit_learns_over_two_sites():
    sklearn = pytest.importorskip("sklearn.metrics")
    target = np.array([0] * 20 + [1] * 10 + [2] * 5)
    guess = np.where(np.arange(35) % 2 == 0, 0, target)
    states = [scores_of(np.eye(3)[guess[part]], target[part]) for part in (slice(0, 25), slice(25, 35))]
    found = compute(merge_states(states))
    for name in ("precision", "recall", "f1"):
        wanted = getattr(sklearn, f"{name}_score")(target, guess, average="macro")
        assert found[name] == pytest.approx(wanted), name
    assert abs(found["precision"] - found["recall"]) > 0.05


def test_dinunet_bug_7_all_networks_are_trained_averaged_and_kept(run_locally, tables, make_experiment, monkeypatch):
    monkeypatch.setattr(
        Classification, "build_networks", lambda self: {"encoder": nn.Linear(4, 3), "head": nn.Linear(3, 1)}
    )
    monkeypatch.setattr(
        Classification, "forward", lambda self, networks, rows: networks["head"](networks["encoder"](rows))
    )
    before, after = (
        wire.unpack(run_locally(make_experiment(rounds=1, **changes), tables)["parameters"])
        for changes in ({"training": STILL}, {})
    )
    assert sorted(after) == ["encoder.bias", "encoder.weight", "head.bias", "head.weight"]
    assert all(not torch.equal(before[name], after[name]) for name in after)


def test_dinunet_bug_8_all_that_belongs_to_a_model_is_averaged_running_statistics_too(spied, make_experiment):
    spy, _ = spied(make_experiment(rounds=2, model={"kind": "mlp", "hidden": [8], "norm": "batch"}))
    answers = [reply["folds"][0] for method, _, reply in spy.replies if method == "RPC_train" and reply["round"] == 1]
    states = [wire.unpack(answer["parameters"]) for answer in answers]
    (name,) = [name for name in states[0] if name.endswith("running_mean")]
    assert not torch.equal(states[0][name], states[1][name])
    sent = [wire.unpack(request["folds"][0]["parameters"])[name] for request in spy.of("RPC_train")[1].values()]
    mean = sum(state[name] * answer["rows"] for state, answer in zip(states, answers, strict=True))
    for tensor in sent:
        torch.testing.assert_close(tensor, mean / sum(answer["rows"] for answer in answers))


@pytest.mark.parametrize("kind", ["rankdad", "powersgd"])
def test_dinunet_bugs_9_and_10_compression_that_is_not_here_is_refused_and_not_left_out(kind):
    with pytest.raises(ExperimentError, match="strategy"):
        Experiment.parse({"data": {"target": "y"}, "strategy": {"kind": kind}})


def test_dinunet_bug_11_pretraining_is_done_with_its_own_settings(spied, make_experiment):
    spy, _ = spied(make_experiment(rounds=1, start={"pretrain_epochs": 3}))
    pretraining, first = spy.of("RPC_train")
    assert [request["folds"][0]["epochs"] for request in pretraining.values()] == [3]
    (answer,) = [reply["folds"][0] for *_, reply in spy.replies if reply["round"] == 0 and "folds" in reply]
    assert answer["steps"] == 15  # three epochs of 36 rows in batches of 8
    for request in first.values():
        given = wire.unpack(request["folds"][0]["parameters"])
        made = wire.unpack(answer["parameters"])
        assert all(torch.equal(given[name], made[name]) for name in made)


def test_dinunet_bug_12_given_weights_are_tested_as_they_are(tmp_path):
    """Its test mode ignored them, and wanted a checkpoint that was not there."""
    file = write(tmp_path)
    assert command("run", file, "--out", tmp_path / "first").exit_code == 0
    still = ("--set", "rounds=1", "--set", "training.optimizer={kind: sgd, lr: 1e-30}")
    done = command("run", file, "--out", tmp_path / "second", "--set", f"start={tmp_path / 'first'}", *still)
    assert done.exit_code == 0, done.output
    first, second = (read_result(tmp_path / name)["metrics"]["test"]["pooled"] for name in ("first", "second"))
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)


def test_dinunet_bug_12_without_validation_rows_the_last_model_is_tested(run_locally, tables, make_experiment):
    split = {"kind": "ratio", "train": 0.7, "validation": 0, "test": 0.3}
    result = run_locally(make_experiment(rounds=2, split=split), tables)
    assert result["status"] == "completed"
    assert result["metrics"]["test"]["pooled"]["n"] > 30
    assert result["parameters"]


def test_dinunet_bug_12_a_model_is_kept_though_no_score_beats_zero(run_locally, make_experiment):
    generator = np.random.default_rng(0)
    noise = {
        name: TableSource(frame=pd.DataFrame(generator.normal(size=(30, 5)), columns=list("abcdy"))) for name in "ab"
    }
    training = {"local_steps": 50, "batch_size": None, "optimizer": {"kind": "adam", "lr": 0.05}}
    result = run_locally(
        make_experiment(problem="regression", stopping={"monitor": "r2"}, rounds=2, training=training), noise
    )
    assert max(result["history"]["validation_r2"]) < 0, "the test needs scores below 0"
    assert result["metrics"]["test"]["pooled"]["n"] == 12


def test_dinunet_bug_13_three_rounds_are_three(spied, make_experiment):
    spy, result = spied(make_experiment(rounds=3, stopping={"patience": None}))
    assert len(spy.of("RPC_train")) == result["rounds_run"] == 3


def test_dinunet_bug_13_accumulated_gradients_are_a_mean(run_locally, tables, make_experiment):
    """Of four batches summed, the step would be four times as long as that of the one large batch."""
    sgd = {"optimizer": {"kind": "sgd", "lr": 0.5}, "dtype": "float64"}
    one, two = (
        wire.unpack(run_locally(make_experiment(rounds=1, split=FULL, training=sgd | how), tables)["parameters"])
        for how in ({"batch_size": None}, {"batch_size": 8, "accumulate": 8})
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-12)


def test_dinunet_bug_13_a_large_site_counts_more_than_a_small_one(run_locally, tables, make_experiment):
    """One step of all sites' rows, weighted by rows, is one step on the pooled rows."""
    training = {"optimizer": {"kind": "sgd", "lr": 0.5}, "dtype": "float64", "batch_size": None}
    one, two, equal = (
        wire.unpack(run_locally(make_experiment(rounds=1, split=FULL, training=training, **how), tables)["parameters"])
        for how in ({}, {"mode": "centralised"}, {"strategy": {"kind": "fedavg", "weighting": "uniform"}})
    )
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=0, atol=1e-12)
    assert any(not torch.allclose(tensor, equal[name], atol=1e-4) for name, tensor in one.items())


def test_dinunet_bug_14_a_round_is_one_call_however_many_batches_it_has(spied, make_experiment):
    spy, _ = spied(make_experiment(rounds=2, training={"batch_size": 4, "local_epochs": 5}))
    steps = sum(reply["folds"][0]["steps"] for method, _, reply in spy.replies if method == "RPC_train")
    assert steps > 100
    assert [len(spy.of(method)) for method in ("RPC_train", "RPC_evaluate")] == [2, 1]


def test_dinunet_bug_14_a_site_that_drops_out_ends_nothing_and_not_all_need_take_part(spied, make_experiment):
    _, result = spied(make_experiment(rounds=3, stopping={"patience": None}), lose("berlin", {2}))
    assert (result["status"], result["rounds_run"]) == ("completed", 3)
    (second,) = [entry for entry in result["participation"] if entry["round"] == 2]
    assert list(second["missing"]) == ["berlin"]
    spy, _ = spied(make_experiment(rounds=2, participation={"fraction": 0.5}))
    asked = [sum(item["folds"][0]["train"] for item in call.values()) for call in spy.of("RPC_train")]
    assert asked == [2, 2]


def test_dinunet_bug_15_an_lstm_is_torchs_with_its_layers_and_its_reverse_direction():
    network = RecurrentNetwork(Recurrent(kind="lstm", layers=2, hidden=4), 3, 1).recurrent
    assert (type(network), network.num_layers, network.bidirectional) == (nn.LSTM, 2, True)
    single = RecurrentNetwork(Recurrent(kind="lstm", layers=1, hidden=4), 3, 1).recurrent
    forward, backward = nn.LSTM(3, 4, batch_first=True), nn.LSTM(3, 4, batch_first=True)
    weights = single.state_dict()
    forward.load_state_dict({name: weights[name] for name in forward.state_dict()})
    backward.load_state_dict({name: weights[f"{name}_reverse"] for name in backward.state_dict()})
    rows = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.cat([forward(rows)[0], backward(rows.flip(1))[0].flip(1)], dim=2)
    torch.testing.assert_close(single(rows)[0], wanted)


def test_dinunet_bug_15_a_key_that_the_model_does_not_read_is_refused():
    with pytest.raises(ExperimentError, match="full_comp_size"):
        Experiment.parse(
            {"data": {"target": "y", "sequence": "x"}, "problem": "sequence_classification",
             "model": {"kind": "lstm", "full_comp_size": 100}}
        )  # fmt: skip


def test_dinunet_bug_15_class_weights_are_none_or_as_asked_and_never_drawn(spied, make_experiment):
    """`balanced` is rows / (classes × rows of the class) in training, here 36 / (2 × 27) and 36 / (2 × 9)."""
    frame = table(60, 1)[["a", "b", "c"]].assign(y=(np.arange(60) % 4 == 0).astype(int))
    sites = {name: TableSource(frame=frame) for name in ("one", "two")}
    setups = []
    for loss in (None, {"kind": "cross_entropy", "class_weights": "balanced"}):
        spy, _ = spied(make_experiment(rounds=1, training={"loss": loss}), sites=sites)
        setups.append([request["setup"] for request in spy.of("RPC_train")[0].values()])
    assert all(setup["class_weights"] is None for setup in setups[0])
    assert [setup["class_weights"] for setup in setups[1]] == [[pytest.approx([2 / 3, 2])]] * 2


def test_dinunet_bug_16_each_line_of_a_csv_has_the_columns_of_its_header(tmp_path):
    done = command("run", write(tmp_path), "--out", tmp_path / "out", "--set", "output={dinunet: true}")
    assert done.exit_code == 0, done.output
    files = list((tmp_path / "out").rglob("*.csv"))
    names = {"history.csv", "metrics.csv", "meta_analysis.csv", "test_metrics.csv", "global_test_metrics.csv"}
    assert {path.name for path in files} == names
    for path in files:
        header, *rows = csv.reader(io.StringIO(path.read_text()))
        assert rows
        assert {len(row) for row in rows} == {len(header)}, path
    pooled = read_result(tmp_path / "out")["metrics"]["test"]["pooled"]
    header, row = csv.reader(io.StringIO(next(p for p in files if p.name == "test_metrics.csv").read_text()))
    assert float(row[header.index("recall")]) == pooled["recall"]


def test_dinunet_bug_17_results_are_read_without_a_zip_and_tell_of_each_site(tmp_path):
    done = command("run", write(tmp_path), "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert not list((tmp_path / "out").rglob("*.zip"))
    result = read_result(tmp_path / "out")
    history = result["site_history"]["berlin"]["validation_loss"]
    assert len(history) == result["rounds_run"] == 3
    assert result["best_round"] == 1 + int(np.argmin(result["history"]["validation_loss"]))


def test_dinunet_bug_18_a_site_with_hardly_any_rows_refuses(run_locally, tables, make_experiment):
    few = {**tables, "dordrecht": TableSource(frame=tables["berlin"].frame.head(9))}
    result = run_locally(make_experiment(rounds=1), few)
    assert "dordrecht" not in result["sites"]
    assert any("dordrecht" in note and "fewer rows than its minimum of 10" in note for note in result["notes"])


def test_dinunet_bug_18_a_log_tells_rounds_and_no_statistics_of_batches_or_settings(capsys):
    client = MockAlgorithmClient(
        datasets=[[{"database": frame, "db_type": "csv"}] for frame in hospital_tables().values()],
        module="v6_algorithm",
    )
    v6_algorithm.master(client, {"data": {"target": "y"}, "rounds": 2, "model": {"kind": "mlp", "hidden": [4]}})
    said = capsys.readouterr().out
    assert SECRET not in said
    assert "hidden" not in said
    # Three sites' replies and two lines for each round, two for the last model, the beginning and the end.
    assert len(said.splitlines()) == 2 * (3 + 2) + 2 + 2


# -- told in sections 2.1 to 2.9 -----------------------------------------------------------------------------------


def test_dinunet_bug_in_2_3_sites_of_one_size_are_not_cut_in_the_same_places(spied, make_experiment):
    """Its shuffle was seeded with the number of files alone."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 4)), columns=list("abcy"))
    frame["y"] = (frame["y"] > 0).astype(int)
    _, result = spied(
        make_experiment(rounds=1, training=STILL), sites={name: TableSource(frame=frame) for name in ("one", "two")}
    )
    losses = [scores["loss"] for scores in result["metrics"]["test"]["sites"].values()]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_dinunet_bug_in_2_3_rows_of_a_patient_are_in_one_part(run_locally, make_experiment):
    """A patient's rows are alike, and labels are noise: only one who is in two parts could be known again."""
    generator = np.random.default_rng(3)

    def hospital() -> pd.DataFrame:
        patients = pd.DataFrame(generator.normal(size=(30, 4)), columns=list("abcd"))
        patients = patients.assign(y=generator.permutation(np.arange(30) % 2), patient=np.arange(30))
        return patients.loc[np.repeat(np.arange(30), 6)]

    frames = {name: hospital() for name in ("one", "two")}
    training = {"optimizer": {"kind": "adam", "lr": 0.01}, "local_epochs": 40, "batch_size": 32}
    losses = []
    for group in ("patient", None):
        data = {"target": "y", "features": list("abcd"), "group": group}
        experiment = make_experiment(
            data=data, rounds=3, model={"kind": "mlp", "hidden": [64]}, training=training, output={"model": "last"},
            stopping={"patience": None},
        )  # fmt: skip
        sites = {name: TableSource(frame=frame) for name, frame in frames.items()}
        losses.append(run_locally(experiment, sites)["metrics"]["test"]["pooled"]["loss"])
    assert losses[0] > math.log(2) > losses[1]


def test_dinunet_bug_in_2_4_a_small_site_does_not_train_twice_while_a_large_one_goes_on(spied, make_experiment):
    spy, result = spied(make_experiment(rounds=1))
    for method, site, reply in spy.replies:
        if method == "RPC_train":
            assert reply["folds"][0]["loss"]["rows"] == result["sites"][site]["n"]["train"]


def test_dinunet_bug_in_2_8_a_gpu_that_is_not_there_is_told_and_not_passed_over(run_locally, tables, make_experiment):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ExperimentError, match="this site has no CUDA device"):
        run_locally(make_experiment(training={"device": "cuda"}), tables)


def test_dinunet_bug_in_2_9_a_log_is_json_that_anyone_reads(tmp_path):
    """Its logs.json was its whole cache."""
    done = command("run", write(tmp_path), "--out", tmp_path / "out", "--set", "output={dinunet: true}")
    assert done.exit_code == 0, done.output
    (logs,) = (tmp_path / "out").rglob("logs.json")
    content = json.loads(logs.read_text(), parse_constant=lambda literal: pytest.fail(literal))
    assert len(content["train_log"]) == 3
    assert "parameters" not in json.dumps(content)
