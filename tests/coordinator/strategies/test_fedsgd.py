"""Full-batch FedSGD is centralised gradient descent: the proof that weights, losses and batches add up."""

import numpy as np
import pandas as pd
import pytest
import torch

from v6_algorithm.data.sources import TableSource
from v6_algorithm.exchange import wire


def site(rows: int, seed: int, classes: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    values = generator.normal(seed, 1 + seed, size=(rows, 5))
    frame = pd.DataFrame(values, columns=list("abcde"))
    labels = np.arange(rows) % max(classes, 1)
    frame["y"] = generator.permutation(labels) if classes else np.tanh(values @ generator.normal(size=5) / 10)
    return frame


SITES = {"one": 11, "two": 23, "three": 37, "four": 50}


def run_both(run_locally, make_experiment, *, classes: int, dtype: str, loss=None, problem="classification"):
    sites = {name: TableSource(frame=site(rows, number, classes)) for number, (name, rows) in enumerate(SITES.items())}
    models = []
    for mode in ("federated", "centralised"):
        experiment = make_experiment(
            mode=mode,
            problem=problem,
            model={"kind": "mlp", "hidden": [6], "norm": "layer", "activation": "tanh"},
            split={"kind": "ratio", "train": 1, "validation": 0, "test": 0},
            rounds=8,
            training={
                "local_steps": 1, "batch_size": None, "dtype": dtype, "loss": loss,
                "optimizer": {"kind": "sgd", "lr": 0.3},
            },
        )  # fmt: skip
        models.append(wire.unpack(run_locally(experiment, sites)["parameters"]))
    return models


@pytest.mark.parametrize(
    ("problem", "classes", "loss", "dtype", "tolerance"),
    [
        ("classification", 2, None, "float32", 1e-5),
        ("classification", 2, None, "float64", 1e-10),
        ("classification", 3, None, "float64", 1e-10),
        ("classification", 3, {"kind": "cross_entropy", "class_weights": "balanced"}, "float64", 1e-10),
        ("regression", 0, None, "float64", 1e-10),
        ("regression", 0, "huber", "float64", 1e-10),
    ],
)
def test_full_batch_fedsgd_equals_centralised_gradient_descent_after_8_steps(
    run_locally, make_experiment, problem, classes, loss, dtype, tolerance
):
    federated, centralised = run_both(
        run_locally, make_experiment, classes=classes, dtype=dtype, loss=loss, problem=problem
    )
    # Weights of order one: the tolerance is neither trivial nor hopeless.
    assert 0.1 < max(float(tensor.abs().max()) for tensor in centralised.values()) < 100
    for name, tensor in centralised.items():
        torch.testing.assert_close(federated[name], tensor, rtol=0, atol=tolerance)
