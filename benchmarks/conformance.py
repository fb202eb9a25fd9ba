"""The same experiments by every engine: each kind of problem on real nodes of vantage6 4.15 and 5.0.3, and the mocks.

    python benchmarks/conformance.py

Compares what `tests/network/support/problem_kinds.SAME` names of each result with the local engine's in the same
Python: "equal" is bit for bit, else the largest difference of a parameter. Both networks are real servers and nodes on
this machine whose algorithms are processes; Keycloak and Kubernetes of 5 are the stand-ins of tests/network/hq.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import table

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "network" / part) for part in ("support", "hq")]
os.environ.setdefault("V6_TEST_TAG", "benchmark")
# Several threads add up in another order.
os.environ["OMP_NUM_THREADS"] = "1"

from hq_network import HqNetwork, run_script  # noqa: E402
from problem_kinds import KINDS, SAME, experiment_of, write_hospitals  # noqa: E402
from v6config import Site  # noqa: E402
from v6network import Network  # noqa: E402

from v6_algorithm.coordinator.master import run  # noqa: E402
from v6_algorithm.data.sources import TableSource  # noqa: E402
from v6_algorithm.engines.simulation.simulate import local_federation  # noqa: E402
from v6_algorithm.exchange import wire  # noqa: E402
from v6_algorithm.experiment import Experiment  # noqa: E402
from v6_algorithm.researcher.network.server_python import server_python  # noqa: E402

# With secret folds a run here would have others.
_TRUSTED = {"V6_ALGORITHM_POLICY": "trusted", "OMP_NUM_THREADS": "1"}


def verdict(ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    """Say whether two results are equal, or how far their parameters are apart."""
    if theirs is None:
        return "failed"
    if all(ours[key] == theirs[key] for key in SAME):
        return "equal"
    mine, other = (wire.unpack(result["parameters"]) for result in (ours, theirs))
    if {name: tensor.shape for name, tensor in mine.items()} != {name: tensor.shape for name, tensor in other.items()}:
        return "not: another model"
    apart = max(float((mine[name].double() - other[name].double()).abs().max()) for name in mine)
    return f"{apart:.0e}" if apart else f"not: {', '.join(key for key in SAME if ours[key] != theirs[key])}"


def on_mock_4(files: dict[str, Path], experiment: dict[str, Any]) -> dict[str, Any]:
    """Run over vantage6 4's mock client."""
    import pandas as pd
    from vantage6.algorithm.tools.mock_client import MockAlgorithmClient

    tables = [[{"database": pd.read_csv(file), "db_type": "csv"}] for file in files.values()]
    client = MockAlgorithmClient(datasets=tables, module="v6_algorithm")
    organizations = client.organization.list()
    names = {str(entry["id"]): name for entry, name in zip(organizations, files, strict=True)}
    task = client.task.create(
        input_={"method": "master", "kwargs": {"experiment": experiment, "names": names}},
        organizations=[organizations[0]["id"]],
    )
    (result,) = client.wait_for_results(task["id"])
    return dict(result)


def main() -> None:
    """Run every kind by every engine, and print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in ("four", "five", "files", "scripts"):
            (work / name).mkdir()
        files = write_hospitals(work / "files")
        places = {name: [str(file), "csv"] for name, file in files.items()}
        sites = {name: {"databases": {"default": place}, "environment": _TRUSTED} for name, place in places.items()}
        five = HqNetwork(work / "five", sites)
        four = Network(
            work / "four",
            server_python(),
            {name: Site({"default": file}, guards=_TRUSTED) for name, file in files.items()},
        )
        try:
            four.start()
            frame = five.do("extract", name="hospitals", label="default")["dataframe"]
            names = {str(number): name for name, number in five.about["organizations"].items()}
            asked = [four.organizations[name] for name in files]
            for kind in KINDS:
                experiment = experiment_of(kind)
                checked = Experiment.parse(experiment)
                ours = run(
                    local_federation(checked, {name: TableSource(str(file)) for name, file in files.items()}), checked
                )
                request = {"sites": places, "arguments": {"experiment": experiment}, "method": "master"}
                ours_5 = run_script("here_run.py", request, work / "scripts")
                over = five.do(
                    "task", method="master", dataframe=frame, action="central_compute", sites=[next(iter(files))],
                    arguments={"experiment": experiment, "names": names},
                )  # fmt: skip
                rows.append(
                    [
                        kind,
                        "reference",
                        verdict(ours, on_mock_4(files, experiment)),
                        verdict(ours, four.run("master", experiment=experiment, organizations=asked, timeout_s=900)),
                        verdict(ours_5, run_script("mock_run.py", request, work / "scripts")[0]),
                        verdict(ours_5, (over.get("results") or [None])[0]),
                    ]
                )
                print(*rows[-1], sep="; ", flush=True)
        finally:
            four.stop()
            five.stop()
    print(table(["problem", "local", "4.15 mock", "4.15 nodes", "5.0.3 mock", "5.0.3 nodes"], rows))


if __name__ == "__main__":
    main()
