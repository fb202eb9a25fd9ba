"""One fold on its way through the rounds: its model, its history, its best round, and when it stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from v6_algorithm.coordinator.rounds.comparable import ComparableScore
from v6_algorithm.coordinator.rounds.learning_rate import LearningRate
from v6_algorithm.exchange import wire
from v6_algorithm.experiment import Experiment
from v6_algorithm.learning.metrics import merge_by_name, scores_by_name, scores_of

if TYPE_CHECKING:
    from torch import Tensor

States = Mapping[str, dict[str, Any]]
# What a fold knows of its rounds as plain JSON, by the attributes' names.
_BOOKS = (
    "finished",
    "rounds_done",
    "rounds_scored",
    "best_round",
    "history",
    "measured",
    "personal",
    "waited",
    "uneven",
    "fitted",
)

# Validated rows whose metrics wait at most; their states are kept until then.
_MOST_ROWS_KEPT = 200_000


class FoldProgress:
    """The progress of one fold; a run without cross-validation has one.

    A model is made text once and kept so: it is what the next request carries, and what a checkpoint holds. Where the
    sites are in this process it is kept as it is; see `wire.Held`.

    Parameters
    ----------
    number
        The fold's number, from 0.
    experiment
        For what is monitored and kept.
    start
        Packed tensors that the first round starts from, all of the model's or some; None: all are the sites' own.
    holds
        Whether models are kept as they are, and not as text.
    """

    def __init__(
        self, number: int, experiment: Experiment, start: wire.Model | None = None, *, holds: bool = False
    ) -> None:
        self.number = number
        self.holds = holds
        self.start = start
        self.starts_partly = experiment.start.partial
        self.finished = False
        self.rounds_done = 0
        self.rounds_scored = 0
        self.best_round: int | None = None
        self.history: dict[str, list[Any]] = {"round": [], "train_loss": []}
        self.measured: dict[str, States] = {}
        # The same of what each site has made of the kept model for itself.
        self.personal: dict[str, States] = {}
        # Round to a picture of what its model makes, where it makes any.
        self.samples: dict[int, str] = {}
        # Rounds in which too few sites gave a model of this fold.
        self.waited: list[int] = []
        # Rounds validated by other sites than the best round before them.
        self.uneven: list[int] = []
        # What a strategy that solves for the model knows of the fit.
        self.fitted: dict[str, Any] = {}
        self.model: wire.Model | None = None
        # Whether a model may be validated only when the next one is there (pipeline).
        self.scored_later = False
        # Models that nobody has validated yet with the rounds that made them, the newest last: two at most.
        self._unscored: list[tuple[int, wire.Model]] = []
        self._at_sites: dict[str, dict[int, dict[str, float]]] = {}
        # Sites, round and their mean training losses, and round and states, of which nobody has asked yet.
        self._untold: list[tuple[list[str], int, list[float]]] = []
        self._uncomputed: list[tuple[int, States]] = []
        self._uncomputed_rows = 0
        self._stopping = experiment.stopping
        self._rates = LearningRate(experiment)
        self._score = ComparableScore(experiment.stopping.monitor, experiment.problem.kind)
        self._plateau = ComparableScore(self._rates.monitor or experiment.stopping.monitor, experiment.problem.kind)
        self._has_private = experiment.private is not None
        self._keep_best = experiment.output.model == "best"
        self._average: wire.Model | None = None
        self._best: wire.Model | None = None
        # A score must be at least this much better for patience to start again.
        self._reference: tuple[float, int] | None = None

    @property
    def unscored(self) -> bool:
        """Whether the newest model has not been validated yet."""
        return not self.finished and self.rounds_done > self.rounds_scored

    @property
    def kept(self) -> wire.Model | None:
        """The model that is returned and tested: of the best validated round, an average over rounds, or the newest."""
        if self._average is not None:
            return self._average
        return self._best if self._keep_best and self._best is not None else self.model

    @property
    def kept_round(self) -> int | None:
        """The round that made the kept model; None of an average over rounds, which no single one made."""
        if self._average is not None:
            return None
        return self.best_round if self._keep_best and self.best_round is not None else self.rounds_done or None

    def round_of(self, model: wire.Model) -> int | None:
        """Return the round that made the newest model or the best one; None of an average over rounds."""
        unscored = {model: round for round, model in self._unscored}
        return (unscored | {self._best or "": self.best_round, self.model or "": self.rounds_done}).get(model)

    @property
    def candidates(self) -> list[wire.Model]:
        """The models that may turn out to be kept: the one that is now, and before it those not yet scored."""
        models = [*(model for _, model in self.unscored_models), self.kept]
        return list(dict.fromkeys(model for model in models if model is not None))

    @property
    def unscored_models(self) -> list[tuple[int, wire.Model]]:
        """The newest models that were not validated yet, with their rounds, in their order."""
        return [] if self.finished else self._unscored

    def pack(self, tensors: dict[str, Tensor], spec: wire.StateSpec | None = None) -> wire.Model:
        """Return a model that nobody else holds as it is kept; large tensors may be taken out of `tensors`.

        With the `spec` of the model it is looked at once here, and not by the first who reads it.
        """
        if not self.holds:
            return wire.pack(tensors, keep=True, consume=True)
        return wire.hold({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, spec)

    def item(
        self, site: str, evaluate: list[str], *, train: bool = False, model: wire.Model | None = None
    ) -> dict[str, Any]:
        """Return this fold's part of a site's request, with the newest model or another."""
        packed = model or self.model
        content: dict[str, Any] = {
            "fold": self.number,
            "parameters": packed or self.start,
            "evaluate": evaluate,
            "train": train,
        }
        if packed is None and self.start and self.starts_partly:
            content["partial"] = True
        if self._has_private:
            content["private"] = self._private(site, packed)
        return content | (self.rate_to_tell() if train else {})

    def rate(self, round: int) -> float | None:
        """Return the learning rate of the round that comes next; None where it never changes."""
        return self._rates.in_round(round, self._plateau.values)

    def rate_to_tell(self) -> dict[str, float | None]:
        """Return what a request says of the learning rate: nothing where the sites know it from the round."""
        return {"lr": self.rate(self.rounds_done + 1)} if self._rates.on_plateau else {}

    def _private(self, site: str, packed: wire.Model | None) -> dict[str, Any]:
        """Say which version of a site's own layers goes with a model, and which others are still needed."""
        newest, best = (self._last_trained(site, number) for number in (self.rounds_done, self.best_round or 0))
        of_best = packed is not None and packed == self._best != self.model
        return {"round": best if of_best else newest, "keep": sorted({newest, best} - {0})}

    def _last_trained(self, site: str, number: int) -> int:
        """Return the last round up to this one in which a site helped to make the model; 0 where there was none."""
        rounds = [round for round, values in self._at_sites.get(site, {}).items() if "train_loss" in values]
        return max((round for round in rounds if round <= number and round not in self.waited), default=0)

    def score(self, states: States, round: int | None = None) -> None:
        """Take in the validation of the newest model, or of the one that `round` made: history, best model, early stop.

        The history has what the sites of the round say; rounds are compared over the sites that answered in both.
        """
        round = self.rounds_done if round is None else round
        model = dict(self._unscored)[round]
        merged = merge_by_name(states) if states else None
        metrics = scores_of(merged) if merged is not None else {}
        self.rounds_scored = round
        self._unscored = [(later, other) for later, other in self._unscored if later > round]
        # How many rounds had made a model by then.
        trained = self.history["round"].index(round) + 1
        for name, value in metrics.items():
            column = self.history.setdefault(f"validation_{name}", [])
            column.extend([None] * (trained - 1 - len(column)))
            column.append(value)
        self._uncomputed.append((round, states))
        self._uncomputed_rows += 0 if merged is None else merged["n"]
        if self._uncomputed_rows > _MOST_ROWS_KEPT:
            self._compute()
        if self._score.differs(states):
            self.uneven.append(round)
        self._plateau.take(metrics, states)
        score, is_best = self._score.take(metrics, states)
        if score is None:
            return
        if is_best:
            self._best, self.best_round = model if self._keep_best else None, round
        if self._reference is None or self._score.by(score, self._reference[0]) > self._stopping.min_delta:
            self._reference = (score, trained)
        patience = self._stopping.patience
        self.finished = patience is not None and trained - self._reference[1] >= patience

    def begin(self, model: wire.Model) -> None:
        """Take in the model that a pretraining made, for the first round to start from."""
        self.start, self.starts_partly = model, False

    def trained(self, site: str, round: int, loss: float) -> None:
        """Take in a site's mean training loss of a round."""
        self._note(site, round, {"train_loss": loss})

    def trained_together(self, sites: list[str], round: int, losses: list[float]) -> None:
        """Take in the mean training losses of several sites."""
        self._untold.append((sites, round, losses))

    def _note(self, site: str, round: int, values: dict[str, float]) -> None:
        self._at_sites.setdefault(site, {}).setdefault(round, {}).update(values)

    def _compute(self) -> None:
        """Compute what was measured at the sites and not looked at so far."""
        untold, self._untold = self._untold, []
        for sites, round, losses in untold:
            for site, loss in zip(sites, losses, strict=True):
                self.trained(site, round, loss)
        for round, states in self._uncomputed:
            for site, values in scores_by_name(states).items():
                known = {f"validation_{name}": value for name, value in values.items() if value is not None}
                self._note(site, round, known)
        self._uncomputed, self._uncomputed_rows = [], 0

    @property
    def at_sites(self) -> dict[str, dict[int, dict[str, float]]]:
        """Site to round to what was measured there; computed when somebody looks."""
        self._compute()
        return self._at_sites

    def advance(
        self,
        round: int,
        model: wire.Model,
        train_loss: float,
        average: wire.Model | None = None,
        lr: float | None = None,
        epsilon: float | None = None,
        trained_from: int | None = None,
    ) -> None:
        """Take in the model that a round made, the average over the rounds where that is kept, rate and epsilon.

        `trained_from` is the round whose model the sites trained, where that may be another than the one before.
        """
        self.model, self.rounds_done, self._average = model, round, average
        self._unscored = [*(self._unscored[-1:] if self.scored_later else []), (round, model)]
        self.history["round"].append(round)
        self.history["train_loss"].append(train_loss)
        if lr is not None:
            self.history.setdefault("train_lr", []).append(lr)
        if epsilon is not None:
            self.history.setdefault("epsilon", []).append(epsilon)
        if trained_from is not None:
            self.history.setdefault("trained_from", []).append(trained_from)

    def newest(self) -> dict[str, float | None]:
        """Return the newest known value of every column of the history."""
        return {name: column[-1] for name, column in self.history.items() if name != "round" and column}

    def at(self, round: int) -> dict[str, float | None]:
        """Return the history's row of a round; empty when the fold was not trained in it."""
        if round not in self.history["round"]:
            return {}
        row = self.history["round"].index(round)
        return {
            name: column[row] if row < len(column) else None for name, column in self.history.items() if name != "round"
        }

    def columns(self) -> dict[str, list[Any]]:
        """Return the history as columns of equal length; a round that was not validated has None."""
        rounds = len(self.history["round"])
        return {name: column + [None] * (rounds - len(column)) for name, column in self.history.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rounds have left: JSON, and packed models."""
        return {
            **{name: getattr(self, name) for name in _BOOKS},
            "start": self.start,
            "starts_partly": self.starts_partly,
            "samples": sorted(self.samples.items()),
            "at_sites": {site: sorted(rounds.items()) for site, rounds in self.at_sites.items()},
            "model": self.model,
            "unscored": self._unscored,
            "average": self._average,
            "best": self._best,
            "score": self._score.state_dict(),
            "plateau": self._plateau.state_dict(),
            "reference": self._reference,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name in _BOOKS:
            setattr(self, name, state[name])
        self.start, self.starts_partly = state["start"], state["starts_partly"]
        self.samples = {int(round): picture for round, picture in state["samples"]}
        self._untold, self._uncomputed, self._uncomputed_rows = [], [], 0
        self._at_sites = {
            site: {int(round): values for round, values in rounds} for site, rounds in state["at_sites"].items()
        }
        again: dict[str, wire.Held] = {}
        self.model, self._average, self._best = (
            self._as_kept(state[name], again) for name in ("model", "average", "best")
        )
        # Checkpoints of earlier versions lack them: it was the newest alone.
        newest = (
            [] if self.model is None or self.rounds_scored == self.rounds_done else [(self.rounds_done, self.model)]
        )
        self._unscored = [
            (int(round), cast("wire.Model", self._as_kept(model, again)))
            for round, model in state.get("unscored", newest)
        ]
        self._score.load_state_dict(state["score"])
        self._plateau.load_state_dict(state["plateau"])
        self._reference = None if state["reference"] is None else (state["reference"][0], state["reference"][1])

    def _as_kept(self, model: wire.Model | None, again: dict[str, wire.Held]) -> wire.Model | None:
        """Return a model of a checkpoint as it is kept; `again` has those that were read."""
        if not self.holds or not isinstance(model, str):
            return model
        return again.setdefault(model, again.get(model) or wire.hold(wire.unpack(model)))
