"""The running variance that sites average is the variance of all their rows, not only within sites."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import make, play, reply

from v6_algorithm.exchange.wire import TensorSpec

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
