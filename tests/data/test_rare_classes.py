"""Classes too rare for every part: over many sites each part gets its share of them, and parts keep their sizes."""

import numpy as np
import pytest

from v6_algorithm.data.splits import _near_shares, make_folds
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


def test_two_rows_away_from_a_share_is_no_longer_near_it():
    of_row = np.zeros(10, dtype=int)

    def near(test_rows):
        part = np.array([1] * test_rows + [0] * (10 - test_rows))
        return _near_shares(part, of_row, np.array([0.5, 0.5]))

    assert [near(rows) for rows in (3, 4, 5, 6, 7)] == [False, True, True, True, False]
