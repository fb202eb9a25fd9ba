"""v6_algorithm on a real server and real nodes: what comes back is what a local run gives."""

from __future__ import annotations

from figures import PROCESSES
from training import files, patients_experiment, train, train_here

DATA_SITES = ["a", "b", "c"]


def test_master_over_real_nodes_gives_the_bits_of_a_local_run(three_sites, figures):
    experiment = patients_experiment()
    result, here = train(three_sites, experiment), train_here(files(three_sites, DATA_SITES), experiment)
    for key in ("rounds_run", "best_round", "sites", "history", "metrics", "parameters"):
        assert result[key] == here[key], key
    # The hub has no database: it takes no part, which is told, and is no error.
    assert result["participation"][0]["answered"] == DATA_SITES
    assert result["participation"][0]["missing"] == {"hub": "absent: this node has no database 'default'"}
    assert not any(call["missing"] for call in result["participation"][1:])
    figures.note_rounds(PROCESSES, result)
