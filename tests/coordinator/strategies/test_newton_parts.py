"""Parts of Newton's method over sites by themselves: steps taken back, which columns are estimated, a share kept."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import SCALAR, make

from v6_algorithm.coordinator.strategies.newton import (
    CoxNewton,
    Newton,
    independent,
    independent_but,
    log_determinant,
)
from v6_algorithm.coordinator.strategies.newton.cox import _by_time, _halfway, _rank_one
from v6_algorithm.coordinator.strategies.newton.design import inverse
from v6_algorithm.coordinator.strategies.newton.glm import _by_moments, _dispersion_step, discriminant
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.models.glm import NULL_SUMS, TOTALS

ALL = torch.tensor([True, True])


def blank(kind):
    """Return a strategy that was not begun; what it keeps is empty."""
    strategy = object.__new__(kind)
    strategy.kept, strategy.converged, strategy.fitted = {}, False, {}
    return strategy


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_a_step_of_firths_fit_that_made_it_worse_is_taken_back_by_half():
    newton, information = blank(Newton), torch.diag(vector(4, 2))
    score, present = vector(8, -2), vector(1, 1)
    same, asked = newton._firth(present, score, information, 10.0, ALL)
    assert same.tolist() == [1, 1]
    assert asked["model.inverse"].tolist() == [[0.25, 0], [0, 0.5]]
    assert float(newton.kept["firth"]["objective"]) == pytest.approx(10 - math.log(8))
    following, asked = newton._firth(present, score, information, 10.0, ALL)
    assert following.tolist() == [3, 0]
    assert asked == {}
    halved, asked = newton._firth(following, score, information, 10.1, ALL)
    assert (halved.tolist(), asked) == ([2, 0.5], {})
    assert not newton.converged
    # Half of nothing is the end.
    newton._firth(present + 1e-16, score, information, 10.1, ALL)
    assert newton.converged


def test_a_step_of_firths_fit_goes_no_further_than_logistf_and_is_done_when_it_is_short():
    newton, information = blank(Newton), torch.diag(vector(1, 1))
    newton._firth(vector(0, 0), vector(20, -10), information, 10.0, ALL)
    assert newton._firth(vector(0, 0), vector(20, -10), information, 10.0, ALL)[0].tolist() == [5, -2.5]
    assert not newton.converged
    newton.kept["firth"]["measured"] = torch.tensor(1)
    newton._firth(vector(0, 0), vector(1e-9, 0), information, 0.0, ALL)
    assert not newton.converged, "a squared length of 1e-18 is not below it"
    newton.kept["firth"]["measured"] = torch.tensor(1)
    newton._firth(vector(0, 0), vector(0.9e-9, 0), information, 0.0, ALL)
    assert newton.converged


def test_a_step_of_firths_cox_model_that_made_it_worse_is_taken_back_by_half():
    newton, information = blank(CoxNewton), torch.diag(vector(4, 2))
    score, firth = np.array([8.0, -2.0]), np.array([0.0, 0.0])
    asked = newton._penalised(vector(0, 0), score, firth, information, -5.0, ALL)
    assert asked["model.weight"].tolist() == [0, 0]
    assert asked["model.inverse"].tolist() == [[0.25, 0], [0, 0.5]]
    assert newton.fitted["penalised"] == newton.fitted["penalised_null"] == pytest.approx(-5 + math.log(8) / 2)
    first = newton._penalised(vector(0, 0), score, firth, information, -5.0, ALL)
    # The first step is short: 2 and -1, to 0.3.
    assert first["model.weight"].tolist() == pytest.approx([0.3, -0.15])
    halved = newton._penalised(first["model.weight"], score, firth, information, -5.1, ALL)
    assert halved["model.weight"].tolist() == pytest.approx([0.15, -0.075])
    assert not newton.converged
    assert newton.fitted["penalised"] == pytest.approx(-5.1 + math.log(8) / 2)
    assert newton.fitted["penalised_null"] == pytest.approx(-5 + math.log(8) / 2)
    newton._penalised(vector(1e-16, 0), score, firth, information, -5.1, ALL)
    assert newton.converged


def test_a_dispersion_goes_back_with_the_coefficients():
    newton, present = blank(Newton), vector(1.0)
    newton._halved, newton.converged, newton.kept["newton"] = True, True, {"dispersion": vector(0.0)}
    combined = {"model.totals": vector(0, 0), "model.dispersion": present}
    assert newton._dispersion(combined, first=False)["model.dispersion"].tolist() == [0.5]
    assert not newton.converged
    newton.converged = True
    combined["model.dispersion"] = vector(1e-16)
    newton._dispersion(combined, first=False)
    assert newton.converged
    newton.converged = False
    newton._dispersion(combined, first=False)
    assert not newton.converged, "the coefficients have not"


def by_rank(design, order):
    """Keep, of columns in some order, each that is no combination of those kept before it."""
    kept = []
    for place in order:
        if np.linalg.matrix_rank(design[:, [*kept, place]], tol=1e-6) > len(kept):
            kept.append(place)
    return [place in kept for place in range(design.shape[1])]


@given(st.data())
@settings(max_examples=60)
def test_what_is_estimated_is_what_has_a_rank_of_its_own_in_the_order_given(data):
    width = data.draw(st.integers(1, 5))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    design = np.column_stack([np.ones(12), generator.integers(-3, 4, (12, width))]).astype(float)
    for column in data.draw(st.lists(st.integers(1, width), max_size=3)):
        # A combination of two others, a constant, or nothing.
        design[:, column] = design[:, (column + 1) % (width + 1)] * data.draw(st.integers(-1, 2)) + design[
            :, 0
        ] * data.draw(st.integers(-1, 1))
    information = torch.from_numpy(design.T @ design)
    assert independent(information).tolist() == by_rank(design, [0, *range(width, 0, -1)])
    assert independent(information, intercept=False).tolist() == by_rank(design, range(width, -1, -1))
    order = [0, *data.draw(st.permutations(range(1, width + 1)))]
    assert independent(information, order=order).tolist() == by_rank(design, order)
    offset = data.draw(st.integers(1, width))
    others = [place for place in order if place != offset]
    assert independent_but(information, (offset, 1.0), order).tolist() == by_rank(design, others)
    in_place = [0, *(place for place in range(width, 0, -1) if place != offset)]
    assert independent_but(information, (offset, 1.0)).tolist() == by_rank(design, in_place)
    assert independent_but(information, None, order).tolist() == by_rank(design, order)
    free = independent(information)
    inside = (information[free][:, free]).numpy()
    assert log_determinant(information, free) == pytest.approx(np.linalg.slogdet(inside)[1])
    turned = inverse(information, free).numpy()
    assert turned[np.ix_(free, free)] @ inside == pytest.approx(np.eye(len(inside)), abs=1e-6)
    assert not turned[~free.numpy()].any()
    assert not turned[:, ~free.numpy()].any()


def test_a_column_counts_as_a_combination_from_a_billionth_of_its_variance_on():
    def of(rest):
        return independent(torch.tensor([[1.0, 1.0], [1.0, 1.0 + rest]], dtype=torch.float64)).tolist()

    assert of(1.1e-9) == [True, True]
    assert of(0.9e-9) == [True, False]


@given(st.integers(0, 2**16))
@settings(max_examples=20)
def test_a_rank_one_update_turns_the_step_into_the_change(seed):
    generator = np.random.default_rng(seed)
    curvature = generator.normal(size=(3, 3))
    curvature = torch.from_numpy(curvature + curvature.T)
    moved, change = torch.from_numpy(generator.normal(size=(2, 3)))
    updated = _rank_one(curvature, moved, change)
    assert (updated @ moved).tolist() == pytest.approx(change.tolist(), abs=1e-6)
    assert torch.linalg.matrix_rank(updated - curvature, tol=1e-9) == 1
    # What is known already, and what no update of rank one turns so, change nothing.
    assert torch.equal(_rank_one(curvature, moved, curvature @ moved), curvature)
    across = torch.linalg.cross(moved, torch.ones(3, dtype=torch.float64))
    assert torch.equal(_rank_one(curvature, moved, curvature @ moved + across), curvature)


@pytest.mark.parametrize(("weighting", "share"), [("samples", 0.75), ("uniform", 0.5)])
def test_the_table_of_shares_is_made_once_for_the_same_rows(weighting, share):
    strategy = make({"kind": "fedavg", "weighting": weighting}, SCALAR, {"a": 30, "b": 10})
    assert strategy.share("a") == share
    known = strategy._shares
    assert strategy.share("b") == 1 - share
    assert strategy._shares is known
    strategy.rows = {"a": 10, "b": 10}
    assert strategy.share("a") == 0.5


# -- starts --------------------------------------------------------------------------------------------------------


def totals(**named):
    return torch.tensor([float(named.get(name, 0)) for name in TOTALS], dtype=torch.float64)


def classes(rows, share, apart, seed=0):
    """Return a design with an intercept, classes of 0 and 1, and what the first round gives of them."""
    generator = np.random.default_rng(seed)
    y = (np.arange(rows) < share * rows).astype(float)
    x = np.column_stack([np.ones(rows), generator.normal(size=(rows, 2)) + apart * y[:, None] * [1, -0.5] + [2, 0]])
    working = (2 * y - 1) * (math.log(3) + 4 / 3)
    fitted = np.linalg.lstsq(x, working, rcond=None)[0]
    sums = totals(weight=1, y=share, y2=share)
    return x, y, torch.from_numpy(fitted), torch.from_numpy(x.T @ x / rows * 3 / 16), sums


@pytest.mark.parametrize("share", [0.3, 0.5, 0.02, 0.98])
def test_a_logistic_regression_starts_from_the_linear_discriminant(share):
    x, y, fitted, information, sums = classes(400, share, 1.0)
    start = discriminant(fitted, information, sums, torch.tensor([True] * 3)).numpy()
    columns, means = x[:, 1:], [x[y == kind, 1:].mean(axis=0) for kind in (0, 1)]
    within = sum((columns[y == kind] - means[kind]).T @ (columns[y == kind] - means[kind]) for kind in (0, 1)) / 400
    slopes = np.linalg.solve(within, means[1] - means[0])
    assert start[1:] == pytest.approx(slopes)
    assert start[0] == pytest.approx(math.log(share / (1 - share)) - (means[0] + means[1]) / 2 @ slopes)


def test_it_starts_from_least_squares_where_a_class_is_rare_or_classes_are_nearly_apart():
    every = torch.tensor([True] * 3)
    for share, apart in ((0.01, 1.0), (0.99, 1.0), (0.5, 8.0)):
        _, _, fitted, information, sums = classes(400, share, apart)
        assert discriminant(fitted, information, sums, every) is fitted
    _, _, fitted, information, sums = classes(400, 0.3, 1.0)
    assert discriminant(fitted, information, sums * 0, every) is fitted
    # Sums do as well as means.
    alike = discriminant(fitted, information * 400, sums * 400, every)
    assert alike.tolist() == pytest.approx(discriminant(fitted, information, sums, every).tolist())


def test_the_share_that_is_not_explained_may_be_a_fifth():
    """One column, of which least squares explain a given share of the variance."""

    def starts(explained):
        # Classes 0 and 1 of equal size, a column of mean 0 and variance 1: the slope's square is what it explains.
        slope = math.sqrt(explained / 4)
        fitted = torch.tensor([0.0, slope], dtype=torch.float64) * 2 * (math.log(3) + 4 / 3)
        return discriminant(fitted, torch.eye(2, dtype=torch.float64), totals(weight=2, y=1), ALL) is not fitted

    assert starts(0.79)
    assert not starts(0.81)


@pytest.mark.parametrize(
    ("mean", "square", "wanted"), [(2.0, 12.0, 1.5), (2.0, 6.0, 0.05), (2.0, 5.0, 0.05), (1e-3, 100.0, 1e4)]
)
def test_a_dispersion_is_guessed_by_mean_and_variance(mean, square, wanted):
    assert float(_by_moments(totals(weight=3, y=3 * mean, y2=3 * square))) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("present", "score", "information", "following", "done"),
    [
        (0.0, 0.5, 2.0, 0.25, False), (0.0, 9.0, 2.0, 2.0, False), (0.0, -9.0, 2.0, -2.0, False),
        (0.0, 0.1, -3.0, 1.0, False), (0.0, -0.1, -1e-3, -1.0, False), (9.0, 9.0, 1.0, math.log(1e4), False),
        (math.log(1e4), 9.0, 1.0, math.log(1e4), True), (math.log(1e-6), -9.0, 1.0, math.log(1e-6), True),
        (-13.0, -9.0, 1.0, math.log(1e-6), False), (0.5, 2e-11, 1.0, 0.5, True), (0.5, 2e-10, 1.0, 0.5, False),
        (0.5, 0.9e-12 * 1e9, 1e9, 0.5, True), (0.5, 1.1e-12 * 1e9, 1e9, 0.5, False),
    ],
)  # fmt: skip
def test_a_step_of_a_dispersions_logarithm(present, score, information, following, done):
    found, small = _dispersion_step(vector(present)[0], vector(score)[0], vector(information)[0])
    assert float(found) == pytest.approx(following, abs=1e-9)
    assert small is done


def test_a_first_dispersion_is_by_moments_and_a_next_one_is_newtons():
    newton = blank(Newton)
    combined = {"model.totals": totals(weight=1, y=2, y2=12), "model.dispersion": vector(0.0)[0]}
    first = newton._dispersion(combined, first=True)["model.dispersion"]
    assert float(first) == pytest.approx(math.log(1.5))
    newton.kept["newton"], newton.converged = {}, True
    combined["model.curvature"] = vector(0.5, 2.0)
    assert float(newton._dispersion(combined, first=False)["model.dispersion"]) == 0.25
    assert float(newton.kept["newton"]["dispersion"]) == 0
    assert not newton.converged
    for earlier in (True, False):
        newton.converged, combined["model.curvature"] = earlier, vector(0.0, 2.0)
        newton._dispersion(combined, first=False)
        assert newton.converged is earlier


def test_the_model_of_nothing_else_is_fitted_beside():
    newton = blank(Newton)
    model = {"kind": "glm", "family": "negative_binomial"}
    newton.experiment = Experiment.parse({"data": {"target": "y"}, "problem": "count", "model": model})
    combined = {
        "model.totals": totals(weight=4, y=8, y2=48),
        "model.null": vector(0.0, 0.0),
        "model.dispersion": vector(0.0)[0],
    }
    first = newton._null(combined, first=True)["model.null"].tolist()
    assert first == pytest.approx([math.log(2), math.log(1.5)])
    sums = dict.fromkeys(NULL_SUMS, 9.0) | {"score": 1.0, "information": 4.0}
    sums |= {"dispersion_score": 0.5, "dispersion_information": 2.0}

    def step(**changes):
        newton.converged = True
        combined["model.null_sums"] = vector(*((sums | changes)[name] for name in NULL_SUMS))
        return newton._null(combined, first=False)["model.null"].tolist()

    assert step() == [0.25, 0.25]
    assert not newton.converged
    assert step(score=100.0)[0] == 2.0
    assert step(score=-100.0)[0] == -2.0
    still = {"score": 1e-11, "dispersion_score": 0.0}
    step(**still)
    assert newton.converged
    for moves in ({"score": 4e-10}, {"dispersion_score": 0.5}):
        step(**still | moves)
        assert not newton.converged


# -- steps by the information halfway ------------------------------------------------------------------------------


def test_a_step_is_taken_by_the_information_halfway_along_it():
    """One column: information 2 at -1 and 1 at 0, so it falls by 1 a unit; the score at 0 is 0.4."""
    before = {"information": vector(2.0)[:, None], "coefficients": vector(-1.0)}

    def go(present, gradient, following, free=True, penalty=0.0, before=before):
        return _halfway(
            vector(present), vector(following), vector(gradient), vector(1.0)[:, None], before, vector(penalty),
            torch.tensor([free]),
        )  # fmt: skip

    step = 0.4
    for _ in range(3):
        at_end = 1 - step
        step = 0.4 / (1 - step / 2)
    following, information = go(0.0, 0.4, 0.4)
    assert following.tolist() == pytest.approx([step])
    assert information.tolist()[0] == pytest.approx([at_end])
    # With a penalty of 0.5 the information is 1.5 of which the step counts on less.
    step = 0.3 / 1.5
    for _ in range(3):
        step = 0.3 / (1.5 - step / 2)
    assert go(0.0, 0.3, 0.2, penalty=0.5)[0].tolist() == pytest.approx([step])
    # Of a column that is not estimated, and of no way, nothing is known; nor where the curvature would differ much.
    assert go(0.0, 0.4, 0.4, free=False)[0].tolist() == [0.4]
    assert go(-1.0, 0.4, -0.6)[0].tolist() == [-0.6]
    # No further than as far again as the last step went, on either side.
    for step, middle, end in ((-1.5, 1.25, 1.5), (1.5, 0.75, 0.5)):
        gentle = {"information": vector(1.5)[:, None], "coefficients": vector(-1.0)}
        found, at_end = go(0.0, step, step, before=gentle)
        assert (found.item(), at_end.item()) == pytest.approx((step / middle, end))
    for fall, step, taken in ((1.39, 1.0, True), (1.41, 1.0, False), (3.9, -1.0, True), (4.1, -1.0, False)):
        steep = {"information": vector(1 + fall)[:, None], "coefficients": vector(-1.0)}
        found, at_end = go(0.0, step, step, before=steep)
        wanted = (step / (1 - step / 2 * fall), 1 - step * fall) if taken and step > 0 else (step, 1.0)
        if step > 0 or not taken:
            assert (found.item(), at_end.item()) == pytest.approx(wanted)
        else:
            assert found.item() > step


# -- whole steps -----------------------------------------------------------------------------------------------------


def sent(design, response, weights, at, total_weight=1.0):
    """Return what sites' means of a least squares fit come to, at some coefficients."""
    score = design.T @ (weights * (response - design @ at)) / len(design)
    information = (design.T * weights) @ design / len(design)
    return {
        "model.bias": vector(at[0])[0], "model.weight": vector(*at[1:]), "model.score": torch.from_numpy(score),
        "model.information": torch.from_numpy(information), "model.totals": totals(weight=total_weight, y=0.4),
    }  # fmt: skip


def glm(rows=40, **model):
    newton = blank(Newton)
    problem = {"gaussian": "regression", "poisson": "count", "negative_binomial": "count"}.get(
        model.setdefault("family", "gaussian"), "classification"
    )
    content = {"data": {"target": "y"}, "problem": problem, "model": {"kind": "glm"} | model}
    newton.experiment = Experiment.parse(content)
    newton.seen, newton._scores = [SimpleNamespace(rows=rows - 10), SimpleNamespace(rows=10)], {}
    return newton


def test_the_first_step_is_least_squares_with_ridge_and_the_offset_as_it_is():
    generator = np.random.default_rng(0)
    design = np.column_stack([np.ones(40), generator.normal(size=(40, 3))])
    response, weights = generator.normal(size=40) + 2, generator.uniform(0.5, 2, 40)
    newton = glm(ridge=3.0)
    newton.offset = 2, 0.7
    first = newton.step(sent(design, response, weights, np.zeros(4)))
    keep = [0, 1, 3]
    squares = (design[:, keep].T * weights) @ design[:, keep] + np.diag([0, 3.0, 3.0])
    wanted = np.linalg.solve(squares, design[:, keep].T @ (weights * (response - 0.7 * design[:, 2])))
    assert [float(first["model.bias"]), *first["model.weight"].tolist()] == pytest.approx(
        [wanted[0], wanted[1], 0.7, wanted[2]]
    )
    # Its buffers are sums over all rows, for the result.
    assert first["model.score"] == pytest.approx(design.T @ (weights * response))
    assert float(first["model.totals"][TOTALS.index("weight")]) == 40
    assert not newton.converged
    at = np.array([0.1, 0.2, 0.7, -0.3])
    second = newton.step(sent(design, response, weights, at))
    assert [float(second["model.bias"]), *second["model.weight"].tolist()] == pytest.approx(
        [wanted[0], wanted[1], 0.7, wanted[2]]
    )
    newton.step(sent(design, response, weights, np.array([wanted[0], wanted[1], 0.7, wanted[2]])))
    assert newton.converged


def test_columns_that_turn_into_combinations_are_named():
    newton = glm()
    combined = {
        "model.bias": vector(0.0)[0], "model.weight": vector(0.0, 0.0), "model.score": vector(0.1, 0.2, 0.3),
        "model.information": torch.eye(3, dtype=torch.float64), "model.totals": totals(weight=1, deviance=5),
    }  # fmt: skip
    newton.step(combined)
    assert "separated" not in newton.fitted
    newton.step(combined | {"model.information": torch.diag(vector(1, 0, 1))})
    assert newton.fitted["separated"] == [1]


@pytest.mark.parametrize(("rise", "halved"), [(1e-11, True), (1e-13, False), (-1.0, False)])
def test_a_deviance_counts_as_risen_beyond_rounding_and_only_over_the_same_rows(rise, halved):
    newton, one = blank(Newton), vector(1.0)
    before = {"coefficients": vector(0.0), "objective": vector(4.0)[0], "rows": torch.tensor(40)}

    def step(rows, present=1.0, penalty=0.0):
        newton.kept["newton"] = dict(before)
        at = vector(present)
        found = newton._following(
            at, one, one[:, None], 4.0 + rise - penalty, penalty * one, torch.tensor([True]), rows
        )
        return found.item()

    assert step(40) == (0.5 if halved else 2.0)
    assert step(41) == 2.0
    # What the penalty adds counts too.
    assert (step(40, penalty=0.25) == 0.5) == halved


def test_a_fit_is_done_when_the_next_step_is_no_length():
    newton, free = blank(Newton), torch.tensor([True, False])

    def step(score, deviance=0.0, first=False):
        newton.kept = {}
        return newton._following(
            vector(1.0, 5.0),
            vector(score, 9.0),
            torch.diag(vector(4.0, 4.0)),
            deviance,
            vector(0, 0),
            free,
            10,
            first=first,
        ).tolist()

    assert step(2e-10 * 0.99) == pytest.approx([1.0, 0.0])
    assert newton.converged
    assert step(2e-10 * 1.01)[1] == 0
    assert not newton.converged
    step(2e-10 * 1.01, deviance=1.0)
    assert newton.converged, "as a share of the deviance"
    assert step(4.0) == [2.0, 0.0]
    assert step(4.0, first=True) == [1.0, 0.0]
    assert not newton.converged
    assert newton.kept == {}
    step(4.0)
    assert {name: value.tolist() for name, value in newton.kept["newton"].items()} == {
        "coefficients": [1.0, 5.0], "objective": 0.0, "rows": 10,
    }  # fmt: skip


def test_the_transform_of_time_is_one_less_kaplan_meier():
    sums = SimpleNamespace(events=np.array([1.0, 2.0, 1.0]), rows=np.array([5.0, 4.0, 1.0]))
    fitted = SimpleNamespace(residuals=np.array([[1.0, 0], [0, 1], [1, 1]]), hazard=np.array([0.1, 0.2, 0.3]))
    found = _by_time(fitted, sums)
    curve = 1 - np.array([0.8, 0.4, 0.0])
    assert found["events"] == 4
    assert found["transformed"] == pytest.approx([curve @ [1, 2, 1], curve**2 @ [1, 2, 1]])
    assert found["residuals"] == pytest.approx([curve[0] + curve[2], curve[1] + curve[2]])
    assert found["hazard"] == pytest.approx([0.1, 0.3, 0.6])
    assert (found["rows"], found["deaths"]) == ([5, 4, 1], [1, 2, 1])


def test_a_reference_whose_rows_hardly_weigh_stays_a_combination_of_the_others():
    """Rows of the reference are all of one class: what is left of its column is rounding, and no step."""
    for seed in range(20):
        generator = np.random.default_rng(seed)
        value = np.arange(90) % 3
        # Intercept, age, and the three values of a category, which add up to the intercept.
        design = np.column_stack([np.ones(90), generator.normal(size=90), value[:, None] == np.arange(3)])
        weights = generator.uniform(0.1, 0.25, 90) * np.where(value == 0, 10.0 ** -generator.uniform(7.5, 8.7), 1)
        free = independent(torch.from_numpy(design.T @ (weights[:, None] * design)))
        assert int(free.sum()) < 5, seed
