"""Sites as a sample: random-effects meta-analysis of metrics and coefficients, for the result.

A pooled value says how a model does on these hospitals' patients; the mean over a population of hospitals, and what to
expect of the next one, need the spread between hospitals.

References
----------
Viechtbauer (2005), Journal of Educational and Behavioral Statistics 30(3), 261-293 (REML); Hartung and Knapp (2001),
Statistics in Medicine 20(24), and Röver et al. (2015), BMC Medical Research Methodology 15:99 (its modification, which
is never narrower); Higgins and Thompson (2002), Statistics in Medicine 21(11) (I²); Higgins et al. (2009), JRSS A
172(1) (prediction interval); Snell et al. (2018), Statistical Methods in Medical Research 27(11) (scales of metrics).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from v6_algorithm.coordinator.inference.distributions import chi_square_p, t_quantile
from v6_algorithm.learning.metrics.intervals.proportions import Z
from v6_algorithm.learning.metrics.intervals.repeats import on_scale

_STEPS = 1000
_Scale = tuple[Callable[[float], float], Callable[[float], float]]
_IDENTITY: _Scale = (lambda value: value, lambda value: value)
_LOG: _Scale = (math.log, math.exp)
_LOGIT: _Scale = (lambda value: math.log(value / (1 - value)), lambda value: 1 / (1 + math.exp(-value)))


def random_effects(estimates: Sequence[float], errors: Sequence[float]) -> dict[str, Any]:
    """Return the mean over a population of sites that two or more are a sample of.

    Parameters
    ----------
    estimates, errors
        Of each site, and its standard error, above 0.

    Returns
    -------
    dict
        `sites`, `estimate`, `standard_error`, `low`, `high` (95 %, Hartung and Knapp with their factor at least 1),
        `tau2` (variance between sites, by REML), `i2` (its share of the variance of the estimates, from Q), `q` with
        its `q_p`, and of three sites or more `prediction_low`, `prediction_high`: where the next site lies with 95 %.
    """
    y, v = np.asarray(estimates, dtype=np.float64), np.asarray(errors, dtype=np.float64) ** 2
    count = len(y)
    fixed = 1 / v
    q = float((fixed * (y - (fixed @ y) / fixed.sum()) ** 2).sum())
    tau2 = _reml(y, v)
    weights = 1 / (v + tau2)
    mean = float(weights @ y / weights.sum())
    factor = float((weights * (y - mean) ** 2).sum() / (count - 1))
    error = math.sqrt(max(factor, 1.0) / weights.sum())
    reach = t_quantile(0.975, count - 1) * error
    result: dict[str, Any] = {
        "sites": count,
        "estimate": mean,
        "standard_error": error,
        "low": mean - reach,
        "high": mean + reach,
        "tau2": tau2,
        "i2": max(0.0, (q - count + 1) / q) if q > 0 else 0.0,
        "q": q,
        "q_p": chi_square_p(q, count - 1),
    }
    if count > 2:
        reach = t_quantile(0.975, count - 2) * math.sqrt(tau2 + error * error)
        result |= {"prediction_low": mean - reach, "prediction_high": mean + reach}
    return result


def _reml(y: np.ndarray, v: np.ndarray) -> float:
    """Return the variance between sites of greatest restricted likelihood, 0 or more."""
    tau2 = max(0.0, float(np.var(y, ddof=1) - v.mean()))
    for _ in range(_STEPS):
        weights = 1 / (v + tau2)
        mean = weights @ y / weights.sum()
        squares = weights**2
        following = float((squares @ ((y - mean) ** 2 - v)) / squares.sum() + 1 / weights.sum())
        following = max(following, 0.0)
        if abs(following - tau2) <= 1e-12 * (tau2 + v.min()):
            return following
        tau2 = following
    return tau2


def of_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return by part and metric the mean over sites as a sample, of metrics with an interval at two sites or more.

    Shares are pooled as logits, errors as logarithms, R² as it is; a site's standard error is a quarter of its interval
    on that scale. `values` has each site's value with its interval, and `scale` says which it was.
    """
    parts: dict[str, dict[str, Any]] = {}
    for part, scopes in metrics.items():
        sites = scopes.get("sites", {})
        names = dict.fromkeys(
            key.removesuffix("_low") for values in sites.values() for key in values if key.endswith("_low")
        )
        for name in names:
            scale = _scale_of(name)
            known = {}
            for site, values in sites.items():
                three = [values.get(key) for key in (name, f"{name}_low", f"{name}_high")]
                if (read := _read(three, scale[1])) is not None:
                    known[site] = (*read, *three)
            if len(known) < 2:
                continue
            pooled = random_effects([item[0] for item in known.values()], [item[1] for item in known.values()])
            back = scale[1][1]
            for key in ("estimate", "low", "high", "prediction_low", "prediction_high"):
                if key in pooled:
                    pooled[key] = back(pooled[key])
            pooled["scale"] = scale[0]
            pooled["values"] = {
                site: {"value": item[2], "low": item[3], "high": item[4]} for site, item in known.items()
            }
            parts.setdefault(part, {})[name] = pooled
    return parts


def _scale_of(metric: str) -> tuple[str, _Scale]:
    if metric.rpartition(".")[2] == "r2":
        return "identity", _IDENTITY
    # Nothing but a share is cut at 1.
    return ("logit", _LOGIT) if on_scale(metric, (0.0, 2.0))[1] == 1.0 else ("log", _LOG)


def _read(three: Sequence[Any], scale: _Scale) -> tuple[float, float] | None:
    """Return a value and its standard error on a scale; None where it has no interval, or lies at an end."""
    try:
        value, low, high = (scale[0](float(number)) for number in three)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    error = (high - low) / (2 * Z)
    return (value, error) if math.isfinite(value) and 0 < error < math.inf else None


def of_coefficients(
    sites: Mapping[str, Sequence[Mapping[str, Any]]], references: Mapping[str, str]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return by term the mean over sites as a sample, from the lines of each site's own fit; and what is left out.

    A term that grows without end at a site has no estimate there. Where a site has no row of a category's reference,
    its other values are compared with another one, so that they, and the intercept, are not those of the other sites.

    Parameters
    ----------
    sites
        Site to the lines of its coefficients.
    references
        Term of each category's first value, ``column=value``, to the column.
    """
    terms: dict[str, dict[str, Mapping[str, Any]]] = {}
    notes = []
    for site, lines in sites.items():
        there = {str(line["term"]) for line in lines if line.get("left_out") == "reference"}
        moved = [column for term, column in references.items() if term not in there]
        left = []
        for line in lines:
            term = str(line["term"])
            other = (term == "(intercept)" and moved) or any(term.startswith(f"{column}=") for column in moved)
            if line.get("separated") or (other and "left_out" not in line):
                left.append(term)
            elif line.get("standard_error"):
                terms.setdefault(term, {})[site] = line
        if left:
            notes.append(
                f"meta-analysis: without {', '.join(left)} of site '{site}', where they grow without end or are "
                "compared with another reference"
            )
    pooled = {
        term: random_effects(
            [line["estimate"] for line in lines.values()], [line["standard_error"] for line in lines.values()]
        )
        | {
            "scale": "identity",
            "values": {
                site: {"value": line["estimate"], "low": line["low"], "high": line["high"]}
                for site, line in lines.items()
            },
        }
        for term, lines in terms.items()
        if len(lines) > 1
    }
    return pooled, notes
