"""What an attacker can tell from runs is below the claimed epsilon, and the audit notices noise that is broken."""

import numpy as np
import pytest

from tools.privacy_audit import DELTA, audit, broken_noise, lower_bound
from v6_algorithm.engines.simulate import local_federation, mock_federation


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 3.0])
def test_the_bound_of_a_gaussian_mechanism_is_below_its_epsilon_and_not_idle(shift):
    """One release with noise 1 / shift: epsilon of Balle and Wang (ICML 2018), theorem 8, at delta 1e-3."""
    generator = np.random.default_rng(0)
    inside, outside = shift + generator.normal(size=2_000), generator.normal(size=2_000)
    exact = {0.0: 0.0, 0.5: 1.352, 1.0: 3.139, 3.0: 13.088}[shift]
    measured = lower_bound(list(inside), list(outside), DELTA)
    assert measured <= exact + 0.01
    assert measured >= {0.0: 0.0, 0.5: 0.2, 1.0: 1.2, 3.0: 3.5}[shift]
    # A model that goes the other way tells the same to who knows of it, and nothing to who does not.
    assert lower_bound(list(outside - 9), list(inside), DELTA) == 0


def test_no_runs_bound_nothing():
    assert lower_bound([1.0] * 4, [0.0] * 4, DELTA) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "engine"), [("sample", local_federation), ("site", mock_federation)])
def test_runs_tell_less_than_they_claim_and_without_noise_more(unit, engine):
    measured, claimed = audit(unit, 1.0, 30, engine)
    assert measured < claimed <= 1
    with broken_noise(0.0):
        measured, claimed = audit(unit, 1.0, 30, engine)
    assert measured > claimed
