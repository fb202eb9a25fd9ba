"""An installed strategy and an installed stage of compression, as docs/extend.md shows them, train like ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hospitals import make_table

import v6_algorithm.api as v6
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, plugins

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"
SITES = {"a": make_table(60, 1), "b": make_table(40, 2)}
SMALL = {"target": "y", "model": {"kind": "mlp", "hidden": [32, 16]}, "rounds": 4, "batch_size": 8, "seed": 3}


def listing(name: str) -> dict:
    (code,) = re.findall(rf"^```python {name}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    space: dict = {"__name__": name}
    exec(compile(code, name, "exec", dont_inherit=True), space)  # noqa: S102
    return space


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The page's classes, under the names that its entry points give them."""
    monkeypatch.setitem(plugins._REGISTERED, (plugins.STRATEGIES, "damped"), listing("strategy")["Damped"])
    monkeypatch.setitem(plugins._REGISTERED, (plugins.COMPRESSORS, "half"), listing("compressor")["Half"])
    plugins._load.cache_clear()
    yield
    plugins._load.cache_clear()


def losses(strategy, engine: str = "local") -> list[float]:
    result = v6.run({**SMALL, "strategy": strategy}, SITES, engine=engine)
    return result.history["validation_loss"].tolist()


def test_a_strategy_that_goes_all_the_way_is_fedavg_and_half_of_it_is_slower():
    plain = losses({"kind": "fedavg"})
    assert losses({"kind": "damped", "rate": 1.0}) == pytest.approx(plain, rel=1e-5)
    assert losses({"kind": "damped", "rate": 0.2})[-1] > plain[-1]


@pytest.mark.parametrize("engine", ["local", "mock"])
def test_a_stage_of_compression_arrives_and_is_half_as_large(engine):
    experiment = {**SMALL, "model": {"kind": "mlp", "hidden": [64, 64], "norm": "none"}, "rounds": 3}
    plain, half = (
        v6.run({**experiment, "strategy": {"kind": "fedavg", "compress": compress}}, SITES, engine=engine)
        for compress in ([], "half")
    )
    expected = plain.history["validation_loss"].tolist()
    assert half.history["validation_loss"].tolist() == pytest.approx(expected, abs=0.001)
    size, smaller = (
        next(call for call in result.content["timing"]["rounds"] if call["round"] == 3)["bytes_received"]["a"]
        for result in (plain, half)
    )
    # The local engine passes tensors by reference, so that its bytes are estimates.
    assert engine == "local" or smaller < 0.7 * size


def test_an_experiment_that_names_them_is_the_same_when_it_is_read_again():
    experiment = Experiment.parse(
        {"data": {"target": "y"}, "strategy": {"kind": "damped", "compress": ["half", "int8"]}}
    )
    assert experiment.resolved()["strategy"]["rate"] == 0.5
    assert Experiment.parse(experiment.resolved()) == experiment
    assert Experiment.parse(experiment.for_task()).resolved() == experiment.resolved()


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"kind": "dampd"}, "unknown strategy 'dampd' (did you mean 'damped'?); allowed: newton, fedavg"),
        ({"kind": "damped", "rate": 2}, "rate: must be less than or equal to 1"),
        ({"kind": "damped", "speed": 2}, "unknown key 'speed'; allowed: rate"),
        (
            {"kind": "damped", "server": "sgd"},
            "server does not go with strategy damped: damped is a step",
        ),
        ({"kind": "fedavg", "compress": "hal"}, "unknown compression 'hal' (did you mean 'half'?)"),
        ({"kind": "fedavg", "compress": {"kind": "half", "bits": 3}}, "unknown key 'bits'"),
    ],
)
def test_what_they_do_not_take_is_refused_before_any_site_is_asked(strategy, message):
    with pytest.raises(ExperimentError) as refused:
        Experiment.parse({"data": {"target": "y"}, "strategy": strategy})
    assert message in str(refused.value)


def test_secure_aggregation_refuses_a_strategy_that_it_does_not_know():
    with pytest.raises(ExperimentError, match="secure_aggregation does not go with strategy damped"):
        Experiment.parse(
            {"data": {"target": "y"}, "strategy": "damped", "privacy": {"secure_aggregation": {"threshold": 2}}}
        )
