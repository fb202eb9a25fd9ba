"""How many bodies of one step a job may bring: three, twice as many where columns are harmonised in between."""

from __future__ import annotations

import pytest

from v6_algorithm.data.quantiles import CALLS
from v6_algorithm.errors import PolicyError
from v6_algorithm.exchange import wire
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


def test_no_middle_of_times_is_a_middle_of_0():
    """For the next experiment of a task too, whose times are those of the first."""
    content = {"data": {"target": {"duration": "days", "event": "died"}}, "problem": "survival", "model": "linear"}
    job = {}
    for rounds, setup in ((3, {"sums": "edges"}), (4, {"sums": "edges", "middle": 0.0})):
        experiment = Experiment.parse(content | {"rounds": rounds})
        Order(job, experiment, most_experiments=3, researcher_weights=True)._check_setup({"setup": setup})
    with pytest.raises(PolicyError, match="this task has asked with other times before"):
        Order(job, experiment, most_experiments=3, researcher_weights=True)._check_setup(
            {"setup": setup | {"middle": 1}}
        )


class Run:
    """A task that has prepared an experiment, and asks its rounds and evaluations."""

    def __init__(self, **content):
        self.content = {"data": {"target": "y"}, "rounds": 20} | content
        self.job = {}
        for step in ("schema", "statistics"):
            self.order().admit("prepare", {"step": step})

    def order(self, **changes):
        experiment = Experiment.parse(self.content | changes)
        return Order(self.job, experiment, most_experiments=9, researcher_weights=True)

    def ask(self, round, setup, method="train", model="model", **changes):
        folds = [{"fold": 0, "parameters": model, "train": method == "train"}]
        self.order(**changes).admit(method, {"round": round, "setup": setup, "folds": folds})


SETUP = {"features": ["a"], "preparation": "scales", "class_weights": None, "event_times": "times", "baseline": None}


@pytest.mark.parametrize("key", ["features", "preparation", "class_weights", "event_times", "imputation", "unknown"])
def test_an_experiment_is_answered_with_one_preparation(key):
    run = Run()
    run.ask(1, SETUP)
    for method, round in (("train", 2), ("evaluate", 1)):
        with pytest.raises(PolicyError, match="this experiment has asked with another preparation before"):
            run.ask(round, SETUP | {key: "moved"}, method)
    run.ask(2, SETUP)
    run.ask(2, SETUP | {"baseline": "hazard", "baselines": "of sites"}, "evaluate")


def test_a_search_for_settings_has_three_preparations_as_where_it_loses_sites():
    run = Run()
    for number in range(3):
        run.ask(1, SETUP | {"preparation": f"scales {number}"}, training={"optimizer": {"lr": 0.1 + number}})
    # What hangs on the settings is no preparation of rows.
    run.ask(1, SETUP | {"preparation": "scales 0", "class_weights": [1]}, training={"optimizer": {"lr": 5.0}})
    run.ask(1, SETUP | {"preparation": "scales 2", "terms": "knots"}, training={"optimizer": {"lr": 6.0}})
    with pytest.raises(PolicyError, match="this task has asked with 3 preparations before"):
        run.ask(1, SETUP | {"preparation": "scales 3"}, training={"optimizer": {"lr": 7.0}})


def test_each_tested_model_has_its_own_preparation_and_keeps_it():
    models = [wire.digest("first"), wire.digest("second")]
    run = Run(split={"kind": "tested", "models": models})
    run.ask(1, SETUP, "evaluate", "first")
    run.ask(1, SETUP | {"preparation": "of the second"}, "evaluate", "second")
    with pytest.raises(PolicyError, match="another preparation"):
        run.ask(1, SETUP, "evaluate", "second")


@pytest.mark.parametrize("part", ["experiment", "setup"])
def test_the_second_model_of_a_test_keeps_its_inputs_too(part):
    models = [wire.digest("first"), wire.digest("second")]
    run = Run(split={"kind": "tested", "models": models})

    def ask(**changes):
        against = {"experiment": "of the second", "setup": SETUP, "parameters": "second"} | changes
        folds = [{"fold": 0, "parameters": "first", "train": False, "against": against}]
        run.order().admit("evaluate", {"round": 1, "setup": SETUP, "folds": folds})

    ask()
    with pytest.raises(PolicyError, match="another preparation"):
        ask(**{part: "moved"})
    ask(placements="packed")


def test_the_end_measures_no_more_models_of_a_fold_than_a_run_may_keep():
    run = Run()
    for round in range(1, 7):
        run.ask(round, SETUP, model=f"of round {round}")
    for round in range(1, 5):
        run.ask(6, SETUP, "evaluate", f"of round {round}")
    with pytest.raises(PolicyError, match="fold 0: 4 models were measured at the end"):
        run.ask(6, SETUP, "evaluate", "of round 5")
    run.ask(6, SETUP | {"baseline": "hazard"}, "evaluate", "of round 1")
