"""Terms against client drift: what is kept of each site, also under secure aggregation, and FedProx's adaptation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playing import SCALAR, make, play, reply, scalar

from v6_algorithm.exchange import wire

TWO = {"a": 10, "b": 30}
MASKED = {"privacy": {"secure_aggregation": {"threshold": 2}}}


def number(packed) -> float:
    return float(wire.unpack(packed)["w"])


def adapted(losses, rows=(("a", "b"),) * 99):
    """Return μ in each round in which sites had these mean losses."""
    strategy, found = make({"kind": "fedprox", "mu": 0.5, "adaptive": True}, SCALAR, TWO), []
    for place, (loss, sites) in enumerate(zip(losses, rows, strict=False), start=1):
        found.append(strategy.configure(place, list(sites), scalar(1))["a"]["mu"])
        for site in sites:
            strategy.add(reply(site, scalar(1), TWO[site], loss=loss))
        strategy.aggregate()
    return found


def test_five_falls_in_a_row_make_mu_smaller_and_are_counted_anew_then():
    falling = [20 - at for at in range(13)]
    assert adapted(falling) == pytest.approx([0.5] * 6 + [0.4] * 5 + [0.3] * 2)


def test_an_equal_loss_is_no_fall_and_no_growth():
    assert adapted([9, 8, 7, 6, 5, 5, 4, 3, 2, 1, 0]) == pytest.approx([0.5] * 11)


def test_the_mean_loss_is_that_of_the_sites_that_took_part():
    """Over fewer rows a sum of losses would have fallen where the mean has grown."""
    assert adapted([1.0, 1.5, 1.5], [("a", "b"), ("a",), ("a",)]) == pytest.approx([0.5, 0.5, 0.6])


@pytest.mark.parametrize("kind", ["scaffold", "feddyn", "moon"])
def test_a_site_without_rows_leaves_no_term(kind):
    strategy = make(kind, SCALAR, TWO)
    play(strategy, 1, [reply("a", scalar(2), 10)], scalar(1))
    strategy.configure(2, ["a", "b"], scalar(1))
    strategy.add(reply("b", scalar(9), 0))
    strategy.add(reply("a", scalar(3), 10))
    strategy.aggregate()
    assert "term/a" in strategy.kept
    assert "term/b" not in strategy.kept


def test_under_masks_scaffolds_mean_variate_grows_by_what_the_sites_tell():
    strategy = make("scaffold", SCALAR, TWO, **MASKED)
    assert strategy.configure(1, list(TWO), scalar(1))["a"] == {"keeps": True, "term": True}
    for place, (change, mean) in enumerate(((0.75, 0.75), (-2.0, -1.25), (0.5, -0.75)), start=1):
        strategy.add(replace(reply("a", scalar(2.0), 40), term=scalar(change)))
        strategy.aggregate()
        message = strategy.configure(place + 1, list(TWO), scalar(1))["b"]
        assert number(message.pop("mean")) == mean
        assert message == {"keeps": True, "term": True}
    # A sum of no rows tells nothing.
    strategy.add(replace(reply("a", scalar(2.0), 0), term=scalar(5)))
    strategy.add(replace(reply("b", scalar(2.0), 40), term=scalar(1.0)))
    strategy.aggregate()
    assert number(strategy.configure(9, list(TWO), scalar(1))["b"]["mean"]) == 0.25


def test_under_masks_feddyns_mean_term_moves_by_alpha_times_the_share_in_the_sum():
    """h ← h − α · share · (mean of the models − x), and the next model is the mean less h/α."""
    alpha, h, sent = 0.5, 0.0, 1.0
    strategy = make({"kind": "feddyn", "alpha": alpha, "weighting": "uniform"}, SCALAR, TWO, **MASKED)
    for place, (mean, share) in enumerate(((2.0, 1.0), (0.25, 0.5), (3.0, 1.0)), start=1):
        assert strategy.configure(place, list(TWO), scalar(sent))["a"] == {"keeps": True}
        strategy.add(replace(reply("a", scalar(mean), 40), share=share))
        h -= alpha * share * (mean - sent)
        sent = mean - h / alpha
        assert float(strategy.aggregate()["w"]) == pytest.approx(sent, abs=1e-14)


def test_feddyn_pulls_a_site_by_alpha_over_its_share():
    """αᵢ = α / (m pᵢ): of two sites with shares of 1/4 and 3/4, twice α and two thirds of it."""
    strategy = make({"kind": "feddyn", "alpha": 0.3}, SCALAR, TWO)
    messages = strategy.configure(1, list(TWO), scalar(1))
    assert {site: message["mu"] for site, message in messages.items()} == pytest.approx({"a": 0.6, "b": 0.2})


def test_feddyn_with_unequal_shares_follows_the_recursion():
    alpha, sent = 0.3, 1.0
    strategy = make({"kind": "feddyn", "alpha": alpha}, SCALAR, TWO)
    share, terms = {"a": 0.25, "b": 0.75}, {"a": 0.0, "b": 0.0}
    for place, models in enumerate(({"a": 2.0, "b": 4.0}, {"a": 0.0, "b": 3.0}, {"a": 1.5, "b": -1.0}), start=1):
        strategy.configure(place, list(TWO), scalar(sent))
        for site in TWO:
            strategy.add(reply(site, scalar(models[site]), TWO[site]))
            terms[site] -= alpha / (2 * share[site]) * (models[site] - sent)
        h = sum(share[site] * terms[site] for site in TWO)
        sent = sum(models.values()) / 2 - h / alpha
        assert float(strategy.aggregate()["w"]) == pytest.approx(sent, abs=1e-13)


def test_a_second_moment_of_yogi_stays_where_the_squared_step_is_just_as_large():
    """v = tau² = 4, and a step of 2: the sign of their difference is 0."""
    strategy = make({"kind": "fedyogi", "lr": 0.5, "beta1": 0.8, "beta2": 0.9, "tau": 2.0}, SCALAR, {"a": 10})
    assert float(play(strategy, 1, [reply("a", scalar(3), 10)], scalar(1))["w"]) == 1 + 0.5 * (0.2 * 2) / (2 + 2)
    v = 4 + 0.1 * (9 - 4) / abs(9 - 4) * 9
    wanted = 1 + 0.5 * (0.8 * 0.4 + 0.2 * 3) / (v**0.5 + 2)
    assert float(play(strategy, 2, [reply("a", scalar(4), 10)], scalar(1))["w"]) == pytest.approx(wanted, abs=1e-14)
