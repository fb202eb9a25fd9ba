"""From a site's table to the numbers a model sees, one row at a time and nothing quoted when it fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data import encoding
from v6_algorithm.data.description.describe import describe
from v6_algorithm.data.preparation import Setup, agree
from v6_algorithm.data.preparation.statistics import Preparation
from v6_algorithm.errors import DataError, ExperimentError, SiteError
from v6_algorithm.experiment import PARTS, Experiment
from v6_algorithm.learning.problems import problem_class

ROWS = 40


def experiment(*, split=None, problem="classification", dtype="float64", **data):
    return Experiment.parse(
        {
            "data": {"target": "num", **data},
            "problem": problem,
            "split": split or "ratio",
            "training": {"dtype": dtype},
        }
    )


def agreed(frames, wanted):
    classification = wanted.problem.kind == "classification"
    schemas = {site: describe(frame, wanted.data, targets(wanted)) for site, frame in frames.items()}
    return Setup.of(agree(wanted.data, schemas, classification=classification))


def targets(wanted):
    return problem_class(wanted.problem.kind).targets(wanted)


def load_table(frames, wanted, setup):
    return encoding.load_table(frames, wanted, setup, targets(wanted))


def encoded(frame, wanted, *, others=(), site="va"):
    frames = {site: frame} | {f"other{number}": other for number, other in enumerate(others)}
    return load_table({site: frame}, wanted, agreed(frames, wanted))


def ward(rows=ROWS, seed=0, **columns):
    rng = np.random.default_rng(seed)
    made = {"age": rng.normal(60, 9, rows), "chol": rng.normal(240, 40, rows), "num": np.arange(rows) % 2}
    return pd.DataFrame(made | columns)


@pytest.mark.parametrize("missing", [False, True])
def test_a_table_that_nothing_changes_is_in_memory_once(missing):
    wanted = experiment(dtype="float32")
    frame = ward(chol=np.where(np.arange(ROWS) == 3, np.nan if missing else 1.0, 200.0))
    table, setup = encoded(frame, wanted), agreed({"va": frame}, wanted)
    scaled = Preparation(np.full((1, 2), 7.0), np.array([[60.0, 0.0]]), np.ones((1, 2)))
    plain = replace(scaled, shift=np.zeros((1, 2)))
    inputs, centred = (
        table.inputs(replace(setup, preparation=preparation), wanted.data, 0) for preparation in (plain, scaled)
    )
    assert np.shares_memory(inputs, table.values) is not missing
    assert not np.shares_memory(centred, table.values)
    expected = np.where(np.isnan(table.values), np.float32(7), table.values)
    assert inputs.dtype == np.float32
    assert inputs.tolist() == expected.tolist()
    assert centred.tolist() == (expected - np.float32([60, 0])).tolist()


# -- numeric features ----------------------------------------------------------------------------------------------


def test_numbers_arrive_as_they_are():
    frame = ward()
    np.testing.assert_array_equal(encoded(frame, experiment()).values, frame[["age", "chol"]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_of_the_training_dtype(dtype):
    table = encoded(ward(sex=["f", "m"] * (ROWS // 2)), experiment(dtype=dtype, categorical=["sex"]))
    assert table.values.dtype == table.one_hot.dtype == dtype


def test_hrc_trap_features_between_zero_and_one_are_not_floored():
    # HRC cast its scaled features to uint8: all that was below 1 became 0, and the model saw the sex alone.
    table = encoded(ward(age=np.linspace(0, 1, ROWS)), experiment(dtype="float32"))
    assert len(np.unique(table.values[:, 0])) == ROWS


def test_whole_and_boolean_columns_become_floats():
    frame = ward(count=pd.array([1, None] * (ROWS // 2), dtype="Int64"), male=[True, False] * (ROWS // 2))
    table = encoded(frame, experiment(features=["count", "male"]))
    np.testing.assert_array_equal(table.values[:2], [[1, 1], [np.nan, 0]])


def test_numbers_written_as_text_are_numbers():
    table = encoded(ward(age=["61", " 62.5"] * (ROWS // 2)), experiment(features=["age"]))
    assert table.values[:2, 0].tolist() == [61, 62.5]


def test_an_infinite_feature_counts_as_missing():
    table = encoded(ward(age=[np.inf, -np.inf] * (ROWS // 2)), experiment(features=["age"]))
    assert np.isnan(table.values).all()


def test_a_column_that_is_empty_at_this_site_only_is_missing_here():
    table = encoded(ward(age=None), experiment(), others=[ward()])
    assert np.isnan(table.values[:, 0]).all()
    assert not np.isnan(table.values[:, 1]).any()


# -- missing cells -------------------------------------------------------------------------------------------------


def with_holes():
    frame = ward(sex=["f", None] * (ROWS // 2))
    frame.loc[[3, 7], "age"] = np.nan
    return frame


def test_a_missing_cell_stays_missing_until_it_is_filled():
    assert np.flatnonzero(np.isnan(encoded(with_holes(), experiment()).values[:, 0])).tolist() == [3, 7]


def test_missing_error_refuses_the_first_such_column_by_name():
    with pytest.raises(DataError, match=r"^column 'age' has empty cells, and data.missing is error$"):
        encoded(with_holes(), experiment(missing="error"))


def test_missing_error_accepts_a_complete_table():
    assert len(encoded(ward(), experiment(missing="error")).target) == ROWS


def test_missing_drop_leaves_out_the_row_and_nothing_else():
    frame = with_holes()
    table = encoded(frame, experiment(missing="drop", categorical=["sex"]))
    kept = frame.dropna(subset=["age"])
    np.testing.assert_array_equal(table.values, kept[["age", "chol"]])
    np.testing.assert_array_equal(table.target, kept["num"])
    np.testing.assert_array_equal(table.one_hot[:, 0], kept["sex"] == "f")


def test_missing_drop_does_not_mind_an_index_with_repeats():
    frame = pd.concat([with_holes(), with_holes()])
    assert len(encoded(frame, experiment(missing="drop")).target) == 2 * (ROWS - 2)


def test_missing_drop_of_every_row_is_refused():
    with pytest.raises(DataError, match="every row has an empty cell"):
        encoded(ward(age=None), experiment(missing="drop"), others=[ward()])


def test_rows_without_a_target_are_left_out():
    frame = ward()
    frame["num"] = frame["num"].where(frame.index >= 4)
    np.testing.assert_array_equal(encoded(frame, experiment()).values, frame.loc[4:, ["age", "chol"]])


def test_rows_with_an_infinite_target_are_left_out_of_a_regression():
    frame = ward(num=[np.inf, *range(1, ROWS)])
    table = encoded(frame, experiment(problem="regression"))
    assert table.target.tolist() == list(range(1, ROWS))


# -- targets -------------------------------------------------------------------------------------------------------


def test_classes_are_numbered_over_all_sites():
    table = encoded(
        ward(num=["b", "d"] * (ROWS // 2)),
        experiment(different_labels="allow"),
        others=[ward(num=["a", "c"] * (ROWS // 2))],
    )
    assert table.target[:2].tolist() == [1, 3]
    assert table.target.dtype == np.int64


@pytest.mark.parametrize("written", [[0, 1], [0.0, 1.0], [False, True], ["0", "1"]], ids=str)
def test_sites_that_write_their_labels_differently_agree(written):
    frames = {"va": ward(num=written * (ROWS // 2)), "other": ward()}
    setup = agreed(frames, experiment())
    assert setup.classes == [0, 1]
    for frame in frames.values():
        assert load_table({"va": frame}, experiment(), setup).target[:4].tolist() == [0, 1, 0, 1]


def test_a_condition_makes_the_target_binary():
    table = encoded(ward(num=np.arange(ROWS) % 5), experiment(positive="> 2"))
    np.testing.assert_array_equal(table.target, np.arange(ROWS) % 5 > 2)


def test_a_regression_target_is_of_the_training_dtype():
    table = encoded(ward(num=[str(n / 2) for n in range(ROWS)]), experiment(problem="regression", dtype="float32"))
    assert table.target.dtype == np.float32
    np.testing.assert_array_equal(table.target, np.arange(ROWS) / 2)


def test_a_class_that_came_later_is_refused_without_naming_it():
    setup = agreed({"va": ward()}, experiment())
    with pytest.raises(DataError, match="a class that was not there at preparation") as refused:
        load_table({"va": ward(num=["0", "p4711"] * (ROWS // 2))}, experiment(), setup)
    assert "4711" not in str(refused.value)


# -- one-hot -------------------------------------------------------------------------------------------------------


def test_one_hot_is_over_the_union_of_the_sites():
    wanted = experiment(categorical=["cp"], features=["age"], different_labels="allow")
    frames = {"va": ward(cp=[1, 4] * (ROWS // 2)), "other": ward(cp=["2.0", "typical"] * (ROWS // 2))}
    setup = agreed(frames, wanted)
    assert setup.inputs == ["age", "cp=1", "cp=2", "cp=4", "cp=typical"]
    np.testing.assert_array_equal(load_table(frames, wanted, setup).one_hot[:2], [[1, 0, 0, 0], [0, 0, 1, 0]])


def test_a_missing_category_is_none_of_them_even_of_one_called_none():
    cp = pd.Series(["None", None, "nan", np.nan] * (ROWS // 4), dtype=object)
    table = encoded(ward(cp=cp), experiment(categorical=["cp"]))
    assert table.one_hot[:4].tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize("values", [pd.array([True, None], dtype="boolean"), pd.Categorical(["a", None])], ids=str)
def test_a_missing_category_of_any_dtype_is_none_of_them(values):
    cp = pd.Series(values).repeat(ROWS // 2).reset_index(drop=True)
    table = encoded(ward(cp=cp), experiment(categorical=["cp"]))
    assert table.one_hot.sum() == ROWS // 2


def test_a_category_that_came_later_is_none_of_them():
    wanted = experiment(categorical=["cp"])
    setup = agreed({"va": ward(cp=[1, 2] * (ROWS // 2))}, wanted)
    table = load_table({"va": ward(cp=[1, 3] * (ROWS // 2))}, wanted, setup)
    assert table.one_hot[:2].tolist() == [[1, 0], [0, 0]]


def test_without_categories_there_is_no_one_hot_column():
    assert encoded(ward(), experiment()).one_hot.shape == (ROWS, 0)


def test_categories_alone_are_inputs_enough():
    table = encoded(ward(cp=[1, 2] * (ROWS // 2)), experiment(features=[], categorical=["cp"]))
    assert (table.values.shape, table.one_hot.shape) == ((ROWS, 0), (ROWS, 2))


# -- splits and members --------------------------------------------------------------------------------------------


def assert_same_folds(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for part in PARTS:
            np.testing.assert_array_equal(a[part], b[part])


@pytest.mark.parametrize("split", ["ratio", {"kind": "kfold", "folds": 4}])
def test_the_split_is_of_the_seed_and_the_sites_name(split):
    wanted = experiment(split=split)
    assert_same_folds(encoded(ward(), wanted).folds, encoded(ward(), wanted).folds)
    elsewhere = encoded(ward(), wanted, site="cleveland").folds
    assert elsewhere[0].test.tolist() != encoded(ward(), wanted).folds[0].test.tolist()


def test_the_split_does_not_hang_on_the_features():
    assert_same_folds(encoded(ward(), experiment()).folds, encoded(ward(age=1.0, chol=2.0), experiment()).folds)


def test_dermatology_trap_a_patient_is_in_one_part_only_and_a_row_without_one_is_alone():
    patient = [f"p{number // 4}" for number in range(ROWS - 8)] + [None] * 8
    table = encoded(ward(patient=patient), experiment(group="patient"))
    (fold,) = table.folds
    parts = {row: part for part in PARTS for row in fold[part].tolist()}
    for start in range(0, ROWS - 8, 4):
        assert len({parts[row] for row in range(start, start + 4)}) == 1
    assert len({parts[row] for row in range(ROWS - 8, ROWS)}) > 1


def test_the_given_split_is_read_from_its_column():
    part = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    table = encoded(ward(part=part), experiment(split="given", split_column="part"))
    assert [len(table.folds[0][name]) for name in PARTS] == [20, 10, 10]


@pytest.mark.slow
@given(st.lists(st.integers(12, 30), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_members_are_their_own_tables_one_after_another(sizes, cross_validate, drop):
    wanted = experiment(
        split={"kind": "kfold", "folds": 3} if cross_validate else "ratio",
        missing="drop" if drop else "mean",
        categorical=["cp"],
    )
    frames = {}
    for number, rows in enumerate(sizes):
        frame = ward(rows, number, cp=np.arange(rows) % (number + 2))
        frame.loc[number, "age"] = np.nan
        frames[f"site{number}"] = frame
    setup = agreed(frames, wanted)
    together = load_table(frames, wanted, setup)
    start = 0
    for number, (name, frame) in enumerate(frames.items()):
        alone = load_table({name: frame}, wanted, setup)
        rows = np.flatnonzero(together.member == number)
        assert rows.tolist() == list(range(start, start + len(alone.target)))
        for column in ("values", "one_hot", "target"):
            np.testing.assert_array_equal(getattr(together, column)[rows], getattr(alone, column))
        for fold, alone_fold in zip(together.folds, alone.folds, strict=True):
            for part in PARTS:
                own = fold[part][(fold[part] >= start) & (fold[part] < start + len(rows))]
                np.testing.assert_array_equal(own - start, alone_fold[part])
        start += len(rows)
    assert together.members == list(frames)


def test_counts_are_of_every_fold_member_and_part():
    frames = {"a": ward(10), "b": ward(20)}
    counts = load_table(frames, experiment(), agreed(frames, experiment())).counts()
    assert counts == [
        {"a": {"train": 6, "validation": 2, "test": 2}, "b": {"train": 12, "validation": 4, "test": 4}},
    ]


def test_a_fold_that_a_member_is_too_small_for_is_refused():
    wanted = experiment(split={"kind": "kfold", "folds": 10})
    frames = {"big": ward(), "small": ward(4)}
    with pytest.raises(DataError, match="10 or more rows"):
        load_table(frames, wanted, agreed(frames, wanted))


# -- no cell in any error ------------------------------------------------------------------------------------------


SECRETS = ["p4711", "Smith", "1961-03-07"]


@st.composite
def spoiled(draw):
    """A table with a value that must not be told in any cell of any column, and settings at random."""
    frame = ward(12, patient=[f"p{n}" for n in range(12)], part="train", cp=1).astype(object)
    cells = draw(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(list(frame.columns))), min_size=1, max_size=4))
    for row, column in cells:
        frame.loc[row, column] = draw(st.sampled_from(SECRETS))
    options = {
        "missing": draw(st.sampled_from(["error", "drop", "mean"])),
        "categorical": draw(st.sampled_from([[], ["cp"]])),
        "features": draw(st.sampled_from([None, ["age"], ["age", "chol"]])),
        "group": draw(st.sampled_from([None, "patient"])),
    }
    if draw(st.booleans()):
        return frame, experiment(problem="regression", **options)
    if draw(st.booleans()):
        options["positive"] = draw(st.sampled_from(["> 0", "== 1"]))
    split = draw(st.sampled_from(["ratio", "given", {"kind": "kfold", "folds": 10}]))
    return frame, experiment(split=split, split_column="part" if split == "given" else None, **options)


@pytest.mark.slow
@given(spoiled())
def test_no_error_about_a_table_holds_a_cell_of_it(case):
    frame, wanted = case
    message = ""
    try:
        encoded(frame, wanted)
    except (SiteError, ExperimentError) as error:
        message = str(error)
    assert not any(secret in message for secret in SECRETS)
