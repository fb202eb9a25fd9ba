"""`master` on a network of the tests, and the same experiment run here, to compare the two."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from v6network import Network

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.engines.vantage6.runs import read_subtask_name
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment

# Another build of a library, or another number of cores, may round otherwise.
TOLERANCE = 1e-6
TIMEOUT_S = 900
_slowest_s: dict[str, float] = {}


def patients_experiment(**changes: Any) -> dict[str, Any]:
    """A small experiment on the patients of `three_sites` and `docker_network`."""
    content = {
        "name": "patients",
        "data": {"target": "outcome"},
        "model": {"kind": "mlp", "hidden": [8]},
        "rounds": 2,
        "participation": {"minimum": 2, "deadline_s": 120},
    }
    return content | changes


def train(network: Network, experiment: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Run `master` at the hub and return its result."""
    result = network.run("master", experiment=experiment, timeout_s=TIMEOUT_S, **options)
    reasons = [reason for call in result["participation"] for reason in call["missing"].values()]
    if not any(reason.startswith("late") for reason in reasons):
        _slowest_s[network.name] = max(call["seconds"] for call in result["timing"]["rounds"])
    return result


def slowest_call_s(network: Network) -> float:
    """The most seconds that a question took in the last run without a late site; makes a short one where none was."""
    if network.name not in _slowest_s:
        train(network, patients_experiment(rounds=1, resident=False))
    return _slowest_s[network.name]


def train_here(tables: dict[str, Path], experiment: dict[str, Any]) -> dict[str, Any]:
    """Run the same experiment over the same files with the local engine."""
    checked = Experiment.parse(experiment)
    return run(local_federation(checked, {name: TableSource(str(path)) for name, path in tables.items()}), checked)


def asked(network: Network, task: int) -> list[tuple[int, str, int, str]]:
    """Return subtask, method, round and site of each question of `master`; a resident trainer is none."""
    named = [(child["id"], read_subtask_name(child["name"])) for child in network.subtasks(task)]
    return [(number, *name) for number, name in named if name]


def files(network: Network, names: Iterable[str], label: str = "default") -> dict[str, Path]:
    """The files behind a database of these sites."""
    return {name: Path(network.sites[name].databases[label]) for name in names}


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Of any parameter of two results."""
    ours, theirs = (wire.unpack(result["parameters"]) for result in (one, other))
    assert ours.keys() == theirs.keys()
    assert any(tensor.numel() for tensor in ours.values())
    return max(float(torch.max(torch.abs(ours[name] - theirs[name]))) for name in ours if ours[name].numel())


def rows_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a result tells of its sites' rows; what their owners allow may differ."""
    return {name: site["n"] for name, site in result["sites"].items()}
