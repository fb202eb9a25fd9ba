"""The calls that agree on harmonisation, between the fill values and the scales; `negotiate` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from v6_algorithm.coordinator.preparation.quantile_cells import gather_cells
from v6_algorithm.coordinator.preparation.questions import Gather
from v6_algorithm.data.preparation.combat import Combat, Sums, merge_sums
from v6_algorithm.data.preparation.setup import Setup, unpack_arrays
from v6_algorithm.data.preparation.statistics import (
    Moments,
    Preparation,
    loose_quantiles,
    merge_moments,
    needs_quantiles,
    prepare,
    quantile_windows,
)
from v6_algorithm.data.quantiles import Cells
from v6_algorithm.data.rows.kind import listed
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Data

# A quantile that may be off by more than this part of the spread is named.
_LOOSE = 0.1


def prepare_federation(
    gather: Gather, data: Data, setup: Setup, moments: Moments, sites: Sequence[str], *, harmonised: bool
) -> tuple[Setup, list[str]]:
    """Return the setup with its preparation, and with what the sites share of ComBat where the experiment asks for it.

    Beside it, sentences for the researcher.

    Parameters
    ----------
    gather
        Asks some sites, and checks what they answer: `questions.gather`.
    data
        The experiment's `data` section.
    setup
        What was agreed on before.
    moments
        Of all sites' training rows.
    sites
        Names of those that take part.
    harmonised
        Whether `data.harmonisation` applies: not where one site trains alone, which has nothing to be aligned with.

    Raises
    ------
    ExperimentError
        When there are too few features or hospitals for ComBat, or a site's data do not fit.
    FederationError
        When too few sites answer.
    """
    cells = _cells(gather, data, setup, moments, sites)
    first, notes = prepare(data, moments, cells), _tell_loose(data, setup, moments, cells)
    if data.harmonisation.kind == "none" or not harmonised:
        return replace(setup, preparation=first), notes
    filled = Preparation(first.fill, np.zeros_like(first.fill), np.ones_like(first.fill))
    setup = replace(setup, preparation=filled)
    setup = replace(setup, combat=_combat(gather, data, setup, first.fill.shape, sites))
    if data.scaling.kind == "none":
        return setup, notes
    # Scales are of harmonised columns, in which nothing is missing: fill values stay those of before.
    shape = first.fill.shape
    moments_by_site = gather(
        sites,
        {"step": "moments", "setup": setup.to_json()},
        lambda reply: Moments.check(unpack_arrays(reply["moments"]), *shape),
    )
    moments = merge_moments(moments_by_site.values())
    cells = _cells(gather, data, setup, moments, sites)
    second, notes = prepare(data, moments, cells), _tell_loose(data, setup, moments, cells)
    return replace(setup, preparation=Preparation(first.fill, second.shift, second.scale)), notes


def _combat(gather: Gather, data: Data, setup: Setup, shape: tuple[int, ...], sites: Sequence[str]) -> Combat:
    """Return what is shared of ComBat, from sums of `shape`, (folds, features)."""
    untouched = np.array([name in data.harmonisation.covariates for name in setup.features], dtype=bool)
    if (~untouched).sum() < 2:
        raise ExperimentError(
            "data.harmonisation: combat learns from many features what a site does to each; at least 2 numeric "
            f"features that are no covariates are needed, there are {(~untouched).sum()}"
        )
    folds, features = shape
    covariates = len(setup.design_columns(data.harmonisation.covariates))
    sums_by_site = gather(
        sites,
        {"step": "harmonisation", "setup": setup.to_json()},
        lambda reply: Sums.check(unpack_arrays(reply["sums"]), folds, features, covariates),
    )
    sums = merge_sums(sums_by_site.values())
    if (sums.hospitals < 2).any():
        raise ExperimentError("data.harmonisation: combat needs training rows at 2 sites at least, in every fold")
    return Combat.fit(sums, untouched=untouched)


def _cells(gather: Gather, data: Data, setup: Setup, moments: Moments, sites: Sequence[str]) -> list[Cells]:
    """Ask for cells where medians or quartiles are wanted."""
    if not needs_quantiles(data):
        return []
    return gather_cells(gather, sites, setup, moments.mean.size, partial(quantile_windows, data, moments))


def _tell_loose(data: Data, setup: Setup, moments: Moments, cells: Sequence[Cells]) -> list[str]:
    """Name the columns whose quantiles the nodes' smallest cells leave in doubt."""
    if not cells:
        return []
    loose = loose_quantiles(data, moments, cells)
    named = [name for name, share in zip(setup.features, loose.tolist(), strict=True) if share > _LOOSE]
    if not named:
        return []
    what = "median and quartiles" if data.scaling.kind == "robust" else "the median"
    return [
        f"{what} of {listed(named)}: known to more than {_LOOSE:.0%} of their spread only, for no node tells of "
        "fewer rows than its smallest cell; more rows, or scaling: standard and missing: mean, are exact"
    ]
