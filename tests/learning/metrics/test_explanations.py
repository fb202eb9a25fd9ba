"""A sentence on a metric is said once for all places where it holds, with each place's bound."""

from __future__ import annotations

import pytest

from v6_algorithm.learning.metrics import explanations
from v6_algorithm.learning.metrics.explanations import explain_part


@pytest.fixture(autouse=True)
def sentences(monkeypatch):
    """Let a state be what is said of it."""
    monkeypatch.setattr(explanations, "explain", lambda state: state["said"])


def of(*said):
    return {"said": list(said)}


NONE, COARSE = "precision: no row", "auroc: binned, within {} of the exact value"


def test_each_sentence_is_said_once_with_its_places():
    told = explain_part("test", of(NONE), {"a": of(NONE, "recall: no row"), "b": of(NONE), "c": of()})
    assert told == ["test, pooled and sites 'a', 'b': precision: no row", "test, site 'a': recall: no row"]


def test_bounds_are_told_in_the_order_of_the_places():
    told = explain_part("test", of(COARSE.format("0.228")), {"a": of(COARSE.format("0.036")), "b": of()})
    assert told == ["test, pooled and site 'a': auroc: binned, within 0.228, 0.036 of the exact values"]
    alike = {name: of(COARSE.format("0.050")) for name in "ab"}
    assert explain_part("test", None, alike) == [
        "test, sites 'a', 'b': auroc: binned, within 0.050 of the exact values"
    ]


def test_one_place_is_named_as_it_stands():
    assert explain_part("validation", of(COARSE.format("0.1")), {}) == [
        "validation, pooled: auroc: binned, within 0.1 of the exact value"
    ]
    assert explain_part("validation", None, {}) == []


def test_of_many_sites_some_are_named_and_the_widest_bound():
    sites = {f"s{number}": of(NONE, COARSE.format(f"0.{number:03}")) for number in range(30)}
    first, second = explain_part("test", None, sites)
    shown = ", ".join(f"'s{number}'" for number in range(10))
    assert first == f"test, sites {shown}, … 20 more: {NONE}"
    assert second == f"test, sites {shown}, … 20 more: auroc: binned, within 0.029 of the exact values"


def test_what_is_said_of_other_metrics_keeps_its_own_numbers():
    told = explain_part("test", of("fid: 24 rows are withheld"), {"a": of("fid: 8 rows are withheld")})
    assert told == ["test, pooled: fid: 24 rows are withheld", "test, site 'a': fid: 8 rows are withheld"]
