"""Classes too rare for every part: over many sites each part gets its share of them, and parts keep their sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v6_algorithm.data.rounding import rounded
from v6_algorithm.data.splits import draw_rows, make_folds
from v6_algorithm.experiment import PARTS, Ratio

SPLIT = Ratio(train=0.7, validation=0.15, test=0.15)


def dealt(labels, seed):
    (fold,) = make_folds(SPLIT, len(labels), np.random.default_rng(seed), labels=labels)
    return fold


@pytest.mark.parametrize("rare_class", [0, 1])
@pytest.mark.parametrize("positives", [1, 2, 3])
def test_over_many_hospitals_each_part_gets_its_share_of_rare_rows(positives, rare_class):
    labels = np.array([1 - rare_class] * 40 + [rare_class] * positives)
    hospitals = 400
    counts = np.zeros(3)
    for seed in range(hospitals):
        fold = dealt(labels, seed)
        counts += [(labels[fold[part]] == rare_class).sum() for part in PARTS]
    expected = np.array([0.7, 0.15, 0.15]) * hospitals * positives
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected.max())
    assert counts[2] == pytest.approx(expected[2], rel=0.35)


def test_twenty_hospitals_with_one_positive_each_put_some_into_test():
    labels = np.array([0] * 39 + [1])
    assert sum(labels[dealt(labels, seed).test].sum() for seed in range(20)) > 0


def test_the_parts_keep_their_sizes_and_the_seed_decides():
    labels = np.array([0] * 40 + [1, 2, 2])
    sizes = {tuple(len(dealt(labels, seed)[part]) for part in PARTS) for seed in range(50)}
    assert all(
        abs(size - share * 43) < 1.01 for row in sizes for size, share in zip(row, (0.7, 0.15, 0.15), strict=True)
    )
    one, again = dealt(labels, 7), dealt(labels, 7)
    assert all((one[part] == again[part]).all() for part in PARTS)


@pytest.mark.parametrize("rows_of_each", [1, 2])
@pytest.mark.parametrize("positives", [1, 2])
def test_patients_with_a_rare_class_get_into_each_part_by_its_share(positives, rows_of_each):
    """One positive patient at each of twenty hospitals was never tested: what fits best was always training."""
    labels = np.repeat(np.array([0] * 40 + [1] * positives), rows_of_each)
    patients = np.arange(len(labels)) // rows_of_each
    counts, hospitals = np.zeros(3), 300
    for seed in range(hospitals):
        (fold,) = make_folds(SPLIT, len(labels), np.random.default_rng(seed), labels=labels, groups=patients)
        counts += [labels[fold[part]].sum() / rows_of_each for part in PARTS]
        assert [len(fold[part]) / len(labels) for part in PARTS] == pytest.approx([0.7, 0.15, 0.15], abs=0.06)
    expected = np.array([0.7, 0.15, 0.15]) * hospitals * positives
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected[2])


def test_a_patient_with_more_rows_than_a_part_has_room_for_is_not_drawn_into_it():
    labels, patients = np.array([0] * 30 + [1] * 20), np.array([*range(30), *[99] * 20])
    for seed in range(20):
        (fold,) = make_folds(SPLIT, 50, np.random.default_rng(seed), labels=labels, groups=patients)
        assert labels[fold.train].sum() == 20


@pytest.mark.parametrize(("limit", "rows", "positives"), [(10, 40, 1), (39, 40, 1), (7, 50, 3)])
def test_a_limit_keeps_rare_rows_as_often_as_others(limit, rows, positives):
    """One positive of 40 rows was never among the 10 drawn, whatever the seed."""
    labels = np.array([0] * (rows - positives) + [1] * positives)
    drawn = [draw_rows(limit, rows, np.random.default_rng(seed), labels) for seed in range(400)]
    assert {len(one) for one in drawn} == {limit}
    kept = sum(labels[one].sum() for one in drawn) / positives
    assert abs(kept - 400 * limit / rows) < 5 * np.sqrt(400 * limit / rows * (1 - limit / rows))


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=6),
    st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any),
    st.integers(0, 99),
)
def test_a_rounded_table_is_next_to_what_was_wanted_in_cells_and_sums(rows, weights, seed):
    shares = np.array(weights) / sum(weights)
    wanted = np.outer(rows, shares)
    table = rounded(wanted, np.random.default_rng(seed))
    assert (np.abs(table - wanted) < 1).all()
    assert (np.abs(table.sum(axis=0) - wanted.sum(axis=0)) < 1).all()
    assert table.sum(axis=1).tolist() == rows


@pytest.mark.slow
def test_rounding_is_right_in_the_mean():
    wanted = np.outer([1, 3, 9, 4], [0.6, 0.25, 0.15])
    drawn = np.array([rounded(wanted, np.random.default_rng(seed)) for seed in range(2000)])
    assert drawn.mean(axis=0) == pytest.approx(wanted, abs=5 * 0.5 / np.sqrt(2000))


@pytest.mark.parametrize("largest", [10**4, 10**8])
def test_shares_of_any_number_of_rows_are_rounded_to_a_neighbour(largest):
    """Of many rows a share is whole to fewer digits."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        shares = generator.integers(1, 1000, 3) / 1.0
        rows = np.array([1, 3, *generator.integers(1, largest, 2)])
        wanted = np.outer(rows, shares / shares.sum())
        counts = rounded(wanted, generator)
        assert (counts.sum(axis=1) == rows).all()
        assert (np.abs(counts - wanted) < 1 + 1e-6).all()
