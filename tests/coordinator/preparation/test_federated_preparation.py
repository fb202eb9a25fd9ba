"""Fill values and scales of a federation are those of scikit-learn on the pooled training rows, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from v6_algorithm.data.preparation import (
    Moments,
    Preparation,
    Setup,
    merge_moments,
    needs_quantiles,
    needs_range,
    prepare,
)
from v6_algorithm.data.preparation.setup import pack_arrays, unpack_arrays
from v6_algorithm.data.preparation.statistics import cells_of, quantile_windows, site_scaling
from v6_algorithm.data.quantiles import CALLS, Cells
from v6_algorithm.data.splits import Fold
from v6_algorithm.data.table import TableData
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import Data, Experiment

ROWS = 300
SCALERS = {"standard": StandardScaler, "minmax": MinMaxScaler, "robust": RobustScaler}
EXACT = 1e-9


def settings(scaling="standard", missing="mean", **value):
    return Data.model_validate({"target": "y", "scaling": scaling, "missing": {"kind": missing, **value}})


def columns(rows=ROWS, seed=0, missing=0.1):
    """Columns as hospitals have them: bell-shaped, skewed, 0/1, far from zero, rarely measured; some cells empty."""
    rng = np.random.default_rng(seed)
    values = np.stack(
        [
            rng.normal(60, 9, rows),
            rng.lognormal(2, 1, rows),
            rng.integers(0, 2, rows).astype(float),
            1e6 + rng.normal(0, 1, rows),
            np.where(rng.random(rows) < 0.6, np.nan, rng.normal(-3, 0.01, rows)),
        ],
        axis=1,
    )
    values[rng.random(values.shape) < missing] = np.nan
    values[0] = [60, 7, 1, 1e6, -3]
    return values


def cut(values, sites, seed=0):
    """Deal rows to sites unevenly; a site may be empty."""
    owner = np.random.default_rng(seed).integers(0, sites, len(values)) ** 2 // sites
    return [values[owner == site] for site in range(sites)]


def federated(data, sites, smallest=1):
    """What `master` and the sites do: each site measures its training rows, sums are merged, numbers are made.

    `sites` are lists of folds, or plain arrays for one fold. Every message goes through its packed form.
    """
    folds = [[site] if isinstance(site, np.ndarray) else site for site in sites]
    measured = [Moments.of(site, with_range=needs_range(data)) for site in folds]
    shape = measured[0].mean.shape
    merged = merge_moments(Moments.check(unpack_arrays(pack_arrays(one.arrays())), *shape) for one in measured)
    cells, windows, none = [], None, np.zeros(shape[1], dtype=bool)
    for _ in range(CALLS if needs_quantiles(data) else 0):
        cells = [cells_of(site, none, smallest, windows) for site in folds]
        cells = [Cells.check(unpack_arrays(pack_arrays(one.arrays())), merged.mean.size) for one in cells]
        windows, wanted = quantile_windows(data, merged, cells)
        if not wanted:
            break
    return prepare(data, merged, cells)


def sklearn_of(data, pooled):
    """The imputer and scaler that scikit-learn fits on the pooled rows."""
    strategy = {"mean": "mean", "median": "median", "constant": "constant"}[data.missing.kind]
    imputer = SimpleImputer(strategy=strategy, fill_value=data.missing.value, keep_empty_features=True).fit(pooled)
    if data.scaling.kind == "none":
        return imputer.transform
    scaler = SCALERS[data.scaling.kind]().fit(imputer.transform(pooled))
    return lambda values: scaler.transform(imputer.transform(values))


def spread(values):
    return np.nanmax(values, axis=0) - np.nanmin(values, axis=0)


# -- equal to scikit-learn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["none", "standard", "minmax"])
@pytest.mark.parametrize("missing", [{"missing": "mean"}, {"missing": "constant", "value": -7.5}], ids=str)
@pytest.mark.parametrize("sites", [1, 4])
def test_federated_inputs_equal_scikit_learn_on_the_pooled_training_rows(scaling, missing, sites):
    data, training, unseen = settings(scaling, **missing), columns(), columns(50, seed=9)
    prepared = federated(data, cut(training, sites))
    expected = sklearn_of(data, training)
    for values in (training, unseen):
        np.testing.assert_allclose(prepared.apply(values, 0), expected(values), rtol=EXACT, atol=EXACT)


def spread_of_middle(filled):
    first, third = np.quantile(filled, [0.25, 0.75], axis=0)
    return third - first


@pytest.mark.parametrize("missing", ["mean", "constant"])
@pytest.mark.parametrize("sites", [1, 4])
@pytest.mark.parametrize(("smallest", "within"), [(1, 1e-3), (5, 0.1)])
def test_federated_median_and_quartiles_are_the_pooled_ones(missing, sites, smallest, within):
    """Exact where a cell may be a row; where it may not, close beside the spread: an outlier changes nothing."""
    data, training = settings("robust", missing), columns()
    training[7] = [1e9, 1e12, 1, 1e6, -3]
    prepared = federated(data, cut(training, sites), smallest)
    imputer = SimpleImputer(
        strategy=missing, fill_value=0.0 if missing == "constant" else None, keep_empty_features=True
    ).fit(training)
    filled = imputer.transform(training)
    iqr = spread_of_middle(filled)
    compared = iqr > 0
    assert compared.sum() >= 4
    assert (np.abs(prepared.shift[0] - np.median(filled, axis=0)) <= within * iqr)[compared].all()
    assert (np.abs(prepared.scale[0] - iqr) <= 2 * within * iqr)[compared].all()


@pytest.mark.parametrize("sites", [1, 4])
def test_federated_median_fills_with_the_pooled_median(sites):
    training = columns()
    prepared = federated(settings("none", "median"), cut(training, sites))
    assert (np.abs(prepared.fill[0] - np.nanmedian(training, axis=0)) <= spread(training) / 1000).all()


@pytest.mark.parametrize(
    "values",
    [[0, 0, 10, 10], [0, 10], [0, 0, 0, 10], [1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1], [7], [-5, -5, 900]],
    ids=str,
)
def test_a_median_between_two_far_rows_is_between_them(values):
    column = np.array(values, dtype=float)[:, None]
    median = federated(settings("none", "median"), [column[::2], column[1::2]]).fill[0, 0]
    assert median == pytest.approx(np.median(column))


@pytest.mark.parametrize("kind", ["standard", "minmax", "robust"])
def test_a_site_that_scales_itself_equals_scikit_learn_on_its_own_rows(kind):
    own, other = columns(80, seed=1), columns(200, seed=2)
    data = settings({"kind": kind, "scope": "site"})
    preparation = site_scaling(kind, [own], federated(data, [own, other]))
    filled = np.where(np.isnan(own), np.nanmean(np.concatenate([own, other]), axis=0), own)
    expected = SCALERS[kind]().fit_transform(filled)
    np.testing.assert_allclose(preparation.apply(own, 0), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust"])
@pytest.mark.parametrize("missing", ["mean", "median", "constant"])
def test_every_combination_gives_finite_inputs_of_order_one(scaling, missing):
    data, training = settings(scaling, missing), columns()
    inputs = federated(data, cut(training, 3)).apply(training, 0)
    assert np.isfinite(inputs).all()
    # 0 for a column near 1e6 is far out, as the researcher asked.
    if missing != "constant":
        assert np.abs(inputs).max() < 40


# -- how the rows are spread over sites does not matter ------------------------------------------------------------


@st.composite
def partitioned(draw):
    """Pooled rows with empty cells, far from zero or not, and the same rows at some sites."""
    rows = draw(st.integers(1, 40))
    offset = draw(st.sampled_from([0.0, -3.0, 1e6]))
    cell = st.none() | st.floats(-100, 100)
    values = draw(st.lists(st.tuples(cell, cell), min_size=rows, max_size=rows))
    pooled = np.array(values, dtype=float) + offset
    owner = np.array(draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))
    return pooled, [pooled[owner == site] for site in range(4)]


@given(partitioned())
def test_merged_moments_equal_pooled_moments(case):
    pooled, sites = case
    merged = merge_moments(Moments.of([site], with_range=True) for site in sites)
    expected = Moments.of([pooled], with_range=True)
    for name in ("rows", "count", "low", "high"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(expected, name))
    np.testing.assert_allclose(merged.mean, expected.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.squares, expected.squares, rtol=1e-9, atol=1e-6)


@given(
    partitioned(), st.sampled_from(["standard", "minmax", "robust"]), st.sampled_from(["mean", "median", "constant"])
)
def test_any_partition_gives_the_inputs_of_the_pooled_rows(case, scaling, missing):
    pooled, sites = case
    # A fill value beside a row of nearly that value comes before or after it by rounding.
    assume((scaling, missing) != ("robust", "mean"))
    # A column that is constant but for rounding is divided by its spread or not, by rounding.
    assume(((spread_or_zero(pooled) == 0) | (spread_or_zero(pooled) > 1e-3)).all())
    data = settings(scaling, missing)
    inputs, expected = (federated(data, parts).apply(pooled, 0) for parts in (sites, [pooled]))
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-5)


def spread_or_zero(values):
    seen = ~np.isnan(values)
    low, high = (np.where(seen, values, sign * np.inf) for sign in (1, -1))
    return np.where(seen.any(axis=0), high.max(axis=0) - low.min(axis=0), 0.0)


@given(partitioned(), st.permutations(range(4)))
def test_the_order_of_the_sites_matters_to_rounding_only(case, order):
    _, sites = case
    one, other = (merge_moments(Moments.of([s], with_range=True) for s in parts) for parts in (
        sites, [sites[place] for place in order]
    ))  # fmt: skip
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one.squares, other.squares, rtol=1e-9, atol=1e-6)


def test_a_spread_far_from_zero_does_not_cancel():
    values = 1e9 + np.random.default_rng(0).normal(0, 1, (1000, 1))
    prepared = federated(settings(), cut(values, 5))
    assert prepared.scale[0, 0] == pytest.approx((values - 1e9).std(), rel=1e-7)


def test_nothing_to_merge_is_an_error():
    with pytest.raises(ValueError, match="no moments"):
        merge_moments([])


# -- columns with little in them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust"])
@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e9])
def test_a_constant_column_becomes_zero_and_not_nan(scaling, value):
    sites = [np.full((rows, 1), value) for rows in (3, 7, 10)]
    prepared = federated(settings(scaling), sites)
    assert prepared.scale[0, 0] == 1
    np.testing.assert_allclose(prepared.apply(sites[0], 0), 0, atol=1e-9 * max(1, abs(value)))


@pytest.mark.parametrize("scaling", ["none", "standard", "minmax", "robust"])
@pytest.mark.parametrize("missing", [{"missing": "mean"}, {"missing": "median"}, {"missing": "constant", "value": 5.0}])
def test_a_column_that_is_empty_everywhere_becomes_one_number(scaling, missing):
    values = np.full((6, 1), np.nan)
    prepared = federated(settings(scaling, **missing), [values[:2], values[2:]])
    filled = missing.get("value", 0.0)
    assert prepared.fill[0, 0] == filled
    assert prepared.apply(values, 0).tolist() == [[filled if scaling == "none" else 0.0]] * 6


def test_a_site_without_a_single_value_changes_nothing():
    values, empty = columns(), np.full((20, 5), np.nan)
    for kind in ("none", "minmax"):
        with_empty = federated(settings(kind), [values, empty])
        alone = federated(settings(kind), [values])
        np.testing.assert_array_equal(with_empty.fill, alone.fill)
        np.testing.assert_array_equal(with_empty.scale, alone.scale)


def test_a_mostly_zero_column_keeps_inputs_of_order_one():
    # Both quartiles are 0.
    values = np.zeros((200, 1))
    values[:20, 0] = np.arange(1, 21) * 50
    inputs = federated(settings("robust"), cut(values, 3)).apply(values, 0)
    assert 1 < np.abs(inputs).max() < 10


def test_one_typing_error_does_not_blow_up_a_robustly_scaled_column():
    values = np.random.default_rng(0).normal(120, 10, (500, 1))
    values[7] = 1e6
    inputs = federated(settings("robust"), cut(values, 3)).apply(values, 0)
    assert 1 < np.abs(np.delete(inputs, 7)).max() < 5


def test_a_range_near_the_resolution_of_doubles_has_a_median():
    values = 1e15 + np.array([[0.0], [0.25], [0.5], [1.0]])
    prepared = federated(settings("robust", "median"), [values])
    assert 1e15 <= prepared.fill[0, 0] <= 1e15 + 1


# -- nothing leaks -------------------------------------------------------------------------------------------------


def table(values, fold):
    return TableData(
        values=values,
        one_hot=np.empty((len(values), 0)),
        target=np.zeros(len(values), dtype=np.int64),
        member=np.zeros(len(values), dtype=np.int64),
        members=["va"],
        folds=fold if isinstance(fold, list) else [fold],
    )


@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust"])
@pytest.mark.parametrize("missing", ["mean", "median"])
def test_hrc_trap_rows_of_validation_and_test_change_no_scale(scaling, missing):
    # HRC fitted its scaler on the whole pooled matrix.
    values, data = columns(), settings(scaling, missing)
    fold = Fold(np.arange(0, 200), np.arange(200, 250), np.arange(250, ROWS))
    before = federated(data, [table(values, fold).training_values()])
    changed = values.copy()
    changed[200:] = 1e6
    after = federated(data, [table(changed, fold).training_values()])
    for name, array in before.arrays().items():
        np.testing.assert_array_equal(array, getattr(after, name))


def test_every_fold_is_prepared_with_its_own_training_rows():
    values, data = columns(), settings("standard")
    third = np.array_split(np.arange(ROWS), 3)
    folds = [Fold(third[k], third[(k + 1) % 3], third[(k + 2) % 3]) for k in range(3)]
    prepared = federated(data, [table(values, folds).training_values()])
    for number in range(3):
        expected = sklearn_of(data, values[third[number]])
        np.testing.assert_allclose(prepared.apply(values, number), expected(values), rtol=1e-7, atol=1e-7)


def test_smallest_and_largest_values_stay_home_unless_a_scaler_needs_them():
    moments = Moments.of([columns()], with_range=needs_range(settings("standard", "mean")))
    assert not moments.low.any()
    assert not moments.high.any()


@pytest.mark.parametrize(
    ("data", "in_range", "in_cells"),
    [
        (settings("standard", "mean"), False, False),
        (settings("minmax", "mean"), True, False),
        (settings("robust", "mean"), False, True),
        (settings("standard", "median"), False, True),
        (settings({"kind": "minmax", "scope": "site"}, "mean"), False, False),
        (settings({"kind": "robust", "scope": "site"}, "mean"), False, False),
        (settings({"kind": "robust", "scope": "site"}, "median"), False, True),
    ],
    ids=["standard", "minmax", "robust", "median", "own minmax", "own robust", "own robust, median"],
)
def test_a_site_is_asked_for_no_more_than_is_used(data, in_range, in_cells):
    assert (needs_range(data), needs_quantiles(data)) == (in_range, in_cells)


# -- use -----------------------------------------------------------------------------------------------------------


def test_inputs_are_prepared_numbers_then_one_hot_unscaled():
    values = np.array([[1.0, np.nan], [3.0, 8.0]])
    data = table(values, Fold(np.arange(2), np.arange(0), np.arange(0)))
    data.one_hot = np.array([[1.0, 0.0], [0.0, 1.0]])
    preparation = Preparation(np.array([[9.0, 6.0]]), np.array([[2.0, 6.0]]), np.array([[1.0, 2.0]]))
    setup = Setup(["a", "b"], {"c": ["x", "y"]}, [0, 1], preparation=preparation)
    assert data.inputs(setup, settings(), 0).tolist() == [[-1, 0, 1, 0], [1, 1, 0, 1]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_keep_the_dtype_of_the_table(dtype):
    values = columns().astype(dtype)
    data = table(values, Fold(np.arange(ROWS), np.arange(0), np.arange(0)))
    data.one_hot = data.one_hot.astype(dtype)
    setup = Setup(list("abcde"), {}, [0, 1], preparation=federated(settings(), [values]))
    assert data.inputs(setup, settings(), 0).dtype == dtype
    assert data.inputs(setup, settings({"kind": "standard", "scope": "site"}), 0).dtype == dtype


def test_preparing_leaves_the_table_alone():
    values = columns()
    before = values.copy()
    federated(settings("robust", "median"), [values]).apply(values, 0)
    np.testing.assert_array_equal(values, before)


def test_a_setup_survives_its_message():
    preparation = federated(settings(), cut(columns(), 2))
    setup = Setup(list("abcde"), {"cp": [1, "typical"]}, [0, 1], [[0.5, 2.0]], preparation)
    read = Setup.from_json(setup.to_json())
    for name, array in preparation.arrays().items():
        np.testing.assert_array_equal(getattr(read.preparation, name), array)
    assert read.to_json() == setup.to_json()


@pytest.mark.parametrize(
    "content", [None, {}, {"features": []}, {"preparation": None}, {"preparation": "AAAA"}], ids=str
)
def test_a_malformed_setup_is_refused(content):
    with pytest.raises(WireError):
        Setup.from_json(content)


# -- replies that are wrong ----------------------------------------------------------------------------------------


def good_moments():
    return Moments.of([columns()], with_range=True).arrays()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean", lambda a: a * np.nan),
        ("mean", lambda a: a[:, :-1]),
        ("mean", lambda a: a[0]),
        ("high", lambda a: a + np.inf),
        ("count", lambda a: a + 1000),
        ("count", lambda a: -a),
        ("rows", lambda a: -a),
        ("squares", lambda a: -a - 1),
    ],
)
def test_moments_that_cannot_be_are_refused(name, change):
    arrays = good_moments()
    with pytest.raises(WireError):
        Moments.check(arrays | {name: change(arrays[name])}, 1, 5)


@pytest.mark.parametrize("changes", [{"extra": np.zeros(1)}, None], ids=["one more", "none"])
def test_moments_of_other_names_are_refused(changes):
    with pytest.raises(WireError, match="the statistics must be rows, count, mean"):
        Moments.check({} if changes is None else good_moments() | changes, 1, 5)


def test_a_refusal_does_not_repeat_the_numbers():
    with pytest.raises(WireError) as refused:
        Moments.check(good_moments() | {"mean": np.array([4711.0, np.nan])}, 1, 5)
    assert "4711" not in str(refused.value)


def test_the_default_experiment_scales_and_fills_as_stated():
    data = Experiment.parse({"data": {"target": "y"}}).data
    prepared = federated(data, cut(columns(), 3))
    np.testing.assert_allclose(
        prepared.apply(columns(), 0), sklearn_of(settings("standard", "mean"), columns())(columns()), atol=1e-7
    )
