"""Every row is in one part, every group in one part, every row is tested once: from the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data import splits
from v6_algorithm.data.splits import _turns, draw_rows, empty_folds, make_folds
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import PARTS, Given, KFold, LeaveOneSiteOut, Ratio

RATIOS = [(0.6, 0.2, 0.2), (0.7, 0.15, 0.15), (0.8, 0.2, 0.0), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]


def ratio(train=0.6, validation=0.2, test=0.2, **options):
    return Ratio(train=train, validation=validation, test=test, **options)


def kfold(folds, **options):
    return KFold(kind="kfold", folds=folds, **options)


def generator(seed=0):
    return np.random.default_rng(seed)


def part_of_row(fold, rows):
    """The part of each row; fails when a row is in none or in two."""
    together = np.concatenate([fold[part] for part in PARTS])
    assert sorted(together.tolist()) == list(range(rows))
    number = np.empty(rows, dtype=int)
    for place, part in enumerate(PARTS):
        number[fold[part]] = place
    return number


@st.composite
def labelled(draw, least=1, most=80):
    """Class of each row, in runs or mixed; a class may have a single row."""
    rows = draw(st.integers(least, most))
    labels = np.array(draw(st.lists(st.integers(0, draw(st.integers(0, 4))), min_size=rows, max_size=rows)))
    return np.sort(labels) if draw(st.booleans()) else labels


@st.composite
def grouped(draw, least=1):
    """Group and class of each row; a group's rows are of one class (a patient's label) or mixed (visits)."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=least, max_size=25))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    n_classes = draw(st.integers(1, 3))
    if draw(st.booleans()):
        label_of_group = draw(st.lists(st.integers(0, n_classes - 1), min_size=len(sizes), max_size=len(sizes)))
        labels = np.repeat(label_of_group, sizes)
    else:
        labels = np.array(draw(st.lists(st.integers(0, n_classes - 1), min_size=len(groups), max_size=len(groups))))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(groups))
    return groups[order], labels[order]


seeds = st.integers(0, 2**32 - 1)
ratios = st.sampled_from(RATIOS).map(lambda shares: ratio(*shares))


# -- ratio ---------------------------------------------------------------------------------------------------------


@given(ratios, labelled(least=2), seeds)
def test_parts_are_disjoint_and_complete(split, labels, seed):
    (fold,) = make_folds(split, len(labels), generator(seed), labels=labels)
    part_of_row(fold, len(labels))
    for part in PARTS:
        assert fold[part].dtype == np.int64
        assert (np.diff(fold[part]) > 0).all()


@given(ratios, labelled(least=2), seeds)
def test_parts_have_their_share_to_within_a_row(split, labels, seed):
    (fold,) = make_folds(split, len(labels), generator(seed), labels=labels)
    for part in PARTS:
        assert abs(len(fold[part]) - getattr(split, part) * len(labels)) < 1


@given(ratios, labelled(least=2), seeds)
def test_parts_have_their_share_of_every_class_to_within_about_a_row(split, labels, seed):
    (fold,) = make_folds(split, len(labels), generator(seed), labels=labels)
    number = part_of_row(fold, len(labels))
    for label in np.unique(labels):
        for place, part in enumerate(PARTS):
            wanted = getattr(split, part) * (labels == label).sum()
            assert abs((number[labels == label] == place).sum() - wanted) < 2


def test_a_part_without_a_share_gets_no_row():
    (fold,) = make_folds(ratio(0.8, 0.0, 0.2), 101, generator())
    assert len(fold.validation) == 0


def test_without_stratification_the_classes_are_dealt_at_random():
    labels = np.repeat([0, 1], [500, 500])
    counts = {
        int(labels[make_folds(ratio(stratify=False), 1000, generator(seed), labels=labels)[0].test].sum())
        for seed in range(8)
    }
    assert len(counts) > 1


# -- k folds -------------------------------------------------------------------------------------------------------


@given(st.integers(3, 10), st.data())
def test_every_row_is_tested_exactly_once(k, data):
    labels = data.draw(labelled(least=k))
    folds = make_folds(kfold(k), len(labels), generator(data.draw(seeds)), labels=labels)
    assert len(folds) == k
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(len(labels)))
    for fold in folds:
        part_of_row(fold, len(labels))


@given(st.integers(3, 10), st.data())
def test_dinunet_rule_the_next_fold_validates(k, data):
    labels = data.draw(labelled(least=k))
    folds = make_folds(kfold(k), len(labels), generator(data.draw(seeds)), labels=labels)
    for number, fold in enumerate(folds):
        np.testing.assert_array_equal(fold.validation, folds[(number + 1) % k].test)


@given(st.integers(3, 10), st.data())
def test_folds_are_of_one_size_and_mix_to_within_about_a_row(k, data):
    labels = data.draw(labelled(least=k))
    folds = make_folds(kfold(k), len(labels), generator(data.draw(seeds)), labels=labels)
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for label in np.unique(labels):
        counts = [(labels[fold.test] == label).sum() for fold in folds]
        assert max(counts) - min(counts) <= 2


def test_a_rare_class_is_in_as_many_folds_as_it_has_rows():
    labels = np.array([1] * 5 + [0] * 95)
    folds = make_folds(kfold(5), 100, generator(), labels=labels)
    assert [int(labels[fold.test].sum()) for fold in folds] == [1] * 5


# -- groups --------------------------------------------------------------------------------------------------------


def assert_no_group_in_two_parts(fold, groups):
    parts = [set(groups[fold[part]].tolist()) for part in PARTS]
    assert sum(map(len, parts)) == len(set().union(*parts))


@given(grouped(), seeds)
def test_groups_stay_whole_in_a_ratio_split(case, seed):
    groups, labels = case
    (fold,) = make_folds(ratio(), len(groups), generator(seed), labels=labels, groups=groups)
    part_of_row(fold, len(groups))
    assert_no_group_in_two_parts(fold, groups)


@given(st.integers(3, 6), st.data())
def test_groups_stay_whole_and_are_tested_once_over_k_folds(k, data):
    groups, labels = data.draw(grouped(least=k))
    folds = make_folds(kfold(k), len(groups), generator(data.draw(seeds)), labels=labels, groups=groups)
    for number, fold in enumerate(folds):
        part_of_row(fold, len(groups))
        assert_no_group_in_two_parts(fold, groups)
        np.testing.assert_array_equal(fold.validation, folds[(number + 1) % k].test)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(len(groups)))


@given(st.integers(3, 6), st.data())
def test_no_fold_is_empty_while_there_are_groups_enough(k, data):
    groups, labels = data.draw(grouped(least=k))
    folds = make_folds(kfold(k), len(groups), generator(data.draw(seeds)), labels=labels, groups=groups)
    assert all(len(fold.test) for fold in folds)


def test_patients_of_one_label_each_do_not_pile_up_in_the_first_fold():
    # One patient more than folds in each of four classes: without a look at the total, fold 0 got all four.
    labels = np.repeat(np.arange(4), 6)
    folds = make_folds(kfold(5), 24, generator(), labels=labels, groups=np.arange(24))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_many_small_groups_come_near_the_shares():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.integers(1, 5, 300))
    labels = rng.integers(0, 2, 300)[groups]
    (fold,) = make_folds(ratio(), len(groups), generator(), labels=labels, groups=groups)
    for part in PARTS:
        own = labels[fold[part]]
        assert len(own) / len(groups) == pytest.approx(getattr(ratio(), part), abs=0.02)
        assert own.mean() == pytest.approx(labels.mean(), abs=0.02)


# -- given ---------------------------------------------------------------------------------------------------------


def test_given_parts_are_taken_as_they_are():
    names = ["train", "Test", " VALIDATION ", "val", "dev", "valid", "training", "testing"]
    (fold,) = make_folds(Given(kind="given"), len(names), generator(), given=[names])
    assert [fold[part].tolist() for part in PARTS] == [[0, 6], [2, 3, 4, 5], [1, 7]]


@pytest.mark.parametrize("name", ["patient 4711", float("nan"), 1, None, ""], ids=repr)
def test_a_part_of_another_name_is_refused_without_repeating_it(name):
    with pytest.raises(DataError, match=r"data.split_column (holds other values|is empty in)") as refused:
        make_folds(Given(kind="given"), 2, generator(), given=[["train", name]])
    assert "4711" not in str(refused.value)


def test_a_given_split_that_tears_a_group_apart_is_refused():
    with pytest.raises(DataError, match=r"data.group: a group has rows in two parts"):
        make_folds(Given(kind="given"), 3, generator(), groups=np.array([0, 1, 0]), given=[["train", "train", "test"]])


def test_a_given_split_may_leave_a_site_nothing_to_train_on():
    (fold,) = make_folds(Given(kind="given"), 2, generator(), given=[["test", "validation"]])
    assert [fold[part].tolist() for part in PARTS] == [[], [1], [0]]


def test_a_row_may_be_in_no_part_of_a_given_split():
    (fold,) = make_folds(Given(kind="given"), 3, generator(), given=[["test", "unused", "train"]])
    assert [fold[part].tolist() for part in PARTS] == [[2], [], [0]]


def test_several_given_columns_are_as_many_folds():
    """dinunet's split files: one for each fold, in any way that its user wants."""
    columns = [["train", "test", "train"], ["test", "train", "validation"]]
    first, second = make_folds(Given(kind="given"), 3, generator(), given=columns)
    assert [first[part].tolist() for part in PARTS] == [[0, 2], [], [1]]
    assert [second[part].tolist() for part in PARTS] == [[1], [2], [0]]


@given(st.integers(3, 6), st.data())
def test_a_column_of_fold_numbers_is_used_as_k_fold_would(k, data):
    numbers = np.array(data.draw(st.lists(st.integers(0, k - 1), min_size=1, max_size=40)))
    written = data.draw(st.sampled_from([int, float, str]))
    split = Given(kind="given", folds=k)
    folds = make_folds(split, len(numbers), generator(), given=[[written(number) for number in numbers]])
    assert len(folds) == k
    for number, fold in enumerate(folds):
        np.testing.assert_array_equal(fold.test, np.flatnonzero(numbers == number))
        np.testing.assert_array_equal(fold.validation, np.flatnonzero(numbers == (number + 1) % k))
        part_of_row(fold, len(numbers))


@pytest.mark.parametrize("number", [3, -1, 0.5, "patient 4711", None, float("nan"), ""], ids=repr)
def test_a_fold_number_out_of_range_is_refused_without_repeating_it(number):
    with pytest.raises(DataError, match=r"must hold the number of each row's fold, 0 to 2") as refused:
        make_folds(Given(kind="given", folds=3), 2, generator(), given=[[0, number]])
    assert "4711" not in str(refused.value)


# -- repeats -------------------------------------------------------------------------------------------------------


def test_each_repeat_tests_every_row_once_and_deals_anew():
    labels = np.arange(40) % 2
    folds = make_folds(kfold(4, repeats=3), 40, generator(), labels=labels)
    assert len(folds) == 12
    dealt = []
    for repeat in range(3):
        tested = [fold.test.tolist() for fold in folds[4 * repeat : 4 * repeat + 4]]
        assert sorted(row for rows in tested for row in rows) == list(range(40))
        dealt.append(tested)
    assert dealt[0] != dealt[1] != dealt[2] != dealt[0]


def test_the_first_repeat_is_the_cross_validation_without_repeats():
    once, thrice = (make_folds(kfold(4, repeats=n), 40, generator()) for n in (1, 3))
    for one, other in zip(once, thrice[:4], strict=True):
        assert all(np.array_equal(one[part], other[part]) for part in PARTS)


# -- leave one site out --------------------------------------------------------------------------------------------


@given(labelled(), st.sampled_from([0, 0.2, 0.5]), seeds)
def test_a_site_is_all_test_in_its_fold_and_none_in_the_others(labels, validation, seed):
    split = LeaveOneSiteOut(kind="leave_one_site_out", validation=validation)
    options = {"labels": labels, "hospital": "b", "hospitals": ["a", "b", "c"]}
    away, home, also_away = make_folds(split, len(labels), generator(seed), **options)
    assert home.test.tolist() == list(range(len(labels)))
    assert len(away.test) == len(also_away.test) == 0
    assert abs(len(away.validation) - validation * len(labels)) <= 1
    for fold in (away, home, also_away):
        part_of_row(fold, len(labels))


@given(grouped(), seeds)
def test_groups_stay_whole_when_a_site_is_left_out(case, seed):
    groups, labels = case
    split = LeaveOneSiteOut(kind="leave_one_site_out")
    options = {"labels": labels, "groups": groups, "hospital": "a", "hospitals": ["a", "b"]}
    for fold in make_folds(split, len(groups), generator(seed), **options):
        assert_no_group_in_two_parts(fold, groups)


# -- seeds and refusals --------------------------------------------------------------------------------------------


@given(labelled(least=3), seeds, st.booleans())
def test_the_same_seed_gives_the_same_folds(labels, seed, cross_validate):
    split = kfold(3) if cross_validate else ratio()
    groups = np.arange(len(labels)) if seed % 2 else None
    one, other = (make_folds(split, len(labels), generator(seed), labels=labels, groups=groups) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        for part in PARTS:
            np.testing.assert_array_equal(a[part], b[part])


def test_another_seed_gives_other_folds():
    parts = {tuple(make_folds(ratio(), 100, generator(seed))[0].test) for seed in range(5)}
    assert len(parts) == 5


def test_dinunet_trap_the_split_does_not_hang_on_the_number_of_rows_alone():
    # dinunet seeded its shuffle with the number of files: all sites of one size were cut in the same places.
    parts = {tuple(make_folds(kfold(5), 50, generator(seed))[0].test) for seed in range(5)}
    assert len(parts) == 5


def test_which_part_gets_the_odd_row_is_drawn():
    assert len({len(make_folds(kfold(3), 10, generator(seed))[0].test) for seed in range(20)}) == 2


@pytest.mark.parametrize(("rows", "groups"), [(4, None), (6, np.array([0, 0, 1, 1, 2, 2]))])
def test_fewer_rows_or_groups_than_folds_are_refused(rows, groups):
    with pytest.raises(DataError, match=r"kfold split needs 5 or more (rows|groups)"):
        make_folds(kfold(5), rows, generator(), groups=groups)


def test_one_row_is_for_training():
    (fold,) = make_folds(ratio(), 1, generator())
    assert fold.train.tolist() == [0]


def test_no_rows_are_refused():
    with pytest.raises(DataError):
        make_folds(ratio(), 0, generator())


# -- load limit ----------------------------------------------------------------------------------------------------


@given(labelled(), st.integers(1, 90), seeds)
def test_a_limit_draws_so_many_rows_each_class_its_share(labels, limit, seed):
    drawn = draw_rows(limit, len(labels), generator(seed), labels)
    assert len(drawn) == min(limit, len(labels))
    assert (np.diff(drawn) > 0).all()
    assert drawn.max(initial=0) < len(labels)
    for label in np.unique(labels):
        wanted = (labels == label).mean() * len(drawn)
        assert abs((labels[drawn] == label).sum() - wanted) <= 1 + 1e-9


def test_of_no_rows_there_are_as_many_folds():
    for split, number, options in (
        (kfold(3, repeats=2), 6, {}), (Given(kind="given"), 2, {"columns": 2}),
        (Given(kind="given", folds=4), 8, {"columns": 2}),
        (LeaveOneSiteOut(kind="leave_one_site_out"), 3, {"hospitals": ["a", "b", "c"]}), (ratio(), 1, {}),
    ):  # fmt: skip
        folds = empty_folds(split, **options)
        assert len(folds) == number
        assert not any(len(fold[part]) for fold in folds for part in PARTS)


def test_rows_are_dealt_to_the_part_that_is_furthest_behind():
    shares, entitled = np.array([0.5, 0.25, 0.25]), np.array([2, 0, 1])
    # Behind by 0.5, 0.25, 0.25; by 0, 0.5, 0.5; 0.5, 0.75, -0.25; 1, 0, 0.
    assert _turns(8, shares, entitled).tolist() == [0, 2, 1, 0, 0, 2, 1, 0]
    assert _turns(5, np.full(3, 1 / 3), entitled).tolist() == [2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    "shares", [(0.7, 0.15, 0.15), (0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (1 / 3, 2 / 3), (0.9, 0.1, 0), (0.7071, 0.2929)]
)
@pytest.mark.parametrize("entitled", [(0, 1, 2), (2, 0, 1)])
def test_many_rows_are_dealt_as_one_after_the_other(shares, entitled):
    """A period at a time, to the last tie that rounding decides."""
    parts = np.array([part for part in entitled if part < len(shares)])
    dealt, expected = np.zeros(len(shares)), []
    for number in range(1, 20_012):
        behind = np.array(shares) * number - dealt
        expected.append(parts[np.argmax(behind[parts])])
        dealt[expected[-1]] += 1
    assert splits._turns(20_011, np.array(shares), parts).tolist() == expected


def test_a_period_that_does_not_begin_anew_is_not_taken():
    shares, parts = np.array([0.5, 0.25, 0.25]), np.array([0, 1, 2])
    assert splits._turns_of_periods(1000, shares, parts, 4) is not None
    assert splits._turns_of_periods(1000, shares, parts, 3) is None


@pytest.mark.parametrize("most", [3, 2**16 + 10])
def test_rows_are_sorted_by_class_and_shuffled_within(most):
    strata = np.random.default_rng(1).integers(0, most, 5000)
    drawn = np.random.default_rng(2).permutation(5000)
    order = splits._by_class(strata, np.random.default_rng(2))
    assert order.tolist() == np.lexsort((drawn, strata)).tolist()


@pytest.mark.parametrize("strata", [[3, -1, 3, 5], [10**9, 0, 10**9], [-(2**45), 2**45], [0]])
def test_classes_are_numbered_in_their_order(strata):
    assert splits._numbered(np.array(strata)).tolist() == np.unique(strata, return_inverse=True)[1].tolist()
