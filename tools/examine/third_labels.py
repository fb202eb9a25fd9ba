"""Third sample: labels, categories, classes and numbers that name patients (A4, A7, A8)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tools.examine.case import Expected, Input, refused, right, told, told_or_refused
from tools.examine.patients import COLUMNS, each, features_are, files, glm, logit_is, pooled, three
from tools.examine.third import third

BASE = three(33)
ROWS = pooled(BASE)


def labels(kind: str, name: str, a: Sequence[Any], b: Sequence[Any], expected: Expected, **data: Any) -> None:
    """Register an input whose target is written (0, 1) in one way at sites a and c, and in another at site b."""

    def make(folder: Path) -> Input:
        frames = each(BASE, lambda f: f.assign(died=[a[v] for v in f.died]), "ac")
        return files(folder, each(frames, lambda f: f.assign(died=[b[v] for v in f.died]), "b"), glm(**data), expected)

    third(kind, name)(make)


def categories(name: str, a: Sequence[Any], b: Sequence[Any], expected: Expected, **data: Any) -> None:
    """Register an input with a categorical column that site b writes differently."""

    def make(folder: Path) -> Input:
        frames = each(BASE, lambda f: f.assign(sex=[a[i % len(a)] for i in range(len(f))]), "ac")
        frames = each(frames, lambda f: f.assign(sex=[b[i % len(b)] for i in range(len(f))]), "b")
        return files(folder, frames, glm(categorical=["sex"], **data), expected)

    third("A4", name)(make)


def identifier(name: str, column: str, cell: Callable[[int], Any], expected: Expected | None = None) -> None:
    """Register an input with a column that names patients or rows: not learned from, and told."""

    def make(folder: Path) -> Input:
        frames = {
            site: frame.assign(**{column: [cell(i + 1000 * number) for i in range(len(frame))]})
            for number, (site, frame) in enumerate(BASE.items())
        }
        import re

        wanted = expected or told(re.escape(column), right=features_are(*COLUMNS))
        return files(folder, frames, glm(), wanted)

    third("A8", name)(make)


DIFFER = refused("died")
labels("A4", "Ja and Nee beside Yes and No", ["No", "Yes"], ["Nee", "Ja"], DIFFER)
labels("A4", "labelled REDCap beside raw", ["No", "Yes"], [0, 1], DIFFER)
labels("A4", "True beside 1", [False, True], [0, 1], Expected(refused=("died",), right=logit_is(ROWS)))
labels("A4", "0.0 beside 0", ["0.0", "1.0"], [0, 1], right(logit_is(ROWS)))
labels("A4", "Y beside Yes", ["N", "Y"], ["No", "Yes"], DIFFER)
labels("A4", "1/2 of SPSS beside 0/1", [0, 1], [1, 2], DIFFER)
labels("A4", "2/1 of SPSS at all sites, 1 is yes", [2, 1], [2, 1], told("died|class|positive", "2"))
labels("A4", "Décédé in UTF-8 taken for latin-1 at one site", ["Vivant", "Décédé"], ["Vivant", "DÃ©cÃ©dÃ©"], DIFFER)
labels("A4", "Décédé without accents at one site", ["Vivant", "Décédé"], ["Vivant", "Decede"], DIFFER)
labels("A4", "Zmarły with and without the stroke", ["Żyje", "Zmarły"], ["Zyje", "Zmarly"], DIFFER)
labels("A4", "HAYIR and Hayır, dotless", ["Evet", "Hayır"], ["EVET", "HAYIR"], DIFFER)
labels("A4", "İYİLEŞTİ in capitals with dots", ["iyileşti", "öldü"], ["İYİLEŞTİ", "ÖLDÜ"], DIFFER)
labels(
    "A4", "decomposed letters from a Mac", ["né", "dé"], [unicodedata.normalize("NFD", w) for w in ("né", "dé")], DIFFER
)
labels("A4", "full-width letters at one site", ["No", "Yes"], ["Ｎｏ", "Ｙｅｓ"], DIFFER)
labels(
    "A4",
    "SAS pads labels with blanks",
    ["No      ", "Yes     "],
    ["No", "Yes"],
    Expected(
        refused=("died",),
        right=lambda r: len(r["preparation"]["classes"]) == 2 if "classes" in r["preparation"] else True,
    ),
)
labels("A4", "single quotes around labels at one site", ["No", "Yes"], ["'No'", "'Yes'"], DIFFER)
labels(
    "A4",
    "a zero-width space in one site's labels",
    ["No", "Yes"],
    ["No\u200b", "Yes\u200b"],
    Expected(refused=("died",), right=logit_is(ROWS)),
)
labels("A4", "a Cyrillic О in one site's 'NО'", ["NO", "YES"], ["N\u041e", "YES"], DIFFER)
labels("A4", "roman and arabic grades", ["I", "II"], [1, 2], DIFFER)
labels("A4", "label with the code in front at one site", ["No", "Yes"], ["0, No", "1, Yes"], DIFFER)
labels("A4", "abbreviated with a point at one site", ["neg", "pos"], ["neg.", "pos."], DIFFER)
labels("A4", "one label alike, one in other words", ["alive", "dead"], ["alive", "deceased"], DIFFER)
labels(
    "A4",
    "positive: == Dead, one site writes DEAD",
    ["Alive", "Dead"],
    ["ALIVE", "DEAD"],
    refused("Dead", r"\bb\b"),
    positive="== Dead",
)
labels("A4", "positive: == 1, one site writes yes", [0, 1], ["no", "yes"], refused("died", r"\bb\b"), positive="== 1")
labels(
    "A4",
    "positive: == ja, with a space behind at one site",
    ["nein", "ja"],
    ["nein ", "ja "],
    Expected(refused=("ja",), right=logit_is(ROWS)),
    positive="== ja",
)
labels("A7", "dead and alive", ["alive", "dead"], ["alive", "dead"], told("dead"))
labels(
    "A7",
    "case and control: 'control' is last in the alphabet",
    ["control", "case"],
    ["control", "case"],
    told("control"),
)
labels("A7", "benigno and maligno", ["benigno", "maligno"], ["benigno", "maligno"], told("maligno"))
labels("A7", "あり and なし", ["なし", "あり"], ["なし", "あり"], told("なし"))
labels("A7", "ill and healthy: 'ill' is last", ["healthy", "ill"], ["healthy", "ill"], told("ill"))
labels("A7", "1 is no and 2 is yes", [1, 2], [1, 2], told("2"))


@third("A4", "an outcome of 0, 1 and 9 for unknown")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(died=np.where(np.arange(len(f)) % 12 == 0, 9, f.died)))
    return files(folder, frames, glm(), told_or_refused("died", "9|class"))


@third("A4", "an outcome with 'Unknown' among Yes and No")
def _(folder: Path) -> Input:
    frames = each(
        BASE,
        lambda f: f.assign(died=np.where(np.arange(len(f)) % 12 == 0, "Unknown", np.where(f.died == 1, "Yes", "No"))),
    )
    return files(folder, frames, glm(), told_or_refused("died", "unknown|class"))


@third("A4", "an outcome with 'Unknown' at one site only")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(died=np.where(f.died == 1, "Yes", "No")))
    frames = each(frames, lambda f: f.assign(died=np.where(np.arange(len(f)) % 6 == 0, "Unknown", f.died)), "b")
    return files(folder, frames, glm(), told_or_refused("died"))


@third("A4", "an outcome typed by hand, yes and Yes at the same site")
def _(folder: Path) -> Input:
    frames = each(
        BASE, lambda f: f.assign(died=[["no", "yes"][v] if i % 5 else ["No", "Yes"][v] for i, v in enumerate(f.died)])
    )
    return files(folder, frames, glm(), told_or_refused("died"))


@third("A4", "an outcome typed by hand, with spaces within: 'not  dead'")
def _(folder: Path) -> Input:
    frames = each(
        BASE,
        lambda f: f.assign(
            died=[["not dead", "dead"][v] if i % 5 else ["not  dead", "dead"][v] for i, v in enumerate(f.died)]
        ),
    )
    return files(folder, frames, glm(), told_or_refused("died"))


STOP = refused("sex")
categories("F/M beside 1/2", ["F", "M"], [1, 2], STOP)
categories("f and female", ["F", "M"], ["female", "male"], STOP)
categories("KADIN and Kadın", ["Kadın", "Erkek"], ["KADIN", "ERKEK"], STOP)
categories(
    "en dash and hyphen in age groups", ["<65", "65-75", ">75"], ["<65", "65\u201375", ">75"], told_or_refused("sex")
)
categories(
    "Excel made dates of 1-3 at one site", ["1-3", "4-6", "7+"], ["01-Mar", "04-Jun", "7+"], told_or_refused("sex")
)
categories("01 beside 1", ["01", "02"], [1, 2], Expected(refused=("sex",), told=("sex",)))
categories("M, V of Dutch beside M, F", ["M", "V"], ["M", "F"], told_or_refused("sex"))
categories("männlich with ß and ss", ["groß", "klein"], ["gross", "klein"], told_or_refused("sex"))
categories("unknown at one site only", ["F", "M"], ["F", "M", "U"], told_or_refused("sex"))
categories("a blank category at one site", ["F", "M"], ["F", "M", ""], told("sex|indicat|empty"))
categories("diagnosis 'None' at one site", ["None", "type 2"], ["none", "type 2"], told_or_refused("sex"))
categories("continent NA as a word", ["EU", "NA", "AS"], ["EU", "NA", "AS"], told("NA", "sex"))
categories("A+ and A plus", ["A+", "0+"], ["A plus", "0 plus"], STOP)
categories("blood group 0 beside O", ["0", "A", "B"], ["O", "A", "B"], told_or_refused("sex"))
categories("2 and 2.0", ["1", "2"], ["1.0", "2.0"], right(lambda r: len(r["preparation"]["categories"]["sex"]) == 2))
categories("TRUE beside true", ["TRUE", "FALSE"], ["true", "false"], Expected(refused=("sex",), right=lambda r: True))


@third("A4", "a sex of 1/2 learned as a number at two sites, 0/1 at the third")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(sex=np.arange(len(f)) % 2 + 1), "ac")
    return files(
        folder,
        each(frames, lambda f: f.assign(sex=np.arange(len(f)) % 2), "b"),
        glm(),
        told_or_refused("sex", r"\bb\b"),
    )


@third("A4", "a score from 0 to 4, from 1 to 5 at one site")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(score=(np.arange(len(f)) * 7) % 5))
    return files(
        folder, each(frames, lambda f: f.assign(score=f.score + 1), "b"), glm(), told_or_refused("score", r"\bb\b")
    )


# Numbers that name patients or rows; those that repeat (an admission each) have only their name to tell by.
identifier("REDCap's record_id", "record_id", lambda i: i + 1)
identifier("UK Biobank's eid", "eid", lambda i: 1_000_011 + 37 * i)
identifier("OMOP's person_id, repeated", "person_id", lambda i: 500 + i // 2)
identifier("i2b2's patient_num, repeated", "patient_num", lambda i: 70_000 + i // 3)
identifier("OMOP's visit_occurrence_id", "visit_occurrence_id", lambda i: 90_000 + i // 2)
identifier("SAP's PATNR", "PATNR", lambda i: 8_000_000 + i // 2)
identifier("SAP's Fallnummer", "Fallnummer", lambda i: 12_000 + i // 2)
identifier("Dutch patientnummer", "patientnummer", lambda i: 1_000 + i // 2)
identifier("French IPP", "IPP", lambda i: 81_000 + i // 2)
identifier("French NIP patient", "nip", lambda i: 81_000 + i // 2)
identifier("Spanish nhc", "nhc", lambda i: 33_000 + i // 2)
identifier("Spanish número de historia", "num_historia", lambda i: 33_000 + i // 2)
identifier("Italian nosologico", "nosologico", lambda i: 20_000 + i // 2)
identifier("Polish PESEL", "pesel", lambda i: 60_010_112_345 + i // 2)
identifier("Polish lp., the row's number", "Lp.", lambda i: i % 1000 + 1)
identifier("Danish CPR-nummer", "cpr_nummer", lambda i: 101_601_234 + i // 2)
identifier("Swedish personnummer", "personnummer", lambda i: 195_801_011_234 + i // 2)
identifier("Turkish hasta_no", "hasta_no", lambda i: 5_000 + i // 2)
identifier("Japanese 患者番号", "患者番号", lambda i: 5_000 + i // 2)
identifier("Chinese 住院号", "住院号", lambda i: 5_000 + i // 2)
identifier("Portuguese prontuario", "prontuario", lambda i: 5_000 + i // 2)
identifier("NHS number", "nhs_number", lambda i: 9_434_765_919 + i // 2)
identifier("Castor's Record Id", "Record Id", lambda i: 110_001 + i)
identifier("OpenClinica's SS_StudySubject", "StudySubjectID", lambda i: 110_001 + i // 2)
identifier("a row number with a gap", "X", lambda i: i % 1000 * 1 + (i % 1000 > 40))
identifier("#", "#", lambda i: i % 1000 + 1)
identifier("laufende Nummer, shuffled", "lfd_nr", lambda i: (i % 1000) * 7 % 1009)
identifier("sample barcode of digits", "barcode", lambda i: 300_500_000 + i)
identifier("a hash", "pseudonym", lambda i: f"{i * 2654435761 % 2**32:08x}")
identifier("a numeric pseudonym without a telling name", "pseudo", lambda i: i * 2654435761 % 2**31)
identifier("telephone", "telefoon", lambda i: 31_600_000_000 + i * 7919 % 90_000_000)
identifier("a free row key", "rowguid", lambda i: f"{i:08d}-aaaa-bbbb")


@third("A8", "the hospital's code, one at each site")
def _(folder: Path) -> Input:
    frames = {site: frame.assign(centre=number + 1) for number, (site, frame) in enumerate(BASE.items())}
    return files(folder, frames, glm(), told("centre"))


@third("A8", "a column that is not named in the header (pandas index)")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: pd.concat([f.reset_index().rename(columns={"index": ""})], axis=1))
    return files(folder, frames, glm(), told("Unnamed|row|no name", right=features_are(*COLUMNS)))


@third("A8", "month of admission is no identifier")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(number_of_drugs=np.arange(len(f)) % 12 + 1))
    return files(folder, frames, glm(), right(features_are(*COLUMNS, "number_of_drugs")))


@third("A8", "names that only look like identifiers: paid_leave, idh1, width")
def _(folder: Path) -> Input:
    frames = each(
        BASE,
        lambda f: f.assign(
            idh1=np.arange(len(f)) % 3,
            width_mm=np.arange(len(f)) % 29,
            nr_of_lesions=np.arange(len(f)) % 7,
            numbness=np.arange(len(f)) % 2,
            snips=np.arange(len(f)) % 5,
        ),
    )
    return files(
        folder, frames, glm(), right(features_are(*COLUMNS, "idh1", "width_mm", "nr_of_lesions", "numbness", "snips"))
    )
