"""The files of the GTEx portal (https://gtexportal.org) as `gtex_table` wants them: samples in rows, genes in columns.

Called by `gtex_table.py`. The portal's matrix is a GCT: a line `#1.2`, a line of its two sizes, a header, then for each
of 56,200 genes a line with its versioned id, its symbol and its TPM in 17,382 samples. Turned around in memory that is
4 GB; here one line at a time goes to a file beside the result, and some samples at a time come back from it.
"""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa


def read_annotations(attributes: Path, subjects: Path) -> pd.DataFrame:
    """Return Name, Tissue, Subtissue, Age, Sex, Death and Avg_age from the portal's two annotation files.

    A sample belongs to the donor in the first two parts of its id. Samples of a subject that is not listed, such as the
    cell line K-562, are left out.
    """
    samples = _columns(attributes, ["SAMPID", "SMTS", "SMTSD"])
    donors = _columns(subjects, ["SUBJID", "SEX", "AGE", "DTHHRDY"])
    samples["SUBJID"] = samples["SAMPID"].str.split("-").str[:2].str.join("-")
    frame = samples.merge(donors, on="SUBJID", validate="many_to_one")
    ages = frame["AGE"].astype(str).str.extract(r"^(\d+)-(\d+)$").astype(float)
    if ages.isna().any(axis=None):
        raise SystemExit(f"{subjects}: AGE is to be a band such as 20-29")
    frame["Avg_age"] = ages.mean(axis=1)
    names = {"SAMPID": "Name", "SMTS": "Tissue", "SMTSD": "Subtissue", "AGE": "Age", "SEX": "Sex", "DTHHRDY": "Death"}
    return frame.rename(columns=names)[["Name", "Tissue", "Subtissue", "Age", "Sex", "Death", "Avg_age"]]


def _columns(path: Path, columns: list[str]) -> pd.DataFrame:
    # Pathologists' notes hold single quotation marks, and a region's name may be NA.
    frame = pd.read_csv(path, sep="\t", quoting=3, dtype=str, keep_default_na=False, na_values=[""])
    if missing := [name for name in columns if name not in frame.columns]:
        raise SystemExit(f"{path}: there is no column {missing[0]}")
    frame = frame[columns].copy()
    for name in {"SEX", "DTHHRDY"} & set(columns):
        frame[name] = pd.to_numeric(frame[name].replace("NA", None))
    return frame


def is_gct(path: Path) -> bool:
    """Say whether a file is a GCT, compressed or not, by its name."""
    return path.name.removesuffix(".gz").endswith(".gct")


def gct_tables(
    path: Path, samples: Collection[str], rows: int, scratch: Path, genes: list[str] | None = None
) -> Iterator[pa.Table]:
    """Yield Name and TPM (float32) of each gene, some samples at a time.

    Parameters
    ----------
    path
        The GCT, compressed or not.
    samples
        Those to keep.
    rows
        Samples at a time.
    scratch
        A folder with room for 4 bytes for each gene and sample kept.
    genes
        Those to keep; None: all.
    """
    with _Gct(path) as file, tempfile.NamedTemporaryFile(dir=scratch, prefix=".gct-") as kept:
        own = np.array([number for number, name in enumerate(file.samples) if name in samples], dtype=int)
        names = [file.samples[number] for number in own]
        if not names:
            return
        wanted = None if genes is None else set(genes)
        found: dict[str, int] = {}
        matrix = np.memmap(kept, np.float32, "w+", shape=(file.genes if genes is None else len(genes), len(names)))
        for gene, line in file:
            if gene in found:
                raise SystemExit(f"{path}: gene {gene} is there twice")
            if wanted is None or gene in wanted:
                found[gene] = len(found)
                matrix[found[gene]] = file.numbers(gene, line)[own]
        for start in range(0, len(names), rows):
            # A gene's part of these samples is a page or so of the file.
            block = np.array(matrix[: len(found), start : start + rows])
            columns = [pa.array(names[start : start + rows]), *(pa.array(values) for values in block)]
            yield pa.table(columns, names=["Name", *found])


class _Gct:
    """A GCT that is being read: names of `samples`, the number of `genes`, then an id and a line for each gene."""

    def __init__(self, path: Path) -> None:
        self._path = path
        opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115 (`__exit__` closes it)
        self._file = cast(BinaryIO, opened)
        if not self._line().startswith(b"#1."):
            raise SystemExit(f"{path}: a GCT begins with a line #1.2")
        sizes, header = self._line().split(b"\t"), self._line().decode().split("\t")
        if "Name" not in header or "Description" not in header:
            raise SystemExit(f"{path}: the third line of a GCT names the columns, Name and Description among them")
        # Files of one tissue have a column `id` before these.
        self._before, self._name = header.index("Description") + 1, header.index("Name")
        self.samples, self.genes = header[self._before :], int(sizes[0])
        if len(self.samples) != int(sizes[1]):
            raise SystemExit(f"{path}: it has {len(self.samples)} samples, and its second line says {int(sizes[1])}")

    def _line(self) -> bytes:
        try:
            return self._file.readline().rstrip(b"\r\n")
        except (EOFError, OSError, zlib.error):
            raise SystemExit(f"{self._path}: the file is cut short or damaged") from None

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for _ in range(self.genes):
            parts = self._line().split(b"\t", self._before)
            if len(parts) <= self._before:
                raise SystemExit(f"{self._path}: the file is cut short: its second line says {self.genes} genes")
            yield parts[self._name].decode(), parts[-1]

    def numbers(self, gene: str, line: bytes) -> np.ndarray:
        """Return (samples,) float32."""
        try:
            values = np.array(line.split(b"\t"), dtype=np.float32)
        except ValueError:
            raise SystemExit(f"{self._path}: gene {gene} has something that is no number") from None
        if len(values) != len(self.samples):
            raise SystemExit(f"{self._path}: gene {gene} has {len(values)} numbers for {len(self.samples)} samples")
        return values

    def __enter__(self) -> _Gct:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
