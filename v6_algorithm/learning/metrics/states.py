"""States of any kind of metric: check, merge, compute, explain. This is what the master calls with
the replies of the sites; each kind's own module does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from v6_algorithm.experiment.metric_names import is_score
from v6_algorithm.learning.metrics import classification_state, generation_state, means, regression, tasks
from v6_algorithm.learning.metrics.survival import state as survival_state


class _Kind(Protocol):
    """What a module that handles one kind of state offers."""

    SHAPE: tuple[str, ...]

    def check(self, state: dict[str, Any]) -> None: ...
    def merge(self, states: list[dict[str, Any]]) -> dict[str, Any]: ...
    def compute(self, state: dict[str, Any]) -> dict[str, float | int | None]: ...
    def explain(self, state: dict[str, Any]) -> list[str]: ...


_KINDS: dict[str, _Kind] = {
    "classification": classification_state,
    "regression": regression,
    "survival": survival_state,
    "plugin": means,
    "multitask": tasks,
    "generation": generation_state,
}


class CheckedState(dict[str, Any]):
    """A state that has passed its checks, or was made of such ones: it is not checked again, and computed once.

    It is equal to the plain state, and is not changed any more.
    """

    __slots__ = ("_values",)

    def whole(self) -> CheckedState:
        """Return the state with all that is in it written out, as plain JSON."""
        return self

    @staticmethod
    def sum_of(states: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the sum of states where it is known by other means than adding them up; see `by_site`."""
        return None

    @staticmethod
    def scores_of(states: Sequence[dict[str, Any]]) -> list[dict[str, float | int | None]] | None:
        """Return the scores of each of some states where they are computed faster together; see `by_site`."""
        return None

    def scores(self) -> dict[str, float | int | None]:
        """Return those of its metrics that say how good a model is, and perhaps others; see `scores_of`."""
        kind = _KINDS[self["kind"]]
        found: dict[str, float | int | None] = kind.scores(self) if hasattr(kind, "scores") else self.values_of()
        return found

    def values_of(self) -> dict[str, float | int | None]:
        """Return its metrics by name; see `compute`."""
        try:
            return dict(self._values)
        except AttributeError:
            self._values: dict[str, float | int | None] = _KINDS[self["kind"]].compute(self)
            return dict(self._values)


def checked_state(state: Any) -> CheckedState:
    """Return a state as one that has passed its checks; raises as `check_state` does."""
    if isinstance(state, CheckedState):
        return state
    _check(state)
    return CheckedState(state)


def check_state(state: Any) -> None:
    """Refuse a state that no collector can have produced.

    Lets the master drop one site's wrong reply by name before it merges the others. To hold it
    against what was asked for as well, merge it with the state of an empty collector.

    Parameters
    ----------
    state : any
        What came over the network where a state was expected.

    Raises
    ------
    ValueError
        Naming the field and what was expected of it; never its value.
    """
    checked_state(state)


def shape_of(state: dict[str, Any]) -> list[Any]:
    """Return what states must have in common to be merged: kind, numbers of bins and classes, times.

    Raises
    ------
    ValueError
        If the state is wrong (see `check_state`).
    """
    known = checked_state(state)
    return [known["kind"], *(known[name] for name in _KINDS[known["kind"]].SHAPE)]


def merge_states(states: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Merge the states of sites into the state of their pooled rows.

    Integers are exact; floats are rounded once, so the order of the sites does not matter.

    Parameters
    ----------
    states : iterable of dict
        At least one, all of one kind and shape.

    Returns
    -------
    dict
        A state, to compute from or to merge further.

    Raises
    ------
    ValueError
        If there is none, one is wrong (see `check_state`), or they differ in kind or shape.
    """
    given = [checked_state(state) for state in states]
    if not given:
        raise ValueError("there are no metric states to merge")
    kind = _KINDS[given[0]["kind"]]
    for name in ("kind", *kind.SHAPE):
        for state in given[1:]:
            if state[name] != given[0][name]:
                raise ValueError(f"metric states differ in {name}: {given[0][name]} and {state[name]}")
    return CheckedState(given[0].sum_of(given) or kind.merge([*given]))


def merge_by_name(states: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Merge states by hospital as `merge_states` does, without looking at each where their sum is known."""
    merged: Callable[[], dict[str, Any]] | None = getattr(states, "merged", None)
    return merge_states(states.values()) if merged is None else merged()


def compute(state: dict[str, Any]) -> dict[str, float | int | None]:
    """Compute the metrics of a state.

    Parameters
    ----------
    state : dict
        Of one site, or merged.

    Returns
    -------
    dict
        `n` and the metrics of the state's kind by name; None where a metric is undefined. For
        classification also `auroc_resolution`, the bound on what binning did to the AUROC. With more
        than two classes, precision, recall and f1 are averaged over the classes that occur in target
        or prediction, one-vs-rest auroc and auprc over those with both positives and negatives, and
        balanced accuracy over those in the target. `ece` is of class 1 with two classes and of the
        predicted class with more (see `calibration`). Precision, recall and f1 are 0 where undefined.
        Of two classes also `specificity`, `npv`, `auroc_se` (see `histogram.auroc_error`), and for each specificity of
        the state the sensitivity at it, its threshold and its resolution (see `histogram.sensitivity_at`).

    Raises
    ------
    ValueError
        If the state is wrong (see `check_state`).
    """
    return checked_state(state).values_of()


def scores_of(state: dict[str, Any]) -> dict[str, float | int | None]:
    """Compute those metrics of a state that say how good a model is; what goes with them costs more than they do.

    Parameters
    ----------
    state : dict
        As for `compute`.
    """
    return {name: value for name, value in checked_state(state).scores().items() if is_score(name)}


def scores_by_name(states: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """Compute the scores of states by hospital as `scores_of` does, at once where that is possible."""
    given = [checked_state(state) for state in states.values()]
    at_once = given[0].scores_of(given) if given else None
    if at_once is None:
        return {name: scores_of(state) for name, state in zip(states, given, strict=True)}
    return {
        name: {metric: value for metric, value in values.items() if is_score(metric)}
        for name, values in zip(states, at_once, strict=True)
    }


def explain(state: dict[str, Any]) -> list[str]:
    """Say why a metric of the state is None or deserves a second look.

    Parameters
    ----------
    state : dict
        Of one site, or merged.

    Returns
    -------
    list of str
        Short sentences, free of data values; empty if all is well.

    Raises
    ------
    ValueError
        If the state is wrong (see `check_state`).
    """
    known = checked_state(state)
    return _KINDS[known["kind"]].explain(known)


def _check(state: Any) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"a metric state must be a dict, got {type(state).__name__}")
    name = state.get("kind")
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError(f"kind of the metric state must be one of {', '.join(_KINDS)}")
    _KINDS[name].check(state)
