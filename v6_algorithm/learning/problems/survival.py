"""Survival: how long until an event, from rows of which some are censored, that is, were only watched until then."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from v6_algorithm.data.preparation import Setup, times
from v6_algorithm.data.targets import TargetColumn
from v6_algorithm.errors import ExperimentError, WireError
from v6_algorithm.experiment import Cox, Experiment, SurvivalOptions
from v6_algorithm.learning.metrics import SurvivalMetrics
from v6_algorithm.learning.metrics.survival import BaselineSums, survival
from v6_algorithm.learning.models.cox import CoxRegression, CoxSums, coarse
from v6_algorithm.learning.problems.base import Networks
from v6_algorithm.learning.problems.tabular import TableProblem

if TYPE_CHECKING:
    from torch import nn

    from v6_algorithm.data.table import TableData
    from v6_algorithm.learning.training.learner import Learner, TrainingContext

# A hazard rounded to 1 would end all survival, and its logarithm everything else.
_LEAST_SURVIVAL = 1e-12


class Survival(TableProblem):
    """Cox's partial likelihood, or a hazard for each interval of time.

    ``cox``: one output, the log-risk h. The loss is the negative log partial likelihood with ties after Efron [1]_
    over the rows of a batch: each event against those of the batch that were still observed. Risk sets cannot reach
    over sites, so a federation minimises the likelihood *stratified by site*, in which each site has a baseline hazard
    of its own. Small batches have small risk sets, which is no unbiased estimate: `training.batch_size: null` takes
    all rows of the site. Where one site holds all hospitals' rows, the hospitals are the strata. Survival curves, for
    the Brier score, come when training is over: with the baseline hazard of each hospital's training rows where its
    events suffice, else, or with ``baseline: pooled``, of all together, from `BaselineSums`.

    ``discrete_time``: a logit for each interval of time, the hazard of the event in it for those who reach it; the
    loss is the negative log-likelihood [2]_. By the paper's convention a row that is censored in an interval survived
    it if it was watched for half of it or more, so that those who leave at an interval's end count in it. It gives
    survival curves, and is an ordinary loss over rows: batches may be small, and sites are pooled, not stratified.
    Intervals are cut at quantiles of the event times of all sites' training rows (of all folds together), or given.

    References
    ----------
    .. [1] Efron (1977), The efficiency of Cox's likelihood function for censored data, JASA 72(359), 557-565.
    .. [2] Gensheimer and Narasimhan (2019), A scalable discrete-time survival model for neural networks, PeerJ 7:e6257.
    """

    Options = SurvivalOptions

    def __init__(self, experiment: Experiment, setup: Setup) -> None:
        super().__init__(experiment, setup)
        self.options: SurvivalOptions = experiment.problem.options()
        if "target.entry" in experiment.data.target_columns and not isinstance(experiment.model, Cox):
            raise ExperimentError(
                "data.target.entry goes with model cox, and with describe --by; nothing else is trained"
            )
        self.cox = self.options.method == "cox"
        # The loss of a row depends on the rows beside it.
        self.joint = self.cox
        self._edges = times.metric_edges(setup.sums, setup.middle)
        # Fewest events and rows that an event time may stand for here; the site's guard says so.
        self.time_cell: tuple[int, int] | None = None
        if self.cox:
            self._horizons = [] if setup.baseline is None else self._edges
        elif "horizons" in setup.sums:
            self._horizons = [float(end) for end in setup.sums["horizons"]]
        else:
            counts = setup.sums.get("event_times")
            self._horizons = [] if counts is None else times.horizons(self.options, counts, setup.middle)

    @classmethod
    def targets(cls, experiment: Experiment) -> list[TargetColumn]:
        """Return duration and event; of rows that are watched from a time on also entry, and the patient's number."""
        columns, positive, group = experiment.data.target_columns, experiment.data.positive, experiment.data.group
        watched = [
            TargetColumn(columns["target.duration"], "target.duration", "duration"),
            TargetColumn(columns["target.event"], "target.event", "event", positive),
        ]
        if "target.entry" in columns:
            watched.append(TargetColumn(columns["target.entry"], "target.entry", "entry"))
            watched += [TargetColumn(group, "group", "patient")] if group is not None else []
        return watched

    @property
    def outputs(self) -> int:
        """One log-risk, or a logit an interval."""
        return 1 if self.cox else times.interval_count(self.options)

    def build(self, shape: list[int]) -> nn.Module:
        """Return the experiment's network for rows of a shape."""
        model = self.experiment.model
        return CoxRegression(shape[0], firth=model.firth) if isinstance(model, Cox) else super().build(shape)

    @property
    def sums_of_squares(self) -> int:
        """Columns of a Cox model that is fitted exactly."""
        return len(self.setup.inputs) if isinstance(self.experiment.model, Cox) else 0

    def learner(self, networks: Networks, context: TrainingContext) -> Learner | None:
        """Return what adds up the sums of a Cox model that is fitted exactly; others are trained by gradients."""
        model, section = networks.get("model"), self.experiment.model
        if not isinstance(model, CoxRegression) or not isinstance(section, Cox):
            return None
        grid = None if section.strata == "site" else self.setup.event_times
        if grid is None and section.strata == "none":
            raise WireError("model cox needs the event times of all sites, which the request has not")

        def row_loss(output: Tensor, target: Tensor) -> Tensor:
            return self.row_loss(output, target, context.fold)

        return CoxSums(model, grid, self.time_cell, section.ties, row_loss)

    def event_times(self, data: TableData) -> np.ndarray:
        """Return the (times,) increasing event times of this site's training rows, coarse where its rules say so."""
        of_folds = [np.empty(0)]
        for fold in data.folds:
            watched = data.target[fold.train].astype(np.float64).T
            time = watched[0] if self.time_cell is None else coarse(watched, self.time_cell)[0]
            of_folds.append(time[watched[1] == 1])
        return np.unique(np.concatenate(of_folds))

    def sums(self, data: TableData) -> dict[str, np.ndarray]:
        """Return the histogram of this site's event times."""
        rows = np.unique(np.concatenate([fold.train for fold in data.folds]))
        duration, event = data.target[rows].T[:2]
        return {"event_times": times.count_times(duration[event == 1].astype(np.float64), self.setup.middle)}

    def row_loss(self, output: Tensor, target: Tensor, fold: int) -> Tensor:
        """Return each row's part of the negative log-likelihood, (rows,)."""
        duration, event = target[:, 0], target[:, 1] == 1
        if self.cox:
            entry = target[:, 2] if target.shape[1] > 2 else None
            return efron_loss(output[:, 0], duration, event, entry)
        return hazard_loss(output, self._interval(duration, event), event)

    def losses_of_sites(self, output: Tensor, target: Tensor, filled: Tensor, fold: int) -> Tensor:
        """Return `row_loss` of batches of several sites, (sites, rows): each has risk sets of its own."""
        if not self.cox:
            return super().losses_of_sites(output, target, filled, fold)
        # What fills up comes after all rows, of which none still observes it.
        duration = torch.where(filled, target[..., 0], -torch.inf)
        return _efron_losses(output[..., 0], duration, (target[..., 1] == 1) & filled)

    def prediction(self, output: Tensor) -> Tensor:
        """Return (rows, 1 + horizons) float64: log-risk, then the chance to be without the event at each horizon.

        The log-risk of a discrete-time model is the logarithm of its mean cumulative hazard over the horizons.
        """
        if self.cox:
            return output.double()
        survival = torch.cumprod(torch.sigmoid(-output.double()), dim=1)[:, : max(len(self._horizons), 1)]
        hazard = -torch.log(survival.clamp(_LEAST_SURVIVAL, 1 - _LEAST_SURVIVAL))
        risk = torch.log(hazard.mean(dim=1, keepdim=True))
        return torch.cat([risk, survival[:, : len(self._horizons)]], dim=1)

    @property
    def stratified(self) -> bool:
        """Whether hospitals are strata: in a Cox model, unless its risk sets are asked for over all sites."""
        return self.cox and getattr(self.experiment.model, "strata", "site") == "site"

    def prediction_of(self, output: Tensor, fold: int) -> Tensor:
        """Return `prediction`, of a Cox model with the fold's survival curves once its baseline hazard is known."""
        prediction = self.prediction(output)
        if not self.cox or self.setup.baseline is None:
            return prediction
        return _with_curves(prediction, self.setup.baseline[fold])

    def prediction_at(self, output: Tensor, fold: int, hospital: str) -> Tensor:
        """Return `prediction_of` rows of one hospital, with its baseline hazard where its events suffice for one."""
        hazard = self.setup.baselines.get(hospital)
        if not self.cox or self.setup.baseline is None or hazard is None or hazard[fold].min(initial=0.0) < 0:
            return self.prediction_of(output, fold)
        return _with_curves(self.prediction(output), hazard[fold])

    @property
    def horizons(self) -> list[float]:
        """Times of the survival chances in a prediction, ascending, in units of the duration column."""
        return list(self._horizons)

    def baseline(self, least: int) -> BaselineSums:
        """Return the empty sums behind the baseline hazard of a Cox model; see `Problem.baseline`."""
        return BaselineSums(self._baseline_times, least)

    @cached_property
    def _baseline_times(self) -> list[float]:
        return times.baseline_times(self.experiment, self.setup.sums.get("event_times"), self.setup.middle)

    def default_metrics(self) -> SurvivalMetrics:
        """Return empty survival metrics."""
        return SurvivalMetrics(self._edges, self._horizons)

    def _interval(self, duration: Tensor, event: Tensor) -> Tensor:
        """Return the interval of each event; of a censored row the first that it was watched for less than half of."""
        ends = torch.tensor(self._horizons, dtype=torch.float64, device=duration.device)
        # The last interval has no end: nobody is known to have survived it.
        middles = (ends + torch.cat([ends.new_zeros(1), ends])[:-1]) / 2
        time = duration.double().contiguous()
        return torch.where(event, torch.bucketize(time, ends), torch.bucketize(time, middles, right=True))


def _with_curves(prediction: Tensor, hazard: np.ndarray) -> Tensor:
    curves = survival(hazard, prediction[:, 0].cpu().numpy())
    return torch.cat([prediction, torch.from_numpy(curves).to(prediction.device)], dim=1)


def efron_loss(risk: Tensor, duration: Tensor, event: Tensor, entry: Tensor | None = None) -> Tensor:
    """Return each event's part of the negative log partial likelihood; 0 for censored rows.

    With R the rows still observed at a time, D the d rows with an event then, and those numbered l = 0 … d-1, an
    event's part is ``log(sum_R exp(h) - l/d * sum_D exp(h)) - h``.

    Parameters
    ----------
    risk : Tensor, shape (rows,)
        Log-risks h.
    duration : Tensor, shape (rows,)
        Times observed.
    event : Tensor of bool, shape (rows,)
        Whether the event was seen.
    entry : Tensor, shape (rows,), optional
        Times after which rows are at risk; without it all are from the start.

    Returns
    -------
    Tensor, shape (rows,)
        In the order of the rows.
    """
    return _efron_losses(risk[None], duration[None], event[None], entry)[0]


def _efron_losses(risk: Tensor, duration: Tensor, event: Tensor, entry: Tensor | None = None) -> Tensor:
    """Return `efron_loss` of several sites, (sites, rows) as all are but `entry`, which is of one site's rows."""
    order = torch.argsort(duration, dim=1, descending=True, stable=True)
    time = duration.gather(1, order)
    # Rows of all sites one after the other; those of a site and a time are a group.
    begins = torch.ones_like(event)
    begins[:, 1:] = time[:, 1:] != time[:, :-1]
    group = torch.cumsum(begins.flatten(), dim=0) - 1
    sizes = torch.bincount(group)
    ends = torch.cumsum(sizes, dim=0) - 1
    sorted_risk, seen = risk.gather(1, order).flatten(), event.gather(1, order).flatten()
    # All rows of one time are at risk together: the running sum at the end of their group.
    at_risk = torch.logcumsumexp(sorted_risk.view(risk.shape), dim=1).flatten()[ends][group]
    if entry is not None:
        at_risk = _less_those_not_yet_there(at_risk, risk[0], time[0], entry)
    # Relative to `at_risk`, the sum over the group's events is at most 1.
    share = torch.where(seen, torch.exp(sorted_risk - at_risk), torch.zeros_like(sorted_risk))
    deaths = risk.new_zeros(len(sizes)).index_add(0, group, seen.to(risk.dtype))
    tied = risk.new_zeros(len(sizes)).index_add(0, group, share)
    running = torch.cumsum(seen, dim=0)
    before = (running - seen.long()) - (running[ends] - deaths.long())[group]
    part = torch.where(seen, before.to(risk.dtype) / deaths[group].clamp(min=1), torch.zeros_like(sorted_risk))
    loss = torch.where(seen, at_risk + torch.log1p(-part * tied[group]) - sorted_risk, torch.zeros_like(sorted_risk))
    return torch.empty_like(risk).scatter(1, order, loss.view(risk.shape))


def _less_those_not_yet_there(at_risk: Tensor, risk: Tensor, time: Tensor, entry: Tensor) -> Tensor:
    """Take the rows that enter at a time or later out of log sums over risk sets, (rows,) each at its `time`."""
    late, order = torch.sort(entry, descending=True, stable=True)
    sums = torch.logcumsumexp(risk[order], dim=0)
    # How many enter at the time or later: entries are in falling order.
    later = torch.searchsorted(-late.contiguous(), -time.contiguous(), right=True)
    absent = torch.where(later > 0, sums[(later - 1).clamp(min=0)], torch.full_like(at_risk, -torch.inf))
    return at_risk + torch.log1p(-torch.exp(absent - at_risk).clamp(max=1 - 1e-15))


def hazard_loss(logits: Tensor, interval: Tensor, event: Tensor) -> Tensor:
    """Return each row's negative log-likelihood of surviving the intervals before its own, and of the event in it.

    Parameters
    ----------
    logits : Tensor, shape (rows, intervals)
        Of the hazards.
    interval : Tensor of int, shape (rows,)
        The one in which the row left; all before it were survived.
    event : Tensor of bool, shape (rows,)
        Whether it left with the event.

    Returns
    -------
    Tensor, shape (rows,)
    """
    before = torch.arange(logits.shape[1], device=logits.device) < interval[:, None]
    survived = torch.where(before, functional.softplus(logits), torch.zeros_like(logits)).sum(dim=1)
    event_loss = functional.softplus(-logits.gather(1, interval[:, None])[:, 0])
    return survived + torch.where(event, event_loss, torch.zeros_like(event_loss))
