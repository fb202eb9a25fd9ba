"""The likelihood-ratio test of two nested fits, from their results; `Result.likelihood_ratio` calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v6_algorithm.coordinator.inference.distributions import chi_square_p
from v6_algorithm.errors import ExperimentError


def likelihood_ratio(smaller: Mapping[str, Any], larger: Mapping[str, Any]) -> dict[str, float]:
    """Return `chi2`, `freedom` and `p` of two results' fits, the second of which has all terms of the first and more.

    Raises
    ------
    ExperimentError
        When the fits are not nested, of other rows, or have no likelihood.
    """
    fits = [smaller.get("fit") or {}, larger.get("fit") or {}]
    if not all(fits):
        raise ExperimentError("likelihood_ratio: a result has no fit; results of model glm and cox have, without folds")
    terms = [
        {line["term"] for line in of.get("coefficients", []) if "left_out" not in line} for of in (smaller, larger)
    ]
    for key in ("family", "link", "ties", "strata", "rows", "events"):
        if fits[0].get(key) != fits[1].get(key):
            raise ExperimentError(
                f"likelihood_ratio: the fits differ in {key}: {fits[0].get(key)} and {fits[1].get(key)}"
            )
    if any(fit.get("log_likelihood") is None or fit.get("family") == "gamma" for fit in fits):
        raise ExperimentError("likelihood_ratio: a fit without a likelihood; of model gamma there is none")
    if any("imputations" in fit or "penalised_log_likelihood" in fit for fit in fits):
        raise ExperimentError(
            "likelihood_ratio: not of fits that were pooled over imputations or are Firth's; see their Wald tests"
        )
    if not terms[0] < terms[1]:
        raise ExperimentError(
            "likelihood_ratio: the larger fit must have all terms of this one and more; not in it: "
            f"{', '.join(sorted(terms[0] - terms[1])) or 'none, but it has no more'}"
        )
    chi2 = 2 * (fits[1]["log_likelihood"] - fits[0]["log_likelihood"])
    freedom = fits[1]["rank"] - fits[0]["rank"]
    return {"chi2": chi2, "freedom": freedom, "p": chi_square_p(chi2, freedom)}
