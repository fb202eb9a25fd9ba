"""Bias of coefficients and coverage of their 95 % intervals over simulated federations of 3, 10 and 30 sites.

    python benchmarks/interval_simulation.py [--studies 500]

A study draws sites of 40 to 160 patients with a normal and a 0/1 column. In `same` all sites have one model; in
`differ` each has a baseline of its own (standard deviation 0.5 on the linear predictor) and an effect of its own of the
first column (0.3 around 0.5). Event times are exponential, about a third censored. Estimated is the effect of the first
column, whose truth is 0.5, from the sums that sites send, by the code that makes and solves them: `ScoringSums`,
`RiskSums` and `likelihood`, `random_effects`; no messages in between. Estimators: `pooled`, with errors of the model;
`pooled, errors over sites` (sandwich, Student's t); Cox models also with `strata: site`; `meta-analysis` of each site's
fit (REML, Hartung and Knapp). Fits that separate are left out, in brackets. A column is the bias, in brackets that of
the average standard error to the estimates' spread; then the share of intervals that hold the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch

from v6_algorithm.coordinator.inference.distributions import t_quantile
from v6_algorithm.coordinator.inference.meta_analysis import random_effects
from v6_algorithm.learning.models.cox import RiskSums, likelihood
from v6_algorithm.learning.models.glm import GeneralisedLinear, ScoringSums

SITES = (3, 10, 30)
TRUTH = np.array([0.5, -0.7])
Z = 1.959963984540054
# Score (coefficients,) and information of each site's rows, at some coefficients.
Sums = Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]


def draw(generator: np.random.Generator, sites: int, *, differ: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return columns (rows, 2) and linear predictors (rows,) of each site."""
    drawn = []
    for _ in range(sites):
        rows = int(generator.integers(40, 161))
        x = np.column_stack([generator.normal(size=rows), generator.random(rows) < 0.5])
        effect = TRUTH + np.array([generator.normal(0, 0.3), 0.0]) * differ
        drawn.append((x, x @ effect + generator.normal(0, 0.5) * differ))
    return drawn


def solve(sums: Sums, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return coefficients, information and (sites, size) scores by Newton's method; None where it does not end."""
    present = np.zeros(size)
    for _ in range(25):
        parts = sums(present)
        information = np.sum([part[1] for part in parts], axis=0)
        try:
            change = np.linalg.solve(information, np.sum([part[0] for part in parts], axis=0))
        except np.linalg.LinAlgError:
            return None
        present = present + change * min(1.0, 1 / max(np.abs(change).max(), 1e-300))
        if np.abs(present).max() > 8:
            return None
        if np.abs(change).max() < 1e-9:
            return present, information, np.array([part[0] for part in parts])
    return None


def logistic(sites: list[tuple[np.ndarray, np.ndarray]]) -> Sums:
    """Return the sums of a logistic regression."""
    tensors = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in sites]

    def sums(coefficients: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        parts = []
        for x, y in tensors:
            model = GeneralisedLinear(x.shape[1], "binomial", "logit")
            with torch.no_grad():
                model.bias.fill_(float(coefficients[0]))
                model.weight.copy_(torch.from_numpy(coefficients[1:]))
                model.totals[0] = 1
            learner = ScoringSums(model, lambda output, target: torch.zeros(1))
            learner.step(x, y)
            learner.finish()
            parts.append((model.score.numpy() * len(x), model.information.numpy() * len(x)))
        return parts

    return sums


def cox(sites: list[tuple[np.ndarray, np.ndarray, np.ndarray]], *, strata: bool) -> Sums:
    """Return the sums of a Cox model, with one baseline or one for each site."""
    times = np.unique(np.concatenate([time[event] for _, time, event in sites]))

    def sums(coefficients: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        if strata:
            fitted = [
                likelihood(RiskSums.of(x, time, event, coefficients, np.unique(time[event])), coefficients, "efron")
                for x, time, event in sites
            ]
        else:
            added: dict[str, np.ndarray] = {}
            for x, time, event in sites:
                for name, array in RiskSums.of(x, time, event, coefficients, times).arrays().items():
                    added[name] = added.get(name, 0) + array
            fitted = [likelihood(RiskSums(**added), coefficients, "efron")]
        return [(fit.score, fit.information) for fit in fitted]

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
    pooled = estimates(solve(logistic(classed), 3), 1, rows)
    by_site = estimates(solve(cox(watched, strata=True), 2), 0, rows)
    return {
        "logistic, pooled": pooled.get("model"),
        "logistic, pooled, errors over sites": pooled.get("sites"),
        "logistic, meta-analysis": meta([solve(logistic([site]), 3) for site in classed], 1),
        "Cox, pooled": estimates(solve(cox(watched, strata=False), 2), 0, rows).get("model"),
        "Cox, strata site": by_site.get("model"),
        "Cox, strata site, errors over sites": by_site.get("sites"),
        "Cox, meta-analysis": meta([solve(cox([site], strata=True), 2) for site in watched], 0),
    }


def main() -> None:
    """Print a line for each estimator as soon as its studies are done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    studies = parser.parse_args().studies
    torch.set_num_threads(1)
    print(
        f"{studies} studies each\n\n| sites | estimator | " + " | ".join(f"{n}: bias | coverage" for n in SITES) + " |"
    )
    print("|---" * (2 + 2 * len(SITES)) + "|", flush=True)
    for differ in (False, True):
        cells: dict[str, list[str]] = {}
        for sites in SITES:
            results = [study([17, sites, differ, number], sites, differ=differ) for number in range(studies)]
            for name in results[0]:
                known = np.array([result[name] for result in results if result[name] is not None])
                lost = studies - len(known)
                bias, error = known[:, 0].mean() - TRUTH[0], known[:, 1].mean() / known[:, 0].std()
                held = (np.abs(known[:, 0] - TRUTH[0]) <= known[:, 2] * known[:, 1]).mean()
                cells.setdefault(name, []).append(
                    f"{bias:+.3f} ({error:.2f}) | {held:.1%}" + (f" ({lost} left out)" if lost else "")
                )
        for name, texts in cells.items():
            print(f"| {'differ' if differ else 'same'} | {name} | " + " | ".join(texts) + " |", flush=True)


if __name__ == "__main__":
    main()
