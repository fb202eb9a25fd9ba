"""Preset strict at the desk and on a local network: each site gets the ledger's folder that it must have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from v6_algorithm.engines.simulation.simulate import local_federation, own_policy
from v6_algorithm.researcher import network


def test_each_site_has_a_ledger_of_its_own_that_goes_with_the_run(tables, make_experiment, tmp_path):
    from v6_algorithm.coordinator.master import run

    experiment = make_experiment(rounds=1, model="logistic", training={"batch_size": 16})
    rules = replace(own_policy("strict"), approved_experiments=None, minimum_rows=10, minimum_sites=1,
                    minimum_part_rows=3, maximum_share_of_sums=1.0)  # fmt: skip
    federation = local_federation(experiment, tables, rules)
    folders = {name: Path(context.policy.ledger_folder) for name, context in federation._contexts.items()}
    assert len(set(folders.values())) == len(tables)
    result = run(federation, experiment)
    assert result["status"] == "completed"
    assert all(site["policy"]["require_ledger"] for site in result["sites"].values())
    assert all((folder / "guard.json").exists() for folder in folders.values())
    federation._temporary.cleanup()
    assert not any(folder.exists() for folder in folders.values())
    kept = local_federation(experiment, tables, rules, tmp_path)
    assert all(tmp_path in Path(context.policy.ledger_folder).parents for context in kept._contexts.values())


def test_strict_nodes_of_a_local_network_have_one_and_others_none(tmp_path):
    for preset, lasts in (("strict", True), ("standard", False)):
        folder = tmp_path / preset
        network._write_node(folder, "berlin", "key", 5000, None, preset)
        (file,) = folder.glob("*.yaml")
        rules = yaml.safe_load(file.read_text())["algorithm_env"]
        assert rules["V6_ALGORITHM_POLICY"] == preset
        assert ("V6_ALGORITHM_LEDGER_FOLDER" in rules) == lasts
