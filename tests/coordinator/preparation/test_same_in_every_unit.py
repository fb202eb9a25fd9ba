"""The same survival data in another unit of time give the same numbers: days, milliseconds, years, and any other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.data.preparation.setup import Setup
from v6_algorithm.data.preparation.times import count_times, cut, log_times, middle_of
from v6_algorithm.errors import DataError, PolicyError, WireError
from v6_algorithm.site import preparing
from v6_algorithm.site.policy import Policy

UNITS = {"milliseconds": 86_400_000.0, "years": 1 / 365.25, "tiny": 1e-25, "huge": 1e25}
PROBLEMS: dict[str, dict[str, Any]] = {
    "Cox": {"problem": {"kind": "survival", "method": "cox"}},
    "Cox, joined baseline": {"problem": {"kind": "survival", "method": "cox", "baseline": "pooled"}},
    "discrete time": {"problem": {"kind": "survival", "method": "discrete_time"}},
}


def _hospital(seed: int, rows: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    columns = generator.normal(size=(rows, 2))
    death = generator.exponential(400 * np.exp(-0.7 * columns[:, 0]))
    end = generator.uniform(50, 1500, rows)
    frame = pd.DataFrame(columns, columns=["a", "b"])
    return frame.assign(days=np.ceil(np.minimum(death, end)), died=(death <= end).astype(int))


HOSPITALS = {"north": _hospital(1, 90), "south": _hospital(2, 60)}


def _run(problem: str, factor: float) -> dict[str, Any]:
    experiment = {
        "name": "units",
        "data": {"target": {"duration": "days", "event": "died"}},
        "model": {"kind": "mlp", "hidden": [3]},
        "rounds": 2,
        **PROBLEMS[problem],
    }
    sites = {name: frame.assign(days=frame["days"] * factor) for name, frame in HOSPITALS.items()}
    content: dict[str, Any] = v6.run(experiment, sites).content
    return content


def _numbers(content: Any, path: str = "") -> dict[str, float]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    numbers: dict[str, float] = {}
    for name, value in items:
        if isinstance(value, (dict, list)):
            numbers |= _numbers(value, f"{path}.{name}")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers[f"{path}.{name}"] = value
    return numbers


@pytest.mark.parametrize(
    "problem", ["Cox", pytest.param("Cox, joined baseline", marks=pytest.mark.slow), "discrete time"]
)
def test_all_metrics_are_the_same_in_every_unit(problem):
    in_days = _run(problem, 1.0)
    expected = _numbers({name: in_days[name] for name in ("metrics", "risk", "auroc_over_time")})
    assert any(name.endswith(".brier") for name in expected)
    for factor in UNITS.values():
        content = _run(problem, factor)
        numbers = _numbers({name: content[name] for name in ("metrics", "risk", "auroc_over_time")})
        assert set(numbers) == set(expected)
        for name, value in numbers.items():
            scale = factor if name.endswith(".time") else 1.0
            assert value == pytest.approx(expected[name] * scale, rel=1e-6), name
        if "baseline" in in_days["preparation"]:
            baseline, days = content["preparation"]["baseline"], in_days["preparation"]["baseline"]
            np.testing.assert_allclose(baseline["cumulative_hazard"], days["cumulative_hazard"], rtol=1e-6)
            np.testing.assert_allclose(baseline["times"], np.multiply(days["times"], factor), rtol=1e-6)


def test_events_that_are_all_at_one_time_fall_into_one_bin_in_every_unit():
    for factor in (1.0, *UNITS.values()):
        times = np.full(30, 365.0) * factor
        counts = count_times(times, middle_of([log_times(times)]))
        assert counts.max() == 30
        assert cut(counts, 4, middle_of([log_times(times)])) == []


def test_times_that_nothing_counts_are_refused_and_not_put_into_the_outer_bin():
    with pytest.raises(DataError, match="another unit"):
        count_times(np.array([1e25, 2e25]))
    assert count_times(np.array([1e25, 2e25]), middle_of([(2, np.log2(1.4e25))])).sum() == 2


def test_where_a_site_tells_no_middle_all_count_around_one():
    assert middle_of([]) == 0.0
    assert middle_of([(3, 2.0), (1, 6.0), (0, 0.0)]) == 3.0
    assert middle_of([(3, 2.0), None]) == 0.0


@pytest.mark.parametrize("middle", [float("nan"), float("inf"), -1e9])
def test_a_middle_that_no_time_has_is_refused(middle):
    setup = Setup(features=["a"], categories={}, classes=None, middle=middle)
    with pytest.raises(WireError, match="malformed"):
        Setup.from_json(setup.to_json())


@pytest.mark.parametrize("careful", ["secret_folds", "refuse_differences", "coarse_histograms"])
def test_a_careful_node_tells_no_middle_and_refuses_one(careful):
    privacy = SimpleNamespace(secure_aggregation=None, differential_privacy=None)
    experiment = SimpleNamespace(problem=SimpleNamespace(kind="survival"), privacy=privacy)
    work: Any = SimpleNamespace(policy=Policy(**{careful: True}), experiment=experiment,
                                setup=lambda: SimpleNamespace(middle=8.5))  # fmt: skip
    assert preparing._log_times(work, HOSPITALS["north"]) is None
    with pytest.raises(PolicyError, match="stand still"):
        preparing._statistics(work)
