"""What aidotse/decentralizedAI_dermatology got wrong: a test for each of its bugs, that fails where we have it too.

The list and its numbers are those of seeds.md, section 3.7. Here each bug is looked at from outside, by a run; the
rooms of the tests hold what is asked of each part.

| bug | where it went |
|---|---|
| 1, patients in training and in test | `tests/data/test_splits.py`: all rows of a `data.group` are in one part |
| 3, `bn` misses the normalisation of a ResNet's shortcuts | `tests/learning/training/test_patterns.py` |
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from v6_algorithm.coordinator.master import run
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.exchange import wire
from v6_algorithm.site import SiteContext

PLATEAU = {"kind": "reducelronplateau", "patience": 0, "factor": 0.2, "threshold": 0.5}


def test_2_the_best_model_is_a_copy_and_not_the_last_one(spied, make_experiment):
    """`best_model = model.eval()` was another name for the model that trained on."""
    training = {"optimizer": {"kind": "sgd", "lr": 3.0}, "batch_size": 4}
    spy, result = spied(make_experiment(rounds=6, training=training, stopping={"patience": None}))
    losses = result["history"]["validation_loss"]
    best = result["best_round"]
    assert best == 1 + int(np.argmin(losses)) < 6, "a rate this large makes later rounds worse"
    # The model of a round is what the sites are sent in the next.
    after = spy.of("RPC_train")[best]["berlin"]["folds"][0]["parameters"]
    sent, kept = wire.unpack(after), wire.unpack(result["parameters"])
    assert all(torch.equal(sent[name], kept[name]) for name in sent)


def test_2_early_stopping_and_the_scheduler_outlast_a_round(spied, make_experiment):
    """Both were made anew in each round of two epochs, so neither ever had the patience to act."""
    training = {"optimizer": {"kind": "sgd", "lr": 0.01}, "scheduler": PLATEAU}
    _, result = spied(make_experiment(rounds=12, training=training, stopping={"patience": 4, "min_delta": 10.0}))
    assert result["rounds_run"] < 12
    rates = result["history"]["train_lr"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


@pytest.mark.parametrize(
    ("section", "steps"),
    [
        ({"local_epochs": {1: 1, 2: 2}}, lambda rows, number: -(-rows // 8) * min(number, 2)),
        ({"local_steps": {1: 2, 3: 5}}, lambda rows, number: 2 if number < 3 else 5),
    ],
    ids=["epochs", "steps"],
)
def test_3_what_a_round_is_configured_to_do_is_done(spied, make_experiment, section, steps):
    """`on_fit_config` said one local epoch in round 1 and two from round 2 on; the clients ignored it."""
    spy, result = spied(make_experiment(rounds=4, training={**section, "batch_size": 8}, stopping={"patience": None}))
    done = {
        (site, reply["round"]): (reply["folds"][0]["steps"], reply["folds"][0]["loss"]["rows"])
        for method, site, reply in spy.replies
        if method == "RPC_train"
    }
    assert len(done) == 12
    for (site, number), (made, seen) in done.items():
        rows = result["sites"][site]["n"]["train"]
        assert made == steps(rows, number)
        if "local_epochs" in section:
            assert seen == rows * min(number, 2)
    (key,) = section
    assert result["experiment"]["training"][key] == {str(first): times for first, times in section[key].items()}


def test_3_own_normalisation_outlasts_the_process_that_trained_it(tables, make_experiment, tmp_path):
    """In the multiprocessing client each round's process made the model anew, and the site's BatchNorm was lost."""
    experiment = make_experiment(
        model={"kind": "mlp", "hidden": [6], "norm": "batch"},
        strategy={"private": "norm"},
        output={"model": "last"},
        stopping={"patience": None},
    )

    class Forgetful(LocalFederation):
        """Each call finds a new process, which shares the folder of the run with the one before."""

        def call(self, method, requests, *, deadline_s):
            sites = {name: SiteContext({name: source}, state=tmp_path / name) for name, source in tables.items()}
            return LocalFederation(sites).call(method, requests, deadline_s=deadline_s)

    lasting = run(LocalFederation({name: SiteContext({name: source}) for name, source in tables.items()}), experiment)
    forgetful = run(Forgetful({name: SiteContext({name: source}) for name, source in tables.items()}), experiment)
    assert forgetful["parameters"] == lasting["parameters"]
    assert forgetful["metrics"] == lasting["metrics"]
