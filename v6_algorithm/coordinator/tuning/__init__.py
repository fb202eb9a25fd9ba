"""Search for settings: many are tried on the same federation, and validation rows say which is the best.

No test row is looked at before the choice is made: the trials leave the test part out, and the chosen setting alone is
then run as `run` would run it. Sites prepare their rows once; the trials that follow find them prepared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from v6_algorithm import seeding
from v6_algorithm.coordinator.master import INTERRUPTED, TERMINATED, Event, run
from v6_algorithm.errors import ExperimentError, FederationError
from v6_algorithm.exchange.protocol import Federation
from v6_algorithm.experiment import Experiment
from v6_algorithm.experiment.reading import put
from v6_algorithm.experiment.tuning import Halving, Range, Tune
from v6_algorithm.learning.metrics import higher_is_better

Setting = dict[str, Any]
# Draws of a setting that was drawn before, until all there are is taken to be drawn.
_MOST_REPEATS = 1000


@dataclass
class Trial:
    """One setting, and how it did.

    Attributes
    ----------
    number
        From 1, in the order of the grid or the draws.
    setting
        ``key.path`` to value.
    experiment
        The experiment with it.
    scores
        The metric after each heat that it was in; None where there was none to be had.
    rounds
        Rounds of each heat.
    failed
        Why its last heat gave no score.
    rows
        Validation rows that the last score is of.
    """

    number: int
    setting: Setting
    experiment: Experiment
    scores: list[float | None] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    failed: str | None = None
    rows: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the trial for the result."""
        scores = {"rounds": self.rounds, "scores": self.scores, "failed": self.failed}
        return {"number": self.number, "setting": self.setting, "text": describe(self.setting), **scores}


class Tuning:
    """The search that an experiment's `tune` asks for.

    Parameters
    ----------
    experiment
        With the section `tune`.

    Attributes
    ----------
    trials
        All settings, in their order; they fill while the search goes on.
    heats
        Rounds of each heat, and how many settings are in it.

    Raises
    ------
    ExperimentError
        When it has no such section, no validation rows, or a setting is not an experiment.
    """

    def __init__(self, experiment: Experiment) -> None:
        if experiment.tune is None:
            raise ExperimentError(
                "tune: is required; name what to try, such as tune: {space: {model: [linear, mlp]}}, or "
                "on the command line --try model=linear,mlp"
            )
        if experiment.mode == "local":
            raise ExperimentError("mode: local trains a model a site; there is no one score to tune by")
        if experiment.split.kind == "ratio" and not experiment.split.validation:
            raise ExperimentError("split.validation: is 0; tuning chooses on validation rows")
        self.metric = experiment.tune.metric or experiment.stopping.monitor
        self._better = 1 if higher_is_better(self.metric, experiment.problem.kind) else -1
        self.trials = [
            Trial(number, setting, _with(experiment, setting))
            for number, setting in enumerate(_settings(experiment.tune, experiment.seed), start=1)
        ]
        self.heats = list(_heats(len(self.trials), experiment.rounds, experiment.tune.halving))

    def search(
        self,
        federation: Callable[[Experiment], Federation],
        on_event: Callable[[Event], None],
        weights: str | None = None,
    ) -> Trial:
        """Try the settings, and return the best.

        Parameters
        ----------
        federation
            Gives the sites for an experiment.
        on_event
            Called with ``{"event": "trial", "text": …}`` after each trial.
        weights
            As for `master.run`.

        Raises
        ------
        FederationError
            When no setting has a score.
        KeyboardInterrupt
            When it came while a trial went on; what was done is in `trials`.
        """
        left = self.trials
        for heat, (rounds, settings) in enumerate(self.heats, start=1):
            left = left[:settings]
            for trial in left:
                self._try(trial, rounds, federation, weights)
                on_event({"event": "trial", "text": self._line(trial, heat)})
            left = sorted(left, key=self._rank)
        if left[0].scores and left[0].scores[-1] is None:
            reasons = "".join(f"\n  {describe(trial.setting)}: {trial.failed}" for trial in left)
            raise FederationError(f"tune: no setting has a score{reasons}")
        return left[0]

    def _try(
        self, trial: Trial, rounds: int, federation: Callable[[Experiment], Federation], weights: str | None
    ) -> None:
        experiment = trial.experiment.model_copy(update={"rounds": rounds})
        score, trial.failed = None, None
        try:
            result = run(federation(experiment), experiment, weights=weights, parts=("validation",))
        except (ExperimentError, FederationError) as error:
            trial.failed = str(error)
        else:
            if result["stopped_because"] in (INTERRUPTED, TERMINATED):
                raise KeyboardInterrupt
            pooled = result["metrics"].get("validation", {}).get("pooled", {})
            score, trial.rows = pooled.get(self.metric), pooled.get("n")
            if score is None:
                trial.failed = result["stopped_because"] or f"{self.metric} is not defined on the validation rows"
        trial.rounds.append(rounds)
        trial.scores.append(score)

    def _line(self, trial: Trial, heat: int) -> str:
        heats = f", heat {heat}/{len(self.heats)}" if len(self.heats) > 1 else ""
        rounds = f"{trial.rounds[-1]} round{'' if trial.rounds[-1] == 1 else 's'}"
        score = trial.scores[-1]
        failed = f"failed: {(trial.failed or '').splitlines()[0]}" if score is None else ""
        said = failed or f"validation {self.metric} {score:.4g}"
        return f"setting {trial.number}/{len(self.trials)}{heats}, {rounds}: {describe(trial.setting)}: {said}"

    def _rank(self, trial: Trial) -> tuple[bool, float]:
        score = trial.scores[-1]
        return score is None, 0.0 if score is None else -self._better * score

    def to_json(self, chosen: Trial | None) -> dict[str, Any]:
        """Return what was tried, and what was chosen, for the result."""
        trials = [trial.to_json() for trial in self.trials if trial.scores]
        return {
            "metric": self.metric,
            "higher_is_better": self._better > 0,
            "chosen": None if chosen is None else chosen.number,
            "trials": trials,
        }

    def notes(self) -> list[str]:
        """Say what makes the scores harder to compare."""
        rows = {trial.rows for trial in self.trials if trial.rows is not None}
        if len(rows) > 1:
            return [f"tune: the settings were measured on {min(rows)} to {max(rows)} validation rows, not on the same"]
        return []


def tune(
    federation: Callable[[Experiment], Federation],
    experiment: Experiment,
    on_event: Callable[[Event], None] | None = None,
    *,
    weights: str | None = None,
    tuning: Tuning | None = None,
) -> dict[str, Any]:
    """Find the best setting, and run the experiment with it.

    Parameters
    ----------
    federation
        Gives the sites for an experiment.
    experiment
        With the section `tune`.
    on_event
        Called with the events of the search, then with those of `master.run`.
    weights
        As for `master.run`.
    tuning
        The search, for who wants to see its trials when it is interrupted.

    Returns
    -------
    dict
        The result of the run with the best setting, and under ``tuning`` what was tried.
    """
    tuning = tuning or Tuning(experiment)
    tell = on_event or (lambda event: None)
    chosen = tuning.search(federation, tell, weights)
    text = f"chosen: setting {chosen.number}, {describe(chosen.setting)}; now as `run` would run it"
    tell({"event": "chosen", "text": text})
    result = run(federation(chosen.experiment), chosen.experiment, tell, weights=weights)
    result["tuning"] = tuning.to_json(chosen)
    result["notes"] += tuning.notes()
    return result


def describe(setting: Mapping[str, Any]) -> str:
    """Write a setting in one line."""
    return ", ".join(f"{key} {_text(value)}" for key, value in setting.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        kind = [str(value["kind"])] if "kind" in value else []
        return " ".join([*kind, *(f"{key}={_text(item)}" for key, item in value.items() if key != "kind")])
    return str(value)


def _with(experiment: Experiment, setting: Setting) -> Experiment:
    content = experiment.model_dump(mode="json", exclude_unset=True, exclude={"tune", "sites"})
    for key, value in setting.items():
        put(content, key, value)
    parsed = Experiment.parse(content, where=f"tune.space ({describe(setting)})")
    return parsed.model_copy(update={"sites": experiment.sites})


def _settings(tune: Tune, seed: int) -> Iterator[Setting]:
    if tune.draws is None:
        for values in itertools.product(*tune.space.values()):
            yield dict(zip(tune.space, values, strict=True))
        return
    generator = seeding.numpy_generator(seed, "tune")
    seen: list[Setting] = []
    repeats = 0
    while len(seen) < tune.draws and repeats < _MOST_REPEATS:
        setting = {key: _draw(values, generator) for key, values in tune.space.items()}
        if setting in seen:
            repeats += 1
            continue
        seen.append(setting)
        yield setting


def _draw(values: Any, generator: Any) -> Any:
    if not isinstance(values, Range):
        return values[int(generator.integers(len(values)))]
    if values.integer and not values.log:
        return int(generator.integers(int(values.low), int(values.high) + 1))
    low, high = (math.log(values.low), math.log(values.high)) if values.log else (values.low, values.high)
    number = generator.uniform(low, high)
    number = math.exp(number) if values.log else number
    return round(number) if values.integer else float(f"{number:.4g}")


def _heats(settings: int, rounds: int, halving: Halving | None) -> Iterator[tuple[int, int]]:
    """Yield the rounds and settings of each heat; where one setting is left, nothing is left to compare."""
    if halving is None:
        yield rounds, settings
        return
    now = min(halving.first_rounds, rounds)
    while now < rounds and settings > 1:
        yield now, settings
        settings = max(1, math.ceil(settings * halving.keep))
        now = min(rounds, math.ceil(now / halving.keep))
    if settings > 1:
        yield rounds, settings
