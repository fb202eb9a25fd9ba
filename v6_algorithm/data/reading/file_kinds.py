"""What a file is by its ending or its first bytes, so that one that is not read is called by name; for `sources`."""

from __future__ import annotations

from pathlib import Path

# What hospitals' programs write, by the ending.
OF_PROGRAMS = {
    ".dta": "a file of Stata", ".sav": "a file of SPSS", ".zsav": "a file of SPSS", ".por": "a file of SPSS",
    ".sas7bdat": "a file of SAS", ".xpt": "a file of SAS", ".rds": "a file of R", ".rda": "a file of R",
    ".rdata": "a file of R", ".feather": "a feather file", ".arrow": "an Arrow file", ".json": "JSON",
    ".jsonl": "JSON", ".xml": "XML", ".ods": "a LibreOffice sheet", ".zip": "an archive", ".mat": "a file of Matlab",
    ".accdb": "an Access database", ".mdb": "an Access database", ".h5": "HDF5", ".hdf5": "HDF5", ".pkl": "a pickle",
    ".pickle": "a pickle", ".duckdb": "a DuckDB database", ".ddb": "a DuckDB database",
    ".docx": "a Word document", ".pdf": "a PDF document",
}  # fmt: skip
_BEGINNINGS = {
    b"PK\x03\x04": "excel (xlsx) or a zip file", b"\xd0\xcf\x11\xe0": "an old excel file (xls)", b"PAR1": "parquet",
    b"SQLite format 3": "a database (sql)", b"\x1f\x8b": "a gzip file", b"$FL": "a file of SPSS",
    b"ARROW1": "a feather file",
    b"\x89HDF": "HDF5", b"MATLAB 5": "a file of Matlab", b"RDX": "a file of R", b"<stata_dta>": "a file of Stata",
    b"%PDF": "a PDF document", b"\x80\x04\x95": "a pickle",
}  # fmt: skip
# Kinds that another type reads.
_READ = ("excel", "parquet", "sql", "text", "gzip", "HTML")
_PAGE = (b"<!doctype", b"<html", b"<head", b"<table", b"<?xml")


def _text_kind(start: bytes) -> str:
    """Say what a text file is by its first bytes."""
    if start.lstrip().lower().startswith(_PAGE):
        return "an HTML page"
    if b"".join(start.split())[:2] in (b'{"', b"[{", b"[["):
        return "JSON"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, whose file was not fetched"
    return "text, as csv is"


def begins_as(uri: str, kind: str) -> str:
    """Say what a file is, where its first bytes tell that it is not of the kind that it is read as; else nothing."""
    try:
        with Path(uri).open("rb") as file:
            start = file.read(512)
    except OSError:
        return ""
    looks = next((name for mark, name in _BEGINNINGS.items() if start.startswith(mark)), "")
    looks = looks or ("a DuckDB database" if start[8:12] == b"DUCK" else "")
    if not looks and start and b"\0" not in start:
        looks = _text_kind(start)
    if not looks or kind in looks:
        return ""
    readable = any(word in looks for word in _READ)
    return f": it begins as {looks}; {'give its type, or ' if readable else ''}save it as {kind}"
