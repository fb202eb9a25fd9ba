"""What may stand for "not known" in a column is a hint, and columns of counts and amounts have none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from v6_algorithm.data.cells import hint, uniform
from v6_algorithm.data.rows.numbers import LeftOut
from v6_algorithm.data.unknown import WORDS
from v6_algorithm.experiment.table_form import USUAL

GENERATOR = np.random.default_rng(0)


def with_zeros(values, zeros):
    values = np.array(values, dtype=float)
    values[GENERATOR.permutation(len(values))[:zeros]] = 0
    return pd.Series(values)


ZEROS = {
    "cholesterol, a quarter unknown": with_zeros(GENERATOR.normal(230, 45, 200).round(), 49),
    "blood pressure": with_zeros(GENERATOR.normal(72, 12, 300).round().clip(24), 15),
    "body mass index, five unknown": with_zeros(GENERATOR.normal(32, 6, 300).round(1).clip(18), 5),
    "one of a hundred": with_zeros(GENERATOR.normal(37, 0.6, 100).round(1), 1),
}
NO_ZEROS = {
    "counts": GENERATOR.poisson(5, 300),
    "large counts": GENERATOR.negative_binomial(3, 0.05, 300),
    "pregnancies": GENERATOR.poisson(3.8, 300),
    "amounts, most 0": with_zeros(GENERATOR.lognormal(8, 1, 300), 200),
    "amounts, some 0": with_zeros(GENERATOR.lognormal(3, 1, 300), 60),
    "doses": with_zeros(GENERATOR.choice([50, 75, 100, 150], 300), 80),
    "cigarettes a day": with_zeros(GENERATOR.choice([5, 10, 15, 20, 25, 30, 40], 300), 200),
    "shares": GENERATOR.beta(2, 2, 300).round(2),
    "from 0 on": np.arange(300) / 3,
    "yes and no": GENERATOR.integers(0, 2, 300),
    "around 0": GENERATOR.normal(0, 1, 300).round(1),
    "no zeros": GENERATOR.normal(230, 45, 200),
    "a few rows": with_zeros(GENERATOR.normal(230, 45, 15), 2),
}


@pytest.mark.parametrize("name", ZEROS)
def test_zeros_apart_from_all_other_numbers_are_a_hint(name):
    assert hint(ZEROS[name], "numeric") == "zeros"


@pytest.mark.parametrize("name", NO_ZEROS)
def test_zeros_among_their_like_are_none(name):
    assert hint(pd.Series(NO_ZEROS[name]), "numeric") != "zeros"


@pytest.mark.parametrize("word", WORDS)
def test_a_word_for_not_known_is_named_with_the_option_that_reads_the_column(word):
    column = pd.Series([*map(str, range(12)), *[word] * 3])
    assert hint(column, "text") == f"word {word}"
    (note,) = LeftOut(text={f"word {word}": ["crp"]}).notes()
    assert f'data.missing_values: ["{word}"]' in note


def test_words_that_may_be_categories_are_not_named():
    assert hint(pd.Series([*map(str, range(12)), "severe"]), "text") == "words"
    assert hint(pd.Series([*map(str, range(12)), "na", "nd"]), "text") == "words"
    assert hint(pd.Series(["na", "yes", "no"] * 5), "text") is None


@pytest.mark.parametrize("cells", [["(1.2)", "3.4", "5"] * 4, ["(12)", "( 3,5 )"] * 4])
def test_brackets_of_accountants_are_told(cells):
    assert hint(pd.Series(cells), "text") == "negatives"


@pytest.mark.parametrize("space", ["\u00a0", "\u2009", "\u202f", "\u3000", " \u00a0"])
def test_spaces_around_a_number_are_no_part_of_it(space):
    frame = pd.DataFrame({"a": [f"{space}1.5", f"2{space}", "3", None], "b": [f"yes{space}", "no", f"{space}", "no"]})
    read = uniform(frame, USUAL)
    assert pd.to_numeric(read["a"]).tolist()[:3] == [1.5, 2.0, 3.0]
    assert read["a"].isna().tolist() == [False] * 3 + [True]
    assert read["b"].tolist()[:2] == ["yes", "no"]
    assert read["b"].isna().tolist() == [False, False, True, False]


def test_spaces_within_a_number_are_thousands():
    for space in ("\u00a0", "\u2009", "\u202f", " "):
        assert hint(pd.Series([f"1{space}234", f"12{space}500.5", "7"] * 4), "text") == "thousands space"
