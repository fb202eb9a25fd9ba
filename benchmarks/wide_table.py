"""Peak memory and seconds of one site with a table of GTEx's size: 17,382 rows, 18,420 inputs, parquet.

    python benchmarks/wide_table.py                       # 3 minutes, 2.6 GB of disk
    python benchmarks/wide_table.py --rows 2000 --float64

Every request is answered by a process of its own, as on a vantage6 node: the site reads its file once, for the columns,
and once more, for the statistics; from then on what it needs is in its state folder. Values are noise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import table

from v6_algorithm.coordinator.master import run
from v6_algorithm.data.sources import TableSource
from v6_algorithm.exchange import wire
from v6_algorithm.exchange.protocol import Arrival, Replies, Site
from v6_algorithm.experiment import Experiment
from v6_algorithm.site import SiteContext, handle
from v6_algorithm.site.policy import Policy

GENES, TISSUES = 18_388, 30
EXPERIMENT = {
    "data": {"target": "Age", "categorical": ["Tissue", "Sex"]},
    "model": {"kind": "mlp", "hidden": [256, 128, 64]},
    "rounds": 2,
    "participation": {"minimum": 1},
}


def make(path: Path, rows: int, *, double: bool) -> None:
    """Write a table of noise, row group by row group."""
    generator = np.random.default_rng(0)
    dtype = np.float64 if double else np.float32
    writer = None
    for start in range(0, rows, 2000):
        n = min(2000, rows - start)
        values = generator.standard_normal((GENES, n), dtype=dtype)
        columns = {
            "Age": pa.array([f"{20 + 10 * (i % 6)}-{29 + 10 * (i % 6)}" for i in range(n)]),
            "Tissue": pa.array([f"tissue {i % TISSUES}" for i in range(n)]),
            "Sex": pa.array(["male" if i % 3 else "female" for i in range(n)]),
            **{f"ENSG{gene:011d}.1": pa.array(values[gene]) for gene in range(GENES)},
        }
        block = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, block.schema)
        writer.write_table(block)
    if writer is not None:
        writer.close()


class OneProcessARequest:
    """A federation of one site, every request answered by a fresh process that is measured."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, folder
        self.lines: list[list[str]] = []

    def sites(self) -> list[Site]:
        """Return the one site."""
        return [Site("site", 0)]

    def call(self, method: str, requests: dict, *, deadline_s: float) -> Replies:
        """Ask it."""
        return Replies(requests, self._answer(method.removeprefix("RPC_"), requests["site"]), {})

    def _answer(self, method: str, request: dict):
        text = wire.to_text(request)
        (self._folder / "request.json").write_text(text)
        start = time.perf_counter()
        command = [sys.executable, __file__, "--answer", method, "--at", str(self._folder), "--file", str(self._path)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds = time.perf_counter() - start
        reply = (self._folder / "reply.json").read_text()
        name = " ".join(filter(None, [method, request.get("step", "")]))
        sizes = [f"{len(each) / 1e6:.1f}" for each in (text, reply)]
        measured = [f"{seconds:.1f}", f"{told['cpu_s']:.1f}", f"{told['peak_gb']:.2f}"]
        self.lines.append([name, *measured, *sizes])
        print("|", " | ".join(self.lines[-1]), flush=True)
        yield Arrival("site", reply)


def answer(method: str, folder: Path, path: Path) -> None:
    """Be the site for one request."""
    context = SiteContext({"site": TableSource(str(path))}, Policy(), folder / "state")
    reply = handle(method, json.loads((folder / "request.json").read_text()), context, raise_bugs=True)
    (folder / "reply.json").write_text(wire.to_text(reply))
    # Not ru_maxrss, which a new process takes over from the one that started it.
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(json.dumps({"peak_gb": int(peak) / 1e6, "cpu_s": time.process_time()}))


def main() -> None:
    """Make the table and run two rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=17_382)
    parser.add_argument("--float64", action="store_true", help="as pandas writes it, twice the file")
    parser.add_argument("--scaling", default="standard")
    parser.add_argument("--folds", type=int, help="cross-validation instead of a ratio split")
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        answer(arguments.answer, arguments.at, arguments.file)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "table.parquet", arguments.rows, double=arguments.float64)
        print(f"{arguments.rows:,} rows, file {(folder / 'table.parquet').stat().st_size / 1e9:.2f} GB", flush=True)
        federation = OneProcessARequest(folder / "table.parquet", folder)
        content = json.loads(json.dumps(EXPERIMENT))
        content["data"]["scaling"] = arguments.scaling
        if arguments.folds:
            content["split"] = {"kind": "kfold", "folds": arguments.folds}
        result = run(federation, Experiment.parse(content))
        print(table(["request", "seconds", "CPU s", "peak GB", "request MB", "reply MB"], federation.lines))
        print(f"{len(result['preparation']['features']):,} features, {result['preparation']['inputs']:,} inputs")


if __name__ == "__main__":
    main()
