"""Attacks on a node, and on what it sends, under each preset: rows that come out, AUC or error; prints two tables.

Run: OMP_NUM_THREADS=1 python benchmarks/attacks.py [SEEDS] [SHADOW_MODELS]. The first table is `doctor --policy`'s
attacks through the functions of a site, on 96 made-up rows a seed; strict answers nothing without a folder of a ledger,
so it is measured with one, and standard also where nothing of a node's outlives a task. The second is of attacks that
need no request of the attacker's own: on the model that a run ends with, and on the updates of its first round
(`attacks_on_models`).
"""

from __future__ import annotations

import sys
import time

from attacks_on_models import MODEL_ATTACKS
from common import table

from v6_algorithm.researcher.doctor.attacks import ATTACKS, attempt, made_up_rows
from v6_algorithm.site.policy import Policy

PRESETS = ("trusted", "standard", "strict")
ROWS = 96
# Of the first table: a column's name, its preset, whether its owner names a folder for the ledger, and whether the node
# has a volume that outlives a task, as those of vantage6 4 have. Nodes of 5 have one for each session.
NODES = (
    ("trusted", "trusted", False, True),
    ("standard", "standard", False, True),
    ("standard, another session of vantage6 5", "standard", False, False),
    ("strict, ledger folder", "strict", True, True),
)


def rows_read(seeds: int) -> None:
    """Print how many rows or cells each attack of `doctor --policy` reads: the most of all seeds."""
    lines = []
    for name in ATTACKS:
        # Each attack begins with an empty ledger, in a folder of its own (`attempt`).
        most = []
        for _, preset, lasts, volume in NODES:
            node = Policy.of(preset, **({"ledger_folder": "a folder"} if lasts else {}))
            most.append(max(attempt(name, node, made_up_rows(ROWS, seed), volume=volume)[0] for seed in range(seeds)))
        lines.append([name, *most])
        print("|", " | ".join(map(str, lines[-1])), "|", flush=True)
    print(table([f"rows or cells read, of {ROWS}, most of {seeds} tables", *(name for name, *_ in NODES)], lines))


def main(seeds: int, shadows: int) -> None:
    """Print both tables; the second alone for 0 seeds."""
    if seeds:
        rows_read(seeds)
    lines = []
    for name, attack in MODEL_ATTACKS.items():
        start = time.perf_counter()
        lines.append(
            [
                name,
                *(attack(preset, shadows) for preset in PRESETS),
                f"{time.perf_counter() - start:.0f}",
            ]
        )
        print("|", " | ".join(map(str, lines[-1])), "|", flush=True)
    print(table(["attack on a model or update", *PRESETS, "seconds"], lines))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, int(sys.argv[2]) if len(sys.argv) > 2 else 32)
