"""Federated simulation on one machine: CPU and wall clock a round, start-up, memory and accuracy, against others.

    python benchmarks/simulation.py                         # the plain loop and v6_algorithm, on four workloads
    python benchmarks/simulation.py --pfl PYTHON --flower PYTHON   # and pfl-research and Flower
    python benchmarks/simulation.py --only digits-10 --repeats 5
    python benchmarks/simulation.py --workers 1 2           # and v6_algorithm with that many processes
    python benchmarks/simulation.py --difference --only digits-100   # how far sites together are from sites in turn

Everybody trains the same network from the same start, on the same rows at the same sites, one local epoch a round with
one thread, and is measured on the same held-out rows after each round. The loop is what a researcher writes by hand:
one network, its state loaded anew for each site, an average in the end. Runs are interleaved, and a ratio is taken
within one turn; figures are medians over the turns. All begin from the weights and train on the batches that
v6_algorithm draws, so accuracies agree round by round, but for rounding.

- pfl: `python -m venv pfl; pfl/bin/pip install pfl==0.6.0 torch scikit-learn`
- Flower: `python -m venv flower; flower/bin/pip install "flwr[simulation]==1.42.0" torch scikit-learn`
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from simulation_peers import AWAY, DATA, EVENTS, PROCESSES, WORKLOADS, prepare

# -- measuring ---------------------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """CPU and memory of a run's processes, its children's children among them, known by a mark in their environment."""

    def __init__(self, mark_: str) -> None:
        super().__init__(daemon=True)
        self._mark, self._over = mark_.encode(), threading.Event()
        self.cpu: dict[str, float] = {}
        self.trace: list[tuple[float, float]] = []
        self.memory = 0.0

    def run(self) -> None:
        """Look every tenth of a second."""
        tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        while not self._over.is_set():
            resident = 0
            for process in filter(str.isdigit, os.listdir("/proc")):
                try:
                    if self._mark not in Path(f"/proc/{process}/environ").read_bytes():
                        continue
                    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
                    self.cpu[process] = (int(fields[11]) + int(fields[12])) / tick
                    resident += int(fields[21]) * page
                except (OSError, IndexError):
                    continue
            self.memory = max(self.memory, resident)
            self.trace.append((time.time(), sum(self.cpu.values())))
            self._over.wait(0.1)

    def stop(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()

    def at(self, moment: float) -> float:
        """Return the CPU seconds by then."""
        moments, seconds = zip(*self.trace, strict=True)
        return float(np.interp(moment, moments, seconds))


def measure(python: str, who: str, workload: str, data: Path) -> dict[str, Any]:
    """Run one once, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events"
        name = f"simulation-{os.getpid()}-{time.time_ns()}"
        environment = os.environ | {
            DATA: str(data), EVENTS: str(events), "SIMULATION_MARK": name, "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip
        # An installed package is compiled; torch is, and so is whatever else the others import.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if who.startswith(PROCESSES):
            # As it is typed: torch takes the cores that there are.
            environment = {key: value for key, value in environment.items() if not key.endswith("_NUM_THREADS")}
        watch = Watch(name)
        watch.start()
        begun = time.time()
        process = subprocess.run(
            [python, str(Path(__file__).with_name("simulation_peers.py")), who, workload],
            env=environment,
            capture_output=True,
            text=True,
            cwd=folder,
        )
        ended = time.time()
        watch.stop()
        if process.returncode or not events.exists():
            raise SystemExit(f"{who} on {workload} failed:\n{process.stderr[-2000:]}")
        marks = [json.loads(line) for line in events.read_text().splitlines()]
    final = [entry["accuracy"] for entry in marks if entry["round"] < 0]
    rounds = [entry for entry in marks if entry["round"] >= 0]
    between = len(rounds) - 1
    single = who != "flower" and not who.startswith(PROCESSES)
    cpu = [entry["cpu"] if single else watch.at(entry["time"]) for entry in (rounds[0], rounds[-1])]
    return {
        "cpu_round_s": (cpu[1] - cpu[0]) / between,
        "round_s": (rounds[-1]["time"] - rounds[0]["time"]) / between,
        "first_round_s": rounds[0]["time"] - begun,
        "total_s": ended - begun,
        "total_cpu_s": sum(watch.cpu.values()),
        "memory_mb": watch.memory / 2**20,
        # Ours are of the model before, in each round; the last is of the end.
        "accuracies": [*(entry["accuracy"] for entry in rounds[1:]), *final] if final else
        [entry["accuracy"] for entry in rounds],
    }  # fmt: skip


def differences(workload: str, data: Path) -> list[tuple[float, float]]:
    """Return for each round how far the run of sites together is from that with `--exact`, both in this process.

    Of the parameters it is the largest difference in a tensor as a share of its largest number, of accuracy points.
    """
    import torch

    from v6_algorithm.coordinator import master
    from v6_algorithm.coordinator.rounds.folds import FoldProgress
    from v6_algorithm.engines.simulation.local import Way
    from v6_algorithm.engines.simulation.simulate import local_federation, tables_of
    from v6_algorithm.exchange import wire
    from v6_algorithm.experiment import Experiment

    torch.set_num_threads(1)
    file, advance = data / workload / "experiment.yaml", FoldProgress.advance
    experiment = Experiment.load(file)

    def run(way: Way) -> tuple[list[dict[str, torch.Tensor]], list[float]]:
        models: list[dict[str, torch.Tensor]] = []

        def watched(self: FoldProgress, round: int, model: wire.Model, *given: Any, **more: Any) -> None:
            models.append(wire.unpack(model))
            advance(self, round, model, *given, **more)

        FoldProgress.advance = watched  # type: ignore[method-assign]
        federation = local_federation(experiment, tables_of(experiment, file.parent), way=way)
        history = master.run(federation, experiment)["history"]
        FoldProgress.advance = advance  # type: ignore[method-assign]
        return models, history["validation_accuracy"]

    (models, accuracies), (exact_models, exact_accuracies) = run("fast"), run("exact")
    shares = [
        max(float((one[name] - other[name]).abs().max() / other[name].abs().max()) for name in other)
        for one, other in zip(models, exact_models, strict=True)
    ]
    apart = [abs(one - other) for one, other in zip(accuracies, exact_accuracies, strict=True)]
    return list(zip(shares, apart, strict=True))


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "v6-algorithm-simulation")
    parser.add_argument("--pfl", help="Python of an environment with pfl-research")
    parser.add_argument("--flower", help="Python of an environment with Flower")
    parser.add_argument("--exact", action="store_true", help="also v6_algorithm with --exact")
    parser.add_argument("--difference", action="store_true", help="only how far apart both are, round by round")
    parser.add_argument(
        "--workers", nargs="*", type=int, default=[], help="also v6_algorithm with so many workers, and all threads"
    )
    parser.add_argument(
        "--away", nargs="*", type=float, default=[], help="also the loop from first weights larger by this share"
    )
    given = parser.parse_args()
    names = {"loop": sys.executable, "v6_algorithm": sys.executable}
    names |= {"exact": sys.executable} if given.exact else {}
    names |= {f"{AWAY}{share}": sys.executable for share in given.away}
    names |= {f"{PROCESSES}{workers}": sys.executable for workers in given.workers}
    names |= {name: python for name in ("pfl", "flower") if (python := getattr(given, name))}
    for workload in given.only:
        prepare(given.data, workload)
        if given.difference:
            print(f"\n{workload}: parameters (as a share of the tensor's largest number), accuracy")
            for round_, (share, apart) in enumerate(differences(workload, given.data), 1):
                print(f"round {round_}: {share:.1e}, {apart:.1e}")
            continue
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(given.repeats):
            for name, python in names.items():
                turns[name].append(measure(python, name, workload, given.data))
        report(workload, turns)


def report(workload: str, turns: dict[str, list[dict[str, Any]]]) -> None:
    """Print medians; ratios are those of one turn."""
    print(f"\n{workload}: load {os.getloadavg()[0]:.1f}")
    print("| who | CPU a round / loop's | wall a round / loop's | CPU s a round | wall s a round | end of round 1, s "
          "| in all, s | CPU in all, s | memory, MB | accuracy |")  # fmt: skip
    print("|---" * 10 + "|")
    for name, runs in turns.items():
        ratios = [
            statistics.median(run[key] / base[key] for run, base in zip(runs, turns["loop"], strict=True))
            for key in ("cpu_round_s", "round_s")
        ]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "accuracies"}
        print(
            f"| {name} | {ratios[0]:.2f} | {ratios[1]:.2f} | {middle['cpu_round_s']:.4f} | {middle['round_s']:.4f} | "
            f"{middle['first_round_s']:.1f} | {middle['total_s']:.1f} | {middle['total_cpu_s']:.1f} | "
            f"{middle['memory_mb']:.0f} | {runs[0]['accuracies'][-1]:.3f} |"
        )
    for name, runs in turns.items():
        shown = " ".join(f"{value:.3f}" for value in runs[0]["accuracies"])
        print(f"accuracy after each round, {name}: {shown}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
