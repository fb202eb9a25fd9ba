"""A row's kind is an axis: a kind that is installed beside the package needs one file, and no other knows of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hospitals import command, read_result

from v6_algorithm.data.rows import row_kind
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Experiment, plugins

PACKAGE = Path(__file__).parents[2] / "v6_algorithm"
TOY = Path(__file__).parent / "fixed_text.py"
# Those that asked `data.image is not None` before a row's kind was a class.
ASK_THE_KIND = [
    *(
        "site/work.py",
        "site/preparing.py",
        "data/description/describe.py",
        "data/table.py",
        "data/preparation/columns.py",
    ),
    *("data/preparation/statistics.py", "coordinator/preparation/negotiate.py", "researcher/external/__init__.py"),
]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make the toy known as an installed package makes its kinds known: by its entry point, and nothing else."""
    about = tmp_path / "installed" / "fixed_text-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fixed-text\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[v6_algorithm.rows]\nfixed_text = fixed_text:FixedText\n")
    monkeypatch.syspath_prepend(str(about.parent))
    monkeypatch.syspath_prepend(str(TOY.parent))
    plugins._load.cache_clear()
    yield
    plugins._load.cache_clear()


def write_sites(folder: Path, **lengths: int) -> Path:
    """Write tables of peptides whose class is that of their third letter."""
    generator = np.random.default_rng(1)
    for site, length in lengths.items():
        letters = generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), (120, length))
        binds = (letters[:, 2] < "K").astype(int)
        pd.DataFrame({"peptide": ["".join(row) for row in letters], "binds": binds}).to_csv(
            folder / f"{site}.csv", index=False
        )
    file = folder / "peptides.yaml"
    sites = "\n".join(f"  {site}: {{uri: {site}.csv}}" for site in lengths)
    rows = "{kind: fixed_text, column: peptide}"
    file.write_text(
        f"name: peptides\nsites:\n{sites}\ndata: {{target: binds, rows: {rows}}}\nproblem: classification\nrounds: 15\n"
        "training: {optimizer: {kind: adam, lr: 0.02}, local_epochs: 2}\nmodel: {kind: mlp, hidden: [8]}\n"
    )
    return file


@pytest.mark.usefixtures("installed")
def test_a_kind_of_row_in_one_short_file_trains_as_any_other(tmp_path):
    assert len(TOY.read_text().splitlines()) < 80
    out = tmp_path / "out"
    done = command("run", write_sites(tmp_path, a=9, b=9), "--out", out)
    assert done.exit_code == 0, done.output
    result = read_result(out)
    assert result["preparation"]["features"] == [f"peptide[{place}]" for place in range(9)]
    assert result["metrics"]["test"]["pooled"]["auroc"] > 0.8


@pytest.mark.usefixtures("installed")
def test_sites_whose_rows_of_that_kind_differ_are_refused_in_its_words(tmp_path):
    done = command("run", write_sites(tmp_path, a=9, b=10), "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "data.rows: the sites' texts differ in length: a 9, b 10" in done.output


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("fixed_texts", "unknown kind of row 'fixed_texts' (did you mean 'fixed_text'?)"),
        ({"kind": "fixed_text", "column": "peptide", "letters": "AC"}, "unknown key 'letters'"),
        ({"kind": "fixed_text"}, "column"),
    ],
)
def test_a_kind_that_is_not_there_or_other_options_are_refused(rows, message):
    with pytest.raises(ExperimentError, match=re.escape(message)):
        Experiment.parse({"data": {"target": "y", "rows": rows}, "problem": "classification"})


@pytest.mark.parametrize("name", ASK_THE_KIND)
def test_who_reads_rows_asks_their_kind_and_knows_none(name):
    assert not re.search(r"\b(data|image|sequence)\.(image|sequence)\b", (PACKAGE / name).read_text())


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({}, "Numbers"),
        ({"sequence": "series"}, "Series"),
        ({"image": "file"}, "ImageFiles"),
        ({"image": {"shape": [1, 8, 8]}}, "Pixels"),
    ],
)
def test_the_data_section_says_which_kind_it_is(data, kind):
    from v6_algorithm.experiment import Data

    assert type(row_kind(Data.model_validate({"target": "y", **data}))).__name__ == kind
