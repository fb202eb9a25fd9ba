"""Fourth sample: whole exports with several faults at once, text files, labels (A1, A2, A4, A7)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, refused, right, told, told_or_refused
from tools.examine.fourth import BASE, FITS, ROWS, fourth
from tools.examine.patients import (
    COLUMNS,
    csv,
    each,
    features_are,
    files,
    glm,
    logit_is,
    net,
    number,
    texts,
    written,
)  # fmt: skip


def exports(
    name: str,
    change: Any,
    expected: Expected,
    target: str = "died",
    kind: str = "A2",
    form: dict[str, Any] | None = None,
    **how: Any,
) -> None:
    """Register an export with several things at once."""
    fourth(kind, name)(lambda folder: files(folder, each(BASE, change), glm(target, **(form or {})), expected, **how))


exports(
    "REDCap with labels: choices, Checked, Complete",
    lambda f: f.rename(columns={"age": "Age at inclusion (years)", "died": "Vital status"}).assign(
        **{
            "Record ID": number(f) + 1,
            "Event Name": "Baseline",
            "Comorbidity (choice=Diabetes)": np.where(number(f) % 3, "Checked", "Unchecked"),
            "Complete?": "Complete",
            "Vital status": np.where(f.died == 1, "Deceased", "Alive"),
        }
    ),
    told(
        "Record ID",
        "Checked|choice=Diabetes",
        "Deceased",
        right=features_are("Age at inclusion (years)", "sbp", "chol", "bmi"),
    ),
    "Vital status",
)
exports(
    "Castor: semicolons, user missing, site and status",
    lambda f: f.assign(
        **{
            "Participant Id": number(f) + 110_001,
            "Participant Status": "Not Set",
            "Site Abbreviation": "ABC",
            "chol": np.where(number(f) % 9 == 0, "##USER_MISSING_95##", f.chol.astype(str)),
        }
    ),
    told("Participant Id", "chol"),
    form={"separator": ";"},
    sep=";",
)
exports(
    "SPSS: labels, decimal comma, -99,00",
    lambda f: f.assign(sex=np.where(number(f) % 2, "Male", "Female"), chol=np.where(number(f) % 9 == 0, -99.0, f.chol)),
    told("sex", "chol"),
    form={"separator": ";", "decimal": ","},
    sep=";",
    decimal=",",
)
exports(
    "MIMIC: subject_id, hadm_id, stay_id, gender, times",
    lambda f: f.assign(
        subject_id=10_000_000 + number(f) * 31,
        hadm_id=20_000_000 + number(f) * 17,
        gender=np.where(number(f) % 2, "M", "F"),
        intime="2180-07-23 14:00:00",
    ),
    told("subject_id", "hadm_id", "gender", "intime", right=logit_is(ROWS)),
)
exports(
    "OMOP: concept ids, source values",
    lambda f: f.assign(
        person_id=number(f) + 1,
        gender_concept_id=np.where(number(f) % 2, 8507, 8532),
        year_of_birth=2025 - f.age.round().astype(int),
        gender_source_value=np.where(number(f) % 2, "M", "F"),
    ),
    told("person_id", "gender_concept_id", "gender_source_value"),
)
exports(
    "i2b2: facts one a line",
    lambda f: f.assign(patient_num=number(f) + 70).melt(
        id_vars=["patient_num", "died"], var_name="concept_cd", value_name="nval_num"
    ),
    told_or_refused("patient_num"),
)
exports(
    "an old copy of the target, one of days to death, and a code of discharge",
    lambda f: f.assign(
        mortality=f.died,
        days_to_death=np.where(f.died == 1, number(f) % 90, np.nan),
        discharge=np.where(f.died == 1, 20, 1 + number(f) % 4),
    ),
    told("mortality", "days_to_death", "discharge"),
)
exports(
    "discharge destination as a category tells the outcome",
    lambda f: f.assign(discharge=np.where(f.died == 1, "mortuary", np.where(number(f) % 2, "home", "rehab"))),
    told("discharge"),
    form={"categorical": ["discharge"]},
)
exports(
    "a join that made each patient three rows",
    lambda f: pd.concat([f, f, f]).sort_index(),
    told(r"cop(y|ies)|same|twice"),
)
exports(
    "a wearable's rows, 20 a patient",
    lambda f: f.loc[f.index.repeat(20)].assign(pid=np.repeat(number(f) + 500, 20), steps=lambda g: number(g) * 7 % 300),
    told("pid"),
)
exports(
    "300 genes beside the patients",
    lambda f: pd.concat(
        [
            f[["died"]].reset_index(drop=True),
            pd.DataFrame(
                np.random.default_rng(len(f)).normal(8, 2, (len(f), 300)),
                columns=[f"ENSG{i:011d}.{i % 9}" for i in range(300)],
            ),
        ],
        axis=1,
    ),
    right(lambda r: len(r["preparation"]["features"]) == 300),
    kind="A8",
    form={"missing": {"kind": "drop"}},
)
exports(
    "a column of the site's name and the extraction date",
    lambda f: f.assign(hospital="UZ Gent", extracted="2025-11-03"),
    told("hospital", "extracted", right=logit_is(ROWS)),
)
exports(
    "remarks in the last, unnamed column",
    lambda f: f.assign(**{"": np.where(number(f) % 30 == 0, "checked by JD", "")}),
    told("Unnamed|no name", right=logit_is(ROWS)),
)

# Text files again
ALL = {
    "quotes opened and never closed": (lambda t: t.replace("\n", '\n"', 1), refused(r"line|quot")),
    "a report's page footers between the rows": (
        lambda t: "\n".join(line + ("\nPage 1 of 3,,,," if i == 50 else "") for i, line in enumerate(t.split("\n"))),
        told_or_refused(r"line|age|words|page"),
    ),
    "a legend below a blank line": (
        lambda t: t + "\n\n1 = yes,,,,\n0 = no,,,,\n",
        told_or_refused(r"line|age|words|text"),
    ),
    "the header in two lines: groups above": (
        lambda t: "Demographics,,Labs,,Outcome\n" + t,
        refused(r"died|header|title|line"),
    ),
    "types in a second header line: int,int,float": (
        lambda t: t.replace("died\n", "died\nfloat,int,float,float,int\n", 1),
        told_or_refused(r"line|header|words"),
    ),
    "spaces behind every comma": (lambda t: t.replace(",", ", "), FITS),
    "all in quotes, single ones": (
        lambda t: "\n".join(",".join(f"'{c}'" for c in line.split(",")) for line in t.strip().split("\n")) + "\n",
        told_or_refused(r"quot|died|'"),
    ),
    "pipes as in Markdown": (
        lambda t: "\n".join("| " + line.replace(",", " | ") + " |" for line in t.strip().split("\n")) + "\n",
        told_or_refused(r"separator|line|\|"),
    ),
    "LaTeX's ampersands": (lambda t: t.replace(",", " & ").replace("\n", " \\\\\n"), refused(r"separator|died|column")),
    "a JSON array": (lambda t: pd.read_csv(io.StringIO(t)).to_json(orient="records"), refused(r"json|JSON")),
    "R's write.csv with row names": (
        lambda t: "\n".join((f'"{i}",' if i else '"",') + line for i, line in enumerate(t.strip().split("\n"))) + "\n",
        told("Unnamed|row", right=logit_is(ROWS)),
    ),
    "R's write.table, a name less in the header": (
        lambda t: "\n".join((f'"{i}",' if i else "") + line for i, line in enumerate(t.strip().split("\n"))) + "\n",
        refused(r"line|row names|header"),
    ),
    "a zero-width space in the header": (
        lambda t: t.replace("died", "\u200bdied", 1),
        Expected(refused=("died",), right=logit_is(ROWS)),
    ),
    "a header with line breaks in quotes": (
        lambda t: t.replace("chol,", '"chol\n(mmol/L)",', 1),
        right(lambda r: len(r["preparation"]["features"]) == 4),
    ),
}
for _name, (_change, _expected) in ALL.items():
    fourth("A1", _name)(lambda folder, change=_change, expected=_expected: texts(folder, BASE, change, glm(), expected))


@fourth("A1", "UTF-16 without a byte order mark")
def _(folder: Path) -> Input:
    return Input(
        written(folder, {n: t.encode("utf-16-le") for n, t in csv(BASE).items()}), glm(), refused("utf-16|encoding")
    )


@fourth("A1", "Polish labels in cp1250, read as they are")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(died=np.where(f.died == 1, "zmarły", "żyje")))
    return Input(written(folder, {n: t.encode("cp1250") for n, t in csv(frames).items()}), glm(), refused("encoding"))


@fourth("A1", "one site's file in cp1252, the others in UTF-8, latin-1 given for all")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(died=np.where(f.died == 1, "décédé", "en vie")))
    made = {n: t.encode("cp1252" if n == "b" else "utf-8") for n, t in csv(frames).items()}
    return Input(written(folder, made), glm(encoding="latin-1"), told_or_refused("died"))


# Labels
def labels(
    name: str, a: Sequence[Any], b: Sequence[Any], expected: Expected, kind: str = "A4", model: Any = glm, **data: Any
) -> None:
    """Register an input whose target is written (0, 1) in one way at sites a and c, and in another at site b."""

    def make(folder: Path) -> Input:
        frames = each(BASE, lambda f: f.assign(died=[a[v] for v in f.died]), "ac")
        return files(
            folder, each(frames, lambda f: f.assign(died=[b[v] for v in f.died]), "b"), model(**data), expected
        )

    fourth(kind, name)(make)


labels("Stata's '0. No' beside 'No'", ["0. No", "1. Yes"], ["No", "Yes"], refused("died"))
labels(
    "a replacement character for é at one site",
    ["vivant", "décédé"],
    ["vivant", "d\ufffdc\ufffdd\ufffd"],
    told_or_refused("died"),
    model=net,
)
labels("HTML entities at one site", ["<1 year", ">=1 year"], ["&lt;1 year", "&gt;=1 year"], refused("died"))
labels(
    "one entity at one site, a network",
    ["alive", "dead & buried"],
    ["alive", "dead &amp; buried"],
    told_or_refused("died"),
    model=net,
)
labels(
    "escaped letters of a JSON dump",
    ["vivant", "décédé"],
    ["vivant", "d\\u00e9c\\u00e9d\\u00e9"],
    told_or_refused("died"),
    model=net,
)
labels(
    "a typing error at one site, a network",
    ["survived", "deceased"],
    ["survived", "decaesed"],
    told_or_refused("died"),
    model=net,
)
labels(
    "singular and plural, a network",
    ["responder", "non-responder"],
    ["responders", "non-responders"],
    refused("died"),
    model=net,
)
labels(
    "German umlaut as ae",
    ["lebt", "Späte Komplikation"],
    ["lebt", "Spaete Komplikation"],
    told_or_refused("died"),
    model=net,
)
labels(
    "a carriage return behind the label",
    ["no", "yes"],
    ["no\r", "yes\r"],
    Expected(refused=("died|line",), right=logit_is(ROWS)),
)
labels("1 and 2 beside yes and no", ["no", "yes"], [1, 2], refused("died"))
labels("positive: '> 0' where one site has words", [0, 1], ["no", "yes"], refused("died", r"\bb\b"), positive="> 0")
labels("positive: '== 2', one site codes 0/1", [1, 2], [0, 1], told_or_refused(r"\bb\b"), positive="== 2")
labels(
    "positive: '== yes' in capitals by the researcher",
    ["no", "yes"],
    ["no", "yes"],
    refused("yes|YES"),
    positive="== YES",
)
labels("pCR and non-pCR", ["non-pCR", "pCR"], ["non-pCR", "pCR"], told("pCR"), kind="A7")
labels("True and False as text", ["False", "True"], ["False", "True"], FITS, kind="A7")
labels("good and poor: 'poor' is last", ["poor", "good"], ["poor", "good"], told("poor"), kind="A7")
labels("0 for the case and 1 for the control", [1, 0], [1, 0], right(lambda r: True), kind="A7")


@fourth("A4", "categories &lt;65 and <65")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(grp=np.where(number(f) % 2, "<65", ">=65")), "ac")
    frames = each(frames, lambda f: f.assign(grp=np.where(number(f) % 2, "&lt;65", ">=65")), "b")
    return files(folder, frames, glm(categorical=["grp"]), told_or_refused("grp"))


@fourth("A4", "codes with a letter: T1 beside 1")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(stage=[f"T{i % 4 + 1}" for i in number(f)]), "ac")
    return files(
        folder,
        each(frames, lambda f: f.assign(stage=number(f) % 4 + 1), "b"),
        glm(categorical=["stage"]),
        refused("stage"),
    )


@fourth("A4", "categories as numbers with and without decimals")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(stage=number(f) % 3 + 1), "ac")
    frames = each(frames, lambda f: f.assign(stage=np.where(number(f) % 9, number(f) % 3 + 1.0, np.nan)), "b")
    return files(
        folder,
        frames,
        glm(categorical=["stage"]),
        right(lambda r: sorted(r["preparation"]["categories"]["stage"]) == [1, 2, 3]),
    )


@fourth("A4", "a scale the other way round at one site: 1 is best, 5 is best")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(score=1 + number(f) % 5))
    return files(folder, frames, glm(), right(features_are(*COLUMNS, "score")))
