"""Rules that look at all sites at once, of which one that is wrong shall not move the result far.

Pure maths: a rule maps the sites' models, one row each, to one model; `averaging.Gathered` makes the rows.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from v6_algorithm.experiment.strategy import Combine

# From (sites, numbers) float64, one row a site, to (numbers,); raises ValueError where there are too few sites for it.
Rule = Callable[[Tensor], Tensor]


def rule_of(combine: Combine) -> Rule | None:
    """Return the rule that an experiment asks for; None for the mean, which needs no more than one reply at a time."""
    return median if combine.kind == "median" else None


def median(rows: Tensor) -> Tensor:
    """Return the median of each number over the sites; of an even number of sites the mean of the middle two.

    References
    ----------
    Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018.
    """
    ordered = rows.sort(dim=0).values
    middle = len(rows) // 2
    return ordered[middle] if len(rows) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
