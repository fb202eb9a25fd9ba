"""What the kinds of partition share: whole numbers from shares, and dealing rows or whole groups to sites."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from v6_algorithm.errors import ExperimentError

Array = np.ndarray
LEFT_OUT = -1


def apportion(shares: Sequence[float] | Array, total: int) -> Array:
    """Turn the sites' shares into numbers of rows that add up to `total`, each at least one.

    Whole numbers that add up to `total` are taken as they are. Otherwise everybody's first row is set aside, so that a
    tiny share still is a site, and the shares are of the rest, each to within one row.

    Raises
    ------
    ExperimentError
        When there are fewer rows than sites.
    """
    wanted = np.asarray(shares, dtype=np.float64)
    if total < len(wanted):
        raise ExperimentError(f"{len(wanted)} sites need at least as many rows, the table has {total}")
    if (wanted == np.round(wanted)).all() and wanted.sum() == total:
        return wanted.astype(np.int64)
    ends = np.round(np.cumsum(wanted / wanted.sum()) * (total - len(wanted))).astype(np.int64)
    return np.diff(ends, prepend=0) + 1


def split_evenly(rows: Array, counts: Array) -> list[Array]:
    """Cut `rows` into pieces of these lengths."""
    return np.split(rows, np.cumsum(counts)[:-1])


def parts_of(owner: Array, sites: int) -> list[Array]:
    """Return the row numbers of each site from the (rows,) site of each row.

    Raises
    ------
    ExperimentError
        Naming the site that has no row.
    """
    # Sorted once, for a comparison of all rows with each of thousands of sites takes minutes.
    order = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[order], np.arange(sites + 1))
    parts = [order[start:end] for start, end in itertools.pairwise(edges.tolist())]
    for number, part in enumerate(parts, start=1):
        if not len(part):
            raise ExperimentError(f"site {number} of {sites} gets no row; take fewer sites, or a weaker skew")
    return parts


def fill_up(owner: Array, sites: int, minimum: int, generator: np.random.Generator) -> Array:
    """Let the largest site give rows to the smallest until every site has `minimum` of them."""
    counts = np.bincount(owner, minlength=sites)
    if minimum * sites > len(owner):
        raise ExperimentError(
            f"{sites} sites of {minimum} rows need {minimum * sites} rows, the table has {len(owner)}"
        )
    while counts.min() < minimum:
        taken = generator.choice(np.flatnonzero(owner == counts.argmax()))
        owner[taken] = counts.argmin()
        counts = np.bincount(owner, minlength=sites)
    return owner


def keep_groups_whole(
    owner: Array, sites: int, labels: Array, groups: Array | None, generator: np.random.Generator
) -> Array:
    """Move rows so that no group is at two sites, with the sites' counts of rows and labels as near as that allows.

    Parameters
    ----------
    owner
        (rows,) site of each row, `LEFT_OUT` for none.
    sites
        Their number.
    labels
        (rows,) label of each row, whose counts at each site are kept up.
    groups
        (rows,) group of each row; None: nothing moves.
    generator
        Orders groups of one size.

    Returns
    -------
    ndarray
        (rows,) site of each row. The largest groups are dealt first, each to where it brings the counts nearest to
        those of `owner`; a site's size is off by no more than about one group.

    Raises
    ------
    ExperimentError
        When there are fewer groups than sites.
    """
    if groups is None:
        return owner
    _, group, lengths = np.unique(groups, return_inverse=True, return_counts=True)
    if len(lengths) < sites:
        raise ExperimentError(f"{sites} sites need at least as many groups, the table has {len(lengths)}")
    label = np.unique(labels, return_inverse=True)[1]
    # Rows that are left out go to one more place, the last.
    places = sites + int((owner == LEFT_OUT).any())
    place = np.where(owner == LEFT_OUT, sites, owner)
    of_group = _crossed(group, label, len(lengths))
    wanted = _crossed(place, label, places)
    # The rows count like a label of their own: groups of one label would all start filling the first site.
    of_group, wanted = (np.column_stack([table, table.sum(axis=1)]) for table in (of_group, wanted))
    dealt = np.zeros_like(wanted)
    home = np.empty(len(lengths), dtype=np.int64)
    for number in np.lexsort((generator.permutation(len(lengths)), -lengths)):
        # By how much the squared distance to the wanted counts falls, for each place.
        gain = ((wanted - dealt) ** 2 - (wanted - dealt - of_group[number]) ** 2).sum(axis=1)
        home[number] = gain.argmax()
        dealt[home[number]] += of_group[number]
    home = _nobody_empty(home, sites, lengths)
    home[home == sites] = LEFT_OUT
    return home[group]


def _crossed(rows: Array, columns: Array, count: int) -> Array:
    table = np.zeros((count, columns.max(initial=0) + 1))
    np.add.at(table, (rows, columns), 1)
    return table


def _nobody_empty(home: Array, sites: int, lengths: Array) -> Array:
    """Give a site without groups the smallest of the site that has most groups."""
    counts = np.bincount(home, minlength=sites + 1)
    for site in np.flatnonzero(counts[:sites] == 0):
        candidates = np.flatnonzero(home == counts.argmax())
        moved = candidates[lengths[candidates].argmin()]
        counts[home[moved]] -= 1
        counts[site] += 1
        home[moved] = site
    return home


def singletons(groups: Array | None) -> bool:
    """Say whether every group is one row, or there are no groups."""
    return groups is None or len(np.unique(groups)) == len(groups)


def as_units(labels: Array, groups: Array | None, kind: str) -> tuple[Array, Array]:
    """Return the label of each unit and the unit of each row, where units are groups of rows with one label.

    Raises
    ------
    ExperimentError
        When a group has rows of two labels, as `kind` deals out by label.
    """
    if groups is None:
        return labels, np.arange(len(labels))
    _, first, unit = np.unique(groups, return_index=True, return_inverse=True)
    if (labels[first][unit] != labels).any():
        raise ExperimentError(
            f"kind {kind} says which labels a site holds, and data.group has groups with rows of two labels: such a "
            "group cannot stay whole; take kind dirichlet or inner_dirichlet"
        )
    return labels[first], unit
