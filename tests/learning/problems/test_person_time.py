"""Discrete-time survival against Kaplan-Meier: a model without features has to give the curve of its rows."""

import numpy as np
import pytest
import torch

from v6_algorithm.data.preparation import Setup, times
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.problems import create_problem

ENDS = [30.0, 90.0, 180.0, 365.0]


def kaplan_meier(time, event, at):
    curve = 1.0
    for moment in np.unique(time[event & (time <= at)]):
        curve *= 1 - (event & (time == moment)).sum() / (time >= moment).sum()
    return curve


def most_likely_curve(time, event, ends):
    """Survival at the ends, of the logits that minimise the summed loss of all rows."""
    experiment = Experiment.parse(
        {
            "name": "curve",
            "sites": {"a": "a"},
            "data": {"target": {"duration": "time", "event": "event"}},
            "problem": {"kind": "survival", "method": "discrete_time", "intervals": list(ends)},
        }
    )
    problem = create_problem(experiment, Setup(["x"], {}, None, sums={"event_times": times.count_times(time)}))
    logits = torch.zeros(len(ends) + 1, dtype=torch.float64, requires_grad=True)
    target = torch.tensor(np.column_stack([time, event]), dtype=torch.float64)
    optimiser = torch.optim.LBFGS([logits], lr=0.5, max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        total = problem.row_loss(logits.expand(len(time), -1), target, 0).mean()
        total.backward()
        return total

    optimiser.step(loss)
    return problem.prediction(logits.detach()[None])[0, 1:].numpy()


def study(seed, *, censored_at=None, dropout=1500.0, rows=4000):
    """Exponential event times, drop-out, and an end of follow-up for all."""
    generator = np.random.default_rng(seed)
    happens, leaves = generator.exponential(900, rows), generator.exponential(dropout, rows)
    watched = leaves if censored_at is None else np.minimum(leaves, censored_at)
    return np.minimum(happens, watched), happens <= watched


@pytest.mark.parametrize("end", ENDS[1:])
def test_a_follow_up_that_ends_with_an_interval_gives_kaplan_meiers_curve(end):
    """Rows censored at an interval's end survived it: leaving them out gave S(365) = 0.001 for 0.665."""
    time, event = study(1, censored_at=end, dropout=1e9)
    ends = [one for one in ENDS if one <= end]
    wanted = [kaplan_meier(time, event, at) for at in ends]
    np.testing.assert_allclose(most_likely_curve(time, event, ends), wanted, atol=1e-3)


@pytest.mark.parametrize("dropout", [400.0, 1500.0])
def test_drop_out_within_intervals_stays_near_kaplan_meier(dropout):
    time, event = study(2, dropout=dropout)
    wanted = [kaplan_meier(time, event, at) for at in ENDS]
    np.testing.assert_allclose(most_likely_curve(time, event, ENDS), wanted, atol=0.012)


def test_without_censoring_the_curve_is_exact():
    time, event = study(3, dropout=1e12)
    wanted = [(time > end).mean() for end in ENDS]
    np.testing.assert_allclose(most_likely_curve(time, event, ENDS), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("problem", "training", "batch"),
    [
        ("survival", {}, None),
        ({"kind": "survival"}, {"local_steps": 2}, None),
        ({"kind": "survival", "method": "discrete_time"}, {}, 32),
        ("survival", {"batch_size": 16}, 16),
    ],
)
def test_cox_takes_all_rows_of_a_site_where_nothing_is_said_of_batches(problem, training, batch):
    content = {"data": {"target": {"duration": "time", "event": "event"}}, "problem": problem, "training": training}
    assert Experiment.parse(content).training.batch_size == batch
