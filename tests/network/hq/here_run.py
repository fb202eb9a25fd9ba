"""The same experiment by the local engine: here_run.py REQUEST.json ANSWER.json, with the Python of the network's jobs.

Another build of numpy or another number of threads rounds otherwise in the last bit; in the same Python nothing may.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from v6_algorithm.coordinator.description.describe import describe
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource, source_in
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment


def main(request: Path, answer: Path) -> None:
    content = json.loads(request.read_text())
    experiment = Experiment.parse(content["arguments"]["experiment"])
    tables = {
        name: source_in(Path(uri)) if kind == "folder" else TableSource(uri, kind)
        for name, (uri, kind) in content["sites"].items()
    }
    central = {"master": run, "describe": describe}[content["method"]]
    answer.write_text(json.dumps(central(local_federation(experiment, tables), experiment)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
