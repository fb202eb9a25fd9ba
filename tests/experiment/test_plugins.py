"""A researcher's own problem, installed beside the package: the example of docs/extend.md, as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hospitals import command, read_result

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, plugins
from v6_algorithm.learning.metrics import check_state, compute, higher_is_better, merge_states

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "quantile_regression"
PLAIN = {"data": {"target": "y"}, "problem": "quantile_regression"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Install a copy of the example, as `pip install` does, into a folder of its own and without a network."""
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def plugin(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    plugins._load.cache_clear()
    yield
    plugins._load.cache_clear()


def refusal(**changes):
    with pytest.raises(ExperimentError) as refused:
        Experiment.parse(PLAIN | changes)
    return str(refused.value)


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_trains_and_is_measured_by_its_own_metrics(tmp_path):
    pytest.importorskip("sklearn")
    file = EXAMPLE / "experiment.yaml"
    result = command("run", file, "--set", "rounds=8", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Coverage" in result.output
    found = read_result(tmp_path / "out")
    pooled = found["metrics"]["test"]["pooled"]
    assert set(pooled) == {"n", "loss", "coverage", "width"}
    assert 0.5 < pooled["coverage"] < 0.95
    assert found["experiment"]["problem"] == {"kind": "quantile_regression", "quantiles": [0.1, 0.5, 0.9]}


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_runs_on_vantage6s_mock_client(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("vantage6.algorithm.tools")
    options = ["--set", "rounds=2", "--engine", "mock", "--out", tmp_path / "out"]
    assert command("run", EXAMPLE / "experiment.yaml", *options).exit_code == 0
    assert read_result(tmp_path / "out")["rounds_run"] == 2


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem": {"kind": "quantile_regression", "quantile": 0.9}}, "unknown key 'quantile' (did you mean 'quant"),
        ({"problem": {"kind": "quantile_regression", "quantiles": [0.1, 1.9]}}, "quantiles.1: must be less than 1"),
        ({"stopping": {"monitor": "coverige"}}, "did you mean 'coverage'?); allowed: loss, coverage, width"),
        ({"problem": "quantile_regresion"}, "(did you mean 'quantile_regression'?)"),
    ],
)
def test_what_a_plug_in_does_not_know_is_refused_before_any_site_is_asked(changes, message):
    assert message in refusal(**changes)


@pytest.mark.parametrize(
    ("outputs", "metric", "message"),
    [
        (3, None, r"loss: raises \w+ for an output of shape \(2, 3\)"),
        (
            1,
            lambda prediction, target: prediction[:, 5],
            r"metric 'far': raises IndexError for a prediction of shape \(2, 2\)",
        ),
    ],
)
def test_an_output_that_loss_or_metrics_do_not_take_is_told_before_training(monkeypatch, outputs, metric, message):
    from hospitals import make_table
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits

    import v6_algorithm.api as v6
    from v6_algorithm.learning.problems.derived import derived_problem

    def loss(output, target):
        return binary_cross_entropy_with_logits(output.squeeze(1), target.to(output.dtype), reduction="none")

    class Wide(derived_problem("classification", loss, {"far": (metric, True)} if metric else None)):
        def build_networks(self):
            return {"model": nn.Linear(len(self.setup.inputs), outputs)}

    monkeypatch.setitem(plugins._REGISTERED, (plugins.GROUP, "wide"), Wide)
    plugins._load.cache_clear()
    events = []
    with pytest.raises(ExperimentError, match=message):
        v6.run({"target": "y", "problem": "wide", "rounds": 1, "stopping": {"monitor": "loss"}},
               {"a": make_table(40, 1), "b": make_table(40, 2)}, on_event=events.append)  # fmt: skip
    assert not [event for event in events if event.get("event") == "round"]


def test_a_plug_in_that_is_not_installed_is_refused_by_name():
    plugins._load.cache_clear()
    assert "problem.kind: unknown problem" in refusal()


@pytest.mark.usefixtures("plugin")
def test_early_stopping_knows_which_way_a_plug_ins_metric_is_better():
    assert higher_is_better("coverage", "quantile_regression")
    assert not higher_is_better("width", "quantile_regression")


@pytest.mark.usefixtures("plugin")
def test_a_plug_ins_federated_metrics_equal_the_pooled_ones():
    import numpy as np

    metrics = plugins.problem("quantile_regression").Metrics
    generator = np.random.default_rng(0)
    prediction, target = np.sort(generator.normal(size=(50, 3)), axis=1), generator.normal(size=50)

    def state_of(rows):
        collector = metrics("quantile_regression")
        collector.update(prediction[rows], target[rows], target[rows] ** 2)
        return collector.state()

    merged = merge_states([state_of(slice(0, 20)), state_of(slice(20, 50)), state_of(slice(0, 0))])
    check_state(merged)
    whole = compute(state_of(slice(0, 50)))
    assert compute(merged) == pytest.approx(whole, rel=1e-12)
    assert whole["coverage"] == pytest.approx(np.mean((prediction[:, 0] <= target) & (target <= prediction[:, 2])))
    merged = json.loads(json.dumps(merged))
    merged["sums"]["coverage"] = float("nan")
    with pytest.raises(ValueError, match="coverage"):
        check_state(merged)


def test_a_state_of_a_plug_in_that_is_not_installed_is_refused():
    plugins._load.cache_clear()
    with pytest.raises(ValueError, match="an installed plug-in"):
        check_state({"kind": "plugin", "problem": "x", "n": 0, "non_finite": 0, "loss": 0.0, "sums": {}})


def test_the_guide_names_what_the_surface_has():
    """docs/extend.md promises names; each is there, and none is there that it does not promise."""
    from v6_algorithm.learning.problems import base

    promised = (ROOT / "docs" / "extend.md").read_text().split("is the surface that plug-ins build on:")[1]
    names = set(re.findall(r"`(\w+)`", promised.split(". Within")[0]))
    assert names == set(base.__all__) - {"Accumulator"}


def test_the_guides_code_is_the_examples():
    """Lines of the guide's first listing that are code, not outline, stand in the example."""
    listing = (ROOT / "docs" / "extend.md").read_text().split("```python\n")[1].split("```")[0]
    example = (EXAMPLE / "quantile_regression.py").read_text()
    for line in re.findall(r"^\s*(class \w+\(\w+\):|return .*|low, .*|higher_is_better.*)", listing, re.M):
        assert line in example
