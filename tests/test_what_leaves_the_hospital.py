"""`docs/what-leaves-the-hospital.md` against the code: what the page lists leaves a hospital, and nothing else does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pybase64
import pytest
from hospitals import SECRET

import v6_algorithm
from v6_algorithm.coordinator.description.describe import describe
from v6_algorithm.coordinator.description.preflight import preflight
from v6_algorithm.coordinator.evaluation.model_test import experiment_of_comparison, two_models
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation import local
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import PARTS, PROBLEM_METRICS, Experiment
from v6_algorithm.learning.training.fitting import Fitting
from v6_algorithm.site import policy
from v6_algorithm.site.fitting import FittingMemory
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import RULES

PAGE = (Path(__file__).parents[1] / "docs" / "what-leaves-the-hospital.md").read_text(encoding="utf-8")
ENVELOPE = {"schema", "site", "round", "attempt", "status"}
SITES = {"amsterdam": 60, "berlin": 45}
NETWORKS = "model|generator|discriminator|ema"
SURVIVAL = {"duration": "days", "event": "died"}
SHORT_OF_MEMORY = "a GPU with memory for four rows"
# Between them these ask every question that a site answers, and train every problem there is.
EXPERIMENTS = {
    "classification": {
        "data": {"target": "y", "categorical": ["ward"], "missing": "median", "scaling": "robust"},
        "training": {"batch_size": 16, "loss": {"kind": "cross_entropy", "class_weights": "balanced"}},
        "model": {"kind": "mlp", "hidden": [4], "norm": "batch"},
        "strategy": {"private": "norm"},
        "evaluation": {"subgroups": ["ward", {"column": "c", "bands": [0]}]},
    },
    "three classes": {
        "data": {"target": "ward", "scaling": "minmax", "group": "visits"},
        "split": {"kind": "kfold", "folds": 3},
    },
    "a strategy that asks for more": {
        "data": {"target": "y", "features": ["a", "b"], "where": {"ward": "!= west"}},
        "strategy": "qfedavg",
    },
    **{
        name: {
            "data": {"target": "y", "features": ["a", "b"]},
            "model": {"kind": "mlp", "hidden": [40, 40]},
            "rounds": 2,
            "strategy": {"kind": "fedavg", "compress": stages},
        }
        for name, stages in {
            "low rank": {"kind": "powersgd", "rank": 2},
            "low rank in bytes": [{"kind": "rankdad", "rank": 2}, "int8"],
            "largest": "topk",
            "largest in bytes": [{"kind": "topk", "fraction": 0.2}, "int8"],
            "bytes": "int8",
            "two bytes": "float16",
            "low rank in two bytes": [{"kind": "powersgd", "rank": 2}, "bfloat16"],
            "largest in two bytes": [{"kind": "topk", "fraction": 0.2}, "bfloat16"],
        }.items()
    },
    "regression": {
        "data": {"target": "a", "categorical": ["ward"], "missing": "drop"},
        "problem": "regression",
        "model": "linear",
    },
    "counts": {
        "data": {"target": "visits", "features": ["a", "b"]},
        "problem": "regression",
        "training": {"loss": "poisson"},
    },
    "differential privacy": {
        "data": {"target": "y", "features": ["a", "b"]},
        "privacy": {"differential_privacy": {"epsilon": 3, "delta": 0.001}},
    },
    "coefficients": {"data": {"target": "visits", "features": ["a", "b"]}, "problem": "count", "model": "glm"},
    "coefficients of imputed rows": {
        "data": {"target": "visits", "features": ["a", "b"], "missing": {"kind": "impute", "iterations": 1}},
        "problem": "count",
        "model": "glm",
    },
    "hazard ratios": {"data": {"target": SURVIVAL, "features": ["a", "b"]}, "problem": "survival", "model": "cox"},
    "hazard ratios by site": {
        "data": {"target": SURVIVAL, "features": ["a", "b"]},
        "problem": "survival",
        "model": {"kind": "cox", "strata": "site"},
    },
    "hazard ratios of few events": {
        "data": {"target": SURVIVAL, "features": ["a", "b"]},
        "problem": "survival",
        "model": {"kind": "cox", "strata": "site", "firth": True},
    },
    SHORT_OF_MEMORY: {"data": {"target": "y", "features": ["a", "b"]}, "model": {"kind": "mlp", "hidden": [4]}},
    "survival": {"data": {"target": SURVIVAL, "features": ["a", "b"]}, "problem": "survival", "model": "linear"},
    "discrete time": {
        "data": {"target": SURVIVAL, "features": ["a", "b"]},
        "problem": {"kind": "survival", "method": "discrete_time", "intervals": 4},
        "model": {"kind": "mlp", "hidden": [4], "norm": "batch"},
    },
    "sequences": {
        "data": {"target": "y", "sequence": "series"},
        "problem": "sequence_classification",
        "model": {"kind": "gru", "hidden": 4},
    },
    "images": {
        "data": {"target": "y", "image": {"column": "scan", "tolerance": 0.1}},
        "problem": "image_classification",
        "model": {"kind": "cnn", "widths": [4]},
        "training": {"freeze": {"include": ["norm"], "rounds": 1}},
    },
    "volumes": {
        "data": {"target": "y", "image": "volume"},
        "problem": "volume_classification",
        "model": {"kind": "cnn", "widths": [4]},
        "training": {"loss": "focal"},
    },
    "made images": {
        "data": {"target": "y", "image": {"column": "scan", "size": [16, 16], "range": [0, 255], "tolerance": 0.1}},
        "problem": {"kind": "gan", "latent": 4},
        "model": {"kind": "dcgan", "width": 4},
    },
    "several targets": {
        "data": {
            "targets": {"ward": "classification", "c": "regression"},
            "features": ["a", "b"],
            "target_scaling": "standard",
        },
        "problem": "multitask",
    },
}


def hospital(rows: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame.loc[::9, "b"] = np.nan
    return frame.assign(
        # Of every seventh patient nothing was watched.
        days=(generator.exponential(300, rows).round() + 1) * (np.arange(rows) % 7 > 0),
        died=generator.integers(0, 2, rows),
        visits=generator.poisson(3, rows),
        series=list(generator.normal(size=(rows, 6, 2)).tolist()),
        y=(frame["a"] > 0).astype(int),
        ward=generator.choice(["north", "south", "west"], rows),
        share=[f"{row} %" for row in range(rows)],
        remark=[f"{SECRET}-{row}" for row in range(rows)],
        # The last of them is not there.
        scan=[f"{SECRET}-{row % 20}.npy" for row in range(rows)],
        volume=[f"{SECRET}-volume-{row % 19}.npy" for row in range(rows)],
    )


FRAMES = {name: hospital(rows, seed) for seed, (name, rows) in enumerate(SITES.items())}
# Some patients of amsterdam are there twice.
FRAMES["amsterdam"] = pd.concat([FRAMES["amsterdam"].iloc[:-6], FRAMES["amsterdam"].iloc[:6]], ignore_index=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Make the hospitals' tables, whose images are in a folder."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(19):
        np.save(folder / f"{SECRET}-{number}.npy", generator.integers(0, 255, (6, 5, 3), dtype=np.uint8))
        np.save(folder / f"{SECRET}-volume-{number}.npy", generator.normal(size=(4, 3, 5)))
    return lambda: {name: TableSource(frame=frame, base=folder) for name, frame in FRAMES.items()}


STAND_INS = {
    **dict.fromkeys(SITES, "<site>"),
    **dict.fromkeys(PARTS, "<part>"),
    **dict.fromkeys(FRAMES["berlin"].columns, "<column>"),
    **dict.fromkeys(["north", "south", "west", "under 0", "0 and over"], "<group>"),
}


def key_paths(value: Any, path: str = "") -> set[str]:
    """Every path to a leaf that says something; names of the experiment or the table become what they stand for."""
    if isinstance(value, str):
        tensors = unpacked(value)
        if tensors is None:
            return {path}
        return {f"{path}.{re.sub(f'^({NETWORKS})[.][^:]*', '<tensor>', name)}" for name in tensors}
    if path == "policy":
        # The rules are listed on a page of their own.
        return {"policy.<rule>"}
    if isinstance(value, list):
        return set().union(*(key_paths(item, f"{path}[]") for item in value)) if value else {f"{path}[]"}
    if isinstance(value, dict):
        found: set[str] = set()
        for key, item in value.items():
            name = "<tensor>" if re.match(f"({NETWORKS})[.]", key) else STAND_INS.get(key, key)
            found |= key_paths(item, f"{path}.{name}" if path else name)
        return found
    return set() if value is None else {path}


def unpacked(text: str) -> list[str] | None:
    """Names of the tensors in a packed text, with the header's free text if there is any; None: no packed text."""
    try:
        names = list(wire.unpack(text))
    except WireError:
        return None
    content = pybase64.b64decode(text)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return names + (["__metadata__"] if "__metadata__" in header else [])


HARMONISED = Experiment.parse(
    {
        "data": {
            "target": "y",
            "features": ["a", "b", "c"],
            "categorical": ["ward"],
            "harmonisation": {"kind": "combat", "covariates": ["ward"]},
        },
        "rounds": 1,
    }
)

MASKED = Experiment.parse(
    {
        "data": {"target": "y", "features": ["a", "b"]},
        "privacy": {"secure_aggregation": {"threshold": 2}},
        "strategy": "fedadam",
        "rounds": 2,
    }
)


@pytest.fixture(scope="module")
def recorded(sources, tmp_path_factory) -> dict[str, list[dict[str, Any]]]:
    """Message, as the page calls it, to all replies to it in all experiments."""
    replies: dict[str, list[dict[str, Any]]] = {}
    answer, folder = local.handle, tmp_path_factory.mktemp("files")
    for name, frame in FRAMES.items():
        frame.drop(columns="series").to_csv(folder / f"{name}.csv", index=False)

    def listen(method, request, context, **options):
        reply = answer(method, request, context, **options)
        step = f", step {request['step']}" if "step" in request else ""
        masked = ", masked" if "masked" in reply else ""
        replies.setdefault(f"RPC_{method}{step}{masked}", []).append(json.loads(wire.to_text(reply)))
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", listen)
        for name, changes in EXPERIMENTS.items():
            experiment = Experiment.parse({"rounds": 2, **changes})
            with pytest.MonkeyPatch.context() as small:
                if name == SHORT_OF_MEMORY:
                    small.setattr(FittingMemory, "load", lambda self: Fitting(4, 16))
                assert run(local_federation(experiment, sources()), experiment)["status"] == "completed"
        odds = [
            Experiment.parse({"data": {"target": "y", "features": names}, "model": "glm", "rounds": 2})
            for names in (["a", "b"], ["c"])
        ]
        models = two_models(*(str(run(local_federation(one, sources()), one)["parameters"]) for one in odds))
        both = experiment_of_comparison(odds[0], models, ["a", "b"])
        assert run(local_federation(both, sources()), both, weights=models)["comparison"]["test"]["auroc"]
        keyed = Experiment.parse({"rounds": 1, **EXPERIMENTS["classification"]})
        files = {name: TableSource(uri=str(folder / f"{name}.csv")) for name in SITES}
        assert run(local_federation(keyed, files, Policy(node_secret="ab" * 32)), keyed)["status"] == "completed"
        told, replies = replies, {}
        assert run(local_federation(HARMONISED, sources()), HARMONISED)["status"] == "completed"
        assert run(local_federation(MASKED, sources()), MASKED)["status"] == "completed"
        checked = Experiment.parse(EXPERIMENTS["classification"])
        assert not preflight(local_federation(checked, sources()), checked)["exit_code"]
        described = Experiment.parse(EXPERIMENTS["classification"])
        assert not describe(local_federation(described, sources()), described)["missing_sites"]
        by_ward = Experiment.parse(EXPERIMENTS["survival"] | {"evaluation": {"by": "ward"}})
        assert describe(local_federation(by_ward, sources()), by_ward)["curves"]
        of_images = Experiment.parse(EXPERIMENTS["images"])
        assert not describe(local_federation(of_images, sources()), of_images)["missing_sites"]
    # Of these, the messages that the others have not.
    return {**replies, **told}


def listed(heading: str) -> set[str]:
    """The keys in the first column of the table under a heading of the page."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert section is not None, f"the page has no section '{heading}'"
    keys = re.findall(r"^\| `([^`]+)` \|", section[1], re.M)
    assert len(keys) == len(set(keys))
    return set(keys)


METRICS = "folds[].metrics.<part>.<site>"
COMPARED = "folds[].compared.<site>"
GROUPS = "subgroups.<part>.<site>.<column>.<group>"
MESSAGES = [
    "RPC_prepare, step preflight",
    "RPC_prepare, step schema",
    "RPC_prepare, step imputation",
    "RPC_prepare, step statistics",
    "RPC_prepare, step quantiles",
    "RPC_prepare, step harmonisation",
    "RPC_prepare, step moments",
    "RPC_prepare, step secure_aggregation_keys",
    "RPC_prepare, step secure_aggregation_unmask",
    "RPC_prepare, step statistics, masked",
    "RPC_train, masked",
    "RPC_evaluate, masked",
    "RPC_train",
    "RPC_evaluate",
    "RPC_summary, step columns",
    "RPC_summary, step moments",
    "RPC_summary, step shape",
    "RPC_summary, step groups",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_reply_holds_what_the_page_lists_and_nothing_else(recorded, message):
    found = set().union(*(key_paths(reply) for reply in recorded[message])) - ENVELOPE
    found = {re.sub(rf"^{re.escape(GROUPS)}[.].*", GROUPS, path) for path in found}
    found = {re.sub(r"(image[.]causes)[.].*", r"\1.<cause>", path) for path in found}
    found = {re.sub(r"^skeleton[.].*", "skeleton", path) for path in found}
    found = {COMPARED if path.startswith(COMPARED) else path for path in found}
    assert {METRICS if path.startswith(METRICS) else path for path in found} == listed(message)


def test_every_message_and_every_problem_is_on_the_page(recorded):
    assert set(recorded) == set(MESSAGES)
    trained = {Experiment.parse(content).problem.kind for content in EXPERIMENTS.values()}
    assert trained == set(PROBLEM_METRICS)


def test_the_sums_behind_the_metrics_are_what_the_page_lists(recorded):
    replies = recorded["RPC_train"] + recorded["RPC_evaluate"]
    found = {path for reply in replies for path in key_paths(reply) if path.startswith(METRICS)}
    # Of several targets each has sums of its own.
    names = {re.sub(r"^tasks\.<column>\.", "", path.removeprefix(f"{METRICS}.")) for path in found}
    # What is empty for one kind of metric is a table for another.
    assert {name for name in names if f"{name}[]" not in names} == listed("Sums behind the metrics")


def test_every_reply_has_the_same_head(recorded):
    assert listed("Every reply") == ENVELOPE
    assert all(set(reply) >= ENVELOPE for replies in recorded.values() for reply in replies)


def test_no_text_of_the_table_leaves_but_column_names_labels_and_categories(recorded):
    text = json.dumps(recorded)
    assert SECRET not in text
    assert "north" in text, "the categories of a column that was called categorical do"


def test_smallest_and_largest_values_leave_only_where_they_are_used(recorded):
    with_range = [
        {name: bool(tensor.any()) for name, tensor in wire.unpack(reply["moments"]).items() if name in ("low", "high")}
        for reply in recorded["RPC_prepare, step statistics"]
    ]
    used, unused = {"low": True, "high": True}, {"low": False, "high": False}
    # Two sites each: median and robust, minmax, then mean and standard for all the others and three more.
    assert with_range == [unused] * 2 + [used] * 2 + [unused] * 2 * (len(EXPERIMENTS) - 2) + [unused] * 6


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node with a file, and the folder that its runs share."""
    FRAMES["berlin"].to_csv(tmp_path / "ward.csv", index=False)
    for name, value in {
        "USER_REQUESTED_DATABASE_LABELS": "ward",
        "WARD_DATABASE_URI": str(tmp_path / "ward.csv"),
        "WARD_DATABASE_TYPE": "csv",
        "TEMPORARY_FOLDER": str(tmp_path / "tmp"),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture(scope="module")
def requests(sources):
    """Function to a request that it gets in the first experiment."""
    found, answer = {}, local.handle
    experiment = Experiment.parse({"rounds": 1, **EXPERIMENTS["classification"]})

    def listen(method, request, context, **options):
        if request["site"] == "berlin":
            found[f"RPC_{method}"] = request
        return answer(method, request, context, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "handle", listen)
        run(local_federation(experiment, sources()), experiment)
        describe(local_federation(experiment, sources()), experiment)
    return found


FUNCTIONS = ["RPC_prepare", "RPC_train", "RPC_evaluate", "RPC_summary"]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_error_holds_what_the_page_lists_and_nothing_else(node, monkeypatch, requests, function):
    monkeypatch.setenv(policy.MINIMUM_ROWS, "100")
    reply = getattr(v6_algorithm, function)(request=requests[function])
    assert reply["status"] == "error"
    assert set(reply) - ENVELOPE == listed("An error in place of an answer")


def test_a_log_has_the_lines_that_the_page_shows_and_no_others(node, monkeypatch, capsys, requests):
    for function in FUNCTIONS:
        getattr(v6_algorithm, function)(request=requests[function])
    monkeypatch.setenv(policy.MINIMUM_ROWS, "100")
    v6_algorithm.RPC_prepare(request=requests["RPC_prepare"])
    out, err = capsys.readouterr()
    assert err == ""
    assert [re.sub(r"\d+", "N", line) for line in out.splitlines()] == [
        "prepare round N: ok",
        "train round N: ok",
        "evaluate round N: ok",
        "summary round N: ok",
        "prepare round N: refused: this node has fewer rows than its minimum of N",
    ]
    assert "train round 3: ok" in PAGE
    assert "summary round 0: ok" in PAGE
    assert "prepare round 0: refused: this node has fewer rows than its minimum of 10" in PAGE


def test_the_folder_holds_the_files_that_the_page_lists_and_no_others(node, requests, monkeypatch):
    from safetensors import safe_open

    monkeypatch.setattr(FittingMemory, "load", lambda self: Fitting(4, 16))
    for function in FUNCTIONS:
        assert getattr(v6_algorithm, function)(request=requests[function])["status"] == "ok"
    files = [path for path in (node / "tmp").rglob("*") if path.is_file()]
    names = {re.sub(r"-[0-9a-f]{32}\.", "-<key>.", path.name) for path in files}
    names = {re.sub(r"^fitting-[0-9a-f]{32}-\d+", "fitting-<key>-<round>", name) for name in names}
    names = {re.sub(r"^private-[0-9a-f]{32}-\d+-\d+", "private-<key>-<fold>-<round>", name) for name in names}
    # Terms that a site keeps under secure aggregation are in tests/coordinator/test_secure_aggregation_runs.py.
    assert names | {"term-<key>-<fold>-<round>.safetensors"} == listed("What is kept at the node")
    (table,) = (path for path in files if path.name.startswith("table-"))
    with safe_open(table, framework="numpy") as file:
        arrays = {re.sub(r"fold\.\d+\.\w+", "fold.<number>.<part>", name) for name in file.keys()}  # noqa: SIM118
        assert set(file.metadata()) == {"members", "groups"}
    assert all(f"(`{name}`)" in PAGE for name in arrays), arrays
    assert not any(SECRET.encode() in path.read_bytes() for path in files)


def test_the_page_of_the_policy_lists_every_rule_with_its_range_and_presets():
    page = (Path(__file__).parents[1] / "docs" / "node-policy.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| `(V6_ALGORITHM_\w+)` \| (.+) \|$", page, re.M))
    assert list(lines) == [rule.variable for rule in RULES]
    for rule in RULES:
        span, trusted, standard, strict, means, attack = lines[rule.variable].split(" | ")
        assert means == rule.means
        assert attack
        if rule.kind in ("whole", "number"):
            assert tuple(float(number.replace(",", "")) for number in span.split(" to ")) == rule.range
        for told, value in zip((trusted, standard, strict), rule.values, strict=True):
            if isinstance(value, bool):
                assert told == ("on" if value else "off"), rule.variable
            elif isinstance(value, (int, float)):
                number = 1 / 3 if told == "1/3" else float(told.replace(",", ""))
                assert number == pytest.approx(value), rule.variable
            else:
                assert told in ("any", "none", "none allowed"), rule.variable


def test_numbers_on_the_page_are_the_codes():
    from v6_algorithm.data import names, targets
    from v6_algorithm.data.description import describe
    from v6_algorithm.data.quantiles import _CELLS
    from v6_algorithm.learning.metrics import ClassificationMetrics
    from v6_algorithm.learning.metrics.calibration import CALIBRATION_BINS, CONFIDENCE_UNITS

    for text in (
        f"the distinct values of the target, as text or number, at most {targets._MOST_CLASSES};",
        f"calls categorical, at most {describe._MOST_CATEGORIES} |",
        f"names of columns (at most {names._SHOWN},",
        f"for each fold: {_CELLS} at first, and {_CELLS} more for each quantile",
        f"of {ClassificationMetrics(2).bins:,} bins of the predicted probability",
        f"(in 1/{CONFIDENCE_UNITS}) and hits in each of {CALIBRATION_BINS} bins",
    ):
        assert text in PAGE, text


def test_numbers_of_a_description_on_the_page_are_the_codes():
    from v6_algorithm.data.summary.table import ROWS_PER_COLUMN

    assert f"only with {ROWS_PER_COLUMN} rows a column or more" in PAGE
