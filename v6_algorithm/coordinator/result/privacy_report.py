"""What a run tells of its differential privacy: epsilon by round, by site, and what is outside the account.

`result.assemble` puts it into the result; the rounds ask for what a round has cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from v6_algorithm.coordinator.secure_aggregation import ALL_SITES
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.privacy import DifferentialPrivacy

if TYPE_CHECKING:
    from v6_algorithm.coordinator.run_context import RunContext

Epsilons = Mapping[str, Mapping[int, float]]
OUTSIDE = (
    "row counts, labels and categories of the preparation",
    "means, variances, quantiles and class counts that inputs are prepared with",
    "training loss and all metrics, by which rounds are compared and training stops",
)


def spent(epsilons: Epsilons) -> float | None:
    """Return the largest epsilon of any site so far; None where there is none."""
    return max((max(rounds.values()) for rounds in epsilons.values() if rounds), default=None)


def section(experiment: Experiment, runs: Sequence[RunContext]) -> dict[str, Any] | None:
    """Return the result's `differential_privacy`; None where the experiment has none."""
    private = experiment.privacy.differential_privacy
    if private is None:
        return None
    epsilons = _by_site(runs)
    return {
        "unit": private.unit,
        "neighbours": _NEIGHBOURS[private.unit],
        "delta": private.delta,
        "clip": private.clip,
        "planned_epsilon": private.epsilon,
        "epsilon": spent(epsilons),
        # Of sums over all sites it is a bound for each of them, and no single one's.
        "sites": {
            site: {"epsilon": max(rounds.values()), "by_round": {str(round): rounds[round] for round in sorted(rounds)}}
            for site, rounds in sorted(epsilons.items())
            if rounds and site != ALL_SITES
        },
        "accountant": _accountant(private),
        "noise": _noise(experiment),
        "outside": list(OUTSIDE),
    }


_NEIGHBOURS = {
    "sample": "training parts with one row more or less",
    "patient": "training parts with one patient's rows more or less",
    "site": "federations in which a site's updates are there, or nothing in their place",
}


def _accountant(private: DifferentialPrivacy) -> str:
    way = "one noised update a round" if private.unit == "site" else "Poisson sampling"
    name = "PRV (Opacus, upper bound)" if private.accountant == "prv" else "RDP"
    return f"{name} of the {'' if private.unit == 'site' else 'subsampled '}Gaussian mechanism, {way}"


def _noise(experiment: Experiment) -> str:
    """Say who adds the noise, and on whom that rests."""
    private, sums = experiment.privacy.differential_privacy, experiment.privacy.secure_aggregation
    if private is None or private.unit != "site" or sums is None:
        return "each site adds all of its noise by itself"
    honest = "threshold - 1" if private.honest_sites is None else str(private.honest_sites)
    return (
        f"shared: each site adds a part before it masks its update, and epsilon holds where {honest} of the sites in a "
        "sum add theirs and tell nobody"
    )


def notes(experiment: Experiment, told: Mapping[str, Any] | None) -> list[str]:
    """Return the sentences for the researcher."""
    if told is None:
        return []
    private = experiment.privacy.differential_privacy
    cost = told["epsilon"]
    if cost is None:
        return ["differential privacy: nothing was trained"]
    by_site = ", ".join(f"{site} {numbers['epsilon']:.4g}" for site, numbers in told["sites"].items())
    sentences = [
        f"differential privacy (unit {told['unit']}): training cost each site epsilon {cost:.4g} at most, of "
        f"{told['planned_epsilon']:g} planned, at delta {told['delta']:g}"
        + (f" ({by_site})" if by_site else "")
        + f"; counted by {told['accountant']}",
        f"differential privacy, outside the account, for no noise is added to it: {'; '.join(told['outside'])}",
    ]
    if private is not None and private.unit == "site":
        sentences.append(f"differential privacy of sites compares {told['neighbours']}; noise: {told['noise']}")
    if private is not None and private.unit == "sample" and experiment.data.group is not None:
        sentences.append(
            f"differential privacy: unit sample hides one row, and data.group '{experiment.data.group}' says that a "
            "patient has several; unit patient hides all of a patient's"
        )
    return sentences


def with_epsilon(calls: Sequence[Mapping[str, Any]], runs: Sequence[RunContext]) -> list[dict[str, Any]]:
    """Return the book of calls with each site's epsilon beside the rounds of training."""
    epsilons = _by_site(runs)
    told = []
    for call in calls:
        costs = {
            site: rounds[call["round"]]
            for site, rounds in sorted(epsilons.items())
            if call["call"] == "train" and call["round"] in rounds and site in call["answered"]
        }
        told.append({**call, **({"epsilon": costs} if costs else {})})
    return told


def _by_site(runs: Sequence[RunContext]) -> dict[str, dict[int, float]]:
    return {site: dict(rounds) for run in runs for site, rounds in run.check.epsilons.items()}
