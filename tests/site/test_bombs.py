"""What is too large is refused by name before it is read or built: each bound of docs/node-policy.md, at its door."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hospitals import table

from v6_algorithm.data.preparation import Preparation, Setup
from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import ExperimentError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.reading import read_file
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD, BY_VARIABLE

ROOT = Path(__file__).parents[2]
ROWS = 60
BASE = {"data": {"target": "y", "exclude": ["remark"]}, "model": "logistic", "rounds": 2}
TRAIN = {"fold": 0, "parameters": None, "evaluate": [], "train": True}
GAN = {"problem": "gan", "model": None}
VOLUMES = {"problem": "volume_classification", "model": None}
IMAGES = {"target": "y", "image": {"column": "remark", "size": [4096, 4096]}}


def ask(experiment, policy=None, method="prepare", round=0, preset="trusted", **body):
    """Send one request to a site; return its reply."""
    content = Experiment.parse(BASE | experiment).for_sites() if isinstance(experiment, dict) else experiment
    sites = {"hospital": TableSource(frame=table(ROWS, 0))}
    context = SiteContext(sites, Policy.of(preset, **(policy or {})), lasting=True)
    request = wire.message(site="hospital", round=round, attempt=1, sites=3, experiment=content, **body)
    return handle(method, json.loads(json.dumps(request)), context)


def setup(**changes):
    content = json.loads(json.dumps(Setup(["a", "b", "c"], {}, [0, 1]).to_json()))
    return content | changes


# What an experiment says by itself: nothing is read.
EXPERIMENTS = {
    "rounds": ({"rounds": 10**6}, "maximum_rounds"),
    "rounds, a very long number": ({"rounds": 10**400}, "maximum_rounds"),
    "folds x repeats": ({"split": {"kind": "kfold", "folds": 100, "repeats": 100}}, "maximum_folds"),
    "columns of given splits": (
        {"split": "given", "data": {**BASE["data"], "split_column": [f"s{n}" for n in range(2000)]}}, "maximum_folds"),
    "a wide layer": ({"model": {"kind": "mlp", "hidden": [10**9]}}, "maximum_width"),
    "a layer of a very long number": ({"model": {"kind": "mlp", "hidden": [10**400]}}, "maximum_width"),
    "many layers": ({"model": {"kind": "mlp", "hidden": [4] * 5000}}, "maximum_layers"),
    "a wide head": ({"model": {"kind": "mlp", "hidden": [4, 10**7]}}, "maximum_width"),
    "many targets": (
        {"data": {"targets": {f"t{n}": {"kind": "regression"} for n in range(20)}}, "problem": "multitask",
         "model": "mlp"}, "maximum_width", {"maximum_width": 10}),
    "pixels": ({"problem": "image_classification", "model": "cnn", "data": {
        **IMAGES, "image": {"column": "remark", "size": [4096, 4096], "channels": 3}}}, "maximum_pixels",
        {"maximum_pixels": 2**24}),
    "voxels": ({"problem": "volume_classification", "model": "vbmnet", "data": {
        **IMAGES, "image": {"column": "remark", "size": [4096] * 3, "dimensions": 3}}}, "maximum_pixels"),
    "a spacing of nanometres": ({"problem": "volume_classification", "model": "vbmnet", "data": {
        **IMAGES, "image": {"column": "remark", "size": [8] * 3, "dimensions": 3, "spacing": [1e-6] * 3}}},
        "maximum_pixels"),
    "epochs of personal models": ({"personal": {"kind": "fine_tune", "epochs": 10**12}}, "maximum_row_passes"),
    "epochs of private layers": (
        {"model": {"kind": "mlp", "hidden": [4]}, "strategy": {"kind": "fedavg", "private": {
            "include": ["*"], "epochs": 10**12}}}, "maximum_row_passes"),
    "iterations of a compression": (
        {"strategy": {"kind": "fedavg", "compress": {"stages": [{"kind": "rankdad", "iterations": 10**9}]}}},
        "maximum_rounds"),
    "augmentations": ({"problem": "image_classification", "model": "cnn", "data": {
        **IMAGES, "image": {"column": "remark", "size": [8, 8]}}, "training": {
        "augmentation": [{"kind": "noise"}] * 1000}}, "maximum_layers"),
    "epsilon": ({"privacy": {"differential_privacy": {"epsilon": 100, "delta": 1e-4}}}, "maximum_epsilon",
                {"maximum_epsilon": 2.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_refused_before_the_table_is_read(name, monkeypatch):
    monkeypatch.setattr(TableSource, "read", lambda *_, **__: pytest.fail("the table was read"))
    changes, rule, *policy = EXPERIMENTS[name]
    reply = ask(changes, *policy, step="schema")
    assert (reply["status"], reply["kind"]) == ("error", "refused"), reply
    assert BY_FIELD[rule].variable in reply["message"]


# What a request says beside it: rows are read, and nothing is encoded or built.
REQUESTS = {
    "epochs x rows": ("train", {"training": {"local_epochs": 10**9}}, {"folds": [TRAIN]}, "maximum_row_passes"),
    "epochs of a request x rows": ("train", {}, {"folds": [TRAIN | {"epochs": 10**9}]}, "maximum_row_passes"),
    "steps": ("train", {"training": {"local_steps": 10**12}}, {"folds": [TRAIN]}, "maximum_row_passes"),
    "a fold over and over": (
        "train", {"split": {"kind": "kfold", "folds": 3}}, {"folds": [TRAIN | {"epochs": 10**7}] * 24},
        "maximum_row_passes", {"maximum_row_passes": 10**9}),
    "private layers x rows": (
        "train", {"model": {"kind": "mlp", "hidden": [4]},
                  "strategy": {"kind": "fedavg", "private": {"include": ["model.0*"], "epochs": 10**9}}},
        {"folds": [TRAIN | {"private": {"round": 0, "keep": []}}]}, "maximum_row_passes"),
    "personal models x rows": (
        "evaluate", {"personal": {"kind": "fine_tune", "epochs": 10**9}},
        {"folds": [TRAIN | {"train": False, "personal": True}]}, "maximum_row_passes"),
    "more folds than there are": ("evaluate", {}, {"folds": [TRAIN | {"train": False}] * 5000}, "maximum_folds"),
    "categories of a column": (
        "train", {}, {"folds": [TRAIN], "setup": setup(categories={"c": [f"v{n}" for n in range(400_000)]})},
        "maximum_cells", {"maximum_cells": 10**7}),
    "classes": (
        "train", {}, {"folds": [TRAIN], "setup": setup(classes=list(range(70_000)))}, "maximum_width"),
    "features over and over": (
        "summary", {}, {"step": "moments", "features": ["a"] * 400_000}, "maximum_cells", {"maximum_cells": 10**7}),
    "numbers in a model": (
        "train", {"model": {"kind": "mlp", "hidden": [60_000, 60_000]}}, {"folds": [TRAIN]}, "maximum_parameters"),
    "products of columns": ("train", {"model": "glm"}, {"folds": [TRAIN]}, "maximum_parameters",
                            {"maximum_parameters": 10}),
    "numbers in a model at the preparation": (
        "prepare", {"model": {"kind": "mlp", "hidden": [60_000, 60_000]}}, {"step": "statistics"},
        "maximum_parameters"),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_refused_before_anything_is_built(name, monkeypatch):
    from v6_algorithm.learning.training import loop, state

    for module, work in ((loop, "train"), (loop, "evaluate"), (state, "build_networks")):
        monkeypatch.setattr(module, work, lambda *_, **__: pytest.fail("something was built"))
    method, changes, body, rule, *policy = REQUESTS[name]
    reply = ask(changes, *policy, method=method, round=1, **({"setup": setup()} | body))
    assert (reply["status"], reply["kind"]) == ("error", "refused"), reply
    assert BY_FIELD[rule].variable in reply["message"]


def test_series_are_not_filled_up_to_a_length_that_no_memory_holds():
    from v6_algorithm.site.guard.bounds import check_inputs

    given = Setup.from_json(setup(sequence_length=10**9))
    with pytest.raises(Exception, match=BY_FIELD["maximum_cells"].variable):
        check_inputs(Policy(), given, 10)
    check_inputs(Policy(), Setup.from_json(setup(sequence_length=1000)), 10)
    # Images are read from disk; what one of them may be is bounded.
    with pytest.raises(Exception, match=BY_FIELD["maximum_pixels"].variable):
        check_inputs(Policy(), Setup.from_json(setup(image_shape=[3, 40_000, 40_000])), 10)


def test_a_search_of_too_many_settings_is_refused():
    zero = np.zeros((1, 3))
    prepared = Setup(["a", "b", "c"], {}, [0, 1], preparation=Preparation(zero, zero, zero + 1)).to_json()
    refused = {}
    sites = {"hospital": TableSource(frame=table(ROWS, 0))}
    context = SiteContext(sites, Policy.of("standard", maximum_experiments=2), lasting=True)
    for number, lr in enumerate((0.1, 0.2, 0.3)):
        changes = {"training": {"optimizer": {"kind": "sgd", "lr": lr}, "local_epochs": 20}}
        given = Experiment.parse(BASE | changes).for_sites()
        for method, body in (("prepare", {"step": "schema"}), ("prepare", {"step": "statistics", "setup": setup()}),
                             ("train", {"folds": [TRAIN], "setup": prepared})):  # fmt: skip
            round = 1 if method == "train" else 0
            request = wire.message(site="hospital", round=round, attempt=1, sites=3, experiment=given, **body)
            reply = handle(method, json.loads(json.dumps(request)), context)
            if reply["status"] == "error":
                refused[number, method] = reply["message"]
    assert list(refused) == [(2, "train")], refused
    ((_, message),) = refused.items()
    assert "V6_ALGORITHM_MAXIMUM_EXPERIMENTS_PER_JOB" in message


def test_memory_that_is_not_there_is_named(monkeypatch):
    def none(*_, **__):
        raise MemoryError

    monkeypatch.setattr(TableSource, "read", none)
    reply = ask({}, step="schema")
    assert reply["kind"] == "request"
    assert "memory of this site" in reply["message"]


# What is fixed, for no honest task comes near it.
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: {"name": "x" * 10**6}, r"experiment\.name: is a text of 1000000 characters"),
        (lambda: {"data": {"target": "y", "x" * 10**6: 1}}, "has a key of 1000000 characters"),
        (lambda: {"data": {"target": "y", "features": ["a"] * (2 * 10**6 + 1)}}, "more than 2000000 keys"),
        (lambda: {"sites": json.loads("[" * 100 + "]" * 100)}, "deeper than 30 levels"),
    ],
)
def test_an_experiment_of_texts_without_end_is_refused_by_its_key(change, named):
    with pytest.raises(ExperimentError, match=named):
        Experiment.parse(copy.deepcopy(BASE) | change())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: " + "[" * 200 + "]" * 200, "deep"),
        ("a: &a [x]\nb: [" + "*a, " * 200 + "*a]", "aliases"),
        ("a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)), "aliases"),
        (f"rounds: {'9' * 10_000}", "bomb.yaml"),
        ("#" + "x" * 20_000_001, "characters"),
    ],
)  # fmt: skip
def test_a_file_that_is_deep_repeats_itself_or_has_no_end_is_refused(text, named, tmp_path):
    (tmp_path / "bomb.yaml").write_text(text)
    with pytest.raises(ExperimentError, match=named):
        read_file(tmp_path / "bomb.yaml")


def test_a_name_in_a_request_has_a_length():
    for key, value in (("step", "x" * 10**5), ("features", ["x" * 10**5])):
        reply = ask({}, **({"step": "schema"} | {key: value}))
        assert reply["kind"] == "request"
        assert f"the request's {key} must be" in reply["message"]


def test_every_bound_of_the_page_is_tried_here():
    """The table of docs/node-policy.md, the rules, and the cases above name the same variables."""
    page = (ROOT / "docs" / "node-policy.md").read_text()
    section = page[page.index("## Too much") : page.index("## What it holds off")]
    named = {BY_VARIABLE[name].field for name in re.findall(r"V6_ALGORITHM_MAXIMUM_\w+", section)}
    tried = {case[1] for case in EXPERIMENTS.values()} | {case[3] for case in REQUESTS.values()}
    # Seconds and deltas have tests of their own, beside their arithmetic.
    assert named == tried | {"maximum_experiments", "maximum_seconds"}
    rules = {field for field in BY_FIELD if field.startswith("maximum_")}
    assert rules - named == {"maximum_share_of_sums", "maximum_delta"}
