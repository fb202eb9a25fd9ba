"""Made-up patients of three hospitals, experiments over them, and what statsmodels and lifelines make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ["age", "sbp", "chol", "bmi"]
ALL = {"kind": "ratio", "train": 1.0, "validation": 0.0, "test": 0.0}


def hospital(seed: int, rows: int) -> pd.DataFrame:
    """Return patients whose death depends on age, blood pressure and cholesterol."""
    rng = np.random.default_rng(seed)
    age = np.round(rng.normal(62, 10, rows), 1)
    sbp = rng.normal(136, 17, rows).round()
    chol = np.round(rng.normal(5.3, 1.0, rows), 1)
    bmi = np.round(rng.normal(27, 4, rows), 1)
    risk = 0.05 * (age - 62) + 0.02 * (sbp - 136) + 0.4 * (chol - 5.3) - 0.3
    died = (rng.random(rows) < 1 / (1 + np.exp(-risk))).astype(int)
    return pd.DataFrame({"age": age, "sbp": sbp.astype(int), "chol": chol, "bmi": bmi, "died": died})


def three(seed: int = 1) -> dict[str, pd.DataFrame]:
    """Return three hospitals of 160, 130 and 150 patients."""
    return {
        name: hospital(10 * seed + number, rows)
        for number, (name, rows) in enumerate(zip("abc", (160, 130, 150), strict=True))
    }


def with_survival(frames: Mapping[str, pd.DataFrame], seed: int = 5) -> dict[str, pd.DataFrame]:
    """Return the same patients with `days` (whole, from 1) and `event` in place of `died`."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, frame in frames.items():
        rate = np.exp(0.04 * (frame["age"] - 62) + 0.3 * (frame["chol"] - 5.3)) / 900
        time, end = rng.exponential(1 / rate), rng.uniform(200, 1500, len(frame))
        days = np.minimum(time, end).round().clip(1).astype(int)
        made[name] = frame.drop(columns="died").assign(days=days, event=(time <= end).astype(int))
    return made


def written(folder: Path, texts: Mapping[str, str | bytes], ending: str = "csv") -> dict[str, str]:
    """Write a file for each site; return their paths."""
    paths = {}
    for name, text in texts.items():
        path = folder / f"{name}.{ending}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        paths[name] = str(path)
    return paths


def csv(frames: Mapping[str, pd.DataFrame], **how: Any) -> dict[str, str]:
    """Return each table as text."""
    return {name: frame.to_csv(index=False, **how) for name, frame in frames.items()}


def glm(target: str = "died", **data: Any) -> dict[str, Any]:
    """Return an experiment that fits a logistic regression to all rows."""
    return {"data": {"target": target} | data, "model": {"kind": "glm"}, "split": ALL}


def linear(target: str, **data: Any) -> dict[str, Any]:
    """Return an experiment that fits a linear regression to all rows."""
    return glm(target, **data) | {"problem": "regression"}


def net(target: Any = "died", rounds: int = 2, **data: Any) -> dict[str, Any]:
    """Return an experiment that trains a small network."""
    return {"data": {"target": target} | data, "model": {"kind": "mlp", "hidden": [8]}, "rounds": rounds}


def cox(**data: Any) -> dict[str, Any]:
    """Return an experiment that fits Cox's model to all rows."""
    target = {"duration": "days", "event": "event"}
    return {"data": {"target": target} | data, "problem": "survival", "model": {"kind": "cox"}, "split": ALL}


def logit_is(rows: pd.DataFrame, columns: Sequence[str] = COLUMNS, target: str = "died") -> Callable[[Any], bool]:
    """Say whether coefficients are those of statsmodels' logistic regression on these rows."""

    def check(result: dict[str, Any]) -> bool:
        import statsmodels.api as sm

        x = sm.add_constant(rows[list(columns)].astype(float))
        fit = sm.Logit(rows[target].astype(float).to_numpy(), x.to_numpy()).fit(disp=0)
        return same(result, dict(zip(["(intercept)", *columns], fit.params, strict=True)))

    return check


def ols_is(rows: pd.DataFrame, columns: Sequence[str], target: str) -> Callable[[Any], bool]:
    """Say whether coefficients are those of least squares on these rows."""

    def check(result: dict[str, Any]) -> bool:
        import statsmodels.api as sm

        fit = sm.OLS(rows[target].to_numpy(float), sm.add_constant(rows[list(columns)].astype(float)).to_numpy()).fit()
        return same(result, dict(zip(["(intercept)", *columns], fit.params, strict=True)))

    return check


def cox_is(rows: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> Callable[[Any], bool]:
    """Say whether coefficients are those of lifelines' Cox model, ties after Efron, on these rows."""

    def check(result: dict[str, Any]) -> bool:
        from lifelines import CoxPHFitter

        fit = CoxPHFitter().fit(rows[[*columns, "days", "event"]], "days", "event")
        return same(result, dict(fit.params_))

    return check


def same(result: dict[str, Any], terms: Mapping[str, float], within: float = 1e-4) -> bool:
    """Say whether a result has just these terms, with these estimates."""
    found = {line["term"]: line["estimate"] for line in result["coefficients"]}
    return found.keys() == terms.keys() and all(
        found[name] is not None and abs(found[name] - value) <= within * max(1e-3, abs(value))
        for name, value in terms.items()
    )


def features_are(*names: str) -> Callable[[Any], bool]:
    """Say whether just these columns were learned from."""
    return lambda result: sorted(result["preparation"]["features"]) == sorted(names)


def sites_are(*names: str) -> Callable[[Any], bool]:
    """Say whether just these sites are in the result."""
    return lambda result: sorted(result["sites"]) == sorted(names)


def pooled(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return all rows."""
    return pd.concat(frames.values(), ignore_index=True)


def each(
    frames: Mapping[str, pd.DataFrame], change: Callable[[pd.DataFrame], pd.DataFrame], only: str = ""
) -> dict[str, pd.DataFrame]:
    """Return the tables, changed at every site, or at those whose letters `only` names."""
    return {name: change(frame.copy()) if not only or name in only else frame for name, frame in frames.items()}


def files(
    folder: Path, frames: Mapping[str, pd.DataFrame], experiment: Any, expected: Any, ending: str = "csv", **how: Any
) -> Any:
    """Return an input of which each site is a text file, written as pandas writes it with `how`."""
    from tools.examine.case import Input

    return Input(written(folder, csv(frames, **how), ending), experiment, expected)


def texts(folder: Path, frames: Mapping[str, pd.DataFrame], change: Any, experiment: Any, expected: Any) -> Any:
    """Return an input whose files are what `change` makes of each table's text."""
    from tools.examine.case import Input

    return Input(written(folder, {n: change(t) for n, t in csv(frames).items()}), experiment, expected)


def number(f: pd.DataFrame) -> np.ndarray:
    """Return the rows' numbers."""
    return np.arange(len(f))
