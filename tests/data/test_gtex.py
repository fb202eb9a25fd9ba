"""GTEx's files, made small: the true columns, one table from two, and what HRC got wrong with them."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hospitals import command, read_result

from v6_algorithm.engines.simulation.simulate import tables_of
from v6_algorithm.experiment import Experiment

MOCK = Path(__file__).parents[2] / "mock"
sys.path.insert(0, str(MOCK))
gtex_table, make_gtex = import_module("gtex_table"), import_module("make_gtex")

ROWS, GENES = 300, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`mock/gtex/` with few rows and genes, and the experiments beside it."""
    mock = tmp_path_factory.mktemp("mock")
    for file in MOCK.glob("gtex*.yaml"):
        (mock / file.name).write_text(file.read_text())
    make_gtex.make(mock / "gtex", ROWS, genes=GENES)
    samples = gtex_table.read_samples(mock / "gtex" / "samples.parquet")
    gtex_table.write_table(samples, mock / "gtex" / "expressions.parquet", mock / "gtex" / "table.parquet", log2=True)
    return mock


@pytest.fixture
def table(folder):
    return pd.read_parquet(folder / "gtex" / "table.parquet")


def test_the_files_have_the_columns_of_gtex(folder):
    samples = pd.read_parquet(folder / "gtex" / "samples.parquet")
    assert list(samples) == ["Name", "Tissue", "Subtissue", "Age", "Sex", "Death", "Avg_age"]
    expressions = pd.read_parquet(folder / "gtex" / "expressions.parquet")
    assert expressions.columns[0] == "Name"
    assert expressions.columns[1:].str.match(r"ENSG\d{11}\.\d$").all()
    assert expressions.shape == (ROWS, 1 + GENES)
    assert (expressions.iloc[:, 1:] >= 0).all(axis=None)


def test_the_same_seed_gives_the_same_files(folder, tmp_path):
    make_gtex.make(tmp_path, ROWS, genes=GENES)
    for name in ("samples.parquet", "expressions.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / name), pd.read_parquet(folder / "gtex" / name))


def test_a_table_of_full_size_has_the_class_counts_and_donors_of_gtex():
    frame = make_gtex.samples(17_382, np.random.default_rng(0))
    assert frame["Age"].value_counts().sort_index().tolist() == [1320, 1323, 2702, 5615, 5821, 601]
    assert frame["Tissue"].nunique() == 30
    donor = frame["Name"].str.slice(0, 10)
    assert donor.nunique() == pytest.approx(948, abs=6)
    assert frame.groupby(donor)["Age"].nunique().max() == 1
    assert (make_gtex.GENES + frame["Tissue"].nunique() + frame["Sex"].nunique()) == 18_420


def test_the_two_files_are_joined_by_name_and_not_by_place(folder, table):
    expressions = pd.read_parquet(folder / "gtex" / "expressions.parquet").set_index("Name")
    samples = pd.read_parquet(folder / "gtex" / "samples.parquet").set_index("Name")
    assert list(samples.index[:ROWS]) != list(expressions.index)
    assert len(table) == ROWS
    own = table.set_index("Name")
    np.testing.assert_allclose(own.filter(like="ENSG"), np.log2(expressions.loc[own.index] + 1), rtol=1e-6)
    assert (own["Age"] == samples.loc[own.index, "Age"]).all()


def test_codes_are_words_and_an_unknown_death_is_alive(folder, table):
    samples = pd.read_parquet(folder / "gtex" / "samples.parquet").set_index("Name").loc[table["Name"]]
    assert set(table["Sex"]) == {"male", "female"}
    assert ((table["Sex"] == "male").to_numpy() == (samples["Sex"] == 1).to_numpy()).all()
    assert ((table["Death"] == "alive/NA").to_numpy() == samples["Death"].isna().to_numpy()).all()
    assert set(table["Death"]) <= {"alive/NA", *gtex_table.DEATH.values()}


def test_hrc_trap_a_gene_list_makes_a_network_of_its_length(folder, tmp_path):
    # HRC's network had 18,420 inputs whatever --custom_gene_path left.
    genes = pd.read_parquet(folder / "gtex" / "expressions.parquet").columns[[5, 1, 9]].tolist()
    pd.DataFrame({"ids": genes, "score": [3, 2, 1]}).to_csv(tmp_path / "genes.csv")
    samples = gtex_table.read_samples(folder / "gtex" / "samples.parquet")
    (tmp_path / "gtex").mkdir()
    out = tmp_path / "gtex" / "table.parquet"
    listed = gtex_table.read_genes(tmp_path / "genes.csv")
    assert gtex_table.write_table(samples, folder / "gtex" / "expressions.parquet", out, genes=listed) == (ROWS, 3)
    (tmp_path / "gtex.yaml").write_text((MOCK / "gtex.yaml").read_text())
    result = command("validate", tmp_path / "gtex.yaml")
    assert f"valid; {3 + 30 + 2} inputs, 6 classes" in result.output, result.output


def test_a_gene_that_is_not_there_ends_the_program(folder, tmp_path):
    samples = gtex_table.read_samples(folder / "gtex" / "samples.parquet")
    with pytest.raises(SystemExit, match="1 genes of the list are not there, such as ENSG0"):
        gtex_table.write_table(
            samples, folder / "gtex" / "expressions.parquet", tmp_path / "t.parquet", genes=["ENSG0"]
        )


def test_tab_separated_expressions_are_read_as_parquet_ones(folder, table, tmp_path):
    frame = pd.read_parquet(folder / "gtex" / "expressions.parquet")
    frame.to_csv(tmp_path / "expressions.tsv", sep="\t", index=False)
    samples = gtex_table.read_samples(folder / "gtex" / "samples.parquet")
    gtex_table.write_table(samples, tmp_path / "expressions.tsv", tmp_path / "t.parquet", log2=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table, check_dtype=False, rtol=1e-4)


def test_hrc_traps_values_below_one_are_not_cut_to_zero_and_one_softmax_is_enough(tmp_path):
    # HRC cast its inputs, scaled to 0 to 1, to uint8, and gave cross-entropy probabilities for logits.
    generator = np.random.default_rng(0)
    band = generator.integers(0, 6, 600)
    values = generator.uniform(0, 0.1, (600, 12)) + 0.15 * ((band[:, None] * np.arange(1, 13)) % 6)
    frame = pd.DataFrame(values, columns=[f"ENSG{gene}" for gene in range(12)])
    frame.assign(Age=np.array(make_gtex.BANDS)[band]).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.yaml").write_text(
        "sites: {source: t.parquet, partition: {sites: 3}}\ndata: {target: Age, scaling: minmax}\nrounds: 15\n"
        "training: {optimizer: {kind: adam, lr: 0.01}}\n"
    )
    result = command("run", tmp_path / "t.yaml", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert read_result(tmp_path / "out")["metrics"]["test"]["pooled"]["accuracy"] > 0.9


def test_donors_are_at_one_site(folder, table):
    experiment = Experiment.load(folder / "gtex.yaml")
    donors = [set(source.read()["Donor"]) for source in tables_of(experiment, folder).values()]
    assert len(donors) == 4
    assert sum(map(len, donors)) == table["Donor"].nunique()


@pytest.mark.parametrize(("name", "inputs"), [("gtex", GENES + 32), ("gtex_512", GENES + 32), ("gtex_age", GENES)])
def test_every_ready_setting_fits_the_table(folder, name, inputs):
    result = command("validate", folder / f"{name}.yaml")
    assert f"valid; {inputs} inputs" in result.output, result.output
