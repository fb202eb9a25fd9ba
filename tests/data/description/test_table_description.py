"""What a site tells about its columns and labels: enough to agree on, and no cell of it in an error."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.description.describe import column_kind, column_kinds, describe, hints_of
from v6_algorithm.data.description.hints import hint
from v6_algorithm.data.targets import TargetColumn, canonical
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import Experiment

FRAME = pd.DataFrame(
    {
        "patient": ["p1", "p1", "p2", "p3"],
        "age": [61, 62, 47, 55],
        "sex": ["f", "m", "f", None],
        "num": [0, 1, 2, None],
    }
)


def data(target="num", **options):
    return Experiment.parse({"data": {"target": target, **options}}).data


def told(frame=FRAME, *, classification=True, **options):
    wanted = data(**options)
    return describe(
        frame, wanted, [TargetColumn(wanted.target, "target", "class" if classification else "number", wanted.positive)]
    )


def refusal(frame=FRAME, **options):
    with pytest.raises(DataError) as refused:
        told(frame, **options)
    return str(refused.value)


def labels_of(values, **options):
    return told(pd.DataFrame({"num": values}), **options)["labels"]


# -- columns -------------------------------------------------------------------------------------------------------


def test_columns_are_told_with_their_kinds():
    frame = FRAME.assign(when=pd.Timestamp("2020-01-01"), nothing=None)
    assert told(frame)["columns"] == {
        "patient": "text", "age": "numeric", "sex": "text", "num": "numeric", "when": "other", "nothing": "empty",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "numeric"),
        ([1.5, None], "numeric"),
        ([True, False], "numeric"),
        (pd.array([True, None], dtype="boolean"), "numeric"),
        (pd.array([1, None], dtype="Int64"), "numeric"),
        (["1", " 2.5 ", None], "numeric"),
        ([Decimal("1.5"), None], "numeric"),
        (pd.Categorical([1, 2]), "numeric"),
        (["1", "high"], "text"),
        (["f", "m"], "text"),
        (pd.Categorical(["f", "m"]), "text"),
        ([[1], [2]], "other"),
        ([None, None], "empty"),
        ([np.nan, np.nan], "empty"),
        (pd.to_datetime(["2020-01-01", None]), "other"),
        (pd.to_datetime(["2020-01-01"]).tz_localize("UTC"), "other"),
        (pd.to_timedelta([1, 2], unit="D"), "other"),
        ([datetime.date(2020, 1, 1)], "text"),
    ],
    ids=str,
)
def test_kind_of_a_column(values, kind):
    assert column_kind(pd.Series(values)) == kind


def test_columns_that_are_looked_at_together_are_told_as_each_by_itself():
    generator = np.random.default_rng(4)
    columns = {}
    for number in range(120):
        rows = [generator.integers(0, 9, 120), generator.permutation(120), np.arange(120), generator.random(120) * 9]
        column = rows[number % 4] * 10.0 ** generator.integers(0, 3)
        if number % 3 == 0:
            column[:2] = generator.choice([-9, -1, 99, 999, 1.234, np.nan, np.inf, 1e39], 2)
        whole = np.array_equal(column, np.floor(column)) and np.abs(column).max() < 1e9
        columns[f"x{number}"] = column.astype("int64") if whole and number % 5 else column
    frame = pd.DataFrame(columns).assign(none=np.nan, yes=generator.random(120) < 0.5, text="3 mg")
    kinds = column_kinds(frame)
    assert kinds == {name: column_kind(frame[name]) for name in frame}
    alone = {name: hint(frame[name], kind) for name, kind in kinds.items()}
    assert hints_of(frame, kinds) == {name: reason for name, reason in alone.items() if reason is not None}
    assert {"codes", "infinite", "row numbers"} <= set(alone.values())


@pytest.mark.parametrize("role", ["target", "group", "split_column"])
def test_a_column_that_is_not_there_is_refused_with_its_key_and_what_is_there(role):
    split = {"split": "given"} if role == "split_column" else {}
    section = Experiment.parse({"data": {"target": "num"} | {role: "outcome"}, **split}).data
    with pytest.raises(DataError) as refused:
        describe(FRAME, section, [TargetColumn(section.target, "target", "class")])
    assert str(refused.value) == (f"column 'outcome' (data.{role}) is not there; it has: patient, age, sex, num")


def test_a_long_list_of_columns_is_cut_short():
    frame = pd.DataFrame(0, index=[0], columns=[f"gene{number}" for number in range(18_388)])
    message = refusal(frame)
    assert message.endswith("gene29, … 18358 more")


def test_two_columns_of_one_name_are_refused():
    assert (
        refusal(pd.concat([FRAME, FRAME[["age"]]], axis=1))
        == "column 'age' is there twice; name each column differently"
    )


def test_a_categorical_column_that_is_not_there_has_no_categories():
    # The agreement of the sites names it together with its site.
    assert told(categorical=["cp"])["categories"] == {"cp": []}


def test_an_identifier_is_no_category():
    frame = pd.DataFrame({"num": [0, 1] * 60, "code": [f"p{number}" for number in range(120)]})
    message = refusal(frame, categorical=["code"])
    assert "'code' (data.categorical) has over 100 values" in message
    assert "p1" not in message


# -- targets -------------------------------------------------------------------------------------------------------


def test_rows_with_and_without_a_target_are_counted():
    description = told()
    assert (description["rows"], description["rows_without_target"]) == (3, 1)


@pytest.mark.parametrize("classification", [True, False])
def test_a_target_without_values_is_refused(classification):
    message = refusal(FRAME.assign(num=None), classification=classification)
    assert message == "column 'num' (data.target) is empty"


def test_text_cannot_be_regressed_on():
    message = refusal(FRAME.assign(num=["4711", "high", "1", "2"]), classification=False)
    assert message == "column 'num' (data.target) holds text; regression needs numbers"


def test_an_infinite_target_is_no_target_of_a_regression():
    frame = pd.DataFrame({"num": [1.0, np.inf, -np.inf, np.nan, 2.0]})
    description = told(frame, classification=False)
    assert (description["rows"], description["rows_without_target"]) == (2, 3)


def test_regression_tells_no_labels():
    assert told(classification=False)["labels"] == []


def test_a_continuous_target_is_not_taken_for_classes():
    message = refusal(pd.DataFrame({"num": np.linspace(0, 1, 500)}))
    assert "has over 200 distinct values" in message
    assert "0.5" not in message


# -- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [0, 1],
        [0.0, 1.0],
        [False, True],
        ["0", "1"],
        [" 0 ", "1 "],
        ["0.0", "1.00"],
        ["1e0", "0"],
        [Decimal("0"), Decimal("1")],
        pd.array([False, True], dtype="boolean"),
        pd.array([0, 1], dtype="Int64"),
        pd.Series([False, True, None], dtype=object),
        pd.Categorical(["1", "0"]),
        [np.int8(0), np.float32(1)],
    ],
    ids=str,
)
def test_one_and_zero_are_the_same_labels_however_they_are_written(values):
    labels = labels_of(values)
    assert labels == [0, 1]
    assert {type(label) for label in labels} == {int}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["yes", " no "], ["no", "yes"]),
        ([0.5, 1.5], [0.5, 1.5]),
        ([".5", "0.50"], [0.5]),
        (["1e-5", 0.00001], [0.00001]),
        (["-1", -1.0], [-1]),
        (["1.2.3", "1,5"], ["1,5", "1.2.3"]),
        (["stage 2", 2], [2, "stage 2"]),
        (["1e400", "inf"], ["1e400", "inf"]),
    ],
)
def test_other_labels_keep_their_meaning(values, labels):
    assert sorted(set(canonical(pd.Series(values, dtype=object))), key=str) == sorted(labels, key=str)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=5))
def test_a_whole_number_is_one_label_in_every_type(numbers):
    column = pd.Series(numbers)
    for other in (column.astype(float), column.astype(str), column.astype("Int64"), column.astype(object)):
        assert canonical(other) == numbers


@pytest.mark.parametrize(
    ("condition", "labels"),
    [
        ("> 0", [0, 1, 1, 1]),
        (">= 1", [0, 1, 1, 1]),
        (">1", [0, 0, 1, 1]),
        ("< 2", [1, 1, 0, 0]),
        ("<= 2", [1, 1, 1, 0]),
        ("== 2", [0, 0, 1, 0]),
        ("== 2.0", [0, 0, 1, 0]),
        ("!= 2", [1, 1, 0, 1]),
        ("== '2'", [0, 0, 1, 0]),
        ("> -1e3", [1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("as_text", [False, True], ids=["numbers", "text"])
def test_a_condition_makes_the_target_zero_or_one(condition, labels, as_text):
    for value, label in zip([0, 1, 2, 3], labels, strict=True):
        assert labels_of([str(value) if as_text else value], positive=condition) == [label]


@pytest.mark.parametrize(("condition", "label"), [("== yes", 1), ("!= yes", 0), ("== 'yes'", 1), ("== no", 0)])
def test_a_condition_may_be_a_word(condition, label):
    assert labels_of([" yes "], positive=condition) == [label]


def test_a_condition_on_true_and_false_counts_them_as_one_and_zero():
    assert labels_of([True, False], positive="> 0") == [0, 1]


def test_an_order_of_words_is_refused_without_quoting_them():
    message = refusal(pd.DataFrame({"num": [1, "p4711"]}), positive="> 0")
    assert message.startswith("column 'num' (data.target) holds text, data.positive is '> 0'")
    assert "4711" not in message


# -- categories ----------------------------------------------------------------------------------------------------


def test_categories_are_told_without_the_missing_one():
    assert told(categorical=["sex"])["categories"] == {"sex": ["f", "m"]}


def test_categories_are_written_like_labels():
    frame = pd.DataFrame({"num": [0, 1, 0], "cp": pd.array([True, None, False], dtype="boolean")})
    assert told(frame, categorical=["cp"])["categories"] == {"cp": [0, 1]}


def test_numbers_with_fractions_are_measured_whatever_their_column_is_called():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({name: generator.normal(size=40) for name in ("x", "Y", "index", "patient_id")})
    # Visits of patients, row names beside a few empty cells, and some halves.
    frame = frame.assign(subject=np.arange(40) + 0.1, row=np.where(np.arange(40) < 3, np.nan, np.arange(40.0)))
    frame["sample"] = np.where(np.arange(40) < 15, 0.5, 0) + np.arange(40)
    hints = hints_of(frame, column_kinds(frame))
    assert [name for name, reason in hints.items() if reason == "measured"] == ["x", "index", "patient_id"]
