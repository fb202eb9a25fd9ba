"""The robust rules' single steps and edges against their definitions: one step of Weiszfeld's, weights, few sites."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from v6_algorithm.coordinator.strategies import robust
from v6_algorithm.coordinator.strategies.robust.geometric import _best_site, _weighted_median


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def points(seed=4, sites=6):
    return np.random.default_rng(seed).normal(size=(sites, 3)) * 5


def vardi_zhang(values, weights, at, steps):
    """Vardi and Zhang (2000), equations 2.5 and 2.6."""
    for _ in range(steps):
        distance = np.linalg.norm(values - at, axis=1)
        here = distance < 1e-9
        pull = weights[~here] / distance[~here]
        middle = pull @ values[~here] / pull.sum()
        length = np.linalg.norm(pull @ (values[~here] - at))
        stays = min(1.0, weights[here].sum() / length)
        at = (1 - stays) * middle + stays * at
    return at


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("own", [1.0, 1.5, 2.0])
def test_steps_from_a_site_are_vardi_and_zhangs(steps, own):
    values, weights = points(), np.array([0.5, 0.75, 1.0, 0.25, 1.5, 0.5])
    totals = np.linalg.norm(values[:, None] - values[None], axis=2) @ weights
    best = int(totals.argmin())
    weights[best] = own
    totals = np.linalg.norm(values[:, None] - values[None], axis=2) @ weights
    assert totals.argmin() == best
    found = robust.geometric_median(torch.from_numpy(values), tensor(weights), iterations=steps)
    assert found.tolist() == pytest.approx(vardi_zhang(values, weights, values[best], steps).tolist(), rel=1e-12)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_the_geometric_median_is_as_exact_in_any_unit(unit):
    values = points()
    found = robust.geometric_median(torch.from_numpy(values * unit)).numpy() / unit
    away = values - found
    # At the minimum the directions to the sites add up to nothing.
    assert np.abs((away / np.linalg.norm(away, axis=1)[:, None]).sum(axis=0)).max() < 1e-7


@pytest.mark.parametrize(
    ("distances", "weights", "median"),
    [
        ([1, 2, 3, 4], [1, 1, 1, 1], 3), ([4, 1, 3, 2], [1, 1, 1, 1], 3), ([1, 2, 3], [1, 1, 1], 2),
        ([1, 2, 3], [5, 1, 1], 1), ([1, 2, 3], [1, 1, 5], 3), ([7], [0.5], 7),
    ],
)  # fmt: skip
def test_a_weighted_median_is_what_more_than_half_of_the_weight_is_within(distances, weights, median):
    assert _weighted_median(tensor(distances), tensor(weights)) == median


def test_of_several_best_sites_the_search_begins_at_their_mean():
    assert _best_site(tensor([[0, 1], [4, 3]]), tensor([2, 2])).tolist() == [2, 2]
    assert _best_site(tensor([[0, 0], [1, 0], [1, 0], [9, 9]]), tensor([1, 1, 1, 1])).tolist() == [1, 0]
    assert robust.geometric_median(tensor([[0, 1], [4, 3]])).tolist() == [2, 2]


@pytest.mark.parametrize("rule", [robust.geometric_median, robust.norm_clipping, robust.centred_clipping])
def test_with_nobody_malicious_one_site_is_enough(rule):
    assert rule(tensor([[3.0, 4.0]])).tolist() == [3, 4]


@pytest.mark.parametrize("rule", [robust.geometric_median, robust.norm_clipping, robust.centred_clipping])
def test_weights_may_be_less_than_one_and_only_their_shares_matter(rule):
    values, weights = torch.from_numpy(points()), tensor([0.125, 0.0, 0.0625, 0.03125, 0.25, 0.125])
    found, larger = rule(values, weights=weights), rule(values, weights=weights * 64)
    assert found.tolist() == pytest.approx(larger.tolist(), abs=1e-12)
    for wrong in (weights * 0, weights - 0.01, weights[:5]):
        with pytest.raises(ValueError, match="one weight per site is needed"):
            rule(values, weights=wrong)
