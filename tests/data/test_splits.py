"""Every row is in one part, every group in one part, every row is tested once: from the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.splits import make_folds
from v6_algorithm.errors import DataError
from v6_algorithm.experiment import PARTS, Given, KFold, Ratio

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
    (fold,) = make_folds(Given(kind="given"), len(names), generator(), given=names)
    assert [fold[part].tolist() for part in PARTS] == [[0, 6], [2, 3, 4, 5], [1, 7]]


@pytest.mark.parametrize("name", ["patient 4711", float("nan"), 1, None, ""], ids=repr)
def test_a_part_of_another_name_is_refused_without_repeating_it(name):
    with pytest.raises(DataError, match=r"data.split_column holds other values") as refused:
        make_folds(Given(kind="given"), 2, generator(), given=["train", name])
    assert "4711" not in str(refused.value)


def test_a_given_split_that_tears_a_group_apart_is_refused():
    with pytest.raises(DataError, match=r"data.group: a group has rows in two parts"):
        make_folds(Given(kind="given"), 3, generator(), groups=np.array([0, 1, 0]), given=["train", "train", "test"])


def test_a_given_split_may_leave_a_site_nothing_to_train_on():
    (fold,) = make_folds(Given(kind="given"), 2, generator(), given=["test", "validation"])
    assert [fold[part].tolist() for part in PARTS] == [[], [1], [0]]


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
