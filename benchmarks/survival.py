"""Survival at simulated hospitals: the federated C-index against the pooled one, on data bundled with lifelines.

    python benchmarks/survival.py

GBSG2 (686 breast cancer patients, 299 events) and Rossi (432, 114 events, times in weeks with many ties), each cut at
random into four sites of unequal size, 60 % for training, five seeds. Two questions:

- Is the C-index from the sites' sums that of the pooled rows? The federation's model is applied to the test rows of all
  sites in one place, and lifelines counts the pairs.
- Is the model as good as one trained on all rows in one place?
"""

from __future__ import annotations

import base64
import json
import statistics
from typing import Any

import lifelines.datasets
import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy
from common import table, train
from lifelines.utils import concordance_index

from v6_algorithm.data.sources import TableSource

SHARES = (4, 3, 2, 1)
SEEDS = range(5)
EXPERIMENT: dict[str, Any] = {
    "problem": "survival",
    "model": "linear",
    "rounds": 40,
    "training": {"local_steps": 5, "batch_size": None, "optimizer": {"kind": "sgd", "lr": 0.5}},
    "stopping": {"monitor": "loss", "patience": 10},
    "split": "given",
}


def gbsg2() -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the patients, as numbers, and the names of time and event."""
    frame = lifelines.datasets.load_gbsg2()
    frame["horTh"], frame["postmenopausal"] = frame["horTh"] == "yes", frame["menostat"] == "Post"
    frame["grade"] = frame["tgrade"].str.len()
    frame = frame.drop(columns=["menostat", "tgrade"]).astype(float)
    return frame, {"duration": "time", "event": "cens"}


def rossi() -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the prisoners and the names of time and event."""
    return lifelines.datasets.load_rossi(), {"duration": "week", "event": "arrest"}


def cut(frame: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """Cut a table into sites, with a column that says which part each row is in."""
    generator = np.random.default_rng(seed)
    frame = frame.iloc[generator.permutation(len(frame))].reset_index(drop=True)
    frame["part"] = np.resize(["train"] * 6 + ["validation"] + ["test"] * 3, len(frame))
    ends = [0, *(np.cumsum(SHARES) / sum(SHARES) * len(frame)).astype(int)]
    return {f"site{number + 1}": frame.iloc[ends[number] : ends[number + 1]] for number in range(len(SHARES))}


def pooled_c_index(result: dict[str, Any], sites: dict[str, pd.DataFrame], target: dict[str, str]) -> float:
    """Apply the result's model to the test rows of all sites together, and let lifelines count the pairs."""
    data = base64.b64decode(result["parameters"])
    weights = safetensors.numpy.load(data)["model.weight"][0]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    prepared = json.loads(header["v6_algorithm"])["preparation"]
    rows = pd.concat(sites.values()).query("part == 'test'")
    inputs = (rows[prepared["features"]].to_numpy(float) - prepared["shift"]) / prepared["scale"]
    return concordance_index(rows[target["duration"]], -(inputs @ weights), rows[target["event"]])


def main() -> None:
    """Print one line for each data set."""
    lines = []
    for name, load in (("GBSG2", gbsg2), ("Rossi", rossi)):
        frame, target = load()
        content = EXPERIMENT | {"data": {"target": target, "split_column": "part"}}
        found: dict[str, list[float]] = {"sums": [], "pooled": [], "apart": [], "within": [], "centralised": []}
        for seed in SEEDS:
            sites = cut(frame, seed)
            sources = {site: TableSource(frame=part) for site, part in sites.items()}
            result = train(content, sources)
            metrics = result["metrics"]["test"]["pooled"]
            central = train({**content, "mode": "centralised"}, sources)
            found["sums"].append(metrics["c_index"])
            found["within"].append(metrics["c_index_within"])
            found["pooled"].append(pooled_c_index(result, sites, target))
            found["apart"].append(abs(found["sums"][-1] - found["pooled"][-1]))
            found["centralised"].append(pooled_c_index(central, sites, target))
        mean = {key: f"{statistics.mean(values):.4f}" for key, values in found.items()}
        most = f"{max(found['apart']):.4f}"
        lines.append([name, mean["sums"], mean["pooled"], most, mean["within"], mean["centralised"]])
    header = [
        "data",
        "C-index from sums",
        "same model, pooled rows",
        "largest difference",
        "within sites",
        "centralised",
    ]
    print(table(header, lines))


if __name__ == "__main__":
    main()
