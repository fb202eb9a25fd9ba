"""From a table and a `sites.partition` section to named sites and their rows; used by `run` and by `partition`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from v6_algorithm.data.partition import labels as by_label
from v6_algorithm.data.partition import plans, sizes
from v6_algorithm.data.partition.dealing import Array
from v6_algorithm.data.preparation.columns import sort_labels
from v6_algorithm.data.targets import canonical, coded
from v6_algorithm.errors import ExperimentError
from v6_algorithm.experiment import PARTS, Partition, parse_condition
from v6_algorithm.experiment import partition as kinds

if TYPE_CHECKING:
    import pandas as pd

# A number with more distinct values than this is no label: it is cut into ten bins of one size.
_MOST_NUMBERS = 20
_BINS = 10
_MOST_SITES = 1000
PART_COLUMN = "part"


@dataclass(frozen=True)
class Parts:
    """A table cut into sites.

    Attributes
    ----------
    names
        The sites.
    rows
        Ascending row numbers of each.
    label
        (rows,) number of each row's label in `labels`, -1 for none; None where nothing says what the labels are.
    labels
        The labels in words.
    group
        (rows,) group of each row, or None.
    part
        (rows,) index into `PARTS`, or None: only a plan says it.
    """

    names: list[str]
    rows: list[Array]
    label: Array | None
    labels: list[str]
    group: Array | None
    part: Array | None = None

    def frame_of(self, frame: pd.DataFrame, site: int) -> pd.DataFrame:
        """Return one site's rows of the table that was cut, with the plan's parts in a column `part`."""
        site_frame = frame.iloc[self.rows[site]].reset_index(drop=True)
        if self.part is not None:
            site_frame[PART_COLUMN] = [PARTS[number] for number in self.part[self.rows[site]]]
        return site_frame

    def summary(self, total: int) -> dict[str, Any]:
        """Return who got what as plain JSON: rows, groups and labels of each site, and how many rows nobody got."""
        sites = []
        for name, rows in zip(self.names, self.rows, strict=True):
            entry: dict[str, Any] = {"name": name, "rows": len(rows)}
            if self.group is not None:
                entry["groups"] = len(np.unique(self.group[rows]))
            if self.label is not None:
                site_labels = self.label[rows]
                entry["labels"] = np.bincount(site_labels[site_labels >= 0], minlength=len(self.labels)).tolist()
            sites.append(entry)
        return {
            "rows": total,
            "left_out": total - len(np.unique(np.concatenate(self.rows))),
            "labels": self.labels if self.label is not None else [],
            "sites": sites,
        }


def columns_of(partition: Partition, *, target: str | None, group: str | None) -> list[str]:
    """Return the columns that `cut_table` looks at, so that no others need to be read."""
    named = [getattr(partition, "by", None), target, group]
    if isinstance(partition, kinds.Slices):
        named += [column for item in partition.lists.values() for column in item.where]
    return list(dict.fromkeys(name for name in named if name is not None))


def cut_table(
    partition: Partition,
    frame: pd.DataFrame,
    generator: np.random.Generator,
    *,
    target: str | None = None,
    positive: str | None = None,
    group: str | None = None,
    classes: bool = False,
) -> Parts:
    """Cut a table into sites.

    Parameters
    ----------
    partition
        The section.
    frame
        The table, or those of its columns that `columns_of` names.
    generator
        The only source of randomness.
    target
        The column whose labels are dealt where the section names no other.
    positive
        Condition that makes the target 0/1, as `data.positive`.
    group
        Column whose equal values stay at one site, as `data.group`.
    classes
        Every value of the target is a class, however many there are.

    Raises
    ------
    ExperimentError
        When a column is missing or the table cannot be cut as asked; one sentence without data values.
    """
    for name in columns_of(partition, target=None, group=group):
        if name not in frame.columns:
            raise ExperimentError(f"column '{name}' is not in the table")
    groups = None if group is None else group_codes(frame[group])
    by: str | None = getattr(partition, "by", None)
    labelled = by if isinstance(partition, get_args(kinds.OfLabels)) and by is not None else target
    label: Array | None = None
    words: list[str] = []
    if labelled is not None and labelled in frame.columns:
        label, words = label_codes(
            frame[labelled], positive if labelled == target else None, classes=classes and labelled == target
        )
    if isinstance(partition, kinds.Natural):
        ids, names = _ids(frame[partition.by], partition.by)
        return Parts(names, plans.natural(ids, len(names), groups), label, words, groups)
    if isinstance(partition, kinds.Slices):
        rows, part = _sliced(partition, frame, groups, generator)
        return Parts(list(partition.sites), rows, label, words, groups, part)
    if isinstance(partition, get_args(kinds.OfLabels)):
        if label is None:
            raise ExperimentError(f"kind {partition.kind} deals out labels: name their column as `by`, or the target")
        # A row without a label cannot be learned from, and is no class of its own.
        known = np.flatnonzero(label >= 0)
        dealt = _dealt(partition, label[known], words, None if groups is None else groups[known], group, generator)
        rows = [known[part] for part in dealt]
    else:
        rows = _sized(cast("kinds.OfSizes", partition), frame, groups, generator)
    return Parts(site_names(len(rows)), rows, label, words, groups)


def site_names(count: int) -> list[str]:
    """Return site1, site2, …, of one width so that they sort."""
    return [f"site{number:0{len(str(count))}d}" for number in range(1, count + 1)]


def _sized(
    partition: kinds.OfSizes, frame: pd.DataFrame, groups: Array | None, generator: np.random.Generator
) -> list[Array]:
    if isinstance(partition, (kinds.Sizes, kinds.SizeSkew)):
        return sizes.at_random(len(frame), partition.sizes, generator, groups)
    if isinstance(partition, kinds.Continuous):
        values = _numbers(frame[partition.by], partition.by)
        return sizes.continuous(values, partition.sites, partition.strictness, generator, groups)
    if isinstance(partition, kinds.Grouped):
        ids = group_codes(frame[partition.by])
        plans.natural(ids, int(ids.max()) + 1, groups)
        groups = ids
    return sizes.at_random(len(frame), [1.0] * partition.sites, generator, groups)


def _dealt(
    partition: kinds.OfLabels,
    label: Array,
    words: list[str],
    groups: Array | None,
    group: str | None,
    generator: np.random.Generator,
) -> list[Array]:
    deal = by_label
    if isinstance(partition, kinds.Balanced):
        if partition.replacement and group is None:
            raise ExperimentError(
                "replacement copies rows, and copies of one row would train and test: name the column that tells the "
                "rows apart as the group (data.group)"
            )
        options = {"rows": partition.rows, "replacement": partition.replacement}
        return deal.balanced(label, partition.sites, generator, groups, **options)  # type: ignore[arg-type]
    if isinstance(partition, kinds.Unbalanced):
        return deal.unbalanced(label, partition.sites, generator, groups, rows=partition.rows)
    if isinstance(partition, kinds.Dirichlet):
        minimum = partition.minimum_rows
        return deal.dirichlet(label, partition.sites, partition.alpha, generator, groups, minimum=minimum)
    if isinstance(partition, kinds.InnerDirichlet):
        shares = partition.sizes or [1.0] * (partition.sites or 1)
        return deal.inner_dirichlet(label, shares, partition.alpha, generator, groups)
    if isinstance(partition, kinds.Pathological):
        return deal.pathological(label, partition.sites, partition.classes_per_site, generator, groups)
    if isinstance(partition, kinds.Shards):
        return deal.shards(label, partition.sites, partition.shards_per_site, generator, groups)
    if isinstance(partition, kinds.PerClass):
        return deal.per_class(label, partition.percentages, generator, groups)
    number = {word: index for index, word in enumerate(words)}
    if unknown := [word for word in partition.counts if word not in number]:
        raise ExperimentError(f"counts names label '{unknown[0]}', which no row has")
    counts = {number[word]: wanted for word, wanted in partition.counts.items()}
    return deal.given_counts(label, counts, generator, groups)


def _sliced(
    partition: kinds.Slices, frame: pd.DataFrame, groups: Array | None, generator: np.random.Generator
) -> tuple[list[Array], Array | None]:
    if partition.has_parts and PART_COLUMN in frame.columns:
        raise ExperimentError(f"the plan fills a column '{PART_COLUMN}', and the table has one already")
    hits = {}
    for name, item in partition.lists.items():
        hits[name] = np.ones(len(frame), dtype=bool)
        for column, condition in item.where.items():
            hits[name] &= holds(frame[column], condition)
    match = {name: item.match for name, item in partition.lists.items()}
    lists = plans.shuffled_lists(hits, match, groups, generator)
    plan = [
        (
            site,
            [
                plans.Cut(item.list, item.start, item.stop, None if item.part is None else PARTS.index(item.part))
                for item in items
            ],
        )
        for site, items in partition.sites.items()
    ]
    return plans.slices(lists, plan, len(frame), groups)


# -- columns -------------------------------------------------------------------------------------------------------


def label_codes(column: pd.Series, positive: str | None = None, *, classes: bool = False) -> tuple[Array, list[str]]:
    """Number the labels of a column in their order; a number with many values is cut into ten bins of one size.

    Returns
    -------
    codes : (rows,) int64, -1 where the cell is empty
    labels : list of str
    """
    import pandas as pd

    known = column.notna().to_numpy()
    codes = np.full(len(column), -1, dtype=np.int64)
    if positive is not None:
        codes[known] = holds(column[known], positive)
        return codes, ["0", "1"]
    if pd.api.types.is_numeric_dtype(column) and not classes and column.nunique() > _MOST_NUMBERS:
        edges = np.unique(np.quantile(column[known].astype(float), np.arange(1, _BINS) / _BINS))
        codes[known] = np.searchsorted(edges, column[known].astype(float), side="right")
        return codes, [
            f"from {edge:.4g}" if number else f"under {edges[0]:.4g}" for number, edge in enumerate([0, *edges])
        ]
    values, code = coded(column[known])
    labels = sort_labels(set(values))
    number = {label: index for index, label in enumerate(labels)}
    codes[known] = np.array([number[value] for value in values], dtype=np.int64)[code]
    return codes, [str(label) for label in labels]


def group_codes(column: pd.Series) -> Array:
    """Number the groups; a row without a group is a group of its own."""
    codes = column.factorize()[0].astype(np.int64)
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return codes


def holds(column: pd.Series, condition: str) -> Array:
    """Say for which rows a condition such as ``"> 0"`` or ``"== yes"`` holds; for none without a value."""
    import pandas as pd

    operator, wanted = parse_condition(condition)
    known = column.notna().to_numpy()
    if operator in ("==", "!="):
        (label,) = canonical(pd.Series([wanted], dtype=object))
        equal = np.zeros(len(column), dtype=bool)
        values, code = coded(column[known])
        equal[known] = np.array([value == label for value in values], dtype=bool)[code]
        return equal if operator == "==" else known & ~equal
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if np.isnan(numbers[known]).any():
        raise ExperimentError(f"column '{column.name}' holds text, and the condition is '{condition}'")
    compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}[operator]
    return known & compare(numbers, float(wanted))


def _numbers(column: pd.Series, name: str) -> Array:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if not np.isfinite(numbers).all():
        raise ExperimentError(f"kind continuous needs a number in every row, column '{name}' has not")
    return numbers


def _ids(column: pd.Series, name: str) -> tuple[Array, list[str]]:
    codes, words = label_codes(column, classes=True)
    if (codes < 0).any():
        raise ExperimentError(f"kind natural needs a site in every row, column '{name}' has empty cells")
    if len(words) > _MOST_SITES:
        raise ExperimentError(f"column '{name}' would make over {_MOST_SITES} sites; take kind grouped")
    return codes, words
