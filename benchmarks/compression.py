"""FreeSurfer volumes of five sites: accuracy and bytes of compressed updates and rounded models against whole ones.

    python benchmarks/compression.py

Classification of `isControl` from 66 volumes by coinstac-dinunet's network for them (layers of 256, 128, 64 and 32),
5-fold cross-validation within sites. "Upload" is what all sites send in one round once compression has begun, for one
fold, as base64 in JSON; "of dense" compares it with whole models; "download" is what all are sent. Rounds are the same
for all, so that is also what a run costs, but for the first rounds, which are sent whole.
"""

import argparse
import copy

from common import table, tables, train

EXPERIMENT = {
    "name": "freesurfer",
    # As in freesurfer.py, where it was chosen: the sites' scanners differ.
    "data": {"target": "isControl", "exclude": ["age"], "scaling": {"kind": "standard", "scope": "site"}},
    "split": {"kind": "kfold", "folds": 5},
    "model": {"kind": "mlp", "hidden": [256, 128, 64, 32]},
    "rounds": 15,
    "training": {"local_steps": 40, "batch_size": None, "optimizer": {"kind": "adam", "lr": 0.001}},
    "stopping": {"monitor": "loss", "patience": None},
}
GRADIENTS = {
    "rounds": 150,
    "strategy": {"kind": "fedsgd"},
    "training": {"local_steps": 1, "batch_size": None, "optimizer": {"kind": "adam", "lr": 0.003}},
}
COMPRESSIONS = {
    "dense": {},
    "powersgd rank 4": {"compress": {"kind": "powersgd", "rank": 4}},
    "rankdad rank 10": {"compress": {"kind": "rankdad", "rank": 10}},
    "int8": {"compress": "int8"},
    "float16": {"compress": "float16"},
    "bfloat16": {"compress": "bfloat16"},
    "powersgd rank 4, int8": {"compress": [{"kind": "powersgd", "rank": 4}, "int8"]},
    "powersgd rank 4, no feedback": {"compress": {"kind": "powersgd", "rank": 4, "feedback": False}},
    "topk 1 %": {"compress": {"kind": "topk", "fraction": 0.01}},
    "down float16": {"compress_down": "float16"},
    "down bfloat16": {"compress_down": "bfloat16"},
    "float16, down float16": {"compress": "float16", "compress_down": "float16"},
    "int8, down float16": {"compress": "int8", "compress_down": "float16"},
    "bfloat16, down bfloat16": {"compress": "bfloat16", "compress_down": "bfloat16"},
}
WITH_GRADIENTS = ("dense", "powersgd rank 4", "rankdad rank 10")


def main() -> None:
    """Run all of them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["fedavg", "fedsgd"], help="one of the two strategies")
    arguments = parser.parse_args()
    sites = tables("freesurfer", [f"site{number}" for number in range(1, 6)])
    rows = []
    for kind, changes, names in (("fedavg", {}, COMPRESSIONS), ("fedsgd", GRADIENTS, WITH_GRADIENTS)):
        if arguments.only not in (None, kind):
            continue
        dense = None
        for name in names:
            content = copy.deepcopy(EXPERIMENT) | changes
            content["strategy"] = {"kind": kind} | COMPRESSIONS[name]
            result = train(content, sites)
            last = result["timing"]["rounds"][-2]
            upload, download = (
                sum(last[way].values()) / EXPERIMENT["split"]["folds"] for way in ("bytes_received", "bytes_sent")
            )
            dense = dense or upload
            test = result["metrics"]["test"]["pooled"]
            figures = [f"{test['accuracy']:.4f}", f"{test['auroc']:.4f}"]
            rows.append(
                [kind, name, *figures, f"{upload / 1000:.0f} kB", f"{upload / dense:.1%}", f"{download / 1000:.0f} kB"]
            )
            print(*rows[-1], flush=True)
    print(table(["strategy", "compress", "accuracy", "AUROC", "upload a round", "of dense", "download"], rows))


if __name__ == "__main__":
    main()
