"""Columns that are written, or measured, in two ways are told, and clean columns of the same look are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.description.hints import hint, without_hint
from v6_algorithm.data.identifiers import looks_like_identifier, says_whose
from v6_algorithm.data.reading.assumed import Assumed
from v6_algorithm.data.reading.cells import uniform, words_of_labels
from v6_algorithm.data.reading.excel import is_locked
from v6_algorithm.data.targets import TargetColumn, labels_of
from v6_algorithm.data.where import rows_where
from v6_algorithm.errors import PolicyError
from v6_algorithm.experiment.table_form import TableForm, of_one_table
from v6_algorithm.site.policy import Policy

RNG = np.random.default_rng(0)
GLUCOSE = RNG.normal(5.5, 0.8, 200).round(1)
NTPROBNP = np.exp(RNG.normal(6.5, 1.2, 400)).astype(int) * 2 + 11
NTPROBNP = np.unique(NTPROBNP)[RNG.permutation(len(np.unique(NTPROBNP)))]


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        ([f"{count % 5} episode{'' if count % 5 == 1 else 's'}" for count in range(60)], "counted"),
        ([f"{count % 4} vessels" for count in range(60)], "counted"),
        (["never smoked" if count % 5 == 0 else f"{count} pack-years" for count in range(60)], "counted"),
        ([f"'{count / 10}" for count in range(60)], "quotes"),
        ([f"T{count % 4}" for count in range(60)], None),
        ([f"{word} lesion" for word in ("one", "two", "many")] * 20, None),
        (["27,1", "27.1", "26,4", "25.0"] * 20, "both marks"),
        (["27,1", "1.234", "26,4"] * 20, "thousands dot"),
        (["27,1", "27", "26,4"] * 20, "decimal comma"),
    ],
)
def test_texts_of_two_forms_are_named(cells, name):
    assert hint(pd.Series(cells), "text") == name


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        (np.where(np.arange(200) % 10 == 3, (GLUCOSE * 18).round(), GLUCOSE), "two units"),  # mmol/L, some in mg/dL
        (np.where(np.arange(200) % 3 == 0, GLUCOSE, (GLUCOSE * 18).round()), "two units"),
        (GLUCOSE, None),
        (np.where(np.arange(200) % 50 == 3, GLUCOSE * 18, GLUCOSE), None),  # four outliers
        (np.exp(RNG.normal(0, 1.5, 200)), None),  # wide, with no gap
        (np.where(np.arange(200) % 2 == 0, 1.0, 10.0) + np.arange(200) % 3 * 0.1, None),  # codes
        (np.r_[GLUCOSE, 1e30], "outlier"),
        (np.r_[np.full(100, 20.0), np.exp(RNG.normal(8, 3, 100))], None),  # counts of viruses
        (np.r_[[0, 1] * 40, [-1] * 8], "minus one"),
        (np.r_[[0] * 40, [1, -1] * 20], None),  # changes
        (NTPROBNP, None),  # never repeats, and is a concentration
        (RNG.permutation(np.arange(200_000, 260_000, 199)), "row numbers"),
        (RNG.permutation(np.r_[1000:1150, 2_000_000:2_000_150]), "row numbers"),  # two runs of numbers
    ],
)
def test_numbers_of_two_units_are_told_and_patients_numbers_are_told_from_concentrations(numbers, name):
    assert hint(pd.Series(numbers), "numeric") == name
    if name in ("two units", "outlier"):
        assert not without_hint(np.asarray(numbers, dtype=float)[:, None])[0]


def test_decimal_points_under_a_declared_comma_are_told():
    assumed: Assumed = {}
    frame = pd.DataFrame({"a": ["27.1", "1.234"], "b": ["27,1", "1,2"], "c": ["27", "1"]})
    read = uniform(frame, TableForm(decimal=","), assumed)
    assert assumed == {"decimal points": (["a"], 2)}
    assert read["b"].tolist() == [27.1, 1.2]


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"EU": 3, "NA": 4, "APAC": 2}, {"NA": 4}),  # a region, most likely
        ({"male": 3, "female": 5, "NA": 4}, {}),  # as R writes an empty cell
        ({"male": 3, "female": 5, "NA": 4, "": 2}, {"NA": 4}),  # empty cells are blank here
        ({"pre": 3, "post": 5, "N/A": 4}, {"N/A": 4}),
        ({"1": 3, "2": 5, "N/A": 4}, {}),
        ({"a": 3, " None": 1, "None": 1}, {"None": 2}),
    ],
)
def test_words_that_count_as_empty_and_may_be_labels_are_counted(counts, found):
    assert words_of_labels(counts, []) == found
    assert words_of_labels(counts, list(found)) == {}


def test_a_remedy_names_the_key_of_one_table():
    assert of_one_table('is it data.separator: ";", with data.decimal: ","?', "ghent") == (
        " (sites.ghent.separator, sites.ghent.decimal in a local run, where only this table is written so)"
    )
    assert of_one_table("name it in data.features", "ghent") == ""


@pytest.mark.parametrize("name", ["numero_historia", "codice_paziente", "NHC", "Historia clínica", "num_expediente"])
def test_spanish_and_italian_numbers_of_patients_are_identifiers(name):
    assert looks_like_identifier(name)
    assert says_whose(name)


@pytest.mark.parametrize("column", [[True, False, True], ["TRUE", "FALSE", "TRUE"], [1, 0, 1], [1.0, 0.0, 1.0]])
def test_true_is_1_in_a_column_of_nothing_but_truths(column):
    cells = pd.Series(column).replace({"TRUE": True, "FALSE": False})
    assert encode(cells, "== true") == [1, 0, 1]
    assert encode(cells, "!= True") == [0, 1, 0]
    assert rows_where(pd.DataFrame({"ill": cells}), {"ill": ["== true"]}).tolist() == [True, False, True]


def encode(column, positive):
    return labels_of(column, TargetColumn("y", "target", "class", positive))


def test_a_locked_book_is_named_as_one(tmp_path):
    content = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    (tmp_path / "t.xlsx").write_bytes(content)
    assert is_locked(str(tmp_path / "t.xlsx"))
    (tmp_path / "u.xlsx").write_bytes(content[:600])
    assert not is_locked(str(tmp_path / "u.xlsx"))


def test_what_leaves_few_rows_out_is_named():
    with pytest.raises(PolicyError, match=r"^problem.at_zero leaves out fewer rows"):
        Policy().check_left_out(3, "problem.at_zero")
