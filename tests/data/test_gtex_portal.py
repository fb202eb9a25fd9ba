"""GTEx v8 as the portal publishes it: its three files, with what is odd about them, become one table."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

MOCK = Path(__file__).parents[2] / "mock"
sys.path.insert(0, str(MOCK))
gtex_table = import_module("gtex_table")

# Two genes share a symbol, one is the Y copy of another, a donor's id has four characters or five.
GENES = {
    "ENSG00000223972.5": "DDX11L1",
    "ENSG00000278267.1": "MIR6859-1",
    "ENSG00000228572.7": "AL954722.1",
    "ENSG00000228572.7_PAR_Y": "AL954722.1",
    "ENSG00000273874.1": "MIR6859-1",
}
SAMPLES = [
    "GTEX-1117F-0226-SM-5GZZ7",
    "GTEX-111CU-1826-SM-5GZYN",
    "GTEX-OHPL-0008-SM-4E3I9",
    "GTEX-1117F-0426-SM-5EGHI",
]
TPM = np.array(
    [[0, 0.1082, 0.02158, 0], [8764.5, 0.5, 1, 2], [0, 0, 3.25, 0], [0, 0, 0, 0], [1e-4, 12, 0.75, 61.07]], np.float32
)
# The portal's file has 63 columns, and describes samples of other assays and of a cell line as well.
ATTRIBUTES = """\
SAMPID\tSMATSSCR\tSMCENTER\tSMPTHNTS\tSMRIN\tSMTS\tSMTSD\tSMNABTCHD\tSMAFRZE
GTEX-1117F-0003-SM-58Q7G\t\tB1\t\t\tBlood\tWhole Blood\t\t
GTEX-OHPL-0008-SM-4E3I9\t\tB1\t\t8\tBlood\tWhole Blood\t\tRNASEQ
GTEX-1117F-0226-SM-5GZZ7\t0\tB1\t2 pieces, "clean" of 6"\t6.8\tAdipose Tissue\tAdipose - Subcutaneous\t\tRNASEQ
GTEX-1117F-0426-SM-5EGHI\t0\tB1\t2 pieces, !5% fibrous\t7.1\tMuscle\tMuscle - Skeletal\t\tRNASEQ
GTEX-111CU-1826-SM-5GZYN\t1\tB1\tone "\t6.3\tAdipose Tissue\tAdipose - Visceral (Omentum)\t\tRNASEQ
K-562-SM-2AXVE\t\tB1\t\t10\tBone Marrow\tCells - Leukemia cell line (CML)\t\tEXCLUDE
"""
SUBJECTS = """\
SUBJID\tSEX\tAGE\tDTHHRDY
GTEX-1117F\t2\t60-69\t4
GTEX-111CU\t1\t50-59\t0
GTEX-OHPL\t1\t20-29\t
GTEX-ZZZZ\t2\t70-79\t2
"""


def gct(genes=None, tpm=TPM, samples=SAMPLES, sizes=None, *, before=False):
    genes = GENES if genes is None else genes
    lines = ["#1.2", "{}\t{}".format(*(sizes or tpm.shape))]
    lines.append("\t".join([*(["id"] if before else []), "Name", "Description", *samples]))
    for number, (gene, symbol) in enumerate(genes.items()):
        values = (f"{value:g}" if value < 1e3 else f"{value:.7g}" for value in tpm[number])
        lines.append("\t".join([*([str(number)] if before else []), gene, symbol, *values]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def portal(tmp_path):
    """The three files, by the endings of the portal's names."""
    (tmp_path / "SampleAttributesDS.txt").write_text(ATTRIBUTES)
    (tmp_path / "SubjectPhenotypesDS.txt").write_text(SUBJECTS)
    (tmp_path / "gene_tpm.gct.gz").write_bytes(gzip.compress(gct().encode()))
    return tmp_path


def samples_of(portal):
    return gtex_table.read_samples(portal / "SampleAttributesDS.txt", portal / "SubjectPhenotypesDS.txt")


def table_of(portal, expressions="gene_tpm.gct.gz", **options):
    gtex_table.write_table(samples_of(portal), portal / expressions, portal / "table.parquet", **options)
    return pd.read_parquet(portal / "table.parquet")


def test_a_sample_is_its_donor_s(portal):
    samples = samples_of(portal).loc[SAMPLES]
    assert samples["Donor"].tolist() == ["GTEX-1117F", "GTEX-111CU", "GTEX-OHPL", "GTEX-1117F"]
    assert samples["Age"].tolist() == ["60-69", "50-59", "20-29", "60-69"]
    assert samples["Avg_age"].tolist() == [64.5, 54.5, 24.5, 64.5]
    assert samples["Sex"].tolist() == ["female", "male", "male", "female"]
    assert samples["Death"].tolist() == [">1 day", "ventilator case", "alive/NA", ">1 day"]
    assert samples["Tissue"].tolist() == ["Adipose Tissue", "Adipose Tissue", "Blood", "Muscle"]


def test_notes_with_one_quotation_mark_do_not_swallow_lines(portal):
    assert len(samples_of(portal)) == 5


def test_samples_of_a_cell_line_are_left_out(portal):
    assert not samples_of(portal).index.str.startswith("K-562").any()


def test_genes_in_rows_become_columns_by_their_versioned_ids(portal):
    table = table_of(portal).set_index("Name")
    assert list(table.columns[7:]) == list(GENES)
    np.testing.assert_allclose(table.loc[SAMPLES, list(GENES)], TPM.T, rtol=1e-5)
    assert (table.dtypes[list(GENES)] == np.float32).all()


def test_some_samples_at_a_time_are_all_samples(portal, monkeypatch):
    whole = table_of(portal, log2=True)
    monkeypatch.setattr(gtex_table, "ROWS_AT_ONCE", 3)
    pd.testing.assert_frame_equal(table_of(portal, log2=True), whole)


@pytest.mark.parametrize("before", [False, True], ids=["all tissues", "one tissue, with a column id"])
def test_a_plain_gct_is_read_as_a_compressed_one(portal, before):
    compressed = table_of(portal)
    (portal / "gene_tpm.gct").write_text(gct(before=before))
    pd.testing.assert_frame_equal(table_of(portal, "gene_tpm.gct"), compressed)


def test_a_gene_list_chooses_from_a_gct(portal):
    genes = ["ENSG00000273874.1", "ENSG00000223972.5"]
    table = table_of(portal, genes=genes)
    assert list(table.columns[8:]) == genes
    np.testing.assert_allclose(table.set_index("Name").loc[SAMPLES, genes], TPM[[4, 0]].T, rtol=1e-5)


def test_the_portal_s_files_and_the_joined_ones_make_the_same_table(portal):
    """The parquet schema of HRC: codes and bands by Name, and TPM by Name and gene."""
    joined = samples_of(portal).reset_index()
    joined["Sex"] = joined["Sex"].map({"male": 1, "female": 2})
    joined["Death"] = joined["Death"].map({">1 day": 4.0, "ventilator case": 0.0})
    names = ["Name", "Tissue", "Subtissue", "Age", "Sex", "Death", "Avg_age"]
    joined[names].to_parquet(portal / "samples.parquet", index=False)
    expressions = pd.DataFrame(TPM.T, columns=list(GENES))
    expressions.insert(0, "Name", SAMPLES)
    expressions.astype(dict.fromkeys(GENES, "float64")).to_parquet(portal / "expressions.parquet", index=False)
    samples = gtex_table.read_samples(portal / "samples.parquet")
    gtex_table.write_table(samples, portal / "expressions.parquet", portal / "joined.parquet", log2=True)
    pd.testing.assert_frame_equal(pd.read_parquet(portal / "joined.parquet"), table_of(portal, log2=True), rtol=1e-5)


def test_the_program_takes_the_three_files(portal, monkeypatch, capsys):
    arguments = [portal / "SampleAttributesDS.txt", portal / "gene_tpm.gct.gz", portal / "out.parquet", "--log2"]
    subjects = ["--subjects", portal / "SubjectPhenotypesDS.txt"]
    monkeypatch.setattr(sys, "argv", ["gtex_table.py", *map(str, [*arguments, *subjects])])
    gtex_table.main()
    assert "wrote 4 samples of 3 donors with 5 genes" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_parquet(portal / "out.parquet"), table_of(portal, log2=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gct(sizes=(6, 4)), "cut short: its second line says 6 genes"),
        (gct(sizes=(5, 5)), "it has 4 samples, and its second line says 5"),
        (gct().replace("\t61.07", ""), "ENSG00000273874.1 has 3 numbers for 4 samples"),
        (gct().replace("61.07", "high"), "ENSG00000273874.1 has something that is no number"),
        (gct().replace("278267.1", "223972.5"), "ENSG00000223972.5 is there twice"),
        (gct().removeprefix("#1.2\n"), "begins with a line #1.2"),
        (gct().replace("Description", "Symbol"), "Name and Description"),
        (gct(samples=[f"K-562-SM-{number}" for number in range(4)]), "no row has a name that the samples have"),
    ],
    ids=lambda value: value if len(value) < 60 else "",
)
def test_a_gct_that_is_not_whole_ends_the_program(portal, content, message):
    (portal / "wrong.gct").write_text(content)
    with pytest.raises(SystemExit, match=message):
        table_of(portal, "wrong.gct")
    assert not list(portal.glob(".gct-*"))


@pytest.mark.parametrize("damage", [lambda file: file[: len(file) // 2], lambda file: b"<html>" + file])
def test_a_download_that_broke_off_ends_the_program(portal, damage):
    content = gzip.compress(gct(dict.fromkeys((f"ENSG{n}" for n in range(500)), "X"), np.ones((500, 4))).encode(), 1)
    (portal / "wrong.gct.gz").write_bytes(damage(content))
    with pytest.raises(SystemExit, match="the file is cut short or damaged"):
        table_of(portal, "wrong.gct.gz")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("SubjectPhenotypesDS.txt", SUBJECTS.replace("60-69", "64"), "AGE is to be a band"),
        ("SubjectPhenotypesDS.txt", SUBJECTS.replace("SEX", "GENDER"), "there is no column SEX"),
        ("SubjectPhenotypesDS.txt", SUBJECTS.replace("\t2\t60", "\t3\t60"), r"Sex has the unknown codes \[3\]"),
        ("SampleAttributesDS.txt", ATTRIBUTES.replace("SMTSD", "TISSUE"), "there is no column SMTSD"),
    ],
)
def test_annotations_that_are_not_the_portal_s_end_the_program(portal, file, content, message):
    (portal / file).write_text(content)
    with pytest.raises(SystemExit, match=message):
        samples_of(portal)


def test_without_the_subjects_file_the_program_says_what_is_needed(portal):
    with pytest.raises(SystemExit, match="for the portal's files give --subjects"):
        gtex_table.read_samples(portal / "SampleAttributesDS.txt")


@pytest.mark.slow
def test_a_matrix_larger_than_its_blocks_is_never_in_memory_whole(portal, monkeypatch):
    genes, donors = 600, 3000
    names = [f"GTEX-{number:05d}-0001-SM-AAAAA" for number in range(donors)]
    listed = {f"ENSG{number:011d}.1": "X" for number in range(genes)}
    tpm = np.full((genes, donors), 1.5, np.float32)
    (portal / "large.gct").write_text(gct(listed, tpm, names))
    samples = pd.DataFrame({"Donor": names, "Age": "20-29"}, index=pd.Index(names, name="Name"))
    monkeypatch.setattr(gtex_table, "ROWS_AT_ONCE", 100)
    tracemalloc.start()
    try:
        gtex_table.write_table(samples, portal / "large.gct", portal / "table.parquet")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < tpm.nbytes / 2
    assert pd.read_parquet(portal / "table.parquet").shape == (donors, 3 + genes)
