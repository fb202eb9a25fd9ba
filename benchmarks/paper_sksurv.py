"""Fresh inputs of C3 by another library: scikit-survival's own sets, dealt to hospitals, against its pooled values.

`paper_numbers.py` has it as a kind where scikit-survival is installed beside this package (it is no dependency).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from paper_outcomes import Kind, Outcome, apart, hospitals

import v6_algorithm.api as v6

SETS = ("whas500", "gbsg2", "veterans_lung_cancer", "aids", "flchain")
CONTENT: dict[str, Any] = {
    "data": {"target": {"duration": "time", "event": "event"}, "missing": "error", "split_column": "part"},
    "problem": "survival",
    "split": "given",
}
# Bins of time and of risk stand for single rows: measured, see docs/benchmarks.md.
BINNED = 0.01


def published() -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the sets as numbers, `time`, `event` and `part`; of a category each value but the first is a column."""
    from sksurv import datasets

    for name in SETS:
        columns, outcome = getattr(datasets, f"load_{name}")()
        event, time = outcome.dtype.names
        frame = pd.get_dummies(columns, drop_first=True, dtype=float).dropna(axis=1).astype(float)
        frame = frame.loc[:, frame.nunique() > 1].rename(columns=lambda column: "".join(filter(str.isalnum, column)))
        frame = frame.loc[:, [column for column in frame if (frame[column] != frame[column].mode()[0]).mean() > 0.1]]
        frame = frame[independent(frame)]
        frame["time"], frame["event"] = outcome[time], outcome[event].astype(int)
        frame = frame.sample(frac=1, random_state=1).reset_index(drop=True)
        yield name, frame.assign(part=np.resize(["train", "train", "test"], len(frame)))


def independent(frame: pd.DataFrame) -> list[str]:
    """Return the columns that those before do not tell, but for a few rows: such coefficients grow without end."""
    kept: list[str] = []
    for column in frame:
        design = np.column_stack([np.ones(len(frame)), *(frame[name] for name in kept)])
        rest = frame[column] - design @ np.linalg.lstsq(design, frame[column], rcond=None)[0]
        if rest.var() > 0.01 * frame[column].var():
            kept.append(str(column))
    return kept


def structured(frame: pd.DataFrame) -> np.ndarray:
    """Return the outcome as scikit-survival takes it."""
    from sksurv.util import Surv

    return np.asarray(Surv.from_arrays(frame["event"] == 1, frame["time"]))


def scikit_survival(generator: np.random.Generator) -> Iterator[Outcome]:
    """Coefficients, hazards, ranking, Brier and AUROC over time, and Kaplan-Meier of the sets, each pooled."""
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    for name, frame in published():
        sites = hospitals(frame, generator)
        pooled = pd.concat(sites.values(), ignore_index=True)
        train, test = (pooled[pooled["part"] == part] for part in ("train", "test"))
        columns = [column for column in frame if column not in ("time", "event", "part")]
        for ties in ("efron", "breslow"):
            fit = CoxPHSurvivalAnalysis(ties=ties, tol=1e-12, n_iter=200).fit(train[columns], structured(train))
            result = ran(sites, {"kind": "cox", "strata": "none", "ties": ties})
            found = result.coefficients.loc[columns]
            off = (found["estimate"] - fit.coef_) / found["standard_error"]
            yield f"{name}, {ties}, coefficients by their errors", apart(off, 0, 1e-5)
            if ties == "breslow":
                # scikit-survival's baseline is Breslow's for either.
                yield f"{name}, survival of new rows", survival(result, fit, test, columns)
        yield from ranked(name, result, train, test)
        yield from curves(name, sites, pooled)


def ran(sites: dict[str, pd.DataFrame], model: dict[str, Any]) -> Any:
    """Train on files of the sites."""
    with tempfile.TemporaryDirectory() as folder:
        files = {site: str(Path(folder, f"{site}.csv")) for site in sites}
        for site, rows in sites.items():
            rows.to_csv(files[site], index=False)
        return v6.run(CONTENT | {"model": model}, files)


def survival(result: Any, fit: Any, test: pd.DataFrame, columns: list[str]) -> str:
    """Compare the survival of test rows at the model's horizons."""
    found = result.predict(test[columns])
    curves = [column for column in found if column.startswith("survival(")]
    times = np.array([float(column[9:-1]) for column in curves])
    functions = fit.predict_survival_function(test[columns])
    first, last = functions[0].domain
    inside = (times >= first) & (times <= last)
    wanted = np.array([function(times[inside]) for function in functions])
    return apart(found[curves].to_numpy()[:, inside], wanted, 1e-4)


def ranked(name: str, result: Any, train: pd.DataFrame, test: pd.DataFrame) -> Iterator[Outcome]:
    """Compare C-index, Brier score and AUROC over time of the test rows, censoring weighted by the test rows."""
    from sksurv.metrics import brier_score, concordance_index_censored, cumulative_dynamic_auc

    predicted = result.predict(test.drop(columns=["time", "event", "part"]))
    risk, outcome = predicted["log_risk"].to_numpy(), structured(test)
    metrics = result.content["metrics"]["test"]["pooled"]
    exact = concordance_index_censored(outcome["event"], outcome["time"], risk)[0]
    yield f"{name}, C-index", apart(metrics["c_index"], exact, metrics["c_index_resolution"] + 1e-9)
    curves = [column for column in predicted if column.startswith("survival(")]
    times = np.array([float(column[9:-1]) for column in curves])
    inside = (times > test["time"].min()) & (times < test["time"].max())
    scores = brier_score(outcome, outcome, predicted[curves].to_numpy()[:, inside], times[inside])[1]
    span = np.ptp(times[inside])
    if inside.all():
        yield f"{name}, integrated Brier", apart(metrics["brier"], np.trapezoid(scores, times) / span, BINNED)
    curve = result.content["auroc_over_time"]["test"]["time"]["pooled"]
    at = np.array([point["time"] for point in curve])
    inside = (at > test["time"].min()) & (at < test["time"].max())
    wanted = cumulative_dynamic_auc(outcome, outcome, risk, at[inside])[0]
    found = np.array([point["auroc"] for point in curve])[inside]
    yield f"{name}, AUROC at {inside.sum()} times", apart(found, wanted, BINNED)


def curves(name: str, sites: dict[str, pd.DataFrame], pooled: pd.DataFrame) -> Iterator[Outcome]:
    """Compare the curves of `describe` by hospital, and the hazard that imputation takes for an outcome."""
    from sksurv.nonparametric import kaplan_meier_estimator, nelson_aalen_estimator

    from v6_algorithm.data.preparation.imputation import outcome_of

    told = v6.describe({"data": CONTENT["data"] | {"split_column": None}, "problem": "survival"}, sites, by="site")
    for site, rows in sites.items():
        found = told.curves[told.curves["group"] == site]
        at, wanted = kaplan_meier_estimator(rows["event"] == 1, rows["time"])
        place = np.searchsorted(at, found["time"], side="right")
        yield f"{name}, Kaplan-Meier at {site}", apart(found["survival"], np.append(1.0, wanted)[place], 1e-9)
    target = pooled[["time", "event"]].to_numpy(float)
    every = np.arange(len(target))
    at, hazard = nelson_aalen_estimator(target[:, 1] == 1, target[:, 0])
    yield (
        f"{name}, Nelson-Aalen",
        apart(outcome_of(target, every, np.zeros(len(target)))[:, 1], hazard[np.searchsorted(at, target[:, 0])], 1e-9),
    )


KINDS: dict[str, Kind] = {}
if find_spec("sksurv") is not None:
    about = "scikit-survival: Cox, C-index, Brier, AUROC over time, Kaplan-Meier, Nelson-Aalen of its sets"
    KINDS["sksurv"] = ("C3", about, scikit_survival)
