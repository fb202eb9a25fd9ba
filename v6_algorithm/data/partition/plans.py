"""Partitions that a column or a plan gives: natural ids, and slices of shuffled lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from v6_algorithm.data.partition.dealing import LEFT_OUT, Array, parts_of
from v6_algorithm.errors import ExperimentError


@dataclass(frozen=True)
class Cut:
    """Places `start` to `stop` (None: the end) of a list; `part` numbers train, validation, test, or is None."""

    name: str
    start: int
    stop: int | None
    part: int | None = None


def natural(ids: Array, sites: int, groups: Array | None = None) -> list[Array]:
    """Make every id, 0 to `sites` - 1, a site.

    Raises
    ------
    ExperimentError
        When a group has rows of two ids.
    """
    if groups is not None:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        if (ids[first][group] != ids).any():
            raise ExperimentError(
                "data.group has groups with rows at two sites: such a group cannot stay whole; leave those rows out, "
                "or take kind grouped"
            )
    return parts_of(ids, sites)


def shuffled_lists(
    hits: Mapping[str, Array], match: Mapping[str, str], groups: Array | None, generator: np.random.Generator
) -> dict[str, Array]:
    """Return the units of each list in one order for all sites.

    Parameters
    ----------
    hits
        List to (rows,) bool: the rows for which its conditions hold.
    match
        List to ``any`` (groups with such a row) or ``all`` (groups with no other row).
    groups
        (rows,) group of each row, 0 upwards; None: units are rows.
    generator
        Shuffles each list once: drawing anew for every site is how one patient came to two sites.
    """
    lists = {}
    for name, hit in hits.items():
        if groups is None:
            units = np.flatnonzero(hit)
        else:
            chosen = np.bincount(groups, weights=hit) > 0
            if match[name] == "all":
                chosen &= np.bincount(groups, weights=~hit) == 0
            units = np.flatnonzero(chosen)
        lists[name] = generator.permutation(units)
    return lists


def slices(
    lists: Mapping[str, Array], plan: Sequence[tuple[str, Sequence[Cut]]], rows: int, groups: Array | None = None
) -> tuple[list[Array], Array | None]:
    """Cut the lists as planned.

    Returns
    -------
    parts : list of ndarray
        Row numbers of each site; rows in no slice are left out.
    part : ndarray or None
        (rows,) part of each row, -1 for none, when the plan says it.

    Raises
    ------
    ExperimentError
        When a slice is beyond its list, or two slices hold the same row or group.
    """
    unit = np.arange(rows) if groups is None else groups
    what = "row" if groups is None else "group"
    units = int(unit.max(initial=-1)) + 1
    home, part = np.full(units, LEFT_OUT), np.full(units, -1)
    for number, (site, cuts) in enumerate(plan):
        for cut in cuts:
            members = lists[cut.name][cut.start : cut.stop]
            length = len(lists[cut.name])
            if not len(members) or (cut.stop is not None and cut.stop > length):
                end = "the end" if cut.stop is None else cut.stop
                raise ExperimentError(
                    f"site '{site}': slice {cut.start} to {end} is beyond list '{cut.name}', which has {length} {what}s"
                )
            taken = home[members]
            if (taken != LEFT_OUT).any():
                other = plan[taken[taken != LEFT_OUT][0]][0]
                twice = f"twice at site '{site}'" if other == site else f"at site '{other}' and at site '{site}'"
                raise ExperimentError(f"slice {cut.start} of list '{cut.name}' puts a {what} {twice}")
            home[members] = number
            if cut.part is not None:
                part[members] = cut.part
    has_part = any(cut.part is not None for _, cuts in plan for cut in cuts)
    return parts_of(home[unit], len(plan)), part[unit] if has_part else None
