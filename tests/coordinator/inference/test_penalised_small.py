"""Cross-validated penalties on tables so small that everything can be worked out beside: parts, errors, choices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import ElasticNet

import v6_algorithm.api as v6
from v6_algorithm.coordinator.strategies.penalised import PenalisedNewton, coordinate_descent, descend
from v6_algorithm.experiment.terms import Penalty
from v6_algorithm.learning.models.glm import PATH_FIT
from v6_algorithm.learning.problems.tabular import parts_of

FOLDS, STRENGTHS = 3, 9


def sites():
    generator = np.random.default_rng(5)
    frames = {}
    for name, rows in (("a", 31), ("b", 22)):
        frame = pd.DataFrame(generator.normal(size=(rows, 4)), columns=list("pqrs"))
        frames[name] = frame.assign(y=3 + frame["p"] - 0.3 * frame["q"] + generator.normal(size=rows))
    return frames


@pytest.mark.parametrize(
    ("share", "choose"), [(1.0, "minimum"), (0.5, "one_standard_error")], ids=["lasso", "elastic net"]
)
def test_parts_errors_and_the_choice_are_those_of_scikit_learns_fits_one_by_one(share, choose):
    frames = sites()
    penalty = {"kind": "lasso"} if share == 1 else {"kind": "elastic_net", "mixing": share}
    penalty |= {"folds": FOLDS, "strengths": STRENGTHS, "choose": choose}
    experiment = {"data": {"target": "y", "missing": "error"}, "problem": "regression"}
    result = v6.run(experiment | {"model": {"kind": "glm", "penalty": penalty}}, frames)
    told = result.content["fit"]["penalty"]
    pooled = pd.concat(frames.values())
    columns, y = pooled[list("pqrs")], pooled["y"].to_numpy()
    scaled = ((columns - columns.mean()) / columns.std(ddof=0)).to_numpy()
    largest = np.abs(scaled.T @ (y - y.mean())).max() / len(y) / share
    assert told["strengths"] == pytest.approx(np.geomspace(largest, largest / 1000, STRENGTHS))
    part = np.concatenate([parts_of(0, site, 0, len(frame), FOLDS) for site, frame in frames.items()])
    by_part, terms, fits = np.empty((FOLDS, STRENGTHS)), [], []
    for place, strength in enumerate(told["strengths"]):
        model = ElasticNet(alpha=strength, l1_ratio=share, tol=1e-13, max_iter=100_000)
        for number in range(FOLDS):
            rows = part != number
            model.fit(scaled[rows], y[rows])
            by_part[number, place] = np.mean((y[~rows] - model.predict(scaled[~rows])) ** 2)
        fits.append(model.fit(scaled, y).coef_)
        # Under the largest strength the last coefficient is just gone.
        terms.append(int((np.abs(fits[-1]) > 1e-9).sum()))
    weight = np.bincount(part)[:, None] / len(part)
    mean = (by_part * weight).sum(axis=0)
    error = np.sqrt(((by_part - mean) ** 2 * weight).sum(axis=0) / (FOLDS - 1))
    best = int(mean.argmin())
    simplest = next(place for place in range(STRENGTHS) if mean[place] <= mean[best] + error[best])
    assert told["deviance"] == pytest.approx(mean, rel=1e-8)
    assert told["deviance_error"] == pytest.approx(error, rel=1e-6)
    assert (told["terms"], told["minimum"], told["one_standard_error"]) == (terms, best, simplest)
    assert simplest < best
    chosen = best if choose == "minimum" else simplest
    assert told["strength"] == told["strengths"][chosen]
    estimate = result.coefficients.loc[list("pqrs"), "estimate"].to_numpy() * columns.std(ddof=0).to_numpy()
    assert estimate == pytest.approx(fits[chosen], abs=1e-8)
    assert result.content["fit"]["converged"]


class Choosing(PenalisedNewton):
    """Of two parts; fewer than an experiment may have."""

    def __init__(self, choose):
        self._choice = choose

    @property
    def _penalty(self):
        return Penalty(kind="lasso").model_copy(update={"folds": 2, "choose": self._choice})


@pytest.mark.parametrize("choose", ["minimum", "one_standard_error"])
def test_of_strengths_as_good_within_an_error_the_strongest_is_the_simplest(choose):
    """Two parts of 4 and 12 rows; the means of the three strengths are 3, 2.5 and 2.25, the error of the last 1.2."""
    fits = np.zeros((9, len(PATH_FIT)))
    fits[:6, PATH_FIT.index("held_weight")] = [4, 4, 4, 12, 12, 12]
    fits[:6, PATH_FIT.index("held_deviance")] = [12, 4, 20, 36, 36, 16]
    path = np.zeros((9, 3))
    path[6:] = [[5, 0, 0], [5, 0, 1], [0, -1, 1]]
    kept = {"strengths": torch.tensor([4.0, 2.0, 1.0])}
    place = Choosing(choose)._choose({"model.path_fit": torch.from_numpy(fits)}, path, kept)
    assert kept["deviance"].tolist() == [3, 2.5, 2.25]
    # (5 - 2.25)² 4/16 + (4/3 - 2.25)² 12/16
    assert kept["deviance_error"].tolist() == pytest.approx(
        [0, np.sqrt(0.75), np.sqrt(2.75**2 / 4 + 0.75 * (11 / 12) ** 2)]
    )
    assert (int(kept["minimum"]), int(kept["one_standard_error"])) == (2, 0)
    assert kept["terms"].tolist() == [0, 1, 2]
    assert place == (2 if choose == "minimum" else 0)


def test_a_strength_of_just_the_best_mean_and_its_error_is_as_good():
    """Both parts are alike, so the errors are 0: only a strength that predicts just as well is as good."""
    fits = np.zeros((9, len(PATH_FIT)))
    fits[:6, PATH_FIT.index("held_weight")] = 2
    fits[:6, PATH_FIT.index("held_deviance")] = [8, 4, 4, 8, 4, 4]
    kept = {"strengths": torch.tensor([4.0, 2.0, 1.0])}
    assert Choosing("minimum")._choose({"model.path_fit": torch.from_numpy(fits)}, np.zeros((9, 2)), kept) == 1
    assert int(kept["one_standard_error"]) == 1


def quadratic(seed=0, fits=3, columns=4):
    design = np.random.default_rng(seed).normal(size=(fits, 30, columns))
    design[:, :, 0] = 1
    target = design @ np.arange(1.0, columns + 1) + np.random.default_rng(seed + 1).normal(size=(fits, 30))
    return np.einsum("fni,fnj->fij", design, design) / 30, np.einsum("fni,fn->fi", design, target) / 30


def test_a_step_of_a_penalised_fit_is_the_minimum_and_one_that_made_it_worse_is_halved():
    information, wanted = quadratic()
    strengths, share = np.array([0.1, 0.5, 2.0]), 0.6
    present = np.zeros_like(wanted)
    first, (base, best), done = descend(present, wanted, information, np.full(3, 90.0), strengths, share, None, None)
    free = np.array([0.0, 1, 1, 1])
    exact = coordinate_descent(
        information, wanted, strengths[:, None] * share * free, strengths[:, None] * (1 - share) * free, present
    )
    assert first == pytest.approx(exact, abs=1e-12)
    assert base.tolist() == present.tolist()
    assert best.tolist() == [45] * 3
    assert not done.any()
    # The quadratic is exact: from its minimum nothing moves.
    score = wanted - np.einsum("fij,fj->fi", information, first)
    again, _, done = descend(first, score, information, np.zeros(3), strengths, share, base, best)
    assert again == pytest.approx(first, abs=1e-12)
    assert done.all()
    # The second fit's deviance rose: it goes back half the way, and remembers what was better.
    deviance = np.array([0.0, 1000.0, 0.0])
    halved, (base, best_after), _ = descend(first, score, information, deviance, strengths, share, present, best)
    assert halved[1] == pytest.approx((first[1] + present[1]) / 2)
    assert halved[0] == pytest.approx(first[0], abs=1e-12)
    assert base[1].tolist() == present[1].tolist()
    assert base[0].tolist() == first[0].tolist()
    penalty = strengths * (share * np.abs(first[:, 1:]).sum(axis=1) + (1 - share) / 2 * (first[:, 1:] ** 2).sum(axis=1))
    assert best_after == pytest.approx([penalty[0], 45, penalty[2]])


def test_a_column_of_nothing_has_no_coefficient():
    information, wanted = quadratic(fits=1)
    information[:, 2], information[:, :, 2] = 0, 0
    nothing = np.zeros((1, 4))
    solution = coordinate_descent(information, wanted, nothing, nothing, np.ones((1, 4)))[0]
    assert solution[2] == 0
    others = [0, 1, 3]
    assert solution[others] == pytest.approx(np.linalg.solve(information[0][np.ix_(others, others)], wanted[0][others]))
