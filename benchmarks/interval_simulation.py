"""Bias of coefficients and coverage of their 95 % intervals over simulated federations of 3, 10 and 30 sites.

    python benchmarks/interval_simulation.py [--studies 500]

A study draws sites of 40 to 160 patients with a normal and a 0/1 column. In `same` all sites have one model; in
`differ` each has a baseline of its own (standard deviation 0.5 on the linear predictor) and an effect of its own of the
first column (0.3 around 0.5). Event times are exponential, about a third censored. Estimated is the effect of the first
column, whose truth is 0.5, from the sums that sites send: `RiskSums`, `likelihood` and `random_effects` are the
package's, those of logistic regression the same in numpy; no messages in between. Estimators: `pooled`, with errors of
the model; `errors over sites` (sandwich, Student's t); Cox models also with `strata: site`; `meta-analysis` of each
site's fit (REML, Hartung and Knapp). `error / spread` is the mean standard error over the estimates' spread;
`left out` are studies whose fit separates.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from v6_algorithm.coordinator.inference.distributions import t_quantile
from v6_algorithm.coordinator.inference.meta_analysis import random_effects
from v6_algorithm.learning.models.cox import RiskSums, likelihood

SITES = (3, 10, 30)
TRUTH = np.array([0.5, -0.7])
Z = 1.959963984540054
# (sites, coefficients) scores and the information of all, at some coefficients.
Sums = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def draw(generator: np.random.Generator, sites: int, *, differ: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return columns (rows, 2) and linear predictors (rows,) of each site."""
    drawn = []
    for _ in range(sites):
        rows = int(generator.integers(40, 161))
        x = np.column_stack([generator.normal(size=rows), generator.random(rows) < 0.5])
        effect = TRUTH + np.array([generator.normal(0, 0.3), 0.0]) * differ
        drawn.append((x, x @ effect + generator.normal(0, 0.5) * differ))
    return drawn


def solve(sums: Sums, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return coefficients, information and (sites, size) scores by Newton's method; None where it does not end."""
    present = start
    for _ in range(25):
        scores, information = sums(present)
        try:
            change = np.linalg.solve(information, scores.sum(axis=0))
        except np.linalg.LinAlgError:
            return None
        if np.abs(change).max() < 1e-7:
            return present, information, scores
        present = present + change * min(1.0, 1 / np.abs(change).max())
        if np.abs(present).max() > 8:
            return None
    return None


def logistic(sites: list[tuple[np.ndarray, np.ndarray]]) -> Sums:
    """Return the sums of a logistic regression, those of `learning.models.glm` in numpy."""
    design = np.concatenate([np.column_stack([np.ones(len(x)), x]) for x, _ in sites])
    y = np.concatenate([known for _, known in sites])
    starts = np.concatenate([[0], np.cumsum([len(x) for x, _ in sites])[:-1]])

    def sums(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = 1 / (1 + np.exp(-design @ coefficients))
        scores = np.add.reduceat((y - mean)[:, None] * design, starts, axis=0)
        return scores, design.T @ ((mean * (1 - mean))[:, None] * design)

    return sums


def cox(sites: list[tuple[np.ndarray, np.ndarray, np.ndarray]], *, strata: bool) -> Sums:
    """Return the sums of a Cox model, with one baseline or one for each site; sums over sites are those over rows."""
    parts = sites if strata else [tuple(np.concatenate(columns) for columns in zip(*sites, strict=True))]
    grids = [np.unique(time[event]) for _, time, event in parts]

    def sums(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fitted = [
            likelihood(RiskSums.of(x, time, event, coefficients, times), coefficients, "efron")
            for (x, time, event), times in zip(parts, grids, strict=True)
        ]
        return np.array([fit.score for fit in fitted]), np.sum([fit.information for fit in fitted], axis=0)

    return sums


def estimates(fit: tuple[np.ndarray, ...] | None, place: int, rows: int) -> dict[str, tuple[float, float, float]]:
    """Return estimate, standard error and reach of the interval in standard errors: by the model, and over sites."""
    if fit is None:
        return {}
    present, information, scores = fit
    inverse = np.linalg.inv(information)
    known = {"model": (float(present[place]), float(np.sqrt(inverse[place, place])), Z)}
    if (count := len(scores)) > 1:
        # As `coordinator.inference.coefficients` has it.
        factor = count / (count - 1) * (rows - 1) / (rows - len(present))
        robust = factor * inverse @ (scores.T @ scores) @ inverse
        known["sites"] = (float(present[place]), float(np.sqrt(robust[place, place])), t_quantile(0.975, count - 1))
    return known


def meta(fits: list[tuple[np.ndarray, ...] | None], place: int) -> tuple[float, float, float] | None:
    """Return the mean over the sites that could be fitted alone."""
    known = [estimates(fit, place, 10**9)["model"] for fit in fits if fit is not None]
    if len(known) < 2:
        return None
    over = random_effects([item[0] for item in known], [item[1] for item in known])
    return over["estimate"], over["standard_error"], t_quantile(0.975, len(known) - 1)


def study(seed: list[int], sites: int, *, differ: bool) -> dict[str, tuple[float, float, float] | None]:
    """Return what each estimator says of one federation."""
    generator = np.random.default_rng(seed)
    drawn = draw(generator, sites, differ=differ)
    rows = sum(len(x) for x, _ in drawn)
    classed = [(x, (generator.random(len(x)) < 1 / (1 + np.exp(-eta))).astype(float)) for x, eta in drawn]
    watched = []
    for x, eta in drawn:
        happens, leaves = generator.exponential(np.exp(-eta)), generator.exponential(2.0, len(x))
        watched.append((x, np.minimum(happens, leaves), happens <= leaves))
    fit = solve(logistic(classed), np.zeros(3))
    pooled = estimates(fit, 1, rows)
    alone = [solve(logistic([site]), np.zeros(3) if fit is None else fit[0]) for site in classed]
    one = solve(cox(watched, strata=False), np.zeros(2))
    strata = solve(cox(watched, strata=True), np.zeros(2) if one is None else one[0])
    by_site = estimates(strata, 0, rows)
    lonely = [solve(cox([site], strata=True), np.zeros(2) if strata is None else strata[0]) for site in watched]
    return {
        "logistic, pooled": pooled.get("model"),
        "logistic, pooled, errors over sites": pooled.get("sites"),
        "logistic, meta-analysis": meta(alone, 1),
        "Cox, pooled": estimates(one, 0, rows).get("model"),
        "Cox, strata site": by_site.get("model"),
        "Cox, strata site, errors over sites": by_site.get("sites"),
        "Cox, meta-analysis": meta(lonely, 0),
    }


def main() -> None:
    """Print a line for each estimator as soon as its studies are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--sites", type=int, choices=SITES, nargs="*", default=SITES, help="a piece of it at a time")
    options = parser.parse_args()
    studies = options.studies
    print(f"{studies} studies each\n\n| patients' sites | estimator | bias | error / spread | coverage | left out |")
    print("|---" * 6 + "|", flush=True)
    for sites in options.sites:
        for differ in (False, True):
            results = [study([17, sites, differ, number], sites, differ=differ) for number in range(studies)]
            for name in results[0]:
                known = np.array([result[name] for result in results if result[name] is not None])
                bias, error = known[:, 0].mean() - TRUTH[0], known[:, 1].mean() / known[:, 0].std()
                held = (np.abs(known[:, 0] - TRUTH[0]) <= known[:, 2] * known[:, 1]).mean()
                scenario = f"{sites}, {'differ' if differ else 'same'}"
                print(
                    f"| {scenario} | {name} | {bias:+.3f} | {error:.2f} | {held:.1%} | {studies - len(known)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
