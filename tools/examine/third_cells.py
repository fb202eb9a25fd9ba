"""Third sample: cells as people and programs fill them: units, marks, words for nothing, codes (A2, A5, A6)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, refused, right, told, told_or_refused
from tools.examine.patients import (
    COLUMNS,
    csv,
    each,
    features_are,
    files,
    glm,
    logit_is,
    pooled,
    three,
    written,
)  # fmt: skip
from tools.examine.third import third

BASE = three(32)
ROWS = pooled(BASE)
REST = ["age", "sbp", "bmi"]
FITS = right(logit_is(ROWS))
Cell = Callable[[int, float], Any]


def comma(value: float) -> str:
    """Write a number with a decimal comma."""
    return f"{value:.1f}".replace(".", ",")


def cells(
    kind: str, name: str, cell: Cell, expected: Expected, column: str = "chol", only: str = "", **data: Any
) -> None:
    """Register an input of which a column's cells are written by `cell`, of the row's number and the value."""

    def make(folder: Path) -> Input:
        frames = each(BASE, lambda f: f.assign(**{column: [cell(i, v) for i, v in enumerate(f[column])]}), only)
        return files(folder, frames, glm(**data), expected)

    third(kind, name)(make)


def added(kind: str, name: str, column: str, cell: Callable[[int], Any], expected: Expected, **data: Any) -> None:
    """Register an input with one column more."""

    def make(folder: Path) -> Input:
        frames = each(BASE, lambda f: f.assign(**{column: [cell(i) for i in range(len(f))]}))
        return files(folder, frames, glm(**data), expected)

    third(kind, name)(make)


# Numbers that are no plain numbers: the column may leave, with a word, or be read.
cells(
    "A2",
    "chol 5.3 mmol/L: the unit in every cell",
    lambda i, v: f"{v} mmol/L",
    told("chol", right=logit_is(ROWS, REST)),
)
cells("A2", "chol with a decimal comma, quoted, nothing given", lambda i, v: comma(v), told("chol", "decimal"))
cells("A2", "chol with a decimal comma, decimal given", lambda i, v: comma(v), FITS, decimal=",")
cells(
    "A2",
    "chol with a decimal comma at one site only",
    lambda i, v: comma(v),
    told_or_refused("chol", "decimal|comma"),
    only="b",
)
cells(
    "A2",
    "chol as full-width digits",
    lambda i, v: "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in str(v)),
    Expected(told=("chol",)),
)
cells(
    "A2",
    "chol as Arabic digits",
    lambda i, v: "".join(chr(0x0660 + int(c)) if c.isdigit() else c for c in str(v)),
    Expected(told=("chol",)),
)
cells("A2", "chol with a no-break space behind", lambda i, v: f"{v}\u00a0", FITS)
cells("A2", "chol with the lab's flags 5.3 H", lambda i, v: f"{v} H" if v > 5.5 else f"{v}", told("chol"))
cells("A2", "chol corrected by hand with an asterisk", lambda i, v: f"{v}*" if i % 37 == 0 else v, told("chol"))
cells(
    "A2",
    "chol in SAP's style, the minus behind",
    lambda i, v: f"{v - 5:.1f}-" if v < 5 else f"{v - 5:.1f}",
    told("chol"),
)
cells(
    "A2",
    "base excess with a typographic minus",
    lambda i, v: f"{v - 5:.1f}".replace("-", "\u2212"),
    Expected(told=("chol",)),
)
cells("A2", "ages as 62y and 62 J.", lambda i, v: f"{v:.0f}{'y' if i % 2 else ' J.'}", told("age"), "age")
cells("A2", "ages as age groups 60-64", lambda i, v: f"{int(v) // 5 * 5}-{int(v) // 5 * 5 + 4}", told("age"), "age")
cells("A2", "sbp as 136/80", lambda i, v: f"{v:.0f}/80", told("sbp"), "sbp")
cells("A2", "sbp in brackets when repeated", lambda i, v: f"({v:.0f})" if i % 9 == 0 else v, told("sbp"), "sbp")
cells("A2", "CRP < 0,5 with decimal comma", lambda i, v: "< 0,5" if v < 5 else comma(v), told("chol"), decimal=",")
cells("A2", "values >= 7 in the Spanish way, 'mayor de 7'", lambda i, v: "mayor de 7" if v > 7 else v, told("chol"))
cells("A2", "chol as 1,2E+00 with decimal comma", lambda i, v: f"{v:.1E}".replace(".", ","), FITS, decimal=",")
cells("A2", "ejection fraction as 55 %", lambda i, v: f"{v:.0f} %", told("bmi"), "bmi")
cells(
    "A2",
    "a range 5.0-5.4 where the lab doubts",
    lambda i, v: f"{v}-{v + 0.4:.1f}" if i == 17 else v,
    told_or_refused("chol"),
    only="c",
)
cells(
    "A2",
    "Swiss platelets 250'000, mark given",
    lambda i, v: f"{v * 1000:,.0f}".replace(",", "'"),
    right(lambda r: "sbp" in r["preparation"]["features"]),
    "sbp",
    thousands="'",
)
cells(
    "A2",
    "Dutch platelets: 980 and 1.130 with decimal comma, no thousands given",
    lambda i, v: f"{(v - 100) * 30:,.0f}".replace(",", "."),
    told("sbp", "thousand"),
    "sbp",
    decimal=",",
)
cells(
    "A2",
    "Dutch platelets in a file of points: 980 and 1.130",
    lambda i, v: f"{max(v - 90, 5) * 30:,.0f}".replace(",", "."),
    told("sbp"),
    "sbp",
)
cells("A2", "English platelets 1,130 in quotes", lambda i, v: f"{v * 10:,.0f}", told("sbp", "thousand|,"), "sbp")
cells(
    "A2",
    "French thousands with a narrow no-break space",
    lambda i, v: f"{v * 10:,.0f}".replace(",", "\u202f"),
    told("sbp"),
    "sbp",
)
cells("A2", "chol quoted inside quotes: '\"5.3\"' by a script", lambda i, v: f'"{v}"', told("chol"))
cells("A2", "chol as ='5.3', Excel's trick against dates", lambda i, v: f'="{v}"', told("chol"))
cells("A2", "Excel made dates of chol: 05.Mrz", lambda i, v: "05.Mrz" if i % 11 == 0 else v, told("chol"))
cells(
    "A2", "two measurements in a cell, 5.3; 5.1", lambda i, v: f"{v}; {v - 0.2:.1f}" if i % 8 == 0 else v, told("chol")
)
cells("A2", "an en dash where nothing was measured", lambda i, v: "\u2013" if i % 10 == 0 else v, told("chol"))

added("A2", "NYHA as roman numbers", "nyha", lambda i: ["I", "II", "III", "IV"][i % 4], told("nyha"))
added(
    "A2",
    "ECOG as '1 - restricted'",
    "ecog",
    lambda i: ["0 - active", "1 - restricted", "2 - half"][i % 3],
    told("ecog"),
)
added(
    "A2",
    "REDCap's checkbox labelled Checked",
    "comorb___1",
    lambda i: "Checked" if i % 3 else "Unchecked",
    told("comorb___1"),
)
added("A2", "SAS dates 01JAN2020", "admdt", lambda i: f"{i % 28 + 1:02d}JAN2020", told("admdt"))
added("A2", "times 08:15", "tijd", lambda i: f"{i % 24:02d}:15", told("tijd"))
added("A2", "durations 3 days 04:00:00", "los", lambda i: f"{i % 7} days 04:00:00", told("los"))
added("A2", "ISO durations P3DT4H", "los", lambda i: f"P{i % 7}DT4H", told("los"))
added("A2", "dates as Excel's serial numbers", "opnamedatum", lambda i: 43831 + (i * 7) % 300, told("opnamedatum"))
added("A2", "dates as 20200131", "aufnahmedatum", lambda i: 20200101 + i % 28 + 100 * (i % 12), told("aufnahmedatum"))
added(
    "A2",
    "Unix milliseconds of a wearable",
    "timestamp",
    lambda i: 1_577_836_800_000 + 60_000 * (i % 90),
    told("timestamp"),
)
added("A2", "ja and nein", "raucher", lambda i: ["ja", "nein"][i % 2], told("raucher"))
added("A2", "nested JSON in a cell", "obs", lambda i: f'{{"value": {i}, "unit": "mg"}}', told("obs"))
added("A2", "ICD codes", "icd10", lambda i: f"I{20 + i % 6}.{i % 9}", told("icd10"))
added(
    "A2",
    "ATC codes as categories with few rows each",
    "atc",
    lambda i: f"C0{i % 9}A{i % 40:02d}",
    Expected(refused=("atc",), told=("atc",)),
    categorical=["atc"],
)


@third("A2", "one column's name has a space behind at one site")
def _(folder: Path) -> Input:
    return files(
        folder,
        each(BASE, lambda f: f.rename(columns={"chol": "chol "}), "b"),
        glm(),
        Expected(refused=("chol",), right=logit_is(ROWS)),
    )


@third("A2", "names in capitals at one site")
def _(folder: Path) -> Input:
    return files(
        folder,
        each(BASE, lambda f: f.rename(columns={"chol": "CHOL", "sbp": "SBP"}), "b"),
        glm(),
        told_or_refused("chol", "sbp"),
    )


@third("A2", "the unit in the name: chol (mmol/L) and chol (mg/dL)")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.rename(columns={"chol": "chol (mmol/L)"}), "ac")
    frames = each(frames, lambda f: f.rename(columns={"chol": "chol (mg/dL)"}), "b")
    return files(folder, frames, glm(), told_or_refused(r"chol \(mmol/L\)", right=logit_is(ROWS, REST)))


@third("A2", "value and unit side by side, two units at one site")
def _(folder: Path) -> Input:
    def change(f: pd.DataFrame) -> pd.DataFrame:
        other = np.arange(len(f)) % 2 == 0
        return f.assign(
            chol=np.where(other, f.chol * 38.67, f.chol).round(1), chol_unit=np.where(other, "mg/dL", "mmol/L")
        )

    frames = each(each(BASE, change, "b"), lambda f: f.assign(chol_unit="mmol/L"), "ac")
    return files(folder, frames, glm(), told("chol_unit|chol"))


@third("A2", "a laboratory's long table, one line a test")
def _(folder: Path) -> Input:
    def change(f: pd.DataFrame) -> pd.DataFrame:
        f = f.assign(patient=np.arange(len(f)) + 4000)
        return f.melt(id_vars=["patient", "died"], var_name="loinc", value_name="result").sort_values("patient")

    return files(folder, each(BASE, change), glm(), told_or_refused(r"patient"))


@third("A2", "a repeating REDCap export: blank outcome on visit rows")
def _(folder: Path) -> Input:
    def change(f: pd.DataFrame) -> pd.DataFrame:
        f = f.assign(record_id=range(1, len(f) + 1), redcap_event_name="baseline_arm_1", redcap_repeat_instance=np.nan)
        visits = f.assign(redcap_event_name="visit_arm_1", redcap_repeat_instance=1, died=np.nan, age=np.nan)
        return pd.concat([f, visits]).sort_values("record_id", kind="stable")

    return files(
        folder, each(BASE, change), glm(), told("record_id", "redcap_event_name", "no target", right=logit_is(ROWS))
    )


@third("A2", "genes as rows, patients as columns")
def _(folder: Path) -> Input:
    def change(f: pd.DataFrame) -> pd.DataFrame:
        turned = f.T
        turned.columns = [f"S{i:04d}" for i in range(len(f))]
        return turned.rename_axis("gene").reset_index()

    return files(folder, each(BASE, change), glm(), refused("died", "column"))


@third("A2", "UK Biobank names and answers -1 and -3")
def _(folder: Path) -> Input:
    names = {"age": "f.21022.0.0", "sbp": "f.4080.0.0", "chol": "f.30690.0.0", "bmi": "f.21001.0.0"}

    def change(f: pd.DataFrame) -> pd.DataFrame:
        smoked = np.where(
            np.arange(len(f)) % 13 == 0, -3, np.where(np.arange(len(f)) % 17 == 0, -1, f.age.round() % 40)
        )
        return f.rename(columns=names).assign(**{"f.eid": 1_000_000 + np.arange(len(f)) * 37, "f.2887.0.0": smoked})

    return files(folder, each(BASE, change), glm(), told("f.eid", r"f\.2887\.0\.0"))


@third("A2", "decimal comma at one hospital, told for that hospital only")
def _(folder: Path) -> Input:
    made = csv(BASE)
    made["b"] = BASE["b"].to_csv(index=False, sep=";", decimal=",")
    paths: dict[str, Any] = dict(written(folder, made))
    paths["b"] = {"uri": paths["b"], "separator": ";", "decimal": ","}
    return Input(paths, glm(), FITS)


@third("A2", "cp1252 column names, nothing given")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.rename(columns={"age": "Alter_bei_Eintritt_Jährig"}))
    return Input(
        written(folder, {n: t.encode("cp1252") for n, t in csv(frames).items()}),
        glm(),
        refused("encoding", "latin-1|cp1252"),
    )


@third("A2", "Japanese names in Shift-JIS, encoding given")
def _(folder: Path) -> Input:
    names = dict(zip(COLUMNS, ["年齢", "収縮期血圧", "総コレステロール", "体格指数"], strict=True))
    frames = each(BASE, lambda f: f.rename(columns=names))
    expected = right(logit_is(pooled(frames), list(names.values())))
    return Input(
        written(folder, {n: t.encode("shift_jis") for n, t in csv(frames).items()}), glm(encoding="shift_jis"), expected
    )


# Words for nothing, in a column of numbers: empty, or the column leaves with a word; never a silent something.
WORDS = {
    "SAS: .": ".", "SAS: .A": ".A", "SPSS: #NULL!": "#NULL!", "MySQL: \\N": "\\N", "n.v.t.": "n.v.t.",
    "niet bepaald": "niet bepaald", "k.A.": "k.A.", "Spanish s/d": "s/d", "Polish b.d.": "b.d.", "未測定": "未測定",
    "German #NV": "#NV", "German #N/V": "#N/V", "Spanish #¡VALOR!": "#¡VALOR!", "---": "---", "Turkish yok": "yok",
    "hemolytic": "hemolytisch", "NaT": "NaT", "REDCap NASK": "NASK", "none in brackets": "(none)", "TNP": "TNP",
}  # fmt: skip
for _name, _word in WORDS.items():
    cells("A5", f"{_name} for an unknown cholesterol", lambda i, v, w=_word: w if i % 6 == 0 else v, told("chol"))
cells(
    "A5",
    "SAS: . with missing_values given",
    lambda i, v: "." if i % 6 == 0 else v,
    right(features_are(*COLUMNS)),
    missing_values=["."],
)
cells(
    "A5",
    "words of three languages with missing_values given",
    lambda i, v: ["n.v.t.", "k.A.", "s/d"][i % 3] if i % 6 == 0 else v,
    right(features_are(*COLUMNS)),
    missing_values=["n.v.t.", "k.A.", "s/d"],
)
cells("A5", "Excel's #DIV/0! in a CSV", lambda i, v: "#DIV/0!" if i % 6 == 0 else v, told("chol"))
cells(
    "A5",
    "a cell with only a tab or an ideographic space",
    lambda i, v: ["\t", "\u3000", "\u00a0"][i % 3] if i % 6 == 0 else v,
    right(features_are(*COLUMNS)),
)
cells("A5", "nan written NAN and NA.", lambda i, v: ["NAN", "NA."][i % 2] if i % 6 == 0 else v, told("chol"))
cells("A5", "zeros for a cholesterol not taken", lambda i, v: 0 if i % 6 == 0 else v, told("chol", "0"))
cells("A5", "a bmi of 999 and 99.9", lambda i, v: 99.9 if i % 6 == 0 else v, told("bmi"), "bmi")
cells("A6", "9999 for unknown", lambda i, v: 9999 if i % 9 == 0 else v, told("sbp", "far from all others"), "sbp")
cells("A6", "-99 for half of the cholesterols", lambda i, v: -99 if i % 2 else v, told("chol", "far from all others"))
cells("A6", "-9 at one site only", lambda i, v: -9 if i % 9 == 0 else v, told("chol", "-9"), only="b")
cells("A6", "Inf of R", lambda i, v: "Inf" if i % 40 == 0 else v, told_or_refused("chol", "infinit|empty"))
cells("A6", "1e39, over float32", lambda i, v: 1e39 if i == 40 else v, told_or_refused("chol"), only="a")
cells(
    "A6",
    "1e30, a broken export, within float32",
    lambda i, v: 1e30 if i == 40 else v,
    told_or_refused("chol"),
    only="a",
)
cells("A6", "cholesterol empty at one site", lambda i, v: "", told("chol", r"\bb\b"), only="b")
cells("A6", "cholesterol NA at one site, as words", lambda i, v: "NA", told("chol", r"\bb\b"), only="b")
cells("A6", "cholesterol 'not done' at one site", lambda i, v: "not done", told_or_refused("chol", r"\bb\b"), only="b")
cells("A6", "cholesterol 0 in every row of one site", lambda i, v: 0, told("chol", r"\bb\b"), only="b")
cells("A6", "cholesterol -1 in every row of one site", lambda i, v: -1, told("chol", r"\bb\b"), only="b")
cells("A6", "cholesterol in mg/dL at one site", lambda i, v: round(v * 38.67), told("chol", r"\bb\b"), only="b")
cells(
    "A6",
    "temperature in Fahrenheit at one site",
    lambda i, v: round(v * 1.8 + 32, 1),
    told("bmi", r"\bb\b"),
    "bmi",
    only="b",
)
cells(
    "A6",
    "a decimal point lost in a few rows: 53 for 5.3",
    lambda i, v: round(v * 10) if i % 12 == 0 else v,
    told("chol"),
    only="a",
)
cells("A6", "age in months at one site", lambda i, v: round(v * 12), told("age", r"\bc\b"), "age", only="c")
cells("A6", "year of birth for age at one site", lambda i, v: 2025 - round(v), told("age", r"\bc\b"), "age", only="c")
added("A6", "a code 99 for parity not known", "parity", lambda i: 99 if i % 15 == 0 else i % 5, told("parity", "99"))
added(
    "A6",
    "a code 8 and 9 among 0 and 1 (SPSS)",
    "diabetes",
    lambda i: 9 if i % 15 == 0 else 8 if i % 21 == 0 else i % 2,
    told("diabetes", "9"),
)
added("A6", "the same number in every row", "study_arm", lambda i: 1, told("study_arm"))
