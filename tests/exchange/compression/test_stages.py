"""Each stage and chains of them: what comes back, what it costs, and what a malformed payload is told."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v6_algorithm import seeding
from v6_algorithm.errors import WireError
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.compression import create_compressor
from v6_algorithm.exchange.compression.lowrank import PowerSGD, RankDAD
from v6_algorithm.exchange.compression.quantise import Half, Int8
from v6_algorithm.exchange.wire import TensorSpec
from v6_algorithm.experiment.strategy.compression import Compression

SPEC = {
    "model.conv": TensorSpec((12, 3, 5, 5), "float32"),
    "model.layer": TensorSpec((40, 70), "float32"),
    "model.bias": TensorSpec((40,), "float32"),
    "model.single": TensorSpec((), "float32"),
    "model.running_mean": TensorSpec((40,), "float32", "buffer"),
}
PARAMETERS = [name for name, item in SPEC.items() if item.kind == "parameter"]
CHAINS = {
    "powersgd": "powersgd",
    "powersgd cold": {"kind": "powersgd", "rank": 2, "warm": False},
    "rankdad": {"kind": "rankdad", "rank": 3},
    "topk": {"kind": "topk", "fraction": 0.05},
    "int8": "int8",
    "powersgd int8": ["powersgd", "int8"],
    "topk int8": [{"kind": "topk", "fraction": 0.1}, "int8"],
    "float16": "float16",
    "powersgd bfloat16": ["powersgd", "bfloat16"],
}
every = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def make(stages, spec=SPEC):
    return create_compressor(Compression.model_validate(stages), spec)


def draw(key=0):
    return lambda what: seeding.torch_generator(0, "test", key, what)


def update(seed, spec=SPEC):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(item.shape, generator=generator, dtype=getattr(torch, item.dtype))
        for name, item in spec.items()
        if item.kind == "parameter"
    }


def over_the_wire(payload):
    return wire.unpack(wire.pack(payload))


@every
def test_what_comes_back_has_names_shapes_and_dtypes_of_the_update(chain):
    compressor = make(chain)
    payload, _ = compressor.encode(update(1), {}, draw())
    wire.check(compressor.decode(over_the_wire(payload)), {name: SPEC[name] for name in PARAMETERS})


@every
def test_a_payload_is_smaller_on_the_wire(chain):
    payload, _ = make(chain).encode(update(1), {}, draw())
    assert len(wire.pack(payload)) < 0.6 * len(wire.pack(update(1)))


@every
def test_the_same_request_gives_the_same_payload(chain):
    first, second = (make(chain).encode(update(1), {}, draw())[0] for _ in range(2))
    assert wire.pack(first) == wire.pack(second)


@every
def test_encoding_leaves_update_and_memory_as_they_are(chain):
    compressor = make(chain)
    _, memory = compressor.encode(update(1), {}, draw())
    given_update, given_memory = update(2), {name: tensor.clone() for name, tensor in memory.items()}
    compressor.encode(given_update, given_memory, draw())
    assert all(torch.equal(given_update[name], tensor) for name, tensor in update(2).items())
    assert all(torch.equal(given_memory[name], tensor) for name, tensor in memory.items())


@every
def test_an_update_of_zeros_comes_back_as_zeros(chain):
    compressor = make(chain)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in update(1).items()}
    payload, memory = compressor.encode(zeros, {}, draw())
    assert not any(tensor.any() for tensor in compressor.decode(over_the_wire(payload)).values())
    # And what follows it is no worse for it.
    payload, _ = compressor.encode(update(1), memory, draw())
    assert compressor.decode(payload)["model.layer"].any()


@every
def test_with_feedback_all_that_was_left_out_is_in_the_residual(chain):
    stages = [
        {"kind": stage} if isinstance(stage, str) else stage
        for stage in (chain if isinstance(chain, list) else [chain])
    ]
    compressor = make([stage | {"feedback": True} for stage in stages])
    memory, arrived, wanted = {}, 0, 0
    for number in range(8):
        payload, memory = compressor.encode(update(number), memory, draw(number))
        arrived = arrived + compressor.decode(over_the_wire(payload))["model.layer"].double()
        wanted = wanted + update(number)["model.layer"].double()
    torch.testing.assert_close(arrived + memory["residual/model.layer"], wanted, rtol=0, atol=1e-4)


def test_a_lost_memory_is_as_in_a_first_round():
    compressor = make("powersgd")
    _, memory = compressor.encode(update(1), {}, draw(1))
    with_it, without = (compressor.encode(update(2), kept, draw(2))[0] for kept in (memory, {}))
    assert wire.pack(without) == wire.pack(make("powersgd").encode(update(2), {}, draw(2))[0]) != wire.pack(with_it)


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 1000))
def test_low_rank_is_exact_at_full_rank(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rank = min(rows, columns)
    for stage in (PowerSGD(rank), RankDAD(rank, 0.0)):
        left, right = stage.factors("w", matrix, {}, draw(seed))
        torch.testing.assert_close(left @ right.T, matrix, rtol=0, atol=1e-9)


@pytest.mark.parametrize("stage", [{"kind": "powersgd", "rank": 3}, {"kind": "rankdad", "rank": 3}])
def test_a_matrix_of_no_higher_rank_comes_back_whole(stage):
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(40, 3, generator=generator) @ torch.randn(3, 70, generator=generator)
    compressor = make(stage)
    payload, _ = compressor.encode(update(1) | {"model.layer": low}, {}, draw())
    torch.testing.assert_close(compressor.decode(payload)["model.layer"], low, rtol=0, atol=1e-4)


def test_rankdad_is_the_truncated_singular_value_decomposition():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 20, generator=generator)).Q for n in (40, 70))
    values = 0.6 ** torch.arange(20)
    matrix = (left * values) @ right.T
    compressor = make({"kind": "rankdad", "rank": 10})
    payload, _ = compressor.encode(update(1) | {"model.layer": matrix}, {}, draw())
    # Ten triples are ten: dinunet drops the last one (seeds.md 2.10).
    assert payload["model.layer:left"].shape == (40, 10)
    best = (left[:, :10] * values[:10]) @ right[:, :10].T
    torch.testing.assert_close(compressor.decode(payload)["model.layer"], best, rtol=0, atol=1e-4)


def test_rankdad_of_rank_one_works_and_its_bias_is_sent_whole():
    """seeds.md 2.10: rank 1 crashed, and the bias' gradient was reckoned from the compressed factors."""
    compressor = make({"kind": "rankdad", "rank": 1})
    payload, _ = compressor.encode(update(1), {}, draw())
    assert payload["model.layer:left"].shape == (40, 1)
    assert torch.equal(compressor.decode(payload)["model.bias"], update(1)["model.bias"])


def test_rankdad_leaves_out_singular_values_below_its_tolerance():
    matrix = torch.zeros(40, 70)
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = 100, 5, 0.5
    for tolerance, kept in ((0.001, 3), (0.01, 2), (0.1, 1)):
        compressor = make({"kind": "rankdad", "rank": 5, "tolerance": tolerance})
        payload, _ = compressor.encode(update(1) | {"model.layer": matrix}, {}, draw())
        assert payload["model.layer:right"].shape == (70, kept)


def test_rankdad_of_a_gradient_is_that_of_its_layers_inputs_and_output_gradients():
    """dinunet's factors: of a batch of b rows, the gradient of a layer has rank b at most."""
    layer = torch.nn.Linear(70, 40)
    inputs = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))
    output = layer(inputs)
    slopes = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    (output * slopes).sum().backward()
    payload, _ = make({"kind": "rankdad", "rank": 10}).encode(
        update(1) | {"model.layer": layer.weight.grad}, {}, draw()
    )
    left, right = payload["model.layer:left"], payload["model.layer:right"]
    assert left.shape == (40, 3)
    torch.testing.assert_close(left @ right.T, slopes.T @ inputs, rtol=0, atol=1e-4)


def test_powersgd_from_the_last_rounds_factor_comes_to_the_leading_directions():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 20, generator=generator)).Q for n in (40, 70))
    matrix = (left * 0.8 ** torch.arange(20)) @ right.T
    best = ((left[:, 2:] * 0.8 ** torch.arange(2, 20)) @ right[:, 2:].T).norm()

    def error(warm):
        compressor, memory = make({"kind": "powersgd", "rank": 2, "warm": warm, "feedback": False}), {}
        for number in range(30):
            payload, memory = compressor.encode(update(1) | {"model.layer": matrix}, memory, draw(number))
        return float((compressor.decode(payload)["model.layer"] - matrix).norm() / best)

    assert error(True) == pytest.approx(1, abs=1e-3)
    assert error(False) > 1.01


def test_topk_keeps_the_largest_and_all_of_them_where_that_is_smaller():
    compressor = make({"kind": "topk", "fraction": 0.05, "feedback": False})
    payload, _ = compressor.encode(update(1), {}, draw())
    given_layer, found = update(1)["model.layer"], compressor.decode(payload)["model.layer"]
    kept = given_layer.abs() >= given_layer.abs().flatten().topk(140).values.min()
    assert torch.equal(found, given_layer * kept)
    whole = make({"kind": "topk", "fraction": 1.0})
    payload, _ = whole.encode(update(1), {}, draw())
    assert all(torch.equal(tensor, update(1)[name]) for name, tensor in whole.decode(payload).items())


def test_int8_is_right_on_average_and_off_by_no_more_than_a_step():
    stage, tensor = Int8(), torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    step = float(tensor.abs().max()) / 127
    found = torch.stack(
        [stage.decode(stage.encode({"w": tensor}, {}, draw(number)), {})["w"] for number in range(4000)]
    )
    assert float((found - tensor).abs().max()) <= step * (1 + 1e-9)
    # Of a rounding with chance p the standard deviation is at most step / 2; six of them of the mean of 4000.
    torch.testing.assert_close(found.mean(dim=0), tensor.double(), rtol=0, atol=6 * step / 2 / 4000**0.5)


def test_int8_rounds_by_chance_and_not_to_the_nearest():
    tensor = torch.full((100, 100), 0.25)
    tensor[0, 0] = 127.0
    payload = Int8().encode({"w": tensor}, {}, draw())
    assert 2200 < int((payload["w:int8"] == 1).sum()) < 2800


@pytest.mark.parametrize(("kind", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_two_bytes_are_off_by_half_a_step_and_never_infinite(kind, error):
    tensor = torch.cat([torch.randn(500, generator=torch.Generator().manual_seed(0)), torch.tensor([3e38, -3e38, 0.0])])
    payload = Half(kind).encode({"w": tensor, "n": torch.tensor([7])}, {}, draw())
    assert payload["w:half"].nbytes == tensor.nbytes / 2
    found = Half(kind).decode(over_the_wire(payload), {})
    assert torch.equal(found["n"], torch.tensor([7]))
    assert torch.isfinite(found["w"]).all()
    large = tensor.abs() > 6.1e-5
    limit = torch.finfo(getattr(torch, kind)).max
    near = tensor.double().clamp(-limit, limit)
    assert float(((found["w"] - near).abs() / near.abs())[large].max()) <= error


def test_error_feedback_lets_compressed_gradient_descent_reach_a_minimum_that_it_misses_without():
    """A quadratic whose gradient has its small numbers in the way of top-k."""
    spec = {"w": TensorSpec((300,), "float64")}
    goal = torch.linspace(-1, 1, 300, dtype=torch.float64) ** 3
    curvature = torch.linspace(0.2, 1, 300, dtype=torch.float64)

    def distance(feedback):
        compressor = make({"kind": "topk", "fraction": 0.01, "feedback": feedback}, spec)
        point, memory = torch.zeros_like(goal), {}
        for number in range(3000):
            step = {"w": -0.02 * curvature * (point - goal)}
            payload, memory = compressor.encode(step, memory, draw(number))
            point = point + compressor.decode(payload)["w"]
        return float((point - goal).norm())

    assert distance(True) < 1e-3 < 0.1 < distance(False)


@pytest.mark.parametrize("rank", [1, 4])
def test_powersgd_descends_a_quadratic_over_matrices_to_its_minimum(rank):
    spec = {"w": TensorSpec((30, 20), "float64")}
    goal = torch.randn(30, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    compressor, point, memory = make({"kind": "powersgd", "rank": rank}, spec), torch.zeros_like(goal), {}
    for number in range(500):
        payload, memory = compressor.encode({"w": -0.05 * (point - goal)}, memory, draw(number))
        point = point + compressor.decode(payload)["w"]
    assert float((point - goal).norm()) < 1e-3


BROKEN = {
    "a factor is missing": ("powersgd", lambda p: p.pop("model.layer:left")),
    "factors do not match": ("powersgd", lambda p: p.update({"model.layer:left": torch.zeros(40, 3)})),
    "a rank over the limit": (
        "powersgd",
        lambda p: p.update({"model.layer:left": torch.zeros(40, 9), "model.layer:right": torch.zeros(70, 9)}),
    ),
    "a factor of no dimension": ("powersgd", lambda p: p.update({"model.layer:left": torch.zeros(())})),
    "a NaN": ("powersgd", lambda p: p["model.layer:left"].fill_(float("nan"))),
    "an unknown tensor": ("powersgd", lambda p: p.update({"model.other": torch.zeros(3)})),
    "a whole tensor is missing": ("powersgd", lambda p: p.pop("model.bias")),
    "an index out of range": ("topk", lambda p: p["model.layer:indices"][-1].fill_(2800)),
    "a negative index": ("topk", lambda p: p["model.layer:indices"][0].fill_(-1)),
    "an index twice": ("topk", lambda p: p["model.layer:indices"][1].copy_(p["model.layer:indices"][0])),
    "too many numbers": ("topk", lambda p: p.update({"model.layer:values": torch.zeros(999)})),
    "indices of another dtype": (
        "topk",
        lambda p: p.update({"model.layer:indices": p["model.layer:indices"].long()}),
    ),
    "a scale that is infinite": (
        "int8",
        lambda p: p.update({"model.layer:scale": torch.tensor(float("inf"), dtype=torch.float64)}),
    ),
    "a scale for each number": ("int8", lambda p: p.update({"model.layer:scale": torch.ones(70).double()})),
    "numbers of another two bytes": (
        "float16",
        lambda p: p.update({"model.layer:half": p["model.layer:half"].bfloat16()}),
    ),
    "no scale": ("int8", lambda p: p.pop("model.layer:scale")),
    "another shape": ("int8", lambda p: p.update({"model.layer:int8": torch.zeros(3, 3, dtype=torch.int8)})),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_payload_is_refused(name):
    stages, change = BROKEN[name]
    compressor = make(stages)
    payload, _ = compressor.encode(update(1), {}, draw())
    change(payload)
    with pytest.raises(WireError):
        compressor.decode(payload)
