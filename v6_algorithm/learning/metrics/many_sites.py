"""The states of many sites, of any kind of metric, from all their rows at once where the kind can, for `site.together`.

Of classification `by_site` can do more: the states' sum and scores without the states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from v6_algorithm.learning.metrics.by_site import SiteStates
from v6_algorithm.learning.metrics.classification import ClassificationMetrics
from v6_algorithm.learning.metrics.regression import RegressionMetrics
from v6_algorithm.learning.metrics.states import CheckedState
from v6_algorithm.learning.metrics.survival import SurvivalMetrics
from v6_algorithm.learning.metrics.survival import state as survival_state
from v6_algorithm.learning.metrics.tasks import TaskMetrics

# Of so many rows the pairs within a site are counted faster with those within others than by themselves.
_FEW_PAIRS = 64


class OneSurvivalState(CheckedState):
    """The survival state of a single site, in whose scores pairs between sites have no part."""

    __slots__ = ()

    @staticmethod
    def scores_of(states: Sequence[dict[str, Any]]) -> list[dict[str, float | int | None]] | None:
        """Return the scores of states, where they are all of a single site; None where they are not."""
        if not all(isinstance(state, OneSurvivalState) for state in states):
            return None
        return survival_state.scores_of_sites(states)


def states_of_sites(
    empty: Callable[[], Any],
    prediction: NDArray[Any],
    target: NDArray[Any],
    loss: NDArray[Any],
    lengths: Sequence[int],
) -> list[CheckedState]:
    """Return the state of each of several sites.

    Parameters
    ----------
    empty
        Makes an empty collector.
    prediction, target, loss
        As for the collector's `update`, one site's rows after the other's.
    lengths
        Their numbers of rows.
    """
    collector, rows = empty(), (prediction, target, loss)
    made = OneSurvivalState if type(collector) is SurvivalMetrics else CheckedState
    if type(collector) is TaskMetrics:
        return list(map(made, collector.states_of(*rows, lengths, _of_task)))
    few = type(collector) is SurvivalMetrics and max(lengths) <= _FEW_PAIRS
    if few or type(collector) is RegressionMetrics:
        return list(map(made, collector.states_of(*rows, lengths)))
    states, end = [], 0
    for length in lengths:
        collector = empty()
        collector.update(*(values[end : end + length] for values in rows))
        states.append(made(collector.state()))
        end += length
    return states


def _of_task(
    collector: ClassificationMetrics | RegressionMetrics,
    prediction: NDArray[Any],
    target: NDArray[Any],
    loss: NDArray[Any],
    lengths: Sequence[int],
) -> Sequence[dict[str, Any]]:
    if isinstance(collector, RegressionMetrics):
        return collector.states_of(prediction, target, loss, lengths)
    table = SiteStates.of(collector, prediction, target, loss, lengths)
    return [dict(state.whole()) for state in table.states()]
