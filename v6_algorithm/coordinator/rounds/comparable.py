"""One metric over the rounds, so that rounds are compared over the same sites; each fold keeps one of what it monitors.

A site that misses a call is missing in that round's validation. If its rows are hard, the round looks better than it is
and would be kept as the best, or let patience begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v6_algorithm.learning.metrics import higher_is_better, merge_states, scores_of

States = Mapping[str, dict[str, Any]]


class ComparableScore:
    """A metric round by round, each compared with the best over the sites that answered in both.

    Parameters
    ----------
    metric
        Its name.
    problem
        The problem's kind, which says what is better.

    Attributes
    ----------
    values
        By scored round: the metric where the same sites answered as in the best round before it, else the best one's
        value moved by the difference over the sites common to both; None where there is none.
    best
        The best of them.
    """

    def __init__(self, metric: str, problem: str) -> None:
        self.metric = metric
        self.values: list[float | None] = []
        self.best: float | None = None
        self._sign = 1 if higher_is_better(metric, problem) else -1
        self._states: States = {}
        # Whether `best` is what its sites say, and not moved.
        self._is_plain = True

    def differs(self, states: States) -> bool:
        """Return whether other sites answered than in the best round."""
        return bool(self._states) and self._states.keys() != states.keys()

    def take(self, metrics: Mapping[str, float | int | None], states: States) -> tuple[float | None, bool]:
        """Take in a round: its pooled metrics and the states by site. Return its value, and if it is the best."""
        value, plain = metrics.get(self.metric), True
        if value is not None and self.best is not None and (self.differs(states) or not self._is_plain):
            value, plain = self._moved(states), False
        self.values.append(value)
        if value is None or (self.best is not None and not self.by(value, self.best) > 0):
            return value, False
        self.best, self._states, self._is_plain = value, states, plain
        return value, True

    def by(self, value: float, reference: float) -> float:
        """Return by how much a value is better than another."""
        return self._sign * (value - reference)

    def _moved(self, states: States) -> float | None:
        common = sorted(states.keys() & self._states.keys())
        if not common or self.best is None:
            return None
        now, then = (
            scores_of(merge_states(given[site] for site in common)).get(self.metric) for given in (states, self._states)
        )
        return None if now is None or then is None else self.best + (now - then)

    def state_dict(self) -> dict[str, Any]:
        """Return all that it knows, as plain JSON."""
        return {"values": self.values, "best": self.best, "states": dict(self._states), "is_plain": self._is_plain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.values, self.best = list(state["values"]), state["best"]
        self._states, self._is_plain = dict(state["states"]), state["is_plain"]
