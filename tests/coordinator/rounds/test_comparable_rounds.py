"""Rounds are compared over the same sites: a site with hard rows that misses one call makes no round the best."""

import json

import numpy as np
import pytest

from v6_algorithm.coordinator.rounds.comparable import ComparableScore
from v6_algorithm.learning.metrics import ClassificationMetrics, RegressionMetrics, compute, merge_states


def state(error, rows=10):
    metrics = RegressionMetrics()
    metrics.update(np.full(rows, error), np.zeros(rows), np.full(rows, error))
    return metrics.state()


def play(*rounds, monitor="loss", score=None):
    """Take in rounds of site to loss; give what is compared, and the best round's number."""
    score = score or ComparableScore(monitor, "regression")
    best = None
    for number, losses in enumerate(rounds, start=1):
        states = {site: state(loss) for site, loss in losses.items()}
        _, is_best = score.take(compute(merge_states(states.values())), states)
        best = number if is_best else best
    return score, best


def test_a_hard_site_that_misses_a_call_makes_no_round_the_best():
    score, best = play({"easy": 1.0, "hard": 9.0}, {"easy": 1.2}, {"easy": 1.0, "hard": 8.0})
    assert best == 3
    assert score.values == pytest.approx([5.0, 5.2, 4.5])


def test_a_round_that_is_better_at_the_sites_that_answered_is_the_best():
    score, best = play({"easy": 1.0, "hard": 9.0}, {"easy": 0.5}, {"easy": 0.75, "hard": 9.0})
    assert best == 2
    assert score.values == pytest.approx([5.0, 4.5, 4.75])


def test_where_all_answer_the_metric_is_taken_to_the_last_bit():
    losses = [{"a": 0.1 * number, "b": 0.7 / number} for number in range(1, 9)]
    score, _ = play(*losses)
    assert score.values == [compute(merge_states([state(one["a"]), state(one["b"])]))["loss"] for one in losses]


def test_rounds_without_a_common_site_are_not_compared():
    score, best = play({"a": 5.0}, {"b": 1.0})
    assert (score.values, best) == ([5.0, None], 1)


def test_what_it_knows_survives_a_checkpoint():
    rounds = [{"a": 1.0, "b": 9.0}, {"a": 0.5}, {"a": 0.75, "b": 9.0}, {"a": 0.4, "b": 9.5}]
    whole, _ = play(*rounds)
    half, _ = play(*rounds[:2])
    resumed = ComparableScore("loss", "regression")
    resumed.load_state_dict(json.loads(json.dumps(half.state_dict())))
    assert play(*rounds[2:], score=resumed)[0].values == whole.values


def test_a_score_that_the_common_sites_do_not_have_is_not_compared():
    """The AUROC of a site with one class is none: then no round is the better there."""

    def classes(*target):
        metrics = ClassificationMetrics(2)
        metrics.update(np.tile([0.4, 0.6], (len(target), 1)), np.array(target), np.zeros(len(target)))
        return metrics.state()

    before, after = {"a": classes(1, 1), "b": classes(0, 1)}, {"a": classes(0, 1), "c": classes(0, 0)}
    score = ComparableScore("auroc", "classification")
    score.take(compute(merge_states(before.values())), before)
    assert score.take(compute(merge_states(after.values())), after) == (None, False)
