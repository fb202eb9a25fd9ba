"""Whether an update gives rows away: what the node finds in its own update, and what it does not mistake for a row."""

from __future__ import annotations

import numpy as np
import pytest

from v6_algorithm.site.guard import isolation
from v6_algorithm.site.guard.isolation import isolated_rows


def rows_of(seed=0, rows=80, columns=5):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def sums(rows, weights):
    """(units, inputs + 1) as gradients are: each unit's weighted sum of the rows, and of ones."""
    return weights @ np.column_stack([rows, np.ones(len(rows))])


def test_a_unit_that_sees_one_row_gives_it_away():
    rows = rows_of()
    weights = np.zeros((3, len(rows)))
    weights[0], weights[1, 7], weights[2] = 1.0, -0.3, 2.0
    assert isolated_rows(rows, sums(rows, weights)) == 1


def test_two_units_that_differ_in_one_row_give_it_away():
    rows = rows_of()
    weights = np.tile(np.random.default_rng(1).normal(size=len(rows)), (40, 1)) * (
        np.arange(len(rows)) >= np.arange(40)[:, None]
    )
    assert isolated_rows(rows, sums(rows, weights)) == 39


def test_units_that_differ_in_one_row_but_for_the_next_layers_weights_give_it_away():
    rows = rows_of()
    outgoing = np.array([0.5, -2.0])
    weights = np.ones((2, len(rows))) * outgoing[:, None]
    weights[1, 3] = 0
    assert isolated_rows(rows, sums(rows, weights)) == 0
    assert isolated_rows(rows, sums(rows, weights), outgoing) == 1


def test_two_rounds_that_differ_in_one_row_give_it_away():
    rows = rows_of()
    weights = np.ones((2, len(rows)))
    weights[1, 11] = 0
    before, now = sums(rows, weights)[:, None]
    assert isolated_rows(rows, now) == 0
    assert isolated_rows(rows, now, None, before) == 1


@pytest.mark.parametrize("columns", [1, 2, 3, 8, 30])
def test_sums_over_many_rows_are_not_mistaken_for_one(columns):
    """However few the columns: of one, some pair of units comes near to some row by chance."""
    for seed in range(20):
        rows = rows_of(seed, columns=columns)
        weights = np.random.default_rng(seed).normal(size=(30, len(rows)))
        assert isolated_rows(rows, sums(rows, weights)) == 0


@pytest.mark.parametrize("rows", [np.zeros((20, 3)), np.ones((1, 3)), np.zeros((0, 3))])
def test_rows_that_are_all_alike_tell_nothing(rows):
    assert isolated_rows(rows, np.ones((4, 4))) == 0


def test_values_that_are_no_numbers_are_no_guesses():
    assert isolated_rows(rows_of(), np.full((2, 6), np.nan)) == 0


def test_chance_is_what_decoys_match_on_average_so_that_eight_rows_of_one_column_are_seen():
    """Of one column something matches by chance at any distance; eight rows at once are beyond it."""
    rows = rows_of(rows=200, columns=1)
    weights = np.zeros((8, 200))
    weights[np.arange(8), np.arange(8) * 7] = 1.0
    assert isolated_rows(rows, sums(rows, weights), pairs=False) == 8


@pytest.mark.parametrize(("half", "compared"), [(0.9e-9, False), (1.5e-9, True)])
def test_a_column_that_hardly_varies_is_not_compared(half, compared):
    """A spread of a billionth of the largest value and one: what a unit says of it is rounding."""
    rows = np.random.default_rng(0).normal(size=(40, 4))
    rows[:, 0] = np.where(np.arange(40) % 2, half, -half)
    unit = np.append(rows[3], 1.0)
    unit[0] += 1.0
    assert isolated_rows(rows, unit[None], pairs=False) == (0 if compared else 1)
    wide = rows.copy()
    wide[:, 0] *= 1e12
    unit[0] = wide[3, 0] + 1e6
    assert isolated_rows(wide, unit[None], pairs=False) == 0


@pytest.mark.parametrize(("weight", "read"), [(2e-9, 1), (0.5e-9, 0)])
def test_a_unit_of_hardly_any_weight_beside_the_others_tells_nothing(weight, read):
    rows = np.random.default_rng(0).normal(size=(40, 4))
    units = np.stack([np.append(rows.sum(axis=0), 1.0), np.append(rows[5], 1.0) * weight])
    assert isolated_rows(rows, units, pairs=False) == read
    assert isolated_rows(rows, units * 1e-30, pairs=False) == read


def test_two_rows_are_enough_to_be_told_apart_and_one_is_not():
    rows = np.array([[0.0, 5.0, -3.0, 2.0], [1.0, 2.0, 4.0, 9.0]])
    assert isolated_rows(rows, np.append(rows[1], 1.0)[None], pairs=False) == 1
    assert isolated_rows(rows[:1], np.append(rows[0], 1.0)[None], pairs=False) == 0


@pytest.mark.parametrize(("off", "read"), [(0.0199, 1), (0.0201, 0)])
def test_a_row_is_read_to_a_fiftieth_of_each_columns_spread(off, read):
    rows = np.random.default_rng(0).normal(size=(200, 12)) * np.arange(1, 13)
    unit = np.append(rows[5], 1.0)
    unit[7] += off * rows[:, 7].std()
    assert isolated_rows(rows, unit[None], pairs=False) == read


def test_sums_far_from_every_row_are_no_chance_that_hides_those_that_are_read():
    """More than a standard deviation beyond the rows nothing is compared, however many sums are there."""
    rows = np.concatenate([np.ones(100), np.random.default_rng(0).uniform(-1, 0.9, 100)])[:, None]
    read = np.column_stack([rows[150:158, 0], np.ones(8)])
    for beyond, count in ((1.5, 8), (0.95, 0)):
        for sign in (1, -1):
            far = np.full((2000, 2), 1.0)
            far[:, 0] = 1.0 + beyond * rows.std()
            units = np.concatenate([read, far])
            units[:, 0] *= sign
            assert isolated_rows(sign * rows, units, pairs=False) == count


def test_sums_just_a_standard_deviation_beyond_the_rows_are_not_compared(monkeypatch):
    rows = np.where(np.arange(40) % 2, 1.0, -1.0)[:, None]
    monkeypatch.setattr(isolation, "_beyond_chance", lambda rows, guesses: len(guesses))
    assert isolated_rows(rows, np.array([[guess, 1.0] for guess in (-2, -1.999, 0, 1.999, 2)]), pairs=False) == 3
    assert isolated_rows(rows, np.array([[-2.0, 1], [2, 1]]), pairs=False) == 0


@pytest.mark.parametrize(("read", "counted"), [(11, 0), (12, 12)])
def test_where_so_much_matches_by_chance_it_is_looked_at_closer_by_thirds_and_more_must_be_read(
    monkeypatch, read, counted
):
    """One match by chance in two columns: three times that, five times its root and three are no row."""
    looked_at = []

    def matches(rows, guesses, near):
        looked_at.append(near)
        # Of four decoys ten thousand each, which is one at a hundredth of the distance in two columns.
        return np.ones(read) if near < 1e-3 else np.full(1, 1e4)

    monkeypatch.setattr(isolation, "_matches", matches)
    assert isolation._beyond_chance(np.zeros((20, 2)), np.zeros((5, 2))) == counted
    near = [0.02, 0.02 / 3, 0.02 / 9, 0.02 / 27, 0.02 / 81]
    # Decoys lie a hundred times as far off, but no further than 0.3.
    decoys = [0.3, 0.3, 0.02 / 9 * 100, 0.02 / 27 * 100, 0.02 / 81 * 100, 1e-2]
    assert looked_at[::4][:-1] == pytest.approx(decoys)
    assert looked_at[-1] == 1e-4 < near[-1]


def test_decoys_lie_three_to_six_times_the_distance_beside_the_rows(monkeypatch):
    compared = []
    monkeypatch.setattr(
        isolation, "_matches", lambda rows, guesses, near: compared.append((rows, near)) or np.zeros(len(rows))
    )
    assert isolation._beyond_chance(np.zeros((500, 2)), np.ones((1, 2))) == 0
    *decoys, (rows, near) = compared
    assert (len(decoys), near, np.abs(rows).max()) == (4, 0.02, 0)
    apart = np.abs(np.concatenate([shifted for shifted, _ in decoys])) / decoys[0][1]
    assert (apart.min(), apart.max()) == (pytest.approx(3, abs=0.01), pytest.approx(6, abs=0.01))
