"""Steps of ridge, LASSO and elastic net on given sums: phases, totals that are not 1, and the equations they end at."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_newton_parts import blank, totals, vector

from v6_algorithm.coordinator.strategies.penalised import PenalisedNewton, _solved, coordinate_descent, descend
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.models.glm import PATH_FIT, TOTALS

DESIGN = np.column_stack([np.ones(12), np.random.default_rng(0).normal(size=(12, 3))])
RESPONSE = DESIGN @ [2.0, 1.5, -0.75, 0.05] + np.random.default_rng(1).normal(size=12) / 4
NOTHING = np.zeros(4)


def penalised(**penalty):
    """Return a strategy of a gaussian fit; two sites of 5 and 7 rows answered."""
    newton = blank(PenalisedNewton)
    content = {"data": {"target": "y"}, "problem": "regression", "model": {"kind": "glm", "penalty": penalty}}
    newton.experiment = Experiment.parse(content)
    newton.seen = [SimpleNamespace(rows=5), SimpleNamespace(rows=7)]
    return newton


def sums(at, weight=1.0):
    """Return the means that sites give at some coefficients, of rows that weigh `weight` each."""
    rest = RESPONSE - DESIGN @ at
    return {
        "model.bias": vector(at[0])[0], "model.weight": vector(*at[1:]),
        "model.score": torch.from_numpy(DESIGN.T @ rest / 12 * weight),
        "model.information": torch.from_numpy(DESIGN.T @ DESIGN / 12 * weight),
        "model.totals": totals(weight=weight, y=RESPONSE.mean() * weight, deviance=(rest @ rest) / 12 * weight),
    }  # fmt: skip


def coefficients(state):
    return np.array([float(state["model.bias"]), *state["model.weight"].tolist()])


def least(strength, share, at=None):
    """Say what the minimum fulfils: (slope of the loss, bounds of it) by column; see Friedman et al. 2010, eq. 5."""
    slope = DESIGN.T @ (RESPONSE - DESIGN @ at) / 12 - strength * (1 - share) * at * [0, 1, 1, 1]
    return slope, strength * share


@pytest.mark.parametrize("weight", [1.0, 0.25, 4.0])
@pytest.mark.parametrize(
    ("kind", "options", "share"),
    [("ridge", {}, 0.0), ("lasso", {}, 1.0), ("elastic_net", {"mixing": 0.3}, 0.3)],
)
def test_a_gaussian_fit_of_a_given_strength_takes_one_step_from_the_mean(kind, options, share, weight):
    newton = penalised(kind=kind, strength=0.2, **options)
    first = newton.step(sums(NOTHING, weight))
    assert coefficients(first) == pytest.approx([RESPONSE.mean(), 0, 0, 0])
    # Its buffers are sums over all rows, for the result.
    assert first["model.score"].numpy() == pytest.approx(DESIGN.T @ RESPONSE * weight)
    assert float(first["model.totals"][TOTALS.index("weight")]) == 12 * weight
    found = coefficients(newton.step(sums(coefficients(first), weight)))
    slope, bound = least(0.2, share, found)
    assert slope[0] == pytest.approx(0, abs=1e-12)
    gone = found[1:] == 0
    assert slope[1:][~gone] == pytest.approx(bound * np.sign(found[1:][~gone]), abs=1e-12)
    assert (np.abs(slope[1:][gone]) <= bound).all()
    assert gone.any() == (share == 1)
    assert not newton.converged
    objective = ((RESPONSE - RESPONSE.mean()) ** 2).mean() / 2
    assert float(newton.kept["penalty"]["fit_objective"][0]) == pytest.approx(objective)
    again = coefficients(newton.step(sums(found, weight)))
    assert again == pytest.approx(found, abs=1e-12)
    assert newton.converged
    assert newton.fitted == {"strength": 0.2}


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_a_path_begins_at_the_strength_under_which_no_coefficient_is_left(weight):
    newton = penalised(kind="elastic_net", mixing=0.5, folds=3, strengths=5)
    empty = {"model.path": torch.zeros(20, 4, dtype=torch.float64), "model.path_on": torch.zeros(())}
    first = newton.step(empty | sums(NOTHING, weight))
    second = newton.step(empty | sums(coefficients(first), weight))
    largest = np.abs(DESIGN[:, 1:].T @ (RESPONSE - RESPONSE.mean())).max() / 12 / 0.5
    strengths = newton.kept["penalty"]["strengths"].tolist()
    assert strengths == pytest.approx(np.geomspace(largest, largest / 1000, 5))
    assert second["model.path"].tolist() == [coefficients(first).tolist()] * 20
    assert float(second["model.path_on"]) == 1


def test_the_path_of_ridge_begins_at_a_thousand_times_that_of_the_lasso():
    """As in glmnet, for no strength makes ridge's coefficients 0."""
    score = np.array([9.0, 0.5, -0.75])
    for options, largest in (({"kind": "lasso"}, 0.75), ({"kind": "ridge"}, 750.0)):
        assert penalised(**options)._strengths(score)[[0, -1]] == pytest.approx([largest, largest / 1000])
    # A target that nothing tells of.
    assert penalised(kind="lasso")._strengths(np.zeros(3))[0] == 1e-12


def test_a_path_that_moves_no_more_gives_the_fit_of_the_strength_that_was_chosen():
    """One column, three parts and five strengths, of which the fourth is chosen; fits of all rows come last."""
    newton, strengths = penalised(kind="lasso", folds=3, strengths=5, choose="minimum"), [0.5, 0.4, 0.3, 0.25, 0.2]
    newton.kept["penalty"] = {"phase": torch.tensor(2), "strengths": torch.tensor(strengths, dtype=torch.float64)}
    weight, wanted = np.arange(1.0, 21), np.array([[0.1 * number, 3.0 + number] for number in range(20)])
    less = wanted - np.array([[0.0, strength] for strength in strengths * 4])
    fit = np.zeros((20, len(PATH_FIT)))
    fit[:, PATH_FIT.index("weight")], fit[:, PATH_FIT.index("deviance")] = weight, weight * 2
    fit[:15, PATH_FIT.index("held_weight")], fit[:15, PATH_FIT.index("held_deviance")] = 1, [5, 4, 3, 2, 3] * 3
    information = np.tile(np.eye(2), (20, 1, 1)) * weight[:, None, None]

    def combined(path):
        score = np.einsum("fij,fj->fi", information, wanted - path.numpy())
        return {
            "model.bias": vector(0.0)[0], "model.weight": vector(0.0), "model.score": vector(0, 0),
            "model.information": torch.eye(2, dtype=torch.float64), "model.totals": totals(weight=1),
            "model.path": path, "model.path_score": torch.from_numpy(score),
            "model.path_information": torch.from_numpy(information), "model.path_fit": torch.from_numpy(fit),
        }  # fmt: skip

    # The minimum of one step is the target less its strength.
    moving = newton.step(combined(torch.from_numpy(less + 1)))
    assert moving["model.path"].numpy() == pytest.approx(less)
    assert int(newton.kept["penalty"]["phase"]) == 2
    done = newton.step(combined(moving["model.path"]))
    assert int(newton.kept["penalty"]["phase"]) == 3
    assert newton.fitted["strength"] == 0.25
    assert coefficients(done) == pytest.approx(less[3 * 5 + 3])
    for name in ("path", "path_score", "path_information", "path_fit"):
        assert not done[f"model.{name}"].any(), "nobody needs it any more"


@pytest.mark.parametrize(
    ("objective", "share", "done"), [(0.0, 0.9, True), (0.0, 1.1, False), (99.0, 0.9, True), (99.0, 1.1, False)]
)
def test_a_fit_is_done_when_the_next_step_is_no_length_beside_its_objective(objective, share, done):
    one = np.ones((1, 1))
    score = one * 1e-10 * np.sqrt(share * (1 + objective))
    nothing = np.zeros(1)
    _, _, found = descend(one * 0, score, one[None], nothing + 2 * objective, nothing, 1.0, None, None)
    assert found.tolist() == [done]


@pytest.mark.parametrize(("rise", "back"), [(2e-10, True), (1e-11, False), (0.0, False)])
def test_a_fit_goes_back_by_half_only_where_it_is_worse_by_more_than_rounding(rise, back):
    """The objective is half the deviance of 198; the step goes from 1 to 3."""
    one, earlier = np.ones((1, 1)), np.full((1, 1), -4.0)
    found, (base, best), _ = descend(
        one, one * 2, one[None], np.array([198.0]), np.zeros(1), 1.0, earlier, np.array([99 - rise])
    )
    assert found.item() == (-1.5 if back else pytest.approx(3))
    assert base.item() == (-4 if back else 1)
    assert best.item() == pytest.approx(99)


# -- the equations of what is not 0 ----------------------------------------------------------------------------------

INFORMATION = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 1.0]])
WANTED, ABSOLUTE, SQUARE = np.array([3.0, -2.0, 0.3]), np.array([0.0, 0.5, 0.6]), np.array([0.0, 0.25, 0.0])


def test_the_equations_of_what_is_not_0_give_the_exact_minimum():
    exact = np.linalg.solve([[2.0, 0.5], [0.5, 1.25]], [3.0, -2.0 + 0.5])
    for near in ([0.1, -9.0, 0.0], [7.0, -0.1, 0.0]):
        assert _solved(INFORMATION, WANTED, ABSOLUTE, SQUARE, np.array(near)).tolist() == pytest.approx([*exact, 0])


@pytest.mark.parametrize("near", [[0.1, 1.0, 0.0], [0.1, 0.0, 0.0], [-1.0, -1.0, 0.0], [0.1, -1.0, 1.0]])
def test_they_give_nothing_where_other_coefficients_are_0_or_of_another_sign(near):
    assert _solved(INFORMATION, WANTED, ABSOLUTE, SQUARE, np.array(near)) is None


def test_they_give_nothing_where_they_have_no_solution():
    assert _solved(np.ones((2, 2)), np.ones(2), np.zeros(2), np.zeros(2), np.ones(2)) is None


@pytest.mark.parametrize("wanted", [1.0, -1.0, 1000.0])
@pytest.mark.parametrize(("share", "stays"), [(0.8, True), (1.2, False)])
def test_what_is_0_may_pull_more_than_its_penalty_by_rounding(wanted, share, stays):
    beyond = share * 1e-11 * (1 + abs(wanted))
    found = _solved(np.eye(2), np.array([1.0, wanted]), np.array([0, abs(wanted) - beyond]), np.zeros(2), np.eye(2)[0])
    assert (found is not None) is stays


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_columns_that_are_nearly_alike_are_solved_for_in_any_unit(unit):
    """Descent alone would take thousands of sweeps."""
    design = np.random.default_rng(2).normal(size=(40, 4))
    design[:, 1] = design[:, 0] + 0.01 * design[:, 1]
    target = design @ [1.0, 2.0, 0.0, -1.0]
    information, wanted = design.T @ design / 40, design.T @ target / 40
    scale = np.array([1.0, unit, 1.0, 1.0])
    found = coordinate_descent(
        (information * scale[:, None] * scale)[None], (wanted * scale)[None], np.full((1, 4), 0.01) * scale,
        np.zeros((1, 4)), np.zeros((1, 4)),
    )[0] * scale  # fmt: skip
    slope = wanted - information @ found
    active = found != 0
    assert slope[active] == pytest.approx(0.01 * np.sign(found[active]), rel=1e-9)
    assert (np.abs(slope[~active]) <= 0.01 + 1e-9).all()
    assert active.any()
