"""Steps of Newton's method over sites, one by one: Firth's penalty in two rounds, ridge, offsets, bounds of ends."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_newton_parts import ALL, blank, glm, sent, totals, vector

from v6_algorithm.coordinator.strategies.newton import CoxNewton, Newton, fix_offset, independent
from v6_algorithm.coordinator.strategies.newton.cox import _halfway, _rank_one
from v6_algorithm.coordinator.strategies.newton.glm import _dispersion_step
from v6_algorithm.coordinator.strategies.newton.steps import risen, shortened, taken_back
from v6_algorithm.data.preparation.setup import pack_arrays
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.exchange.wire import LARGEST_NUMBER, TensorSpec
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.models.glm import NULL_SUMS

ONE = torch.tensor([True])


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


# -- what steps share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.0, 3.0, 1e6, -1e6])
def test_what_grew_by_a_share_of_1e_12_is_rounding(size):
    unit = 1e-12 * (1 + abs(size))
    assert risen(size, size - 1.2 * unit)
    assert not risen(size, size - 0.8 * unit)
    assert not risen(size, size)
    assert not risen(size, size + 1)
    assert not risen(0.0, -1e-12), "just so much is rounding"
    assert risen(np.array([1.0, 2.0]), np.array([2.0, 1.0])).tolist() == [False, True]


def test_a_step_is_taken_back_by_half_until_nothing_is_left_of_it():
    halved, still = taken_back(vector(4, 1), vector(1, -2))
    assert (halved.tolist(), still) == ([2.5, -0.5], False)
    for present, before, still in (
        (1.0, 1 + 6e-14, False), (1.0, 1 + 1e-14, True), (1000.0, 1000 * (1 + 1e-14), True), (0.0, 1e-14, True),
        (0.0, 3e-14, False), (3.0, 2.0, False),
    ):  # fmt: skip
        assert taken_back(vector(present), vector(before))[1] is still


@pytest.mark.parametrize(
    ("step", "longest", "wanted"),
    [
        ((2, -1), 0.3, (0.3, -0.15)),
        ((0.5, 0), 0.3, (0.3, 0)),
        ((-20, 10), 5, (-5, 2.5)),
        ((0.2, -0.1), 0.3, (0.2, -0.1)),
    ],
)
def test_a_long_step_is_shortened_in_its_direction(step, longest, wanted):
    assert shortened(vector(*step), longest).tolist() == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_which_columns_are_estimated_does_not_depend_on_their_unit(unit):
    design = np.column_stack([np.ones(9), np.arange(9.0), np.arange(9.0) ** 2, 3 + 2 * np.arange(9.0)])
    information = torch.from_numpy(design.T @ design * unit)
    assert independent(information).tolist() == [True, False, True, True]
    nearly = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-5]], dtype=torch.float64) * unit
    assert independent(nearly).tolist() == [True, True]


@pytest.mark.parametrize("kind", ["glm", "cox"])
def test_ridge_makes_two_columns_that_are_alike_share_a_coefficient(kind):
    """Without it one of the two is left out."""
    x = np.array([0.5, -1.0, 2.0, -1.5])
    if kind == "glm":
        design = np.column_stack([np.ones(4), x, x])
        following = glm(rows=14, ridge=7.0).step(sent(design, 3 + 2 * x, np.ones(4), np.zeros(3)))["model.weight"]
        slopes = np.linalg.solve(design.T @ design / 4 + np.diag([0, 0.5, 0.5]), design.T @ (3 + 2 * x) / 4)[1:]
    else:
        newton = cox(width=2, ridge=7.0, rows=14)
        newton._sums = cox_sums([6.0, 6.0], [[20.0, 20.0], [20.0, 20.0]], value=-3.0)
        newton.kept["null"] = {"value": torch.tensor(-3.0)}
        following = newton.step({"model.weight": vector(0, 0)})["model.weight"]
        slopes = np.linalg.solve(np.array([[27.0, 20.0], [20.0, 27.0]]), [6, 6])
    assert following.tolist() == pytest.approx(slopes.tolist())
    assert following[0] == pytest.approx(float(following[1]))


# -- GLM -------------------------------------------------------------------------------------------------------------


def test_firths_fit_of_a_glm_is_of_sums_over_all_rows():
    """Means over 8 rows; the first call is of least squares, the next measures, and the next steps by the score."""
    newton, information = glm(rows=18, family="binomial", firth=True), matrix([0.25, 0.1], [0.1, 0.5])
    score, kept = vector(0.02, -0.03), {"model.inverse": torch.zeros(2, 2, dtype=torch.float64)}
    combined = kept | {
        "model.bias": vector(0.5)[0], "model.weight": vector(-0.25), "model.score": score,
        "model.information": information, "model.totals": totals(weight=1, y=0.5, deviance=1.25),
    }  # fmt: skip
    first = newton.step(combined)
    assert "firth" not in newton.kept
    assert torch.equal(first["model.inverse"], kept["model.inverse"])
    second = newton.step(combined)
    assert (float(second["model.bias"]), second["model.weight"].tolist()) == (0.5, [-0.25])
    whole = information.numpy() * 18
    assert second["model.inverse"].numpy() == pytest.approx(np.linalg.inv(whole))
    objective = 1.25 * 18 - np.log(np.linalg.det(whole))
    assert float(newton.kept["firth"]["objective"]) == pytest.approx(objective)
    third = newton.step(combined)
    step = np.linalg.solve(whole, score.numpy() * 18)
    assert [float(third["model.bias"]), *third["model.weight"].tolist()] == pytest.approx(
        [0.5 + step[0], -0.25 + step[1]]
    )
    # A worse fit is taken back by half.
    back = newton.step(third | {"model.totals": totals(weight=1, y=0.5, deviance=1.3)} | {
        "model.score": score, "model.information": information})  # fmt: skip
    assert [float(back["model.bias"]), *back["model.weight"].tolist()] == pytest.approx(
        [0.5 + step[0] / 2, -0.25 + step[1] / 2]
    )


@pytest.mark.parametrize(
    ("objective", "share", "done"),
    [(0.0, 0.9, True), (0.0, 1.0, False), (0.0, 1.1, False), (99.0, 0.9, True), (99.0, 1.1, False)],
)
def test_firths_fits_are_done_when_a_step_is_shorter_than_1e_18_of_the_objective(objective, share, done):
    """With an information of 1 the step is the score, whose square is the length."""
    score, information = vector(1e-9 * math.sqrt(share * (1 + objective))), vector(1)[:, None]
    newton, model = blank(Newton), blank(CoxNewton)
    for _ in range(2):
        newton._firth(vector(0), score, information, objective, ONE)
        model._penalised(vector(0), score.numpy(), np.zeros(1), information, -objective / 2, ONE)
    assert (newton.converged, model.converged) == (done, done)


def test_a_fit_of_just_the_length_that_is_done_takes_one_more_step():
    newton, small = blank(Newton), vector(1e-20)
    following = newton._following(vector(0), small, small[:, None], 0.0, vector(0), ONE, 10)
    assert (following.tolist(), newton.converged) == ([1], False)
    # So does a dispersion, by its squared length and by itself.
    assert _dispersion_step(vector(0)[0], vector(2e-20)[0], vector(4e-20)[0])[1] is False
    for moved, done in ((0.9e-12, True), (1e-12, False), (1.1e-12, False)):
        tight = vector(2.0**40)[0]
        assert _dispersion_step(vector(0)[0], moved * tight, tight)[1] is done


def test_of_a_negative_binomial_the_misfit_is_twice_the_log_likelihood():
    newton = glm(family="negative_binomial")
    combined = {
        "model.bias": vector(0.5)[0], "model.weight": vector(-0.25), "model.score": vector(0.1, 0.2),
        "model.information": matrix([1.0, 0.0], [0.0, 2.0]),
        "model.totals": totals(weight=1, y=2, y2=12, deviance=9, log_likelihood=-4),
        "model.dispersion": vector(0.0)[0], "model.curvature": vector(0.5, 2.0),
    }  # fmt: skip
    newton.step(combined)
    newton.step(combined)
    assert float(newton.kept["newton"]["objective"]) == 8


@pytest.mark.parametrize(
    ("halved", "kept", "following"),
    [(False, {"dispersion": -3.0}, 1.25), (True, {"dispersion": -3.0}, -1.0), (True, {}, 1.25)],
)
def test_a_dispersion_goes_back_only_with_coefficients_that_do(halved, kept, following):
    newton = blank(Newton)
    newton._halved, newton.converged = halved, True
    newton.kept["newton"] = {name: vector(value)[0] for name, value in kept.items()}
    combined = {"model.totals": totals(), "model.dispersion": vector(1.0)[0], "model.curvature": vector(0.5, 2.0)}
    assert float(newton._dispersion(combined, first=False)["model.dispersion"]) == following


@pytest.mark.parametrize(
    ("score", "information", "moved", "done"),
    [(0.1, 0.25, 0.4, False), (1e-20, 1e-20, 1.0, False), (0.9e-20, 0.9e-20, 1.0, True), (1.0, 4.0, 0.25, False)],
)
def test_the_intercept_of_nothing_else_moves_by_its_score_over_its_information(score, information, moved, done):
    newton = glm(family="poisson")
    newton.converged = True
    sums = dict.fromkeys(NULL_SUMS, 0.0) | {"score": score, "information": information}
    combined = {
        "model.null": vector(0.0, 7.0), "model.totals": totals(weight=1, y=2),
        "model.null_sums": vector(*(sums[name] for name in NULL_SUMS)),
    }  # fmt: skip
    assert newton._null(combined, first=False)["model.null"].tolist() == pytest.approx([moved, 7])
    assert newton.converged is done


@pytest.mark.parametrize(
    ("model", "offset", "starts"),
    [
        ({"family": "binomial"}, None, True), ({"family": "binomial"}, (1, 1.0), False),
        ({"family": "binomial", "link": "probit"}, None, False), ({"family": "gaussian"}, None, False),
        ({"family": "poisson"}, None, False),
    ],
)  # fmt: skip
def test_a_logistic_regression_without_an_offset_starts_from_its_classes(model, offset, starts):
    newton = glm(**model)
    newton.offset = offset
    assert newton._starts_from_classes is starts


def test_scores_by_site_are_kept_as_sums_where_errors_are_over_sites():
    newton = glm(errors="site")
    newton.section, newton.sent, newton.rows = SimpleNamespace(weighting="samples", clip=None), {}, {}
    newton._combiner = SimpleNamespace(add=lambda *_: None)

    def told(site, rows, **state):
        reply = SimpleNamespace(site=site, rows=rows, steps=1, loss=0.0, state=state, start_loss=None)
        for name in ("sums", "term", "share", "start"):
            setattr(reply, name, None)
        return reply

    newton.add(told("a", 4, **{"model.score": vector(0.5, -1)}))
    newton.add(told("b", 0, **{"model.score": vector(9, 9)}))
    newton.add(told("c", 3))
    assert newton._scores == {"a": [2, -4]}
    newton.experiment, newton._scores = glm().experiment, {}
    newton.add(told("a", 4, **{"model.score": vector(0.5, -1)}))
    assert newton._scores == {}


@pytest.mark.parametrize(
    ("features", "scaled", "found"),
    [(["x", "t"], True, (2, 3.0)), (["t", "x"], True, (1, 3.0)), (["x"], True, None), (["x", "t"], False, None)],
)
def test_an_offset_is_a_column_after_the_intercept_with_a_coefficient_of_its_scale(features, scaled, found):
    newton = glm(family="poisson", offset="t")
    scale = [[9.0] * len(features), [3.0 if name == "t" else 2.0 for name in features]]
    preparation = SimpleNamespace(scale=scale) if scaled else None
    setup = SimpleNamespace(features=features, preparation=preparation, terms=None, categories={})
    if found is None:
        with pytest.raises(ExperimentError, match=r"model\.offset: 't' is no numeric column that all sites have"):
            fix_offset(newton, newton.experiment, setup, 1)
    else:
        fix_offset(newton, newton.experiment, setup, 1)
        assert newton.offset == found
    plain = glm(family="poisson")
    fix_offset(plain, plain.experiment, setup, 1)
    assert plain.offset is None


# -- Cox model -------------------------------------------------------------------------------------------------------


def cox(width=1, rows=40, strata="site", **model):
    newton = blank(CoxNewton)
    content = {"data": {"target": {"duration": "t", "event": "e"}}, "problem": "survival"}
    newton.experiment = Experiment.parse(content | {"model": {"kind": "cox", "strata": strata} | model})
    newton.spec = {"model.weight": TensorSpec((width,), "float64")}
    newton.seen, newton._scores, newton._sums = [SimpleNamespace(rows=rows - 10), SimpleNamespace(rows=10)], {}, {}
    return newton


def cox_sums(score, information, value=-5.0):
    width = len(score)
    return {
        "value": np.array([value]), "score": np.array(score, dtype=float), "information": np.array(information),
        "events": np.array([7.0]), "transformed": np.array([1.0, 2.0]), "residuals": np.zeros(width),
    }  # fmt: skip


def test_sums_of_a_cox_model_are_read_up_to_the_largest_number():
    newton = cox()
    edge = cox_sums([LARGEST_NUMBER], [[-LARGEST_NUMBER]])
    assert newton.read_sums(pack_arrays(edge))["score"].tolist() == [LARGEST_NUMBER]
    for wrong in (math.inf, math.nan, LARGEST_NUMBER * 1.01):
        with pytest.raises(WireError, match="not finite"):
            newton.read_sums(pack_arrays(cox_sums([wrong], [[1.0]])))
    with pytest.raises(WireError, match="other names or shapes"):
        newton.read_sums(pack_arrays(cox_sums([1.0, 2.0], [[1.0, 0.0], [0.0, 1.0]])))
    with pytest.raises(WireError, match="other names or shapes"):
        newton.read_sums(pack_arrays(edge | {"more": np.zeros(1)}))


def test_only_the_sums_of_sites_with_rows_are_added_up():
    newton = cox()
    newton.section, newton.sent, newton.rows = SimpleNamespace(weighting="samples", clip=None), {}, {}
    newton._combiner = SimpleNamespace(add=lambda *_: None)
    for site, rows, score in (("a", 4, 2.0), ("b", 0, 9.0), ("c", 5, 0.5), ("d", 6, None)):
        sums = None if score is None else cox_sums([score], [[1.0]])
        reply = SimpleNamespace(site=site, rows=rows, steps=1, loss=0.0, state={}, start_loss=None, sums=sums)
        reply.term = reply.share = reply.start = None
        newton.add(reply)
    assert newton._sums["score"].tolist() == [2.5]
    assert newton._sums["events"].tolist() == [14]
    assert newton._scores == {"a": [2], "c": [0.5]}


@pytest.mark.parametrize(("score", "information", "moved"), [(4.0, 8.0, 0.3), (-4.0, 8.0, -0.3), (2.0, 8.0, 0.25)])
def test_the_first_step_of_a_cox_model_is_short_wherever_it_begins(score, information, moved):
    newton = cox()
    newton._sums = cox_sums([score], [[information]])
    assert newton.step({"model.weight": vector(2.0)})["model.weight"].tolist() == pytest.approx([2 + moved])
    assert newton.fitted["value"] == newton.fitted["null"] == -5
    assert not newton.converged


@pytest.mark.parametrize(
    ("share", "errors", "done"), [(0.9, "model", True), (1.0, "model", False), (0.9, "site", False)]
)
def test_a_cox_model_is_done_after_a_step_shorter_than_1e_13(share, errors, done):
    newton = cox(rows=16, errors=errors)
    size = share * 1e-13
    # A step of 1 whose squared length is the score, of 16 rows: means and products by 16 are exact.
    newton._sums, newton.kept["null"] = cox_sums([size], [[size]]), {"value": torch.tensor(-5.0)}
    assert newton.step({"model.weight": vector(0.0)})["model.weight"].tolist() == pytest.approx([1])
    assert newton.converged is done


def test_firths_cox_model_learns_the_curvature_of_its_penalty_from_how_that_moved():
    """One column: the penalty fell from 1 to 1/2 over a step of 2, so that its curvature is 1/4."""
    newton, information = blank(CoxNewton), vector(4.0)[:, None]
    newton.kept["firth"] = {
        "measured": torch.tensor(1), "null": torch.tensor(8.0), "objective": torch.tensor(10.0), "before": vector(1.0),
        "penalty": vector(1.0), "curvature": torch.zeros(1, 1, dtype=torch.float64),
    }  # fmt: skip
    following = newton._penalised(vector(3.0), np.array([2.0]), np.array([0.5]), information, -5.0, ONE)["model.weight"]
    assert newton.kept["firth"]["curvature"].tolist() == [[0.25]]
    assert following.tolist() == pytest.approx([3 + 2.5 / 4.25])
    kept = newton.kept["firth"]
    assert (int(kept["measured"]), kept["before"].tolist(), kept["penalty"].tolist()) == (0, [3], [0.5])
    # From there a worse fit goes back by half.
    halved = newton._penalised(following, np.array([2.0]), np.array([0.5]), information, -50.0, ONE)["model.weight"]
    assert halved.tolist() == pytest.approx([3 + 1.25 / 4.25])


@pytest.mark.parametrize(
    ("curvature", "counted"),
    [
        ((-9.0, 0.0), (1.0, 20.0)),
        ((-9.1, 0.0), (10.0, 20.0)),
        ((0.0, -19.1), (10.0, 20.0)),
        ((5.0, -3.0), (15.0, 17.0)),
    ],
)
def test_a_curvature_that_leaves_less_than_a_tenth_is_not_counted_on(curvature, counted):
    """Of an information of 10 and 20 a step counts on what its penalty leaves, if that is at least 1."""
    newton = blank(CoxNewton)
    newton.kept["firth"] = {
        "measured": torch.tensor(1), "null": torch.tensor(8.0), "curvature": torch.diag(vector(*curvature)),
    }  # fmt: skip
    step = newton._penalised(vector(0, 0), np.array([0.1, 0.2]), np.zeros(2), torch.diag(vector(10, 20)), -5.0, ALL)
    assert step["model.weight"].tolist() == pytest.approx([0.1 / counted[0], 0.2 / counted[1]])


def test_firths_cox_model_of_no_column_is_done():
    newton, nothing = blank(CoxNewton), torch.tensor([False])
    for _ in range(2):
        newton._penalised(vector(0), np.zeros(1), np.zeros(1), vector(0.0)[:, None], -5.0, nothing)
    assert newton.converged


@pytest.mark.parametrize("length", [1e-5, 1.0, 1e5])
def test_a_rank_one_update_is_left_out_where_the_step_and_the_rest_are_at_right_angles(length):
    moved, known = vector(length, 0), torch.zeros(2, 2, dtype=torch.float64)
    assert _rank_one(known, moved, vector(1e-9, 1)) is known
    updated = _rank_one(known, moved, vector(1e-7, 1))
    assert (updated @ moved).tolist() == pytest.approx([1e-7, 1])


def test_a_curvature_may_be_three_times_as_large_halfway():
    """Information 1 here and 5 a step of 1 before: halfway along as long a step it would be 3 the other way."""
    before = {"information": vector(5.0)[:, None], "coefficients": vector(-1.0)}

    def go(step, information=5.0):
        before["information"] = vector(information)[:, None]
        found, _ = _halfway(vector(0), vector(step), vector(step), vector(1.0)[:, None], before, vector(0), ONE)
        return found.item()

    # Each of three times the step is solved with what is halfway along the one before: 1 + 2 · its length.
    step = 1.0
    for _ in range(3):
        step = 1 / (1 + 2 * step)
    assert go(-1.0) == pytest.approx(-step)
    assert go(-1.0, 5.1) == -1
