"""A paired comparison at a site: its sums over rows, one by one, and what it does not take for placements."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.preparation.setup import pack_arrays
from v6_algorithm.errors import PolicyError, WireError
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics.histogram import FINE_BINS, bin_index
from v6_algorithm.site import SiteContext, comparison
from v6_algorithm.site.guard import Guard
from v6_algorithm.site.guard.rowsets import sets_of
from v6_algorithm.site.policy import Policy


def drawn(rows=40, seed=0):
    generator = np.random.default_rng(seed)
    target = generator.integers(0, 2, rows)
    risks = [np.round(np.clip(generator.normal(0.4 + 0.2 * target, 0.2), 0, 1), 1) for _ in range(2)]
    return target, risks


def placements_of(target, risk):
    """Return bins of each class with the share of its rows in them or below."""
    bins, told = bin_index(risk, FINE_BINS), {}
    for name, share, kind in (("negatives", "below", 0), ("positives", "reached", 1)):
        places, counts = np.unique(bins[target == kind], return_counts=True)
        told |= {name: places, share: np.cumsum(counts) / counts.sum()}
    return told


@pytest.mark.parametrize("least", [1, 18, 22, 23, 41])
def test_sums_of_placements_are_delongs_row_by_row(least):
    target, risks = drawn()
    risks[1][3] = np.nan
    usable = np.arange(40) != 3
    given = [placements_of(target[usable], risk[usable]) for risk in risks]
    found = comparison._sums(target, tuple(risks), given, None, least)
    y, (a, b) = target[usable], (risk[usable] for risk in risks)
    parts = []
    for risk in (a, b):
        placed = [np.mean((risk[row] > risk[y != y[row]]) + (risk[row] == risk[y != y[row]]) / 2) for row in range(39)]
        parts.append(np.where(y == 1, placed, 1 - np.array(placed)))
    for name, kind in (("positives", 1), ("negatives", 0)):
        first, second = (part[y == kind] for part in parts)
        wanted = [(y == kind).sum(), first.sum(), second.sum(), first @ first, second @ second, first @ second]
        assert found[name] == (None if (y == kind).sum() < least else pytest.approx(wanted))
    losses = [
        -np.where(y == 1, np.log(np.maximum(risk, 1e-15)), np.log(np.maximum(1 - risk, 1e-15))) for risk in (a, b)
    ]
    for name, (first, second) in (("brier", [(a - y) ** 2, (b - y) ** 2]), ("log_loss", losses)):
        wanted = [39, first.sum(), second.sum(), ((first - second) ** 2).sum()]
        assert found[name] == (None if least > 39 else pytest.approx(wanted))


def test_no_rows_are_told_as_none():
    given = [placements_of(np.array([0, 1]), np.array([0.2, 0.8]))] * 2
    found = comparison._sums(np.zeros(0), (np.zeros(0), np.zeros(0)), given, None, 5)
    assert found["positives"] == found["negatives"] == [0.0] * 6
    assert found["brier"] == [0.0] * 4


def test_a_single_row_of_a_class_is_not_told():
    target, risk = np.array([1, 0, 0, 0, 0, 0]), np.linspace(0.1, 0.9, 6)
    given = [placements_of(target, risk)] * 2
    found = comparison._sums(target, (risk, risk), given, None, 5)
    assert found["positives"] is None
    assert found["negatives"][0] == 5
    taken = {"risk": risk, "taken": risk > 0.5, "target": target}
    assert comparison._joint(taken, taken, 5) is None
    alone = comparison._sums(target[:1], (risk[:1], risk[:1]), given, None, 5)
    assert alone["brier"] is None
    assert alone["log_loss"] is None


@pytest.mark.parametrize("least", [1, 4, 5])
def test_rows_are_counted_by_which_model_takes_them_for_cases(least):
    target = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    first, second = np.array([0, 0, 1, 1, 0, 1, 1, 1, 0, 0]) > 0, np.array([0, 1, 0, 1, 1, 1, 1, 0, 1, 0]) > 0
    risk = np.linspace(0.1, 0.9, 10)
    risk[9] = np.nan
    models = [{"risk": risk, "taken": taken, "target": target} for taken in (first, second)]
    wanted = [1, 1, 1, 1, 0, 2, 1, 2]
    assert comparison._joint(*models, least) == (wanted if least < 5 else None)


def test_a_row_stands_where_its_joined_bins_are():
    risk, event = np.array([0.1, 0.2, 0.3, 0.8, 0.9, 1.5]), np.array([True, False, True, False, True, True])
    own = bin_index(np.clip(risk, 0, 1), FINE_BINS)
    assert comparison._bins(risk, event, None).tolist() == own.tolist()
    joined = comparison._bins(risk, event, 3)
    assert joined.tolist() == [round(own[:3].mean())] * 3 + [round(own[3:].mean())] * 3
    assert comparison._bins(risk[:0], event[:0], 3).tolist() == []


def test_the_share_below_a_bin_has_half_of_those_in_it():
    places, shares = np.array([2, 5, 9]), np.array([0.25, 0.75, 1.0])
    found = comparison._share(places, shares, np.array([0, 2, 3, 5, 9, 12]))
    assert found.tolist() == [0, 0.125, 0.25, 0.5, 0.875, 1]


GOOD = {f"{model}_{name}": np.array(values) for model in ("first", "second") for name, values in (
    ("negatives", [1, 4]), ("below", [0.5, 1.0]), ("positives", [3]), ("reached", [1.0]))}  # fmt: skip


def test_placements_are_read_and_what_is_none_is_refused():
    first, second = comparison._check_placements(pack_arrays(GOOD))
    assert first["negatives"].tolist() == second["negatives"].tolist() == [1, 4]
    comparison._check_placements(pack_arrays(GOOD | {"first_reached": np.array([1 + 1e-10])}))
    comparison._check_placements(pack_arrays(GOOD | {"first_below": np.array([1.0, 1.0])}))
    comparison._check_placements(pack_arrays(GOOD | {"second_negatives": np.array([0, 1])}))
    for wrong in (
        {"first_negatives": [4, 4]}, {"first_negatives": [4, 1]}, {"second_below": [0.5, 0.4]},
        {"second_below": [0.5]}, {"first_reached": [1.1]}, {"first_reached": [-0.1]}, {"second_reached": [np.nan]},
        {"first_positives": [[3]], "first_reached": [[1.0]]}, {"other": [1.0]},
    ):  # fmt: skip
        with pytest.raises(WireError, match="placements"):
            comparison._check_placements(pack_arrays(GOOD | {name: np.array(values) for name, values in wrong.items()}))
    with pytest.raises(WireError, match="of both models and both classes"):
        comparison._check_placements(pack_arrays({name: GOOD[name] for name in list(GOOD)[1:]}))


# -- before it goes --------------------------------------------------------------------------------------------------


def guard(**rules):
    experiment = Experiment.parse({"data": {"target": "y"}, "model": "linear"})
    return Guard(SiteContext({}, Policy(**rules), lasting=True), {}, experiment)


def test_histograms_and_ends_are_coarse_where_the_rule_asks_for_it():
    counts = np.array([[[1, 1, 4, 0]], [[0, 0, 0, 0]]])
    assert guard(coarse_histograms=False).joined(counts) is counts
    found = guard(coarse_histograms=True, minimum_cell=3).joined(counts)
    assert found.tolist() == [[[0, 0, 6, 0]], [[0, 0, 0, 0]]] or found.sum() == 6
    assert found.shape == counts.shape
    assert guard(coarse_histograms=True).joined(counts[:0]).shape == (0, 1, 4)
    values = np.arange(10.0)[:, None]
    from v6_algorithm.data.preparation.statistics import Moments

    moments = Moments.of([values], with_range=True)
    assert guard(coarse_histograms=False).edges(moments, [values]) is moments
    coarse = guard(coarse_histograms=True, minimum_cell=5).edges(moments, [values])
    assert (coarse.low.tolist(), coarse.high.tolist()) == ([[2.0]], [[7.0]])
    without = Moments.of([values], with_range=False)
    assert guard(coarse_histograms=True).edges(without, [values]) is without


def test_the_rules_in_force_are_told_with_columns_members_and_machines_alone():
    made = guard()
    assert "policy" in made.screen("prepare", {"members": {}})
    assert "policy" not in made.screen("prepare", {"counts": [], "spec": []})
    assert "policy" in made.screen("summary", {"columns": {}})
    assert "policy" not in made.screen("summary", {})


def test_what_is_described_is_booked_column_by_column_and_group_by_group():
    """What a second experiment asks may not differ in three rows from what the first was told."""
    frame = pd.DataFrame({"a": [np.nan] * 8 + [1.0] * 32, "b": np.ones(40)})
    groups = np.array(["f"] * 15 + ["m"] * 25)

    def refused(features, frame=frame, groups=None, **rules):
        context = SiteContext({}, Policy(**{"refuse_differences": True, "minimum_cell": 5} | rules), lasting=True)
        first, second = (
            Experiment.parse({"data": {"target": "y"}, "model": "linear", "seed": seed}) for seed in (1, 2)
        )
        Guard(context, {}, first).account_frame(*told)
        try:
            Guard(context, {}, second).account_frame(frame, features, groups)
        except PolicyError:
            return True
        return False

    told = frame, ["a", "b", "gone"], groups
    assert not refused(["a", "b"], groups=groups)
    less = frame.assign(a=[np.nan] * 11 + [1.0] * 29)
    assert refused(["a"], less)
    assert not refused(["a"], less, refuse_differences=False)
    assert not refused(["b"], less), "of columns that are not asked for nothing is told"
    assert not refused(["a"], frame.assign(a=[np.nan] * 13 + [1.0] * 27)), "five rows are a cell"
    assert refused(["b"], groups=np.array(["f"] * 17 + ["m"] * 23))
    assert not refused(["b"], groups=np.array(["f"] * 20 + ["m"] * 20))


def test_sets_of_a_table_are_its_rows_labels_values_and_groups():
    experiment = SimpleNamespace(
        data=SimpleNamespace(target_columns={"": "y"}), evaluation=SimpleNamespace(columns=["sex"])
    )
    table = SimpleNamespace(
        members=["h"], member=np.zeros(5, dtype=int), origin=np.array([3, 5, 7, 9, 11]),
        target=np.array([0, 1, 1, 0, 1]), values=np.array([[1, np.nan], [2, 0], [3, np.nan], [4, 1], [5, 1]]),
        group_names=[["f", "m"]], groups=np.array([[0], [1], [1], [0], [-1]]),
    )  # fmt: skip
    setup = SimpleNamespace(classes=["no", "yes"], features=["a", "b"])
    sets = {name: rows.tolist() for name, rows in sets_of(table, setup, experiment).items()}
    labels = [rows for name, rows in sets.items() if name.startswith("label")]
    assert sorted(labels) == [[3, 9], [5, 7, 11]]
    assert sets["the rows"] == sets["column 'a'"] == [3, 5, 7, 9, 11]
    assert sets["column 'b'"] == [5, 9, 11]
    assert [rows for name, rows in sets.items() if "group of" in name] == [[3, 9], [5, 7]]


def test_placements_may_fill_all_bins_and_no_more(monkeypatch):
    monkeypatch.setattr("v6_algorithm.learning.metrics.histogram.FINE_BINS", 4)

    def packed(bins):
        placed = {"negatives": np.arange(bins), "below": np.linspace(0.2, 1, bins)}
        placed |= {"positives": np.arange(bins), "reached": np.linspace(0.2, 1, bins)}
        return pack_arrays(
            {f"{model}_{name}": array for model in ("first", "second") for name, array in placed.items()}
        )

    assert [len(model["negatives"]) for model in comparison._check_placements(packed(4))] == [4, 4]
    with pytest.raises(WireError, match="rising bins"):
        comparison._check_placements(packed(5))
