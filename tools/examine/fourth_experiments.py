"""Fourth sample: parts, experiment files, filters, times, numbers as targets (A9 to A11)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, refused, right, told, told_or_refused
from tools.examine.fourth import BASE, FITS, fourth
from tools.examine.patients import (
    COLUMNS,
    cox,
    csv,
    each,
    features_are,
    files,
    glm,
    linear,
    net,
    number,
    with_survival,
    written,
)  # fmt: skip


# Parts and groups
def parts(name: str, words: Any, expected: Expected) -> None:
    """Register an input whose parts are in a column."""

    def make(folder: Path) -> Input:
        frames = each(BASE, lambda f: f.assign(part=[words(i) for i in number(f)]))
        return files(folder, frames, net(split_column="part") | {"split": {"kind": "given"}}, expected)

    fourth("A10", name)(make)


parts(
    "parts called Train, Val and Test",
    lambda i: ["Train", "Train", "Val", "Test"][i % 4],
    Expected(refused=("part", "train"), right=lambda r: True),
)
parts(
    "parts called training and testing",
    lambda i: ["training", "testing"][i % 2],
    Expected(refused=("part", "train"), right=lambda r: True),
)
parts("parts called 0 and 1", lambda i: i % 2, refused("split_column", "train"))
parts(
    "a part not filled in in some rows",
    lambda i: ["train", "train", "", "validation", "test"][i % 5],
    Expected(refused=("split_column", "empty"), told=("part|unused",)),
)


@fourth("A10", "the group is blank in some rows")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(pat=[f"p{i // 3}" if i % 11 else "" for i in number(f)]))
    return files(folder, frames, net(group="pat"), right(lambda r: True))


# Experiments
def yaml(name: str, text: str, expected: Expected) -> None:
    """Register an experiment file beside tables a.csv, b.csv, c.csv."""

    def make(folder: Path) -> Input:
        written(folder, csv(BASE))
        return Input(None, "sites:\n" + "".join(f"  {site}: {site}.csv\n" for site in BASE) + text, expected)

    fourth("A10", name)(make)


SPLIT = "split: {kind: ratio, train: 1.0, validation: 0, test: 0}\nmodel: {kind: glm}\n"
yaml("YAML: no target", "data: {}\n" + SPLIT, refused("target"))
yaml(
    "YAML: positive: > 0 without quotes",
    "data:\n  target: died\n  positive: > 0\n" + SPLIT,
    refused("positive|YAML|line"),
)
yaml("YAML: curly quotes", "data: {target: \u201cdied\u201d}\n" + SPLIT, refused("died"))
yaml("YAML: a no-break space in the indent", "data:\n\u00a0\u00a0target: died\n" + SPLIT, refused("YAML|line|target"))
yaml("YAML: a key given twice", "data:\n  target: died\n  target: age\n" + SPLIT, refused("target|twice"))
yaml("YAML: features as one line of names", "data: {target: died, features: 'age, sbp'}\n" + SPLIT, refused("features"))
yaml("YAML: where as a sentence", "data: {target: died, where: 'age >= 18'}\n" + SPLIT, refused("where"))
yaml(
    "YAML: split with a decimal comma",
    "data: {target: died}\nsplit: {kind: ratio, train: 0,8, test: 0,2}\nmodel: {kind: glm}\n",
    refused("split|train|YAML|8"),
)
yaml(
    "YAML: split without its kind",
    "data: {target: died}\nsplit: {train: 0.8, test: 0.2}\nmodel: {kind: glm}\n",
    Expected(refused=("split", "add up to 1"), right=lambda r: True),
)
yaml(
    "YAML: exclude of a column that does not exist",
    "data: {target: died, exclude: [weight]}\n" + SPLIT,
    told_or_refused("weight"),
)
yaml("YAML: categorical target column", "data: {target: died, categorical: [died]}\n" + SPLIT, refused("died"))
yaml("YAML: the target among the features", "data: {target: died, features: [age, died]}\n" + SPLIT, refused("died"))
yaml("YAML: problem: regresion", "data: {target: age}\nproblem: regresion\n" + SPLIT, refused("regression"))
yaml(
    "YAML: missing_values for a column that no site has",
    "data: {target: died, missing_values: {cholesterol: [0]}}\n" + SPLIT,
    refused("cholesterol"),
)
yaml("YAML: missing_values as a map of one number", "data: {target: died, missing_values: {chol: 0}}\n" + SPLIT, FITS)


# Filters, times, numbers as targets
TIMES = with_survival(BASE)


def frames(
    kind: str, name: str, change: Any, expected: Expected, only: str = "", experiment: Any = None, base: Any = BASE
) -> None:
    """Register an input of dataframes."""
    fourth(kind, name)(
        lambda folder: Input(each(base, change, only), glm() if experiment is None else experiment, expected)
    )


SEXED = each(BASE, lambda f: f.assign(sex=np.where(number(f) % 3 == 0, 1.0, 2.0)))
frames(
    "A11",
    "where sex == 1 of floats with gaps",
    lambda f: f.assign(sex=f.sex.where(number(f) % 5 > 0)),
    told("left out|where"),
    base=SEXED,
    experiment=glm(where={"sex": "== 1"}),
)
frames(
    "A11",
    "where a boolean is true",
    lambda f: f.assign(ok=number(f) % 3 > 0),
    told("left out|where", right=features_are(*COLUMNS, "ok")),
    experiment=glm(where={"ok": "== true"}),
)
frames(
    "A11",
    "where a word is asked of numbers at one site",
    lambda f: f.assign(sex=np.where(f.sex == 1, "M", "F")),
    refused("sex"),
    only="b",
    base=SEXED,
    experiment=glm(where={"sex": "== 1"}),
)
frames(
    "A11",
    "where the target itself",
    lambda f: f,
    Expected(refused=("died|class",)),
    experiment=glm(where={"died": "== 1"}),
)
frames(
    "A11",
    "where with a column that is an identifier",
    lambda f: f.assign(record_id=number(f)),
    told("left out|where"),
    experiment=glm(where={"record_id": "> 20"}),
)
frames(
    "A11",
    "where nearly all rows are left out at one site",
    lambda f: f.assign(age=np.where(number(f) < 3, 70, 20)),
    told_or_refused(r"\bb\b"),
    only="b",
    experiment=glm(where={"age": ">= 40"}),
)
frames(
    "A11",
    "times all the same",
    lambda f: f.assign(days=365),
    told_or_refused("time|days"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "times in years, to two decimals",
    lambda f: f.assign(days=(f.days / 365.25).round(2).clip(0.01)),
    right(lambda r: len(r["coefficients"]) == 4),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "times as text with decimal comma",
    lambda f: f.assign(days=(f.days / 10).astype(str).str.replace(".", ",")),
    refused("days", "decimal|,"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "the event yes and no, positive given",
    lambda f: f.assign(event=np.where(f.event == 1, "yes", "no")),
    right(lambda r: len(r["coefficients"]) == 4),
    base=TIMES,
    experiment=cox(positive="== yes"),
)
frames(
    "A11",
    "the event Yes at one site",
    lambda f: f.assign(event=np.where(f.event == 1, "Yes", "No")),
    refused("event"),
    base=each(TIMES, lambda f: f.assign(event=np.where(f.event == 1, "yes", "no")), "ac"),
    only="b",
    experiment=cox(positive="== yes"),
)
frames(
    "A11",
    "the event 1 = alive, 2 = dead; positive == 2",
    lambda f: f.assign(event=f.event + 1),
    right(lambda r: len(r["coefficients"]) == 4),
    base=TIMES,
    experiment=cox(positive="== 2"),
)
frames(
    "A11",
    "the event 9 for lost to follow-up",
    lambda f: f.assign(event=np.where(number(f) % 12 == 0, 9, f.event)),
    refused("event"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "a follow-up date beside the times",
    lambda f: f.assign(last_seen=pd.Timestamp("2020-01-01") + pd.to_timedelta(f.days, unit="D")),
    told("last_seen"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "an admission year in which all later patients are censored",
    lambda f: f.assign(year=2010 + number(f) % 12),
    right(lambda r: "year" in r["preparation"]["features"]),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "a regression target as text with a unit",
    lambda f: f.drop(columns="died").assign(bmi=f.bmi.astype(str) + " kg/m2"),
    refused("bmi"),
    experiment=linear("bmi"),
)
frames(
    "A11",
    "a regression target with a typing error of 1e6",
    lambda f: f.drop(columns="died").assign(bmi=f.bmi.where(number(f) != 9, 2.7e7)),
    told_or_refused("bmi"),
    experiment=linear("bmi"),
    only="a",
)
frames(
    "A11",
    "a regression target in other units at one site",
    lambda f: f.assign(chol=f.chol * 38.67),
    told("chol|targets", r"\bb\b"),
    experiment=linear("chol"),
    only="b",
)
frames(
    "A11",
    "a count target as floats with .0",
    lambda f: f.assign(visits=(number(f) * 7 % 6).astype(float)),
    right(lambda r: True),
    experiment={"data": {"target": "visits"}, "problem": "count", "model": {"kind": "glm"}, "split": glm()["split"]},
)
frames(
    "A11",
    "a regression on a target of few stages",
    lambda f: f.assign(stage=number(f) * 7 % 4),
    right(lambda r: True),
    experiment=linear("stage"),
)
frames(
    "A9",
    "a target column of 1e12 and 1e12 + 1",
    lambda f: f.assign(died=f.died + 1e12),
    Expected(refused=("died",), told=("class",)),
)
frames("A9", "a feature counted from 1e15", lambda f: f.assign(chol=f.chol + 1e15), told_or_refused("chol"))
frames(
    "A9",
    "seconds of two admissions, whose difference matters",
    lambda f: f.assign(t_in=1.6e9 + number(f) * 977.0 % 9e5, t_out=1.6e9 + number(f) * 977.0 % 9e5 + f.chol * 1000),
    told("t_in", "t_out"),
)
frames(
    "A10",
    "a column called target and one called index",
    lambda f: f.assign(index=number(f), target=f.died),
    told("target", "index"),
)
frames(
    "A10",
    "string dtype of pandas with NA",
    lambda f: f.assign(died=pd.array(np.where(f.died == 1, "yes", "no"), dtype="string")),
    told("yes"),
)
frames("A10", "a frame with its index twice the same", lambda f: f.set_axis([0] * len(f)), FITS)
frames(
    "A10",
    "np.nan, None and pd.NA in one object column",
    lambda f: f.assign(chol=[[np.nan, None, pd.NA][i % 3] if i % 6 == 0 else v for i, v in enumerate(f.chol)]),
    right(features_are(*COLUMNS)),
)
frames("A10", "an empty frame at one site", lambda f: f.iloc[:0], told_or_refused(r"\bb\b"), only="b")
frames(
    "A10",
    "numbers and texts of numbers in one object column",
    lambda f: f.assign(chol=[str(v) if i % 2 else v for i, v in enumerate(f.chol)]),
    FITS,
)
