"""HRC's run on synthetic GTEx: 4,000 samples, 18,420 inputs, four hospitals, two epochs, centralised and federated.

    python benchmarks/gtex.py             # three turns of each, 5 minutes on two cores, 1.3 GB of disk
    python benchmarks/gtex.py --turns 1 --epochs 10

HRC (https://github.com/vermasrijan/srijan-gsoc-2020) took 83 s centralised and 212 s at four clients, for two
full-batch steps each, and tells training accuracy only: 0.166, and at most 0.246. Here an epoch is all batches of 32,
and accuracy is of held-out donors. `plain` is what one writes without this package: pandas, torch and the same network
on one table. Times are of a whole run: reading, preparing, training, testing; the three take turns in one process.
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
from v6_algorithm.data.sources import TableSource
from v6_algorithm.experiment import Experiment, parse_partition
from v6_algorithm.federation.simulate import local_federation
from v6_algorithm.master import run
from v6_algorithm.partition.files import write_tables
from v6_algorithm.partition.tables import cut_table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mock"))
import gtex_table
import make_gtex

HIDDEN, BATCH, LR, SITES = [256, 128, 64], 32, 0.001, 4


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


def ours(mode: str, sites: dict[str, TableSource], epochs: int) -> dict[str, float]:
    """Run the experiment of mock/gtex.yaml over `epochs` rounds of one epoch; return seconds and test accuracy."""
    experiment = Experiment.parse(
        {
            "mode": mode,
            "data": {"target": "Age", "exclude": ["Avg_age"], "categorical": ["Tissue", "Sex"], "group": "Donor"},
            "model": {"kind": "mlp", "hidden": HIDDEN},
            "rounds": epochs,
            "training": {"batch_size": BATCH, "optimizer": {"kind": "adam", "lr": LR}},
        }
    )
    start = time.perf_counter(), time.process_time()
    result = run(local_federation(experiment, sites), experiment)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    pooled = result["metrics"]["test"]["pooled"]
    assert result["preparation"]["inputs"] == make_gtex.GENES + 32
    training = sum(call["seconds"] for call in result["timing"]["rounds"] if call["call"] == "train")
    return {"wall": seconds[0], "cpu": seconds[1], "train": training, "accuracy": pooled["accuracy"], "n": pooled["n"]}


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
    return {"wall": seconds[0], "cpu": seconds[1], "train": training, "accuracy": accuracy, "n": len(hits)}


def main() -> None:
    """Make the data, take turns, print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sites = make_sites(Path(name), arguments.rows)
        runs = {
            "federated, 4 sites": lambda: ours("federated", sites, arguments.epochs),
            "centralised": lambda: ours("centralised", sites, arguments.epochs),
            "plain torch": lambda: plain(Path(name) / "table.parquet", arguments.epochs),
        }
        found: dict[str, list[dict[str, float]]] = {run: [] for run in runs}
        for turn in range(arguments.turns):
            for run_name, action in runs.items():
                found[run_name].append(action())
                print(f"turn {turn + 1}: {run_name}: {found[run_name][-1]}", flush=True)
    median = {
        name: {key: statistics.median(t[key] for t in turns) for key in turns[0]} for name, turns in found.items()
    }
    lines = [
        [name, *(f"{m[key]:.1f}" for key in ("wall", "train", "cpu")), f"{m['accuracy']:.3f}", int(m["n"])]
        for name, m in median.items()
    ]
    print(table(["run", "seconds", "of them training", "CPU s", "test accuracy", "test rows"], lines))
    majority = make_gtex.COUNTS.max() / make_gtex.COUNTS.sum()
    print(f"the most frequent band: {majority:.3f}; {arguments.rows:,} rows, {arguments.epochs} epochs")


if __name__ == "__main__":
    main()
