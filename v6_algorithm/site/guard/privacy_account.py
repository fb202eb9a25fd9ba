"""The account of differential privacy: how much noise a run needs here, and what its steps or updates have cost.

Steps are booked in the node's ledger before they are taken. A repeated round draws new noise, so it costs again; a run
whose epsilon is used up is refused, and so is whatever would take the database over the node's `maximum_epsilon`. The
guard makes one for each request.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from v6_algorithm.errors import PolicyError, SiteError, WireError
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.privacy import accountant, prv
from v6_algorithm.learning.privacy.accountant import Steps
from v6_algorithm.site.guard.ledger import Ledger
from v6_algorithm.site.guard.order import digest
from v6_algorithm.site.policy import Policy
from v6_algorithm.site.rules import BY_FIELD

if TYPE_CHECKING:
    import numpy as np

    from v6_algorithm.data.table import TableData

# Noise is rounded up; what is left is the rounding of sums of logarithms.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class FoldSteps:
    """What one fold of a run takes: units, rate, and how many steps in each round.

    With unit site the one unit is drawn always, and a round's one step is its update.

    Attributes
    ----------
    unit
        (n,) int64, which unit each training row is of, from 0 without gaps.
    units
        How many.
    rate
        Probability with which a unit is in a step's batch: batch size over rows.
    by_round
        Steps of round 1, 2, ….
    """

    unit: np.ndarray
    units: int
    rate: float
    by_round: tuple[int, ...]


@dataclass(frozen=True)
class Booked:
    """Steps that may be taken now: of each fold, the noise of all, and what the run has cost with them."""

    folds: Mapping[int, FoldSteps]
    noise_multiplier: float
    epsilon: float


class PrivacyAccount:
    """One run's account at one site, and the database's.

    Parameters
    ----------
    policy, experiment
        The owner's rules, and what is asked.
    job, lasting
        Ledgers of the job, and of the node.
    database
        What the lasting ledger calls these data.
    honest_sites
        How many sites are taken to add a part of the noise each; the node's rule trusts only in its part.
    """

    def __init__(
        self,
        policy: Policy,
        experiment: Experiment,
        job: Ledger,
        lasting: Ledger,
        database: str,
        honest_sites: int = 1,
    ) -> None:
        self._policy, self._experiment, self._job, self._lasting = policy, experiment, job, lasting
        self._database, self._honest_sites = database, honest_sites
        self._section = experiment.privacy.differential_privacy

    def open(self, table: TableData) -> float:
        """Find the noise multiplier of the run; refuse one of which the whole is too much for the node's rule."""
        folds, run = self._folds(table), self._run(table)
        with self._job.open() as content:
            runs = content.setdefault("privacy", {})
            if run in runs:
                return float(runs[run]["noise"])
            entry = self._new(folds)
        plan = [Steps(fold.rate, self._at_node(entry["noise"]), sum(fold.by_round)) for fold in folds.values()]
        with self._lasting.open() as content:
            self._check_node(self._spent(content), plan, "the whole of this run")
        with self._job.open() as content:
            content.setdefault("privacy", {}).setdefault(run, entry)
        return float(entry["noise"])

    def book(self, table: TableData, numbers: Sequence[int], round: int) -> Booked:
        """Book a round's steps of some folds, and return what may be done; raises PolicyError where it is too much."""
        section, folds, run = self._section, self._folds(table), self._run(table)
        if section is None:
            raise ValueError("the experiment asks for no differential privacy")
        if not 1 <= round <= self._experiment.rounds:
            raise PolicyError(f"round {round} is none of this experiment's, so its privacy was not planned")
        with self._job.open() as content:
            runs = content.setdefault("privacy", {})
            if run not in runs:
                # The ledger is lost, or the run goes on in another task: what was planned before is spent.
                runs[run] = self._new(folds, before=round - 1)
            entry = runs[run]
            for number in numbers:
                entry["counts"][str(number)] += folds[number].by_round[round - 1]
            noise = float(entry["noise"])
            spent = self._counts.epsilon(
                [Steps(fold.rate, noise, entry["counts"][str(number)]) for number, fold in folds.items()], section.delta
            )
            if spent > section.epsilon * (1 + _ROUNDING):
                # Of how many rows there are, a sum tells nothing; so no number is named where sums are masked.
                hides = self._experiment.privacy.secure_aggregation is not None
                much = "" if hides else f" (epsilon {spent:.4g} with it)"
                raise PolicyError(
                    f"the privacy budget of this run is used up here: round {round} would cost more than is left"
                    f"{much}; privacy.differential_privacy.epsilon is {section.epsilon:g}, and a "
                    "repeated round costs again"
                )
        steps = [
            Steps(folds[number].rate, self._at_node(noise), folds[number].by_round[round - 1]) for number in numbers
        ]
        with self._lasting.open() as content:
            booked = self._spent(content)
            self._check_node(booked, steps, f"round {round}")
            for step in steps:
                _add(booked, step)
        return Booked({number: folds[number] for number in numbers}, noise, spent)

    def _new(self, folds: Mapping[int, FoldSteps], before: int = 0) -> dict[str, Any]:
        section = self._section
        if section is None:
            raise ValueError("the experiment asks for no differential privacy")
        if section.accountant == "prv":
            prv.check_available()
        if any(section.delta * fold.units >= 1 for fold in folds.values()):
            raise SiteError(
                f"privacy.differential_privacy.delta: {section.delta:g} is not below 1 / (training {section.unit}s "
                "here): it would allow to tell of single ones at random",
                "request",
            )
        plan = [Steps(fold.rate, 1.0, sum(fold.by_round)) for fold in folds.values()]
        try:
            noise = self._counts.noise_for(plan, section.epsilon, section.delta) if plan else 1.0
        except ValueError as error:
            raise SiteError(f"privacy.differential_privacy: {error}", "request") from None
        counts = {str(number): sum(fold.by_round[:before]) for number, fold in folds.items()}
        return {"noise": noise, "counts": counts}

    @property
    def _counts(self) -> ModuleType:
        """The accountant that the experiment asks for; the node's rule is counted by Rényi bounds in any case."""
        return prv if self._section is not None and self._section.accountant == "prv" else accountant

    def _at_node(self, noise: float) -> float:
        """Return the noise multiplier of this site's part alone: what other sites add is not in the node's hands."""
        return noise / math.sqrt(self._honest_sites)

    def _run(self, table: TableData) -> str:
        """Name a run on these very rows: sites that share a folder, as a mock client's do, have an account each."""
        rows = hashlib.sha256(table.target.tobytes() + table.origin.tobytes()).hexdigest()
        return digest([self._experiment.for_sites(), self._database, rows])[:32]

    def _folds(self, table: TableData) -> dict[int, FoldSteps]:
        """Return what each fold with training rows here takes."""
        experiment, folds = self._experiment, {}
        training, kind = experiment.training, None if self._section is None else self._section.unit
        for number, fold in enumerate(table.folds):
            rows = len(fold.train)
            if not rows:
                continue
            unit, units = units_of(table, fold.train, kind=kind)
            if kind == "site":
                folds[number] = FoldSteps(unit, units, 1.0, (1,) * experiment.rounds)
                continue
            batch = min(training.batch_size or rows, rows)
            by_round = tuple(
                (epochs * math.ceil(rows / batch))
                if (epochs := training.epochs_in(round))
                else (training.steps_in(round) or 1)
                for round in range(1, experiment.rounds + 1)
            )
            folds[number] = FoldSteps(unit, units, batch / rows, by_round)
        return folds

    def _spent(self, content: dict[str, Any]) -> list[list[float]]:
        database = content.setdefault("databases", {}).setdefault(self._database, {})
        booked: list[list[float]] = database.setdefault("privacy", [])
        return booked

    def _check_node(self, booked: Sequence[Sequence[float]], steps: Sequence[Steps], what: str) -> None:
        policy = self._policy
        if policy.maximum_epsilon is None:
            return
        before = [Steps(rate, noise, int(count)) for rate, noise, count in booked]
        if accountant.epsilon([*before, *steps], policy.maximum_delta) > policy.maximum_epsilon * (1 + _ROUNDING):
            raise PolicyError(
                f"{what} would take what is told of this database over this node's epsilon of "
                f"{policy.maximum_epsilon:g} ({BY_FIELD['maximum_epsilon'].variable}), with what was told before"
            )


def units_of(table: TableData, rows: np.ndarray, *, kind: str | None) -> tuple[np.ndarray, int]:
    """Number the units of some rows, from 0 without gaps: rows, patients, or the site; with how many there are."""
    import numpy as np

    if kind == "site":
        return np.zeros(len(rows), dtype=np.int64), 1
    if kind != "patient" or not len(table.patient):
        return np.arange(len(rows)), len(rows)
    names, unit = np.unique(table.patient[rows], return_inverse=True)
    return unit.reshape(-1), len(names)


def honest_sites(experiment: Experiment, request: Mapping[str, Any]) -> int:
    """Return how many sites are taken to add a part of the noise each; 1 where each adds all of it."""
    section, sums = experiment.privacy.differential_privacy, experiment.privacy.secure_aggregation
    if section is None or section.unit != "site" or sums is None:
        return 1
    return section.honest_of(sums.sites_needed(participants_in(request)))


def participants_in(request: Mapping[str, Any]) -> int:
    """Return how many sites a request under secure aggregation names; raises WireError where it names none."""
    given = request.get("secure_aggregation")
    listed = given.get("participants") if isinstance(given, Mapping) else None
    if not isinstance(listed, list) or len(listed) < 2:
        raise WireError("secure_aggregation must have a list of participants")
    return len(listed)


def _add(booked: list[list[float]], steps: Steps) -> None:
    """Add steps to those of the same kind, so that the ledger does not grow with each round."""
    for entry in booked:
        if entry[0] == steps.rate and entry[1] == steps.noise_multiplier:
            entry[2] += steps.count
            return
    booked.append([steps.rate, steps.noise_multiplier, steps.count])
