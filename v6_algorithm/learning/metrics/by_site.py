"""The classification states of many sites from one pass over all their rows, on a machine that simulates them.

The states are those that a collector at each site would give, with no more bins than one may list (`joined.capped`),
but for the order in which losses and squared errors are added up. A site's tables are written out when somebody reads
them: in most rounds nobody looks at more than their sum, which is counted at once. Used by `site.together`;
`states.merge_states` asks for the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Mapping, Sequence
from dataclasses import fields, replace
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics import classification_state, sparse
from v6_algorithm.learning.metrics.calibration import CALIBRATION_BINS
from v6_algorithm.learning.metrics.classification import ClassificationMetrics, CountedRows, scored_classes
from v6_algorithm.learning.metrics.joined import joined_keys, lists_all, most_listed
from v6_algorithm.learning.metrics.states import CheckedState

# What the rows of a table keep once losses and squared errors are added up.
_BY_ROW = ("classes", "predicted", "keys", "is_class", "place", "units", "hit")


class SiteStates:
    """The states of several sites.

    Parameters
    ----------
    metrics
        An empty collector, which says what is counted.
    counted
        What each row adds.
    site
        (rows,) number of each usable row's site.
    non_finite
        Of each site the rows that are not usable.
    """

    def __init__(
        self, metrics: ClassificationMetrics, counted: CountedRows, site: NDArray[np.int64], non_finite: Sequence[int]
    ) -> None:
        self._metrics, self._non_finite = metrics, non_finite
        self._sites = sites = len(non_finite)
        self.rows = np.bincount(site, minlength=sites).tolist()
        keys, self._joins = self._capped(counted, site)
        # What is added up at once need not wait with the rest.
        self._counted = replace(counted, keys=keys, squares=counted.squares[:0], losses=counted.losses[:0])
        self._losses = np.bincount(site, counted.losses, sites).tolist()
        self._squares = np.bincount(site, counted.squares.sum(axis=1), sites).tolist()
        # Each site's rows lie one after the other.
        self._ends = np.cumsum([0, *self.rows]).tolist()

    @classmethod
    def of(
        cls,
        metrics: ClassificationMetrics,
        probability: NDArray[Any],
        target: NDArray[Any],
        loss: NDArray[Any],
        lengths: Sequence[int],
    ) -> SiteStates:
        """Measure rows of several sites, one site's after the other's; `lengths` are their numbers of rows."""
        counted = metrics.counted(probability, target, loss)
        site = np.repeat(np.arange(len(lengths)), lengths)
        unusable = np.bincount(site[~counted.usable], minlength=len(lengths)).tolist()
        return cls(metrics, counted, site[counted.usable], unusable)

    def _capped(self, counted: CountedRows, site: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
        """Return each row's bins, with those joined that a site may not list, and which sites join any."""
        classes, bins = self._metrics.n_classes, self._metrics.bins
        if lists_all(max(self.rows, default=0), classes):
            return counted.keys, [0] * self._sites
        width = counted.keys.shape[1] * bins
        keys, place = np.unique((counted.keys + (site * width)[:, None]).ravel(), return_inverse=True)
        above = np.bincount(place, counted.is_class.ravel(), len(keys)).astype(np.int64)
        rows = np.bincount(place, minlength=len(keys))
        moved = joined_keys(keys, np.stack([above, rows - above]), bins, most_listed(classes))
        if moved is None:
            return counted.keys, [0] * self._sites
        joins = np.bincount(keys // width, moved != keys, self._sites) > 0
        return (moved % width)[place].reshape(counted.keys.shape), joins.astype(int).tolist()

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self._metrics.n_classes

    @property
    def shape(self) -> list[Any]:
        """What states must have in common to be added up; see `states.shape_of`."""
        return ["classification", self._metrics.n_classes, self._metrics.bins, self._metrics.specificities]

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what another process needs to make this anew: JSON, and arrays by name."""
        metrics = self._metrics
        content = {
            "n_classes": metrics.n_classes, "bins": metrics.bins, "specificities": list(metrics.specificities),
            "non_finite": list(self._non_finite), "rows": self.rows, "joins": self._joins, "losses": self._losses,
            "squares": self._squares,
        }  # fmt: skip
        arrays = {name: getattr(self._counted, name) for name in _BY_ROW}
        return content, {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> SiteStates:
        """Make anew what `to_arrays` told of."""
        metrics = ClassificationMetrics(content["n_classes"], content["bins"], content["specificities"])
        told = (content[name] for name in ("non_finite", "rows", "joins", "losses", "squares"))
        return cls._made(metrics, arrays, *told)

    @classmethod
    def _made(
        cls,
        metrics: ClassificationMetrics,
        arrays: Mapping[str, NDArray[Any]],
        non_finite: Sequence[int],
        rows: list[int],
        joins: list[int],
        losses: list[float],
        squares: list[float],
    ) -> SiteStates:
        made = cls.__new__(cls)
        made._metrics, made._non_finite, made._sites = metrics, non_finite, len(rows)
        # What was added up is in the sums.
        empty: dict[str, Any] = {each.name: np.zeros(0) for each in fields(CountedRows)}
        made._counted = CountedRows(**(empty | dict(arrays)))
        made.rows, made._joins, made._losses, made._squares = rows, joins, losses, squares
        made._ends = np.cumsum([0, *rows]).tolist()
        return made

    @classmethod
    def _joined(cls, tables: Sequence[SiteStates]) -> SiteStates:
        """Return the states of several tables as those of one: of sites that several processes simulate."""
        if len(tables) == 1:
            return tables[0]
        arrays = {
            name: np.concatenate([getattr(table._counted, name) for table in tables]) for name in _BY_ROW
        }  # fmt: skip
        lists = (
            [value for table in tables for value in getattr(table, name)]
            for name in ("_non_finite", "rows", "_joins", "_losses", "_squares")
        )
        return cls._made(tables[0]._metrics, arrays, *lists)

    def states(self) -> list[SiteState]:
        """Return the state of each site."""
        return [self.state(number) for number in range(self._sites)]

    def state(self, number: int) -> SiteState:
        """Return the state of one site."""
        return SiteState(self, number, self._head(number))

    def tables(self, number: int | None) -> dict[str, Any]:
        """Return the tables of one site's state, or of the sum of all."""
        if number is not None:
            return self._tables(slice(self._ends[number], self._ends[number + 1]))
        tables = self._tables(slice(None))
        if not any(self._joins):
            return tables
        # As `classification_state.merge` keeps them.
        sites = [self.tables(number) for number in range(self._sites)]
        parts = [
            (site["positives"], site["negatives"], bool(joins)) for site, joins in zip(sites, self._joins, strict=True)
        ]
        return tables | {"parts": parts}

    def scores(self) -> list[dict[str, float | int | None]]:
        """Return what `classification_state.scores` computes of each site's state."""
        heads = [self._head(number) for number in range(self._sites)]
        return self._scores(np.repeat(np.arange(self._sites), self.rows), heads)

    def pooled_scores(self) -> dict[str, float | int | None]:
        """Return what `classification_state.scores` computes of the sum of all the states."""
        return self._scores(np.zeros(sum(self.rows), dtype=np.int64), [self.pooled_head()])[0]

    def _scores(self, group: NDArray[np.int64], heads: Sequence[dict[str, Any]]) -> list[dict[str, float | int | None]]:
        """Return the scores of groups of rows; `group` is (rows,) each row's, `heads` begin the states."""
        counted, classes, bins, groups = self._counted, self._metrics.n_classes, self._metrics.bins, len(heads)
        scored = scored_classes(classes)
        cells = (group * classes + counted.classes) * classes + counted.predicted
        confusion = np.bincount(cells, minlength=groups * classes**2).reshape(groups, classes, classes)
        place = group * CALIBRATION_BINS + counted.place
        calibration = [
            np.bincount(place, values, groups * CALIBRATION_BINS).astype(np.int64).reshape(groups, CALIBRATION_BINS)
            for values in (None, counted.units, counted.hit)
        ]
        # A class's bins in one group come after those of the class before, and of all classes of the group before.
        keys = counted.keys + (group * len(scored) * bins)[:, None]
        positives, negatives = (
            np.unique(keys[chosen], return_counts=True) for chosen in (counted.is_class, ~counted.is_class)
        )
        pairs = sparse.flat_paired(positives, negatives, groups * len(scored), bins)
        of_class, rows = confusion.sum(axis=2)[:, scored], np.array([head["n"] for head in heads])
        rankable = (of_class > 0) & (of_class < rows[:, None])
        states = [
            head | {"confusion": confusion[number], "calibration": [values[number].tolist() for values in calibration]}
            for number, head in enumerate(heads)
        ]
        pairs_of = [
            [pairs[number * len(scored) + place] for place in np.flatnonzero(rankable[number]).tolist()]
            for number in range(groups)
        ]
        return classification_state.scores_of_all(states, pairs_of)

    def pooled(self) -> dict[str, Any]:
        """Return the sum of all the states."""
        return self.pooled_head() | self.tables(None)

    def pooled_head(self) -> dict[str, Any]:
        """Return the sum of all the states without its tables."""
        return self._head(0) | {
            "n": sum(self.rows),
            "non_finite": sum(self._non_finite),
            "joined": sum(self._joins),
            **self.float_sums(),
        }

    def float_sums(self, others: Sequence[Mapping[str, Any]] = ()) -> dict[str, float]:
        """Return the sums of all the states' floats, and of others', rounded once."""
        sums = {"loss": self._losses, "brier": self._squares}
        return {name: fsum([*(state[name] for state in others), *values]) for name, values in sums.items()}

    def _head(self, number: int) -> dict[str, Any]:
        return {
            "kind": "classification",
            "n_classes": self._metrics.n_classes,
            "bins": self._metrics.bins,
            "specificities": self._metrics.specificities,
            "n": self.rows[number],
            "non_finite": self._non_finite[number],
            "joined": self._joins[number],
            "loss": self._losses[number],
            "brier": self._squares[number],
        }

    def _tables(self, rows: slice) -> dict[str, Any]:
        counted, classes, bins = self._counted, self._metrics.n_classes, self._metrics.bins
        scored = len(scored_classes(classes))
        place, keys, is_class = counted.place[rows], counted.keys[rows], counted.is_class[rows]
        pairs = counted.classes[rows] * classes + counted.predicted[rows]
        # Floats hold these sums exactly: they are whole, and far below 2^53.
        calibration = [
            np.bincount(place, values, CALIBRATION_BINS) for values in (counted.units[rows], counted.hit[rows])
        ]
        return {
            "confusion": np.bincount(pairs, minlength=classes**2).reshape(classes, classes).tolist(),
            "positives": sparse.from_keys(keys[is_class], scored, bins),
            "negatives": sparse.from_keys(keys[~is_class], scored, bins),
            "calibration": [
                np.bincount(place, minlength=CALIBRATION_BINS).tolist(),
                *(values.astype(np.int64).tolist() for values in calibration),
            ],
        }


class StateByHospital(Mapping[str, dict[str, Any]]):
    """The states of several sites by hospital, each made when somebody looks at it; see `states.merge_by_name`.

    Parameters
    ----------
    hospitals
        Name to number of the site.
    table
        What the states are counted from.
    """

    def __init__(self, hospitals: Mapping[str, int], table: SiteStates) -> None:
        self._hospitals, self._table = hospitals, table
        self._states: dict[str, SiteState] = {}
        self._sum: CheckedState | None = None

    def __getitem__(self, name: str) -> SiteState:
        if name not in self._states:
            self._states[name] = self._table.state(self._hospitals[name])
        return self._states[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hospitals)

    def __len__(self) -> int:
        return len(self._hospitals)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._hospitals.keys()

    def merged(self) -> CheckedState:
        """Return the sum of all states."""
        if self._sum is None:
            self._sum = PooledState(self._table)
        return self._sum

    def with_others(self, states: Sequence[dict[str, Any]]) -> CheckedState:
        """Return the sum of all states and of some others; each sum of floats is rounded once."""
        merged = classification_state.merge([*states, self.merged().whole()])
        return CheckedState(merged | self._table.float_sums(states))


class SomeBesideTable(Mapping[str, dict[str, Any]]):
    """States of single hospitals, and after them those of a table; see `beside`."""

    def __init__(self, single: Mapping[str, dict[str, Any]], table: StateByHospital) -> None:
        self._single, self._table = single, table
        self._sum: CheckedState | None = None

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._single[name] if name in self._single else self._table[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._single
        yield from self._table

    def __len__(self) -> int:
        return len(self._single) + len(self._table)

    def merged(self) -> CheckedState:
        """Return the sum of all states, as `states.merge_states` of them gives it to the bit."""
        if self._sum is None:
            self._sum = self._table.with_others([*self._single.values()])
        return self._sum


def beside(known: Mapping[str, dict[str, Any]], more: Mapping[str, dict[str, Any]]) -> Mapping[str, dict[str, Any]]:
    """Return states by hospital, `more` after those that are `known`, of other hospitals."""
    if not known:
        return more
    # Of joined bins the sum says whose they are, which that of a table does not.
    if isinstance(more, StateByHospital) and isinstance(known, dict) and not any(s["joined"] for s in known.values()):
        return SomeBesideTable(known, more)
    return {**known, **more}


class _Unwritten(CheckedState):
    """A state whose tables are written out when they are first read; `number` is its site's, None that of all."""

    __slots__ = ("number", "table")

    def __init__(self, table: SiteStates, number: int | None, head: dict[str, Any]) -> None:
        super().__init__(head)
        self.table, self.number = table, number

    def __missing__(self, key: str) -> Any:
        if self.written:
            raise KeyError(key)
        self.update(self.table.tables(self.number))
        return self[key]

    @property
    def written(self) -> bool:
        """Whether the tables are there."""
        return "confusion" in self

    def whole(self) -> CheckedState:
        """Return the state with its tables, as plain JSON."""
        if not self.written:
            self.update(self.table.tables(self.number))
        return self


class PooledState(_Unwritten):
    """The sum of the states of all sites of a table."""

    __slots__ = ()

    def __init__(self, table: SiteStates) -> None:
        super().__init__(table, None, table.pooled_head())

    def scores(self) -> dict[str, float | int | None]:
        """Return its scores, for which no tables are written."""
        return self.table.pooled_scores()


class SiteState(_Unwritten):
    """One site's state."""

    __slots__ = ()

    @staticmethod
    def scores_of(states: Sequence[dict[str, Any]]) -> list[dict[str, float | int | None]] | None:
        """Return the scores of states, where they are all those of some tables; None where they are not."""
        tables = _tables_of(states)
        if tables is None:
            return None
        scores = {id(table): table.scores() for table in tables}
        of_sites = [(id(state.table), state.number) for state in states if isinstance(state, SiteState)]
        return [scores[table][number] for table, number in of_sites if number is not None]

    @staticmethod
    def sum_of(states: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the sum of states, where they are all those of some tables; None where they are not."""
        tables = _tables_of(states)
        return None if tables is None else SiteStates._joined(tables).pooled()


def _tables_of(states: Sequence[dict[str, Any]]) -> list[SiteStates] | None:
    """Return the tables whose states these are, where they are all states of each; None where they are not."""
    tables: dict[int, SiteStates] = {}
    for state in states:
        if not isinstance(state, SiteState):
            return None
        tables[id(state.table)] = state.table
    return list(tables.values()) if len(states) == sum(len(table.rows) for table in tables.values()) else None
