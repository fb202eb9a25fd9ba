"""Sites that were trained together: their tensors are layers of stacks, checked and added up at once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from playing import SCALAR, SPEC, make, reply, scalar, state

from v6_algorithm.coordinator.strategies.averaging import Gathered, WeightedMean
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.joint import JointTraining
from v6_algorithm.exchange.wire import TensorSpec

COUNTED = {"w": TensorSpec((2,), "float64"), "steps": TensorSpec((), "int64", "counter")}
ROWS = {"a": 10, "b": 30, "c": 5}


def stacked(sites, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.rand(sites, 2, generator=generator, dtype=torch.float64),
        "steps": torch.randint(1, 99, (sites,), generator=generator),
    }


def one_by_one(stacks, layers, weights):
    """Return the mean and the largest count of some layers, in plain numbers."""
    chosen, weights = stacks["w"].numpy()[layers], np.array(weights)
    return (chosen * weights[:, None]).sum(axis=0) / weights.sum(), int(stacks["steps"].numpy()[layers].max())


@pytest.mark.parametrize("layers", [[0], [2], [0, 1, 2], [2, 0, 1], [2, 0], [1, 2]], ids=str)
def test_layers_of_a_stack_in_any_order_are_added_as_by_themselves(layers):
    stacks, weights, mean = stacked(3), [3.0, 1.0, 7.0], WeightedMean(COUNTED)
    for layer in layers:
        mean.add(wire.Stacked(stacks, layer), weights[layer])
    found, (wanted, largest) = mean.combined(), one_by_one(stacks, layers, [weights[layer] for layer in layers])
    assert found["w"].tolist() == pytest.approx(wanted)
    assert int(found["steps"]) == largest


@pytest.mark.parametrize("weights", [[3.0, 1.0, 7.0], [3.0, 0.0, 7.0], [0.0, 0.0, 2.0], [0.5, 0.0, 0.0]], ids=str)
def test_a_whole_stack_is_added_but_for_sites_without_weight(weights):
    stacks, mean = stacked(3), WeightedMean(COUNTED)
    stacks["steps"] = torch.where(torch.tensor(weights) > 0, stacks["steps"], 1000)
    mean.add_stack(stacks, list(COUNTED), weights)
    layers = [layer for layer, weight in enumerate(weights) if weight]
    found, (wanted, largest) = mean.combined(), one_by_one(stacks, layers, [weights[layer] for layer in layers])
    assert found["w"].tolist() == pytest.approx(wanted)
    assert int(found["steps"]) == largest < 1000


def test_a_stack_without_any_weight_is_nothing():
    mean = WeightedMean(COUNTED)
    mean.add_stack(stacked(2), list(COUNTED), [0.0, 0.0])
    with pytest.raises(ValueError, match="no site with a training row"):
        mean.combined()


def test_a_rule_does_not_see_sites_without_weight():
    """Issue 13: zero-weight sites in robust rules."""
    seen = []
    gathered = Gathered(COUNTED, lambda rows, weights: seen.append(weights.tolist()) or torch.stack(rows).sum(dim=0))
    stacks = stacked(3)
    for layer, weight in enumerate((2.0, 0.0, 5.0)):
        gathered.add({name: stack[layer] for name, stack in stacks.items()}, weight)
    found = gathered.combined()
    assert seen == [[2.0, 5.0]]
    assert torch.equal(found["w"], stacks["w"][0] + stacks["w"][2])
    # Of two counts the lower.
    assert int(found["steps"]) == min(int(stacks["steps"][0]), int(stacks["steps"][2]))


# -- joint replies ---------------------------------------------------------------------------------------------------


def joint(spec=SCALAR, **changes):
    layers = torch.tensor([[2.0], [4.0], [-1.0]], dtype=torch.float64)
    told = {
        "sites": list(ROWS), "rows": list(ROWS.values()), "steps": [1, 2, 3], "losses": [0.5, 1.0, 2.0],
        "seen": [1, 2, 3], "stacks": [({"w": layers[[2, 0]]}, [2, 0]), ({"w": layers[[1]]}, [1])],
        "names": ["w"], "checked": spec,
    }  # fmt: skip
    return JointTraining(**told | changes)


@pytest.mark.parametrize(
    ("weighting", "weights"), [("samples", [10, 30, 5]), ("uniform", [1, 1, 1]), ("steps", [1, 2, 3])]
)
def test_joint_replies_of_any_sizes_from_one_row_on_are_averaged(weighting, weights):
    strategy = make({"kind": "fedavg", "weighting": weighting}, SCALAR, ROWS)
    strategy.configure(1, list(ROWS), scalar(0))
    assert strategy.takes_joint
    strategy.add_joint(joint())
    assert float(strategy.aggregate()["w"]) == pytest.approx(np.average([2, 4, -1], weights=weights))


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": [10, 0, 5]}, {"rows": [-1, 30, 5]}, {"seen": [1, 2, 0]}, {"steps": [0, 2, 3]}, {"steps": [1, 2]},
        {"losses": [0.5, math.nan, 2.0]}, {"losses": [math.inf, 1.0, 2.0]},
        {"stacks": [({"w": torch.zeros(2, 1, dtype=torch.float64)}, [0, 1])]},
        {"stacks": [({"w": torch.zeros(4, 1, dtype=torch.float64)}, [0, 1, 2, 2])]},
        {"stacks": [({"w": torch.zeros(3, 1, dtype=torch.float64)}, [0, 1, 3])]},
        {"stacks": [({"w": torch.zeros(3, 2, dtype=torch.float64)}, [0, 1, 2])]},
        {"stacks": [({"w": torch.zeros(3, 1)}, [0, 1, 2])]}, {"names": ["w", "v"]},
    ],
)  # fmt: skip
def test_joint_replies_with_anything_wrong_are_refused_and_none_is_added(changes):
    strategy = make("fedavg", SCALAR, ROWS)
    strategy.configure(1, list(ROWS), scalar(0))
    with pytest.raises(WireError):
        strategy.check_joint(joint(**changes))
    with pytest.raises(ValueError, match="no site with a training row"):
        strategy.aggregate()


def test_one_site_of_one_row_and_step_is_a_joint_reply_too():
    strategy = make("fedavg", SCALAR, {"a": 1})
    strategy.configure(1, ["a"], scalar(0))
    alone = {"w": torch.tensor([[7.0]], dtype=torch.float64)}
    strategy.add_joint(joint(sites=["a"], rows=[1], steps=[1], losses=[0.0], seen=[1], stacks=[(alone, [0])]))
    assert float(strategy.aggregate()["w"]) == 7


@pytest.mark.parametrize(
    ("strategy", "spec", "taken"),
    [
        ("fedavg", SCALAR, True),
        ({"kind": "fedavg", "clip": 1.0}, SCALAR, True),
        ({"kind": "fedavg", "compress": [{"kind": "topk", "fraction": 0.5}]}, SCALAR, False),
        # Derived from one that takes them, without a word of its own; it looks at each reply.
        ("cyclic", SCALAR, False),
        ("fedavg", SCALAR | {"v": TensorSpec((1,), "float64", "frozen")}, False),
    ],
)
def test_who_says_so_takes_joint_replies_of_whole_models(strategy, spec, taken):
    assert make(strategy, spec, ROWS).takes_joint is taken


MEANS = {name: item for name, item in SPEC.items() if name != "model.running_var"} | {
    "model.average": TensorSpec((3,), "float64", "buffer")
}
LEARN_ALIKE = {
    "plain": "fedavg",
    "by steps": {"kind": "fedavg", "weighting": "steps"},
    "clipped": {"kind": "fedavg", "clip": 0.5},
    "momentum": "fedavgm",
    "adam": "fedadam",
    "gradients": "fedsgd",
    "gradients, clipped median": {"kind": "fedsgd", "clip": 0.5, "combine": {"kind": "median", "malicious": 0}},
    "prox": {"kind": "fedprox", "adaptive": True},
    "moon": {"kind": "moon", "clip": 0.5},
    "scaffold": "scaffold",
    "nova": "fednova",
    "dyn": {"kind": "feddyn", "alpha": 0.1},
    "q": {"kind": "qfedavg", "q": 2.0},
    "agnostic": {"kind": "agnostic", "clip": 0.5},
    "median": {"kind": "fedavg", "combine": {"kind": "median", "malicious": 0}},
    "clipped median": {"kind": "fedavg", "clip": 0.5, "combine": {"kind": "median", "malicious": 0}},
}


@pytest.mark.parametrize("spec", [MEANS, SPEC], ids=["means", "moments"])
@pytest.mark.parametrize("kind", LEARN_ALIKE)
def test_joint_replies_teach_what_single_ones_do(kind, spec):
    alone, together = (make(LEARN_ALIKE[kind], spec, ROWS) for _ in range(2))
    assert together.takes_joint
    sites, steps, losses = list(ROWS), [1, 2, 5], [0.5, 1.5, 0.25]
    sent, start = None, model(0, spec)
    for number in (1, 2, 3):
        messages = [strategy.configure(number, sites, sent) for strategy in (alone, together)]
        check_same(*({site: texts_of(message) for site, message in of_all.items()} for of_all in messages))
        asks_start = any("start" in message for message in messages[0].values())
        states = [model(10 * number + place, spec) for place in range(3)]
        for place, site in enumerate(sites):
            answer = reply(site, states[place], ROWS[site], steps[place], losses[place])
            alone.add(dataclasses.replace(answer, start=start if asks_start else None))
        stacks = [
            ({name: torch.stack([states[place][name] for place in places]) for name in spec}, places)
            for places in ([2, 0], [1])
        ]
        training = JointTraining(
            sites, list(ROWS.values()), steps, losses, [1, 1, 1], stacks, list(spec), spec,
            wire.Held(start, spec) if asks_start else None,
            [loss + 0.1 for loss in losses] if together.needs_start_loss else None,
        )  # fmt: skip
        together.check_joint(training)
        together.add_joint(training)
        sent, other = (strategy.aggregate() for strategy in (alone, together))
        check_same(sent, other)
        check_same(alone.state_dict(), together.state_dict())


def model(seed, spec):
    return {name: value.to(getattr(torch, spec[name].dtype)) for name, value in state(seed, spec).items()}


def texts_of(message):
    message = message | {"own": message["contrast"]["own"], "contrast": 1} if "contrast" in message else message
    held = {key: wire.unpack(value) for key, value in message.items() if isinstance(value, wire.Held)}
    return {key: value for key, value in message.items() if key not in held} | {
        f"{key}/{name}": tensor for key, tensors in held.items() for name, tensor in tensors.items()
    }


def check_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            check_same(value, other[name])
        elif isinstance(value, torch.Tensor):
            assert torch.allclose(value, other[name], rtol=1e-12, atol=1e-14), name
        else:
            assert value == other[name], name


@pytest.mark.parametrize("changes", [{}, {"start": "other"}, {"start_losses": [0.1, math.nan, 0.2]}], ids=str)
def test_what_is_told_beside_the_models_must_be_what_was_asked_for(changes):
    strategy = make("qfedavg", SCALAR, ROWS)
    strategy.configure(1, list(ROWS), None)
    right = {"start": wire.Held(scalar(1.0), SCALAR), "start_losses": [0.1, 0.3, 0.2]}
    strategy.check_joint(joint(**right))
    strategy.sent = scalar(1.0)
    wrong = right | changes if changes else {}
    if "start" in changes:
        wrong["start"] = wire.Held(scalar(2.0), SCALAR)
    with pytest.raises(WireError):
        strategy.check_joint(joint(**wrong))


def test_scaled_updates_without_an_origin_are_refused():
    with pytest.raises(ValueError, match="without origin"):
        WeightedMean(COUNTED).add_stack(stacked(2), list(COUNTED), [1.0, 2.0], scales=[0.5, 1.0])
