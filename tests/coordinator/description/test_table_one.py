"""Table 1 and survival curves by group: equal to those of the pooled rows, and silent about few."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test, multivariate_logrank_test
from lifelines.utils import restricted_mean_survival_time
from scipy import stats

import v6_algorithm.api as v6
from v6_algorithm.coordinator.description.survival_curves import Leaving, kaplan_meier
from v6_algorithm.coordinator.inference.distributions import chi_square_p, f_p, t_p, t_quantile
from v6_algorithm.data.summary.groups import by_group, withheld_labels
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment

SURVIVAL = {
    "data": {"target": {"duration": "days", "event": "died"}, "categorical": ["ward"], "exclude": ["days"]},
    "problem": "survival",
}


def hospitals(seed=0, rows=(70, 90, 60)):
    generator = np.random.default_rng(seed)
    frames = {}
    for number, count in enumerate(rows):
        arm = generator.choice(["drug", "placebo"], count)
        time = generator.exponential(np.where(arm == "drug", 40, 25))
        last = generator.uniform(5, 60, count)
        frame = pd.DataFrame(
            {
                "arm": arm,
                "age": generator.normal(60 + number, 8, count),
                "ward": generator.choice(["north", "south"], count),
                "days": np.ceil(np.minimum(time, last)),
                "died": (time <= last).astype(int),
            }
        )
        frame.loc[::9, "age"] = np.nan
        frames[f"h{number}"] = frame
    return frames


def test_table_one_is_that_of_the_pooled_rows():
    frames = hospitals()
    frame = pd.concat(frames.values(), ignore_index=True)
    table = v6.describe(SURVIVAL, frames, by="arm").content["table_one"]
    assert table["groups"] == frame["arm"].value_counts().to_dict()
    drug, placebo = (frame[frame["arm"] == arm] for arm in ("drug", "placebo"))
    age = table["columns"]["age"]
    assert age["groups"]["drug"]["mean"] == pytest.approx(drug["age"].mean())
    assert age["groups"]["drug"]["sd"] == pytest.approx(drug["age"].std())
    assert age["groups"]["drug"]["missing"] == drug["age"].isna().sum()
    spread = np.sqrt((drug["age"].var() + placebo["age"].var()) / 2)
    assert age["difference"] == pytest.approx(abs(drug["age"].mean() - placebo["age"].mean()) / spread)
    welch = stats.ttest_ind(drug["age"].dropna(), placebo["age"].dropna(), equal_var=False)
    assert (age["test"]["statistic"], age["test"]["p"]) == pytest.approx((welch.statistic, welch.pvalue))
    ward = table["columns"]["ward"]
    expected = stats.chi2_contingency(pd.crosstab(frame["arm"], frame["ward"]), correction=False)
    assert (ward["test"]["statistic"], ward["test"]["p"]) == pytest.approx((expected.statistic, expected.pvalue))


def test_by_site_more_than_two_groups_have_an_f_test():
    frames = hospitals()
    table = v6.describe(SURVIVAL, frames, by="site").content["table_one"]
    expected = stats.f_oneway(*(frame["age"].dropna() for frame in frames.values()))
    assert table["columns"]["age"]["test"]["p"] == pytest.approx(expected.pvalue)
    assert set(table["groups"]) == set(frames)


def test_curves_are_those_of_the_pooled_rows():
    frames = hospitals()
    frame = pd.concat([part.assign(site=name) for name, part in frames.items()])
    curves = v6.describe(SURVIVAL, frames, by="arm").content["curves"]
    for arm, curve in curves["groups"].items():
        rows = frame[frame["arm"] == arm]
        fitted = KaplanMeierFitter().fit(rows["days"], rows["died"])
        at = fitted.survival_function_.iloc[:, 0].loc[curve["time"]]
        assert curve["survival"] == pytest.approx(at.to_list())
        interval = fitted.confidence_interval_survival_function_.loc[curve["time"]]
        inside = np.array(curve["survival"]) < 1
        assert np.array(curve["low"])[inside] == pytest.approx(interval.iloc[:, 0].to_numpy()[inside])
        assert np.array(curve["high"])[inside] == pytest.approx(interval.iloc[:, 1].to_numpy()[inside])
        assert curve["median"] == fitted.median_survival_time_
        assert curve["restricted_mean"] == pytest.approx(restricted_mean_survival_time(fitted, curve["horizon"]))
        assert curve["at_risk"] == [int((rows["days"] >= time).sum()) for time in curve["time"]]
    drug = frame["arm"] == "drug"
    expected = logrank_test(
        frame.loc[drug, "days"], frame.loc[~drug, "days"], frame.loc[drug, "died"], frame.loc[~drug, "died"]
    )
    assert curves["log_rank"]["chi2"] == pytest.approx(expected.test_statistic)
    assert curves["log_rank"]["p"] == pytest.approx(expected.p_value)
    by_site = v6.describe(SURVIVAL, frames, by="site").content["curves"]
    several = multivariate_logrank_test(frame["days"], frame["site"], frame["died"])
    assert by_site["log_rank"]["chi2"] == pytest.approx(several.test_statistic)


def test_a_stratified_log_rank_adds_up_the_sites_and_no_more():
    """One site alone, or the same rows thrice as strata: the sums of the parts, as of Kalbfleisch and Prentice."""
    frame = hospitals()["h0"]
    alone = v6.describe(SURVIVAL, {"a": frame}, by="arm").content["curves"]
    assert alone["log_rank_by_site"]["chi2"] == pytest.approx(alone["log_rank"]["chi2"])
    thrice = v6.describe(SURVIVAL, {"a": frame, "b": frame, "c": frame}, by="arm").content["curves"]
    assert thrice["log_rank_by_site"]["chi2"] == pytest.approx(3 * alone["log_rank"]["chi2"])


def test_the_restricted_means_error_is_that_of_the_bootstrap():
    generator = np.random.default_rng(1)
    time, last = generator.exponential(20, 300), generator.uniform(5, 60, 300)
    seen, event = np.minimum(time, last), time <= last

    def mean(rows):
        distinct, place = np.unique(seen[rows], return_inverse=True)
        leaving = Leaving(
            distinct,
            np.bincount(place, event[rows], len(distinct)),
            np.bincount(place, minlength=len(distinct)).astype(float),
        )
        return kaplan_meier(leaving, 30.0)

    whole = mean(np.arange(300))
    drawn = [mean(generator.integers(0, 300, 300))["restricted_mean"] for _ in range(200)]
    assert whole["restricted_mean_se"] == pytest.approx(np.std(drawn), rel=0.2)


def test_joined_times_leave_curves_and_the_log_rank_test_near_those_of_exact_ones(monkeypatch, tmp_path):
    frames = hospitals(rows=(140, 180, 120))
    exact = v6.describe(SURVIVAL, frames, by="arm").content["curves"]
    monkeypatch.setattr("v6_algorithm.site.guard.Guard.time_cell", lambda self, columns: (5, 5))
    joined = v6.describe(SURVIVAL, frames, by="arm")
    assert any("join times" in note for note in joined.notes)
    curves = joined.content["curves"]
    assert curves["log_rank"]["chi2"] == pytest.approx(exact["log_rank"]["chi2"], rel=0.2)
    for arm, curve in curves["groups"].items():
        assert len(curve["time"]) < 0.8 * len(exact["groups"][arm]["time"])
        mean, error = (exact["groups"][arm][key] for key in ("restricted_mean", "restricted_mean_se"))
        at = min(curve["horizon"], exact["groups"][arm]["horizon"])
        assert abs(curve["restricted_mean"] - mean) < 2 * error + abs(exact["groups"][arm]["horizon"] - at)


def test_few_rows_of_a_group_a_value_or_a_column_are_not_told():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"arm": ["a"] * 40 + ["b"] * 40 + ["c"] * 3 + ["d"] * 20, "x": generator.normal(size=103)})
    frame["kind"] = np.where(np.arange(103) % 2, "p", "q")
    frame.loc[[0, 41, 42, 43, 44, 45, 46], "kind"] = "rare"
    frame["lab"] = frame["x"].where(frame["arm"] != "b")
    frame.loc[[41, 42], "lab"] = 1.0
    data = Experiment.parse({"data": {"target": "x", "categorical": ["kind"]}}).data
    told = by_group(frame, frame["arm"].to_numpy(), ["x", "lab"], data, [], 5, None)
    # c alone would be all rows less the others.
    assert [group["name"] for group in told["groups"]] == ["a", "b"]
    assert told["withheld"] == 23
    assert told["hidden"] == ["lab"]
    for group in told["groups"]:
        labels = group["labels"]["kind"]
        assert "rare" not in dict(labels["counts"])
        assert labels["hidden"] >= 5


def test_of_withheld_labels_no_single_one_can_be_had_as_a_rest():
    assert withheld_labels(np.array([[40, 30], [3, 20], [20, 25]]), 5).tolist() == [False, True, True]
    assert withheld_labels(np.array([[40, 30], [5, 20], [0, 25]]), 5).tolist() == [False, False, False]
    assert withheld_labels(np.array([[40, 30], [2, 20]]), 5).all()


def test_tails_are_scipys():
    for value in (0.01, 0.5, 1.3, 4.0, 30.0):
        assert chi_square_p(value, 3) == pytest.approx(stats.chi2.sf(value, 3), rel=1e-10)
        assert t_p(value, 7.3) == pytest.approx(2 * stats.t.sf(value, 7.3), rel=1e-10)
        assert f_p(value, 3, 41) == pytest.approx(stats.f.sf(value, 3, 41), rel=1e-10)
    assert t_quantile(0.975, 4) == pytest.approx(stats.t.ppf(0.975, 4), rel=1e-9)


def test_files_for_a_paper(tmp_path):
    description = v6.describe(SURVIVAL, hospitals(), by="arm")
    folder = description.save(tmp_path / "table")
    table = pd.read_csv(folder / "table1.csv")
    assert list(table.columns)[1:] == [*description.table_one.columns]
    assert "age, mean (SD)" in set(table["variable"])
    latex = (folder / "table1.tex").read_text()
    assert r"\toprule" in latex
    assert "arm drug (n = " in latex
    assert "<svg" in (folder / "table1.html").read_text()
    assert (folder / "kaplan_meier.svg").read_text().startswith("<?xml")
    assert set(pd.read_csv(folder / "kaplan_meier.csv")["group"]) == {"drug", "placebo"}


def test_what_makes_no_groups_is_said():
    with pytest.raises(ExperimentError, match=r"evaluation\.by"):
        v6.describe(SURVIVAL, hospitals(), by="age")
    with pytest.raises(ExperimentError, match="needs by"):
        _ = v6.describe(SURVIVAL, hospitals()).table_one


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"died": 0}, "no group has an event"),
        ({"died": 1, "days": 30.0}, "nobody is left, or only one group, where events"),
    ],
)
def test_a_log_rank_test_that_there_is_none_of_is_told(changes, why):
    generator = np.random.default_rng(0)
    frames = {
        name: pd.DataFrame({"age": generator.normal(size=60), "days": generator.integers(1, 50, 60), "died": 1}).assign(
            **changes
        )
        for name in "pq"
    }
    content = {"data": {"target": {"duration": "days", "event": "died"}}, "problem": "survival"}
    told = v6.describe(content, frames, by="site")
    assert told.content["curves"]["log_rank"] is None
    assert any(f"there is no log-rank test, for {why}" in note for note in told.notes)
