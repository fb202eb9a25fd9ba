"""Third sample: types of databases and dataframes, large numbers, filters, times, YAML (A9, A10, A11)."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, case, refused, right, told, told_or_refused
from tools.examine.patients import (
    COLUMNS, cox, cox_is, csv, each, features_are, files, glm, linear, logit_is, ols_is, pooled, three, with_survival,
    written,
)  # fmt: skip

BASE = three(34)
ROWS = pooled(BASE)
FITS = right(logit_is(ROWS))
TIMES = with_survival(BASE)


def third(kind: str, name: str):
    """Register an input of this sample."""
    return case("third", kind, name)


def frames(kind: str, name: str, change: Any, expected: Expected, only: str = "", experiment: Any = None, base: Any = BASE) -> None:
    """Register an input of dataframes."""
    third(kind, name)(lambda folder: Input(each(base, change, only), glm() if experiment is None else experiment, expected))


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
frames("A9", "microseconds: chol in 1e-12 units", lambda f: f.assign(chol=f.chol * 1e12), right(lambda r: len(r["coefficients"]) == 5))
frames("A9", "tiny: chol in units of 1e12", lambda f: f.assign(chol=f.chol * 1e-12), right(lambda r: len(r["coefficients"]) == 5))
column("A9", "a genomic position that repeats", "pos", lambda f: 43_044_295 + np.arange(len(f)) % 9 * 1000, right(lambda r: "pos" in r["preparation"]["features"]))
frames("A9", "a regression whose target lies at 1e9", lambda f: f.drop(columns="died").assign(bmi=f.bmi + 1e9), right(lambda r: True), experiment=linear("bmi"))

# Types of dataframes
frames("A10", "Int64 and Float64 with pd.NA", lambda f: f.convert_dtypes(), FITS)
frames("A10", "pyarrow dtypes", lambda f: f.convert_dtypes(dtype_backend="pyarrow"), FITS)
frames("A10", "a nullable column with pd.NA in some rows", lambda f: f.assign(chol=f.chol.astype("Float64").where(np.arange(len(f)) % 6 > 0)), right(features_are(*COLUMNS)))
frames("A10", "the target boolean", lambda f: f.assign(died=f.died.astype(bool)), FITS)
frames("A10", "the target nullable boolean with NA", lambda f: f.assign(died=f.died.astype("boolean").where(np.arange(len(f)) % 20 > 0)), Expected(told=("died",), right=lambda r: True))
frames("A10", "the target an ordered categorical", lambda f: f.assign(died=pd.Categorical(np.where(f.died == 1, "yes", "no"), ["yes", "no"], ordered=True)), told("yes"))
frames("A10", "the target a categorical of numbers", lambda f: f.assign(died=f.died.astype("category")), FITS)
frames("A10", "a number as a categorical", lambda f: f.assign(sbp=f.sbp.astype("category")), Expected(told=("sbp",), right=logit_is(ROWS)) if False else Expected(told=("sbp",)))
frames("A10", "float16", lambda f: f.assign(chol=f.chol.astype("float16")), right(features_are(*COLUMNS)))
frames("A10", "int8 and uint8", lambda f: f.assign(sbp=f.sbp.clip(0, 255).astype("uint8"), died=f.died.astype("int8")), FITS)
frames("A10", "object column of Decimal", lambda f: f.assign(chol=[Decimal(str(v)) for v in f.chol]), FITS)
frames("A10", "object column of numbers and None", lambda f: f.assign(chol=[None if i % 6 == 0 else v for i, v in enumerate(f.chol)]).astype({"chol": object}), right(features_are(*COLUMNS)))
frames("A10", "sparse columns", lambda f: f.assign(chol=pd.arrays.SparseArray(f.chol)), FITS)
frames("A10", "a MultiIndex of columns", lambda f: f.set_axis(pd.MultiIndex.from_tuples([("vitals", c) for c in f.columns]), axis=1), told_or_refused("column|header|level|died"))
frames("A10", "two columns of the same name", lambda f: pd.concat([f, f[["chol"]] + 0.1], axis=1), told_or_refused("chol"))
frames("A10", "the patient as the frame's index", lambda f: f.set_index(pd.Index(range(900, 900 + len(f)), name="patient")), FITS)
frames("A10", "numbers as names of columns", lambda f: f.rename(columns={"age": 0, "sbp": 1, "chol": 2, "bmi": 3}), Expected(refused=("column|name",), right=lambda r: len(r["preparation"]["features"]) == 4))
column("A10", "a duration", "los", lambda f: pd.to_timedelta(np.arange(len(f)) % 9, unit="D"), told("los"))
column("A10", "a timestamp with a zone", "seen", lambda f: pd.date_range("2020-01-01", periods=len(f), freq="D", tz="Europe/Brussels"), told("seen"))
column("A10", "a period", "month", lambda f: pd.period_range("2020-01", periods=len(f), freq="M"), told("month"))
column("A10", "intervals of pd.cut", "agegroup", lambda f: pd.cut(f.age, [0, 50, 65, 120]), told("agegroup"))
column("A10", "intervals of pd.cut as categories", "agegroup", lambda f: pd.cut(f.age, [0, 50, 65, 120]), Expected(refused=("agegroup",), right=lambda r: len(r["preparation"]["categories"]["agegroup"]) == 3), categorical=["agegroup"])
column("A10", "complex numbers", "z", lambda f: f.age + 1j, Expected(refused=(r"\bz\b",), told=(r"\bz\b",)))
column("A10", "bytes", "blob", lambda f: [b"\x00\x01"] * len(f), told("blob"))
column("A10", "lists in cells", "series", lambda f: [[1, 2, 3]] * len(f), told("series"))
column("A10", "a boolean column", "smoker", lambda f: np.arange(len(f)) % 3 == 0, right(lambda r: "smoker" in r["preparation"]["features"]))
column("A10", "a boolean column as objects with None", "smoker", lambda f: [None if i % 7 == 0 else i % 3 == 0 for i in range(len(f))], Expected(told=("smoker",), right=None))
column("A10", "dates of Python in a column", "d", lambda f: [pd.Timestamp("2020-01-01").date()] * len(f), told(r"\bd\b"))
parquet("A10", "parquet from a frame with an index named patient_id", lambda f: f.set_index(pd.Index(range(len(f)), name="patient_id")), right(features_are(*COLUMNS)))
parquet("A10", "parquet after a filter, with the old row numbers", lambda f: f[f.age > 55], right(logit_is(ROWS[ROWS.age > 55])))
parquet("A10", "parquet with strings of numbers at one site", lambda f: f.assign(chol=f.chol.astype(str)), FITS, only="b")
parquet("A10", "parquet with a dictionary column as the target", lambda f: f.assign(died=np.where(f.died == 1, "dead", "alive")).astype({"died": "category"}), told("dead"))
parquet("A10", "parquet with decimals", lambda f: f.assign(chol=[Decimal(str(v)) for v in f.chol]), FITS)
parquet("A10", "parquet: target bool at a, 0/1 at b and c", lambda f: f.assign(died=f.died.astype(bool)), Expected(refused=("died",), right=logit_is(ROWS)), only="a")


@third("A10", "SQL with booleans as t and f")
def _(folder: Path) -> Input:
    sites = {}
    for name, frame in BASE.items():
        connection = sqlite3.connect(folder / f"{name}.sqlite")
        frame.assign(died=np.where(frame.died == 1, "t", "f"), smoker=["t", "f"] * (len(frame) // 2)).to_sql("pat", connection, index=False)
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


def yaml(kind: str, name: str, text: str, expected: Expected, base: Any = BASE) -> None:
    """Register an experiment file beside tables a.csv, b.csv, c.csv."""

    def make(folder: Path) -> Input:
        written(folder, csv(base))
        sites = "sites:\n" + "".join(f"  {site}: {site}.csv\n" for site in base)
        return Input(None, sites + text, expected)

    third(kind, name)(make)


SPLIT = "split: {kind: ratio, train: 1.0, validation: 0, test: 0}\nmodel: {kind: glm}\n"
YES = each(BASE, lambda f: f.assign(died=np.where(f.died == 1, "yes", "no"), on=np.arange(len(f)) % 2))
yaml("A10", "YAML: positive: yes", "data: {target: died, positive: yes}\n" + SPLIT, Expected(refused=("positive",), right=logit_is(ROWS)), YES)
yaml("A10", "YAML: positive: '== yes'", "data: {target: died, positive: '== yes'}\n" + SPLIT, Expected(right=lambda r: len(r["coefficients"]) == 6), YES)
yaml("A10", "YAML: a column called on, excluded", "data: {target: died, exclude: [on]}\n" + SPLIT, Expected(refused=("on",), told=None, right=lambda r: "on" not in r["preparation"]["features"]), YES)
yaml("A10", "YAML: positive: 1", "data: {target: died, positive: 1}\n" + SPLIT, Expected(refused=("positive",), right=logit_is(ROWS)))
yaml("A10", "YAML: categorical as one word", "data: {target: died, categorical: sbp}\n" + SPLIT, refused("categorical", "list"))
yaml("A10", "YAML: missing_values: na as one word", "data: {target: died, missing_values: na}\n" + SPLIT, refused("missing_values"))
yaml("A10", "YAML: a tab in place of spaces", "data:\n\ttarget: died\n" + SPLIT, refused("YAML|tab"))
yaml("A10", "YAML: target: Died, the table has died", "data: {target: Died}\n" + SPLIT, refused("Died", "died"))
yaml("A10", "YAML: features with a misspelt column", "data: {target: died, features: [age, cholesterol]}\n" + SPLIT, refused("cholesterol"))
yaml("A10", "YAML: decimal: comma", "data: {target: died, decimal: comma}\n" + SPLIT, refused("decimal"))
yaml("A10", "YAML: separator: tab", "data: {target: died, separator: tab}\n" + SPLIT, refused("separator"))
yaml("A10", "YAML: encoding: windows", "data: {target: died, encoding: windows}\n" + SPLIT, refused("encoding"))


# Filters
FEMALE = each(BASE, lambda f: f.assign(sex=np.where(np.arange(len(f)) % 3 == 0, "M", "F")))
ONLY = {site: frame[np.arange(len(frame)) % 3 != 0] for site, frame in BASE.items()}
frames("A11", "where a text is F", lambda f: f, told(r"where|left out|rows", right=logit_is(pooled(ONLY))), base=FEMALE, experiment=glm(where={"sex": "== F"}))
frames("A11", "where a text is f, tables have F", lambda f: f, refused("sex"), base=FEMALE, experiment=glm(where={"sex": "== f"}))
frames("A11", "where a column does not exist at one site", lambda f: f.drop(columns="sex"), told_or_refused("sex", r"\bb\b"), only="b", base=FEMALE, experiment=glm(where={"sex": "== F"}))
frames("A11", "where nobody meets the condition", lambda f: f, refused("where|condition|row"), experiment=glm(where={"age": "> 200"}))
frames("A11", "where nobody at one site meets it", lambda f: f.assign(age=f.age - 60), told_or_refused(r"\bb\b"), only="b", experiment=glm(where={"age": ">= 40"}))
frames("A11", "where a date is after another", lambda f: f.assign(adm=pd.date_range("2019-01-01", periods=len(f), freq="5D")), Expected(refused=("adm|date",), right=lambda r: r["sites"]["a"]["train"] < 150), experiment=glm(where={"adm": ">= 2020-01-01"}))
frames("A11", "where dates as text", lambda f: f.assign(adm=pd.date_range("2019-01-01", periods=len(f), freq="5D").strftime("%d-%m-%Y")), Expected(refused=("adm|date",)), experiment=glm(where={"adm": ">= 01-01-2020"}))
frames("A11", "where age is text with a unit", lambda f: f.assign(age=f.age.astype(str) + " y"), told_or_refused("age"), experiment=glm(where={"age": ">= 40"}))
frames("A11", "where blanks must not be counted as unlike", lambda f: f.assign(sex=f.sex.where(np.arange(len(f)) % 5 > 0)), told("where|left out|empty"), base=FEMALE, experiment=glm(where={"sex": "!= M"}))
frames("A11", "where a single equals sign", lambda f: f, Expected(refused=("where",), right=logit_is(pooled(ONLY))), base=FEMALE, experiment=glm(where={"sex": "= F"}))
frames("A11", "where between", lambda f: f, told("where|left out|rows", right=logit_is(ROWS[(ROWS.age >= 50) & (ROWS.age < 75)])), experiment=glm(where={"age": [">= 50", "< 75"]}))

# Times
frames("A11", "Cox with some times of 0", lambda f: f.assign(days=f.days.where(np.arange(len(f)) % 30 > 0, 0)), told("0", "days", right=cox_is(pooled(each(TIMES, lambda f: f.assign(days=f.days.where(np.arange(len(f)) % 30 > 0, 0.0))))) if False else None), base=TIMES, experiment=cox())
frames("A11", "a time below 0: died before admission", lambda f: f.assign(days=f.days.where(np.arange(len(f)) != 4, -3)), refused("days", "where"), base=TIMES, experiment=cox(), only="b")
frames("A11", "an empty time", lambda f: f.assign(days=f.days.where(np.arange(len(f)) != 4)), Expected(refused=("days",), told=("days",)), base=TIMES, experiment=cox(), only="b")
frames("A11", "the event 1/2, as in R's lung", lambda f: f.assign(event=f.event + 1), told_or_refused("event"), base=TIMES, experiment=cox())
frames("A11", "the event 1/2 at one site", lambda f: f.assign(event=f.event + 1), refused("event", r"\bb\b"), base=TIMES, experiment=cox(), only="b")
frames("A11", "the event Dead and Alive, no positive", lambda f: f.assign(event=np.where(f.event == 1, "Dead", "Alive")), told_or_refused("event"), base=TIMES, experiment=cox())
frames("A11", "the event 0/1/2 with a competing cause", lambda f: f.assign(event=np.where(np.arange(len(f)) % 9 == 0, 2, f.event)), told_or_refused("event"), base=TIMES, experiment=cox())
frames("A11", "the event boolean", lambda f: f.assign(event=f.event == 1), right(lambda r: len(r["coefficients"]) == 4), base=TIMES, experiment=cox())
frames("A11", "the event empty where censored", lambda f: f.assign(event=f.event.where(f.event == 1)), told_or_refused("event"), base=TIMES, experiment=cox())
frames("A11", "times as timedelta", lambda f: f.assign(days=pd.to_timedelta(f.days, unit="D")), Expected(refused=("days",), right=lambda r: True), base=TIMES, experiment=cox())
frames("A11", "times as dates of death", lambda f: f.assign(days=pd.Timestamp("2020-01-01") + pd.to_timedelta(f.days, unit="D")), refused("days"), base=TIMES, experiment=cox())
frames("A11", "times in months at one site", lambda f: f.assign(days=(f.days / 30.4).round(1).clip(0.1)), told("days", r"\bb\b"), base=TIMES, experiment=cox(), only="b")
frames("A11", "times in words: 12 mo", lambda f: f.assign(days=f.days.astype(str) + " d"), refused("days"), base=TIMES, experiment=cox())
frames("A11", "everybody has the event", lambda f: f.assign(event=1), Expected(told=("event",), right=None, refused=("event",)), base=TIMES, experiment=cox())
frames("A11", "nobody has the event", lambda f: f.assign(event=0), refused("event"), base=TIMES, experiment=cox())
frames("A11", "status 0/1 the wrong way round: 1 is alive, named alive", lambda f: f.rename(columns={"event": "censored"}), told_or_refused("censored"), base=TIMES, experiment={**cox(), "data": {"target": {"duration": "days", "event": "censored"}}})
frames("A11", "time and status in features twice: years beside days", lambda f: f.assign(years=f.days / 365.25), told_or_refused("years"), base=TIMES, experiment=cox())
frames("A11", "regression on a target with 999 codes", lambda f: f.drop(columns="died").assign(bmi=f.bmi.where(np.arange(len(f)) % 12 > 0, 999)), told("bmi", "999"), experiment=linear("bmi"))
frames("A11", "regression on a target of text numbers with a comma", lambda f: f.drop(columns="died").assign(bmi=f.bmi.astype(str).str.replace(".", ",")), refused("bmi", "decimal|,"), experiment=linear("bmi"))
frames("A11", "a count of -1 and 2.5 visits", lambda f: f.assign(visits=np.where(np.arange(len(f)) % 30 == 0, -1, np.arange(len(f)) % 6)), refused("visits"), experiment={"data": {"target": "visits"}, "problem": "count", "model": {"kind": "glm"}, "split": glm()["split"]})
frames("A11", "classification on a number that never repeats", lambda f: f, refused("chol|class|label"), experiment=glm("chol"))
frames("A11", "regression on a 0/1 outcome", lambda f: f, Expected(told=("died",), right=lambda r: True), experiment=linear("died"))

_ = (ols_is, features_are, files)
