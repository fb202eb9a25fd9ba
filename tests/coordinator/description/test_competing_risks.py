"""Competing causes, rows that join late, and rank tests: those of the pooled rows, and silent about few."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lifelines import AalenJohansenFitter, KaplanMeierFitter
from scipy import stats

import v6_algorithm.api as v6
from v6_algorithm.data.preparation.times import coarse_entries, coarse_times, coarse_watching
from v6_algorithm.errors import ExperimentError

TARGET = {"duration": "days", "event": "status", "entry": "entry", "competing": "== 2"}
COMPETING = {"data": {"target": TARGET, "positive": "== 1"}, "problem": "survival"}


def hospitals(rows=(120, 150, 90), seed=0):
    generator = np.random.default_rng(seed)
    frames = {}
    for number, count in enumerate(rows):
        first, second = generator.exponential(30, count), generator.exponential(50, count)
        last = generator.uniform(5, 80, count)
        days = np.minimum(np.minimum(first, second), last)
        frame = pd.DataFrame(
            {
                "arm": generator.choice(["a", "b"], count),
                "age": generator.normal(60, 8, count),
                "grade": generator.integers(1, 4, count),
                "entry": generator.uniform(0, 8, count),
                "days": days,
                "status": np.where(days == last, 0, np.where(days == first, 1, 2)),
            }
        )
        frames[f"h{number}"] = frame[frame["days"] > frame["entry"]].reset_index(drop=True)
    return frames


@pytest.mark.slow
def test_incidence_and_late_entries_are_those_of_the_pooled_rows():
    frames = hospitals((90, 90, 80))
    pooled = pd.concat(frames.values())
    description = v6.describe(COMPETING, frames, by="arm")
    for arm, rows in pooled.groupby("arm"):
        curve = description.content["curves"]["groups"][arm]
        fitted = KaplanMeierFitter().fit(rows["days"], rows["status"] == 1, entry=rows["entry"])
        assert curve["survival"] == pytest.approx(fitted.survival_function_.iloc[:, 0].loc[curve["time"]].to_list())
        for cause in (1, 2) if arm == "b" else ():
            expected = AalenJohansenFitter().fit(
                rows["days"], rows["status"], event_of_interest=cause, entry=rows["entry"]
            )
            known = curve["incidence"][str(cause)]
            assert known["incidence"] == pytest.approx(
                expected.cumulative_density_.iloc[:, 0].loc[curve["time"]].to_list(), abs=1e-12
            )
            ends = expected.confidence_interval_.loc[curve["time"]].to_numpy().T
            inside = np.isfinite(ends).all(axis=0)
            for ours, theirs in zip((known["low"], known["high"]), np.sort(ends, axis=0), strict=True):
                assert np.array(ours)[inside] == pytest.approx(theirs[inside], abs=1e-12)
    table = description.cumulative_incidence
    assert set(table["cause"]) == {"1", "2"}


def test_incidence_is_drawn_and_written(tmp_path):
    folder = v6.describe(COMPETING, hospitals(), by="arm").save(tmp_path / "curves")
    assert len(pd.read_csv(folder / "cumulative_incidence.csv")) > 100
    assert (folder / "cumulative_incidence_2.svg").read_text().startswith("<?xml")
    assert "Cumulative incidence of 2 by arm" in (folder / "table1.html").read_text()


def test_joined_times_stand_for_enough_events_of_each_cause_and_curves_stay_near(monkeypatch):
    frames = hospitals((200, 260, 180))
    exact = v6.describe(COMPETING, frames, by="arm").content["curves"]["groups"]
    monkeypatch.setattr("v6_algorithm.site.guard.Guard.time_cell", lambda self, columns: (5, 5))
    joined = v6.describe(COMPETING, frames, by="arm").content["curves"]["groups"]
    for arm, curve in joined.items():
        assert len(curve["time"]) < 0.5 * len(exact[arm]["time"])
        for cause in ("1", "2"):
            at = [
                float(np.interp(20.0, told["time"], told["incidence"][cause]["incidence"]))
                for told in (exact[arm], curve)
            ]
            assert at[1] == pytest.approx(at[0], abs=0.06)


@pytest.mark.parametrize("patients", [False, True])
def test_of_joined_times_nobody_joins_alone(patients):
    generator = np.random.default_rng(0)
    entry = np.round(generator.uniform(0, 20, 400), 3)
    time = entry + generator.exponential(30, 400)
    event = generator.random(400) < 0.6
    if patients:
        # Each is watched in two rows, of which the first ends without the event.
        middle = np.round((entry + time) / 2, 6)
        number = np.tile(np.arange(400), 2)
        entry, time = np.concatenate([entry, middle]), np.concatenate([middle, time])
        event = np.concatenate([np.zeros(400, dtype=bool), event])
        ends, starts = coarse_watching(time, event, entry, number, 5, 20)
        assert (starts[400:] == ends[:400]).all(), "a patient is watched without a break"
        assert (starts[:400] <= ends[:400]).all()
        ends, starts = ends[400:], starts[:400]
        assert (starts < ends).all()
    else:
        ends = coarse_times(time, event, 5, 20)
        starts = coarse_entries(entry, ends, 20)
        assert (starts < ends).all()
        assert np.abs(starts - entry).mean() < 4
    assert np.unique(starts, return_counts=True)[1].min() >= 20
    assert set(np.unique(starts)) <= {0.0, *np.unique(ends)}


def test_a_cause_of_few_events_is_not_told(monkeypatch):
    frames = hospitals()
    for frame in frames.values():
        few = (frame["arm"] == "a") & (frame["status"] == 2)
        frame.loc[few[few].index[3:], "status"] = 0
    description = v6.describe(COMPETING, frames, by="arm")
    assert "a" not in description.content["curves"]["groups"]
    assert any("survival of group 'a' is without" in note for note in description.notes)


def test_ranks_are_those_of_the_rows_where_bins_hold_one_value_and_near_elsewhere():
    frames = hospitals((400, 500, 300), seed=3)
    for frame in frames.values():
        frame["age"] += np.where(frame["arm"] == "a", 0.0, 1.5)
    pooled = pd.concat(frames.values())
    columns = v6.describe(COMPETING, frames, by="arm").content["table_one"]["columns"]
    for name, relative in (("grade", 1e-9), ("age", 0.15)):
        first, second = (pooled.loc[pooled["arm"] == arm, name] for arm in "ab")
        expected = stats.mannwhitneyu(second, first, use_continuity=False, method="asymptotic")
        test = columns[name]["rank_test"]
        assert test["name"] == "Mann-Whitney"
        superiority = expected.statistic / len(first) / len(second)
        assert abs(test["superiority"] - superiority) <= test["resolution"] + 1e-12
        assert test["superiority"] == pytest.approx(superiority, abs=1e-12 if relative < 1e-6 else 0.01)
        z = stats.norm.isf(expected.pvalue / 2)
        assert np.sqrt(test["statistic"]) == pytest.approx(z, rel=relative, abs=1e-9)
        assert columns[name]["groups"]["a"]["median"] == pytest.approx(first.median(), abs=0.5)
    assert columns["grade"]["rank_test"]["resolution"] == 0
    by_site = v6.describe(COMPETING, frames, by="site").content["table_one"]["columns"]["grade"]["rank_test"]
    expected = stats.kruskal(*(frame["grade"] for frame in frames.values()))
    assert (by_site["name"], by_site["p"]) == ("Kruskal-Wallis", pytest.approx(expected.pvalue))


def test_bins_have_no_group_of_few():
    from v6_algorithm.data.summary.ranks import group_bins

    generator = np.random.default_rng(0)
    values = np.round(generator.normal(size=300), 2)
    sets = [np.arange(300) < 60, (np.arange(300) >= 60) & (values > 0)]
    rest = ~(sets[0] | sets[1])
    bins = group_bins(values, sets, [*sets, rest], 5)
    assert 5 < bins.rows.shape[1] < 30
    assert ((bins.rows == 0) | (bins.rows >= 5)).all()
    assert bins.rows.sum(axis=1).tolist() == [rows.sum() for rows in sets]
    first, second = (values[rows] for rows in sets)
    assert (bins.rows * bins.mean).sum(axis=1) == pytest.approx([first.sum(), second.sum()])
    edges = bins.low[1:]
    others = np.bincount(np.searchsorted(edges, values[rest], side="right"), minlength=len(edges) + 1)
    assert ((others == 0) | (others >= 5)).all()


def test_a_small_table_of_two_by_two_has_fishers_test():
    from v6_algorithm.coordinator.description.table_one import _fisher

    for table in ([[8, 2], [1, 5]], [[3, 0], [2, 9]], [[40, 60], [55, 45]], [[5, 5], [5, 5]]):
        assert _fisher(np.array(table, dtype=float))["p"] == pytest.approx(stats.fisher_exact(table).pvalue)
    assert _fisher(np.ones((2, 3))) is None


@pytest.mark.parametrize(
    ("target", "positive", "says"),
    [
        (TARGET, None, "data.positive"),
        (TARGET | {"competing": "== 1"}, "== 1", "is both the event"),
        (TARGET | {"entry": "days"}, "== 1", "entry and duration are both"),
        (TARGET | {"competing": ["== 2", "== 2"]}, "== 1", "named twice"),
    ],
)
def test_a_target_that_contradicts_itself_is_refused(target, positive, says):
    with pytest.raises(ExperimentError, match=says):
        v6.describe({"data": {"target": target, "positive": positive}, "problem": "survival"}, hospitals(), by="arm")


def test_a_value_of_two_causes_and_an_entry_after_the_end_are_refused():
    both = COMPETING["data"] | {"target": TARGET | {"competing": ">= 1"}}
    with pytest.raises(ExperimentError, match="and another condition as well"):
        v6.describe({"data": both, "problem": "survival"}, hospitals(), by="arm")
    frames = hospitals()
    frames["h0"].loc[3, "entry"] = frames["h0"].loc[3, "days"]
    with pytest.raises(ExperimentError, match="not before"):
        v6.describe(COMPETING, {"h0": frames["h0"]}, by="arm")
