"""How much one site may count for: rows that it claims are its weight, and nobody else can see whether they are there.

`negotiate` caps what enters the preparation's sums, and `Plan.weights` what an update weighs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from v6_algorithm.data.preparation.statistics import Moments

# From this share of all training rows on, a site is named in the notes.
_MOSTLY = 0.8


def capped_rows(rows: Mapping[str, int], share: float) -> dict[str, float]:
    """Return the rows that each site counts as having: its own, or fewer, so that nobody has more than a share.

    Of sorted rows the k largest are set to c = share (rest + k c), with the smallest k for which no other is above c.
    With fewer sites than 1 / share nobody can be below it, and all that are capped count the same.
    """
    given: dict[str, float] = dict(rows)
    if share >= 1 or len(given) < 2:
        return given
    largest = sorted(given.values(), reverse=True)
    rest = sum(largest)
    for k in range(1, len(largest)):
        rest -= largest[k - 1]
        cap = share * rest / (1 - k * share) if k * share < 1 else largest[k]
        if largest[k] <= cap:
            return {site: min(count, cap) for site, count in given.items()}
    return dict.fromkeys(given, largest[-1])


def scaled_moments(
    moments: Mapping[str, Moments], rows: Mapping[str, Sequence[Mapping[str, int]]], share: float
) -> list[Moments]:
    """Return the sites' moments as of the rows that they count as having, fold by fold."""
    if share >= 1 or len(moments) < 2:
        return list(moments.values())
    factors = {site: np.ones(len(site_moments.rows)) for site, site_moments in moments.items()}
    for fold in range(len(next(iter(factors.values())))):
        claimed = {site: rows[site][fold]["train"] for site in moments if rows[site][fold]["train"]}
        for site, count in capped_rows(claimed, share).items():
            factors[site][fold] = count / claimed[site]
    return [
        replace(
            site_moments,
            rows=site_moments.rows * factors[site],
            count=site_moments.count * factors[site][:, None],
            squares=site_moments.squares * factors[site][:, None],
        )
        for site, site_moments in moments.items()
    ]


def tell_shares(rows: Mapping[str, Sequence[Mapping[str, int]]], share: float) -> list[str]:
    """Name sites that were capped, and those that have most of the rows where there is no cap."""
    claimed = {site: sum(fold["train"] for fold in folds) for site, folds in rows.items()}
    total = sum(claimed.values())
    notes = []
    for site, count in claimed.items():
        if len(claimed) < 2 or not total:
            continue
        if count > share * total:
            notes.append(
                f"site '{site}' tells of {count / total:.1%} of all training rows and counts as having {share:.1%} "
                "(participation.maximum_share)"
            )
        elif count > _MOSTLY * total:
            notes.append(
                f"site '{site}' tells of {count / total:.1%} of all training rows, so the model is mostly its own; "
                "participation.maximum_share limits what a site counts for"
            )
    return notes
