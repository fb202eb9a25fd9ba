"""FreeSurfer volumes, each of five sites left out in turn: what taking out the sites' effects does.

    python benchmarks/harmonisation.py

Classification of `isControl` from 66 volumes. A site that is left out trains nothing; scaled by site or harmonised, its
location and scale are estimated from its own rows without their labels. Beside it the same for a split within sites,
and how well the site itself can be told from the inputs of held-out rows, which is what harmonisation is to make
impossible; that needs all rows in one place, where there is no scaling by site.
"""

import argparse
import copy

import pandas as pd
from common import table, tables, train

from v6_algorithm.data.sources import TableSource

SITES = [f"site{number}" for number in range(1, 6)]
EXPERIMENT = {
    "name": "harmonisation",
    "data": {"target": "isControl", "exclude": ["age"]},
    "model": "logistic",
    "rounds": 40,
    "training": {"local_steps": 20, "batch_size": None, "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}},
    "stopping": {"monitor": "loss", "patience": 10},
}
SPLITS = {
    "leave one site out": {"kind": "leave_one_site_out", "validation": 0.2},
    "within sites, 5 folds": {"kind": "kfold", "folds": 5},
}
HARMONISATIONS = {
    "none": {},
    "z-score by site": {"scaling": {"kind": "standard", "scope": "site"}},
    "ComBat": {"harmonisation": {"kind": "combat"}},
    "ComBat, age kept": {"harmonisation": {"kind": "combat", "covariates": ["age"]}},
}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    sites = tables("freesurfer", SITES)
    rows = []
    for split_name, split in SPLITS.items():
        for name, change in HARMONISATIONS.items():
            test = train(_changed(change, split=split), sites)["metrics"]["test"]
            by_site = [f"{test['sites'][site]['auroc']:.2f}" for site in SITES]
            rows.append([split_name, name, f"{test['pooled']['accuracy']:.3f}", *by_site])
    print(table(["test", "harmonisation", "accuracy", *(f"AUROC {site}" for site in SITES)], rows))
    print()
    labelled = {
        site: TableSource(frame=pd.DataFrame(source.read()).assign(site=number))
        for number, (site, source) in enumerate(sites.items())
    }
    rows = []
    for name in ("none", "ComBat", "ComBat, age kept"):
        change = HARMONISATIONS[name]
        content = _changed({"target": "site", **change}, split={"kind": "ratio"})
        content["data"]["exclude"] = ["age", "isControl"]
        pooled = train({**content, "mode": "centralised"}, labelled)["metrics"]["test"]["pooled"]
        rows.append([name, f"{pooled['accuracy']:.3f}"])
    largest = max(len(source.read()) for source in sites.values()) / sum(
        len(source.read()) for source in sites.values()
    )
    rows.append(["always the largest site", f"{largest:.3f}"])
    print(table(["harmonisation", "accuracy of telling the site"], rows))


def _changed(data: dict, **changes: dict) -> dict:
    content = copy.deepcopy(EXPERIMENT) | changes
    content["data"] |= data
    return content


if __name__ == "__main__":
    main()
