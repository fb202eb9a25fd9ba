"""How many bodies of one step a job may bring: three, twice as many where columns are harmonised in between."""

from __future__ import annotations

import pytest

from v6_algorithm.data.quantiles import CALLS
from v6_algorithm.errors import PolicyError
from v6_algorithm.experiment import Experiment
from v6_algorithm.site.guard.order import Order


def answered(step, harmonisation="none", **model):
    """Ask a step with ever other numbers; return how often it is answered."""
    content = {"data": {"target": "y", "harmonisation": harmonisation}, "model": {"kind": "mlp"} | model}
    experiment = Experiment.parse(content)
    order = Order({}, experiment, most_experiments=3, researcher_weights=False)
    for before in ("schema", "statistics"):
        order.admit("prepare", {"step": before})
    for number in range(100):
        try:
            order.admit("prepare", {"step": step, "windows": [number]})
        except PolicyError:
            return number
    return 100


@pytest.mark.parametrize(("step", "calls"), [("moments", 1), ("quantiles", CALLS)])
def test_a_step_is_answered_so_often_and_twice_around_harmonisation(step, calls):
    once, around = answered(step), answered(step, "combat")
    assert (once, around) == (3 * calls, 6 * calls)


def test_knots_of_curves_are_quantiles_of_their_own():
    curves = {"kind": "glm", "splines": {"a": {"kind": "natural", "knots": 4}}}
    assert answered("quantiles", **curves) == 2 * answered("quantiles")
    assert answered("moments", **curves) == answered("moments")


def test_a_step_asked_word_for_word_again_is_answered_again():
    order = Order({}, Experiment.parse({"data": {"target": "y"}}), most_experiments=3, researcher_weights=False)
    for _ in range(20):
        order.admit("prepare", {"step": "schema"})
        order.admit("prepare", {"step": "statistics", "setup": {"a": 1}})


@pytest.mark.parametrize("other", [{"middle": 8.503}, {"sums": "other edges"}, {"middle": None}])
def test_a_survival_task_is_answered_at_one_set_of_times(other):
    """Answers that are cut at 104.5 and at 105.5 differ in the rows between."""
    content = {"data": {"target": {"duration": "days", "event": "died"}}, "problem": "survival", "model": "linear"}
    order = Order({}, Experiment.parse(content), most_experiments=3, researcher_weights=True)
    for step in ("schema", "statistics"):
        order.admit("prepare", {"step": step})
    setup = {"middle": 8.5, "sums": "edges"}

    def ask(round, **changes):
        folds = [{"fold": 0, "parameters": "model"}]
        order.admit("train", {"round": round, "setup": setup | changes, "folds": folds})

    ask(1)
    ask(2, baseline="told after training")
    with pytest.raises(PolicyError, match="this task has asked with other times before"):
        ask(3, **other)
    ask(3)
