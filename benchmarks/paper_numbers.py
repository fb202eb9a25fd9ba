"""From sums to the number in a paper: fresh inputs of each kind, against independent references on the pooled rows.

    python benchmarks/paper_numbers.py [KIND ...]

Kinds are the keys of `KINDS`; all where none is named. A line for each: how many inputs were tried, and how many are
equal or inside the bound that is told; above it every one that is not. `V6_ALGORITHM_SEED` makes other inputs.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import table

import v6_algorithm.api as v6

# What was compared, and what is wrong with it; empty text: equal.
Outcome = tuple[str, str]
SEED = int(os.environ.get("V6_ALGORITHM_SEED", "20261129"))


def main() -> None:
    """Print the table, and what is not equal above it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name in sys.argv[1:] or KINDS:
        kind, about, compare = KINDS[name]
        outcomes = []
        for what, wrong in compare(np.random.default_rng(SEED)):
            outcomes.append(not wrong)
            if wrong:
                print(f"  {kind} {what}: {wrong}", flush=True)
        rows.append([kind, about, len(outcomes), sum(outcomes)])
        print(f"{kind} {len(outcomes)} {sum(outcomes)}", file=sys.stderr, flush=True)
    print(table(["kind", "against", "inputs", "equal"], rows))


def apart(found: Any, wanted: Any, most: float) -> str:
    """Say by how much numbers differ where that is more than `most`."""
    differs = np.abs(np.asarray(found, dtype=float) - np.asarray(wanted, dtype=float)).max()
    return "" if differs <= most else f"differs by {differs:.2g}"


# -- C1, C3: survival ----------------------------------------------------------------------------------------------


def survival_sets() -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield published survival sets: columns that are numbers, `time` and `event`."""
    from lifelines import datasets

    columns = {
        "rossi": ("week", "arrest"), "gbsg2": ("time", "cens"), "larynx": ("time", "death"),
        "kidney_transplant": ("time", "death"), "lung": ("time", "status"), "regression_dataset": ("T", "E"),
        "lymph_node": ("survtime", "censdead"), "waltons": ("T", "E"),
    }  # fmt: skip
    for name, (time, event) in columns.items():
        frame = getattr(datasets, f"load_{name}")().rename(columns={time: "time", event: "event"})
        if name == "waltons":
            frame["group"] = (frame["group"] == "control") * 1.0
        frame = frame.select_dtypes("number").drop(
            columns=["id", "rectime", "censrec", "diagdateb", "recdate", "deathdate", "inst"], errors="ignore"
        )
        frame = frame.dropna().astype(float).rename(columns=lambda column: column.replace(".", "_"))
        frame = frame[frame["time"] > 0].reset_index(drop=True)
        if frame["event"].max() > 1:
            frame["event"] -= 1
        yield name, frame.astype({"event": int}).sample(min(len(frame), 700), random_state=0)


def hospitals(frame: pd.DataFrame, generator: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Deal rows to three hospitals of unequal size."""
    site = generator.choice(3, len(frame), p=[0.5, 0.3, 0.2])
    return {f"h{number}": frame[site == number].reset_index(drop=True) for number in range(3)}


def discrete_time(generator: np.random.Generator) -> Iterator[Outcome]:
    """The most likely hazards of a model without columns give Kaplan-Meier's curve where times end intervals."""
    from lifelines import KaplanMeierFitter

    from v6_algorithm.data.preparation import Setup, times
    from v6_algorithm.experiment import Experiment
    from v6_algorithm.learning.problems import create_problem

    for name, frame in survival_sets():
        for parts in (3, 5, 8):
            ends = np.unique(np.quantile(frame["time"], np.arange(1, parts) / parts))
            place = np.searchsorted(ends, frame["time"])
            time = np.append(ends, ends[-1] * 1.5)[place]
            content = {
                "data": {"target": {"duration": "time", "event": "event"}},
                "problem": {"kind": "survival", "method": "discrete_time", "intervals": ends.tolist()},
            }
            setup = Setup(["x"], {}, None, sums={"event_times": times.count_times(time)})
            problem = create_problem(Experiment.parse(content), setup)
            logits = torch.zeros(len(ends) + 1, dtype=torch.float64, requires_grad=True)
            target = torch.tensor(np.column_stack([time, frame["event"]]))
            optimiser = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

            def loss(logits=logits, target=target, problem=problem, optimiser=optimiser) -> torch.Tensor:  # type: ignore[no-untyped-def]
                optimiser.zero_grad()
                total = problem.row_loss(logits.expand(len(target), -1), target, 0).mean()
                total.backward()
                return total

            optimiser.step(loss)
            curve = problem.prediction(logits.detach()[None])[0, 1:].numpy()
            wanted = KaplanMeierFitter().fit(time, frame["event"]).survival_function_at_times(ends).to_numpy()
            yield f"{name}, {parts} intervals", apart(curve, wanted, 1e-4)


def cox(generator: np.random.Generator) -> Iterator[Outcome]:
    """Coefficients, errors and predicted survival of `model: cox` are lifelines' of the pooled rows."""
    from lifelines import CoxPHFitter

    for name, frame in survival_sets():
        sites = hospitals(frame, generator)
        pooled = pd.concat([rows.assign(site=site) for site, rows in sites.items()], ignore_index=True)
        new = pooled.drop(columns=["time", "event", "site"]).head(25)
        for strata in ("none", "site"):
            content = {
                "data": {"target": {"duration": "time", "event": "event"}, "missing": "error"},
                "problem": "survival",
                "model": {"kind": "cox", "strata": strata},
            }
            result = v6.run(content, sites)
            fit = CoxPHFitter().fit(
                pooled if strata == "site" else pooled.drop(columns="site"),
                "time",
                "event",
                strata=["site"] if strata == "site" else None,
                fit_options={"precision": 1e-10, "step_size": 0.5},
            )
            lines = result.coefficients.loc[fit.params_.index]
            yield (
                f"{name}, strata {strata}, coefficients",
                apart(lines["estimate"] / fit.standard_errors_, fit.params_ / fit.standard_errors_, 1e-5),
            )
            yield f"{name}, strata {strata}, errors", apart(lines["standard_error"] / fit.standard_errors_, 1, 1e-5)
            yield from predicted(f"{name}, strata {strata}", result, fit, new, pooled)


def predicted(name: str, result: Any, fit: Any, new: pd.DataFrame, pooled: pd.DataFrame) -> Iterator[Outcome]:
    """Survival of new rows: of one baseline Efron's steps, of a site's constant hazards between the times."""
    own = sorted(result.content["preparation"].get("baseline", {}).get("sites", {}))
    for site in own or [None]:
        rows = pooled if site is None else pooled[pooled["site"] == site]
        found = result.predict(new, site)
        curves = [column for column in found if column.startswith("survival(")]
        what = f"{name}, survival{f' at {site}' if site else ''}"
        if not curves:
            yield what, "none is predicted"
            continue
        risk = np.exp(rows[fit.params_.index].to_numpy() @ fit.params_.to_numpy())
        hazard = efron_hazard(rows["time"].to_numpy(), rows["event"].to_numpy(), risk)
        at = np.array([hazard[hazard["time"] <= float(curve[9:-1])]["step"].sum() for curve in curves])
        wanted = np.exp(-np.outer(np.exp(new[fit.params_.index].to_numpy() @ fit.params_.to_numpy()), at))
        yield what, apart(found[curves], wanted, 1e-4 if site is None else 0.06)


def efron_hazard(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> pd.DataFrame:
    """Return Efron's steps of the baseline hazard, by event time."""
    steps = []
    for moment in np.unique(time[event == 1]):
        tied = risk[(time == moment) & (event == 1)]
        shares = np.arange(len(tied)) / len(tied)
        steps.append((moment, (1 / (risk[time >= moment].sum() - shares * tied.sum())).sum()))
    return pd.DataFrame(steps, columns=["time", "step"])


def units(generator: np.random.Generator) -> Iterator[Outcome]:
    """The same data in another unit of time have the same metrics and baseline."""
    from lifelines.datasets import load_gbsg2

    frame = load_gbsg2()[["time", "cens", "age", "tsize", "pnodes"]].astype(float)
    sites = hospitals(frame, generator)
    for method in ("cox", "discrete_time"):
        results = {}
        for unit, factor in (("days", 1.0), ("ms", 86_400_000.0), ("years", 1 / 365.25), ("femto", 1e-15)):
            content = {
                "data": {"target": {"duration": "time", "event": "cens"}},
                "problem": {"kind": "survival", "method": method},
                "model": "linear",
                "rounds": 4,
                "training": {"batch_size": None, "optimizer": {"kind": "sgd", "lr": 0.1}},
            }
            scaled = {site: rows.assign(time=rows["time"] * factor) for site, rows in sites.items()}
            content = v6.run(content, scaled).content
            pooled = content["metrics"]["test"]["pooled"]
            hazard = content["preparation"].get("baseline", {}).get("cumulative_hazard", [])
            results[unit] = [pooled["c_index"], pooled["brier"], *hazard]
            if unit != "days":
                yield f"units, {method}, {unit}", apart(results[unit], results["days"], 1e-6)


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

    from v6_algorithm.learning.metrics import compute, merge_states
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
                yield from within(f"{name}, {rows} rows, {positives} positive", ways, exact, compute)
        yield from concordance(rows, generator)


def concordance(rows: int, generator: np.random.Generator) -> Iterator[Outcome]:
    """C-index over three sites with risks that differ by site, tied, or saturated."""
    from lifelines.utils import concordance_index

    from v6_algorithm.learning.metrics import SurvivalMetrics, compute, merge_states
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
            exact = {"c_index": concordance_index(time, -score, event)}
            yield from within(f"C-index {name}, {rows} rows, ties {levels}", ways, exact, compute)


def within(what: str, ways: dict[str, Any], exact: dict[str, float], compute: Callable[..., Any]) -> Iterator[Outcome]:
    """Say of each metric whether the pooled one is as near as the resolution says."""
    for way, state in ways.items():
        found = compute(state)
        for metric, true in exact.items():
            value, resolution = found[metric], found.get(f"{metric}_resolution") or 0.0
            if value is None:
                yield f"{what}, {way}, {metric}", ""
                continue
            off = abs(value - true)
            yield (
                f"{what}, {way}, {metric}",
                "" if off <= resolution + 1e-9 else f"off {off:.4f}, told {resolution:.4f}",
            )


KINDS: dict[str, tuple[str, str, Callable[[np.random.Generator], Iterator[Outcome]]]] = {
    "survival": ("C1", "lifelines: Kaplan-Meier at the intervals' ends, published sets", discrete_time),
    "repeats": ("C2", "Nadeau and Bengio by scipy", repeats),
    "cox": ("C3", "lifelines: coefficients, errors, survival of new rows, published sets", cox),
    "units": ("B6", "the same data in other units of time", units),
    "quantiles": ("C4", "numpy: inside the bounds told", outliers),
    "ranking": ("C5", "scikit-learn, lifelines: inside the bound told, also of joined bins and under masks", ranking),
    "intervals": ("C6", "statsmodels: Wilson", proportions),
}


if __name__ == "__main__":
    main()
