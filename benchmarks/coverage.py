"""How often the 95 % intervals hold the truth: simulated studies, by metric, rows and prevalence.

    python benchmarks/coverage.py [--studies 500] [--only gaps classes federated …]

A study has `n` rows of which a share `prevalence` is positive (drawn), with scores that are normal on the logit scale,
1.5 apart between the classes and calibrated; the truth is the metric over 2,000,000 rows. Regression: R2 of 0.5;
survival: exponential times with a risk of standard deviation 1, about a third censored, C-index of the risk. In
brackets stand the studies that have too few rows or events for an interval. `auroc, 10 repeats` is of ten repeats of
the same rows, with scores that differ a little: `before` by the counts of all repeats added up, `now` over the repeats.
`gap` is of two groups of half the rows each, of which one's scores are 0.75 apart; `three classes` are equally
frequent, and predicted right by seven in ten; `three sites` have a third of the rows each, of whose bins a standard
node joins those of fewer than five rows, and of survival cells of time and risk; the scores of those `that differ`
are 1 apart on the logit scale; a strict node has `cells of ten`. `widths` are means of the intervals' widths.
"""

from __future__ import annotations

import argparse

import numpy as np

from v6_algorithm.learning.metrics import (
    ClassificationMetrics,
    RegressionMetrics,
    SurvivalMetrics,
    compute,
    merge_states,
)
from v6_algorithm.learning.metrics.intervals import difference, over_repeats
from v6_algorithm.learning.metrics.joined import MOST_LISTED, capped
from v6_algorithm.site.guard.coarse import coarse_state

ROWS = (20, 50, 100, 300, 1000)
PREVALENCES = (0.5, 0.2, 0.05)
SHARES = ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "npv", "f1", "auroc", "auprc", "brier")
APART = 1.5
EDGES = [0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.1, 1.5, 2.2]


def classified(score, target):
    metrics = ClassificationMetrics(2)
    metrics.update(np.column_stack([1 - score, score]), target, np.zeros(len(score)))
    return metrics.state()


def patients(generator, rows, prevalence, apart=APART):
    """Draw classes and calibrated scores: log-likelihood ratio of two normal distributions `apart`, and odds."""
    target = (generator.random(rows) < prevalence).astype(np.int64)
    marker = generator.normal(apart * target, 1)
    logit = apart * marker - apart**2 / 2 + np.log(prevalence / (1 - prevalence))
    return logit, target


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def regression(generator, rows):
    metrics = RegressionMetrics()
    signal = generator.normal(size=rows)
    metrics.update(signal, signal + generator.normal(size=rows), np.zeros(rows))
    return compute(metrics.state())


def survival(generator, rows):
    return compute(lived(*draw_times(generator, rows)))


def draw_times(generator, rows):
    risk = generator.normal(size=rows)
    happens, leaves = generator.exponential(np.exp(-risk)), generator.exponential(2.0, rows)
    return risk, np.column_stack([np.minimum(happens, leaves), happens <= leaves]).astype(float)


def lived(risk, target):
    metrics = SurvivalMetrics(EDGES)
    metrics.update(risk[:, None], target, np.zeros(len(risk)))
    return metrics.state()


def held(values, metric, truth):
    """Return whether the interval holds the truth; None where there is no interval."""
    low, high = values[f"{metric}_low"], values[f"{metric}_high"]
    return None if low is None else low <= truth <= high


def repeated(generator, rows, prevalence):
    """Return AUROC metrics of ten repeats, summed up and over repeats."""
    logit, target = patients(generator, rows, prevalence)
    states = [classified(sigmoid(logit + generator.normal(0, 0.2, rows)), target) for _ in range(10)]
    return compute(merge_states(states)), over_repeats([compute(state) for state in states])


def gap_study(seed, rows, prevalence):
    """Return how far two groups of different scores are apart, with intervals."""
    generator = np.random.default_rng(seed)
    groups = {}
    for name, apart in (("near", APART / 2), ("far", APART)):
        logit, target = patients(generator, rows // 2, prevalence, apart)
        groups[name] = compute(classified(sigmoid(logit), target))
    # The gap of these two, whichever is the greater in this study: the truth has a sign, and a gap has none.
    values = {}
    for metric in GAPS:
        few, many = groups["near"], groups["far"]
        if None in (few[f"{metric}_low"], many[f"{metric}_low"]):
            values |= {f"{metric}_low": None, f"{metric}_high": None}
            continue
        ends = [(group[f"{metric}_low"], group[f"{metric}_high"]) for group in (many, few)]
        low, high = difference(many[metric], ends[0], few[metric], ends[1])
        values |= {metric: many[metric] - few[metric], f"{metric}_low": low, f"{metric}_high": high}
    return values


def classes_study(seed, rows, _):
    generator = np.random.default_rng(seed)
    target = generator.integers(0, 3, rows)
    predicted = np.where(generator.random(rows) < 0.7, target, (target + generator.integers(1, 3, rows)) % 3)
    metrics = ClassificationMetrics(3)
    metrics.update(np.full((rows, 3), 0.2) + 0.4 * np.eye(3)[predicted], target, np.zeros(rows))
    return compute(metrics.state())


def federated_study(seed, rows, prevalence, smallest=5, apart=0.0):
    """Return metrics of three sites with cells of `smallest` rows, whose scores are `apart` on the logit scale."""
    logit, target = patients(np.random.default_rng(seed), rows, prevalence)
    logit = logit + apart * (np.arange(rows) % 3 - 1)
    states = (classified(sigmoid(logit[site::3]), target[site::3]) for site in range(3))
    return compute(merge_states(coarse_state(state, smallest) if smallest else state for state in states))


def differing_study(seed, rows, prevalence):
    return federated_study(seed, rows, prevalence, apart=1.0)


def strict_study(seed, rows, prevalence):
    return federated_study(seed, rows, prevalence, smallest=10)


def survival_sites_study(seed, rows, _):
    return compute(merge_states(coarse_state(lived(*draw_times(np.random.default_rng([seed, site]), rows // 3)), 5)
                                for site in range(3)))  # fmt: skip


def study(seed, kind, rows, prevalence):
    generator = np.random.default_rng(seed)
    if kind == "classification":
        logit, target = patients(generator, rows, prevalence)
        return compute(classified(sigmoid(logit), target))
    return (regression if kind == "regression" else survival)(generator, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument(
        "--only", nargs="*", choices=[*OTHERS, "resolutions", "widths"], help="these tables, without the first"
    )
    options = parser.parse_args()
    studies = options.studies
    print(f"{studies} studies each\n\n| metric | prevalence | " + " | ".join(f"n = {rows}" for rows in ROWS) + " |")
    print("|---" * (len(ROWS) + 2) + "|")
    for name in OTHERS if options.only is None else options.only:
        if name in ("resolutions", "widths"):
            {"resolutions": resolutions, "widths": widths}[name]()
        else:
            others(name, studies)
    if options.only is not None:
        return
    for kind, metrics, prevalences in (
        ("classification", SHARES, PREVALENCES),
        ("regression", ("mae", "r2"), (None,)),
        ("survival", ("c_index",), (None,)),
    ):
        for prevalence in prevalences:
            large = 20_000 if kind == "survival" else 2_000_000
            truth = study(1, kind, large, prevalence)
            cells = {metric: [] for metric in metrics}
            for rows in ROWS:
                values = [study(1000 + seed, kind, rows, prevalence) for seed in range(studies)]
                for metric in metrics:
                    cells[metric].append(cell([held(one, metric, truth[metric]) for one in values]))
            for metric in metrics:
                print(f"| {metric} | {prevalence or '–'} | " + " | ".join(cells[metric]) + " |", flush=True)
    truth = study(1, "classification", 2_000_000, 0.5)["auroc"]
    before, now = [], []
    for rows in ROWS:
        pairs = [repeated(np.random.default_rng(5000 + seed), rows, 0.5) for seed in range(studies)]
        for column, place in ((before, 0), (now, 1)):
            column.append(cell([held(pair[place], "auroc", truth) for pair in pairs]))
    print("| auroc, 10 repeats, before | 0.5 | " + " | ".join(before) + " |")
    print("| auroc, 10 repeats, now | 0.5 | " + " | ".join(now) + " |")


def others(name, studies):
    """Print the rows of a table beside the first."""
    run, label, metrics, prevalences, truth_of = OTHERS[name]
    for prevalence in prevalences:
        truth = truth_of(prevalence)
        columns = [[run(1000 + seed, rows, prevalence) for seed in range(studies)] for rows in ROWS]
        for metric in metrics:
            cells = [cell([held(values, metric, truth[metric]) for values in column]) for column in columns]
            print(f"| {label} {metric} | {prevalence or '–'} | " + " | ".join(cells) + " |", flush=True)


def resolutions():
    """Print how far joined bins move the AUROC over three sites, and what is said of it: the largest of 20 studies."""
    print("\n| rows of three sites | bins are joined | AUROC moved | resolution |\n|---|---|---|---|")
    for rows, why, change in (
        *((rows, "in cells of 5 rows", lambda state: coarse_state(state, 5)) for rows in (90, 300, 900, 3000)),
        *((rows, f"to {MOST_LISTED:,} of them", capped) for rows in (30_000, 300_000)),
    ):
        moved, said = [], []
        for seed in range(20):
            logit, target = patients(np.random.default_rng(seed), rows, 0.3)
            whole, told = (
                compute(merge_states(join(classified(sigmoid(logit[k::3]), target[k::3])) for k in range(3)))
                for join in (lambda state: state, change)
            )
            moved.append(abs(whole["auroc"] - told["auroc"]))
            said.append(told["auroc_resolution"])
        print(f"| {rows:,} | {why} | {max(moved):.5f} | {max(said):.5f} |", flush=True)


def widths():
    """Print mean widths of intervals over three sites: bins as they are, joined, and twice the worst case of these."""
    print(
        "\n| rows of three sites | metric | bins as they are | joined | twice the resolution |\n|---|---|---|---|---|"
    )
    for rows in (50, 100, 300, 1000):
        pairs = [[federated_study(seed, rows, 0.5, smallest) for smallest in (0, 5)] for seed in range(100)]
        for metric in ("auroc", "auprc"):
            known = [pair for pair in pairs if all(values[f"{metric}_low"] is not None for values in pair)]
            plain, told = (
                np.mean([pair[which][f"{metric}_high"] - pair[which][f"{metric}_low"] for pair in known])
                for which in (0, 1)
            )
            worst = 2 * np.mean([pair[1][f"{metric}_resolution"] for pair in known])
            print(f"| {rows:,} | {metric} | {plain:.3f} | {told:.3f} | {worst:.3f} |", flush=True)


GAPS = ("accuracy", "recall", "f1", "auroc", "auprc", "brier")
LARGE = 2_000_000
OTHERS = {
    "gaps": (gap_study, "gap of", GAPS, (0.5, 0.2), lambda prevalence: gap_study(1, 2 * LARGE, prevalence)),
    "classes": (
        classes_study, "three classes,", ("accuracy", "balanced_accuracy"), (None,),
        lambda _: {"accuracy": 0.7, "balanced_accuracy": 0.7},
    ),
    "federated": (
        federated_study, "three sites,", ("auroc", "auprc", "brier"), (0.5, 0.2),
        lambda prevalence: study(1, "classification", LARGE, prevalence),
    ),
    "differing": (
        differing_study, "three sites that differ,", ("auroc", "auprc"), (0.5, 0.2),
        lambda prevalence: federated_study(1, LARGE, prevalence, smallest=0, apart=1.0),
    ),
    "strict": (
        strict_study, "three sites, cells of ten,", ("auroc", "auprc"), (0.5, 0.2),
        lambda prevalence: study(1, "classification", LARGE, prevalence),
    ),
    "survival": (
        survival_sites_study, "three sites,", ("c_index",), (None,), lambda _: study(1, "survival", 20_000, None),
    ),
}  # fmt: skip


def cell(held_in):
    """Write the share that holds the truth, of those that have an interval, and how many have none."""
    known = [one for one in held_in if one is not None]
    without = len(held_in) - len(known)
    if len(known) < len(held_in) / 10:
        return "none"
    return f"{np.mean(known):.3f}" + (f" ({without})" if without else "")


if __name__ == "__main__":
    main()
