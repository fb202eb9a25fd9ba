"""A federation's estimators beside statsmodels, lifelines and scipy on the pooled rows: largest relative differences.

    python benchmarks/inference.py [glms] [cox] [curves] [entries]

GLMs, Cox models (pooled and stratified by site), Kaplan-Meier curves, log-rank tests and Table 1. Real tables: the four
hospitals' heart disease rows (of `V6_ALGORITHM_DATA`, where they are there), scikit-learn's diabetes (three sites), and
lifelines' Rossi (arrests), lung cancer and GBSG2 (breast cancer), in three parts each. Rows with an empty cell are left
out on both sides. Cox models and curves are done under policy trusted, and again under standard, whose nodes join event
times: of those the largest distance in standard errors is shown.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from common import DATA

import v6_algorithm.api as v6


def cut(frame: pd.DataFrame, parts: int) -> list[pd.DataFrame]:
    """Return a table in parts, in its order."""
    return [frame.iloc[rows] for rows in np.array_split(np.arange(len(frame)), parts)]


def heart() -> dict[str, pd.DataFrame]:
    """Return the four hospitals' rows without empty cells in the columns that are used."""
    columns = ["age", "sex", "cp", "trestbps", "thalach", "exang", "oldpeak", "target"]
    folder = DATA / "heart_disease"
    return {file.stem: pd.read_csv(file)[columns].dropna() for file in sorted(folder.glob("*.csv"))}


def diabetes() -> dict[str, pd.DataFrame]:
    """Return scikit-learn's diabetes table at three sites."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame
    return {f"site{number}": part for number, part in enumerate(cut(frame, 3))}


def rossi() -> dict[str, pd.DataFrame]:
    """Return lifelines' Rossi table at two sites."""
    from lifelines.datasets import load_rossi

    return {f"site{number}": part for number, part in enumerate(cut(load_rossi().drop(columns="week"), 2))}


CASES: list[tuple[str, Any, str, str, str, Any]] = [
    ("heart", heart, "target", "classification", "binomial", sm.families.Binomial()),
    ("heart", heart, "target", "count", "poisson", sm.families.Poisson()),
    ("diabetes", diabetes, "target", "regression", "gaussian", sm.families.Gaussian()),
    ("diabetes", diabetes, "target", "regression", "gamma", sm.families.Gamma(sm.families.links.Log())),
    ("rossi", rossi, "arrest", "classification", "binomial", sm.families.Binomial()),
    ("rossi", rossi, "prio", "count", "poisson", sm.families.Poisson()),
]


def survival(name: str) -> tuple[dict[str, pd.DataFrame], str, str, str]:
    """Return three sites of one of lifelines' tables, and its columns of duration, event and group."""
    from lifelines import datasets

    if name == "rossi":
        return _parts(datasets.load_rossi()), "week", "arrest", "fin"
    if name == "lung":
        frame = datasets.load_lung()[["time", "status", "age", "sex", "ph.ecog", "wt.loss"]].dropna()
        return (
            _parts(frame.assign(status=(frame["status"] == frame["status"].max()).astype(int))),
            "time",
            "status",
            "sex",
        )
    frame = datasets.load_gbsg2()
    frame = frame.assign(
        horTh=(frame["horTh"] == "yes").astype(int), menostat=(frame["menostat"] == "Post").astype(int)
    )
    return _parts(frame.drop(columns="tgrade")), "time", "cens", "horTh"


def _parts(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {f"site{number}": part for number, part in enumerate(cut(frame, 3))}


def cox() -> None:
    """Fit each table's Cox model both ways, and under a policy that joins event times."""
    from lifelines import CoxPHFitter
    from lifelines.statistics import proportional_hazard_test

    print(
        f"\n{'Cox':8}{'strata':8}{'rows':>6}{'events':>8}{'rounds':>8}{'estimate':>11}{'error':>11}{'logL':>11}"
        f"{'PH test':>11}{'  standard: |change| / SE':>26}{'error':>8}"
    )
    for name in ("rossi", "lung", "gbsg2"):
        frames, duration, event, _ = survival(name)
        columns = [column for column in next(iter(frames.values())) if column not in (duration, event)]
        keys = {
            "data": {"target": {"duration": duration, "event": event}, "features": columns, "missing": "error"},
            "problem": "survival",
        }
        pooled = pd.concat([frame.assign(site=site) for site, frame in frames.items()], ignore_index=True)
        for strata in ("none", "site"):
            section = keys | {"model": {"kind": "cox", "strata": strata}}
            result = v6.run(section, frames)
            rows = pooled if strata == "site" else pooled.drop(columns="site")
            by = {"strata": ["site"]} if strata == "site" else {}
            expected = CoxPHFitter().fit(rows, duration, event, fit_options={"precision": 1e-12}, **by)
            test = proportional_hazard_test(expected, rows, time_transform="log" if by else "km")
            table, about = result.coefficients, result.content["fit"]
            differences = [
                _relative(table["estimate"], expected.params_),
                _relative(table["standard_error"], expected.standard_errors_),
                abs(about["log_likelihood"] / expected.log_likelihood_ - 1),
                _relative([line["chi2"] for line in result.content["proportional_hazards"]], test.test_statistic),
            ]
            away, wider = under_standard(section, frames, expected)
            print(
                f"{name:8}{strata:8}{about['rows']:6}{about['events']:8}{about['rounds']:8}"
                + "".join(f"{value:11.1e}" for value in differences)
                + f"{away:26.2g}{wider:8.1%}"
            )


def under_standard(section: dict[str, Any], frames: dict[str, pd.DataFrame], expected: Any) -> tuple[float, float]:
    """Return how far estimates are from the expected ones in standard errors, and how far those are from theirs."""
    kept = {name: os.environ.get(name) for name in ("V6_ALGORITHM_POLICY", "TEMPORARY_FOLDER")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"V6_ALGORITHM_POLICY": "standard", "TEMPORARY_FOLDER": folder}
        try:
            table = v6.run(section, frames, engine="mock").coefficients
        finally:
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
    away = np.abs((table["estimate"] - expected.params_) / expected.standard_errors_).max()
    return float(away), _relative(table["standard_error"], expected.standard_errors_)


def _relative(ours: Any, theirs: Any) -> float:
    return float(np.abs(np.asarray(ours, dtype=float) / np.asarray(theirs, dtype=float) - 1).max())


def curves() -> None:
    """Compare Kaplan-Meier curves, log-rank tests and Table 1."""
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import multivariate_logrank_test
    from scipy import stats

    heads = ("survival", "interval", "median", "log-rank", "t", "chi2")
    print(f"\n{'curves':8}{'by':8}" + "".join(f"{head:>11}" for head in heads))
    for name in ("rossi", "lung", "gbsg2"):
        frames, duration, event, by = survival(name)
        pooled = pd.concat(frames.values(), ignore_index=True)
        section = {"data": {"target": {"duration": duration, "event": event}}, "problem": "survival"}
        content = v6.describe(section, frames, by=by).content
        told = content["curves"]
        differences = np.zeros(3)
        for group, curve in told["groups"].items():
            rows = pooled[pooled[by].astype(str) == group]
            fitted = KaplanMeierFitter().fit(rows[duration], rows[event])
            at = fitted.survival_function_.iloc[:, 0].loc[curve["time"]].to_numpy()
            low = fitted.confidence_interval_survival_function_.iloc[:, 0].loc[curve["time"]].to_numpy()
            inside = (at < 1) & (at > 0)
            median = fitted.median_survival_time_
            differences = np.maximum(
                differences,
                [
                    _relative(np.array(curve["survival"])[inside], at[inside]),
                    _relative(np.array(curve["low"])[inside], low[inside]),
                    0.0 if curve["median"] is None and np.isinf(median) else abs(curve["median"] / median - 1),
                ],
            )
        expected = multivariate_logrank_test(pooled[duration], pooled[by], pooled[event])
        columns = content["table_one"]["columns"]
        t = stats.ttest_ind(*(rows["age"] for _, rows in pooled.groupby(by)), equal_var=False)
        chi2 = stats.chi2_contingency(pd.crosstab(pooled[by], pooled[event]), correction=False)
        tests = [
            abs(told["log_rank"]["chi2"] / expected.test_statistic - 1),
            abs(columns["age"]["test"]["statistic"] / t.statistic - 1),
            abs(columns[event]["test"]["statistic"] / chi2.statistic - 1),
        ]
        if any(group["hidden"] for group in columns[event]["groups"].values()):
            tests[-1] = np.nan  # a site withholds a count of a few, and is not in the test
        print(f"{name:8}{by:8}" + "".join(f"{value:11.1e}" for value in [*differences, *tests]))


def _watched(frame: pd.DataFrame, seed: int, scale: float) -> pd.DataFrame:
    """Return a table whose rows are watched from a drawn time on, some of them cut in two."""
    generator = np.random.default_rng(seed)
    frame = frame.assign(who=np.arange(len(frame)), start=np.round(generator.uniform(0, scale, len(frame)), 3))
    frame = frame[frame["start"] < frame["stop"]].reset_index(drop=True)
    middle = np.round((frame["start"] + frame["stop"]) / 2, 3)
    cut_rows = (generator.random(len(frame)) < 0.4) & (middle > frame["start"]) & (middle < frame["stop"])
    first = frame[cut_rows].assign(stop=middle[cut_rows], died=0)
    frame.loc[cut_rows, "start"] = middle[cut_rows]
    # A column that changes while the patient is watched.
    changed = pd.concat([first.assign(later=0.0), frame.assign(later=cut_rows.astype(float))])
    return changed.sort_values(["who", "start"]).reset_index(drop=True)


def entries(names: Sequence[str] = ("rossi", "lung", "gbsg2")) -> None:
    """Compare Cox models and curves of rows that are watched from a time on, and curves of competing causes."""
    import warnings

    from lifelines import AalenJohansenFitter, CoxTimeVaryingFitter, KaplanMeierFitter

    heads = ("Cox estimate", "error", "late KM", "incidence", "interval", "ranks p")
    print(f"\n{'late entry and competing causes':34}" + "".join(f"{head:>14}" for head in heads))
    for name in names:
        frames, duration, event, by = survival(name)
        pooled = pd.concat(frames.values(), ignore_index=True).rename(columns={duration: "stop", event: "died"})
        watched = _watched(pooled, 17, float(pooled["stop"].median()) / 4)
        columns = [column for column in watched if column not in ("who", "start", "stop", "died")]
        sites = {f"site{number}": watched[watched["who"] % 3 == number] for number in range(3)}
        target = {"duration": "stop", "event": "died", "entry": "start"}
        data = {"target": target, "features": columns, "group": "who", "missing": "error"}
        table = v6.run({"data": data, "problem": "survival", "model": {"kind": "cox"}}, sites).coefficients
        expected = CoxTimeVaryingFitter().fit(
            watched, id_col="who", start_col="start", stop_col="stop", event_col="died",
            fit_options={"precision": 1e-12},
        )  # fmt: skip
        differences = [
            _relative(table["estimate"], expected.params_),
            _relative(table["standard_error"], expected.standard_errors_),
        ]
        # Events of the older half of the patients stand for a competing cause; ties are taken out for lifelines.
        generator = np.random.default_rng(1)
        jittered = watched.assign(stop=watched["stop"] + generator.uniform(0, 1e-3, len(watched)))
        jittered = jittered.drop_duplicates("who", keep="last")
        older = jittered["age"] > jittered["age"].median()
        jittered["cause"] = jittered["died"] + (older & (jittered["died"] == 1))
        # Of Rossi's events three sites would have too few of each cause in a group to tell when they were.
        count = 2 if name == "rossi" else 3
        sites = {f"site{number}": jittered[jittered["who"] % count == number] for number in range(count)}
        target = {"duration": "stop", "event": "cause", "entry": "start", "competing": "== 2"}
        content = v6.describe(
            {"data": {"target": target, "positive": "== 1"}, "problem": "survival"}, sites, by=by
        ).content
        away, missing = np.zeros(3), []
        for group, rows in jittered.groupby(jittered[by].astype(str)):
            curve = content["curves"]["groups"].get(group)
            if curve is None or curve["rows"] != len(rows):
                missing.append(group)  # a site withholds a group with few events of a cause
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                km = KaplanMeierFitter().fit(rows["stop"], rows["cause"] == 1, entry=rows["start"])
                fitted = AalenJohansenFitter().fit(
                    rows["stop"], rows["cause"], event_of_interest=1, entry=rows["start"]
                )
            at = km.survival_function_.iloc[:, 0].loc[curve["time"]].to_numpy()
            known = curve["incidence"]["1"]
            theirs = fitted.cumulative_density_.iloc[:, 0].loc[curve["time"]].to_numpy()
            low = np.sort(fitted.confidence_interval_.loc[curve["time"]].to_numpy(), axis=1)[:, 0]
            inside = np.isfinite(low)
            away = np.maximum(
                away,
                [
                    np.abs(np.array(curve["survival"]) - at).max(),
                    np.abs(np.array(known["incidence"]) - theirs).max(),
                    np.abs(np.array(known["low"]) - low)[inside].max(),
                ],
            )
        from scipy import stats

        pairs = [rows["age"] for _, rows in jittered.groupby(by)]
        p = stats.mannwhitneyu(*pairs, use_continuity=False, method="asymptotic").pvalue
        test = content["table_one"]["columns"]["age"]["rank_test"]
        cells = [*differences, *(away if len(missing) < 2 else [np.nan] * 3)]
        print(
            f"{name + (' without ' + ', '.join(missing) if missing else ''):34}"
            + "".join(f"{value:14.1e}" for value in cells)
            + f"  {test['p']:.3f} ({p:.3f})"
        )


def glms() -> None:
    """Fit each case both ways and print a line."""
    print(f"{'data':10}{'family':10}{'rows':>6}{'rounds':>8}{'estimate':>11}{'error':>11}{'deviance':>11}")
    for name, load, target, problem, family, reference in CASES:
        frames = load()
        if not frames:
            print(f"{name:10}{family:10}  left out: the data are not here")
            continue
        columns = [column for column in next(iter(frames.values())).columns if column != target]
        data: dict[str, Any] = {"target": target, "features": columns, "missing": "error"}
        pooled = pd.concat(frames.values())
        y = pooled[target].astype(float)
        if problem == "classification" and y.nunique() > 2:
            data["positive"], y = "> 0", (y > 0).astype(float)
        result = v6.run({"data": data, "problem": problem, "model": {"kind": "glm", "family": family}}, frames)
        expected = sm.GLM(y, sm.add_constant(pooled[columns]), family=reference).fit(tol=1e-14, maxiter=200)
        table, fit = result.coefficients, result.content["fit"]
        differences = [
            float(np.abs(table["estimate"].to_numpy() / expected.params.to_numpy() - 1).max()),
            float(np.abs(table["standard_error"].to_numpy() / expected.bse.to_numpy() - 1).max()),
            abs(fit["deviance"] / expected.deviance - 1),
        ]
        print(
            f"{name:10}{family:10}{fit['rows']:6}{fit['rounds']:8}" + "".join(f"{value:11.1e}" for value in differences)
        )


def main(wanted: list[str]) -> None:
    """Do all of it, or the parts that are named."""
    for part in (glms, cox, curves, entries):
        if not wanted or part.__name__ in wanted:
            part()


if __name__ == "__main__":
    main(sys.argv[1:])
