"""The first sample, kinds A1, A2, A5 and A10: how exports of hospitals' programs are written."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, case, refused, right, told, told_or_refused
from tools.examine.patients import (
    csv,
    glm,
    logit_is,
    net,
    pooled,
    three,
    written,
)

first = partial(case, "first")


# A1: readers that guess move values.


@first("A1", "R's write.table, whose header lacks the column of row names, at every site")
def _(folder: Path) -> Input:
    texts = {name: frame.rename(lambda row: row + 1).to_csv(sep=" ") for name, frame in three().items()}
    texts = {name: text.removeprefix('""').lstrip(" ") for name, text in texts.items()}
    return Input(written(folder, texts), glm(separator=" "), refused("line 2", "header|row names"))


@first("A1", "SAS's data step leaves a comma at the end of each data line of one site")
def _(folder: Path) -> Input:
    texts = csv(three())
    head, *lines = texts["b"].splitlines()
    texts["b"] = "\n".join([head, *(line + "," for line in lines)]) + "\n"
    return Input(written(folder, texts), glm(), refused(r"\bb\b", "line 2"))


@first("A1", "one site wrote with R's write.csv2 (semicolons, decimal commas)")
def _(folder: Path) -> Input:
    frames = three()
    texts = csv(frames) | {"b": frames["b"].to_csv(index=False, sep=";", decimal=",")}
    return Input(written(folder, texts), glm(), refused(r"sites\.b", "separator", "decimal"))


@first("A1", "one remark with a comma that nobody quoted, in line 57 of one site")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(remark="stable") for name, frame in three().items()}
    texts = csv(frames)
    lines = texts["c"].splitlines()
    lines[56] += ", wants second opinion"
    return Input(written(folder, texts | {"c": "\n".join(lines) + "\n"}), glm(), refused(r"\bc\b", "line 57"))


@first("A1", "REDCap's notes field with line breaks and commas inside quotes: valid, and read")
def _(folder: Path) -> Input:
    frames = three()
    noted = {name: frame.assign(notes='seen,\nagain "soon"') for name, frame in frames.items()}
    return Input(written(folder, csv(noted)), glm(), told("notes", right=logit_is(pooled(frames))))


@first("A1", "Epic's Clarity export with vertical bars at every site")
def _(folder: Path) -> Input:
    return Input(written(folder, csv(three(), sep="|")), glm(), refused("separator", r"\|"))


@first("A1", "one site's columns in another order: read by name")
def _(folder: Path) -> Input:
    frames = three()
    texts = csv(frames | {"c": frames["c"][["died", "bmi", "age", "chol", "sbp"]]})
    return Input(written(folder, texts), glm(), right(logit_is(pooled(frames))))


@first("A1", "an export that broke off in the middle of its last line")
def _(folder: Path) -> Input:
    texts = csv(three())
    texts["a"] = texts["a"].rstrip("\n").rsplit(",", 3)[0]
    return Input(written(folder, texts), glm(), refused(r"\ba\b", "line 161"))


@first("A1", "HiX wrote tabs into a file named .csv at one site")
def _(folder: Path) -> Input:
    frames = three()
    texts = csv(frames) | {"c": frames["c"].to_csv(index=False, sep="\t")}
    return Input(written(folder, texts), glm(), refused(r"sites\.c", "separator", r"\\t|tab"))


@first("A1", "an unquoted thousand (1,234) in one line of a comma file")
def _(folder: Path) -> Input:
    texts = csv({name: frame.assign(ntprobnp=frame["sbp"] * 3) for name, frame in three().items()})
    lines = texts["b"].splitlines()
    lines[99] = lines[99].rsplit(",", 1)[0] + ",1,234"
    return Input(written(folder, texts | {"b": "\n".join(lines) + "\n"}), glm(), refused(r"\bb\b", "line 100"))


# A2: columns leave without a word.


def _with(make: object) -> dict[str, pd.DataFrame]:
    """Return the three hospitals with one more column, made of each table."""
    return {name: frame.assign(extra=make(frame)) for name, frame in three().items()}  # type: ignore[operator]


@first("A2", "a decimal comma in one quoted column at every site (Excel, Dutch)")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: (frame["bmi"] + 0.5).map(lambda value: f"{value:.1f}".replace(".", ",")))
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "decimal"))


@first("A2", "a lab's limit of detection (<0.10) in a tenth of the cells")
def _(folder: Path) -> Input:
    def troponin(frame: pd.DataFrame) -> list[str]:
        return ["<0.10" if row % 10 == 3 else f"{value / 100:.2f}" for row, value in enumerate(frame["bmi"])]

    return Input(written(folder, csv(_with(troponin))), glm(), told_or_refused("extra", "<|limit"))


@first("A2", "ejection fraction as '45 %' with a space that does not break")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: [f"{value:.0f}\u00a0%" for value in frame["bmi"] * 2])
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "%|percent"))


@first("A2", "a unit in every cell ('5.2 mmol/L') at every site")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: [f"{value:.1f} mmol/L" for value in frame["bmi"] / 5])
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "unit|number"))


@first("A2", "Swiss thousands (1'234) at every site")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: [f"{value * 37:,.0f}".replace(",", "'") for value in frame["bmi"]])
    return Input(written(folder, csv(frames)), glm(), told_or_refused("extra", "thousands"))


@first("A2", "German dates of admission (12.03.2019)")
def _(folder: Path) -> Input:
    def dates(frame: pd.DataFrame) -> pd.Series:
        return pd.Series(pd.Timestamp("2018-01-01") + pd.to_timedelta(frame["sbp"] * 5, unit="D")).dt.strftime(
            "%d.%m.%Y"
        )

    frames = three()
    return Input(written(folder, csv(_with(dates))), glm(), told("extra", "date", right=logit_is(pooled(frames))))


@first("A2", "sex as M and V, not named in categorical")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: np.where(frame["sbp"] % 2 == 0, "M", "V"))
    return Input(written(folder, csv(frames)), glm(), told("extra", "categorical", right=logit_is(pooled(three()))))


@first("A2", "yes and no in Dutch, with a blank where unknown")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: np.where(frame["sbp"] % 3 == 0, "ja", np.where(frame["sbp"] % 3 == 1, "nee", "")))
    return Input(written(folder, csv(frames)), glm(), told("extra", "categorical", right=logit_is(pooled(three()))))


@first("A2", "spaces around numbers, some of which do not break: numbers all the same")
def _(folder: Path) -> Input:
    frames = three()
    spaced = {name: frame.assign(chol=[f" {value}\u00a0" for value in frame["chol"]]) for name, frame in frames.items()}
    return Input(written(folder, csv(spaced)), glm(), right(logit_is(pooled(frames))))


@first("A2", "counts with a word behind ('3 episodes', '1 episode')")
def _(folder: Path) -> Input:
    def episodes(frame: pd.DataFrame) -> list[str]:
        return [f"{value % 5} episode{'' if value % 5 == 1 else 's'}" for value in frame["sbp"]]

    return Input(written(folder, csv(_with(episodes))), glm(), told_or_refused("extra", "number|unit"))


# A5: what is empty depends on the file's format.


@first("A5", "the same holes: blank in csv, null in parquet, NULL in SQLite")
def _(folder: Path) -> Input:
    frames = {name: frame.assign(chol=frame["chol"].mask(frame["sbp"] % 9 == 0)) for name, frame in three().items()}
    sites: dict[str, object] = dict(written(folder, csv({"a": frames["a"]})))
    frames["b"].to_parquet(folder / "b.parquet")
    with sqlite3.connect(folder / "c.sqlite") as connection:
        frames["c"].to_sql("patients", connection, index=False)
    connection.close()
    sites |= {"b": str(folder / "b.parquet")}
    sites |= {"c": {"uri": f"sqlite:///{folder / 'c.sqlite'}", "query": "select * from patients"}}
    rows = pooled(frames)
    return Input(sites, glm(missing="drop"), right(logit_is(rows.dropna())))


@first("A5", "'?' for unknown in a column of text from SQLite, '' in csv, None in a dataframe: no category of its own")
def _(folder: Path) -> Input:
    frames = {
        name: frame.assign(nyha=np.array(["I", "II", "III"])[frame["sbp"] % 3]) for name, frame in three().items()
    }
    for frame, word in zip(frames.values(), ["", None, "?"], strict=True):
        frame["nyha"] = frame["nyha"].astype(object)
        frame.loc[frame["sbp"] % 7 == 0, "nyha"] = word
    with sqlite3.connect(folder / "c.sqlite") as connection:
        frames["c"].to_sql("patients", connection, index=False)
    connection.close()
    source = {"uri": f"sqlite:///{folder / 'c.sqlite'}", "query": "select * from patients"}
    sites = {**written(folder, csv({"a": frames["a"]})), "b": frames["b"], "c": source}
    return Input(
        sites,
        net(categorical=["nyha"]),
        right(lambda result: result["preparation"]["categories"] == {"nyha": ["I", "II", "III"]}),
    )


@first("A5", "cells of spaces in a numeric column, filled by the mean of the others")
def _(folder: Path) -> Input:
    frames = three()
    holes = {name: frame.assign(chol=frame["chol"].mask(frame["sbp"] % 11 == 0)) for name, frame in frames.items()}
    texts = csv(
        {
            name: frame.assign(chol=[("   " if value != value else str(value)) for value in frame["chol"]])
            for name, frame in holes.items()
        }
    )
    rows = pooled(holes)
    return Input(written(folder, texts), glm(), right(logit_is(rows.fillna({"chol": rows["chol"].mean()}))))


@first("A5", "SAS's missing points ('.') in a numeric column of every site")
def _(folder: Path) -> Input:
    texts = csv(
        {
            name: frame.assign(chol=[("." if row % 8 == 0 else str(value)) for row, value in enumerate(frame["chol"])])
            for name, frame in three().items()
        }
    )
    return Input(written(folder, texts), glm(), told_or_refused("chol", "missing_values"))


@first("A5", "'keine Angabe' as a category of smoking at every site")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: np.array(["ja", "nein", "ja", "nein", "keine Angabe"])[frame["sbp"] % 5])
    return Input(
        written(folder, csv(frames)),
        net(categorical=["extra"]),
        told_or_refused("extra", "missing_values|not known|empty"),
    )


@first("A5", "a tab alone in a cell, named in missing_values or not: empty")
def _(folder: Path) -> Input:
    frames = three()
    holes = {name: frame.assign(bmi=frame["bmi"].mask(frame["sbp"] % 13 == 0)) for name, frame in frames.items()}
    texts = csv(
        {
            name: frame.assign(bmi=[("\t" if value != value else str(value)) for value in frame["bmi"]])
            for name, frame in holes.items()
        }
    )
    return Input(written(folder, texts), glm(missing="drop"), right(logit_is(pooled(holes).dropna())))


@first("A5", "region NA (North America) in categorical: told that cells of NA count as empty, and how to keep them")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: np.array(["EU", "NA", "APAC"])[frame["sbp"] % 3])
    return Input(
        written(folder, csv(frames)), net(categorical=["extra"]), told_or_refused("extra", "NA", "not_missing")
    )


@first("A5", "the same with not_missing: [NA]")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: np.array(["EU", "NA", "APAC"])[frame["sbp"] % 3])
    experiment = net(categorical=["extra"], not_missing=["NA"])
    return Input(
        written(folder, csv(frames)),
        experiment,
        right(lambda result: "NA" in result["preparation"]["categories"]["extra"]),
    )


@first("A5", "pandas' nullable integers with pd.NA, and NaT beside them")
def _(folder: Path) -> Input:
    frames = three()
    holes = {
        name: frame.assign(sbp=frame["sbp"].astype("Int64").mask(frame["chol"] > 6.5)) for name, frame in frames.items()
    }
    rows = pooled(holes).astype({"sbp": "float64"})
    return Input(holes, glm(missing="drop"), right(logit_is(rows.dropna())))


@first("A5", "SQL Server's NULL in the outcome: those rows are not learned from, and told")
def _(folder: Path) -> Input:
    frames = three()
    texts = csv(
        {
            name: frame.assign(died=frame["died"].astype(str).mask(frame["sbp"] % 6 == 0, "NULL"))
            for name, frame in frames.items()
        }
    )
    rows = pooled(frames)
    return Input(
        written(folder, texts),
        glm(),
        told("died|target", "without|empty|no target", right=logit_is(rows[rows["sbp"] % 6 != 0])),
    )


# A10: smaller things.


@first("A10", "YAML: `positive: yes`")
def _(folder: Path) -> Input:
    written(
        folder,
        csv({name: frame.assign(died=frame["died"].map({1: "yes", 0: "no"})) for name, frame in three().items()}),
    )
    text = "sites: {a: a.csv, b: b.csv, c: c.csv}\ndata: {target: died, positive: yes}\nrounds: 2\n"
    return Input(None, text, refused("positive", "=="))


@first("A10", "YAML: a word of missing_values that other readers take for false (`no`)")
def _(folder: Path) -> Input:
    written(folder, csv(_with(lambda frame: np.where(frame["sbp"] % 3 == 0, "no", "some"))))
    sites, data = "{a: a.csv, b: b.csv, c: c.csv}", "{target: died, categorical: [extra], missing_values: [no]}"
    text = f"sites: {sites}\ndata: {data}\nrounds: 2\n"
    return Input(None, text, right(lambda result: result["preparation"]["categories"] == {"extra": ["some"]}))


@first("A10", "R's TRUE and FALSE as the target, `positive: '== TRUE'`")
def _(folder: Path) -> Input:
    frames = three()
    texts = csv({name: frame.assign(died=frame["died"].map({1: "TRUE", 0: "FALSE"})) for name, frame in frames.items()})
    return Input(written(folder, texts), glm(positive="== TRUE"), right(logit_is(pooled(frames))))


@first("A10", "a ward code 01, 02, 03 in csv and 1, 2, 3 from Excel at one site")
def _(folder: Path) -> Input:
    frames = _with(lambda frame: frame["sbp"] % 3 + 1)
    texts = csv({name: frames[name].assign(extra=[f"0{value}" for value in frames[name]["extra"]]) for name in "ab"})
    frames["c"].to_excel(folder / "c.xlsx", index=False)
    sites = written(folder, texts) | {"c": str(folder / "c.xlsx")}
    return Input(sites, net(categorical=["extra"]), refused("extra", r"\bc\b", "01"))


@first("A10", "a file:// address, with a space written as %20")
def _(folder: Path) -> Input:
    frames = three()
    sites: dict[str, object] = dict(written(folder, csv(frames)))
    (folder / "my data").mkdir()
    frames["b"].to_csv(folder / "my data" / "b.csv", index=False)
    sites["b"] = f"file://{folder}/my%20data/b.csv"
    return Input(sites, glm(), Expected(refused=("%20|no file",), right=logit_is(pooled(frames))))


@first("A10", "the header names a column twice, at one site")
def _(folder: Path) -> Input:
    texts = csv(three())
    texts["b"] = texts["b"].replace("age,sbp,chol,bmi,died", "age,sbp,chol,age,died", 1)
    return Input(written(folder, texts), glm(), refused(r"\bb\b", "age", "twice|two columns|more than once"))


@first("A10", "a German site wrote cp1252 (Größe in the header)")
def _(folder: Path) -> Input:
    frames = {name: frame.rename(columns={"bmi": "größe"}) for name, frame in three().items()}
    texts: dict[str, str | bytes] = dict(csv(frames))
    texts["c"] = frames["c"].to_csv(index=False).encode("cp1252")
    return Input(written(folder, texts), glm(), refused(r"sites\.c", "encoding", "latin-1|cp1252"))


@first("A10", "Excel's 'Unicode text' (UTF-16, tabs) at one site")
def _(folder: Path) -> Input:
    frames = three()
    texts: dict[str, str | bytes] = dict(csv(frames))
    texts["b"] = frames["b"].to_csv(index=False, sep="\t").encode("utf-16")
    return Input(written(folder, texts), glm(), refused(r"sites\.b", "encoding", "utf-16"))


@first("A10", "a query of a table that the SQLite file has not")
def _(folder: Path) -> Input:
    frames = three()
    with sqlite3.connect(folder / "c.sqlite") as connection:
        frames["c"].to_sql("opnames", connection, index=False)
    connection.close()
    sites: dict[str, object] = dict(written(folder, csv({name: frames[name] for name in "ab"})))
    sites["c"] = {"uri": f"sqlite:///{folder / 'c.sqlite'}", "query": "select * from patients"}
    return Input(sites, glm(), refused(r"\bc\b", "patients", "opnames"))


@first("A10", "Stata's .dta at one site")
def _(folder: Path) -> Input:
    frames = three()
    sites = written(folder, csv({name: frames[name] for name in "ab"}))
    frames["c"].to_stata(folder / "c.dta", write_index=False)
    return Input(sites | {"c": str(folder / "c.dta")}, glm(), refused(r"\bc\b", "Stata", "csv|parquet"))
