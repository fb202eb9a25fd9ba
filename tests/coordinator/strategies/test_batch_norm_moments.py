"""The running variance that sites average is the variance of all their rows, not only within sites."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import make, play, reply

from v6_algorithm.exchange.wire import TensorSpec, spec_from_json
from v6_algorithm.learning.training.state import load_state, spec_of
from v6_algorithm.learning.training.state import state_of as tensors_of

SPEC = {
    "bn.weight": TensorSpec((2,), "float32", "parameter"),
    "bn.running_mean": TensorSpec((2,), "float64", "buffer"),
    "bn.running_var": TensorSpec((2,), "float64", "buffer"),
    "ema": TensorSpec((2,), "float64", "buffer"),
}


def state_of(rows):
    """A state whose statistics are those of (n, 2) rows."""
    return {
        "bn.weight": torch.ones(2),
        "bn.running_mean": torch.tensor(rows.mean(axis=0)),
        "bn.running_var": torch.tensor(rows.var(axis=0)),
        "ema": torch.tensor(rows.var(axis=0)),
    }


def merged(sites, strategy="fedavg"):
    rows = {f"site-{number}": len(values) for number, values in enumerate(sites)}
    strategy = make(strategy, SPEC, rows)
    replies = [reply(name, state_of(values), rows[name]) for name, values in zip(rows, sites, strict=True)]
    return play(strategy, 1, replies, state_of(sites[0]))


@given(st.lists(st.tuples(st.integers(2, 30), st.floats(-1e4, 1e4)), min_size=1, max_size=6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_merged_variance_is_that_of_all_rows_together(sites, seed):
    generator = np.random.default_rng(seed)
    tables = [generator.normal(shift, 1, (rows, 2)) for rows, shift in sites]
    together, model = np.concatenate(tables), merged(tables)
    np.testing.assert_allclose(model["bn.running_mean"], together.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model["bn.running_var"], together.var(axis=0), rtol=1e-7)


def test_other_buffers_stay_means_and_average_asks_for_the_plain_one():
    tables = [np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([[9.0, 0.0], [11.0, 0.0]])]
    model = merged(tables)
    assert model["bn.running_var"].tolist() == pytest.approx([26, 0])
    assert model["ema"].tolist() == pytest.approx([1, 0])
    plain = merged(tables, {"kind": "fedavg", "batch_norm": "average"})
    assert plain["bn.running_var"].tolist() == pytest.approx([1, 0])


LAYERS = {1: torch.nn.BatchNorm1d, 2: torch.nn.BatchNorm2d, 3: torch.nn.BatchNorm3d}


def after_rounds(tables, layer, batches, rounds):
    """What sites make of a new layer that see `batches` batches of their (rows, channels, …) a round."""
    networks = {"bn": layer}
    spec = spec_from_json({name: item.to_json() for name, item in spec_of(networks).items()})
    rows = {f"site-{number}": len(table) for number, table in enumerate(tables)}
    strategy = make("fedavg", spec, rows)
    model = None
    before = {name: tensor.clone() for name, tensor in tensors_of(networks).items()}
    for number in range(1, rounds + 1):
        replies = []
        for site, table in zip(rows, tables, strict=True):
            load_state(networks, {name: tensor.clone() for name, tensor in (model or before).items()})
            layer.train()
            for _ in range(batches):
                layer(table)
            replies.append(reply(site, {n: t.clone() for n, t in tensors_of(networks).items()}, rows[site]))
        # Who draws the model from the seed alone knows it in the first round.
        strategy.configure(number, list(rows), model)
        for one in replies:
            strategy.add(one)
        model = strategy.aggregate()
    return model


@pytest.mark.parametrize("dimensions", LAYERS)
@pytest.mark.parametrize(("batches", "momentum"), [(1, 0.1), (3, 0.1), (2, 0.3), (1, None)])
def test_moving_averages_become_those_of_the_pooled_rows(dimensions, batches, momentum):
    """Of one batch a round, with momentum 0.1, a tenth of the variance between sites was left: 2.0 for 10.6."""
    generator = torch.Generator().manual_seed(dimensions)
    shape = (2, *[3] * dimensions) if dimensions > 1 else (2,)
    tables = [
        torch.randn(rows, *shape, generator=generator, dtype=torch.float64) + shift
        for rows, shift in ((20, -4.0), (30, 0.0), (10, 5.0))
    ]
    layer = LAYERS[dimensions](2, momentum=momentum, dtype=torch.float64)
    model = after_rounds(tables, layer, batches, 60 if momentum == 0.1 else 20)
    together = torch.cat(tables).transpose(0, 1).flatten(1)
    # Each batch's own variance counts n / (n - 1) times in torch; the first 1 and 0 have faded.
    torch.testing.assert_close(model["bn.running_mean"], together.mean(dim=1), rtol=0.01, atol=0.01)
    torch.testing.assert_close(model["bn.running_var"], together.var(dim=1), rtol=0.06, atol=0)


@pytest.mark.parametrize(("batch_norm", "momentum", "asks"), [
    ("moments", 0.1, True), ("moments", None, False), ("average", 0.1, False),
])  # fmt: skip
def test_what_was_sent_is_wanted_for_moments_of_moving_averages_alone(batch_norm, momentum, asks):
    spec = SPEC | {"bn.running_var": TensorSpec((2,), "float64", "buffer", momentum=momentum)}
    assert make({"kind": "fedavg", "batch_norm": batch_norm}, spec).wants_sent is asks
