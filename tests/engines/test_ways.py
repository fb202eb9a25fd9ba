"""The local engine's three ways: as text, handed over, and trained together."""

import numpy as np
import pandas as pd
import pytest
import torch

from v6_algorithm.coordinator.call_log import Caller
from v6_algorithm.coordinator.checkpoint import Checkpoints
from v6_algorithm.coordinator.master import check, run
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.local import AS_TEXT, LocalFederation
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.exchange import tensor_file, wire
from v6_algorithm.learning.training import state
from v6_algorithm.learning.training.device import Device
from v6_algorithm.site import handle, sending
from v6_algorithm.site.together import group as together_group

# Everything but what says how it was made, and how long that took.
SAME = ("history", "site_history", "metrics", "folds", "sites", "parameters", "best_round", "notes", "participation")


def results(experiment, tables, *ways):
    return [run(local_federation(experiment, tables, way=way), experiment) for way in ways]


def near(given, expected, path="result", tolerance=1e-5):
    if isinstance(expected, dict):
        assert set(given) == set(expected), path
        for key in expected:
            near(given[key], expected[key], f"{path}.{key}", tolerance)
    elif isinstance(expected, list):
        assert len(given) == len(expected), path
        for number, pair in enumerate(zip(given, expected, strict=True)):
            near(*pair, f"{path}[{number}]", tolerance)
    elif isinstance(expected, float):
        assert given == pytest.approx(expected, rel=tolerance, abs=tolerance), path
    else:
        assert given == expected, path


def check_near(experiment, tables):
    exact, fast = results(experiment, tables, "exact", "fast")
    told = {"engine": "local", "way": "fast", "together": True, "because": None, "quicker": [], "as_text": AS_TEXT}
    assert fast["engine"] == told
    near({key: fast[key] for key in ("history", "site_history", "metrics", "sites")},
         {key: exact[key] for key in ("history", "site_history", "metrics", "sites")})  # fmt: skip
    if exact["parameters"] is not None:
        one, other = (wire.unpack(wire.Packed(result["parameters"])) for result in (exact, fast))
        for name in one:
            assert np.allclose(one[name].numpy(), other[name].numpy(), rtol=1e-5, atol=1e-6), name
    return exact, fast


EXACT = {
    "dropout and BatchNorm": {"model": {"kind": "mlp", "hidden": [8], "norm": "batch", "dropout": 0.2}},
    "folds": {"split": {"kind": "kfold", "folds": 3}},
    "leave one out": {"split": "leave_one_site_out"},
    "private layers": {
        "strategy": {"kind": "fedavg", "private": "norm"},
        "model": {"kind": "mlp", "hidden": [8], "norm": "batch"},
    },
    "compressed": {"strategy": {"kind": "fedavg", "compress": "int8"}},
    "rounded": {"strategy": {"kind": "fedavg", "compress_down": "bfloat16"}},
    "scaffold": {"strategy": "scaffold", "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}},
    "moon": {"strategy": "moon"},
    "server": {"strategy": {"kind": "fedavg", "server": {"kind": "adam", "lr": 0.01}}},
    "median": {"strategy": {"kind": "fedavg", "combine": "median"}},
    "averaged, sampled": {"output": {"model": "swa"}, "participation": {"fraction": 0.7, "minimum": 1}},
    "frozen": {"training": {"freeze": ["model.0.*"], "batch_size": 8}},
    "personal": {"personal": {"kind": "fine_tune", "epochs": 1}},
}


@pytest.mark.parametrize("changes", EXACT.values(), ids=EXACT)
def test_objects_that_are_handed_over_give_the_bits_of_text(tables, make_experiment, changes):
    experiment = make_experiment(**{"rounds": 2, **changes})
    text, exact = results(experiment, tables, "wire", "exact")
    assert [text[key] for key in SAME] == [exact[key] for key in SAME]
    assert (text["engine"]["way"], exact["engine"]["way"]) == ("wire", "exact")


FAST = {
    "adam": {},
    "sgd, momentum": {
        "training": {"optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True}, "batch_size": 8}
    },
    "adamw, steps": {"training": {"optimizer": {"kind": "adamw", "lr": 0.02}, "batch_size": 8, "local_steps": 3}},
    "three epochs": {"training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 16, "local_epochs": 3}},
    "whole batches": {"training": {"optimizer": {"kind": "rmsprop", "lr": 0.01}, "batch_size": None}},
    "layer norm": {"model": {"kind": "mlp", "hidden": [8, 4], "norm": "layer", "activation": "gelu"}},
    "dropout": {"model": {"kind": "mlp", "hidden": [8, 6], "norm": "layer", "dropout": 0.3}},
    "dropout, uneven steps": {
        "model": {"kind": "mlp", "hidden": [8], "dropout": 0.5},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 7, "local_epochs": 2},
    },
    "logistic, class weights": {
        "model": "logistic",
        "training": {"loss": {"kind": "focal", "class_weights": "balanced"}, "batch_size": 8},
    },
    "fedprox": {"strategy": {"kind": "fedprox", "mu": 0.5}},
    "scaffold": {"strategy": "scaffold", "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}},
    "moon": {"strategy": "moon", "participation": {"fraction": 0.7, "minimum": 2}},
    "moon, gelu": {
        "strategy": {"kind": "moon", "mu": 5.0, "tau": 1.0},
        "model": {"kind": "mlp", "hidden": [8, 4], "norm": "layer", "activation": "gelu", "dropout": 0.1},
    },
    "fednova": {"strategy": "fednova", "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "local_epochs": 2}},
    "feddyn": {"strategy": {"kind": "feddyn", "alpha": 0.1}},
    "qfedavg": {"strategy": "qfedavg", "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}},
    "agnostic": {"strategy": "agnostic"},
    "fedsgd": {
        "strategy": {"kind": "fedsgd", "clip": 0.5},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": None, "local_steps": 1},
    },
    "fedsgd, frozen": {
        "strategy": "fedsgd",
        "training": {"optimizer": {"kind": "adam"}, "batch_size": None, "local_steps": 1, "freeze": ["model.0.*"]},
    },
    "clipped, fedadam": {"strategy": {"kind": "fedadam", "clip": 0.1}},
    "clipped, trimmed": {"strategy": {"kind": "fedavg", "clip": 0.1, "combine": {"kind": "median", "malicious": 0}}},
    "rounded": {"strategy": {"kind": "fedavg", "compress_down": "float16"}},
    "folds": {"split": {"kind": "kfold", "folds": 3}},
    "leave one out": {"split": "leave_one_site_out"},
    "frozen": {"training": {"freeze": ["model.0.*"], "batch_size": 8}},
    "decay": {
        "training": {
            "optimizer": {"kind": "sgd", "lr": 0.1},
            "scheduler": {"kind": "steplr", "step_size": 1},
            "batch_size": 8,
        }
    },
    "sampled": {"participation": {"fraction": 0.7, "minimum": 2}},
    "float64": {"training": {"dtype": "float64", "batch_size": 8}},
    "compressed": {
        "strategy": {"kind": "fedavg", "compress": {"kind": "topk", "fraction": 0.3}},
        "model": {"kind": "mlp", "hidden": [8], "norm": "none"},
    },
    "compressed gradients": {
        "strategy": {"kind": "fedsgd", "compress": {"kind": "powersgd", "rank": 1}},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.1}, "batch_size": None, "local_steps": 1},
    },
    "BatchNorm": {
        "model": {"kind": "mlp", "hidden": [8, 6], "norm": "batch", "dropout": 0.2},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9}, "batch_size": 7, "local_epochs": 2},
    },
    "BatchNorm, frozen": {
        "model": {"kind": "mlp", "hidden": [8, 6], "norm": "batch"},
        "strategy": {"kind": "moon", "mu": 2.0},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8, "freeze": ["model.0.*", "model.1.*"]},
    },
}


@pytest.mark.parametrize("changes", FAST.values(), ids=FAST)
def test_sites_trained_together_are_as_good_as_one_after_the_other(tables, make_experiment, changes):
    check_near(make_experiment(**{"rounds": 2, **changes}), tables)


def test_what_sites_send_compressed_is_what_each_would_send_of_the_same_training(tables, make_experiment, monkeypatch):
    """Training together rounds otherwise, so a number on the edge of two of int8's steps may go to the other one."""
    sent, compress = {}, sending.compressed

    def watched(context, experiment, site, round, fold, run, spec, tensors, received):
        content = compress(context, experiment, site, round, fold, run, spec, tensors, received)
        sent.setdefault(round, {})[site] = content
        return content

    monkeypatch.setattr(sending, "compressed", watched)
    monkeypatch.setattr(together_group, "compressed", watched)
    experiment = make_experiment(rounds=2, strategy={"kind": "fedavg", "compress": "int8"})
    exact, fast = [(sent.clear(), *results(experiment, tables, way), dict(sent))[1:] for way in ("exact", "fast")]
    assert fast[0]["engine"]["together"] is True
    assert {round: set(of_sites) for round, of_sites in fast[1].items()} == {2: set(tables)}
    for site, content in exact[1][2].items():
        other = fast[1][2][site]
        assert set(content) == set(other)
        for name in content:
            if name.endswith(":int8"):
                assert (content[name].int() - other[name].int()).abs().max() <= 1
            else:
                assert torch.allclose(content[name], other[name], rtol=1e-4, atol=1e-6), name
    received = [result["timing"]["rounds"][-2]["bytes_received"] for result in (exact[0], fast[0])]
    for site in tables:
        assert received[0][site] == pytest.approx(received[1][site], rel=0.05)


OTHER_PROBLEMS = {
    "regression": {"problem": "regression", "data": {"target": "d"}},
    "survival": {
        "problem": {"kind": "survival", "method": "discrete_time"},
        "data": {"target": {"duration": "time", "event": "y"}},
    },
    "cox": {
        "problem": {"kind": "survival", "method": "cox"},
        "data": {"target": {"duration": "time", "event": "y"}},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9}, "batch_size": 8},
    },
    "cox, all rows": {
        "problem": {"kind": "survival", "method": "cox"},
        "data": {"target": {"duration": "days", "event": "y"}},
        "strategy": "qfedavg",
        "training": {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": None, "local_epochs": 2},
    },
    "two targets": {"problem": "multitask", "data": {"targets": {"y": "classification", "d": "regression"}}},
}


@pytest.mark.parametrize("changes", OTHER_PROBLEMS.values(), ids=OTHER_PROBLEMS)
def test_other_problems_are_trained_together_too(tables, make_experiment, changes):
    for source in tables.values():
        source.frame["time"] = np.exp(source.frame["a"])
        # Of which many are equal.
        source.frame["days"] = (source.frame["time"] * 3).round() + 1
    check_near(make_experiment(rounds=3, **changes), tables)


BY_SUMS = {
    "Cox, strata": (
        {"kind": "cox", "strata": "site"},
        {"problem": {"kind": "survival", "method": "cox"}, "data": {"target": {"duration": "time", "event": "y"}}},
    ),
    "GLM": ({"kind": "glm", "family": "binomial"}, {}),
}


@pytest.mark.parametrize(("model", "changes"), BY_SUMS.values(), ids=BY_SUMS)
def test_models_that_are_fitted_by_sums_are_measured_at_all_sites_at_once(
    tables, make_experiment, monkeypatch, model, changes
):
    for source in tables.values():
        source.frame["time"] = np.exp(source.frame["a"])
    asked = []

    def handled(method, request, context, **more):
        asked.append((method, request["site"]))
        return handle(method, request, context, **more)

    monkeypatch.setattr(local, "handle", handled)
    training, split = {"batch_size": None, "local_epochs": 1}, {"kind": "ratio"}
    experiment = make_experiment(
        rounds=2, strategy="newton", model=model, training=training, split=split, **changes
    )  # fmt: skip
    exact, fast = [(asked.clear(), *results(experiment, tables, way), list(asked))[1:] for way in ("exact", "fast")]
    assert f"model {model['kind']} is fitted by sums" in fast[0]["engine"]["because"]
    calls = [[site for method, site in asked if method == "evaluate"] for _, asked in (exact, fast)]
    assert set(calls[0]) == set(tables)
    assert set(calls[1]) == {next(iter(tables))}
    told = ("history", "metrics", "sites")
    near({key: fast[0][key] for key in told}, {key: exact[0][key] for key in told})
    assert fast[0]["parameters"] == exact[0]["parameters"]


ALONE = {
    "BatchNorm with adam": ({"model": {"kind": "mlp", "hidden": [8], "norm": "batch"}}, "bias before BatchNorm"),
    "private layers": (
        {"strategy": {"kind": "fedavg", "private": "norm"}, "model": {"kind": "mlp", "hidden": [8], "norm": "layer"}},
        "strategy.private",
    ),
    "accumulated": ({"training": {"accumulate": 2, "batch_size": 8}}, "training.accumulate"),
    "cyclic": ({"strategy": "cyclic"}, "strategy cyclic"),
    "cox with adam": (OTHER_PROBLEMS["cox"] | {"training": {"optimizer": "adam", "batch_size": 8}}, "optimizer adam"),
}


@pytest.mark.parametrize(("changes", "reason"), ALONE.values(), ids=ALONE)
def test_what_has_no_batched_form_is_trained_alone_and_says_why(tables, make_experiment, changes, reason):
    for source in tables.values():
        source.frame["time"] = np.exp(source.frame["a"])
    experiment = make_experiment(**{"rounds": 2, **changes})
    exact, fast = results(experiment, tables, "exact", "fast")
    assert fast["engine"]["together"] is False
    assert reason in fast["engine"]["because"]
    assert fast["history"]["train_loss"] == exact["history"]["train_loss"]


def test_a_large_network_goes_alone_and_is_as_good(tables, make_experiment):
    model = {"kind": "mlp", "hidden": [420, 420], "norm": "none"}
    training = {"optimizer": {"kind": "adam", "lr": 0.001}, "batch_size": 32}
    exact, fast = results(make_experiment(rounds=2, model=model, training=training), tables, "exact", "fast")
    assert "work enough" in fast["engine"]["because"]
    assert fast["engine"]["quicker"] == ["fused optimiser", "steps in the backward pass"]
    near({key: fast[key] for key in ("history", "metrics")}, {key: exact[key] for key in ("history", "metrics")})


def test_an_optimiser_without_a_fused_step_is_not_told_to_have_one(tables, make_experiment):
    model = {"kind": "mlp", "hidden": [420, 420], "norm": "none"}
    training = {"optimizer": {"kind": "rmsprop", "lr": 0.001}, "batch_size": 32}
    exact, fast = results(make_experiment(rounds=2, model=model, training=training), tables, "exact", "fast")
    assert fast["engine"]["together"] is False
    assert fast["engine"]["quicker"] == []
    assert fast["parameters"] == exact["parameters"]


@pytest.mark.parametrize("norm", ["none", "group"])
def test_a_convolution_is_quicker_with_channels_last_and_is_as_good(make_experiment, monkeypatch, norm):
    from v6_algorithm.learning.training.images import ImageInputs

    generator, sites = np.random.default_rng(5), {}
    for name, rows in (("one", 60), ("two", 40)):
        labels = np.arange(rows) % 2
        frame = pd.DataFrame(generator.normal(labels[:, None], 1.0, (rows, 3 * 8 * 8)))
        sites[name] = TableSource(frame=frame.rename(columns=lambda number: f"pixel{number}").assign(y=labels))
    experiment = make_experiment(
        problem="image_classification", model={"kind": "cnn", "widths": [4, 8], "norm": norm, "dropout": 0.2},
        data={"target": "y", "image": {"shape": [3, 8, 8]}}, rounds=2, split={"kind": "ratio"},
    )  # fmt: skip
    layouts, read = [], ImageInputs.__getitem__

    def watched(inputs, rows):
        images = read(inputs, rows)
        layouts.append(images.is_contiguous(memory_format=torch.channels_last))
        return images

    monkeypatch.setattr(ImageInputs, "__getitem__", watched)
    (exact,) = results(experiment, sites, "exact")
    assert not any(layouts)
    (fast,) = results(experiment, sites, "fast")
    assert any(layouts)
    assert fast["engine"]["quicker"] == ["channels last"]
    assert "quicker" not in exact["engine"]
    near({key: fast[key] for key in ("history", "metrics")}, {key: exact[key] for key in ("history", "metrics")})


def test_sites_on_a_gpu_are_trained_one_after_another(tables, make_experiment):
    federation = local_federation(make_experiment(rounds=2), tables, way="fast")
    run(federation, make_experiment(rounds=2))
    together = federation._shared["together"][2]
    assert together._reason() is None
    together.device = Device("cuda", "cuda (any)")
    assert "GPU" in together._reason()


def test_tables_are_laid_out_in_round_1(tables, make_experiment):
    experiment = make_experiment(rounds=1)
    federation = local_federation(experiment, tables, way="fast")
    result = run(federation, experiment)
    assert result["engine"]["together"] is True
    assert result["engine"]["quicker"] == []
    known = federation._shared["together"][2]
    assert set(known.sessions) == set(tables)
    assert {part for _, part, _ in known._joined} >= {"train", "validation"}


def test_a_site_that_diverges_is_named_and_the_others_go_on(tables, make_experiment):
    training = {"optimizer": {"kind": "sgd", "lr": 0.05}, "batch_size": 8}
    wild = tables["berlin"].frame.copy()
    experiment = make_experiment(rounds=3, training=training, data={"target": "y", "scaling": "none"})
    wild[wild.columns[wild.columns != "y"][0]] *= 1e30
    exact, fast = results(experiment, tables | {"berlin": TableSource(frame=wild)}, "exact", "fast")
    missing = [[entry["missing"] for entry in result["participation"]] for result in (exact, fast)]
    assert missing[0] == missing[1]
    assert any("diverged" in str(entry) for entry in missing[0])


@pytest.mark.parametrize("way", ["exact", "fast"])
def test_a_run_that_is_killed_goes_on_to_the_same_bits(tables, make_experiment, tmp_path, way):
    experiment, path = make_experiment(rounds=4), tmp_path / "checkpoint.safetensors"
    whole = run(local_federation(experiment, tables, way=way), experiment)

    def kill(event):
        if event["event"] == "round" and event["round"] == 3:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(local_federation(experiment, tables, way=way), experiment, kill, checkpoints=Checkpoints(path))
    again = run(local_federation(experiment, tables, way=way), experiment, checkpoints=Checkpoints(path))
    assert [again[key] for key in (*SAME, "engine")] == [whole[key] for key in (*SAME, "engine")]


def test_models_that_are_kept_in_a_file_give_the_same_bits_and_leave_nothing_behind(
    tables, make_experiment, tmp_path, monkeypatch
):
    changes = {"output": {"model": "best"}, "strategy": {"kind": "fedadam", "clip": 0.5}}
    experiment, path = make_experiment(rounds=3, **changes), tmp_path / "checkpoint.safetensors"
    whole, kept, left = run(local_federation(experiment, tables, way="exact"), experiment), [], tmp_path / "temporary"
    left.mkdir()

    def store(tensors, spec=None):
        kept.append(tensor_file.Stored(tensors))
        return wire.Held(kept[-1])

    def kill(event):
        if event["event"] == "round" and event["round"] == 2:
            raise RuntimeError("killed")

    monkeypatch.setattr(wire, "hold", store)
    monkeypatch.setattr(tensor_file.tempfile, "tempdir", str(left))
    with pytest.raises(RuntimeError, match="killed"):
        run(local_federation(experiment, tables, way="exact"), experiment, kill, checkpoints=Checkpoints(path))
    again = run(
        local_federation(experiment, tables, way="exact"), experiment, checkpoints=Checkpoints(path)
    )  # fmt: skip
    assert [again[key] for key in SAME] == [whole[key] for key in SAME]
    assert len(kept) >= 4
    assert not list(left.iterdir())


def test_sites_of_one_process_build_the_first_networks_once(tables, make_experiment, monkeypatch):
    """And tell the same of them as sites that build their own."""
    built = []
    build = state.build_networks
    monkeypatch.setattr(state, "build_networks", lambda problem: built.append(1) or build(problem))
    experiment = make_experiment()
    statistics = {
        "step": "statistics",
        "setup": Setup.of(check(local_federation(experiment, tables), experiment)).to_json(),
    }
    built.clear()
    replies = {}
    for way in ("together", "alone"):
        names = [list(tables)] if way == "together" else [[name] for name in tables]
        for group in names:
            federation = local_federation(experiment, {name: tables[name] for name in group})
            for site, reply in Caller(federation, experiment, lambda event: None).prepare(group, statistics):
                replies.setdefault(site, []).append((reply["start"], reply["spec"]))
        built.append(way)
    assert built == [1, "together", *[1] * len(tables), "alone"]
    assert all(one == other for one, other in replies.values())


def test_bytes_of_what_is_handed_over_are_those_of_its_text(tables, make_experiment):
    experiment = make_experiment(rounds=3)
    wire_, exact, fast = results(experiment, tables, "wire", "exact", "fast")
    sent, exactly, quickly = (
        [call["bytes_sent"] for call in result["timing"]["rounds"]] for result in (wire_, exact, fast)
    )
    assert sent == exactly == quickly
    received = [call["bytes_received"] for call in fast["timing"]["rounds"]]
    assert all(set(by_site) == set(tables) for by_site in received)


def test_the_first_site_that_answers_goes_as_text_in_round_1(tables, make_experiment, monkeypatch):
    experiment, texts, by_text = make_experiment(rounds=1), [], LocalFederation._by_text
    failing = sorted(tables)[0]

    def asked(self, method, site, request, replies):
        texts.append((method, site))
        return by_text(self, method, site, request, replies)

    def answered(method, request, context, **more):
        if method == "train" and request["site"] == failing:
            head = {key: request[key] for key in ("site", "round", "attempt")}
            return wire.message(**head, status="error", kind="data", message="no rows")
        return handle(method, request, context, **more)

    monkeypatch.setattr(LocalFederation, "_by_text", asked)
    monkeypatch.setattr(local, "handle", answered)
    result = run(local_federation(experiment, tables, way="fast"), experiment)
    assert [site for method, site in texts if method == "train"] == sorted(tables)[:2]
    assert set(result["participation"][-2]["missing"]) == {failing}
