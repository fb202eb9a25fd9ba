"""Heart disease on real nodes in Docker: 20 rounds from `v6-algorithm submit` to the files, against a plain algorithm.

    python benchmarks/heart_network.py                 # builds the images
    python benchmarks/heart_network.py --rounds 5 --kinds ours "ours, pipeline"

FLamby's four hospitals (its split is not used: rows are cut at random), columns that vary at each of them, an MLP of 32
and 16. Of ours the seconds of the command are measured, log-in, preparation, validation in each round, the test and the
report among them; of the plain FedAvg, as vantage6's tutorials write one, the seconds of its task, which gives no more
than weights. In turn, on one network.
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

import pandas as pd
from common import DATA, table
from network import EMPTY, IMAGE, PLAIN, Network, bridge_gateway, build_images, server_python, submit, v6network
from v6config import Site

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
HIDDEN = [32, 16]


def write_hospitals(folder: Path) -> tuple[dict[str, Site], int]:
    """Write each hospital's table; return the sites, and how many inputs there are."""
    frames = {name: pd.read_csv(DATA / "flamby_heart" / f"{name}.csv") for name in HOSPITALS}
    inputs = [
        name
        for name in frames["va"].columns
        if name not in ("target", "split") and all(frame[name].nunique() > 1 for frame in frames.values())
    ]
    sites = {}
    for name, frame in frames.items():
        frame[[*inputs, "target"]].rename(columns={"target": "outcome"}).to_csv(folder / f"{name}.csv", index=False)
        sites[name] = Site({"default": folder / f"{name}.csv"})
    return sites, len(inputs)


def experiment(rounds: int, **more: Any) -> dict[str, Any]:
    """Return our experiment."""
    return {
        "name": "heart",
        "data": {"target": "outcome"},
        "model": {"kind": "mlp", "hidden": HIDDEN},
        "rounds": rounds,
        "stopping": {"patience": None},
        "training": {"batch_size": 32},
        "participation": {"minimum": 4, "deadline_s": 600},
        **more,
    }


def submitted(network: Network, folder: Path, content: dict[str, Any]) -> tuple[float, str]:
    """Type the command; return its seconds, and how the model came out."""
    seconds = submit(network, folder, content, [word for name in HOSPITALS for word in ("--organization", name)])
    files = sorted(path.name for path in (folder / "out").iterdir())
    metrics = pd.read_csv(folder / "out" / "metrics.csv")
    metrics = metrics[(metrics["part"] == "test") & (metrics["scope"] == "pooled")].set_index("metric")["value"]
    return seconds, f"{len(files)} files, AUROC {metrics['auroc']:.3f}"


def main() -> None:
    """Run each kind once a turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=["ours", "plain FedAvg", "ours, pipeline"])
    parser.add_argument("--built", action="store_true", help="the images are there already")
    chosen = parser.parse_args()
    v6network.ALLOWED_IMAGES = (IMAGE, EMPTY, PLAIN)
    if not chosen.built:
        build_images()
    rows: list[list[Any]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network").mkdir()
        sites, inputs = write_hospitals(folder)
        network = Network(folder / "network", server_python(), sites, images=None, proxy_host=bridge_gateway())
        try:
            network.start()
            organizations = [network.organizations[hospital] for hospital in HOSPITALS]
            for turn in range(chosen.turns):
                for kind in chosen.kinds:
                    load = os.getloadavg()[0]
                    if kind == "plain FedAvg":
                        start = time.perf_counter()
                        arguments = {"sites": organizations, "rounds": chosen.rounds, "hidden": HIDDEN}
                        network.run("master", image=PLAIN, timeout_s=3600, features=inputs, **arguments)
                        seconds, what = time.perf_counter() - start, "weights"
                    else:
                        more = {"pipeline": 1} if "pipeline" in kind else {}
                        seconds, what = submitted(
                            network, folder / f"{kind.replace(', ', '-')}-{turn}", experiment(chosen.rounds, **more)
                        )
                    rows.append([kind, f"{seconds:.0f}", f"{seconds / chosen.rounds:.1f}", what])
                    rows[-1].append(f"{load:.0f} to {os.getloadavg()[0]:.0f}")
                    print(*rows[-1], sep=" | ", flush=True)
        finally:
            network.stop()
            print(table(["algorithm", "seconds in all", "a round", "leaves", "load"], rows))


if __name__ == "__main__":
    main()
