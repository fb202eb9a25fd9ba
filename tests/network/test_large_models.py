"""A model of some megabytes on real nodes: rounded on its way down, and as it is on its way back."""

from __future__ import annotations

from training import files, patients_experiment, train, train_here

from v6_algorithm.exchange import wire

DATA_SITES = ["a", "b", "c"]


def test_a_large_model_comes_back_as_it_is_and_gives_the_bits_of_a_local_run(three_sites):
    experiment = patients_experiment(
        model={"kind": "mlp", "hidden": [1000, 1000]}, strategy={"kind": "fedavg", "compress_down": "bfloat16"}
    )
    result, here = train(three_sites, experiment), train_here(files(three_sites, DATA_SITES), experiment)
    for key in ("rounds_run", "history", "metrics", "parameters"):
        assert result[key] == here[key], key
    size = sum(tensor.nbytes for tensor in wire.unpack(result["parameters"]).values())
    first, second = [call for call in result["timing"]["rounds"] if call["call"] == "train"]
    for call in (first, second):
        # In base64 it would be a third more.
        assert all(size < received < 1.02 * size for received in call["bytes_received"].values())
    # Two of four bytes, in base64.
    assert all(0.66 * size < sent < 0.69 * size for sent in second["bytes_sent"].values())
