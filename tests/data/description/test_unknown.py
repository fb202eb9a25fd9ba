"""What may stand for "not known" in a column is a hint, and columns of counts and amounts have none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import v6_algorithm.api as v6
from v6_algorithm.data.description.describe import column_kinds, hints_of
from v6_algorithm.data.description.hints import hint, without_hint
from v6_algorithm.data.description.unknown import WORDS, unknown_labels
from v6_algorithm.data.reading.cells import uniform
from v6_algorithm.data.rows.numbers import LeftOut
from v6_algorithm.errors import ExperimentError
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


@pytest.mark.parametrize(
    ("codes", "others"),
    [([-95, -99], [0, 40]), ([-98], [0, 40]), ([-1, -3], [15, 70]), ([-4], [60, 95]), ([-10, -1], [11, 60])],
)
def test_codes_of_registries_are_a_hint(codes, others):
    column = pd.Series([*GENERATOR.integers(*others, 100), *codes * 3])
    assert hint(column, "numeric") == "codes"
    assert hint(column[:100], "numeric") is None


@pytest.mark.parametrize("numbers", [GENERATOR.integers(-8, 30, 200), GENERATOR.normal(0, 3, 200).round()])
def test_numbers_on_both_sides_of_0_are_no_codes(numbers):
    assert hint(pd.Series(numbers), "numeric") is None


@pytest.mark.parametrize(
    ("name", "numbers", "reason"),
    [
        ("datum", 20230101 + np.arange(60) % 28, "day numbers"),
        ("visit_date", 45000 + np.arange(60) % 7, "day numbers"),
        ("created_at", 1.7e9 + np.arange(60) % 9, "day numbers"),
        ("birthDate", 19500101 + np.arange(60) % 9, "day numbers"),
        ("datum", 20239901 + np.arange(60) % 28, None),
        ("dose", 20230101 + np.arange(60) % 28, "day numbers"),
        ("dose", 20230101 + np.arange(60) % 40, None),
        ("date", np.arange(60) % 31, None),
        ("birth_year", 1950 + np.arange(60) % 9, None),
    ],
)
def test_dates_that_are_numbers_are_told_by_their_name_and_values(name, numbers, reason):
    assert hint(pd.Series(numbers, name=name), "numeric") == reason


@pytest.mark.parametrize("cells", [["*5.1", "6"] * 6, ["5.1 *", "6 !"] * 6, ["5,1\u2191", "6"] * 6])
def test_marks_of_laboratories_are_told(cells):
    assert hint(pd.Series(cells), "text") == "flags"


def frame_of(rows_of_one):
    return pd.DataFrame({"patient_id": np.arange(60) // rows_of_one, "a": np.arange(60) % 7 / 2, "y": [0, 1] * 30})


def test_rows_of_one_patient_without_a_group_are_told():
    said = lambda experiment, rows: [  # noqa: E731
        note
        for note in v6.run(experiment, {"p": frame_of(rows), "q": frame_of(rows)}).notes
        if "several are of one" in note
    ]
    plain = {"data": {"target": "y"}, "rounds": 1}
    (note,) = said(plain, 3)
    assert note.startswith("column 'patient_id' at p, q: says whose rows these are")
    assert note.endswith("; data.group: patient_id keeps them together")
    assert said(plain, 1) == []
    assert said({"data": {"target": "y", "group": "patient_id"}, "rounds": 1}, 3) == []


@pytest.mark.parametrize("name", ["visit_id", "site", "sample_id", "patient_age", "row_id", "subjective_health"])
def test_columns_that_say_nobody_are_no_patients(name):
    frame = frame_of(3).rename(columns={"patient_id": name})
    assert "repeats" not in hints_of(frame, column_kinds(frame)).values()


def test_why_no_column_is_left_is_part_of_the_error():
    frame = pd.DataFrame({"crp": [f"{row} mg/L" for row in range(30)], "y": [0, 1] * 15})
    with pytest.raises(
        ExperimentError, match=r"no numeric column is left(.|\n)*numbers with a unit: crp; take the unit out"
    ):
        v6.run({"data": {"target": "y"}, "rounds": 1}, {"p": frame, "q": frame})


@pytest.mark.parametrize(
    ("labels", "unknown"),
    [
        ([0, 1, 9], [9]),
        ([1, 2, 3, 4, 9], [9]),
        ([0, 1, 99], [99]),
        ([-9, 0, 1], [-9]),
        (["no", "unknown", "yes"], ["unknown"]),
        (["Onbekend", "ja", "nee"], ["Onbekend"]),
        ([0, 1], []),
        ([0, 9], []),
        ([*range(10)], []),
        ([-1, 0, 1], []),
        (["a", "nd"], []),
        ([1, 2, 3], []),
        ([0, 1, 2, 4, 8], []),
        (["no", "unknown"], []),
    ],
)
def test_a_class_that_says_that_nothing_is_known_is_named(labels, unknown):
    assert unknown_labels(labels) == unknown


def test_a_class_that_is_none_is_a_note_of_the_run():
    frame = pd.DataFrame({"a": np.arange(60) % 7 / 2, "y": [0, 1, 9] * 20})
    experiment = {"data": {"target": "y"}, "rounds": 1}
    said = "class '9' is learned as one of 3; if it means that nothing is known, data.missing_values: {y: [9]} leaves"
    assert any(note.startswith(said) for note in v6.run(experiment, {"p": frame, "q": frame}).notes)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["120 ± 5", "130 ± 6"], "more"),
        (["1.2x10^3", "1.5 x 10^4"], "more"),
        (["ca. 5 mg", "~6"], "more"),
        (["1,", "2,"], "more"),
        (["90+", "88", "87"], "limits"),
        (["+", "++"], None),
        (["CA19", "ca 125x"], None),
    ],
)
def test_numbers_with_more_beside_them_are_told(cells, reason):
    assert hint(pd.Series(cells * 6), "text") == reason


SMALL_CODES = {
    "a sex of 9": ([0, 1] * 30 + [9] * 4, "codes"),
    "stages with 8 and 9": ([0, 1, 2, 3, 4] * 12 + [8, 9, 9], "codes"),
    "one 9": ([0, 1] * 30 + [9], None),
    "scores from 0 to 10": (list(range(11)) * 6, None),
    "counts": ([0, 1, 2, 3, 4, 5, 7, 9] * 8, None),
    "-99 beside both signs": ([*np.linspace(-8, 9, 60), -99.0, -99.0], "codes"),
    "both signs": ([*np.linspace(-120, 90, 60), -99.0], None),
}


@pytest.mark.parametrize("kind", SMALL_CODES)
def test_codes_beside_stages_and_beside_numbers_of_both_signs_are_told(kind):
    numbers, reason = SMALL_CODES[kind]
    assert hint(pd.Series(numbers, dtype=float), "numeric") == reason
    if reason is not None:
        assert not without_hint(np.array(numbers, dtype=float)[:, None])[0]
