"""Memory and seconds of a round of many sites in one process: 100 sites, a model of a million parameters, local engine.

    python benchmarks/many_sites.py
    python benchmarks/many_sites.py --sites 10 30 100 --rounds 3
    python benchmarks/many_sites.py --processes 8       8 real nodes and a hub on this machine, algorithms as processes

Each number of sites is run in a process of its own, whose peak of resident memory is read at its end. The model is the
same, so what grows with the sites is what is held of them. Seconds a round are the median, training included. With
`--processes` each site has its node, a resident trainer and couriers; the resident memory of their processes is looked
at ten times a second, and the largest sums are printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import table

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "network" / "support"))
HUB = "hub"
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
    asked = Experiment.parse(experiment(rounds))
    result = run(local_federation(asked, tables), asked)
    calls = [call["round_s"] for call in result["timing"]["rounds"] if call["call"] == "train"]
    widths = [FEATURES, *HIDDEN, 1]
    return {
        "parameters": sum((before + 1) * after for before, after in itertools.pairwise(widths)),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "seconds": statistics.median(calls),
    }


class Memory(threading.Thread):
    """Looks at the resident memory of the algorithms below some nodes, and keeps the largest."""

    def __init__(self, nodes: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self._nodes = nodes
        self.largest: dict[str, float] = {}
        self.over = threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        while not self.over.wait(0.1):
            seen = {name: sum(self._of(child) for child in self._children(pid)) for name, pid in self._nodes.items()}
            hub = seen.pop(HUB)
            now = {"hub": hub, "largest site": max(seen.values()), "all sites": sum(seen.values())}
            self.largest = {name: max(value, self.largest.get(name, 0.0)) for name, value in now.items()}

    @staticmethod
    def _children(pid: int) -> list[str]:
        try:
            return [
                child
                for thread in Path(f"/proc/{pid}/task").iterdir()
                for child in (thread / "children").read_text().split()
            ]
        except OSError:
            return []

    @staticmethod
    def _of(pid: str) -> float:
        """Return the MB of one process; 0 where it has ended."""
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return 0.0
        return sum(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS:"))


def on_a_network(sites: int, rounds: int) -> None:
    """Run on real nodes whose algorithms are processes; print memory and seconds."""
    from v6config import Site
    from v6network import Network

    from v6_algorithm.researcher.network.server_python import server_python

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network").mkdir()
        files = {}
        for number in range(sites):
            file = folder / f"site{number}.csv"
            made_up(number).to_csv(file, index=False)
            files[f"site{number}"] = Site({"default": file})
        network = Network(folder / "network", server_python(), files)
        try:
            network.start()
            memory = Memory({name: node._process.pid for name, node in network._nodes.items()})
            memory.start()
            start = time.perf_counter()
            result = network.run(
                "master",
                experiment=experiment(rounds),
                organizations=[network.organizations[site] for site in files],
                timeout_s=1800,
            )
            seconds = time.perf_counter() - start
            memory.over.set()
        finally:
            network.stop()
    calls = [call for call in result["timing"]["rounds"] if call["call"] == "train" and call["round"] > 1]
    row = [sites, f"{statistics.median(call['round_s'] for call in calls):.1f}", f"{seconds:.0f}"]
    row += [f"{memory.largest[name]:.0f}" for name in ("hub", "largest site", "all sites")]
    row.append(f"{os.getloadavg()[0]:.0f}")
    print(table(["nodes", "s a warm round", "s in all", "hub, MB", "largest site, MB", "all sites, MB", "load"], [row]))


def made_up(site: int) -> pd.DataFrame:
    """Return a site's table."""
    values = np.random.default_rng(site).standard_normal((ROWS, FEATURES), dtype=np.float32)
    names = [f"x{number}" for number in range(FEATURES)]
    return pd.DataFrame(values, columns=names).assign(target=(values[:, 0] > 0).astype(int))


def experiment(rounds: int) -> dict[str, Any]:
    """Return the experiment."""
    return {
        "data": {"target": "target", "scaling": "none"},
        "model": {"kind": "mlp", "hidden": HIDDEN, "norm": "none"},
        "rounds": rounds,
        "training": {"batch_size": 32, "optimizer": {"kind": "sgd", "lr": 0.01}},
    }


def main() -> None:
    """Parse the command line, measure each number of sites in a process, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, metavar="NODES", help="on a real network of so many nodes")
    chosen = parser.parse_args()
    if chosen.processes:
        on_a_network(chosen.processes, chosen.rounds)
        return
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
