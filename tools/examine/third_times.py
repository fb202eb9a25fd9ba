"""Third sample: experiment files, filters, times, targets that do not fit (A10, A11)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, case, refused, right, told, told_or_refused
from tools.examine.patients import (
    cox,
    cox_is,
    csv,
    each,
    glm,
    linear,
    logit_is,
    pooled,
    with_survival,
    written,
)  # fmt: skip
from tools.examine.third_types import BASE, FITS, ROWS, frames

TIMES = with_survival(BASE)


def yaml(kind: str, name: str, text: str, expected: Expected, base: Any = BASE) -> None:
    """Register an experiment file beside tables a.csv, b.csv, c.csv."""

    def make(folder: Path) -> Input:
        written(folder, csv(base))
        sites = "sites:\n" + "".join(f"  {site}: {site}.csv\n" for site in base)
        return Input(None, sites + text, expected)

    case("third", kind, name)(make)


SPLIT = "split: {kind: ratio, train: 1.0, validation: 0, test: 0}\nmodel: {kind: glm}\n"
YES = each(BASE, lambda f: f.assign(died=np.where(f.died == 1, "yes", "no"), on=np.arange(len(f)) % 2))
yaml(
    "A10",
    "YAML: positive: yes",
    "data: {target: died, positive: yes}\n" + SPLIT,
    Expected(refused=("positive",), right=logit_is(ROWS)),
    YES,
)
yaml(
    "A10",
    "YAML: positive: '== yes'",
    "data: {target: died, positive: '== yes'}\n" + SPLIT,
    Expected(right=lambda r: len(r["coefficients"]) == 6),
    YES,
)
yaml(
    "A10",
    "YAML: a column called on, excluded",
    "data: {target: died, exclude: [on]}\n" + SPLIT,
    Expected(refused=("on",), told=None, right=lambda r: "on" not in r["preparation"]["features"]),
    YES,
)
yaml(
    "A10",
    "YAML: positive: 1",
    "data: {target: died, positive: 1}\n" + SPLIT,
    Expected(refused=("positive",), right=logit_is(ROWS)),
)
yaml(
    "A10",
    "YAML: categorical as one word",
    "data: {target: died, categorical: sbp}\n" + SPLIT,
    refused("categorical", "list"),
)
yaml(
    "A10",
    "YAML: missing_values: na as one word",
    "data: {target: died, missing_values: na}\n" + SPLIT,
    FITS,
)
yaml("A10", "YAML: a tab in place of spaces", "data:\n\ttarget: died\n" + SPLIT, refused("YAML|tab"))
yaml("A10", "YAML: target: Died, the table has died", "data: {target: Died}\n" + SPLIT, refused("Died", "died"))
yaml(
    "A10",
    "YAML: features with a misspelt column",
    "data: {target: died, features: [age, cholesterol]}\n" + SPLIT,
    refused("cholesterol"),
)
yaml("A10", "YAML: decimal: comma", "data: {target: died, decimal: comma}\n" + SPLIT, refused("decimal"))
yaml("A10", "YAML: separator: tab", "data: {target: died, separator: tab}\n" + SPLIT, refused("separator"))
yaml("A10", "YAML: encoding: windows", "data: {target: died, encoding: windows}\n" + SPLIT, refused("encoding"))


# Filters
FEMALE = each(BASE, lambda f: f.assign(sex=np.where(np.arange(len(f)) % 3 == 0, "M", "F")))
ONLY = {site: frame[np.arange(len(frame)) % 3 != 0] for site, frame in BASE.items()}
frames(
    "A11",
    "where a text is F",
    lambda f: f,
    told(r"where|left out|rows", right=logit_is(pooled(ONLY))),
    base=FEMALE,
    experiment=glm(where={"sex": "== F"}),
)
frames(
    "A11",
    "where a text is f, tables have F",
    lambda f: f,
    refused("sex"),
    base=FEMALE,
    experiment=glm(where={"sex": "== f"}),
)
frames(
    "A11",
    "where a column does not exist at one site",
    lambda f: f.drop(columns="sex"),
    told_or_refused("sex", r"\bb\b"),
    only="b",
    base=FEMALE,
    experiment=glm(where={"sex": "== F"}),
)
frames(
    "A11",
    "where nobody meets the condition",
    lambda f: f,
    refused("where|condition|row"),
    experiment=glm(where={"age": "> 200"}),
)
frames(
    "A11",
    "where nobody at one site meets it",
    lambda f: f.assign(age=f.age - 60),
    told_or_refused(r"\bb\b"),
    only="b",
    experiment=glm(where={"age": ">= 40"}),
)
frames(
    "A11",
    "where a date is after another",
    lambda f: f.assign(adm=pd.date_range("2019-01-01", periods=len(f), freq="5D")),
    Expected(refused=("adm|date",), right=lambda r: r["sites"]["a"]["train"] < 150),
    experiment=glm(where={"adm": ">= 2020-01-01"}),
)
frames(
    "A11",
    "where dates as text",
    lambda f: f.assign(adm=pd.date_range("2019-01-01", periods=len(f), freq="5D").strftime("%d-%m-%Y")),
    Expected(refused=("adm|date",)),
    experiment=glm(where={"adm": ">= 01-01-2020"}),
)
frames(
    "A11",
    "where age is text with a unit",
    lambda f: f.assign(age=f.age.astype(str) + " y"),
    told_or_refused("age"),
    experiment=glm(where={"age": ">= 40"}),
)
frames(
    "A11",
    "where blanks must not be counted as unlike",
    lambda f: f.assign(sex=f.sex.where(np.arange(len(f)) % 5 > 0)),
    told("where|left out|empty"),
    base=FEMALE,
    experiment=glm(where={"sex": "!= M"}),
)
frames(
    "A11",
    "where a single equals sign",
    lambda f: f,
    Expected(refused=("where",), right=logit_is(pooled(ONLY))),
    base=FEMALE,
    experiment=glm(where={"sex": "= F"}),
)
frames(
    "A11",
    "where between",
    lambda f: f,
    told("where|left out|rows", right=logit_is(ROWS[(ROWS.age >= 50) & (ROWS.age < 75)])),
    experiment=glm(where={"age": [">= 50", "< 75"]}),
)

# Times
frames(
    "A11",
    "Cox with some times of 0",
    lambda f: f.assign(days=f.days.where(np.arange(len(f)) % 30 > 0, 0)),
    told(
        "time of 0",
        right=cox_is(pooled(each(TIMES, lambda f: f.assign(days=f.days.where(np.arange(len(f)) % 30 > 0, 0))))),
    ),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "a time below 0: died before admission",
    lambda f: f.assign(days=f.days.where(np.arange(len(f)) != 4, -3)),
    refused("days", "where"),
    base=TIMES,
    experiment=cox(),
    only="b",
)
frames(
    "A11",
    "an empty time",
    lambda f: f.assign(days=f.days.where(np.arange(len(f)) != 4)),
    Expected(refused=("days",), told=("days",)),
    base=TIMES,
    experiment=cox(),
    only="b",
)
frames(
    "A11",
    "the event 1/2, as in R's lung",
    lambda f: f.assign(event=f.event + 1),
    told_or_refused("event"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "the event 1/2 at one site",
    lambda f: f.assign(event=f.event + 1),
    refused("event", r"\bb\b"),
    base=TIMES,
    experiment=cox(),
    only="b",
)
frames(
    "A11",
    "the event Dead and Alive, no positive",
    lambda f: f.assign(event=np.where(f.event == 1, "Dead", "Alive")),
    told_or_refused("event"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "the event 0/1/2 with a competing cause",
    lambda f: f.assign(event=np.where(np.arange(len(f)) % 9 == 0, 2, f.event)),
    told_or_refused("event"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "the event boolean",
    lambda f: f.assign(event=f.event == 1),
    right(lambda r: len(r["coefficients"]) == 4),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "the event empty where censored",
    lambda f: f.assign(event=f.event.where(f.event == 1)),
    told_or_refused("event"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "times as timedelta",
    lambda f: f.assign(days=pd.to_timedelta(f.days, unit="D")),
    Expected(refused=("days",), right=lambda r: True),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "times as dates of death",
    lambda f: f.assign(days=pd.Timestamp("2020-01-01") + pd.to_timedelta(f.days, unit="D")),
    refused("days"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "times in months at one site",
    lambda f: f.assign(days=(f.days / 30.4).round(1).clip(0.1)),
    told("event times", r"\bb\b"),
    base=TIMES,
    experiment=cox(),
    only="b",
)
frames(
    "A11",
    "times in words: 12 mo",
    lambda f: f.assign(days=f.days.astype(str) + " d"),
    refused("days"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "everybody has the event",
    lambda f: f.assign(event=1),
    Expected(told=("event",), right=None, refused=("event",)),
    base=TIMES,
    experiment=cox(),
)
frames("A11", "nobody has the event", lambda f: f.assign(event=0), refused("event"), base=TIMES, experiment=cox())
frames(
    "A11",
    "status 0/1 the wrong way round: 1 is alive, named alive",
    lambda f: f.rename(columns={"event": "censored"}),
    told_or_refused("censored"),
    base=TIMES,
    experiment={**cox(), "data": {"target": {"duration": "days", "event": "censored"}}},
)
frames(
    "A11",
    "time and status in features twice: years beside days",
    lambda f: f.assign(years=f.days / 365.25),
    told_or_refused("years"),
    base=TIMES,
    experiment=cox(),
)
frames(
    "A11",
    "regression on a target with 999 codes",
    lambda f: f.drop(columns="died").assign(bmi=f.bmi.where(np.arange(len(f)) % 12 > 0, 999)),
    told("bmi", "999"),
    experiment=linear("bmi"),
)
frames(
    "A11",
    "regression on a target of text numbers with a comma",
    lambda f: f.drop(columns="died").assign(bmi=f.bmi.astype(str).str.replace(".", ",")),
    refused("bmi", "decimal|,"),
    experiment=linear("bmi"),
)
frames(
    "A11",
    "a count of -1 and 2.5 visits",
    lambda f: f.assign(visits=np.where(np.arange(len(f)) % 30 == 0, -1, np.arange(len(f)) % 6)),
    refused("visits"),
    experiment={"data": {"target": "visits"}, "problem": "count", "model": {"kind": "glm"}, "split": glm()["split"]},
)
frames(
    "A11",
    "classification on a number that never repeats",
    lambda f: f,
    refused("chol|class|label"),
    experiment=glm("chol"),
)
frames(
    "A11",
    "regression on a 0/1 outcome",
    lambda f: f,
    right(lambda r: True),
    experiment=linear("died"),
)
