"""What an attacker can tell from updates is below the claim, and the audit notices noise that is cut to a half."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from tools import privacy_audit
from tools.privacy_audit import DELTA, audit, broken_noise, epsilon_of, least_mu, noticed
from v6_algorithm.engines.simulation.simulate import mock_federation
from v6_algorithm.learning.training.private_gradients import NoiseSource


@pytest.fixture(autouse=True)
def _drawn_from_seeds(monkeypatch):
    """Noise that is the same in each run of a test: an interval of 95 % is wrong now and then."""
    begin, entropy = NoiseSource.__init__, itertools.count(1)
    monkeypatch.setattr(NoiseSource, "__init__", lambda self, seed=None: begin(self, seed or next(entropy)))


@pytest.mark.parametrize(("mu", "exact"), [(0.0, 0.0), (0.5, 1.352), (1.0, 3.139), (3.0, 13.088)])
def test_epsilon_of_a_gaussian_mechanism(mu, exact):
    """Balle and Wang (ICML 2018), theorem 8, at delta 1e-3; values found with a root finder of scipy."""
    assert epsilon_of(mu, DELTA) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_the_bound_of_mu_comes_near_it_from_below(mu, rate):
    """Errors as often as expected, of a million updates; the canary is in the batch in a share of them."""
    number, false = 10**6, NormalDist().cdf(-mu / 2)
    missed = (1 - rate) * (1 - false) + rate * false
    measured = least_mu(round(number * missed), number, round(number * false), number, rate)
    assert mu - 0.02 < measured < mu


def test_few_updates_bound_little_and_guessing_nothing():
    assert least_mu(0, 4, 0, 4) < 1
    assert least_mu(50, 100, 50, 100) == 0
    assert least_mu(4, 4, 4, 4) == 0


def test_a_canary_in_more_batches_than_the_rate_says_is_explained_by_no_mu():
    assert least_mu(0, 1000, 0, 1000, 0.5) == math.inf


def test_more_runs_notice_less_that_is_missing():
    shares = [noticed(1.65, updates) for updates in (100, 1_000, 10_000)]
    assert shares == sorted(shares)
    assert 0.5 < shares[0] < 0.8
    assert shares[-1] > 0.9


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_sound_noise_is_within_the_claim_and_half_of_it_is_noticed(rate):
    sound = audit("sample", canaries=64, rate=rate)
    assert 0.5 * sound.claimed < sound.measured <= sound.claimed
    assert sound.epsilon <= privacy_audit.EPSILON
    if rate == 1:
        assert sound.epsilon_measured < sound.epsilon
    with broken_noise(0.5):
        assert audit("sample", canaries=64, rate=rate).notices


def test_batches_that_are_drawn_too_often_are_noticed(monkeypatch):
    import torch

    monkeypatch.setattr(NoiseSource, "batch", lambda self, units, rate: torch.arange(units))
    assert audit("sample", canaries=64, rate=0.5).notices


@pytest.mark.slow
def test_of_sites_too_half_the_noise_is_noticed():
    sound = audit("site", canaries=12)
    assert sound.updates == 6 * (privacy_audit.ROUNDS - 1)
    assert 0.3 * sound.claimed < sound.measured <= sound.claimed
    with broken_noise(0.5):
        assert audit("site", canaries=12).notices


@pytest.mark.slow
def test_half_the_noise_is_noticed_at_the_mock_hospitals():
    with broken_noise(0.5):
        assert audit("site", canaries=12, engine=mock_federation).notices


@pytest.mark.slow
def test_four_runs_notice_a_fifth_that_is_missing_as_the_computed_power_says():
    sound = audit("sample", canaries=64, runs=4)
    assert not sound.notices
    assert noticed(sound.claimed, sound.updates) >= 0.8
    with broken_noise(0.8):
        assert audit("sample", canaries=64, runs=4).notices


def test_every_canary_is_clipped_in_full():
    """Without noise an update holds just the clip of each canary, so that none tells less than it may."""
    seen = []

    class Kept(privacy_audit.Seen):
        def __init__(self):
            super().__init__()
            seen.append(self)

    with broken_noise(0.0), pytest.MonkeyPatch.context() as patch:
        patch.setattr(privacy_audit, "Seen", Kept)
        audit("sample", canaries=16)
    # Weights are float32: a step is rounded to about 1e-3 of the clip.
    assert np.allclose(seen[0].inside, 1, atol=1e-2)
    assert np.allclose(seen[0].outside, 0, atol=1e-6)
