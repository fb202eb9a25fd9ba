"""Cutting the rows of one table into sites: functions from labels and a generator to row numbers.

Every row goes to exactly one site, and every site gets at least one.
"""

from __future__ import annotations

import numpy as np

from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import Partition

Array = np.ndarray


def partition_rows(partition: Partition, labels: Array, generator: np.random.Generator) -> list[Array]:
    """Return the ascending row numbers of each site.

    Parameters
    ----------
    partition
        The experiment's `sites.partition`.
    labels
        (rows,) integers, used by label skew only.
    generator
        The source of randomness.

    Raises
    ------
    ExperimentError
        When there are fewer rows than sites.
    """
    sites = partition.sites or len(partition.sizes or [])
    if len(labels) < sites:
        raise ExperimentError(f"sites.partition: {sites} sites need at least as many rows, the table has {len(labels)}")
    if partition.kind == "dirichlet":
        parts = _dirichlet(labels, sites, partition.alpha, generator)
    else:
        shares = np.asarray(partition.sizes or [1.0] * sites)
        # Everybody's first row is set aside, so that a tiny share still is a site.
        ends = sites + np.round(np.cumsum(shares / shares.sum()) * (len(labels) - sites)).astype(int)
        order = generator.permutation(len(labels))
        rest = np.split(order[sites:], ends[:-1] - sites)
        parts = [np.append(rest[site], order[site]) for site in range(sites)]
    return [np.sort(part) for part in parts]


def _dirichlet(labels: Array, sites: int, alpha: float, generator: np.random.Generator) -> list[Array]:
    """Deal each class to the sites in shares drawn from Dirichlet(alpha), after Yurochkin et al. (2019)."""
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        shares = np.cumsum(generator.dirichlet(np.full(sites, alpha)))
        ends = np.round(shares[:-1] * len(rows)).astype(int)
        for site, own in enumerate(np.split(rows, ends)):
            owner[own] = site
    counts = np.bincount(owner, minlength=sites)
    while not counts.all():
        # A strong skew may leave a site without rows: the largest gives it one.
        taken = generator.choice(np.flatnonzero(owner == counts.argmax()))
        owner[taken] = counts.argmin()
        counts = np.bincount(owner, minlength=sites)
    return [np.flatnonzero(owner == site) for site in range(sites)]
