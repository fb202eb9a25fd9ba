"""The first sample, kinds A7, A8, A9 and A11: classes, identifiers, large offsets, choices of rows and times of 0."""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, case, refused, right, told, told_or_refused
from tools.examine.patients import (
    COLUMNS,
    cox,
    cox_is,
    csv,
    glm,
    linear,
    logit_is,
    net,
    pooled,
    three,
    with_survival,
    written,
)

first = partial(case, "first")


# A7: the positive class is named in table, files and report.


def named(label: str) -> Callable[[dict[str, Any]], bool]:
    """Say whether terminal, report and the files of metrics name the class."""

    def check(result: dict[str, Any]) -> bool:
        from v6_algorithm.researcher.python.result import Result
        from v6_algorithm.researcher.report.reading import positive_class

        with tempfile.TemporaryDirectory() as name:
            Result(result).save(name)
            report = re.sub(r"<[^>]+>", " ", (Path(name) / "report.html").read_text())
            files = (Path(name) / "metrics.csv").read_text()
        # In HTML quotes and signs are entities.
        said = f"positive: ({re.escape(html.escape(label))}|died {re.escape(html.escape(label))})"
        return bool(
            re.search(re.escape(label), positive_class(result, ["f1"]))
            and re.search(said, report, re.IGNORECASE)
            and label in files
        )

    return check


def _classes(no: Any, yes: Any, **data: Any) -> Callable[[Path], Input]:
    """Return an input whose outcome has these two words; the second in the alphabet is the positive class."""

    def make(folder: Path) -> Input:
        frames = {name: frame.assign(died=frame["died"].map({0: no, 1: yes})) for name, frame in three().items()}
        expected = "1" if yes == "TRUE" else str(max(str(no), str(yes)))
        given = data.get("positive")
        return Input(written(folder, csv(frames)), net(**data), right(named(given or expected)))

    return make


for _name, _no, _yes, _data in [
    ("alive and dead", "alive", "dead", {}),
    ("control and case: control is the later in the alphabet", "control", "case", {}),
    ("1 and 2 (SPSS)", 1, 2, {}),
    ("R's TRUE and FALSE, which are 1 and 0", "FALSE", "TRUE", {}),
    ("ja and nee: nee is the later", "nee", "ja", {}),
    ("positief and negatief with positive: '== positief'", "negatief", "positief", {"positive": "== positief"}),
    ("responder and non-responder", "non-responder", "responder", {}),
    ("- and +", "-", "+", {}),
    ("0 and 1", 0, 1, {}),
]:
    first("A7", _name)(_classes(_no, _yes, **_data))


@first(
    "A7", "a disease first in the alphabet (AMI, healthy): a note or the tables say that healthy is the positive class"
)
def _(folder: Path) -> Input:
    frames = {name: frame.assign(died=frame["died"].map({1: "AMI", 0: "healthy"})) for name, frame in three().items()}
    return Input(written(folder, csv(frames)), net(), right(named("healthy")))


# A8: row numbers and patient numbers become features.


def _identified(column: str, make: Callable[[pd.DataFrame, int], Any]) -> Callable[[Path], Input]:
    def write(folder: Path) -> Input:
        frames = three()
        made = {
            name: frame.assign(**{column: make(frame, number)}) for number, (name, frame) in enumerate(frames.items())
        }
        return Input(written(folder, csv(made)), glm(), told(re.escape(column), right=logit_is(pooled(frames))))

    return write


def _drawn(frame: pd.DataFrame, number: int, low: int, high: int) -> np.ndarray:
    return np.random.default_rng(number).choice(np.arange(low, high), len(frame), replace=False)


for _name, _column, _make in [
    ("pandas' index written twice (Unnamed: 0.1)", "Unnamed: 0.1", lambda frame, number: range(len(frame))),
    (
        "HiX: patientnummer of seven digits",
        "patientnummer",
        lambda frame, number: _drawn(frame, number, 1000000, 9999999 // 9),
    ),
    (
        "Castor: Participant Id 110001, 110002",
        "Participant Id",
        lambda frame, number: 110001 + 10000 * number + frame.index,
    ),
    ("German: Fallnummer, some patients twice", "Fallnummer", lambda frame, number: 7000000 + frame.index // 2 * 13),
    ("French: IPP (identifiant permanent)", "IPP", lambda frame, number: _drawn(frame, number, 800000000, 800009999)),
    ("readr's ...1, row numbers from 1", "...1", lambda frame, number: frame.index + 1),
    (
        "a nameless code of seven digits that never repeats",
        "code",
        lambda frame, number: _drawn(frame, number, 2000000, 2999999),
    ),
    ("Epic: PAT_ENC_CSN_ID", "PAT_ENC_CSN_ID", lambda frame, number: _drawn(frame, number, 100000000, 100999999)),
]:
    first("A8", _name)(_identified(_column, _make))


@first("A8", "NT-proBNP as whole numbers that happen never to repeat is a measurement")
def _(folder: Path) -> Input:
    rng = np.random.default_rng(3)
    made = {
        name: frame.assign(ntprobnp=np.exp(rng.normal(6.5, 1.2, len(frame))).astype(int) * 2 + 11)
        for name, frame in three().items()
    }
    for name, frame in made.items():
        made[name] = frame.assign(ntprobnp=frame["ntprobnp"] + frame.groupby("ntprobnp").cumcount())
    return Input(written(folder, csv(made)), glm(), right(logit_is(pooled(made), [*COLUMNS, "ntprobnp"])))


@first("A8", "platelets (x10^9/L), whole numbers that repeat, are a measurement")
def _(folder: Path) -> Input:
    rng = np.random.default_rng(4)
    made = {
        name: frame.assign(platelets=rng.normal(250, 70, len(frame)).astype(int)) for name, frame in three().items()
    }
    return Input(written(folder, csv(made)), glm(), right(logit_is(pooled(made), [*COLUMNS, "platelets"])))


# A9: columns with large offsets.


def _offset(offset: float, **data: Any) -> Callable[[Path], Input]:
    """Return an input whose AUROC must be that of the same rows without the offset."""

    def make(folder: Path) -> Input:
        frames = three(7)
        moved = {name: frame.assign(chol=frame["chol"] * 10 + offset) for name, frame in frames.items()}
        plain = {name: frame.assign(chol=frame["chol"] * 10) for name, frame in frames.items()}
        experiment = net(rounds=5, **data) | {
            "model": {"kind": "logistic"},
            "training": {"optimizer": {"kind": "sgd", "lr": 0.1}},
        }

        def check(result: dict[str, Any]) -> bool:
            from tools.examine.__main__ import run_input

            reference = run_input(Input(plain, experiment, refused()), folder, "trusted")
            ours, theirs = (one["metrics"]["test"]["pooled"]["loss"] for one in (result, reference))
            return abs(ours - theirs) < 2e-3

        return Input(moved, experiment, Expected(right=check, seeded=True))

    return make


for _name, _value, _data in [
    ("an offset of 1e8, standard scaling", 1e8, {}),
    ("seconds since 1970 (1.6e9)", 1.6e9, {}),
    ("milliseconds since 1970 (1.6e12), minmax scaling", 1.6e12, {"scaling": "minmax"}),
    ("an offset of 1e9, scaled by site", 1e9, {"scaling": {"kind": "standard", "scope": "site"}}),
    ("an offset of -5e8, robust scaling", -5e8, {"scaling": "robust"}),
    ("an offset of 1e10 and ComBat", 1e10, {"harmonisation": "combat"}),
]:
    first("A9", _name)(_offset(_value, **_data))


@first("A9", "scaling none and an offset of 1e8: told, with the remedy")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(chol=frame["chol"] + 1e8) for name, frame in three(7).items()}
    return Input(frames, net(scaling="none"), told_or_refused("chol", "scaling"))


@first("A9", "a regression target around 1e9 (Unix times) with target_scaling")
def _(folder: Path) -> Input:
    frames = {
        name: frame.assign(when=1.5e9 + 100 * frame["chol"] + frame["bmi"]).drop(columns="died")
        for name, frame in three(7).items()
    }
    experiment = net("when", 30, target_scaling="standard") | {
        "problem": "regression",
        "model": {"kind": "linear"},
        "training": {"optimizer": {"kind": "sgd", "lr": 0.1}},
    }
    return Input(
        frames,
        experiment,
        Expected(refused=("when", "float64"), right=lambda result: result["metrics"]["test"]["pooled"]["r2"] > 0.95),
    )


@first("A9", "a linear fit over a column around 1e9: coefficients of statsmodels, centred")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(stamp=1e9 + 3600 * frame["sbp"]) for name, frame in three(7).items()}
    rows = pooled(frames)

    def check(result: dict[str, Any]) -> bool:
        import statsmodels.api as sm

        x = rows.assign(stamp=rows["stamp"] - 1e9)[["age", "stamp"]]
        fit = sm.OLS(rows["chol"], sm.add_constant(x)).fit()
        found = {line["term"]: line["estimate"] for line in result["coefficients"]}
        return all(abs(found[name] - fit.params[name]) < 1e-4 * abs(fit.params[name]) for name in ("age", "stamp"))

    return Input(frames, linear("chol", features=["age", "stamp"]), right(check))


@first("A9", "very small numbers (1e-12 mol/L) are learned from as others are")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(chol=frame["chol"] * 1e-12) for name, frame in three().items()}
    rows = pooled(three())

    def check(result: dict[str, Any]) -> bool:
        scaled = [dict(line) for line in result["coefficients"]]
        for line in scaled:
            line["estimate"] = line["estimate"] * (1e-12 if line["term"] == "chol" else 1)
        return logit_is(rows)({"coefficients": scaled})

    return Input(frames, glm(), right(check))


# A11: data.where, and times of 0.


def _where(
    where: dict[str, Any], mask: Callable[[pd.DataFrame], Any], *patterns: str, **more: Any
) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        frames = {
            name: frame.assign(
                sex=np.where(frame["sbp"] % 2 == 0, "F", "M"), ward=np.array(["icu", "ccu", "ed"])[frame["sbp"] % 3]
            )
            for name, frame in three().items()
        }
        rows = pooled(frames)
        return Input(
            written(folder, csv(frames)),
            glm(where=where, **more),
            told("where", *patterns, right=logit_is(rows[mask(rows)])),
        )

    return make


for _name, _given, _mask in [
    ("age >= 60", {"age": ">= 60"}, lambda rows: rows["age"] >= 60),
    ("sex == F, a column of text", {"sex": "== F"}, lambda rows: rows["sex"] == "F"),
    ("two conditions on one column", {"age": [">= 50", "< 70"]}, lambda rows: rows["age"].between(50, 69.999)),
    (
        "any within all",
        {"any": [{"ward": "== icu"}, {"age": "> 70", "sex": "!= M"}]},
        lambda rows: (rows["ward"] == "icu") | ((rows["age"] > 70) & (rows["sex"] != "M")),
    ),
]:
    first("A11", _name)(_where(_given, _mask))


@first("A11", "a condition on a column with decimal commas, declared")
def _(folder: Path) -> Input:
    frames = three()
    rows = pooled(frames)
    texts = csv(frames, sep=";", decimal=",")
    experiment = glm(where={"chol": "<= 5.5"}, separator=";", decimal=",")
    return Input(written(folder, texts), experiment, told("where", right=logit_is(rows[rows["chol"] <= 5.5])))


@first("A11", "a condition on a date: words only are compared")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(admitted="2020-02-01") for name, frame in three().items()}
    return Input(
        written(folder, csv(frames)),
        glm(where={"admitted": ">= 2020-01-01"}),
        refused("where|admitted", "number", "date"),
    )


def _timed(zero: int) -> dict[str, pd.DataFrame]:
    """Return survival rows of which some have a time of `zero`."""
    frames = with_survival(three())
    return {name: frame.assign(days=frame["days"].mask(frame["sbp"] % 15 == 0, zero)) for name, frame in frames.items()}


@first("A11", "Cox's model with times of 0: as lifelines has it")
def _(folder: Path) -> Input:
    frames = _timed(0)
    return Input(frames, cox(), told("0", "days|time", right=cox_is(pooled(frames))))


@first("A11", "discrete time with times of 0: told and counted")
def _(folder: Path) -> Input:
    experiment = net({"duration": "days", "event": "event"}) | {
        "problem": {"kind": "survival", "method": "discrete_time", "intervals": 5}
    }
    return Input(_timed(0), experiment, told("time of 0|days.* 0", "first interval|at_zero"))


@first("A11", "times below 0 (death before the recorded admission)")
def _(folder: Path) -> Input:
    return Input(_timed(-1), cox(), refused("days", "below 0|negative", "where"))


@first("A11", "the same with the remedy that is named")
def _(folder: Path) -> Input:
    frames = _timed(-1)
    rows = pooled(frames)
    return Input(frames, cox(where={"days": ">= 0"}), told("where", right=cox_is(rows[rows["days"] >= 0])))
