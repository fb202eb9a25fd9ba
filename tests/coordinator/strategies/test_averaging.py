"""The running weighted mean against the formula, and the traps that others fell into."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm.coordinator.strategies.averaging import Gathered, WeightedMean, cast
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.wire import TensorSpec

SPEC = {
    "model.weight": TensorSpec((2, 3), "float32"),
    "model.running_mean": TensorSpec((3,), "float32", "buffer"),
    "model.num_batches_tracked": TensorSpec((), "int64", "counter"),
}


def state(seed: int, count: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "model.weight": torch.randn(2, 3, generator=generator),
        "model.running_mean": torch.randn(3, generator=generator),
        "model.num_batches_tracked": torch.tensor(count),
    }


def mean_of(states, weights, spec=SPEC):
    mean = WeightedMean(spec)
    for one, weight in zip(states, weights, strict=True):
        mean.add(one, weight)
    return cast(mean.combined(), spec)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_mean_equals_the_formula_in_float64(weights):
    states = [state(seed) for seed in range(len(weights))]
    for name in ("model.weight", "model.running_mean"):
        wanted = sum(one[name].double() * weight for one, weight in zip(states, weights, strict=True)) / sum(weights)
        torch.testing.assert_close(mean_of(states, weights)[name], wanted.float(), rtol=0, atol=1e-7)


def test_identical_sites_give_their_model_to_the_bit():
    mean = mean_of([state(1)] * 3, [7, 11, 13])
    assert all(torch.equal(mean[name], state(1)[name]) for name in SPEC)


def test_order_of_sites_changes_nothing():
    means = [
        mean_of([state(seed) for seed in order], [seed + 1 for seed in order])
        for order in itertools.permutations(range(4))
    ]
    for mean in means[1:]:
        for name in SPEC:
            torch.testing.assert_close(mean[name], means[0][name], rtol=0, atol=1e-7)


def test_zero_weight_site_changes_nothing():
    with_it = mean_of([state(1, 3), state(2, 99), state(3, 5)], [4, 0, 6])
    without = mean_of([state(1, 3), state(3, 5)], [4, 6])
    assert all(torch.equal(with_it[name], without[name]) for name in SPEC)


def test_integer_counters_are_not_averaged_as_floats():
    """peers.md trap 2: 7 and 9 became 8.4 of float64."""
    mean = mean_of([state(1, 7), state(2, 9)], [3, 7])
    assert mean["model.num_batches_tracked"].item() == 9
    assert mean["model.num_batches_tracked"].dtype == torch.int64


def test_batch_norm_buffers_are_averaged_not_left_as_one_sites():
    """peers.md trap 3: parameters only, and evaluation with client 0's statistics."""
    first, second = state(1), state(2)
    mean = mean_of([first, second], [1, 1])["model.running_mean"]
    torch.testing.assert_close(mean, (first["model.running_mean"] + second["model.running_mean"]) / 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_mean_has_the_dtype_of_the_model(dtype):
    spec = {"w": TensorSpec((2,), dtype)}
    one, two = (torch.tensor(values).to(getattr(torch, dtype)) for values in ([1.0, 2.0], [3.0, 6.0]))
    mean = mean_of([{"w": one}, {"w": two}], [1, 1], spec)["w"]
    assert mean.dtype == getattr(torch, dtype)
    assert mean.tolist() == [2.0, 4.0]


def test_adding_does_not_change_the_reply():
    one = state(1)
    kept = {name: tensor.clone() for name, tensor in one.items()}
    mean_of([one, state(2)], [1, 2])
    assert all(torch.equal(one[name], kept[name]) for name in SPEC)


def test_nothing_to_average_is_an_error_not_a_nan():
    with pytest.raises(ValueError, match="no site with a training row"):
        mean_of([state(1)], [0])


@pytest.mark.parametrize("sites", [2, 3, 4, 5])
def test_beside_a_robust_rule_buffers_are_the_median_also_of_an_even_number_of_sites(sites):
    """The lower of two would make a network's average over training, a buffer, lower in all of its numbers."""
    gathered = Gathered(SPEC, lambda rows, weights: rows[0].double())
    states = [state(seed, count=seed) for seed in range(sites)]
    for one in states:
        gathered.add(one, 1)
    combined = gathered.combined()
    means = torch.stack([one["model.running_mean"] for one in states]).double()
    assert torch.equal(combined["model.running_mean"], torch.quantile(means, 0.5, dim=0))
    assert int(combined["model.num_batches_tracked"]) == (sites - 1) // 2


def test_of_counters_in_stacks_the_largest_of_all_stacks_is_kept():
    """Sites that were trained together come as layers of a stack; those of another stack must not replace them."""
    spec = {"w": TensorSpec((1,), "float64"), "steps": TensorSpec((), "int64", "counter")}
    mean = WeightedMean(spec)
    for values, counts in (((1.0, 2.0), (5, 9)), ((4.0, 9.0), (7, 3))):
        stacks = {"w": torch.tensor(values, dtype=torch.float64)[:, None], "steps": torch.tensor(counts)}
        for layer in range(2):
            mean.add(wire.Stacked(stacks, layer), 1.0)
    found = mean.combined()
    assert (found["w"].tolist(), found["steps"].item()) == ([4.0], 9)
