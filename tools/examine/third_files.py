"""Third sample: files as programs of hospitals write them, and sites whose file is another thing (A1, A3)."""

from __future__ import annotations

import gzip
import sqlite3
import zipfile
from pathlib import Path

import pandas as pd

from tools.examine.case import Expected, Input, refused, right, told, told_or_refused
from tools.examine.patients import (
    cox,
    csv,
    each,
    files,
    glm,
    logit_is,
    pooled,
    texts,
    three,
    with_survival,
    written,
)  # fmt: skip
from tools.examine.third import third

BASE = three(31)
FITS = right(logit_is(pooled(BASE)))


@third("A1", "Epic report: four title lines above the header")
def _(folder: Path) -> Input:
    top = "Cardiology cohort extract\nRun by: JDOE\nRun date: 11/03/2025 08:14\n\n"
    return texts(folder, BASE, lambda text: top + text, glm(), refused(r"line|header"))


@third("A1", "Management Studio: the footer (160 rows affected)")
def _(folder: Path) -> Input:
    return texts(
        folder, BASE, lambda text: text + f"\n({text.count(chr(10)) - 1} rows affected)\n", glm(), refused(r"line \d+")
    )


@third("A1", "sqlcmd -s: dashes under the header")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        head, rest = text.split("\n", 1)
        return head + "\n" + ",".join("-" * len(name) for name in head.split(",")) + "\n" + rest

    return texts(folder, BASE, change, glm(), told_or_refused(r"line 2|first row|dash|---|under"))


@third("A1", "units in a second header line")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        return text.replace("died\n", "died\nyears,mmHg,mmol/L,kg/m2,0/1\n", 1)

    return texts(folder, BASE, change, glm(), told_or_refused(r"unit|line 2|first row|second|header"))


@third("A1", "units in a second header line, target's cell of it blank")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        return text.replace("died\n", "died\n[a],[mmHg],[mmol/l],[kg/m2],\n", 1)

    return texts(
        folder, BASE, change, glm(), told_or_refused(r"unit|line 2|first row|second|header|age.*sbp.*chol.*bmi")
    )


@third("A1", "a remark with an unquoted semicolon in one line")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(opm=["stabiel" if i != 40 else "moe; hoest" for i in range(len(f))]), "b")
    frames = each(frames, lambda f: f.assign(opm="geen"), "ac")
    paths = written(folder, {n: t.replace('"', "") for n, t in csv(frames, sep=";").items()})
    return Input(paths, glm(separator=";"), refused(r"line 42", r"\bb\b"))


@third("A1", "ChipSoft: a semicolon ends every line, the header's too")
def _(folder: Path) -> Input:
    texts_ = {n: t.replace("\n", ";\n") for n, t in csv(BASE, sep=";").items()}
    return Input(written(folder, texts_), glm(separator=";"), FITS)


@third("A1", "a comma ends every data line, not the header")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        head, rest = text.split("\n", 1)
        return head + "\n" + rest.replace("\n", ",\n")

    return texts(folder, BASE, change, glm(), Expected(refused=(r"line",), right=logit_is(pooled(BASE))))


@third("A1", "psql's aligned listing")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        lines = [" | ".join(cell.rjust(6) for cell in line.split(",")) for line in text.strip().split("\n")]
        return "\n".join([lines[0], "+".join(["--------"] * 5), *lines[1:], f"({len(lines) - 1} rows)\n"])

    return texts(folder, BASE, change, glm(separator="|"), refused(r"line \d+"))


@third("A1", "tabs, file ends in .txt, no separator given")
def _(folder: Path) -> Input:
    return files(
        folder, BASE, glm(), Expected(refused=(r"separator|tab",), right=logit_is(pooled(BASE))), "txt", sep="\t"
    )


@third("A1", "tabs in .txt with the separator given")
def _(folder: Path) -> Input:
    return files(folder, BASE, glm(separator="\t"), FITS, "txt", sep="\t")


@third("A1", "a comment broken over two lines without quotes")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        lines = text.split("\n")
        above = [lines[0] + ",comment", *(line + ",ok" for line in lines[1:50])]
        below = [line + ",ok" for line in lines[51:] if line]
        return "\n".join([*above, lines[50] + ",seen by", "dr Smith", *below, ""])

    return texts(folder, BASE, change, glm(), refused(r"line \d+"))


@third("A1", "heights in feet and inches, with a bare inch mark")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        lines = text.strip().split("\n")
        return "\n".join([lines[0] + ",height", *(f"{line},5'{i % 11}\"" for i, line in enumerate(lines[1:]))]) + "\n"

    return texts(folder, BASE, change, glm(), told("height", right=logit_is(pooled(BASE))))


@third("A1", "REDCap: byte order mark, quoted header, notes of several lines")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(notes=[f'seen\n"again", day {i}' for i in range(len(f))]))
    paths = written(folder, {n: t.encode("utf-8-sig") for n, t in csv(frames, quoting=1).items()})
    return Input(paths, glm(), told("notes", right=logit_is(pooled(BASE))))


@third("A1", "semicolons and no separator given")
def _(folder: Path) -> Input:
    return files(folder, BASE, glm(), Expected(refused=(r"separator",), told=(r"separator",)), sep=";")


@third("A1", "a line of totals at the bottom")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        return text + "Total,,,,58\n"

    return texts(folder, BASE, change, glm(), told_or_refused(r"total|last (line|row)|line \d+|58|age"))


@third("A1", "a line of means at the bottom, without a word")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: pd.concat([f, f.sum().to_frame().T.assign(died=float("nan"))]))
    return files(folder, frames, glm(), told_or_refused(r"empty|left out|died|last line", right=logit_is(pooled(BASE))))


@third("A1", "sums in the last line, target's too: 58 deaths is no label")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: pd.concat([f, f.sum().to_frame().T]))
    return files(folder, frames, glm(), told_or_refused(r"died|label|class|last line"))


@third("A1", "sums in the last line and a regression")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: pd.concat([f, f.sum().to_frame().T]).drop(columns="died"))
    from tools.examine.patients import linear

    return files(folder, frames, linear("bmi"), told_or_refused(r"far|total|sum|outl|last|bmi|apart"))


@third("A1", "Excel's CSV with 200 lines of commas at the end")
def _(folder: Path) -> Input:
    return texts(
        folder,
        BASE,
        lambda t: t + ",,,,\n" * 200,
        glm(),
        Expected(told=(r"200|died|empty",), right=logit_is(pooled(BASE))),
    )


@third("A1", "two exports in one file: the header again in the middle")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        lines = text.split("\n")
        return "\n".join([*lines[:70], lines[0], *lines[70:]])

    return texts(folder, BASE, change, glm(), told_or_refused(r"header|line 71|again|repeat|column names"))


@third("A1", "line ends of Windows, old Mac and Unix")
def _(folder: Path) -> Input:
    made = csv(BASE)
    ends = {"a": "\r\n", "b": "\r", "c": "\n"}
    return Input(written(folder, {n: t.replace("\n", ends[n]).encode() for n, t in made.items()}), glm(), FITS)


@third("A1", "SPSS listing: columns aligned by spaces")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        return "\n".join("".join(cell.rjust(9) for cell in line.split(",")) for line in text.strip().split("\n")) + "\n"

    return texts(folder, BASE, change, glm(separator=" "), FITS)


@third("A1", "comment lines with # above the header")
def _(folder: Path) -> Input:
    return texts(
        folder,
        BASE,
        lambda t: "# biobank release 4, 2024-11\n# contact: data@x.org\n" + t,
        glm(),
        Expected(refused=(r"line|header|#",), right=logit_is(pooled(BASE))),
    )


@third("A1", "Excel's Unicode text, encoding and separator given")
def _(folder: Path) -> Input:
    paths = written(folder, {n: t.encode("utf-16") for n, t in csv(BASE, sep="\t").items()}, "txt")
    return Input(paths, glm(separator="\t", encoding="utf-16"), FITS)


@third("A1", "Excel's Unicode text, nothing given")
def _(folder: Path) -> Input:
    paths = written(folder, {n: t.encode("utf-16") for n, t in csv(BASE, sep="\t").items()}, "txt")
    return Input(paths, glm(), refused("utf-16"))


@third("A1", "no header at all")
def _(folder: Path) -> Input:
    return texts(folder, BASE, lambda t: t.split("\n", 1)[1], glm(), refused(r"died", r"column"))


@third("A1", "a NUL byte in the middle of a file")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        return text[:900] + "\x00" + text[900:]

    return texts(folder, BASE, change, glm(), told_or_refused(r"line|NUL|zero byte|text|null"))


@third("A1", "an export cut off in its last line")
def _(folder: Path) -> Input:
    return texts(folder, BASE, lambda t: t[:-12], glm(), refused(r"line \d+"))


@third("A1", "values of the target stand last and some lines lack them")
def _(folder: Path) -> Input:
    def change(text: str) -> str:
        lines = text.split("\n")
        return "\n".join([*lines[:20], lines[20].rsplit(",", 1)[0], *lines[21:]])

    return texts(folder, BASE, change, glm(), refused(r"line 21"))


@third("A1", "CSV in gzip")
def _(folder: Path) -> Input:
    paths = {}
    for name, text in csv(BASE).items():
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
        paths[name] = str(folder / f"{name}.csv.gz")
    return Input(paths, glm(), Expected(refused=(r"gz",), right=logit_is(pooled(BASE))))


@third("A3", "CSV in a zip")
def _(folder: Path) -> Input:
    paths = {}
    for name, text in csv(BASE).items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as packed:
            packed.writestr(f"{name}.csv", text)
        paths[name] = str(folder / f"{name}.zip")
    return Input(paths, glm(), Expected(refused=(r"zip",), right=logit_is(pooled(BASE))))


@third("A3", "one site has the header and no rows")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.iloc[:0], "b")
    return files(folder, frames, glm(), told_or_refused(r"\bb\b", r"row"))


@third("A3", "one site's file is empty")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    Path(paths["c"]).write_text("")
    return Input(paths, glm(), refused(r"\bc\b", r"empty|no column|nothing"))


@third("A3", "one site's outcome is not filled in yet")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(died=float("nan")), "b")
    return files(folder, frames, glm(), told_or_refused(r"\bb\b", r"died"))


@third("A3", "one site has only survivors")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.assign(died=0), "b")
    return files(folder, frames, glm(), told_or_refused(r"\bb\b", right=logit_is(pooled(frames))))


@third("A3", "one site's .xls is a web page")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    (folder / "b.xls").write_text("<html><body>" + BASE["b"].to_html(index=False) + "</body></html>")
    return Input(paths | {"b": str(folder / "b.xls")}, glm(), refused(r"\bb\b|b\.xls", r"xls|Excel|html|web page"))


@third("A3", "one site's .xls is text with tabs")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    (folder / "b.xls").write_text(BASE["b"].to_csv(index=False, sep="\t"))
    return Input(paths | {"b": str(folder / "b.xls")}, glm(), refused(r"\bb\b|b\.xls", r"xls|Excel|text"))


@third("A3", "one site's book has a password")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    (folder / "b.xlsx").write_bytes(
        bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 2000 + "EncryptedPackage".encode("utf-16-le") + b"\0" * 500
    )
    return Input(paths | {"b": str(folder / "b.xlsx")}, glm(), refused(r"b\.xlsx|\bb\b", r"password|encrypt|Excel"))


@third("A3", "one site sends a Stata file")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    BASE["b"].to_stata(folder / "b.dta", write_index=False)
    return Input(
        paths | {"b": str(folder / "b.dta")}, glm(), Expected(refused=(r"\.dta|Stata",), right=logit_is(pooled(BASE)))
    )


@third("A3", "one site sends an SPSS file")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    (folder / "b.sav").write_bytes(b"$FL2@(#) SPSS DATA FILE MS Windows Release 25.0" + b"\0\1\2" * 400)
    return Input(paths | {"b": str(folder / "b.sav")}, glm(), refused(r"\.sav|SPSS"))


@third("A3", "one site sends a SAS file")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    (folder / "b.sas7bdat").write_bytes(b"\0" * 12 + b"\xc2\xea\x81\x60" + b"\0" * 4000)
    return Input(paths | {"b": str(folder / "b.sas7bdat")}, glm(), refused(r"sas7bdat|SAS"))


@third("A3", "FHIR flattened to lines of JSON")
def _(folder: Path) -> Input:
    paths = {}
    for name, frame in BASE.items():
        frame.to_json(folder / f"{name}.ndjson", orient="records", lines=True)
        paths[name] = str(folder / f"{name}.ndjson")
    return Input(paths, glm(), Expected(refused=(r"json",), right=logit_is(pooled(BASE))))


@third("A3", "feather")
def _(folder: Path) -> Input:
    paths = {}
    for name, frame in BASE.items():
        frame.to_feather(folder / f"{name}.feather")
        paths[name] = str(folder / f"{name}.feather")
    return Input(paths, glm(), Expected(refused=(r"feather",), right=logit_is(pooled(BASE))))


@third("A3", "a folder with this year's and last year's export")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    place = folder / "hospital"
    place.mkdir()
    BASE["b"].to_csv(place / "export_2024.csv", index=False)
    BASE["b"].to_csv(place / "export_2025.csv", index=False)
    return Input(paths | {"b": str(place)}, glm(), refused(r"export_2024|two|2 tables|several|one table"))


@third("A3", "the outcome has a Dutch name at one site")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.rename(columns={"died": "overleden"}), "b")
    return files(folder, frames, glm(), refused(r"\bb\b", "died"))


@third("A3", "a file of seven patients")
def _(folder: Path) -> Input:
    frames = each(BASE, lambda f: f.head(7), "c")
    seen = pooled({site: frame for site, frame in frames.items() if site != "c"})
    return files(folder, frames, glm(), told_or_refused(r"\bc\b", right=logit_is(seen)))


@third("A3", "SQLite with two tables and none named")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    connection = sqlite3.connect(folder / "b.sqlite")
    BASE["b"].to_sql("opnames", connection, index=False)
    BASE["b"].head(9).to_sql("lab", connection, index=False)
    connection.close()
    return Input(paths | {"b": str(folder / "b.sqlite")}, glm(), refused("opnames", "lab|query"))


@third("A3", "sheets called Sheet1, Tabelle1 and Feuil1")
def _(folder: Path) -> Input:
    paths = {}
    for (name, frame), sheet in zip(BASE.items(), ["Sheet1", "Tabelle1", "Feuil1"], strict=True):
        frame.to_excel(folder / f"{name}.xlsx", sheet_name=sheet, index=False)
        paths[name] = str(folder / f"{name}.xlsx")
    return Input(paths, glm(), FITS)


@third("A3", "one hospital's file is a copy of another's")
def _(folder: Path) -> Input:
    frames = BASE | {"c": BASE["b"]}
    return files(folder, frames, glm(), told_or_refused(r"same|cop(y|ies)|identical"))


@third("A3", "a survival table where one site has no event yet")
def _(folder: Path) -> Input:
    frames = each(with_survival(BASE), lambda f: f.assign(event=0), "c")
    return files(folder, frames, cox(), told_or_refused(r"\bc\b", r"event"))


@third("A3", "a site's columns are one patient each, variables are rows")
def _(folder: Path) -> Input:
    paths = written(folder, csv(BASE))
    turned = BASE["b"].T.reset_index()
    turned.to_csv(folder / "b.csv", index=False)
    return Input(paths, glm(), refused(r"\bb\b", "died"))
