"""Synthetic lesions at hospitals that differ as the dermatology project's do in its experiments 2 to 6: AUROC.

    python benchmarks/lesions.py                # about 45 minutes on two cores; --seeds 0 a third of it
    python benchmarks/lesions.py size artefacts # or mixture, labels, active, scanners

Hospitals, and the patients that no hospital has, those of the server, are cut from lists of patients as there, but in
every experiment by patient, and at a third to a tenth of the rows. `size` is experiment 2 (2,000, 10,000 and 20,000
rows there), `mixture` 3, `labels` 4 (31, 1 and 90 % melanomas), `active` 5 (five hospitals of falling size),
`artefacts` 6 (dark frames on all images of one, rulers on all of another, neither on the third's and the server's).
Every figure is of the server's patients: the model of all hospitals together, that of all their rows in one place, and
of each alone the mean and the best, which nobody can know beforehand.

`scanners` compares, at four hospitals whose scanners differ in brightness, contrast and hue, norms that stay at the
hospital (FedBN), that are averaged, and GroupNorm: on the test patients of all hospitals.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import table, train

from v6_algorithm.data.sources import TableSource
from v6_algorithm.researcher.external import CentralTable, ReturnedModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mock"))
from make_lesions import Rule, make

SIZE = 32
IMAGES = 12_000
# Of each hospital, and last of the server: rows, and the share of melanomas among them.
PLANS: dict[str, dict[str, tuple[int, float]]] = {
    "size": {"small": (190, 0.17), "middle": (1000, 0.14), "large": (1800, 0.11), "server": (1000, 0.2)},
    "mixture": {"one": (290, 0.72), "two": (345, 0.10), "three": (500, 0.11), "server": (1000, 0.44)},
    "labels": {"one": (540, 0.31), "two": (540, 0.01), "three": (540, 0.90), "server": (1000, 0.33)},
    "active": {
        "one": (1056, 0.195), "two": (745, 0.226), "three": (200, 0.194), "four": (86, 0.20), "five": (44, 0.215),
        "server": (1000, 0.29),
    },
    "artefacts": {"frames": (337, 0.32), "rulers": (500, 0.25), "none": (500, 0.25), "server": (1000, 0.25)},
}  # fmt: skip
ARTEFACTS = {"frames": "frame", "rulers": "ruler"}
WAYS = {"federated": "federated", "all rows in one place": "centralised", "each alone": "local"}
NORMS: dict[str, tuple[str, Any]] = {
    "BatchNorm, averaged (FedAvg)": ("batch", None),
    "BatchNorm, each hospital its own (FedBN)": ("batch", "norm"),
    "GroupNorm (the default)": ("group", None),
}


def experiment(name: str, seed: int, norm: str = "batch", **content: Any) -> dict[str, Any]:
    """Return the setting of all experiments: of four tried, the best on the validation rows of `active`, seed 0."""
    return {
        "name": name,
        "seed": seed,
        "data": {
            "target": "label",
            "positive": "== melanoma",
            "group": "patient",
            "image": {"column": "file", "size": [SIZE, SIZE]},
        },
        "problem": "image_classification",
        "model": {"kind": "cnn", "widths": [16, 32, 64], "norm": norm},
        "rounds": 20,
        "training": {
            "local_epochs": 2,
            "batch_size": 32,
            "optimizer": {"kind": "adam", "lr": 0.005},
            "loss": {"kind": "cross_entropy", "class_weights": "balanced"},
        },
        "stopping": {"monitor": "auroc", "patience": None},
    } | content


def deal(frame: pd.DataFrame, plan: dict[str, tuple[int, float]], seed: int) -> dict[str, pd.DataFrame]:
    """Give each hospital whole patients, of benign lesions only or of melanomas only, until it has its rows.

    Both lists are shuffled once, and every hospital goes on where the one before ended.
    """
    lists = []
    for label in ("melanoma", "benign"):
        pure = frame.groupby("patient").filter(lambda rows, label=label: (rows["label"] == label).all())
        patients = [rows for _, rows in pure.groupby("patient")]
        lists.append([patients[place] for place in pd.Series(range(len(patients))).sample(frac=1, random_state=seed)])
    dealt = {}
    for name, (rows, share) in plan.items():
        own: list[pd.DataFrame] = []
        for patients, wanted in zip(lists, (round(rows * share), rows - round(rows * share)), strict=True):
            while wanted > 0:
                own.append(patients.pop())
                wanted -= len(own[-1])
        dealt[name] = pd.concat(own)
    return dealt


def hospitals(folder: Path, name: str, seed: int) -> dict[str, TableSource]:
    """Make the lesions of an experiment and deal them; a hospital's own artefacts lie over the same lesions."""
    plan = PLANS[name]
    worn = ARTEFACTS if name == "artefacts" else dict.fromkeys(plan)
    made: dict[str | None, Path] = {}
    dealt: dict[str, pd.DataFrame] = {}
    sources = {}
    for hospital in plan:
        artefact = worn.get(hospital)
        if artefact not in made:
            made[artefact] = folder / f"{name}-{artefact}"
            rules = [] if name != "artefacts" else [Rule(one, (), float(one == artefact)) for one in ("ruler", "frame")]
            make(made[artefact], IMAGES, size=SIZE, seed=seed, scanners=1, rules=rules)
        if not dealt:
            dealt = deal(pd.read_csv(made[artefact] / "lesions.csv"), plan, seed)
        sources[hospital] = TableSource(frame=dealt[hospital].reset_index(drop=True), base=made[artefact])
    return sources


def compare(folder: Path, name: str, seed: int) -> dict[str, list[float]]:
    """Return AUROCs on the server's patients for each way to learn; where each learns alone, of each model."""
    sources = hospitals(folder, name, seed)
    server = CentralTable(sources.pop("server"))
    found = {}
    for way, mode in WAYS.items():
        start = time.perf_counter()
        result = train(experiment(name, seed, mode=mode), sources)
        measured = server.measure(ReturnedModel.of(result["parameters"], name))
        found[way] = [metrics["auroc"] for metrics in measured.by_model.values()]
        shown = ", ".join(f"{value:.3f}" for value in found[way])
        seconds = time.perf_counter() - start
        print(f"{name}, {way}, seed {seed}: {shown} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    return found


def scanners(folder: Path, seed: int) -> dict[str, float]:
    """Return the AUROC on the hospitals' own test patients for each kind of norm."""
    make(folder / "scanners", IMAGES // 4, size=SIZE, seed=seed, scanners=4, shift=1.0)
    frame = pd.read_csv(folder / "scanners" / "lesions.csv")
    sources = {
        str(scanner): TableSource(frame=rows.reset_index(drop=True), base=folder / "scanners")
        for scanner, rows in frame.groupby("scanner")
    }
    found = {}
    for kind, (norm, private) in NORMS.items():
        strategy = {"kind": "fedavg"} | ({"private": private} if private else {})
        result = train(experiment("scanners", seed, norm, strategy=strategy), sources)
        found[kind] = result["metrics"]["test"]["pooled"]["auroc"]
        print(f"scanners, {kind}, seed {seed}: {found[kind]:.3f}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="*", help=f"{', '.join(PLANS)}, scanners; all if none is named")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    # Small networks: another thread hardly helps, and figures would depend on the number of cores.
    torch.set_num_threads(1)
    what = options.what or [*PLANS, "scanners"]
    rows = []
    for name in [name for name in PLANS if name in what]:
        runs = []
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                runs.append(compare(Path(folder), name, seed))
        alone = [value for run in runs for value in run["each alone"]]
        best = [max(run["each alone"]) for run in runs]
        rows.append([name, *(spread([run[way][0] for run in runs]) for way in WAYS if way != "each alone")])
        rows[-1] += [spread(alone), spread(best)]
    if rows:
        print(table(["experiment", "federated", "all rows in one place", "each alone", "the best alone"], rows))
    if "scanners" in what:
        found = []
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                found.append(scanners(Path(folder), seed))
        print(table(["norm", "AUROC"], [[kind, spread([run[kind] for run in found])] for kind in NORMS]))


def spread(values: Sequence[float]) -> str:
    """Write mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()
