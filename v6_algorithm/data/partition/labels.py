"""Partitions by label: the same classes everywhere, or skewed ones.

`labels` is (rows,) whole numbers, `groups` (rows,) group of each row or None. Where a kind promises counts only to
within a row, whole groups are dealt to come as near as they can; where it promises more, mixed groups are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from v6_algorithm.data.partition.dealing import (
    LEFT_OUT,
    Array,
    apportion,
    as_units,
    fill_up,
    keep_groups_whole,
    parts_of,
    singletons,
    split_evenly,
)
from v6_algorithm.errors import ExperimentError

Generator = np.random.Generator


# -- the same classes everywhere -----------------------------------------------------------------------------------


def balanced(
    labels: Array,
    sites: int,
    generator: Generator,
    groups: Array | None = None,
    *,
    rows: int | None = None,
    replacement: bool = False,
) -> list[Array]:
    """Draw ``rows // classes`` rows of each class (null: as many as the rarest has) and deal them evenly.

    With `replacement` a class with fewer rows is dealt whole and each site then draws its own rows again, so that
    copies of a row are at one site. Sites differ by at most one row, and so do a class's counts.
    """
    if not singletons(groups):
        raise ExperimentError(
            "kind balanced gives every site exact numbers of rows by class, which groups of several rows cannot stay "
            "whole for; take kind unbalanced or iid"
        )
    classes, lengths = np.unique(labels, return_counts=True)
    quota = int(lengths.min()) if rows is None else rows // len(classes)
    if quota * len(classes) < sites:
        raise ExperimentError(f"{sites} sites need at least as many rows, there are {quota * len(classes)} to deal")
    if lengths.min() < quota and not replacement:
        raise ExperimentError(
            f"{quota} rows of each class are asked for, the rarest of {len(classes)} has {lengths.min()}; ask for "
            f"at most {lengths.min() * len(classes)} rows, or set replacement"
        )
    drawn: list[list[Array]] = [[] for _ in range(sites)]
    dealt = 0
    for label in classes:
        class_rows = generator.permutation(np.flatnonzero(labels == label))[:quota]
        # Dealing goes on at the next site from class to class, or the first would get all the odd rows.
        turn = (dealt + np.arange(quota)) % sites
        wanted = np.bincount(turn, minlength=sites)
        dealt += quota
        if len(class_rows) < np.count_nonzero(wanted):
            raise ExperimentError(
                f"a class has {len(class_rows)} rows, fewer than the {sites} sites that are to share it"
            )
        for site, mine in enumerate(class_rows[turn[: len(class_rows)] == site] for site in range(sites)):
            more = wanted[site] - len(mine)
            drawn[site] += [mine, generator.choice(mine, more)] if more else [mine]
    return [np.sort(np.concatenate(parts)) for parts in drawn]


def unbalanced(
    labels: Array, sites: int, generator: Generator, groups: Array | None = None, *, rows: int | None = None
) -> list[Array]:
    """Deal every class evenly, or so many rows of them all as the table has them: to the row, without groups."""
    taken = len(labels) if rows is None else rows
    if not sites <= taken <= len(labels):
        raise ExperimentError(f"{taken} rows for {sites} sites are asked for, the table has {len(labels)}")
    # Cards: sorted by class and shuffled within, so that any stretch of places has the table's class shares.
    order = np.lexsort((generator.permutation(len(labels)), labels))
    kept = order[(np.arange(taken) * len(labels)) // taken]
    owner = np.full(len(labels), LEFT_OUT)
    owner[kept] = generator.permutation(sites)[np.arange(taken) % sites]
    return parts_of(keep_groups_whole(owner, sites, labels, groups, generator), sites)


def per_class(
    labels: Array, percentages: Sequence[float], generator: Generator, groups: Array | None = None
) -> list[Array]:
    """Give site i the i-th percentage of every class, each to within one row."""
    sites = len(percentages)
    ends = np.cumsum(percentages) / np.sum(percentages)
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        class_rows = generator.permutation(np.flatnonzero(labels == label))
        owner[class_rows] = np.searchsorted(np.round(ends * len(class_rows)), np.arange(len(class_rows)), side="right")
    return parts_of(keep_groups_whole(owner, sites, labels, groups, generator), sites)


# -- skewed classes ------------------------------------------------------------------------------------------------


def dirichlet(
    labels: Array, sites: int, alpha: float, generator: Generator, groups: Array | None = None, *, minimum: int = 1
) -> list[Array]:
    """Deal each class to the sites in shares drawn from Dirichlet(alpha), after Yurochkin et al. (2019)."""
    if len(labels) < sites:
        raise ExperimentError(f"{sites} sites need at least as many rows, the table has {len(labels)}")
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        shares = np.cumsum(generator.dirichlet(np.full(sites, alpha)))
        ends = np.round(shares[:-1] * len(rows)).astype(int)
        for site, site_rows in enumerate(np.split(rows, ends)):
            owner[site_rows] = site
    owner = fill_up(owner, sites, minimum, generator)
    return parts_of(keep_groups_whole(owner, sites, labels, groups, generator), sites)


def inner_dirichlet(
    labels: Array, shares: Sequence[float], alpha: float, generator: Generator, groups: Array | None = None
) -> list[Array]:
    """Fill sites of given sizes, each with a class mix of its own from Dirichlet(alpha), after Acar et al. (2021).

    All sites draw at once from what is left of each class; where they ask for more than that, who gets it is drawn
    without replacement, and they go on with the classes that are left. So the last rows follow the stock, not the mix:
    that is the price of using every row.
    """
    counts = apportion(shares, len(labels))
    classes, code, stock = np.unique(labels, return_inverse=True, return_counts=True)
    mix = generator.dirichlet(np.full(len(classes), alpha), size=len(counts))
    held = np.zeros((len(counts), len(classes)), dtype=np.int64)
    while stock.sum():
        demand = np.zeros_like(held)
        for site in range(len(counts)):
            odds = np.where(stock > 0, mix[site], 0.0)
            # A mix that holds nothing of what is left takes it as it comes.
            odds = odds if odds.sum() > 0 else stock.astype(np.float64)
            demand[site] = generator.multinomial(counts[site] - held[site].sum(), odds / odds.sum())
        for number in np.flatnonzero(demand.sum(axis=0) > stock).tolist():
            demand[:, number] = generator.multivariate_hypergeometric(demand[:, number], stock[number])
        held += demand
        stock = stock - demand.sum(axis=0)
    owner = np.empty(len(labels), dtype=np.int64)
    for number in range(len(classes)):
        class_rows = generator.permutation(np.flatnonzero(code == number))
        owner[class_rows] = np.repeat(np.arange(len(counts)), held[:, number])
    return parts_of(keep_groups_whole(owner, len(counts), labels, groups, generator), len(counts))


def pathological(
    labels: Array, sites: int, classes_per_site: int, generator: Generator, groups: Array | None = None
) -> list[Array]:
    """Give every site `classes_per_site` classes, and share each class evenly among the sites that hold it.

    With groups, of one class each, it is the groups that are shared evenly.
    """
    of_unit, unit = as_units(labels, groups, "pathological")
    classes, lengths = np.unique(of_unit, return_counts=True)
    if classes_per_site > len(classes):
        raise ExperimentError(f"classes_per_site is {classes_per_site}, the table has {len(classes)} classes")
    if sites * classes_per_site < len(classes):
        raise ExperimentError(
            f"{sites} sites of {classes_per_site} classes cannot hold all {len(classes)} classes; "
            f"take {-(-len(classes) // classes_per_site)} or more sites"
        )
    holders = np.zeros((sites, len(classes)), dtype=bool)
    for site in range(sites):
        # The classes that fewest sites hold, ties drawn: so every class gets a site, and no class many more.
        order = np.lexsort((generator.permutation(len(classes)), holders.sum(axis=0)))
        holders[site, order[:classes_per_site]] = True
    owner = np.empty(len(of_unit), dtype=np.int64)
    for number, label in enumerate(classes):
        class_rows = generator.permutation(np.flatnonzero(of_unit == label))
        mine = generator.permutation(np.flatnonzero(holders[:, number]))
        if lengths[number] < len(mine):
            what = "rows" if groups is None else "groups"
            raise ExperimentError(f"a class has {lengths[number]} {what} for {len(mine)} sites; take fewer sites")
        owner[class_rows] = mine[np.arange(len(class_rows)) % len(mine)]
    return parts_of(owner[unit], sites)


def shards(
    labels: Array, sites: int, shards_per_site: int, generator: Generator, groups: Array | None = None
) -> list[Array]:
    """Sort by label, cut into ``sites * shards_per_site`` even shards and draw them, after McMahan et al. (2017).

    With groups, of one label each, shards hold even numbers of groups.
    """
    of_unit, unit = as_units(labels, groups, "shards")
    count = sites * shards_per_site
    if len(of_unit) < count:
        what = "rows" if groups is None else "groups"
        raise ExperimentError(f"{count} shards need at least as many {what}, the table has {len(of_unit)}")
    order = np.lexsort((generator.permutation(len(of_unit)), of_unit))
    deck = generator.permutation(count) // shards_per_site
    owner = np.empty(len(of_unit), dtype=np.int64)
    for site, shard in zip(deck, np.array_split(order, count), strict=True):
        owner[shard] = site
    return parts_of(owner[unit], sites)


def given_counts(
    labels: Array, counts: Mapping[int, Sequence[int]], generator: Generator, groups: Array | None = None
) -> list[Array]:
    """Draw for each label so many rows for each site; rows that nobody asks for are left out."""
    if not singletons(groups):
        raise ExperimentError(
            "kind counts gives every site exact numbers of rows, which groups of several rows cannot stay whole for; "
            "take kind dirichlet, or kind slices, which counts groups"
        )
    owner = np.full(len(labels), LEFT_OUT)
    for label, wanted in counts.items():
        class_rows = generator.permutation(np.flatnonzero(labels == label))
        if sum(wanted) > len(class_rows):
            raise ExperimentError(f"counts asks for {sum(wanted)} rows of a label that has {len(class_rows)}")
        for site, rows in enumerate(split_evenly(class_rows[: sum(wanted)], np.asarray(wanted))):
            owner[rows] = site
    return parts_of(owner, len(next(iter(counts.values()))))
