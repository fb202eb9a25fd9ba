"""Synthetic GTEx v8: `samples.parquet` and `expressions.parquet` with the true columns, 18,388 genes and class counts.

    python mock/make_gtex.py mock/gtex --rows 4000

The real files are the portal's (https://gtexportal.org), which `gtex_table.py` takes as well; these have the columns
of HRC's two files, joined from those. Numbers are drawn from --seed alone. A sample's log2(TPM + 1) is a gene's level,
plus its tissue's, its donor's and its sex's part, plus, for one gene in 24, a slope over the donor's age: what can be
learned about age is spread thinly over many genes, and samples of a donor look alike, as in the real data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

BANDS = ["20-29", "30-39", "40-49", "50-59", "60-69", "70-79"]
# Samples of each band in GTEx v8 as HRC counted them: 17,382.
COUNTS = np.array([1320, 1323, 2702, 5615, 5821, 601])
GENES, TISSUES, DONORS = 18_388, 30, 948
ROWS_AT_ONCE = 2000


def samples(rows: int, generator: np.random.Generator) -> pd.DataFrame:
    """Return Name, Tissue, Subtissue, Age, Sex (1 male, 2 female), Death (0 to 4, or empty) and Avg_age."""
    counts = np.diff(np.round(np.cumsum(COUNTS) / COUNTS.sum() * rows), prepend=0).astype(int)
    band = np.repeat(np.arange(len(BANDS)), counts)
    # A donor is of one band, and a small table has the donors of the large one with fewer samples each.
    donor = np.unique(band * DONORS + (np.arange(rows) * min(DONORS, rows)) // rows, return_inverse=True)[1]
    donors = donor.max() + 1
    male, death = generator.random(donors) < 0.67, generator.choice([0, 1, 2, 3, 4, np.nan], donors)
    tissue = generator.integers(0, TISSUES, rows)
    subtissue = generator.integers(0, 2, rows)
    frame = pd.DataFrame(
        {
            "Name": [f"GTEX-{code:05d}-{number:04d}-SM-{number:05X}" for number, code in enumerate(donor)],
            "Tissue": [f"Tissue {number + 1}" for number in tissue],
            "Subtissue": [
                f"Tissue {number + 1} - part {part + 1}" for number, part in zip(tissue, subtissue, strict=True)
            ],
            "Age": np.array(BANDS)[band],
            "Sex": np.where(male, 1, 2)[donor],
            "Death": death[donor],
            "Avg_age": 24.5 + 10.0 * band,
        }
    )
    return frame.iloc[generator.permutation(rows)].reset_index(drop=True)


def write_expressions(frame: pd.DataFrame, path: Path, genes: int, generator: np.random.Generator) -> None:
    """Write Name and TPM (float32) of every gene, some rows at a time."""
    level = generator.gamma(2.0, 1.5, genes)
    tissue = generator.normal(0, 1.0, (TISSUES, genes)) * (generator.random(genes) < 0.3)
    slope = generator.normal(0, 0.5, genes) * (generator.random(genes) < 1 / 24)
    sex = generator.normal(0, 2.0, genes) * (generator.random(genes) < 0.002)
    donors = frame["Name"].str.slice(5, 10).astype(int)
    loadings, traits = generator.normal(0, 0.15, (8, genes)), generator.normal(0, 1, (donors.max() + 1, 8))
    schema = pa.schema(
        [("Name", pa.string()), *((f"ENSG{200_000 + gene:011d}.{gene % 9 + 1}", pa.float32()) for gene in range(genes))]
    )
    # Not in the samples' order, as the real files are not.
    order = generator.permutation(len(frame))
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(frame), ROWS_AT_ONCE):
            rows = frame.iloc[order[start : start + ROWS_AT_ONCE]]
            number = rows["Tissue"].str.removeprefix("Tissue ").astype(int).to_numpy() - 1
            age = (rows["Avg_age"].to_numpy() - 52.7) / 12.9
            log = generator.normal(0, 0.5, (len(rows), genes)).astype(np.float32)
            log += level + tissue[number] + np.outer(age, slope) + np.outer(rows["Sex"] == 2, sex)
            log += traits[donors.iloc[rows.index].to_numpy()] @ loadings
            tpm = np.maximum(np.exp2(log) - 1, 0).astype(np.float32)
            columns = [pa.array(rows["Name"]), *(pa.array(np.ascontiguousarray(column)) for column in tpm.T)]
            writer.write_table(pa.table(columns, schema=schema))


def make(folder: Path, rows: int, *, genes: int = GENES, seed: int = 0) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    frame = samples(rows, generator)
    # GTEx describes more samples than it has expressions of.
    spare = frame.head(max(rows // 50, 1)).assign(Name=lambda table: table["Name"] + "-X")
    pd.concat([spare, frame]).to_parquet(folder / "samples.parquet", index=False)
    write_expressions(frame, folder / "expressions.parquet", genes, generator)


def main() -> None:
    """Parse and make."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=int(COUNTS.sum()), help="samples; the real data have 17,382")
    parser.add_argument("--genes", type=int, default=GENES)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.rows, genes=arguments.genes, seed=arguments.seed)
    print(f"wrote samples.parquet and expressions.parquet to {arguments.folder}")


if __name__ == "__main__":
    main()
