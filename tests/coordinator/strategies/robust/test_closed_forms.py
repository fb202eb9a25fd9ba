"""The robust rules against closed forms and against their definitions, computed in the plainest way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from v6_algorithm.coordinator.strategies import robust
from v6_algorithm.coordinator.strategies.robust.updates import squared_distance


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def floats(rows, columns):
    return hnp.arrays(np.float64, (rows, columns), elements=st.floats(-100, 100))


def close(one, other, tolerance=1e-9):
    torch.testing.assert_close(one, torch.as_tensor(other, dtype=torch.float64), rtol=0, atol=tolerance)


@given(st.integers(1, 9).flatmap(lambda rows: floats(rows, 3)))
def test_median_is_numpys_also_of_an_even_number_of_sites(values):
    """torch.median gives the lower of the two in the middle."""
    close(robust.coordinate_median(torch.from_numpy(values)), np.median(values, axis=0))


@given(st.integers(0, 3).flatmap(lambda f: st.tuples(st.just(f), floats(8, 3))))
def test_trimmed_mean_is_scipys(case):
    stats = pytest.importorskip("scipy.stats")
    malicious, values = case
    # A little over f/8, for scipy rounds the number it cuts down.
    wanted = stats.trim_mean(values, malicious / 8 + 1e-9, axis=0)
    close(robust.trimmed_mean(torch.from_numpy(values), malicious), wanted)


def test_trimmed_mean_with_nobody_malicious_is_the_mean_and_with_all_it_can_bear_the_median():
    values = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    close(robust.trimmed_mean(values, 0), values.mean(dim=0))
    close(robust.trimmed_mean(values, 3), robust.coordinate_median(values))


def test_geometric_median_of_a_convex_quadrangle_is_where_its_diagonals_cross():
    corners = tensor([[0, 0], [4, 0], [6, 5], [1, 3]])
    # (0, 0) + t (6, 5) = (4, 0) + u (-3, 3)
    close(robust.geometric_median(corners), np.array([6, 5]) * (12 / 33), 1e-6)


def test_geometric_median_of_a_regular_polygon_is_its_centre():
    angles = torch.arange(5, dtype=torch.float64) * 2 * torch.pi / 5
    close(robust.geometric_median(torch.stack([angles.cos() + 3, angles.sin() - 1], dim=1)), [3, -1], 1e-8)


def test_geometric_median_stays_at_a_site_that_has_half_of_the_weight():
    points = tensor([[0, 0], [5, 1], [2, 7], [-3, 4]])
    close(robust.geometric_median(points, tensor([3, 1, 1, 1])), [0, 0], 1e-4)


@example(
    np.array([[0.0, 1.0], [1.52847353e-54, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), [4, 1, 1, 1, 1, 3]
)
# Three of them all but coincide, and are left slowly.
@example(np.array([[3, 1e-5], [8, 1e-5], [1e-5, 12], [1e-5, 0], [1e-5, 1e-5], [1e-5, 1e-5]]), [1, 7, 9, 1, 1, 9])
@given(floats(6, 2), st.lists(st.integers(1, 9), min_size=6, max_size=6))
def test_no_other_point_has_a_smaller_weighted_sum_of_distances(values, weights):
    points, weight = torch.from_numpy(values), tensor(weights)

    def total(point):
        return float((weight * (points - point).norm(dim=1)).sum())

    found = robust.geometric_median(points, weight)
    generator = torch.Generator().manual_seed(0)
    around = [found + size * torch.randn(2, generator=generator) for size in (0.01, 1, 30) for _ in range(10)]
    # Of an algorithm whose last steps are slow.
    assert total(found) <= min(total(point) for point in [*around, *points]) * (1 + 1e-3) + 1e-5


def test_geometric_median_at_a_site_is_reached_though_the_iteration_only_creeps_up_to_it():
    points = tensor([[1, 1], [0, 1], [1, 1], [1, 1], [1, 1], [1, 1]])
    assert robust.geometric_median(points, tensor([1, 6, 1, 1, 1, 1])).tolist() == [0, 1]


def test_geometric_median_leaves_a_point_that_half_of_the_sites_sent():
    """Their mean is off by rounding, and so was the median distance: nobody counted as being there."""
    points = tensor([[0, 97], [97, 97], [97, 97], [0, 97], [97, 97], [97, 0]])
    found = robust.geometric_median(points, tensor([1, 1, 1, 2, 3, 6]))
    assert float((tensor([1, 1, 1, 2, 3, 6]) * (points - found).norm(dim=1)).sum()) < 857


def test_a_site_without_weight_does_not_count_in_the_geometric_median():
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = tensor([1, 2, 3, 4, 0])
    close(robust.geometric_median(points, weights), robust.geometric_median(points[:4], weights[:4]), 1e-6)


def krum_scores(values, malicious):
    """Blanchard's score, site by site."""
    scores = []
    for number, own in enumerate(values):
        others = sorted(float(((own - other) ** 2).sum()) for index, other in enumerate(values) if index != number)
        scores.append(sum(others[: max(len(values) - malicious - 2, 1)]))
    return scores


@given(floats(7, 3))
def test_krum_is_the_site_with_the_smallest_score(values):
    scores = krum_scores(values, 2)
    chosen = robust.krum(torch.from_numpy(values), 2).numpy()
    own = [score for value, score in zip(values, scores, strict=True) if np.array_equal(value, chosen)]
    assert own
    assert min(own) <= min(scores) * (1 + 1e-12)


@pytest.mark.parametrize("keep", [1, 3, 5])
def test_multi_krum_is_the_mean_of_those_with_the_smallest_scores(keep):
    values = torch.randn(7, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    best = np.argsort(krum_scores(values.numpy(), 2))[:keep]
    close(robust.multi_krum(values, 2, keep=keep), values[best.tolist()].mean(dim=0))


def test_multi_krum_keeps_as_many_as_the_proof_allows_unless_told():
    values = torch.randn(9, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert torch.equal(robust.multi_krum(values, 2), robust.multi_krum(values, 2, keep=5))
    with pytest.raises(ValueError, match="keep must be from 1 to 7"):
        robust.multi_krum(values, 2, keep=8)


def test_krum_takes_the_first_in_dictionary_order_of_sites_with_equal_scores():
    square = [[0, 0], [0, 2], [2, 0], [2, 2]]
    for order in itertools.permutations(square):
        assert robust.krum(tensor(order), 0).tolist() == [0, 0]


def test_distances_in_float64_are_not_negative():
    """peers.md trap 8: by norms and inner products in float32, sites 1e-4 apart came out at -0.156."""
    common = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    sites = [common + 1e-4 * torch.randn(200_000, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    for one, other in itertools.combinations(sites, 2):
        wanted = float(((one.double() - other.double()) ** 2).sum())
        assert 0.003 < wanted < 0.005
        assert squared_distance(one, other) == pytest.approx(wanted, rel=1e-9)
        assert squared_distance(one, other) == squared_distance(other, one)


@pytest.mark.parametrize(("sites", "malicious"), [(7, 1), (9, 1), (11, 2), (5, 0)])
def test_bulyan_is_its_definition(sites, malicious):
    values = torch.randn(sites, 5, generator=torch.Generator().manual_seed(sites), dtype=torch.float64).numpy()
    left, selected = list(values), []
    while len(selected) < sites - 2 * malicious:
        scores = krum_scores(left, malicious)
        # Two sites that are each other's nearest have the same score.
        selected.append(left.pop(min(range(len(left)), key=lambda site: (scores[site], tuple(left[site])))))
    chosen = np.array(selected)
    wanted = [
        sorted(column, key=lambda value, column=column: abs(value - np.median(column)))[: sites - 4 * malicious]
        for column in chosen.T
    ]
    close(robust.bulyan(torch.from_numpy(values), malicious), np.mean(wanted, axis=1))


def test_bulyan_trims_the_one_coordinate_that_gets_past_krum():
    """The attack that bulyan is for: an update among the others but for one coordinate, amid many."""
    generator = torch.Generator().manual_seed(0)
    honest = torch.randn(6, 1000, generator=generator, dtype=torch.float64)
    attack = honest.mean(dim=0)
    attack[0] = 20.0
    updates = torch.cat([honest, attack.unsqueeze(0)])
    assert robust.krum(updates, 1)[0] == 20
    assert abs(float(robust.bulyan(updates, 1)[0])) <= float(honest[:, 0].abs().max())


def test_norm_clipping_is_the_weighted_mean_of_the_shortened():
    updates = tensor([[3, 4], [0.6, 0.8], [0, 0]])
    close(robust.norm_clipping(updates, 2.0, tensor([1, 2, 1])), [(1.2 + 1.2) / 4, (1.6 + 1.6) / 4])


def test_norm_clipping_without_a_bound_takes_the_median_of_the_norms():
    updates = tensor([[1, 0], [0, 3], [1e9, 0]])
    close(robust.norm_clipping(updates), [4 / 3, 1])


def test_a_large_enough_bound_clips_nothing():
    updates = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    close(robust.norm_clipping(updates, 1e6), updates.mean(dim=0))


def test_a_zero_update_is_no_division_by_zero():
    """peers.md trap 7: a frozen model's norm is zero."""
    assert robust.norm_clipping(torch.zeros(3, 4)).tolist() == [0, 0, 0, 0]
    assert robust.centred_clipping(torch.zeros(3, 4), 1.0).tolist() == [0, 0, 0, 0]
    assert robust.geometric_median(torch.zeros(3, 4)).tolist() == [0, 0, 0, 0]


def test_centred_clipping_is_its_formula():
    updates, centre = tensor([[4, 0], [0, 1], [-6, 8]]), tensor([1, 0])
    point = centre.numpy()
    for _ in range(2):
        steps = [row - point for row in updates.numpy()]
        point = point + np.mean([step * min(1, 2 / np.linalg.norm(step)) for step in steps], axis=0)
    close(robust.centred_clipping(updates, 2.0, centre, iterations=2), point)


def test_centred_clipping_comes_to_the_honest_however_far_the_outlier():
    honest = torch.full((6, 3), 2.0, dtype=torch.float64)
    for far in (1e3, 1e30):
        updates = torch.cat([honest, torch.full((1, 3), far, dtype=torch.float64)])
        found = robust.centred_clipping(updates, 1e-2, tensor([2, 2, 2]), iterations=5)
        assert float((found - 2).norm()) <= 5 * 1e-2 / 7


@pytest.mark.parametrize("weights", [[1, 1], [1, -1, 1], [0, 0, 0]])
def test_what_is_no_weight_for_each_site_is_refused(weights):
    with pytest.raises(ValueError, match="one weight per site"):
        robust.geometric_median(torch.zeros(3, 2), tensor(weights))
