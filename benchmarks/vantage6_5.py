"""What a round costs on vantage6 5.0.3 beside 4.15: real servers and nodes on this machine, interleaved.

    python benchmarks/vantage6_5.py                  algorithms are processes
    python benchmarks/vantage6_5.py --containers     algorithms are containers; prints the images' sizes too

HQ's Keycloak and Kubernetes are the stand-ins of tests/network/hq, so what a cluster adds to start a pod is not in it.
Sites of 4.15 train without a resident trainer too, which vantage6 5 cannot have. Prints the seconds of a warm round as
`master` sees them: medians and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "network" / part) for part in ("support", "hq")]
os.environ.setdefault("V6_TEST_TAG", "benchmark")

from docker_cli import bridge_gateway, image_size  # noqa: E402
from hq_network import HqNetwork  # noqa: E402
from network import experiment, write_patients  # noqa: E402
from services import run_script  # noqa: E402
from v6network import IMAGE, PROCESS_IMAGES, Network  # noqa: E402

from v6_algorithm.researcher.network.server_python import server_python  # noqa: E402

HIDDEN = [16]


def warm_rounds(result: dict[str, Any]) -> list[float]:
    """Return the seconds of a run's rounds but for the first."""
    return [call["round_s"] for call in result["timing"]["rounds"] if call["call"] == "train"][1:]


def main() -> None:
    """Run blocks of rounds on both in turn, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--containers", action="store_true")
    options = parser.parse_args()
    images = (IMAGE, f"{IMAGE}-vantage6-5")
    if options.containers:
        for image, version in zip(images, "45", strict=True):
            run_script("build_image.sh", image, timeout_s=1500, PYTHON=sys.executable, VANTAGE6=version)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sites = write_patients(work)
        for name in ("four", "five"):
            (work / name).mkdir()
        tables = {name: [str(site.databases["default"]), "csv"] for name, site in sites.items()}
        five = HqNetwork(
            work / "five",
            {name: {"databases": {"default": place}} for name, place in tables.items()},
            images[1] if options.containers else None,
        )
        where = {"images": None, "proxy_host": bridge_gateway()} if options.containers else {"images": PROCESS_IMAGES}
        four = Network(work / "four", server_python(), sites, **where)
        try:
            four.start()
            frame = five.do("extract", name="patients", label="default")["dataframe"]
            names = {str(number): name for name, number in five.about["organizations"].items()}
            of_four = [four.organizations[name] for name in "abc"]
            for _ in range(options.turns):
                for kind, resident in (("4.15", True), ("4.15, not resident", False)):
                    content = experiment(HIDDEN, options.rounds, resident=resident)
                    result = four.run("master", experiment=content, organizations=of_four, timeout_s=3600)
                    seconds.setdefault(kind, []).extend(warm_rounds(result))
                over = five.do(
                    "task", method="master", dataframe=frame, action="central_compute", sites=["a"],
                    arguments={"experiment": experiment(HIDDEN, options.rounds, resident=False), "names": names},
                )  # fmt: skip
                seconds.setdefault("5.0.3", []).extend(warm_rounds(over["results"][0]))
        finally:
            four.stop()
            five.stop()
    base = statistics.median(seconds["4.15, not resident"])
    rows = []
    for kind, values in seconds.items():
        median = statistics.median(values)
        rows.append(
            [kind, len(values), f"{median:.2f}", f"{min(values):.2f}", f"{max(values):.2f}", f"{median / base:.2f}"]
        )
    print(table(["vantage6", "warm rounds", "median s", "least", "most", "of 4.15, not resident"], rows))
    if options.containers:
        for image in images:
            print(f"{image}: {image_size(image) / 1e9:.2f} GB")
    print(f"load of this machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
