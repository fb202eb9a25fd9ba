"""Differential privacy of whole sites over a real server and nodes: booked as here, and noised as it is booked."""

from __future__ import annotations

import math

import pytest
from training import files, patients_experiment, train, train_here

from v6_algorithm.exchange import wire
from v6_algorithm.learning.privacy.accountant import Steps, noise_for

EPSILON, DELTA, CLIP, ROUNDS, SITES = 8.0, 1e-3, 0.5, 2, "abc"


def test_the_updates_of_nodes_have_the_noise_that_is_booked_and_it_is_nobody_elses(three_sites):
    privacy = {"differential_privacy": {"unit": "site", "epsilon": EPSILON, "delta": DELTA, "clip": CLIP}}
    experiment = patients_experiment(
        rounds=ROUNDS, model={"kind": "mlp", "hidden": [64], "norm": "none"}, strategy={"weighting": "uniform"},
        stopping={"patience": None}, output={"model": "last"}, privacy=privacy,
    )  # fmt: skip
    result = train(three_sites, experiment)
    here = train_here(files(three_sites, SITES), experiment)
    assert (result["status"], result["rounds_run"]) == ("completed", ROUNDS)
    told = result["differential_privacy"]
    assert told == here["differential_privacy"]
    assert told["unit"] == "site"
    assert list(told["sites"]) == list(SITES)
    assert 0 < told["sites"]["a"]["by_round"]["1"] < told["epsilon"] <= EPSILON
    assert result["history"]["epsilon"] == pytest.approx(here["history"]["epsilon"])
    # The seed is one and the noise another: two runs are as far apart as twice the noise of a mean over the sites. What
    # the updates themselves are apart is at most the clip, over 322 parameters.
    ours, theirs = (wire.unpack(content["parameters"]) for content in (result, here))
    square = sum(float(((ours[name] - theirs[name]).double() ** 2).sum()) for name in ours)
    apart = math.sqrt(square / sum(tensor.numel() for tensor in ours.values()))
    noise = CLIP * noise_for([Steps(1.0, 1.0, ROUNDS)], EPSILON, DELTA)
    assert apart == pytest.approx(noise * math.sqrt(2 * ROUNDS / len(SITES)), rel=0.2)
