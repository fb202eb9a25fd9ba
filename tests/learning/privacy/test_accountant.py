"""The accountant: against frozen values, Opacus, and what must hold of any."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.errors import SiteError
from v6_algorithm.learning.privacy import prv
from v6_algorithm.learning.privacy.accountant import ORDERS, Steps, epsilon, noise_for, step_cost

HEART = Steps(4 / 172, 2.0, 1_500)
# Google's PLD and Opacus' PRV accountants of HEART at delta 1e-3: nearly exact, so no sound bound may lie below.
PLD, PRV = 1.311, 1.320


def test_epsilon_is_the_frozen_value_of_two_other_rdp_accountants():
    assert epsilon([HEART], 1e-3) == pytest.approx(1.508, abs=1e-3)


def test_the_bound_is_above_the_nearly_exact_ones_by_less_than_a_sixth():
    assert max(PLD, PRV) < epsilon([HEART], 1e-3) < 1.17 * PLD


@pytest.mark.parametrize(
    ("rows", "target", "noise"),
    [(199, 8, 0.74), (199, 1, 2.40), (172, 8, 0.79), (172, 1, 2.75), (30, 8, 2.79), (85, 1, 5.39), (85, 8, 1.18)],
)
def test_noise_for_the_heart_sites_is_the_frozen_one(rows, target, noise):
    assert noise_for([Steps(4 / rows, 0, 1_500)], target, 1e-3) == pytest.approx(noise, rel=0.01)


@pytest.mark.parametrize("rate", [1e-3, 0.023, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("noise", [0.6, 2.0, 20.0])
def test_costs_and_epsilon_are_those_of_opacus_to_a_millionth(rate, noise):
    rdp = pytest.importorskip("opacus.accountants.analysis.rdp")
    orders = list(ORDERS)
    theirs = rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=orders)
    assert [step_cost(rate, noise, order) for order in orders] == pytest.approx(list(theirs), rel=1e-6, abs=1e-9)
    total = rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=300, orders=orders)
    expected, _ = rdp.get_privacy_spent(orders=orders, rdp=total, delta=1e-5)
    assert epsilon([Steps(rate, noise, 300)], 1e-5) == pytest.approx(max(0.0, expected), rel=1e-6, abs=1e-9)


def test_steps_of_every_row_are_the_plain_gaussian_mechanism():
    assert step_cost(1.0, 2.0, 8.0) == 1.0


def test_no_steps_cost_nothing_and_no_noise_costs_everything():
    assert epsilon([], 1e-5) == epsilon([Steps(0.1, 1.0, 0)], 1e-5) == 0
    assert epsilon([Steps(0.1, 0.0, 1)], 1e-5) == float("inf")


@settings(deadline=None, max_examples=15)
@given(rate=st.floats(0.001, 0.9), noise=st.floats(0.7, 30), count=st.integers(1, 500))
def test_more_steps_and_higher_rates_cost_more_and_noise_makes_them_cheaper(rate, noise, count):
    cost = epsilon([Steps(rate, noise, count)], 1e-5)
    assert epsilon([Steps(rate, noise, 2 * count)], 1e-5) >= cost
    assert epsilon([Steps(min(1.0, rate * 1.1), noise, count)], 1e-5) >= cost * (1 - 1e-9)
    assert epsilon([Steps(rate, noise * 1.2, count)], 1e-5) <= cost * (1 + 1e-9)
    assert epsilon([Steps(rate, noise, count)] * 2, 1e-5) == pytest.approx(
        epsilon([Steps(rate, noise, 2 * count)], 1e-5)
    )


@settings(deadline=None, max_examples=8)
@given(target=st.floats(0.1, 20), rate=st.floats(0.005, 1.0), count=st.integers(1, 1_000))
def test_the_noise_that_is_found_keeps_the_target_and_hardly_less_would(target, rate, count):
    noise = noise_for([Steps(rate, 0, count)], target, 1e-5)
    assert epsilon([Steps(rate, noise, count)], 1e-5) <= target
    assert noise == 0.01 or epsilon([Steps(rate, noise * 0.999, count)], 1e-5) > target


def test_opacus_prv_gives_the_frozen_values_between_the_exact_cost_and_the_renyi_bound():
    pytest.importorskip("opacus")
    assert prv.epsilon([HEART], 1e-3) == pytest.approx(PRV, abs=5e-3)
    assert PLD < prv.epsilon([HEART], 1e-3) < epsilon([HEART], 1e-3)
    # 20 releases of noise 2 are one of noise 2 / sqrt(20): Balle and Wang, ICML 2018, theorem 8, solved for epsilon.
    exact, plain = 11.4800, [Steps(1.0, 2.0, 20)]
    assert exact < prv.epsilon(plain, 1e-5) < exact * 1.01 < epsilon(plain, 1e-5)
    assert prv.epsilon([], 1e-5) == prv.epsilon([Steps(0.1, 1.0, 0)], 1e-5) == 0


def test_prv_needs_less_noise_for_the_same_epsilon_and_keeps_it():
    pytest.importorskip("opacus")
    noise = prv.noise_for([HEART], 1.0, 1e-3)
    assert 0.8 < noise / noise_for([HEART], 1.0, 1e-3) < 0.95
    assert prv.epsilon([Steps(HEART.rate, noise, HEART.count)], 1e-3) <= 1.0


def test_prv_falls_back_to_the_renyi_bound_where_the_mesh_would_be_too_large():
    loud = [Steps(0.9, 0.3, 1_000)]
    assert prv.epsilon(loud, 1e-5) == epsilon(loud, 1e-5) > 50


def test_without_opacus_prv_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(prv, "find_spec", lambda name: None)
    with pytest.raises(SiteError, match=r"accountant: prv needs Opacus.*allowed without: rdp"):
        prv.check_available()
