"""Scores of many sites from one pass over their rows are those of each site's own state."""

import numpy as np
import pytest

from v6_algorithm.learning.metrics import ClassificationMetrics, checked_state, scores_by_name, scores_of
from v6_algorithm.learning.metrics.by_site import SiteStates, StateByHospital


def drawn(classes: int, lengths: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw probabilities, classes and losses; the first site's rows are of one class, some rows have no loss."""
    generator = np.random.default_rng(classes)
    rows = sum(lengths)
    probability = generator.dirichlet(np.ones(classes), rows).round(3)
    probability[:, -1] = 1 - probability[:, :-1].sum(axis=1)
    probability = np.clip(probability, 0, 1)
    target = generator.integers(0, classes, rows)
    target[: lengths[0]] = 0
    loss = generator.random(rows)
    loss[::17] = np.nan
    return probability, target, loss


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_scores_at_once_are_those_of_each_state_bit_for_bit(classes):
    lengths = [5, 40, 1, 200, 0, 33]
    rows = drawn(classes, lengths)
    names = {f"hospital {number}": number for number in range(len(lengths))}
    table = SiteStates.of(ClassificationMetrics(classes), *rows, lengths)
    at_once = scores_by_name(StateByHospital(names, table))

    ends = np.cumsum([0, *lengths])
    for name, number in names.items():
        assert at_once[name] == scores_of(table.state(number))
        alone = ClassificationMetrics(classes)
        alone.update(*(values[ends[number] : ends[number + 1]] for values in rows))
        own = scores_of(checked_state(alone.state()))
        # Of losses and squared errors the order of adding up is another; see `by_site`.
        assert {**at_once[name], "loss": 0, "brier": 0} == {**own, "loss": 0, "brier": 0}


def test_scores_of_some_sites_of_a_table_are_those_of_each_state():
    lengths = [30, 20, 10]
    states = SiteStates.of(ClassificationMetrics(3), *drawn(3, lengths), lengths).states()
    chosen = {"b": states[1], "a": states[0]}
    assert scores_by_name(chosen) == {name: scores_of(state) for name, state in chosen.items()}


def test_scores_of_all_sites_of_two_tables_are_those_of_each_state():
    lengths = [30, 20, 10]
    first, second = (
        SiteStates.of(ClassificationMetrics(3), *drawn(3, of_table), of_table) for of_table in (lengths, lengths[:2])
    )
    states = {"c": second.state(1), "a": first.state(2), "d": first.state(0), "b": second.state(0), "e": first.state(1)}
    assert scores_by_name(states) == {name: scores_of(state) for name, state in states.items()}


def test_of_no_states_there_are_no_scores():
    assert scores_by_name({}) == {}
