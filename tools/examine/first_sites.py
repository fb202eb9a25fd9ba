"""The first sample, kinds A3, A4 and A6: sites that leave, spell otherwise, or have nothing in a column."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Input, case, refused, right, told, told_or_refused
from tools.examine.patients import COLUMNS, csv, glm, hospital, logit_is, net, pooled, three, written

first = partial(case, "first")
LEAVE_OUT = {"participation": {"unfit": "leave_out", "minimum": 2}}


# A3: sites leave without a word.


@first("A3", "a site of 8 rows, sites that do not fit are left out")
def _(folder: Path) -> Input:
    frames = three() | {"c": hospital(3, 8)}
    return Input(
        frames,
        glm() | LEAVE_OUT,
        told("'c' took no part", right=logit_is(pooled({"a": frames["a"], "b": frames["b"]}))),
    )


@first("A3", "a site of 8 rows, without that option")
def _(folder: Path) -> Input:
    return Input(three() | {"c": hospital(3, 8)}, glm(), told_or_refused(r"\bc\b", "8|10|rows"))


@first("A3", "ten folds of a site with 20 rows")
def _(folder: Path) -> Input:
    frames = three() | {"b": hospital(4, 20)}
    return Input(frames, net() | {"split": {"kind": "kfold", "folds": 10}}, told_or_refused(r"\bb\b", "fold|part"))


@first("A3", "a site where nobody died")
def _(folder: Path) -> Input:
    frames = three()
    frames["c"] = frames["c"].assign(died=0)
    return Input(frames, net(), told_or_refused(r"\bc\b", "class|label|died"))


@first("A3", "a site calls a column of features otherwise (BMI)")
def _(folder: Path) -> Input:
    frames = three()
    frames["c"] = frames["c"].rename(columns={"bmi": "BMI"})
    return Input(frames, glm(features=COLUMNS), refused(r"\bc\b", "bmi", "BMI"))


@first("A3", "a site's file is empty (0 bytes)")
def _(folder: Path) -> Input:
    return Input(written(folder, csv(three()) | {"c": ""}), glm(), refused(r"\bc\b", "empty|no header|nothing"))


@first("A3", "a site's file has a header and no rows, sites that do not fit are left out")
def _(folder: Path) -> Input:
    texts = csv(three())
    texts["c"] = texts["c"].splitlines()[0] + "\n"
    return Input(
        written(folder, texts), glm() | LEAVE_OUT, told("'c' took no part", "no rows|0 rows|without rows|fewer")
    )


@first("A3", "a site's outcome is blank in every row")
def _(folder: Path) -> Input:
    frames = three()
    frames["b"] = frames["b"].assign(died=np.nan)
    return Input(written(folder, csv(frames)), glm(), told_or_refused(r"\bb\b", "died|target"))


@first("A3", "data.where leaves 4 rows of one site, sites that do not fit are left out")
def _(folder: Path) -> Input:
    frames = three()
    frames["c"] = frames["c"].assign(age=[80.0] * 4 + [30.0] * 146)
    kept = pooled({name: frames[name] for name in "ab"})
    experiment = glm(where={"age": ">= 60"}) | LEAVE_OUT
    return Input(frames, experiment, told("'c' took no part", right=logit_is(kept[kept["age"] >= 60])))


@first("A3", "a site's 'xls' is HTML, as web portals write it")
def _(folder: Path) -> Input:
    frames = three()
    (folder / "c.xls").write_text(frames["c"].to_html(index=False))
    sites = written(folder, csv({name: frames[name] for name in "ab"})) | {"c": str(folder / "c.xls")}
    return Input(sites, glm(), refused(r"\bc\b", "html|web page|not an Excel|no Excel"))


# A4: labels and categories spelled differently.


def _outcome(words: dict[str, dict[int, Any]]) -> dict[str, pd.DataFrame]:
    """Return the hospitals with the outcome in each one's words."""
    return {name: frame.assign(died=frame["died"].map(words.get(name, words["a"]))) for name, frame in three().items()}


def _category(**words: list[Any]) -> dict[str, pd.DataFrame]:
    """Return the hospitals with a column `extra` in each one's words."""
    return {
        name: frame.assign(extra=np.array(words.get(name, words["a"]), dtype=object)[frame["sbp"] % len(words["a"])])
        for name, frame in three().items()
    }


@first("A4", "ALIVE and DEAD at one site, Alive and Dead at the others")
def _(folder: Path) -> Input:
    frames = _outcome({"a": {0: "Alive", 1: "Dead"}, "b": {0: "ALIVE", 1: "DEAD"}})
    return Input(written(folder, csv(frames)), net(), refused("DEAD", "Dead", r"\bb\b"))


@first("A4", "man and vrouw at one site, male and female at the others (categorical)")
def _(folder: Path) -> Input:
    frames = _category(a=["female", "male"], c=["vrouw", "man"])
    return Input(written(folder, csv(frames)), net(categorical=["extra"]), refused("extra", "vrouw", "female"))


@first("A4", "diabetes as 1 and 2 (SPSS) at one site, 0 and 1 at the others, a number")
def _(folder: Path) -> Input:
    frames = _category(a=[0, 1], b=[1, 2])
    frames = {name: frame.astype({"extra": int}) for name, frame in frames.items()}
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", r"\bb\b"))


@first("A4", "'ja ' with a space behind at one site; positive is '== ja'")
def _(folder: Path) -> Input:
    frames = _outcome({"a": {0: "nee", 1: "ja"}, "c": {0: "nee ", 1: "ja "}})
    expected = told_or_refused("ja", r"\bc\b")
    return Input(
        written(folder, csv(frames)),
        glm(positive="== ja"),
        type(expected)(refused=expected.refused, right=logit_is(pooled(three()))),
    )


@first("A4", "True and False from parquet at one site, 1 and 0 in csv at the others")
def _(folder: Path) -> Input:
    frames = three()
    sites = written(folder, csv({name: frames[name] for name in "ab"}))
    frames["c"].astype({"died": bool}).to_parquet(folder / "c.parquet")
    expected = told_or_refused("True|true", r"\bc\b")
    return Input(
        sites | {"c": str(folder / "c.parquet")},
        glm(),
        type(expected)(refused=expected.refused, right=logit_is(pooled(frames))),
    )


@first("A4", "a macOS site writes é in two characters")
def _(folder: Path) -> Input:
    frames = _category(a=["Hôpital", "Médecine"], b=["Ho\u0302pital", "Me\u0301decine"])
    return Input(
        written(folder, csv(frames)), net(categorical=["extra"]), refused("extra", r"\bb\b", "Unicode|spell|accent")
    )


@first("A4", "stages in Roman figures at one site, Arabic at the others")
def _(folder: Path) -> Input:
    frames = _category(a=["1", "2", "3"], c=["I", "II", "III"])
    return Input(written(folder, csv(frames)), net(categorical=["extra"]), refused("extra", r"\bc\b", "III"))


@first("A4", "the outcome as 0.0 and 1.0 at a site whose column once had blanks")
def _(folder: Path) -> Input:
    frames = three()
    texts = csv(frames | {"b": frames["b"].astype({"died": float})})
    return Input(written(folder, texts), glm(), right(logit_is(pooled(frames))))


@first("A4", "Y and N at one site, Yes and No at the others, as the outcome")
def _(folder: Path) -> Input:
    frames = _outcome({"a": {0: "No", 1: "Yes"}, "c": {0: "N", 1: "Y"}})
    return Input(written(folder, csv(frames)), net(), refused("Yes", r"\bc\b"))


@first("A4", "positive '>= 3' where one site's scale ends at 2")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(mrs=frame["sbp"] % 6) for name, frame in three().items()}
    frames["b"] = frames["b"].assign(mrs=frames["b"]["sbp"] % 3)
    frames = {name: frame.drop(columns="died") for name, frame in frames.items()}
    return Input(frames, net("mrs", positive=">= 3"), told_or_refused(r"\bb\b", ">= 3", "no row"))


# A6: a feature that is empty at one site, infinities, values over float32.


@first("A6", "cholesterol is blank in every row of one site")
def _(folder: Path) -> Input:
    frames = three()
    frames["c"] = frames["c"].assign(chol=np.nan)
    rows = pooled(frames)
    check = logit_is(rows.fillna({"chol": rows["chol"].mean()}))
    return Input(written(folder, csv(frames)), glm(), told(r"\bc\b", "chol", "empty|no value|filled", right=check))


@first("A6", "infinities in a dataframe (a ratio with 0 below)")
def _(folder: Path) -> Input:
    frames = {
        name: frame.assign(ratio=(frame["chol"] / (frame["sbp"] % 20)).astype(float)) for name, frame in three().items()
    }
    return Input(frames, glm(), told_or_refused("ratio", "infinit"))


@first("A6", "'Inf' and '-Inf' in R's csv of one site")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(logcrp=np.log(frame["bmi"])) for name, frame in three().items()}
    frames["b"].loc[frames["b"]["sbp"] % 10 == 0, "logcrp"] = -np.inf
    texts = csv(frames)
    texts["b"] = texts["b"].replace("-inf", "-Inf")
    return Input(written(folder, texts), glm(), told_or_refused("logcrp", r"\bb\b", "infinit"))


@first("A6", "9.99E+307, SAS's largest, for unknown at one site")
def _(folder: Path) -> Input:
    frames = three()
    frames["c"].loc[frames["c"]["sbp"] % 10 == 0, "chol"] = 9.99e307
    return Input(written(folder, csv(frames)), glm(), told_or_refused("chol", r"\bc\b"))


@first("A6", "values of 1e39, over float32, in a network")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(copies=frame["bmi"] * 1e39) for name, frame in three().items()}
    return Input(frames, net(), told_or_refused("copies", "float32|large"))


@first("A6", "a column with 3 of 130 cells filled at one site")
def _(folder: Path) -> Input:
    frames = three()
    frames["b"] = frames["b"].assign(bmi=frames["b"]["bmi"].where(frames["b"].index < 3))
    return Input(written(folder, csv(frames)), glm(), told(r"\bb\b", "bmi"))


@first("A6", "a column that one site does not have, features not named")
def _(folder: Path) -> Input:
    frames = three()
    frames["c"] = frames["c"].drop(columns="bmi")
    return Input(frames, glm(), told(r"\bc\b", "bmi", right=logit_is(pooled(frames), ["age", "sbp", "chol"])))


@first("A6", "#DIV/0! in a fifth of an Excel column at one site")
def _(folder: Path) -> Input:
    frames = three()
    table = frames["a"].astype({"chol": object})
    table.loc[table["sbp"] % 5 == 0, "chol"] = "#DIV/0!"
    table.to_excel(folder / "a.xlsx", index=False)
    sites = written(folder, csv({name: frames[name] for name in "bc"})) | {"a": str(folder / "a.xlsx")}
    return Input(sites, glm(), told_or_refused("chol", r"\ba\b", "DIV|error"))


@first("A6", "a category that is blank in every row of one site")
def _(folder: Path) -> Input:
    frames = _category(a=["low", "high"], b=[None, None])
    return Input(
        written(folder, csv(frames)),
        net(categorical=["extra"]),
        told_or_refused(r"\bb\b", "extra", "empty|no row has a value"),
    )


@first("A6", "a column that is blank at every site")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(crp=np.nan) for name, frame in three().items()}
    return Input(written(folder, csv(frames)), glm(), told("crp", "empty", right=logit_is(pooled(three()))))
