"""Secure aggregation of a million parameters on real nodes in Docker, and a node killed in mid-round: seconds, bytes.

    python benchmarks/secure_network.py                    # builds the images; three sites, a few minutes
    python benchmarks/secure_network.py --built --hidden 200 --kinds "secure, b killed"

The same network is trained in the clear, under masks, and under masks with the node of site b killed, its containers
with it, while it works in round 2. Prints each call's seconds and bytes beside a round of an empty algorithm, who
was named as missing, and how far the parameters are from a run on this machine without masks in which those are missing
that were named: what is left is the masks' fixed-point step. Exit code 1 where it is more than that.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import table
from network import EMPTY, Network, docker, server_python, where
from v6config import Site

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.local import LocalFederation
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.engines.vantage6.runs import read_subtask_name
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Missing, Replies
from v6_algorithm.experiment import Experiment

FEATURES, ROWS, SITES = 500, 400, ("a", "b", "c")
KINDS = ["empty", "in the clear", "secure", "secure, b killed"]
KILLED, KILLED_IN = "b", 2
# Rounding to 32 bits within a clip of 8 at each of three sites, and to float32, over some rounds.
STEP = 1e-6


def write_rows(folder: Path) -> dict[str, Site]:
    """Write three sites' tables of made-up rows."""
    generator, sites = np.random.default_rng(0), {}
    for name in SITES:
        values = generator.standard_normal((ROWS, FEATURES)).round(4)
        frame = pd.DataFrame(values, columns=[f"x{number}" for number in range(FEATURES)])
        frame.assign(target=(values[:, 0] > 0).astype(int)).to_csv(folder / f"{name}.csv", index=False)
        sites[name] = Site({"default": folder / f"{name}.csv"})
    return sites


def experiment(kind: str, hidden: int, rounds: int, deadline_s: float) -> dict[str, Any]:
    """Return the experiment, whose last model is the result."""
    return {
        "name": "secure",
        "data": {"target": "target"},
        "model": {"kind": "mlp", "hidden": [hidden]},
        "rounds": rounds,
        "stopping": {"patience": None},
        "output": {"model": "last"},
        # Adam would make a whole step of the last digit of a gradient that is all but 0.
        "training": {"batch_size": 64, "optimizer": {"kind": "sgd", "lr": 0.05}},
        "privacy": {"secure_aggregation": {"threshold": 2}} if "secure" in kind else {},
        "participation": {"minimum": 2, "deadline_s": deadline_s},
    }


class Away(LocalFederation):
    """Sites of this process of which some do not answer some calls."""

    away: frozenset[tuple[str, int, str]] = frozenset()

    def _answer(
        self, method: str, requests: Mapping[str, dict[str, Any]], deadline_s: float, replies: Replies
    ) -> Iterator[Arrival]:
        gone = [site for site, request in requests.items() if (method, request["round"], site) in self.away]
        yield from (Arrival(site, None, Missing("late", "as on the network")) for site in gone)
        here = {site: request for site, request in requests.items() if site not in gone}
        yield from super()._answer(method, here, deadline_s, replies)


def distance(network: Network, content: dict[str, Any], result: dict[str, Any], missing: bool = True) -> float:
    """Return how far a parameter is from that of a run here in the clear, with the same sites missing or with all."""
    # As many threads as in the containers, which round as they do.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    checked = Experiment.parse(content | {"privacy": {}})
    tables = {name: TableSource(str(network.sites[name].databases["default"])) for name in SITES}
    local = local_federation(checked, tables)
    federation = Away(local._contexts, "wire", local._temporary)
    if missing:
        federation.away = frozenset(
            (entry["call"], entry["round"], site) for entry in result["participation"] for site in entry["missing"]
        )
    ours, theirs = (wire.unpack(each["parameters"]) for each in (result, run(federation, checked)))
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in theirs)


def kill(network: Network, task: int) -> None:
    """Kill a site's node and its containers while it works on what it is asked in a round; the engine stays."""
    end, wanted = time.monotonic() + 600, ("train", KILLED_IN, KILLED)
    asked: list[int] = []
    while not asked or network.statuses(asked[0])[KILLED] not in ("initializing", "active"):
        if time.monotonic() > end:
            raise SystemExit(f"site {KILLED} never worked in round {KILLED_IN}")
        asked = asked or [child["id"] for child in network.subtasks(task) if read_subtask_name(child["name"]) == wanted]
        time.sleep(0.1)
    network.stop_node(KILLED, gracefully=False)
    containers = docker("ps", "--quiet", "--filter", f"label=node={network.name}-{KILLED}").split()
    if containers:
        docker("rm", "--force", *containers)


def lines(kind: str, result: dict[str, Any], load: str) -> list[list[str]]:
    """Return a line for each kind of call: seconds and bytes a site; the first round, and who was waited for, apart."""
    missed = {(entry["call"], entry["round"]) for entry in result["participation"] if entry["missing"]}
    calls: dict[str, list[dict[str, Any]]] = {}
    for call in result["timing"]["rounds"]:
        name = call["call"]
        if (name, call["round"]) in missed:
            name += f", {KILLED} missing"
        elif name == "train" and call["round"] == 1:
            name += ", round 1"
        calls.setdefault(name, []).append(call)
    rows = []
    for name, group in calls.items():
        seconds = [call["seconds"] for call in group]
        sent, received = (
            statistics.median([max(call[key].values(), default=0) / 1e3 for call in group])
            for key in ("bytes_sent", "bytes_received")
        )
        spread = f" ({min(seconds):.1f} to {max(seconds):.1f})" if len(seconds) > 1 else ""
        rows.append([kind, name, str(len(group)), f"{statistics.median(seconds):.1f}{spread}"])
        rows[-1] += [f"{sent:,.1f}", f"{received:,.1f}", load]
    return rows


def main() -> int:
    """Run the kinds on one network, print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--hidden", type=int, default=1992, help="width of the network: 503 parameters each")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--deadline", type=float, default=45.0, help="seconds that a killed site is waited for")
    parser.add_argument("--built", action="store_true", help="the images are there already")
    parser.add_argument("--processes", action="store_true", help="algorithms as processes, without Docker")
    chosen = parser.parse_args()
    options = where(chosen.processes, chosen.built)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows, remarks, wrong = [], [], 0
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name, "network")).mkdir()
        network = Network(folder, server_python(), write_rows(Path(name)), **options)
        try:
            network.start()
            sites = [network.organizations[site] for site in SITES]
            for kind in chosen.kinds:
                before = os.getloadavg()[0]
                if kind == "empty":
                    seconds = network.run("master", image=EMPTY, sites=sites, rounds=chosen.rounds, timeout_s=900)
                    rows.append([kind, "round", str(len(seconds)), f"{statistics.median(seconds):.1f}", "", "", ""])
                    continue
                content = experiment(kind, chosen.hidden, chosen.rounds, chosen.deadline)
                task = network.create("master", experiment=content, organizations=sites)
                if "killed" in kind:
                    kill(network, task)
                (ended,) = network.wait(task, 900).values()
                if ended.status != "completed" or ended.result["rounds_run"] != chosen.rounds:
                    raise SystemExit(f"{kind}: {ended.status}\n{ended.log[-2000:]}")
                result = ended.result
                rows += lines(kind, result, f"{before:.0f} to {os.getloadavg()[0]:.0f}")
                away = distance(network, content, result)
                wrong += away > STEP
                remarks.append(f"{kind}: parameters {away:.1e} from a run here without masks")
                if "killed" in kind:
                    remarks[-1] += f" and with the same sites missing, {distance(network, content, result, False):.1e}"
                    remarks[-1] += " from one with all sites"
                    remarks += [
                        f"  {entry['call']} {entry['round']}: answered {', '.join(entry['answered'])}; missing "
                        + "; ".join(f"{site} ({reason})" for site, reason in entry["missing"].items())
                        for entry in result["participation"]
                        if entry["missing"]
                    ]
                print(*remarks[-1:], flush=True)
        finally:
            network.stop()
            print(f"{chosen.hidden * (FEATURES + 3) + 2:,} parameters, {len(SITES)} sites")
            print(table(["run", "call", "calls", "s, median", "kB to a site", "kB from a site", "load"], rows))
            print(*remarks, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
