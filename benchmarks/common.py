"""Shared by the benchmarks: where the data are, running an experiment in this process, and printing a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

# Data that are not part of the project; see the README there for where they come from.
DATA = Path(os.environ.get("V6_ALGORITHM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def tables(folder: str, names: Sequence[str]) -> dict[str, TableSource]:
    """Return the csv files of a folder under `DATA` as sites; ends the program when they are not there."""
    files = {name: DATA / folder / f"{name}.csv" for name in names}
    for file in files.values():
        if not file.exists():
            raise SystemExit(f"{file} is not there; set V6_ALGORITHM_DATA to the folder that has {folder}/")
    return {name: TableSource(str(file)) for name, file in files.items()}


def train(content: dict[str, Any], sites: dict[str, TableSource]) -> dict[str, Any]:
    """Run an experiment over these sites in this process."""
    experiment = Experiment.parse(content)
    return run(local_federation(experiment, sites), experiment)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format rows as a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
