"""Table 1 and survival curves by group, from what the sites tell of each (`data.summary.groups`); `describe` calls it.

References
----------
Welch (1947), Biometrika 34(1-2) (t test); Austin (2009), Statistics in Medicine 28(25) (standardised differences); Yang
and Dalton (2012), SAS Global Forum 335 (the same of categories); Fisher (1935), The Design of Experiments (exact test).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from v6_algorithm.coordinator.description.rank_tests import SiteBins, middle, rank_test
from v6_algorithm.coordinator.description.survival_curves import (
    Leaving,
    cumulative_incidence,
    kaplan_meier,
    log_rank,
    mean_differences,
)
from v6_algorithm.coordinator.inference.distributions import chi_square_p, f_p, t_p
from v6_algorithm.data.preparation import Moments, merge_moments
from v6_algorithm.data.preparation.columns import sort_labels
from v6_algorithm.data.preparation.setup import unpack_arrays
from v6_algorithm.errors import WireError
from v6_algorithm.exchange.text import printable
from v6_algorithm.experiment.evaluation import LONGEST_GROUP_NAME, SITE

Array = np.ndarray
Label = int | float | str
_MOST_GROUPS = 25
_MOST_TIMES = 10**6
# Rows of an exact test: beyond, chi-square is the same.
_MOST_EXACT = 10**6


@dataclass(frozen=True)
class GroupAnswer:
    """What a site tells of one group."""

    rows: int
    moments: Moments
    labels: dict[str, dict[str, Any]]
    curve: Leaving | None
    ranks: dict[str, Array]


@dataclass(frozen=True)
class SiteAnswer:
    """What a site tells by group; `withheld` are the rows of groups that are too small, `hidden` columns untold."""

    groups: dict[str, GroupAnswer]
    withheld: int
    hidden: set[str]
    coarse: bool
    bins: dict[str, Array]

    def bins_of(self, place: int, names: Mapping[str, str]) -> SiteBins:
        """Return the bins of the column at a place; `names` are the groups' names among all sites' groups."""
        ends = np.cumsum(self.bins["number"])
        part = slice(int(ends[place] - self.bins["number"][place]), int(ends[place]))
        return SiteBins(
            self.bins["low"][part],
            self.bins["equal"][part] == 1,
            {names[name]: group.ranks["rows"][part] for name, group in self.groups.items()},
            {names[name]: group.ranks["mean"][part] for name, group in self.groups.items()},
        )


def check_groups(reply: Mapping[str, Any], features: Sequence[str]) -> SiteAnswer:
    """Read a site's answer; raises WireError, KeyError, TypeError or ValueError where it is malformed."""
    groups: dict[str, GroupAnswer] = {}
    bins = _check_bins(reply["bins"], len(features))
    for item in reply["groups"]:
        name = printable(str(item["name"]))[:LONGEST_GROUP_NAME]
        labels = {str(column): _check_labels(told, item["rows"]) for column, told in item["labels"].items()}
        moments = Moments.check(unpack_arrays(item["moments"]), 1, len(features))
        ranks = _check_ranks(item["ranks"], bins, _count(item["rows"]))
        groups[name] = GroupAnswer(_count(item["rows"]), moments, labels, _check_curve(item["curve"]), ranks)
    if len(groups) > _MOST_GROUPS:
        raise WireError(f"it has over {_MOST_GROUPS} groups")
    hidden = set(map(str, reply["hidden"]))
    return SiteAnswer(groups, _count(reply["withheld"]), hidden, reply["cell"] != [1, 1], bins)


def _check_bins(packed: Any, features: int) -> dict[str, Array]:
    bins = unpack_arrays(packed)
    number = bins["number"]
    if number.shape != (features,) or number.dtype != np.int64 or (number < 0).any():
        raise WireError(f"its bins must be counted for each of {features} columns")
    total = (int(number.sum()),)
    if bins["low"].shape != total or bins["equal"].shape != total or not np.isfinite(bins["low"]).all():
        raise WireError("its bins must have a finite lower edge each")
    for column in np.split(bins["low"], np.cumsum(number)[:-1]):
        if (np.diff(column[1:]) <= 0).any():
            raise WireError("its bins must follow each other")
    return bins


def _check_ranks(packed: Any, bins: Mapping[str, Array], rows: int) -> dict[str, Array]:
    ranks = unpack_arrays(packed)
    shape = bins["low"].shape
    if ranks["rows"].shape != shape or ranks["mean"].shape != shape:
        raise WireError("its groups must have rows and a mean in each bin")
    if not np.isfinite(ranks["mean"]).all() or not ((ranks["rows"] >= 0) & (ranks["rows"] <= rows)).all():
        raise WireError("its rows in bins must be counts of the group's rows")
    return {name: ranks[name].astype(np.float64) for name in ("rows", "mean")}


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise WireError("its counts of rows must be whole numbers from 0")
    return value


def _check_labels(told: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    counts = {label: _count(number) for label, number in told["counts"]}
    if not all(isinstance(label, (int, float, str)) for label in counts):
        raise WireError("labels must be numbers or text")
    hidden, missing = _count(told["hidden"]), _count(told["missing"])
    if sum(counts.values()) + hidden + missing != rows:
        raise WireError("the rows of its labels do not add up to its rows")
    return {"counts": counts, "hidden": hidden, "missing": missing}


def _check_curve(packed: Any) -> Leaving | None:
    if packed is None:
        return None
    arrays = unpack_arrays(packed)
    time, events, leaving = (arrays[name].astype(np.float64) for name in ("time", "events", "leaving"))
    competing, joins, entering = (arrays[name].astype(np.float64) for name in ("competing", "entry_time", "entering"))
    shapes = {time.shape, events.shape, leaving.shape}
    if len(shapes) > 1 or time.ndim != 1 or not 0 < len(time) <= _MOST_TIMES:
        raise WireError("its counts by time are not of as many times each")
    if competing.ndim != 2 or len(competing) != len(time) or joins.shape != entering.shape or joins.ndim != 1:
        raise WireError("its counts by cause, or of who joins, are not of as many times each")
    every = np.concatenate([time, events, leaving, competing.ravel(), joins, entering])
    if not np.isfinite(every).all() or (np.diff(time) <= 0).any() or (np.diff(joins) <= 0).any():
        raise WireError("its times are not increasing finite numbers")
    died = events + competing.sum(axis=1)
    if min(events.min(), competing.min(initial=0.0)) < 0 or (leaving < died).any() or (leaving < 1).any():
        raise WireError("its counts by time must be at least 0, and as many leave as have the event or more")
    curve = Leaving(time, events, leaving, competing, joins, entering)
    if len(joins) and (entering.sum() != leaving.sum() or (curve.at_risk < leaving).any() or (entering < 0).any()):
        raise WireError("as many must join as leave, and before they do")
    return curve


def grouped(
    answers: Mapping[str, SiteAnswer], features: Sequence[str], by: str, causes: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any] | None, list[str]]:
    """Put the sites' answers together; `causes` are the event's name and those of what competes with it, if any does.

    Returns
    -------
    tuple
        ``table_one``: `by`, `groups` (name to rows), and `columns`, each with `kind`, by group its numbers, the largest
        `difference` of two groups in standard deviations, a `test`, and a `rank_test` or
        `exact_test`. ``curves``: None without times; else
        `groups` (name to curve; with `incidence` by cause where there are any), `log_rank` and `log_rank_by_site`
        (stratified), `mean_differences` and `causes`. And sentences for the researcher.
    """
    notes: list[str] = []
    # Group to the answers of its sites: a site is a group of its own where sites are compared.
    members: dict[str, dict[str, GroupAnswer]] = {}
    for site, answer in answers.items():
        for name, group in answer.groups.items():
            members.setdefault(site if by == SITE else name, {})[site] = group
        if answer.withheld:
            notes.append(
                f"site '{site}': {answer.withheld} rows are in groups of '{by}' that are too small to be told; they "
                "are in no column of the table"
            )
        if answer.hidden:
            notes.append(
                f"site '{site}': a group of '{by}' has too few values of {', '.join(sorted(answer.hidden))}, so that "
                "the site tells them of no group"
            )
    names = sorted(members)
    table: dict[str, Any] = {
        "by": by,
        "groups": {name: sum(group.rows for group in members[name].values()) for name in names},
        "columns": {},
    }
    for place, column in enumerate(features):
        telling = {
            name: [group.moments for site, group in members[name].items() if column not in answers[site].hidden]
            for name in names
        }
        if any(float(moments.count[0, place]) for of_group in telling.values() for moments in of_group):
            bins = [
                answer.bins_of(place, {name: site if by == SITE else name for name in answer.groups})
                for site, answer in answers.items()
                if column not in answer.hidden
            ]
            table["columns"][column] = _numeric(telling, place, [site for site in bins if len(site.low) and site.rows])
    labelled = dict.fromkeys(
        column for group in members.values() for answer in group.values() for column in answer.labels
    )
    for column in labelled:
        if column not in (by, *features):
            told = {
                name: {site: group.labels[column] for site, group in members[name].items() if column in group.labels}
                for name in names
            }
            table["columns"][column] = _categorical(told)
            if any(label["hidden"] for labels in told.values() for label in labels.values()):
                notes.append(
                    f"column '{column}': a site that has few rows of a value in a group tells it of none; they count "
                    "as '(few)', counts beside it are at least (≥) those, and the site is in no test of the column"
                )
    open_order = {
        column: told["rank_test"]["resolution"]
        for column, told in table["columns"].items()
        if told["kind"] == "numeric" and told["rank_test"] and told["rank_test"]["coarse"]
    }
    if open_order:
        worst = max(open_order, key=lambda column: open_order[column])
        notes.append(
            f"medians and rank tests of {', '.join(open_order)} are from bins of several rows of each group and site "
            "(~ in the table), which leave the order of pairs open: the chance that a row of a group is above another "
            f"group's may be off by up to {open_order[worst]:.2f} (of {worst})"
        )
    return table, _curves(members, answers, notes, by, causes), notes


def _numeric(telling: Mapping[str, Sequence[Moments]], place: int, bins: Sequence[SiteBins]) -> dict[str, Any]:
    groups: dict[str, dict[str, Any]] = {}
    for name, moments in telling.items():
        merged = merge_moments(moments) if moments else None
        n = float(merged.count[0, place]) if merged else 0.0
        groups[name] = {
            "n": int(n),
            "missing": int(float(merged.rows[0]) - n) if merged else None,
            "mean": float(merged.mean[0, place]) if merged and n else None,
            "sd": float(np.sqrt(merged.squares[0, place] / (n - 1))) if merged and n > 1 else None,
            **(middle(bins, name) or {"median": None, "lower": None, "upper": None}),
        }
    known = [(group["n"], group["mean"], group["sd"] ** 2) for group in groups.values() if group["sd"] is not None]
    differences = [
        abs(first[1] - second[1]) / np.sqrt((first[2] + second[2]) / 2)
        for first, second in combinations(known, 2)
        if first[2] + second[2] > 0
    ]
    return {
        "kind": "numeric",
        "groups": groups,
        "difference": float(max(differences)) if differences else None,
        "test": _test_of_means(known),
        "rank_test": rank_test(bins, list(telling)) if bins else None,
    }


def _test_of_means(known: Sequence[tuple[int, float, float]]) -> dict[str, Any] | None:
    """Return Welch's t test of two groups, the F test of more; None where nothing varies."""
    if len(known) < 2 or not any(variance for _, _, variance in known):
        return None
    n, means, variances = (np.array(column, dtype=np.float64) for column in zip(*known, strict=True))
    if len(known) == 2:
        parts = variances / n
        t = float((means[0] - means[1]) / np.sqrt(parts.sum()))
        freedom = float(parts.sum() ** 2 / (parts**2 / (n - 1)).sum())
        return {"name": "t", "statistic": t, "freedom": freedom, "p": t_p(t, freedom)}
    above, below = len(known) - 1, float(n.sum() - len(known))
    within = ((n - 1) * variances).sum() / below
    between = (n * (means - (n @ means) / n.sum()) ** 2).sum() / above
    f = float(between / within)
    return {"name": "F", "statistic": f, "freedom": [above, below], "p": f_p(f, above, below)}


def _categorical(told: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return counts by label and group; tests are over the sites that tell all labels."""
    every = [site for sites in told.values() for site in sites.values()]
    labels: list[Label] = sort_labels({label for site in every for label in site["counts"]})
    groups = {
        name: {
            "counts": [sum(site["counts"].get(label, 0) for site in sites.values()) for label in labels],
            "hidden": sum(site["hidden"] for site in sites.values()),
            "missing": sum(site["missing"] for site in sites.values()),
        }
        for name, sites in told.items()
    }
    few = {name for sites in told.values() for name, site in sites.items() if site["hidden"]}
    whole = [[site["counts"] for name, site in sites.items() if name not in few] for sites in told.values()]
    table = np.array(
        [[sum(counts.get(label, 0) for counts in sites) for label in labels] for sites in whole], dtype=np.float64
    ).reshape(len(groups), len(labels))
    table = table[table.sum(axis=1) > 0]
    differences = [_difference(*pair) for pair in combinations(table, 2)]
    return {
        "kind": "categorical",
        "labels": labels,
        "groups": groups,
        "difference": max((value for value in differences if value is not None), default=None),
        "test": _chi_square(table),
        "exact_test": _fisher(table),
    }


def _difference(first: Array, second: Array) -> float | None:
    """Return the Mahalanobis distance between the shares of all labels but the first."""
    p, q = first[1:] / first.sum(), second[1:] / second.sum()
    spread = ((np.diag(p) - np.outer(p, p)) + (np.diag(q) - np.outer(q, q))) / 2
    if not len(p) or not spread.any():
        return None
    return float(np.sqrt(max((p - q) @ np.linalg.pinv(spread) @ (p - q), 0.0)))


def _chi_square(table: Array) -> dict[str, Any] | None:
    """Return Pearson's test, without a correction for continuity; None where there is nothing to compare."""
    table = table[:, table.sum(axis=0) > 0] if table.size else table
    if min(table.shape) < 2:
        return None
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    chi2 = float(((table - expected) ** 2 / expected).sum())
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return {
        "name": "chi-square",
        "statistic": chi2,
        "freedom": freedom,
        "p": chi_square_p(chi2, freedom),
        "small": bool((expected < 5).any()),
    }


def _fisher(table: Array) -> dict[str, Any] | None:
    """Return Fisher's exact test of two groups and two values, two-sided: all tables as unlikely as this or more."""
    table = table[:, table.sum(axis=0) > 0] if table.size else table
    if table.shape != (2, 2) or table.sum() > _MOST_EXACT:
        return None
    (a, b), (c, d) = table.tolist()
    first, second, column = a + b, c + d, a + c
    counts = np.arange(max(0, column - second), min(first, column) + 1)

    def of(n: float, k: Array) -> Array:
        return np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k.tolist()])

    log = of(first, counts) + of(second, column - counts)
    chance = np.exp(log - log.max())
    chance /= chance.sum()
    here = chance[int(a - counts[0])]
    p = float(min(chance[chance <= here * (1 + 1e-7)].sum(), 1.0))
    return {"name": "Fisher", "odds_ratio": a * d / (b * c) if b * c else None, "p": p}


def _events(groups: Mapping[str, Leaving]) -> bool:
    return any(rows.events.any() for rows in groups.values())


def _curves(
    members: Mapping[str, Mapping[str, GroupAnswer]],
    answers: Mapping[str, SiteAnswer],
    notes: list[str],
    by: str,
    causes: Sequence[str],
) -> dict[str, Any] | None:
    known = {
        name: {site: group.curve for site, group in sites.items() if group.curve is not None}
        for name, sites in members.items()
    }
    wrong = [
        site
        for sites in known.values()
        for site, curve in sites.items()
        if curve.competing.shape[1] != max(len(causes) - 1, 0)
    ]
    if wrong:
        raise WireError(f"site '{wrong[0]}' counts other causes than were asked for")
    known = {name: sites for name, sites in known.items() if sites}
    if not known:
        return None
    for name, sites in members.items():
        if lost := [site for site in sites if site not in known.get(name, {})]:
            notes.append(f"survival of group '{name}' is without {', '.join(lost)}: too few rows or events there")
    if coarse := [site for site, answer in answers.items() if answer.coarse]:
        notes.append(
            f"survival: the nodes of {', '.join(coarse)} join times into cells of several events, so curves, medians "
            "and tests are near those of exact times, not equal"
        )
    pooled = {name: Leaving.together(list(sites.values())) for name, sites in known.items()}
    horizon = min(float(rows.time[-1]) for rows in pooled.values())
    curves: dict[str, Any] = {
        "by": by,
        "groups": {name: kaplan_meier(rows, horizon) for name, rows in pooled.items()},
        "log_rank": log_rank([pooled]),
        "causes": list(causes),
    }
    for name, rows in pooled.items():
        if causes:
            curves["groups"][name]["incidence"] = dict(zip(causes, cumulative_incidence(rows), strict=True))
        empty = np.flatnonzero((rows.at_risk == rows.events) & (rows.time < rows.time[-1]))
        if len(empty):
            notes.append(
                f"survival of group '{name}': all who were watched at time {rows.time[empty[0]]:g} had the event then: "
                "the curve is 0 from there on, though others join later: begin at a time at which more are watched"
            )
    if len(pooled) > 1 and curves["log_rank"] is None:
        why = "nobody is left, or only one group, where events are" if _events(pooled) else "no group has an event"
        notes.append(f"survival: there is no log-rank test, for {why}")
    curves["mean_differences"] = mean_differences(curves["groups"])
    if by != SITE:
        strata = [{name: sites[site] for name, sites in known.items() if site in sites} for site in answers]
        curves["log_rank_by_site"] = log_rank([stratum for stratum in strata if stratum])
    return curves
