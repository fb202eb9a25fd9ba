"""torch's optimisers and schedulers by name: tried before any site is asked."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from v6_algorithm.experiment.optimisers import (
    build_optimiser,
    build_scheduler,
    check_optimiser,
    check_scheduler,
    did_you_mean,
    group_in_round,
    optimisers,
    rate_after,
    schedulers,
)


def weights():
    return [torch.nn.Parameter(torch.ones(3, 2))]


def test_the_common_optimisers_are_there():
    assert {"sgd", "adam", "adamw", "rmsprop", "adagrad"} <= optimisers().keys()


def test_the_common_schedulers_are_there():
    assert {"steplr", "cosineannealinglr", "exponentiallr", "onecyclelr"} <= schedulers().keys()


@pytest.mark.parametrize("kind", sorted(optimisers()))
def test_every_optimiser_that_is_allowed_takes_a_plain_step(kind):
    parameters = weights()
    optimiser = build_optimiser(kind, {}, parameters)
    parameters[0].grad = torch.ones(3, 2)
    optimiser.step()
    assert torch.isfinite(parameters[0]).all()


@pytest.mark.parametrize("kind", sorted(optimisers()))
def test_an_optimiser_takes_the_steps_of_torchs_own(kind):
    ours, theirs = weights(), weights()
    pairs = [(build_optimiser(kind, {}, ours), ours[0]), (optimisers()[kind](theirs), theirs[0])]
    for optimiser, parameter in pairs:
        for step in range(4):
            optimiser.zero_grad()
            (parameter * torch.arange(6.0).reshape(3, 2) + step).square().sum().backward()
            optimiser.step()
    assert torch.equal(ours[0], theirs[0])


@pytest.mark.slow
def test_training_does_not_load_torchs_compiler():
    """It takes a second, in every container of every round."""
    code = (
        "import sys, torch; from v6_algorithm.experiment.optimisers import build_optimiser, build_scheduler\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "optimiser = build_optimiser('adam', {}, [weight])\n"
        "scheduler = build_scheduler('steplr', {'step_size': 1}, optimiser)\n"
        "optimiser.zero_grad(); weight.sum().backward(); optimiser.step(); scheduler.step()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("kind", "why"),
    [("LBFGS", "needs a closure"), ("SparseAdam", "needs sparse gradients"), ("Optimizer", "is abstract")],
)
def test_an_optimiser_that_a_plain_loop_cannot_drive_is_refused(kind, why):
    with pytest.raises(ValueError, match=f"unknown optimizer '{kind}'"):
        check_optimiser(kind, {})


@pytest.mark.parametrize("kind", ["LambdaLR", "SequentialLR", "LRScheduler"])
def test_a_scheduler_that_needs_more_than_numbers_is_refused(kind):
    with pytest.raises(ValueError, match=f"unknown scheduler '{kind}'"):
        check_scheduler(kind, {})


@pytest.mark.parametrize("kind", ["adam", "Adam", "ADAM"])
def test_capitals_do_not_matter(kind):
    assert isinstance(build_optimiser(kind, {"lr": 0.1}, weights()), torch.optim.Adam)


def test_options_reach_torch():
    optimiser = build_optimiser("sgd", {"lr": 0.5, "momentum": 0.9, "nesterov": True}, weights())
    assert [optimiser.defaults[name] for name in ("lr", "momentum", "nesterov")] == [0.5, 0.9, True]


def test_a_scheduler_changes_the_rate_of_its_optimiser():
    optimiser = build_optimiser("sgd", {"lr": 1.0}, weights())
    scheduler = build_scheduler("ExponentialLR", {"gamma": 0.5}, optimiser)
    optimiser.step()
    scheduler.step()
    assert optimiser.param_groups[0]["lr"] == 0.5


def test_a_cyclic_schedule_passes_the_check():
    check_scheduler("OneCycleLR", {"max_lr": 0.1, "total_steps": 20})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("adamm", {}, r"unknown optimizer 'adamm' \(did you mean 'adam'\?\); allowed: .*adamw"),
        ("adam", {"learning": 1}, r"unknown option 'learning' of Adam; allowed: lr, betas"),
        ("adam", {"weightdecay": 1}, r"did you mean 'weight_decay'\?"),
        ("adam", {"lr": -1}, r"Adam\(lr=-1\): Invalid learning rate"),
        ("adam", {"betas": [0.9]}, r"Adam\(betas=\[0.9\]\)"),
        ("adam", {"betas": 3}, r"Adam\(betas=3\)"),
        ("adam", {"lr": "fast"}, r"Adam\(lr='fast'\)"),
        ("adam", {"foreach": True, "fused": True}, r"Adam\(foreach=True, fused=True\)"),
        ("sgd", {"nesterov": True}, r"SGD\(nesterov=True\)"),
    ],
)
def test_a_refusal_names_the_option_and_its_value(kind, options, message):
    with pytest.raises(ValueError, match=message):
        check_optimiser(kind, options)


def test_the_parameters_are_no_option():
    with pytest.raises(ValueError, match="unknown option 'params'"):
        check_optimiser("adam", {"params": []})
    with pytest.raises(ValueError, match="unknown option 'optimizer'"):
        check_scheduler("StepLR", {"optimizer": None, "step_size": 1})


def test_did_you_mean_says_nothing_about_what_is_far_off():
    assert did_you_mean("auc", ["auroc", "loss"]) == " (did you mean 'auroc'?)"
    assert did_you_mean("xyz", ["auroc", "loss"]) == ""


def test_reduce_on_plateau_follows_scores_and_not_rounds():
    plateau = ("ReduceLROnPlateau", {"patience": 0, "factor": 0.5})
    assert group_in_round("sgd", {"lr": 0.4}, plateau, 9)["lr"] == 0.4
    assert group_in_round("sgd", {"lr": 0.4}, plateau, 9, lr=0.1)["lr"] == 0.1
    assert [rate_after("sgd", {"lr": 0.4}, plateau, [1.0] * number) for number in range(4)] == [0.4, 0.4, 0.2, 0.1]


@pytest.mark.parametrize("options", [{"lr": 1e50}, {"lr": 10**400}, {"lr": 0.1, "momentum": -1e60}])
def test_a_number_that_no_float32_holds_is_refused_before_a_step(options):
    with pytest.raises(ValueError, match=f"optimizer {list(options)[-1]}: a number larger than 3e"):
        check_optimiser("sgd", options)


def test_a_scheduler_that_takes_the_rate_beyond_is_named_at_the_step():
    from v6_algorithm.errors import SiteError
    from v6_algorithm.learning.training.objectives import take_step

    (parameter,) = weights()
    parameter.grad = torch.ones(3, 2)
    with pytest.raises(SiteError, match="larger than the number format") as refused:
        take_step(torch.optim.SGD([parameter], lr=1e60))
    assert refused.value.kind == "diverged"
