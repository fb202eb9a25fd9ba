"""Memory and seconds of a round of many sites in one process: 100 sites, a model of a million parameters, local engine.

    python benchmarks/many_sites.py
    python benchmarks/many_sites.py --sites 10 30 100 --rounds 3

Each number of sites is run in a process of its own, whose peak of resident memory is read at its end. The model is the
same, so what grows with the sites is what is held of them. Seconds a round are the median, training included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys

import numpy as np
import pandas as pd
from common import table

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulate import local_federation
from v6_algorithm.experiment import Experiment

FEATURES, HIDDEN, ROWS = 100, [1000, 900], 64


def measure(sites: int, rounds: int) -> dict[str, float]:
    """Run in this process; return parameters, peak memory in MB and the median of a round's seconds."""
    generator = np.random.default_rng(0)
    names = [f"x{number}" for number in range(FEATURES)]
    tables = {}
    for site in range(sites):
        values = generator.standard_normal((ROWS, FEATURES), dtype=np.float32)
        frame = pd.DataFrame(values, columns=names)
        tables[f"site{site:03d}"] = TableSource(frame=frame.assign(target=(values[:, 0] > 0).astype(int)))
    experiment = Experiment.parse(
        {
            "data": {"target": "target", "scaling": "none"},
            "model": {"kind": "mlp", "hidden": HIDDEN, "norm": "none"},
            "rounds": rounds,
            "training": {"batch_size": 32, "optimizer": {"kind": "sgd", "lr": 0.01}},
        }
    )
    result = run(local_federation(experiment, tables), experiment)
    calls = [call["round_s"] for call in result["timing"]["rounds"] if call["call"] == "train"]
    widths = [FEATURES, *HIDDEN, 1]
    return {
        "parameters": sum((before + 1) * after for before, after in itertools.pairwise(widths)),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "seconds": statistics.median(calls),
    }


def main() -> None:
    """Parse the command line, measure each number of sites in a process, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.sites[0], chosen.rounds)))
        return
    rows = []
    for sites in chosen.sites:
        command = [sys.executable, __file__, "--one", "--sites", str(sites), "--rounds", str(chosen.rounds)]
        told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        rows.append([sites, f"{told['parameters']:,}", f"{told['memory']:.0f}", f"{told['seconds']:.2f}"])
        print(rows[-1], flush=True)
    print(table(["sites", "parameters", "peak memory, MB", "seconds a round"], rows))


if __name__ == "__main__":
    main()
