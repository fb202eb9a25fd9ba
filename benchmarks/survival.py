"""Survival at simulated hospitals: the federated C-index against the pooled one, on data bundled with lifelines.

    python benchmarks/survival.py

GBSG2 (686 breast cancer patients, 299 events) and Rossi (432, 114 events, times in weeks with many ties), each cut at
random into four sites of unequal size, 60 % for training, five seeds. Three questions:

- Is the C-index from the sites' sums that of the pooled rows? The federation's model is applied to the test rows of all
  sites in one place, and lifelines counts the pairs.
- Is the model as good as one trained on all rows in one place?
- Is the Brier score from the sites' sums that of the pooled rows by definition: the same model with Breslow's baseline
  hazard, a step at each event time of all training rows, and with weights by Kaplan and Meier?
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
from lifelines import KaplanMeierFitter
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


def scored(
    result: dict[str, Any], sites: dict[str, pd.DataFrame], target: dict[str, str], part: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return time, event and log-risk, by the result's model, of the rows of a part of all sites together."""
    data = base64.b64decode(result["parameters"])
    weights = safetensors.numpy.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    prepared = json.loads(header["v6_algorithm"])["preparation"]
    rows = pd.concat(sites.values()).query("part == @part")
    inputs = (rows[prepared["features"]].to_numpy(float) - prepared["shift"]) / prepared["scale"]
    risk = inputs @ weights["model.weight"][0] + weights["model.bias"]
    return rows[target["duration"]].to_numpy(float), rows[target["event"]].to_numpy() == 1, risk


def pooled_c_index(result: dict[str, Any], sites: dict[str, pd.DataFrame], target: dict[str, str]) -> float:
    """Let lifelines count the pairs of the test rows of all sites together."""
    time, event, risk = scored(result, sites, target, "test")
    return concordance_index(time, -risk, event)


def pooled_brier(result: dict[str, Any], sites: dict[str, pd.DataFrame], target: dict[str, str]) -> float:
    """Integrate the Brier score of the test rows, at the result's times, by the definition."""
    time, event, risk = scored(result, sites, target, "train")
    moments = np.unique(time[event])
    steps = np.array([(event & (time == at)).sum() / np.exp(risk[time >= at]).sum() for at in moments])
    times = np.array(result["preparation"]["baseline"]["times"])
    hazard = np.array([steps[moments <= at].sum() for at in times])
    time, event, risk = scored(result, sites, target, "test")
    curves = np.exp(-np.outer(np.exp(risk), hazard))
    stay = KaplanMeierFitter().fit(time, ~event)
    just_before = stay.survival_function_at_times(time - 1e-6).to_numpy()
    scores = []
    for at, curve in zip(times, curves.T, strict=True):
        died, alive = event & (time <= at), time > at
        total = (curve[died] ** 2 / just_before[died]).sum() + ((1 - curve[alive]) ** 2).sum() / stay.predict(at)
        scores.append(total / len(time))
    return float(np.trapezoid(scores, times) / (times[-1] - times[0]))


def main() -> None:
    """Print one line for each data set and question about sums."""
    lines, curves = [], []
    for name, load in (("GBSG2", gbsg2), ("Rossi", rossi)):
        frame, target = load()
        content = EXPERIMENT | {"data": {"target": target, "split_column": "part"}}
        found: dict[str, list[float]] = {"sums": [], "pooled": [], "apart": [], "within": [], "centralised": []}
        briers: dict[str, list[float]] = {"sums": [], "pooled": [], "apart": []}
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
            briers["sums"].append(metrics["brier"])
            briers["pooled"].append(pooled_brier(result, sites, target))
            briers["apart"].append(abs(briers["sums"][-1] - briers["pooled"][-1]))
        mean = {key: f"{statistics.mean(values):.4f}" for key, values in found.items()}
        most = f"{max(found['apart']):.4f}"
        brier = [statistics.mean(briers["sums"]), statistics.mean(briers["pooled"]), max(briers["apart"])]
        curves.append([name, *(f"{value:.4f}" for value in brier)])
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
    print(table(["data", "Brier from sums", "by definition", "largest difference"], curves))


if __name__ == "__main__":
    main()
