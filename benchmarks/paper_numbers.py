"""From sums to the number in a paper: fresh inputs of each kind, against independent references on the pooled rows.

    python benchmarks/paper_numbers.py [KIND ...]

Kinds are the keys of `KINDS`; all where none is named. A line for each: how many inputs were tried, and how many are
equal or inside the bound that is told; above it every one that is not. `PAPER_SEED` makes other inputs.
"""

from __future__ import annotations

import os
import sys
import warnings

import numpy as np
import paper_metrics
import paper_runs
import paper_sksurv
import paper_survival
import torch
from common import table

SEED = int(os.environ.get("PAPER_SEED", "20261129"))
KINDS = paper_survival.KINDS | paper_sksurv.KINDS | paper_metrics.KINDS | paper_runs.KINDS


def main() -> None:
    """Print the table, and what is not equal above it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    chosen = sys.argv[1:] or sorted(KINDS, key=lambda name: (KINDS[name][0][0], int(KINDS[name][0][1:])))
    for name in chosen:
        kind, about, compare = KINDS[name]
        outcomes = []
        for what, wrong in compare(np.random.default_rng(SEED)):
            outcomes.append(not wrong)
            if wrong:
                print(f"  {kind} {what}: {wrong}", flush=True)
        rows.append([kind, about, len(outcomes), sum(outcomes)])
        print(f"{kind} {len(outcomes)} {sum(outcomes)}", file=sys.stderr, flush=True)
    print(table(["kind", "against", "inputs", "equal"], rows))


if __name__ == "__main__":
    main()
