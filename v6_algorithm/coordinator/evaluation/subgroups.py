"""What `master` asks and makes of groups of rows: the kept models measured on each, added up over the sites.

One call when it is known which models are kept. Sites withhold small groups; see `site.subgroups`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from v6_algorithm.coordinator.preparation.plan import Plan
from v6_algorithm.coordinator.rounds.folds import FoldProgress
from v6_algorithm.errors import WireError
from v6_algorithm.experiment import PARTS, Evaluation
from v6_algorithm.experiment.evaluation import LONGEST_GROUP_NAME, MOST_GROUPS, NOT_KNOWN, SITE
from v6_algorithm.learning.metrics import compute, is_score, merge_states, shape_of
from v6_algorithm.learning.metrics.intervals import Interval, difference

# Column and group to what its sites told.
Told = dict[str, dict[str, list[dict[str, Any]]]]


class GroupSums:
    """The groups of one run.

    Parameters
    ----------
    evaluation
        The experiment's section.

    Attributes
    ----------
    told
        Part to column to group to the states of the sites that told it.
    asked
        Whether any site was asked.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.reported: dict[str, Told] = {}
        self.asked = False
        self._bands = {subgroup.column: subgroup.band_names for subgroup in evaluation.subgroups}

    def state_dict(self) -> dict[str, Any]:
        """Return what was told."""
        return {"reported": self.reported, "asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.reported, self.asked = dict(state["reported"]), state["asked"]

    def questions(
        self, plan: Plan, folds: Sequence[FoldProgress], site: str, parts: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return what a site is asked: of each kept model the parts that it has rows of; of nothing if one is missing.

        A site tells the groups of all folds together or not at all.
        """
        self.asked, items = True, []
        for fold in folds:
            with_rows = [part for part in parts if plan.rows[site][fold.number][part]]
            if with_rows and fold.kept is None:
                return []
            if with_rows:
                items.append(fold.item(site, [], model=fold.kept) | {"subgroups": with_rows})
        return items

    def take(self, reply: Any, asked: Sequence[Mapping[str, Any]], plan: Plan, shape: Sequence[Any] | None) -> None:
        """Check a site's answer and add it; all of it or, where something is wrong, nothing.

        Raises
        ------
        WireError, ValueError, KeyError, TypeError, AttributeError
            When it is not an answer to what was asked.
        """
        parts = {part for item in asked for part in item.get("subgroups", [])}
        if set(reply) != parts or not parts <= set(PARTS):
            raise WireError("it measured groups of other parts than it was asked for")
        states: list[tuple[str, str, str, dict[str, Any]]] = []
        for part, members in reply.items():
            for name, columns in members.items():
                rows = sum(fold[name][part] for fold in plan.counts if name in fold)
                if not any(name in fold for fold in plan.counts) or set(columns) != set(self._bands):
                    raise WireError("it measured groups of other hospitals or columns than it was asked for")
                for column, groups in columns.items():
                    self._check(column, groups, rows, shape)
                    states += [(part, column, group, state) for group, state in groups.items()]
        for part, column, group, state in states:
            self.reported.setdefault(part, {}).setdefault(column, {}).setdefault(group, []).append(state)

    def _check(self, column: str, groups: Mapping[str, Any], rows: int, shape: Sequence[Any] | None) -> None:
        bands = self._bands[column]
        allowed = {*bands, NOT_KNOWN} if bands else set(groups)
        if (
            len(groups) > MOST_GROUPS + 1
            or not set(groups) <= allowed
            or any(len(name) > LONGEST_GROUP_NAME for name in groups)
        ):
            raise WireError(f"its groups of column '{column}' are not those that the experiment makes")
        for state in groups.values():
            if shape is not None and shape_of(state) != shape:
                raise WireError("the metrics of its groups are of another kind or shape than those of all rows")
        if sum(state["n"] for state in groups.values()) > rows:
            raise WireError("its groups have more rows than it has")


def merged_groups(
    runs: Iterable[GroupSums], evaluation: Evaluation, repeats: int = 1
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the metrics by part, column and group, over all sites that told of the group.

    Sites add up what they tell over all folds. Where those are of several `repeats`, `n` is that of one, and there are
    no intervals: they would take each repeat for new patients.
    """
    together: dict[str, Told] = {}
    for run in runs:
        for part, columns in run.reported.items():
            for column, groups in columns.items():
                for group, states in groups.items():
                    together.setdefault(part, {}).setdefault(column, {}).setdefault(group, []).extend(states)
    bands = {subgroup.column: subgroup.band_names for subgroup in evaluation.subgroups}
    return {
        part: {
            column: {
                group: _of_one_repeat(compute(merge_states(groups[group])), repeats)
                for group in in_order(groups, bands[column])
            }
            for column, groups in columns.items()
        }
        for part, columns in sorted(together.items(), key=lambda entry: PARTS.index(entry[0]))
    }


def _of_one_repeat(metrics: dict[str, float | int | None], repeats: int) -> dict[str, float | int | None]:
    if repeats == 1:
        return metrics
    kept = {name: value for name, value in metrics.items() if not name.endswith(("_low", "_high", "_se"))}
    return kept | {"n": round((metrics["n"] or 0) / repeats)}


def gaps(
    groups: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]], metrics: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return by part and column how far the groups are apart, and the sites, which are groups too.

    Parameters
    ----------
    groups
        Of `merged_groups`.
    metrics
        The result's metrics, by part and scope.
    """
    by_part: dict[str, dict[str, dict[str, float]]] = {}
    for part, scopes in metrics.items():
        columns = {**groups.get(part, {}), SITE: scopes["sites"]}
        apart = {column: gap(by_group) for column, by_group in columns.items()}
        by_part[part] = {column: by_group for column, by_group in apart.items() if by_group}
    return by_part


def gap(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the largest minus the smallest value of each metric over the groups; rows of no known group are none.

    Where both groups have intervals there is one of the gap, as `<metric>_low` and `<metric>_high`. It is of these two
    groups: that they were picked as the furthest apart it does not know.
    """
    values: dict[str, list[float]] = {}
    for name, metrics in groups.items():
        for metric, value in metrics.items() if name != NOT_KNOWN else ():
            if is_score(metric) and value is not None:
                values.setdefault(metric, []).append(value)
    return {
        name: number
        for metric, numbers in values.items()
        if len(numbers) > 1
        for name, number in (
            {metric: max(numbers) - min(numbers)} | _around_gap(groups, metric, min(numbers), max(numbers))
        ).items()
    }


def _around_gap(groups: Mapping[str, Mapping[str, Any]], metric: str, low: float, high: float) -> dict[str, float]:
    """Return the ends of the interval of a gap, from those of the two groups that it is between; none without."""
    members = [metrics for name, metrics in groups.items() if name != NOT_KNOWN]
    smaller = next(metrics for metrics in members if metrics.get(metric) == low)
    greater = next(metrics for metrics in members if metrics.get(metric) == high)
    of_greater, of_smaller = (
        (metrics.get(f"{metric}_low"), metrics.get(f"{metric}_high")) for metrics in (greater, smaller)
    )
    if greater is smaller or None in (*of_greater, *of_smaller):
        return {}
    least, most = difference(high, cast("Interval", of_greater), low, cast("Interval", of_smaller))
    return {f"{metric}_low": least, f"{metric}_high": most}


def withheld(
    groups: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]],
    metrics: Mapping[str, Mapping[str, Any]],
    evaluation: Evaluation,
) -> list[str]:
    """Say of how many rows the sites do not tell the group."""
    notes = []
    for part, scopes in metrics.items():
        for column in evaluation.columns:
            rows = scopes["pooled"]["n"]
            silent = rows - sum(group["n"] for group in groups.get(part, {}).get(column, {}).values())
            if silent > 0:
                notes.append(
                    f"evaluation.subgroups: {column}: the group of {silent} of {rows} {part} rows is not told, for "
                    "groups of few rows stay at their site"
                )
    return notes


def in_order(groups: Iterable[str], bands: Sequence[str]) -> list[str]:
    """Sort the names of groups: bands upwards, numbers as such, then words; "not known" last."""

    def place(name: str) -> tuple[int, float, str]:
        if name == NOT_KNOWN:
            return 2, 0.0, name
        if name in bands:
            return 0, float(bands.index(name)), name
        try:
            return 0, float(name), name
        except ValueError:
            return 1, 0.0, name

    return sorted(groups, key=place)
