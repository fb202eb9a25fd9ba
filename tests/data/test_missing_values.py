"""A hospital's code for "not known" is an empty cell to everything after it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hospitals import make_table
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.coordinator.description.describe import describe
from v6_algorithm.data.missing_values import without_codes
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import PARTS, Experiment
from v6_algorithm.experiment.table_form import TableForm
from v6_algorithm.site import SiteContext
from v6_algorithm.site.policy import Policy

NUMBERS = st.lists(st.sampled_from([-9.0, 0.0, 1.0, 99.9, 999.0, np.nan]), min_size=1, max_size=30)


@given(NUMBERS, st.sets(st.sampled_from([-9, 0, 99.9, 999]), min_size=1), st.sampled_from(["float32", "float64"]))
def test_coded_numbers_are_empty_and_the_others_stay(numbers, codes, dtype):
    column = pd.Series(numbers, dtype=dtype)
    cleaned = without_codes(pd.DataFrame({"a": column}), list(codes))["a"]
    coded = np.isin(np.array(numbers), list(codes))
    assert cleaned[coded].isna().all()
    pd.testing.assert_series_equal(cleaned[~coded], column[~coded], check_names=False)


@pytest.mark.parametrize("dtype", ["int64", "Int64", "int8", "float32", "object", "str", "category"])
def test_a_code_is_found_however_its_column_is_stored(dtype):
    frame = pd.DataFrame({"a": pd.Series([-9, 3, 4]).astype("str" if dtype == "category" else dtype).astype(dtype)})
    assert without_codes(frame, [-9])["a"].isna().tolist() == [True, False, False]


def test_text_and_numbers_are_codes_alike_and_spaces_do_not_count():
    frame = pd.DataFrame({"a": ["unknown", " -9", "9.0", "7", None]})
    assert without_codes(frame, ["unknown", -9, 9])["a"].isna().tolist() == [True, True, True, False, True]


def test_codes_by_column_are_of_these_columns_only():
    frame = pd.DataFrame({"chol": [0, 200], "sex": [0, 1]})
    cleaned = without_codes(frame, {"chol": [0], "elsewhere": [0]})
    assert cleaned["chol"].isna().tolist() == [True, False]
    assert cleaned["sex"].tolist() == [0, 1]


def test_the_given_table_is_left_as_it_is():
    frame = pd.DataFrame({"a": [-9, 1], "b": [2.0, -9.0]})
    before = frame.copy()
    without_codes(frame, [-9])
    pd.testing.assert_frame_equal(frame, before)


def test_a_table_wider_than_a_block_is_cleaned_to_its_last_column():
    frame = pd.DataFrame(np.arange(3 * 1100.0).reshape(3, 1100)).rename(columns=str)
    cleaned = without_codes(frame, [2 * 1100.0 + 1099])
    assert cleaned.shape == frame.shape
    assert list(cleaned) == list(frame)
    assert np.argwhere(cleaned.isna().to_numpy()).tolist() == [[2, 1099]]


def test_numbers_of_other_columns_keep_all_their_digits():
    # As float64, two patients would be one.
    frame = pd.DataFrame({"patient": [2**60, 2**60 + 1], "a": [-9, 1]})
    assert without_codes(frame, [-9])["patient"].tolist() == [2**60, 2**60 + 1]


def coded(frames, value):
    """Replace every tenth cell of column `a` by `value`."""
    return {name: frame.assign(a=frame["a"].where(frame.index % 10 != 0, value)) for name, frame in frames.items()}


def sources(frames):
    return {name: TableSource(frame=frame) for name, frame in frames.items()}


FRAMES = {"va": make_table(60, 1), "zurich": make_table(50, 2)}


@pytest.mark.parametrize("codes", [-9, [-9, 999], {"a": -9}, {"a": [-9, 999]}], ids=str)
def test_a_run_over_coded_cells_is_the_run_over_empty_ones(codes, make_experiment, run_locally):
    def learned(experiment, value):
        result = run_locally(experiment, sources(coded(FRAMES, value)))
        return result["preparation"], result["history"], result["metrics"]

    told = make_experiment(data={"target": "y", "missing_values": codes})
    assert learned(told, -9.0) == learned(make_experiment(), np.nan)
    assert learned(make_experiment(), -9.0) != learned(make_experiment(), np.nan)


def test_a_row_with_a_coded_target_is_not_learned_from(make_experiment, run_locally):
    frames = {name: frame.assign(y=frame["y"].where(frame.index % 10 != 0, 9)) for name, frame in FRAMES.items()}
    result = run_locally(make_experiment(data={"target": "y", "missing_values": {"y": 9}}), sources(frames))
    assert result["preparation"]["classes"] == [0, 1]
    assert sum(site["n"][part] for site in result["sites"].values() for part in PARTS) == 60 + 50 - 6 - 5


def test_a_coded_category_is_none_of_the_categories(make_experiment, run_locally):
    frames = {name: frame.assign(ward=np.arange(len(frame)) % 3) for name, frame in FRAMES.items()}
    data = {"target": "y", "categorical": ["ward"], "missing_values": {"ward": 2}}
    result = run_locally(make_experiment(data=data), sources(frames))
    assert result["preparation"]["categories"] == {"ward": [0, 1]}


def test_codes_of_a_column_that_no_site_has_are_refused(make_experiment, run_locally):
    # With `cholesterol` for `chol`, its zeros would be learned from as numbers, and nobody would know.
    data = {"target": "y", "missing_values": {"aa": 0}}
    with pytest.raises(ExperimentError, match=r"data\.missing_values: no site has a column 'aa'"):
        run_locally(make_experiment(data=data), sources(FRAMES))


def test_codes_of_a_column_that_one_site_has_are_taken(make_experiment, run_locally):
    frames = FRAMES | {"va": FRAMES["va"].assign(extra=0)}
    result = run_locally(make_experiment(data={"target": "y", "missing_values": {"extra": 0}}), sources(frames))
    assert result["status"] == "completed"


def description(frames, codes, smallest):
    policy = Policy(minimum_cell=smallest)
    contexts = {name: SiteContext({name: source}, policy) for name, source in frames.items()}
    data = {"target": "y", "missing_values": codes}
    return describe(LocalFederation(contexts), Experiment.parse({"data": data}))


def test_a_description_takes_codes_for_empty_cells():
    frames = coded(FRAMES, -9.0)
    column = description(sources(frames), {"a": -9}, 5)["columns"]["a"]
    assert column["pooled"]["missing"] == 6 + 5
    known = pd.concat([frame["a"][frame.index % 10 != 0] for frame in frames.values()])
    assert column["pooled"]["mean"] == pytest.approx(known.mean())


def test_a_description_does_not_tell_how_many_cells_hold_a_rare_value():
    # Or a researcher calls 89 a code, and reads how many are of that age in `missing`.
    frames = coded(FRAMES, -9.0)
    told, plain = (description(sources(frames), codes, 7) for codes in ({"a": -9}, None))
    assert told == plain
    hidden = description(sources(frames), {"a": -9}, 6)["columns"]["a"]["sites"]
    assert (hidden["va"]["missing"], hidden["zurich"]["missing"]) == (6, 0)


def test_a_description_notes_codes_of_a_column_that_no_site_has():
    assert "data.missing_values: no site has a column 'aa'" in description(sources(FRAMES), {"aa": 0}, 5)["notes"]


def test_a_column_that_was_text_for_its_codes_alone_is_numbers_in_the_tables_own_marks():
    frame = pd.DataFrame({"crp": ["2,5", "<0,1", "1.000,25"], "name": ["a", "b", "c"]})
    form = TableForm(decimal=",", thousands=".")
    cleaned = without_codes(frame, ["<0,1"], form=form)
    assert cleaned["crp"].tolist()[::2] == [2.5, 1000.25]
    assert cleaned["crp"].isna().tolist() == [False, True, False]
    assert cleaned["name"].tolist() == ["a", "b", "c"]
