"""A whole experiment in a second: two rounds over two sites of made-up rows, in this process."""

from __future__ import annotations

import random
import time

from v6_algorithm.researcher.doctor.finding import Finding, ok, problem

_ROWS = 60


def training() -> Finding:
    """Train, through everything that a node and a master do but the network."""
    import pandas as pd

    from v6_algorithm.coordinator.master import run
    from v6_algorithm.data.sources import TableSource
    from v6_algorithm.engines.simulation.local import LocalFederation
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.site import SiteContext

    start = time.perf_counter()
    generator = random.Random(0)  # noqa: S311 (made-up patients)
    sites = {}
    for name in ("a", "b"):
        rows = [(generator.gauss(60, 12), generator.uniform(0, 10)) for _ in range(_ROWS)]
        table = pd.DataFrame(rows, columns=["age", "dose"])
        table["outcome"] = (table["age"] / 12 > table["dose"]).astype(int)
        # The defaults, not this node's guards: they are about its patients.
        sites[name] = SiteContext({name: TableSource(frame=table)})
    experiment = Experiment.parse({"data": {"target": "outcome"}, "model": "logistic", "rounds": 2})
    result = run(LocalFederation(sites), experiment)
    seconds = time.perf_counter() - start
    if result["status"] != "completed" or result["rounds_run"] != experiment.rounds:
        return problem(f"a small experiment stopped after round {result['rounds_run']}", "report it")
    return ok(f"2 rounds at 2 sites of {_ROWS} made-up rows in {seconds:.1f} s", seconds=seconds)
