"""FreeSurfer volumes of five sites: 10-fold cross-validation within sites, against coinstac-dinunet's figures.

    python benchmarks/freesurfer.py
    python benchmarks/freesurfer.py --leave-one-site-out

Classification of `isControl` from 66 volumes (age is left out), accuracy pooled over the test rows of all folds, and
its mean and standard deviation over them. Leave-one-site-out trains at four sites and tests at the fifth, with the
same settings, scaled by the training sites' statistics and by each site's own.
coinstac-dinunet published 0.9125 and 0.9102 from scratch, on the same 423 subjects. The settings were chosen among
those of `--search` by the accuracy pooled over the folds' validation rows.
"""

import argparse
import copy
import time

from common import table, tables, train

EXPERIMENT = {
    "name": "freesurfer",
    "data": {"target": "isControl", "exclude": ["age"]},
    "split": {"kind": "kfold", "folds": 10},
    "model": "logistic",
    "rounds": 40,
    "training": {
        "local_steps": 100,
        "batch_size": None,
        "optimizer": {"kind": "sgd", "lr": 1.0, "momentum": 0.9},
    },
    "stopping": {"monitor": "loss", "patience": 15},
}
SEARCH = {
    "logistic, SGD 1.0 momentum 0.9, 100 steps": {},
    "logistic, SGD 1.0 no momentum, 100 steps": {"optimizer": {"kind": "sgd", "lr": 1.0}},
    "logistic, SGD 0.1 momentum 0.9, 100 steps": {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}},
    "logistic, Adam 0.05, 100 steps": {"optimizer": {"kind": "adam", "lr": 0.05}},
}


def main() -> None:
    """Run the cross-validation, or the search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--search", action="store_true", help="compare settings on the validation rows only")
    parser.add_argument("--leave-one-site-out", action="store_true", help="test at the site that did not train")
    arguments = parser.parse_args()
    sites = tables("freesurfer", [f"site{number}" for number in range(1, 6)])
    if arguments.search:
        rows = []
        for name, change in SEARCH.items():
            result = train(_changed(training=change), sites)
            pooled = result["metrics"]["validation"]["pooled"]
            rows.append([name, f"{pooled['accuracy']:.4f}", f"{pooled['loss']:.4f}"])
        print(table(["settings", "validation accuracy", "validation loss"], rows))
        return
    if arguments.leave_one_site_out:
        _leave_one_site_out(sites)
        return
    rows = [["coinstac-dinunet, best published", "0.9125", "", "0.9176", "", "about 6 h"]]
    for mode in ("federated", "centralised", "local"):
        start = time.perf_counter()
        result = train({**EXPERIMENT, "mode": mode}, sites)
        seconds = time.perf_counter() - start
        rows.append([mode, *_figures(result), f"{seconds:.0f} s"])
    print(table(["run", "accuracy", "mean over folds", "F1", "AUROC", "all ten folds"], rows))


def _figures(result: dict) -> list[str]:
    test = result["metrics"]["test"]
    mean, spread = test["mean_over_folds"]["accuracy"], test["sd_over_folds"]["accuracy"]
    pooled = {name: f"{test['pooled'][name]:.4f}" for name in ("accuracy", "f1", "auroc")}
    return [pooled["accuracy"], f"{mean:.4f} ± {spread:.4f}", pooled["f1"], pooled["auroc"]]


def _leave_one_site_out(sites: dict) -> None:
    rows = []
    for scope in ("federation", "site"):
        content = copy.deepcopy(EXPERIMENT) | {"split": {"kind": "leave_one_site_out"}}
        content["data"]["scaling"] = {"kind": "standard", "scope": scope}
        start = time.perf_counter()
        result = train(content, sites)
        seconds = time.perf_counter() - start
        by_site = [f"{fold['metrics']['test']['pooled']['auroc']:.2f}" for fold in result["folds"]]
        rows.append([f"scaled by {scope}", *_figures(result), ", ".join(by_site), f"{seconds:.0f} s"])
    print(table(["run", "accuracy", "mean over sites", "F1", "AUROC", "AUROC of each site", "all five"], rows))


def _changed(training: dict) -> dict:
    content = copy.deepcopy(EXPERIMENT)
    content["training"] |= training
    return content


if __name__ == "__main__":
    main()
