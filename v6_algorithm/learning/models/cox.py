"""Cox's proportional hazards: the network, a site's sums by event time, and what the sums of all sites come to.

The partial likelihood needs risk sets over all sites. They are sums: at each event time of any site, of exp(log-risk),
and of its products with the columns and with their products, over a site's rows still observed then, and over those
with the event then. A site leaves them in `CoxRegression.sums`, from where they go into its reply; the coordinator adds
them up and calls `likelihood`. With a baseline hazard for each site (``strata: site``) the site calls it on its sums
by itself, and only score and information leave.

References
----------
Cox (1972), Regression models and life-tables, JRSS B 34(2), 187-220.
Efron (1977), The efficiency of Cox's likelihood function for censored data, JASA 72(359), 557-565.
Grambsch and Therneau (1994), Proportional hazards tests and diagnostics based on weighted residuals, Biometrika 81(3).
Lu et al. (2015), WebDISCO, JAMIA 22(6), 1212-1219 (the sums by event time over sites).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from v6_algorithm.data.preparation.times import coarse_times, coarse_watching
from v6_algorithm.errors import WireError

Array = np.ndarray
Sums = dict[str, Array]
# Log-risks beyond count as at the edge; exponentials stay far from overflow.
_MOST = 100.0
# Rows whose products of columns are in memory at once.
_ROWS = 4096


class CoxRegression(nn.Module):
    """``log-risk = inputs @ weight``, float64.

    Attributes
    ----------
    sums
        What the last round's rows come to, by name; no tensors of the model, so that no file has them.
    inverse
        With `firth` the inverse of the information over all sites' rows, of the round before; 0 in the first one.
    """

    inverse: Tensor

    def __init__(self, inputs: int, *, firth: bool = False) -> None:
        super().__init__()
        # The same start at every site without drawing a number.
        self.weight = nn.Parameter(torch.zeros(inputs, dtype=torch.float64))
        self.firth = firth
        if firth:
            self.register_buffer("inverse", torch.zeros(inputs, inputs, dtype=torch.float64))
        self.sums: Sums = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (rows, 1) log-risks."""
        return (inputs @ self.weight)[:, None]


@dataclass(frozen=True)
class RiskSums:
    """Sums over rows at each event time.

    Attributes
    ----------
    rows
        (times,) rows still observed.
    at_risk
        (times, 1 + p + p (p + 1) / 2): over these rows exp(log-risk), times the columns, times their products; with
        Firth's penalty p more, the columns times ``x' A x``, where A is an inverse of the information.
    tied
        The same over the rows with the event then.
    events
        (times,) rows with the event.
    columns
        (times, p) sums of the columns over them.
    """

    rows: Array
    at_risk: Array
    tied: Array
    events: Array
    columns: Array

    @classmethod
    def of(
        cls,
        inputs: Array,
        time: Array,
        event: Array,
        weight: Array,
        times: Array,
        entry: Array | None = None,
        inverse: Array | None = None,
    ) -> RiskSums:
        """Add up rows: (rows, p) inputs, (rows,) times and events (bool), at (times,) increasing event times.

        With `entry` (rows,) a row is in the risk sets of the times after its entry, up to its own. With `inverse`
        (p, p) there are the sums of Firth's penalty too.
        """
        size, width = len(times), inputs.shape[1]
        risk = np.exp(np.clip(inputs @ weight, -_MOST, _MOST))
        # The last event time that a row reaches: before the first one (-1) it is in no risk set.
        last = np.searchsorted(times, time, side="right") - 1
        # The last one that it misses: it is taken out of that risk set and of those before.
        missed = np.full(len(time), -1) if entry is None else np.searchsorted(times, entry, side="right") - 1
        upper = np.triu_indices(width)
        leaving = np.zeros((size, 1 + width + len(upper[0]) + (0 if inverse is None else width)))
        tied, columns = np.zeros_like(leaving), np.zeros((size, width))
        for start in range(0, len(inputs), _ROWS):
            part = slice(start, start + _ROWS)
            x, r, place, dies = inputs[part], risk[part][:, None], last[part], event[part]
            products = np.hstack([r, r * x, r * x[:, upper[0]] * x[:, upper[1]]])
            if inverse is not None:
                products = np.hstack([products, r * ((x @ inverse) * x).sum(axis=1, keepdims=True) * x])
            reached = place >= 0
            _add(leaving, place[reached], products[reached])
            late = missed[part] >= 0
            _add(leaving, missed[part][late], -products[late])
            _add(tied, place[dies], products[dies])
            _add(columns, place[dies], x[dies])
        rows = np.bincount(last[last >= 0], minlength=size).astype(np.float64)
        rows -= np.bincount(missed[missed >= 0], minlength=size)
        return cls(
            rows[::-1].cumsum()[::-1],
            leaving[::-1].cumsum(axis=0)[::-1],
            tied,
            np.bincount(last[event], minlength=size).astype(np.float64),
            columns,
        )

    def arrays(self) -> Sums:
        """Return them by name, for a reply."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Likelihood:
    """The log partial likelihood at some coefficients.

    Attributes
    ----------
    value
        The logarithm.
    score, information
        (p,) its slope, and (p, p) its negative curvature.
    residuals
        (times, p) Schoenfeld residuals, summed over each time's events.
    hazard
        (times,) steps of the baseline hazard, of rows whose columns are all 0: Efron's or Breslow's.
    firth
        (p,) what Firth's penalty adds to the score: half the slope of the logarithm of the information's determinant,
        by the inverse that the sums were made with; 0 without.
    """

    value: float
    score: Array
    information: Array
    residuals: Array
    hazard: Array
    firth: Array


def likelihood(sums: RiskSums, weight: Array, ties: str, inverse: Array | None = None) -> Likelihood:
    """Return the log partial likelihood that the sums of all rows come to.

    With `inverse`, which the sums were made with, also what Firth's penalty adds to the score (Heinze and Schemper,
    2001, A solution to the problem of monotone likelihood in Cox regression, Biometrics 57(1)).

    With d events at a time, those numbered l = 0 … d-1 see the risk set less l/d of the tied rows (Efron), or all of
    it (Breslow).
    """
    width = len(weight)
    held = np.flatnonzero(sums.events)
    deaths = sums.events[held].astype(np.int64)
    # A line for each event; `place` says at which of the held times.
    place = np.repeat(np.arange(len(held)), deaths)
    number = np.arange(len(place)) - np.repeat(np.cumsum(deaths) - deaths, deaths)
    share = number / deaths[place] if ties == "efron" else np.zeros(len(place))
    at_risk, tied = sums.at_risk[held], sums.tied[held]
    total = at_risk[place, 0] - share * tied[place, 0]
    means = (at_risk[place, 1 : width + 1] - share[:, None] * tied[place, 1 : width + 1]) / total[:, None]
    per_event = np.bincount(place, 1 / total, len(held))
    shared = np.bincount(place, share / total, len(held))
    upper = np.triu_indices(width)
    second = np.zeros((width, width))
    squares = slice(width + 1, width + 1 + len(upper[0]))
    second[upper] = per_event @ at_risk[:, squares] - shared @ tied[:, squares]
    second = second + np.triu(second, 1).T
    residuals = np.zeros_like(sums.columns)
    expected = np.zeros((len(held), width))
    _add(expected, place, means)
    residuals[held] = sums.columns[held] - expected
    hazard = np.zeros(len(sums.events))
    hazard[held] = per_event
    firth = np.zeros(width)
    if inverse is not None:
        lines = (at_risk[place] - share[:, None] * tied[place]) / total[:, None]
        firth = _firth(lines[:, squares], lines[:, squares.stop :], means, inverse)
    return Likelihood(
        float(sums.columns.sum(axis=0) @ weight - np.log(total).sum()),
        residuals.sum(axis=0),
        second - means.T @ means,
        residuals,
        hazard,
        firth,
    )


def _firth(second: Array, third: Array, means: Array, inverse: Array) -> Array:
    """Return half the slope of the log determinant, (p,), from means over each event's risk set.

    They are (events, p (p + 1) / 2) of products of columns, (events, p) of ``x' A x`` times the columns, and
    (events, p) of the columns. The slope in coefficient k is the trace of A times that of the information, summed over
    events:
    ``E[x'Ax x_k] - E[x'Ax] E[x_k] - 2 E[x]'A (E[x x_k] - E[x] E[x_k])``.
    """
    width = means.shape[1]
    upper = np.triu_indices(width)
    twice = np.where(upper[0] == upper[1], 1.0, 2.0)
    squares = second @ (twice * inverse[upper])
    drawn = means @ inverse
    # E[x]'A E[x x'] by event, without the (events, p, p) array at once.
    crossed = np.zeros_like(means)
    for column, (row, other) in enumerate(zip(*upper, strict=True)):
        crossed[:, other] += drawn[:, row] * second[:, column]
        if row != other:
            crossed[:, row] += drawn[:, other] * second[:, column]
    around = crossed - (drawn * means).sum(axis=1, keepdims=True) * means
    slope: Array = (third - squares[:, None] * means - 2 * around).sum(axis=0) / 2
    return slope


def _add(total: Array, place: Array, values: Array) -> None:
    """Add (rows, …) values to the lines of a total that their places name, sorted or not."""
    if len(place):
        order = np.argsort(place, kind="stable")
        lines, starts = np.unique(place[order], return_index=True)
        total[lines] += np.add.reduceat(values[order], starts, axis=0)


class CoxSums:
    """The learner of a Cox model (see `training.learner.Learner`): sums over the rows, and no step.

    Parameters
    ----------
    model
        Gets the sums.
    times
        The event times of all sites, increasing; None: this site is a stratum by itself.
    cell
        Fewest events and fewest rows that one of this site's times may stand for; None: times are as they are.
    ties
        ``efron`` or ``breslow``.
    row_loss
        Gives the loss of each row.
    """

    def __init__(
        self,
        model: CoxRegression,
        times: Array | None,
        cell: tuple[int, int] | None,
        ties: str,
        row_loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self._model, self._times, self._cell, self._ties, self._row_loss = model, times, cell, ties, row_loss
        self._sums: Sums = {}

    @torch.no_grad()
    def step(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Add up all rows, or of several strata those of one, (rows, columns) and (rows, 2 to 4); return their loss.

        The targets are times and events, of rows that are watched from a time on also entries and patients' numbers.
        """
        model = self._model
        weight = model.weight.double().cpu().numpy()
        x, watched = inputs.double().cpu().numpy(), target.double().cpu().numpy().T
        time, event = watched[0], watched[1] == 1
        entry = watched[2] if len(watched) > 2 else None
        inverse = model.inverse.double().cpu().numpy() if model.firth else None
        if self._times is None:
            times = np.unique(time[event])
            sums = RiskSums.of(x, time, event, weight, times, entry, inverse)
            fitted = likelihood(sums, weight, self._ties, inverse)
            added = stratum(fitted, sums, times) | ({"firth": fitted.firth} if model.firth else {})
        else:
            if self._cell is not None:
                time, entry = coarse(watched, self._cell)
            if not np.isin(time[event], self._times).all():
                raise WireError("the event times of the request are not those of this site's rows")
            added = RiskSums.of(x, time, event, weight, self._times, entry, inverse).arrays()
        self._sums = {name: self._sums.get(name, 0) + array for name, array in added.items()}
        return self._row_loss(model(inputs), target).double().sum()

    def finish(self) -> None:
        """Leave the sums beside the network."""
        self._model.sums = self._sums


def coarse(watched: Array, cell: tuple[int, int]) -> tuple[Array, Array | None]:
    """Return coarse times and entries of targets, (2 to 4, rows): times, events, entries, patients' numbers."""
    time, event = watched[0], watched[1] == 1
    if len(watched) == 2:
        return coarse_times(time, event, *cell), None
    return coarse_watching(time, event, watched[2], watched[3] if len(watched) > 3 else None, *cell)


def stratum(fitted: Likelihood, sums: RiskSums, times: Array) -> Sums:
    """Return what a site that is a stratum by itself tells: sums over all its events.

    `transformed` are sums of log(time) and of its square over the events, and `residuals` of its products with the
    Schoenfeld residuals, for the test of proportional hazards. Events at a time of 0, which has no logarithm, are there
    as if at the next event time.
    """
    later = times[times > 0]
    log_time = np.log(np.where(times > 0, times, later[0] if len(later) else 1.0))
    return {
        "value": np.array([fitted.value]),
        "score": fitted.score,
        "information": fitted.information,
        "events": np.array([sums.events.sum()]),
        "transformed": np.array([sums.events @ log_time, sums.events @ log_time**2]),
        "residuals": log_time @ fitted.residuals,
    }
