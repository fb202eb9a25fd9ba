"""The calls that agree on harmonisation, between the fill values and the scales; `negotiate` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from v6_algorithm.coordinator.preparation.questions import Gather
from v6_algorithm.data.preparation.combat import Combat, Sums, merge_sums
from v6_algorithm.data.preparation.setup import Setup, pack_arrays, unpack_arrays
from v6_algorithm.data.preparation.statistics import (
    Histograms,
    Moments,
    Preparation,
    merge_histograms,
    merge_moments,
    needs_histograms,
    prepare,
)
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Data


def prepare_federation(
    gather: Gather, data: Data, setup: Setup, moments: Moments, sites: Sequence[str], *, harmonised: bool
) -> Setup:
    """Return the setup with its preparation, and with what the sites share of ComBat where the experiment asks for it.

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
    histograms = _histograms(gather, setup, moments, sites) if needs_histograms(data) else None
    first = prepare(data, moments, histograms)
    if data.harmonisation.kind == "none" or not harmonised:
        return replace(setup, preparation=first)
    filled = Preparation(first.fill, np.zeros_like(first.fill), np.ones_like(first.fill))
    setup = replace(setup, preparation=filled)
    setup = replace(setup, combat=_combat(gather, data, setup, sites))
    if data.scaling.kind == "none":
        return setup
    # Scales are of harmonised columns, in which nothing is missing: fill values stay those of before.
    shape = first.fill.shape
    moments_by_site = gather(
        sites,
        {"step": "moments", "setup": setup.to_json()},
        lambda reply: Moments.check(unpack_arrays(reply["moments"]), *shape),
    )
    moments = merge_moments(moments_by_site.values())
    histograms = _histograms(gather, setup, moments, sites) if needs_histograms(data) else None
    second = prepare(data, moments, histograms)
    return replace(setup, preparation=Preparation(first.fill, second.shift, second.scale))


def _combat(gather: Gather, data: Data, setup: Setup, sites: Sequence[str]) -> Combat:
    untouched = np.array([name in data.harmonisation.covariates for name in setup.features], dtype=bool)
    if (~untouched).sum() < 2:
        raise ExperimentError(
            "data.harmonisation: combat learns from many features what a site does to each; at least 2 numeric "
            f"features that are no covariates are needed, there are {(~untouched).sum()}"
        )
    folds, features = setup.preparation.fill.shape if setup.preparation else (0, 0)
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


def _histograms(gather: Gather, setup: Setup, moments: Moments, sites: Sequence[str]) -> Histograms:
    span = pack_arrays({"low": moments.low, "high": moments.high})
    by_site = gather(
        sites,
        {"step": "quantiles", "setup": setup.to_json(), "range": span},
        lambda reply: Histograms.check(unpack_arrays(reply["histograms"]), *moments.mean.shape),
    )
    return merge_histograms(by_site.values())
