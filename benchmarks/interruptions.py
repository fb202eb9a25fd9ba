"""Kills `master`, the hub's node, a site's node and the server in each phase of a run on a real network, and compares.

    python benchmarks/interruptions.py                                   # without Docker: algorithms are processes
    python benchmarks/interruptions.py --who master server --phases train
    python benchmarks/interruptions.py --docker                          # in containers; builds the image

The network is the one of tests/network: a server, a hub and three sites on this machine. Prints for each kill whether
the run came to the parameters, metrics and history of one that nobody disturbed, and its seconds; exit code 1 where one
did not. A killed `master` is gone on from as `v6-algorithm resume TASK` does; the others go on by themselves.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import table
from network import build_images, experiment, write_patients

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "network" / "support"))

from docker_cli import bridge_gateway, docker  # noqa: E402
from v6network import HUB, Network  # noqa: E402

from v6_algorithm.engines.vantage6.runs import read_subtask_name  # noqa: E402
from v6_algorithm.researcher.network.server_python import server_python  # noqa: E402

WHO = ("master", "hub's node", "site's node", "server")
# Phase to the subtask after whose creation the kill comes.
PHASES = {"prepare": ("prepare", 0), "train": ("train", 2), "evaluate": ("evaluate", 3)}
ROUNDS, TIMEOUT_S = 3, 600
COMPARED = ("parameters", "metrics", "history")


class Disturbed:
    """Runs on one network, each disturbed once."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sites = [network.organizations[name] for name in "abc"]

    def begin(self, **more: Any) -> int:
        """Send the task of a run."""
        content = experiment([8], ROUNDS, resident=False)
        return self._network.create("master", experiment=content, organizations=self._sites, **more)

    def end(self, task: int) -> dict[str, Any]:
        """Wait for a task; return its result, empty where it has none."""
        (run,) = self._network.wait(task, TIMEOUT_S).values()
        return run.result or {}

    def wait_for(self, task: int, phase: str) -> None:
        """Wait until the sites are asked what the phase begins with."""
        method, number = PHASES[phase]
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            names = [read_subtask_name(child["name"]) for child in self._network.subtasks(task)]
            if any(name is not None and name[0] == method and name[1] >= number for name in names):
                return
            time.sleep(0.1)
        raise SystemExit(f"task {task} never came to {phase}")

    def disturb(self, who: str, phase: str) -> dict[str, Any]:
        """Begin a run, kill somebody in a phase of it, see it to its end."""
        network, task = self._network, self.begin()
        self.wait_for(task, phase)
        if who == "master":
            self._kill_master()
            network.wait(task, TIMEOUT_S)
            return self.end(self.begin(resume=[task]))
        if who == "server":
            network.stop_server()
            network.start_server()
        else:
            name = HUB if who == "hub's node" else "b"
            network.stop_node(name)
            network.start_node(name)
        return self.end(task)

    def _kill_master(self) -> None:
        """SIGKILL to the one algorithm that runs at the hub."""
        if not self._network.in_processes:
            docker("kill", *docker("ps", "--quiet", "--filter", f"name={self._network.name}-{HUB}").split())
            return
        parent = self._network._nodes[HUB]._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for thread in Path(f"/proc/{parent}/task").iterdir():
            children += (thread / "children").read_text().split()
        algorithms = {int(pid) for pid in children if b"wrap_algorithm" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        if len(algorithms) != 1:
            raise SystemExit(f"{len(algorithms)} algorithms run at the hub; one was to be killed")
        os.kill(algorithms.pop(), signal.SIGKILL)


def main() -> int:
    """Parse the command line, disturb, print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--who", nargs="+", choices=WHO, default=list(WHO))
    parser.add_argument("--phases", nargs="+", choices=list(PHASES), default=list(PHASES))
    parser.add_argument("--docker", action="store_true", help="algorithms in containers")
    chosen = parser.parse_args()
    options: dict[str, Any] = {}
    if chosen.docker:
        build_images()
        options = {"images": None, "proxy_host": bridge_gateway()}
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name, "network")).mkdir()
        network = Network(folder, server_python(), write_patients(Path(name)), **options)
        # Ended by a time limit it leaves no node behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            network.start()
            disturbed = Disturbed(network)
            begun = time.perf_counter()
            whole = disturbed.end(disturbed.begin())
            print(f"undisturbed: {whole.get('status')}, {time.perf_counter() - begun:.0f} s", flush=True)
            for who in chosen.who:
                for phase in chosen.phases:
                    begun = time.perf_counter()
                    result = disturbed.disturb(who, phase)
                    differ = [key for key in COMPARED if result.get(key) != whole[key]]
                    wrong += bool(differ)
                    rows.append([who, phase, result.get("status"), ", ".join(differ) or "none"])
                    rows[-1].append(f"{time.perf_counter() - begun:.0f}")
                    print(*rows[-1], sep=" | ", flush=True)
        finally:
            network.stop()
            print(table(["killed", "in", "status", "differs", "seconds"], rows))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
