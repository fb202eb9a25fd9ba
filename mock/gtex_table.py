"""From GTEx's two files, real or synthetic, to the one table that an experiment reads.

    python mock/gtex_table.py mock/gtex/samples.parquet mock/gtex/expressions.parquet mock/gtex/table.parquet --log2

With the files as the portal has them (https://gtexportal.org, GTEx Analysis V8; gzip or not), and 4 GB of disk on the
way for all genes:

    python mock/gtex_table.py GTEx_Analysis_v8_Annotations_SampleAttributesDS.txt \\
        GTEx_Analysis_2017-06-05_v8_RNASeQCv1.1.9_gene_tpm.gct.gz mock/gtex/table.parquet --log2 \\
        --subjects GTEx_Analysis_v8_Annotations_SubjectPhenotypesDS.txt

Runs where the data are, at the hospital, before its node starts: a node hands an algorithm one table a label, and how
two files of a study belong together is the study's business. It needs pandas and pyarrow, not v6_algorithm. Rows with
both descriptions and expressions are kept. Codes become words; one-hot columns are left to `data.categorical`, which
makes them over the union of the sites' tissues. `Donor` is new: samples of a donor share an age, so an experiment
names it as `data.group`, or what is learned in training is known in testing. Memory: some rows at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from gtex_portal import gct_tables, is_gct, read_annotations

DEATH = {0: "ventilator case", 1: "<10 min.", 2: "<1 hr", 3: "1-24 hr.", 4: ">1 day"}
SEX = {1: "male", 2: "female"}
ROWS_AT_ONCE = 1000


def read_samples(path: Path, subjects: Path | None = None) -> pd.DataFrame:
    """Return Donor, Tissue, Subtissue, Age, Sex, Death and Avg_age by Name, codes in words.

    One file has all of it, or, with `subjects`, it is two files of the portal.
    """
    one = subjects is None
    frame = next(iter(_tables(path, 10**9))).to_pandas() if one else read_annotations(path, subjects)
    if "Name" not in frame.columns:
        raise SystemExit(f"{path}: there is no column Name; for the portal's files give --subjects as well")
    frame = frame.set_index("Name")
    if frame.index.has_duplicates:
        raise SystemExit(f"{path}: a sample is there twice")
    for name, words in {"Sex": SEX, "Death": DEATH}.items():
        if unknown := set(frame[name].dropna().astype(int)) - set(words):
            raise SystemExit(f"{path}: {name} has the unknown codes {sorted(unknown)}")
        frame[name] = frame[name].map(words)
    frame["Death"] = frame["Death"].fillna("alive/NA")
    frame.insert(0, "Donor", frame.index.str.split("-").str[:2].str.join("-"))
    return frame[["Donor", "Tissue", "Subtissue", "Age", "Sex", "Death", "Avg_age"]]


def read_genes(path: Path) -> list[str]:
    """Return the column `ids` of a csv file."""
    return pd.read_csv(path)["ids"].tolist()


def write_table(
    samples: pd.DataFrame, expressions: Path, out: Path, *, genes: list[str] | None = None, log2: bool = False
) -> tuple[int, int]:
    """Join by Name and write; return the numbers of rows and genes.

    Parameters
    ----------
    samples
        From `read_samples`.
    expressions
        parquet, csv or tab-separated: Name and TPM of each gene; or the portal's GCT, genes in rows.
    out
        The parquet file to write.
    genes
        Genes to keep; None: all. Those that are not there end the program.
    log2
        Write log2(TPM + 1), in which a doubling counts alike in rare and in common transcripts.
    """
    writer, rows, names = None, 0, genes or []
    if is_gct(expressions):
        tables = gct_tables(expressions, set(samples.index), ROWS_AT_ONCE, out.parent, genes)
    else:
        tables = _tables(expressions, ROWS_AT_ONCE)
    for table in tables:
        if genes is None:
            names = [name for name in table.column_names if name.startswith("ENSG")]
        if missing := set(names) - set(table.column_names):
            raise SystemExit(f"{expressions}: {len(missing)} genes of the list are not there, such as {min(missing)}")
        place = samples.index.get_indexer(table["Name"].to_pandas())
        found = np.flatnonzero(place >= 0)
        about = pa.Table.from_pandas(samples.iloc[place[found]].reset_index(), preserve_index=False)
        values = (table[name].to_numpy()[found].astype(np.float32) for name in names)
        columns = [pa.array(np.log2(value + 1) if log2 else value) for value in values]
        joined = pa.table([*about.columns, *columns], names=[*about.column_names, *names])
        writer = writer or pq.ParquetWriter(out, joined.schema)
        writer.write_table(joined)
        rows += len(found)
    if writer is None or not rows:
        raise SystemExit(f"{expressions}: no row has a name that the samples have")
    writer.close()
    return rows, len(names)


def _tables(path: Path, rows: int) -> Iterator[pa.Table]:
    """Read a file some rows at a time."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=min(rows, max(file.metadata.num_rows, 1))):
                yield pa.Table.from_batches([batch])
    else:
        separator = "," if path.name.removesuffix(".gz").endswith(".csv") else "\t"
        for frame in pd.read_csv(path, sep=separator, chunksize=rows):
            yield pa.Table.from_pandas(frame, preserve_index=False)


def main() -> None:
    """Parse, join and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("expressions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--subjects", type=Path, help="the portal's file of donors, where SAMPLES has no ages")
    parser.add_argument("--genes", type=Path, help="csv with a column `ids`: the genes to keep")
    parser.add_argument("--log2", action="store_true", help="log2(TPM + 1)")
    parser.add_argument("--without-death", choices=["alive/NA", *DEATH.values()], help="leave these donors out")
    arguments = parser.parse_args()
    samples = read_samples(arguments.samples, arguments.subjects)
    samples = samples[samples["Death"] != arguments.without_death]
    genes = None if arguments.genes is None else read_genes(arguments.genes)
    rows, kept = write_table(samples, arguments.expressions, arguments.out, genes=genes, log2=arguments.log2)
    print(f"wrote {rows:,} samples of {samples['Donor'].nunique():,} donors with {kept:,} genes to {arguments.out}")


if __name__ == "__main__":
    main()
