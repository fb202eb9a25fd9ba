"""What every robust rule promises: symmetry, identity, bounded influence, enough sites; and that the mean does not."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from v6_algorithm.coordinator.strategies import robust
from v6_algorithm.coordinator.strategies.robust import updates as shared
from v6_algorithm.errors import FederationError, TooFewSitesError
from v6_algorithm.experiment.strategy.combine import MINIMUM

ONE_BAD = {
    "median": partial(robust.coordinate_median, malicious=1),
    "trimmed_mean": partial(robust.trimmed_mean, malicious=1),
    "geometric_median": partial(robust.geometric_median, malicious=1),
    "krum": partial(robust.krum, malicious=1),
    "multi_krum": partial(robust.multi_krum, malicious=1),
    "bulyan": partial(robust.bulyan, malicious=1),
    "norm_clipping": partial(robust.norm_clipping, malicious=1),
    "centred_clipping": partial(robust.centred_clipping, malicious=1, iterations=3),
}
# Whole numbers, so that sums and differences are exact and ties happen.
NUMBERS = st.integers(-20, 20).map(float)
FAR = st.sampled_from([1e3, 1e8, 1e30, 1e150, 1e200]) | st.floats(-1e6, 1e6)


def matrices(rows=st.integers(7, 9), columns=st.integers(1, 5)):
    shape = st.tuples(rows, columns)
    return shape.flatmap(lambda size: hnp.arrays(np.float64, size, elements=NUMBERS)).map(torch.from_numpy)


# Of each rule, some of which iterate.
FEW = settings(max_examples=40)


def every_rule(test):
    return pytest.mark.parametrize("name", sorted(ONE_BAD))(test)


def test_every_rule_is_tested_here():
    assert set(ONE_BAD) == set(MINIMUM)


@pytest.mark.slow
@every_rule
@FEW
@given(updates=matrices(), order=st.randoms(use_true_random=False))
def test_order_of_sites_changes_nothing(name, updates, order):
    rule, numbers = ONE_BAD[name], list(range(len(updates)))
    order.shuffle(numbers)
    exact = name not in ("geometric_median", "norm_clipping", "centred_clipping")
    torch.testing.assert_close(rule(updates[numbers]), rule(updates), rtol=0, atol=0 if exact else 1e-6)


@pytest.mark.slow
@every_rule
@FEW
@given(updates=matrices(), shift=hnp.arrays(np.float64, 5, elements=NUMBERS))
def test_shifted_updates_give_the_shifted_result(name, updates, shift):
    """Of the clipping rules the centre is shifted too: they are about differences from it."""
    rule, move = ONE_BAD[name], torch.from_numpy(shift)[: updates.shape[1]]
    if name == "norm_clipping":
        rule, name = partial(robust.centred_clipping, malicious=1), "centred_clipping"
    shifted = rule(updates + move, centre=move) if name == "centred_clipping" else rule(updates + move)
    torch.testing.assert_close(shifted, rule(updates) + move, rtol=0, atol=1e-6)


@every_rule
@FEW
@given(update=hnp.arrays(np.float64, 4, elements=st.floats(-1e6, 1e6)), sites=st.integers(7, 12))
def test_identical_sites_give_their_update(name, update, sites):
    vector = torch.from_numpy(update)
    torch.testing.assert_close(ONE_BAD[name](vector.repeat(sites, 1)), vector, rtol=1e-12, atol=1e-12)


@every_rule
@FEW
@given(honest=matrices(rows=st.integers(6, 9)), outlier=hnp.arrays(np.float64, 5, elements=FAR))
def test_one_outlier_of_any_size_moves_the_result_by_a_bounded_amount(name, honest, outlier):
    """By no more than a few times what the honest differ; of clipping about zero, than their norms."""
    bad = torch.from_numpy(outlier)[: honest.shape[1]]
    moved = ONE_BAD[name](torch.cat([honest, bad.unsqueeze(0)]))
    about_zero = name in ("norm_clipping", "centred_clipping")
    middle = torch.zeros(honest.shape[1], dtype=torch.float64) if about_zero else honest.mean(dim=0)
    reach = float((honest - middle).norm(dim=1).max())
    assert float((moved - middle).norm()) <= 4 * reach + 1e-5


def test_the_mean_has_no_such_bound():
    honest = torch.zeros(6, 2, dtype=torch.float64)
    assert torch.cat([honest, torch.full((1, 2), 1e30)]).mean(dim=0).min() > 1e29


@every_rule
def test_too_few_sites_are_refused_with_what_is_needed_and_given(name):
    factor, constant = MINIMUM[name]
    needed = factor + constant
    updates = torch.randn(needed, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ONE_BAD[name](updates).shape == (3,)
    with pytest.raises(TooFewSitesError, match=rf"{name} needs at least {needed} sites .*given: {needed - 1}$"):
        ONE_BAD[name](updates[1:])
    assert issubclass(TooFewSitesError, FederationError)


@every_rule
def test_a_list_of_float32_vectors_gives_what_the_float64_tensor_gives(name):
    vectors = [torch.randn(50, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    result = ONE_BAD[name](vectors)
    assert result.dtype == torch.float64
    assert torch.equal(result, ONE_BAD[name](torch.stack(vectors).double()))


@every_rule
def test_the_length_of_a_slice_changes_nothing(name, monkeypatch):
    updates = torch.randn(8, 1001, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = ONE_BAD[name](updates)
    monkeypatch.setattr(shared, "SLICE", 7)
    torch.testing.assert_close(ONE_BAD[name](updates), whole, rtol=0, atol=1e-12)


@every_rule
def test_the_updates_are_left_as_they_are(name):
    updates = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = updates.clone()
    ONE_BAD[name](updates)
    assert torch.equal(updates, kept)
