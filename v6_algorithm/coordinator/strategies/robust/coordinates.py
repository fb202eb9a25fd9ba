"""Robust rules for one coordinate at a time: the median and the trimmed mean.

Both count sites and know no weights: how many rows a site has is what the site says, so a malicious one would say
many. Equal values are interchangeable, so ties need no rule.

What all rules take, return and raise is in the docstring of `robust`.
"""

from __future__ import annotations

from torch import Tensor

from v6_algorithm.coordinator.strategies.robust.updates import Updates, by_slices, require_sites


def coordinate_median(updates: Updates, malicious: int = 0) -> Tensor:
    """Return the median of each coordinate; of an even number of sites the mean of the two in the middle.

    Each coordinate lies between two honest sites' values while fewer than half of the sites are malicious. Sites
    whose data differ pay for it: where most sites agree, what only a few have learned is lost.

    Parameters
    ----------
    malicious
        Sites to bear; 2f + 1 sites are needed.

    References
    ----------
    Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018.
    """
    require_sites("median", len(updates), malicious)
    return by_slices(updates, median_of_rows)


def median_of_rows(rows: Tensor) -> Tensor:
    """Return the median over the first dimension, which torch's own gives for odd numbers only."""
    ordered, count = rows.sort(dim=0).values, len(rows)
    return ordered[(count - 1) // 2] * 0.5 + ordered[count // 2] * 0.5


def trimmed_mean(updates: Updates, malicious: int) -> Tensor:
    """Return the mean of each coordinate without its f smallest and f largest values.

    With f = 0 it is the mean; with the largest f that the sites allow, the median. Each coordinate lies between two
    honest sites' values while no more than f sites are malicious; of the honest ones, it uses more than the median.

    Parameters
    ----------
    malicious
        f; 2f + 1 sites are needed.

    References
    ----------
    Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018.
    """
    require_sites("trimmed_mean", len(updates), malicious)
    kept = slice(malicious, len(updates) - malicious)
    return by_slices(updates, lambda rows: rows.sort(dim=0).values[kept].mean(dim=0))
