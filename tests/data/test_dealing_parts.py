"""Parts of dealing rows against what they replace, in the plainest way: numbers of classes, orders, groups, folds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.data.splits import (
    _by_class,
    _deal_groups,
    _drawn,
    _numbered,
    _spread_rare,
    _spread_rare_groups,
    _turns_of_periods,
    draw_rows,
    empty_folds,
    make_folds,
)
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import PARTS, Given, KFold, LeaveOneSiteOut, Ratio
from v6_algorithm.experiment import Tested as OnlyTested

LABELS = st.lists(st.integers(-5, 70_000), min_size=1, max_size=30)
SPLIT = {"train": 0.6, "validation": 0.2, "test": 0.2}


def sizes(fold):
    return [len(fold[part]) for part in PARTS]


@given(LABELS)
@settings(max_examples=50)
def test_classes_are_numbered_as_numpy_does(labels):
    strata = np.array(labels)
    assert _numbered(strata).tolist() == np.unique(strata, return_inverse=True)[1].tolist()
    dense = strata % 3
    assert _numbered(dense).tolist() == np.unique(dense, return_inverse=True)[1].tolist()


@given(st.one_of(LABELS, st.lists(st.integers(65_530, 65_540), max_size=9), st.just([])), st.integers(0, 99))
@settings(max_examples=50)
def test_rows_are_sorted_by_class_and_shuffled_within_it(labels, seed):
    strata = np.array(labels, dtype=np.int64)
    permutation = np.random.default_rng(seed).permutation(len(strata))
    assert _by_class(strata, np.random.default_rng(seed)).tolist() == np.lexsort((permutation, strata)).tolist()


def test_periods_that_do_not_begin_anew_are_not_dealt_at_once():
    shares = np.array([0.7, 0.3])
    assert _turns_of_periods(25, shares, np.array([0, 1]), 10) is not None
    assert len(_turns_of_periods(25, shares, np.array([0, 1]), 10)) == 25
    # Rounded, the shares of three rows are 2, 1 and 1.
    assert _turns_of_periods(25, np.array([0.5, 0.3, 0.2]), np.array([0, 1, 2]), 3) is None


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=50)
def test_each_part_is_drawn_its_count_of_every_class(counts, seed):
    counts = np.array(counts)
    of_row = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts.sum(axis=1)))
    part = _drawn(of_row, counts, np.random.default_rng(seed))
    table = [[int(((of_row == number) & (part == place)).sum()) for place in range(3)] for number in range(len(counts))]
    assert table == counts.tolist()


def test_where_nobody_trains_rare_rows_are_drawn_all_the_same():
    strata, shares = np.array([0] * 20 + [1]), np.array([0.0, 0.4, 0.6])
    given = np.array([1] * 8 + [2] * 13)
    drawn = [_spread_rare(given, strata, shares, np.random.default_rng(seed)) for seed in range(40)]
    assert {int(part[-1]) for part in drawn} == {1, 2}
    # Of two rows one must train, and they stay as they were dealt.
    two, dealt = np.array([0, 1]), np.array([0, 2])
    kept = [_spread_rare(dealt, two, np.array([0.4, 0.3, 0.3]), np.random.default_rng(seed)) for seed in range(40)]
    assert all((part == 0).any() for part in kept)


def nearest(strata, groups, shares, order):
    """Deal groups one by one to the part whose counts of rows and classes get nearest to what is wanted."""
    names = np.unique(groups)
    table = np.array(
        [
            [*((strata[groups == name] == kind).sum() for kind in np.unique(strata)), (groups == name).sum()]
            for name in names
        ]
    )
    wanted, dealt, parts = np.outer(shares, table.sum(axis=0)), np.zeros((len(shares), table.shape[1])), {}
    for place in order:
        away = [
            ((wanted[p] - dealt[p] - table[place]) ** 2).sum() - ((wanted[p] - dealt[p]) ** 2).sum()
            if shares[p] > 0 else np.inf
            for p in range(len(shares))
        ]  # fmt: skip
        parts[names[place]] = int(np.argmin(away))
        dealt[parts[names[place]]] += table[place]
    return [parts[name] for name in groups]


@given(st.integers(0, 2**16), st.sampled_from([(0.5, 0.5), (0.25,) * 4]))
@settings(max_examples=30)
def test_of_equal_parts_groups_are_dealt_largest_first_to_where_they_fit_best(seed, shares):
    generator = np.random.default_rng(seed)
    groups, strata = generator.integers(0, 9, 40), generator.integers(0, 3, 40)
    names, counts = np.unique(groups, return_counts=True)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(names)), -counts))
    found = _deal_groups(strata, groups, np.array(shares), np.random.default_rng(seed))
    assert found.tolist() == nearest(strata, groups, np.array(shares), order)


@given(st.integers(0, 2**16), st.sampled_from([(0.5, 0.0, 0.5), (0.8, 0.2, 0.0), (0.0, 0.3, 0.7), (1.0, 0.0, 0.0)]))
@settings(max_examples=60)
def test_no_group_goes_to_a_part_without_a_share(seed, shares):
    generator = np.random.default_rng(seed)
    groups, strata = generator.integers(0, generator.integers(1, 25), 40) ** 2 // 20, generator.integers(0, 3, 40)
    found = _deal_groups(strata, groups, np.array(shares), generator)
    assert set(found.tolist()) <= {part for part, share in enumerate(shares) if share}


def test_groups_of_rare_classes_are_drawn_where_nothing_is_for_training():
    table = np.column_stack([np.eye(10), np.ones(10)])
    part = _spread_rare_groups(table, np.ones(10), np.array([0, 0.3, 0.7]), np.random.default_rng(0))
    assert set(part.tolist()) == {1, 2}


@pytest.mark.parametrize("repeats", [1, 2])
def test_each_fold_is_tested_once_and_validates_the_one_before(repeats):
    folds = make_folds(KFold(kind="kfold", folds=4, repeats=repeats), 20, np.random.default_rng(0))
    assert len(folds) == 4 * repeats
    for start in range(0, len(folds), 4):
        four = folds[start : start + 4]
        assert sorted(np.concatenate([fold.test for fold in four]).tolist()) == list(range(20))
        for number, fold in enumerate(four):
            assert fold.validation.tolist() == four[(number + 1) % 4].test.tolist()
            assert sizes(fold) == [10, 5, 5]


def test_a_fold_or_group_each_is_needed_and_one_row_that_trains():
    make_folds(KFold(kind="kfold", folds=3), 3, np.random.default_rng(0))
    with pytest.raises(DataError, match="needs 3 or more rows"):
        make_folds(KFold(kind="kfold", folds=3), 2, np.random.default_rng(0))
    with pytest.raises(DataError, match="needs 3 or more groups"):
        make_folds(KFold(kind="kfold", folds=3), 9, np.random.default_rng(0), groups=np.array([0, 1] * 4 + [0]))
    with pytest.raises(DataError, match="needs 1 or more rows"):
        make_folds(Ratio(**SPLIT), 0, np.random.default_rng(0))
    for seed in range(20):
        (fold,) = make_folds(Ratio(**SPLIT), 1, np.random.default_rng(seed))
        assert sizes(fold) == [1, 0, 0]


def test_who_is_left_out_tests_and_the_others_train():
    split = LeaveOneSiteOut(kind="leave_one_site_out", validation=0.25)
    folds = make_folds(split, 8, np.random.default_rng(0), hospital="b", hospitals=["a", "b", "c"])
    assert [sizes(fold) for fold in folds] == [[6, 2, 0], [0, 0, 8], [6, 2, 0]]
    (fold,) = make_folds(OnlyTested(kind="tested"), 5, np.random.default_rng(0))
    assert sizes(fold) == [0, 0, 5]


def test_given_parts_and_folds_are_taken_by_name_and_number():
    names = [" Train", "TRAINING", "val", "valid", "dev", "validation", "test", "testing", "unused"]
    (fold,) = make_folds(Given(kind="given"), 9, np.random.default_rng(0), given=[names])
    assert [fold[part].tolist() for part in PARTS] == [[0, 1], [2, 3, 4, 5], [6, 7]]
    folds = make_folds(Given(kind="given", folds=3), 4, np.random.default_rng(0), given=[["0", 1.0, "2.0", 2]])
    assert [fold.test.tolist() for fold in folds] == [[0], [1], [2, 3]]
    assert [fold.validation.tolist() for fold in folds] == [[1], [2, 3], [0]]
    for wrong in (["0", "3"], ["-1"], ["0.5"], ["x"], [""]):
        with pytest.raises(DataError, match="0 to 2"):
            make_folds(Given(kind="given", folds=3), len(wrong), np.random.default_rng(0), given=[wrong])
    with pytest.raises(DataError, match="other values than its allowed ones"):
        make_folds(Given(kind="given"), 1, np.random.default_rng(0), given=[["tset"]])


@pytest.mark.parametrize("pair", [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_group_in_two_given_parts_is_refused(pair):
    groups = np.array([7, 7, 8])
    make_folds(Given(kind="given"), 3, np.random.default_rng(0), given=[["train", "train", pair[1]]], groups=groups)
    with pytest.raises(DataError, match="a group has rows in two parts"):
        make_folds(Given(kind="given"), 3, np.random.default_rng(0), given=[[*pair, "unused"]], groups=groups)
    make_folds(Given(kind="given"), 3, np.random.default_rng(0), given=[[pair[0], "unused", pair[1]]], groups=groups)


@pytest.mark.parametrize(
    ("split", "more", "number"),
    [
        (KFold(kind="kfold", folds=4, repeats=3), {}, 12),
        (Given(kind="given"), {"columns": 2}, 2), (Given(kind="given", folds=3), {"columns": 2}, 6),
        (LeaveOneSiteOut(kind="leave_one_site_out", validation=0.2), {"hospitals": ["a", "b", "c"]}, 3),
        (Ratio(**SPLIT), {}, 1), (OnlyTested(kind="tested"), {}, 1),
    ],
)  # fmt: skip
def test_a_site_without_rows_has_as_many_folds_as_others(split, more, number):
    folds = empty_folds(split, **more)
    assert [sizes(fold) for fold in folds] == [[0, 0, 0]] * number


def test_all_rows_are_drawn_where_the_limit_is_not_below_them():
    for limit in (5, 6):
        assert draw_rows(limit, 5, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_rows(4, 8, np.random.default_rng(0), np.array([0] * 4 + [1] * 4))
    assert [(drawn < 4).sum(), (drawn >= 4).sum()] == [2, 2]
    assert (np.diff(drawn) > 0).all()
