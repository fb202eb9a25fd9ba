"""HRC's three networks on synthetic GTEx: 4,000 samples, 18,388 genes, four hospitals, centralised and federated.

    python benchmarks/gtex.py                         # three turns of each, 5 minutes on two cores, 1.3 GB of disk
    python benchmarks/gtex.py --model 512 --turns 1   # mock/gtex_512.yaml as it is
    python benchmarks/gtex.py --model age --turns 1   # mock/gtex_age.yaml: age in years

HRC (https://github.com/vermasrijan/srijan-gsoc-2020) took 83 s centralised and 212 s at four clients, for two
full-batch steps each, and tells training accuracy only: 0.166, and at most 0.246. Here an epoch is all batches of 32,
two epochs are trained, and accuracy is of held-out donors; its other two networks have no published figures. `plain`
is what one writes without this package: pandas, torch and the first network on one table. Times are of a whole run:
reading, preparing, training, testing; the runs take turns in one process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import table
from torch import nn

from v6_algorithm import seeding
from v6_algorithm.coordinator.master import run
from v6_algorithm.data.partition.files import write_tables
from v6_algorithm.data.partition.tables import cut_table
from v6_algorithm.data.sources import TableSource
from v6_algorithm.engines.simulation.simulate import local_federation
from v6_algorithm.experiment import Experiment, parse_partition
from v6_algorithm.experiment.reading import read_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mock"))
import gtex_table
import make_gtex

MOCK = Path(make_gtex.__file__).parent
HIDDEN, BATCH, LR, SITES = [256, 128, 64], 32, 0.001, 4
FILES = {"256": "gtex.yaml", "512": "gtex_512.yaml", "age": "gtex_age.yaml"}
METRICS = {"classification": ["accuracy"], "regression": ["mae", "r2"]}


def make_sites(folder: Path, rows: int) -> dict[str, TableSource]:
    """Make the two files, their table, and each hospital's part of it: whole donors."""
    make_gtex.make(folder, rows)
    samples = gtex_table.read_samples(folder / "samples.parquet")
    gtex_table.write_table(samples, folder / "expressions.parquet", folder / "table.parquet", log2=True)
    source = TableSource(str(folder / "table.parquet"))
    frame = source.read({"Age", "Donor"}.__contains__)
    partition = parse_partition({"kind": "iid", "sites": SITES})
    generator = seeding.numpy_generator(0, "partition")
    parts = cut_table(partition, frame, generator, target="Age", group="Donor")
    files = {name: f"{name}.parquet" for name in parts.names}
    write_tables(source, parts, files, folder)
    return {name: TableSource(str(folder / file)) for name, file in files.items()}


def ours(file: str, mode: str, sites: dict[str, TableSource], rounds: int | None) -> dict[str, float]:
    """Run an experiment of mock/, over another number of rounds if one is given; return seconds and test metrics."""
    content = read_file(MOCK / file)
    del content["sites"]
    experiment = Experiment.parse(content | {"mode": mode} | ({} if rounds is None else {"rounds": rounds}))
    start = time.perf_counter(), time.process_time()
    result = run(local_federation(experiment, sites), experiment)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    assert result["preparation"]["inputs"] == make_gtex.GENES + 32 * bool(experiment.data.categorical)
    training = sum(call["seconds"] for call in result["timing"]["rounds"] if call["call"] == "train")
    told = {"wall": seconds[0], "cpu": seconds[1], "train": training, "rounds": result["rounds_run"]}
    pooled = result["metrics"]["test"]["pooled"]
    return told | {key: pooled[key] for key in (*METRICS[experiment.problem.kind], "n")}


def plain(path: Path, epochs: int) -> dict[str, float]:
    """Do the same on the whole table with pandas and torch."""
    start = time.perf_counter(), time.process_time()
    frame = pd.read_parquet(path)
    genes = [name for name in frame.columns if name.startswith("ENSG")]
    inputs = np.concatenate(
        [frame[genes].to_numpy(np.float32), pd.get_dummies(frame[["Tissue", "Sex"]]).to_numpy(np.float32)], 1
    )
    target = torch.from_numpy(pd.factorize(frame["Age"], sort=True)[0])
    donors = frame["Donor"].unique()
    held_out = np.random.default_rng(0).permutation(donors)[: len(donors) // 5]
    test = frame["Donor"].isin(held_out).to_numpy()
    mean, spread = inputs[~test].mean(0), inputs[~test].std(0)
    inputs = torch.from_numpy((inputs - mean) / np.where(spread > 0, spread, 1).astype(np.float32))
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip([inputs.shape[1], *HIDDEN], HIDDEN, strict=False):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 6))
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    rows = torch.from_numpy(np.flatnonzero(~test))
    begin = time.perf_counter()
    for _ in range(epochs):
        for batch in torch.split(rows[torch.randperm(len(rows))], BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), target[batch]).backward()
            optimiser.step()
    training = time.perf_counter() - begin
    with torch.inference_mode():
        tested = torch.from_numpy(np.flatnonzero(test))
        hits = model(inputs[tested]).argmax(1) == target[tested]
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    accuracy = hits.double().mean().item()
    told = {"wall": seconds[0], "cpu": seconds[1], "train": training, "rounds": epochs}
    return told | {"accuracy": accuracy, "n": len(hits)}


def without_learning(model: str) -> str:
    """Tell what a constant prediction scores: the most frequent band, or the mean age."""
    share = make_gtex.COUNTS / make_gtex.COUNTS.sum()
    if model != "age":
        return f"the most frequent band: accuracy {share.max():.3f}"
    ages = 24.5 + 10 * np.arange(len(share))
    mean = (share * ages).sum()
    return f"the mean age: mae {(share * abs(ages - mean)).sum():.2f} years, r2 0"


def main() -> None:
    """Make the data, take turns, print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(FILES), default="256", help="the network")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, help="2 for 256, else those of the experiment file")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    model, rounds = arguments.model, arguments.rounds or (2 if arguments.model == "256" else None)
    with tempfile.TemporaryDirectory() as name:
        sites = make_sites(Path(name), arguments.rows)
        runs = {
            f"federated, {SITES} sites": lambda: ours(FILES[model], "federated", sites, rounds),
            "centralised": lambda: ours(FILES[model], "centralised", sites, rounds),
        }
        if model == "256":
            runs["plain torch"] = lambda: plain(Path(name) / "table.parquet", rounds or 0)
        found: dict[str, list[dict[str, float]]] = {run: [] for run in runs}
        for turn in range(arguments.turns):
            for run_name, action in runs.items():
                found[run_name].append(action())
                print(f"turn {turn + 1}: {run_name}: {found[run_name][-1]}", flush=True)
    median = {
        name: {key: statistics.median(t[key] for t in turns) for key in turns[0]} for name, turns in found.items()
    }
    metrics = METRICS["regression" if model == "age" else "classification"]
    lines = [
        [
            name,
            int(m["rounds"]),
            *(f"{m[key]:.1f}" for key in ("wall", "train", "cpu")),
            *(f"{m[key]:.3f}" for key in metrics),
            int(m["n"]),
        ]
        for name, m in median.items()
    ]
    header = ["run", "rounds", "seconds", "of them training", "CPU s", *(f"test {key}" for key in metrics), "test rows"]
    print(table(header, lines))
    print(f"{without_learning(model)}; {arguments.rows:,} rows")


if __name__ == "__main__":
    main()
