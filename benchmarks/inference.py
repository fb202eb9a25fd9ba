"""GLMs of a federation beside statsmodels on the pooled rows: the largest relative difference of each.

    python benchmarks/inference.py

Real tables: the four hospitals' heart disease rows (of `V6_ALGORITHM_DATA`, where they are there), scikit-learn's
diabetes (three sites) and lifelines' Rossi (arrests; two sites). Rows with an empty cell are left out on both sides.
"""

from __future__ import annotations

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


def main() -> None:
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


if __name__ == "__main__":
    main()
