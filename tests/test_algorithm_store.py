"""`algorithm_store.json`: vantage6's store accepts it, it fits `master`, and its form and charts work on real results.

What the form sends and the charts read is as in the source of vantage6's web interface, 4.14: a field left empty is
left out, or is an empty text or list; a chart reads the `location` in the result and takes columns from there.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import v6_algorithm
from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import MLP, PROBLEM_METRICS, Experiment, Glm, LinearModel
from v6_algorithm.experiment.arguments import PATHS, with_arguments
from v6_algorithm.experiment.data import Missing, Scaling

ROOT = Path(__file__).parents[1]
FILE = ROOT / "algorithm_store.json"
STORE = json.loads(FILE.read_text(encoding="utf-8"))
FUNCTIONS = {function["name"]: function for function in STORE["functions"]}
ARGUMENTS = {argument["name"]: argument for argument in FUNCTIONS["master"]["arguments"]}
CHARTS = FUNCTIONS["master"]["ui_visualizations"]
NOT_IN_A_FORM = {"resume", "weights", "client", "data", "mock_client"}


# -- the store's own rules -----------------------------------------------------------------------------------------

VALIDATE = """
import json, sys
from vantage6.algorithm.store.resource.schema.input_schema import AlgorithmInputSchema
print(json.dumps(AlgorithmInputSchema().validate(json.load(sys.stdin))))
"""


def complaints(content: Any) -> Any:
    """What vantage6's store says of a file. In a process of its own, for importing the store patches the sockets."""
    pytest.importorskip("vantage6.cli", reason="vantage6 is not installed: pip install '.[dev]'")
    done = subprocess.run(
        [sys.executable, "-c", VALIDATE], input=json.dumps(content), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_vantage6s_store_accepts_the_file():
    assert complaints(STORE) == {}


@pytest.mark.slow
def test_the_check_finds_what_is_wrong():
    broken = json.loads(FILE.read_text())
    del broken["code_url"]
    broken["functions"][0]["arguments"][0]["type"] = "colum"
    broken["functions"][0]["ui_visualizations"][1]["schema"] = {"x": "round"}
    found = complaints(broken)
    assert set(found) == {"code_url", "functions"}
    assert set(found["functions"]["0"]) == {"arguments", "ui_visualizations"}


def test_versions_and_addresses_agree_with_the_places_that_have_them():
    docker = dict(re.findall(r"^ARG (\w+)=(.*)$", (ROOT / "Dockerfile").read_text(), re.M))
    version = (ROOT / "v6_algorithm" / "VERSION").read_text().strip()
    assert STORE["image"].endswith(f"/v6-algorithm:{version}")
    allowed = yaml.safe_load((ROOT / "config" / "node_configuration.yaml").read_text())["policies"][
        "allowed_algorithms"
    ]
    # A node allows the digest of this version, which only a push tells.
    repositories = [entry.partition("@")[0] for entry in allowed]
    assert STORE["image"].rpartition(":")[0] in repositories, "the node that is there to copy would refuse this image"
    assert STORE["vantage6_version"] == docker["VANTAGE6_VERSION"]
    assert f"vantage6-algorithm-store=={STORE['vantage6_version']}" in (ROOT / "constraints.txt").read_text()
    assert STORE["documentation_url"].startswith(STORE["code_url"])


def test_the_page_for_researchers_names_what_is_in_the_file():
    page = (ROOT / "docs" / "researcher.md").read_text()
    assert STORE["image"] in page
    for name in (FUNCTIONS["master"]["display_name"], *(chart["name"] for chart in CHARTS)):
        assert f"**{name}**" in page
    (example,) = re.findall(r"`(\{\"data\".*\})`", page)
    Experiment.parse(with_arguments(json.loads(example), {"target": "y"}), checked=True)
    (kwargs,) = re.findall(r'"kwargs": (\{.*?\})', page)
    assert set(json.loads(kwargs)) <= set(ARGUMENTS)


# -- functions and arguments ---------------------------------------------------------------------------------------


def test_the_functions_are_the_names_that_the_network_may_call():
    names = {name for name, value in vars(v6_algorithm).items() if callable(value)}
    # `extract` is a step of vantage6 5, whose store has a file of its own.
    assert set(FUNCTIONS) == names - {"extract"}
    central = {"master", "describe", "tune", "check"}
    assert {name for name, function in FUNCTIONS.items() if function["standalone"]} == central
    for function in FUNCTIONS.values():
        assert function["type"] == ("central" if function["standalone"] else "federated")
        assert [database["name"] for database in function["databases"]] == ["table"]


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_arguments_are_the_functions_parameters(name):
    parameters = set(inspect.signature(getattr(v6_algorithm, name)).parameters)
    named = [argument["name"] for argument in FUNCTIONS[name]["arguments"]]
    assert set(named) == parameters - NOT_IN_A_FORM - {"mock_data"}
    assert len(set(named)) == len(named)


def default(path: str) -> Any:
    """The Experiment's own default of a key; None where the key is not there by default."""
    value: Any = Experiment.parse({"data": {"target": "y"}}, checked=True).resolved()
    value["data"]["target"] = None
    for key in path.split("."):
        value = value.get(key)
    return value


def shown(value: Any) -> str:
    if value is None or value == []:
        return "none"
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


@pytest.mark.parametrize("name", sorted(PATHS))
def test_a_description_ends_with_the_experiments_own_default_and_key(name):
    path = PATHS[name]
    assert ARGUMENTS[name]["description"].endswith(f" Default: {shown(default(path))}. Experiment key: {path}.")


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_no_field_is_filled_in_beforehand(name):
    """The form would send it, and it would override the same key of `experiment` though nobody chose it."""
    assert (ARGUMENTS[name]["has_default_value"], ARGUMENTS[name]["default_value"]) == (True, None)
    # A checkbox is always sent, as true or as false.
    assert ARGUMENTS[name]["type"] != "boolean"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("scaling", get_args(Scaling.model_fields["kind"].annotation)),
        ("missing", get_args(Missing.model_fields["kind"].annotation)),
        # The others learn from more than one column, which takes an `experiment`.
        ("problem", tuple(kind for kind in PROBLEM_METRICS if kind in ("classification", "regression", "count"))),
        (
            "model",
            tuple(
                kind for model in (MLP, LinearModel, Glm) for kind in get_args(model.model_fields["kind"].annotation)
            ),
        ),
    ],
)
def test_allowed_values_are_the_experiments(name, allowed):
    assert sorted(ARGUMENTS[name]["allowed_values"]) == sorted(allowed)
    assert default(PATHS[name]) in allowed


def test_only_these_arguments_have_a_list_of_allowed_values():
    listed = {name for name, argument in ARGUMENTS.items() if "allowed_values" in argument}
    assert listed == {"scaling", "missing", "problem", "model"}


SHOWN = {"==": lambda is_, wanted: is_ == wanted, "!=": lambda is_, wanted: is_ != wanted}


def is_shown(name: str, filled: dict[str, Any]) -> bool:
    """Whether the form shows a field; one that is empty is null there."""
    argument = ARGUMENTS[name]
    if "conditional_on" not in argument:
        return True
    condition = SHOWN[argument["conditional_operator"]]
    return condition(filled.get(argument["conditional_on"]), argument["conditional_value"])


@pytest.mark.parametrize(
    ("filled", "name", "expected"),
    [
        ({}, "positive", True),
        ({"problem": "classification"}, "positive", True),
        ({"problem": "regression"}, "positive", False),
        ({"model": "mlp"}, "hidden", True),
        ({"model": "logistic"}, "hidden", False),
        ({"model": "linear"}, "hidden", False),
    ],
)
def test_a_field_is_shown_where_it_means_something(filled, name, expected):
    assert is_shown(name, filled) is expected
    # And the condition tells the truth: what it hides would be refused.
    arguments = {"target": "y", **filled, name: {"positive": "> 0", "hidden": [8]}[name]}
    try:
        Experiment.parse(with_arguments(None, arguments), checked=True)
    except ExperimentError:
        assert not expected
    else:
        assert expected


# -- charts on real results ----------------------------------------------------------------------------------------

EXPERIMENTS = {
    "classification": {
        "sites": {"source": "builtin:breast_cancer", "partition": {"kind": "iid", "sites": 3}},
        "data": {"target": "target"},
    },
    "three classes, sites of one class": {
        "sites": {"source": "builtin:wine", "partition": {"kind": "dirichlet", "sites": 3, "alpha": 0.05}},
        "data": {"target": "target"},
        "participation": {"minimum": 1},
    },
    "regression by folds": {
        "sites": {"source": "builtin:diabetes", "partition": {"kind": "iid", "sites": 2}},
        "data": {"target": "target"},
        "problem": "regression",
        "split": {"kind": "kfold", "folds": 3},
    },
    "each site alone": {
        "sites": {"source": "builtin:breast_cancer", "partition": {"kind": "iid", "sites": 2}},
        "data": {"target": "target"},
        "mode": "local",
    },
}


@pytest.fixture(scope="module", params=EXPERIMENTS.values(), ids=EXPERIMENTS)
def result(request) -> dict[str, Any]:
    """A result on real data, as the web interface reads it; a NaN in it would be no JSON to a browser."""
    experiment = Experiment.parse({"rounds": 2, "model": "linear", **request.param})
    text = json.dumps(run(local_federation(experiment, tables_of(experiment, ROOT)), experiment), allow_nan=False)
    return json.loads(text)


def located(result: dict[str, Any], chart: dict[str, Any]) -> Any:
    found: Any = result
    for key in chart["schema"]["location"]:
        found = found[key]
    return found


def test_there_is_a_table_of_metrics_and_a_line_for_each_loss():
    assert [(chart["type"], chart["schema"]["location"]) for chart in CHARTS] == [
        ("table", ["metrics_table"]),
        ("line", ["history"]),
        ("line", ["history"]),
    ]
    assert {(chart["schema"]["x"], chart["schema"]["y"]) for chart in CHARTS[1:]} == {
        ("round", "validation_loss"),
        ("round", "train_loss"),
    }


@pytest.mark.parametrize("chart", CHARTS[1:], ids=lambda chart: chart["name"])
def test_a_line_is_drawn_from_columns_of_one_length(result, chart):
    columns = located(result, chart)
    x, y = columns[chart["schema"]["x"]], columns[chart["schema"]["y"]]
    assert x == [1, 2]
    assert len(y) == 2
    assert all(isinstance(value, float) for value in y)


def test_the_table_is_of_rows_with_the_same_columns_and_short_cells(result):
    rows = located(result, CHARTS[0])
    assert isinstance(rows, list)
    # The header comes from the first row, a downloaded CSV from each row's own order.
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert list(rows[0])[:3] == ["part", "site", "n"]
    cells = [value for row in rows for value in row.values()]
    assert all(value is None or isinstance(value, (str, int, float)) for value in cells)
    assert max(len(str(value)) for value in cells if isinstance(value, float)) <= 10


def test_the_table_says_what_metrics_say(result):
    rows = {(row["part"], row["site"]): row for row in located(result, CHARTS[0])}
    expected = {}
    for part, scopes in result["metrics"].items():
        expected[part, "all, pooled"] = scopes["pooled"]
        expected[part, "mean over sites"] = scopes["mean_over_sites"]
        expected |= {(part, name): values for name, values in scopes["sites"].items()}
    assert {part for part, _ in rows} == {"validation", "test"}
    assert rows.keys() == expected.keys()
    for key, values in expected.items():
        for name, value in values.items():
            if not name.endswith(("_resolution", "_low", "_high")):
                same = None if value is None else pytest.approx(value, rel=1e-3)
                assert rows[key][name] == same, (key, name)


def test_weights_are_not_on_the_way_of_a_chart(result):
    for chart in CHARTS:
        assert len(json.dumps(located(result, chart))) < 20_000
    assert result["parameters"] not in json.dumps([located(result, chart) for chart in CHARTS])


# -- vantage6 5 ----------------------------------------------------------------------------------------------------


def test_the_file_for_vantage6_5_is_what_its_tool_writes_and_has_each_step():
    from tools.store_for_vantage6_5 import TARGET, store

    written = json.loads(TARGET.read_text(encoding="utf-8"))
    assert written == store(), "python -m tools.store_for_vantage6_5"
    steps = {function["name"]: function["step_type"] for function in written["functions"]}
    marked = {
        name: value.vantage6_decorator_step_type
        for name, value in vars(v6_algorithm).items()
        if callable(value) and hasattr(value, "vantage6_decorator_step_type")
    }
    assert steps == marked
    (extract,) = (function for function in written["functions"] if function["name"] == "extract")
    parameters = set(inspect.signature(v6_algorithm.extract).parameters) - {"mock_uri", "mock_type"}
    assert {argument["name"] for argument in extract["arguments"]} == parameters
