"""Fifth sample: names of columns, columns that say one thing twice, several targets, arrays, databases (A1 to A11)."""

from __future__ import annotations

import bz2
import sqlite3
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, case, refused, right, told, told_or_refused
from tools.examine.patients import (
    COLUMNS,
    cox,
    csv,
    each,
    features_are,
    files,
    glm,
    linear,
    logit_is,
    net,
    number,
    pooled,
    three,
    with_survival,
    written,
)  # fmt: skip

BASE = three(51)
ROWS = pooled(BASE)
FITS = right(logit_is(ROWS))
TIMES = with_survival(BASE)
RUNS = right(lambda r: True)


def frames(
    kind: str, name: str, change: Any, expected: Expected, only: str = "", experiment: Any = None, base: Any = BASE
) -> None:
    """Register an input of dataframes, written as CSV."""
    case("fifth", kind, name)(lambda folder: files(folder, each(base, change, only), experiment or glm(), expected))


def given(kind: str, name: str, site: Any, expected: Expected, experiment: Any = None) -> None:
    """Register an input of which each site is what `site` makes of a folder, a name and a dataframe."""
    case("fifth", kind, name)(
        lambda folder: Input({n: site(folder, n, f) for n, f in BASE.items()}, experiment or glm(), expected)
    )


# Names
frames(
    "A2",
    "chol and CHOL in one table",
    lambda f: f.assign(CHOL=f.chol * 0 + number(f) % 5),
    Expected(refused=("chol",), right=features_are(*COLUMNS, "CHOL")),
)
frames(
    "A1", "chol and 'chol ' in one table", lambda f: f.assign(**{"chol ": number(f) % 5}), Expected(refused=("chol",))
)
frames(
    "A1",
    "years as names: 2019, 2020",
    lambda f: f.rename(columns={"sbp": "2019", "bmi": "2020"}),
    right(features_are("age", "chol", "2019", "2020")),
)
frames(
    "A1",
    "names with commas, quotes and braces",
    lambda f: f.rename(columns={"sbp": 'sbp, "sitting"', "bmi": "bmi {kg/m2}"}),
    right(features_are("age", "chol", 'sbp, "sitting"', "bmi {kg/m2}")),
)
frames(
    "A2",
    "an accent composed at one site and not at another",
    lambda f: f.rename(columns={"chol": unicodedata.normalize("NFD", "cholestérol")}),
    Expected(refused=("chol",), told=("chol",)),
    only="b",
    base=each(BASE, lambda f: f.rename(columns={"chol": "cholestérol"}), "ac"),
)
frames("A1", "another order of columns at one site", lambda f: f[["died", "bmi", "chol", "sbp", "age"]], FITS, only="b")
frames(
    "A2",
    "two columns more at one site",
    lambda f: f.assign(pulse=number(f) % 40 + 50, crp=number(f) % 9),
    told("pulse", "crp", right=logit_is(ROWS)),
    only="c",
)
frames(
    "A2",
    "a hyphen for an underscore in a name at one site",
    lambda f: f.rename(columns={"chol": "total-chol"}),
    told_or_refused("total"),
    only="b",
    base=each(BASE, lambda f: f.rename(columns={"chol": "total_chol"}), "ac"),
)
frames("A10", "a target called y:1", lambda f: f.rename(columns={"died": "y:1"}), RUNS, experiment=glm("y:1"))

# One thing twice
frames("A2", "age in years and in months", lambda f: f.assign(age_months=f.age * 12), told_or_refused("age_months|age"))
frames(
    "A2",
    "both dummies of sex",
    lambda f: f.assign(sex_m=number(f) % 2, sex_f=1 - number(f) % 2),
    told_or_refused("sex_m|sex_f"),
)
frames(
    "A2",
    "a total and its three parts",
    lambda f: f.assign(
        p1=number(f) % 5, p2=number(f) % 7, p3=number(f) % 3, total=number(f) % 5 + number(f) % 7 + number(f) % 3
    ),
    told_or_refused("total|p1"),
)
frames("A2", "the same column under two names", lambda f: f.assign(cholesterol=f.chol), told_or_refused("chol"))
frames(
    "A6",
    "a column with nine in ten cells blank",
    lambda f: f.assign(bnp=np.where(number(f) % 10, np.nan, number(f) % 13 + 3.5)),
    told("bnp"),
)
frames(
    "A6",
    "a column with nine in ten cells blank at one site",
    lambda f: f.assign(chol=f.chol.where(number(f) % 10 == 0)),
    told("chol", r"\bb\b"),
    only="b",
)
frames("A6", "zeros in all rows of all sites", lambda f: f.assign(hiv=0), told("hiv"))
frames(
    "A6", "z-scores at one site", lambda f: f.assign(sbp=((f.sbp - 136) / 17).round(3)), told("sbp", r"\bb\b"), only="b"
)
frames(
    "A6",
    "percentiles at one site",
    lambda f: f.assign(bmi=f.bmi.rank(pct=True).round(3)),
    told("bmi", r"\bb\b"),
    only="b",
)
frames(
    "A6",
    "ages below 0, from years of two digits",
    lambda f: f.assign(age=np.where(number(f) % 14 == 0, f.age - 100, f.age)),
    told_or_refused("age"),
)
frames(
    "A6",
    "ordinary: differences on both sides of 0",
    lambda f: f.assign(change=np.where(number(f) % 2, 1, -1) * (number(f) % 9)),
    right(lambda r: not any("'change'" in n for n in r["notes"])),
)

# Words of truth in other languages
TRUTHS = {
    "German": ["FALSCH", "WAHR"],
    "French": ["FAUX", "VRAI"],
    "Spanish": ["FALSO", "VERDADERO"],
    "Dutch": ["ONWAAR", "WAAR"],
}
for _language, _words in TRUTHS.items():
    frames(
        "A4",
        f"{_language} Excel's truths beside TRUE",
        lambda f, w=_words: f.assign(died=[w[v] for v in f.died]),
        refused("died"),
        only="b",
        base=each(BASE, lambda f: f.assign(died=f.died.astype(bool)), "ac"),
    )
    frames(
        "A2",
        f"{_language} Excel's truths as a feature",
        lambda f, w=_words: f.assign(flag=[w[i % 2] for i in number(f)]),
        told("flag"),
    )
frames(
    "A10",
    "TRUE at one site, 1 at others",
    lambda f: f.assign(died=f.died.map({0: "FALSE", 1: "TRUE"})),
    Expected(refused=("died",), right=logit_is(ROWS)),
    only="b",
)

# Classes and targets
frames(
    "A4",
    "stages 1 to 4 and at one site 0 to 3, a network",
    lambda f: f.assign(stage=number(f) % 4),
    told_or_refused("stage"),
    only="b",
    base=each(BASE, lambda f: f.assign(stage=number(f) % 4 + 1), "ac"),
    experiment=net("stage"),
)
frames(
    "A4",
    "an ordinal outcome where one site lacks the worst",
    lambda f: f.assign(stage=number(f) % 4 + 1),
    RUNS,
    only="b",
    base=each(BASE, lambda f: f.assign(stage=number(f) % 5 + 1), "ac"),
    experiment=net("stage"),
)
frames("A7", "one case in fifty", lambda f: f.assign(died=(number(f) % 50 == 0).astype(int)), RUNS, experiment=net())
MULTI: Mapping[str, Any] = {
    "data": {"targets": {"sex": "classification", "age": "regression"}},
    "problem": "multitask",
    "model": {"kind": "mlp", "hidden": [8]},
    "rounds": 1,
}
SEXED = each(BASE, lambda f: f.assign(sex=np.where(number(f) % 2, "M", "F")))
frames(
    "A4",
    "several targets: M and F beside m and f",
    lambda f: f.assign(sex=f.sex.str.lower()),
    refused("sex"),
    only="b",
    base=SEXED,
    experiment=MULTI,
)
frames(
    "A4",
    "several targets: M and F beside 1 and 2",
    lambda f: f.assign(sex=f.sex.map({"M": 1, "F": 2})),
    refused("sex"),
    only="b",
    base=SEXED,
    experiment=MULTI,
)
frames(
    "A4",
    "several targets: V for F at one site",
    lambda f: f.assign(sex=f.sex.str.replace("F", "V")),
    told_or_refused("sex"),
    only="b",
    base=SEXED,
    experiment=MULTI,
)
frames(
    "A4",
    "several targets: unknown as a class",
    lambda f: f.assign(sex=f.sex.where(number(f) % 9 > 0, "unknown")),
    told_or_refused("sex|unknown"),
    base=SEXED,
    experiment=MULTI,
)
frames(
    "A11",
    "several targets: ages in months at one site",
    lambda f: f.assign(age=f.age * 12),
    told("age", r"\bb\b"),
    only="b",
    base=SEXED,
    experiment=MULTI,
)
frames(
    "A11",
    "several targets: 999 as an age",
    lambda f: f.assign(age=f.age.where(number(f) % 9 > 0, 999)),
    told("age"),
    base=SEXED,
    experiment=MULTI,
)
frames(
    "A11",
    "a regression target z-scored at one site",
    lambda f: f.assign(chol=((f.chol - 5.3) / 1.0).round(3)),
    told("chol|target", r"\bb\b"),
    only="b",
    experiment=linear("chol"),
)
frames(
    "A11",
    "a regression target below 0 at one site, by a sign",
    lambda f: f.assign(chol=-f.chol),
    told("chol|target", r"\bb\b"),
    only="b",
    experiment=linear("chol"),
)
frames(
    "A11",
    "a regression target constant at one site",
    lambda f: f.assign(chol=5.0),
    told_or_refused("chol|target", r"\bb\b"),
    only="b",
    experiment=linear("chol"),
)
frames(
    "A11",
    "a count target of 999 for not known",
    lambda f: f.assign(visits=np.where(number(f) % 12 == 0, 999, number(f) % 6)),
    told("visits", "999|far"),
    experiment={"data": {"target": "visits"}, "problem": "count", "model": {"kind": "glm"}, "split": glm()["split"]},
)
frames(
    "A11",
    "survival times of 9999 for not known",
    lambda f: f.assign(days=f.days.where(number(f) % 15 > 0, 9999)),
    told_or_refused("days|time"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "weights below 0",
    lambda f: f.assign(w=np.where(number(f) % 20 == 0, -1, 2)),
    refused(r"\bw\b"),
    experiment=glm() | {"model": {"kind": "glm", "weights": {"kind": "frequency", "column": "w"}}},
)
frames(
    "A11",
    "weights not filled in in some rows",
    lambda f: f.assign(w=np.where(number(f) % 20 == 0, np.nan, 2)),
    told_or_refused(r"\bw\b"),
    experiment=glm() | {"model": {"kind": "glm", "weights": {"kind": "frequency", "column": "w"}}},
)
frames(
    "A11",
    "target_scaling of classes",
    lambda f: f,
    refused("target_scaling"),
    experiment=glm(target_scaling="standard"),
)
frames(
    "A11",
    "positive with quotation marks: == 'yes'",
    lambda f: f.assign(died=np.where(f.died == 1, "yes", "no")),
    Expected(refused=("positive",), right=lambda r: len(r["coefficients"]) == 5),
    experiment=glm(positive="== 'yes'"),
)
frames(
    "A11",
    "positive: is yes",
    lambda f: f.assign(died=np.where(f.died == 1, "yes", "no")),
    refused("positive"),
    experiment=glm(positive="is yes"),
)
frames(
    "A11",
    "positive: >= 140 of a pressure",
    lambda f: f.drop(columns="died"),
    right(lambda r: len(r["coefficients"]) == 4),
    experiment=glm("sbp", positive=">= 140"),
)
frames(
    "A10",
    "exclude with a star",
    lambda f: f.assign(redcap_x=1, redcap_y=number(f) % 4),
    told_or_refused(r"redcap_\*"),
    experiment=glm(exclude=["redcap_*"]),
)

# Sites in other forms
given(
    "A10",
    "arrays, the outcome as strings",
    lambda folder, n, f: (f[COLUMNS].to_numpy(), np.where(f.died == 1, "yes", "no")),
    told("yes"),
    glm("y"),
)
given(
    "A10",
    "arrays, the outcome a column of (rows, 1)",
    lambda folder, n, f: (f[COLUMNS].to_numpy(), f[["died"]].to_numpy()),
    RUNS,
    glm("y"),
)
given(
    "A10",
    "arrays with NaN in the outcome",
    lambda folder, n, f: (f[COLUMNS].to_numpy(), np.where(number(f) % 20 == 0, np.nan, f.died)),
    told("no target"),
    glm("y"),
)
given(
    "A10",
    "arrays of objects",
    lambda folder, n, f: (f[COLUMNS].to_numpy().astype(object), f.died.to_numpy()),
    refused("object|numbers"),
    glm("y"),
)
given(
    "A10",
    "arrays, one label too few",
    lambda folder, n, f: (f[COLUMNS].to_numpy(), f.died.to_numpy()[1:]),
    refused("rows"),
    glm("y"),
)
given("A10", "a list of dictionaries", lambda folder, n, f: f.to_dict("records"), refused("list|taken"))
given("A10", "a dictionary of lists", lambda folder, n, f: f.to_dict("list"), refused("age|uri|key"))
given("A10", "a series", lambda folder, n, f: f.died, refused("column|Series|1-D|DataFrame"))
given("A10", "nothing", lambda folder, n, f: None, refused("None|taken"))


def stored(folder: Path, name: str, frame: pd.DataFrame, query: str) -> dict[str, str]:
    """Write a SQLite file; return the site."""
    connection = sqlite3.connect(folder / f"{name}.sqlite")
    frame.to_sql("pat", connection, index=False)
    connection.close()
    return {"uri": str(folder / f"{name}.sqlite"), "query": query}


given("A10", "SQL: a semicolon at the end", lambda folder, n, f: stored(folder, n, f, "select * from pat;"), FITS)
given(
    "A10",
    "SQL: a misspelt column",
    lambda folder, n, f: stored(folder, n, f, "select agee, died from pat"),
    refused("agee"),
)
given(
    "A10",
    "SQL: no rows",
    lambda folder, n, f: stored(folder, n, f, "select * from pat where age > 500"),
    refused("row"),
)
given(
    "A10",
    "SQL: a join with the key twice",
    lambda folder, n, f: stored(folder, n, f, "select p.*, q.chol from pat p join pat q on p.rowid = q.rowid"),
    refused("chol"),
)
given(
    "A10",
    "SQL: names in capitals",
    lambda folder, n, f: stored(folder, n, f.rename(columns=str.upper), "select * from pat"),
    refused("died", "DIED"),
)
given("A10", "SQL: deletes", lambda folder, n, f: stored(folder, n, f, "delete from pat"), refused("query|read|delete"))


@case("fifth", "A3", "CSV in bzip2")
def _(folder: Path) -> Input:
    sites = {}
    for name, text in csv(BASE).items():
        (folder / f"{name}.csv.bz2").write_bytes(bz2.compress(text.encode()))
        sites[name] = str(folder / f"{name}.csv.bz2")
    return Input(sites, glm(), Expected(refused=("bz2",), right=logit_is(ROWS)))


@case("fifth", "A3", "a sheet that is not there")
def _(folder: Path) -> Input:
    BASE["b"].to_excel(folder / "b.xlsx", sheet_name="Data", index=False)
    sites = written(folder, csv(BASE)) | {"b": {"uri": str(folder / "b.xlsx"), "sheet_name": "data"}}
    return Input(sites, glm(), refused("Data"))


@case("fifth", "A1", "one column only")
def _(folder: Path) -> Input:
    return files(folder, each(BASE, lambda f: f[["died"]]), glm(), refused("column|feature"))


@case("fifth", "A1", "a note of 200,000 letters in one cell")
def _(folder: Path) -> Input:
    frames_ = each(BASE, lambda f: f.assign(note=["x" * 200_000 if i == 3 else "" for i in number(f)]))
    return files(folder, frames_, glm(), told("note", right=logit_is(ROWS)))
