"""The second sample, written after the mends that the first one led to and before any of it was run: 60 inputs."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, case, refused, right, told, told_or_refused
from tools.examine.first_columns import named
from tools.examine.patients import (
    COLUMNS,
    cox,
    cox_is,
    csv,
    glm,
    hospital,
    linear,
    logit_is,
    net,
    ols_is,
    pooled,
    sites_are,
    three,
    with_survival,
    written,
)

second = partial(case, "second")
LEAVE_OUT = {"participation": {"unfit": "leave_out", "minimum": 2}}


def _with(make: Callable[[pd.DataFrame], Any], seed: int = 2, **more: Callable[[pd.DataFrame], Any]) -> dict[str, Any]:
    """Return the hospitals with a column `extra`, made of each table; `more` are the makers of single sites."""
    return {name: frame.assign(extra=more.get(name, make)(frame)) for name, frame in three(seed).items()}


# A1: readers that guess move values.


@second("A1", "pg_dump's COPY text (tabs, \\N) in a file named .csv at every site")
def _(folder: Path) -> Input:
    return Input(written(folder, csv(three(2), sep="\t", na_rep="\\N")), glm(), refused("separator", r"\\t|tab"))


@second("A1", "the same with the separator said, \\N in a tenth of the cells")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(chol=frame["chol"].mask(frame["sbp"] % 10 == 0)) for name, frame in three(2).items()}
    texts = csv(frames, sep="\t", na_rep="\\N")
    return Input(written(folder, texts), glm(separator="\t"), told_or_refused("chol", r"\\N", "missing_values"))


@second("A1", "semicolons at the end of each line, header included (Excel's empty column)")
def _(folder: Path) -> Input:
    frames = three(2)
    texts = {name: "\n".join(line + "," for line in text.splitlines()) + "\n" for name, text in csv(frames).items()}
    return Input(written(folder, texts), glm(), right(logit_is(pooled(frames))))


@second("A1", "an export in two pieces, joined: the header stands again in line 90")
def _(folder: Path) -> Input:
    texts = csv(three(2))
    lines = texts["b"].splitlines()
    texts["b"] = "\n".join([*lines[:89], lines[0], *lines[89:]]) + "\n"
    return Input(written(folder, texts), glm(), refused(r"\bb\b", "90|header"))


@second("A1", "gzip, Windows line ends and a mark of byte order: read")
def _(folder: Path) -> Input:
    frames = three(2)
    paths = {}
    for name, text in csv(frames).items():
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(("\ufeff" + text.replace("\n", "\r\n")).encode()))
        paths[name] = str(folder / f"{name}.csv.gz")
    return Input(paths, glm(), right(logit_is(pooled(frames))))


@second("A1", "a lone quote for inches in a remark (5' 11\") in one line")
def _(folder: Path) -> Input:
    texts = csv({name: frame.assign(remark="none")[["remark", *frame.columns]] for name, frame in three(2).items()})
    lines = texts["a"].splitlines()
    lines[40] = '"tall, 5\' 11"", seen' + lines[40].removeprefix("none")
    return Input(written(folder, texts | {"a": "\n".join(lines) + "\n"}), glm(), refused(r"\ba\b", "quote|line"))


# A2: columns leave without a word.


@second("A2", "hours and minutes (7:30) of stay")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: [f"{value // 20}:{value % 60:02d}" for value in frame["sbp"]])
    return Input(written(folder, csv(frames)), glm(), told("extra", "time|date", right=logit_is(pooled(three(2)))))


@second("A2", "a range in place of an age ('60-64')")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: [f"{int(value) // 5 * 5}-{int(value) // 5 * 5 + 4}" for value in frame["age"]])
    return Input(written(folder, csv(frames)), glm(), told("extra", right=logit_is(pooled(three(2)))))


@second("A2", "CTCAE grades as 'Grade 2'")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: [f"Grade {value % 4}" for value in frame["sbp"]])
    return Input(written(folder, csv(frames)), glm(), told("extra", "categorical", right=logit_is(pooled(three(2)))))


@second("A2", "'2 pack-years' and 'never smoked' in one column")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: ["never smoked" if v % 5 == 0 else f"{v % 40} pack-years" for v in frame["sbp"]])
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "number|unit"))


@second("A2", "Excel's text cells: numbers stored as text with an apostrophe in front")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: [f"'{value}" for value in frame["chol"]])
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "quot|number"))


@second("A2", "one word ('hemolytisch') in one cell of one site, numbers elsewhere")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: frame["chol"] * 2)
    frames["b"] = frames["b"].astype({"extra": object})
    frames["b"].loc[7, "extra"] = "hemolytisch"
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", r"\bb\b", "words|missing_values"))


# A3: sites leave without a word.


@second("A3", "two of three sites unfit, minimum 2")
def _(folder: Path) -> Input:
    frames = {"a": three(2)["a"], "b": hospital(3, 5), "c": three(2)["c"].drop(columns="died")}
    return Input(frames, glm() | LEAVE_OUT, refused(r"\bb\b", r"\bc\b", "died"))


@second("A3", "five folds of a site with two events")
def _(folder: Path) -> Input:
    frames = three(2)
    frames["c"] = frames["c"].assign(died=(np.arange(150) < 2).astype(int))
    return Input(frames, net() | {"split": {"kind": "kfold", "folds": 5}}, right(sites_are("a", "b", "c")))


@second("A3", "a site whose Excel book has two tables")
def _(folder: Path) -> Input:
    frames = three(2)
    with pd.ExcelWriter(folder / "c.xlsx") as book:
        frames["c"].to_excel(book, sheet_name="2019", index=False)
        frames["c"].to_excel(book, sheet_name="2020", index=False)
    sites = written(folder, csv({name: frames[name] for name in "ab"})) | {"c": str(folder / "c.xlsx")}
    return Input(sites, glm(), refused(r"\bc\b", "2019", "2020", "sheet_name"))


@second("A3", "leave-one-site-out where one site has 11 rows")
def _(folder: Path) -> Input:
    frames = three(2) | {"c": hospital(9, 11)}
    return Input(frames, net() | {"split": "leave_one_site_out"}, told_or_refused(r"\bc\b"))


@second("A3", "missing: drop leaves 6 rows of one site")
def _(folder: Path) -> Input:
    frames = three(2)
    frames["b"] = frames["b"].assign(chol=frames["b"]["chol"].where(frames["b"].index < 6))
    return Input(frames, glm(missing="drop"), told_or_refused(r"\bb\b"))


# A4: labels and categories spelled differently.


@second("A4", "German umlauts written out at one site (weiblich, männlich; maennlich)")
def _(folder: Path) -> Input:
    words = partial(np.array, dtype=object)
    frames = _with(
        lambda frame: words(["weiblich", "männlich"])[frame["sbp"] % 2],
        b=lambda frame: words(["weiblich", "maennlich"])[frame["sbp"] % 2],
    )
    return Input(
        written(folder, csv(frames)),
        net(categorical=["extra"]),
        told_or_refused("extra", "each have a label that the other lacks"),
    )


@second("A4", "the outcome is 0/1 in two sites and 0/1/9 (unknown) in the third")
def _(folder: Path) -> Input:
    frames = three(2)
    frames["c"].loc[frames["c"]["sbp"] % 9 == 0, "died"] = 9
    return Input(frames, net(), told_or_refused("9", "missing_values"))


@second("A4", "event of survival as 1/2 (1 censored, 2 dead, as in R's lung) at one site")
def _(folder: Path) -> Input:
    frames = with_survival(three(2))
    frames["b"] = frames["b"].assign(event=frames["b"]["event"] + 1)
    return Input(frames, cox(), told_or_refused(r"\bb\b", "event", "1"))


@second("A4", "smoking 'Current' with a full stop at one site ('Current.')")
def _(folder: Path) -> Input:
    words = partial(np.array, dtype=object)
    frames = _with(
        lambda frame: words(["Current", "Never", "Former"])[frame["sbp"] % 3],
        c=lambda frame: words(["Current.", "Never", "Former"])[frame["sbp"] % 3],
    )
    return Input(written(folder, csv(frames)), net(categorical=["extra"]), told_or_refused("extra", r"Current\."))


@second("A4", "'non-smoker' with a hyphen here and a dash there")
def _(folder: Path) -> Input:
    words = partial(np.array, dtype=object)
    frames = _with(
        lambda frame: words(["smoker", "non-smoker"])[frame["sbp"] % 2],
        b=lambda frame: words(["smoker", "non\u2013smoker"])[frame["sbp"] % 2],
    )
    return Input(written(folder, csv(frames)), net(categorical=["extra"]), told_or_refused("extra", r"\bb\b"))


@second("A4", "where: {sex: '== v'} and one site writes V")
def _(folder: Path) -> Input:
    words = partial(np.array, dtype=object)
    frames = _with(
        lambda frame: words(["v", "m"])[frame["sbp"] % 2], c=lambda frame: words(["V", "M"])[frame["sbp"] % 2]
    )
    return Input(written(folder, csv(frames)), glm(where={"extra": "== v"}), refused("extra|where", r"\bc\b"))


# A5: what is empty.


@second("A5", "a space that does not break alone in a cell of a category: empty")
def _(folder: Path) -> Input:
    words = np.array(["low", "high", "\u00a0"], dtype=object)
    frames = _with(lambda frame: words[frame["sbp"] % 3])
    wanted = {"extra": ["high", "low"]}
    return Input(
        written(folder, csv(frames)),
        net(categorical=["extra"]),
        right(lambda r: r["preparation"]["categories"] == wanted),
    )


@second("A5", "SPSS's user-missing 99 in a score of 0 to 10")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: (frame["sbp"] % 11).where(frame["chol"] < 6.5, 99))
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "missing_values"))


@second("A5", "REDCap's 'Unknown' (code -1) in a yes/no")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: (frame["sbp"] % 2).where(frame["chol"] < 6.5, -1))
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "-1|code|missing_values"))


@second("A5", "1900-01-01 style zero: a weight of 0 for not weighed")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: (frame["bmi"] * 2.9).round(1).where(frame["sbp"] % 8 != 0, 0.0))
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "missing_values"))


@second("A5", "an R factor's <NA> and Julia's missing in one column of labels")
def _(folder: Path) -> Input:
    words = np.array(["I", "II", "III", "<NA>", "missing"], dtype=object)
    frames = _with(lambda frame: words[frame["sbp"] % 5])
    return Input(written(folder, csv(frames)), net(categorical=["extra"]), told_or_refused("extra", "missing"))


@second("A5", "None in a parquet of strings, the word 'None' in another site's csv (no treatment)")
def _(folder: Path) -> Input:
    words = np.array(["chemo", "None", "radio"], dtype=object)
    frames = _with(lambda frame: words[frame["sbp"] % 3])
    frames["c"].to_parquet(folder / "c.parquet")
    sites = written(folder, csv({name: frames[name] for name in "ab"})) | {"c": str(folder / "c.parquet")}
    return Input(sites, net(categorical=["extra"]), told("extra", "None", "not_missing"))


# A6: empty at one site, infinities.


@second("A6", "an indicator (0/1) that is empty at two of three sites")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: frame["sbp"] % 2, b=lambda frame: np.nan, c=lambda frame: np.nan)
    return Input(written(folder, csv(frames)), glm(), told("extra", r"\bb\b", r"\bc\b", "no row has a value"))


@second("A6", "a column filled in a fifth of the rows at every site")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: frame["chol"].where(frame.index % 5 == 0))
    return Input(written(folder, csv(frames)), glm(), told("extra", "third"))


@second("A6", "an infinite target of a regression in three rows")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: (frame["chol"] * 3).mask(frame["sbp"] % 40 == 0, np.inf))
    return Input(frames, linear("extra", exclude=["died"]), told_or_refused("extra|target", "infinit|no target"))


@second("A6", "an outlier of 1e30 (a broken sensor) in one row")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: frame["bmi"] * 1.5)
    frames["a"].loc[3, "extra"] = 1e30
    return Input(frames, net(), told_or_refused("extra", r"\ba\b"))


@second("A6", "a decimal column of float16 in parquet that overflowed to inf")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: (frame["bmi"] * 2500).astype("float16").astype("float32"))
    return Input(frames, glm(), told_or_refused("extra", "infinit"))


# A7: the positive class.


def _labelled(no: Any, yes: Any, expected: str, **data: Any) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        frames = {name: frame.assign(died=frame["died"].map({0: no, 1: yes})) for name, frame in three(2).items()}
        return Input(written(folder, csv(frames)), net(**data), right(named(expected)))

    return make


for _name, _no, _yes, _expected, _data in [
    ("malin and bénin (accents)", "bénin", "malin", "malin", {}),
    ("2 is the event, 1 is none: positive '== 2'", 1, 2, "== 2", {"positive": "== 2"}),
    ("'No event' and 'Event', with spaces", "No event", "Event", "No event", {}),
    ("< 30 days and >= 30 days", "< 30 days", ">= 30 days", ">= 30 days", {}),
]:
    second("A7", _name)(_labelled(_no, _yes, _expected, **_data))


@second("A7", "GLM: odds ratios of case and control name the class")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(died=frame["died"].map({0: "control", 1: "case"})) for name, frame in three(2).items()}
    return Input(written(folder, csv(frames)), glm(), told("control", "positive"))


# A8: identifiers.


def _identified(column: str, make: Callable[[pd.DataFrame, int], Any]) -> Callable[[Path], Input]:
    def write(folder: Path) -> Input:
        made = {
            name: frame.assign(**{column: make(frame, number)}) for number, (name, frame) in enumerate(three(2).items())
        }
        return Input(written(folder, csv(made)), glm(), told(column, right=logit_is(pooled(three(2)))))

    return write


for _name, _column, _of in [
    ("Epic: PAT_MRN_ID", "PAT_MRN_ID", lambda frame, number: 1000 + frame.index * 3),
    ("Spanish: numero_historia", "numero_historia", lambda frame, number: 40000 + frame.index * 7 + number),
    ("SQL Server: RowNumber", "RowNumber", lambda frame, number: frame.index + 1),
    ("Dutch: PATIENTNR", "PATIENTNR", lambda frame, number: 5000000 + frame.index // 2),
    ("Italian: codice_paziente", "codice_paziente", lambda frame, number: 100 + frame.index),
    ("OMOP: person_id and visit_occurrence_id", "visit_occurrence_id", lambda frame, number: 90000 + frame.index // 3),
]:
    second("A8", _name)(_identified(_column, _of))


@second("A8", "ferritin in whole numbers, skewed, is a measurement")
def _(folder: Path) -> Input:
    rng = np.random.default_rng(8)
    values = np.unique(np.exp(rng.normal(5.3, 1.1, 5000)).astype(int) + 5)
    weights = np.exp(-((np.log(values) - 5.3) ** 2) / 2.4) / values
    frames = _with(lambda frame: rng.choice(values, len(frame), replace=False, p=weights / weights.sum()))
    return Input(written(folder, csv(frames)), glm(), right(logit_is(pooled(frames), [*COLUMNS, "extra"])))


# A9: large offsets.


@second("A9", "nanoseconds since 1970 (int64) as a feature of a network")
def _(folder: Path) -> Input:
    plain = {name: frame.drop(columns="chol").assign(when=frame["chol"]) for name, frame in three(7).items()}
    moved = {
        name: frame.assign(when=1_600_000_000_000_000_000 + (frame["when"] * 1e15).astype("int64"))
        for name, frame in plain.items()
    }
    experiment = net(rounds=4) | {"model": {"kind": "logistic"}}

    def check(result: dict[str, Any]) -> bool:
        from tools.examine.__main__ import run_input

        reference = run_input(Input(plain, experiment, refused()), folder, "trusted")
        return abs(result["metrics"]["test"]["pooled"]["loss"] - reference["metrics"]["test"]["pooled"]["loss"]) < 2e-3

    return Input(moved, experiment, Expected(right=check, seeded=True))


@second("A9", "Cox with a covariate at 1e8: coefficients of lifelines, centred")
def _(folder: Path) -> Input:
    frames = with_survival(three(2))
    moved = {name: frame.assign(chol=frame["chol"] + 1e8) for name, frame in frames.items()}
    return Input(moved, cox(), right(cox_is(pooled(frames))))


@second("A9", "a GLM with a spline over a year (2010.5) and an offset of 2000")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(year=2000 + frame["age"] / 10) for name, frame in three(2).items()}
    rows = pooled(frames)

    def check(result: dict[str, Any]) -> bool:
        return bool(np.isfinite([line["estimate"] for line in result["coefficients"]]).all()) and len(rows) > 0

    experiment = glm(features=["year", "sbp"])
    experiment["model"] = {"kind": "glm", "splines": {"year": 4}}
    return Input(frames, experiment, right(check))


# A10: smaller.


@second("A10", "YAML: features that read as numbers ([2019, 2020])")
def _(folder: Path) -> Input:
    frames = {name: frame.rename(columns={"sbp": "2019", "chol": "2020"}) for name, frame in three(2).items()}
    written(folder, csv(frames))
    text = "sites: {a: a.csv, b: b.csv, c: c.csv}\ndata: {target: died, features: [2019, 2020]}\nrounds: 2\n"
    wanted = ["2019", "2020"]
    expected = Expected(
        refused=("features", "quotes|text|string"), right=lambda r: r["preparation"]["features"] == wanted
    )
    return Input(None, text, expected)


@second("A10", "positive: '== 1.0' where tables hold 1")
def _(folder: Path) -> Input:
    frames = three(2)
    return Input(written(folder, csv(frames)), glm(positive="== 1.0"), right(logit_is(pooled(frames))))


@second("A10", "positive: '== true' where one site has TRUE, another 1")
def _(folder: Path) -> Input:
    frames = three(2)
    texts = csv(frames | {"c": frames["c"].assign(died=frames["c"]["died"].map({1: "TRUE", 0: "FALSE"}))})
    expected = Expected(refused=(r"\b[abc]\b", "true|positive"), right=logit_is(pooled(frames)))
    return Input(written(folder, texts), glm(positive="== true"), expected)


@second("A10", "Mac Roman bytes in one site's header (ä)")
def _(folder: Path) -> Input:
    frames = {name: frame.rename(columns={"bmi": "Größe"}) for name, frame in three(2).items()}
    texts: dict[str, Any] = dict(csv(frames))
    texts["a"] = frames["a"].to_csv(index=False).encode("mac_roman")
    return Input(written(folder, texts), glm(), refused(r"sites\.a", "encoding"))


@second("A10", "an xlsx that is protected by a password (an OLE file)")
def _(folder: Path) -> Input:
    sites = written(folder, csv({name: frame for name, frame in three(2).items() if name != "c"}))
    (folder / "c.xlsx").write_bytes(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000) + "EncryptedPackage".encode("utf-16-le")
    )
    return Input(sites | {"c": str(folder / "c.xlsx")}, glm(), refused(r"\bc\b", "c.xlsx", "password"))


@second("A10", "an integer column of pyarrow with nulls in a dataframe")
def _(folder: Path) -> Input:
    frames = {
        name: frame.assign(sbp=frame["sbp"].astype("int64[pyarrow]").mask(frame["chol"] > 6.3))
        for name, frame in three(2).items()
    }
    rows = pooled(frames).astype({"sbp": "float64"}).dropna()
    return Input(frames, glm(missing="drop"), right(logit_is(rows)))


# A11: where, times of 0.


@second("A11", "where on a column that is then left out of the features")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: frame["sbp"] % 4)
    rows = pooled(frames)
    experiment = glm(where={"extra": ["> 0", "<= 2"]}, exclude=["extra"])
    return Input(frames, experiment, told("where", right=logit_is(rows[rows["extra"].isin([1, 2])])))


@second("A11", "where: {chol: '!= 5'} and empty cells: they meet none")
def _(folder: Path) -> Input:
    frames = {
        name: frame.assign(chol=frame["chol"].round().mask(frame["sbp"] % 9 == 0)) for name, frame in three(2).items()
    }
    rows = pooled(frames)
    kept = rows[rows["chol"].notna() & (rows["chol"] != 5)]
    return Input(written(folder, csv(frames)), glm(where={"chol": "!= 5"}), told("where", right=logit_is(kept)))


@second("A11", "where names a column that one site lacks")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: frame["sbp"] % 2)
    frames["b"] = frames["b"].drop(columns="extra")
    return Input(frames, glm(where={"extra": "== 1"}), refused(r"\bb\b", "extra", "where"))


@second("A11", "where: a number in words for a text column ({sex: '> 0'})")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: np.where(frame["sbp"] % 2 == 0, "F", "M"))
    return Input(written(folder, csv(frames)), glm(where={"extra": "> 0"}), refused("extra", "number|text"))


@second("A11", "times of 0 and at_zero: leave_out in Cox")
def _(folder: Path) -> Input:
    frames = {
        name: frame.assign(days=frame["days"].mask(frame["sbp"] % 8 == 0, 0))
        for name, frame in with_survival(three(2)).items()
    }
    rows = pooled(frames)
    experiment = cox() | {"problem": {"kind": "survival", "at_zero": "leave_out"}}
    return Input(frames, experiment, told("time of 0", "left out", right=cox_is(rows[rows["days"] > 0])))


@second("A11", "a clean linear regression: right, and nothing is said of the tables")
def _(folder: Path) -> Input:
    frames = three(2)
    check = ols_is(pooled(frames), ["age", "sbp", "bmi"], "chol")
    experiment = linear("chol", features=["age", "sbp", "bmi"])
    return Input(frames, experiment, Expected(right=lambda r: check(r) and len(r["notes"]) <= 1, seeded=True))
