"""The classification states of many sites from one pass over all their rows, on a machine that simulates them.

The states are those that a collector at each site would give, but for the order in which losses and squared errors are
added up. A site's tables are written out when somebody reads them: in most rounds nobody looks at more than their sum,
which is counted at once. Used by `site.together`; `states.merge_states` asks for the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v6_algorithm.learning.metrics import sparse
from v6_algorithm.learning.metrics.calibration import CALIBRATION_BINS
from v6_algorithm.learning.metrics.classification import ClassificationMetrics, CountedRows, scored_classes
from v6_algorithm.learning.metrics.states import CheckedState


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
        # What is added up at once need not wait with the rest.
        self._counted = replace(counted, squares=counted.squares[:0], losses=counted.losses[:0])
        self._sites = sites = len(non_finite)
        self.rows = np.bincount(site, minlength=sites).tolist()
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

    def states(self) -> list[SiteState]:
        """Return the state of each site."""
        return [SiteState(self, number, self._head(number)) for number in range(self._sites)]

    def tables(self, number: int) -> dict[str, Any]:
        """Return the tables of one site's state."""
        return self._tables(slice(self._ends[number], self._ends[number + 1]))

    def pooled(self) -> dict[str, Any]:
        """Return the sum of all the states."""
        head = self._head(0) | {
            "n": sum(self.rows),
            "non_finite": sum(self._non_finite),
            "loss": fsum(self._losses),
            "brier": fsum(self._squares),
        }
        return head | self._tables(slice(None))

    def _head(self, number: int) -> dict[str, Any]:
        return {
            "kind": "classification",
            "n_classes": self._metrics.n_classes,
            "bins": self._metrics.bins,
            "specificities": self._metrics.specificities,
            "n": self.rows[number],
            "non_finite": self._non_finite[number],
            "joined": 0,
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


class SiteState(CheckedState):
    """One site's state, whose tables are written out when they are first read."""

    __slots__ = ("_number", "_table")

    def __init__(self, table: SiteStates, number: int, head: dict[str, Any]) -> None:
        super().__init__(head)
        self._table, self._number = table, number

    def __missing__(self, key: str) -> Any:
        if self.written:
            raise KeyError(key)
        self.update(self._table.tables(self._number))
        return self[key]

    @property
    def written(self) -> bool:
        """Whether the tables are there."""
        return "confusion" in self

    def whole(self) -> CheckedState:
        """Return the state with its tables, as plain JSON."""
        if not self.written:
            self.update(self._table.tables(self._number))
        return self

    @staticmethod
    def sum_of(states: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the sum of states, where they are all those of one table; None where they are not."""
        first = states[0]
        if not isinstance(first, SiteState) or len(states) != len(first._table.rows):
            return None
        if any(not isinstance(state, SiteState) or state._table is not first._table for state in states):
            return None
        return first._table.pooled()
