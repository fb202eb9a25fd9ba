"""Fresh inputs of C2, C4, C5 and C6: intervals, quantiles and ranking metrics from what sites tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from paper_outcomes import Kind, Outcome, apart, within

# -- C2, C6: intervals ---------------------------------------------------------------------------------------------


def repeats(generator: np.random.Generator) -> Iterator[Outcome]:
    """Nadeau and Bengio's interval over folds, and over repeats the mean interval widened by their variance."""
    from scipy import stats

    from v6_algorithm.learning.metrics.intervals import corrected_over_folds, over_repeats

    for _ in range(40):
        folds = int(generator.integers(3, 60))
        tested, trained = (int(rows) for rows in generator.integers(5, 300, 2))
        values = generator.beta(8, 2, folds)
        spread = stats.t.ppf(0.975, folds - 1) * np.sqrt((1 / folds + tested / trained) * values.var(ddof=1))
        ends = corrected_over_folds(values.tolist(), tested, trained)
        yield f"{folds} folds", apart(ends, (values.mean() - spread, values.mean() + spread), 0.01 * spread)
    for _ in range(20):
        times = int(generator.integers(2, 12))
        value, half = generator.normal(10, 1, times), generator.uniform(1, 2, times)
        rows = [{"n": 50, "mae": v, "mae_low": v - h, "mae_high": v + h} for v, h in zip(value, half, strict=True)]
        wide = np.sqrt(np.mean(half**2) + stats.norm.ppf(0.975) ** 2 * value.var(ddof=1) / times)
        found = over_repeats(rows)
        yield (
            f"{times} repeats",
            apart(
                [found["mae_low"], found["mae_high"], found["n"]], [value.mean() - wide, value.mean() + wide, 50], 1e-9
            ),
        )


def proportions(generator: np.random.Generator) -> Iterator[Outcome]:
    """Shares of few rows, all and none of them too, have Wilson's interval."""
    from statsmodels.stats.proportion import proportion_confint

    for _ in range(200):
        rows = int(generator.integers(12, 90))
        score = np.clip(generator.normal(0.5, generator.choice([0.01, 0.2, 0.6]), rows), 0.001, 0.999)
        target = (generator.random(rows) < generator.choice([0.1, 0.5, 0.9])).astype(int)
        found = v6_metrics(score, target)
        guess = score > 0.5
        shares = {
            "accuracy": guess == target,
            "recall": guess[target == 1],
            "specificity": ~guess[target == 0],
            "precision": target[guess] == 1,
        }
        for name, right in shares.items():
            if found.get(f"{name}_low") is None:
                yield f"{name} of {len(right)}", "no interval" if len(right) >= 5 else ""
                continue
            wanted = proportion_confint(right.sum(), len(right), method="wilson")
            yield f"{name} of {len(right)}", apart((found[f"{name}_low"], found[f"{name}_high"]), wanted, 1e-9)


def v6_metrics(score: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """Return the metrics of rows of two classes."""
    from v6_algorithm.learning.metrics import compute

    return compute(state_of(score, target))


def state_of(score: np.ndarray, target: np.ndarray) -> dict[str, Any]:
    """Return what a site tells of rows of two classes."""
    from v6_algorithm.learning.metrics import ClassificationMetrics

    collector = ClassificationMetrics(2)
    collector.update(np.column_stack([1 - score, score]), target, np.zeros(len(score)))
    return collector.state()


# -- C4, C5 --------------------------------------------------------------------------------------------------------


def outliers(generator: np.random.Generator) -> Iterator[Outcome]:
    """Quantiles of columns with outliers, heaps and gaps lie within the bounds told, which are narrow."""
    from v6_algorithm.data.quantiles import CALLS, Cells, next_windows, quantiles

    shares = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    made = {
        "Cauchy": lambda n: generator.standard_cauchy(n),
        "log-normal": lambda n: np.exp(generator.normal(0, 4, n)),
        "one outlier": lambda n: np.append(generator.normal(0, 1e-3, n - 1), 1e12),
        "heaps": lambda n: generator.integers(0, 4, n) * 10.0,
        "two scales": lambda n: generator.normal(size=n) * generator.choice([1e-8, 1e8], n),
        "years": lambda n: generator.integers(1920, 2010, n).astype(float),
    }
    for name, draw in made.items():
        for rows in (40, 150, 600):
            for smallest in (1, 5, 10):
                sites, windows = [draw(rows), draw(2 * rows), draw(rows // 2)], None
                for _ in range(CALLS):
                    columns = [Cells.of([own], smallest, windows).columns() for own in sites]
                    found = quantiles([own[0] for own in columns], shares)
                    windows, more = next_windows(columns, shares)
                    if not more:
                        break
                pooled = np.concatenate(sites)
                wrong = [
                    share
                    for share, one, true in zip(shares, found, np.quantile(pooled, shares), strict=True)
                    if not (-np.inf if one.low is None else one.low) - 1e-9 * abs(true)
                    <= true
                    <= (np.inf if one.high is None else one.high) + 1e-9 * abs(true)
                    or not pooled.min() <= one.value <= pooled.max()
                ]
                yield f"{name}, {rows}, cells of {smallest}", f"outside at {wrong}" if wrong else ""


def score_families(rows: int, target: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return scores that are crowded, saturated, tied, or none of these."""
    return {
        "saturated": 1 / (1 + np.exp(-generator.normal(12 * target, 12, rows))),
        "crowded": 0.3 + 1e-4 * generator.normal(target, 1, rows),
        "tied": generator.choice([0.0, 0.01, 0.125, 0.5, 0.875, 1.0], rows),
        "constant": np.full(rows, 0.7),
        "two decimals": np.round(generator.beta(2, 5, rows), 2),
        "0 and 1": (generator.random(rows) < 0.2 + 0.6 * target).astype(float),
        "rare": 1e-6 * np.exp(generator.normal(target, 1, rows)),
        "plain": generator.random(rows) * (1 + target) / 2,
    }


def masked(states: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up states number by number, as the sums of secure aggregation are."""
    from fractions import Fraction

    from v6_algorithm.exchange.secure_aggregation.fixed_point import decode_sums, encode_sums
    from v6_algorithm.exchange.secure_aggregation.layout import put_together, rounded, take_apart
    from v6_algorithm.learning.metrics import check_state, merge_states
    from v6_algorithm.learning.metrics.additive import from_sums, to_sums

    parts = [take_apart(to_sums(state)) for state in states]
    words = [decode_sums(encode_sums(numbers, len(states))) for _, numbers in parts]
    total = [sum(column, Fraction(0)) for column in zip(*words, strict=True)]
    state = rounded(from_sums(put_together(parts[0][0], total)))
    check_state(state)
    return merge_states([state])


def ranking(generator: np.random.Generator) -> Iterator[Outcome]:
    """AUROC, AUPRC and C-index lie within their bounds: as sites tell them, with joined bins, and under masks."""
    from sklearn import metrics as sk

    from v6_algorithm.learning.metrics import merge_states
    from v6_algorithm.site.guard.coarse import coarse_state

    for rows in (15, 60, 300):
        for positives in (2, rows // 3, rows - 2):
            target = generator.permutation((np.arange(rows) < positives).astype(int))
            site = generator.integers(0, 3, rows)
            for name, score in score_families(rows, target, generator).items():
                states = [state_of(score[site == one], target[site == one]) for one in range(3)]
                joined = [coarse_state(state, 5) for state in states]
                mixed = [joined[0], *states[1:]]
                exact = {"auroc": sk.roc_auc_score(target, score), "auprc": sk.average_precision_score(target, score)}
                ways = {"plain": merge_states(states), "joined": merge_states(joined), "masked": masked(states)}
                ways |= {"masked, joined": masked(joined), "masked, one joined": masked(mixed)}
                yield from within(f"{name}, {rows} rows, {positives} positive", ways, exact)
        yield from concordance(rows, generator)


def pairs_of(time: np.ndarray, score: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Return concordant pairs, ties half, and comparable pairs."""
    from lifelines.utils.concordance import _concordance_summary_statistics

    concordant, tied, pairs = _concordance_summary_statistics(time, score, event)
    return np.array([concordant + tied / 2, pairs])


def concordance(rows: int, generator: np.random.Generator) -> Iterator[Outcome]:
    """C-index over three sites with risks that differ by site, tied, or saturated."""
    from lifelines.utils import concordance_index

    from v6_algorithm.learning.metrics import SurvivalMetrics, merge_states
    from v6_algorithm.site.guard.coarse import coarse_state

    edges = [0.1, 0.3, 0.6, 1.0, 1.7, 2.5]
    site = generator.integers(0, 3, rows)
    risk = generator.normal(size=rows) + site
    for name, score in {"plain": risk, "tied": np.round(risk), "huge": 1e6 * risk, "alike": 1e-9 * risk}.items():
        for levels in (None, 0.25):
            happens, leaves = generator.exponential(np.exp(-risk)), generator.exponential(1.5, rows)
            time, event = np.minimum(happens, leaves), happens <= leaves
            if levels is not None:
                time = np.ceil(time / levels) * levels
            states = []
            for one in range(3):
                collector = SurvivalMetrics(edges)
                own = site == one
                collector.update(score[own, None], np.column_stack([time, event])[own], np.zeros(own.sum()))
                states.append(collector.state())
            joined = [coarse_state(state, 5) for state in states]
            ways = {"plain": merge_states(states), "joined": merge_states(joined)}
            ways |= {"masked": masked(states), "masked, joined": masked(joined)}
            pairs = np.zeros(2)
            for one in range(3):
                if event[site == one].any():
                    pairs += pairs_of(time[site == one], -score[site == one], event[site == one])
            exact = {"c_index": concordance_index(time, -score, event)}
            exact |= {"c_index_within": pairs[0] / pairs[1]} if pairs[1] else {}
            yield from within(f"C-index {name}, {rows} rows, ties {levels}", ways, exact)


KINDS: dict[str, Kind] = {
    "repeats": ("C2", "Nadeau and Bengio by scipy", repeats),
    "quantiles": ("C4", "numpy: inside the bounds told", outliers),
    "ranking": ("C5", "scikit-learn, lifelines: inside the bound told, also of joined bins and under masks", ranking),
    "intervals": ("C6", "statsmodels: Wilson", proportions),
}
