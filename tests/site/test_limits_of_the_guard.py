"""Where each rule of the guard begins to refuse: what is just allowed passes, and one row more or less does not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hospitals import table
from torch import nn

from v6_algorithm.data.sources import TableSource
from v6_algorithm.errors import PolicyError, WireError
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site import work as work_module
from v6_algorithm.site.guard import Guard, bounds, isolation, watch
from v6_algorithm.site.guard.privacy_account import participants_in, units_of
from v6_algorithm.site.guard.requests import check_request
from v6_algorithm.site.guard.rowsets import independent_sums
from v6_algorithm.site.guard.watch import UpdateWatch
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.private_update import _rounded_up
from v6_algorithm.site.work import Work

LINEAR = {"data": {"target": "y"}, "model": "linear"}


def experiment(**changes):
    return Experiment.parse(LINEAR | changes)


def guard(content=None, **rules):
    return Guard(SiteContext({}, Policy(**rules), lasting=True), {}, Experiment.parse(content or LINEAR))


def refuses(call, *given):
    try:
        call(*given)
    except PolicyError:
        return True
    return False


# -- sums of a model with coefficients -----------------------------------------------------------------------------


def blank_watch(**parts):
    made = object.__new__(UpdateWatch)
    made.__dict__.update({"_cox": None, "_glm": False, "_layers": {}} | parts)
    return made


@pytest.mark.parametrize(("smallest", "least"), [(5, 20), (19, 20), (30, 30)])
def test_a_tenth_of_the_rows_must_carry_a_sum_and_a_cells_rows(smallest, least):
    def refused(carrying, rows=200, weight=3.0):
        weights = np.zeros(rows)
        weights[:carrying] = weight
        return refuses(blank_watch(_weights=weights)._check_carrying, smallest, "glm")

    assert not refused(least)
    assert refused(least - 1)
    # Of fewer rows than a cell has, all must.
    assert not refused(4, 4)
    assert refused(3, 4)
    assert not refused(0), "sums of nothing tell nothing"


def test_rows_carry_as_many_as_kishs_effective_sample_size_says():
    weights = np.concatenate([np.full(10, 2.0), np.ones(90)])
    carrying = weights.sum() ** 2 / (weights**2).sum()
    assert not refuses(blank_watch(_weights=weights)._check_carrying, int(carrying), "glm")
    assert refuses(blank_watch(_weights=weights)._check_carrying, int(carrying) + 1, "glm")


def test_sums_by_event_time_may_not_be_those_of_one_row_between_two_times():
    rows = np.random.default_rng(0).normal(size=(60, 4))
    design = np.column_stack([np.ones(60), rows, rows[:, :1] * rows])

    def refused(leaving, tied=10):
        """Rows leave in order, some at each time; the last are there to the end."""
        at_risk = np.stack([design[start:].sum(axis=0) for start in np.cumsum([0, *leaving])])
        sums = {"at_risk": at_risk, "tied": np.stack([design[:tied].sum(axis=0)] * len(at_risk))}
        return refuses(blank_watch(_inputs=rows)._check_risk_sets, sums)

    assert not refused([20, 15])
    assert refused([20, 1, 15])
    assert refused([20, 39]), "of the last time one row is left"
    assert refused([20, 15], tied=1)
    assert not refuses(blank_watch(_inputs=rows)._check_risk_sets, {})


class CoxRegression(nn.Module):
    def forward(self, inputs):
        return inputs @ torch.tensor([[1.0], [-2.0]], dtype=inputs.dtype) * 1e2


def rows_of(inputs, weights=None):
    return SimpleNamespace(inputs=inputs, weights=weights, target=inputs)


def test_rows_of_a_cox_model_weigh_as_their_risk_beside_the_highest():
    inputs = torch.tensor([[0.01, 0.0], [0.0, 0.0], [5.0, 0.0], [-9.0, 0.0]])
    problem = SimpleNamespace(sums_of_squares=True, generative=False)
    made = UpdateWatch(problem, {"model": CoxRegression()}, rows_of(inputs), torch.tensor([0, 1, 3]))
    # The last one is e^-901 beside the first, of which no more than e^-700 is made.
    assert made._weights == pytest.approx([1.0, np.exp(-1), np.exp(-700)], rel=1e-5, abs=0)
    assert made._inputs == pytest.approx(inputs[[0, 1, 3]].numpy())


def test_rows_of_a_glm_weigh_as_the_model_says_times_as_they_were_given(monkeypatch):
    monkeypatch.setattr(watch, "_weights_of", lambda model, inputs: np.arange(1.0, len(inputs) + 1))
    inputs = torch.zeros(4, 2)
    setup = SimpleNamespace(imputation=None)
    problem = SimpleNamespace(sums_of_squares=True, generative=False, setup=setup)
    part = torch.tensor([1, 3])
    given = torch.tensor([9.0, 4.0, 9.0, 5.0])
    made = UpdateWatch(problem, {"model": nn.Linear(2, 1)}, rows_of(inputs, given), part)
    assert made._weights.tolist() == [4.0, 10.0]


def test_rows_are_known_in_all_imputed_tables_by_what_is_not_imputed():
    def known(imputed, features=("a", "b"), categories=None):
        setup = SimpleNamespace(
            imputation=SimpleNamespace(columns=list(imputed)), features=list(features),
            categories={"c": [1, 2, 3], "d": [1, 2]} if categories is None else categories,
        )  # fmt: skip
        return watch._not_imputed(SimpleNamespace(setup=setup))

    assert known(["b", "c"]) == [[0, 5, 6]]
    assert known(["a"]) == [[1, 2, 3, 4, 5, 6]]
    # Of one column nothing is known by itself: then by all others of each.
    assert known(["b", "c", "d"]) == [[0, 2, 3, 4, 5, 6], [0, 1, 5, 6], [0, 1, 2, 3, 4]]
    assert known(["b"], categories={}) == [[0]]
    assert watch._not_imputed(SimpleNamespace(setup=SimpleNamespace(imputation=None))) == []


@pytest.mark.parametrize(("outputs", "seen"), [(1, "single"), (2, "difference"), (3, None)])
def test_units_are_looked_at_as_the_next_layer_adds_them_up(outputs, seen):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, outputs))
    path, layer, after = watch._first_linear(network)
    weight = network[2].weight.detach().double().numpy()
    assert (path, layer) == ("0", network[0])
    if seen is None:
        assert after is None
    else:
        assert after == pytest.approx(weight[0] if seen == "single" else weight[0] - weight[1])
    assert watch._first_linear(nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 1)))[2] is None
    assert watch._first_linear(nn.Linear(3, 4, bias=False)) is None


def test_of_very_many_numbers_the_first_rows_are_looked_at(monkeypatch):
    problem = SimpleNamespace(forward=lambda networks, inputs: networks["model"](inputs))
    networks = {"model": nn.Linear(3, 1)}
    inputs, part = torch.randn(700, 3), torch.arange(600)

    def seen(numbers):
        monkeypatch.setattr(watch, "_NUMBERS", numbers)
        return watch._inputs_of(problem, networks, networks["model"], rows_of(inputs), part)

    assert seen(1).tolist() == inputs[:2].double().tolist()
    assert seen(3 * 300).tolist() == inputs[:300].double().tolist()
    assert len(seen(2**24)) == 600


def test_sixteen_million_numbers_are_looked_at():
    """A layer that says that each of its rows has four million."""
    layer = nn.Linear(3, 1)
    layer.in_features = 2**22
    problem = SimpleNamespace(forward=lambda networks, inputs: networks["model"](inputs))
    inputs = torch.randn(9, 3)
    assert len(watch._inputs_of(problem, {"model": layer}, layer, rows_of(inputs), torch.arange(9))) == 4


@pytest.mark.parametrize(("values", "refused"), [(21, True), (20, False)])
def test_rows_are_told_apart_by_columns_of_more_than_twenty_values(values, refused):
    """Sums of two imputed tables that differ in one row."""
    levels = np.random.default_rng(1).normal(size=(values, 4))
    inputs = levels[np.arange(4 * values) % values]
    made, context = blank_watch(_inputs=inputs, _known=[[0, 1, 2, 3]]), SiteContext({})
    design = np.column_stack([inputs, np.ones(len(inputs))])
    made._check_tables(design.sum(axis=0)[None], context, 1, "fold-0")
    assert refuses(made._check_tables, design[1:].sum(axis=0)[None], context, 1, "fold-1") is refused


# -- units -----------------------------------------------------------------------------------------------------------


def test_of_few_units_all_pairs_are_tried_and_of_many_neighbours_in_three_orders(monkeypatch):
    units = np.random.default_rng(0).normal(size=(9, 3))
    outgoing = np.arange(1.0, 10)
    views = [units, units / outgoing[:, None]]
    every = isolation._candidates(units, outgoing, units[:2] + 1)
    pairs = [view[a] - view[b] for view in views for a in range(9) for b in range(a + 1, 9)]
    wanted = [*units, *pairs, *(unit - (other + 1) for unit in units for other in units[:2])]
    assert every == pytest.approx(np.array(wanted))
    # A weight of 0 adds nothing up.
    assert isolation._candidates(units, outgoing * 0, None) == pytest.approx(np.array([*units, *pairs[:36]]))
    monkeypatch.setattr(isolation, "_ALL_PAIRS", 8)
    some = isolation._candidates(units, None, None)
    wanted = list(units)
    for order in (np.arange(9), np.argsort(units[:, -1]), np.argsort(units[:, 0])):
        wanted += [units[order[at + step]] - units[order[at]] for step in range(1, 5) for at in range(9 - step)]
    assert some == pytest.approx(np.array(wanted))


def test_matches_are_those_of_a_comparison_of_all_with_all():
    generator = np.random.default_rng(0)
    rows, guesses = generator.integers(0, 3, (30, 9)) * 1.0, generator.integers(0, 3, (40, 9)) * 1.0
    rows[:, 0] = generator.normal(size=30)
    guesses[:20] = rows[:20] + generator.uniform(-0.3, 0.3, (20, 9))
    for near in (0.1, 0.25, 1.0):
        wanted = [(np.abs(guesses - row) <= near).all(axis=1).sum() for row in rows]
        assert isolation._matches(rows, guesses, near).tolist() == wanted


def test_a_unit_without_a_sum_of_weights_tells_nothing_and_the_others_do():
    rows = np.random.default_rng(0).normal(size=(50, 4))
    units = np.stack([np.append(rows[3], 1.0), np.append(rows[5], 1e-12)])
    assert isolation.isolated_rows(rows, units, pairs=False) == 1
    assert isolation.isolated_rows(rows, units[1:] * 0, pairs=False) == 0
    assert isolation.isolated_rows(rows[:2], np.append(rows[1], 1.0)[None], pairs=False) in (0, 1)


# -- numbers of rows -----------------------------------------------------------------------------------------------


def test_sums_of_products_are_of_no_more_columns_than_a_share_of_the_rows():
    strict = guard(maximum_share_of_sums=0.2)
    assert strict.bears(2, 10)
    assert not strict.bears(3, 10)
    assert guard().bears(10**6, 1)
    assert not refuses(strict.check_information, 2, 10)
    assert refuses(strict.check_information, 3, 10)
    assert not refuses(guard().check_information, 3, 1)
    assert [strict.fewest_imputed(columns) for columns in (1, 2, 3)] == [5, 10, 15]
    assert guard(maximum_share_of_sums=0.3, minimum_cell=5).fewest_imputed(2) == 7
    assert guard(minimum_cell=4, minimum_part_rows=9).fewest_imputed(99) == 9
    assert guard(minimum_cell=8, minimum_part_rows=3).fewest_imputed(99) == 8


def test_an_event_time_stands_for_a_cells_rows_and_as_many_for_each_column():
    assert guard(coarse_histograms=False).time_cell(4) is None
    assert guard(coarse_histograms=True, minimum_cell=5).time_cell(4) == (5, 5)
    assert guard(coarse_histograms=True, minimum_cell=5).time_cell(7) == (5, 7)
    assert guard(coarse_histograms=False, maximum_share_of_sums=0.3, minimum_cell=5).time_cell(4) == (5, 14)


def test_folds_that_are_repeated_tell_one_sum_fewer_each():
    nothing = SimpleNamespace(folds=[], group_names=[])
    assert independent_sums(experiment(split={"kind": "kfold", "folds": 5, "repeats": 3}), nothing) == 5 + 2 * 4
    groups = SimpleNamespace(folds=[], group_names=[["f", "m"], ["a", "b", "c"]])
    assert independent_sums(experiment(split={"kind": "kfold", "folds": 4, "repeats": 1}), groups) == 4 + 10
    part = {"train": np.array([1, 2]), "validation": np.array([], dtype=int), "test": np.array([3])}
    holdout = SimpleNamespace(folds=[part, part | {"test": np.array([4])}], group_names=[])
    assert independent_sums(experiment(), holdout) == 3


def test_units_are_rows_patients_or_the_site():
    rows = np.array([3, 1, 0])
    of_patients = SimpleNamespace(patient=np.array(["b", "a", "c", "b"]))
    assert units_of(of_patients, rows, kind="site")[0].tolist() == [0, 0, 0]
    assert units_of(of_patients, rows, kind="site")[1] == 1
    assert units_of(of_patients, rows, kind="row")[0].tolist() == [0, 1, 2]
    numbers, count = units_of(of_patients, rows, kind="patient")
    assert (numbers.tolist(), count) == ([1, 0, 1], 2)
    assert units_of(SimpleNamespace(patient=np.array([])), rows, kind="patient")[1] == 3


@pytest.mark.parametrize(("listed", "wrong"), [(["a", "b"], False), (["a"], True), ("ab", True), (None, True)])
def test_a_sum_under_masks_is_of_two_sites_or_more(listed, wrong):
    request = {"secure_aggregation": {"participants": listed}}
    if not wrong:
        assert participants_in(request) == 2
        return
    with pytest.raises(WireError, match="must have a list of participants"):
        participants_in(request)


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.1231, 0.13), (1234.0, 1300.0), (1.2, 1.2), (0.05, 0.05), (99.1, 100.0), (7.01e-6, 7.1e-6)]
)
def test_a_number_is_rounded_up_to_two_digits(value, rounded):
    assert _rounded_up(value) == pytest.approx(rounded, rel=1e-9)


def test_weights_make_sums_over_as_many_rows_as_a_part_has():
    policy = Policy(minimum_part_rows=5)
    for weights, refused in (
        (np.full(5, 2.0), False), (np.full(4, 2.0), True), (np.zeros(9), True), (np.zeros(0), False),
        (np.array([0.0] * 4 + [1.0] * 9), True), (np.array([0.0] * 5 + [1.0] * 9), False),
        (np.array([100.0] + [1.0] * 9), True), (np.array([0.0] + [1.0] * 9), True), (np.ones(10), False),
    ):  # fmt: skip
        assert refuses(policy.check_weights, weights) is refused, weights


def test_a_table_has_enough_rows_and_enough_of_patients():
    work = object.__new__(Work)
    for rows, synthetic, refused in (
        (10, 0, False), (9, 0, True), (20, 10, False), (20, 11, True), (20, 20, False), (13, 3, False), (12, 2, True),
    ):  # fmt: skip
        work.policy = Policy(minimum_rows=10, minimum_part_rows=3)
        assert refuses(work.check_rows, rows, synthetic) is refused, (rows, synthetic)


# -- what a request may cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "folds"),
    [(None, 1), ({"kind": "kfold", "folds": 4}, 4), ({"kind": "kfold", "folds": 3, "repeats": 5}, 15)],
)
def test_a_request_names_each_fold_eight_times_at_most(split, folds):
    given = experiment(**({"split": split} if split else {}))
    bounds.check_folds(Policy(), given, {"folds": [{}] * (8 * folds)})
    with pytest.raises(PolicyError, match=f"an experiment of {folds} needs at most {8 * folds}"):
        bounds.check_folds(Policy(), given, {"folds": [{}] * (8 * folds + 1)})


def test_hospitals_tested_in_turn_are_folds():
    given = experiment(split={"kind": "leave_one_site_out"})
    setup = {"hospitals": [f"site{number}" for number in range(9)]}
    bounds.check_folds(Policy(maximum_folds=9), given, {"setup": setup, "folds": [{}] * 72})
    with pytest.raises(PolicyError, match="an experiment of 9 needs at most 72"):
        bounds.check_folds(Policy(), given, {"setup": setup, "folds": [{}] * 73})
    with pytest.raises(PolicyError, match=r"setup\.hospitals.*: 9 is over this node's bound of 8"):
        bounds.check_folds(Policy(maximum_folds=8), given, {"setup": setup})
    # Another split's folds are its own, whatever hospitals a request names.
    with pytest.raises(PolicyError, match="an experiment of 1 needs at most 8"):
        bounds.check_folds(Policy(), experiment(), {"setup": setup, "folds": [{}] * 9})


def test_imputed_tables_are_folds():
    missing = {"kind": "impute", "imputations": 7, "iterations": 3}
    given = experiment(data={"target": "y", "missing": missing}, model="glm", problem="regression")
    assert bounds._folds(given) == 7
    bounds.check_experiment(Policy(maximum_folds=7, maximum_rounds=given.rounds), given)
    with pytest.raises(PolicyError, match=r"data\.missing\.imputations"):
        bounds.check_experiment(Policy(maximum_folds=6), given)
    # Their iterations are rounds; where nothing is imputed there are none.
    few = given.model_copy(update={"rounds": 2})
    bounds.check_experiment(Policy(maximum_rounds=3), few)
    with pytest.raises(PolicyError, match=r"data\.missing\.iterations"):
        bounds.check_experiment(Policy(maximum_rounds=2), few)
    bounds.check_experiment(Policy(maximum_rounds=1), experiment(rounds=1))


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        ({"size": [20, 30]}, 600), ({"size": [20, 30], "channels": 3}, 1800), ({"shape": [3, 20, 30]}, 1800),
        ({"spacing": [2.0, 4.0, 128.0]}, 128 * 64 * 2),
    ],
)  # fmt: skip
def test_an_image_has_as_many_pixels_as_a_node_allows(image, pixels):
    asked = SimpleNamespace(**{"size": None, "channels": None, "shape": None, "spacing": None} | image)
    bounds._check_image(Policy(maximum_pixels=pixels), asked)
    with pytest.raises(PolicyError, match=r"data\.image"):
        bounds._check_image(Policy(maximum_pixels=pixels - 1), asked)


@pytest.mark.parametrize(
    ("training", "item", "passes"),
    [
        ({"local_epochs": 3, "batch_size": 4}, {}, 30), ({"local_epochs": 3}, {"epochs": 7}, 70),
        ({"local_steps": 6, "batch_size": 4}, {}, 24), ({"local_steps": 6, "batch_size": 40}, {}, 60),
        ({"local_steps": 6}, {}, 60), ({"local_steps": 6, "batch_size": 4, "accumulate": 2}, {}, 48),
    ],
)  # fmt: skip
def test_how_often_a_training_sees_a_row(training, item, passes):
    given = experiment(training=training)
    assert bounds.row_passes(given, 1, 10, item) == passes
    bounds.check_passes(Policy(maximum_row_passes=passes), given, 1, [(10, item | {"train": True})])
    bounds.check_passes(Policy(maximum_row_passes=1), given, 1, [(10, item)])
    with pytest.raises(PolicyError, match="all folds of a request"):
        bounds.check_passes(Policy(maximum_row_passes=passes - 1), given, 1, [(10, item | {"train": True})])


def test_a_model_that_is_fitted_by_sums_counts_their_products():
    networks = {"model": nn.Linear(3, 2)}
    bounds.check_networks(Policy(maximum_parameters=8), networks)
    bounds.check_networks(Policy(maximum_parameters=9), networks, 3)
    for most, columns in ((7, 0), (8, 3)):
        with pytest.raises(PolicyError, match="model: "):
            bounds.check_networks(Policy(maximum_parameters=most), networks, columns)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"round": None}, "round"), ({"sites": -1}, "sites"), ({"attempt": True}, "attempt"),
        ({"round": 10**9 + 1}, "round"),
    ],
)  # fmt: skip
def test_counts_of_a_request_are_whole_numbers_and_the_round_is_there(change, named):
    request = {"round": 0, "site": "a"}
    check_request(request)
    check_request(request | {"round": 10**9, "sites": 3, "attempt": 1})
    with pytest.raises(WireError, match=f"{named} must be a whole number from 0 to 1000000000"):
        check_request(request | change)


# -- timing ----------------------------------------------------------------------------------------------------------


def test_the_seconds_of_a_block_are_added_to_those_before(monkeypatch):
    work = object.__new__(Work)
    work.seconds = {}
    ticks = iter([1.0, 3.0, 10.0, 14.5])
    monkeypatch.setattr(work_module.time, "perf_counter", lambda: next(ticks))
    for _ in range(2):
        with work.timed("data_s"):
            pass
    assert work.seconds == {"data_s": 6.5}


def test_a_replys_timing_adds_up_to_what_the_call_took(monkeypatch):
    """The clock goes on by a second each time it is read."""
    ticks = iter(range(1000, 2000))
    monkeypatch.setattr("v6_algorithm.site.time.perf_counter", lambda: float(next(ticks)))
    asked = wire.message(
        site="a", round=0, attempt=1, sites=3, step="schema", experiment=experiment().for_sites(), setup=None
    )
    reply = handle("prepare", asked, SiteContext({"a": TableSource(frame=table(60, 0))}))
    assert reply["status"] == "ok", reply
    assert sum(reply["timing"].values()) == next(ticks) - 1000 - 1
