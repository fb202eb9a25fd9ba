"""A model of some megabytes on real nodes: rounded on its way down, and as it is on its way back."""

from __future__ import annotations

from typing import Any

from training import files, patients_experiment, train, train_here

from v6_algorithm.exchange import wire

DATA_SITES = ["a", "b", "c"]


LARGE: dict[str, Any] = {"kind": "mlp", "hidden": [1000, 1000]}


def came_back_as_it_is(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Check that each training's reply is no longer than the model itself; returns the training calls."""
    size = sum(tensor.nbytes for tensor in wire.unpack(result["parameters"]).values())
    calls = [call for call in result["timing"]["rounds"] if call["call"] == "train"]
    for call in calls:
        # In base64 it would be a third more.
        assert all(size < received < 1.02 * size for received in call["bytes_received"].values())
    return calls


def test_a_large_model_comes_back_as_it_is_and_gives_the_bits_of_a_local_run(three_sites):
    experiment = patients_experiment(model=LARGE, strategy={"kind": "fedavg", "compress_down": "bfloat16"})
    result, here = train(three_sites, experiment), train_here(files(three_sites, DATA_SITES), experiment)
    for key in ("rounds_run", "history", "metrics", "parameters"):
        assert result[key] == here[key], key
    _, second = came_back_as_it_is(result)
    size = sum(tensor.nbytes for tensor in wire.unpack(result["parameters"]).values())
    # Two of four bytes, in base64.
    assert all(0.66 * size < sent < 0.69 * size for sent in second["bytes_sent"].values())


def test_a_large_model_comes_back_as_it_is_through_the_encryption_of_a_collaboration(make_network, three_sites):
    network = make_network({name: three_sites.sites[name] for name in "ab"}, encrypted=True)
    experiment = patients_experiment(model=LARGE)
    result, here = train(network, experiment), train_here(files(network, "ab"), experiment)
    assert (result["history"], result["parameters"]) == (here["history"], here["parameters"])
    assert len(came_back_as_it_is(result)) == 2
