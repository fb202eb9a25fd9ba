"""Fourth sample: words, units, marks and codes once more, of other countries and programs (A2, A5, A6, A8)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tools.examine.case import Expected, Input, case, right, told, told_or_refused
from tools.examine.patients import COLUMNS, each, features_are, files, glm, logit_is, pooled, three

BASE = three(41)
ROWS = pooled(BASE)
FITS = right(logit_is(ROWS))
Cell = Callable[[int, float], Any]


def cells(
    kind: str, name: str, cell: Cell, expected: Expected, column: str = "chol", only: str = "", **data: Any
) -> None:
    """Register an input of which a column's cells are written by `cell`, of the row's number and the value."""

    def make(folder: Path) -> Input:
        frames = each(BASE, lambda f: f.assign(**{column: [cell(i, v) for i, v in enumerate(f[column])]}), only)
        return files(folder, frames, glm(**data), expected)

    case("fourth", kind, name)(make)


def added(
    kind: str,
    name: str,
    column: str,
    cell: Callable[[int], Any],
    expected: Expected,
    only: str = "",
    other: Any = None,
    **data: Any,
) -> None:
    """Register an input with one column more, written by `other` at the sites that `only` does not name."""

    def make(folder: Path) -> Input:
        frames = {
            site: f.assign(**{column: [(cell if not only or site in only else other)(i) for i in range(len(f))]})
            for site, f in BASE.items()
        }
        return files(folder, frames, glm(**data), expected)

    case("fourth", kind, name)(make)


def wave(i: int, middle: float, spread: float, digits: int = 1) -> float:
    """Return a number around `middle`, of the row's number."""
    return round(middle + spread * np.sin(i * 1.7) + spread * np.cos(i * i), digits)


# Words that say "not known", of other languages, as a category of its own.
for _word in [
    "desconocido",
    "brak danych",
    "okänd",
    "bilinmiyor",
    "不明",
    "неизвестно",
    "non noto",
    "ignorado",
    "inconnu(e)",
    "uoplyst",
    "Don't know/refused",
    "9 - unknown",
]:
    added(
        "A5",
        f"'{_word}' as a category",
        "smoker",
        lambda i, w=_word: w if i % 8 == 0 else ["a", "b"][i % 2],
        told("smoker"),
        categorical=["smoker"],
    )
for _word in [
    "NR",
    "não informado",
    "sin datos",
    "brak",
    "不详",
    "н/д",
    "QNS",
    "see notes",
    "#######",
    "1.#INF",
    "TBD",
    "Cancelled",
    "@",
]:
    cells("A5", f"'{_word}' among cholesterols", lambda i, v, w=_word: w if i % 7 == 0 else v, told_or_refused("chol"))
cells(
    "A5",
    "three words for nothing in one column",
    lambda i, v: ["nvt", "niet gedaan", "?"][i % 3] if i % 5 == 0 else v,
    told("chol"),
)
cells(
    "A5",
    "missing -9 written -9.00",
    lambda i, v: "-9.00" if i % 7 == 0 else v,
    right(features_are(*COLUMNS)),
    missing_values=[-9],
)
cells(
    "A5",
    "missing 999 given as text",
    lambda i, v: 999 if i % 7 == 0 else v,
    right(lambda r: abs(next(c["estimate"] for c in r["coefficients"] if c["term"] == "chol")) > 0.1),
    missing_values=["999"],
)
cells(
    "A5",
    "a code in one column given, the same number in another stays",
    lambda i, v: 99 if i % 7 == 0 else v,
    right(features_are(*COLUMNS)),
    "bmi",
    missing_values={"bmi": [99]},
)
added(
    "A5",
    "NA kept as a word",
    "region",
    lambda i: ["EU", "NA", "AS"][i % 3],
    right(lambda r: len(r["preparation"]["categories"]["region"]) == 3),
    categorical=["region"],
    not_missing=["NA"],
)
added("A5", "blood type of +, - and blank", "rh", lambda i: ["+", "-", ""][i % 3], told("rh"), categorical=["rh"])
added(
    "A5",
    "a category nan in two spellings",
    "grp",
    lambda i: ["x", "y", "NaN", "nan"][i % 4],
    right(lambda r: sorted(r["preparation"]["categories"]["grp"]) == ["x", "y"]),
    categorical=["grp"],
)

# Numbers written in other ways
cells("A2", "5. and .5 and +5", lambda i, v: f"+{v}" if i % 2 else f"{v}", FITS)
cells("A2", "letters O and l for 0 and 1", lambda i, v: str(v).replace("0", "O") if i % 6 == 0 else v, told("chol"))
cells("A2", "1_000 of a programmer", lambda i, v: f"{v * 10:_.0f}", told("sbp"), "sbp")
cells("A2", "numbers with a trailing dot, 5.3.", lambda i, v: f"{v}." if i % 6 == 0 else v, told("chol"))
cells("A2", "the decimal mark a middle dot, The Lancet", lambda i, v: str(v).replace(".", "\u00b7"), told("chol"))
cells("A2", "the decimal mark an apostrophe", lambda i, v: str(v).replace(".", "'"), told("chol"))
cells("A2", "hours and minutes of sleep, 7h30", lambda i, v: f"{int(v)}h{int(v * 60) % 60:02d}", told("chol"))
cells("A2", "gestation 38+4", lambda i, v: f"{30 + i % 10}+{i % 7}", told("bmi"), "bmi")
cells("A2", "gestation 38w4d", lambda i, v: f"{30 + i % 10}w{i % 7}d", told("bmi"), "bmi")
cells("A2", "age over 89 as 90+", lambda i, v: "90+" if v > 75 else v, told("age"), "age")
cells("A2", "age over 89 as > 89", lambda i, v: "> 89" if v > 75 else v, told("age"), "age")
cells("A2", "visual acuity 6/12", lambda i, v: f"6/{[6, 9, 12, 18][i % 4]}", told("bmi"), "bmi")
cells("A2", "a fraction 1/2 tablet", lambda i, v: ["1/2", "1", "1 1/2", "2"][i % 4], told("bmi"), "bmi")
cells("A2", "genotypes 0/0, 0/1, 1/1", lambda i, v: ["0/0", "0/1", "1/1"][i % 3], told("bmi"), "bmi")
cells("A2", "+, ++ and +++ of a dipstick", lambda i, v: ["neg", "+", "++", "+++"][i % 4], told("bmi"), "bmi")
cells(
    "A2",
    "unit in some cells only, at one site",
    lambda i, v: f"{v} mmol/l" if i % 3 == 0 else v,
    told_or_refused("chol", r"\bb\b"),
    only="b",
)
cells(
    "A2",
    "percent in some cells, fraction in others",
    lambda i, v: f"{v:.0f}%" if i % 2 else round(v / 100, 2),
    told("bmi"),
    "bmi",
)
cells("A2", "numbers as words: one, two", lambda i, v: ["one", "two", "three"][i % 3], told("bmi"), "bmi")
cells("A2", "booleans as x and blank", lambda i, v: "x" if i % 3 == 0 else "", told("bmi"), "bmi")
cells("A2", "booleans as ticks", lambda i, v: "\u2713" if i % 3 == 0 else "\u2717", told("bmi"), "bmi")
cells(
    "A2",
    "a column of 0 and blank where only 1 is filled in",
    lambda i, v: 1 if i % 3 == 0 else "",
    told_or_refused("bmi"),
    "bmi",
)
cells(
    "A2", "MS dates /Date(1577836800000)/", lambda i, v: f"/Date({1577836800000 + i * 86400000})/", told("bmi"), "bmi"
)
cells("A2", "Japanese era dates R2.5.1", lambda i, v: f"R{i % 6 + 1}.{i % 12 + 1}.{i % 28 + 1}", told("bmi"), "bmi")

# Units that differ between sites, or within one
UNITS = {
    "haemoglobin in g/dL and mmol/L": (lambda i: wave(i, 13.5, 1.2), lambda i: round(wave(i, 13.5, 1.2) * 0.6206, 1)),
    "height in cm and m": (lambda i: wave(i, 171, 7, 0), lambda i: round(wave(i, 171, 7, 0) / 100, 2)),
    "weight in kg and lb": (lambda i: wave(i, 78, 10), lambda i: round(wave(i, 78, 10) * 2.2046)),
    "HbA1c in percent and mmol/mol": (lambda i: wave(i, 7, 0.8), lambda i: round((wave(i, 7, 0.8) - 2.15) * 10.929)),
    "albumin in g/L and g/dL": (lambda i: wave(i, 38, 4, 0), lambda i: wave(i, 3.8, 0.4)),
    "ejection fraction in percent and as a fraction": (
        lambda i: wave(i, 52, 8, 0),
        lambda i: round(wave(i, 52, 8, 0) / 100, 2),
    ),
    "viral load and its logarithm": (lambda i: round(10 ** wave(i, 4, 0.8, 2)), lambda i: wave(i, 4, 0.8, 2)),
    "follow-up in days and months": (lambda i: wave(i, 900, 200, 0), lambda i: wave(i, 30, 6.5)),
    "creatinine in umol/L and mg/dL": (lambda i: wave(i, 88, 14, 0), lambda i: wave(i, 1.0, 0.16, 2)),
    "temperature in C and F": (lambda i: wave(i, 37, 0.5), lambda i: wave(i, 98.6, 0.9)),
    "year of birth and age": (lambda i: wave(i, 1960, 8, 0), lambda i: wave(i, 63, 8, 0)),
    "calcium in mmol/L and mg/dL": (lambda i: wave(i, 2.35, 0.1, 2), lambda i: wave(i, 9.4, 0.4)),
    "pO2 in kPa and mmHg": (lambda i: wave(i, 11, 1.2), lambda i: wave(i, 82, 9, 0)),
}
for _name, (_one, _other) in UNITS.items():
    added("A6", f"{_name}, at two sites", "value", _one, told("value", r"\bb\b"), only="ac", other=_other)
added(
    "A6",
    "heights in cm, a tenth of the rows in m",
    "height",
    lambda i: round(wave(i, 171, 7, 0) / (100 if i % 10 == 3 else 1), 2),
    told("height"),
)
added(
    "A6",
    "temperature 37 in every row of one site, by default",
    "temp",
    lambda i: 37,
    told("temp", r"\bb\b"),
    only="b",
    other=lambda i: wave(i, 37, 0.5),
)
added(
    "A6",
    "9.99 for a potassium not measured",
    "potassium",
    lambda i: 9.99 if i % 9 == 0 else wave(i, 4.1, 0.3),
    told("potassium"),
)
added(
    "A6",
    "0.00 for an albumin not measured",
    "albumin",
    lambda i: 0.0 if i % 9 == 0 else wave(i, 38, 4),
    told("albumin"),
)
added(
    "A6",
    "-1.0 for a lactate not measured",
    "lactate",
    lambda i: -1.0 if i % 9 == 0 else abs(wave(i, 2, 0.5)) + 0.2,
    told("lactate"),
)
added("A6", "555 for a scale not filled in", "phq", lambda i: 555 if i % 9 == 0 else i % 28, told_or_refused("phq"))
added(
    "A6",
    "77, 88 and 99 of NHANES",
    "alcohol",
    lambda i: [77, 88, 99][i % 3] if i % 11 == 0 else i % 13,
    told("alcohol"),
)
added(
    "A6",
    "7 and 9 of NHANES beside 1 and 2",
    "diq010",
    lambda i: 7 if i % 31 == 0 else 9 if i % 17 == 0 else 1 + i % 2,
    told("diq010"),
)
added(
    "A6", "age 125 from a birthday of 1900-01-01", "age2", lambda i: 125 if i % 10 == 0 else 50 + i % 40, told("age2")
)
added(
    "A6",
    "-2147483648, an integer that overflowed",
    "count",
    lambda i: -2147483648 if i % 50 == 0 else i % 90,
    told_or_refused("count"),
)
added(
    "A6",
    "1.7E308 for missing, as Fortran and R's NA in C",
    "flow",
    lambda i: "1.7E308" if i % 9 == 0 else wave(i, 5, 1),
    told_or_refused("flow"),
)
added(
    "A6",
    "-1.23e34, netCDF's fill value",
    "flow",
    lambda i: "-1.23e34" if i % 9 == 0 else wave(i, 5, 1),
    told_or_refused("flow"),
)
added(
    "A6",
    "9.96921e36, netCDF's other fill value",
    "flow",
    lambda i: "9.96921e36" if i % 9 == 0 else wave(i, 5, 1),
    told_or_refused("flow"),
)
added(
    "A6",
    "ordinary: days until surgery with a few below 0",
    "days_to_or",
    lambda i: i % 20 - 2,
    right(lambda r: not any("days_to_or" in n for n in r["notes"])),
)
added(
    "A6",
    "ordinary: parity with a 9",
    "parity",
    lambda i: 9 if i == 77 else i % 6,
    right(lambda r: not any("parity" in n for n in r["notes"])),
)
added(
    "A6",
    "ordinary: percent predicted, up to 130",
    "fev1pp",
    lambda i: wave(i, 85, 14, 0),
    right(lambda r: not any("fev1pp" in n for n in r["notes"])),
)

for _name in [
    "FALNR",
    "Aufnahmenummer",
    "Befundnummer",
    "PatientSerNum",
    "Pt No",
    "Reg No",
    "UHID",
    "Trial No",
    "code_patient",
    "identifiant",
    "matricola",
    "HN",
    "Study Nr",
    "Sl. No",
    "Sr No",
    "S/N",
    "编号",
    "序号",
    "登録番号",
    "subject_no",
    "hadm_id",
    "patient num",
    "Patienten-ID",
    "Participant Id",
    "cod_paciente",
    "id_usuario",
    "idnr",
    "OPnr",
    "n_patient",
    "nr_pacjenta",
    "Potilasnumero",
    "Patientenkennung",
]:
    added(
        "A8",
        f"{_name}, repeated",
        _name,
        lambda i: 40_000 + i // 2,
        told(re.escape(_name), right=features_are(*COLUMNS)),
    )
for _name in [
    "number_of_nodes",
    "serum_no",
    "hno",
    "peak_no",
    "side",
    "hn_stage",
    "study_hours",
    "regurgitation",
    "pt_inr",
    "sn_ratio",
    "trial_arm",
    "idh2",
    "opnieuw",
    "code_stroke",
    "matrix",
]:
    added("A8", f"{_name} is no identifier", _name, lambda i: i % 7, right(features_are(*COLUMNS, _name)))
