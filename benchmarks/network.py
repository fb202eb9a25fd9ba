"""What a round costs on a real vantage6 network in Docker: ours, an empty algorithm's, a plain FedAvg's, interleaved.

    python benchmarks/network.py                       a small network, blocks of rounds in turn
    python benchmarks/network.py --hidden 3000 3000    about nine million parameters
    python benchmarks/network.py --processes           without Docker: algorithms are processes
    python benchmarks/network.py --requests FILE       each request to the server and the nodes' proxies, as JSON lines

The network is the one of tests/network: a server, a hub and three sites on this machine. Prints the seconds of a round
as `master` sees them (median, quartiles, ratios), then where ours go: each phase, as `timing` of the result has it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from common import table

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tests" / "network" / "support"))
os.environ.setdefault("V6_TEST_TAG", "benchmark")

import v6network  # noqa: E402
from docker_cli import bridge_gateway, docker  # noqa: E402
from services import run_script  # noqa: E402
from v6config import Site  # noqa: E402
from v6network import IMAGE, PROCESS_IMAGES, Network  # noqa: E402

from v6_algorithm.researcher.network.server_python import server_python  # noqa: E402

FEATURES, ROWS = 10, (300, 400, 500)
SUBMIT = [sys.executable, "-c", "from v6_algorithm.researcher.cli import main; main()", "submit"]
EMPTY, PLAIN = "empty-rounds:benchmark", "plain-fedavg:benchmark"
# What is to be had on vantage6 at best: kind to how many models a round's request and its reply are long.
FLOORS = {"empty": (0, 0), "empty, model back": (0, 1), "empty, model both ways": (1, 1)}
# Ours with half precision on the way: kind to its strategy.
HALVES = {
    "ours, float16 back": {"compress": "float16"},
    "ours, float16 both ways": {"compress": "float16", "compress_down": "float16"},
}
PHASES = (
    "create",
    "vantage6",
    "import",
    "handover",
    "data",
    "evaluate",
    "train",
    "encode",
    "other",
    "decode",
    "aggregate",
)


def write_patients(folder: Path) -> dict[str, Site]:
    """Make three sites' tables of made-up rows."""
    sites = {}
    for name, rows in zip("abc", ROWS, strict=True):
        generator = random.Random(rows)
        lines = [",".join([*(f"x{column}" for column in range(FEATURES)), "outcome"])]
        for _ in range(rows):
            values = [generator.gauss(0, 1) for _ in range(FEATURES)]
            outcome = int(sum(values[:3]) + generator.gauss(0, 1) > 0)
            lines.append(",".join([*(f"{value:.4f}" for value in values), str(outcome)]))
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
        sites[name] = Site({"default": folder / f"{name}.csv"})
    return sites


def experiment(hidden: list[int], rounds: int, *, resident: bool) -> dict[str, Any]:
    """Return our experiment of the same network, rows and batches."""
    return {
        "name": "round",
        "data": {"target": "outcome"},
        "model": {"kind": "mlp", "hidden": hidden},
        "rounds": rounds,
        "stopping": {"patience": rounds + 1},
        "training": {"batch_size": 32},
        "participation": {"minimum": 3, "deadline_s": 900},
        "resident": resident,
    }


def build_images() -> None:
    """Build our image from this checkout, and on top of it the two algorithms that it is compared with."""
    run_script("build_image.sh", IMAGE, timeout_s=1500, PYTHON=sys.executable)
    for tag in (EMPTY, PLAIN):
        name = tag.partition(":")[0].replace("-", "_")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, f"{name}.py").write_text((HERE / "network_algorithms" / f"{name}.py").read_text())
            Path(folder, "Dockerfile").write_text(
                f"FROM {IMAGE}\nCOPY {name}.py /opt/algorithm/\nENV PKG_NAME={name} PYTHONPATH=/opt/algorithm\n"
            )
            docker("build", "--tag", tag, folder)


def where(processes: bool, built: bool = False) -> dict[str, Any]:
    """Return the options of a `Network` without Docker, or with it, when the images are built first."""
    v6network.ALLOWED_IMAGES = (IMAGE, EMPTY, PLAIN)
    if processes:
        paths = f"{HERE / 'network_algorithms'}"
        ours = {
            tag: {"PKG_NAME": tag.partition(":")[0].replace("-", "_"), "PYTHONPATH": paths} for tag in (EMPTY, PLAIN)
        }
        return {"images": PROCESS_IMAGES | ours}
    if not built:
        build_images()
    return {"images": None, "proxy_host": bridge_gateway()}


def submit(network: Network, folder: Path, content: dict[str, Any], words: Sequence[str] = ()) -> float:
    """Type `v6-algorithm submit` in a new folder, whose `out` gets the files; returns its seconds."""
    folder.mkdir()
    (folder / "experiment.yaml").write_text(yaml.safe_dump(content))
    log_in = {"V6_SERVER": network.url, "V6_USERNAME": network.username, "V6_PASSWORD": network.password}
    start = time.perf_counter()
    done = subprocess.run(
        [*SUBMIT, "experiment.yaml", "--out", "out", *words],
        cwd=folder,
        env={**os.environ, **log_in, "V6_IMAGE": IMAGE},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"submit ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds


class Rounds:
    """Runs blocks of rounds of each kind on a network, and keeps what they took."""

    def __init__(self, network: Network, hidden: list[int], rounds: int) -> None:
        self.network, self.hidden, self.rounds = network, hidden, rounds
        self.seconds: dict[str, list[float]] = {}
        self.first: dict[str, list[float]] = {}
        self.whole: dict[str, list[float]] = {}
        self.results: list[dict[str, Any]] = []

    def characters(self) -> int:
        """Return how long the model's text is: float32, in base64."""
        widths = [FEATURES, *self.hidden, 2]
        return sum((before + 1) * after for before, after in pairwise(widths)) * 4 * 4 // 3

    def block(self, kind: str) -> None:
        """Run one block; the first round of a run is kept apart, for it starts what others find warm."""
        start = time.perf_counter()
        sites = [self.network.organizations[name] for name in "abc"]
        if kind in FLOORS:
            sent, returned = (share * self.characters() for share in FLOORS[kind])
            arguments = {"sites": sites, "rounds": self.rounds} | (
                {"sent": sent, "returned": returned} if returned else {}
            )
            seconds = self.network.run("master", image=EMPTY, timeout_s=3600, **arguments)
        elif kind == "plain FedAvg":
            arguments = {"sites": sites, "rounds": self.rounds, "hidden": self.hidden, "features": FEATURES}
            seconds = self.network.run("master", image=PLAIN, timeout_s=3600, **arguments)
        else:
            content = experiment(self.hidden, self.rounds, resident=kind != "ours, not resident")
            content["pipeline"] = int(kind == "ours, pipeline")
            if kind in HALVES:
                content["strategy"] = HALVES[kind]
            result = self.network.run("master", experiment=content, organizations=sites, timeout_s=3600)
            if result["rounds_run"] != self.rounds:
                raise SystemExit(f"{result['rounds_run']} rounds were run: {result['notes']}")
            calls = [call for call in result["timing"]["rounds"] if call["call"] == "train"]
            # With a pipeline the last round is asked for early, and lasts until the one before it is over as well.
            seconds = [call["round_s"] for call in calls][: -1 if content["pipeline"] else None]
            if kind == "ours":
                self.results.append(result)
        self.whole.setdefault(kind, []).append(time.perf_counter() - start)
        self.first.setdefault(kind, []).append(seconds[0])
        self.seconds.setdefault(kind, []).extend(seconds[1:])
        print(f"{kind}: {' '.join(f'{value:.1f}' for value in seconds)}", flush=True)


def shares(result: dict[str, Any]) -> list[dict[str, float]]:
    """Split each warm round of a result into phases, by the site whose answer came last."""
    rounds = []
    for call in result["timing"]["rounds"]:
        if call["call"] != "train" or call["round"] == 1:
            continue
        site = max(call["arrived_s"], key=call["arrived_s"].get)
        own = {name.removesuffix("_s"): value for name, value in call["phases"][site].items()}
        own["create"] = call["create_s"][site]
        # The rest until the answer was here: pick-up, the container's start and end, upload, our looking.
        own["vantage6"] = call["arrived_s"][site] - sum(own.values())
        own["decode"], own["aggregate"] = call["decode_s"], call["aggregate_s"]
        own["between"] = call["round_s"] - call["seconds"]
        rounds.append(own)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of a block")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 32])
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=["empty", "ours", "ours, not resident", "plain FedAvg"],
        help="of: empty, 'empty, model back', 'empty, model both ways' (as many bytes as ours), ours, "
        "'ours, not resident', 'ours, pipeline', 'ours, float16 back', 'ours, float16 both ways', 'plain FedAvg'",
    )
    parser.add_argument("--built", action="store_true", help="the images are there already")
    parser.add_argument("--processes", action="store_true", help="algorithms as processes, without Docker")
    parser.add_argument("--requests", type=Path, help="write each request there that server and proxies answer")
    parser.add_argument("--postgres", action="store_true", help="the server's database is PostgreSQL, not SQLite")
    chosen = parser.parse_args()
    options = where(chosen.processes, chosen.built)
    database = None
    if chosen.postgres:
        from services import Postgres

        database = Postgres()
        options["database_uri"] = database.uri()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network").mkdir()
        logs = bool(chosen.requests)
        network = Network(folder / "network", server_python(), write_patients(folder), request_log=logs, **options)
        rounds = Rounds(network, chosen.hidden, chosen.rounds)
        # Ended by a time limit it reports what there is, and leaves no node behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            network.start()
            for _ in range(chosen.blocks):
                for kind in chosen.kinds:
                    rounds.block(kind)
        finally:
            network.stop()
            if database is not None:
                database.stop()
            report(rounds, chosen)
            if chosen.requests:
                report_requests(network, chosen.requests)


def report(rounds: Rounds, chosen: argparse.Namespace) -> None:
    """Print the tables."""
    seconds = dict(rounds.seconds)
    if rounds.results and any(name in seconds for name in FLOORS):
        # An empty algorithm trains nothing: what ours cost beside that stands next to it.
        seconds["ours, less its training"] = [
            call["round_s"] - max(phases.get("train_s", 0.0) for phases in call["phases"].values())
            for result in rounds.results
            for call in result["timing"]["rounds"]
            if call["call"] == "train" and call["round"] > 1
        ]
    median = {kind: statistics.median(values) for kind, values in seconds.items()}
    others = [kind for kind in (*FLOORS, "plain FedAvg") if kind in median]
    lines = []
    for kind, values in seconds.items():
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        ratios = [f"{median[kind] / median[other]:.2f}" for other in others]
        first, whole = (
            f"{statistics.median(kept[kind]):.1f}" if kind in kept else "" for kept in (rounds.first, rounds.whole)
        )
        lines.append([kind, len(values), f"{median[kind]:.2f}", f"{low:.2f} to {high:.2f}", *ratios, first, whole])
    print()
    header = [
        "algorithm",
        "warm rounds",
        "s a round, median",
        "quartiles",
        *(f"/ {other}" for other in others),
        "first round",
        f"run of {chosen.rounds}",
    ]
    print(table(header, lines))
    if not rounds.results:
        return
    split = [phase for result in rounds.results for phase in shares(result)]
    names = [*PHASES, "between"]
    print("\nOurs, of a warm round, seconds at the site whose answer came last (median)\n")
    print(table(names, [[f"{statistics.median([own.get(name, 0.0) for own in split]):.3f}" for name in names]]))
    calls = rounds.results[-1]["timing"]["rounds"]
    print("\nThe calls of ours, last block\n")
    print(
        table(
            ["call", "round", "s", "kB sent a site", "kB received a site"],
            [
                [
                    call["call"], call["round"], f"{call['seconds']:.2f}",
                    *(f"{max(call[key].values(), default=0) / 1e3:.1f}" for key in ("bytes_sent", "bytes_received")),
                ]
                for call in calls
            ],
        )
    )  # fmt: skip


def report_requests(network: Network, path: Path) -> None:
    """Write all requests into a file, and print by kind what moved bytes or took time."""
    kinds: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    lines = []
    for name in ("server", "hub", *"abc"):
        for request in network.requests_of(name):
            lines.append({"at": name, **request})
            at = "server" if name == "server" else "proxies"
            what = re.sub(r"\d+", "N", request["path"].removeprefix("/api"))
            kinds.setdefault((at, request["method"], what), []).append(request)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in sorted(lines, key=lambda line: line["start"])))
    rows = []
    for (at, method, what), requests in kinds.items():
        seconds = [request["end"] - request["start"] for request in requests]
        sizes = [sum(request[way] for request in requests) / 1e6 for way in ("received", "sent")]
        if sum(seconds) > 1 or max(sizes) > 1:
            times = [f"{value:.2f}" for value in (sum(seconds), max(seconds))]
            rows.append([at, method, what, len(requests), *(f"{size:.1f}" for size in sizes), *times])
    print("\nRequests that moved over 1 MB or took over 1 s\n")
    print(table(["at", "method", "path", "requests", "MB in", "MB out", "s together", "s the longest"], rows))


if __name__ == "__main__":
    main()
