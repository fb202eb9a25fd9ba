"""Third sample: types of databases and dataframes, numbers far from 0 (A9, A10)."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, refused, right, told, told_or_refused
from tools.examine.patients import (
    COLUMNS,
    each,
    features_are,
    glm,
    linear,
    logit_is,
    pooled,
    three,
    with_survival,
)  # fmt: skip
from tools.examine.third import third

BASE = three(34)
ROWS = pooled(BASE)
FITS = right(logit_is(ROWS))
TIMES = with_survival(BASE)


def frames(
    kind: str, name: str, change: Any, expected: Expected, only: str = "", experiment: Any = None, base: Any = BASE
) -> None:
    """Register an input of dataframes."""
    third(kind, name)(
        lambda folder: Input(each(base, change, only), glm() if experiment is None else experiment, expected)
    )


def column(kind: str, name: str, title: str, values: Any, expected: Expected, **data: Any) -> None:
    """Register an input of dataframes with one column more."""
    frames(kind, name, lambda f: f.assign(**{title: values(f)}), expected, experiment=glm(**data))


def parquet(kind: str, name: str, change: Any, expected: Expected, experiment: Any = None, only: str = "") -> None:
    """Register an input of parquet files."""

    def make(folder: Path) -> Input:
        paths = {}
        for site, frame in each(BASE, change, only).items():
            frame.to_parquet(folder / f"{site}.parquet")
            paths[site] = str(folder / f"{site}.parquet")
        return Input(paths, glm() if experiment is None else experiment, expected)

    third(kind, name)(make)


def shifted(by: float) -> Expected:
    """Expect the fit of a column with an offset."""
    return right(lambda r: abs(next(c["estimate"] for c in r["coefficients"] if c["term"] == "chol") - _slope()) < 1e-3)


def _slope() -> float:
    import statsmodels.api as sm

    x = sm.add_constant(ROWS[COLUMNS].astype(float))
    return float(sm.Logit(ROWS.died, x).fit(disp=0).params["chol"])


for _by in (1e6, 1e8, 1e10):
    frames("A9", f"chol counted from {_by:.0e}", lambda f, by=_by: f.assign(chol=f.chol + by), shifted(_by))
frames(
    "A9",
    "microseconds: chol in 1e-12 units",
    lambda f: f.assign(chol=f.chol * 1e12),
    right(lambda r: len(r["coefficients"]) == 5),
)
frames(
    "A9",
    "tiny: chol in units of 1e12",
    lambda f: f.assign(chol=f.chol * 1e-12),
    right(lambda r: len(r["coefficients"]) == 5),
)
column(
    "A9",
    "a genomic position that repeats",
    "pos",
    lambda f: 43_044_295 + np.arange(len(f)) % 9 * 1000,
    right(lambda r: "pos" in r["preparation"]["features"]),
)
frames(
    "A9",
    "a regression whose target lies at 1e9",
    lambda f: f.drop(columns="died").assign(bmi=f.bmi + 1e9),
    right(lambda r: True),
    experiment=linear("bmi"),
)

# Types of dataframes
frames("A10", "Int64 and Float64 with pd.NA", lambda f: f.convert_dtypes(), FITS)
frames("A10", "pyarrow dtypes", lambda f: f.convert_dtypes(dtype_backend="pyarrow"), FITS)
frames(
    "A10",
    "a nullable column with pd.NA in some rows",
    lambda f: f.assign(chol=f.chol.astype("Float64").where(np.arange(len(f)) % 6 > 0)),
    right(features_are(*COLUMNS)),
)
frames("A10", "the target boolean", lambda f: f.assign(died=f.died.astype(bool)), FITS)
frames(
    "A10",
    "the target nullable boolean with NA",
    lambda f: f.assign(died=f.died.astype("boolean").where(np.arange(len(f)) % 20 > 0)),
    told("no target"),
)
frames(
    "A10",
    "the target an ordered categorical",
    lambda f: f.assign(died=pd.Categorical(np.where(f.died == 1, "yes", "no"), ["yes", "no"], ordered=True)),
    told("yes"),
)
frames("A10", "the target a categorical of numbers", lambda f: f.assign(died=f.died.astype("category")), FITS)
frames(
    "A10",
    "a number as a categorical",
    lambda f: f.assign(sbp=f.sbp.astype("category")),
    FITS,
)
frames("A10", "float16", lambda f: f.assign(chol=f.chol.astype("float16")), right(features_are(*COLUMNS)))
frames(
    "A10",
    "int8 and uint8",
    lambda f: f.assign(sbp=f.sbp.clip(0, 255).astype("uint8"), died=f.died.astype("int8")),
    FITS,
)
frames("A10", "object column of Decimal", lambda f: f.assign(chol=[Decimal(str(v)) for v in f.chol]), FITS)
frames(
    "A10",
    "object column of numbers and None",
    lambda f: f.assign(chol=[None if i % 6 == 0 else v for i, v in enumerate(f.chol)]).astype({"chol": object}),
    right(features_are(*COLUMNS)),
)
frames("A10", "sparse columns", lambda f: f.assign(chol=pd.arrays.SparseArray(f.chol)), FITS)
frames(
    "A10",
    "a MultiIndex of columns",
    lambda f: f.set_axis(pd.MultiIndex.from_tuples([("vitals", c) for c in f.columns]), axis=1),
    told_or_refused("column|header|level|died"),
)
frames(
    "A10", "two columns of the same name", lambda f: pd.concat([f, f[["chol"]] + 0.1], axis=1), told_or_refused("chol")
)
frames(
    "A10",
    "the patient as the frame's index",
    lambda f: f.set_index(pd.Index(range(900, 900 + len(f)), name="patient")),
    FITS,
)
frames(
    "A10",
    "numbers as names of columns",
    lambda f: f.rename(columns={"age": 0, "sbp": 1, "chol": 2, "bmi": 3}),
    Expected(refused=("column|name",), right=lambda r: len(r["preparation"]["features"]) == 4),
)
column("A10", "a duration", "los", lambda f: pd.to_timedelta(np.arange(len(f)) % 9, unit="D"), told("los"))
column(
    "A10",
    "a timestamp with a zone",
    "seen",
    lambda f: pd.date_range("2020-01-01", periods=len(f), freq="D", tz="Europe/Brussels"),
    told("seen"),
)
column("A10", "a period", "month", lambda f: pd.period_range("2020-01", periods=len(f), freq="M"), told("month"))
column("A10", "intervals of pd.cut", "agegroup", lambda f: pd.cut(f.age, [0, 50, 65, 120]), told("agegroup"))
column(
    "A10",
    "intervals of pd.cut as categories",
    "agegroup",
    lambda f: pd.cut(f.age, [0, 50, 65, 120]),
    Expected(refused=("agegroup",), right=lambda r: len(r["preparation"]["categories"]["agegroup"]) == 3),
    categorical=["agegroup"],
)
column("A10", "complex numbers", "z", lambda f: f.age + 1j, Expected(refused=(r"\bz\b",), told=(r"\bz\b",)))
column("A10", "bytes", "blob", lambda f: [b"\x00\x01"] * len(f), told("blob"))
column("A10", "lists in cells", "series", lambda f: [[1, 2, 3]] * len(f), told("series"))
column(
    "A10",
    "a boolean column",
    "smoker",
    lambda f: np.arange(len(f)) % 3 == 0,
    right(lambda r: "smoker" in r["preparation"]["features"]),
)
column(
    "A10",
    "a boolean column as objects with None",
    "smoker",
    lambda f: [None if i % 7 == 0 else i % 3 == 0 for i in range(len(f))],
    right(features_are(*COLUMNS, "smoker")),
)
column(
    "A10", "dates of Python in a column", "d", lambda f: [pd.Timestamp("2020-01-01").date()] * len(f), told(r"\bd\b")
)
parquet(
    "A10",
    "parquet from a frame with an index named patient_id",
    lambda f: f.set_index(pd.Index(range(len(f)), name="patient_id")),
    right(features_are(*COLUMNS)),
)
parquet(
    "A10",
    "parquet after a filter, with the old row numbers",
    lambda f: f[f.age > 55],
    right(logit_is(ROWS[ROWS.age > 55])),
)
parquet(
    "A10", "parquet with strings of numbers at one site", lambda f: f.assign(chol=f.chol.astype(str)), FITS, only="b"
)
parquet(
    "A10",
    "parquet with a dictionary column as the target",
    lambda f: f.assign(died=np.where(f.died == 1, "dead", "alive")).astype({"died": "category"}),
    told("dead"),
)
parquet("A10", "parquet with decimals", lambda f: f.assign(chol=[Decimal(str(v)) for v in f.chol]), FITS)
parquet(
    "A10",
    "parquet: target bool at a, 0/1 at b and c",
    lambda f: f.assign(died=f.died.astype(bool)),
    Expected(refused=("died",), right=logit_is(ROWS)),
    only="a",
)


@third("A10", "SQL with booleans as t and f")
def _(folder: Path) -> Input:
    sites = {}
    for name, frame in BASE.items():
        connection = sqlite3.connect(folder / f"{name}.sqlite")
        frame.assign(died=np.where(frame.died == 1, "t", "f"), smoker=["t", "f"] * (len(frame) // 2)).to_sql(
            "pat", connection, index=False
        )
        connection.close()
        sites[name] = {"uri": str(folder / f"{name}.sqlite"), "query": "select * from pat"}
    return Input(sites, glm(), told("smoker"))


@third("A10", "SQL with numbers stored as text, decimal comma")
def _(folder: Path) -> Input:
    sites = {}
    for name, frame in BASE.items():
        connection = sqlite3.connect(folder / f"{name}.sqlite")
        frame.assign(chol=frame.chol.astype(str).str.replace(".", ",")).to_sql("pat", connection, index=False)
        connection.close()
        sites[name] = {"uri": str(folder / f"{name}.sqlite"), "query": "select * from pat"}
    return Input(sites, glm(), told("chol", "decimal"))


@third("A10", "SQL with a table that is not there")
def _(folder: Path) -> Input:
    sites = {}
    for name, frame in BASE.items():
        connection = sqlite3.connect(folder / f"{name}.sqlite")
        frame.to_sql("patients", connection, index=False)
        connection.close()
        sites[name] = {"uri": str(folder / f"{name}.sqlite"), "query": "select * from patient"}
    return Input(sites, glm(), refused("patients"))
